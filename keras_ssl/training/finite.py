"""A loss that became NaN or infinite: recorded within the step, found by a callback, named in an error."""

import keras
from keras import ops

from keras_ssl import distribute


def record(model, terms):
    """Keeps the number and the step of the first term that is not finite in `model.first_nonfinite`; the step goes on.

    Args:
        model: a `Trainer`.
        terms: reduced terms of the loss, scalars, in the order of `model.terms`.
    """
    wrong = ops.stop_gradient(ops.cast(ops.logical_not(ops.isfinite(ops.stack(terms))), "float32"))
    wrong = distribute.global_sum(wrong) > 0.0
    number = ops.cast(ops.argmax(ops.cast(wrong, "int32")), "int32") + 1
    now = ops.stack([number, ops.cast(ops.convert_to_tensor(model.step), "int32")])
    first = ops.convert_to_tensor(model.first_nonfinite)
    model.first_nonfinite.assign(ops.where(ops.logical_and(ops.any(wrong), first[0] == 0), now, first))


def check(model):
    """Raises `FloatingPointError` with the name of the first term of the loss that was not finite, if one was."""
    number, step = ops.convert_to_numpy(model.first_nonfinite)
    if number:
        model.first_nonfinite.assign([0, 0])
        raise FloatingPointError(
            f"{type(model).__name__}: the term {model.terms[number - 1]!r} of the loss became NaN or infinite at step "
            f"{step}, and what was trained since is lost. A smaller learning rate or a longer warm-up usually helps; "
            "with half precision try float32. Load the last checkpoint, or make the model anew."
        )


class TerminateOnNonFinite(keras.callbacks.Callback):
    """Ends a run that can't learn: where a term is not finite, or where an epoch's metrics say so.

    The step itself records what it finds, and the record is read every so many steps: no step waits for the host.

    Args:
        every: steps between two readings.
    """

    def __init__(self, every=100):
        super().__init__()
        self.every, self.seen = every, 0

    def on_train_batch_end(self, batch, logs=None):
        # With steps_per_execution this is not called for every batch.
        if batch // self.every != self.seen:
            self.seen = batch // self.every
            self.model.check_finite()

    def on_epoch_begin(self, epoch, logs=None):
        self.seen = 0

    def on_epoch_end(self, epoch, logs=None):
        self.model.check_finite()
        self.model.check_logs(logs or {})
