"""LeJEPA: views predict the mean of an image's views, and embeddings are distributed as an isotropic Gaussian."""

import keras
import numpy as np
from keras import ops

from keras_ssl import augment, distribute, heads, losses
from keras_ssl.augment.policies import default_views
from keras_ssl.losses.sigreg import check_quadrature
from keras_ssl.model import SelfSupervisedModel


@keras.saving.register_keras_serializable("keras_ssl")
class LeJEPA(SelfSupervisedModel):
    """LeJEPA (Balestriero & LeCun, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics",
    2025).

    All views of an image are pulled to the mean of its global views; and SIGReg (`losses.sigreg`) makes each view's
    embeddings over the global batch look like an isotropic Gaussian along random directions, which no collapsed
    embedding does. There are no negatives, no teacher and no stopped gradient. It takes any number of views, two or
    more; those of the first view's size are global, smaller ones are local.

    The directions are a function of seed and step: the same on each backend and replica, and in every evaluation. They
    are columns of nearly normal numbers (`RowRNG.normal`), and so only nearly uniform on the sphere.

    Terms: `prediction`, `(1 − λ) · ` the mean square of center and embedding over views and dimensions, and `sigreg`,
    λ times the mean over views. Metric: `spread`, the standard deviation of the embeddings' dimensions: 1 where they
    are as wanted, 0 where all are one.

    Args:
        backbone: a Keras model from images to `(n, features)`, a feature map or tokens.
        views: two views or more; None for two of BYOL's policy at the backbone's size (`augment.byol`), or for images
            of one channel and up to 64 pixels of `augment.small_gray`. The authors take two of 224 and six of 98
            pixels, or four of one size.
        projector: from pooled features to the embedding; None for the authors': dense layers of 2048, 2048 and 128, the
            first two with batch normalization and ReLU. `keras.layers.Identity()` for none.
        sigreg_weight: λ, in [0, 1]. The authors' minimal example: 0.02.
        directions: how many are drawn in a step, 1 or more. The authors' minimal example: 256, their README: 1024.
            Memory grows with images · directions · knots.
        knots, limit: of the integral: see `losses.sigreg`.
        one_pass: run the views of one size as one batch, so that batch normalization sees all of them, as the authors'
            code does; else one view after the other.
        **kwargs: `value_range`, `seed`, `name`, `dtype`, `pooling`: see `SelfSupervisedModel`.
    """

    terms = ("prediction", "sigreg")
    metric_names = ("spread",)
    view_counts = None
    collapse_advice = "A larger `sigreg_weight`, batches of 128 or more and a smaller learning rate usually help."

    def __init__(
        self,
        backbone,
        views=None,
        projector=None,
        sigreg_weight=0.02,
        directions=256,
        knots=17,
        limit=3.0,
        one_pass=True,
        **kwargs,
    ):
        if not 0.0 <= sigreg_weight <= 1.0:
            raise ValueError(f"LeJEPA: `sigreg_weight` must lie in [0, 1]; it is {sigreg_weight!r}.")
        if not isinstance(directions, int) or directions < 1:
            raise ValueError(f"LeJEPA: `directions` must be a number, 1 or more; it is {directions!r}.")
        check_quadrature("LeJEPA", knots, limit)
        super().__init__(backbone, views, **kwargs)
        self.projector = projector
        self.sigreg_weight = sigreg_weight
        self.directions = directions
        self.knots = knots
        self.limit = limit
        self.one_pass = one_pass

    def default_views(self):
        return default_views(self.backbone, self.value_range, augment.byol)

    def build_heads(self, width):
        if self.projector is None:
            options = {"last_batch_norm": False, "dtype": self.dtype_policy}
            self.projector = heads.mlp([2048, 2048, 128], name="projector", **options)
        heads.build(self.projector, width)

    def embed(self, views, training):
        if len(views) < 2:
            raise ValueError(f"LeJEPA takes two views of an image or more, and there is {len(views)}.")
        z = [ops.cast(z, "float32") for z in self.map_views(self.project, views, training, self.one_pass)]
        wide = [one for one, view in zip(z, views) if view.shape[1:] == views[0].shape[1:]]
        return {"z": ops.stack(z, axis=1), "center": sum(wide) / len(wide)}

    def objective(self, outputs, batch):
        z, center = outputs["z"], outputs["center"]
        prediction = ops.mean(ops.square(center[:, None] - z), axis=(1, 2))
        every = distribute.gather(z)
        options = {"directions": self.draw_directions(z.shape[2]), "knots": self.knots, "limit": self.limit}
        statistics = [losses.sigreg(every[:, view], **options) for view in range(z.shape[1])]
        weight = self.sigreg_weight
        terms = {"prediction": (1.0 - weight) * prediction, "sigreg": weight * sum(statistics) / len(statistics)}
        return terms, {"spread": ops.mean(ops.std(ops.stop_gradient(every), axis=0))}

    def draw_directions(self, width):
        """`(width, directions)` of this step."""
        rng = self.rng("directions", rows=ops.arange(width, dtype="int32"))
        return rng.normal("direction", self.directions)

    def collapse_losses(self, batch_size):
        nothing = np.zeros((batch_size, 1), "float32"), np.ones((1, 1), "float32")
        statistic = losses.sigreg(*nothing, knots=self.knots, limit=self.limit)
        return {
            "the embeddings of all images are 0: see whether `spread` is 0 as well": self.sigreg_weight
            * float(statistic)
        }
