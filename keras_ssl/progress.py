"""How far a run is, in variables: what begins, ends or warms up within it reads them in the compiled step.

A step that is compiled once would not see a number that a callback changes in Python.
"""

import keras
from keras import ops

__all__ = ["Progress"]


@keras.saving.register_keras_serializable("keras_ssl")
class Progress(keras.layers.Layer):
    """Counts optimizer steps: of all training, and of the run, whose length `fit` knows.

    A method holds one, asks it in its `embed` or `objective`, and calls `on_run_begin` and `tick` in its
    `on_run_begin` and `after_optimizer_step`. A part of the training is given as an integer, so many of the first
    optimizer steps ever made with the model, or as a float, 0.0 to 1.0: that part of each run.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs, "trainable": False})

    def build(self, input_shape=None):
        counter = {"shape": (), "dtype": "int32", "initializer": "zeros", "trainable": False}
        self.updates = self.add_weight(name="updates", **counter)
        self.run_start = self.add_weight(name="run_start", **counter)
        self.run_steps = self.add_weight(name="run_steps", **counter)

    def on_run_begin(self, total_steps, initial_step, **parts):
        """Sets the length of the run.

        Args:
            total_steps: optimizer steps of the run; None where it is not known.
            initial_step: how many of them are done.
            **parts: what the method asks about, by the names of its arguments.

        Raises:
            ValueError: one of them is a part of the run, and its length is not known.
        """
        for name, part in parts.items():
            if total_steps is None and isinstance(part, float):
                raise ValueError(
                    f"fit: `{name}` is a part of the run, and this stream's length is not known: pass "
                    "steps_per_epoch, or make it a whole number of steps."
                )
        self.run_steps.assign(total_steps or 0)
        self.run_start.assign(ops.convert_to_tensor(self.updates) - initial_step)

    def within(self, part):
        """Whether training is within its first part: a boolean scalar tensor.

        Args:
            part: an integer of optimizer steps, or a float, a part of the run.
        """
        done, of = self._counted(part)
        return done < of

    def line(self, start, end, part):
        """What moves from `start` to `end` on a straight line within a part of training, and stays: a float32 scalar.

        Args:
            start, end: numbers.
            part: as of `within`.
        """
        done, of = self._counted(part)
        share = ops.where(done < of, ops.maximum(done, 0.0) / ops.maximum(of, 1e-6), 1.0)
        return start + (end - start) * share

    def tick(self, stepped):
        """Counts an optimizer step, where `stepped` is true: a boolean scalar tensor."""
        self.updates.assign(ops.convert_to_tensor(self.updates) + ops.cast(stepped, "int32"))

    def _counted(self, part):
        """`(done, of)`: float32 scalars, steps that are done, and how many the part has."""
        done = ops.convert_to_tensor(self.updates)
        if not isinstance(part, float):
            return ops.cast(done, "float32"), ops.convert_to_tensor(part, "float32")
        done = ops.cast(done - ops.convert_to_tensor(self.run_start), "float32")
        return done, part * ops.cast(ops.convert_to_tensor(self.run_steps), "float32")


def check_part(what, part):
    """Raises `ValueError` unless `part` is a number of steps, 0 or more, or a float, 0.0 to 1.0."""
    steps = isinstance(part, int) and not isinstance(part, bool) and part >= 0
    if not steps and not (isinstance(part, float) and 0.0 <= part <= 1.0):
        raise ValueError(
            f"{what} must be a whole number of optimizer steps, or a part of the run, 0.0 to 1.0; it is {part!r}."
        )
