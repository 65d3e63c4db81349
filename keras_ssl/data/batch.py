"""A batch in the library's own form, and what is checked of one.

Inside of the library a batch is a dict: `"image"`, or `"views"` made by the user; with `"label"` or, for given pairs,
`"same"` where there are any; with `"index"`, an image's number, for methods that need it.
"""

import keras
import numpy as np
from keras import ops

from keras_ssl.data.lazy import LazyArray
from keras_ssl.data.split import Split

_KEYS = ("image", "views", "label", "same", "index")


def standard_batch(batch):
    """Any form in which a user gives a batch (or whole arrays) as the library's dict.

    Args:
        batch: `images`, `(images,)`, `(images, labels)`, a dict, `(dict,)` or `(dict, labels)`; arrays or tensors.
    """
    labels = None
    if isinstance(batch, (tuple, list)):
        if len(batch) == 3 and batch[2] is not None:
            raise ValueError("Sample weights have no meaning for self-supervised losses: give (images, labels).")
        if not 1 <= len(batch) <= 3:
            raise ValueError(f"A batch is images, (images, labels) or a dict; this one is a tuple of {len(batch)}.")
        batch, labels = (*batch, None)[:2]
    if isinstance(batch, dict):
        given = dict(batch)
        if labels is not None:
            given["label"] = labels
    else:
        given = {"image": batch} if labels is None else {"image": batch, "label": labels}
        _check_pair(batch, labels)
    unknown = sorted(set(given) - set(_KEYS))
    if unknown or ("image" in given) == ("views" in given):
        raise ValueError(
            'A batch as a dict has "image" or "views", and may have "label" or "same"; this one has '
            f"{sorted(given)}. For views of your own write {{'views': (view_a, view_b)}}."
        )
    if "views" in given:
        views = given["views"]
        if not isinstance(views, (tuple, list)) or len(views) < 2:
            raise ValueError('"views" must be a tuple of two arrays or more, one a view.')
        given["views"] = tuple(views)
    return {name: value for name, value in given.items() if value is not None}


def _check_pair(images, labels):
    shape = getattr(labels, "shape", None)
    if shape is None:
        return
    if len(shape) >= 3 or (len(shape) == 2 and tuple(shape)[1:] == tuple(images.shape)[1:]):
        raise ValueError(
            f"A pair of shapes {tuple(images.shape)} and {tuple(shape)} looks like two views, and Keras would read the "
            "second as labels. Write {'views': (view_a, view_b)} for views of your own, or give the images alone."
        )


def whole_set(x, y, needs, what):
    """A set of arrays, as a user gives it to `fit`, as one batch in the library's form.

    Args:
        x: images, a dict, or a `Split` of arrays.
        y: labels, or None.
        needs: `keras_ssl.data.adapter.Needs`.
        what: the argument that this is, for messages.
    """
    if isinstance(x, Split) and x.dataset is None:
        x, y = x.images, x.labels if needs.labels and y is None else y
    if not isinstance(x, (dict, tuple, list)) and hasattr(x, "__iter__") and not hasattr(x, "shape"):
        raise ValueError(f"`{what}` needs arrays, and this is a {type(x).__name__}: split the stream yourself.")
    if isinstance(x, (tuple, list)) and y is None:
        raise ValueError(
            f"`{what}` is a bare {type(x).__name__} of {len(x)}. Write fit(images, labels) for labels, or "
            '{"views": (view_a, view_b)} for views of your own.'
        )
    return keras.tree.map_structure(_array_like, standard_batch(x if y is None else (x, y)))


def checked_set(x, y, needs, what):
    """A set of arrays in the library's form, checked, and with the parts that the method uses.

    Args:
        x, y, needs, what: as of `whole_set`.

    Returns:
        `(arrays, parts)`: a batch that holds the whole set, and the names of all parts that were given.
    """
    arrays = whole_set(x, y, needs, what)
    parts = set(arrays)
    check_parts({*parts, "index"}, needs, what)
    rows = {len(array) for array in keras.tree.flatten(arrays)}
    if len(rows) > 1:
        raise ValueError(f"`{what}`: images, views and labels must be of one length; they have {sorted(rows)}.")
    if needs.labels:
        check_labels(needs.method, arrays["label"], what)
    if needs.index and "index" not in arrays:
        if what == "validation_data":
            raise ValueError(
                f"`validation_data`: {needs.method} makes each training image a class, and held-out images belong to "
                "none: leave it out."
            )
        arrays["index"] = np.arange(rows.pop(), dtype="int32")
    arrays = {name: part for name, part in arrays.items() if name in needs.parts}
    check_batch(arrays, needs.value_range, what)
    return arrays, parts


def check_parts(parts, needs, what):
    if needs.labels and "label" not in parts:
        raise ValueError(
            f"`{what}`: {needs.method} was made with labels=True and needs them: write fit(images, labels)."
        )
    if needs.index and "index" not in parts:
        raise ValueError(
            f'`{what}`: {needs.method} makes each image a class, and needs its number: {{"image": …, "index": …}}.'
        )


def check_images(images, value_range, what="images"):
    """Refuses NaN, and values outside of the range (or so far inside that the range must be wrong)."""
    low, high = value_range
    if images.dtype == np.uint8 and low <= 0.0 and high >= 255.0:
        return
    smallest, largest = float(np.min(images)), float(np.max(images))
    if not np.isfinite(smallest) or not np.isfinite(largest):
        raise ValueError(f"`{what}` hold NaN or infinite values: remove those images, or repair them, before training.")
    slack = 1e-3 * (high - low)  # a resize with a cubic kernel may pass the ends a little
    if smallest < low - slack or largest > high + slack:
        raise ValueError(
            f"`{what}` lie in [{smallest:g}, {largest:g}], outside of the model's value_range=({low:g}, {high:g}). "
            "Pass the range that they have, such as value_range=(0, 1), or bring them into this one."
        )
    if (low, high) == (0.0, 255.0) and images.dtype.kind == "f" and 0.0 < largest <= 1.0:
        raise ValueError(
            f"`{what}` lie in [{smallest:g}, {largest:g}], and the model's value_range is (0, 255), where that is all "
            "black. Pass value_range=(0, 1), or multiply by 255."
        )


def check_batch(batch, value_range, what=None):
    """Checks the images of a batch in the library's form; files are checked when they are read.

    Args:
        what: the argument that it was given as; None for the name of its part.
    """
    for name in ("image", "views"):
        for images in keras.tree.flatten(batch.get(name, ())):
            if not isinstance(images, LazyArray):
                check_images(images, value_range, what or name)


def check_labels(method, labels, what):
    """Refuses labels that make no pairs, where a method makes its pairs by labels."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iub" or labels.ndim not in (1, 2) or (labels.ndim == 2 and labels.shape[1] != 1):
        raise ValueError(
            f"`{what}`: labels must be one integer an image, and are {labels.dtype} of shape {labels.shape}: write "
            'labels.astype("int32"), or argmax(axis=1) for one-hot rows.'
        )
    _, counts = np.unique(labels, return_counts=True)
    if len(counts) < 2 or counts.max() < 2:
        nothing = "all images have one label" if len(counts) < 2 else "no two images have one label"
        raise ValueError(f"`{what}`: {nothing}, so there is nothing for {method} to learn from labels.")


def image_shape(input_shape):
    """The shape of the images in whatever shapes Keras gives to `build`: a shape, or a dict of shapes."""
    if isinstance(input_shape, dict):
        input_shape = input_shape.get("image") or input_shape.get("views")
    if input_shape and isinstance(input_shape[0], (tuple, list)):
        input_shape = input_shape[0]
    return tuple(input_shape) if input_shape else None


def _array_like(array):
    if hasattr(array, "__array_interface__") or isinstance(array, LazyArray):
        return array
    return ops.convert_to_numpy(array)
