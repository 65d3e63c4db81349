"""SimMIM: part of an image is hidden behind a mask token, and one linear layer predicts its pixels."""

import math

import keras
from keras import ops

from keras_ssl import augment, backbones, distribute, losses, regularizers, token_parts
from keras_ssl.augment import masks
from keras_ssl.augment.policies import one_view
from keras_ssl.augment.rng import RowRNG
from keras_ssl.model import SelfSupervisedModel


@keras.saving.register_keras_serializable("keras_ssl")
class SimMIM(SelfSupervisedModel):
    """SimMIM (Xie et al., "SimMIM: a Simple Framework for Masked Image Modeling", 2022).

    Squares of the image are hidden, others for each image; the backbone sees the whole image with a mask token in their
    place, and a linear layer on its map predicts their pixels (section 3, eq. 1). All tokens go through the backbone,
    which takes longer than `MAE` and needs less of it: it may be

    - one of patches: `keras_ssl.backbones.vit`, also of series and of volumes, keras-hub's `ViTBackbone`,
      `DINOV2Backbone` and `DINOV3Backbone` (whose own mask token is trained), `SwinTransformerBackbone`, these inside
      of another model, or a functional model named as `keras_ssl.token_parts.find` says;
    - any other that gives a feature map, with sides that divide the image's: convolutions have no tokens, so that there
      the pixels are painted gray. The paper has patches alone; around gray squares a convolution sees edges that images
      do not have, and in batch normalization they count.

    Term: `simmim`, the mean absolute difference over the hidden pixels, in units in which `value_range` is [−1, 1].
    Metric: `explained`, the share of it that is less than by predicting the mean of what is visible.

    Args:
        backbone: a Keras model with images of one size, as above.
        views: one view; None for the paper's, a crop of 67 to 100 % and a flip (`augment.simmim`), and for series and
            volumes the inputs as they are.
        mask_ratio: the share of the image that is hidden, in (0, 1), in whole squares, rounded up.
        mask_size: side of a hidden square in pixels, a multiple of the backbone's patches (of no more than whole pixels
            for feature maps) that divides the image; one number for all sides or one for each. None for a cell of the
            backbone's map. The paper: 32, of images of 192 or 224 pixels.
        blocks: None to hide squares at random, as the paper does; else so many boxes (`augment.masks.mask_order`).
        **kwargs: `value_range`, `seed`, `pooling`, `name`, `dtype`: see `SelfSupervisedModel`. `regularizers` are
            refused: no whole view is encoded.
    """

    terms = ("simmim",)
    metric_names = ("explained",)
    view_counts = (1,)
    batch_dependent = False
    collapse_advice = "A longer warm-up, more epochs or a smaller rate usually help."

    def __init__(self, backbone, views=None, mask_ratio=0.6, mask_size=None, blocks=None, **kwargs):
        super().__init__(backbone, views, **kwargs)
        regularizers.check_none(self, "it encodes images of which a part is hidden")
        masks.check_blocks("SimMIM", blocks)
        self.mask_ratio = mask_ratio
        self.mask_size = mask_size
        self.blocks = blocks
        self._parts = token_parts.find(self.backbone)
        sides = (backbones.input_shape(self.backbone) or ())[1:-1]
        self._cells = self._parts.out_grid if self._parts else _map_of(self.backbone, sides)
        self._cell = tuple(side // cells for side, cells in zip(sides, self._cells))
        self._square = _square(mask_size, self._cell, sides, self._parts.patch if self._parts else (1,) * len(sides))
        self._grid = tuple(side // of for side, of in zip(sides, self._square))
        self._masked = masks.masked_count("SimMIM", mask_ratio, math.prod(self._grid), up=True)

    def default_views(self):
        return one_view(self.backbone, self.value_range, augment.simmim)

    def build_heads(self, width):
        channels = backbones.input_shape(self.backbone)[-1]
        self.decoder = keras.layers.Dense(math.prod(self._cell) * channels, name="decoder", dtype=self.dtype_policy)
        self.decoder.build((None, None, self._parts.out_width if self._parts else width))
        if self._parts:
            self.mask_token = self._parts.new_mask_token(self)

    def embed(self, views, training):
        images = ops.cast(views[0], "float32")
        hidden = self.hidden(self.rng("mask"))
        target = masks.patches_of(masks.scaled(images, self.value_range), self._square)
        return {"predicted": self.predict_squares(images, hidden, training), "target": target, "masked": hidden}

    def hidden(self, rng):
        """Which squares are hidden: boolean `(n, squares)`."""
        return masks.first_of(masks.mask_order(rng, self._grid, self.blocks), self._masked)

    def predict_squares(self, images, hidden, training=None):
        """What the linear layer makes of each square, float32 `(n, squares, numbers)`, of images with hidden ones."""
        cells = self._encoded(images, hidden, training)
        pixels = ops.cast(self.decoder(cells), "float32")
        return masks.patches_of(masks.images_of(pixels, self._cells, self._cell), self._square)

    def _encoded(self, images, hidden, training):
        """The backbone's map of images with hidden squares, `(n, cells, width)`."""
        parts, gray = self._parts, masks.gray(self.value_range)
        if parts:
            mask = masks.finer(hidden, self._grid, [a // b for a, b in zip(self._square, parts.patch)])
            return parts.encode_masked(images, mask, self.mask_token, gray, training)[:, parts.first :]
        features = self.backbone(masks.painted(images, hidden, self._square, gray), training=training)
        return ops.reshape(features, (-1, math.prod(self._cells), features.shape[-1]))

    def objective(self, outputs, batch):
        target, masked = outputs["target"], outputs["masked"]
        error = losses.masked_absolute(outputs["predicted"], target, masked)
        flat = losses.masked_absolute(ops.zeros_like(target) + losses.mean_of_visible(target, masked), target, masked)
        error_of_all, flat_of_all = distribute.global_sum([ops.sum(error), ops.sum(flat)])
        return {"simmim": error}, {"explained": 1.0 - error_of_all / ops.maximum(flat_of_all, 1e-12)}

    def reconstruct(self, images):
        """Images with hidden squares, and what the model puts into them, to be looked at.

        Args:
            images: `(n, height, width, channels)`, in the model's value range.

        Returns:
            `(masked, reconstructed)`, float32 arrays of the shape of `images`. What is hidden is gray; the masks are
            the same at each call.
        """
        images = ops.cast(images, "float32")
        hidden = self.hidden(RowRNG(self.seed, ops.arange(len(images), dtype="int32")).fold_in("reconstruct"))
        made = masks.unscaled(self.predict_squares(images, hidden, training=False), self.value_range)
        made = ops.where(hidden[:, :, None], made, masks.patches_of(images, self._square))
        made = masks.images_of(made, self._grid, self._square)
        masked = masks.painted(images, hidden, self._square, masks.gray(self.value_range))
        return ops.convert_to_numpy(masked), ops.convert_to_numpy(made)

    def pretext_examples(self, images):
        masked, made = self.reconstruct(images)
        captions = [f"{100 * self._masked / math.prod(self._grid):.0f} % hidden", "reconstructed", "image"]
        return {"pictures": [masked, made, images], "captions": [captions] * len(images)}

    def collapse_losses(self, batch_size):
        # How far pixels lie from their mean depends on the images.
        return {"all images have one embedding: see whether `explained` stays at 0": 0.0}


def _map_of(backbone, sides):
    """How many cells a feature map has along each axis."""
    shape = backbone.output_shape if backbones.is_graph(backbone) else ()
    cells = shape[1:-1] if isinstance(shape, tuple) else ()
    known = sides and None not in (*sides, *cells) and len(cells) == len(sides)
    if not known or any(side % of for side, of in zip(sides, cells)):
        raise ValueError(
            f"SimMIM: `backbone` must be one of patches that is known, or give a map of cells that divide its images, "
            f"and {backbone.name} makes {shape} of images of {sides}. Take keras_ssl.backbones.vit, a backbone of "
            "keras-hub (see the docstring), or images whose sides are multiples of its stride: for resnet8, 32 and not "
            "28 pixels."
        )
    return cells


def _square(mask_size, cell, sides, patch):
    """The sides of what is hidden at a time."""
    if mask_size is None:
        return cell
    square = (mask_size,) * len(sides) if isinstance(mask_size, int) else tuple(mask_size)
    fits = len(square) == len(sides) and all(
        isinstance(of, int) and of > 0 and side % of == 0 and of % step == 0
        for of, side, step in zip(square, sides, patch)
    )
    if not fits:
        raise ValueError(
            f"SimMIM: `mask_size` must divide the sides {sides} of the images and be a multiple of the backbone's "
            f"patches of {patch}; it is {mask_size!r}."
        )
    return square
