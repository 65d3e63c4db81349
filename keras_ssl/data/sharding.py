"""A global batch over several replicas and processes: what does not divide, or is not the same in all, is refused."""

import zlib

import keras
import numpy as np

from keras_ssl import backend


def check_size(model, rows, batch_size, what):
    """Refuses a global batch that can't be cut into equal parts, one a replica.

    Args:
        rows: images there are, or None for a stream.
        batch_size: images of a global batch.
        what: the argument that they were given as.
    """
    replicas = backend.replicas_of(model)
    if rows is not None and rows < replicas:
        raise ValueError(f"`{what}` holds {rows} images for {replicas} replicas: each needs one or more a batch.")
    if batch_size % replicas:
        below = batch_size // replicas * replicas
        near = " or ".join(str(size) for size in (below, below + replicas) if size)
        raise ValueError(
            f"A global batch of {batch_size} images (`{what}`) does not divide among {replicas} replicas: make it "
            f"{near}. `batch_size` counts the images of all replicas together."
        )


def check_same(model, images, about, what):
    """Refuses arrays that are not the same in all processes that train together.

    Args:
        images: a batch, or the whole set, in standard form.
        about: numbers that must be equal as well, by name.
        what: the argument that they were given as.
    """
    if backend.processes_of(model)[0] == 1:  # the checksum reads pictures from disk
        return
    gathered = backend.all_gather_ints(model, [_checksum(images), *about.values()])
    for place, name in enumerate((None, *about)):
        if len(set(gathered[:, place].tolist())) > 1:
            raise ValueError(
                f"`{what}` is not the same in all {len(gathered)} processes: "
                + (f"{name} is {gathered[:, place].tolist()}. " if name else "the images differ. ")
                + "Each process is given the whole set (or, on TensorFlow, the global batches of one stream) in one "
                "order, and takes its own rows of it. If the processes hold different images, give them as a stream "
                "of this process's share: on JAX and torch a keras.utils.PyDataset or a tf.data.Dataset, on "
                "TensorFlow a tf.data.Dataset with AutoShardPolicy.OFF."
            )


def check_shared_out(model, batch, about, what):
    """Refuses streams that give the same images to several processes: each image would be in the batch several times.

    Args:
        batch: the first batch, in standard form.
        about: numbers that must be equal in all processes, by name.
        what: the argument that they were given as.
    """
    gathered = backend.all_gather_ints(model, [_checksum(batch), *about.values()])
    if gathered is None:
        return
    for place, name in enumerate(about, start=1):
        if len(set(gathered[:, place].tolist())) > 1:
            raise ValueError(
                f"`{what}`: {name} is {gathered[:, place].tolist()} in the {len(gathered)} processes: make them "
                "equal, or the processes would wait for each other forever."
            )
    sums = gathered[:, 0].tolist()
    if len(set(sums)) < len(sums):
        raise ValueError(
            f"`{what}`: the first batch is the same in several processes. A stream gives each process its own share, "
            "and Keras would train on these images twice, as negatives of themselves. Give this process's share, such "
            f"as {backend.HOW_TO_SHARE_A_STREAM}, or give the images as an array, which is cut into shares by itself."
        )


def _checksum(images):
    """A number for what arrays hold, of shapes, types and 16 rows: it tells sets apart, not single pixels."""
    total = 0
    for array in keras.tree.flatten(images):
        total = zlib.crc32(f"{tuple(array.shape)} {array.dtype}".encode(), total)
        for row in np.unique(np.linspace(0, len(array) - 1, 16).astype(int)):
            total = zlib.crc32(np.ascontiguousarray(array[row : row + 1]).tobytes(), total)
    return total & 0x7FFFFFFF
