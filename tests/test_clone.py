"""A copy has the original's layers and weights, and shares nothing with it."""

import random

import keras
import numpy as np
import pytest
from conftest import tiny_backbone
from keras import layers, ops

import keras_ssl
from keras_ssl import backbones, heads
from keras_ssl.clone import clone, trainable_flags

IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 2)).astype("float32")


@keras.saving.register_keras_serializable("test_clone")
class Subclass(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convolution = layers.Conv2D(4, 3)
        self.dropout = layers.Dropout(0.5)

    def call(self, images, training=None):
        return self.dropout(self.convolution(images), training=training)


class WithoutConfig(keras.Model):
    def __init__(self, width):
        super().__init__()
        self.dense = layers.Dense(width)

    def call(self, images):
        return self.dense(images)


def subclass():
    model = Subclass()
    model(IMAGES)
    return model


def sequential_built_late():
    model = keras.Sequential([layers.Conv2D(4, 3), layers.Dropout(0.5)])
    model.build((None, 8, 8, 2))
    return model


MODELS = {
    "functional": lambda: backbones.resnet8((8, 8, 2), width=4),
    "functional of open size": lambda: backbones.resnet8((None, None, 2), width=4),
    "sequential": lambda: keras.Sequential([keras.Input((8, 8, 2)), backbones.resnet8((8, 8, 2), width=4)]),
    "sequential, built late": sequential_built_late,
    "subclass": subclass,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_copy_computes_what_its_original_does_with_variables_of_its_own(make):
    original = make()
    before = original.get_weights()
    copy = clone(original)
    np.testing.assert_array_equal(ops.convert_to_numpy(copy(IMAGES)), ops.convert_to_numpy(original(IMAGES)))
    copy.set_weights([weight + 1.0 for weight in before])
    for weight, value in zip(original.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_new_weights_follow_from_the_seed_and_leave_pythons_generator_as_it_is(make):
    original = make()
    state = random.getstate()
    copies = [clone(original, with_weights=False, seed=seed, input_shape=(8, 8, 2)) for seed in (3, 3, 4)]
    assert random.getstate() == state
    one, same, other = [copy.get_weights() for copy in copies]
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_single_layer_and_a_head_without_weights_are_copied():
    head = heads.mlp([4, 3])
    head.build((None, 5))
    assert [weight.shape for weight in clone(head).weights] == [weight.shape for weight in head.weights]
    bare = keras.Sequential([keras.Input((5,)), layers.ReLU()])
    assert not clone(bare).weights
    assert isinstance(clone(layers.Identity()), layers.Identity)


def test_a_copy_is_frozen_where_its_original_is_unless_asked():
    original = backbones.resnet8((8, 8, 2), width=4)
    original.layers[2].trainable = False
    assert not clone(original).layers[2].trainable
    assert clone(original, unfreeze=True).layers[2].trainable
    assert not original.layers[2].trainable


def test_trainable_flags_tell_statistics_from_what_is_learned_and_change_nothing():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2), layers.BatchNormalization()])
    model.layers[0].trainable = False
    assert trainable_flags(model) == [True, True, True, True, False, False]
    assert [layer.trainable for layer in model.layers] == [False, True]


def test_what_cannot_be_copied_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match="has no weights yet"):
        clone(Subclass())
    model = WithoutConfig(3)
    model(IMAGES)
    with pytest.raises(ValueError, match="give WithoutConfig a get_config"):
        clone(model)


def test_a_lambda_is_named_and_not_the_loading_of_files():
    with_lambda = keras.Sequential([keras.Input((8, 8, 2)), layers.Lambda(lambda x: x / 255.0, name="scale")])
    with pytest.raises(ValueError, match=r"Lambda layer \(scale\) has a function without a name.*Rescaling"):
        clone(with_lambda)
    byol = keras_ssl.BYOL(
        keras.Sequential([keras.Input((8, 8, 2)), *with_lambda.layers, layers.Conv2D(4, 3)]),
        keras_ssl.augment.Views([], []),
    )
    with pytest.raises(ValueError, match=r"Lambda layer \(scale\)"):
        byol.compile("sgd")


@keras.saving.register_keras_serializable("test_clone")
def scaled(x):
    return x / 255.0


def test_a_lambda_of_a_function_with_a_name_is_copied():
    model = keras.Sequential(
        [keras.Input((8, 8, 2)), layers.Lambda(scaled, output_shape=(8, 8, 2)), layers.Conv2D(4, 3)]
    )
    np.testing.assert_array_equal(clone(model).predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0))


@pytest.mark.parametrize("method", [keras_ssl.SimCLR, keras_ssl.BYOL, keras_ssl.Rotation])
def test_building_again_changes_nothing(method):
    model = method(tiny_backbone())
    model.build((None, 28, 28, 1))
    weights = [id(weight) for weight in model.weights]
    for again in ((None, 28, 28, 1), None):
        model.build(again)
        assert [id(weight) for weight in model.weights] == weights
    with pytest.raises(ValueError, match="3"):
        model.build((None, 28, 28, 3))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a SavedModel is TensorFlow's")
def test_a_trained_model_is_exported(tmp_path):
    import tensorflow as tf

    images = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 1)).astype("uint8")
    flip = keras_ssl.augment.RandomHorizontalFlip()
    model = keras_ssl.SimCLR(tiny_backbone(), keras_ssl.augment.Views([flip], [flip]))
    model.compile("sgd")
    model.fit(images, batch_size=8, verbose=0)
    model.export(tmp_path / "exported", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(loaded.serve(images.astype("float32")), model(images), rtol=1e-5, atol=1e-5)
