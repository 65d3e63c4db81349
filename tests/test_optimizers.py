"""LARS: its steps are Lightly's (test_oracles.py); here what it leaves alone and refuses, and that Keras runs it."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_ssl.optimizers import LARS


def network():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, "relu"), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((5,)), *layers])


def data():
    generator = np.random.default_rng(0)
    y = np.arange(48) % 3
    return (generator.normal(size=(48, 5)) + y[:, None]).astype("float32"), y


def one_step(exclude):
    """How far each weight moves in a step, over what plain SGD would move it."""
    model, ratios = network(), []
    optimizer = LARS(0.5, weight_decay=0.1, momentum=0.0, exclude=exclude)
    before = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    gradients = [np.full(value.shape, 0.1, "float32") for value in before]
    optimizer.apply([ops.convert_to_tensor(g) for g in gradients], model.trainable_variables)
    for variable, value, gradient in zip(model.trainable_variables, before, gradients):
        moved = value - ops.convert_to_numpy(variable)
        ratios.append(np.allclose(moved, 0.5 * gradient, rtol=1e-4))
    return ratios


def test_biases_and_normalisation_get_neither_decay_nor_scaling():
    by_rank = [len(variable.shape) <= 1 for variable in network().trainable_variables]
    assert one_step(exclude=1) == by_rank
    assert sum(by_rank) == 4, "two biases, gamma and beta"
    # Unless told otherwise; a bias or a beta of zeros has no size to scale by, and is left alone then as well.
    plain = one_step(exclude=-1)
    assert sum(plain) < sum(by_rank)


def test_what_is_excluded_has_a_rate_of_its_own():
    moves = []
    for share in (1.0, 0.024):
        variables = [keras.Variable([[1.0, 2.0]]), keras.Variable([1.0, 2.0])]
        optimizer = LARS(0.5, excluded_rate=share)
        for _ in range(3):  # momentum as well
            optimizer.apply([ops.ones(v.shape) for v in variables], variables)
        moves.append([[1.0, 2.0] - ops.convert_to_numpy(v) for v in variables])
    (weight, bias), (same_weight, slower_bias) = moves
    np.testing.assert_array_equal(weight, same_weight)
    np.testing.assert_allclose(slower_bias, 0.024 * bias, rtol=1e-4)


def test_it_trains_is_saved_and_goes_on(tmp_path):
    x, y = data()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = network()
    model.compile(LARS(keras.optimizers.schedules.CosineDecay(20.0, 200), weight_decay=1e-4, nesterov=True), loss)
    history = model.fit(x, y, batch_size=16, epochs=20, shuffle=False, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    for each in (model, loaded):
        each.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    for one, other in zip(model.weights, loaded.weights):
        np.testing.assert_allclose(ops.convert_to_numpy(one), ops.convert_to_numpy(other), atol=1e-6)


def test_accumulated_gradients_make_one_step():
    x, y = data()
    loss, ends = keras.losses.SparseCategoricalCrossentropy(from_logits=True), []
    for size, together in ((32, None), (16, 2)):
        model = keras.Sequential(network().layers[::2])  # without batch normalization
        model.compile(LARS(1.0, weight_decay=1e-2, gradient_accumulation_steps=together), loss)
        model.fit(x[:32], y[:32], batch_size=size, shuffle=False, verbose=0)
        ends.append([ops.convert_to_numpy(weight) for weight in model.weights])
    for one, other in zip(*ends):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_keras_own_exclusion_is_refused_for_it_would_do_nothing():
    with pytest.raises(ValueError, match="exclude_from_weight_decay"):
        LARS(weight_decay=1e-4).exclude_from_weight_decay(var_names=["bias"])


def test_large_weights_in_half_precision_have_a_finite_norm():
    w = keras.Variable(np.full((300, 300), 100.0), dtype="float16")
    LARS(1.0).apply([ops.cast(np.full((300, 300), 10.0), "float16")], [w])
    moved = 100.0 - ops.convert_to_numpy(w).astype("float32")
    np.testing.assert_allclose(moved, 0.1, atol=0.05)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"momentum": 1.0}, "momentum"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"weight_decay": float("nan")}, "weight_decay"),
        ({"trust_coefficient": 0.0}, "trust_coefficient"),
        ({"exclude": "bias"}, "exclude"),
        ({"excluded_rate": -0.1}, "excluded_rate"),
    ],
)
def test_senseless_arguments_are_refused(options, words):
    with pytest.raises(ValueError, match=f"LARS: `{words}`"):
        LARS(**options)
