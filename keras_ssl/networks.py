"""Networks for small images, and a transformer of patches for series and volumes as well."""

import math

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
    """A small vision transformer, for images of 28 to 96 pixels, for series and for volumes.

    It has no class token, and the places of its patches are computed and not learned: so its weights fit inputs of any
    size, `vit(other_shape).set_weights(model.get_weights())`. One of open size, `vit((None, None, 3))`, takes images of
    all sizes: views of several sizes, multiples of the patch (of others the edge would be left out, and training on
    them is refused). A patch's place is counted in patches, from the upper left of its view.

    Args:
        input_shape: `(height, width, channels)` of images, `(time, channels)` of series, `(depth, height, width,
            channels)` of volumes; sides that `patch_size` divides, or None for open ones.
        patch_size: side of a patch in pixels, steps or voxels: one number for all sides, or one for each.
        width: of a token; a multiple of 4 and of `heads`.
        depth: number of blocks.
        heads: of attention.
        pooling: None for the tokens of the patches, row by row, `(n, patches, width)`; "avg" for their mean.
        value_range: of the input; the first layer brings it to [−1, 1]. None for series and other inputs without a
            range, which stay as they are.

    Returns:
        A functional Keras model. Its layers `placed` and `tokens` give the tokens with their places and at the end.

    Reference: Dosovitskiy et al., "An Image Is Worth 16x16 Words", 2021; places and mean as in Beyer et al., "Better
    plain ViT baselines for ImageNet-1k", 2022.
    """
    sides, axes = tuple(input_shape[:-1]), len(input_shape) - 1
    if axes not in _PATCHES:
        raise ValueError(
            "vit: `input_shape` is (height, width, channels), (time, channels) or (depth, height, width, channels); it "
            f"is {tuple(input_shape)}."
        )
    patch = (patch_size,) * axes if isinstance(patch_size, int) else tuple(patch_size)
    if len(patch) != axes or not all(side is None or (side and side % of == 0) for side, of in zip(sides, patch)):
        raise ValueError(
            f"vit: sides of images must be multiples of patch_size={patch_size}; `input_shape` is {tuple(input_shape)}."
        )
    if width % 4 or width % heads:
        raise ValueError(f"vit: `width` must be a multiple of 4 and of heads={heads}; it is {width!r}.")
    if pooling not in (None, "avg"):
        raise ValueError(f'`pooling` is None, for the tokens, or "avg"; it is {pooling!r}.')
    images, x = _images(input_shape, value_range)
    x = _with_places(_PATCHES[axes](width, patch, patch, name="patches")(x))
    x = transformer(layers.Identity(name="placed")(x), depth, heads, name="tokens")
    return keras.Model(images, x if pooling is None else layers.GlobalAveragePooling1D()(x), name=name)


_PATCHES = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}  # by the number of axes


def patch_decoder(grid, first, width, depth, heads, numbers, name="decoder", dtype=None):
    """A light transformer from tokens, which get their places here, to the numbers of each patch.

    Args:
        grid: how many patches lie along each axis.
        first: how many tokens come before those of the patches; they have no place, and nothing is made of them.
        width, depth, heads: of the transformer.
        numbers: of a patch.
        name, dtype: as of any Keras model; the dtype policy of all layers.

    Returns:
        A functional Keras model from `(n, first + patches, width)` to `(n, patches, numbers)`.
    """
    found = np.pad(places(grid, width), [(0, 0), (first, 0), (0, 0)])
    tokens = keras.Input(found.shape[1:], name="tokens", dtype=dtype and keras.dtype_policies.get(dtype).compute_dtype)
    x = layers.Identity(dtype=dtype)(tokens)
    x = transformer(ops.add(x, found), depth, heads, dtype=dtype)
    return keras.Model(tokens, layers.Dense(numbers, dtype=dtype)(x[:, first:]), name=name)


def transformer(x, depth, heads, name=None, dtype=None):
    """Blocks of attention and of two dense layers on tokens, each behind a normalization, and a last normalization.

    Args:
        x: a Keras tensor `(n, tokens, width)`.
        depth: number of blocks.
        heads: of attention.
        name: of the last layer.
        dtype: the dtype policy of the layers.
    """
    width = x.shape[-1]
    for number in range(depth):
        y = layers.LayerNormalization(epsilon=1e-6, dtype=dtype)(x)
        y = layers.MultiHeadAttention(heads, width // heads, name=f"attention_{number}", dtype=dtype)(y, y)
        x = layers.Add(dtype=dtype)([x, y])
        y = layers.Dense(4 * width, "gelu", dtype=dtype)(layers.LayerNormalization(epsilon=1e-6, dtype=dtype)(x))
        x = layers.Add(name=f"block_{number}", dtype=dtype)([x, layers.Dense(width, dtype=dtype)(y)])
    return layers.LayerNormalization(epsilon=1e-6, name=name, dtype=dtype)(x)


def places(grid, width):
    """float32 `(1, patches, width)`: sines and cosines of each patch's place along each axis, at many wavelengths.

    Args:
        grid: how many patches lie along each axis.
        width: of a token. What 2 × axes does not divide of it is left 0.
    """
    counted = [place.reshape(-1, 1) for place in np.indices(grid).astype("float64")]
    return _waves(np, counted, width).astype("float32")[None]


def _with_places(patches):
    """A map of patches `(n, …, width)` as tokens `(n, patches, width)`, their places added."""
    *grid, width = patches.shape[1:]
    if all(grid):
        return ops.add(layers.Reshape((math.prod(grid), width))(patches), places(grid, width))
    # Counted in the graph, of what comes: the file stays plain Keras.
    ones = ops.cast(ops.ones_like(ops.sum(patches, axis=(0, -1), keepdims=True)), "float32")
    counted = [ops.subtract(ops.cumsum(ones, axis=axis + 1), 1.0) for axis in range(len(grid))]
    return layers.Reshape((-1, width))(ops.add(patches, ops.cast(_waves(ops, counted, width), patches.dtype)))


def _waves(maths, counted, width):
    """`(…, width)`: sines and cosines of places along each axis, each `(…, 1)`, at many wavelengths."""
    waves = width // (2 * len(counted))
    frequencies = 10000.0 ** (-np.arange(waves) / waves)
    if maths is ops:
        frequencies = frequencies.astype("float32")
    turns = [maths.multiply(place, frequencies) for place in counted]
    found = maths.concatenate([wave(turn) for turn in turns for wave in (maths.sin, maths.cos)], axis=-1)
    rest = [(0, 0)] * (len(found.shape) - 1) + [(0, width - found.shape[-1])]
    return maths.pad(found, rest) if rest[-1][1] else found


def _images(input_shape, value_range):
    images = keras.Input(input_shape, name="images")
    if value_range is None:
        return images, images
    low, high = value_range
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
