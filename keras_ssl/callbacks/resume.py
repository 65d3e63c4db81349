"""Resumes an interrupted run where it was, as if it had not been interrupted."""

import contextlib
import functools
import signal
import threading
import time
import zlib

import keras
from keras import ops

from keras_ssl import backend
from keras_ssl.callbacks.state_file import StateFile
from keras_ssl.training.agreement import any_process, together, writes

_SHARE = 0.03  # of the time goes into saving by time, at most


class Resume(keras.callbacks.Callback):
    """Saves the whole state of `fit` in a file, and continues from it, also from the middle of an epoch.

    `fit` of the same model on the same arrays with `Resume` of the same file does only what is missing, and ends with
    the weights, the logs and the history of a run that was not cut off, to the last bit on one machine: weights,
    optimizer, teacher, queue, seeds, metrics of the epoch so far, and the place in the order of the images. That holds
    on each backend. What other callbacks remember (how long `EarlyStopping` has waited) begins anew.

    Ctrl-C ends the run after the batch that is running, saves, and raises `KeyboardInterrupt`; a second one ends it at
    once. For a stream it does not save: the epoch is done again from its start. After `kill -9` the run continues from
    the last time it was saved.

    The last two states are kept, each with a checksum, and each is replaced in one move, so that a whole one is there
    whenever the run is cut off. One that is damaged is named in a warning, and the one before it is used. A second run
    on the same file is refused while the first one runs (not on Windows, nor on a file system without locks).

    In several processes the first one writes, all of them read, and where they would not continue from one place, as
    when one of them does not see the file, all are refused before the first step. Ctrl-C, also if one process alone
    gets it, ends all of them at the next batch that is saved, or after the epoch.

    Args:
        path: of the file, which all processes see. The state before it has ".previous" behind its name. Each grows
            with the model: weights and optimizer; while one is written there are three.
        every_steps: batches between two times it is saved, besides after each epoch; None for epochs alone.
        every_seconds: the same by time: it is saved after the first batch that ends so long after the last save, or
            later where saving takes long: it never takes more than 3 % of the time. None for epochs alone.

    Attributes:
        history: the logs of all epochs, also of those before the run was cut off.

    Raises:
        ValueError: in `fit`, where the file is of another model, batch size, number of batches or backend, where it
            lies within an epoch and the images come as a stream, which can't be entered in the middle; or where
            processes would continue from different places. A `keras_ssl.files.DamagedFile`, where both states are
            damaged.
        OSError: the folder can't be written, or another run writes the file: before the first step. The disk is full:
            in `fit`; the states that were saved before stay.
    """

    def __init__(self, path, every_steps=None, every_seconds=None):
        super().__init__()
        if every_steps is not None and not (isinstance(every_steps, int) and every_steps >= 1):
            raise ValueError(f"Resume: `every_steps` must be 1 batch or more, or None; it is {every_steps!r}.")
        if every_seconds is not None and not (isinstance(every_seconds, (int, float)) and every_seconds > 0):
            raise ValueError(f"Resume: `every_seconds` must be above 0 seconds, or None; it is {every_seconds!r}.")
        self.file = StateFile(path)
        self.path, self.every_steps, self.every_seconds = self.file.path, every_steps, every_seconds
        self.history = {}
        self._saved_at, self._cost = None, 0.0
        self.interrupted = False

    # What `fit` asks before it starts.

    def restore(self, model, feed):
        """Puts a saved state into the model.

        Args:
            model: built, with its optimizer.
            feed: `keras_ssl.data.adapter.Feed` of what it trains on.

        Returns:
            A tuple `(epoch, batch)`: how many epochs, and batches of the next one, are done; None without a file.
        """
        self._about = {"model": type(model).__name__, "batch_size": feed.global_batch_size, "steps": feed.steps}
        self._about.update(seed=model.seed, shuffle=feed.shuffled)
        self._entered = feed.resumable
        self._place, self._metrics, self._draws, self.history = (0, 0), None, None, {}
        if not self._entered and (self.every_steps is not None or self.every_seconds is not None):
            name = "every_seconds" if self.every_steps is None else "every_steps"
            raise ValueError(
                f"Resume: a stream can't be entered in the middle of an epoch: leave `{name}` out, and it is saved "
                "after each epoch; or give arrays."
            )
        self._several = backend.processes_of(model)[0] > 1
        if self._several and self.every_seconds is not None:
            raise ValueError(
                "Resume: several processes save at one batch, and the clock of each would choose another: give "
                "`every_steps` instead of `every_seconds`."
            )
        # One process keeps other runs out, until `during_run` ends.
        together(model, f"Resume: opening {self.path}", self.file.acquire if writes(model) else lambda: None)
        try:
            found = together(model, f"Resume: reading {self.path}", lambda: self._read(model))
            if self._several:
                _check_one_place(model, self.path, *(found[:2] if found else (None, ())))
        except BaseException:
            self.file.release()
            raise
        if found is None:
            return None
        about, state, self._draws = found
        for variable, value in zip(_variables(model), state):
            variable.assign(value)
        self._metrics = state[len(state) - len(model.metrics_variables) :]
        self._place, self.history = tuple(about["place"]), about["history"]
        return self._place

    def _read(self, model):
        """`(about, state, draws)` of the last state that is whole; None where there is none."""
        found = self.file.read()
        if found is None:
            return None
        about, arrays, path = found
        self._check(about, model, path)
        return about, [arrays[str(number)] for number in range(len(about["state"]))], arrays.get("draws")

    def _check(self, about, model, path):
        backends = about.get("backend"), keras.backend.backend()  # states of the first versions do not say theirs
        if about["state"] != _spec(model) and backends[0] not in (None, backends[1]):
            raise ValueError(
                f"Resume: {path} was written on the {backends[0]} backend, and Keras runs on {backends[1]}, whose "
                f"variables are others: set KERAS_BACKEND={backends[0]} before Keras is imported, or name another file "
                "to begin anew."
            )
        found = {name: about.get(name) for name in self._about}
        if found != self._about or about["state"] != _spec(model):
            differs = [f"{name} {found[name]}, now {now}" for name, now in self._about.items() if found[name] != now]
            told = "; ".join(differs) or "its variables have other shapes or types"
            raise ValueError(
                f"Resume: {path} is of another run ({told}): set the run up as it was, or name another file to begin "
                "anew."
            )
        if about["place"][1] and not self._entered:
            raise ValueError(
                f"Resume: {path} lies within an epoch, and a stream can't be entered there: give the arrays that "
                "the run began with."
            )

    @contextlib.contextmanager
    def during_run(self):
        """Catches Ctrl-C between two batches: within one, torch would be left with half a step. Other runs are kept out
        until the end."""
        self.interrupted = False
        self._saved_at = time.monotonic()
        try:
            with self._caught():
                yield
                if self.interrupted:  # after the last epoch was saved
                    raise KeyboardInterrupt
        finally:
            self.file.release()

    @contextlib.contextmanager
    def _caught(self):
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupt(number, frame):
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    # What Keras calls.

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._first = epoch, self._place[1] if epoch == self._place[0] else 0
        if self._first and self._metrics is not None:  # fit has just set them to 0
            for variable, value in zip(self.model.metrics_variables, self._metrics):
                variable.assign(value)
        self._metrics = None
        self._done = self._first
        if not self._first:
            self._set_draws()

    def on_train_batch_begin(self, batch, logs=None):
        self._set_draws()  # in the middle of an epoch only now: beginning one draws, too

    def _set_draws(self):
        if self._draws is not None:
            backend.set_rng_state(self._draws)
            self._draws = None

    def on_train_batch_end(self, batch, logs=None):
        before, self._done = self._done, self._first + batch + 1
        if self._about["steps"]:  # with steps_per_execution the last call may count past the end
            self._done = min(self._done, self._about["steps"])
        due = self.every_steps is not None and self._done // self.every_steps > before // self.every_steps
        due = due or self._is_time()
        whole = self._done == self._about["steps"]  # the end of the epoch saves it, with its logs
        stop = not whole and self._stops(due)
        if self._entered and not whole and (due or stop):
            self.model.check_finite()  # what is broken never replaces what is sound
            self._save(self._epoch, self._done)
        if stop:
            raise KeyboardInterrupt

    def _is_time(self):
        if self.every_seconds is None:
            return False
        return time.monotonic() - self._saved_at >= max(self.every_seconds, self._cost / _SHARE)

    def on_epoch_end(self, epoch, logs=None):
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        self._save(epoch + 1, 0)
        if self._stops(True):
            raise KeyboardInterrupt

    def _stops(self, saved):
        """Whether Ctrl-C ends the run here: of several processes all at one batch, for which they must meet."""
        if not self._several:
            return self.interrupted
        return saved and any_process(self.model, self.interrupted)

    def _save(self, epoch, batch):
        start, model = time.monotonic(), self.model
        about = {**self._about, "place": [epoch, batch], "state": _spec(model), "history": self.history}
        about["backend"] = keras.backend.backend()
        arrays = {str(number): _array(variable) for number, variable in enumerate(_variables(model))}
        draws = backend.get_rng_state()
        if draws is not None:
            arrays["draws"] = draws
        # All processes have met to read the state, and one writes it.
        write = functools.partial(self.file.write, about, arrays) if writes(model) else lambda: None
        together(model, f"Resume: writing {self.path}", write)
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - start


def _check_one_place(model, path, about, state):
    """Refuses processes that would not continue from one place: `about` is None where there is no file."""
    place = (-1, -1) if about is None else about["place"]
    checksum = functools.reduce(lambda total, array: zlib.crc32(array.tobytes(), total), state, 0) & 0x7FFFFFFF
    places = backend.all_gather_ints(model, [*place, checksum]).tolist()
    if len({tuple(one) for one in places}) < 2:
        return
    found = [
        f"process {number} {f'is after {epoch} epochs and {batch} batches' if epoch >= 0 else 'has no file'}"
        for number, (epoch, batch, _) in enumerate(places)
    ]
    differ = ", and their weights differ" if len({(epoch, batch) for epoch, batch, _ in places}) == 1 else ""
    raise ValueError(
        f"Resume: the processes would not continue from one place: {', '.join(found)}{differ}. Process 0 writes "
        f"{path}, and all must see that file: give a path on a file system that all hosts share, or copy the file of "
        "process 0 to the others."
    )


def _variables(model):
    """All that changes, by place: a teacher has its student's paths. The metrics' accumulators come last."""
    return [*model.variables, *model.optimizer.variables, *model.metrics_variables]


def _array(variable):
    array = ops.convert_to_numpy(variable)
    return array.astype("float32") if array.dtype.kind == "V" else array  # numpy's files don't know bfloat16


def _spec(model):
    return [f"{tuple(variable.shape)} {variable.dtype}" for variable in _variables(model)]
