"""The base of this package's random layers, and `RandomApply` for any layers."""

import copy
import inspect
import math
import operator

import keras
import numpy as np
from keras import ops

from keras_ssl import backend
from keras_ssl.augment.rng import RowRNG


def per_image(values, rank=4):
    """`(n,)` as `(n, 1, 1, 1)`: one number an image, for arithmetic with `(n, height, width, channels)`.

    Args:
        rank: of the batch; 4 for images.
    """
    return ops.reshape(values, (-1, *[1] * (rank - 1)))


def sides(images, first=1, last=3):
    """The lengths of some axes: a Python integer where it is known, else an integer scalar tensor."""
    static, shape = images.shape[first:last], ops.shape(images)[first:last]
    return tuple(shape[place] if side is None else side for place, side in enumerate(static))


def held(never, function):
    """What `function()` gives, computed once and kept, where a compiler would compute it anew for each use.

    XLA joins operations into loops over the pixels of their result. What several pixels share, such as the weights of
    a row, it computes again for each of them, and it can't use the processor's vectors then. It never moves what stands
    in a branch of a condition out of it.

    Args:
        never: a boolean scalar tensor that is false, which the compiler can't know.
        function: gives a tuple of tensors.
    """
    return ops.cond(never, lambda: tuple(ops.zeros_like(x) for x in function()), function)


class RandomLayer(keras.layers.Layer):
    """A random change of images, with its own draw for every image of a batch.

    A subclass writes `transform(images, rng)`, with `images` float32 `(n, height, width, channels)`. Inside of
    `Views` the draws are those of the model's step; used alone with `training=True`, they come from a Keras
    `SeedGenerator`, as in Keras' own layers. With `training=False` images pass unchanged, as float32. A layer for
    series, volumes or other inputs states its `example_rank`.

    Args:
        probability: the share of images that are changed, each image by its own draw; in [0, 1].
        value_range: lowest and highest value of an image, as Keras' layers take it.
        seed: integer for the draws when the layer is used alone.
    """

    example_rank = 3
    """How many axes one example has: 3 for an image, 2 for a series, 4 for a volume. A layer used alone takes one
    example too. None for any number; then the first axis is always that of the batch."""

    def __init__(self, probability=1.0, value_range=(0, 255), seed=None, **kwargs):
        # Half precision holds 0 … 255 in steps of 1/8: images stay float32 whatever the policy, unless the layer itself
        # is given another type. Then what it gives is of that type, and what it computes with is not.
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})
        self.probability = fraction(self, "probability", probability)
        self.value_range = checked_range(self, value_range)
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def transform(self, images, rng):
        raise NotImplementedError(f"{type(self).__name__} must define transform(images, rng).")

    image_by_image = False
    """Whether views may be made image by image (`keras_ssl.augment.loop`); a class that changes `transform` states it
    anew."""

    faster_by_image = False
    """Whether that is faster enough to wait until it is compiled."""

    def transform_image(self, image, rng):
        """`transform` of one image `(height, width, channels)`, whose draws are those of `rng`'s one row."""
        return self.transform(image[None], rng)[0]

    transform_planes = None
    """`transform` where nothing is compiled and views are made a few images at a time (`keras_ssl.augment.chunks`):
    `transform_planes(rng, shape)`, which draws for all n rows of images `(n, height, width, channels)`, with an `rng`
    that gives arrays of NumPy, and returns `function(planes, rows)`. That changes some of the rows, an array of their
    places, as planes `(m, channels, height, width)` of float32, and may work in place. None where there is no such way;
    a class that changes `transform` states it anew."""

    def build(self, input_shape):
        check_channels_last(type(self).__name__)

    def __call__(self, *args, **kwargs):
        refuse_other_graphs(self, *args, **kwargs)
        return super().__call__(*args, **kwargs)

    def call(self, images, training=None, rng=None):
        # Of whatever type the images are, in training and outside: a graph that was built with one must run.
        images = ops.cast(images, "float32")
        return ops.cast(self._changed(images, rng) if training else self.without_draw(images), self.compute_dtype)

    def _changed(self, images, rng):
        if rng is None and len(images.shape) == self.example_rank:
            return self._changed(images[None], None)[0]
        rank = len(images.shape)
        if self.example_rank is not None and rank != self.example_rank + 1:
            raise ValueError(
                f"{type(self).__name__} takes batches of {self.example_rank + 1} axes, and this one is of shape "
                f"{tuple(images.shape)}. For series and volumes take layers of theirs, such as those of "
                "keras_ssl.augment.series() and volumes()."
            )
        if rng is None:
            seed = self.generator.next()
            rng = RowRNG(0, ops.arange(ops.shape(images)[0])).fold_in(seed[0], seed[1])
        changed = self.transform(images, rng.fold_in("transform"))
        if self.probability == 1.0:
            return changed
        return ops.where(per_image(rng.bernoulli("apply", self.probability), rank), changed, images)

    def without_draw(self, images):
        """What the layer does outside of training, to images of float32: nothing, unless it sets the size."""
        return images

    def compute_output_shape(self, input_shape):
        return input_shape

    # The range's ends and back: the formulas of colors are written for [0, 1].
    def to_unit(self, images):
        low, high = self.value_range
        return (images - low) / (high - low)

    def from_unit(self, images):
        low, high = self.value_range
        return images * (high - low) + low

    def get_config(self):
        config = super().get_config()
        return {**config, "probability": self.probability, "value_range": self.value_range, "seed": self.seed}


@keras.saving.register_keras_serializable("keras_ssl")
class RandomApply(RandomLayer):
    """Applies one or several layers to a share of the images, drawn image by image.

    Args:
        layers: a layer or a list of layers, this package's or any Keras layers that keep an image's shape.
        probability: the share of images that the layers are applied to; in [0, 1].
    """

    def __init__(self, layers, probability=0.5, **kwargs):
        super().__init__(probability=probability, **kwargs)
        self.layers = checked_layers(layers if isinstance(layers, (list, tuple)) else [layers])

    @property
    def example_rank(self):
        return next((layer.example_rank for layer in self.layers if isinstance(layer, RandomLayer)), 3)

    def build(self, input_shape):
        super().build(input_shape)
        for layer in self.layers:
            build_layer(layer, input_shape)

    image_by_image = True

    @property
    def faster_by_image(self):
        return any(getattr(layer, "faster_by_image", False) for layer in self.layers)

    def transform(self, images, rng):
        return apply_layers(self.layers, images, rng)

    def transform_planes(self, rng, shape):
        return plane_changes(self.layers, shape, rng)

    def get_config(self):
        return {**super().get_config(), "layers": [keras.saving.serialize_keras_object(x) for x in self.layers]}

    @classmethod
    def from_config(cls, config):
        config = copy.deepcopy(config)  # Keras writes into what it is given
        layers = [keras.saving.deserialize_keras_object(x) for x in config["layers"]]
        return cls(**{**config, "layers": layers})


def apply_layers(layers, images, rng):
    """Applies layers in order; each gets draws of its own, by its place in the list."""
    for place, layer in enumerate(layers):
        images = _apply_layer(layer, images, rng.fold_in(place))
    return images


def _apply_layer(layer, images, rng):
    if isinstance(layer, RandomLayer):
        return layer(images, training=True, rng=rng)
    # Any other Keras layer draws from seed generators of its own. They are set, for this call, from our draws, and what
    # the call does to them is thrown away: so these layers have no hidden state either, an evaluation repeats itself,
    # and a resumed run goes on as if nothing had happened. The first row goes into the seed, or each replica would
    # draw the same numbers for its different images.
    state = layer.variables
    weights = {id(weight) for weight in layer.weights}
    seeds = [variable for variable in state if id(variable) not in weights]
    values = {id(variable): ops.convert_to_tensor(variable) for variable in state if id(variable) in weights}
    for number, seed in enumerate(seeds):
        key = rng.fold_in("seed", number, ops.sum(rng.rows[:1])).key  # an empty batch has no first row
        key = ops.bitwise_and(key, 0x7FFFFFFF)
        values[id(seed)] = ops.cast(ops.stack([key, ops.zeros_like(key)]), seed.dtype)
    options = {"training": True} if "training" in inspect.signature(layer.call).parameters else {}
    changed, _ = layer.stateless_call(
        [values[id(variable)] for variable in layer.trainable_variables],
        [values[id(variable)] for variable in layer.non_trainable_variables],
        ops.copy(images),  # on torch RandomBrightness adds in place, and would change the other view as well
        **options,
    )
    return ops.cast(changed, "float32")


def plane_changes(layers, shape, rng):
    """`apply_layers` a few images at a time: `function(planes, rows)`, see `RandomLayer.transform_planes`."""
    steps = []
    for place, layer in enumerate(layers):
        steps.append(_changes_of_one(layer, shape, rng.fold_in(place)))
        shape = layer.compute_output_shape(shape)

    def change(planes, rows):
        for step in steps:
            planes = step(planes, rows)
        return planes

    return change


def _changes_of_one(layer, shape, rng):
    change = layer.transform_planes(rng.fold_in("transform"), shape)
    if layer.probability == 1.0:
        return change
    drawn = rng.bernoulli("apply", layer.probability)

    def change_some(planes, rows):
        chosen = np.flatnonzero(drawn[rows])
        return backend.planes.on_some(planes, chosen, lambda mine: change(mine, rows[chosen]))

    return change_some


def output_shape(layers, input_shape):
    """The shape that layers make, one after another."""
    shape = tuple(input_shape)
    for layer in layers:
        shape = tuple(layer.compute_output_shape(shape))
    return shape


def build_layer(layer, input_shape):
    """Builds a layer, and gives the shape that it makes."""
    if not layer.built:
        layer.build(input_shape)
    return tuple(layer.compute_output_shape(input_shape))


def check_channels_last(owner):
    """Raises `ValueError` where Keras is set to channels before height and width."""
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            f'{owner}: images are (n, height, width, channels): keras.config.set_image_data_format("channels_last").'
        )


def refuse_other_graphs(owner, *args, **kwargs):
    """Raises `TypeError` in a graph of TensorFlow, such as `tf.data`'s `map`, where Keras runs on another framework.

    It is told by the class of the tensors, without importing TensorFlow. Those that hold values pass: Keras copies
    them.
    """
    for value in (*args, *kwargs.values()):
        foreign = type(value).__module__.startswith("tensorflow.") and not ops.is_tensor(value)
        if foreign and not hasattr(value, "numpy"):
            raise TypeError(
                f"{type(owner).__name__} is called in a TensorFlow graph, such as tf.data's `map`, and Keras runs on "
                "another backend, which can't compute there: give the images to `fit`, where the method makes its "
                "views, or set KERAS_BACKEND=tensorflow before Keras is imported."
            )


def checked_layers(layers):
    for layer in layers:
        if isinstance(layer, keras.layers.Lambda) or not isinstance(layer, keras.layers.Layer):
            raise TypeError(
                f"A view is made of Keras layers, and `layers` holds {layer!r}. Lambdas and plain functions can't be "
                "saved: write a subclass of keras.layers.Layer, or of keras_ssl.augment.RandomLayer, instead."
            )
    return list(layers)


def checked_range(owner, value_range, required=True):
    """`(lowest, highest)` as two numbers, or `ValueError`.

    Args:
        owner: the layer or model, for the error.
        value_range: what was given.
        required: False to take None too, for values without a range, which is then (−∞, ∞).
    """
    if value_range is None and not required:
        return (-math.inf, math.inf)
    try:
        low, high = (float(value) for value in value_range)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not low < high or (required and math.isinf(high - low)):
        raise ValueError(
            f"{type(owner).__name__}: `value_range` must be (lowest, highest), such as (0, 255) or (0, 1); "
            f"it is {value_range!r}."
        )
    return (low, high)


def checked_size(owner, size, names=("height", "width"), argument="size"):
    """A size as a tuple of Python integers, or `ValueError`.

    Args:
        owner: the layer, or the name of the policy, for the error.
        size: what was given: a whole number for each side, or one for all, of Python or of NumPy.
        names: of the sides.
        argument: what it is called.
    """
    try:
        given = tuple(size) if np.iterable(size) else (size,) * len(names)
        whole = tuple(0 if isinstance(side, bool) else operator.index(side) for side in given)
    except TypeError:
        whole = ()
    if len(whole) != len(names) or min(whole) < 1:
        owner = owner if isinstance(owner, str) else type(owner).__name__
        raise ValueError(
            f"{owner}: `{argument}` must be ({', '.join(names)}), whole numbers from 1 up, or one number for all of "
            f"them; it is {size!r}."
        )
    return whole


def fraction(owner, name, value):
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{type(owner).__name__}: `{name}` must lie between 0 and 1; it is {value!r}.")
    return float(value)
