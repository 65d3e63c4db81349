"""SimCLR: two views of an image attract each other, and repel all other images of the batch."""

import math

import keras
from keras import ops

from keras_ssl import distribute, heads, losses
from keras_ssl.augment.policies import default_views
from keras_ssl.losses.nt_xent import check_temperature
from keras_ssl.model import SelfSupervisedModel
from keras_ssl.queue import Queue, check_size
from keras_ssl.saving import check_function


@keras.saving.register_keras_serializable("keras_ssl")
class SimCLR(SelfSupervisedModel):
    """SimCLR (Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020).

    Both views of the batch go through backbone and projector, and NT-Xent (eq. 1) makes each of the 2N embeddings find
    its partner among all others. It needs large batches: the other images are its negatives. Where those don't fit,
    `memory` adds the embeddings of past batches to them, as older weights made them.

    Args:
        backbone: a Keras model from images to `(n, features)` or a feature map.
        views: two views; None for SimCLR's policy at the backbone's size (`augment.simclr`), or for images of one
            channel and up to 64 pixels `augment.small_gray`.
        projector: from pooled features to the embedding; None for the paper's: two dense layers with batch
            normalization, as wide as the features and 128. `keras.layers.Identity()` for none.
        temperature: T of NT-Xent, above 0. The paper: 0.1 for ImageNet, 0.5 for CIFAR-10.
        one_pass: run both views as one batch, as the authors' code does, so that batch normalization sees 2N images;
            else one view after the other.
        memory: embeddings of past batches that are further negatives of every row, the oldest overwritten first; 0 for
            none. Both views of a batch are pushed after each step, so it holds `memory / (2 · batch_size)` batches,
            and must hold one. Keep it well below twice the number of images: an image that comes again meets its own
            older embedding as a negative. `evaluate` uses it, and never changes it;
            while batch normalization's moving statistics settle, what is in it is another kind of embedding there.
        negatives: what weighs the negatives: `keras_ssl.mining.HardnessWeighted()`, `WithoutFalseNegatives()`, or a
            function of yours (see `losses.nt_xent`, `weighting`); None for all alike.
        contrast: the loss, a function with the arguments of `losses.nt_xent`: also `losses.dcl`, `losses.dclw` and
            `losses.debiased_nt_xent`. Its term is named `nt_xent` all the same.
        **kwargs: `value_range`, `seed`, `name`, `dtype`: see `SelfSupervisedModel`.
    """

    terms = ("nt_xent",)
    metric_names = ("contrastive_accuracy",)
    view_counts = (2,)
    collapse_advice = (
        "A temperature of 0.1 to 0.5, larger batches and a smaller learning rate with warm-up usually help."
    )

    def __init__(
        self,
        backbone,
        views=None,
        projector=None,
        temperature=0.1,
        one_pass=True,
        memory=0,
        negatives=None,
        contrast=losses.nt_xent,
        **kwargs,
    ):
        check_temperature("SimCLR", temperature)
        if not isinstance(memory, int) or memory < 0:
            raise ValueError(f"SimCLR: `memory` must be a number of embeddings, 0 for none; it is {memory!r}.")
        if contrast is not losses.nt_xent and (memory or negatives is not None):
            raise ValueError(
                f"SimCLR: `memory` and `negatives` are of losses.nt_xent; `contrast` is {contrast!r}: leave one out."
            )
        check_function("SimCLR: `contrast`", contrast, "keras_ssl.losses.nt_xent")
        if negatives is not None:
            check_function("SimCLR: `negatives`", negatives, "keras_ssl.mining.HardnessWeighted()")
        super().__init__(backbone, views, **kwargs)
        self.projector = projector
        self.temperature = temperature
        self.one_pass = one_pass
        self.memory = memory
        self.negatives = negatives
        self.contrast = contrast

    def default_views(self):
        return default_views(self.backbone, self.value_range)

    def build_heads(self, width):
        if self.projector is None:
            self.projector = heads.mlp([width, 128], name="projector", dtype=self.dtype_policy)
        heads.build(self.projector, width)
        if self.memory:
            self.queue = Queue(self.memory, name="queue")
            self.queue.build((None, heads.width_of(self.projector, width)))

    def embed(self, views, training):
        a, b = self.map_views(self.project, views, training, self.one_pass)
        return {"a": a, "b": b}

    def objective(self, outputs, batch):
        a, b = outputs["a"], outputs["b"]
        all_rows = {
            "keys": (distribute.gather(a), distribute.gather(b)),
            "row_offset": distribute.row_offset(ops.shape(a)[0]),
        }
        if self.memory:
            all_rows["negatives"], all_rows["valid"] = self.queue.negatives()
        accuracy = losses.contrastive_accuracy(a, b, **all_rows)
        if self.negatives is not None:
            all_rows["weighting"] = self.negatives
        return (
            {"nt_xent": self.contrast(a, b, self.temperature, **all_rows)},
            {"contrastive_accuracy": accuracy},
        )

    def after_optimizer_step(self, outputs, stepped):
        if self.memory:
            # The rows of all replicas in the order of the global batch: the queue is the same on each of them.
            views = [distribute.gather(outputs[name]) for name in ("a", "b")]
            self.queue.push(losses.normalized(ops.concatenate(views, axis=0)), stepped)

    def check_batch_size(self, batch_size):
        if self.memory and batch_size is not None:
            check_size("SimCLR: `memory`", self.memory, 2 * batch_size)

    def collapse_losses(self, batch_size):
        others = 2 * batch_size - 1 + self.memory
        if self.contrast in (losses.dcl, losses.dclw):
            others -= 1  # their denominators lack the positive
        return {"all images have one embedding, or the temperature hides the differences": math.log(others)}
