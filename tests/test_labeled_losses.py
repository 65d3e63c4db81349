"""The losses of labeled data in a plain Keras model: `compile`, `fit`, save, replicas, and what is refused."""

import keras
import numpy as np
import pytest
from conftest import numpy
from keras import ops

from keras_ssl import distances, distribute, losses

CLASSES = [losses.TripletSemiHard, losses.TripletHard, losses.LiftedStructure, losses.SupCon]


def data(n=32):
    generator = np.random.default_rng(0)
    labels = np.arange(n, dtype="int32") % 4
    return (generator.normal(size=(n, 6)) + labels[:, None]).astype("float32"), labels


def model():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(4)])


@pytest.mark.parametrize("cls", CLASSES)
def test_a_plain_keras_model_learns_from_them(cls):
    x, y = data()
    network = model()
    network.compile(keras.optimizers.Adam(0.01), loss=cls())
    history = network.fit(x, y, batch_size=16, epochs=8, verbose=0).history["loss"]
    assert history[-1] < history[0]


@pytest.mark.parametrize("name", [name for name in losses.__all__ if isinstance(getattr(losses, name), type)])
def test_a_loss_is_computed_in_float32_whatever_floatx_is(name):
    before = keras.config.floatx()
    keras.config.set_floatx("float16")
    try:
        loss = getattr(losses, name)()
        assert loss.dtype == "float32"
        if name == "Contrastive":  # whose square is no number of half precision
            assert float(loss(np.array([1]), np.array([300.0], "float32"))) == pytest.approx(9e4)
    finally:
        keras.config.set_floatx(before)


@pytest.mark.parametrize("cls", CLASSES)
def test_replicas_compare_their_rows_with_everybodys(cls):
    if keras.backend.backend() == "torch":
        return  # one device
    x, y = data()

    def trained():
        network = model()
        network.compile(keras.optimizers.SGD(0.05), loss=cls())
        history = network.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0).history
        return [ops.convert_to_numpy(weight) for weight in network.weights], history["loss"]

    weights, logged = trained()
    with distribute.local_replicas(2):
        theirs, their_logged = trained()
    for one, other in zip(weights, theirs):
        np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_allclose(logged, their_logged, rtol=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        losses.Contrastive(0.5),
        losses.TripletSemiHard(0.5, distance=distances.cosine),
        losses.TripletHard(margin=None),
        losses.NPairs(),
        losses.LiftedStructure(2.0),
        losses.SupCon(0.3),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_they_are_saved_with_a_model(loss, tmp_path):
    loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(loaded) is type(loss)
    assert loaded.get_config() == loss.get_config()
    network = model()
    network.compile("sgd", loss=loss)
    network.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").loss.get_config() == loss.get_config()


def test_a_mean_over_what_counts_is_taken_over_all_rows():
    values, weight = np.arange(6.0, dtype="float32").reshape(3, 2), np.array([[1, 0], [1, 1], [0, 0]], "float32")
    rows = ops.convert_to_numpy(losses.weighted_mean_rows(values, weight))
    assert rows.mean() == pytest.approx((0 + 2 + 3) / 3)
    assert ops.convert_to_numpy(losses.weighted_mean_rows(values, weight, True)).mean() == pytest.approx((2 + 3) / 2)
    assert np.all(ops.convert_to_numpy(losses.weighted_mean_rows(values, 0 * weight)) == 0.0)


def test_labels_of_floats_and_one_hot_rows_are_refused():
    x, y = data(8)
    for cls in (*CLASSES, losses.NPairs):
        for labels, words in ((y.astype("float32"), "float32"), (np.eye(4, dtype="int32")[y], "argmax")):
            with pytest.raises(ValueError, match=words):
                cls()(labels, x)
    assert float(losses.SupCon()(y[:, None], x)) == float(losses.SupCon()(y, x))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: losses.Contrastive(0.0), "margin"),
        (lambda: losses.TripletSemiHard(-1.0), "margin"),
        (lambda: losses.TripletHard(0.0), "soft margin"),
        (lambda: losses.LiftedStructure(0.0), "margin"),
        (lambda: losses.SupCon(0.0), "temperature"),
        (lambda: losses.triplet(1.0, 2.0, margin=-1.0), "margin"),
        (lambda: losses.contrastive(1.0, True, margin=None), "margin"),
        (lambda: losses.dcl(np.ones((2, 2)), np.ones((2, 2)), temperature=0.0), "temperature"),
        (lambda: losses.dclw(np.ones((2, 2)), np.ones((2, 2)), sigma=0.0), "sigma"),
        (lambda: losses.debiased_nt_xent(np.ones((2, 2)), np.ones((2, 2)), positive_prior=1.0), "positive_prior"),
        (lambda: losses.supcon(np.ones((2, 2)), np.ones(2, "int32"), keys=np.ones((2, 2))), "key_labels"),
    ],
)
def test_margins_and_temperatures_without_meaning_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("shapes", [((8,), (8,)), ((8, 1), (8,)), ((8,), (8, 1)), ((8, 1), (8, 1))], ids=str)
def test_pairs_are_taken_row_by_row_whatever_their_axes(shapes):
    generator = np.random.default_rng(0)
    same, distance = np.array([1, 0, 0, 1, 1, 0, 1, 0]), generator.uniform(0, 2, 8).astype("float32")
    expected = np.mean(np.where(same == 1, distance**2, np.maximum(0, 1.5 - distance) ** 2))
    loss = losses.Contrastive(1.5)(same.reshape(shapes[0]), distance.reshape(shapes[1]))
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_a_model_of_pairs_learns_by_contrastive():
    x, y = data()
    keras.utils.set_random_seed(0)
    left, right, encoder = keras.Input((6,)), keras.Input((6,)), model()
    pairs = keras.Model([left, right], distances.euclidean(encoder(left), encoder(right)))
    pairs.compile(keras.optimizers.Adam(0.01), loss=losses.Contrastive(1.0))
    same = (y[:16] == y[::-1][:16]).astype("int32")
    history = pairs.fit([x[:16], x[::-1][:16]], same, epochs=20, verbose=0).history["loss"]
    assert history[-1] < history[0]
    with pytest.raises(ValueError, match="one value per row"):
        losses.Contrastive()(np.ones((2, 2)), np.ones((2, 2)))


@pytest.mark.parametrize("shape", [(4, 7), (4, 1), (4,), (4, 4, 2)])
def test_n_pairs_of_embeddings_are_refused(shape):
    with pytest.raises(ValueError, match=r"NPairs: `y_pred` holds similarities.*ops\.matmul\(anchors"):
        losses.NPairs()(np.arange(4), np.ones(shape, "float32"))


@pytest.mark.parametrize("n", [2, 5, 9])
def test_a_batch_of_one_class_has_the_logarithm_of_its_others_as_its_least(n):
    """By the paper's equation, as docs/conventions.md says."""
    labels = np.zeros(n, int)
    equal = np.ones((n, 4), "float32")
    assert float(losses.SupCon(0.1)(labels, equal)) == pytest.approx(np.log(n - 1), abs=1e-6)
    z = np.random.default_rng(0).normal(size=(n, 4)).astype("float32")
    assert float(losses.SupCon(0.1)(labels, z)) >= np.log(n - 1) - 1e-6


def test_a_distance_that_can_not_be_saved_is_refused():
    for distance in (lambda a, b: a, "euclidean"):
        with pytest.raises(ValueError, match="`distance`"):
            losses.TripletHard(distance=distance)


def test_the_soft_margin_is_the_logarithm_of_one_plus_exp():
    np.testing.assert_allclose(
        numpy(losses.triplet(np.array([1.0, 3.0], "float32"), np.array([2.0, 1.0], "float32"), margin=None)),
        np.log1p(np.exp([-1.0, 2.0])),
        rtol=1e-6,
    )
