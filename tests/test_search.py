"""Search and near copies: against plain definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_ssl import evaluate

pytestmark = pytest.mark.one_backend


def features(rows=60, d=5, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, d)).astype("float32")


def cosines(a, b):
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a.astype("float64"), b.astype("float64"))]
    return unit[0] @ unit[1].T


def groups_by_definition(x, threshold):
    """Rows that a chain of near pairs links: each row's set, grown until nothing changes."""
    near = cosines(x, x) >= threshold
    linked = near.copy()
    for _ in range(len(x)):
        linked = (linked.astype(int) @ near.astype(int)) > 0
    found = {tuple(np.flatnonzero(row)) for row in linked}
    return sorted(list(group) for group in found if len(group) > 1)


def test_search_gives_the_highest_cosines_in_order():
    bank, queries = features(), features(7, seed=1)
    similarity, rows = evaluate.search(bank, queries, k=4)
    expected = cosines(queries, bank)
    np.testing.assert_array_equal(rows, np.argsort(-expected, axis=1)[:, :4])
    np.testing.assert_allclose(similarity, -np.sort(-expected, axis=1)[:, :4], atol=1e-6)


def test_search_in_small_memory_is_the_same():
    bank, queries = features(), features(7, seed=1)
    for asked in (queries, None):
        whole = evaluate.search(bank, asked, k=4)
        parts = evaluate.search(bank, asked, k=4, max_bytes=4 * len(bank) * 3)
        np.testing.assert_array_equal(whole[1], parts[1])


def test_in_its_own_collection_a_row_is_not_its_neighbor_and_its_copy_is():
    bank = features()
    bank[40] = 3.0 * bank[7]  # length does not matter
    bank[50] = bank[7]
    similarity, rows = evaluate.search(bank, k=3)
    assert not (rows == np.arange(len(bank))[:, None]).any()
    assert set(rows[7, :2]) == {40, 50}
    np.testing.assert_allclose(similarity[7, :2], 1.0, atol=1e-6)
    expected = cosines(bank, bank)
    np.fill_diagonal(expected, -2.0)
    np.testing.assert_allclose(similarity, -np.sort(-expected, axis=1)[:, :3], atol=1e-6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 40),
    threshold=st.floats(0.3, 0.999),
    block=st.integers(1, 50),
)
def test_near_copies_are_the_components_of_the_near_pairs(seed, rows, threshold, block):
    x = features(rows, 3, seed)
    found = cosines(x, x)
    if np.abs(found - threshold).min() < 1e-5:
        return  # rounding decides
    groups = evaluate.near_copies(x, threshold, max_bytes=64 * rows * block)
    assert [group.tolist() for group in groups] == groups_by_definition(x, threshold)


def test_planted_copies_are_found_and_left_out():
    x = features(200, 32)
    generator = np.random.default_rng(1)
    x[150] = 2.0 * x[3]
    x[160] = x[3] + 0.01 * generator.normal(size=32)
    x[199] = x[100] + 0.01 * generator.normal(size=32)
    assert [group.tolist() for group in evaluate.near_copies(x)] == [[3, 150, 160], [100, 199]]
    assert evaluate.without_copies(x).tolist() == [row for row in range(200) if row not in (150, 160, 199)]


def test_copies_up_to_rounding_are_found_at_a_threshold_of_1():
    x = features(50, 301)
    x[::2] = x[1::2] * 1.7
    assert len(evaluate.near_copies(x, threshold=1.0)) == 25
    assert evaluate.near_copies(features(50, 301), threshold=1.0) == []
    assert evaluate.without_copies(features(50, 301)).tolist() == list(range(50))


def test_all_copies_of_one_image_are_one_group():
    groups = evaluate.near_copies(np.ones((500, 4)), max_bytes=64 * 500 * 7)
    assert [group.tolist() for group in groups] == [list(range(500))]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: evaluate.search(x, k=60), "`k` must lie between 1 and the 59 rows"),
        (lambda x: evaluate.search(x, x, k=0), "`k` must lie between 1 and the 60 rows"),
        (lambda x: evaluate.search(x, x[:, :3]), "`queries` have 3 features a row and the collection has 5"),
        (lambda x: evaluate.search(x * np.nan), "`features` hold NaN"),
        (lambda x: evaluate.search(x[0]), r"`features` must be \(N, d\)"),
        (lambda x: evaluate.near_copies(x, 1.5), "`threshold` is a cosine"),
        (lambda x: evaluate.near_copies(x, np.nan), "`threshold` is a cosine"),
        (lambda x: evaluate.without_copies(x[:0]), r"`features` must be \(N, d\)"),
    ],
)
def test_what_can_not_be_searched_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(features())
