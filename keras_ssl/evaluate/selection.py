"""Which images to label first: typical ones, diverse ones, or both."""

import operator
import warnings

import numpy as np

from keras_ssl.evaluate.knn import unit_rows
from keras_ssl.evaluate.search import check_features, search
from keras_ssl.names import STRATEGIES

# The constants of TypiClust's authors: neighbors that tell how typical a row is; clusters of fewer rows come last; how
# many clusters at most; and up to how many clusters all rows are looked at in each step of k-means.
NEIGHBORS, FEWEST_ROWS, MOST_CLUSTERS, MOST_EXACT = 20, 5, 500, 50


def select(features, count, strategy="both", labeled=None, seed=0, max_bytes=2**27):
    """Chooses the rows to label first, by their features alone.

    Args:
        features: `(N, d)`, one row per image; directions are compared, not lengths.
        count: how many rows to choose.
        strategy:
            - "both": as many clusters as rows will have a label, by k-means; of each that has none yet, the largest
              first, the most typical row (TypiClust);
            - "diverse": in turn the row that is farthest from all that are chosen or labeled (greedy k-center). It
              finds rare kinds, and outliers;
            - "typical": the rows whose 20 nearest others are nearest. They may all be of one kind.
        labeled: rows that have a label already, which are not chosen: integers, or booleans `(N,)`.
        seed: of the clusters, and of the first row of "diverse" where none is labeled.
        max_bytes: the similarities in memory at a time, beside a few copies of the features.

    Returns:
        int64 `(count,)`, the rows that say most first: the first ten of a hundred are a choice of ten with "diverse"
        and "typical"; with "both" they are the most typical rows of the ten largest of a hundred clusters.

    Raises:
        ValueError: features that are not finite, more rows than there are without a label, an unknown strategy.

    Reference: Hacohen et al., "Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets", 2022,
    section 3 (TypiClust); Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach",
    2018, algorithm 1 (greedy k-center).
    """
    rows = unit_rows(check_features("select", "features", features))
    known = _mask(labeled, len(rows))
    count, free = _count(count), int(np.count_nonzero(~known))
    if count > free:
        raise ValueError(f"select: `count` is {count}, and {free} rows have no label yet: give count={free} or less.")
    if strategy not in STRATEGIES:
        raise ValueError(f"select: `strategy` must be one of {', '.join(map(repr, STRATEGIES))}; it is {strategy!r}.")
    if strategy == "diverse":
        return _diverse(rows, count, known, np.random.default_rng(seed))
    if strategy == "typical":
        score = np.where(known, -np.inf, _typicality(rows, max_bytes))
        return np.argsort(-score, kind="stable")[:count]
    return _typical_of_clusters(rows, count, known, seed, max_bytes)


def _diverse(rows, count, known, generator):
    """Greedy k-center: each row is the farthest from those before it, by the cosine."""
    chosen = np.empty(count, "int64")
    nearest = np.full(len(rows), -np.inf, "float32")  # the cosine to the nearest that is chosen or labeled
    for row in np.flatnonzero(known):
        np.maximum(nearest, rows @ rows[row], out=nearest)
    taken = known.copy()
    for place in range(count):
        if place == 0 and not known.any():
            row = generator.integers(len(rows))
        else:
            row = np.argmin(np.where(taken, np.inf, nearest))
        chosen[place], taken[row] = row, True
        np.maximum(nearest, rows @ rows[row], out=nearest)
    return chosen


def _typicality(rows, max_bytes):
    """Minus the mean distance to the nearest others, `(N,)`: in the order of the paper's, which is 1 over it."""
    if len(rows) < 2:
        return np.zeros(len(rows), "float32")
    similarity, _ = search(rows, k=min(NEIGHBORS, max(1, len(rows) // 2)), max_bytes=max_bytes)
    return -np.sqrt(np.maximum(2.0 - 2.0 * similarity, 0.0)).mean(axis=1)


def _typical_of_clusters(rows, count, known, seed, max_bytes):
    """TypiClust: round by round, the most typical row that is left of each cluster."""
    cluster = _clusters(rows, min(count + int(known.sum()), MOST_CLUSTERS), seed)
    turn = np.zeros(len(rows), "int64")  # the round in which a row is taken; a label counts as a round
    sizes = np.bincount(cluster)
    for number in np.flatnonzero(sizes):
        members = np.flatnonzero(cluster == number)
        open_ones = members[~known[members]]
        typical = _typicality(rows[members], max_bytes)[~known[members]]
        turn[open_ones[np.argsort(-typical, kind="stable")]] = np.arange(len(open_ones)) + (
            len(members) - len(open_ones)
        )
    size = sizes[cluster]
    order = np.lexsort((cluster, -size, turn, size < FEWEST_ROWS, known))
    return order[:count]


def _clusters(rows, count, seed):
    """The cluster of each row, `(N,)`, by k-means; some may be empty where rows are equal."""
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    if count <= MOST_EXACT:
        made = KMeans(count, n_init=1, random_state=seed)
    else:
        made = MiniBatchKMeans(count, n_init=1, random_state=seed, batch_size=5000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than clusters
        return made.fit_predict(rows)


def _count(count):
    try:
        number = 0 if isinstance(count, (bool, np.bool_)) else operator.index(count)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"select: `count` must be a whole number, 1 or more; it is {count!r}.")
    return number


def _mask(labeled, count):
    """Which rows have a label, boolean `(count,)`."""
    mask = np.zeros(count, bool)
    if labeled is None:
        return mask
    given = np.asarray(labeled)
    if given.dtype == bool and given.shape == (count,):
        return given.copy()
    whole = given.ndim == 1 and (given.dtype.kind in "iu" or not given.size)
    if not whole or (given.size and not 0 <= given.min() <= given.max() < count):
        raise ValueError(
            f"select: `labeled` holds rows, from 0 to {count - 1}, or {count} booleans; it is {labeled!r}."
        )
    mask[given.astype("int64")] = True
    return mask
