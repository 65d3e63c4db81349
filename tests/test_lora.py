"""LoRA on a backbone: what is trained, what a file keeps, and moving averages of it."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_ssl
from keras_ssl import clone, heads, hub
from keras_ssl.lora import LoRA
from keras_ssl.optimizers import Decayed


def vit():
    keras.utils.set_random_seed(0)
    return keras_ssl.backbones.vit((8, 8, 1), width=8, depth=2, heads=2)


@pytest.fixture
def preset(tmp_path):
    """A folder with a tiny ViT of keras-hub, as `save_to_preset` writes it."""
    models = pytest.importorskip("keras_hub").models
    keras.utils.set_random_seed(0)
    model = models.ViTBackbone(
        image_shape=(8, 8, 3), patch_size=4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, dropout_rate=0.0
    )
    model.save_to_preset(str(tmp_path / "preset"))
    return str(tmp_path / "preset")


def images(channels=1):
    return np.random.default_rng(0).integers(0, 256, (16, 8, 8, channels)).astype("uint8")


def features(model, channels=1):
    return ops.convert_to_numpy(model(images(channels).astype("float32")))


def trained(backbone, channels=1, cls=keras_ssl.SimCLR, epochs=2, **options):
    model = cls(backbone, projector=heads.mlp([8, 4]), **options)
    model.compile(Decayed(keras.optimizers.AdamW(1e-2), 0.75))
    model.fit(images(channels), batch_size=8, epochs=epochs, verbose=0)
    return model


def test_it_begins_with_the_features_as_they_were_and_trains_its_matrices_alone():
    plain = vit()
    expected, count = features(plain), plain.count_params()
    backbone = LoRA(plain, 2)
    np.testing.assert_array_equal(features(backbone), expected)
    kept = {id(variable) for variable in backbone.trainable_variables}
    assert {variable.name for variable in backbone.trainable_variables} == {"lora_kernel_a", "lora_kernel_b"}
    assert len(kept) == 2 * 2 * 2  # queries and values of two blocks
    others = [(v, ops.convert_to_numpy(v)) for v in backbone.variables if id(v) not in kept]
    backbone.trainable = True  # thaws nothing
    assert {id(variable) for variable in backbone.trainable_variables} == kept
    model = trained(backbone)
    assert len(model.backbone.trainable_variables) == 8
    for variable, before in others:
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), before)
    assert np.abs(features(backbone) - expected).max() > 1e-3
    merged = backbone.merged()
    assert merged.count_params() == count
    assert len(merged.trainable_variables) == len(vit().trainable_variables)
    np.testing.assert_allclose(features(merged), features(backbone), atol=1e-5)


def test_a_file_keeps_it_and_training_goes_on(tmp_path):
    model = trained(LoRA(vit(), 2, alpha=4))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.rates == model.optimizer.rates
    assert set(model.optimizer.rates[:8]) == {0.75, 0.75**2}
    for one, other in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(one), ops.convert_to_numpy(other), atol=1e-6)
    before = features(loaded)
    np.testing.assert_allclose(before, features(model), atol=1e-5)
    for each in (model, loaded):
        each.fit(images(), batch_size=8, initial_epoch=2, epochs=4, verbose=0)
    np.testing.assert_allclose(features(loaded), features(model), atol=1e-4)
    assert np.abs(features(loaded) - before).max() > 1e-3


def test_merging_changes_nothing_so_that_it_is_saved_and_merged_again(tmp_path):
    backbone = LoRA(vit(), 2)
    model = keras_ssl.SimCLR(backbone, projector=heads.mlp([8, 4]))
    config = backbone.get_config()
    once, twice = backbone.merged(), backbone.merged()
    np.testing.assert_array_equal(features(once), features(twice))
    assert backbone.get_config() == config
    model.build((None, 8, 8, 1))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(features(loaded), features(model), atol=1e-6)
    np.testing.assert_allclose(features(loaded.backbone.merged()), features(once), atol=1e-6)
    np.testing.assert_allclose(features(clone.clone(backbone)), features(once), atol=1e-6)


def test_what_is_thawed_layer_by_layer_is_frozen_again_and_what_is_frozen_as_a_whole_stays_so():
    backbone = LoRA(vit(), 2)
    model = keras_ssl.SimCLR(keras.Sequential([keras.Input((8, 8, 1)), backbone]), projector=heads.mlp([8, 4]))
    byol = keras_ssl.BYOL(backbone, projector=heads.mlp([8, 4]), predictor=heads.mlp([8, 4]))

    def thaw():
        for layer in backbone.layers:
            layer.trainable = False  # or Keras on TensorFlow skips what is True already
            layer.trainable = True

    for each in (model, byol):
        thaw()
        assert len(backbone.trainable_variables) > 8
        each.compile(keras.optimizers.SGD(0.1))
        assert len(backbone.trainable_variables) == 8
        thaw()
        each.fit(images(), batch_size=8, verbose=0)
        assert len(backbone.trainable_variables) == 8
    assert not byol.teacher.copies[0].trainable_variables
    backbone.trainable = False
    byol.compile(keras.optimizers.SGD(0.1))
    assert not backbone.trainable_variables
    assert all(not variable.trainable for variable in backbone.variables)


def test_fine_tuning_trains_all_that_the_merged_backbone_has(tmp_path):
    model = trained(LoRA(vit(), 2))
    labels, merged = np.arange(16) % 2, model.backbone.merged()
    data = (images(), labels)
    result = keras_ssl.evaluate.fine_tune(model, data, data, protocol="linear", epochs=1)
    np.testing.assert_allclose(features(result.classifier.layers[1]), features(model), atol=1e-5)
    tuned = keras_ssl.evaluate.fine_tune(model, data, data, epochs=3).classifier.layers[1]
    assert len(tuned.trainable_variables) == len(vit().trainable_variables)
    for one, other in zip(tuned.trainable_variables, merged.trainable_variables, strict=True):
        if "kernel" in one.name:
            assert np.abs(ops.convert_to_numpy(one) - ops.convert_to_numpy(other)).max() > 0, one.path
    within = keras.Sequential([keras.Input((8, 8, 1)), model.backbone])
    with pytest.raises(ValueError, match="merged"):
        keras_ssl.evaluate.fine_tune(within, data, data, epochs=1)


def test_keras_alone_loads_matrices_that_nothing_moves():
    """Why A and B are kept here: where this fails, Keras keeps them itself."""
    layer = keras.layers.Dense(3)
    layer.build((None, 4))
    layer.enable_lora(2)
    store = {}
    layer.save_own_variables(store)
    layer.load_own_variables(store)
    for matrix in (layer.lora_kernel_a, layer.lora_kernel_b):
        np.testing.assert_array_equal(ops.convert_to_numpy(matrix), 0.0)


@pytest.mark.slow
def test_a_moving_average_has_it_too(tmp_path):
    model = trained(LoRA(vit(), 2), cls=keras_ssl.BYOL, predictor=heads.mlp([8, 4]), momentum=0.5)
    copy = model.teacher.copies[0]
    assert isinstance(copy, LoRA)
    assert not copy.trainable_variables
    assert np.abs(features(copy) - features(vit())).max() > 1e-4
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(features(loaded.teacher.copies[0]), features(copy), atol=1e-5)
    np.testing.assert_allclose(features(clone.clone(copy)), features(copy), atol=1e-6)


@pytest.mark.slow
def test_a_backbone_of_keras_hub_trains_is_saved_and_becomes_a_preset(preset, tmp_path):
    backbone = LoRA(hub.backbone(preset), 2)
    before = features(hub.backbone(preset), 3)
    np.testing.assert_allclose(features(backbone, 3), before, atol=1e-6)
    model = trained(backbone, 3)
    assert np.abs(features(backbone, 3) - before).max() > 1e-3
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(
        features(keras.models.load_model(tmp_path / "model.keras"), 3), features(model, 3), atol=1e-5
    )
    # The preset is plain: its kernels are merged.
    for number, given in enumerate((backbone.merged(), backbone, model)):
        hub.save_to_preset(given, tmp_path / f"tuned_{number}")
        tuned = hub.backbone(str(tmp_path / f"tuned_{number}"))
        np.testing.assert_allclose(features(tuned, 3), features(backbone, 3), atol=1e-5)


@pytest.mark.slow
def test_a_preset_has_the_rescaling_of_its_model(preset, tmp_path):
    inner = hub.backbone(preset).layers[-1]
    inputs = keras.Input((8, 8, 3))
    other = keras.Model(inputs, inner(keras.layers.Rescaling(1 / 255, -0.5)(inputs)))
    hub.save_to_preset(other, tmp_path / "tuned")
    np.testing.assert_allclose(features(hub.backbone(str(tmp_path / "tuned")), 3), features(other, 3), atol=1e-5)
    with pytest.raises(ValueError, match="0 backbones of keras-hub"):
        hub.save_to_preset(vit(), tmp_path / "none")


@pytest.mark.slow
def test_mae_trains_a_dinov2_of_a_preset_with_lora(tmp_path):
    models = pytest.importorskip("keras_hub").models
    given = models.DINOV2Backbone(4, 2, 8, 2, 16, image_shape=(8, 8, 3), num_register_tokens=1)
    given.save_to_preset(str(tmp_path / "preset"))
    backbone = LoRA(hub.backbone(str(tmp_path / "preset")), 2)
    assert keras_ssl.backbones.tokens(backbone, (None, 6, 8)).first == 2
    before = features(backbone, 3)
    model = keras_ssl.MAE(backbone, decoder_width=8, decoder_depth=1, decoder_heads=2)
    model.compile(keras.optimizers.AdamW(1e-2))
    model.fit(images(3), batch_size=8, epochs=2, verbose=0)
    assert np.abs(features(backbone, 3) - before).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "words"),
    [({"rank": 0}, "rank"), ({"rank": 2, "layers": ("nothing",)}, "may name"), ({"rank": 2.5}, "rank")],
)
def test_senseless_arguments_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        LoRA(vit(), **options)
