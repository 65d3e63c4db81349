"""The contract: one function per promise, and `check_method`, which runs them."""

import copy
import difflib
import pathlib
import tempfile
import time
import warnings

import keras
import numpy as np
from keras import ops

from keras_ssl import batch_norm
from keras_ssl.evaluate.features import extract_features
from keras_ssl.model import SelfSupervisedModel
from keras_ssl.saving import init_arguments
from keras_ssl.testing.reports import CheckReport, CheckResult
from keras_ssl.testing.runs import (
    BATCH,
    STEPS,
    Differs,
    MethodUnderTest,
    Skip,
    close,
    same_arrays,
    same_run,
    same_values,
    same_weights,
    verdict_of,
)


def check_method(make_model, images=None, only=None, verbose=True):
    """Checks a method against the contract of this library, as far as one process can.

    All checks run, also after one fails. Where two training runs differ that should be one, the rounding of the method
    is measured: its initial weights are changed by a ten-millionth up to a millionth. Where that alone moves the run by
    more than the tolerance, and by about as much as the difference, the verdict is "inconclusive": take a smoother
    network, such as `keras_ssl.testing.tiny_backbone`. An inconclusive check has not passed.

    Args:
        make_model: a function without arguments that makes a new, uncompiled `SelfSupervisedModel`. A small one: it is
            trained some dozen times for a few steps.
        images: what to train on, in any form of arrays that `fit` takes, 640 rows or more; None for images of the
            bundled sample in the backbone's size and the model's value range.
        only: names of checks, keys of `keras_ssl.testing.CHECKS`; None for all.
        verbose: print a line for each check while it runs, with its seconds, and a table at the end.

    Returns:
        A `CheckReport`, which prints as a table.

    Raises:
        AssertionError: if checks fail, with all of them and what differs.

    Warns:
        UserWarning: if checks are inconclusive, with their names. To make that an error:
            `assert not report.inconclusive`.
    """
    check_names(only)
    case = MethodUnderTest(make_model, images)
    report = run_checks(case, only, print_line if verbose else None)
    if verbose:
        print_line(str(report))
    if report.inconclusive:
        warnings.warn(
            f"{report.method} on {report.backend}: {len(report.inconclusive)} checks are inconclusive, which is not "
            "passed:\n" + _lines(report.inconclusive),
            stacklevel=2,
        )
    if report.failed:
        first = next(result.error for result in report.results if result.verdict == "failed")
        message = f"{report.method} on {report.backend} fails {len(report.failed)} checks:\n" + _lines(report.failed)
        raise AssertionError(message) from first
    return report


def _lines(found):
    return "\n".join(f"  {check}: {detail}" for check, detail in found.items())


def check_names(only, known=None):
    """Raises a `ValueError` that says what is meant, where `only` has a name that no check has."""
    known = CHECKS if known is None else known
    if isinstance(only, str):
        raise ValueError(f"`only` is a list of names of checks; write only=[{only!r}].")
    for name in only or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f'Did you mean "{near[0]}"?' if near else f"There are: {', '.join(known)}."
            raise ValueError(f'`only`: there is no check "{name}". {hint}')


def run_checks(case, only=None, echo=None):
    """A `CheckReport` of a `MethodUnderTest`; `echo` is given a line for each check when it is done."""
    report = CheckReport(type(case.model()).__name__)
    for name, check in CHECKS.items():
        if only is not None and name not in only:
            continue
        result = timed(name, lambda check=check: check(case), case.rounding)
        report.results.append(result)
        if echo:
            echo(f"{report.method} on {report.backend}: {name}: {result}")
    return report


def timed(name, check, rounding):
    """The `CheckResult` of a function.

    Args:
        name: of the check.
        check: a function without arguments, which raises what it finds.
        rounding: a function without arguments, which measures how far rounding moves a run of the method. It is only
            called where two runs differ.
    """
    start = time.monotonic()
    try:
        check()
        verdict, detail, error = "passed", "", None
    except Skip as reason:
        verdict, detail, error = "skipped", str(reason), None
    except Differs as differs:
        (verdict, detail), error = verdict_of(differs, rounding), differs
    except AssertionError as assertion:
        verdict, detail, error = "failed", str(assertion), assertion
    except Exception as exception:
        # A method that can't do what is asked of it fails this check, and the others are still of interest.
        verdict, detail, error = "failed", f"{type(exception).__name__}: {exception}", exception
    return CheckResult(name, verdict, detail, time.monotonic() - start, error)


def print_line(line):
    """Prints at once, also into a pipe."""
    print(line, flush=True)


# The contract, one function per promise.


def arguments_are_attributes(case):
    """Every argument of __init__ is kept under its name: that is what is saved, and made from what is saved."""
    model = case.model()
    names = init_arguments(type(model), SelfSupervisedModel)
    for name in names:
        assert hasattr(model, name), f"argument {name!r} is not kept as an attribute"
    config = model.get_config()
    for name in config:
        assert hasattr(model, name), f"argument {name!r} is not kept as an attribute"
    given = copy.deepcopy(config)

    def saved(model):
        return {name: _without_shapes(keras.saving.serialize_keras_object(getattr(model, name))) for name in names}

    for made in ("from_config(get_config())", "from_config with the same config again", "clone_model"):
        twin = keras.models.clone_model(model) if made == "clone_model" else type(model).from_config(config)
        assert config == given, "from_config changes the dict that it is given"
        before, after = saved(model), saved(twin)
        lost = [name for name in names if before[name] != after[name]]
        assert not lost, f"{made} loses arguments: {', '.join(lost)}"


def _without_shapes(config):
    """A config without what layers know only when they are built: a copy has the arguments, and no weights yet."""
    if isinstance(config, dict):
        return {key: _without_shapes(value) for key, value in config.items() if key != "build_config"}
    return [_without_shapes(part) for part in config] if isinstance(config, (list, tuple)) else config


def features_are_the_backbones(case):
    """Outside of fit and evaluate the model is its backbone."""
    model = case.trained().model
    images = case.some_images(8)
    expected = ops.convert_to_numpy(model.backbone(ops.cast(images, "float32"), training=False))
    same_values(model(images, training=False), expected, "model(images) and backbone(images)")
    same_values(model.predict(images, verbose=0), expected, "model.predict(images) and backbone(images)")
    trained = model(images, training=True)
    assert tuple(trained.shape) == expected.shape, "model(images, training=True) is not the features"


def loss_is_the_sum_of_its_terms(case):
    """The loss is the sum of the terms (and of regularizers); all terms and metrics are logged."""
    run = case.trained()
    for name in (*run.model.terms, *run.model.metric_names):
        assert name in run.history, f"{name!r} is not logged"
    total = sum(np.array(run.history[name]) for name in run.model.terms)
    if not run.model.losses:
        close(run.history["loss"], total, "the loss and the sum of its terms")


def same_seed_same_run(case):
    """The same weights and the same seed give the same run."""
    same_run(case.train(), case.trained(), "two runs", tolerance=1e-6)


def step_counts_batches(case):
    """The model's one counter moves once a batch."""
    assert int(ops.convert_to_numpy(case.trained().model.step)) == STEPS * 2


def evaluation_repeats(case):
    """evaluate() draws the same views each time, and changes nothing."""
    model = case.trained().model
    before = case.state(model)
    first = model.evaluate(case.images, batch_size=BATCH, verbose=0, return_dict=True)
    second = model.evaluate(case.images, batch_size=BATCH, verbose=0, return_dict=True)
    assert first == second, (
        f"two evaluations differ: {first} and {second}. `embed` or `objective` draws random numbers of its own, or "
        "changes something: draw with self.rng(purpose), and change variables in after_optimizer_step alone"
    )
    same_arrays(case.state(model), before, "the weights before and after evaluate()")


def steps_per_execution(case):
    """Several steps in one compiled call are the same steps."""
    if keras.backend.backend() == "torch":
        raise Skip("Keras has no steps_per_execution on torch")
    same_run(case.train(steps_per_execution=STEPS), case.trained(), f"steps_per_execution={STEPS} and 1")


def jit_compiled(case):
    """Compiled and uncompiled steps are the same steps."""
    if keras.backend.backend() == "torch":
        raise Skip("torch.compile takes minutes; the slow tests run it")
    model = case.model()
    if model.views is not None and model.views.uncompilable:
        raise Skip(f"XLA can't compile these layers of the views: {', '.join(model.views.uncompilable)}")
    usual = bool(case.trained().model.jit_compile)
    same_run(case.train(jit_compile=not usual), case.trained(), f"jit_compile={not usual} and {usual}")


def two_replicas(case):
    """Two replicas with half of the batch each are one device with all of it."""
    _replicas(case, 2)


def four_replicas(case):
    """Four replicas with a quarter of the batch each are one device with all of it."""
    _replicas(case, 4)


def _replicas(case, count):
    with case.replicas(count) as strategy:
        other = case.train()
    same_run(other, case.trained(), f"{count} replicas ({strategy}) and one device")


def micro_batches(case):
    """A batch that goes through the network in parts gives the step of the whole batch.

    Where there is batch normalization, that of the whole batch normalized in ghost batches of the same size.
    """
    size = BATCH // 4
    whole = case.trained()
    if batch_norm.batch_norm_layers(whole.model):
        whole = case.train(prepare=lambda model: batch_norm.use_ghost_batches(model, images=size))
    same_run(case.train(micro_batch_size=size), whole, f"micro_batch_size={size} and the whole batch")


def accumulation_refused(case):
    """A mean of small batches is never taken for the large one: it is refused, or it is the same."""
    model = case.model()
    if not model.batch_dependent:
        return _rows_do_not_meet(case)
    try:
        model.compile(optimizer=keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    except ValueError as error:
        assert "gradient_accumulation_steps" in str(error)
    else:
        raise AssertionError("gradient_accumulation_steps=2 is accepted, though rows of a batch are compared")


# Of the loss: four sums of a batch in float32 round by less. Measured: 3e-7 of methods whose rows don't meet; from 1e-6
# (SwAV, LeJEPA) to 0.2 of those whose rows do.
_ROUNDED_SUMS = 1e-6


def _rows_do_not_meet(case):
    """Of a mean over rows, what one half of a batch adds does not depend on what the other half is."""
    model = case.trained().model
    halves = [
        keras.tree.map_structure(lambda array, at=at: array[at : at + BATCH // 2], case.images)
        for at in range(0, 8 * (BATCH // 2), BATCH // 2)
    ]

    def loss(first, second):
        batch = keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), halves[first], halves[second])
        return model.evaluate(batch, batch_size=BATCH, verbose=0, return_dict=True)["loss"]

    for a, b, c, d in ((0, 1, 2, 3), (4, 5, 6, 7), (0, 3, 5, 6)):
        before = loss(a, b)
        one, other = before - loss(c, b), loss(a, d) - loss(c, d)
        assert abs(one - other) <= _ROUNDED_SUMS * max(1.0, abs(before)), (
            f"batch_dependent is False, and rows meet: other images in the first half of a batch change the loss by "
            f"{one:.6g} or by {other:.6g}, as the second half is. Set batch_dependent = True"
        )


def saves_and_goes_on(case):
    """Saved in the middle and loaded, a run ends as if it had not been interrupted."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        half = case.half()
        half.model.save(path)
        loaded = keras.models.load_model(path)
        same_arrays(case.state(loaded), case.state(half.model), "the weights saved and loaded")
    resumed = case.train(loaded, epochs=(1, 2))
    same_weights(resumed.weights, case.trained().weights, "the weights of an interrupted run and of a straight one")


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
            # A pretext task begins by giving up what neighbors see for what it asks: measured, up to 19
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
