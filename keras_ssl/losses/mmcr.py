"""MMCR: the centroids of the images' views span as many dimensions as they can, as far as they can."""

from keras import ops

from keras_ssl.losses.nt_xent import normalized
from keras_ssl.shapes import shape_of

_ROUNDING = 2.0**-23  # of float32


def mmcr(views, local_weight=0.0):
    """The loss of MMCR: `−‖C‖_* + λ · mean_i ‖Z_i‖_*`, of rows at length 1, where ‖·‖_* is the nuclear norm.

    Z_i are the views of one image, and row i of C is their mean. C's nuclear norm is large where the views of an image
    agree, so that their mean is long, and the means of the images are spread over all dimensions.

    Args:
        views: `(n, k, d)`, the embeddings of k views of each image, any float type. All rows of the global batch.
        local_weight: λ, 0 or more.

    Returns:
        A float32 scalar, from −√(n · min(n, d)) up.

    Reference: Yerxa et al., "Learning Efficient Coding of Natural Images with Maximum Manifold Capacity
    Representations", 2023.
    """
    check_local_weight("mmcr", local_weight)
    shape = shape_of(views)
    if shape is not None and len(shape) != 3:
        raise ValueError(f"mmcr: `views` has the shape {shape}; it must be (images, views, dimensions).")
    views = unit_rows(views)
    loss = -nuclear_norm(ops.mean(views, axis=1))
    return loss + local_weight * ops.mean(nuclear_norm(views)) if local_weight else loss


def unit_rows(views):
    """`(n, k, d)` with each row at length 1, in float32."""
    rows = normalized(ops.reshape(views, (-1, views.shape[-1])))
    return ops.reshape(rows, (-1, *views.shape[1:]))


def nuclear_norm(matrix):
    """The sum of the singular values, with a gradient that is the same on each backend.

    The gradient is `U Vᵀ` over the singular values that are above rounding, that is, larger than the largest times
    float32's precision times the longer side. Where a value is 0 the norm has no gradient, and what a framework would
    give, U and V of a null space, is arbitrary; here those directions have none.

    Args:
        matrix: `(…, n, d)`.

    Returns:
        float32 `(…)`; NaN for a matrix that is not finite.
    """
    matrix = ops.cast(matrix, "float32")
    # torch raises an error where there is nothing to decompose, in place of the trainer's, which names the term.
    finite = ops.all(ops.isfinite(matrix), axis=(-2, -1))
    matrix = ops.where(finite[..., None, None], matrix, 0.0)
    values = ops.svd(matrix, full_matrices=False, compute_uv=False)
    side = ops.cast(ops.maximum(ops.shape(matrix)[-2], ops.shape(matrix)[-1]), "float32")
    largest = ops.max(values, axis=-1, keepdims=True)
    counted = ops.stop_gradient(values) > ops.stop_gradient(largest) * side * _ROUNDING
    return ops.where(finite, ops.sum(ops.where(counted, values, 0.0), axis=-1), float("nan"))


def check_local_weight(owner, local_weight):
    if not 0.0 <= local_weight < float("inf"):
        raise ValueError(f"{owner}: `local_weight` must be 0 or more; it is {local_weight!r}.")
