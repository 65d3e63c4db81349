"""Distances: what they are, one by one and all at once, and their gradients where they are zero."""

import keras
import numpy as np
import pytest
from conftest import compiled, numpy, value_and_gradients
from keras import ops

from keras_ssl import distances

ALL = [distances.squared, distances.euclidean, distances.cosine, distances.angular, distances.dot_product]
DEFINITIONS = {
    distances.squared: lambda a, b: ((a - b) ** 2).sum(),
    distances.euclidean: lambda a, b: np.sqrt(((a - b) ** 2).sum()),
    distances.cosine: lambda a, b: 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b),
    distances.angular: lambda a, b: np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1)) / np.pi,
    distances.dot_product: lambda a, b: max(0.0, 1 - a @ b),
}


def rows(n, d=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype("float32")


@pytest.mark.parametrize("distance", ALL)
def test_a_distance_is_its_definition_for_pairs_and_for_all_pairs(distance):
    a, b = rows(5), rows(7, seed=1)
    expected = [[DEFINITIONS[distance](x.astype("float64"), y.astype("float64")) for y in b] for x in a]
    np.testing.assert_allclose(numpy(distances.matrix(distance, a, b)), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(numpy(distance(a, b[:5])), np.diag(expected), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(numpy(distance(a[:, None], b[None])), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("distance", ALL)
def test_the_matrix_has_the_gradient_of_the_pairs(distance):
    a, b, weight = rows(4), rows(5, seed=1), ops.convert_to_tensor(rows(4, 5, seed=2))
    _, fast = value_and_gradients(lambda a, b: ops.sum(weight * distances.matrix(distance, a, b)), a, b)
    _, plain = value_and_gradients(lambda a, b: ops.sum(weight * distance(a[:, None], b[None])), a, b)
    for one, other in zip(fast, plain):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("distance", ALL)
def test_gradients_are_finite_and_zero_in_sum_where_rows_are_equal_or_zero(distance):
    a = rows(4)
    a[1] = 0.0
    for b in (a.copy(), -a, np.zeros_like(a)):
        for function in (
            lambda a, b: ops.sum(distance(a, b)),
            lambda a, b: ops.sum(distances.matrix(distance, a, b)),
        ):
            value, gradients = value_and_gradients(function, a, b)
            assert np.isfinite(value)
            assert all(np.isfinite(gradient).all() for gradient in gradients)
    # The distance of a row to itself is the least there is, so nothing pulls there.
    if distance is not distances.dot_product:
        value, gradients = value_and_gradients(lambda a, b: ops.sum(distance(a, b)), a[:1], a[:1].copy())
        assert value == pytest.approx(0.0, abs=1e-6)
        np.testing.assert_allclose(gradients, 0.0, atol=1e-6)


def test_equal_rows_are_at_distance_zero_in_the_matrix_and_not_at_its_rounding():
    a = 100.0 + rows(6)
    assert np.all(np.diag(ops.convert_to_numpy(distances.matrix(distances.euclidean, a, a))) == 0.0)


def test_far_from_the_origin_distances_keep_their_digits():
    a = rows(40) + 50.0
    exact = np.linalg.norm(a[:, None].astype("float64") - a[None], axis=2)
    np.testing.assert_allclose(numpy(distances.matrix(distances.euclidean, a, a)), exact, rtol=1e-4, atol=1e-5)


def test_small_angles_of_pairs_are_exact():
    a = np.array([[1.0, 0.0]], "float32")
    for angle in (1e-3, 1e-4):
        b = np.array([[np.cos(angle), np.sin(angle)]], "float32")
        assert float(distances.angular(a, b)[0]) == pytest.approx(angle / np.pi, rel=1e-3)


def test_a_function_of_the_users_is_a_distance_too():
    def manhattan(a, b):
        return ops.sum(ops.abs(a - b), axis=-1)

    a, b = rows(3), rows(4, seed=1)
    expected = np.abs(a[:, None] - b[None]).sum(axis=-1)
    np.testing.assert_allclose(numpy(distances.matrix(manhattan, a, b)), expected, rtol=1e-5)


@pytest.mark.parametrize("distance", ALL)
def test_they_compile_and_compute_in_float32(distance):
    a, b = map(ops.convert_to_tensor, (rows(4), rows(5, seed=1)))
    together = compiled(lambda a, b: distances.matrix(distance, a, b))(a, b)
    np.testing.assert_allclose(numpy(together), numpy(distances.matrix(distance, a, b)), rtol=1e-5, atol=1e-6)
    half = distances.matrix(distance, ops.cast(a, "bfloat16"), ops.cast(b, "bfloat16"))
    assert keras.backend.standardize_dtype(half.dtype) == "float32"


@pytest.mark.parametrize("distance", ALL)
def test_a_distance_is_saved_by_name(distance):
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(distance)) is distance
