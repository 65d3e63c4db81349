"""Backbones of keras-hub with what they expect of their images."""

import keras

from keras_ssl.backbones import of_one_array
from keras_ssl.keras_compat import flatten_layers

__all__ = ["backbone", "save_to_preset"]


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


def save_to_preset(model, folder):
    """Writes keras-hub's backbone within a model as a preset, which `backbone` loads, and keras-hub's own functions.

    Args:
        model: what `backbone` gave, `merged()` of it with LoRA, or a method that trained it. LoRA's matrices are added
            to the kernels.
        folder: where the preset is written, with the rescaling that stands in front of the backbone.
    """
    import keras_hub

    model = getattr(model, "backbone", model)
    found = [layer for layer in flatten_layers(model) if isinstance(layer, keras_hub.models.Backbone)]
    if len(found) != 1:
        raise ValueError(
            f"hub.save_to_preset: {model.name} has {len(found)} backbones of keras-hub within, and not one."
        )
    found[0].save_to_preset(str(folder))
    for layer in getattr(model, "layers", ())[:3]:
        if isinstance(layer, keras.layers.Rescaling):
            converter = keras_hub.layers.ImageConverter(scale=layer.scale, offset=layer.offset)
            converter.save_to_preset(str(folder))


def _rescaling(keras_hub, preset, inner):
    """The preset's own rescaling; where it has none, to [−1, 1]."""
    try:
        converter = keras_hub.layers.ImageConverter.from_preset(preset)
    except (ValueError, FileNotFoundError):  # a folder of a backbone alone
        return keras.layers.Rescaling(1 / 127.5, -1.0)
    scale, offset = (1.0 if converter.scale is None else converter.scale), (converter.offset or 0.0)
    return keras.layers.Rescaling(scale, offset)
