"""TiCo: two views agree, and embeddings avoid the directions that those of past batches have filled."""

import keras
from keras import ops

from keras_ssl import augment, distribute, heads, losses
from keras_ssl.augment.policies import default_views
from keras_ssl.losses.clusters import spread
from keras_ssl.losses.tico import check_covariance_weight, check_decay, running_covariance
from keras_ssl.model import SelfSupervisedModel
from keras_ssl.teacher import Teacher, schedule_of


@keras.saving.register_keras_serializable("keras_ssl")
class TiCo(SelfSupervisedModel):
    """TiCo (Zhu et al., "TiCo: Transformation Invariance and Covariance Contrast for Self-Supervised Visual
    Representation Learning", 2022).

    The first view goes through the network, the second through a moving average of backbone and projector, through
    which no gradient goes. Their embeddings, at length 1, are pulled together; and the first is pushed away from the
    directions along which a running mean C of `z zᵀ` is large, which works as a queue of unlimited length at the size
    of one matrix. C takes the batch in before the loss is computed, and changes once per optimizer step.

    Terms: `invariance`, `1 − cos`, and `contrast`, `ρ · zᵀ C z` (see `losses.tico_terms`). Metrics: `spread`, the
    standard deviation of the embeddings' dimensions at length 1, times √d: near 1 where they fill the sphere, 0 where
    all are one; `teacher_momentum`.

    Args:
        backbone: a Keras model from images to `(n, features)` or a feature map. It must have a config (`get_config`),
            for the teacher is made from it.
        views: two views; None for BYOL's policy at the backbone's size (`augment.byol`), or for images of one channel
            and up to 64 pixels `augment.small_gray`.
        projector: None for the paper's: 4096 with batch normalization and ReLU, then 256. C is 256 × 256 then.
            `keras.layers.Identity()` for none.
        covariance_weight: ρ, 0 or more. The paper: 8 for a width of 256.
        decay: β of the running mean, in [0, 1).
        momentum: of the teacher. A number is the base of a cosine that ends at 1 with the run; or a schedule, a
            function of the optimizer step (`keras_ssl.teacher`, any Keras `LearningRateSchedule`).
        statistics: of the teacher's batch normalization: see `keras_ssl.teacher.Teacher`.
        **kwargs: `value_range`, `seed`, `name`, `dtype`, `pooling`: see `SelfSupervisedModel`.
    """

    terms = ("invariance", "contrast")
    metric_names = ("spread", "teacher_momentum")
    view_counts = (2,)
    collapse_advice = (
        "A larger `covariance_weight`, batch normalization in the projector, a momentum from 0.99 up and a smaller "
        "learning rate with warm-up usually help."
    )

    def __init__(
        self,
        backbone,
        views=None,
        projector=None,
        covariance_weight=8.0,
        decay=0.9,
        momentum=0.99,
        statistics="own",
        **kwargs,
    ):
        check_covariance_weight("TiCo", covariance_weight)
        check_decay("TiCo", decay)
        schedule = schedule_of("TiCo", momentum)
        super().__init__(backbone, views, **kwargs)
        self.projector = projector
        self.covariance_weight = covariance_weight
        self.decay = decay
        self.momentum = momentum
        self.statistics = statistics
        self.teacher = Teacher(schedule, statistics, name="teacher")

    def default_views(self):
        return default_views(self.backbone, self.value_range, augment.byol)

    def build_heads(self, width):
        if self.projector is None:
            options = {"last_batch_norm": False, "dtype": self.dtype_policy}
            self.projector = heads.mlp([4096, 256], name="projector", **options)
        heads.build(self.projector, width)
        self.teacher.track([self.backbone, self.projector])
        width = heads.width_of(self.projector, width)
        state = {"dtype": "float32", "initializer": "zeros", "trainable": False}
        self.covariance = self.add_weight(shape=(width, width), name="covariance", **state)

    def embed(self, views, training):
        query = self.project(views[0], training)
        return {"query": query, "key": ops.stop_gradient(self.teacher.project(views[1], training, self.pooling))}

    def objective(self, outputs, batch):
        query, key = outputs["query"], outputs["key"]
        terms = losses.tico_terms(query, key, self.next_covariance(query), self.covariance_weight)
        z = losses.normalized(distribute.gather(ops.stop_gradient(query)))
        return dict(zip(self.terms, terms)), {"spread": spread(z), "teacher_momentum": self.teacher.momentum()}

    def next_covariance(self, query):
        """C with this step's batch in it."""
        rows = distribute.gather(ops.stop_gradient(query))
        return running_covariance(ops.convert_to_tensor(self.covariance), rows, self.decay)

    def after_optimizer_step(self, outputs, stepped):
        before = ops.convert_to_tensor(self.covariance)
        self.covariance.assign(ops.where(stepped, self.next_covariance(outputs["query"]), before))
        self.teacher.update([self.backbone, self.projector], stepped)

    def on_run_begin(self, total_steps, initial_step):
        self.teacher.on_run_begin(total_steps, initial_step)
        self.teacher.normalize_as([self.backbone, self.projector])

    def frozen_layers(self):
        return [self.teacher]

    def collapse_losses(self, batch_size):
        # Where all rows are one, C is z zᵀ.
        return {"all images have one embedding, and it fills one direction": float(self.covariance_weight)}
