"""Which model runs a training or test step on this thread; everywhere else a model is its backbone."""

import threading

from keras_ssl.augment.rng import RowRNG

# Per thread, for TensorFlow's strategies run each replica's step on a thread of its own.
_running = threading.local()

# The step that an evaluation draws its views for: no training step has it, so that the views are its own, and they are
# the same at every evaluation, so that val_loss compares between epochs.
EVALUATION = -1


class Step:
    """Marks this thread as running a step of a model, until the step ends or fails.

    Attributes:
        outputs: what the forward pass gave, for what happens after the optimizer.
        rng: `RowRNG` of the rows that are being embedded.
        features: what the backbone gave for them so far, for the model's regularizers.
    """

    def __init__(self, model, training):
        self.model, self.training, self.outputs, self.rng, self.features = model, training, None, None, []

    def __enter__(self):
        self._outer = getattr(_running, "step", None)
        _running.step = self
        return self

    def __exit__(self, *exception):
        _running.step = self._outer


def running():
    """The `Step` that this thread runs, of whichever model; None outside of a step."""
    return getattr(_running, "step", None)


def step_of(model):
    """The `Step` of this model that this thread runs; None outside of one, and in a step of another model."""
    step = running()
    return step if step is not None and step.model is model else None


def on_any_thread(function):
    """The function, which runs within the step of the caller's thread on whichever thread it is called.

    torch computes gradients of what lies on a GPU on a thread of its own, and with them what is computed once more.
    """
    step = running()

    def run(*arguments):
        outer, _running.step = running(), step
        try:
            return function(*arguments)
        finally:
            _running.step = outer

    return run


def noted(model, features):
    """The features that the model's backbone gave; in a step of this model they are kept for its regularizers."""
    step = step_of(model)
    if step is not None:
        step.features.append(features)
    return features


def batch_rng(rows):
    """The `RowRNG` of what is drawn once for the whole batch of the running step, the same on all replicas.

    Args:
        rows: int32 `(n,)`, numbers of what is drawn.
    """
    step = running()
    return RowRNG(step.model.seed, rows).fold_in(step.model.step if step.training else EVALUATION, "batch")
