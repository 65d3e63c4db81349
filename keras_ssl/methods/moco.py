"""MoCo: the query of one view finds the other view's key, which a slow copy of the network makes, among past keys."""

import math

import keras
from keras import ops

from keras_ssl import augment, backend, distribute, heads, losses
from keras_ssl.augment.policies import default_views
from keras_ssl.losses.nt_xent import check_temperature
from keras_ssl.model import SelfSupervisedModel
from keras_ssl.queue import Queue, check_size
from keras_ssl.teacher import ConstantMomentum, Teacher, schedule_of


@keras.saving.register_keras_serializable("keras_ssl")
class MoCo(SelfSupervisedModel):
    """MoCo v2 (Chen et al., "Improved Baselines with Momentum Contrastive Learning", 2020).

    The first view gives the query, the second the key, by a moving average of the backbone and projector through which
    no gradient goes; InfoNCE (He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", 2020,
    eq. 1) makes the query find its key among the keys of past batches. The negatives come from a queue, so batches may
    be small.

    Where the authors have one batch normalization for each GPU and shuffle the keys among them, here batch
    normalization sees the global batch, in both networks, on any number of devices: there is nothing to shuffle.

    Term: `info_nce`. Metrics: `contrastive_accuracy`, how often the key is nearer than every negative;
    `teacher_momentum`.

    Args:
        backbone: a Keras model from images to `(n, features)` or a feature map. It must have a config (`get_config`),
            for the teacher is made from it.
        views: two views; None for the paper's policy at the backbone's size, SimCLR's with half of its jitter and crops
            from 20 % of the area, or for images of one channel and up to 64 pixels `augment.small_gray`.
        projector: None for the paper's: two dense layers, as wide as the features and 128, with ReLU between and
            without batch normalization. `keras.layers.Identity()` for none.
        temperature: above 0. Version 2: 0.2; version 1: 0.07.
        memory: keys that the queue holds, the oldest overwritten first; a batch or more. Keep it well below the number
            of images: an image that comes again meets its own older key as a negative. 65536 is for ImageNet, 4096 the
            authors' for CIFAR-10. `evaluate` uses the queue, and never changes it.
        momentum: of the teacher. A number is one for all steps, as in the paper; or a schedule, a function of the
            optimizer step (`keras_ssl.teacher`, any Keras `LearningRateSchedule`).
        statistics: of the teacher's batch normalization: see `keras_ssl.teacher.Teacher`.
        **kwargs: `value_range`, `seed`, `name`, `dtype`: see `SelfSupervisedModel`.
    """

    terms = ("info_nce",)
    metric_names = ("contrastive_accuracy", "teacher_momentum")
    view_counts = (2,)
    collapse_advice = (
        "A temperature of 0.1 to 0.2, a momentum from 0.99 up and a smaller learning rate with warm-up usually help."
    )

    def __init__(
        self,
        backbone,
        views=None,
        projector=None,
        temperature=0.2,
        memory=65536,
        momentum=0.999,
        statistics="own",
        **kwargs,
    ):
        check_temperature("MoCo", temperature)
        if not isinstance(memory, int) or memory < 1:
            raise ValueError(f"MoCo: `memory` must be a number of keys, 1 or more; it is {memory!r}.")
        schedule = schedule_of("MoCo", momentum)
        if isinstance(momentum, (int, float)):  # one for all steps, and no base of BYOL's cosine
            schedule = ConstantMomentum(float(momentum))
        super().__init__(backbone, views, **kwargs)
        self.projector = projector
        self.temperature = temperature
        self.memory = memory
        self.momentum = momentum
        self.statistics = statistics
        self.teacher = Teacher(schedule, statistics, name="teacher")

    def default_views(self):
        return default_views(self.backbone, self.value_range, augment.moco)

    def build_heads(self, width):
        if self.projector is None:
            options = {"batch_norm": False, "last_batch_norm": False, "dtype": self.dtype_policy}
            self.projector = heads.mlp([width, 128], name="projector", **options)
        heads.build(self.projector, width)
        self.teacher.track([self.backbone, self.projector])
        self.queue = Queue(self.memory, name="queue")
        self.queue.build((None, heads.width_of(self.projector, width)))

    def embed(self, views, training):
        query = self.project(views[0], training)
        key = self.teacher.project(views[1], training, self.pooling)
        return {"query": query, "key": ops.stop_gradient(key)}

    def objective(self, outputs, batch):
        query, key = outputs["query"], outputs["key"]
        negatives, valid = self.queue.negatives()
        loss = losses.info_nce(query, key, negatives, self.temperature, valid)
        q, k = ops.stop_gradient(losses.normalized(query)), losses.normalized(key)
        others = ops.where(valid[None, :], backend.matmul(q, ops.transpose(negatives)), -1.0)
        found = ops.cast(ops.sum(q * k, axis=1) > ops.max(others, axis=1), "float32")
        return {"info_nce": loss}, {"contrastive_accuracy": found, "teacher_momentum": self.teacher.momentum()}

    def after_optimizer_step(self, outputs, stepped):
        self.teacher.update([self.backbone, self.projector], stepped)
        # The keys of all replicas in the order of the global batch: the queue is the same on each of them.
        self.queue.push(losses.normalized(distribute.gather(outputs["key"])), stepped)

    def on_run_begin(self, total_steps, initial_step):
        self.teacher.on_run_begin(total_steps, initial_step)
        self.teacher.normalize_as([self.backbone, self.projector])

    def frozen_layers(self):
        return [self.teacher]

    def check_batch_size(self, batch_size):
        if batch_size is not None:
            check_size("MoCo: `memory`", self.memory, batch_size)

    def collapse_losses(self, batch_size):
        return {"all images have one embedding, or the temperature hides the differences": math.log(1 + self.memory)}
