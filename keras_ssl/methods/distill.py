"""Distillation without labels: a student learns to see what a teacher sees."""

import math

import keras
from keras import ops

from keras_ssl import augment, backbones, distribute, heads, losses
from keras_ssl.augment.policies import default_views
from keras_ssl.losses.nt_xent import check_temperature
from keras_ssl.model import SelfSupervisedModel
from keras_ssl.queue import Queue, check_size
from keras_ssl.teacher import Frozen
from keras_ssl.training import step as steps


@keras.saving.register_keras_serializable("keras_ssl")
class Distill(SelfSupervisedModel):
    """Distillation without labels, by similarities (Fang et al., "SEED: Self-supervised Distillation for Visual
    Representation", 2021) and by features.

    Student and teacher see the same view, as in Beyer et al., "Knowledge distillation: A good teacher is patient and
    consistent", 2022. The student's projection is to be as near to past embeddings of the teacher, a queue, as the
    teacher's own is (`losses.distillation`, eq. 3 to 5), and to be the teacher's features up to their length: place by
    place where both give a feature map or tokens, else pooled. LightlyTrain's `distillationv1` is the first, its `v2`
    features alone, its default, `v3`, both; its losses are not these to the digit.

    Terms: `similarity`, in nats, and `features`, `2 − 2·cos`, already weighted. Metric: `teacher_cosine`, of the pooled
    features and the student's projection.

    Args:
        backbone: the student: a Keras model from images to `(n, features)`, a feature map or tokens, of any kind and
            size.
        teacher: any trained Keras model or `SelfSupervisedModel`; or `keras_ssl.teacher.Frozen(model, value_range,
            image_shape, pooling)`, which says what it expects of images. It is frozen, and saved with the method.
        views: one view; None for the first of MoCo's at the backbone's size (`augment.moco`), or for images of one
            channel and up to 64 pixels of `augment.small_gray`.
        projector: from pooled features, or those of a place, to the teacher's width; None for one dense layer.
            `keras.layers.Identity()` for none, where the widths are one.
        temperature, teacher_temperature: of the similarities, above 0.
        memory: past embeddings of the teacher in the queue; a batch or more. The authors' 65536 is for ImageNet.
        similarity_weight, features_weight: of the terms, 0 or more.
        **kwargs: `value_range`, `seed`, `pooling`, `name`, `dtype`: see `SelfSupervisedModel`.
    """

    terms = ("similarity", "features")
    metric_names = ("teacher_cosine",)
    view_counts = (1,)
    collapse_advice = "A smaller learning rate with warm-up, and a teacher whose own kNN is good, usually help."

    def __init__(
        self,
        backbone,
        teacher,
        views=None,
        projector=None,
        temperature=0.2,
        teacher_temperature=0.01,
        memory=65536,
        similarity_weight=1.0,
        features_weight=1.0,
        **kwargs,
    ):
        for heat in (temperature, teacher_temperature):
            check_temperature("Distill", heat)
        if not isinstance(memory, int) or memory < 1:
            raise ValueError(f"Distill: `memory` must be a number of embeddings, 1 or more; it is {memory!r}.")
        for name, weight in (("similarity_weight", similarity_weight), ("features_weight", features_weight)):
            if not 0.0 <= weight < float("inf"):
                raise ValueError(f"Distill: `{name}` must be 0 or more; it is {weight!r}.")
        if not isinstance(teacher, keras.layers.Layer):
            raise TypeError(f"Distill: `teacher` must be a trained Keras model; it is a {type(teacher).__name__}.")
        super().__init__(backbone, views, **kwargs)
        self.teacher = teacher if isinstance(teacher, Frozen) else Frozen(teacher, name="teacher")
        self.projector = projector
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.memory = memory
        self.similarity_weight = similarity_weight
        self.features_weight = features_weight

    def default_views(self):
        both = default_views(self.backbone, self.value_range, augment.moco)
        return None if both is None else augment.Views(both.branches[0])

    def build_heads(self, width):
        wanted = self.teacher.prepare(self.backbone, self.value_range)
        if self.projector is None:
            self.projector = keras.layers.Dense(wanted, name="projector", dtype=self.dtype_policy)
        heads.build(self.projector, width, wanted, "Distill")
        self.queue = Queue(self.memory, name="queue")
        self.queue.build((None, wanted))

    def embed(self, views, training):
        features = self.backbone(views[0], training=training)
        shape = views[0].shape  # which tells how the tokens of a backbone of open size lie
        pooled = steps.noted(self, backbones.pooled(features, self.backbone, self.pooling, shape))
        student = self.projector(pooled, training=training)
        teacher, theirs = self.teacher(views[0])
        mine = backbones.token_map(self.backbone, features, shape)
        if theirs is None or len(mine.shape) != 4:
            return {"student": student, "teacher": teacher, "features": losses.cosine(student, teacher)}
        if mine.shape[1:3] != theirs.shape[1:3]:
            mine = ops.image.resize(mine, theirs.shape[1:3])
        mine = self.projector(ops.reshape(mine, (-1, mine.shape[-1])), training=training)
        apart = losses.cosine(mine, ops.reshape(theirs, (-1, theirs.shape[-1])))
        apart = ops.mean(ops.reshape(apart, (-1, theirs.shape[1] * theirs.shape[2])), axis=1)
        return {"student": student, "teacher": teacher, "features": apart}

    def objective(self, outputs, batch):
        student, teacher = outputs["student"], outputs["teacher"]
        keys, valid = self.queue.negatives()
        similarity = losses.distillation(student, teacher, keys, self.temperature, self.teacher_temperature, valid)
        terms = {
            "similarity": self.similarity_weight * similarity,
            "features": self.features_weight * outputs["features"],
        }
        return terms, {"teacher_cosine": 1.0 - losses.cosine(student, teacher) / 2.0}

    def after_optimizer_step(self, outputs, stepped):
        self.queue.push(distribute.gather(losses.normalized(outputs["teacher"])), stepped)

    def frozen_layers(self):
        return [self.teacher]

    def check_batch_size(self, batch_size):
        check_size("Distill: `memory`", self.memory, batch_size)

    def collapse_losses(self, batch_size):
        far = self.similarity_weight * math.log(self.memory + 1) + self.features_weight * 2.0
        return {"the student's embeddings are as near to each of the teacher's as to any other": far}
