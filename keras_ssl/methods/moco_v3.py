"""MoCo v3: the query of each view finds the other view's key among the keys of the batch."""

import math

import keras
from keras import ops

from keras_ssl import augment, distribute, heads, losses
from keras_ssl.augment.policies import default_views
from keras_ssl.losses.nt_xent import check_temperature
from keras_ssl.model import SelfSupervisedModel
from keras_ssl.teacher import Teacher, schedule_of


@keras.saving.register_keras_serializable("keras_ssl")
class MoCoV3(SelfSupervisedModel):
    """MoCo v3 (Chen, Xie & He, "An Empirical Study of Training Self-Supervised Vision Transformers", 2021).

    Queries come from the backbone, projector and predictor, keys from a moving average of backbone and projector
    through which no gradient goes. InfoNCE makes each view's query find the other view's key among those of the global
    batch (eq. 1), in both directions. There is no queue, so it wants large batches: the authors' are 1024 to 4096.
    `keras_ssl.MoCo` is version 2, with a queue.

    Made for ViT, such as `keras_ssl.backbones.vit`, it takes any backbone. Training a ViT by it can be unstable; the
    authors' remedy is a patch projection that stays random. Where that layer is depends on the backbone, so you freeze
    it: `backbone.get_layer("patches").trainable = False` for `backbones.vit`, before `compile`. It is saved with the
    model.

    Term: `info_nce`, both directions added, times 2 · temperature as in the paper. Metrics: `contrastive_accuracy`, how
    often a query's nearest key is its own; `teacher_momentum`.

    Args:
        backbone: a Keras model from images to `(n, features)`, a feature map or tokens. It must have a config
            (`get_config`), for the teacher is made from it.
        views: two views; None for the authors' policy for ViT, which is BYOL's, at the backbone's size
            (`augment.byol`), or for images of one channel and up to 64 pixels `augment.small_gray`.
        projector: None for the authors' of ViT: dense layers of 4096, 4096 and 256, each with batch normalization, the
            last without ReLU, scale and shift. `keras.layers.Identity()` for none.
        predictor: None for the authors': 4096 and the embedding's width, in the same way. `keras.layers.Identity()`
            for none.
        temperature: above 0. The authors: 0.2 for ViT, 1 for ResNet-50.
        momentum: a number is the base of a cosine that ends at 1 with the run, as in the authors' code; or a schedule,
            a function of the optimizer step (`keras_ssl.teacher`, any Keras `LearningRateSchedule`).
        statistics: of the teacher's batch normalization: see `keras_ssl.teacher.Teacher`.
        one_pass: run both views as one batch, so that batch normalization sees 2N images; else one view after the
            other, as the authors' code does.
        **kwargs: `value_range`, `seed`, `name`, `dtype`, `pooling`: see `SelfSupervisedModel`.
    """

    terms = ("info_nce",)
    metric_names = ("contrastive_accuracy", "teacher_momentum")
    view_counts = (2,)
    collapse_advice = (
        "A smaller learning rate with a longer warm-up, larger batches, a momentum from 0.99 up and, with a ViT, a "
        "frozen patch projection usually help."
    )

    def __init__(
        self,
        backbone,
        views=None,
        projector=None,
        predictor=None,
        temperature=0.2,
        momentum=0.99,
        statistics="own",
        one_pass=False,
        **kwargs,
    ):
        check_temperature("MoCoV3", temperature)
        schedule = schedule_of("MoCoV3", momentum)
        super().__init__(backbone, views, **kwargs)
        self.projector = projector
        self.predictor = predictor
        self.temperature = temperature
        self.momentum = momentum
        self.statistics = statistics
        self.one_pass = one_pass
        self.teacher = Teacher(schedule, statistics, name="teacher")

    def default_views(self):
        return default_views(self.backbone, self.value_range, augment.byol)

    def build_heads(self, width):
        options = {"last_scale": False, "dtype": self.dtype_policy}
        if self.projector is None:
            self.projector = heads.mlp([4096, 4096, 256], name="projector", **options)
        heads.build(self.projector, width)
        width = heads.width_of(self.projector, width)
        if self.predictor is None:
            self.predictor = heads.mlp([4096, width], name="predictor", **options)
        heads.build(self.predictor, width)
        self.teacher.track([self.backbone, self.projector])

    def embed(self, views, training):
        projections = self.map_views(self.project, views, training, self.one_pass)
        k_a, k_b = [ops.stop_gradient(k) for k in self.map_views(self.key, views, training, self.one_pass)]
        q_a, q_b = [self.predictor(z, training=training) for z in projections]
        return {"q_a": q_a, "q_b": q_b, "k_a": k_a, "k_b": k_b}

    def key(self, images, training):
        return self.teacher.project(images, training, self.pooling)

    def objective(self, outputs, batch):
        row = distribute.row_offset(ops.shape(outputs["q_a"])[0])
        loss, found = 0.0, 0.0
        for queries, keys in ((outputs["q_a"], outputs["k_b"]), (outputs["q_b"], outputs["k_a"])):
            keys = distribute.gather(keys)
            loss += losses.info_nce(queries, keys, temperature=self.temperature, row_offset=row)
            found += losses.finds_own_key(queries, keys, row) / 2.0
        terms = {"info_nce": 2.0 * self.temperature * loss}
        return terms, {"contrastive_accuracy": found, "teacher_momentum": self.teacher.momentum()}

    def after_optimizer_step(self, outputs, stepped):
        self.teacher.update([self.backbone, self.projector], stepped)

    def on_run_begin(self, total_steps, initial_step):
        self.teacher.on_run_begin(total_steps, initial_step)
        self.teacher.normalize_as([self.backbone, self.projector])

    def frozen_layers(self):
        return [self.teacher]

    def collapse_losses(self, batch_size):
        return {"all images have one embedding": 4.0 * self.temperature * math.log(batch_size)}
