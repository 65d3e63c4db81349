"""One call of `fit`: its callbacks, where it begins, and the rest of an epoch that was cut off."""

import contextlib
import warnings

import keras

from keras_ssl import backend
from keras_ssl.data.listing import shown
from keras_ssl.data.tf_data import plain_errors
from keras_ssl.keras_compat import restore_on_error, set_total_epochs
from keras_ssl.training.agreement import SameWeights
from keras_ssl.training.finite import TerminateOnNonFinite
from keras_ssl.training.preflight import accumulated_steps


class Run:
    """One call of `fit`.

    Args:
        model: a built and compiled `Trainer`.
        feed: `keras_ssl.data.adapter.Feed` to train on.
        callbacks: as the user gave them to `fit`: None, one, a list, or a `keras.callbacks.CallbackList`.
        epochs, initial_epoch: as of `keras.Model.fit`.
    """

    def __init__(self, model, feed, callbacks, epochs, initial_epoch):
        self.model, self.feed, self.epochs = model, feed, epochs
        self.callbacks = [
            _TotalEpochs(epochs),
            _BrokenPictures(feed.pictures),
            *feed.callbacks,
            TerminateOnNonFinite(),
            *_as_list(callbacks),
            *([SameWeights()] if backend.processes_of(model)[0] > 1 else []),
        ]
        for callback in self.callbacks:
            if hasattr(callback, "before_run"):
                callback.before_run(model)
        self.resume = next((callback for callback in self.callbacks if hasattr(callback, "restore")), None)
        if self.resume is not None:  # the last, for it keeps what the others log
            self.callbacks = [*(one for one in self.callbacks if one is not self.resume), self.resume]
        self.initial_epoch, self.first = (self.resume and self.resume.restore(model, feed)) or (initial_epoch, 0)
        self._tell_length()

    def _tell_length(self):
        together = accumulated_steps(self.model.optimizer)
        steps = self.feed.steps
        total = None if steps is None else self.epochs * steps // together
        self.model.on_run_begin(total, ((steps or 0) * self.initial_epoch + self.first) // together)

    def train(self, keras_fit, **options):
        """Trains.

        Args:
            keras_fit: `fit` of `keras.Model`, bound to the model.
            **options: of `keras_fit`.

        Returns:
            Keras' `History`.
        """
        with self._guarded():
            history = self._train_rest_of_epoch(keras_fit, options)
            if history is None or (self.initial_epoch < self.epochs and not self.model.stop_training):
                if history is not None:
                    self.model.continues_epoch = True
                    # Keras ended the rest as a run (averaged weights, what on_train_end did): take what was saved.
                    self.resume.restore(self.model, self.feed)
                history = self._fit(keras_fit, self.feed.for_keras, self.epochs, options)
        if self.resume is not None:
            history.history = self.resume.history
            history.epoch = list(range(len(next(iter(self.resume.history.values()), ()))))
        return history

    def _train_rest_of_epoch(self, keras_fit, options):
        """What is left of an epoch is a run of its own, for Keras counts on epochs of one length."""
        self.model.continues_epoch = False
        if not self.first or self.initial_epoch >= self.epochs:
            return None
        with self.feed.rest_of_epoch(self.first) as feed:
            history = self._fit(keras_fit, feed, self.initial_epoch + 1, options)
        self.initial_epoch += 1
        return history

    def _fit(self, keras_fit, feed, epochs, options):
        return keras_fit(
            feed,
            epochs=epochs,
            initial_epoch=self.initial_epoch,
            steps_per_epoch=self.feed.steps_for_keras,
            callbacks=self.callbacks,
            shuffle=False,
            **options,
        )

    @contextlib.contextmanager
    def _guarded(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            stack.enter_context(restore_on_error(self.model))
            stack.enter_context(plain_errors())
            if self.resume is not None:
                stack.enter_context(self.resume.during_run())
            if self.feed.steps is None:
                # A stream of unknown length ends when it ends; Keras would say that it ran out of data.
                warnings.filterwarnings("ignore", "Your input ran out of data")
            yield


class _TotalEpochs(keras.callbacks.Callback):
    """Tells all callbacks how many epochs the run has, where Keras knows of the rest of an epoch alone.

    Args:
        epochs: of the whole run.
    """

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def set_params(self, params):
        super().set_params(params)
        set_total_epochs(self, self.epochs)


class _BrokenPictures(keras.callbacks.Callback):
    """Says at the end of an epoch which pictures could not be read and were replaced by others.

    Args:
        pictures: a list of `keras_ssl.data.ImageFiles`.
    """

    def __init__(self, pictures):
        super().__init__()
        self.pictures = pictures
        self._said = {path for files in pictures for path in files.broken}

    def on_epoch_end(self, epoch, logs=None):
        found = {path: reason for files in self.pictures for path, reason in files.broken.items()}
        new = [path for path in found if path not in self._said]
        self._said.update(new)
        if new:
            warnings.warn(
                f"{len(new):,} pictures could not be read in epoch {epoch + 1} and were replaced by others, such as "
                f"{shown(new[0])}: {found[new[0]]}."
            )


def _as_list(callbacks):
    if isinstance(callbacks, keras.callbacks.CallbackList):
        # What it adds to its callbacks by itself, a history and a progress bar, Keras adds to a list as well.
        callbacks = callbacks.callbacks
    return keras.tree.flatten(callbacks) if callbacks is not None else []
