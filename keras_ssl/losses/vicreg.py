"""VICReg: views agree, each dimension varies, and no two dimensions say the same."""

from keras import ops

from keras_ssl import backend
from keras_ssl.losses.barlow_twins import off_diagonal
from keras_ssl.shapes import check_rows, shape_of

# In the root of the variance, as in the paper: its slope is finite where a dimension is the same for all images.
_EPSILON = 1e-4


def vicreg(a, b, invariance_weight=25.0, variance_weight=25.0, covariance_weight=1.0):
    """The loss of VICReg: `λ · s(a, b) + μ · (v(a) + v(b)) / 2 + ν · (c(a) + c(b))`.

    Of embeddings as they are, not normalized, with n rows and d dimensions:

    - invariance: `s(a, b) = Σ_i |a_i − b_i|² / (n · d)`;
    - variance: `v(z) = Σ_j max(0, 1 − √(Var(z_j) + 1e-4)) / d`;
    - covariance: `c(z) = Σ_{j≠k} Cov(z)_jk² / d`.

    Variances and covariances are divided by n − 1. As in the authors' code, s is divided by d, and v is the mean of
    both views; the paper's equation 5 does not divide by d, and its equation 6 adds both v. Fourth powers of the
    embeddings are summed: beyond 1e9 they leave float32.

    Args:
        a, b: embeddings of the first and of the second view, `(n, d)`, any float type; row i of both is one image. All
            rows of the global batch: `keras_ssl.distribute.gather` first where there are replicas.
        invariance_weight, variance_weight, covariance_weight: λ, μ and ν, 0 or more; the paper: 25, 25 and 1.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: for one row, which has no variance; for shapes that differ; for arguments out of range.

    Reference: Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning",
    2022, eq. 1 to 6.
    """
    return sum(vicreg_terms(a, b, invariance_weight, variance_weight, covariance_weight))


def vicreg_terms(a, b, invariance_weight=25.0, variance_weight=25.0, covariance_weight=1.0):
    """The three parts of `vicreg`, weighted so that they add up to it.

    Args:
        a, b, invariance_weight, variance_weight, covariance_weight: as of `vicreg`.

    Returns:
        `(invariance, variance, covariance)`, float32 scalars.
    """
    check_vicreg("vicreg", invariance_weight, variance_weight, covariance_weight)
    check_rows("vicreg", a=a, b=b)
    if 1 in (shape_of(a)[0], shape_of(b)[0]):
        raise ValueError("vicreg: `a` and `b` hold one row, and a variance is over images: give 2 or more.")
    a, b = ops.cast(a, "float32"), ops.cast(b, "float32")
    variance, covariance = zip(*(_variance_and_covariance(z) for z in (a, b)))
    return (
        invariance_weight * ops.mean(ops.square(a - b)),
        variance_weight * sum(variance) / 2.0,
        covariance_weight * sum(covariance),
    )


def deviations(z):
    """The standard deviation of each dimension over the rows, `√(Var + 1e-4)`: float32 `(d,)`."""
    return _deviations(_centered(ops.cast(z, "float32")))


def check_vicreg(owner, invariance_weight, variance_weight, covariance_weight):
    """Raises `ValueError` for a weight out of range."""
    weights = {
        "invariance_weight": invariance_weight,
        "variance_weight": variance_weight,
        "covariance_weight": covariance_weight,
    }
    for name, weight in weights.items():
        if not 0.0 <= weight < float("inf"):
            raise ValueError(f"{owner}: `{name}` must be 0 or more; it is {weight!r}.")


def _variance_and_covariance(z):
    z = _centered(z)
    matrix = backend.matmul(ops.transpose(z), z) / _degrees(z)
    return (
        ops.mean(ops.relu(1.0 - _deviations(z))),
        ops.sum(ops.square(off_diagonal(matrix))) / ops.cast(ops.shape(z)[1], "float32"),
    )


def _deviations(z):
    return ops.sqrt(ops.sum(ops.square(z), axis=0) / _degrees(z) + _EPSILON)


def _centered(z):
    z = z - ops.mean(z, axis=0, keepdims=True)
    # And what rounding left of the mean: of a large constant it is no small number.
    return z - ops.mean(z, axis=0, keepdims=True)


def _degrees(z):
    return ops.cast(ops.shape(z)[0] - 1, "float32")
