"""Sums, softmax, largest and smallest over what a boolean mask counts.

What does not count is minus infinity, and never a large negative number: that one is larger than what a low temperature
or a large distance makes. Rows of which nothing counts have a value of their own, and a gradient of 0.
"""

from keras import ops

_INFINITY = float("inf")


def log_sum_exp(logits, counted):
    """`log Σ exp(logits)` of each row over what is counted; minus infinity, with the gradient 0, where nothing is.

    Args:
        logits: float32 `(n, m)`.
        counted: boolean `(n, m)`.

    Returns:
        float32 `(n,)`. `softplus` of minus infinity is 0, and so is its gradient.
    """
    some = ops.any(counted, axis=1)
    return ops.where(some, ops.logsumexp(_finite_rows(logits, counted, some), axis=1), -_INFINITY)


def softmax(logits, counted):
    """The softmax of each row over what is counted: float32 `(n, m)`, 0 for the rest."""
    some = ops.any(counted, axis=1)
    return ops.where(counted, ops.softmax(_finite_rows(logits, counted, some), axis=1), 0.0)


def largest(values, counted):
    """The largest of what is counted in each row, `(n,)`; minus infinity where nothing is."""
    return ops.max(ops.where(counted, values, -_INFINITY), axis=1)


def smallest(values, counted):
    """The smallest of what is counted in each row, `(n,)`; infinity where nothing is."""
    return ops.min(ops.where(counted, values, _INFINITY), axis=1)


def _finite_rows(logits, counted, some):
    """The logits, minus infinity where not counted. A row of infinities alone has no gradient: it stays as it is."""
    return ops.where(ops.logical_or(counted, ops.logical_not(some)[:, None]), logits, -_INFINITY)
