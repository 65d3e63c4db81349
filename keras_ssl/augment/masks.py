"""Masks of patches, drawn for each row, and the way from images to patches and back.

All of it is for one, two or three inner axes: series, images and volumes. Patches are counted row by row.
"""

import math

import numpy as np
from keras import ops


def mask_order(rng, grid, blocks=None):
    """In which order the patches of each row are masked: the first so many are, the last are left to be seen.

    The numbers compared are integers, so that the order is the same on every backend.

    Args:
        rng: `RowRNG` of the rows.
        grid: how many patches lie along each axis.
        blocks: None for patches at random. A number for boxes of patches: so many places are drawn, each with the
            shape of its box, sides from 1 to 10/3 of each other, and the boxes grow around them, at one pace, until
            together they hold enough patches.

    Returns:
        int32 `(n, patches)`: each row a permutation.

    Reference: of blocks, their shapes: Bao et al., "BEiT: BERT Pre-Training of Image Transformers", 2022, algorithm 1;
    there each box has a size of its own, and rows differ in how many patches they mask.
    """
    count = math.prod(grid)
    order = rng.permutation("mask", count)
    if blocks is None:
        return order
    away = None
    for number in range(blocks):
        draws = rng.fold_in("block", number)
        sides = [_distance(draws, axis, place, size) for axis, (place, size) in enumerate(zip(np.indices(grid), grid))]
        farthest = sides[0]
        for side in sides[1:]:
            farthest = ops.maximum(farthest, side)
        away = farthest if away is None else ops.minimum(away, farthest)
    # Of patches that are equally far, the random order decides.
    return ops.cast(ops.argsort(away * count + order, axis=1), "int32")


def order_and_count(rng, grid, ratios, probability=1.0, blocks=None):
    """In which order the patches of each row are masked, and how many of the first are, a number of its own for each.

    Args:
        rng, grid, blocks: as of `mask_order`.
        ratios: the smallest and the largest share of the patches, as of `count_of`.
        probability: how likely a row has a mask.

    Returns:
        int32 `(n, patches)` and `(n, 1)`, for `first_of`.
    """
    least, most = (count_of(ratio, math.prod(grid)) for ratio in ratios)
    # One multiplication and then integers: the same count on every backend.
    count = least + ops.cast(rng.uniform("count") * (most - least + 1), "int32")
    return mask_order(rng, grid, blocks), ops.where(rng.uniform("hide") < probability, count, 0)[:, None]


def count_of(ratio, patches):
    """A share of so many patches, rounded down, one at least; 0.3 of 10 is 3, whatever floating point makes of it."""
    return max(1, int(round(ratio * patches, 6)))


def _distance(rng, axis, places, size):
    """How far each patch is from a place of each row, along one axis, in a unit of each row: int32 `(n, patches)`."""
    center = ops.cast(rng.uniform(f"center {axis}") * (2 * size - 1), "int32")
    unit = 3 + ops.cast(rng.uniform(f"unit {axis}") * 8, "int32")
    places = ops.convert_to_tensor(np.int32(2) * places.reshape(1, -1).astype("int32"))
    return ops.abs(places - center[:, None]) * unit[:, None]


def first_of(order, count):
    """Boolean `(n, patches)`: whether a patch is among the first so many of its row's order: a number, or `(n, 1)`."""
    return ops.argsort(order, axis=1) < count


def patches_of(images, patch):
    """Images cut into patches.

    Args:
        images: `(n, height, width, channels)`, or with one or three inner axes, which `patch` divides.
        patch: the sides of a patch.

    Returns:
        `(n, patches, numbers of a patch)`, the channels of a pixel side by side.
    """
    grid = _grid(images.shape, patch)
    cut = [part for pair in zip(grid, patch) for part in pair]
    images = ops.reshape(images, (-1, *cut, images.shape[-1]))
    outer, inner = range(1, 2 * len(grid), 2), range(2, 2 * len(grid) + 1, 2)
    images = ops.transpose(images, (0, *outer, *inner, 2 * len(grid) + 1))
    return ops.reshape(images, (-1, math.prod(grid), math.prod(patch) * images.shape[-1]))


def images_of(patches, grid, patch):
    """The images that `patches_of` cut.

    Args:
        patches: `(n, patches, numbers of a patch)`.
        grid: how many patches lie along each axis.
        patch: the sides of a patch.
    """
    channels = patches.shape[-1] // math.prod(patch)
    patches = ops.reshape(patches, (-1, *grid, *patch, channels))
    order = [axis for pair in zip(range(len(grid)), range(len(grid), 2 * len(grid))) for axis in pair]
    patches = ops.transpose(patches, (0, *(1 + axis for axis in order), 2 * len(grid) + 1))
    return ops.reshape(patches, (-1, *(a * b for a, b in zip(grid, patch)), channels))


def painted(images, hidden, patch, color):
    """Images with hidden patches in one color.

    Args:
        images: `(n, height, width, channels)`, or with one or three inner axes.
        hidden: boolean `(n, patches)`.
        patch: the sides of a patch.
        color: the value of a pixel.
    """
    return images_of(ops.where(hidden[:, :, None], color, patches_of(images, patch)), _grid(images.shape, patch), patch)


def finer(mask, grid, times):
    """A mask of patches as one of smaller patches: each is cut into `times` parts along each axis.

    Args:
        mask: `(n, patches)`.
        grid: how many patches lie along each axis.
        times: a number for each axis.
    """
    mask = ops.reshape(mask, (-1, *grid))
    for axis, number in enumerate(times, 1):
        mask = ops.repeat(mask, number, axis=axis)
    return ops.reshape(mask, (-1, math.prod(grid) * math.prod(times)))


def masked_count(owner, mask_ratio, patches, up=False):
    """How many of so many patches are masked; one at least is, and one at least is not.

    Args:
        owner: for the error.
        mask_ratio: in (0, 1).
        patches: 2 or more.
        up: round half-masked patches up and not down to what is seen.

    Raises:
        ValueError: a ratio out of range, or fewer than two patches.
    """
    if not 0.0 < mask_ratio < 1.0:
        raise ValueError(f"{owner}: `mask_ratio` is a share, in (0, 1); it is {mask_ratio!r}.")
    if patches < 2:
        raise ValueError(f"{owner}: the images are one patch, of which none can be masked and seen: take smaller ones.")
    # Rounded first: 10 · (1 − 0.9) is a little less than 1.
    masked = math.ceil(round(patches * mask_ratio, 6)) if up else patches - int(round(patches * (1 - mask_ratio), 6))
    return min(max(masked, 1), patches - 1)


def check_blocks(owner, blocks):
    """Raises `ValueError` for a number of blocks that is none."""
    if blocks is not None and not (isinstance(blocks, int) and blocks > 0):
        raise ValueError(f"{owner}: `blocks` is None, for patches at random, or a number of boxes; it is {blocks!r}.")


def check_ratios(owner, mask_ratio, mask_probability):
    """Raises `ValueError` for shares of `order_and_count` out of range."""
    two = isinstance(mask_ratio, (tuple, list)) and len(mask_ratio) == 2
    if not two or not 0.0 <= mask_ratio[0] <= mask_ratio[1] < 1.0 or mask_ratio[1] == 0.0:
        raise ValueError(
            f"{owner}: `mask_ratio` is the smallest and the largest share, within [0, 1), such as (0.1, 0.5), or "
            f"(0.3, 0.3) for one share; it is {mask_ratio!r}."
        )
    if not (isinstance(mask_probability, (int, float)) and 0.0 < mask_probability <= 1.0):
        raise ValueError(f"{owner}: `mask_probability` must lie above 0, up to 1; it is {mask_probability!r}.")


def scaled(images, value_range):
    """Images in the units in which losses of pixels are taken: [−1, 1], and inputs without a range as they are."""
    middle, half = _middle(value_range)
    return (ops.cast(images, "float32") - middle) / half


def unscaled(images, value_range):
    """The images of what `scaled` gave; what lies outside of the range is cut off."""
    middle, half = _middle(value_range)
    return ops.clip(images * half + middle, *map(float, value_range))


def gray(value_range):
    """The middle of the range; 0 where there is none."""
    return _middle(value_range)[0]


def _middle(value_range):
    low, high = value_range
    return ((low + high) / 2.0, (high - low) / 2.0) if math.isfinite(high - low) else (0.0, 1.0)


def _grid(shape, patch):
    return tuple(side // of for side, of in zip(shape[1:-1], patch))
