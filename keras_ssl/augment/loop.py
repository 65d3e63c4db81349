"""Views image by image, in one compiled loop: how a CPU makes them fast.

A batch of photographs doesn't fit into a processor's cache, so layer by layer each operation waits for memory, and it
changes all images, also those whose draw left them alone. Image by image all that is touched stays in the cache, and a
condition skips what was not drawn. An accelerator wants the opposite, thousands of pixels at a time: there, and where
nothing is compiled, the layers run batch by batch (on torch a few images at a time, `chunks`). `runs` decides.

A layer takes part if `image_by_image` is true for it. One that has a way of its own for a single image writes
`transform_image`. The draws are the same, bit for bit; the arithmetic is the same up to rounding.
"""

from keras import ops

from keras_ssl import backend
from keras_ssl.augment.geometry import RandomHorizontalFlip, RandomResizedCrop
from keras_ssl.augment.layer import RandomApply


def runs(branch, images):
    """Whether a branch of views is to be made by the loop: the one place that decides it.

    Args:
        branch: a list of layers.
        images: the tensor that they will be given.

    Returns:
        Whether this is a step that is being traced for a CPU (`backend.loops_over_images`), on images of a known size,
        and all layers can do it, one of them faster than in a batch. Flips alone, say, are as fast batch by batch.
    """
    return (
        len(images.shape) == 4
        and None not in images.shape[1:]
        and all(map(takes_part, branch))
        and any(layer.faster_by_image for layer in branch)
        and backend.loops_over_images(images)
    )


def takes_part(layer, way="image_by_image"):
    """Whether a layer may be called another way than with a batch: by the class that wrote what it does to a batch.

    Args:
        way: the attribute that tells it: "image_by_image" for this loop, "transform_planes" for a few images at a time.
    """
    for kind in type(layer).__mro__:
        if way in vars(kind):
            parts = layer.layers if isinstance(layer, RandomApply) else ()
            mine = bool(vars(kind)[way]) and layer.compute_dtype == "float32"
            return mine and all(takes_part(part, way) for part in parts)
        if "transform" in vars(kind) or "call" in vars(kind):  # a subclass that changes what the layer does
            return False
    return False


def make_views(branches, images, rng):
    """The views of branches for which `runs` is true.

    Args:
        branches: lists of layers by the numbers of their views. All make one size: one program has one.
        images: `(n, height, width, channels)` of any type.
        rng: `RowRNG` of n rows.

    Returns:
        A dict of the numbers to float32 `(n, height, width, channels)`.
    """
    numbers, branches = list(branches), list(branches.values())
    purposes = [("view", number) for number in numbers]
    shared = _shared(branches)
    tails = [branch[shared:] for branch in branches]

    def one(image, place, view):
        # One program for what the views share, for it is compiling that takes time.
        mine = rng.of_row(place).choose(purposes, view)
        image = apply_to_image(branches[0][:shared], image, mine)
        if not any(tails):
            return image
        rest = [lambda image, tail=tail: apply_to_image(tail, image, mine, shared) for tail in tails]
        return ops.switch(view, rest, ops.cast(image, "float32"))

    return dict(zip(numbers, backend.loop_over_images(one, images, len(branches))))


def _shared(branches):
    """How many layers, from the first on, are alike in all branches."""
    alike = [all(_same(layer, first) for layer in others) for first, *others in zip(*branches)]
    return (alike + [False]).index(False)


def _same(layer, other):
    if layer is other:
        return True
    # Lists that were saved hold copies. Of a layer that isn't ours nobody knows whether its configuration is all.
    ours = type(layer) is type(other) and type(layer).__module__.startswith(__package__)
    return ours and {**layer.get_config(), "name": None} == {**other.get_config(), "name": None}


def apply_to_image(layers, image, rng, first=0):
    """`layer.apply_layers` for one image, of which `rng` has the row.

    Args:
        first: the place of the first of these layers in its list.
    """
    places = iter(range(len(layers)))
    for place in places:
        layer, following = layers[place], layers[place + 1] if place + 1 < len(layers) else None
        mine = rng.fold_in(first + place)
        if type(layer) is RandomResizedCrop and type(following) is RandomHorizontalFlip:
            # A crop reads its columns from any place: from the last to the first costs nothing.
            mirrored = _draws(following, rng.fold_in(first + next(places)))
            image = layer.transform_image(image, mine.fold_in("transform"), mirrored)
            continue
        if not isinstance(layer, RandomResizedCrop):  # which reads a part of it alone
            image = ops.cast(image, "float32")
        image = _apply_to_image(layer, image, mine)
    return image


def _draws(layer, rng):
    return rng.bernoulli("apply", layer.probability)[0]


def _apply_to_image(layer, image, rng):
    def changed(image):
        inner = rng.fold_in("transform")
        if isinstance(layer, RandomApply):
            return apply_to_image(layer.layers, image, inner)
        return layer.transform_image(image, inner)

    if layer.probability == 1.0:
        return changed(image)
    # Once or not at all: a loop leaves an image where it lies, and a condition would copy it.
    times = ops.cast(_draws(layer, rng), "int32")
    return ops.fori_loop(0, times, lambda _, image: changed(image), image)
