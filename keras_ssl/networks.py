"""Networks for small images, as plain Keras models: `keras_ssl.backbones` has them by name."""

import keras
import numpy as np
from keras import layers, ops


def resnet18(input_shape, width=64, pooling=None, cifar_stem=True, value_range=(0, 255), name="resnet18"):
    """ResNet-18.

    Args:
        input_shape: `(height, width, channels)`.
        width: channels of the first stage; 64 is the paper's, 11 M parameters; 16 has 0.7 M.
        pooling: None for the feature map `(n, height/8, width/8, 8·width)`, "avg" for its mean `(n, 8·width)`.
        cifar_stem: a 3×3 convolution, as SimCLR's for CIFAR-10 (appendix B.9). False for ImageNet's: 7×7 with stride 2
            and pooling; the map is then smaller by four.
        value_range: of the images; the first layer brings it to [−1, 1].

    Returns:
        A functional Keras model.

    Reference: He et al., "Deep Residual Learning for Image Recognition", 2016.
    """
    images, x = _images(input_shape, value_range)
    if cifar_stem:
        x = _convolution(x, width, 3, 1)
    else:
        x = layers.MaxPooling2D(3, 2, padding="same")(_convolution(x, width, 7, 2))
    for stage in range(4):
        x = _block(x, width * 2**stage, stride=1 if stage == 0 else 2)
        x = _block(x, width * 2**stage, stride=1)
    return keras.Model(images, _output(x, pooling), name=name)


def resnet8(input_shape, width=32, pooling=None, value_range=(0, 255), name="resnet8"):
    """ResNet-8 with a stem of stride 2: 0.3 M parameters at width 32, for images of 28 to 64 pixels on a CPU.

    Args:
        input_shape: `(height, width, channels)`.
        width: channels of the first of three stages.
        pooling: None for the feature map `(n, height/8, width/8, 4·width)`, "avg" for its mean `(n, 4·width)`.
        value_range: of the images; the first layer brings it to [−1, 1].

    Returns:
        A functional Keras model.
    """
    images, x = _images(input_shape, value_range)
    x = _convolution(x, width, 3, 2)
    for stage in range(3):
        x = _block(x, width * 2**stage, stride=1 if stage == 0 else 2)
    return keras.Model(images, _output(x, pooling), name=name)


def vit(input_shape, patch_size=4, width=128, depth=6, heads=4, pooling=None, value_range=(0, 255), name="vit"):
    """A small vision transformer, for images of 28 to 96 pixels.

    It has no class token, and the places of its patches are computed and not learned: so its weights fit images of any
    size, `vit(other_shape).set_weights(model.get_weights())`. One of open size, `vit((None, None, 3))`, takes images of
    all sizes: views of several sizes, multiples of the patch (of others the edge would be left out, and training on
    them is refused). A patch's place is counted in patches, from the upper left of its view.

    Args:
        input_shape: `(height, width, channels)`, sides that `patch_size` divides, or None for open ones.
        patch_size: side of a patch in pixels.
        width: of a token; a multiple of 4 and of `heads`.
        depth: number of blocks.
        heads: of attention.
        pooling: None for the tokens of the patches, row by row, `(n, patches, width)`; "avg" for their mean.
        value_range: of the images; the first layer brings it to [−1, 1].

    Returns:
        A functional Keras model.

    Reference: Dosovitskiy et al., "An Image Is Worth 16x16 Words", 2021; places and mean as in Beyer et al., "Better
    plain ViT baselines for ImageNet-1k", 2022.
    """
    if any(side is not None and (side < patch_size or side % patch_size) for side in input_shape[:2]):
        raise ValueError(
            f"vit: sides of images must be multiples of patch_size={patch_size}; `input_shape` is {tuple(input_shape)}."
        )
    if width % 4 or width % heads:
        raise ValueError(f"vit: `width` must be a multiple of 4 and of heads={heads}; it is {width!r}.")
    images, x = _images(input_shape, value_range)
    x = _with_places(layers.Conv2D(width, patch_size, patch_size, name="patches")(x))
    for number in range(depth):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        y = layers.MultiHeadAttention(heads, width // heads, name=f"attention_{number}")(y, y)
        x = layers.Add()([x, y])
        y = layers.Dense(4 * width, "gelu")(layers.LayerNormalization(epsilon=1e-6)(x))
        x = layers.Add(name=f"block_{number}")([x, layers.Dense(width)(y)])
    x = layers.LayerNormalization(epsilon=1e-6, name="tokens")(x)
    if pooling not in (None, "avg"):
        raise ValueError(f'`pooling` is None, for the tokens, or "avg"; it is {pooling!r}.')
    return keras.Model(images, x if pooling is None else layers.GlobalAveragePooling1D()(x), name=name)


def _with_places(patches):
    """A map of patches `(n, rows, columns, width)` as tokens `(n, rows · columns, width)`, their places added."""
    rows, columns, width = patches.shape[1:]
    if rows and columns:
        row, column = np.mgrid[:rows, :columns].astype("float64")[..., None]
        places = _waves(np, row, column, width).astype("float32")[None]
    else:  # counted in the graph, of what comes: the file stays plain Keras
        ones = ops.cast(ops.ones_like(ops.sum(patches, axis=(0, 3), keepdims=True)), "float32")
        row, column = (ops.subtract(ops.cumsum(ones, axis=axis), 1.0) for axis in (1, 2))
        places = ops.cast(_waves(ops, row, column, width), patches.dtype)
    return layers.Reshape((rows * columns if rows and columns else -1, width))(ops.add(patches, places))


def _waves(maths, row, column, width):
    """`(…, width)`: sines and cosines of rows and columns `(…, 1)`, at many wavelengths."""
    frequencies = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    if maths is ops:
        frequencies = frequencies.astype("float32")
    turns = [maths.multiply(place, frequencies) for place in (row, column)]
    return maths.concatenate([wave(turn) for turn in turns for wave in (maths.sin, maths.cos)], axis=-1)


def _images(input_shape, value_range):
    low, high = value_range
    images = keras.Input(input_shape, name="images")
    return images, layers.Rescaling(2.0 / (high - low), offset=-(high + low) / (high - low))(images)


def _convolution(x, filters, kernel, stride, activate=True):
    x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x) if activate else x


def _block(x, filters, stride):
    y = _convolution(x, filters, 3, stride)
    y = _convolution(y, filters, 3, 1, activate=False)
    if stride != 1 or x.shape[-1] != filters:
        x = _convolution(x, filters, 1, stride, activate=False)
    return layers.ReLU()(layers.Add()([x, y]))


def _output(x, pooling):
    if pooling not in (None, "avg"):
        raise ValueError(f'`pooling` is None, for the feature map, or "avg"; it is {pooling!r}.')
    return x if pooling is None else layers.GlobalAveragePooling2D()(x)
