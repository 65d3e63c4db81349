"""`Decayed`: how deep the layers of a backbone lie, their learning rates, and a weight decay that is a schedule."""

import contextlib
import inspect

import keras
import numpy as np
import pytest
from conftest import tiny_backbone
from keras import ops

import keras_ssl
from keras_ssl import distribute
from keras_ssl.depth import depths
from keras_ssl.optimizers import LARS, Decayed, peak_rate, warn_of_rate

WEIGHT_DECAY = keras.optimizers.schedules.CosineDecay(0.04, 10, alpha=10.0)
RATES = keras.optimizers.schedules.CosineDecay(0.1, 10)


def by_depth(model):
    """The paths of the trained variables, by depth."""
    found, deep = {}, depths(model)
    for variable in model.trainable_variables:
        found.setdefault(deep[id(variable)], []).append(variable.path)
    return found


# Depths.


def test_the_blocks_of_our_vit_are_its_depths():
    found = by_depth(keras_ssl.backbones.vit((8, 8, 1), depth=3, width=8, heads=2))
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert all(path.startswith("tokens/") for path in found[0])
    assert all(path.startswith("patches/") for path in found[4])
    assert {depth: len(paths) for depth, paths in found.items() if 0 < depth < 4} == {1: 16, 2: 16, 3: 16}
    for depth, number in ((1, 2), (2, 1), (3, 0)):
        assert any(path.startswith(f"attention_{number}/") for path in found[depth])


@pytest.mark.slow
@pytest.mark.one_backend
def test_the_blocks_of_keras_hub_are_its_depths():
    models = pytest.importorskip("keras_hub").models
    vit = models.ViTBackbone(
        image_shape=(8, 8, 3), patch_size=4, num_layers=3, num_heads=2, hidden_dim=8, mlp_dim=16, dropout_rate=0.0
    )
    dinov2, dinov3 = (
        cls(4, 3, 8, 2, 16, image_shape=(8, 8, 3), num_register_tokens=2)
        for cls in (models.DINOV2Backbone, models.DINOV3Backbone)
    )
    siglip = models.SigLIPVisionEncoder(4, 8, 3, 2, 16, image_shape=(8, 8, 3))
    for model, first, last in (
        (vit, "vit_patching_and_embedding/", "vit_encoder/ln/"),
        (dinov2, "embeddings/", "layernorm/"),
        (dinov3, "embeddings/", "layernorm/"),
        (siglip, "embedding/", ("post_layer_norm/", "head/")),
        (keras_ssl.backbones.of_one_array(dinov2), "embeddings/", "layernorm/"),
    ):
        found = by_depth(model)
        assert sorted(found) == [0, 1, 2, 3, 4], model.name
        assert all(path.startswith(last) for path in found[0]), model.name
        assert all(path.startswith(first) for path in found[4]), model.name
        assert len(found[1]) == len(found[2]) == len(found[3]), model.name
    options = {"patch_size": 4, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2), "window_size": 2}
    found = by_depth(models.SwinTransformerBackbone(image_shape=(32, 32, 3), **options))
    assert sorted(found) == [0, 1, 2, 3, 4, 5]
    assert all(path.startswith("stage_0/blocks_0/") for path in found[4])


def test_a_residual_block_is_a_depth_and_the_stem_is_below_them():
    found = by_depth(keras_ssl.backbones.resnet8((8, 8, 1), width=8))
    assert {depth: len(paths) for depth, paths in found.items()} == {1: 9, 2: 9, 3: 6, 4: 3}


@pytest.mark.slow
@pytest.mark.one_backend
def test_keras_applications_have_the_depths_that_their_names_tell():
    found = by_depth(keras.applications.ResNet50(weights=None, include_top=False, input_shape=(32, 32, 3)))
    blocks = [
        f"conv{stage}_block{n}_" for stage, count in ((2, 3), (3, 4), (4, 6), (5, 3)) for n in range(1, count + 1)
    ]
    assert sorted(found) == list(range(1, 18))
    for depth, block in enumerate(reversed(blocks), start=1):
        assert all(path.startswith(block) for path in found[depth])
    assert all(path.startswith("conv1_") for path in found[17])


def test_in_a_chain_each_kernel_is_a_depth():
    conv, norm = keras.layers.Conv2D, keras.layers.BatchNormalization
    chain = keras.Sequential([keras.Input((8, 8, 1)), conv(4, 3), norm(), conv(4, 3), norm(), conv(8, 3)])
    assert [len(paths) for _, paths in sorted(by_depth(chain).items())] == [2, 4, 4]
    assert sorted(by_depth(chain)) == [1, 2, 3]
    # A backbone below a head counts on with its own blocks.
    vit = keras_ssl.backbones.vit((8, 8, 1), depth=2, width=8, heads=2)
    found = by_depth(keras.Sequential([vit, keras.layers.Dense(4)]))
    assert sorted(found) == [1, 2, 3, 4]
    assert all(path.startswith("patches/") for path in found[4])


# One step against numpy.


def network():
    keras.utils.set_random_seed(3)
    dense = keras.layers.Dense
    return keras.Sequential([keras.Input((4,)), dense(5, "tanh"), dense(3, "tanh"), dense(2)])


def gradients_of(model, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=variable.shape).astype("float32") for variable in model.trainable_variables]


def stepped(model, optimizer, steps=1):
    optimizer.build(model.trainable_variables)
    for step in range(steps):
        gradients = [ops.convert_to_tensor(gradient) for gradient in gradients_of(model, step)]
        if keras.backend.backend() == "jax":
            state = [
                [variable.value for variable in group] for group in (optimizer.variables, model.trainable_variables)
            ]
            trained, state = optimizer.stateless_apply(state[0], gradients, state[1])
            for variable, value in zip((*model.trainable_variables, *optimizer.variables), (*trained, *state)):
                variable.assign(value)
        else:
            optimizer.apply(gradients)
    return [ops.convert_to_numpy(variable) for variable in model.trainable_variables]


def test_steps_of_adamw_are_those_of_numpy():
    model = network()
    weights = [ops.convert_to_numpy(variable).astype("float64") for variable in model.trainable_variables]
    found = stepped(model, Decayed(keras.optimizers.AdamW(RATES), 0.5, WEIGHT_DECAY, backbone=model), steps=3)
    m, v = ([np.zeros_like(weight) for weight in weights] for _ in range(2))
    for step in range(3):
        cosine = (1 + np.cos(np.pi * step / 10)) / 2
        rate, decay = 0.1 * cosine, 0.04 * cosine + 0.4 * (1 - cosine)
        for place, gradient in enumerate(gradients_of(model, step)):
            own = rate * 0.5 ** (3 - place // 2)  # three layers, each a kernel and a bias
            m[place] = 0.9 * m[place] + 0.1 * gradient
            v[place] = 0.999 * v[place] + 0.001 * gradient.astype("float64") ** 2
            if place % 2 == 0:  # no bias decays
                weights[place] *= 1 - own * decay
            corrected = m[place] / (1 - 0.9 ** (step + 1)), v[place] / (1 - 0.999 ** (step + 1))
            weights[place] -= own * corrected[0] / (np.sqrt(corrected[1]) + 1e-7)
    for one, other in zip(found, weights):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_step_of_lars_is_that_of_numpy_and_its_own_decay_is_a_schedule():
    model = network()
    weights = [ops.convert_to_numpy(variable).astype("float64") for variable in model.trainable_variables]
    optimizer = Decayed(LARS(0.5, weight_decay=WEIGHT_DECAY, trust_coefficient=0.1), 0.5, backbone=model)
    found = stepped(model, optimizer, steps=2)
    m = [np.zeros_like(weight) for weight in weights]
    for step in range(2):
        cosine = (1 + np.cos(np.pi * step / 10)) / 2
        decay = 0.04 * cosine + 0.4 * (1 - cosine)
        for place, gradient in enumerate(gradients_of(model, step)):
            if place % 2 == 0:
                size, slope = np.linalg.norm(weights[place]), np.linalg.norm(gradient)
                gradient = (gradient + decay * weights[place]) * 0.1 * size / (slope + decay * size + 1e-8)
            m[place] = 0.9 * m[place] + gradient
            weights[place] -= 0.5 * 0.5 ** (3 - place // 2) * m[place]
    for one, other in zip(found, weights):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def optimizers():
    refused = ("LossScaleOptimizer", "MultiOptimizer", "Nadam", "Optimizer")
    classes = {value for value in vars(keras.optimizers).values() if inspect.isclass(value)}
    classes = {cls for cls in classes if issubclass(cls, keras.optimizers.Optimizer) and cls.__name__ not in refused}
    return sorted(classes, key=lambda cls: cls.__name__)


@pytest.mark.parametrize(
    "cls",
    [
        pytest.param(cls, marks=() if cls.__name__ in ("AdamW", "SGD") else pytest.mark.slow, id=cls.__name__)
        for cls in optimizers()
    ],
)
def test_any_optimizer_of_keras_makes_the_steps_that_it_makes_at_each_layers_rate(cls):
    """One layer's variables alone, with the plain optimizer at that layer's rate."""
    decays = {"weight_decay": 0.1, **({"adam_weight_decay": 0.1} if cls is keras.optimizers.Muon else {})}
    options = {"clipvalue": 0.5, **decays}
    model = network()
    found = stepped(model, Decayed(cls(learning_rate=0.02, **options), 0.5, 0.1, exclude=-1, backbone=model), steps=3)
    for depth, start in ((1, 4), (2, 2), (3, 0)):
        # All variables move, and those of this depth are compared.
        expected = stepped(network(), cls(learning_rate=0.02 * 0.5**depth, **options), steps=3)
        for one, other in zip(found[start : start + 2], expected[start : start + 2]):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6)


# In a method.


def method(optimizer, **compiled):
    keras.utils.set_random_seed(0)
    model = keras_ssl.SimCLR(tiny_backbone(), projector=keras_ssl.heads.mlp([8, 4]), temperature=0.2)
    model.compile(optimizer, **compiled)
    return model


def images():
    return np.random.default_rng(0).integers(0, 256, (32, *tiny_backbone().input_shape[1:])).astype("uint8")


def test_a_method_says_whose_layers_count():
    model = method(Decayed(keras.optimizers.SGD(0.1), 0.5, WEIGHT_DECAY))
    model.fit(images(), batch_size=16, verbose=0)
    count = len(model.backbone.trainable_variables)
    assert model.optimizer.rates[:count] == [0.5**d for d in (3, 3, 2, 2, 1, 1)][:count]
    assert set(model.optimizer.rates[count:]) == {1.0}
    assert int(model.optimizer.iterations) == int(model.optimizer.optimizer.iterations) == 2


def trained(initial, decay, replicas=1, **compiled):
    # Without clipping, for under a strategy Keras clips what each replica has.
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    with distribute.local_replicas(replicas) if replicas > 1 else contextlib.nullcontext():
        model = method(Decayed(optimizer, 0.5, WEIGHT_DECAY) if decay else optimizer, **compiled)
        for weight, value in zip(model.weights, initial, strict=True):
            weight.assign(value)
        model.fit(images(), batch_size=16, epochs=4, verbose=0)
        return [ops.convert_to_numpy(weight) for weight in model.weights]


@pytest.mark.slow
def test_it_makes_the_same_steps_eagerly_several_at_once_and_on_replicas():
    ways = [{"run_eagerly": True}]
    if keras.backend.backend() != "torch":  # which has neither
        ways += [{"steps_per_execution": 2}, {"replicas": 2}]
    initial = [ops.convert_to_numpy(weight) for weight in method("sgd").weights]
    alone = trained(initial, decay=True)
    for way in ways:
        for one, other in zip(alone, trained(initial, decay=True, **way), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5, err_msg=str(way))
    plain = trained(initial, decay=False)
    assert max(np.abs(one - other).max() for one, other in zip(alone, plain)) > 1e-3


def test_it_is_saved_and_goes_on(tmp_path):
    x = images()
    model = method(Decayed(keras.optimizers.AdamW(RATES, clipnorm=1.0), 0.5, WEIGHT_DECAY))
    model.fit(x, batch_size=16, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert loaded.optimizer.clipnorm == 1.0
    for one, other in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(other))
    for each in (model, loaded):
        each.fit(x, batch_size=16, verbose=0, initial_epoch=1, epochs=2)
    for one, other in zip(model.weights, loaded.weights):
        np.testing.assert_allclose(ops.convert_to_numpy(one), ops.convert_to_numpy(other), atol=1e-6)


def test_one_that_has_not_trained_is_saved_where_a_method_will_say_the_layers(tmp_path):
    model = method(Decayed(keras.optimizers.AdamW(RATES), 0.5))
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").optimizer.layer_decay == 0.5
    plain = network()
    plain.compile(Decayed(keras.optimizers.AdamW(RATES), 0.5, backbone=plain), "mse")
    with pytest.raises(ValueError, match=r"optimizer\.build"):
        plain.optimizer.get_config()


def test_half_precision_scales_the_loss_around_it():
    found = []
    for scaled in (False, True):
        keras.utils.set_random_seed(1)
        x, y = np.random.default_rng(0).normal(size=(16, 4)).astype("float32"), np.zeros((16, 2), "float32")
        model = network()
        optimizer = Decayed(keras.optimizers.AdamW(0.01), 0.5, WEIGHT_DECAY, backbone=model)
        model.compile(keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer, "mse")
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        assert int(optimizer.iterations) == int(optimizer.optimizer.iterations) == 4
        found.append([ops.convert_to_numpy(weight) for weight in model.weights])
    for one, other in zip(*found):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_accumulated_gradients_make_one_step():
    x, y = np.random.default_rng(0).normal(size=(16, 4)).astype("float32"), np.zeros((16, 2), "float32")
    found = []
    for size, together in ((8, None), (4, 2)):
        model = network()
        optimizer = keras.optimizers.AdamW(0.01, gradient_accumulation_steps=together)
        model.compile(Decayed(optimizer, 0.5, WEIGHT_DECAY, backbone=model), "mse")
        model.fit(x, y, batch_size=size, epochs=2, shuffle=False, verbose=0)
        found.append([ops.convert_to_numpy(weight) for weight in model.weights])
    for one, other in zip(*found):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_function_may_say_the_depths():
    model = network()
    first = model.layers[0].kernel
    optimizer = Decayed(
        keras.optimizers.SGD(0.1), 0.5, backbone=model, depth=lambda variable: 4 if variable is first else 0
    )
    optimizer.build(model.trainable_variables)
    assert optimizer.rates == [0.5**4, 1.0, 1.0, 1.0, 1.0, 1.0]
    negative = Decayed(keras.optimizers.SGD(0.1), 0.5, backbone=model, depth=lambda variable: -1)
    with pytest.raises(ValueError, match="`depth` must give 0 or more"):
        negative.build(model.trainable_variables)


def test_the_guard_of_rates_looks_at_the_optimizer_within():
    with pytest.warns(UserWarning, match="rate for LARS"):
        warn_of_rate(Decayed(keras.optimizers.AdamW(0.2), 0.5))
    assert peak_rate(Decayed(keras.optimizers.AdamW(RATES), 0.5)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Decayed(keras.optimizers.SGD(0.1), 0.0), "layer_decay"),
        (lambda: Decayed(keras.optimizers.SGD(0.1), 1.5), "layer_decay"),
        (lambda: Decayed("sgd", 0.5), "optimizer"),
        (lambda: Decayed(keras.optimizers.SGD(0.1), 0.5, weight_decay=-1.0), "weight_decay"),
        (lambda: Decayed(keras.optimizers.SGD(0.1), 0.5, weight_decay=lambda step: 0.1), "weight_decay"),
        (lambda: Decayed(LARS(0.1), 0.5, weight_decay=0.1), "LARS"),
        (lambda: Decayed(keras.optimizers.Nadam(0.1), 0.5), "Nadam"),
        (lambda: Decayed(keras.optimizers.Muon(0.1), 0.5), "Muon"),
        (lambda: Decayed(Decayed(keras.optimizers.SGD(0.1), 0.5)), "Decayed"),
        (lambda: Decayed(keras.optimizers.SGD(0.1), exclude="bias"), "exclude"),
        (lambda: Decayed(keras.optimizers.SGD(0.1)).exclude_from_weight_decay(var_names=["bias"]), "exclude"),
    ],
)
def test_senseless_arguments_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_whose_layers_count_must_be_known():
    model = network()
    with pytest.raises(ValueError, match="backbone="):
        Decayed(keras.optimizers.SGD(0.1), 0.5).build(model.trainable_variables)
    with pytest.raises(ValueError, match="none of the variables"):
        Decayed(keras.optimizers.SGD(0.1), 0.5, backbone=tiny_backbone()).build(model.trainable_variables)
