"""Distances of embeddings, with gradients that are finite where the distance is zero.

Each function takes arrays `(…, d)` whose leading axes broadcast, computes in float32, and gives `(…)`. `matrix` gives
all distances between the rows of two arrays, through a matrix product where the distance allows it.
"""

import keras
from keras import ops

from keras_ssl import backend
from keras_ssl.shapes import check_rows, check_width

__all__ = ["angular", "cosine", "dot_product", "euclidean", "matrix", "normalized", "squared"]

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
    difference, size = _scaled(ops.subtract(*_float32(a, b)))
    return size[..., 0] * _root(ops.sum(ops.square(difference), axis=-1))


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
    gradient is taken as 0 at the angles 0 and π, where it has no direction. A row of zeros is at a right angle to all.
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

    A squared distance is right to a millionth of `|a|² + |b|²`, the rows less what they have in common; below that it
    is 0. So beside rows a thousand times longer, short ones are all at one place.

    Args:
        distance: a function of this module, or one of yours that broadcasts as they do: that one sees
            `(n, 1, d)` and `(1, m, d)`, and so takes memory for `n · m · d` numbers.
        a, b: `(n, d)` and `(m, d)`.

    Returns:
        float32 `(n, m)`.
    """
    check_rows("matrix", a=a)
    check_width("matrix", ("a", a), b=b)
    if distance not in (squared, euclidean, cosine, angular, dot_product):
        return ops.cast(distance(a[:, None], b[None]), "float32")
    a, b = _float32(a, b)
    if distance is dot_product:
        return ops.relu(1.0 - backend.matmul(a, ops.transpose(b)))
    if distance in (cosine, angular):
        a, b = normalized(a), normalized(b)
    if distance is cosine:
        return 1.0 - backend.matmul(a, ops.transpose(b))
    if distance is angular:
        return _angle(_squared_matrix(a, b), _squared_matrix(a, -b))
    # Squares of what is below 1e-19 or above 1e19 are no float32 numbers: they are taken at the size of 1.
    size = ops.maximum(_size(a, None), _size(b, None))
    size = ops.where(ops.equal(size, 0.0), 1.0, size)
    near = _squared_matrix(a / size, b / size)
    return ops.square(size) * near if distance is squared else size * _root(near)


def _float32(a, b):
    return ops.cast(a, "float32"), ops.cast(b, "float32")


def normalized(x):
    """Rows of length 1, in float32: cast first, for half precision would spoil the direction.

    A row of zeros has no direction: it stays, and its gradient is 0. All others are brought to length 1, however short.
    """
    x, _ = _scaled(ops.cast(x, "float32"))
    length = ops.sum(ops.square(x), axis=-1, keepdims=True)
    # Not "where it is above 0": a NaN must stay one, or a broken network would look like a good one.
    none = ops.equal(length, 0.0)
    return ops.where(none, 0.0, x / ops.sqrt(ops.where(none, 1.0, length)))


def _scaled(x):
    """`x / size` and the size of each row: its largest number, or 1. Squares of these are neither 0 nor infinite."""
    size = _size(x, -1)
    size = ops.where(ops.equal(size, 0.0), 1.0, size)
    return x / size, size


def _size(x, axis):
    return ops.stop_gradient(ops.max(ops.abs(x), axis=axis, keepdims=True))


def _squared_matrix(a, b):
    """`|a|² + |b|² − 2 a·b`, with what is rounding set to zero, and its gradient with it."""
    # What all rows have in common changes no distance, and takes digits from the difference below.
    center = ops.stop_gradient(ops.mean(b, axis=0, keepdims=True))
    a, b = a - center, b - center
    lengths = ops.sum(ops.square(a), axis=-1)[:, None] + ops.sum(ops.square(b), axis=-1)[None, :]
    values = lengths - 2.0 * backend.matmul(a, ops.transpose(b))
    return ops.where(values <= _ROUNDING * lengths, 0.0, values)


def _root(values):
    """The square root, whose gradient at 0 is 0 and not infinite."""
    zero = values <= 0.0
    return ops.where(zero, 0.0, ops.sqrt(ops.where(zero, 1.0, values)))


def _angle(difference, total):
    """From `|u − v|²` and `|u + v|²` of unit vectors the angle between them, over π."""
    # A millionth of a radian: what rounding leaves between two computations of one direction.
    outside = ops.logical_or(difference <= 1e-12, total <= 1e-12)
    # Where one of them is 0, the angle is known and its gradient is not: a constant takes the place of both.
    near, far = ops.where(outside, 1.0, difference), ops.where(outside, 1.0, total)
    angle = 2.0 / 3.141592653589793 * ops.arctan2(ops.sqrt(near), ops.sqrt(far))
    # Of two rows of zeros it is a right angle, as of one.
    known = ops.where(difference > 1.0, 1.0, ops.where(total > 1.0, 0.0, 0.5))
    return ops.where(outside, known, angle)
