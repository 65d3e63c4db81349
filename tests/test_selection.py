"""Which images to label first: against plain definitions, and on clusters that are known."""

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances

from keras_ssl import evaluate
from keras_ssl.evaluate import selection

pytestmark = pytest.mark.one_backend


def directions(rows=60, d=5, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, d)).astype("float32")


def distances(x):
    unit = x.astype("float64") / np.linalg.norm(x, axis=1, keepdims=True)
    return pairwise_distances(unit)


def bunches(sizes, noise=0.02, seed=0):
    """Rows around as many axes: `(features, which axis each is of)`, shuffled."""
    generator = np.random.default_rng(seed)
    of = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = np.eye(len(sizes))[of] + noise * generator.normal(size=(len(of), len(sizes)))
    return x.astype("float32"), of


def test_diverse_is_the_farthest_from_all_that_are_chosen_before():
    x = directions()
    apart = distances(x)
    chosen = evaluate.select(x, 20, "diverse", seed=4)
    for place in range(1, 20):
        to_nearest = apart[:, chosen[:place]].min(axis=1)
        assert to_nearest[chosen[place]] == pytest.approx(to_nearest.max(), abs=1e-6)


def test_diverse_begins_where_labels_are_not():
    x = directions()
    labeled = [3, 17, 30]
    first = evaluate.select(x, 1, "diverse", labeled)[0]
    to_nearest = distances(x)[:, labeled].min(axis=1)
    assert to_nearest[first] == pytest.approx(to_nearest.max(), abs=1e-6)


def test_diverse_finds_each_kind_however_rare():
    x, of = bunches([500, 200, 50, 3, 1])
    assert {*of[evaluate.select(x, 5, "diverse")]} == {0, 1, 2, 3, 4}


def test_typical_are_those_whose_neighbors_are_near():
    x = directions(200)
    apart = np.sort(distances(x), axis=1)[:, 1 : 1 + selection.NEIGHBORS].mean(axis=1)
    assert evaluate.select(x, 15, "typical").tolist() == np.argsort(apart)[:15].tolist()


def test_both_takes_the_most_typical_of_each_cluster_the_largest_first():
    x, of = bunches([100, 80, 60, 40])
    chosen = evaluate.select(x, 4)
    assert of[chosen].tolist() == [0, 1, 2, 3]
    for row in chosen:
        members = np.flatnonzero(of == of[row])
        apart = np.sort(distances(x[members]), axis=1)[:, 1 : 1 + selection.NEIGHBORS].mean(axis=1)
        assert row == members[np.argmin(apart)]


def test_both_passes_over_clusters_that_have_a_label():
    x, of = bunches([100, 80, 60, 40])
    labeled = [np.flatnonzero(of == 0)[0], np.flatnonzero(of == 2)[0]]
    assert of[evaluate.select(x, 2, labeled=labeled)].tolist() == [1, 3]


def test_both_leaves_odd_rows_for_last():
    x, of = bunches([100, 80, 60, 2])
    chosen = of[evaluate.select(x, 4)]
    assert {*chosen} == {0, 1, 2}


@pytest.mark.parametrize("strategy", ["both", "diverse", "typical"])
def test_rows_are_chosen_once_and_never_labeled_ones(strategy):
    x = directions()
    x[10:20] = x[9]  # copies
    labeled = np.zeros(60, bool)
    labeled[::4] = True
    for count in (1, 30, 45):
        chosen = evaluate.select(x, count, strategy, labeled)
        assert (chosen.dtype, len({*chosen.tolist()})) == ("int64", count)
        assert not labeled[chosen].any()
        assert chosen.tolist() == evaluate.select(4 * x, count, strategy, np.flatnonzero(labeled)).tolist()


@pytest.mark.parametrize("strategy", ["both", "diverse", "typical"])
def test_equal_rows_can_be_chosen_too(strategy):
    assert sorted(evaluate.select(np.ones((9, 3)), 9, strategy)) == list(range(9))
    assert evaluate.select(np.ones((1, 3)), 1, strategy).tolist() == [0]


def test_more_rows_than_clusters_are_taken_in_turns(monkeypatch):
    monkeypatch.setattr(selection, "MOST_CLUSTERS", 4)
    x, of = bunches([100, 80, 60, 40])
    assert of[evaluate.select(x, 10)].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


def test_little_memory_is_the_same():
    x = directions(300)
    for strategy in ("both", "typical"):
        whole = evaluate.select(x, 20, strategy)
        assert whole.tolist() == evaluate.select(x, 20, strategy, max_bytes=4 * 300 * 3).tolist()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: evaluate.select(x, 61), "60 rows have no label yet: give count=60"),
        (lambda x: evaluate.select(x, 59, labeled=[1, 2]), "58 rows have no label yet"),
        (lambda x: evaluate.select(x, 0), "`count` must be a whole number, 1 or more; it is 0"),
        (lambda x: evaluate.select(x, 2, "random"), "'both', 'diverse', 'typical'; it is 'random'"),
        (lambda x: evaluate.select(x, 2, labeled=[60]), "from 0 to 59, or 60 booleans"),
        (lambda x: evaluate.select(x, 2, labeled=[True, False]), "from 0 to 59, or 60 booleans"),
        (lambda x: evaluate.select(x * np.nan, 2), "select: `features` hold NaN"),
    ],
)
def test_what_can_not_be_chosen_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(directions())
