"""Layers that a step computes by one operation of the framework: when, that they are the same, and plain afterwards."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_ssl
from keras_ssl import backend, batch_norm, fused

BACKEND = keras.backend.backend()
fuses = pytest.mark.skipif(not backend.FUSED_BATCH_NORM, reason="nothing is fused on this backend")
torch_only = pytest.mark.skipif(BACKEND != "torch", reason="Keras copies layouts on torch alone")


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(0.7, 1.5, shape).astype("float32")


def backbone(**options):
    layers = [keras.layers.Conv2D(4, 3, padding="same"), keras.layers.BatchNormalization(**options)]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.GlobalAveragePooling2D()])


def simclr(network=None, **compile_options):
    keras.utils.set_random_seed(0)
    model = keras_ssl.SimCLR(network or backbone(), views=keras.layers.Identity(), value_range=None)
    model.compile(keras.optimizers.SGD(0.01), **compile_options)
    return model


def replaced(model):
    return [layer for layer in model._flatten_layers() if "call" in vars(layer)]


@pytest.fixture
def counted(monkeypatch):
    """How often batch normalization was computed, or traced, by the framework's operation."""
    calls, plain = [], backend.fused_batch_norm
    monkeypatch.setattr(backend, "fused_batch_norm", lambda layer, x: calls.append(layer) or plain(layer, x))
    return calls


@fuses
def test_a_step_is_fused_by_itself_and_is_the_plain_one(counted):
    views = {"views": (numbers(6, 8, 8, 3), numbers(6, 8, 8, 3, seed=1))}
    plain, model = simclr(fused_layers=False), simclr()
    for _ in range(3):
        plain.train_on_batch(views)
    assert not counted
    for _ in range(3):
        model.train_on_batch(views)
    assert counted
    for one, other in zip(model.weights, plain.weights):
        np.testing.assert_allclose(ops.convert_to_numpy(one), ops.convert_to_numpy(other), rtol=1e-5, atol=1e-5)
    assert replaced(model.backbone) == []


@fuses
def test_layers_are_what_they_were_after_a_step_and_after_one_that_fails(monkeypatch):
    model = simclr(keras.Sequential([keras.Input((8, 8, 3)), *(keras.layers.BatchNormalization() for _ in range(4))]))
    monkeypatch.setattr(backend, "REPLICAS_SHARE_A_STEP", False)
    plain, ghost, everywhere, theirs = model.backbone.layers
    batch_norm.use_ghost_batches(ghost, 4)
    batch_norm.use_global_statistics(everywhere)
    theirs.call = lambda inputs, training=None, mask=None: inputs
    before = [vars(layer).get("call") for layer in model.backbone.layers]

    def step():
        assert batch_norm._statistics(plain).fused
        assert batch_norm._statistics(everywhere).fused
        assert batch_norm._statistics(everywhere).everywhere
        assert batch_norm._statistics(ghost).group == 4
        assert theirs.call is before[-1]
        raise KeyError("in the step")

    with pytest.raises(KeyError, match="in the step"):
        fused.run(model, step)
    assert [vars(layer).get("call") for layer in model.backbone.layers] == before


@fuses
@pytest.mark.parametrize("why", ["switched off", "replicas", "compiled by torch"])
def test_nothing_is_replaced_where_it_is_not_safe(why, monkeypatch):
    model = simclr(fused_layers=False if why == "switched off" else "auto")
    if why == "replicas":
        monkeypatch.setattr(__import__(f"keras_ssl.backend.{BACKEND}", fromlist=["x"]), "replicas", lambda: 2)
    if why == "compiled by torch":
        if BACKEND != "torch":
            return
        model.jit_compile = True
    assert fused.run(model, lambda: replaced(model.backbone)) == []
    assert fused.describe(model) is None or why == "replicas"


@fuses
@pytest.mark.parametrize("options", [{"epsilon": 1e-7}, {"dtype": "bfloat16"}, {"axis": 1}], ids=str)
def test_what_the_operation_does_otherwise_is_left_to_keras(options, counted):
    if BACKEND == "torch" and "epsilon" in options:
        return  # any will do
    layer = keras.layers.BatchNormalization(**options)
    batch_norm.use_fused(layer)
    layer(numbers(4, 4, 4, 3), training=True)
    assert not counted


@fuses
def test_ghost_batches_are_fused_as_micro_batches_are_up_to_16_groups(counted):
    layer = keras.layers.BatchNormalization()
    batch_norm.use_ghost_batches(layer, 4)
    model = simclr(keras.Sequential([keras.Input((2, 2, 3)), layer, keras.layers.GlobalAveragePooling2D()]))
    for groups, operations in ((16, 16), (17, 0)):
        counted.clear()
        fused.run(model, lambda groups=groups: layer(numbers(4 * groups, 2, 2, 3), training=True))
        assert len(counted) == operations


@torch_only
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "padding"), [(1, "same"), (2, "same"), (3, "valid"), ((3, 5), "same")])
def test_a_convolution_without_copies_is_keras_own(kernel, padding, stride, dilation):
    if stride > 1 and dilation > 1:
        return  # Keras refuses both
    options = {"dilation_rate": dilation, "groups": 2, "activation": "relu", "bias_initializer": "normal"}
    layer = keras.layers.Conv2D(6, kernel, stride, padding, **options)
    x = keras.Variable(numbers(3, 9, 8, 4))
    layer.build(x.shape)
    found = []
    for call in (layer.call, lambda inputs: fused._convolve(layer, inputs)):
        outputs = call(x.value)
        weights = ops.convert_to_tensor(numbers(*outputs.shape, seed=2))
        x.value.grad = layer.kernel.value.grad = layer.bias.value.grad = None
        ops.sum(outputs * weights).backward()
        gradients = [variable.value.grad for variable in (x, layer.kernel, layer.bias)]
        found.append([ops.convert_to_numpy(part.detach()) for part in (outputs, *gradients)])
    for one, other in zip(*found):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)


@torch_only
def test_a_convolution_copies_nothing_of_what_it_gets():
    layer = keras.layers.Conv2D(6, 3, padding="same", use_bias=False)
    x = ops.convert_to_tensor(numbers(3, 8, 8, 4))
    layer.build(x.shape)
    assert fused._convolve(layer, x).is_contiguous(), "channels are last in memory, as they came"


def test_the_switch_is_saved_and_loaded(tmp_path):
    simclr(fused_layers=False).save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").fused_layers is False
    assert simclr().get_compile_config()["fused_layers"] == "auto"


@pytest.mark.parametrize("value", [True, "off", None, 1, 0])
def test_other_values_are_refused(value):
    with pytest.raises(ValueError, match=r"`fused_layers`.*use_fused"):
        simclr(fused_layers=value)


@fuses
def test_fit_says_it_first_and_once(capsys):
    model = simclr()
    images = numbers(9, 8, 8, 3)
    for _ in range(2):
        model.fit(images, batch_size=4, verbose=2)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("keras_ssl: ")]
    layers = "1 BatchNormalization" + (" and 1 Conv2D" if BACKEND == "torch" else "")
    assert said[0] == (
        f"keras_ssl: {layers} layers run as one operation each while training; "
        "compile(fused_layers=False) leaves them to Keras."
    )
    assert len(said) == 2, "the other is of the image that makes no batch"


def test_nothing_is_said_where_nothing_is_fused():
    dense = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
    for model in (simclr(fused_layers=False), simclr(dense)):
        model.build((None, 8, 8, 3))
        assert fused.describe(model) is None


@fuses
def test_student_and_teacher_are_plain_after_fit(counted):
    model = keras_ssl.BYOL(backbone(), views=keras.layers.Identity(), value_range=None)
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(numbers(8, 8, 8, 3), batch_size=4, verbose=0)
    assert {id(layer) for layer in counted} == {
        id(layer) for network in (model.backbone, model.teacher.copies[0]) for layer in network.layers[1:2]
    }
    assert replaced(model.backbone) == []
    assert [batch_norm._statistics(layer) for layer in replaced(model)] == [
        batch_norm._Statistics(everywhere=True) for _ in replaced(model)
    ]
