"""NT-Xent against Lightly's values and gradients, and against what it must be."""

import importlib
import math

import keras
import numpy as np
import pytest
from conftest import compiled, golden, tiny_backbone, value_and_gradients
from keras import ops
from methods_under_test import light_views

import keras_ssl
from keras_ssl import distribute, losses, mining

# The function of the same name hides the module from an ordinary import.
module = importlib.import_module("keras_ssl.losses.nt_xent")
CASES = golden("lightly_ntxent")


def embeddings(n=12, d=6, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(n, d)).astype("float32") for _ in range(2)]


def mean_loss(a, b, **options):
    return ops.mean(losses.nt_xent(a, b, **options))


@pytest.mark.parametrize("number", range(len(CASES)))
def test_value_and_gradients_are_lightlys(number):
    case = CASES[number]
    value, gradients = value_and_gradients(
        lambda a, b: mean_loss(a, b, temperature=case["temperature"]), case["z0"], case["z1"]
    )
    assert value == pytest.approx(float(case["loss64"]), rel=1e-5, abs=1e-9)
    for gradient, name in zip(gradients, ("grad_z064", "grad_z164")):
        np.testing.assert_allclose(gradient, case[name], rtol=1e-4, atol=1e-5)


def test_each_row_is_the_cross_entropy_of_finding_its_partner():
    a, b = embeddings(5, 3)
    z = np.concatenate([a, b]).astype("float64")
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    expected = []
    for i in range(10):
        others = [k for k in range(10) if k != i]
        scores = np.exp(z[i] @ z[others].T / 0.2)
        expected.append(-math.log(scores[others.index((i + 5) % 10)] / scores.sum()))
    rows = ops.convert_to_numpy(losses.nt_xent(a, b, temperature=0.2))
    np.testing.assert_allclose(rows, expected, rtol=1e-5)


def test_one_embedding_for_all_images_costs_the_logarithm_of_the_others():
    same = np.ones((8, 4), "float32")
    np.testing.assert_allclose(ops.convert_to_numpy(losses.nt_xent(same, same)), math.log(15), rtol=1e-6)


def test_a_replicas_rows_among_everybodys_keys_are_those_rows_of_the_whole():
    a, b = embeddings()
    whole = ops.convert_to_numpy(losses.nt_xent(a, b))
    hits = ops.convert_to_numpy(losses.contrastive_accuracy(a, b))
    for first in (0, 4, 8):
        part = slice(first, first + 4)
        options = {"keys": (a, b), "row_offset": first}
        rows = ops.convert_to_numpy(losses.nt_xent(a[part], b[part], **options))
        np.testing.assert_allclose(rows, np.concatenate([whole[:12][part], whole[12:][part]]), rtol=1e-6)
        found = ops.convert_to_numpy(losses.contrastive_accuracy(a[part], b[part], **options))
        np.testing.assert_array_equal(found, np.concatenate([hits[:12][part], hits[12:][part]]))


@pytest.mark.parametrize("n", [16, 19])
def test_chunks_give_the_value_and_the_gradients_of_the_whole_matrix(monkeypatch, n):
    a, b = embeddings(n, 8)
    value, gradients = value_and_gradients(mean_loss, a, b)
    hits = ops.convert_to_numpy(losses.contrastive_accuracy(a, b))
    monkeypatch.setattr(module, "_FULL_MATRIX", 0)
    monkeypatch.setattr(module, "_CHUNK", 5)
    chunked, chunked_gradients = value_and_gradients(mean_loss, a, b)
    assert chunked == pytest.approx(value, rel=1e-6)
    for one, other in zip(chunked_gradients, gradients):
        np.testing.assert_allclose(one, other, atol=1e-6)
    np.testing.assert_array_equal(ops.convert_to_numpy(losses.contrastive_accuracy(a, b)), hits)


def test_it_compiles(monkeypatch):
    a, b = map(ops.convert_to_tensor, embeddings(16))
    expected = float(mean_loss(a, b))
    assert float(compiled(mean_loss)(a, b)) == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr(module, "_FULL_MATRIX", 0)
    monkeypatch.setattr(module, "_CHUNK", 5)
    assert float(compiled(lambda a, b: mean_loss(a, b))(a, b)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_cast_before_it_is_normalized(dtype):
    a, b = (ops.cast(array, dtype) for array in embeddings(16, 32))
    rounded = [ops.cast(array, "float32") for array in (a, b)]
    half = losses.nt_xent(a, b)
    assert keras.backend.standardize_dtype(half.dtype) == "float32"
    np.testing.assert_array_equal(ops.convert_to_numpy(half), ops.convert_to_numpy(losses.nt_xent(*rounded)))


def test_an_embedding_of_zero_has_a_finite_gradient():
    a, b = embeddings(4, 3)
    a[1] = 0.0
    value, gradients = value_and_gradients(mean_loss, a, b)
    assert math.isfinite(value)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_accuracy_counts_partners_that_are_nearest():
    a = np.eye(4, dtype="float32")
    b = a[[0, 1, 3, 2]]
    hits = ops.convert_to_numpy(losses.contrastive_accuracy(a, b))
    np.testing.assert_array_equal(hits, [1, 1, 0, 0, 1, 1, 0, 0])


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    a, b = embeddings()
    with pytest.raises(ValueError, match="temperature"):
        losses.nt_xent(a, b, temperature=temperature)


def test_a_small_loss_keeps_its_digits():
    """Embeddings whose partners are near: float32 must not spend its digits on 1/T."""
    generator = np.random.default_rng(0)
    a = generator.normal(size=(64, 32))
    b = a + 0.05 * generator.normal(size=a.shape)
    z = np.concatenate([a, b])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    exponents = np.exp(z @ z.T / 0.05)
    np.fill_diagonal(exponents, 0.0)
    partner = exponents[np.arange(128), np.arange(128) ^ 64]
    exact = np.log1p((exponents.sum(axis=1) - partner) / partner)
    ours = ops.convert_to_numpy(losses.nt_xent(a.astype("float32"), b.astype("float32"), 0.05))
    assert exact.mean() < 1e-3
    np.testing.assert_allclose(ours, exact, rtol=1e-4)


# What SimCLR makes of its negatives.


def made(**options):
    return keras_ssl.SimCLR(tiny_backbone(), light_views(), projector=keras.layers.Dense(8), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"negatives": mining.HardnessWeighted(200.0)},
        {"negatives": mining.WithoutFalseNegatives(0.5, most=0.5), "memory": 64},
        {"contrast": losses.dclw},
    ],
    ids=["harder", "without false ones, memory", "dclw"],
)
def test_simclr_trains_with_other_negatives_and_is_saved(options, images, tmp_path):
    keras.utils.set_random_seed(0)
    simclr = made(temperature=0.5, **options)
    simclr.compile(keras.optimizers.SGD(0.01))
    simclr.fit(images, batch_size=16, verbose=0)
    simclr.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    one, other = (model.evaluate(images, batch_size=16, verbose=0) for model in (simclr, loaded))
    assert one == pytest.approx(other, rel=1e-6)
    if "memory" not in options:  # with the same weights the plain loss is another
        plain = made(temperature=0.5)
        plain.compile("sgd")
        plain.set_weights(simclr.get_weights())
        assert plain.evaluate(images, batch_size=16, verbose=0) != pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize(
    "options", [{"negatives": lambda s, n: n}, {"contrast": lambda a, b: a}, {"negatives": "hard"}]
)
def test_what_can_not_be_saved_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        keras_ssl.SimCLR(tiny_backbone(), **options)


@pytest.mark.parametrize("loss", [losses.dclw, losses.debiased_nt_xent, "hard negatives"])
def test_relatives_of_nt_xent_are_the_same_on_replicas(loss, images):
    if keras.backend.backend() == "torch":
        return  # one device
    options = {"negatives": mining.HardnessWeighted(5.0)} if loss == "hard negatives" else {"contrast": loss}

    def figures():
        keras.utils.set_random_seed(0)
        simclr = made(**options)
        simclr.compile("sgd")
        return simclr.evaluate(images, batch_size=32, verbose=0, return_dict=True)

    alone = figures()
    with distribute.local_replicas(2):
        assert figures() == pytest.approx(alone, rel=1e-5)


def test_memory_and_weights_are_of_nt_xent_alone():
    for options in ({"memory": 64}, {"negatives": mining.HardnessWeighted()}):
        with pytest.raises(ValueError, match=r"of losses\.nt_xent; `contrast` is"):
            keras_ssl.SimCLR(tiny_backbone(), contrast=losses.dcl, **options)
