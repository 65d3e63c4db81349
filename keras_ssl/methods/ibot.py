"""iBOT: DINO, and the student predicts of hidden patches what the teacher makes of them."""

import math

import keras
from keras import ops

from keras_ssl import backbones, heads, losses, token_parts
from keras_ssl.augment import masks
from keras_ssl.augment.rng import RowRNG
from keras_ssl.losses.clusters import entropy, teacher_probabilities
from keras_ssl.methods.dino import DINO, SEEN, global_mean
from keras_ssl.prototypes import Center
from keras_ssl.training import step as steps


@keras.saving.register_keras_serializable("keras_ssl")
class IBOT(DINO):
    """iBOT (Zhou et al., "iBOT: Image BERT Pre-Training with Online Tokenizer", 2022).

    `DINO` with a second task. In the first two views, the large crops, patches are hidden from the student behind a
    mask token; the teacher sees all. Of each hidden patch the student predicts how the teacher sorts it by the
    prototypes (section 3.1), with the head that features of the whole image go through as well. And as in DINO
    all views, the large crops with their hidden patches too, predict the teacher's answer to the other large crops.

    It needs a backbone of patches that gives their tokens: `keras_ssl.backbones.vit`, also of open size, of series and
    of volumes, keras-hub's `ViTBackbone`, `DINOV2Backbone`, `DINOV3Backbone` and `SwinTransformerBackbone`, or a
    functional model named as `keras_ssl.token_parts.find` says.

    Terms: `dino`, and `mim`, the mean over the two large crops of `losses.ibot`, weighted. Metrics: those of DINO, and
    `patch_entropy`, of the teacher's probabilities of the first crop's patches: ln(prototypes) and 0 are the two
    collapses of the second task.

    Args:
        backbone: a Keras model of patches, as above. It must have a config (`get_config`).
        views: two views or more, of which the first two are large crops of one size; None for DINO's two large crops.
        projector: as of `DINO`. It sees the image and each patch as a row: batch normalization in it, which the paper's
            has not, would mix the two.
        prototypes: how many, 2 or more, for images and patches. The paper's 8192 are for ImageNet.
        mask_ratio: the smallest and the largest share of the patches that is hidden in a crop with a mask, each rounded
            down to whole patches, one at least; in [0, 1). Where a backbone merges patches, of the merged ones.
        mask_probability: how likely a large crop has a mask, in (0, 1].
        blocks: so many boxes of hidden patches, which grow together until they hold enough
            (`augment.masks.mask_order`); None to hide patches at random. The paper draws one box after another.
        mim_weight: of the second term, 0 or more; the paper's is 1.
        **kwargs: all other arguments of `DINO`. The temperatures of the teacher are those of patches as well, as in the
            authors' runs. `one_pass` runs the two large crops as one batch, and the small ones of one size as another.
    """

    terms = ("dino", "mim")
    metric_names = (*DINO.metric_names, "patch_entropy")

    def __init__(
        self,
        backbone,
        views=None,
        projector=None,
        prototypes=8192,
        mask_ratio=(0.1, 0.5),
        mask_probability=0.5,
        blocks=2,
        mim_weight=1.0,
        **kwargs,
    ):
        super().__init__(backbone, views, projector, prototypes, **kwargs)
        masks.check_blocks("IBOT", blocks)
        masks.check_ratios("IBOT", mask_ratio, mask_probability)
        if not 0.0 <= mim_weight < float("inf"):
            raise ValueError(f"IBOT: `mim_weight` must be 0 or more; it is {mim_weight!r}.")
        self.mask_ratio = tuple(mask_ratio)
        self.mask_probability = mask_probability
        self.blocks = blocks
        self.mim_weight = mim_weight
        self._parts = token_parts.giving_tokens(self.backbone, "IBOT", "keras_ssl.DINO takes any backbone.")

    def build_heads(self, width):
        super().build_heads(width)
        self.patch_center = Center(self.center_momentum, name="patch_center")
        self.patch_center.build((None, self.prototypes))
        self.mask_token = self._parts.new_mask_token(self)

    def embed(self, views, training):
        large, small = [ops.cast(view, "float32") for view in views[:SEEN]], views[SEEN:]
        if large[0].shape[1:] != large[1].shape[1:]:
            sizes = " and ".join(str(tuple(view.shape[1:])) for view in large)
            raise ValueError(f"IBOT: the first two views are the large crops, of one size; they are {sizes}.")
        drawn = [self._drawn(self.rng("mask").fold_in("view", place), large[0].shape) for place in range(SEEN)]
        hidden = [masks.first_of(order, count) for order, count in drawn]
        # Only those patches go through the student's head that may be hidden, the first so many of each order.
        most = masks.count_of(self.mask_ratio[1], hidden[0].shape[1])
        places = [order[:, :most, None] for order, _ in drawn]
        student = [_with_patches(*pair) for pair in zip(self._student(large, hidden, training), places)]
        student = self.map_views(heads.by_row(self.projector), student, training, self.one_pass)
        others = self.map_views(self.features, small, training, self.one_pass)
        others = self.map_views(self.projector, others, training, self.one_pass)
        teacher = [ops.stop_gradient(rows) for rows in self.map_views(self._teacher, large, training, self.one_pass)]
        return {
            "student": losses.normalized(ops.stack([*(rows[:, 0] for rows in student), *others], axis=1)),
            "teacher": ops.stack([rows[:, 0] for rows in teacher], axis=1),
            "student_patches": losses.normalized(ops.stack([rows[:, 1:] for rows in student], axis=1)),
            "teacher_patches": ops.stack([_with_patches(*pair)[:, 1:] for pair in zip(teacher, places)], axis=1),
            "mean_patch": ops.mean(ops.concatenate([rows[:, 1:] for rows in teacher], axis=1), axis=1),
            "masked": ops.stack([ops.arange(most) < count for _, count in drawn], axis=1),
        }

    def _drawn(self, rng, shape, probability=None):
        grid, probability = self._parts.grids(shape)[1], probability or self.mask_probability
        return masks.order_and_count(rng, grid, self.mask_ratio, probability, self.blocks)

    def _student(self, large, hidden, training):
        """The pooled features and the patches of both crops, `(n, 1 + patches, width)`, from what is not hidden."""
        if not self.one_pass:
            return [self._see(crop, mask, training) for crop, mask in zip(large, hidden)]
        both = ops.reshape(ops.stack(hidden, axis=1), (-1, hidden[0].shape[1]))  # as the crops lie side by side
        return self.map_views(lambda crops, training: self._see(crops, both, training), large, training, True)

    def _see(self, crops, hidden, training):
        parts = self._parts
        grid, out_grid = parts.grids(crops.shape)
        mask = masks.finer(hidden, out_grid, [a // b for a, b in zip(grid, out_grid)])
        tokens = parts.encode_masked(crops, mask, self.mask_token, masks.gray(self.value_range), training)
        rows = self._rows(tokens, crops.shape)
        steps.noted(self, rows[:, 0])
        return rows

    def _teacher(self, crops, training):
        """What the teacher embeds of whole crops: `(n, 1 + patches, d)`, of length 1."""
        backbone, projector = self.teacher.copies[:2]
        rows = self._rows(backbone(crops, training=training), crops.shape)
        return losses.normalized(heads.by_row(projector)(rows, training))

    def _rows(self, tokens, shape):
        pooled = backbones.pooled(tokens, self.backbone, self.pooling, shape)
        return ops.concatenate([pooled[:, None], tokens[:, self._parts.first :]], axis=1)

    def objective(self, outputs, batch):
        terms, metrics = super().objective(outputs, batch)
        student = self.scores(outputs["student_patches"], self.progress.within(self.frozen_steps))
        teacher = self.teacher.copies[-1](outputs["teacher_patches"])
        center, temperature = self.patch_center.value(), metrics["teacher_temperature"]
        mim = sum(
            losses.ibot(*view, center, self.student_temperature, temperature)
            for view in zip(*(ops.unstack(many, axis=1) for many in (student, teacher, outputs["masked"])))
        )
        sorted_to = teacher_probabilities(teacher[:, 0], center, temperature)
        return {**terms, "mim": self.mim_weight / SEEN * mim}, {
            **metrics,
            "patch_entropy": ops.mean(entropy(sorted_to), axis=1),
        }

    def after_optimizer_step(self, outputs, stepped):
        # Of all patches, as in the authors' code, and by the teacher of this step: before it moves.
        mean = global_mean(outputs["mean_patch"])
        self.patch_center.update(self.teacher.copies[-1](mean[None])[0], stepped)
        super().after_optimizer_step(outputs, stepped)

    def pretext_examples(self, images):
        images = ops.cast(images, "float32")
        rng = RowRNG(self.seed, ops.arange(len(images), dtype="int32")).fold_in("examples")
        order, count = self._drawn(rng, images.shape, probability=1.0)
        cell = [side // of for side, of in zip(images.shape[1:-1], self._parts.grids(images.shape)[1])]
        shown = masks.painted(images, masks.first_of(order, count), cell, masks.gray(self.value_range))
        captions = ["what the student sees", "what its teacher sees"]
        pictures = [ops.convert_to_numpy(each) for each in (shown, images)]
        return {"pictures": pictures, "captions": [captions] * len(images)}

    def collapse_losses(self, batch_size):
        even = math.log(self.prototypes) * (1.0 + self.mim_weight * self.mask_probability)
        return {
            "the teacher gives all prototypes the same share of every image and patch": even,
            "all images are at one prototype: see whether `teacher_entropy` and `spread` are 0 as well": 0.0,
        }


def _with_patches(rows, places):
    """The first of each row's vectors, and of the others those at some places, `(n, k, 1)`: `(n, 1 + k, width)`."""
    return ops.concatenate([rows[:, :1], ops.take_along_axis(rows[:, 1:], places, axis=1)], axis=1)
