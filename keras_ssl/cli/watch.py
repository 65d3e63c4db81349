"""What one sees while a run trains: how long it will take, a bar, and a row of a table after each epoch."""

import contextlib
import signal
import sys
import time

import keras

from keras_ssl.cli.words import columns, duration

_TIMED = 8  # steps, after the first, which compiles
_LEAST_SECONDS = 0.1  # between two drawings of the bar
_BAR = 16  # characters of it, at most


class Watch(keras.callbacks.Callback):
    """Writes to standard output, in at most as many columns as the terminal has.

    In the place of Keras' own bar (`verbose=0`), whose line holds all metrics and is wider than most terminals: there
    it is written anew below itself at each step.

    Args:
        steps: of a whole epoch.
        bar: whether there is a terminal, on which a line can be written over.
        earlier: a callback with the `history` of the epochs before this process, `Resume`; or None.
        on_interrupt: a function that is called as soon as Ctrl-C is pressed.
    """

    def __init__(self, steps, bar, earlier=None, on_interrupt=None):
        super().__init__()
        self.steps = steps
        self.bar, self.earlier, self.on_interrupt = bar, earlier, on_interrupt
        self.names = None  # the columns of the table, once the first epoch is done
        self._written = 0
        self._said = False
        self._timed, self._seconds = 0, 0.0  # steps, and how long they took
        self._rest = 0.0  # seconds of the last epoch beside its steps: probes, validation, saving

    # What Keras calls.

    def on_train_begin(self, logs=None):
        if self.on_interrupt is not None:
            self._say_at_once()
        history = getattr(self.earlier, "history", None) or {}
        if self.names is None and history.get("loss"):
            for epoch in range(len(history["loss"])):
                self._row(epoch, {name: values[epoch] for name, values in history.items() if epoch < len(values)})

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._done = epoch, 0
        self._began = self._last = time.perf_counter()
        self._drawn = 0.0
        self._fill(f"epoch {epoch + 1}/{self._epochs()}  compiling…" if not self._timed else self._waiting(epoch))

    def on_train_batch_end(self, batch, logs=None):
        now, steps = time.perf_counter(), self.params["steps"]  # fewer for the rest of an epoch
        done = min(batch + 1, steps)
        if self._done:
            self._timed += done - self._done
            self._seconds += now - self._last
        self._last, self._done = now, done
        if not self._said and self._timed and (self._timed >= _TIMED or done == steps):
            self._say_how_long()
        if now - self._drawn >= _LEAST_SECONDS or done == steps:
            self._drawn = now
            self._fill(self._progress(logs or {}))

    def on_test_begin(self, logs=None):
        self._fill(f"epoch {self._epoch + 1}/{self._epochs()}  measuring on held-out images")

    def on_epoch_end(self, epoch, logs=None):
        now = time.perf_counter()
        if self.names is not None:  # in the first epoch probes are compiled, too
            self._rest = now - self._last
        self._fill("")
        self._row(epoch, logs or {}, now - self._began)
        if epoch + 1 < self._epochs():  # saving, and the first batch, may take longer than all of a short epoch
            self._fill(self._waiting(epoch + 1))

    def on_train_end(self, logs=None):
        self._fill("")  # a run may end before its last epoch

    # What it says.

    def _say_at_once(self):
        """Ctrl-C is waited for until the step is done, which may take a while: what happens is said at once.

        `fit` puts back the handler that was there before it.
        """
        with contextlib.suppress(ValueError):  # not in the main thread
            before = signal.getsignal(signal.SIGINT)

            def interrupt(number, frame):
                with contextlib.suppress(RuntimeError):  # Ctrl-C in the middle of a print
                    self.on_interrupt()
                before(number, frame)

            if callable(before):
                signal.signal(signal.SIGINT, interrupt)

    def _waiting(self, epoch):
        return f"epoch {epoch + 1}/{self._epochs()} …"

    def _epochs(self):
        return self.params["epochs"]

    def _left(self):
        """Seconds until the last epoch is done; None before a step was timed."""
        if not self._timed:
            return None
        epochs = self._epochs() - self._epoch
        steps = self.params["steps"] - self._done + (epochs - 1) * self.steps
        return self._seconds / self._timed * steps + epochs * self._rest

    def _say_how_long(self):
        self._said = True
        left, step = self._left(), self._seconds / self._timed
        self._fill("")
        each = f"{1000 * step:.0f} ms" if step < 1 else f"{step:.1f} s"
        print(f"A step takes {each}: about {duration(left)} to go, besides the measures after each epoch.")

    def _progress(self, logs):
        epoch = f"epoch {self._epoch + 1}/{self._epochs()}"
        left = self._left()
        end = [] if left is None else [f"{duration(left)} left"]
        done, steps = self.steps - self.params["steps"] + self._done, self.steps
        filled = _BAR * done // steps
        bar = f"[{'=' * filled}{'.' * (_BAR - filled)}] {done}/{steps}"
        return _fitting([epoch, bar], self._metrics(logs), end)

    def _metrics(self, logs):
        """The loss first; a term that is the whole loss is not shown twice."""
        loss = logs.get("loss")
        found = [] if loss is None else [f"loss {loss:.4f}"]
        terms = getattr(self.model, "terms", ())
        others = [name for name in logs if name != "loss" and not name.startswith("val_")]
        return found + [f"{name} {logs[name]:.4g}" for name in others if not (name in terms and len(terms) == 1)]

    def _fill(self, line):
        """Writes over the line of the bar."""
        if not self.bar:
            return
        line = line[: columns() - 1]
        sys.stdout.write("\r" + line.ljust(self._written) + ("\r" if not line else ""))
        sys.stdout.flush()
        self._written = len(line)

    def _row(self, epoch, logs, seconds=None):
        width = len(f"{self._epochs()}/{self._epochs()}")
        values = {"epoch": f"{epoch + 1}/{self._epochs()}".rjust(max(width, 5))}
        for title, name, form in (("loss", "loss", ".4f"), ("kNN", "knn_accuracy", ".3f"), ("rank", "rank_me", ".1f")):
            if name in logs:
                values[title] = format(logs[name], form).rjust(9)
        values["seconds"] = ("before" if seconds is None else f"{seconds:.1f}").rjust(9)
        if self.names is None:
            self.names = list(values)
            print("  ".join(name.rjust(len(values[name])) for name in self.names))
        cells = [values.get(name, "–".rjust(9)) for name in self.names]
        print("  ".join(cells), flush=True)


def _fitting(start, metrics, end):
    """The parts joined, with as many metrics as a line of the terminal holds."""
    most = columns() - 1
    for count in range(len(metrics), -1, -1):
        line = "  ".join([*start, *metrics[:count], *end])
        if len(line) <= most:
            return line
    return "  ".join(start)
