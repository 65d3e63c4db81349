"""DINO: from each view the student predicts how a slow copy of it sorts the other views, without labels."""

import functools
import math

import keras
from keras import ops

from keras_ssl import augment, distribute, heads, losses
from keras_ssl.augment.policies import default_views
from keras_ssl.losses.clusters import check_temperatures, entropy, spread, teacher_probabilities
from keras_ssl.model import SelfSupervisedModel
from keras_ssl.progress import Progress, check_part
from keras_ssl.prototypes import Center, Prototypes, check_center_momentum, check_count
from keras_ssl.shapes import OrMore
from keras_ssl.teacher import Teacher, schedule_of

SEEN = 2  # views that the teacher sees: the first, which are the large crops


@keras.saving.register_keras_serializable("keras_ssl")
class DINO(SelfSupervisedModel):
    """DINO (Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021).

    Teacher and student sort views by prototypes, the columns of the head's last layer. The teacher, a moving average of
    the student, sees the first two views; the student sees all, and predicts from each the teacher's probabilities of
    the others (eq. 1 to 3). What the teacher gives is centered, by a moving average (eq. 4), so that no prototype
    takes all, and sharpened by a low temperature, so that they don't all get the same: each alone leads to a collapse.

    Term: `dino`. Metrics: `teacher_entropy`, of the teacher's probabilities, mean over images: ln(prototypes) and 0 are
    the two collapses; `spread`, the standard deviation of the teacher's embeddings' dimensions, times √d: near 1 where
    they fill the sphere, 0 where all are one; `prototypes_used`, the exponential of the entropy of the mean of the
    teacher's probabilities; `teacher_momentum` and `teacher_temperature`.

    Args:
        backbone: a Keras model from images to `(n, features)`, a feature map or tokens. It must have a config
            (`get_config`), for the teacher is made from it.
        views: two views or more, of which the teacher sees the first two: for a backbone of open size the paper's large
            and small crops, `augment.dino(224)`. None for its two large crops alone at the backbone's size
            (`augment.dino(size, locals=0)`), or for images of one channel and up to 64 pixels `augment.small_gray`.
        projector: the head below the prototypes; None for the paper's: three dense layers of 2048, 2048 and 256 with
            GELU between and without batch normalization. Its output is brought to length 1.
            `keras.layers.Identity()` for none.
        prototypes: how many, 2 or more. The paper's 65536 are for ImageNet; a few thousand do for fewer images.
        student_temperature: above 0.
        warm_up_temperature, teacher_temperature: above 0: the teacher's goes from the first to the second on a straight
            line within `warm_up_steps`: a whole number of optimizer steps, or a part of the run as a float. The paper:
            30 epochs of 100 to 800. Above 0.07 the authors found most runs unstable.
        momentum: of the teacher. A number is the base of BYOL's cosine, which ends at 1 with the run; or a schedule, a
            function of the optimizer step (`keras_ssl.teacher`). For batches of 256 the authors advise 0.9995.
        center_momentum: of the center, in [0, 1].
        frozen_steps: how long the prototypes stay as they begin: a whole number of optimizer steps, or a part of the
            run as a float. The paper: one epoch of 100.
        statistics: of the teacher's batch normalization: see `keras_ssl.teacher.Teacher`.
        one_pass: run the views of one size as one batch, and the head on all of them, as the authors' code does, so
            that batch normalization sees them together; else one view after the other.
        **kwargs: `value_range`, `seed`, `name`, `dtype`: see `SelfSupervisedModel`.
    """

    terms = ("dino",)
    metric_names = ("teacher_entropy", "spread", "prototypes_used", "teacher_momentum", "teacher_temperature")
    view_counts = (OrMore(2),)
    collapse_advice = (
        "A lower temperature of the teacher helps where its entropy stays at ln(prototypes), a higher one or a center "
        "that moves faster where it goes to 0; a smaller learning rate with warm-up and longer frozen prototypes help "
        "against both."
    )

    def __init__(
        self,
        backbone,
        views=None,
        projector=None,
        prototypes=65536,
        student_temperature=0.1,
        teacher_temperature=0.07,
        warm_up_temperature=0.04,
        warm_up_steps=0.3,
        momentum=0.996,
        center_momentum=0.9,
        frozen_steps=0.01,
        statistics="own",
        one_pass=True,
        **kwargs,
    ):
        owner = type(self).__name__
        check_count(f"{owner}: `prototypes`", prototypes)
        check_temperatures(
            owner,
            student_temperature=student_temperature,
            teacher_temperature=teacher_temperature,
            warm_up_temperature=warm_up_temperature,
        )
        check_part(f"{owner}: `warm_up_steps`", warm_up_steps)
        check_center_momentum(f"{owner}: `center_momentum`", center_momentum)
        check_part(f"{owner}: `frozen_steps`", frozen_steps)
        schedule = schedule_of(owner, momentum)
        super().__init__(backbone, views, **kwargs)
        self.projector = projector
        self.prototypes = prototypes
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.warm_up_temperature = warm_up_temperature
        self.warm_up_steps = warm_up_steps
        self.momentum = momentum
        self.center_momentum = center_momentum
        self.frozen_steps = frozen_steps
        self.statistics = statistics
        self.one_pass = one_pass
        self.teacher = Teacher(schedule, statistics, name="teacher")

    def default_views(self):
        return default_views(self.backbone, self.value_range, functools.partial(augment.dino, locals=0))

    def build_heads(self, width):
        if self.projector is None:
            options = {"batch_norm": False, "last_batch_norm": False, "activation": "gelu", "dtype": self.dtype_policy}
            self.projector = heads.mlp([2048, 2048, 256], name="projector", **options)
        heads.build(self.projector, width)
        self.scores = Prototypes(self.prototypes, weight_norm=True, name="prototypes")
        self.scores.build((None, heads.width_of(self.projector, width)))
        self.center = Center(self.center_momentum, name="center")
        self.center.build((None, self.prototypes))
        self.progress = Progress(name="progress")
        self.progress.build()
        self.teacher.track(self._students())

    def _students(self):
        return [self.backbone, self.projector, self.scores]

    def embed(self, views, training):
        features = self.map_views(self.features, views, training, self.one_pass)
        student = self.map_views(self.projector, features, training, self.one_pass)
        teacher = self.map_views(self.target, views[:SEEN], training, self.one_pass)
        return {
            "student": losses.normalized(ops.stack(student, axis=1)),
            "teacher": ops.stop_gradient(losses.normalized(ops.stack(teacher, axis=1))),
        }

    def target(self, images, training):
        return self.teacher.project(images, training, self.pooling)

    def objective(self, outputs, batch):
        student = self.scores(outputs["student"], self.progress.within(self.frozen_steps))
        teacher = ops.unstack(self.teacher.copies[-1](outputs["teacher"]), axis=1)
        center = self.center.value()
        temperature = self.progress.line(self.warm_up_temperature, self.teacher_temperature, self.warm_up_steps)
        loss = losses.dino(ops.unstack(student, axis=1), teacher, center, self.student_temperature, temperature)
        sorted_to = teacher_probabilities(teacher[0], center, temperature)
        return {"dino": loss}, {
            "teacher_entropy": entropy(sorted_to),
            "spread": spread(distribute.gather(outputs["teacher"][:, 0])),
            "prototypes_used": ops.exp(entropy(global_mean(sorted_to))),
            "teacher_momentum": self.teacher.momentum(),
            "teacher_temperature": temperature,
        }

    def after_optimizer_step(self, outputs, stepped):
        # The scores are linear in the embeddings: their mean is that of the mean embedding, by this step's teacher.
        mean = global_mean(ops.mean(outputs["teacher"], axis=1))
        self.center.update(self.teacher.copies[-1](mean[None])[0], stepped)
        self.teacher.update(self._students(), stepped)
        self.progress.tick(stepped)

    def held_variables(self):
        return [(self.scores.kernel, self.progress.within(self.frozen_steps))] if self.frozen_steps else []

    def on_run_begin(self, total_steps, initial_step):
        parts = {"frozen_steps": self.frozen_steps, "warm_up_steps": self.warm_up_steps}
        self.progress.on_run_begin(total_steps, initial_step, **parts)
        self.teacher.on_run_begin(total_steps, initial_step)
        self.teacher.normalize_as(self._students())

    def frozen_layers(self):
        return [self.teacher]

    def collapse_losses(self, batch_size):
        return {
            "the teacher gives all prototypes the same share of every image": math.log(self.prototypes),
            "all images are at one prototype: see whether `teacher_entropy` and `spread` are 0 as well": 0.0,
        }


def global_mean(rows):
    """The mean over the rows of all replicas, which have as many each."""
    return distribute.global_sum(ops.mean(rows, axis=0)) / distribute.replicas()
