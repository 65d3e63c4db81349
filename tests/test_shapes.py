"""Losses and distances refuse shapes that do not go together, by the names of their arguments."""

import keras
import numpy as np
import pytest

from keras_ssl import distances, losses

BAD_PAIRS = [((4, 3), (5, 3)), ((4, 3), (4, 2)), ((4,), (4,)), ((4, 3, 2), (4, 3, 2)), ((4, 3), (4,)), ((0, 3), (0, 3))]
OF_PAIRS = {
    "nt_xent": losses.nt_xent,
    "dcl": losses.dcl,
    "dclw": losses.dclw,
    "debiased_nt_xent": losses.debiased_nt_xent,
    "contrastive_accuracy": losses.contrastive_accuracy,
    "barlow_twins": losses.barlow_twins,
    "vicreg": losses.vicreg,
    "cosine": losses.cosine,
    "info_nce": lambda a, b: losses.info_nce(a, b, rows(6, 3)),
}
OF_LABELS = {
    "supcon": losses.supcon,
    "labeled_nt_xent": losses.labeled_nt_xent,
    "multi_similarity": losses.multi_similarity,
}
for name in ("TripletSemiHard", "TripletHard", "LiftedStructure", "SupCon"):
    OF_LABELS[name] = lambda embeddings, labels, name=name: getattr(losses, name)()(labels, embeddings)
BAD_LABELS = [((4, 3), 5), ((4,), 4), ((4, 3, 2), 4)]


def rows(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def labels(count):
    return np.arange(count, dtype="int32") % 2


@pytest.mark.parametrize("shapes", BAD_PAIRS, ids=str)
@pytest.mark.parametrize("name", OF_PAIRS)
def test_two_views_are_rows_of_one_shape(name, shapes):
    with pytest.raises(ValueError, match=rf"{name}: `\w+` has the shape .*must be rows of one shape, \(n, d\)"):
        OF_PAIRS[name](*(rows(*shape) for shape in shapes))


@pytest.mark.parametrize("shape", [(6, 2), (6,), (2, 6, 3)], ids=str)
def test_other_rows_are_as_wide(shape):
    a, b, other = rows(4, 3), rows(4, 3), rows(*shape)
    for call in (
        lambda: losses.nt_xent(a, b, negatives=other),
        lambda: losses.info_nce(a, b, other),
        lambda: losses.supcon(a, labels(4), keys=other, key_labels=labels(6)),
        lambda: distances.matrix(distances.euclidean, a, other),
    ):
        with pytest.raises(ValueError, match=r"must be rows, \(m, 3\)"):
            call()


def test_one_value_a_row():
    a, b, negatives = rows(4, 3), rows(4, 3), rows(6, 3)
    for call in (
        lambda: losses.nt_xent(a, b, negatives=negatives, valid=np.ones(5, "bool")),
        lambda: losses.info_nce(a, b, negatives, valid=np.ones(5, "bool")),
        lambda: losses.supcon(a, labels(4), keys=negatives, key_labels=labels(5)),
        lambda: losses.supcon(a, labels(4), keys=negatives, key_labels=labels(6), valid=np.ones(5, "bool")),
    ):
        with pytest.raises(ValueError, match=r"has the shape \(5,\), and .*: give one a row"):
            call()


@pytest.mark.parametrize(("shape", "count"), BAD_LABELS, ids=str)
@pytest.mark.parametrize("name", OF_LABELS)
def test_labels_are_one_a_row_of_embeddings(name, shape, count):
    with pytest.raises(ValueError, match=rf"{name}: `\w+` has the shape .*(give one a row|must be rows, \(n, d\))"):
        OF_LABELS[name](rows(*shape), labels(count))


def test_a_column_beside_a_row_is_not_all_pairs():
    with pytest.raises(ValueError, match=r"contrastive: `distance` has the shape .* must have one shape"):
        losses.contrastive(np.ones((4, 1), "float32"), np.ones(4, "int32"))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="shapes that are open are TensorFlow's")
def test_shapes_that_are_not_known_yet_are_let_through():
    import tensorflow as tf

    spec = tf.TensorSpec((None, 3))
    traced = tf.function(losses.nt_xent, input_signature=[spec, spec])
    np.testing.assert_allclose(traced(rows(4, 3), rows(4, 3)), losses.nt_xent(rows(4, 3), rows(4, 3)), rtol=1e-5)
    unknown = tf.function(losses.contrastive, input_signature=[tf.TensorSpec(None), tf.TensorSpec(None)])
    assert unknown(rows(4, 3), rows(4, 3)).shape == (4, 3)
