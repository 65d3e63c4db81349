"""Backbones of other libraries go through a method as they are."""

import keras
import numpy as np
import pytest

import keras_ssl

IMAGES = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3)).astype("uint8")


def of_keras_hub():
    hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed: pip install '.[hub]'")
    return hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(32, 32, 3),
    )


def of_keras_applications():
    return keras.applications.MobileNetV3Small(input_shape=(32, 32, 3), include_top=False, weights=None)


@pytest.mark.slow
@pytest.mark.parametrize("make", [of_keras_hub, of_keras_applications])
def test_a_backbone_of_another_library_is_trained_in_place_and_stays_what_it_was(make, tmp_path):
    backbone = make()
    before = [keras.ops.convert_to_numpy(weight) for weight in backbone.trainable_weights]
    model = keras_ssl.SimCLR(backbone, projector=keras.layers.Identity())
    model.compile(keras.optimizers.Adam(1e-3))
    history = model.fit(IMAGES, batch_size=8, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    after = [keras.ops.convert_to_numpy(weight) for weight in backbone.trainable_weights]
    moved = [not np.array_equal(a, b) for a, b in zip(before, after)]
    assert np.mean(moved) > 0.9

    features = backbone.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), features, rtol=1e-4, atol=1e-5)
    backbone.save(tmp_path / "backbone.keras")
    loaded = keras.models.load_model(tmp_path / "backbone.keras")
    assert type(loaded) is type(backbone)
    np.testing.assert_allclose(loaded.predict(IMAGES, verbose=0), features, rtol=1e-4, atol=1e-5)

    model.save(tmp_path / "model.keras")
    resumed = keras.models.load_model(tmp_path / "model.keras")
    resumed.fit(IMAGES, batch_size=8, epochs=3, initial_epoch=2, verbose=0)
