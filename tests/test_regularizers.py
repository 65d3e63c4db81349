"""KoLeo, and regularizers beside the terms of any method."""

import importlib

import keras
import numpy as np
import pytest
from conftest import tiny_backbone, value_and_gradients
from keras import ops
from methods_under_test import head, light_views, tiny_vit

import keras_ssl
from keras_ssl import augment, losses, regularizers

nt_xent = importlib.import_module("keras_ssl.losses.nt_xent")  # the function has the module's name


def rows(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def array(tensor):
    return ops.convert_to_numpy(tensor)


# The loss. Its value and gradient are Lightly's: test_oracles.py.


def test_rows_of_one_replica_have_the_neighbors_of_all_by_chunks_too(monkeypatch):
    x = rows(12, 5)
    whole = array(losses.koleo(x))
    for start in (0, 6):
        np.testing.assert_allclose(array(losses.koleo(x[start : start + 6], x, start)), whole[start : start + 6], 1e-5)
    monkeypatch.setattr(nt_xent, "_FULL_MATRIX", 0)
    monkeypatch.setattr(nt_xent, "_CHUNK", 5)
    value, (gradient,) = value_and_gradients(lambda x: ops.mean(losses.koleo(x)), x)
    monkeypatch.undo()
    same, (expected,) = value_and_gradients(lambda x: ops.mean(losses.koleo(x)), x)
    assert value == pytest.approx(same, rel=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)


def test_views_side_by_side_are_as_each_view_alone():
    x = rows(6, 3, 4)
    x[:, 1] = x[:, 0] + 1e-3  # a neighbor that does not count
    together = array(losses.koleo(x.reshape(18, 4), views=3)).reshape(6, 3)
    for view in range(3):
        np.testing.assert_allclose(together[:, view], array(losses.koleo(x[:, view])), rtol=1e-5)


def test_equal_rows_have_a_finite_loss_and_no_gradient():
    value, (gradient,) = value_and_gradients(lambda x: ops.mean(losses.koleo(x)), np.ones((4, 3), "float32"))
    assert value == pytest.approx(-np.log(1e-8), rel=1e-5)
    np.testing.assert_array_equal(gradient, 0.0)


def test_one_row_is_refused():
    with pytest.raises(ValueError, match="koleo: one row has no neighbor"):
        losses.koleo(rows(1, 3))


# Beside a method's own terms. Replicas, micro-batches and files: "SimCLR with KoLeo" in methods_under_test.py.


@keras.saving.register_keras_serializable("tests")
class Length:
    """The mean square of the features: a scalar of all replicas."""

    name = "length"

    def __call__(self, features):
        return ops.mean(ops.square(keras_ssl.distribute.gather(features)))

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls()


FLIP = [augment.RandomHorizontalFlip(0.0)]
CASES = {
    "one view after the other": lambda **more: keras_ssl.VICReg(tiny_backbone(), light_views(), head(8), **more),
    "in one pass": lambda **more: keras_ssl.SimCLR(tiny_backbone(), light_views(), head(8), **more),
    "with a teacher": lambda **more: keras_ssl.MoCo(tiny_backbone(), light_views(), head(8), memory=32, **more),
    "of a student": lambda **more: keras_ssl.Distill(
        tiny_backbone(), tiny_backbone(), augment.Views(FLIP), memory=32, **more
    ),
    "of pretext tasks": lambda **more: keras_ssl.Rotation(tiny_backbone(), augment.Views(FLIP), **more),
}


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, marks=() if name == "in one pass" else pytest.mark.slow, id=name)
        for name, make in CASES.items()
    ],
)
def test_any_method_logs_its_regularizers_under_their_names_and_adds_them(make, images):
    given = [regularizers.KoLeo(0.2), Length()]
    model = make(regularizers=given)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=keras.backend.backend() == "torch")
    own = set(type(model).terms)
    logs = model.evaluate(images[:16], batch_size=16, verbose=0, return_dict=True)
    assert set(model.terms) == own | {"koleo", "length"}
    assert logs["loss"] == pytest.approx(sum(logs[name] for name in model.terms), rel=1e-5)
    plain = make()
    plain.compile(keras.optimizers.SGD(0.0))
    plain.build((None, 28, 28, 1))
    plain.set_weights(model.get_weights())
    logs_of_plain = plain.evaluate(images[:16], batch_size=16, verbose=0, return_dict=True)
    for name in own:
        assert logs[name] == pytest.approx(logs_of_plain[name], rel=1e-5)


def test_koleo_is_the_mean_over_views_of_the_loss_of_the_features(images):
    still = augment.Views(FLIP, FLIP)
    model = keras_ssl.SimCLR(tiny_backbone(), still, head(8), regularizers=regularizers.KoLeo(0.2))
    model.compile("sgd")
    a, b = images[:16], images[16:32]
    logs = model.evaluate({"views": (a, b)}, batch_size=16, verbose=0, return_dict=True)
    features = [model.features(ops.cast(view, "float32")) for view in (a, b)]
    expected = 0.2 * np.mean([array(losses.koleo(part)) for part in features])
    assert logs["koleo"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_koleo_spreads_the_features(images):
    spread = []
    for more in ({}, {"regularizers": regularizers.KoLeo(1.0)}):
        keras.utils.set_random_seed(0)
        model = keras_ssl.VICReg(tiny_backbone(), light_views(), head(8), **more)
        model.compile(keras.optimizers.Adam(1e-3))
        model.fit(images, batch_size=32, epochs=4, verbose=0)
        spread.append(float(ops.mean(losses.koleo(model.features(ops.cast(images, "float32"))))))
    assert spread[1] < spread[0] - 0.1


def test_regularizers_are_saved_with_the_model(images, tmp_path):
    model = keras_ssl.VICReg(
        tiny_backbone(), light_views(), head(8), regularizers=[regularizers.KoLeo(0.3, name="apart"), Length()]
    )
    model.compile("sgd")
    logs = model.evaluate(images[:16], batch_size=16, verbose=0, return_dict=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [(one.name, getattr(one, "weight", None)) for one in loaded.regularizers] == [
        ("apart", 0.3),
        ("length", None),
    ]
    again = loaded.evaluate(images[:16], batch_size=16, verbose=0, return_dict=True)
    assert again == pytest.approx(logs, rel=1e-5)


def test_the_collapse_monitor_judges_the_methods_own_loss():
    from keras_ssl.callbacks import CollapseMonitor

    monitor = CollapseMonitor(np.zeros((4, 28, 28, 1), "uint8"))
    monitor.set_model(keras_ssl.SimCLR(tiny_backbone(), light_views(), head(8), regularizers=regularizers.KoLeo(0.3)))
    assert monitor._loss({"nt_xent": 2.0, "koleo": 0.5, "loss": 2.5}) == 2.0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("koleo", "each of `regularizers`"),
        (lambda features: 0.0, "each of `regularizers`"),
        ([regularizers.KoLeo(), regularizers.KoLeo()], 'second "koleo"'),
        (regularizers.KoLeo(name="nt_xent"), 'second "nt_xent"'),
        (regularizers.KoLeo(name=""), "has a `name`"),
    ],
)
def test_what_could_not_be_logged_or_saved_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        keras_ssl.SimCLR(tiny_backbone(), regularizers=given)


def test_a_weight_out_of_range_is_refused():
    with pytest.raises(ValueError, match="KoLeo: `weight`"):
        regularizers.KoLeo(0.0)


@pytest.mark.parametrize("method", [keras_ssl.MAE, keras_ssl.SimMIM], ids=lambda method: method.__name__)
def test_a_method_that_encodes_no_whole_view_refuses_them_at_once(method):
    with pytest.raises(ValueError, match=f"{method.__name__}: `regularizers` \\(koleo\\) are of .* leave them out"):
        method(tiny_vit(), regularizers=regularizers.KoLeo())
    assert method.from_config(method(tiny_vit()).get_config()).regularizers == ()


def test_a_method_that_never_asks_for_features_is_told(images):
    class Bare(keras_ssl.SelfSupervisedModel):
        terms = ("bare",)

        def embed(self, views, training):
            return {"z": ops.mean(self.backbone(views[0], training=training), axis=(1, 2, 3))}

        def objective(self, outputs, batch):
            return {"bare": outputs["z"]}, {}

    model = Bare(tiny_backbone(), light_views(), regularizers=regularizers.KoLeo())
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match="embed\\(\\) calls neither"):
        model.fit(images, batch_size=32, verbose=0)
