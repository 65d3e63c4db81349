"""When a callback measures the model: after epochs, and after a number of batches."""

import keras


def continues_epoch(model):
    """Whether this is the second half of one `fit`: see `SelfSupervisedModel.fit` with `Resume`."""
    return getattr(model, "continues_epoch", False)


class PeriodicCallback(keras.callbacks.Callback):
    """Calls `measure(step)` every `every` epochs and every `every_steps` batches. A subclass says what it measures.

    `measure` returns a dict of metrics. They enter the logs of the epoch; if the last measurements of an epoch were
    taken between its batches, the logs get the latest.

    The last epoch is always measured, also of a run that ends early: at its end if `stop_training` is set by then, as
    by an `EarlyStopping` that is listed before, else when the run ends. That is too late for the other callbacks of the
    epoch, but `values` and the history that `fit` returns have it.

    Args:
        every: epochs between two measurements, 1 or more. None for the last epoch alone.
        every_steps: batches between two further measurements, 1 or more; None for none.

    Attributes:
        values: what was measured, a list of `(step, metrics)`; steps are batches of this `fit`.
    """

    def __init__(self, every, every_steps):
        super().__init__()
        owner = type(self).__name__
        for name, number, unit in (("every", every, "epoch"), ("every_steps", every_steps, "batch")):
            if number is not None and not (isinstance(number, int) and number >= 1):
                raise ValueError(f"{owner}: `{name}` must be 1 {unit} or more, or None; it is {number!r}.")
        self.every, self.every_steps = every, every_steps
        self.values = []
        self._step, self._in_epoch, self._logged = 0, 0, False

    def measure(self, step):
        """Returns a dict of metrics of the model as it is after `step` batches."""
        raise NotImplementedError

    def on_train_begin(self, logs=None):
        if not continues_epoch(self.model):
            self.values, self._step, self._in_epoch = [], 0, 0

    def on_epoch_begin(self, epoch, logs=None):
        self._in_epoch = 0

    def on_train_batch_end(self, batch, logs=None):
        # With steps_per_execution this is called once for several batches: what counts is what was passed.
        done = min(batch + 1, self.params.get("steps") or batch + 1)  # its last call may count past the epoch's end
        before, self._step = self._step, self._step + done - self._in_epoch
        self._in_epoch = done
        if self.every_steps is not None and self._step // self.every_steps > before // self.every_steps:
            self._measure()

    def on_epoch_end(self, epoch, logs=None):
        last = epoch + 1 == self.params.get("epochs") or self._stopped()
        seen = self._seen()
        if (last or (self.every is not None and (epoch + 1) % self.every == 0)) and not seen:
            self._measure()
            seen = True
        self._logged = logs is not None and bool(self.values) and (seen or self._measured_in(self._in_epoch))
        if self._logged:
            logs.update(self.values[-1][1])

    def on_train_end(self, logs=None):
        # Keras ends a run, too, where `fit` does the rest of an epoch: what was not stopped goes on.
        if not self._step or self._seen() or not self._stopped():
            return
        self._measure()
        # What `fit` returns has the epoch's other metrics already; an error may have ended the run before.
        history = getattr(getattr(self.model, "history", None), "history", {})
        for name, value in self.values[-1][1].items():
            values = history.setdefault(name, [])
            values[len(values) - self._logged :] = [value]

    def _seen(self):
        """Whether the model was measured as it is."""
        return bool(self.values) and self.values[-1][0] == self._step

    def _stopped(self):
        return getattr(self.model, "stop_training", False)

    def _measure(self):
        model = self.model  # on JAX, reading it brings the state of the step back into the variables
        if hasattr(model, "check_finite"):
            model.check_finite()  # names the term, where the measures could only say that features are not finite
        self.values.append((self._step, self.measure(self._step)))

    def _measured_in(self, batches):
        return self.values[-1][0] > self._step - batches
