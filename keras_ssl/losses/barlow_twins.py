"""Barlow Twins: the cross-correlation matrix of two views over the batch, towards the identity."""

from keras import ops

from keras_ssl import backend
from keras_ssl.shapes import check_rows, shape_of

# In the root of the variance, as the authors' batch normalization has it: a dimension that is the same for all images
# correlates with nothing, instead of dividing by zero.
_EPSILON = 1e-5


def barlow_twins(a, b, off_diagonal_weight=5e-3, scale=1.0):
    """The loss of Barlow Twins: `scale · ( Σ_i (C_ii − 1)² + off_diagonal_weight · Σ_i Σ_{j≠i} C_ij² )`.

    C is the cross-correlation matrix of the two views over the batch, `cross_correlation(a, b)`. Both sums are over
    the dimensions and divided by nothing, as in the paper: the loss grows with d, and its second part with d².

    Args:
        a, b: embeddings of the first and of the second view, `(n, d)`, any float type; row i of both is one image. All
            rows of the global batch: `keras_ssl.distribute.gather` first where there are replicas.
        off_diagonal_weight: λ, 0 or more; the paper: 5e-3.
        scale: of the whole loss, above 0. The paper's is 1; earlier versions of the authors' code have `--scale-loss`,
            1/32 or 0.024, which goes together with a learning rate as many times larger.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: for one row, whose correlation is not defined; for shapes that differ; for arguments out of range.

    Reference: Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", 2021, eq. 1 (the loss)
    and eq. 2 (C).
    """
    invariance, redundancy = barlow_twins_terms(cross_correlation(a, b), off_diagonal_weight, scale)
    return invariance + redundancy


def barlow_twins_terms(correlation, off_diagonal_weight=5e-3, scale=1.0):
    """The two parts of `barlow_twins`, weighted so that they add up to it.

    Args:
        correlation: `(d, d)`, from `cross_correlation`.
        off_diagonal_weight, scale: as of `barlow_twins`.

    Returns:
        `(invariance, redundancy)`, float32 scalars: how far the diagonal is from 1, and the rest from 0.
    """
    check_barlow_twins("barlow_twins", off_diagonal_weight, scale)
    invariance = ops.sum(ops.square(ops.diagonal(correlation) - 1.0))
    return scale * invariance, scale * off_diagonal_weight * ops.sum(ops.square(off_diagonal(correlation)))


def cross_correlation(a, b):
    """C of equation 2: `C_ij = Σ_n â_ni b̂_nj / N`, with each dimension of a and b at mean 0 and variance 1 over rows.

    The variance is the biased one, with 1e-5 added before the root, as in the authors' batch normalization; so C_ij
    lies in [−1, 1], and a dimension with the variance v correlates with itself by v / (v + 1e-5).

    Args:
        a, b: `(n, d)`, any float type, two rows or more.

    Returns:
        float32 `(d, d)`; rows are the dimensions of `a`.
    """
    check_rows("barlow_twins", a=a, b=b)
    if 1 in (shape_of(a)[0], shape_of(b)[0]):
        raise ValueError("barlow_twins: `a` and `b` hold one row, and a correlation is over images: give 2 or more.")
    a, b = _standardized(a), _standardized(b)
    return backend.matmul(ops.transpose(a), b) / ops.cast(ops.shape(a)[0], "float32")


def check_barlow_twins(owner, off_diagonal_weight, scale):
    """Raises `ValueError` for a weight or a scale out of range."""
    if not 0.0 <= off_diagonal_weight < float("inf"):
        raise ValueError(f"{owner}: `off_diagonal_weight` must be 0 or more; it is {off_diagonal_weight!r}.")
    if not 0.0 < scale < float("inf"):
        raise ValueError(f"{owner}: `scale` must be above 0; it is {scale!r}.")


def _standardized(x):
    """Each column at mean 0 and variance 1, in float32: cast first, for half precision would spoil the direction."""
    x = ops.cast(x, "float32")
    x = x - ops.mean(x, axis=0, keepdims=True)
    # And what rounding left of the mean: of a large constant it is more than the epsilon, and correlates with itself.
    x = x - ops.mean(x, axis=0, keepdims=True)
    return x / ops.sqrt(ops.mean(ops.square(x), axis=0, keepdims=True) + _EPSILON)


def off_diagonal(matrix):
    """`(d − 1, d)`: all but the diagonal, without a mask as large as the matrix.

    Without its last entry, the flattened matrix is rows of d + 1 that each begin with an entry of the diagonal.
    """
    width = matrix.shape[0]
    return ops.reshape(ops.reshape(matrix, (-1,))[:-1], (width - 1, width + 1))[:, 1:]
