"""SIGReg: along random directions, embeddings are distributed as an isotropic Gaussian is."""

import numpy as np
from keras import ops

from keras_ssl import backend
from keras_ssl.shapes import check_rows, shape_of


def sigreg(rows, directions, knots=17, limit=3.0):
    """The sketched isotropic Gaussian regularization: the Epps–Pulley statistic of the rows along each direction.

    Of projections `x_n`, N of them, `T = N · ∫ |1/N · Σ_n e^{i t x_n} − e^{−t²/2}|² e^{−t²/2} dt`: how far their
    characteristic function is from that of a standard normal number, in a Gaussian window. The integral goes from
    −limit to limit, by the trapezoidal rule; its integrand is even, so that the knots lie on [0, limit].

    Args:
        rows: `(N, d)`, embeddings as they are, any float type. All rows of the global batch.
        directions: `(d, m)`; they are brought to length 1 here.
        knots: points of the integral, 2 or more; the authors' code: 17.
        limit: its end, above 0; the authors' code: 3.

    Returns:
        A float32 scalar, the mean over directions. Memory grows with N · m · knots.

    Reference: Balestriero & LeCun, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics",
    2025, algorithm 1, and its authors' code.
    """
    check_quadrature("sigreg", knots, limit)
    check_rows("sigreg", rows=rows)
    shape = shape_of(directions)
    if shape is not None and (len(shape) != 2 or rows.shape[-1] not in (None, shape[0])):
        raise ValueError(f"sigreg: `directions` has the shape {shape}; beside `rows` it must be ({rows.shape[-1]}, m).")
    rows, directions = ops.cast(rows, "float32"), ops.cast(directions, "float32")
    directions = directions / ops.sqrt(ops.sum(ops.square(directions), axis=0, keepdims=True))
    t = np.linspace(0.0, limit, knots)
    weights = np.full(knots, 2.0 * limit / (knots - 1))
    weights[[0, -1]] /= 2.0
    normal = np.exp(-np.square(t) / 2.0)
    t, normal, weights = (ops.convert_to_tensor(x, "float32") for x in (t, normal, weights * normal))
    angles = backend.matmul(rows, directions)[:, :, None] * t
    real, imaginary = ops.mean(ops.cos(angles), axis=0), ops.mean(ops.sin(angles), axis=0)
    statistic = ops.sum((ops.square(real - normal) + ops.square(imaginary)) * weights, axis=1)
    return ops.cast(ops.shape(rows)[0], "float32") * ops.mean(statistic)


def check_quadrature(owner, knots, limit):
    if not isinstance(knots, int) or knots < 2:
        raise ValueError(f"{owner}: `knots` must be a number of points, 2 or more; it is {knots!r}.")
    if not 0.0 < limit < float("inf"):
        raise ValueError(f"{owner}: `limit` must be above 0; it is {limit!r}.")
