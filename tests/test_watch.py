"""A run that broke ends with the name of the term that did, and a method says at which loss nothing is learned."""

import keras
import numpy as np
import pytest
from conftest import tiny_backbone
from keras import ops
from methods_under_test import METHODS

import keras_ssl
from keras_ssl import augment, distribute


@keras.saving.register_keras_serializable("tests")
class TwoTerms(keras_ssl.SelfSupervisedModel):
    """A sound term, and one that is not finite from a step on."""

    terms = ("sound", "breaks")
    batch_dependent = False

    def __init__(self, backbone, at=5, value=float("nan"), **kwargs):
        super().__init__(backbone, augment.Views([augment.RandomHorizontalFlip()]), **kwargs)
        self.at, self.value = at, value

    def embed(self, views, training):
        return {"z": self.features(views[0], training)}

    def objective(self, outputs, batch):
        rows = ops.mean(ops.square(outputs["z"]), axis=1)
        broken = ops.convert_to_tensor(self.step) >= self.at
        return {"sound": rows, "breaks": ops.where(broken, self.value, rows)}, {}


def broken_run(images, **options):
    model = TwoTerms(tiny_backbone(), **options)
    model.compile(
        keras.optimizers.SGD(0.0)
    )  # whose step of 0 times NaN breaks the weights, and with them the other term
    model.fit(images, batch_size=8, epochs=3, verbose=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_the_first_term_that_broke_is_named_with_its_step(images, value):
    with pytest.raises(FloatingPointError, match=r"'breaks' of the loss became NaN or infinite at step 5"):
        broken_run(images, value=value)


def test_replicas_agree_on_what_broke(images):
    if keras.backend.backend() == "torch":
        return  # one device
    with distribute.local_replicas(2), pytest.raises(FloatingPointError, match=r"'breaks' .* at step 5"):
        broken_run(images)


def test_a_long_epoch_ends_before_its_end(images):
    seen = []
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]  # a step takes little
    model = TwoTerms(keras.Sequential([keras.Input((28, 28, 1)), *layers]), at=20)
    model.compile(keras.optimizers.SGD(0.0))
    many = np.concatenate([images] * 50)
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    with pytest.raises(FloatingPointError, match="at step 20"):
        model.fit(many, batch_size=8, verbose=0, callbacks=[count])
    assert len(seen) < 150, "of 400: it is looked at every hundred batches"


def test_a_sound_run_is_left_alone_and_evaluation_marks_nothing(images):
    model = TwoTerms(tiny_backbone(), at=10**6)
    model.compile("sgd")
    model.fit(images, batch_size=8, verbose=0)
    np.testing.assert_array_equal(ops.convert_to_numpy(model.first_nonfinite), [0, 0])
    broken = TwoTerms(tiny_backbone(), at=0)
    broken.compile("sgd")
    assert np.isnan(broken.evaluate(images, batch_size=8, verbose=0, return_dict=True)["loss"])
    np.testing.assert_array_equal(ops.convert_to_numpy(broken.first_nonfinite), [0, 0])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_where_nothing_is_learned(name):
    model = METHODS[name]()
    model.build((None, 28, 28, 1))
    for size in (32, 256):
        trivial = model.collapse_losses(size)
        assert trivial
        for sentence, loss in trivial.items():
            assert np.isfinite(loss)
            assert len(sentence.split()) > 3
