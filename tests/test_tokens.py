"""Backbones that give tokens, those of keras-hub among them: in methods, probes, fine-tuning and files."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_ssl
from keras_ssl import augment, backbones, evaluate, networks


def made_of_tokens(first=1, side=4, width=8, shape=(16, 16, 3)):
    """A small model that gives `first + side²` tokens: the first are means of the whole image."""
    images = keras.Input(shape)
    patches = layers.Conv2D(width, (shape[0] // side, shape[1] // side), (shape[0] // side, shape[1] // side))(images)
    patches = layers.Reshape((-1, width))(patches)
    whole = layers.RepeatVector(first)(layers.Dense(width)(layers.GlobalAveragePooling2D()(images))) if first else None
    return keras.Model(images, layers.Concatenate(axis=1)([whole, patches]) if first else patches)


def hub(name):
    models = pytest.importorskip("keras_hub").models
    vit = {"image_shape": (16, 16, 3), "patch_size": 4, "num_layers": 1, "num_heads": 2, "hidden_dim": 8}
    between = {"intermediate_dim": 16}
    return {
        "ViT": lambda: models.ViTBackbone(**vit, mlp_dim=16),
        "DINOv2": lambda: models.DINOV2Backbone(**vit, **between, num_register_tokens=2),
        "DINOv3": lambda: models.DINOV3Backbone(**vit, **between, num_register_tokens=3),
        "SigLIP": lambda: models.SigLIPVisionEncoder(**vit, **between),
        "Swin": lambda: models.SwinTransformerBackbone(
            image_shape=(16, 16, 3), patch_size=2, embed_dim=4, depths=(1, 1), num_heads=(1, 2), window_size=2
        ),
        "ResNet": lambda: models.ResNetBackbone([64], [3], [64], [1], [1], "basic_block", image_shape=(16, 16, 3)),
        "MobileNetV2 of keras.applications": lambda: keras.applications.MobileNetV2(
            (32, 32, 3), alpha=0.35, include_top=False, weights=None
        ),
    }[name]()


# How many tokens come before those of patches, the patches' grid, and the width that a method sees.
HUB = {
    "ViT": ((1, 4, 4), 8),
    "DINOv2": ((3, 4, 4), 8),
    "DINOv3": ((4, 4, 4), 8),
    "SigLIP": (None, 8),
    "Swin": ((0, 4, 4), 8),
    "ResNet": (None, 64),
    "MobileNetV2 of keras.applications": (None, 1280),
}


def slow_but(*names):
    """The names of `HUB`, of which a run each time takes some: each is traced and compiled anew."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in HUB]


@pytest.mark.parametrize("name", slow_but("ViT", "DINOv2"))
def test_a_method_trains_and_is_saved_with_any_backbone(name, tmp_path):
    layout, width = HUB[name]
    mine = hub(name)
    model = keras_ssl.SimCLR(mine, augment.Views(*[[augment.RandomHorizontalFlip()]] * 2), projector=layers.Dense(4))
    model.compile(keras.optimizers.SGD(0.01))
    side = model.backbone.input_shape[1]
    images = np.random.default_rng(0).integers(0, 256, (8, side, side, 3), "uint8")
    assert backbones.tokens(model.backbone, model.backbone.output_shape) == layout
    before = [ops.convert_to_numpy(weight) for weight in mine.trainable_weights]
    history = model.fit(images, batch_size=4, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    after = [ops.convert_to_numpy(weight) for weight in mine.trainable_weights]
    assert any(np.abs(a - b).max() > 0 for a, b in zip(before, after)), "the given backbone itself was trained"
    features = evaluate.extract_features(model, images)
    assert features.shape == (8, width)
    np.testing.assert_allclose(evaluate.extract_features(mine, images), features, atol=1e-5)
    if layout:
        assert evaluate.extract_features(model, images, grid=2).shape == (8, 4 * width)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    if name == "DINOv2":
        # keras-hub writes trained positions into a file where their sum fell, and stretched to another size: see
        # docs/ecosystem.md.
        trained = [weight for weight in mine.weights if "interpolated_position" in weight.path]
        found = [weight for weight in loaded.backbone.weights if "interpolated_position" in weight.path]
        assert len(trained) == len(found) == 1
        found[0].assign(ops.convert_to_numpy(trained[0]))
    np.testing.assert_allclose(evaluate.extract_features(loaded, images), features, atol=1e-5)


@pytest.mark.parametrize(
    ("first", "side", "shape", "layout"),
    [
        (0, 4, (16, 16, 3), (0, 4, 4)),
        (1, 4, (16, 16, 3), (1, 4, 4)),
        (5, 4, (16, 16, 3), (5, 4, 4)),
        (1, 4, (16, 32, 3), None),  # sixteen cells of twice their height: not square patches
        (2, 4, (16, 16, 3), None),
    ],
)
def test_the_layout_of_tokens_is_told_by_their_number(first, side, shape, layout):
    backbone = made_of_tokens(first, side, shape=shape)
    assert backbones.tokens(backbone, backbone.output_shape) == layout


def test_patches_of_wide_images_are_a_wide_grid():
    images = keras.Input((16, 32, 3))
    backbone = keras.Model(images, layers.Reshape((-1, 8))(layers.Conv2D(8, 4, 4)(images)))
    assert backbones.tokens(backbone, backbone.output_shape) == (0, 4, 8)


def test_series_have_no_tokens():
    series = keras.Input((64, 3))
    assert backbones.tokens(keras.Model(series, layers.Conv1D(8, 4, 4)(series)), (None, 16, 8)) is None


@pytest.mark.parametrize("pooling", [None, "class", "mean"])
def test_features_are_the_class_token_or_the_mean_of_patches(pooling):
    backbone = made_of_tokens()
    images = np.random.default_rng(0).random((4, 16, 16, 3), "float32")
    given = ops.convert_to_numpy(backbone(images))
    expected = given[:, 1:].mean(axis=1) if pooling == "mean" else given[:, 0]
    model = keras_ssl.SimCLR(backbone, projector=layers.Dense(4), pooling=pooling, value_range=(0, 1))
    model.build((None, 16, 16, 3))
    np.testing.assert_allclose(ops.convert_to_numpy(model.features(images)), expected, atol=1e-6)
    np.testing.assert_allclose(evaluate.extract_features(model, images), expected, atol=1e-6)
    cells = evaluate.extract_features(model, images, grid=2).reshape(4, 2, 2, 8)
    np.testing.assert_allclose(cells, given[:, 1:].reshape(4, 2, 2, 2, 2, 8).mean(axis=(2, 4)), atol=1e-6)
    assert keras_ssl.SimCLR.from_config(model.get_config()).pooling == pooling


def told_by_patches(pooling):
    """A method of tokens whose first knows nothing of the image, and labeled images that the mean of patches tells."""
    images = keras.Input((16, 16, 3))
    patches = layers.AveragePooling2D(4)(layers.Rescaling(1 / 255)(images))
    patches = layers.Reshape((16, 3), name="patches")(patches)
    empty = layers.Rescaling(0.0)(layers.Cropping1D((0, 15))(patches))
    backbone = keras.Model(images, layers.Concatenate(axis=1, name="all")([empty, patches]))
    labels = np.arange(48) % 4
    noise = np.random.default_rng(0).normal(0, 5, (48, 16, 16, 3))
    shown = (60 * labels[:, None, None, None] + 30 + noise).clip(0, 255).astype("float32")
    return keras_ssl.SimCLR(backbone, projector=layers.Dense(4), pooling=pooling), (shown, labels)


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_fine_tuning_and_probes_of_layers_pool_as_the_method_does(pooling):
    method, given = told_by_patches(pooling)
    right = 1.0 if pooling == "mean" else 0.25
    tuned = evaluate.fine_tune(method, given, given, protocol="linear", epochs=60, learning_rate=0.03, seed=0)
    assert tuned.accuracy == pytest.approx(right, abs=0.05)
    found = evaluate.probe_layers(method, (given, given), ["patches", "all"], grid=1)
    assert found.accuracies == pytest.approx([1.0, right], abs=0.05)


def test_a_layer_without_a_class_token_yet_is_read_by_its_mean():
    method, (images, _) = told_by_patches("class")
    features = evaluate.extract_features(method, images, layer="patches")
    np.testing.assert_allclose(features, images.mean(axis=(1, 2)) / 255, rtol=1e-4)


def test_a_classifier_is_told_how_to_pool_tokens():
    backbone = made_of_tokens()
    images = np.random.default_rng(0).random((2, 16, 16, 3), "float32")
    given = ops.convert_to_numpy(backbone(images))
    for pooling, expected in (("mean", given[:, 1:].mean(axis=1)), ("class", given[:, 0]), (None, given[:, 0])):
        model = evaluate.classifier(backbone, 3, pooling=pooling)
        pooled = keras.Model(model.input, model.get_layer("standardize").input)
        np.testing.assert_allclose(ops.convert_to_numpy(pooled(images)), expected, atol=1e-6)
    with pytest.raises(ValueError, match="without a class token"):
        evaluate.classifier(made_of_tokens(first=0), 3, pooling="class")


def test_a_pooling_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match='`pooling` is None, "class" or "mean"; it is \'token\''):
        keras_ssl.SimCLR(made_of_tokens(), pooling="token").build((None, 16, 16, 3))
    with pytest.raises(ValueError, match="without a class token"):
        keras_ssl.SimCLR(made_of_tokens(first=0), pooling="class").build((None, 16, 16, 3))


def test_a_classifier_on_tokens_is_plain_keras(tmp_path):
    backbone = made_of_tokens()
    for grid in (None, 2):
        model = evaluate.classifier(backbone, 3, grid=grid)
        images = np.random.default_rng(0).random((2, 16, 16, 3), "float32")
        model.save(tmp_path / "classifier.keras")
        loaded = keras.saving.load_model(tmp_path / "classifier.keras")
        np.testing.assert_allclose(ops.convert_to_numpy(loaded(images)), ops.convert_to_numpy(model(images)), atol=1e-6)


def test_layers_of_tokens_are_probed():
    backbone, generator = made_of_tokens(), np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (24, 16, 16, 3), "uint8"), np.arange(24) % 3
    found = evaluate.probe_layers(backbone, ((images, labels), (images, labels)), probe="knn", k=3)
    assert found.layers[-1] == backbone.layers[-1].name


def test_a_vit_is_plain_keras_whose_weights_fit_images_of_any_size(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype("float32")
    model = backbones.vit((16, 16, 3), width=16, depth=2, heads=2)
    assert backbones.tokens(model, model.output_shape) == (0, 4, 4)
    model.save(tmp_path / "vit.keras")
    loaded = keras.saving.load_model(tmp_path / "vit.keras")
    np.testing.assert_allclose(ops.convert_to_numpy(loaded(images)), ops.convert_to_numpy(model(images)), atol=1e-5)
    assert not [layer for layer in model.layers if not type(layer).__module__.startswith("keras.")]
    wide = backbones.vit((16, 32, 3), width=16, depth=2, heads=2, pooling="avg")
    wide.set_weights(model.get_weights())
    assert wide(np.zeros((1, 16, 32, 3))).shape == (1, 16)


def test_a_vit_tells_patches_apart_by_their_places():
    model = backbones.vit((16, 16, 3), width=16, depth=1, heads=2)
    flat = ops.convert_to_numpy(model(np.zeros((1, 16, 16, 3))))[0]
    assert np.unique(flat.round(4), axis=0).shape[0] == 16


@pytest.mark.parametrize(
    ("shape", "longer", "patch_size", "patches", "of_longer"),
    [
        ((32, 3), (48, 3), 8, 4, 6),
        ((8, 12, 2), (8, 16, 2), (2, 4), 12, 16),
        ((8, 4, 12, 2), (8, 4, 4, 2), (2, 4, 4), 12, 4),
    ],
    ids=["series", "oblong patches", "volumes"],
)
def test_a_vit_takes_series_and_volumes(shape, longer, patch_size, patches, of_longer):
    options = {"patch_size": patch_size, "width": 16, "depth": 1, "heads": 2, "value_range": None}
    model = backbones.vit(shape, **options)
    inputs = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    assert model(inputs).shape == (2, patches, 16)
    other = backbones.vit(longer, **options)
    other.set_weights(model.get_weights())
    assert other(np.zeros((1, *longer), "float32")).shape == (1, of_longer, 16)
    flat = ops.convert_to_numpy(model(np.zeros((1, *shape), "float32")))[0]
    assert np.unique(flat.round(4), axis=0).shape[0] == patches, "each place is told from the others"


def test_places_are_those_of_rows_and_columns():
    found = networks.places((3, 5), 8)[0].reshape(3, 5, 4, 2)
    rows, columns, frequencies = np.arange(3)[:, None], np.arange(5)[:, None], np.array([1.0, 0.01])
    for part, angles in ((0, rows * frequencies), (2, columns * frequencies)):
        angles = np.broadcast_to(angles[:, None] if part == 0 else angles[None], (3, 5, 2))
        np.testing.assert_allclose(found[:, :, part], np.sin(angles), atol=1e-6)
        np.testing.assert_allclose(found[:, :, part + 1], np.cos(angles), atol=1e-6)
    np.testing.assert_array_equal(networks.places((2, 2, 2), 8)[0, :, 6:], 0.0)


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((32,), {}, "`input_shape` is"),
        ((32, 32, 3), {"patch_size": (4, 4, 4)}, "multiples of patch_size"),
        ((30, 32, 3), {}, "multiples of patch_size=4"),
        ((0, None, 3), {}, "multiples of patch_size=4"),
        ((32, 32, 3), {"width": 30}, "a multiple of 4 and of heads=4"),
        ((32, 32, 3), {"pooling": "max"}, "`pooling` is None"),
    ],
)
def test_a_vit_that_can_not_be_is_refused(shape, options, words):
    with pytest.raises(ValueError, match=words):
        backbones.vit(shape, depth=1, **options)


@pytest.fixture
def preset(tmp_path):
    """A folder of a small ViT with random weights and what it expects of its images."""
    keras_hub = pytest.importorskip("keras_hub")
    hub("ViT").save_to_preset(tmp_path / "vit")
    scale, offset = [0.01, 0.02, 0.03], [-1.0, -2.0, -3.0]
    converter = keras_hub.layers.ViTImageConverter(image_size=(16, 16), scale=scale, offset=offset)
    converter.save_to_preset(tmp_path / "vit")
    return str(tmp_path / "vit"), np.array(scale), np.array(offset)


def test_a_preset_of_keras_hub_is_a_backbone_with_its_rescaling(preset):
    import keras_hub

    folder, scale, offset = preset
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype("float32")
    backbone = keras_ssl.hub.backbone(folder)
    expected = keras_hub.models.Backbone.from_preset(folder)((images * scale + offset).astype("float32"))
    np.testing.assert_allclose(ops.convert_to_numpy(backbone(images)), ops.convert_to_numpy(expected), atol=1e-5)
    assert backbones.tokens(backbone, backbone.output_shape) == (1, 4, 4)


def test_a_preset_that_there_is_not_is_refused_by_keras_hub(tmp_path):
    pytest.importorskip("keras_hub")
    with pytest.raises((ValueError, FileNotFoundError), match="nothing"):
        keras_ssl.hub.backbone(str(tmp_path / "nothing"))


def test_the_command_takes_presets(preset):
    from keras_ssl.cli import experiment

    backbone = experiment.backbone_by_name(f"hub:{preset[0]}", (16, 16, 3))
    assert backbone.output_shape == (None, 17, 8)
    assert experiment.grid_of(backbone, (16, 16, 3)) == 1, "the class token"
    assert experiment.grid_of(backbones.vit((16, 16, 3), depth=1), (16, 16, 3)) == 2
