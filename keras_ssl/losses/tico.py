"""TiCo: a row agrees with the teacher's view of it, and avoids the directions that past rows have filled."""

from keras import ops

from keras_ssl import backend
from keras_ssl.losses.nt_xent import normalized
from keras_ssl.shapes import check_rows


def tico_terms(queries, keys, covariance, covariance_weight=8.0):
    """The two terms of TiCo for each row, `1 − q·k` and `ρ · qᵀ C q`, of rows at length 1.

    Args:
        queries: `(n, d)`, the network's embeddings, any float type.
        keys: `(n, d)`, the teacher's, of the other view; row i of both is one image.
        covariance: `(d, d)`, C: the running mean of `q qᵀ` (`running_covariance`). No gradient goes into it.
        covariance_weight: ρ, 0 or more.

    Returns:
        `(invariance, contrast)`, float32 `(n,)` each. The mean over the global batch of their sum is the loss of
        Lightly; the paper writes the first as `|q − k|² / 2`, which is the same.

    Reference: Zhu et al., "TiCo: Transformation Invariance and Covariance Contrast for Self-Supervised Visual
    Representation Learning", 2022.
    """
    check_covariance_weight("tico_terms", covariance_weight)
    check_rows("tico_terms", queries=queries, keys=keys)
    queries, keys = normalized(queries), normalized(keys)
    covariance = ops.stop_gradient(ops.cast(covariance, "float32"))
    along = ops.sum(backend.matmul(queries, covariance) * queries, axis=1)
    return 1.0 - ops.sum(queries * keys, axis=1), covariance_weight * along


def running_covariance(covariance, queries, decay=0.9):
    """`β · C + (1 − β) · mean of q qᵀ`, of rows at length 1: float32 `(d, d)`, without gradients.

    Args:
        covariance: `(d, d)`, C so far; zeros at the beginning.
        queries: `(N, d)`, those of the global batch.
        decay: β, in [0, 1).
    """
    check_decay("running_covariance", decay)
    queries = ops.stop_gradient(normalized(queries))
    mean = backend.matmul(ops.transpose(queries), queries) / ops.cast(ops.shape(queries)[0], "float32")
    return decay * ops.cast(covariance, "float32") + (1.0 - decay) * mean


def check_covariance_weight(owner, covariance_weight):
    if not 0.0 <= covariance_weight < float("inf"):
        raise ValueError(f"{owner}: `covariance_weight` must be 0 or more; it is {covariance_weight!r}.")


def check_decay(owner, decay):
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"{owner}: `decay` must lie in [0, 1); it is {decay!r}.")
