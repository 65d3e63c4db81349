"""VICReg, SimSiam and MoCo: their losses at known points, and what their papers ask of gradients, queue and teacher."""

import keras
import numpy as np
import pytest
from conftest import golden, tiny_backbone, value_and_gradients
from keras import ops
from methods_under_test import METHODS, head, light_views

import keras_ssl
from keras_ssl import augment, losses


def embeddings(n=12, d=6, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(n, d)).astype("float32") for _ in range(2)]


# VICReg. Values and gradients are held to Lightly's in test_oracles.py.


def test_vicreg_is_zero_for_identical_white_views_and_its_collapse_loss_for_one_embedding():
    h = np.array([[1.0]])
    for _ in range(4):
        h = np.block([[h, h], [h, -h]])
    white = 1.1 * h[:, 1:].astype("float32")  # mean 0, orthogonal, and a deviation above 1
    assert float(losses.vicreg(white, white)) == pytest.approx(0.0, abs=1e-9)
    method = METHODS["VICReg"]()
    (collapsed,) = method.collapse_losses(16).values()
    assert float(losses.vicreg(np.ones((16, 4)), np.ones((16, 4)))) == pytest.approx(collapsed)


def test_vicregs_terms_go_with_their_weights():
    a, b = embeddings()
    ones = [float(term) for term in losses.vicreg_terms(a, b, 1.0, 1.0, 1.0)]
    weighted = [float(term) for term in losses.vicreg_terms(a, b, 2.0, 3.0, 5.0)]
    assert weighted == pytest.approx([2 * ones[0], 3 * ones[1], 5 * ones[2]], rel=1e-6)
    assert float(losses.vicreg(a, b, 2.0, 3.0, 5.0)) == pytest.approx(sum(weighted), rel=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_vicreg_casts_half_precision_before_it_computes(dtype):
    a, b = (ops.cast(array, dtype) for array in embeddings(16, 8))
    half = losses.vicreg(a, b)
    assert keras.backend.standardize_dtype(half.dtype) == "float32"
    assert float(half) == float(losses.vicreg(ops.cast(a, "float32"), ops.cast(b, "float32")))


@pytest.mark.parametrize("name", ["invariance_weight", "variance_weight", "covariance_weight"])
@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_senseless_weights_are_refused_by_name(name, weight):
    with pytest.raises(ValueError, match=f"vicreg: `{name}`"):
        losses.vicreg(*embeddings(), **{name: weight})
    with pytest.raises(ValueError, match=f"VICReg: `{name}`"):
        keras_ssl.VICReg(tiny_backbone(), **{name: weight})


def test_one_image_has_no_variance_and_is_refused():
    with pytest.raises(ValueError, match="2 or more"):
        losses.vicreg(*embeddings(1))


# SimSiam.


@pytest.mark.parametrize("number", [1, 4, 7])
def test_simsiams_objective_is_lightlys_plus_one_with_its_gradient(number):
    case = golden("byol_negcos")[number]
    assert case["kind"] == "simsiam"
    method = METHODS["SimSiam"]()

    def loss(p0, z1):
        outputs = {"p_a": p0, "p_b": case["p1"], "z_a": ops.convert_to_tensor(case["z0"]), "z_b": ops.stop_gradient(z1)}
        return ops.mean(method.objective(outputs, {})[0]["simsiam"])

    value, gradients = value_and_gradients(loss, case["p0"], case["z1"])
    assert value == pytest.approx(float(case["loss64"]) + 1.0, rel=1e-5)
    np.testing.assert_allclose(gradients[0], case["grad_p064"], rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(gradients[1], 0.0)


def test_simsiams_heads_are_the_papers():
    method = keras_ssl.SimSiam(tiny_backbone(), light_views())
    method.build((None, 28, 28, 1))
    dense = [[layer.units for layer in part.layers if hasattr(layer, "units")] for part in (method.projector,)]
    assert dense == [[2048, 2048, 2048]]
    last = method.projector.layers[-1]
    assert (type(last).__name__, last.center, last.scale) == ("BatchNormalization", False, False)
    assert [layer.units for layer in method.predictor.layers if hasattr(layer, "units")] == [512, 2048]
    assert type(method.predictor.layers[-1]).__name__ == "Dense"
    assert method.predictor.layers[-1].use_bias


# MoCo.


@pytest.mark.parametrize("number", [0, 1])
def test_mocos_objective_is_that_of_lightlys_memory_bank(number):
    case = golden("lightly_ntxent_memory_bank")[number]
    size, width = case["bank0"].shape
    method = keras_ssl.MoCo(tiny_backbone(), light_views(), head(width), case["temperature"], memory=size)
    method.build((None, 28, 28, 1))
    method.queue.push(case["bank0"])
    terms, metrics = method.objective({"query": ops.array(case["z0"][0]), "key": ops.array(case["z1"][0])}, {})
    assert float(ops.mean(terms["info_nce"])) == pytest.approx(float(case["loss"][0]), rel=1e-5)
    cosines = ops.convert_to_numpy(losses.normalized(case["z0"][0]))
    key = (cosines * ops.convert_to_numpy(losses.normalized(case["z1"][0]))).sum(axis=1)
    expected = key > (cosines @ case["bank0"].T).max(axis=1)
    np.testing.assert_array_equal(ops.convert_to_numpy(metrics["contrastive_accuracy"]), expected)


def test_what_mocos_queue_does_not_hold_yet_is_no_negative():
    case = golden("lightly_ntxent_memory_bank")[0]
    query, key, bank = case["z0"][0], case["z1"][0], case["bank0"][:20]
    method = keras_ssl.MoCo(tiny_backbone(), light_views(), head(bank.shape[1]), memory=32)
    method.build((None, 28, 28, 1))
    method.queue.push(bank)
    given = {"query": ops.array(query), "key": ops.array(key)}
    expected = ops.convert_to_numpy(losses.info_nce(query, key, bank, 0.2))
    terms, _ = method.objective(given, {})
    np.testing.assert_allclose(ops.convert_to_numpy(terms["info_nce"]), expected, rtol=1e-5)


def test_mocos_first_view_asks_and_its_teacher_answers_for_the_second(images):
    method = METHODS["MoCo"]()
    method.build((None, 28, 28, 1))
    backbone, projector = method.teacher.copies
    for weight in projector.weights:
        weight.assign(-2.0 * ops.convert_to_tensor(weight))
    a, b = images[:4].astype("float32"), images[4:8].astype("float32")
    given = {name: ops.convert_to_numpy(value) for name, value in method.embed((a, b), training=False).items()}
    np.testing.assert_allclose(given["query"], ops.convert_to_numpy(method.project(a)), rtol=1e-5, atol=1e-6)
    key = projector(ops.mean(backbone(b), axis=(1, 2)))
    np.testing.assert_allclose(given["key"], ops.convert_to_numpy(key), rtol=1e-5, atol=1e-6)


def test_mocos_queue_holds_the_teachers_keys_of_the_last_batch(images):
    """No gradient and no query goes into it, and the teacher has moved by a tenth of what the student did."""
    still = augment.Views([augment.RandomHorizontalFlip(0.0)], [augment.RandomHorizontalFlip(0.0)])
    method = keras_ssl.MoCo(tiny_backbone(), still, head(8), memory=16, momentum=0.9)
    method.build((None, 28, 28, 1))
    method.compile(keras.optimizers.SGD(0.1), run_eagerly=keras.backend.backend() != "jax")
    backbone, projector = method.teacher.copies
    for weight in projector.weights:  # or the teacher would be its student still
        weight.assign(-2.0 * ops.convert_to_tensor(weight))
    batch = images[:8].astype("float32")
    keys = losses.normalized(projector(ops.mean(backbone(batch), axis=(1, 2))))
    before = [ops.convert_to_numpy(weight) for weight in projector.weights]
    method.queue.push(embeddings(8, 8)[0] / 3.0)
    method.fit(images[:8], batch_size=8, shuffle=False, verbose=0)
    rows, valid = method.queue.negatives()
    assert ops.convert_to_numpy(valid).all()
    held = ops.convert_to_numpy(rows)[8:]
    # `fit` may deal the rows in an order of its own.
    order = np.argmax(held @ ops.convert_to_numpy(keys).T, axis=1)
    assert sorted(order) == list(range(8))
    np.testing.assert_allclose(held, ops.convert_to_numpy(keys)[order], atol=1e-5)
    for mine, student, old in zip(projector.weights, method.projector.weights, before):
        student = ops.convert_to_numpy(student)
        np.testing.assert_allclose(ops.convert_to_numpy(mine), 0.9 * old + 0.1 * student, atol=1e-6)


def test_a_queue_below_a_batch_is_refused(images):
    method = keras_ssl.MoCo(tiny_backbone(), light_views(), head(8), memory=16)
    method.compile("sgd")
    with pytest.raises(ValueError, match=r"MoCo: `memory`: a queue of 16 .* smaller than the 32"):
        method.fit(images, batch_size=32, verbose=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory": 0}, "MoCo: `memory`"),
        ({"memory": 2.5}, "MoCo: `memory`"),
        ({"temperature": 0.0}, "MoCo: `temperature`"),
        ({"momentum": 1.5}, "MoCo: `momentum`"),
    ],
)
def test_mocos_arguments_out_of_range_are_refused_by_name(options, words):
    with pytest.raises(ValueError, match=words):
        keras_ssl.MoCo(tiny_backbone(), **options)


def test_the_policy_of_moco_is_half_of_simclrs_jitter_on_larger_crops():
    first, second = augment.moco(224).branches
    assert first[0].scale == (0.2, 1.0)
    jitter = first[2]
    assert (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) == (0.4, 0.4, 0.4, 0.1)
    assert [type(layer) for layer in first] == [type(layer) for layer in second]
