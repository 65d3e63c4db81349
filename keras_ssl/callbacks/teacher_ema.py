"""A callback that sets the schedule of a teacher's momentum."""

import keras

from keras_ssl import teacher


class TeacherEMA(keras.callbacks.Callback):
    """Sets the schedule of a teacher's momentum. The moving average itself runs inside the training step.

    The schedule counts optimizer steps. It replaces the model's own, in this `fit` and in models saved after it.
    Without this callback a method with a teacher uses its `momentum` argument.

    Args:
        schedule: a function of the step: `keras_ssl.teacher.CosineMomentum`, `ConstantMomentum`, any
            `keras.optimizers.schedules.LearningRateSchedule`, or a class of yours with `get_config` and `from_config`;
            a number is the base of BYOL's cosine over the run.
        name: the name in the logs of the momentum at the last step of the epoch.

    Raises:
        ValueError: in `fit`, where the model has no teacher; at once, for a schedule that could not be saved.
    """

    def __init__(self, schedule=0.996, name="momentum"):
        super().__init__()
        self.schedule = teacher.schedule_of("TeacherEMA", schedule)
        self.name = name

    def before_run(self, model):
        """Hands the schedule to the model; `fit` calls it before the length of the run is set and a step is traced."""
        if not isinstance(getattr(model, "teacher", None), teacher.Teacher):
            raise ValueError(
                f"TeacherEMA: {type(model).__name__} has no teacher whose momentum could be set: leave it out."
            )
        if model.momentum is not self.schedule:
            model.momentum = model.teacher.schedule = self.schedule
            # A step that was compiled in an earlier fit has the old schedule in it.
            model.make_train_function(force=True)
            model.make_test_function(force=True)

    def on_train_begin(self, logs=None):
        if getattr(self.model, "teacher", None) is None:  # no model of this library, whose fit calls before_run
            self.before_run(self.model)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs[self.name] = float(keras.ops.convert_to_numpy(self.model.teacher.last_momentum))
