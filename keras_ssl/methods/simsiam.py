"""SimSiam: each view predicts the other view's projection, through which no gradient goes."""

import keras
from keras import ops

from keras_ssl import augment, distribute, heads, losses
from keras_ssl.augment.policies import default_views
from keras_ssl.losses.clusters import spread
from keras_ssl.model import SelfSupervisedModel


@keras.saving.register_keras_serializable("keras_ssl")
class SimSiam(SelfSupervisedModel):
    """SimSiam (Chen & He, "Exploring Simple Siamese Representation Learning", 2021).

    The prediction of each view is compared with the projection of the other, which counts as a constant (eq. 4). There
    are no negatives and no slow copy of the network: the predictor and the stopped gradient alone keep it from
    collapse.

    Term: `simsiam`, the mean of both directions' `1 − cos(p, z)`, in [0, 2]: the number of the paper and of its code
    plus 1, with the same gradients. Metric: `spread`, the standard deviation of the projections' dimensions at length
    1, times √d: near 1 where they fill the sphere, 0 where all are one (figure 2 of the paper).

    Args:
        backbone: a Keras model from images to `(n, features)` or a feature map.
        views: two views; None for the paper's policy at the backbone's size, SimCLR's with half of its jitter and crops
            from 20 % of the area, or for images of one channel and up to 64 pixels `augment.small_gray`.
        projector: from pooled features to the embedding; None for the paper's: three dense layers of 2048, each with
            batch normalization, the last without ReLU and, as in the authors' code, without scale and shift.
            `keras.layers.Identity()` for none.
        predictor: None for the paper's: a quarter of the embedding's width with batch normalization and ReLU, then
            the width again. `keras.layers.Identity()` for none, which collapses.
        one_pass: run both views as one batch, so that batch normalization sees 2N images; else one view after the
            other, as the authors' code does.
        **kwargs: `value_range`, `seed`, `name`, `dtype`: see `SelfSupervisedModel`.
    """

    terms = ("simsiam",)
    metric_names = ("spread",)
    view_counts = (2,)
    batch_dependent = False
    collapse_advice = (
        "Keep the predictor and batch normalization in the heads, the predictor narrower than the embedding, and take "
        "a smaller learning rate."
    )

    def __init__(self, backbone, views=None, projector=None, predictor=None, one_pass=False, **kwargs):
        super().__init__(backbone, views, **kwargs)
        self.projector = projector
        self.predictor = predictor
        self.one_pass = one_pass

    def default_views(self):
        return default_views(self.backbone, self.value_range, augment.moco)

    def build_heads(self, width):
        if self.projector is None:
            self.projector = heads.mlp([2048, 2048, 2048], last_scale=False, name="projector", dtype=self.dtype_policy)
        heads.build(self.projector, width)
        width = heads.width_of(self.projector, width)
        if self.predictor is None:
            widths = [max(1, width // 4), width]
            self.predictor = heads.mlp(widths, last_batch_norm=False, name="predictor", dtype=self.dtype_policy)
        heads.build(self.predictor, width)

    def embed(self, views, training):
        z_a, z_b = self.map_views(self.project, views, training, self.one_pass)
        p_a, p_b = [self.predictor(z, training=training) for z in (z_a, z_b)]
        return {"p_a": p_a, "p_b": p_b, "z_a": ops.stop_gradient(z_a), "z_b": ops.stop_gradient(z_b)}

    def objective(self, outputs, batch):
        p_a, p_b, z_a, z_b = (outputs[name] for name in ("p_a", "p_b", "z_a", "z_b"))
        z = losses.normalized(distribute.gather(z_a))
        return {"simsiam": (losses.cosine(p_a, z_b) + losses.cosine(p_b, z_a)) / 4.0}, {"spread": spread(z)}

    def collapse_losses(self, batch_size):
        return {"all images have one embedding: see whether `spread` is 0 as well": 0.0}
