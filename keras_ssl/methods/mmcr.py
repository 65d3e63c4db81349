"""MMCR: the centroids of the images' views fill as many dimensions as they can."""

import math

import keras
from keras import ops

from keras_ssl import augment, distribute, heads, losses
from keras_ssl.augment.policies import default_views
from keras_ssl.losses.mmcr import check_local_weight, unit_rows
from keras_ssl.model import SelfSupervisedModel
from keras_ssl.teacher import ConstantMomentum, Teacher, schedule_of


@keras.saving.register_keras_serializable("keras_ssl")
class MMCR(SelfSupervisedModel):
    """MMCR (Yerxa et al., "Learning Efficient Coding of Natural Images with Maximum Manifold Capacity
    Representations", 2023).

    The embeddings of an image's views are brought to length 1 and averaged to a centroid; the nuclear norm of the
    matrix of the global batch's centroids is made large. It is where centroids are long, so that the views of an image
    agree, and spread over all dimensions, so that images differ. There are no negatives to compare in pairs. It takes
    any number of views, two or more; the authors take 8 on ImageNet and 40 on CIFAR-10. With a teacher, a moving
    average of backbone and projector through which no gradient goes, its embeddings of the same views are in the
    centroids too, as in the authors' code for ImageNet.

    Terms: `centroids`, `−‖C‖_*`, and `local`, λ times the mean nuclear norm of an image's own views (0 for λ = 0).
    Metrics: `share`, ‖C‖_* as a share of the most that it can be, √(n · min(n, d)); `teacher_momentum`, 0 without one.

    Args:
        backbone: a Keras model from images to `(n, features)`, a feature map or tokens. With a teacher it must have a
            config (`get_config`).
        views: two views or more; None for two of the authors' policy, which is that of Barlow Twins, at the backbone's
            size (`augment.barlow_twins`), or for images of one channel and up to 64 pixels of `augment.small_gray`.
            `augment.Views(*augment.barlow_twins(224).branches * 4)` makes eight.
        projector: from pooled features to the embedding; None for the authors': dense layers of 8192, 8192 and 512
            without biases, the first two with batch normalization and ReLU. `keras.layers.Identity()` for none.
        local_weight: λ, 0 or more. The authors: 0.
        momentum: of the teacher; None for no teacher, as in the authors' code for CIFAR-10. A number is one for all
            steps, as in the authors' code; or a schedule, a function of the optimizer step (`keras_ssl.teacher`, any
            Keras `LearningRateSchedule`).
        statistics: of the teacher's batch normalization: see `keras_ssl.teacher.Teacher`.
        one_pass: run the views of one size as one batch, so that batch normalization sees all of them, as the authors'
            code does; else one view after the other.
        **kwargs: `value_range`, `seed`, `name`, `dtype`, `pooling`: see `SelfSupervisedModel`.
    """

    terms = ("centroids", "local")
    metric_names = ("share", "teacher_momentum")
    view_counts = None
    collapse_advice = (
        "Batch normalization in the projector, more views of an image and a smaller learning rate usually help."
    )

    def __init__(
        self,
        backbone,
        views=None,
        projector=None,
        local_weight=0.0,
        momentum=0.99,
        statistics="own",
        one_pass=True,
        **kwargs,
    ):
        check_local_weight("MMCR", local_weight)
        schedule = None if momentum is None else schedule_of("MMCR", momentum)
        if isinstance(momentum, (int, float)):  # one for all steps, and no base of BYOL's cosine
            schedule = ConstantMomentum(float(momentum))
        super().__init__(backbone, views, **kwargs)
        self.projector = projector
        self.local_weight = local_weight
        self.momentum = momentum
        self.statistics = statistics
        self.one_pass = one_pass
        self.teacher = None if momentum is None else Teacher(schedule, statistics, name="teacher")

    def default_views(self):
        return default_views(self.backbone, self.value_range, augment.barlow_twins)

    def build_heads(self, width):
        if self.projector is None:
            options = {"last_batch_norm": False, "last_bias": False, "dtype": self.dtype_policy}
            self.projector = heads.mlp([8192, 8192, 512], name="projector", **options)
        heads.build(self.projector, width)
        if self.teacher is not None:
            self.teacher.track([self.backbone, self.projector])

    def embed(self, views, training):
        if len(views) < 2:
            raise ValueError(f"MMCR takes two views of an image or more, and there is {len(views)}.")
        z = unit_rows(ops.stack(self.map_views(self.project, views, training, self.one_pass), axis=1))
        center = ops.mean(z, axis=1)
        if self.teacher is not None:
            keys = ops.stack(self.map_views(self.key, views, training, self.one_pass), axis=1)
            center = (center + ops.mean(unit_rows(ops.stop_gradient(keys)), axis=1)) / 2.0
        return {"z": z, "center": center}

    def key(self, images, training):
        return self.teacher.project(images, training, self.pooling)

    def objective(self, outputs, batch):
        centers = distribute.gather(outputs["center"])
        norm = losses.nuclear_norm(centers)
        rows, width = ops.shape(centers)[0], centers.shape[1]
        most = ops.sqrt(ops.cast(rows * ops.minimum(rows, width), "float32"))
        local = self.local_weight * losses.nuclear_norm(outputs["z"]) if self.local_weight else ops.zeros(())
        momentum = ops.zeros(()) if self.teacher is None else self.teacher.momentum()
        return {"centroids": -norm, "local": local}, {"share": norm / most, "teacher_momentum": momentum}

    def after_optimizer_step(self, outputs, stepped):
        if self.teacher is not None:
            self.teacher.update([self.backbone, self.projector], stepped)

    def on_run_begin(self, total_steps, initial_step):
        if self.teacher is not None:
            self.teacher.on_run_begin(total_steps, initial_step)
            self.teacher.normalize_as([self.backbone, self.projector])

    def frozen_layers(self):
        return [] if self.teacher is None else [self.teacher]

    def collapse_losses(self, batch_size):
        # A matrix of equal rows of length 1 has one singular value, √n.
        if self.local_weight and self.views is None:  # of views of the user's own, nobody knows how many there are
            return {}
        local = self.local_weight * math.sqrt(len(self.views.branches)) if self.local_weight else 0.0
        return {"all images have one embedding: one direction is filled": local - math.sqrt(batch_size)}
