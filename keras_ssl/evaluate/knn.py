"""The weighted nearest-neighbor classifier of the literature: no training, no parameters to tune."""

import numpy as np

from keras_ssl.evaluate.labels import check_classes, check_finite, check_some_known, common_codes, labeled_part


def knn(features, labels, queries, query_labels=None, k=20, temperature=0.1, max_bytes=2**27):
    """Classifies queries by their k most similar features, weighted by `exp(cosine / temperature)`.

    Labels are compared for equality alone. A row without one (−1, None, NaN, an empty string) does not vote, and a
    query without one does not count.

    Args:
        features: `(N, d)`, labeled.
        labels: `(N,)`, integers or strings.
        queries: `(M, d)`.
        query_labels: `(M,)`; given, the accuracy is returned instead of the predictions. A query of a class that
            `labels` do not name is counted as wrong.
        k: the number of neighbors that vote, at most as many as have a label; 20 and 200 are common.
        temperature: of the weights, above 0; 0.07 and 0.1 are common.
        max_bytes: working memory beside a float32 copy of `features`; it bounds the queries taken at a time.

    Returns:
        Predicted labels `(M,)`, of the kind of `labels`, or the accuracy in [0, 1].

    Raises:
        ValueError: no label; for an accuracy also a single class, and queries of which none is of a class that `labels`
            name.

    Reference: Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018, section 3.4.
    """
    features, labels = labeled_part("features", features, labels)
    if query_labels is None:
        classes, blocks = _votes(features, labels, queries, k, temperature, max_bytes)
        return classes[_winners(blocks)]
    queries, query_labels = labeled_part("queries", queries, query_labels)
    check_classes("features", labels)
    _, _, query_codes = common_codes(labels, query_labels)
    check_some_known(query_labels, query_codes)
    _, blocks = _votes(features, labels, queries, k, temperature, max_bytes)
    return float(np.mean(_winners(blocks) == query_codes))


def _winners(blocks):
    return np.concatenate([np.argmax(scores, axis=1) for scores in blocks] or [np.zeros(0, "int64")])


def knn_scores(features, labels, queries, k=20, temperature=0.1, max_bytes=2**27):
    """The sum of the votes for each class: `(scores, classes)`, `(M, C)` and `(C,)`. Arguments as of `knn`.

    A query's scores are relative to each other: the vote of its nearest neighbor is 1.
    """
    features, labels = labeled_part("features", features, labels)
    classes, blocks = _votes(features, labels, queries, k, temperature, max_bytes)
    return np.concatenate([np.zeros((0, len(classes))), *blocks]), classes


def _votes(features, labels, queries, k, temperature, max_bytes):
    """The classes, and an iterator of `(m, C)` sums of votes, for a block of queries at a time."""
    _check(k, len(features), temperature)
    classes, codes = np.unique(labels, return_inverse=True)
    bank = unit_rows(features)
    rows = max(1, int(max_bytes / _bytes_of_a_query(len(bank), k, len(classes))))

    def blocks():
        for start in range(0, len(queries), rows):
            # No name for the similarities: they would be held beside those of the next block.
            yield _sums(unit_rows(queries[start : start + rows]) @ bank.T, codes, len(classes), k, temperature)

    return classes, blocks()


def _check(k, count, temperature):
    if not 1 <= k <= count:
        raise ValueError(f"knn: `k` must lie between 1 and the {count} labeled features; it is {k}.")
    if not temperature > 0.0:
        raise ValueError(f"knn: `temperature` must be above 0; it is {temperature!r}.")


def _sums(similarity, codes, classes, k, temperature):
    """The sum of the k nearest neighbors' votes for each class, `(M, classes)`."""
    similarity, nearest = _nearest(similarity, k)
    # Less the query's largest, which changes no ratio: exp(1/0.01) would overflow a float32, and less 1 all votes of a
    # query far from its neighbors would be 0 at a low temperature.
    votes = np.exp((similarity - similarity[:, :1]) / temperature)
    cells = np.arange(len(nearest))[:, None] * classes + codes[nearest]
    sums = np.bincount(cells.ravel(), votes.ravel(), minlength=len(nearest) * classes)
    return sums.reshape(len(nearest), classes)


def knn_of_draws(features, labels, queries, query_labels, draws, k=20, temperature=0.1, max_bytes=2**27):
    """The accuracy of `knn` with each of several draws of labels; the draws share one matrix of similarities.

    Args:
        draws: arrays of rows of `features`, each row with a label.
        k: as of `knn`; of a draw of fewer labels, all of them vote.
        features, labels, queries, query_labels, temperature, max_bytes: as of `knn`.

    Returns:
        A list of accuracies, one a draw.
    """
    labels = np.asarray(labels)
    queries, query_labels = labeled_part("queries", queries, query_labels)
    drawn = np.unique(np.concatenate(draws))
    bank = unit_rows(np.asarray(features)[drawn])
    judges = []
    for rows in draws:
        rows = np.sort(rows)
        _check(min(k, len(rows)), len(rows), temperature)
        check_classes("features", labels[rows])
        codes, classes, query_codes = common_codes(labels[rows], query_labels)
        check_some_known(query_labels, query_codes)
        columns = None if len(rows) == len(drawn) else np.searchsorted(drawn, rows)
        judges.append((columns, codes, len(classes), query_codes))
    right = np.zeros(len(draws), "int64")
    most = max(classes for _, _, classes, _ in judges)
    at_a_time = max(1, int(max_bytes / (_bytes_of_a_query(len(bank), k, most) + 4 * len(bank))))
    for start in range(0, len(queries), at_a_time):
        similarity = unit_rows(queries[start : start + at_a_time]) @ bank.T
        for number, (columns, codes, classes, known) in enumerate(judges):
            part = similarity if columns is None else np.take(similarity, columns, axis=1)
            sums = _sums(part, codes, classes, min(k, len(codes)), temperature)
            right[number] += np.count_nonzero(np.argmax(sums, axis=1) == known[start : start + at_a_time])
        del similarity, part  # or they would be held beside those of the next block
    return [float(count / len(queries)) for count in right]


def most_similar(bank, queries, k):
    """The k rows of `bank` nearest to each query: `(similarity, row)`, `(M, k)` each.

    The most similar comes first; of equal ones, the one that comes first in `bank`.
    """
    return _nearest(queries @ bank.T, k)


def _nearest(similarity, k):
    """`most_similar` of the similarities of each query, `(M, N)`.

    A query's similarities are not sorted, nor partitioned, which would take as long as computing them: the k-th largest
    of the maxima of groups of them is a bound that at least k reach, and few more; only those are sorted.
    """
    near = similarity >= _bound(similarity, k)
    counts = np.count_nonzero(near, axis=1)
    for row in np.flatnonzero(counts > _CROWD * k):  # many are equal, as where features have collapsed
        near[row] = _exactly(similarity[row], k)
        counts[row] = k
    cells = np.flatnonzero(near)
    values = similarity.ravel()[cells]
    of_query = np.repeat(np.arange(len(similarity)), counts)
    order = np.lexsort((-values, of_query))  # stable: equal ones stay in the order of `bank`
    first = np.cumsum(counts) - counts
    chosen = order[first[:, None] + np.arange(k)]
    return values[chosen], cells[chosen] - np.arange(len(similarity))[:, None] * similarity.shape[1]


_CROWD = 4  # times k candidates are sorted at most


def _bound(similarity, k):
    """A number for each query, `(M, 1)`, that at least k of its similarities reach."""
    width = _group_width(similarity.shape[1], k)
    groups = similarity.shape[1] // width
    # A group is every so many-th row, for neighbors in `bank` are often of one class.
    maxima = similarity[:, : groups * width].reshape(-1, width, groups).max(axis=1)
    maxima.partition(groups - k, axis=1)
    return maxima[:, groups - k : groups - k + 1]


def _group_width(count, k):
    return max(1, min(64, count // (4 * k)))


def _exactly(similarity, k):
    """Marks the k largest of a row; of equal ones the first."""
    least = np.partition(similarity, -k)[-k]
    marked = similarity > least
    marked[np.flatnonzero(similarity == least)[: k - np.count_nonzero(marked)]] = True
    return marked


def _bytes_of_a_query(count, k, classes):
    """What `most_similar` and the votes hold for a query: similarities, marks, maxima; candidates; sums."""
    return count * (4 + 1 + 4 / _group_width(count, k)) + _CROWD * k * 44 + classes * 8


def unit_rows(features):
    """Rows brought to length 1, `(N, d)` float32; a row of zeros stays one."""
    rows = np.array(features, "float32").reshape(len(features), -1)
    # The square of what is below 1e-19 or above 1e19 is no float32: the largest number of a row is made 1 before.
    largest = np.maximum(rows.max(axis=1, initial=0.0), -rows.min(axis=1, initial=0.0))
    check_finite(largest)
    rows /= np.where(largest > 0.0, largest, 1.0)[:, None]
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))  # np.linalg.norm holds another copy
    rows /= np.where(lengths > 0.0, lengths, 1.0)[:, None]
    return rows
