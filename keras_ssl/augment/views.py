"""Several random views of every image."""

import copy

import keras
from keras import ops

from keras_ssl.augment import chunks, loop
from keras_ssl.augment.layer import (
    apply_layers,
    build_layer,
    check_channels_last,
    checked_layers,
    output_shape,
    refuse_other_graphs,
)
from keras_ssl.augment.rng import RowRNG
from keras_ssl.backbones import check_sizes
from keras_ssl.keras_compat import flatten_layers
from keras_ssl.shapes import by_size, sizes_in_words


def as_views(views, counts=None):
    """`Views` of all that a method takes as `views`.

    Args:
        views: `Views`, as they are; or one list of layers for each view of an image: a Keras layer, a list of layers,
            or a `keras.Sequential` or `keras.layers.Pipeline` of them. Each view has draws of its own.
        counts: how many views the method takes, a tuple of numbers, of which the smallest is made; None for any: two.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(views, Views):
        return views
    if not isinstance(views, (keras.layers.Layer, list, tuple)) or not views:
        raise TypeError(
            "`views` must be keras_ssl.augment.Views, such as keras_ssl.augment.simclr(32), a Keras layer or a list of "
            f"layers; it is {views!r}."
        )
    if isinstance(views, (list, tuple)) and all(isinstance(branch, (list, tuple)) for branch in views):
        raise TypeError(
            f"`views` is a {type(views).__name__} of {len(views)} lists: write Views(*views) for a view each."
        )
    layers = _flat(checked_layers(views if isinstance(views, (list, tuple)) else [views]))
    return Views(*[layers] * (min(counts) if counts else 2))


def _flat(layers):
    """Layers, with those in a `Sequential` or a `Pipeline` one by one: only then has each row draws of its own."""
    flat = []
    for layer in layers:
        inside = isinstance(layer, (keras.Sequential, keras.layers.Pipeline))
        flat += _flat(checked_layers(layer.layers)) if inside else [layer]
    return flat


@keras.saving.register_keras_serializable("keras_ssl")
class Views(keras.layers.Layer):
    """Makes views: each list of layers, applied in order, makes one view of every image.

    ```python
    crop, flip = keras_ssl.augment.RandomResizedCrop(32), keras_ssl.augment.RandomHorizontalFlip()
    views = keras_ssl.augment.Views([crop, flip], [crop, flip])
    a, b = views(images)
    ```

    The layers of this package draw numbers that are a pure function of seed, step, view, layer and the image's row in
    the global batch: the same on each backend, compiled or not, on one device or many. Any Keras layer may stand in a
    list too. Its draws are then a function of seed, step, view and layer, repeated exactly by the same run again, but
    others on other backends and numbers of replicas; and a layer with `supports_jit=False` (`RandomRotation`,
    `RandAugment` …) takes XLA compilation away from the whole training step.

    Views keep the value range of the images. They may differ in size, as the large and the small crops of
    `multi_crop` do, where the backbone is of open size.

    Args:
        branches: lists of layers, one a view. A layer may stand in several.
    """

    def __init__(self, *branches, **kwargs):
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})
        if not branches or not all(isinstance(branch, (list, tuple)) for branch in branches):
            raise TypeError(
                "Views takes one list of layers for each view, such as Views([crop, flip], [crop, flip]); "
                f"it was given {branches!r}."
            )
        self.branches = [checked_layers(branch) for branch in branches]
        self.generator = keras.random.SeedGenerator(0)

    def build(self, input_shape):
        check_channels_last("Views")
        shapes = []
        for branch in self.branches:
            shape = tuple(input_shape)
            for layer in branch:
                shape = build_layer(layer, shape)
            shapes.append(shape)
        if len({(len(shape), shape[-1]) for shape in shapes}) > 1:
            raise ValueError(
                "Views may differ in size, and must have the same channels and number of axes; these lists of layers "
                f"make {sizes_in_words(shapes)}."
            )

    def build_for(self, backbone, shape):
        """Builds the layers for images of a shape, of which the views are for a backbone.

        Args:
            backbone: a Keras model.
            shape: of the images, `(n, height, width, channels)`.

        Raises:
            ValueError: where a view has not the size that the backbone takes.
        """
        made = self.compute_output_shape(shape)
        check_sizes(backbone, made, "`views` make images of", "give the policy that size")
        if not self.built:
            self.build(shape)

    def check_value_range(self, value_range):
        """Raises `ValueError` where a layer was made for images of another range than the model's."""
        for layer in flatten_layers(self):
            theirs = getattr(layer, "value_range", None)
            if theirs is not None and tuple(float(end) for end in theirs) != value_range:
                raise ValueError(
                    f"The view layer {layer.name} has value_range={tuple(theirs)}, and the model has "
                    f"{value_range}: give both the range of your images."
                )

    def __call__(self, *args, **kwargs):
        refuse_other_graphs(self, *args, **kwargs)
        return super().__call__(*args, **kwargs)

    def call(self, images, rng=None, only=None):
        """Makes the views.

        Args:
            images: `(n, height, width, channels)`, uint8 or float.
            rng: `RowRNG` of n rows. The model hands those of its step; without them each call draws anew.
            only: numbers of the views that are wanted; None for all.

        Returns:
            A tuple of float32 tensors, one a view; of another type where the layer was given one as its `dtype`.
        """
        if rng is None:
            rng = RowRNG(0, ops.arange(ops.shape(images)[0])).fold_in(self.generator.next()[1])
        numbers = range(len(self.branches)) if only is None else only
        wanted = {number: self.branches[number] for number in numbers}
        if all(loop.runs(branch, images) for branch in wanted.values()):
            views = {}
            for alike in by_size([output_shape(branch, images.shape) for branch in wanted.values()]):
                views.update(loop.make_views({n: wanted[n] for n in (numbers[place] for place in alike)}, images, rng))
        elif all(chunks.runs(branch, images, rng) for branch in wanted.values()):
            views = chunks.make_views(wanted, images, rng)
        else:
            images = ops.cast(images, "float32")
            views = {n: apply_layers(branch, images, rng.fold_in("view", n)) for n, branch in wanted.items()}
        return tuple(ops.cast(views[number], self.compute_dtype) for number in numbers)

    def compute_output_shape(self, input_shape):
        return tuple(output_shape(branch, input_shape) for branch in self.branches)

    @property
    def uncompilable(self):
        """Names of the layers that XLA can't compile."""
        return sorted({layer.name for layer in flatten_layers(self) if not layer.supports_jit})

    def get_config(self):
        branches = [[keras.saving.serialize_keras_object(layer) for layer in branch] for branch in self.branches]
        return {**super().get_config(), "branches": branches}

    @classmethod
    def from_config(cls, config):
        config = copy.deepcopy(config)  # Keras writes into what it is given
        others = {name: value for name, value in config.items() if name != "branches"}
        branches = [[keras.saving.deserialize_keras_object(layer) for layer in part] for part in config["branches"]]
        return cls(*branches, **others)
