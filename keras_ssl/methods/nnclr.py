"""NNCLR: each view predicts not its own image's other view, but what in a queue of past ones is most like that."""

import math

import keras
from keras import ops

from keras_ssl import augment, backend, distribute, heads, losses
from keras_ssl.augment.policies import default_views
from keras_ssl.losses.nt_xent import check_temperature
from keras_ssl.model import SelfSupervisedModel
from keras_ssl.queue import Queue, check_size


@keras.saving.register_keras_serializable("keras_ssl")
class NNCLR(SelfSupervisedModel):
    """NNCLR (Dwibedi et al., "With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of Visual
    Representations", 2021).

    The projection of one view is replaced by its nearest neighbor in a queue of past projections, the support set; the
    prediction of the other view must be nearer to that neighbor than the predictions of all other images are (eq. 2).
    So another image is the positive, which differs in more ways than any view does. Both directions are taken, and the
    queue gets the first view's projections after the step. No gradient goes into the neighbor.

    Term: `info_nce`, the mean of both directions. Metrics: `contrastive_accuracy`, how often the prediction of an image
    is the nearest to its neighbor; `neighbor_similarity`, the cosine of projection and neighbor.

    Args:
        backbone: a Keras model from images to `(n, features)` or a feature map.
        views: two views; None for BYOL's policy at the backbone's size (`augment.byol`), or for images of one channel
            and up to 64 pixels `augment.small_gray`.
        projector: None for the paper's: three dense layers of 2048, 2048 and 256, each with batch normalization, the
            last without ReLU. `keras.layers.Identity()` for none.
        predictor: None for the paper's: 4096 with batch normalization and ReLU, then the embedding's width.
            `keras.layers.Identity()` for none.
        temperature: above 0.
        memory: projections that the queue holds, the oldest overwritten first; a batch or more. While it holds none, at
            the first step, a projection is its own neighbor. `evaluate` uses the queue, and never changes it.
        one_pass: run both views as one batch, so that batch normalization sees 2N images; else one view after the
            other.
        **kwargs: `value_range`, `seed`, `name`, `dtype`: see `SelfSupervisedModel`.
    """

    terms = ("info_nce",)
    metric_names = ("contrastive_accuracy", "neighbor_similarity")
    view_counts = (2,)
    collapse_advice = (
        "Batch normalization in the heads, larger batches, a queue of some thousands and a smaller learning rate with "
        "warm-up usually help."
    )

    def __init__(
        self,
        backbone,
        views=None,
        projector=None,
        predictor=None,
        temperature=0.1,
        memory=98304,
        one_pass=False,
        **kwargs,
    ):
        check_temperature("NNCLR", temperature)
        if not isinstance(memory, int) or memory < 1:
            raise ValueError(f"NNCLR: `memory` must be a number of projections, 1 or more; it is {memory!r}.")
        super().__init__(backbone, views, **kwargs)
        self.projector = projector
        self.predictor = predictor
        self.temperature = temperature
        self.memory = memory
        self.one_pass = one_pass

    def default_views(self):
        return default_views(self.backbone, self.value_range, augment.byol)

    def build_heads(self, width):
        if self.projector is None:
            self.projector = heads.mlp([2048, 2048, 256], name="projector", dtype=self.dtype_policy)
        heads.build(self.projector, width)
        width = heads.width_of(self.projector, width)
        if self.predictor is None:
            options = {"last_batch_norm": False, "dtype": self.dtype_policy}
            self.predictor = heads.mlp([4096, width], name="predictor", **options)
        heads.build(self.predictor, width)
        self.queue = Queue(self.memory, name="queue")
        self.queue.build((None, width))

    def embed(self, views, training):
        z_a, z_b = self.map_views(self.project, views, training, self.one_pass)
        p_a, p_b = [self.predictor(z, training=training) for z in (z_a, z_b)]
        return {"p_a": p_a, "p_b": p_b, "z_a": ops.stop_gradient(z_a), "z_b": ops.stop_gradient(z_b)}

    def objective(self, outputs, batch):
        predictions = [distribute.gather(outputs[name]) for name in ("p_b", "p_a")]
        row = distribute.row_offset(ops.shape(outputs["z_a"])[0])
        loss, found, similarity = 0.0, 0.0, 0.0
        for z, keys in zip((outputs["z_a"], outputs["z_b"]), predictions):
            z = losses.normalized(z)
            neighbor = self.neighbors(z)
            loss += losses.info_nce(neighbor, keys, temperature=self.temperature, row_offset=row) / 2.0
            found += losses.finds_own_key(neighbor, keys, row) / 2.0
            similarity += ops.sum(z * neighbor, axis=1) / 2.0
        return {"info_nce": loss}, {"contrastive_accuracy": found, "neighbor_similarity": similarity}

    def neighbors(self, z):
        """The row of the queue that is nearest to each row, `(n, d)` at length 1; that row itself while it is empty."""
        rows, valid = self.queue.negatives()
        similarity = ops.where(valid[None, :], backend.matmul(z, ops.transpose(rows)), -float("inf"))
        nearest = ops.take(rows, ops.argmax(similarity, axis=1), axis=0)
        return ops.where(ops.any(valid), nearest, z)

    def after_optimizer_step(self, outputs, stepped):
        # Of all replicas in the order of the global batch: the queue is the same on each of them.
        self.queue.push(losses.normalized(distribute.gather(outputs["z_a"])), stepped)

    def check_batch_size(self, batch_size):
        if batch_size is not None:
            check_size("NNCLR: `memory`", self.memory, batch_size)

    def collapse_losses(self, batch_size):
        return {"all images have one embedding": math.log(batch_size)}
