"""Files that earlier versions wrote load as they were: tests/earlier/README.md says which."""

import pathlib
import shutil

import keras
import numpy as np
import pytest

import keras_ssl
from keras_ssl import augment, files
from keras_ssl.callbacks import Resume

EARLIER = pathlib.Path(__file__).parent / "earlier"


def images():
    return np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1)).astype("uint8")


def make_model():
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 127.5, -1), keras.layers.Conv2D(4, 3, 2)]
        + [keras.layers.BatchNormalization(), keras.layers.Dropout(0.1)]
    )
    views = augment.Views([augment.RandomHorizontalFlip()], [augment.RandomHorizontalFlip()])
    model = keras_ssl.SimCLR(backbone, views=views, projector=keras.Sequential([keras.layers.Dense(8)]))
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9))
    return model


@pytest.mark.parametrize("version", ["first", "unsealed"])
def test_a_model_of_an_earlier_version_gives_the_features_that_it_gave(version):
    model = files.load_model(EARLIER / f"{version}_simclr.keras")
    assert int(keras.ops.convert_to_numpy(model.step)) == 4
    with np.load(EARLIER / f"{version}_features.npz") as kept:
        np.testing.assert_allclose(model.predict(images(), verbose=0), kept["features"], rtol=1e-5, atol=1e-6)


@pytest.mark.one_backend
def test_a_teacher_of_an_earlier_version_loads():
    model = files.load_model(EARLIER / "unsealed_byol.keras")
    assert model.predict(images(), verbose=0).shape == (16, 3, 3, 4)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch's generator is in the state")
def test_a_run_of_an_earlier_version_is_resumed(tmp_path):
    shutil.copy(EARLIER / "unsealed_state.npz", tmp_path / "state.npz")
    model = make_model()
    history = model.fit(images(), batch_size=8, epochs=3, verbose=0, callbacks=[Resume(tmp_path / "state.npz")])
    assert len(history.history["loss"]) == 3
    assert files.check(tmp_path / "state.npz"), "with a checksum from here on"
    assert not files.check(tmp_path / "state.npz.previous")
