"""MAE: most patches are left out, the backbone encodes the rest, and a light decoder predicts what was left out."""

import math

import keras
from keras import ops

from keras_ssl import augment, backbones, distribute, losses, networks, regularizers, token_parts
from keras_ssl.augment import masks
from keras_ssl.augment.policies import one_view
from keras_ssl.augment.rng import RowRNG
from keras_ssl.losses.reconstruction import patch_deviations
from keras_ssl.model import SelfSupervisedModel


@keras.saving.register_keras_serializable("keras_ssl")
class MAE(SelfSupervisedModel):
    """Masked autoencoder (He et al., "Masked Autoencoders Are Scalable Vision Learners", 2022).

    Three quarters of an image's patches are left out, others for each image. The backbone encodes what is left, which
    takes a fraction of the time; a light decoder gets that, a mask token in each gap and the places of all, and
    predicts the pixels of the gaps (section 3), less the mean of their patch and divided by its deviation.

    It needs a backbone whose tokens can be left out: `keras_ssl.backbones.vit`, also of series and of volumes,
    keras-hub's `ViTBackbone` or `DINOV2Backbone`, these inside of another model, or a functional model of your own with
    layers named as `keras_ssl.token_parts.find` says. No loss is on the class token: `pooling="mean"` takes the
    mean of the patches as features.

    Term: `mae`, the mean square of the masked patches' numbers (with `normalize`, 1 less a `1/numbers`-th where every
    patch is predicted flat, and less where patches are flat). Metric: `explained`, the share of it that is less than
    by predicting the mean of what is visible.

    Args:
        backbone: a Keras model of patches with images of one size.
        views: one view; None for the paper's, a crop of 20 to 100 % and a flip (`augment.mae`), and for series and
            volumes the inputs as they are.
        mask_ratio: the share of patches that are left out, in (0, 1); what is left is rounded down, to one at least.
        normalize: predict pixels less their patch's mean, divided by its deviation; else the pixels, in units in which
            `value_range` is [−1, 1], and inputs without a range as they are.
        blocks: None to leave out patches at random, as the paper does; else so many boxes (`augment.masks.mask_order`).
        decoder_width, decoder_depth, decoder_heads: of the decoder's transformer; the paper's. For small images much
            smaller ones do (`keras_ssl.recipes`).
        **kwargs: `value_range`, `seed`, `pooling`, `name`, `dtype`: see `SelfSupervisedModel`. `regularizers` are
            refused: no whole view is encoded.
    """

    terms = ("mae",)
    metric_names = ("explained",)
    view_counts = (1,)
    batch_dependent = False
    collapse_advice = "A longer warm-up, more epochs or a larger rate usually help: MAE learns slowly at first."

    def __init__(
        self,
        backbone,
        views=None,
        mask_ratio=0.75,
        normalize=True,
        blocks=None,
        decoder_width=512,
        decoder_depth=8,
        decoder_heads=16,
        **kwargs,
    ):
        super().__init__(backbone, views, **kwargs)
        regularizers.check_none(self, "it encodes what is left of an image")
        self._parts = parts = _checked(self.backbone)
        self._patches = math.prod(parts.grid)
        self._numbers = math.prod(parts.patch) * backbones.input_shape(self.backbone)[-1]
        self._masked = masks.masked_count("MAE", mask_ratio, self._patches)
        masks.check_blocks("MAE", blocks)
        if decoder_width % decoder_heads or decoder_width < 2 * len(parts.grid) or decoder_depth < 1:
            raise ValueError(
                f"MAE: `decoder_width` must be a multiple of decoder_heads={decoder_heads}, and `decoder_depth` 1 or "
                f"more; they are {decoder_width!r} and {decoder_depth!r}."
            )
        if normalize and self._numbers == 1:
            raise ValueError("MAE: a patch of one number has no deviation: pass normalize=False, or larger patches.")
        self.mask_ratio = mask_ratio
        self.normalize = normalize
        self.blocks = blocks
        self.decoder_width, self.decoder_depth, self.decoder_heads = decoder_width, decoder_depth, decoder_heads

    def default_views(self):
        return one_view(self.backbone, self.value_range, augment.mae)

    def build_heads(self, width):
        parts, options = self._parts, {"dtype": self.dtype_policy}
        self.bridge = keras.layers.Dense(self.decoder_width, name="bridge", **options)
        self.bridge.build((None, None, parts.out_width))
        sizes = (self.decoder_width, self.decoder_depth, self.decoder_heads)
        self.decoder = networks.patch_decoder(parts.grid, parts.first, *sizes, self._numbers, **options)
        normal = keras.initializers.RandomNormal(stddev=0.02)
        self.mask_token = self.add_weight(shape=(self.decoder_width,), initializer=normal, name="mask_token")

    def embed(self, views, training):
        images = ops.cast(views[0], "float32")
        order = self.order(self.rng("mask"))
        patches = masks.patches_of(masks.scaled(images, self.value_range), self._parts.patch)
        target = losses.normalized_patches(patches) if self.normalize else patches
        predicted = self.predict_patches(images, order, training)
        return {"predicted": predicted, "target": target, "masked": masks.first_of(order, self._masked)}

    def order(self, rng):
        """In which order the patches of each row are left out: int32 `(n, patches)`."""
        return masks.mask_order(rng, self._parts.grid, self.blocks)

    def predict_patches(self, images, order, training=None):
        """What the decoder makes of each patch, `(n, patches, numbers)`; the backbone sees the last in `order`."""
        parts, first = self._parts, self._parts.first
        tokens = parts.embed(images, training)
        seen = ops.take_along_axis(tokens[:, first:], order[:, self._masked :, None], axis=1)
        seen = parts.encode(ops.concatenate([tokens[:, :first], seen], axis=1), training)
        seen = self.bridge(seen)
        token = ops.cast(self.mask_token, seen.dtype)
        gaps = ops.broadcast_to(token, (ops.shape(seen)[0], self._masked, self.decoder_width))
        places = ops.argsort(order, axis=1)[:, :, None]
        whole = ops.take_along_axis(ops.concatenate([gaps, seen[:, first:]], axis=1), places, axis=1)
        return self.decoder(ops.concatenate([seen[:, :first], whole], axis=1), training=training)

    def objective(self, outputs, batch):
        target, masked = outputs["target"], outputs["masked"]
        error = losses.masked_squared(outputs["predicted"], target, masked)
        flat = losses.masked_squared(ops.zeros_like(target) + losses.mean_of_visible(target, masked), target, masked)
        error_of_all, flat_of_all = distribute.global_sum([ops.sum(error), ops.sum(flat)])
        return {"mae": error}, {"explained": 1.0 - error_of_all / ops.maximum(flat_of_all, 1e-12)}

    def reconstruct(self, images):
        """Images with gaps, and what the model puts into the gaps, to be looked at.

        With `normalize` the model does not predict the brightness and contrast of a patch: the true ones are taken.

        Args:
            images: `(n, height, width, channels)`, in the model's value range.

        Returns:
            `(masked, reconstructed)`, float32 arrays of the shape of `images`. Gaps are gray; the masks are the same at
            each call.
        """
        images = ops.cast(images, "float32")
        order = self.order(RowRNG(self.seed, ops.arange(len(images), dtype="int32")).fold_in("reconstruct"))
        patches = masks.patches_of(masks.scaled(images, self.value_range), self._parts.patch)
        made = ops.cast(self.predict_patches(images, order, training=False), "float32")
        if self.normalize:
            made = made * patch_deviations(patches) + ops.mean(patches, axis=-1, keepdims=True)
        gaps = masks.first_of(order, self._masked)[:, :, None]
        shown = [ops.where(gaps, fill, patches) for fill in (ops.zeros_like(patches), made)]
        shown = [masks.images_of(each, self._parts.grid, self._parts.patch) for each in shown]
        return tuple(ops.convert_to_numpy(masks.unscaled(each, self.value_range)) for each in shown)

    def pretext_examples(self, images):
        masked, made = self.reconstruct(images)
        made_of = "shapes reconstructed" if self.normalize else "reconstructed"  # brightness is the true one
        captions = [f"{100 * self._masked / self._patches:.0f} % left out", made_of, "image"]
        return {"pictures": [masked, made, images], "captions": [captions] * len(images)}

    def collapse_losses(self, batch_size):
        if not self.normalize:  # how far pixels lie from their mean depends on the images
            return {"all images have one embedding: see whether `explained` stays at 0": 0.0}
        return {"each patch is predicted as flat": 1.0 - 1.0 / self._numbers}


def _checked(backbone):
    """The parts of a backbone whose tokens can be left out."""
    parts = token_parts.find(backbone)
    if parts is None:
        raise ValueError(
            f"MAE: `backbone` must be one of patches, of which some can be left out, and {backbone.name} is none that "
            "is known. Take keras_ssl.backbones.vit, keras-hub's ViTBackbone or DINOV2Backbone, or name the layers of "
            "your own functional model as keras_ssl.token_parts.find says. keras_ssl.SimMIM takes feature maps too."
        )
    if parts.whole:
        raise ValueError(
            f"MAE: `backbone`: no patch of {backbone.name} can be left out, because it {parts.whole}. Take "
            "keras_ssl.SimMIM, which puts a mask token there, or a backbone whose tokens carry their places: "
            "keras_ssl.backbones.vit, keras-hub's ViTBackbone or DINOV2Backbone."
        )
    return parts
