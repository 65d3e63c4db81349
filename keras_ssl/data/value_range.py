"""The one check of images: no NaN, no value outside of the range, none so far inside that the range must be wrong.

Whatever takes images asks it. On TensorFlow a stream is checked in its graph by the same sentences.
"""

import numpy as np
from keras import ops

# A resize with a cubic kernel may pass the ends of the range a little: by this share of it.
SLACK = 1e-3
# 0 … 1 in a range of 0 … 255, and 0 … 1/255 in one of 0 … 1: all black.
FAR_INSIDE = 1.0 / 255.0

NOT_FINITE = "`{what}` hold NaN or infinite values: remove those images, or repair them, before training."
OUTSIDE = (
    "`{what}` lie in [{smallest}, {largest}], outside of the model's value_range=({low:g}, {high:g}). Pass the range "
    "that they have, such as value_range=(0, 1), or bring them into this one."
)
INSIDE = (
    "`{what}` lie in [{smallest}, {largest}], and the model's value_range is ({low:g}, {high:g}), where that is all "
    "black. Pass value_range=({new_low:g}, {new_high:g}) if this is meant, or multiply by {factor:g}."
)
NO_NUMBERS = (
    "`{what}` have the dtype {dtype} and the shape {shape}, and images are one array of numbers, uint8 or float: "
    'np.stack(images) makes one of images of one size, images.astype("uint8") numbers of objects.'
)
CHANNELS_FIRST = (
    "`{what}` have the shape {shape}, with the channels first; Keras takes them last: images.permute(0, 2, 3, 1) in "
    "torch, np.transpose(images, (0, 2, 3, 1)) in numpy."
)


def check_images(images, value_range, what="images"):
    """Raises `ValueError` for images that can't be right.

    Args:
        images: an array `(n, …)` of any dtype.
        value_range: `(lowest, highest)`, or None where it is not known: then only NaN and the shape are asked for.
        what: the argument that they were given as.
    """
    check_numbers(images, what)
    if 0 in images.shape[1:]:
        raise ValueError(f"`{what}` have the shape {tuple(images.shape)}, with a side of 0: there is nothing in them.")
    check_channels_last(images.shape, what)
    if not np.size(images):
        return
    if has_ends(value_range) and images.dtype == np.uint8 and _bytes_are_right(images, *value_range):
        return
    smallest, largest = float(np.min(images)), float(np.max(images))
    if not np.isfinite(smallest) or not np.isfinite(largest):
        raise ValueError(NOT_FINITE.format(what=what))
    if not has_ends(value_range):
        return
    low, high = value_range
    ends = {"what": what, "smallest": f"{smallest:g}", "largest": f"{largest:g}", "low": low, "high": high}
    if is_outside(smallest, largest, low, high):
        raise ValueError(OUTSIDE.format(**ends))
    if is_far_inside(largest, low, high):
        raise ValueError(INSIDE.format(**ends, **way_out(high)))


def check_numbers(images, what="images"):
    """Raises `ValueError` for an array of Python objects or words, such as numpy makes of images of several sizes."""
    kind = getattr(getattr(images, "dtype", None), "kind", "f")
    if kind not in "fiubV":  # V: bfloat16, which numpy has no letter for
        raise ValueError(NO_NUMBERS.format(what=what, dtype=images.dtype, shape=tuple(images.shape)))


def has_ends(value_range):
    """Whether there is a range: series and other inputs without one have None, or (−∞, ∞)."""
    return value_range is not None and np.isfinite(value_range).all()


def _bytes_are_right(images, low, high):
    """Whether bytes need no further look: they can't leave 0 … 255, and one image that uses it is enough."""
    if low > 0.0 or high < 255.0:
        return False
    parts = (images[start : start + 256] for start in range(0, len(images), 256))
    return any(not is_far_inside(float(np.max(part)), low, high) and np.any(part) for part in parts)


def is_outside(smallest, largest, low, high):
    slack = SLACK * (high - low)
    return (smallest < low - slack) | (largest > high + slack)


def is_far_inside(largest, low, high):
    """Whether images that are not all 0 use the lowest 255th of a range that begins at 0."""
    return (largest > 0.0) & (largest <= high * FAR_INSIDE) if low == 0.0 else False


def way_out(high):
    """The range that images far inside of (0, high) probably have, and the factor that brings them into it."""
    return {"new_low": 0, "new_high": high * FAR_INSIDE, "factor": 1.0 / FAR_INSIDE}


def check_channels_last(shape, what="images"):
    """Raises `ValueError` for the shape of images as torch has them, `(n, channels, height, width)`."""
    shape = tuple(shape)
    if len(shape) == 4 and shape[1] in (1, 3) and None not in shape[2:] and shape[3] > 4 and shape[2] > 4:
        raise ValueError(CHANNELS_FIRST.format(what=what, shape=shape))


def concrete(images):
    """Images as an array, or None while a step is traced and there are no numbers yet."""
    if hasattr(images, "__array_interface__"):
        return images
    try:
        return ops.convert_to_numpy(images)
    except Exception:  # each backend has an error of its own for a symbolic tensor
        return None
