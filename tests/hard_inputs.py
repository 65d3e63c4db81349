"""Hard inputs, and what the backend gives for them held to `float64`."""

import itertools
import os

import float64
import keras
import numpy as np
import pytest
from keras import ops

COLD = [0.001, 0.01, 0.1, 1.0, 100.0]
# torch takes the whole product in seconds. By default TensorFlow and JAX take each value of each axis with a third of
# the others', and of temperatures each in turn. All: HARD_INPUTS=all.
ALL = keras.backend.backend() == "torch" or os.environ.get("HARD_INPUTS") == "all"
EPSILON = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def cases(**axes):
    """`pytest.mark.parametrize` for the product of the axes."""
    places = itertools.product(*(range(len(axis)) for axis in axes.values()))
    product = list(zip(places, itertools.product(*axes.values())))
    return pytest.mark.parametrize(tuple(axes), [_case(sum(place), *case) for place, case in product])


def at_temperatures(axis, values):
    """Each value with each of the `VIEWS`, and with temperatures."""
    chosen = [
        _case(i + j, value, name, temperature)
        for i, value in enumerate(values)
        for j, name in enumerate(VIEWS)
        for temperature in (COLD if ALL else [COLD[(i + j) // 3 % 5]])
    ]
    return pytest.mark.parametrize((axis, "name", "temperature"), chosen)


def _case(place, *case):
    # JAX compiles each operation again for each shape: two images there are for the losses of two views.
    shape = keras.backend.backend() == "jax" and not str(case[0]).startswith(("nt_xent", "debiased"))
    often = place % 3 == 0 and not (shape and {"two images", "unit vectors", "two"} & set(map(str, case)))
    return pytest.param(*case, marks=[] if ALL or often else pytest.mark.slow)


def normal(n, d=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype("float32")


def two_views():
    a, b = normal(3), normal(3, seed=1)
    zero = a.copy()
    zero[1] = 0.0
    mixed = (10.0 ** np.linspace(-18, 18, 3)).astype("float32")[:, None]
    units = np.eye(4, dtype="float32")
    return {
        "plain": (a, b),
        **{f"norms of {scale:g}": (a * np.float32(scale), b * np.float32(scale)) for scale in (1e-18, 1e-6, 1e6, 1e18)},
        "mixed norms": (a * mixed, b * mixed[::-1]),
        "equal views": (a, a.copy()),
        "nearly equal views": (a, a + 1e-2 * b),
        "opposite views": (a, -a),
        "all rows equal": (np.ones_like(a), np.ones_like(a)),
        "a row of zeros": (zero, b),
        "all zeros": (0.0 * a, 0.0 * b),
        "ties": (units[:3], units[[1, 2, 0]]),
        "unit vectors": (units[:2], units[2:4]),
        "two images": (a[:2], b[:2]),
        "float16": (a.astype("float16"), b.astype("float16")),
        "bfloat16": (a, b, "bfloat16"),
    }


VIEWS = two_views()
LABELS = np.array([0, 0, 0, 1, 1, -1])


def two(name):
    a, b, *dtype = VIEWS[name]
    return a, b, dtype[0] if dtype else str(a.dtype)


def labeled(name):
    """Both views as rows of one array, their labels, and their type."""
    a, b, dtype = two(name)
    z = np.concatenate([a, b])
    return z, LABELS if len(z) == 6 else np.array([0, 0, 1, 1]), dtype


def rows_and_gradients(function, arrays, dtype):
    """The rows that `function` gives in the backend, and the gradients of their sum by `float64.weights`."""
    backend = keras.backend.backend()

    def total(*tensors):
        rows = ops.reshape(function(*tensors), (-1,))
        return ops.sum(rows * ops.convert_to_tensor(float64.weights(rows.shape[0]).astype("float32"))), rows

    if backend == "tensorflow":
        import tensorflow as tf

        tensors = [tf.cast(array, dtype) for array in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value, rows = total(*tensors)
        gradients = tape.gradient(value, tensors, unconnected_gradients="zero")
    elif backend == "jax":
        import jax

        tensors = [jax.numpy.asarray(array, dtype) for array in arrays]
        (_, rows), gradients = jax.value_and_grad(total, tuple(range(len(tensors))), has_aux=True)(*tensors)
    else:
        import torch

        options = {"dtype": getattr(torch, dtype), "device": ops.zeros(()).device, "requires_grad": True}
        tensors = [torch.tensor(array, **options) for array in arrays]
        value, rows = total(*tensors)
        if value.requires_grad:
            value.backward()
        gradients = [torch.zeros_like(tensor) if tensor.grad is None else tensor.grad for tensor in tensors]
    gradients = [ops.convert_to_numpy(ops.cast(gradient, "float32")) for gradient in gradients]
    seen = [ops.convert_to_numpy(ops.cast(ops.stop_gradient(tensor), "float32")) for tensor in tensors]
    return ops.convert_to_numpy(ops.stop_gradient(rows)), gradients, seen


def assert_right(function, reference, arrays, dtype, value_error, slope_error, free=True, slopes=True):
    """Args:
    value_error: that rounding may make, absolute, besides 1e-5 of the value.
    slope_error: of gradients times the length of their row (`free`) or as they are.
    """
    rows, gradients, seen = rows_and_gradients(function, arrays, dtype)
    # Of what the loss sees: half precision has rounded it.
    expected, slopes_expected = float64.rows_and_gradients(reference, *(array.astype("float64") for array in seen))
    np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=value_error)
    for gradient, slope, array in zip(gradients, slopes_expected, seen):
        assert np.isfinite(gradient).all()
        if not slopes:
            continue
        length = np.linalg.norm(array.astype("float64"), axis=-1, keepdims=True) if free else 1.0
        length = np.where(length == 0.0, 1.0, length)
        # A gradient has the type of what it is of, and its rounding.
        bound = slope_error + max(2e-5, EPSILON[dtype]) * np.abs(slope * length).max()
        np.testing.assert_allclose(gradient * length, slope * length, rtol=0, atol=bound)
