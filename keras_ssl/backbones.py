"""Small ResNets for small images. Everything else is any Keras model: `keras.applications`, keras-hub, your own."""

import keras
from keras import layers


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
    return keras.Model(images, _pooled(x, pooling), name=name)


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
    return keras.Model(images, _pooled(x, pooling), name=name)


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


def _pooled(x, pooling):
    if pooling not in (None, "avg"):
        raise ValueError(f'`pooling` is None, for the feature map, or "avg"; it is {pooling!r}.')
    return x if pooling is None else layers.GlobalAveragePooling2D()(x)
