"""Views a few images at a time, where nothing is compiled: how torch makes them fast on a CPU.

A batch of photographs doesn't fit into a processor's cache, so layer by layer each operation waits for memory, and it
changes all images, also those whose draw left them alone. Here all layers of a view change a few images, which stay in
the cache, before the next few are begun, and each layer changes the images alone that drew it. The draws are those of
the batch, made at once; the arithmetic is the same up to rounding.

A layer takes part by a `transform_planes` of its own.
"""

import functools

from keras_ssl import backend
from keras_ssl.augment import loop
from keras_ssl.augment.geometry import RandomResizedCrop
from keras_ssl.augment.layer import output_shape, plane_changes


def runs(branch, images, rng):
    """Whether a branch of views is to be made here: the one place that decides it, after `loop.runs`.

    Args:
        branch: a list of layers.
        images: the tensor that they will be given.
        rng: the draws.
    """
    return (
        backend.planes is not None
        and len(images.shape) == 4
        and all(loop.takes_part(layer, "transform_planes") for layer in branch)
        and backend.planes.serves(images, rng.rows)
    )


def make_views(branches, images, rng):
    """The views of branches for which `runs` is true; as `loop.make_views`, but of any sizes."""
    rng = rng.on_host()
    return {number: _view(branch, images, rng.fold_in("view", number)) for number, branch in branches.items()}


def _view(layers, images, rng):
    change = plane_changes(layers, tuple(images.shape), rng)
    if not layers or not isinstance(layers[0], RandomResizedCrop):  # which reads its boxes alone
        change = functools.partial(_read_and, change)
    return backend.planes.make(images, output_shape(layers, images.shape)[1:3], change)


def _read_and(change, planes, rows):
    return change(backend.planes.read(planes), rows)
