"""BYOL: each view predicts what a slow copy of the network makes of the other view."""

import keras
from keras import ops

from keras_ssl import augment, distribute, heads, losses
from keras_ssl.augment.policies import default_views
from keras_ssl.losses.clusters import spread
from keras_ssl.model import SelfSupervisedModel
from keras_ssl.teacher import Teacher, schedule_of


@keras.saving.register_keras_serializable("keras_ssl")
class BYOL(SelfSupervisedModel):
    """BYOL (Grill et al., "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning", 2020).

    The online network, backbone, projector and predictor, predicts the target network's projection of the other view
    (eq. 2, both directions added). The target network is a moving average of the online backbone and projector; no
    gradient goes into it. There are no negatives.

    Term: `byol`, in [0, 8]. Metrics: `spread`, the standard deviation of the projections' dimensions at length 1, times
    √d: near 1 where they fill the sphere, 0 where all are one; `teacher_momentum`.

    What keeps it from collapse can be switched off: `predictor=keras.layers.Identity()` for no predictor, and
    `momentum=keras_ssl.teacher.ConstantMomentum(0.0)` for no average: with the predictor that is nearly `SimSiam`.

    Args:
        backbone: a Keras model from images to `(n, features)` or a feature map. It must have a config (`get_config`),
            for the teacher is made from it.
        views: two views; None for the paper's policy at the backbone's size (`augment.byol`), or for images of one
            channel and up to 64 pixels `augment.small_gray`.
        projector, predictor: None for the paper's: 4096 with batch normalization and ReLU, then 256.
            `keras.layers.Identity()` for none.
        momentum: τ. A number is the base of the paper's cosine, which ends at 1 with the run; or a schedule, a function
            of the optimizer step (`keras_ssl.teacher`, any Keras `LearningRateSchedule`).
        batch_norm: in the projector and predictor where these are None.
        statistics: of the teacher's batch normalization: see `keras_ssl.teacher.Teacher`.
        one_pass: run both views as one batch, so that batch normalization sees 2N images; else one view after the
            other, as the authors' code does.
        **kwargs: `value_range`, `seed`, `name`, `dtype`: see `SelfSupervisedModel`.
    """

    terms = ("byol",)
    metric_names = ("spread", "teacher_momentum")
    view_counts = (2,)
    batch_dependent = False
    collapse_advice = (
        "Keep the predictor and batch normalization in the heads, use a momentum of 0.99 or more (about 0.95 for a few "
        "hundred steps), and a smaller learning rate with warm-up: a rate made for LARS is far too large for Adam."
    )

    def __init__(
        self,
        backbone,
        views=None,
        projector=None,
        predictor=None,
        momentum=0.996,
        batch_norm=True,
        statistics="own",
        one_pass=False,
        **kwargs,
    ):
        schedule = schedule_of("BYOL", momentum)
        super().__init__(backbone, views, **kwargs)
        self.projector = projector
        self.predictor = predictor
        self.momentum = momentum
        self.batch_norm = batch_norm
        self.statistics = statistics
        self.one_pass = one_pass
        self.teacher = Teacher(schedule, statistics, name="teacher")

    def default_views(self):
        return default_views(self.backbone, self.value_range, augment.byol)

    def build_heads(self, width):
        options = {"batch_norm": self.batch_norm, "last_batch_norm": False, "dtype": self.dtype_policy}
        if self.projector is None:
            self.projector = heads.mlp([4096, 256], name="projector", **options)
        heads.build(self.projector, width)
        width = heads.width_of(self.projector, width)
        if self.predictor is None:
            self.predictor = heads.mlp([4096, width], name="predictor", **options)
        heads.build(self.predictor, width)
        self.teacher.track([self.backbone, self.projector])

    def embed(self, views, training):
        online = self.map_views(self.project, views, training, self.one_pass)
        targets = self.map_views(self.target, views, training, self.one_pass)
        (p_a, p_b), (z_a, z_b) = [self.predictor(z, training=training) for z in online], targets
        return {"p_a": p_a, "p_b": p_b, "z_a": ops.stop_gradient(z_a), "z_b": ops.stop_gradient(z_b)}

    def target(self, images, training):
        return self.teacher.project(images, training, self.pooling)

    def objective(self, outputs, batch):
        p_a, p_b, z_a, z_b = (outputs[name] for name in ("p_a", "p_b", "z_a", "z_b"))
        z = losses.normalized(distribute.gather(z_a))
        return (
            {"byol": losses.cosine(p_a, z_b) + losses.cosine(p_b, z_a)},
            {"spread": spread(z), "teacher_momentum": self.teacher.momentum()},
        )

    def after_optimizer_step(self, outputs, stepped):
        self.teacher.update([self.backbone, self.projector], stepped)

    def on_run_begin(self, total_steps, initial_step):
        self.teacher.on_run_begin(total_steps, initial_step)
        self.teacher.normalize_as([self.backbone, self.projector])

    def frozen_layers(self):
        return [self.teacher]

    def collapse_losses(self, batch_size):
        return {"all images have one embedding: see whether `spread` is 0 as well": 0.0}
