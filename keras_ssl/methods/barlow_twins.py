"""Barlow Twins: each dimension of the embedding says the same of both views, and no two dimensions say the same."""

import keras
from keras import ops

from keras_ssl import augment, distribute, heads, losses
from keras_ssl.augment.policies import default_views
from keras_ssl.losses.barlow_twins import check_barlow_twins
from keras_ssl.model import SelfSupervisedModel


@keras.saving.register_keras_serializable("keras_ssl")
class BarlowTwins(SelfSupervisedModel):
    """Barlow Twins (Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", 2021).

    The cross-correlation matrix of the two views' embeddings, over the global batch, is pulled towards the identity
    (eq. 1). There are no negatives: batches of 256 do, and wide embeddings help. The matrix is d × d: with the paper's
    8192 dimensions 256 MiB, and the projector has 134 million weights beside those of its first layer.

    Terms: `invariance`, the diagonal's part, and `redundancy`, the rest's, already weighted. Metric: `correlation`, the
    mean of the diagonal, 1 where both views agree.

    Args:
        backbone: a Keras model from images to `(n, features)` or a feature map.
        views: two views; None for the paper's policy at the backbone's size (`augment.barlow_twins`), or for images of
            one channel and up to 64 pixels `augment.small_gray`.
        projector: from pooled features to the embedding; None for the paper's: three dense layers of 8192, the first
            two with batch normalization and ReLU, the last with neither nor a bias. `keras.layers.Identity()` for none.
        off_diagonal_weight: λ, 0 or more.
        scale: of the loss, above 0. It is no free knob beside the learning rate of SGD or LARS: with their momentum
            alone, half of one is half of the other.
        one_pass: run both views as one batch, so that batch normalization sees 2N images; else one view after the
            other, as the authors' code does.
        **kwargs: `value_range`, `seed`, `name`, `dtype`: see `SelfSupervisedModel`.
    """

    terms = ("invariance", "redundancy")
    metric_names = ("correlation",)
    view_counts = (2,)
    collapse_advice = "A smaller learning rate, batches of 128 or more and milder views usually help."

    def __init__(
        self, backbone, views=None, projector=None, off_diagonal_weight=5e-3, scale=1.0, one_pass=False, **kwargs
    ):
        check_barlow_twins("BarlowTwins", off_diagonal_weight, scale)
        super().__init__(backbone, views, **kwargs)
        self.projector = projector
        self.off_diagonal_weight = off_diagonal_weight
        self.scale = scale
        self.one_pass = one_pass

    def default_views(self):
        return default_views(self.backbone, self.value_range, augment.barlow_twins)

    def build_heads(self, width):
        if self.projector is None:
            self.projector = heads.mlp(
                [8192, 8192, 8192], last_batch_norm=False, last_bias=False, name="projector", dtype=self.dtype_policy
            )
        heads.build(self.projector, width)
        self.embedding_width = heads.width_of(self.projector, width)

    def embed(self, views, training):
        a, b = self.map_views(self.project, views, training, self.one_pass)
        return {"a": a, "b": b}

    def objective(self, outputs, batch):
        correlation = losses.cross_correlation(distribute.gather(outputs["a"]), distribute.gather(outputs["b"]))
        invariance, redundancy = losses.barlow_twins_terms(correlation, self.off_diagonal_weight, self.scale)
        return (
            {"invariance": invariance, "redundancy": redundancy},
            {"correlation": ops.mean(ops.diagonal(correlation))},
        )

    def collapse_losses(self, batch_size):
        """Two of them; the width of the embedding, which they grow with, is known once the model is built."""
        if not self.built:
            raise ValueError("BarlowTwins.collapse_losses: the embedding's width is not known yet: build the model.")
        width, weight = self.embedding_width, self.off_diagonal_weight
        # The correlation of two independent columns of n numbers has the mean 0 and the variance 1 / (n − 1).
        noise = 1.0 / (batch_size - 1)
        unrelated = width * (1.0 + noise) + weight * width * (width - 1) * noise
        return {
            "all images have one embedding: nothing correlates": self.scale * width,
            "the two views of an image have no more in common than those of two images": self.scale * unrelated,
        }
