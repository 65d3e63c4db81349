"""Does the loss predict downstream accuracy? Rank correlations of metrics that need no labels with those that do."""

import math
from typing import NamedTuple

import numpy as np

# Names of metrics that need labels end like this.
DOWNSTREAM = ("knn_accuracy", "linear_accuracy")
# Set by a schedule, not measured: they would order checkpoints by age.
_SCHEDULES = ("learning_rate", "momentum", "teacher_momentum")
# Random orders that are tried; eight checkpoints or fewer have fewer orders, and all of them are.
_RESAMPLES = 50_000


class RankCorrelation(NamedTuple):
    """Spearman's rho in [−1, 1], its p-value, both None where rho is undefined; and over how many checkpoints."""

    rho: float | None
    p_value: float | None
    checkpoints: int


def rank_correlation(proxy, downstream):
    """Spearman's rank correlation of two metrics over the checkpoints of a run.

    The p-value is that of a permutation test, two-sided: the share of orders of the checkpoints whose rho is as far
    from 0. It is exact up to eight checkpoints. (`scipy.stats.spearmanr` goes by a t distribution, which gives p = 0
    for three checkpoints in order, where the truth is 1/3.) Neighboring checkpoints of a run are no independent draws,
    as the test takes them to be, so it is a lower bound on doubt.

    Args:
        proxy, downstream: `(n,)`, one number per checkpoint; those where either is missing (None or NaN) are left out.

    Returns:
        A `RankCorrelation`; rho and p are None for fewer than three checkpoints, and where a metric never changes.

    Raises:
        ValueError: where the two differ in length.
    """
    proxy, downstream = _numbers(proxy), _numbers(downstream)
    if len(proxy) != len(downstream):
        raise ValueError(
            f"rank_correlation: `proxy` has {len(proxy)} checkpoints and `downstream` {len(downstream)}: give both for "
            "the same ones, and None where one was not measured."
        )
    from scipy.stats import permutation_test, rankdata  # a second of imports, which no run needs before its page

    known = np.isfinite(proxy) & np.isfinite(downstream)
    proxy, downstream = rankdata(proxy[known]), rankdata(downstream[known])
    count = len(proxy)
    if count < 3 or np.ptp(proxy) == 0.0 or np.ptp(downstream) == 0.0:
        return RankCorrelation(None, None, count)
    proxy, downstream = proxy - proxy.mean(), downstream - downstream.mean()
    scale = np.sqrt(np.sum(proxy**2) * np.sum(downstream**2))

    def rho(order, axis=-1):
        # Rounded, so that orders of equal rho count as equal whichever way their sum was taken.
        return np.round(np.sum(order * downstream, axis=axis) / scale, 12)

    tested = permutation_test(
        (proxy,), rho, permutation_type="pairings", vectorized=True, n_resamples=_RESAMPLES, batch=10_000, rng=0
    )
    # A sum over both tails, instead of twice the smaller: with ties the distribution is not symmetric.
    as_far = np.abs(tested.null_distribution) >= abs(tested.statistic)
    exact = math.factorial(count) <= _RESAMPLES
    p_value = as_far.mean() if exact else (as_far.sum() + 1) / (len(as_far) + 1)
    return RankCorrelation(float(tested.statistic), float(p_value), count)


def loss_correlation(history):
    """Computes the rank correlation of the loss, and of each other metric without labels, with downstream accuracy.

    Args:
        history: a dict of name to list by epoch, as Keras' `History.history` or history.json.

    Returns:
        A dict of `(metric, downstream)` to `RankCorrelation`. Names that end in `knn_accuracy` or `linear_accuracy` are
        downstream accuracies. All others are metrics, except schedules and metrics that repeat another one (a loss of
        one term equals its term). Only epochs at which both were measured count.
    """
    downstream = [name for name in history if name.endswith(DOWNSTREAM)]
    metrics, seen = [], []
    for name in sorted(history, key=lambda name: name.removeprefix("val_") != "loss"):  # the loss before its terms
        if name not in downstream and name.removeprefix("val_") not in _SCHEDULES and history[name] not in seen:
            metrics.append(name)
            seen.append(history[name])
    pairs = [(metric, name) for metric in metrics for name in downstream]
    return {(metric, name): rank_correlation(*paired(history, metric, name)[1:]) for metric, name in pairs}


def paired(history, metric, downstream):
    """The epochs at which both metrics were measured, and their values: three arrays of one length.

    A callback that measures every few epochs, and after the last one, leaves a shorter list; the epochs are worked out
    from its length. Where two readings are possible, no epoch is returned.
    """
    total = max((len(values) for values in history.values()), default=0)
    columns = []
    for name in (metric, downstream):
        column, places = np.full(total, np.nan), _epochs(len(history[name]), total)
        if places is not None:
            column[places] = _numbers(history[name])
        columns.append(column)
    known = np.isfinite(columns[0]) & np.isfinite(columns[1])
    return np.flatnonzero(known) + 1, columns[0][known], columns[1][known]


def _epochs(count, total):
    """Places of `count` values that were measured every few of `total` epochs, and after the last one; or None."""
    places = {tuple(sorted({*range(every - 1, total, every), total - 1})) for every in range(1, total + 1)}
    fitting = [place for place in places if len(place) == count]
    return list(fitting[0]) if len(fitting) == 1 else None


def _numbers(values):
    return np.array([np.nan if value is None else value for value in values], "float64").reshape(-1)
