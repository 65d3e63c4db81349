"""What the library asks of a backbone: its input shape, its tokens, its features.

A backbone is any Keras model: of `keras_ssl.networks`, whose functions are given here too, of `keras.applications`, of
keras-hub, your own.
"""

import math
import typing
import warnings

import keras
from keras import layers, ops

from keras_ssl.keras_compat import flatten_layers
from keras_ssl.networks import resnet8, resnet18, vit
from keras_ssl.shapes import by_size, sizes_in_words

__all__ = ["Tokens", "image_shape", "pooled", "resnet8", "resnet18", "token_map", "tokens", "value_range", "vit"]


def backbone_of(model):
    """The backbone of a `SelfSupervisedModel`; any other Keras model is one itself."""
    backbone = getattr(model, "backbone", model)
    _check_is_layer(backbone)
    return of_one_array(backbone)


def checked(backbone):
    """What a method takes as `backbone`: one input and one output, of one array; raises where it is none."""
    _check_is_layer(backbone)
    check_ends(backbone)
    return of_one_array(backbone)


def _check_is_layer(backbone):
    if not isinstance(backbone, keras.layers.Layer):
        raise TypeError(f"`backbone` must be a Keras model; it is a {type(backbone).__name__}.")


def of_one_array(backbone):
    """A backbone that takes its images in a dict, as keras-hub's DINOv2 and SigLIP do, as a model of the images alone.

    Args:
        backbone: any Keras model.

    Returns:
        A functional model around it, which shares its weights; any other backbone as it is.
    """
    taken = getattr(backbone, "input", None) if is_graph(backbone) else None
    if not isinstance(taken, dict) or len(taken) != 1:
        return backbone
    ((key, tensor),) = taken.items()
    images = keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=key)
    return keras.Model(images, backbone({key: images}), name=backbone.name)


def input_shape(backbone):
    """The shape that a backbone takes, `(None, height, width, channels)`, where open sides are None.

    None for a model that does not know it: a subclass, one that is not built, one that takes several arrays.
    """
    shape = _declared_shape(backbone)
    return shape if isinstance(shape, tuple) and not any(isinstance(part, (tuple, list)) for part in shape) else None


def _declared_shape(backbone):
    try:
        return backbone.input_shape
    except (AttributeError, ValueError):  # a subclass, or not built
        return None


def check_sizes(backbone, shapes, what, way_out):
    """Raises `ValueError` where a backbone of fixed size is to see images of another one.

    Args:
        backbone: a Keras model.
        shapes: of the images, the batch first.
        what: they are: the beginning of the message.
        way_out: what else to do, beside taking a backbone of open size.
    """
    taken = input_shape(backbone)
    if taken is None:
        return
    if all(not a or not b or a == b for shape in shapes for a, b in zip(taken[1:], shape[1:])):
        patches = _patches(backbone)
        if patches and any(side and side % patch for shape in shapes for side, patch in zip(shape[1:], patches)):
            raise ValueError(
                f"{what} {sizes_in_words(shapes)}, and the patches of {backbone.name} are of {patches}: give sizes of "
                "whole patches."
            )
        return
    if len(by_size(shapes)) > 1:
        opened = (*(None for _ in taken[2:]), taken[-1])
        way_out += (
            f", or take a backbone of open size, made with input_shape={opened}: a network of convolutions, or "
            "keras_ssl.backbones.vit (keras-hub's ViT and DINO have places for one size alone)"
        )
    raise ValueError(f"{what} {sizes_in_words(shapes)}, and {backbone.name} takes {taken[1:]}: {way_out}.")


def _patches(backbone):
    """The size of the patches that a `vit` cuts its input into; None for other backbones."""
    found = [layer for layer in getattr(backbone, "layers", ()) if layer.name == "patches"]
    kinds = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
    return next((layer.strides for layer in found if isinstance(layer, kinds)), None)


def image_shape(backbone, images=None):
    """The shape of the images that a backbone is used on, `(height, width, channels)`.

    Args:
        backbone: a Keras model.
        images: the shape of the given images; None for the backbone's own.

    Returns:
        The shape of the images where it is given, else the backbone's.

    Raises:
        ValueError: the two differ, neither is known, or the backbone takes several arrays.
    """
    own = input_shape(backbone)
    if own is None and _declared_shape(backbone) is not None:
        raise ValueError(
            f"The backbone {backbone.name} must take one array of images; it takes {_declared_shape(backbone)}."
        )
    own = None if own is None else tuple(own[1:])
    if images is None:
        if own is None:
            raise ValueError(
                f"The backbone {backbone.name} does not know the shape of its images: give input_shape=(height, width, "
                "channels)."
            )
        return own
    images = tuple(images)
    if own is not None and (
        len(own) != len(images) or any(a not in (None, b) for a, b in zip(own, images) if b is not None)
    ):
        raise ValueError(
            f"The backbone {backbone.name} takes images of {own}, and these are {images}: resize them to what it was "
            "trained on."
        )
    return images


def value_range(model):
    """The range of the images that a model takes, as far as it says: `(lowest, highest)`, or None.

    A `SelfSupervisedModel` has one. Of a backbone it is told by a `keras.layers.Rescaling` at its beginning, as those
    of `keras_ssl.networks` and several of `keras.applications` have, which brings 0 … 255 or 0 … 1 to −1 … 1 or 0 … 1.
    """
    if hasattr(model, "value_range"):
        return model.value_range
    for layer in getattr(model, "layers", ())[:3]:
        if isinstance(layer, keras.layers.Rescaling) and isinstance(layer.scale, float) and layer.scale > 0.0:
            offset = layer.offset if isinstance(layer.offset, (int, float)) else None
            high = None if offset not in (-1.0, 0.0) else (1.0 - offset) / layer.scale
            return next(((0.0, known) for known in (1.0, 255.0) if high and abs(high / known - 1.0) < 1e-3), None)
    return None


def is_graph(model):
    """Whether a model is a graph of layers: functional or sequential, and built."""
    graph = isinstance(model, keras.Sequential) or hasattr(model, "operations")
    return isinstance(model, keras.Model) and graph and model.built and bool(model.inputs)


def check_ends(model):
    """Refuses a graph with several inputs or outputs, and warns of one that ends in class probabilities.

    Args:
        model: any Keras layer; one that is no built graph of layers passes.
    """
    if not is_graph(model):
        return
    if len(model.inputs) > 1:
        names = ", ".join(tensor.name for tensor in model.inputs)
        raise ValueError(
            f"`backbone`: {model.name} takes {len(model.inputs)} inputs ({names}), and a batch has one array of "
            "images. Cut it at a layer that needs one input alone, keras.Model(backbone.inputs[0], "
            "backbone.get_layer(name).output), or give the other inputs in the call of a keras.Model of your own."
        )
    last = [_giver(model, output) for output in model.outputs]
    if len(last) > 1:
        names = ", ".join(layer.name if layer is not None else "?" for layer in last)
        raise ValueError(
            f"`backbone`: {model.name} gives {len(last)} outputs ({names}), and a method takes one. Cut it at the "
            "layer whose output you want: keras.Model(backbone.inputs[0], backbone.get_layer(name).output), with "
            f'name="{last[0].name if last[0] is not None else "…"}", for example.'
        )
    below = _below_softmax(model, last[0])
    if below is not None:
        warnings.warn(
            f"`backbone`: {model.name} ends in the softmax of {last[0].name}: class probabilities say little of an "
            f"image, and a head on top of them learns slowly. Cut it at the layer before, {below.name}: "
            f'keras.Model(backbone.inputs[0], backbone.get_layer("{below.name}").output).'
        )


def _giver(model, tensor):
    """The layer that gave a tensor of a graph; None where it can't be told."""
    return next((layer for layer in reversed(model.layers) if _output_of(layer) is tensor), None)


def _output_of(layer):
    try:
        return layer.output
    except (AttributeError, ValueError):  # called several times, or not yet
        return None


def _below_softmax(model, last):
    """The layer below the classifier of a graph whose last layer is a softmax; None where it is not one."""
    softmax = isinstance(last, layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax
    below = _giver(model, last.input) if softmax else None
    if isinstance(below, layers.Dense) and not isinstance(last, layers.Dense):  # its logits are the classes' as well
        below = _giver(model, below.input) or below
    return below


class Tokens(typing.NamedTuple):
    """How the tokens `(n, tokens, width)` of a backbone of images lie: first some of no place, then row by row."""

    first: int
    """How many tokens come before those of the patches: a class token, which stands for the image, and registers."""
    rows: int
    columns: int


def tokens(backbone, shape, images=None):
    """How the tokens of a backbone lie; None for what gives none, or where it can't be told.

    The patches are a grid that is as wide to its height as the images are. What comes before them is told by the model,
    `num_register_tokens` of keras-hub's, or else by their number: of 197 tokens of a square image 196 are patches, and
    one is the class token.

    Args:
        backbone: a Keras model of images; one of series, which are of rank 3, has no tokens.
        shape: of what it gives.
        images: the shape of the images that it was given, for a backbone of open size; None where it is not known.
    """
    own = input_shape(backbone)
    if len(shape) != 3 or own is None or len(own) != 4 or shape[1] is None:
        return None
    height, width = (side or given for side, given in zip(own[1:3], (images or own)[1:3]))
    if height is None or width is None:
        return None
    for first in _firsts(backbone):
        rows = math.isqrt(max(0, shape[1] - first) * height // width)
        columns = rows * width // height
        if rows and rows * columns == shape[1] - first and rows * width == columns * height:
            return Tokens(first, rows, columns)
    return None


def _firsts(backbone):
    """How many tokens may come before those of the patches."""
    for model in flatten_layers(backbone):  # keras-hub's may stand inside of others
        registers = getattr(model, "num_register_tokens", None)
        if isinstance(registers, int):
            return (1 + registers,)
    return (0, 1, 5)  # none, a class token, and four registers beside it as in DINOv2


def token_map(backbone, features, images=None):
    """Tokens of patches as a feature map `(n, rows, columns, width)`; what is no token as it is.

    Args:
        images: the shape of the images, as of `tokens`.
    """
    layout = tokens(backbone, features.shape, images)
    if layout is None:
        return features
    return ops.reshape(features[:, layout.first :], (-1, layout.rows, layout.columns, features.shape[-1]))


def check_pooling(backbone, shape, pooling, images=None):
    """Raises `ValueError` for a `pooling` that is none, or that the backbone can't have."""
    if pooling not in (None, "class", "mean"):
        raise ValueError(f'`pooling` is None, "class" or "mean"; it is {pooling!r}.')
    layout = tokens(backbone, shape, images)
    open_size = len(shape) == 3 and shape[1] is None  # of which it is told once there are images
    if pooling == "class" and not open_size and not (layout and layout.first):
        raise ValueError(f'`pooling` is "class", and {backbone.name} gives {tuple(shape)}, without a class token.')


def pooled(features, backbone=None, pooling=None, images=None):
    """`(n, width)`: features as they are, a feature map of any rank by its mean over all inner axes, tokens by one.

    Args:
        features: what the backbone gave.
        backbone: the Keras model; needed to know tokens.
        pooling: of tokens: "class" for the class token, "mean" for the mean of those of patches; None for the class
            token where there is one.
        images: the shape of the images, as of `tokens`.
    """
    layout = None if backbone is None else tokens(backbone, features.shape, images)
    if backbone is not None and pooling == "class":
        check_pooling(backbone, features.shape, pooling, images)
    if layout and layout.first and pooling != "mean":
        return features[:, 0]
    if layout:
        features = features[:, layout.first :]
    inner = tuple(range(1, len(features.shape) - 1))
    return ops.mean(features, axis=inner) if inner else features


def resize_to_backbone(backbone, patches):
    """Resizes patches to the size that a backbone takes; where that is open, they stay as they are.

    Args:
        backbone: a Keras model.
        patches: a list of tensors `(n, size, size, channels)`.
    """
    shape = input_shape(backbone) or (None, None, None, None)
    height, width = (fixed or side for fixed, side in zip(shape[1:3], patches[0].shape[1:3]))
    if (height, width) == tuple(patches[0].shape[1:3]):
        return patches
    return [ops.image.resize(patch, (height, width)) for patch in patches]
