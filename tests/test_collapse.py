"""The monitor: what it measures, when it rings, and that it keeps silent."""

import math
import warnings

import keras
import numpy as np
import pytest
from conftest import tiny_backbone
from methods_under_test import light_views

import keras_ssl
from keras_ssl import evaluate
from keras_ssl.callbacks import Collapse, CollapseMonitor


def identity_views():
    return keras_ssl.augment.Views([], [])


def simclr(backbone=None, **options):
    keras.utils.set_random_seed(0)
    model = keras_ssl.SimCLR(backbone or tiny_backbone(), **{"views": light_views(), **options})
    model.compile(keras.optimizers.Adam(1e-3))
    return model


def fit(model, images, monitor, epochs=2):
    return model.fit(images, batch_size=16, epochs=epochs, callbacks=[monitor], verbose=0).history


# What it measures.


def test_the_figures_are_those_of_evaluate(images):
    model = simclr(views=identity_views())
    monitor = CollapseMonitor(images, most=64)
    logs = {name: values[-1] for name, values in fit(model, images, monitor, epochs=1).items()}
    features = evaluate.extract_features(model, images)
    embedding = keras.ops.convert_to_numpy(model.project(images.astype("float32"), training=False))
    assert logs["feature_spread"] == pytest.approx(evaluate.spread(features), rel=1e-4)
    assert logs["rank_me"] == pytest.approx(evaluate.rank_me(features), rel=1e-3)
    assert logs["alpha_req"] == pytest.approx(evaluate.alpha_req(features), rel=1e-2)
    assert logs["embedding_spread"] == pytest.approx(evaluate.spread(embedding), rel=1e-4)
    assert logs["uniformity"] == pytest.approx(evaluate.uniformity(embedding), rel=1e-3)
    assert logs["alignment"] == pytest.approx(0.0, abs=1e-8), "views that change nothing are one"


def test_its_views_are_the_same_at_every_measurement(images):
    model = simclr(projector=keras.layers.Identity())
    model.compile(keras.optimizers.SGD(0.0))
    history = fit(model, images, CollapseMonitor(images), epochs=2)
    assert history["alignment"][0] > 1e-3
    assert history["alignment"][0] == pytest.approx(history["alignment"][1], rel=1e-5)


def test_a_measure_chooses_the_checkpoint(images, tmp_path):
    """Without a label: what EarlyStopping and ModelCheckpoint need is in the logs before they look."""
    kept = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="rank_me", mode="max", save_best_only=True)
    model = simclr()
    model.fit(images, batch_size=16, epochs=1, callbacks=[CollapseMonitor(images), kept], verbose=0)
    assert (tmp_path / "best.keras").exists()


def test_it_looks_between_batches_of_long_epochs(images):
    monitor = CollapseMonitor(images, every=None, every_steps=3, most=16)
    fit(simclr(), images, monitor, epochs=2)
    assert [step for step, _ in monitor.values] == [3, 6, 8], "and at the end"


def test_it_may_look_at_the_end_alone(images):
    monitor = CollapseMonitor(images, every=None, most=16)
    history = fit(simclr(), images, monitor, epochs=2)
    assert [step for step, _ in monitor.values] == [8]
    assert len(history["rank_me"]) == 1


# The alarm.


class Constant(keras.layers.Layer):
    """Whatever comes in, one value comes out; with a weight, so that something is trained."""

    def build(self, shape):
        self.bias = self.add_weight(shape=(8,), initializer="ones")

    def call(self, images):
        return keras.ops.zeros_like(images[:, 0, 0, :1]) + self.bias


def constant_backbone():
    return keras.Sequential([keras.Input((28, 28, 1)), Constant()])


def no_learning(model):
    model.compile(keras.optimizers.SGD(0.0))
    return model


RINGS = {
    "an encoder of constant output": (lambda: simclr(constant_backbone()), "have nearly the same"),
    "a temperature that hides all": (lambda: simclr(temperature=100.0), f"{math.log(31):.4f} is where it stays"),
    "a triplet loss at its margin": (
        lambda: no_learning(
            keras_ssl.Triplet(constant_backbone(), light_views(), projector=keras.layers.Identity(), margin=0.3)
        ),
        "the loss is the margin",
    ),
}


@pytest.mark.parametrize("case", RINGS)
def test_it_rings_where_nothing_is_learned(case, images):
    make, words = RINGS[case]
    model, monitor = make(), CollapseMonitor(images, patience=4)
    with pytest.warns(UserWarning, match="usually help") as caught:
        fit(model, images, monitor, epochs=3)
    said = [str(warning.message) for warning in caught]
    assert any(words in sentence for sentence in monitor.alarms)
    assert all(sentence in said and model.collapse_advice in sentence for sentence in monitor.alarms)
    assert len(set(monitor.alarms)) == len(monitor.alarms), "once each"


def test_regularisers_do_not_hide_a_trivial_loss(images):
    """What layers add to the loss is no part of the method's."""
    shape = {"kernel_regularizer": "l2"}
    monitor = CollapseMonitor(images, patience=4)
    with pytest.warns(UserWarning, match="is where it stays"):
        fit(no_learning(simclr(tiny_backbone(**shape), temperature=1e3)), images, monitor, epochs=3)


def test_probes_between_batches_see_the_weights_of_then(images):
    """Two looks and more in an epoch: on JAX the state lies in the step meanwhile."""
    bank = images, np.arange(64) % 4
    probe = keras_ssl.callbacks.KNNProbe(bank, bank, every=None, every_steps=2, k=3)
    fit(simclr(), images, probe, epochs=1)
    assert [step for step, _ in probe.values] == [2, 4]


def test_it_ends_the_run_when_asked(images):
    monitor = CollapseMonitor(images, patience=4, on_alarm="raise")
    with pytest.raises(Collapse, match="SimCLR: "):
        fit(simclr(constant_backbone()), images, monitor, epochs=9)
    assert len(monitor.values) < 4, "soon"


def test_it_waits_for_as_many_batches_as_told(images):
    """Many a run begins at a trivial solution."""
    monitor = CollapseMonitor(images, patience=100)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(simclr(constant_backbone()), images, monitor, epochs=2)
    assert monitor.alarms == []


def test_it_is_silent_where_something_is_learned(images):
    monitor = CollapseMonitor(images, patience=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(simclr(temperature=0.1), images, monitor, epochs=4)
    assert monitor.alarms == []


# Refusals.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"most": 1}, "most"),
        ({"on_alarm": "ring"}, "on_alarm"),
        ({"patience": -1}, "patience"),
        ({"every": 0}, "every"),
        ({"images": None}, "images"),
        ({"images": np.zeros((1, 28, 28, 1))}, "2 images or more"),
    ],
)
def test_a_senseless_monitor_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        CollapseMonitor(**{"images": np.zeros((8, 28, 28, 1), "uint8"), **options})
