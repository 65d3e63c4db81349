"""Runs of a method that start from the same weights, and how two of them are compared."""

import contextlib
import dataclasses

import keras
import numpy as np
from keras import ops

from keras_ssl import data, distribute
from keras_ssl.evaluate import knn
from keras_ssl.evaluate.features import extract_features

# What float32 leaves between two ways to compute the same training run of a few steps.
TOLERANCE = 1e-5
# Small, so that a tiny network in its first steps is no amplifier of that: at 0.05 a ReLU network with batch
# normalization made 1 out of 1e-7, at 0.003 networks of many kinds stayed below 1e-6.
LEARNING_RATE = 0.003
# Two ways to compute a run round in every step; what is measured of rounding is that of the initial weights alone. A
# difference of so many times what is measured may still be rounding. A fault is far above that on a smooth network,
# where rounding moves a run by less than the tolerance: there every difference fails.
ROUNDING_FACTOR = 3.0
# Relative changes of the initial weights that stand for rounding. The last bit of float32 is 1e-7, but where a ReLU
# changes sides is chance, and one step rounds many times: of a VICReg on ReLU and batch normalization, compilation
# changed the gradients of one step by 1e-5. There 1e-7 moved a run by 6e-7 or by 2e-4, 1e-6 by 3e-2, and compilation by
# 2e-2 to 4e-2: a single change by 1e-7 would have called that method faulty.
ROUNDING = (1e-7, 3e-7, 1e-6)
BATCH = 32
STEPS = 5  # per epoch; two epochs make the ten steps of which this library promises equality


class Skip(Exception):
    """Raised by a check that this process can't do."""


class Differs(AssertionError):
    """What should be equal is not.

    Attributes:
        differences: a list of `(quantity, difference)`: the largest relative difference of each quantity that differs.
            A quantity is "weights" or the name of a log, of which `MethodUnderTest.rounding` knows how far rounding
            moves it; None is what rounding does not excuse.
    """

    def __init__(self, message, differences):
        super().__init__(message)
        self.differences = differences


@dataclasses.dataclass
class TrainedRun:
    """A finished training run."""

    model: object
    history: dict
    weights: list


class MethodUnderTest:
    """A method under check: its data, its initial weights, and runs that all start from them."""

    def __init__(self, make_model, images=None, initial=None):
        self.make_model = make_model
        keras.utils.set_random_seed(0)  # a contract must not hold on some days only
        first = make_model()
        if not getattr(first, "compile", None) or first.compiled:
            raise ValueError("`make_model` must make a SelfSupervisedModel that is not compiled.")
        self.labels = None
        self.images = sample_images(first, self) if images is None else images
        self.initial = initial
        self._trained = self._half = self._rounding = self._failure = None

    def model(self):
        """A new model; all of them have the weights of the first."""
        model = self.make_model()
        if not model.built:
            part = keras.tree.map_structure(lambda array: (None, *array.shape[1:]), self.images)
            model.build(part)
        if self.initial is None:
            self.initial = self.state(model)
        for variable, value in zip(model.weights, self.initial):
            variable.assign(value)
        return model

    def some_images(self, count):
        parts = self.images if isinstance(self.images, dict) else {"image": self.images}
        images = parts["image"] if "image" in parts else parts["views"][0]
        return images[:count]

    def accuracy(self, model):
        if self.labels is None:
            return None
        features = extract_features(model, self.some_images(len(self.labels)))
        half = len(features) // 2
        return knn(features[:half], self.labels[:half], features[half:], self.labels[half:], k=10)

    def trained(self):
        """The run that the others are compared with: one device, Keras' defaults."""
        if self._failure is not None:
            raise self._failure  # and not train again for each check
        if self._trained is None:
            try:
                self._trained = self.train()
            except Exception as error:
                self._failure = error
                raise
        return self._trained

    def train(self, model=None, epochs=(0, 2), prepare=None, **compiled):
        """Two epochs of training; of a new model, or of a model that may be compiled already."""
        model = self.model() if model is None else model
        if prepare is not None:
            prepare(model)
        if not model.compiled:
            model.compile(optimizer=keras.optimizers.SGD(LEARNING_RATE, momentum=0.9), **compiled)
        few = keras.tree.map_structure(lambda array: array[: BATCH * STEPS + 5], self.images)
        history = model.fit(few, batch_size=BATCH, initial_epoch=epochs[0], epochs=epochs[1], verbose=0)
        return TrainedRun(model, history.history, self.state(model))

    def half(self):
        """The first epoch of `trained`, as a run of its own: what a run that is interrupted has done."""
        if self._half is None:
            self._half = self.train(epochs=(0, 1))
        return self._half

    def rounding(self):
        """How far rounding alone moves a run: of the weights and of each log, the largest relative difference that
        initial weights make which are changed by `ROUNDING`.

        Returns:
            A dict of "weights" and the names of the logs to relative differences.
        """
        if self._rounding is None:
            straight, kept = self.trained(), self.initial
            moved = {"weights": [0.0], **{name: [0.0] for name in straight.history}}
            for seed, change in enumerate(ROUNDING):
                noise = np.random.default_rng(seed)
                self.initial = [_rounded(value, change, noise) for value in kept]
                try:
                    run = self.train()
                finally:
                    self.initial = kept
                moved["weights"] += map(relative_difference, run.weights, straight.weights)
                for name, values in straight.history.items():
                    moved[name].append(relative_difference(run.history[name], values))
            self._rounding = {quantity: max(differences) for quantity, differences in moved.items()}
        return self._rounding

    def state(self, model):
        return [ops.convert_to_numpy(variable) for variable in model.weights]

    @contextlib.contextmanager
    def replicas(self, count):
        """Runs what is inside on several replicas of this machine's devices."""
        self.trained()  # the run to compare with is on one device
        scope = distribute.local_replicas(count)
        if scope is None:
            if keras.backend.backend() == "torch":
                raise Skip("torch has one device a process; two_workers of python -m keras_ssl.testing trains on two")
            raise Skip(
                f"this process has fewer than {count} devices of one kind; python -m keras_ssl.testing makes them"
            )
        with scope as strategy:
            yield strategy


def sample_images(model, case):
    """Images of the bundled sample in the size of the model's backbone, in the model's range; and their labels."""
    split = data.load("fashion_mnist_sample").train
    shape = getattr(model.backbone, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise ValueError("The backbone does not say what images it takes: pass `images` to check_method.")
    height, width, channels = (side or default for side, default in zip(shape[1:], (28, 28, 1)))
    images = split.images[:640].astype("float32")
    # Backbones of open size see images as they are.
    if (height, width) != (28, 28):
        images = ops.convert_to_numpy(ops.image.resize(images, (height, width)))
    low, high = model.value_range
    images = low + (high - low) * np.clip(np.repeat(images, channels, axis=-1) / 255.0, 0.0, 1.0)
    case.labels = split.labels[:640]
    return {"image": images.astype("float32"), "label": case.labels} if model.uses_labels else images.astype("float32")


def _rounded(value, change, noise):
    """An array of weights, each changed by about that part of itself; counters and seeds stay."""
    if not _is_float(value):
        return value
    return value * (1.0 + change * noise.normal(size=value.shape)).astype(value.dtype)


def _is_float(array):
    return array.dtype.kind not in "iub"


# How runs are compared. All differences are looked at before one is told: the first may be rounding, and the last not.


def same_run(one, other, what, tolerance=TOLERANCE):
    """Raises `Differs` where two runs have not the same weights and logs."""
    assert set(one.history) == set(other.history), f"{what} log {set(one.history)} and {set(other.history)}"
    logs = [(name, one.history[name], values, f"{name!r} as logged, {what}") for name, values in other.history.items()]
    pairs = _pairs(one.weights, other.weights, f"weights after {2 * STEPS} steps, {what}", "weights")
    _all_close([*pairs, *logs], tolerance)


def same_weights(one, other, what, tolerance=TOLERANCE):
    """Raises `Differs` where two runs have not the same weights."""
    _all_close(_pairs(one, other, what, "weights"), tolerance)


def same_arrays(one, other, what, tolerance=TOLERANCE):
    """Raises `Differs`, which rounding does not excuse, where two lists of arrays are not the same, place by place."""
    _all_close(_pairs(one, other, what, None), tolerance)


def close(a, b, what, tolerance=TOLERANCE):
    """Raises `Differs`, which rounding does not excuse, where two arrays are not the same."""
    _all_close([(None, a, b, what)], tolerance)


def same_values(tensor, array, what):
    """Raises `Differs`, which rounding does not excuse, where a tensor is not an array."""
    close(ops.convert_to_numpy(tensor), array, what)


def relative_difference(a, b):
    """The largest `|a − b| / max(1, |b|)`; infinite where one is not a number."""
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    difference = np.max(np.abs(a - b) / np.maximum(1.0, np.abs(b)), initial=0.0)
    return float(difference) if np.isfinite(difference) else float("inf")


def _pairs(one, other, what, quantity):
    assert len(one) == len(other), f"{what}: {len(one)} and {len(other)} variables"
    pairs = []
    for number, (a, b) in enumerate(zip(one, other)):
        # By place and never by name: a teacher has the names of its student.
        assert a.shape == b.shape, f"{what}: variable {number} has shapes {a.shape} and {b.shape}"
        # No rounding moves a counter.
        of = quantity if _is_float(a) else None
        pairs.append((of, a, b, f"{what}: variable {number} of shape {a.shape}"))
    return pairs


def _all_close(pairs, tolerance):
    found = [(relative_difference(a, b), quantity, what) for quantity, a, b, what in pairs]
    found = [each for each in found if not each[0] <= tolerance]
    if found:
        worst, _, what = max(found, key=lambda each: each[0])
        differences = [(quantity, difference) for difference, quantity, _ in found]
        raise Differs(f"{what} differ by {worst:.3g} (allowed: {tolerance:g})", differences)


def verdict_of(error, rounding):
    """`(verdict, detail)` of what differs.

    "inconclusive" where rounding alone moves a run of this network by more than the tolerance, and each difference is
    of about that size; "failed" otherwise.

    Args:
        error: `Differs`.
        rounding: `MethodUnderTest.rounding` of the method; it is called only where rounding may be the reason.
    """
    if any(quantity is None for quantity, _ in error.differences):
        return "failed", str(error)
    # Of weights and logs together: three runs are too few to know how far rounding moves each. A term of a loss was
    # measured to move by 1.3e-2 among them, and by 4.0e-2 where a step was compiled; the weights by 0.13 and 0.05.
    moved = max(rounding().values())
    measured = f"{error}; rounding alone moves a run of this network by {moved:.3g}"
    rough = np.isfinite(moved) and moved > TOLERANCE
    if rough and all(size <= ROUNDING_FACTOR * moved for _, size in error.differences):
        return "inconclusive", f"{measured}: take a smoother network (GELU for ReLU, less batch normalization)"
    return "failed", measured
