"""Siamese networks: equation 4 of the paper over given pairs, views and labels, and how alike two images are."""

import keras
import numpy as np
import pytest
from conftest import tiny_backbone
from keras import ops

import keras_ssl
from keras_ssl import distances

WIDTH = 6


def pairs(n=8, seed=0):
    generator = np.random.default_rng(seed)
    return tuple(generator.normal(size=(n, WIDTH)).astype("float32") for _ in range(2))


def model(**options):
    """A network of vectors that changes nothing, so that embeddings are what is given."""
    backbone = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Identity()])
    siamese = keras_ssl.Siamese(backbone, value_range=(-10, 10), **options)
    siamese.compile("sgd")
    return siamese


def figures(siamese, batch):
    rows = len(keras.tree.flatten(batch)[0])
    return siamese.evaluate(batch, batch_size=rows, verbose=0, return_dict=True)


def by_hand(a, b, ids, margin, weight):
    """Means over pairs of the 2N views, each kind by itself; and the share of them on their side of half the margin."""
    z, ids = np.concatenate([a, b]).astype("float64"), np.concatenate([ids, ids])
    same, different, right = [], [], {True: [], False: []}
    for i in range(len(z)):
        for j in range(len(z)):
            if i == j:
                continue
            d, alike = np.linalg.norm(z[i] - z[j]), bool(ids[i] == ids[j])
            (same if alike else different).append(d**2 if alike else max(0.0, margin - d) ** 2)
            right[alike].append((d < margin / 2) == alike)
    accuracy = weight * np.mean(right[True]) + (1 - weight) * np.mean(right[False])
    return weight * np.mean(same), (1 - weight) * np.mean(different), accuracy


def test_given_pairs_are_equation_4():
    (a, b), same = pairs(), np.array([1, 0, 1, 0, 0, 0, 1, 0], "int32")
    got = figures(model(margin=4.0), {"views": (a, b), "same": same})
    d = np.linalg.norm(a - b, axis=1)
    assert got["same"] == pytest.approx(np.mean(np.where(same, d**2, 0.0)), rel=1e-5)
    assert got["different"] == pytest.approx(np.mean(np.where(same, 0.0, np.maximum(0.0, 4.0 - d) ** 2)), rel=1e-5)
    assert got["loss"] == pytest.approx(got["same"] + got["different"], rel=1e-6)
    assert got["pair_accuracy"] == pytest.approx(np.mean((d < 2.0) == same))


def test_what_is_said_of_pairs_may_have_an_axis_more_but_no_other_shape():
    (a, b), same = pairs(), np.array([1, 0, 1, 0, 0, 0, 1, 0], "int32")
    one, other = (figures(model(margin=4.0), {"views": (a, b), "same": s}) for s in (same, same[:, None]))
    assert one == pytest.approx(other)
    with pytest.raises(ValueError, match="one value per row"):
        figures(model(), {"views": (a, b), "same": np.eye(8, dtype="int32")})


@pytest.mark.parametrize("same", [0, 1])
def test_pairs_that_are_all_of_a_kind_or_all_different_end_the_run(images, same):
    """Nothing would keep the embeddings from one place, or from flying apart."""
    siamese = keras_ssl.Siamese(tiny_backbone())
    siamese.compile("sgd")
    batch = {"views": (images, images[::-1]), "same": np.full(64, same)}
    with pytest.raises(ValueError, match="of different kinds" if same else "of a kind"):
        siamese.fit(batch, batch_size=16, epochs=2, verbose=0)


def test_a_stream_without_labels_is_refused_where_they_are_needed(images):
    siamese = keras_ssl.Siamese(tiny_backbone(), labels=True)
    siamese.compile("sgd")

    class Stream(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, number):
            return {"image": images[16 * number : 16 * number + 16]}

    with pytest.raises(ValueError, match="labels=True and needs them"):
        siamese.fit(Stream(), verbose=0)


def test_views_of_an_image_are_of_a_kind_and_all_others_are_not():
    a, b = pairs()
    got = figures(model(margin=4.0, positive_weight=0.3), {"views": (a, b)})
    same, different, accuracy = by_hand(a, b, np.arange(8), 4.0, 0.3)
    assert got["same"] == pytest.approx(same, rel=1e-5)
    assert got["different"] == pytest.approx(different, rel=1e-5)
    assert got["pair_accuracy"] == pytest.approx(accuracy, rel=1e-5)


def test_by_labels_all_views_of_a_class_are_of_a_kind():
    (a, b), labels = pairs(), np.array([0, 1, 2, 0, 1, 2, 3, 3], "int32")
    got = figures(model(margin=4.0, labels=True), {"views": (a, b), "label": labels})
    same, different, _ = by_hand(a, b, labels, 4.0, 0.5)
    assert (got["same"], got["different"]) == (pytest.approx(same, rel=1e-5), pytest.approx(different, rel=1e-5))


def test_other_distances_are_compared_as_they_are():
    (a, b), same = pairs(), np.ones(8, "int32")
    got = figures(model(distance=distances.cosine), {"views": (a, b), "same": same})
    cosine = 1 - (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert got["loss"] == pytest.approx(np.mean(cosine**2), rel=1e-5)
    got = figures(model(distance=distances.dot_product), {"views": (a, b), "same": same})
    assert got["loss"] == pytest.approx(np.mean(np.maximum(0.0, 1 - (a * b).sum(1)) ** 2), rel=1e-5)


def test_a_batch_of_any_size_weighs_both_kinds_alike():
    """N positives beside N² negatives: without weights the negatives of a constant encoder would be all of the loss."""
    for n in (4, 64):
        same = figures(model(margin=2.0, positive_weight=0.25), {"views": (np.ones((n, WIDTH), "float32"),) * 2})
        assert same["loss"] == pytest.approx(0.75 * 4.0, rel=1e-5)
        (trivial,) = model(margin=2.0, positive_weight=0.25).collapse_losses(n).values()
        assert same["loss"] == pytest.approx(trivial, rel=1e-5)


def test_only_the_encoder_has_parameters():
    backbone = tiny_backbone()
    siamese = keras_ssl.Siamese(backbone)
    siamese.build()
    assert [id(v) for v in siamese.trainable_variables] == [id(v) for v in backbone.trainable_variables]


def test_similarity_says_how_alike_two_images_are(images):
    siamese = keras_ssl.Siamese(tiny_backbone(), projector=keras.layers.Dense(4), margin=3.0)
    siamese.build()
    same = siamese.similarity(images[:8], images[:8])
    np.testing.assert_allclose(same, 1.0)
    other = siamese.similarity(images[:8], images[8:16])
    a, b = (ops.convert_to_numpy(siamese.project(part.astype("float32"))) for part in (images[:8], images[8:16]))
    np.testing.assert_allclose(other, np.maximum(0, 1 - np.linalg.norm(a - b, axis=1) / 3), rtol=1e-4, atol=1e-6)
    assert other.dtype == np.float32
    in_parts = siamese.similarity(ops.convert_to_tensor(images[:8]), images[8:16], batch_size=3)
    np.testing.assert_allclose(in_parts, other, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="has 8 images and `images_b` 1"):
        siamese.similarity(images[:8], images[8:9])
    with pytest.raises(ValueError, match="value_range"):
        siamese.similarity(images[:2] / 255.0, images[:2])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"margin": 0.0}, "margin"),
        ({"margin": None}, "margin"),
        ({"positive_weight": 1.0}, "positive_weight"),
        ({"distance": lambda a, b: a}, "distance"),
    ],
)
def test_senseless_arguments_are_refused(options, words):
    with pytest.raises(ValueError, match=f"Siamese: `{words}`"):
        keras_ssl.Siamese(tiny_backbone(), **options)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (None, "labels=True and needs them"),
        (np.zeros(64, "int32"), "all images have one label"),
        (np.arange(64), "no two images have one label"),
        (np.linspace(0, 1, 64, dtype="float32"), "float32"),
        (np.eye(2, dtype="int32")[np.arange(64) % 2], "argmax"),
    ],
    ids=["none", "one class", "all different", "floats", "one-hot"],
)
def test_labels_that_make_no_pairs_are_refused_before_work_starts(images, labels, words):
    siamese = keras_ssl.Siamese(tiny_backbone(), labels=True)
    siamese.compile("sgd")
    with pytest.raises(ValueError, match=words):
        siamese.fit(images, labels, batch_size=16, verbose=0)


def test_pairs_that_are_told_apart_are_refused_by_a_method_that_can_not(images):
    """SimCLR would draw together what the user says is different."""
    simclr = keras_ssl.SimCLR(tiny_backbone())
    simclr.compile("sgd")
    batch = {"views": (images, images[::-1]), "same": np.zeros(64, "int32")}
    with pytest.raises(ValueError, match=r"(?s)\"same\".*Siamese"):
        simclr.fit(batch, batch_size=16, verbose=0)
