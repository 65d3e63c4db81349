"""A network on which runs can be compared."""

import keras


def tiny_backbone(input_shape=(28, 28, 1), widths=(8, 16, 16), strides=2, value_range=(0, 255), **options):
    """A backbone of three convolutions whose runs are smooth: GELU, no batch normalization.

    Two ways to compute a run differ by rounding, and a network with ReLU or batch normalization makes that larger in
    every step. On this one it stays below a millionth in ten steps.

    Args:
        input_shape: `(height, width, channels)`.
        widths: channels of each convolution.
        strides: of each convolution.
        value_range: of the images; the first layer brings it to [−1, 1].
        **options: of `keras.layers.Conv2D`.

    Returns:
        A sequential Keras model from images to a feature map.
    """
    low, high = value_range
    rescaling = keras.layers.Rescaling(2.0 / (high - low), -(high + low) / (high - low))
    convolutions = [keras.layers.Conv2D(width, 3, strides, activation="gelu", **options) for width in widths]
    return keras.Sequential([keras.Input(input_shape), rescaling, *convolutions], name="tiny")
