"""Mining: for any labels, what is mined is what its definition says, and nothing else counts."""

import keras
import numpy as np
import pytest
from conftest import compiled, numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_ssl import losses, mining

MINERS = {
    "all_triplets": mining.all_triplets,
    "hard": mining.hard,
    "semi_hard": mining.semi_hard,
    "easy_positive": mining.easy_positive,
    "within": mining.WithinMargin(0.0, 0.5),
    "weighted": mining.DistanceWeighted(8),
}
# Up to twelve rows of up to four classes: with single rows, with one class only, with no two alike.
LABELS = st.lists(st.integers(0, 3), min_size=12, max_size=12)


def distances_of(seed, n=12):
    z = np.random.default_rng(seed).normal(size=(n, 8))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    return np.linalg.norm(z[:, None] - z[None], axis=2).astype("float32")


def by_hand(name, d, y):
    """The triplets (d_ap, d_an, weight) of each anchor by the definitions, with loops."""
    found = [[] for _ in y]
    for i in range(len(y)):
        positives = [p for p in range(len(y)) if p != i and y[p] == y[i]]
        negatives = [n for n in range(len(y)) if y[n] != y[i]]
        if not positives or not negatives:
            continue
        if name == "hard":
            found[i].append((max(d[i, positives]), min(d[i, negatives]), 1.0))
        elif name == "easy_positive":
            near = min(d[i, positives])
            beyond = [d[i, n] for n in negatives if d[i, n] > near]
            found[i] += [(near, min(beyond), 1.0)] if beyond else []
        elif name == "weighted":
            usable = [n for n in negatives if d[i, n] < 1.4] or negatives
            x = np.clip(d[i, usable].astype("float64"), 0.5, 1.99)
            w = x ** (2.0 - 8) * (1 - x**2 / 4) ** (-(8 - 3) / 2)
            found[i] += [(d[i, p], d[i, n], share) for p in positives for n, share in zip(usable, w / w.sum())]
        else:
            for p in positives:
                if name == "semi_hard":
                    beyond = [d[i, n] for n in negatives if d[i, n] > d[i, p]]
                    found[i].append((d[i, p], min(beyond) if beyond else max(d[i, negatives]), 1.0))
                else:
                    for n in negatives:
                        if name == "all_triplets" or 0.0 < d[i, n] - d[i, p] <= 0.5:
                            found[i].append((d[i, p], d[i, n], 1.0))
    return found


def mined(name, d, y):
    """What the miner gives, as such lists."""
    positive, negative = mining.pair_masks(np.array(y, "int32"), np.array(y, "int32"))
    parts = [ops.convert_to_numpy(part) for part in MINERS[name](ops.convert_to_tensor(d), positive, negative)]
    assert all(np.isfinite(part).all() for part in parts)
    near, far, weight = (part.reshape(len(y), -1) for part in np.broadcast_arrays(*parts))
    return [[(p, n, w) for p, n, w in zip(near[i], far[i], weight[i]) if w > 0.0] for i in range(len(y))]


@pytest.mark.parametrize("name", MINERS)
@given(labels=LABELS, seed=st.integers(0, 100))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_what_is_mined_is_what_the_definition_says(name, labels, seed):
    d = distances_of(seed)
    for ours, expected in zip(mined(name, d, labels), by_hand(name, d, labels)):
        assert len(ours) == len(expected)
        for one, other in zip(sorted(ours), sorted(expected)):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@given(labels=LABELS)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_no_anchor_is_its_own_positive_and_none_of_another_class(labels):
    y = np.array(labels, "int32")
    positive, negative = map(ops.convert_to_numpy, mining.pair_masks(y, y))
    assert not np.diag(positive).any()
    assert not np.diag(negative).any()
    np.testing.assert_array_equal(positive | np.eye(12, dtype=bool), y[:, None] == y[None, :])
    np.testing.assert_array_equal(negative, y[:, None] != y[None, :])


def test_rows_of_a_replica_know_which_key_they_are():
    y = np.array([0, 0, 1, 1], "int32")
    whole, _ = mining.pair_masks(y, y)
    for first in (0, 2):
        part, _ = mining.pair_masks(y[first : first + 2], y, first)
        np.testing.assert_array_equal(numpy(part), ops.convert_to_numpy(whole)[first : first + 2])


@pytest.mark.parametrize("name", MINERS)
@pytest.mark.parametrize("labels", [[0] * 12, list(range(12))], ids=["one class", "all different"])
def test_anchors_without_a_partner_cost_nothing(name, labels):
    y = np.array(labels, "int32")
    positive, negative = mining.pair_masks(y, y)
    found = MINERS[name](ops.convert_to_tensor(distances_of(0)), positive, negative)
    assert float(ops.sum(found.weight)) == 0.0
    rows = losses.weighted_mean_rows(losses.triplet(found.positive_distance, found.negative_distance), found.weight)
    np.testing.assert_array_equal(ops.convert_to_numpy(rows), np.zeros(12))


@pytest.mark.parametrize("name", MINERS)
def test_they_compile(name):
    y = np.arange(12, dtype="int32") % 3
    d = ops.convert_to_tensor(distances_of(3))

    def run(d):
        positive, negative = mining.pair_masks(y, y)
        return tuple(MINERS[name](d, positive, negative))

    for one, other in zip(compiled(run)(d), run(d)):
        np.testing.assert_allclose(ops.convert_to_numpy(one), ops.convert_to_numpy(other), rtol=1e-5, atol=1e-6)


def test_ties_are_not_beyond_the_positive():
    # The negative at the positive's own distance is no semi-hard one: the next is.
    d = np.array([[0.0, 0.5, 0.5, 0.7]], "float32")
    positive, negative = np.array([[False, True, False, False]]), np.array([[False, False, True, True]])
    assert float(mining.semi_hard(*map(ops.convert_to_tensor, (d, positive, negative))).negative_distance[0, 1]) == (
        pytest.approx(0.7)
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: mining.WithinMargin(0.5, 0.2), "below `high`"),
        (lambda: mining.DistanceWeighted(2), "width"),
        (lambda: mining.DistanceWeighted(8, 1.5, 0.5), "nearest"),
        (lambda: mining.HardnessWeighted(-1.0), "concentration"),
        (lambda: mining.WithoutFalseNegatives(1.5), "threshold"),
        (lambda: mining.WithoutFalseNegatives(0.5, most=1.0), "most"),
    ],
)
def test_senseless_bounds_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    "miner",
    [mining.semi_hard, mining.WithinMargin(0.0, 0.5), mining.HardnessWeighted(2.0)],
    ids=["function", "class", "weights"],
)
def test_miners_are_saved(miner):
    loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(miner))
    assert loaded is miner or loaded.get_config() == miner.get_config()


# Weights of negatives in NT-Xent.


def embeddings(n=8, d=5):
    generator = np.random.default_rng(0)
    return [generator.normal(size=(n, d)).astype("float32") for _ in range(2)]


def nt_xent_by_hand(a, b, temperature, weight):
    z = np.concatenate([a, b]).astype("float64")
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    s, n, rows = z @ z.T, len(a), []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = [k for k in range(2 * n) if k not in (i, j)]
        w = weight(s[i, others])
        positive = np.exp(s[i, j] / temperature)
        rows.append(-np.log(positive / (positive + (w * np.exp(s[i, others] / temperature)).sum())))
    return rows


def test_harder_negatives_weigh_more():
    a, b = embeddings()

    def weight(s):
        w = np.exp(2.0 * s)
        return w / w.mean()

    ours = losses.nt_xent(a, b, 0.2, weighting=mining.HardnessWeighted(2.0))
    np.testing.assert_allclose(numpy(ours), nt_xent_by_hand(a, b, 0.2, weight), rtol=1e-4)
    plain = losses.nt_xent(a, b, 0.2, weighting=mining.HardnessWeighted(0.0))
    np.testing.assert_allclose(numpy(plain), numpy(losses.nt_xent(a, b, 0.2)), rtol=1e-5)


def test_likely_false_negatives_are_left_out():
    a, b = embeddings()
    ours = losses.nt_xent(a, b, 0.2, weighting=mining.WithoutFalseNegatives(0.3, most=0.99))
    np.testing.assert_allclose(numpy(ours), nt_xent_by_hand(a, b, 0.2, lambda s: (s < 0.3) * 1.0), rtol=1e-4)


def test_no_more_than_a_share_of_the_negatives_is_left_out():
    a, b = embeddings()

    def weight(s):  # 14 negatives, of which one may go: the most similar
        return 1.0 * (s < max(s))

    ours = losses.nt_xent(a, b, 0.2, weighting=mining.WithoutFalseNegatives(-0.99, most=0.1))
    np.testing.assert_allclose(numpy(ours), nt_xent_by_hand(a, b, 0.2, weight), rtol=1e-4)
    one = np.ones((8, 5), "float32")
    np.testing.assert_allclose(
        numpy(losses.nt_xent(one, one, 0.2, weighting=mining.WithoutFalseNegatives())), np.log(15.0), rtol=1e-6
    )


def test_debiased_without_prior_is_nt_xent_and_with_one_its_formula():
    a, b = embeddings()
    np.testing.assert_allclose(
        numpy(losses.debiased_nt_xent(a, b, 0.2, positive_prior=0.0)), numpy(losses.nt_xent(a, b, 0.2)), rtol=1e-4
    )
    z = np.concatenate([a, b]).astype("float64")
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    e, expected = np.exp(z @ z.T / 0.2), []
    for i in range(16):
        j = (i + 8) % 16
        total = sum(e[i, k] for k in range(16) if k not in (i, j))
        others = max((total - 14 * 0.1 * e[i, j]) / 0.9, 14 * np.exp(-5.0))
        expected.append(-np.log(e[i, j] / (e[i, j] + others)))
    np.testing.assert_allclose(numpy(losses.debiased_nt_xent(a, b, 0.2, positive_prior=0.1)), expected, rtol=1e-4)
