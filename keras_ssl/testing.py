"""`check_method`: the contract that every method passes, ours and yours, as scikit-learn's `check_estimator`.

```python
def make_model():
    backbone = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Conv2D(8, 3, 2), keras.layers.ReLU()])
    return MyMethod(backbone)

print(keras_ssl.testing.check_method(make_model))
```

One process has one backend and the devices it began with. `python -m keras_ssl.testing package.module:make_model`
checks the rest in processes of their own: each backend, several devices, several processes that train together, and a
model loaded where it was not made. It takes several methods, and starts its processes once for all of them.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np
from keras import ops

from keras_ssl import batch_norm, data, distribute, workers
from keras_ssl.evaluate import knn
from keras_ssl.evaluate.features import extract_features

# What float32 leaves between two ways to compute the same training run of a few steps.
TOLERANCE = 1e-5
# Small, so that a tiny network in its first steps is no amplifier of that: at 0.05 a ReLU network with batch
# normalisation made 1 out of 1e-7, at 0.003 networks of many kinds stayed below 1e-6.
LEARNING_RATE = 0.003
BATCH = 32
STEPS = 5  # a pass; two passes make the ten steps of which this library promises equality
BACKENDS = ("tensorflow", "jax", "torch")


class Skip(Exception):
    """Raised by a check that this process can't do."""


@dataclasses.dataclass
class Outcome:
    """What `check_method` found."""

    method: str
    passed: list = dataclasses.field(default_factory=list)
    skipped: dict = dataclasses.field(default_factory=dict)

    def __str__(self):
        lines = [f"{self.method} on {keras.backend.backend()}: {len(self.passed)} checks passed"]
        lines += [f"  passed: {name}" for name in self.passed]
        lines += [f"  not checked here: {name}: {reason}" for name, reason in self.skipped.items()]
        return "\n".join(lines)


def check_method(make_model, images=None, only=None):
    """Checks a method against the contract of this library, as far as one process can.

    Args:
        make_model: a function without arguments that makes a new, uncompiled `SelfSupervisedModel`. A small one: it is
            trained some dozen times for a few steps.
        images: what to train on, in any form of arrays that `fit` takes, 640 rows or more; None for images of the
            bundled sample in the backbone's size and the model's value range.
        only: names of checks; None for all.

    Returns:
        An `Outcome`, which prints as a list.

    Raises:
        AssertionError: with the name of the check and what differs.
    """
    case = _Case(make_model, images)
    outcome = Outcome(type(case.model()).__name__)
    for name, check in CHECKS.items():
        if only is not None and name not in only:
            continue
        try:
            check(case)
        except Skip as reason:
            outcome.skipped[name] = str(reason)
        except AssertionError as error:
            where = f"{outcome.method} on {keras.backend.backend()}"
            raise AssertionError(f"{where} fails '{name}': {error}{case.sensitivity(error)}") from error
        else:
            outcome.passed.append(name)
    return outcome


# The contract, one function a promise.


def arguments_are_attributes(case):
    """Every argument of __init__ is kept under its name: that is what is saved."""
    model = case.model()
    for name in model.get_config():
        assert hasattr(model, name), f"argument {name!r} is not kept as an attribute"


def features_are_the_backbones(case):
    """Outside of fit and evaluate the model is its backbone."""
    model = case.trained().model
    images = case.some_images(8)
    expected = ops.convert_to_numpy(model.backbone(ops.cast(images, "float32"), training=False))
    _same(model(images, training=False), expected, "model(images) and backbone(images)")
    _same(model.predict(images, verbose=0), expected, "model.predict(images) and backbone(images)")
    trained = model(images, training=True)
    assert tuple(trained.shape) == expected.shape, "model(images, training=True) is not the features"


def loss_is_the_sum_of_its_terms(case):
    """The loss is the sum of the terms (and of regularisers); all terms and figures are logged."""
    run = case.trained()
    for name in (*run.model.terms, *run.model.metric_names):
        assert name in run.history, f"{name!r} is not logged"
    total = sum(np.array(run.history[name]) for name in run.model.terms)
    if not run.model.losses:
        _close(run.history["loss"], total, "the loss and the sum of its terms")


def same_seed_same_run(case):
    """The same weights and the same seed give the same run."""
    _same_run(case.train(), case.trained(), "two runs", tolerance=1e-6)


def step_counts_batches(case):
    """The model's one counter moves once a batch."""
    assert int(ops.convert_to_numpy(case.trained().model.step)) == STEPS * 2


def evaluation_repeats(case):
    """evaluate() draws the same views each time, and changes nothing."""
    model = case.trained().model
    before = case.state(model)
    first = model.evaluate(case.images, batch_size=BATCH, verbose=0, return_dict=True)
    second = model.evaluate(case.images, batch_size=BATCH, verbose=0, return_dict=True)
    assert first == second, f"two evaluations differ: {first} and {second}"
    _same_arrays(case.state(model), before, "the weights before and after evaluate()")


def steps_per_execution(case):
    """Several steps in one compiled call are the same steps."""
    if keras.backend.backend() == "torch":
        raise Skip("Keras has no steps_per_execution on torch")
    _same_run(case.train(steps_per_execution=STEPS), case.trained(), f"steps_per_execution={STEPS} and 1")


def jit_compiled(case):
    """Compiled and uncompiled steps are the same steps."""
    if keras.backend.backend() == "torch":
        raise Skip("torch.compile takes minutes; the slow tests run it")
    model = case.model()
    if model.views is not None and model.views.uncompilable:
        raise Skip(f"XLA can't compile these layers of the views: {', '.join(model.views.uncompilable)}")
    usual = bool(case.trained().model.jit_compile)
    _same_run(case.train(jit_compile=not usual), case.trained(), f"jit_compile={not usual} and {usual}")


def two_replicas(case):
    """Two replicas with half of the batch each are one device with all of it."""
    _replicas(case, 2)


def four_replicas(case):
    """Four replicas with a quarter of the batch each are one device with all of it."""
    _replicas(case, 4)


def _replicas(case, count):
    with case.replicas(count) as strategy:
        other = case.train()
    _same_run(other, case.trained(), f"{count} replicas ({strategy}) and one device")


def micro_batches(case):
    """A batch that goes through the network in parts gives the step of the whole batch.

    Where there is batch normalisation, that of the whole batch normalised in ghost batches of the same size.
    """
    size = BATCH // 4
    whole = case.trained()
    if batch_norm.batch_norm_layers(whole.model):
        # Methods that run their views in one pass have all of an image's views in a ghost batch.
        views = len(whole.model.views.branches) if getattr(whole.model, "one_pass", False) else 1
        whole = case.train(prepare=lambda model: batch_norm.use_ghost_batches(model, size * views))
    _same_run(case.train(micro_batch_size=size), whole, f"micro_batch_size={size} and the whole batch")


def accumulation_refused(case):
    """A mean of small batches is never taken for the large one."""
    model = case.model()
    if not model.batch_dependent:
        raise Skip("rows of a batch don't meet in this method")
    try:
        model.compile(optimizer=keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    except ValueError as error:
        assert "gradient_accumulation_steps" in str(error)
    else:
        raise AssertionError("gradient_accumulation_steps=2 is accepted, though rows of a batch are compared")


def saves_and_goes_on(case):
    """Saved in the middle and loaded, a run ends as if it had not been interrupted."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        half = case.train(epochs=(0, 1))
        half.model.save(path)
        loaded = keras.models.load_model(path)
        _same_arrays(case.state(loaded), case.state(half.model), "the weights saved and loaded")
    resumed = case.train(loaded, epochs=(1, 2))
    _same_arrays(resumed.weights, case.trained().weights, "the weights of an interrupted run and of a straight one")


def learns(case):
    """A few dozen steps on real images lower the loss on images not trained on, and collapse nothing."""
    model = case.model()
    model.compile(optimizer=keras.optimizers.Adam(0.0))
    rows = len(keras.tree.flatten(case.images)[0])
    held = keras.tree.map_structure(lambda array: array[rows // 2 :], case.images)
    train = keras.tree.map_structure(lambda array: array[: rows // 2], case.images)
    if model.uses_index:  # whose loss is of the images that were trained on
        held = train
    # First an epoch at a rate of zero: with a queue of negatives, the loss is larger once that is full.
    model.fit(train, batch_size=64, verbose=0)
    model.optimizer.learning_rate = 2e-3
    before = model.evaluate(held, batch_size=64, verbose=0, return_dict=True)["loss"]
    untrained = case.accuracy(model)
    model.fit(train, batch_size=64, epochs=10, verbose=0)
    after = model.evaluate(held, batch_size=64, verbose=0, return_dict=True)["loss"]
    assert np.isfinite(after), f"the loss is {after}"
    assert after < before, f"the loss on held-out images is {before:.4f} before training and {after:.4f} after"
    features = extract_features(model, case.some_images(256))
    features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    spread = float(features.std(axis=0).mean() * np.sqrt(features.shape[1]))
    assert spread > 0.05, f"the features of all images are nearly one direction: spread {spread:.3f} of at most 1"
    if untrained is not None:
        trained = case.accuracy(model)
        if model.batch_dependent or model.frozen_layers():
            # 640 images and 50 steps are too few to ask for more than this: noise of the probe is two points.
            least = untrained - 0.05
        else:
            # A task that labels itself begins by giving up what neighbours see for what it asks: measured, up to 19
            # points in these 50 steps. It must not give up half of what is above chance.
            chance = 1.0 / len(np.unique(case.labels))
            least = (untrained + chance) / 2.0
        assert trained > least, f"kNN accuracy falls from {untrained:.3f} to {trained:.3f} by training"


CHECKS = {
    check.__name__: check
    for check in (
        arguments_are_attributes,
        features_are_the_backbones,
        loss_is_the_sum_of_its_terms,
        same_seed_same_run,
        step_counts_batches,
        evaluation_repeats,
        steps_per_execution,
        jit_compiled,
        two_replicas,
        four_replicas,
        micro_batches,
        accumulation_refused,
        saves_and_goes_on,
        learns,
    )
}


# How a run is made and compared.


@dataclasses.dataclass
class Run:
    """A finished training run."""

    model: object
    history: dict
    weights: list


class _Case:
    """A method under check: its data, its initial weights, and runs that all start from them."""

    def __init__(self, make_model, images=None, initial=None):
        self.make_model = make_model
        keras.utils.set_random_seed(0)  # a contract must not hold on some days only
        first = make_model()
        if not getattr(first, "compile", None) or first.compiled:
            raise ValueError("`make_model` must make a SelfSupervisedModel that is not compiled.")
        self.labels = None
        self.images = _sample(first, self) if images is None else images
        self.initial = initial
        self._trained = None

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
        if self._trained is None:
            self._trained = self.train()
        return self._trained

    def train(self, model=None, epochs=(0, 2), prepare=None, **compiled):
        """Two passes of training; of a new model, or of a model that may be compiled already."""
        model = self.model() if model is None else model
        if prepare is not None:
            prepare(model)
        if not model.compiled:
            model.compile(optimizer=keras.optimizers.SGD(LEARNING_RATE, momentum=0.9), **compiled)
        few = keras.tree.map_structure(lambda array: array[: BATCH * STEPS + 5], self.images)
        history = model.fit(few, batch_size=BATCH, initial_epoch=epochs[0], epochs=epochs[1], verbose=0)
        return Run(model, history.history, self.state(model))

    def sensitivity(self, error):
        """For runs that differ: how far rounding alone moves this method, which tells a fault from a rough network."""
        if not isinstance(error, Differs):
            return ""
        straight, noise = self.train().weights, np.random.default_rng(0)
        kept = self.initial
        self.initial = [
            value * (1.0 + 1e-7 * noise.normal(size=value.shape)).astype(value.dtype)
            if value.dtype.kind == "f"
            else value
            for value in kept
        ]
        moved = self.train().weights
        self.initial = kept
        difference = max(float(np.max(np.abs(a - b), initial=0.0)) for a, b in zip(straight, moved))
        return (
            f"\nFor comparison: initial weights changed by a ten-millionth, which is rounding, change the run by "
            f"{difference:.3g}. Where that is more than {TOLERANCE:g}, check a smoother network (GELU for ReLU, less "
            "batch normalisation); else the method is at fault."
        )

    def state(self, model):
        return [ops.convert_to_numpy(variable) for variable in model.weights]

    @contextlib.contextmanager
    def replicas(self, count):
        """Runs what is inside on several replicas of this machine's devices."""
        self.trained()  # the run to compare with is on one device
        scope = distribute.local_replicas(count)
        if scope is None:
            raise Skip(
                f"this process has fewer than {count} devices of one kind, or its backend runs on one; "
                "python -m keras_ssl.testing makes them"
            )
        with scope as strategy:
            yield strategy


def _sample(model, case):
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


class Differs(AssertionError):
    """Two runs that must be one are not."""


def _same_run(one, other, what, tolerance=TOLERANCE):
    _same_arrays(one.weights, other.weights, f"weights after {2 * STEPS} steps, {what}", tolerance)
    assert set(one.history) == set(other.history), f"{what} log {set(one.history)} and {set(other.history)}"
    for name, values in other.history.items():
        _close(one.history[name], values, f"{name!r} as logged, {what}", tolerance)


def _same_arrays(one, other, what, tolerance=TOLERANCE):
    assert len(one) == len(other), f"{what}: {len(one)} and {len(other)} variables"
    for number, (a, b) in enumerate(zip(one, other)):
        # By place and never by name: a teacher has the names of its student.
        assert a.shape == b.shape, f"{what}: variable {number} has shapes {a.shape} and {b.shape}"
        _close(a, b, f"{what}: variable {number} of shape {a.shape}", tolerance)


def _same(tensor, array, what):
    _close(ops.convert_to_numpy(tensor), array, what)


def _close(a, b, what, tolerance=TOLERANCE):
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    difference = np.max(np.abs(a - b) / np.maximum(1.0, np.abs(b)), initial=0.0)
    if not difference <= tolerance:
        raise Differs(f"{what} differ by {difference:.3g} (allowed: {tolerance:g})")


# Several processes.


def check_everywhere(specs, backends=BACKENDS, echo=print):
    """Checks methods on each backend, in processes of their own, and the backends against each other.

    Args:
        specs: `"package.module:make_model"`, or a list of them: a process is started once for all of them.
        backends: which.
        echo: is given what the processes say.

    Raises:
        AssertionError: if any process fails, or a backend's run differs from the first one's.
    """
    specs = [specs] if isinstance(specs, str) else list(specs)
    with tempfile.TemporaryDirectory() as folder:
        folders = [pathlib.Path(folder) / str(number) for number in range(len(specs))]
        for each in folders:
            each.mkdir()
        for backend in backends:
            echo(f"{backend}: all checks of one process, with 4 devices")
            _child(specs, backend, folders, "checks", echo)
            _child(specs, backend, folders, "save", echo)
            if backend in workers.BACKENDS:
                workers.check_workers(specs, backend, folders, echo)
            echo(f"{backend}: saved models, loaded where they were not made")
            _child(specs, backend, folders, "load", echo)
        first = backends[0]
        for backend in backends[1:]:
            for spec, each in zip(specs, folders):
                one, other = (workers.arrays_of(each / f"{name}.npz") for name in (backend, first))
                _same_arrays(one, other, f"{spec}: a run of {2 * STEPS} steps on {backend} and on {first}")
            echo(f"{backend}: the runs of {first}, random views included, to {TOLERANCE:g}")


def _child(specs, backend, folders, role, echo):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    environment = {**os.environ, "KERAS_BACKEND": backend, "XLA_FLAGS": flags.strip(), "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = os.pathsep.join([os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "keras_ssl.testing", *specs, "--role", role, "--folders", *map(str, folders)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{backend}, {role}:\n{done.stdout}\n{done.stderr[-4000:]}")
    if done.stdout.strip():
        echo(done.stdout.strip())


def _run_role(role, make_model, folder):
    """What one child process does for one method."""
    folder = pathlib.Path(folder)
    backend = keras.backend.backend()
    if role == "checks":
        print(check_method(make_model))
        return
    shared = folder / "initial.npz"
    case = _Case(make_model)
    if role == "save":
        if shared.exists():  # the first backend's initial weights are everybody's
            with np.load(shared) as file:
                case.initial = [file[name] for name in file.files]
        run = case.trained()
        if not shared.exists():
            np.savez(shared, *case.initial)
        np.savez(
            folder / f"{backend}.npz", *run.weights, *(np.array(run.history[name]) for name in sorted(run.history))
        )
        half = case.train(epochs=(0, 1))
        half.model.save(folder / f"{backend}.keras")
        return
    resumed = case.train(keras.models.load_model(folder / f"{backend}.keras"), epochs=(1, 2))
    with np.load(folder / f"{backend}.npz") as file:
        straight = [file[name] for name in file.files][: len(resumed.weights)]
    _same_arrays(resumed.weights, straight, "a run saved, loaded in another process and continued, and a straight one")


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m keras_ssl.testing",
        description="Checks a method on each backend, in processes of their own.",
    )
    parser.add_argument(
        "specs",
        nargs="+",
        metavar="spec",
        help="package.module:make_model, a function that makes a new, uncompiled model",
    )
    parser.add_argument("--backends", default=",".join(BACKENDS), help="which backends, separated by commas")
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("--folders", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.role:
        if options.role == "checks":
            distribute.split_cpu(4)
        for spec, folder in zip(options.specs, options.folders):
            _run_role(options.role, workers.imported(spec), folder)
            keras.utils.clear_session()
        return 0
    try:
        check_everywhere(options.specs, tuple(options.backends.split(",")))
    except AssertionError as error:
        print(error, file=sys.stderr)
        return 1
    print("all checks passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
