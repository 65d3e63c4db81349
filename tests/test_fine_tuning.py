"""Fine-tuning: which weights each protocol moves, which labels it sees, and that its classifier is plain Keras."""

import os
import random
import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, ops

import keras_ssl
from keras_ssl import evaluate
from keras_ssl.clone import clone
from keras_ssl.evaluate.labels import draw_fraction


def tinted(count=64, seed=0):
    """Images `(count, 8, 8, 2)` in [0, 1] whose channels differ by class, of four classes."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    images = generator.uniform(size=(count, 8, 8, 2)).astype("float32")
    images[..., 0] *= 0.5 + 0.5 * (labels % 2)[:, None, None]
    images[..., 1] *= 0.5 + 0.5 * (labels // 2)[:, None, None]
    return images, labels


def small(shape=(8, 8, 2), name="small"):
    """Two convolutions with batch normalization; a map of 4×4."""
    images = keras.Input(shape)
    x = layers.BatchNormalization(momentum=0.5)(layers.Conv2D(8, 3, 2, padding="same")(images))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.Dropout(0.1)(x))
    return keras.Model(images, x, name=name)


def weights(model):
    return [weight.copy() for weight in model.get_weights()]


def equal(a, b):
    return [np.array_equal(one, other) for one, other in zip(a, b, strict=True)]


def tune(backbone=None, train=None, **arguments):
    arguments = {"epochs": 2, "batch_size": 16, **arguments}
    return evaluate.fine_tune(backbone or small(), tinted() if train is None else train, tinted(seed=1), **arguments)


# Protocols


def test_linear_leaves_the_backbone_as_it_is_to_the_last_bit():
    backbone = small()
    tuned = tune(backbone, protocol="linear").classifier
    # Moving statistics of its batch normalization are among the weights.
    assert all(equal(weights(tuned.get_layer("small")), weights(backbone)))


@pytest.mark.parametrize("protocol", ["fine-tune", "frozen-then-unfrozen"])
def test_fine_tuning_moves_every_weight_of_the_copy_and_none_of_the_backbone(protocol):
    backbone = small()
    backbone.trainable = False  # as it is left by who trained a head on it
    before = weights(backbone)
    tuned = tune(backbone, protocol=protocol).classifier
    assert all(equal(weights(backbone), before))
    assert not any(equal(weights(tuned.get_layer("small")), before))


def test_the_backbone_moves_by_its_own_rate():
    def moved(rate):
        backbone = small()
        tuned = tune(backbone, learning_rate=1e-2, backbone_rate=rate).classifier
        trained = tuned.get_layer("small").trainable_weights
        return max(
            np.abs(ops.convert_to_numpy(a) - ops.convert_to_numpy(b)).max()
            for a, b in zip(trained, backbone.trainable_weights)
        )

    # Eight steps of Adam, none of which is longer than the rate by more than rounding.
    assert 0.0 < moved(1e-5) <= 8.1e-5
    assert 1e-3 < moved(1e-2) <= 8.1e-2


@pytest.mark.parametrize(("policy", "scaled"), [("mixed_float16", True), ("mixed_bfloat16", False)])
def test_the_loss_is_scaled_where_the_backbone_is_in_float16(policy, scaled):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        half = keras_ssl.backbones.resnet8((28, 28, 1), width=4)
    finally:
        keras.config.set_dtype_policy(before)
    images = np.random.default_rng(0).integers(0, 256, (16, 28, 28, 1)).astype("uint8")
    data = images, np.arange(16) % 2
    for protocol in ("fine-tune", "frozen-then-unfrozen"):
        tuned = keras_ssl.evaluate.fine_tune(half, data, data, protocol=protocol, epochs=2)
        assert isinstance(tuned.classifier.optimizer, keras.optimizers.LossScaleOptimizer) == scaled
        assert np.isfinite(tuned.history["loss"]).all()


def test_frozen_then_unfrozen_begins_as_linear_does():
    linear = tune(protocol="linear", epochs=1, seed=3, learning_rate=1e-3)
    both = tune(protocol="frozen-then-unfrozen", epochs=2, seed=3, learning_rate=1e-3, backbone=small())
    assert len(both.history["loss"]) == 2
    # The features are of other backbones; the schedule, the head and the order are the same.
    assert linear.history["loss"][0] != both.history["loss"][0]
    backbone = small()
    first = tune(backbone, protocol="linear", epochs=1, learning_rate=1e-3)
    again = tune(backbone, protocol="frozen-then-unfrozen", epochs=2, learning_rate=1e-3)
    assert first.history["loss"][0] == again.history["loss"][0]


def test_from_scratch_does_not_depend_on_the_weights_that_are_given():
    one, other = small(), small()
    assert not all(equal(weights(one), weights(other)))
    a, b = (tune(backbone, protocol="from-scratch") for backbone in (one, other))
    assert all(equal(weights(a.classifier), weights(b.classifier)))
    different = tune(one, protocol="from-scratch", seed=1)
    assert not all(equal(weights(a.classifier), weights(different.classifier)))


@pytest.mark.parametrize(
    "protocol",
    [p if p == "frozen-then-unfrozen" else pytest.param(p, marks=pytest.mark.slow) for p in evaluate.PROTOCOLS],
)
def test_every_protocol_learns_what_is_easy(protocol):
    keras.utils.set_random_seed(0)
    tuned = tune(protocol=protocol, epochs=60, learning_rate=1e-2)
    # Chance is 0.25, and linear reads what random weights give.
    assert tuned.accuracy > (0.75 if protocol == "linear" else 0.9)
    assert tuned.history["accuracy"][-1] > 0.9
    assert len(tuned.history["loss"]) == 60
    # What is reported is what the classifier gives, and Keras' own evaluation says the same.
    assert tuned.classifier.evaluate(*tinted(seed=1), verbose=0, return_dict=True)["accuracy"] == pytest.approx(
        tuned.accuracy
    )


def test_one_seed_is_one_result_and_the_generators_of_the_user_are_not_touched():
    backbone = small()
    random.seed(5)
    np.random.seed(5)
    first = tune(backbone, dropout=0.3, per_class=8)
    drawn = random.random(), np.random.rand()
    random.seed(5)
    np.random.seed(5)
    assert drawn == (random.random(), np.random.rand())
    second = tune(backbone, dropout=0.3, per_class=8)
    assert all(equal(weights(first.classifier), weights(second.classifier)))
    assert first.history == second.history
    assert not all(
        equal(weights(first.classifier), weights(tune(backbone, dropout=0.3, per_class=8, seed=1).classifier))
    )


def test_labels_may_be_any_integers_and_the_logits_are_in_their_order():
    images, labels = tinted()
    tuned = evaluate.fine_tune(
        small(),
        (images, 100 - 7 * labels),
        (images, 100 - 7 * labels),
        epochs=40,
        learning_rate=1e-2,
        protocol="linear",
    )
    assert tuned.classes.tolist() == [79, 86, 93, 100]
    found = tuned.classes[np.argmax(tuned.classifier.predict(images, verbose=0), axis=1)]
    assert np.mean(found == 100 - 7 * labels) == pytest.approx(tuned.accuracy)
    assert tuned.accuracy > 0.9


def test_a_method_is_its_backbone_and_the_images_may_be_files_or_bytes():
    backbone = small()
    images, labels = tinted()
    split = keras_ssl.data.Split((255 * images).astype("uint8"), labels)
    model = keras_ssl.SimCLR(backbone)
    before = weights(backbone)
    tuned = evaluate.fine_tune(model, split, split, epochs=1, per_class=3)
    assert tuned.labels == 12
    assert all(equal(weights(backbone), before))


# Labels


@given(
    counts=st.lists(st.integers(1, 300), min_size=2, max_size=6),
    fraction=st.floats(0.001, 1.0),
    seed=st.integers(0, 9),
)
def test_a_fraction_is_of_each_class_or_says_which_fraction_would_be(counts, fraction, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    try:
        rows = draw_fraction(labels, fraction, seed)
    except ValueError as error:
        rarest = int(np.argmin(counts))
        assert f"leaves class {rarest} empty, which has {min(counts)} labeled" in str(error)
        enough = float(str(error).split("give ")[1].split(" or more")[0])
        assert fraction < enough
        rows, fraction = draw_fraction(labels, enough, seed), enough
    drawn = np.bincount(labels[rows], minlength=len(counts))
    assert (drawn >= 1).all()
    assert (np.abs(drawn - fraction * np.array(counts)) <= 0.5 + 1e-9).all()
    assert len(set(rows)) == len(rows)


def test_one_and_ten_percent_are_balanced_and_nested():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(5), 200))
    one, ten, all_ = (draw_fraction(labels, fraction, seed=4) for fraction in (0.01, 0.1, 1.0))
    assert np.bincount(labels[one]).tolist() == [2] * 5
    assert np.bincount(labels[ten]).tolist() == [20] * 5
    assert all_.tolist() == list(range(1000))
    assert set(one) < set(ten)
    assert set(draw_fraction(labels, 0.1, seed=5)) != set(ten)


def test_the_protocol_may_name_its_fraction():
    tuned = tune(protocol="fine-tune at 25%", batch_size=8)
    assert (tuned.protocol, tuned.labels) == ("fine-tune", 16)
    rows = tune(labels_fraction=0.25, batch_size=8).rows
    np.testing.assert_array_equal(tuned.rows, rows)
    assert np.bincount(tinted()[1][rows]).tolist() == [4] * 4


def test_per_class_is_the_draw_of_the_probes():
    rows = tune(per_class=3, batch_size=12, seed=2).rows
    np.testing.assert_array_equal(rows, evaluate.draw_labels(tinted()[1], 3, seed=2))


# The classifier


OF = ("a map", "features", "open size", "sequential")


def backbone_of(of):
    if of == "sequential":
        return keras.Sequential([keras.Input((8, 8, 2)), layers.Conv2D(4, 3), layers.ReLU()])
    backbone = small((None, None, 2) if of == "open size" else (8, 8, 2))
    if of == "features":
        return keras.Model(backbone.input, layers.GlobalAveragePooling2D()(backbone.output))
    return backbone


@pytest.fixture(scope="module")
def logits(tmp_path_factory):
    """`{of: (logits in this process, logits in one where keras_ssl can't be imported)}`."""
    folder, images = tmp_path_factory.mktemp("classifiers"), tinted()[0][:5]
    np.save(folder / "images.npy", images)
    here = {}
    for of in OF:
        tuned = tune(backbone_of(of), epochs=1).classifier
        tuned.save(folder / f"{of}.keras")
        here[of] = tuned.predict(images, verbose=0)
    code = (
        "import sys; sys.modules['keras_ssl'] = None; import keras, numpy as np\n"
        "for of in sys.argv[1:]:\n"
        "    model = keras.models.load_model(f'{of}.keras')\n"
        "    np.save(f'{of}.npy', model.predict(np.load('images.npy'), verbose=0))\n"
    )
    subprocess.run([sys.executable, "-c", code, *OF], cwd=folder, env={**os.environ, "PYTHONPATH": ""}, check=True)
    return {of: (here[of], np.load(folder / f"{of}.npy")) for of in OF}


@pytest.mark.parametrize("of", OF)
def test_the_classifier_is_loaded_where_there_is_no_keras_ssl(of, logits):
    here, there = logits[of]
    np.testing.assert_allclose(there, here, atol=1e-5)


def test_a_map_is_read_on_a_grid_and_one_of_open_size_by_its_mean():
    images = tinted()[0][:6]

    def pooled(model):
        return keras.Model(model.input, model.get_layer("standardize").input).predict(images, verbose=0)

    backbone = small()
    np.testing.assert_allclose(
        pooled(evaluate.classifier(backbone, 4)), evaluate.extract_features(backbone, images, grid=2), atol=1e-5
    )
    np.testing.assert_allclose(
        pooled(evaluate.classifier(backbone, 4, grid=3)), evaluate.extract_features(backbone, images, grid=3), atol=1e-5
    )
    wide = small((None, None, 2))
    np.testing.assert_allclose(pooled(evaluate.classifier(wide, 4)), evaluate.extract_features(wide, images), atol=1e-5)
    closed = evaluate.classifier(wide, 4, input_shape=(8, 8, 2))
    np.testing.assert_allclose(pooled(closed), evaluate.extract_features(wide, images, grid=2), atol=1e-5)


def test_the_classifier_shares_the_backbones_weights():
    backbone = small()
    model = evaluate.classifier(backbone, 3, dropout=0.5, name="mine")
    assert model.name == "mine"
    assert model.output_shape == (None, 3)
    assert model.get_layer("small") is backbone
    assert [layer.name for layer in model.layers[2:]] == ["pool", "flatten", "standardize", "dropout", "logits"]


@keras.saving.register_keras_serializable("test_fine_tuning")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convolution = layers.Conv2D(4, 3)

    def call(self, images):
        return self.convolution(images)


def test_subclasses_and_models_in_models_are_copied():
    subclass = Subclassed()
    subclass(tinted()[0][:1])
    inner = small(name="inner")
    nested = keras.Sequential([keras.Input((8, 8, 2)), layers.Rescaling(2.0), inner])
    for backbone in (subclass, nested):
        before = weights(backbone)
        copy = clone(backbone, seed=0, unfreeze=True, input_shape=(8, 8, 2))
        images = tinted()[0][:3]
        np.testing.assert_allclose(
            ops.convert_to_numpy(copy(images)), ops.convert_to_numpy(backbone(images)), atol=1e-6
        )
        fresh = [clone(backbone, with_weights=False, seed=0, unfreeze=True, input_shape=(8, 8, 2)) for _ in range(2)]
        assert all(equal(weights(fresh[0]), weights(fresh[1])))
        assert not all(equal(weights(fresh[0]), before))
        tune(backbone, epochs=1)
        assert all(equal(weights(backbone), before))


# What is refused


def labels_of(labels):
    return {"train": (tinted()[0], np.asarray(labels))}


REFUSED = [
    (labels_of(np.arange(63) % 4), "one label an image: 64 images"),
    (labels_of(np.zeros(64, int)), "single class"),
    (labels_of(np.arange(64) % 3), "labels that `train` has not, such as 3"),
    (labels_of(np.arange(64) / 4), "must be integers"),
    ({"train": keras_ssl.data.Split(tinted()[0])}, "`train` has no labels"),
    ({"train": keras_ssl.data.Split(dataset=[])}, "`train` is a stream"),
    ({"train": keras_ssl.data.load(tinted())}, "give its .train"),
    ({"labels_fraction": 0.01}, r"leaves class 0 empty, which has 16 labeled images: give 0\.0313 or more"),
    ({"labels_fraction": 0.0}, r"`labels_fraction` must lie in \(0, 1\]"),
    ({"labels_fraction": 0.5, "per_class": 2}, "either `labels_fraction` or `per_class`"),
    ({"per_class": 0}, "`per_class` must be an integer"),
    ({"protocol": "finetune"}, "`protocol` is one of linear, fine-tune"),
    ({"protocol": "fine-tune 10%", "labels_fraction": 0.5}, "says how many labels"),
    ({"protocol": "linear", "backbone_rate": 1e-3}, "`backbone_rate` is not for"),
    ({"learning_rate": -1.0}, "`learning_rate` must be a number above 0"),
    ({"epochs": 0}, "`epochs` must be an integer"),
    ({"batch_size": 65}, "`batch_size` must lie between 2.* 64 labeled"),
    ({"grid": 5}, "`grid` is 5, and the feature map has only 4×4 cells"),
    ({"dropout": 1.0}, "`dropout` must lie in"),
    ({"backbone": small((16, 16, 2))}, r"takes images of \(16, 16, 2\), and these are \(8, 8, 2\)"),
    ({"backbone": Subclassed()}, "has no weights yet"),
    ({"backbone": keras.Sequential([keras.Input((8, 8, 2)), layers.Reshape((2, 2, 4, 4, 2))])}, "must give"),
    ({"train": (np.full((64, 8, 8, 2), np.nan, "float32"), np.arange(64) % 4)}, "`train` hold NaN"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED, ids=[words[:30] for _, words in REFUSED])
def test_what_can_not_be_tuned_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        tune(**{"epochs": 1, **change})


def test_a_classifier_of_one_class_or_of_no_model_is_refused():
    with pytest.raises(ValueError, match="`classes` must be an integer, 2 or more"):
        evaluate.classifier(small(), 1)
    with pytest.raises(ValueError, match="give input_shape="):
        evaluate.classifier(small((None, None, 2)), 2, grid=2)
    with pytest.raises(TypeError, match="must be a Keras model"):
        evaluate.classifier(np.zeros(3), 2)
