"""Patches of images, each at a place of its own image's, and what keeps a network from solving puzzles by their edges.

Positions are whole pixels, so that a patch is copied and never resampled.
"""

import itertools

import numpy as np
from keras import ops


def cut(images, top, left, size):
    """Square patches.

    Args:
        images: `(n, height, width, channels)`.
        top, left: whole numbers `(n, k)`, in pixels: the first row and column of each of an image's k patches.
        size: side of the patches in pixels.

    Returns:
        A list of k tensors `(n, size, size, channels)`.
    """
    _, height, width, channels = images.shape
    top, left = ops.cast(top, "int32"), ops.cast(left, "int32")
    side = ops.arange(size, dtype="int32")
    first = ops.arange(ops.shape(images)[0], dtype="int32")[:, None, None, None] * (height * width)
    rows = (top[:, :, None, None] + side[None, None, :, None]) * width
    columns = left[:, :, None, None] + side[None, None, None, :]
    pixels = ops.take(ops.reshape(images, (-1, channels)), first + rows + columns, axis=0)
    return [pixels[:, number] for number in range(top.shape[1])]


def normalized(patches, value_range):
    """Patches of one brightness and contrast, so that neither tells which are neighbors.

    Mean 0 and deviation 1 over each patch, brought back into the range that the backbone sees: the mean at its middle,
    two deviations at its ends, where it is cut off.

    Args:
        patches: `(n, size, size, channels)`.
        value_range: lowest and highest value of the images.

    Reference: Noroozi & Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", 2016,
    section 4.2.
    """
    low, high = value_range
    patches = ops.cast(patches, "float32")
    centered = patches - ops.mean(patches, axis=(1, 2, 3), keepdims=True)
    deviation = ops.sqrt(ops.mean(ops.square(centered), axis=(1, 2, 3), keepdims=True))
    # A patch of one color has no contrast to bring to 1.
    centered = centered / ops.maximum(deviation, 1e-3 * (high - low))
    return ops.clip(low + (high - low) * (0.5 + 0.25 * centered), low, high)


def drop_colours(patches, channel, noise):
    """Keeps one channel of each image and puts its mean, with a little noise, in the place of the others.

    Lenses bend colors apart towards the edges of a photograph, and a network can tell from that where a patch was.

    Args:
        patches: `(n, size, size, channels)`.
        channel: `(n,)`, which to keep.
        noise: `(n, size, size, channels)`, of deviation 1; a hundredth of the kept channel's deviation is used.

    Reference: Doersch et al., "Unsupervised Visual Representation Learning by Context Prediction", 2015, section 3.1.
    """
    patches, noise = ops.cast(patches, "float32"), ops.cast(noise, "float32")
    channels = patches.shape[-1]
    kept = ops.cast(ops.equal(ops.cast(channel, "int32")[:, None], ops.arange(channels, dtype="int32")), "float32")
    kept = kept[:, None, None, :]
    one = ops.sum(patches * kept, axis=-1, keepdims=True)
    mean = ops.mean(one, axis=(1, 2), keepdims=True)
    deviation = ops.sqrt(ops.mean(ops.square(one - mean), axis=(1, 2), keepdims=True))
    return kept * patches + (1.0 - kept) * (mean + 0.01 * deviation * noise)


def permutations(pieces, count, candidates=20_000):
    """Orders of so many pieces that are as different from each other as a greedy choice makes them.

    Each next one has the largest Hamming distance to the nearest of those chosen; of equals, the largest mean to all.
    (The paper's algorithm 1 goes by the mean alone, and its 100 orders of 9 pieces have pairs that differ in two
    places; these differ in six or more, at the same mean.) Where there are more orders than `candidates`, it is chosen
    among so many random ones, always the same.

    Args:
        pieces: 2 or more.
        count: how many orders, at most `pieces!`.

    Returns:
        int32 `(count, pieces)`.

    Reference: Noroozi & Favaro, 2016, algorithm 1.
    """
    total = 1
    for number in range(2, pieces + 1):
        total *= number
    if not 2 <= count <= total:
        raise ValueError(
            f"`permutations` must lie between 2 and the {total:,} orders of {pieces} pieces; it is {count}."
        )
    if total <= candidates:
        orders = np.array(list(itertools.permutations(range(pieces))), "int32")
    else:
        orders = np.argsort(np.random.RandomState(0).rand(candidates, pieces), axis=1).astype("int32")
        orders = np.unique(orders, axis=0)
        if count > len(orders):
            raise ValueError(
                f"`permutations` is {count:,}: at most {len(orders):,} of {pieces} pieces are chosen from."
            )
    chosen, total, least = [0], np.zeros(len(orders), int), np.full(len(orders), pieces)
    for _ in range(count - 1):
        distance = (orders != orders[chosen[-1]]).sum(axis=1)
        total, least = total + distance, np.minimum(least, distance)
        chosen.append(int(np.argmax(least * pieces * count + total)))
    return orders[chosen]
