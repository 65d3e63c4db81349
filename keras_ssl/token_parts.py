"""A backbone of patches in two parts, by Keras' public calls: images → tokens with their places → what it gives.

Masked image modeling stands between the two. MAE leaves tokens out, so that the second part has less to do; SimMIM puts
a learned token in their place. Both parts share the backbone's layers: what trains them trains the backbone.
"""

import math

import keras
from keras import ops

from keras_ssl import backbones

# The layers that give the tokens with their places, and those at the end, of keras-hub's models by their classes. A
# model of one's own names its layers as `keras_ssl.backbones.vit` does.
_ENDS = {
    "ViTBackbone": ("vit_patching_and_embedding", "vit_encoder"),
    "DINOV2Backbone": ("embeddings", "layernorm"),
    "DINOV3Backbone": ("embeddings", "layernorm"),
    "SwinTransformerBackbone": ("patch_embedding", "norm"),
}
# Why all tokens must go through the second part.
_WHOLE = {
    "DINOV3Backbone": "turns queries and keys by their places in the whole image (rotary positions), the same for all "
    "images of a batch",
    "SwinTransformerBackbone": "has windows, which take whole images",
}
_OWN_MASKS = ("DINOV2Backbone", "DINOV3Backbone")  # take `masks=`, with a mask token of their own


class TokenParts:
    """The two parts of a backbone of patches.

    Args:
        backbone: a functional or sequential Keras model of one of the kinds that `find` knows, or one around it.
        open_size: take one of open size as well, whose `grid` and `out_grid` are None: `grids` tells them of images.

    Attributes:
        patch: sides of a patch in pixels, steps or voxels.
        grid: how many patches lie along each axis.
        first: how many tokens come before those of the patches.
        width: of a token.
        whole: why no token can be left out, the rest of a sentence; None where they can.
        own_mask_token: whether the backbone has a mask token, which `masked` then uses.
        out_grid, out_width: how many tokens it gives along each axis, and their width: fewer and wider ones where a
            backbone merges patches.
        last: whether what `encode` gives is what the backbone gives: nothing stands behind it.
    """

    # Not a Keras layer, so that a model that holds one has each layer of its backbone once.

    def __init__(self, backbone, open_size=False):
        prefixes, model = _inner(backbone)
        start, end = (_layer(model, name) for name in _names(model))
        self._prefixes, self._start = prefixes, start
        self._embedded = keras.Model(model.input, start.output)
        self._given = keras.Model(model.input, start.input)
        kind = _kind(model)
        self.whole = _WHOLE.get(kind)
        self.own_mask_token = kind in _OWN_MASKS and model.use_mask_token
        self._needs_images = kind == "DINOV3Backbone"
        self._encoder = keras.Model([model.input, start.output] if self._needs_images else start.output, end.output)
        self._encoder.input_spec = None  # or it would take whole images alone
        count, self.width = start.output.shape[1:]
        shape, inner = backbones.input_shape(backbone)[1:], keras.tree.flatten(model.input)[0].shape[1:]
        self.patch = _patch(model, len(shape) - 1)
        given, self.out_width = end.output.shape[1:]
        self.last = _is_last(backbone, model) and keras.tree.flatten(model.output)[0] is end.output
        if None in shape and open_size and shape[:-1] == inner[:-1]:
            # Two sizes are tried: what comes before may bring all images to one.
            found = [self._tried(shape, times) for times in (3, 5)]
            if None not in found:
                # Each patch a token, and a few before them: what merges patches has windows, and so one size.
                self.first, self._merged = found[0], 1
                self.grid = self.out_grid = None
                return
        if None in shape or count is None or shape[:-1] != inner[:-1]:
            known = "" if open_size else "known "
            raise ValueError(
                f"`backbone`: {backbone.name} takes images of {shape}, and makes its patches of {inner}: masks of "
                f"patches need images of one {known}size, that of the patches. Resize images before."
            )
        grid = tuple(side // of for side, of in zip(shape, self.patch))
        self.first = count - math.prod(grid)
        self._merged = 1 if given is None else round((math.prod(grid) / (given - self.first)) ** (1 / len(grid)))
        self.grid, self.out_grid = self.grids((None, *shape))

    def _tried(self, shape, times):
        """How many tokens come before those of patches, by images of so many patches; None where these are resized."""
        sides = tuple(side or times * of for side, of in zip(shape, self.patch))
        images = keras.KerasTensor((1, *sides, shape[-1]), "float32")
        for prefix in self._prefixes:
            images = prefix.compute_output_spec(images)
        if tuple(images.shape[1:-1]) != sides:
            return None
        patches = math.prod(side // of for side, of in zip(sides, self.patch))
        return self._embedded.compute_output_spec(images).shape[1] - patches

    def grids(self, shape):
        """`(grid, out_grid)` of images of a shape `(n, …, channels)`."""
        grid = tuple(side // of for side, of in zip(shape[1:-1], self.patch))
        return grid, tuple(side // self._merged for side in grid)

    def embed(self, images, training=None):
        """Tokens with their places, `(n, first + patches, width)`."""
        return self._embedded(self._prefixed(images, training), training=training)

    def masked(self, images, mask, token, gray, training=None):
        """The tokens of `embed`, with a mask token in the place of some patches.

        Args:
            images: `(n, height, width, channels)`, or with one or three inner axes.
            mask: boolean `(n, patches)`.
            token: `(width,)`, what is added to the token of a gray patch: so it has the patch's place, wherever the
                backbone adds that. Not used where the backbone has a mask token of its own.
            gray: the value of a gray pixel.
        """
        if self.own_mask_token:
            given = self._given(self._prefixed(images, training), training=training)
            return self._start(given, masks=mask, training=training)
        tokens = self.embed(images, training)
        empty = self.embed(ops.full((1, *images.shape[1:]), gray, dtype=images.dtype), training)[:, self.first :]
        hidden = empty + ops.cast(token, tokens.dtype)
        patches = ops.where(mask[:, :, None], hidden, tokens[:, self.first :])
        return ops.concatenate([tokens[:, : self.first], patches], axis=1)

    def new_mask_token(self, model):
        """A mask token for `masked`, as a weight of a model; None where the backbone has one of its own."""
        if self.own_mask_token:
            return None
        normal = keras.initializers.TruncatedNormal(stddev=0.02)
        return model.add_weight(shape=(self.width,), initializer=normal, name="mask_token")

    def encode_masked(self, images, mask, token, gray, training=None):
        """What the backbone gives of images of which some patches are hidden: `encode` of all tokens of `masked`."""
        return self.encode(self.masked(images, mask, token, gray, training), training, images)

    def encode(self, tokens, training=None, images=None):
        """The rest of the backbone on tokens: on all, or, where `whole` is None, on any of them.

        Args:
            tokens: `(n, tokens, width)`.
            images: those of which the tokens are.

        Returns:
            `(n, tokens, out_width)`.
        """
        if not self._needs_images:
            return self._encoder(tokens, training=training)
        return self._encoder([self._prefixed(images, training), tokens], training=training)

    def _prefixed(self, images, training):
        for prefix in self._prefixes:
            images = prefix(images, training=training)
        return images


def find(backbone, open_size=False):
    """The `TokenParts` of a backbone; None where it is none of patches.

    Args:
        backbone: `keras_ssl.backbones.vit`, `ViTBackbone`, `DINOV2Backbone`, `DINOV3Backbone` or
            `SwinTransformerBackbone` of keras-hub, one of them inside of a functional or sequential model, or a
            functional model of one's own with layers of these names: `patches`, a convolution whose kernel is a patch,
            `placed`, which gives the tokens with their places, and `tokens`, which gives them at the end.
        open_size: as of `TokenParts`.
    """
    return TokenParts(backbone, open_size) if _inner(backbone) else None


def giving_tokens(backbone, owner, otherwise):
    """The `TokenParts` of a backbone, of open size as well, that gives its tokens.

    Args:
        owner: the method, for the error.
        otherwise: what takes other backbones: a sentence.

    Raises:
        ValueError: it is none of patches, or gives something else that is made of its tokens.
    """
    try:
        parts = find(backbone, open_size=True)
    except ValueError as error:
        raise ValueError(f"{owner}: {error} {otherwise}") from error
    if parts is None or not parts.last:
        wrong = "is none that is known" if parts is None else "gives something else that is made of them"
        raise ValueError(
            f"{owner}: `backbone` must be one of patches and give their tokens, and {backbone.name} {wrong}. Take "
            "keras_ssl.backbones.vit without pooling, a ViT of keras-hub, or name the layers of your own functional "
            f"model as keras_ssl.token_parts.find says. {otherwise}"
        )
    return parts


def _is_last(model, inner):
    """Whether an inner model is the last thing in a model, whose operations stand in the order of their calls."""
    while model is not inner:
        if not backbones.is_graph(model):
            return False
        model = getattr(model, "operations", model.layers)[-1]  # a slice or a sum is one, and no layer
    return True


def _inner(model):
    """`(models from its input to that of the inner one, the model that has the parts)`; None where none has."""
    if not backbones.is_graph(model):
        return None
    if _names(model):
        return [], model
    for layer in model.layers:
        found = _inner(layer)
        if found:
            return [_before(model, layer), *found[0]], found[1]
    return None


def _before(model, inner):
    """The part of a model that makes the input of a model inside of it."""
    images = keras.Input(model.input_shape[1:], dtype=model.inputs[0].dtype)
    if isinstance(model, keras.Sequential):
        x = images
        for layer in model.layers[: model.layers.index(inner)]:
            x = layer(x)
        return keras.Model(images, x)
    seen = []

    def call(layer, *args, **kwargs):
        if layer is inner:
            seen.append(args[0])
        return layer(*args, **kwargs)

    again = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)
    return keras.Model(again.input, seen[0])


def _names(model):
    kind = _kind(model)
    if kind:
        return _ENDS[kind]
    own = {layer.name for layer in model.layers}
    return ("placed", "tokens") if {"patches", "placed", "tokens"} <= own else None


def _kind(model):
    return next((cls.__name__ for cls in type(model).__mro__ if cls.__name__ in _ENDS), None)


def _layer(model, name):
    """keras-hub puts a model's own name before those of its layers, and keeps them as attributes."""
    return getattr(model, name, None) or model.get_layer(name)


def _patch(model, axes):
    patch = model.patch_size if _kind(model) else model.get_layer("patches").kernel_size
    return (patch,) * axes if isinstance(patch, int) else tuple(patch)
