"""Distances of embeddings, with gradients that are finite where the distance is zero.

Each function takes arrays `(…, d)` whose leading axes broadcast, computes in float32, and gives `(…)`. `matrix` gives
all distances between the rows of two arrays, through a matrix product where the distance allows it.
"""

import keras
from keras import ops

# Below this share of |a|² + |b|² the difference of float32 products is nothing but rounding, and so is its direction.
_ROUNDING = 1e-6


def _serializable(function):
    return keras.saving.register_keras_serializable("keras_ssl")(function)


@_serializable
def squared(a, b):
    """`|a − b|²`, 0 or more."""
    a, b = _float32(a, b)
    return ops.sum(ops.square(a - b), axis=-1)


@_serializable
def euclidean(a, b):
    """`|a − b|`, 0 or more. Its gradient has length 1, and is taken as 0 where the rows are equal."""
    return _root(squared(a, b))


@_serializable
def cosine(a, b):
    """`1 − cos(a, b)`, in [0, 2]. TensorFlow Addons calls this "angular". A row of zeros has the cosine 0 to all."""
    a, b = _float32(a, b)
    return 1.0 - ops.sum(normalized(a) * normalized(b), axis=-1)


@_serializable
def angular(a, b):
    """The angle between `a` and `b` as a share of a half turn, in [0, 1].

    It is taken from the lengths of the sum and the difference of the unit vectors, which for a pair is exact for small
    angles, where the arc cosine of a float32 is not. (`matrix` takes angles below about a thousandth for 0.) The
    gradient is taken as 0 at the angles 0 and π, where it has no direction.
    """
    a, b = _float32(a, b)
    a, b = normalized(a), normalized(b)
    return _angle(squared(a, b), squared(a, -b))


@_serializable
def dot_product(a, b):
    """`max(0, 1 − a·b)`: 0 for dot products of 1 or more, for embeddings that are not normalized."""
    a, b = _float32(a, b)
    return ops.relu(1.0 - ops.sum(a * b, axis=-1))


def matrix(distance, a, b):
    """The distances between all rows of `a` and all rows of `b`.

    Args:
        distance: a function of this module, or one of yours that broadcasts as they do: that one sees
            `(n, 1, d)` and `(1, m, d)`, and so takes memory for `n · m · d` numbers.
        a, b: `(n, d)` and `(m, d)`.

    Returns:
        float32 `(n, m)`.
    """
    if distance not in (squared, euclidean, cosine, angular, dot_product):
        return ops.cast(distance(a[:, None], b[None]), "float32")
    a, b = _float32(a, b)
    if distance is dot_product:
        return ops.relu(1.0 - ops.matmul(a, ops.transpose(b)))
    if distance in (cosine, angular):
        a, b = normalized(a), normalized(b)
    if distance is cosine:
        return 1.0 - ops.matmul(a, ops.transpose(b))
    if distance is angular:
        return _angle(_squared_matrix(a, b), _squared_matrix(a, -b))
    near = _squared_matrix(a, b)
    return near if distance is squared else _root(near)


def _float32(a, b):
    return ops.cast(a, "float32"), ops.cast(b, "float32")


def normalized(x):
    """Rows of length 1, in float32: cast first, for half precision would spoil the direction."""
    x = ops.cast(x, "float32")
    return x / ops.sqrt(ops.maximum(ops.sum(ops.square(x), axis=-1, keepdims=True), 1e-24))


def _squared_matrix(a, b):
    """`|a|² + |b|² − 2 a·b`, with what is rounding set to zero, and its gradient with it."""
    # What all rows have in common changes no distance, and takes digits from the difference below.
    center = ops.stop_gradient(ops.mean(b, axis=0, keepdims=True))
    a, b = a - center, b - center
    lengths = ops.sum(ops.square(a), axis=-1)[:, None] + ops.sum(ops.square(b), axis=-1)[None, :]
    values = lengths - 2.0 * ops.matmul(a, ops.transpose(b))
    return ops.where(values > _ROUNDING * lengths, values, 0.0)


def _root(values):
    """The square root, whose gradient at 0 is 0 and not infinite."""
    positive = values > 0.0
    return ops.where(positive, ops.sqrt(ops.where(positive, values, 1.0)), 0.0)


def _angle(difference, total):
    """From `|u − v|²` and `|u + v|²` of unit vectors the angle between them, over π."""
    # A millionth of a radian: what rounding leaves between two computations of one direction.
    inside = ops.logical_and(difference > 1e-12, total > 1e-12)
    # Where one of them is 0, the angle is known and its gradient is not: a constant takes the place of both.
    near, far = ops.where(inside, difference, 1.0), ops.where(inside, total, 1.0)
    angle = 2.0 / 3.141592653589793 * ops.arctan2(ops.sqrt(near), ops.sqrt(far))
    return ops.where(inside, angle, ops.where(difference > 1.0, 1.0, 0.0))
