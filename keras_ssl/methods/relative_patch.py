"""Relative position: two patches of an image. Where does the second lie, seen from the first?"""

import math

import keras
from keras import ops

from keras_ssl import augment, heads, losses
from keras_ssl.augment import patches
from keras_ssl.augment.rng import RowRNG
from keras_ssl.model import SelfSupervisedModel

# The eight neighbors of the middle of a 3×3 grid, row by row.
_ROWS, _COLUMNS = (0, 0, 0, 1, 1, 2, 2, 2), (0, 1, 2, 0, 2, 0, 1, 2)
_NAMES = ("upper left", "above", "upper right", "left", "right", "lower left", "below", "lower right")


@keras.saving.register_keras_serializable("keras_ssl")
class RelativePatch(SelfSupervisedModel):
    """Context prediction (Doersch et al., "Unsupervised Visual Representation Learning by Context Prediction", 2015).

    The middle patch of a 3×3 grid and one of its eight neighbors, drawn for each image, go through one backbone; a
    classifier on both features says which neighbor it was. The paper's guards against shortcuts (section 3.1): a gap
    between patches, and a jitter of each, so that edges don't meet; and all but one color channel dropped, so that
    chromatic aberration does not tell where in the lens a patch was.

    Where the backbone is made for one size of image, patches are brought to that; a backbone of open size,
    `(None, None, channels)`, sees them as they are, which is quicker.

    Term: `relative_patch`. Metric: `position_accuracy`; chance is 0.125.

    Args:
        backbone: a Keras model from images to `(n, features)` or a feature map.
        views: one view; None for `augment.proxy`.
        head: from the two features side by side to 8 logits; None for dense layers of 256 and 8.
        patch: side in pixels; None for a quarter of the image's.
        gap: between patches in pixels; None for half a patch. The paper: 48 for patches of 96.
        jitter: how far a patch goes from its place at most, in pixels; None for a third of the gap. The paper: 7.
        drop_colours: keep one channel of three; images of one channel have none to drop.
        **kwargs: `value_range`, `seed`, `name`, `dtype`: see `SelfSupervisedModel`.
    """

    terms = ("relative_patch",)
    metric_names = ("position_accuracy",)
    view_counts = (1,)
    batch_dependent = False
    patch_based = True
    collapse_advice = "A smaller learning rate and more passes usually help; patches of 8 pixels and less say little."

    def __init__(self, backbone, views=None, head=None, patch=None, gap=None, jitter=None, drop_colours=True, **kwargs):
        super().__init__(backbone, views, **kwargs)
        self.head = head
        self.patch = patch
        self.gap = gap
        self.jitter = jitter
        self.drop_colours = drop_colours

    def default_views(self):
        return augment.proxy(self.value_range)

    def build_heads(self, width):
        if self.head is None:
            options = {"batch_norm": False, "last_batch_norm": False, "dtype": self.dtype_policy}
            self.head = heads.mlp([256, 8], name="head", **options)
        heads.build(self.head, 2 * width, 8, "RelativePatch")

    def geometry(self, height, width):
        """`(patch, gap, jitter)` in pixels, for images of this size; refuses what does not fit."""
        side = min(height, width)
        patch = side // 4 if self.patch is None else self.patch
        gap = patch // 2 if self.gap is None else self.gap
        jitter = max(gap, 0) // 3 if self.jitter is None else self.jitter
        if gap >= 0 and 2 * jitter > gap:
            raise ValueError(
                f"RelativePatch: with a jitter of {jitter} and a gap of {gap} patches would touch, and their edges "
                "tell the answer: `jitter` must be at most half of `gap`."
            )
        if patch < 1 or gap < 0 or jitter < 0 or 3 * patch + 2 * gap > side:
            raise ValueError(
                f"RelativePatch: three patches of {patch} pixels with gaps of {gap} and a jitter of {jitter} don't fit "
                f"in images of {height}×{width}: make `patch` or `gap` smaller, or images larger."
            )
        return patch, gap, jitter

    def embed(self, views, training):
        pair, _, position = self.pair(views[0], self.rng("relative_patch"))
        features = self.map_views(self.features, self.resize_to_backbone(pair), training, one_pass=True)
        logits = self.head(ops.concatenate(features, axis=1), training=training)
        return {"logits": logits, "position": position}

    def pair(self, image, rng):
        """`(pair, places, position)`: both patches, where they were cut, and which neighbor the second is.

        Returns:
            A list of two tensors `(n, patch, patch, channels)`; first rows and first columns, `(n, 2)` each; int32
            `(n,)`.
        """
        height, width = image.shape[1:3]
        patch, gap, jitter = self.geometry(height, width)
        position = ops.cast(rng.uniform("position") * 8.0, "int32")
        top, left = (
            self._places(rng, name, position, side, patch, gap, jitter)
            for name, side in (("rows", height), ("columns", width))
        )
        pair = [
            self._without_shortcuts(part, rng.fold_in(n)) for n, part in enumerate(patches.cut(image, top, left, patch))
        ]
        return pair, (top, left), position

    def _places(self, rng, name, position, side, patch, gap, jitter):
        """The first pixel of the middle patch and of its neighbor, along one side: `(n, 2)`."""
        cell = ops.take(ops.convert_to_tensor(_ROWS if name == "rows" else _COLUMNS, "int32"), position)
        cells = ops.stack([ops.ones_like(cell), cell], axis=1)
        moved = ops.floor(rng.uniform(name, 2) * (2 * jitter + 1)) - jitter
        start = (side - 3 * patch - 2 * gap) // 2 + cells * (patch + gap) + ops.cast(moved, "int32")
        return ops.clip(start, 0, side - patch)

    def _without_shortcuts(self, part, rng):
        channels = part.shape[-1]
        if not self.drop_colours or channels == 1:
            return part
        channel = ops.floor(rng.uniform("channel") * channels)
        noise = rng.uniform("noise", part.shape[1] * part.shape[2] * channels, -(3.0**0.5), 3.0**0.5)
        return patches.drop_colours(part, channel, ops.reshape(noise, ops.shape(part)))

    def objective(self, outputs, batch):
        logits, position = outputs["logits"], outputs["position"]
        return (
            {"relative_patch": losses.cross_entropy(logits, position)},
            {"position_accuracy": losses.correct_predictions(logits, position)},
        )

    def pretext_examples(self, images):
        pair, places, position = self.pair(images, RowRNG(self.seed, ops.arange(len(images))))
        captions = [["middle", _NAMES[number]] for number in ops.convert_to_numpy(position)]
        return {"pictures": pair, "captions": captions, "places": ops.stack(places, axis=-1)}

    def collapse_losses(self, batch_size):
        return {"the features say nothing of the position": math.log(8.0)}
