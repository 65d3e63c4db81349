"""Teachers: an exponential moving average of the student with the schedule of its momentum, or a model that is frozen.

An average is updated inside the training step, after the optimizer, once per optimizer step. A callback could not do
it: with `steps_per_execution=4` it is called once in four steps.
"""

import copy
import math

import keras
import numpy as np
from keras import ops

from keras_ssl import backbones, batch_norm
from keras_ssl.clone import clone, trainable_flags
from keras_ssl.keras_compat import flatten_layers
from keras_ssl.saving import check_function

__all__ = ["ConstantMomentum", "CosineMomentum", "Frozen", "Teacher"]

STATISTICS = ("own", "average", "copy")


@keras.saving.register_keras_serializable("keras_ssl")
class CosineMomentum:
    """BYOL's momentum: `1 − (1 − base) · (cos(πk/K) + 1)/2` at step k of K, from `base` up to 1.

    Args:
        base: τ at the beginning, in [0, 1].
        steps: K, optimizer steps; None for those of the run, which `fit` knows.

    Reference: Grill et al., "Bootstrap Your Own Latent", 2020, implementation details.
    """

    def __init__(self, base=0.996, steps=None):
        check_momentum("CosineMomentum: `base`", base)
        if steps is not None and not (isinstance(steps, int) and steps > 0):
            raise ValueError(
                f"CosineMomentum: `steps` must be a positive integer, or None for the run's; it is {steps!r}."
            )
        self.base, self.steps = base, steps

    def __call__(self, step, run_steps=None):
        steps = ops.cast(self.steps if self.steps is not None else run_steps, "float32")
        done = ops.clip(ops.cast(step, "float32") / ops.maximum(steps, 1.0), 0.0, 1.0)
        return 1.0 - (1.0 - self.base) * (ops.cos(math.pi * done) + 1.0) / 2.0

    def get_config(self):
        return {"base": self.base, "steps": self.steps}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable("keras_ssl")
class ConstantMomentum:
    """One momentum for all steps.

    Args:
        value: in [0, 1]. 0 makes the teacher equal to the student, 1 keeps its initial weights.
    """

    def __init__(self, value):
        check_momentum("ConstantMomentum: `value`", value)
        self.value = value

    def __call__(self, step):
        return ops.convert_to_tensor(self.value, "float32")

    def get_config(self):
        return {"value": self.value}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def schedule_of(owner, momentum):
    """Returns the schedule of a `momentum` argument: a number is the base of BYOL's cosine.

    Raises:
        ValueError: for a number outside of [0, 1], and for what can't be called or saved.
    """
    if isinstance(momentum, (int, float)):
        check_momentum(f"{owner}: `momentum`", momentum)
        return CosineMomentum(float(momentum))
    check_function(
        f"{owner}: the schedule of the momentum",
        momentum,
        "keras_ssl.teacher.CosineMomentum(0.996), any keras.optimizers.schedules.LearningRateSchedule, or a class "
        "of yours with __call__(step), get_config and from_config",
    )
    return momentum


def check_momentum(what, value):
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{what} must lie between 0 and 1; it is {value!r}.")


@keras.saving.register_keras_serializable("keras_ssl")
class Teacher(keras.layers.Layer):
    """Copies of layers, updated once per optimizer step: `teacher ← m · teacher + (1 − m) · student`.

    All state is in variables, which `.keras` files save. The copies are frozen variable by variable: their layers stay
    trainable where the student's are, so that batch normalization in training uses the batch's statistics if the
    student's does. (A layer with `trainable=False` normalizes by moving statistics, even in training.)

    Args:
        schedule: the momentum, a function of the step; see `schedule_of`.
        statistics: of batch normalization, which no optimizer moves: `"own"` lets the teacher's copies move by what it
            sees itself, as in BYOL's code; `"average"` averages the student's like weights; `"copy"` copies them.
    """

    def __init__(self, schedule, statistics="own", **kwargs):
        super().__init__(**kwargs)
        if statistics not in STATISTICS:
            raise ValueError(f"Teacher: `statistics` is one of {', '.join(STATISTICS)}; it is {statistics!r}.")
        # A saved one is a dict.
        self.schedule = keras.saving.deserialize_keras_object(schedule) if isinstance(schedule, dict) else schedule
        self.statistics = statistics

    def get_config(self):
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {**super().get_config(), "schedule": schedule, "statistics": self.statistics}

    def track(self, students):
        """Creates the copies, and the counters.

        Args:
            students: built layers or models.
        """
        self.copies = [clone(student) for student in students]
        self._originals = _Untracked(tuple(students))
        # By place and never by name: a copy has the names of its original.
        self._trainable_flags = [trainable_flags(layer) for layer in self.copies]
        for weight in (weight for layer in self.copies for weight in layer.weights):
            if keras.backend.standardize_dtype(weight.dtype) in ("float16", "bfloat16"):
                raise ValueError(
                    f"Teacher: the weights are {weight.dtype}, whose digits end before a step of 1 − 0.996: take "
                    'the policy "mixed_bfloat16" or "mixed_float16", which keeps weights in float32.'
                )
        # Averaged statistics are kept apart: the copies' own move in their forward pass, before they are averaged.
        self._averages = [
            self.add_weight(shape=weight.shape, dtype=weight.dtype, trainable=False, name=f"average_{number}")
            for number, weight in enumerate(self._statistics_of(self.copies))
        ]
        for average, weight in zip(self._averages, self._statistics_of(self.copies)):
            average.assign(weight)
        counter = {"shape": (), "dtype": "int32", "trainable": False, "initializer": "zeros"}
        self.updates = self.add_weight(name="updates", **counter)
        self.run_start = self.add_weight(name="run_start", **counter)
        self.run_steps = self.add_weight(name="run_steps", **counter)
        self.last_momentum = self.add_weight(
            name="last_momentum", shape=(), dtype="float32", trainable=False, initializer="ones"
        )
        self.built = True
        self.freeze()

    def project(self, images, training, pooling=None):
        """What the copies of a backbone and its projector, the first two, give of images: `(n, width)`.

        Args:
            pooling: of tokens: as the student's, `model.pooling`.
        """
        backbone, projector = self.copies[:2]
        features = backbones.pooled(backbone(images, training=training), backbone, pooling, images.shape)
        return projector(features, training=training)

    def _statistics_of(self, layers):
        """The weights that are averaged and that no optimizer moves: none unless `statistics` is "average"."""
        if self.statistics != "average":
            return []
        weights = [pair for layer, flags in zip(layers, self._trainable_flags) for pair in zip(layer.weights, flags)]
        return [weight for weight, trainable in weights if not trainable and _is_float(weight)]

    def normalize_as(self, students):
        """Makes the copies' batch normalization compute its statistics as the students' does: global, ghost, fused."""
        for layer, student in zip(self.copies, students):
            batch_norm.copy_statistics_mode(layer, student)

    def freeze(self):
        """Excludes the copies' variables from training; their layers are trainable where the students' are by now.

        Call it again after `trainable` is set on a layer above, or on one of a student's: whoever unfreezes a student
        later would else have a teacher whose batch normalization stays frozen.
        """
        for layer, student in zip(self.copies, self._originals.value):
            # From the top down, for each sets all that is below it.
            for part, twin in zip(flatten_layers(layer), flatten_layers(student), strict=True):
                part.trainable = twin.trainable
            for variable in layer.variables:
                variable.trainable = False

    def momentum(self):
        """The momentum of the next update: a float32 scalar."""
        step = ops.convert_to_tensor(self.updates) - ops.convert_to_tensor(self.run_start)
        if self.needs_run_steps:
            return self.schedule(step, ops.convert_to_tensor(self.run_steps))
        return ops.cast(self.schedule(step), "float32")

    @property
    def needs_run_steps(self):
        """Whether the schedule depends on how long the run is."""
        return isinstance(self.schedule, CosineMomentum) and self.schedule.steps is None

    def on_run_begin(self, total_steps, initial_step):
        """Sets the length of the run in optimizer steps, `initial_step` of which are done already."""
        if not self.needs_run_steps:
            # A schedule of its own length continues where it was, in a second fit as well.
            return
        if total_steps is None:
            raise ValueError(
                "fit: the momentum goes from its base to 1 over the steps of the run, and this stream's length is not "
                "known: pass steps_per_epoch, or momentum=keras_ssl.teacher.CosineMomentum(0.996, steps=…)."
            )
        self.run_steps.assign(total_steps)
        self.run_start.assign(ops.convert_to_tensor(self.updates) - initial_step)

    def update(self, students, stepped):
        """Moves the copies towards the students.

        Args:
            students: the layers that `track` was given.
            stepped: boolean scalar tensor; where it is false nothing moves.
        """
        momentum = ops.where(stepped, self.momentum(), 1.0)
        for layer, student, flags in zip(self.copies, students, self._trainable_flags):
            for mine, theirs, averaged in zip(layer.weights, student.weights, flags):
                new = ops.convert_to_tensor(theirs)
                if averaged:
                    mine.assign(momentum * ops.convert_to_tensor(mine) + (1.0 - momentum) * new)
                elif self.statistics == "copy" or (self.statistics == "average" and not _is_float(mine)):
                    mine.assign(ops.where(stepped, new, ops.convert_to_tensor(mine)))
        pairs = zip(self._averages, self._statistics_of(self.copies), self._statistics_of(students))
        for average, mine, theirs in pairs:
            average.assign(momentum * ops.convert_to_tensor(average) + (1.0 - momentum) * ops.convert_to_tensor(theirs))
            mine.assign(ops.convert_to_tensor(average))
        self.last_momentum.assign(ops.where(stepped, momentum, ops.convert_to_tensor(self.last_momentum)))
        self.updates.assign(ops.convert_to_tensor(self.updates) + ops.cast(stepped, "int32"))


class _Untracked:
    """Holds layers that are another's: Keras would track and save what stands in an attribute itself."""

    def __init__(self, value):
        self.value = value


def _is_float(weight):
    return "float" in keras.backend.standardize_dtype(weight.dtype)


@keras.saving.register_keras_serializable("keras_ssl")
class Frozen(keras.layers.Layer):
    """A model that teaches and does not learn, with what it expects of its images.

    The views of a student are brought to the teacher's range, size and channels: linearly to its value range, by
    bilinear interpolation to its size, and one channel is repeated where it takes three. Other preprocessing belongs
    in the model: `keras.Sequential([Normalization(…), teacher])`. It runs in inference: batch normalization by its
    moving statistics, no dropout. Its variables are frozen for good, in the model that is given as well.

    Args:
        model: any Keras model from images to features, a feature map or tokens, or a trained `SelfSupervisedModel`,
            of which the backbone is taken.
        value_range: lowest and highest value of the images that it takes; None for what it says itself (by a
            `Rescaling` at its beginning, or as a `SelfSupervisedModel`), or else the student's.
        image_shape: `(height, width, channels)`; None for its own, and where that is open the student's.
        pooling: of a ViT's tokens: "class", "mean", or None for the class token if there is one.
    """

    def __init__(self, model, value_range=None, image_shape=None, pooling=None, **kwargs):
        super().__init__(**{**kwargs, "autocast": False})
        if not isinstance(model, keras.layers.Layer):
            raise TypeError(f"Frozen: `model` must be a Keras model; it is a {type(model).__name__}.")
        self.value_range = backbones.value_range(model) if value_range is None else tuple(value_range)
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"Frozen: `value_range` is (lowest, highest); it is {value_range!r}.")
        self.model = backbones.checked(backbones.backbone_of(model))
        self.image_shape = None if image_shape is None else tuple(image_shape)
        self.pooling = pooling

    def prepare(self, student, value_range):
        """Makes it ready for the views of a student, and freezes it.

        Args:
            student: the backbone that will learn.
            value_range: of the student's images.

        Returns:
            The width of the pooled features.

        Raises:
            ValueError: what it takes can't be made of the student's images, or it shares variables with the student.
        """
        self._given_range = value_range
        given = backbones.input_shape(student)
        own = self.image_shape or (backbones.input_shape(self.model) or (None,))[1:] or (given or (None,))[1:]
        if not own:
            raise ValueError(
                "Frozen: the shape of the teacher's images is not known: give image_shape=(height, width, channels)."
            )
        if given is not None:
            own = tuple(side or other for side, other in zip(own, given[1:])) if len(own) == len(given) - 1 else own
            self._check_shapes(tuple(given[1:]), tuple(own))
        self.takes = tuple(own)
        if not self.model.built:
            self.model.build((None, *self.takes))
        if shared := {id(variable) for variable in self.model.variables} & {id(v) for v in student.variables}:
            raise ValueError(
                f"Distill: teacher and student share {len(shared)} variables, and the teacher is frozen: give the "
                "student layers of its own, such as keras_ssl.clone.clone(backbone)."
            )
        if self.value_range not in (None, value_range) and not np.isfinite([*self.value_range, *value_range]).all():
            raise ValueError(
                f"Distill: the teacher takes images within {self.value_range}, and the student's lie within "
                f"{value_range}: give Distill a `value_range` with ends."
            )
        features = self.model.compute_output_spec(keras.KerasTensor((None, *self.takes), "float32"))
        backbones.check_pooling(self.model, tuple(features.shape), self.pooling)
        self.built = True
        self.freeze()
        return features.shape[-1]

    def _check_shapes(self, given, own):
        images = len(given) == 3 and len(own) == 3
        channels = given[-1] == own[-1] or (images and (given[-1], own[-1]) == (1, 3))
        if len(given) != len(own) or not channels or (not images and given != own):
            raise ValueError(
                f"Distill: the teacher {self.model.name} takes {own} and the student's views are {given}: only height "
                "and width are resized, and one channel is repeated. Put what makes the one of the other in front of "
                "the teacher, in a keras.Sequential."
            )

    def freeze(self):
        """Excludes its variables from training. Call it again after `trainable` is set on a layer above."""
        for variable in self.model.variables:
            variable.trainable = False

    def call(self, images):
        """`(pooled features, a feature map or None)` of a student's views, through which no gradient goes."""
        images = ops.cast(images, "float32")
        if len(self.takes) == 3:
            images = self._as_taken(images)
        features = ops.stop_gradient(ops.cast(self.model(images, training=False), "float32"))
        places = backbones.token_map(self.model, features, images.shape)
        pooled = backbones.pooled(features, self.model, self.pooling, images.shape)
        return pooled, places if len(places.shape) == 4 else None

    def _as_taken(self, images):
        (low, high), (first, last) = self._given_range, self.value_range or self._given_range
        if (low, high) != (first, last):
            images = (images - low) * ((last - first) / (high - low)) + first
        if images.shape[-1] != self.takes[-1]:
            images = ops.repeat(images, self.takes[-1], axis=-1)
        if tuple(images.shape[1:3]) != tuple(self.takes[:2]) and None not in self.takes[:2]:
            images = ops.image.resize(images, self.takes[:2], antialias=True)
        return images

    def get_config(self):
        config = {**super().get_config(), "model": keras.saving.serialize_keras_object(self.model)}
        return {**config, **{name: getattr(self, name) for name in ("value_range", "image_shape", "pooling")}}

    @classmethod
    def from_config(cls, config):
        config = copy.deepcopy(config)  # Keras writes into what it is given
        return cls(**{**config, "model": keras.saving.deserialize_keras_object(config.get("model"))})
