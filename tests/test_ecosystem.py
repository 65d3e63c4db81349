"""What others made goes in as it is, and what was trained goes out: backbones, views, exported models, folders."""

import pathlib
import shutil

import keras
import numpy as np
import pytest
from conftest import tiny_backbone

import keras_ssl
from keras_ssl import evaluate

BACKEND = keras.backend.backend()
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3)).astype("uint8")
LABELS = np.arange(16) % 2


# Backbones.


def of_keras_hub():
    hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed: pip install '.[hub]'")
    return hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],  # it insists on 64 in the first
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(32, 32, 3),
    )


def of_keras_applications():
    return keras.applications.MobileNetV3Small(input_shape=(32, 32, 3), include_top=False, weights=None)


def by_simclr(backbone):
    return keras_ssl.SimCLR(backbone, projector=keras.layers.Identity())


def by_byol(backbone):
    heads = {name: keras_ssl.heads.mlp([32, 16], last_batch_norm=False) for name in ("projector", "predictor")}
    return keras_ssl.BYOL(backbone, keras_ssl.augment.simclr(32), **heads)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "method"),
    [(of_keras_hub, by_simclr), (of_keras_applications, by_simclr), (of_keras_hub, by_byol)],
    ids=["keras-hub, SimCLR", "keras.applications, SimCLR", "keras-hub, BYOL"],
)
def test_a_backbone_of_another_library_is_trained_in_place_and_stays_what_it_was(make, method, tmp_path):
    backbone = make()
    before = [keras.ops.convert_to_numpy(weight) for weight in backbone.trainable_weights]
    model = method(backbone)
    model.compile(keras.optimizers.Adam(1e-3))
    history = model.fit(IMAGES, batch_size=8, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    after = [keras.ops.convert_to_numpy(weight) for weight in backbone.trainable_weights]
    moved = [not np.array_equal(a, b) for a, b in zip(before, after)]
    assert np.mean(moved) > 0.9

    features = backbone.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), features, rtol=1e-4, atol=1e-5)
    pooled = evaluate.extract_features(model, IMAGES)
    np.testing.assert_allclose(pooled, features.mean(axis=(1, 2)), rtol=1e-3, atol=1e-5)
    assert evaluate.linear_probe(pooled, LABELS, pooled, regularization=(1.0,)).shape == (16,)

    backbone.save(tmp_path / "backbone.keras")
    loaded = keras.models.load_model(tmp_path / "backbone.keras")
    assert type(loaded) is type(backbone)
    np.testing.assert_allclose(loaded.predict(IMAGES, verbose=0), features, rtol=1e-4, atol=1e-5)
    classifier = keras.Sequential([loaded, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    classifier.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert np.isfinite(classifier.fit(IMAGES, LABELS, batch_size=8, verbose=0).history["loss"]).all()

    model.save(tmp_path / "model.keras")
    resumed = keras.models.load_model(tmp_path / "model.keras")
    resumed.fit(IMAGES, batch_size=8, epochs=3, initial_epoch=2, verbose=0)


# Views.


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="keras-cv's layers are TensorFlow's")
def test_layers_of_keras_cv_make_the_views_of_a_data_set():
    pytest.importorskip("keras_cv", reason="keras-cv is not installed: pip install '.[cv]', as .ci/run does by itself")
    import keras_cv
    import tensorflow as tf

    layers = [
        keras_cv.layers.RandomCropAndResize((32, 32), crop_area_factor=(0.2, 1.0), aspect_ratio_factor=(0.75, 1.33)),
        keras_cv.layers.RandomFlip("horizontal"),
        keras_cv.layers.RandomColorJitter((0, 255), 0.4, 0.4, 0.4, 0.1),
        keras_cv.layers.RandomGaussianBlur(3, 0.5),
        keras_cv.layers.RandAugment((0, 255)),
    ]

    def view(images):
        for layer in layers:
            images = layer(images, training=True)
        return tf.clip_by_value(images, 0.0, 255.0)

    def two_views(images):
        images = tf.cast(images, tf.float32)
        return {"views": (view(images), view(images))}

    data = tf.data.Dataset.from_tensor_slices(IMAGES).batch(8, drop_remainder=True).map(two_views)
    a, b = next(iter(data))["views"]
    assert a.shape == b.shape == (8, 32, 32, 3)
    assert float(tf.reduce_mean(tf.abs(a - b))) > 1.0
    model = keras_ssl.SimCLR(tiny_backbone((32, 32, 3)), projector=keras.layers.Dense(8))
    model.compile(keras.optimizers.Adam(1e-3))
    history = model.fit(data, epochs=2, verbose=0).history
    assert len(history["loss"]) == 2
    assert np.isfinite(history["loss"]).all()


# Exported models.


def trained(activation="relu", input_shape=(28, 28, 1)):
    convolutions = [keras.layers.Conv2D(width, 3, 2, activation=activation) for width in (4, 8)]
    backbone = keras.Sequential(
        [keras.Input(input_shape), keras.layers.Rescaling(1 / 127.5, -1), *convolutions], name="backbone"
    )
    model = keras_ssl.SimCLR(backbone, keras_ssl.augment.Views([], []), projector=keras.layers.Dense(8))
    model.compile("sgd")
    return model


@pytest.fixture
def model(images):
    model = trained()
    model.fit(images, batch_size=32, verbose=0)
    return model


def floats(images):
    return images[:5].astype("float32")


@pytest.mark.skipif(BACKEND == "torch", reason="Keras' export to SavedModel fails on torch: see docs/ecosystem.md")
def test_an_exported_saved_model_gives_the_features(model, images, tmp_path):
    import tensorflow as tf

    model.backbone.export(tmp_path / "saved", format="tf_saved_model", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "saved"))
    expected = model.predict(floats(images), verbose=0)
    np.testing.assert_allclose(exported.serve(floats(images)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(BACKEND == "jax", reason="Keras' export to ONNX wants jax2onnx on JAX: see docs/ecosystem.md")
def test_an_exported_onnx_model_gives_the_features(model, images, tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[onnx]'")
    import onnxruntime

    model.backbone.export(str(tmp_path / "backbone.onnx"), format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "backbone.onnx")
    (features,) = session.run(None, {session.get_inputs()[0].name: floats(images)})
    np.testing.assert_allclose(features, model.predict(floats(images), verbose=0), rtol=1e-4, atol=1e-5)


# Folders, as the Hugging Face Hub holds them.

PARTS = {"config.json", "metadata.json", "model.weights.h5"}


def test_a_model_is_saved_to_a_folder_and_goes_on(model, images, tmp_path):
    model.save(tmp_path / "folder", zipped=False)
    assert {path.name for path in (tmp_path / "folder").iterdir()} >= PARTS
    loaded = keras.models.load_model(tmp_path / "folder")
    assert type(loaded) is keras_ssl.SimCLR
    for one in (model, loaded):
        one.fit(images, batch_size=32, epochs=2, initial_epoch=1, verbose=0)
    for one, other in zip(model.variables, loaded.variables):
        one, other = map(keras.ops.convert_to_numpy, (one, other))
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_what_is_pushed_to_the_hub_is_what_is_loaded_from_it(model, images, tmp_path, monkeypatch):
    """The hub's two calls, which need its network, are replaced by a folder; the rest is Keras'."""
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub comes with keras-hub: pip install '.[hub]'")
    calls = []

    class Repository:
        repo_id = "someone/backbone"

    class Api:
        def __init__(self, **kwargs):
            pass

        def create_repo(self, name, **kwargs):
            calls.append(name)
            return Repository()

        def upload_folder(self, repo_id, folder_path, **kwargs):
            shutil.copytree(folder_path, tmp_path / repo_id)

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "snapshot_download", lambda repo_id, **kwargs: str(tmp_path / repo_id))
    model.backbone.save("hf://someone/backbone")
    assert calls == ["someone/backbone"]
    pushed = pathlib.Path(tmp_path / "someone" / "backbone")
    assert {path.name for path in pushed.iterdir()} >= PARTS | {"README.md"}
    loaded = keras.models.load_model("hf://someone/backbone")
    np.testing.assert_array_equal(
        loaded.predict(floats(images), verbose=0), model.backbone.predict(floats(images), verbose=0)
    )
