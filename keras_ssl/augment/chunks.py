"""Views a few images at a time, where nothing is compiled: how torch makes them fast on a CPU.

A batch of photographs doesn't fit into a processor's cache, so layer by layer each operation waits for memory, and it
changes all images, also those whose draw left them alone. Here all layers of a view change a few images, which stay in
the cache, before the next few are begun, and each layer changes the images alone that drew it. The draws are those of
the batch, made at once; the arithmetic is the same up to rounding.

A layer takes part by a `transform_planes`.
"""

import functools

from keras_ssl import backend
from keras_ssl.augment.geometry import RandomResizedCrop
from keras_ssl.augment.layer import RandomApply, RandomLayer, plane_changes


def runs(branch, images, rng):
    """Whether a view is to be made here: the one place that decides it.

    Args:
        branch: a list of layers.
        images: the tensor that they will be given.
        rng: the draws.
    """
    return (
        backend.planes is not None
        and len(images.shape) == 4
        and backend.planes.serves(images, rng.rows)
        and all(map(takes_part, branch))
    )


def takes_part(layer):
    """Whether a layer can change planes: by the class that wrote what the layer does to a batch."""
    for kind in type(layer).__mro__:
        if "transform_planes" in vars(kind):
            parts = layer.layers if isinstance(layer, RandomApply) else ()
            return kind is not RandomLayer and layer.compute_dtype == "float32" and all(map(takes_part, parts))
        if "transform" in vars(kind) or "call" in vars(kind):  # a subclass that changes what the layer does
            return False
    return False


def make_view(layers, images, rng):
    """`layers.apply_layers`, of images for which `runs` is true, of any type."""
    shape = tuple(images.shape)
    change = plane_changes(layers, shape, rng)
    if not layers or not isinstance(layers[0], RandomResizedCrop):  # which reads its boxes alone
        change = functools.partial(_read_and, change)
    for layer in layers:
        shape = layer.compute_output_shape(shape)
    return backend.planes.make(images, shape[1:3], change)


def _read_and(change, planes, rows):
    return change(backend.planes.read(planes), rows)
