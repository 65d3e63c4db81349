"""A classifier on top of a backbone, of Keras' own layers alone."""

import keras
import numpy as np
from keras import layers

from keras_ssl.backbones import backbone_of, check_pooling, image_shape, pooled, token_map, tokens
from keras_ssl.evaluate.features import pooling_of, run


def classifier(backbone, classes, grid=None, dropout=0.0, name="classifier", input_shape=None, seed=None, pooling=None):
    """A backbone with a linear classifier on top, of Keras' own layers alone: it is saved and loaded without keras_ssl.

    The layers are the backbone itself (its weights are shared, not copied), the mean of its feature map over a grid of
    cells side by side, batch normalization without scale and offset, and a dense layer. The normalization makes the
    learning rate of the dense layer independent of the scale of the features.

    Args:
        backbone: a Keras model from images to `(n, features)`, to a feature map `(n, height, width, channels)` or to
            tokens `(n, tokens, width)`; or a `SelfSupervisedModel`, for its backbone.
        classes: how many logits, 2 or more.
        grid: a feature map is averaged over `grid × grid` cells, as `extract_features` does. None for 2 where the map
            is known to have two cells a side or more, else 1, its mean.
        dropout: share of the features that are dropped in training, in [0, 1).
        name: of the model.
        input_shape: `(height, width, channels)` of the images; None for the backbone's own. A backbone of open size
            has a map of known size once the images' is given.
        seed: of the dense layer's initial weights and of dropout; None for new ones each time.
        pooling: of tokens without a grid: "class" for the class token, "mean" for the mean of those of patches; None
            for the method's own, where `backbone` is one, else for the class token if there is one.

    Returns:
        A functional `keras.Model` from images, in the range that the backbone takes, to logits `(n, classes)`.

    Reference: the normalization is that of the linear probes of He et al., "Masked Autoencoders Are Scalable Vision
    Learners", 2022, appendix A.1.
    """
    if not isinstance(classes, (int, np.integer)) or classes < 2:
        raise ValueError(f"classifier: `classes` must be an integer, 2 or more; it is {classes!r}.")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"classifier: `dropout` must lie in [0, 1); it is {dropout!r}.")
    pooling, backbone = pooling or pooling_of(backbone), backbone_of(backbone)
    images = keras.Input(image_shape(backbone, input_shape), name="images")
    x = backbone(images)
    if pooling is not None:
        check_pooling(backbone, x.shape, pooling, images.shape)
    if grid in (None, 1) and tokens(backbone, x.shape, images.shape):
        x = pooled(x, backbone, pooling, images.shape)
    x = _pooled(token_map(backbone, x, images.shape), grid)
    # In float32 whatever the backbone computes in: logits of half precision lose the small probabilities.
    x = layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, center=False, scale=False, dtype="float32", name="standardize"
    )(x)
    if dropout:
        x = layers.Dropout(dropout, seed=seed, dtype="float32", name="dropout")(x)
    initializer = keras.initializers.GlorotUniform(seed)
    logits = layers.Dense(int(classes), kernel_initializer=initializer, dtype="float32", name="logits")(x)
    return keras.Model(images, logits, name=name)


def _pooled(features, grid):
    """Features `(n, d)` as they are; a feature map by its cells, side by side, or, of series and volumes, its mean."""
    shape = getattr(features, "shape", None)
    if shape is None or len(shape) not in (2, 3, 4, 5):
        raise ValueError(
            "A backbone must give (n, features) or a feature map (n, height, width, channels), (n, time, channels) or "
            f"(n, depth, height, width, channels); this one gives {shape or type(features).__name__}."
        )
    if len(shape) != 4:
        if grid not in (None, 1):
            raise ValueError(
                f"`grid` is {grid}, and the backbone gives no feature map of images but (n, "
                f"{', '.join(map(str, shape[1:]))}): leave it."
            )
        if len(shape) == 2:
            return features
        pool = layers.GlobalAveragePooling1D if len(shape) == 3 else layers.GlobalAveragePooling3D
        return pool(data_format="channels_last", name="pool")(features)
    sides = shape[1:3]
    if grid is None:
        grid = 2 if all(side is not None and side >= 2 for side in sides) else 1
    if not isinstance(grid, (int, np.integer)) or grid < 1:
        raise ValueError(f"`grid` must be an integer, 1 or more; it is {grid!r}.")
    if grid == 1:
        return layers.GlobalAveragePooling2D(data_format="channels_last", name="pool")(features)
    if None in sides:
        raise ValueError(
            f"`grid` is {grid}, and the backbone's images are of open size: give input_shape=(height, width, channels)."
        )
    if grid > min(sides):
        raise ValueError(
            f"`grid` is {grid}, and the feature map has only {sides[0]}×{sides[1]} cells: use at most that."
        )
    cells = layers.AdaptiveAveragePooling2D(int(grid), data_format="channels_last", name="pool")(features)
    return layers.Flatten(data_format="channels_last", name="flatten")(cells)


class Head:
    """The layers of a classifier above its backbone, as a network from pooled features to logits."""

    def __init__(self, model):
        names = [layer.name for layer in model.layers]
        above = model.layers[names.index("standardize") :]
        pooled = above[0].input
        self.below = keras.Model(model.input, pooled)
        self.network = keras.Sequential([keras.Input(pooled.shape[1:]), *above])

    def features(self, images):
        return run(self.below, images)
