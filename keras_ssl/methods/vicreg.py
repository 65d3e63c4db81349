"""VICReg: the two views agree, every dimension of the embedding varies, and no two dimensions say the same."""

import keras
from keras import ops

from keras_ssl import augment, distribute, heads, losses
from keras_ssl.augment.policies import default_views
from keras_ssl.losses.vicreg import check_vicreg, deviations
from keras_ssl.model import SelfSupervisedModel


@keras.saving.register_keras_serializable("keras_ssl")
class VICReg(SelfSupervisedModel):
    """VICReg (Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
    2022).

    Three terms (eq. 6): the embeddings of both views are pulled together, the standard deviation of each dimension over
    the global batch is held above 1, and the covariances of different dimensions are pulled to 0. There are no
    negatives, no teacher and no normalization of the embeddings. Wide embeddings help; the covariances are d × d: with
    the paper's 8192 dimensions 256 MiB for each view.

    Terms: `invariance`, `variance` and `covariance`, already weighted, as the authors' code has them (see
    `losses.vicreg`). Metric: `deviation`, the mean standard deviation of the dimensions: 0.01 where all images have one
    embedding, near 1 in a good run.

    Args:
        backbone: a Keras model from images to `(n, features)` or a feature map.
        views: two views; None for the paper's policy, which is BYOL's, at the backbone's size (`augment.byol`), or for
            images of one channel and up to 64 pixels `augment.small_gray`.
        projector: from pooled features to the embedding; None for the paper's: three dense layers of 8192, the first
            two with batch normalization and ReLU, the last with neither nor a bias. `keras.layers.Identity()` for none.
        invariance_weight, variance_weight, covariance_weight: λ, μ and ν, 0 or more.
        one_pass: run both views as one batch, so that batch normalization sees 2N images; else one view after the
            other, as the authors' code does.
        **kwargs: `value_range`, `seed`, `name`, `dtype`: see `SelfSupervisedModel`.
    """

    terms = ("invariance", "variance", "covariance")
    metric_names = ("deviation",)
    view_counts = (2,)
    collapse_advice = (
        "A smaller learning rate with warm-up, batches of 128 or more and a `variance_weight` that is not below the "
        "`invariance_weight` usually help."
    )

    def __init__(
        self,
        backbone,
        views=None,
        projector=None,
        invariance_weight=25.0,
        variance_weight=25.0,
        covariance_weight=1.0,
        one_pass=False,
        **kwargs,
    ):
        check_vicreg("VICReg", invariance_weight, variance_weight, covariance_weight)
        super().__init__(backbone, views, **kwargs)
        self.projector = projector
        self.invariance_weight = invariance_weight
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight
        self.one_pass = one_pass

    def default_views(self):
        return default_views(self.backbone, self.value_range, augment.byol)

    def build_heads(self, width):
        if self.projector is None:
            self.projector = heads.mlp(
                [8192, 8192, 8192], last_batch_norm=False, last_bias=False, name="projector", dtype=self.dtype_policy
            )
        heads.build(self.projector, width)

    def embed(self, views, training):
        a, b = self.map_views(self.project, views, training, self.one_pass)
        return {"a": a, "b": b}

    def objective(self, outputs, batch):
        a, b = distribute.gather(outputs["a"]), distribute.gather(outputs["b"])
        weights = (self.invariance_weight, self.variance_weight, self.covariance_weight)
        terms = dict(zip(self.terms, losses.vicreg_terms(a, b, *weights)))
        return terms, {"deviation": (ops.mean(deviations(a)) + ops.mean(deviations(b))) / 2.0}

    def collapse_losses(self, batch_size):
        # √1e-4 is left of the deviation.
        return {"all images have one embedding: no dimension varies": 0.99 * self.variance_weight}
