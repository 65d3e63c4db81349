"""Backbones of keras-hub with what they expect of their images."""

import keras

from keras_ssl.backbones import of_one_array


def backbone(preset, image_shape=None):
    """A backbone of keras-hub, from images of 0 … 255.

    keras-hub rescales images outside of a backbone, in an `ImageConverter`. Here that is the first layer, so that the
    model is trained and used on the same images.

    Args:
        preset: of keras-hub, such as "dinov2_small" (which it downloads), or a folder, of `save_to_preset`.
        image_shape: `(height, width, channels)`; None for the preset's own. keras-hub's DINOv2 stretches its positions
            to other sizes; for its ViT give the preset's.

    Returns:
        A functional Keras model around the backbone, whose weights are those of the preset.

    Raises:
        ImportError: keras-hub is not installed.
        ValueError: keras-hub has no such preset, or it is none of a backbone of images.
    """
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError("Backbones of keras-hub need it: pip install 'keras-ssl[hub]'.") from error

    options = {} if image_shape is None else {"image_shape": tuple(image_shape)}
    inner = of_one_array(keras_hub.models.Backbone.from_preset(preset, **options))
    shape = getattr(inner, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise ValueError(f"keras-hub's {preset} is no backbone of images: it takes {shape}.")
    images = keras.Input(shape[1:], name="images")
    return keras.Model(images, inner(_rescaling(keras_hub, preset, inner)(images)), name=inner.name)


def _rescaling(keras_hub, preset, inner):
    """The preset's own rescaling; where it has none, to [−1, 1]."""
    try:
        converter = keras_hub.layers.ImageConverter.from_preset(preset)
    except (ValueError, FileNotFoundError):  # a folder of a backbone alone
        return keras.layers.Rescaling(1 / 127.5, -1.0)
    scale, offset = (1.0 if converter.scale is None else converter.scale), (converter.offset or 0.0)
    return keras.layers.Rescaling(scale, offset)
