"""Several processes hold one model: where what they hold is no longer the same, the run ends with a sentence."""

import keras

from keras_ssl import backend


def check_same_weights(model, when):
    """Raises `ValueError` where a variable of the model is not the same in all processes that train it together.

    Args:
        model: a built model.
        when: for the message.
    """
    path = backend.unequal_variable(model)
    if path is not None:
        raise ValueError(
            f"{when} the variable {path} is not the same in all {backend.processes_of(model)[0]} processes. Whatever "
            "changes the model must do the same in each of them: a callback that assigns, a layer that keeps something "
            "of its rows (let it take keras_ssl.distribute.global_sum of it), weights that were loaded into one model "
            "only. `fit` begins with the weights of process 0."
        )


class SameWeights(keras.callbacks.Callback):
    """Looks after the first step of a run, and after each epoch, whether all processes still hold one model."""

    def on_train_begin(self, logs=None):
        self._looked = False

    def on_train_batch_end(self, batch, logs=None):
        if not self._looked:
            self._looked = True
            check_same_weights(self.model, "fit: after the first step")

    def on_epoch_end(self, epoch, logs=None):
        check_same_weights(self.model, f"fit: after epoch {epoch + 1}")


def together(model, what, function):
    """What a function gives that each process runs by itself; where it fails in one of them, all raise.

    Else the others would wait for that process in their next step.

    Args:
        model: that they train.
        what: what is done, for the message of those in which it did not fail: "Resume: reading /run/state".
        function: without arguments.
    """
    result = error = None
    try:
        result = function()
    except Exception as raised:
        error = raised
    failed = backend.all_gather_ints(model, [error is not None])
    if error is not None:
        raise error
    if failed is not None and failed.any():
        numbers = [number for number, one in enumerate(failed[:, 0]) if one]
        raise RuntimeError(f"{what} failed in process {numbers[0]} of {len(failed)}: see what that one wrote.")
    return result


def any_process(model, here):
    """Whether something holds in this process or in another."""
    gathered = backend.all_gather_ints(model, [bool(here)])
    return bool(here) if gathered is None else bool(gathered.any())


def writes(model):
    """Whether this process is the one that writes what all of them share."""
    return backend.processes_of(model)[1] == 0
