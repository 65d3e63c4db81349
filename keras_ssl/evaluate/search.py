"""Image search by features: the most similar images of a collection, near copies, and the collection without them."""

import numpy as np

from keras_ssl.evaluate.knn import most_similar, unit_rows

# Rows of length 1 in float32: the cosine of two copies is 1 to about this much.
_ROUNDING = 1e-6


def search(features, queries=None, k=10, max_bytes=2**27):
    """Finds the k most similar rows of each query, by the cosine.

    Args:
        features: `(N, d)`: the collection.
        queries: `(M, d)`; None for the collection itself, in which a row is not its own neighbor.
        k: neighbors per query, at most N (N − 1 without queries).
        max_bytes: the similarities in memory at a time; one query's N are always.

    Returns:
        `(similarity, rows)`, float32 in [−1, 1] and integers, `(M, k)` each, most similar first.

    Raises:
        ValueError: features that are not finite, of another width than the queries', or fewer than k.
    """
    bank = unit_rows(check_features("search", "features", features))
    alone = queries is None
    asked = bank if alone else check_features("search", "queries", queries)
    if asked.shape[1] != bank.shape[1]:
        raise ValueError(
            f"search: `queries` have {asked.shape[1]} features a row and the collection has {bank.shape[1]}: extract "
            "both from one layer of one backbone, on one grid."
        )
    most = len(bank) - alone
    if not 1 <= k <= most:
        raise ValueError(f"search: `k` must lie between 1 and the {most} rows that can be found; it is {k!r}.")
    similarity = np.empty((len(asked), k), "float32")
    rows = np.empty((len(asked), k), "int64")
    step = max(1, max_bytes // (4 * len(bank)))
    for start in range(0, len(asked), step):
        block = unit_rows(asked[start : start + step])
        values, found = most_similar(bank, block, k + alone)
        if alone:
            values, found = _without_self(values, found, np.arange(start, start + len(block)))
        similarity[start : start + step], rows[start : start + step] = np.clip(values, -1.0, 1.0), found
    return similarity, rows


def near_copies(features, threshold=0.95, max_bytes=2**27):
    """Groups of rows that are near copies of each other: exact, each pair is compared.

    Two rows whose cosine reaches the threshold are in one group, and so is whatever is linked by a chain of such pairs:
    the ends of a chain may be less similar than the threshold.

    Args:
        features: `(N, d)`.
        threshold: the least cosine of a pair, in (−1, 1]; 1 for copies up to rounding.
        max_bytes: of memory for the pairs that are compared at a time; one row's N are always.

    Returns:
        A list of integer arrays, each the rows of a group of two or more, ascending; groups by their first row.

    Raises:
        ValueError: features that are not finite, or a threshold that is none.
    """
    bank = unit_rows(check_features("near_copies", "features", features))
    if not -1.0 < threshold <= 1.0:
        raise ValueError(f"near_copies: `threshold` is a cosine in (−1, 1], such as 0.95; it is {threshold!r}.")
    groups = np.arange(len(bank))
    # A block of similarities takes 4 bytes a pair; its pairs, where all are near, several times that.
    step = max(1, max_bytes // (64 * len(bank)))
    for start in range(0, len(bank), step):
        # Pairs before this block were compared by the blocks before.
        near = bank[start : start + step] @ bank[start:].T >= threshold - _ROUNDING
        first, second = np.nonzero(np.triu(near, 1))
        if not len(first):
            continue
        links = groups[first + start], groups[second + start]
        from scipy import sparse
        from scipy.sparse.csgraph import connected_components

        graph = sparse.coo_matrix((np.ones(len(first), "int8"), links), shape=(len(bank), len(bank)))
        groups = connected_components(graph, directed=False)[1][groups]
    order = np.argsort(groups, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return sorted((part for part in parts if len(part) > 1), key=lambda part: part[0])


def without_copies(features, threshold=0.95, max_bytes=2**27):
    """The rows to keep, ascending: of each group of `near_copies` the first, and all that are in none."""
    drop = [group[1:] for group in near_copies(features, threshold, max_bytes)]
    return np.setdiff1d(np.arange(len(features)), np.concatenate([[], *drop]).astype("int64"))


def check_features(owner, name, features):
    """Features as float32 `(N, d)`; raises `ValueError` for what is none, or not finite."""
    features = np.asarray(features, "float32")
    if features.ndim < 2 or len(features) == 0:
        raise ValueError(f"{owner}: `{name}` must be (N, d), one row per image; their shape is {features.shape}.")
    features = features.reshape(len(features), -1)
    if not np.isfinite(features).all():
        raise ValueError(f"{owner}: `{name}` hold NaN or infinite values.")
    return features


def _without_self(values, found, self_index):
    """Neighbors without the row itself; among several exact copies it may not be the first, or not be there."""
    itself = found == self_index[:, None]
    itself[~itself.any(axis=1), -1] = True
    others = (len(found), found.shape[1] - 1)
    return values[~itself].reshape(others), found[~itself].reshape(others)
