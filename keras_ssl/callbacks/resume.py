"""Resumes an interrupted run where it was, as if it had not been interrupted."""

import contextlib
import functools
import json
import os
import pathlib
import signal
import threading
import zlib

import keras
import numpy as np
from keras import ops

from keras_ssl import backend
from keras_ssl.training.agreement import any_process, together, writes


class Resume(keras.callbacks.Callback):
    """Saves the whole state of `fit` in a file, and continues from it, also from the middle of an epoch.

    `fit` of the same model on the same arrays with `Resume` of the same file does only what is missing, and ends with
    the weights, the logs and the history of a run that was not cut off, to the last bit on one machine: weights,
    optimizer, teacher, queue, seeds, metrics of the epoch so far, and the place in the order of the images. That holds
    on each backend. What other callbacks remember (how long `EarlyStopping` has waited) begins anew.

    Ctrl-C ends the run after the batch that is running, saves, and raises `KeyboardInterrupt`; a second one ends it at
    once. For a stream it does not save: the epoch is done again from its start. After `kill -9` the run continues from
    the last time it was saved.

    In several processes the first one writes, all of them read, and where they would not continue from one place, as
    when one of them does not see the file, all are refused before the first step. Ctrl-C, also if one process alone
    gets it, ends all of them at the next batch that is saved, or after the epoch.

    Args:
        path: of the file, which all processes see; it is replaced in one move, so that it is whole whenever the run is
            cut off. It grows with the model: weights and optimizer.
        every_steps: batches between two times it is saved, besides after each epoch; None for epochs alone.

    Attributes:
        history: the logs of all epochs, also of those before the run was cut off.

    Raises:
        ValueError: in `fit`, where the file is of another model, batch size or number of batches, where it lies
            within an epoch and the images come as a stream, which can't be entered in the middle; or where processes
            would continue from different places.
    """

    def __init__(self, path, every_steps=None):
        super().__init__()
        if every_steps is not None and not (isinstance(every_steps, int) and every_steps >= 1):
            raise ValueError(f"Resume: `every_steps` must be 1 batch or more, or None; it is {every_steps!r}.")
        self.path, self.every_steps = pathlib.Path(path), every_steps
        self.history = {}
        self.interrupted = False

    # What `fit` asks before it starts.

    def restore(self, model, feed):
        """Puts a saved state into the model.

        Args:
            model: built, with its optimizer.
            feed: `keras_ssl.data.adapter.Feed` of what it trains on.

        Returns:
            `(epoch, batch)`: how many epochs, and batches of the next one, are done; None where there is no file.
        """
        self._about = {"model": type(model).__name__, "batch_size": feed.global_batch_size, "steps": feed.steps}
        self._about.update(seed=model.seed, shuffle=feed.shuffled)
        self._entered = feed.resumable
        self._place, self._metrics, self._draws, self.history = (0, 0), None, None, {}
        if self.every_steps is not None and not self._entered:
            raise ValueError(
                "Resume: a stream can't be entered in the middle of an epoch: leave `every_steps` out, and it is saved "
                "after each epoch; or give arrays."
            )
        self._several = backend.processes_of(model)[0] > 1
        found = together(model, f"Resume: reading {self.path}", lambda: self._read(model))
        _check_one_place(model, self.path, *(found[:2] if found else (None, ())))
        if found is None:
            return None
        about, state, self._draws = found
        for variable, value in zip(_variables(model), state):
            variable.assign(value)
        self._metrics = state[len(state) - len(model.metrics_variables) :]
        self._place, self.history = tuple(about["place"]), about["history"]
        return self._place

    def _read(self, model):
        """`(about, state, draws)` of the file; None where there is none."""
        if not self.path.exists():
            return None
        with np.load(self.path) as file:
            about = json.loads(str(file["about"]))
            self._check(about, model)
            state = [file[str(number)] for number in range(len(about["state"]))]
            return about, state, file["draws"] if "draws" in file.files else None

    def _check(self, about, model):
        found = {name: about.get(name) for name in self._about}
        if found != self._about or about["state"] != _spec(model):
            differs = [f"{name} {found[name]}, now {now}" for name, now in self._about.items() if found[name] != now]
            raise ValueError(
                f"Resume: {self.path} is of another run ({'; '.join(differs) or 'its variables have other shapes'}): "
                "set the run up as it was, or name another file to begin anew."
            )
        if about["place"][1] and not self._entered:
            raise ValueError(
                f"Resume: {self.path} lies within an epoch, and a stream can't be entered there: give the arrays that "
                "the run began with."
            )

    @contextlib.contextmanager
    def during_run(self):
        """Catches Ctrl-C between two batches: within one, torch would be left with half a step."""
        self.interrupted = False
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
            if self.interrupted:  # after the last epoch was saved
                raise KeyboardInterrupt
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
        whole = self._done == self._about["steps"]  # the end of the epoch saves it, with its logs
        stop = not whole and self._stops(due)
        if self._entered and not whole and (due or stop):
            self.model.check_finite()  # what is broken never replaces what is sound
            self._save(self._epoch, self._done)
        if stop:
            raise KeyboardInterrupt

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
        model = self.model
        about = {**self._about, "place": [epoch, batch], "state": _spec(model), "history": self.history}
        arrays = {str(number): _array(variable) for number, variable in enumerate(_variables(model))}
        draws = backend.get_rng_state()
        if draws is not None:
            arrays["draws"] = draws
        # All processes have met to read the state, and one writes it.
        write = functools.partial(self._write, about, arrays) if writes(model) else lambda: None
        together(model, f"Resume: writing {self.path}", write)

    def _write(self, about, arrays):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_name(self.path.name + ".unfinished")
        with open(unfinished, "wb") as file:
            np.savez(file, about=json.dumps(about), **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, self.path)


def _check_one_place(model, path, about, state):
    """Refuses processes that would not continue from one place: `about` is None where there is no file."""
    place = (-1, -1) if about is None else about["place"]
    checksum = functools.reduce(lambda total, array: zlib.crc32(array.tobytes(), total), state, 0) & 0x7FFFFFFF
    gathered = backend.all_gather_ints(model, [*place, checksum])
    places = [] if gathered is None else gathered.tolist()
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
