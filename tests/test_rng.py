"""Random numbers as a pure function of (key, row)."""

import zlib

import numpy as np
import pytest
from conftest import compiled
from keras import ops
from scipy import stats

from keras_ssl.augment import RowRNG

ROWS = np.arange(50_000)


def lowbias32(x):
    """The hash as its author wrote it, in unsigned integers of numpy."""
    x = np.asarray(x, "uint32")
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def oracle(seed, step, view, name, rows, columns):
    # A seed is hashed when the draws are made; a tensor is mixed into the key; what is known while tracing is a number.
    golden, sqrt3 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
    with np.errstate(over="ignore"):
        tensor = lowbias32(lowbias32(np.uint32(seed)) + np.uint32(step) * golden)
        number = np.uint32(0)
        for part in (view, zlib.crc32(name.encode())):
            number = lowbias32(number + np.uint32(part + 1) * golden)
        counter = lowbias32(rows.astype("uint32") * golden) + lowbias32(tensor + number)
        counter = counter[:, None] + np.arange(columns, dtype="uint32")[None] * sqrt3
        return (lowbias32(counter) >> np.uint32(8)).astype("float32") * np.float32(2.0**-24)


def numbers(seed=7, step=3, view=1, rows=ROWS, name="crop", columns=4):
    rng = RowRNG(seed, ops.convert_to_tensor(rows.astype("int32"))).fold_in(ops.convert_to_tensor(np.int32(step)), view)
    return ops.convert_to_numpy(rng.uniform(name, columns))


def test_draws_are_bit_equal_to_the_hash_in_numpy_on_every_backend():
    np.testing.assert_array_equal(numbers(), oracle(7, 3, 1, "crop", ROWS, 4))


def test_a_row_has_its_numbers_in_whichever_batch_it_sits():
    np.testing.assert_array_equal(numbers(rows=ROWS[1000:1010]), numbers()[1000:1010])


def test_compiled_draws_are_the_same_bits():
    def draw(rows, step):
        return RowRNG(7, rows).fold_in(step, 1).uniform("crop", 4)

    rows, step = ops.convert_to_tensor(ROWS.astype("int32")), ops.convert_to_tensor(np.int32(3))
    np.testing.assert_array_equal(ops.convert_to_numpy(compiled(draw)(rows, step)), numbers())


@pytest.mark.parametrize("change", [{"seed": 8}, {"step": 4}, {"view": 2}, {"name": "flip"}])
def test_another_seed_step_view_or_name_gives_independent_numbers(change):
    one, other = numbers()[:, 0], numbers(**change)[:, 0]
    assert np.mean(one == other) < 1e-3
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.02  # 4.5 standard errors of 50,000 pairs


def test_numbers_are_uniform_and_uncorrelated_over_columns_and_neighbors():
    drawn = numbers()
    assert drawn.min() >= 0.0
    assert drawn.max() < 1.0
    for column in drawn.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    between = np.corrcoef(drawn.T) - np.eye(4)
    assert np.abs(between).max() < 0.02
    assert abs(np.corrcoef(drawn[1:, 0], drawn[:-1, 0])[0, 1]) < 0.02


def test_neighboring_seeds_and_steps_are_independent():
    first = np.array(
        [[numbers(seed, step, rows=ROWS[:1], columns=1)[0, 0] for step in range(20)] for seed in range(20)]
    )
    assert stats.kstest(first.ravel(), "uniform").pvalue > 1e-3
    assert len(np.unique(first)) == first.size


def test_permutations_are_permutations_and_each_place_takes_each_value():
    rng = RowRNG(0, ops.arange(4000))
    orders = ops.convert_to_numpy(rng.permutation("order", 4))
    assert (np.sort(orders, axis=1) == np.arange(4)).all()
    counts = np.array([[np.sum(orders[:, place] == value) for value in range(4)] for place in range(4)])
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


def test_chance_is_the_share_of_rows():
    drawn = ops.convert_to_numpy(RowRNG(0, ops.arange(20_000)).bernoulli("apply", 0.3))
    assert abs(drawn.mean() - 0.3) < 0.015
