"""Reducers: weighted means and fractions of rows, taken over the global batch."""

from keras import ops

from keras_ssl import distribute


def weighted_mean_rows(values, weight, positive_only=False):
    """Scales row values so that their mean over the global batch is the weighted mean `Σ weight · value / Σ weight`.

    A mean of each replica's own mean would weigh a pair more where it has few others beside it.

    Args:
        values: float32 `(n, …)`, this replica's rows.
        weight: boolean or float32, 0 or more, of a shape that broadcasts with `values`. It has no gradient.
        positive_only: leave what costs nothing out of the count as well: the mean over active pairs or triplets.

    Returns:
        float32 `(n,)`; 0 where nothing counts at all.
    """
    weight = ops.stop_gradient(ops.cast(weight, "float32"))
    # What has no weight may hold anything, and its gradient must not be 0 times infinity.
    values = ops.where(weight > 0.0, values, 0.0)
    if positive_only:
        weight = ops.where(values > 0.0, weight, 0.0)
    weight = ops.broadcast_to(weight, ops.shape(values))
    inner = tuple(range(1, len(values.shape)))
    total = distribute.global_sum(ops.sum(weight))
    rows = ops.cast(ops.shape(values)[0] * distribute.replicas(), "float32")
    sums = ops.sum(values * weight, axis=inner) if inner else values * weight
    return sums * (rows / ops.where(total > 0.0, total, 1.0))


def weighted_fraction(weight, where):
    """The fraction of `weight` where `where` is true, over the global batch: a float32 scalar, 0 if all weights are."""
    weight = ops.stop_gradient(ops.cast(weight, "float32"))
    part = ops.sum(ops.where(where, weight, 0.0))
    whole = ops.sum(ops.broadcast_to(weight, ops.shape(ops.where(where, weight, 0.0))))
    part, whole = distribute.global_sum(part), distribute.global_sum(whole)
    return part / ops.where(whole > 0.0, whole, 1.0)
