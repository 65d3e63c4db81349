"""The weighted nearest-neighbour classifier of the literature: no training, no parameters to tune."""

import numpy as np

from keras_ssl.evaluate.checks import labelled


def knn(features, labels, queries, query_labels=None, k=20, temperature=0.1, max_bytes=2**27):
    """Classifies queries by their k most similar features, weighted by `exp(cosine / temperature)`.

    Args:
        features: `(N, d)`, the labelled ones.
        labels: integers `(N,)`.
        queries: `(M, d)`.
        query_labels: integers `(M,)`; given, the accuracy is returned instead of the predictions.
        k: neighbours that vote; 20 and 200 are common. At most N.
        temperature: of the weights, above 0; 0.07 and 0.1 are common.
        max_bytes: the similarities in memory at a time.

    Returns:
        Predicted labels `(M,)`, or the accuracy in [0, 1].

    Reference: Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018, section 3.4.
    """
    if query_labels is not None:
        query_labels = labelled("queries", queries, query_labels)
        return float(np.mean(knn(features, labels, queries, None, k, temperature, max_bytes) == query_labels))
    scores, classes = knn_scores(features, labels, queries, k, temperature, max_bytes)
    return classes[np.argmax(scores, axis=1)]


def knn_scores(features, labels, queries, k=20, temperature=0.1, max_bytes=2**27):
    """The sum of the votes for each class: `(scores, classes)`, `(M, C)` and `(C,)`."""
    labels = labelled("features", features, labels)
    if not 1 <= k <= len(features):
        raise ValueError(f"knn: `k` must lie between 1 and the {len(features)} labelled features; it is {k}.")
    if not temperature > 0.0:
        raise ValueError(f"knn: `temperature` must be above 0; it is {temperature!r}.")
    classes, codes = np.unique(labels, return_inverse=True)
    bank = unit_rows(features)
    scores = np.zeros((len(queries), len(classes)), "float64")
    rows = max(1, max_bytes // (8 * len(bank)))
    for start in range(0, len(queries), rows):
        similarity, nearest = most_similar(bank, unit_rows(queries[start : start + rows]), k)
        # Less the largest, which changes no ratio: exp(1/0.01) would overflow a float32.
        votes = np.exp((similarity - 1.0) / temperature)
        block = scores[start : start + len(nearest)]
        np.add.at(block, (np.arange(len(nearest))[:, None], codes[nearest]), votes)
    return scores, classes


def most_similar(bank, queries, k):
    """The k rows of `bank` nearest to each query: `(similarity, row)`, `(M, k)` each, most similar first."""
    similarity = queries @ bank.T
    if k < len(bank):
        nearest = np.argpartition(similarity, len(bank) - k, axis=1)[:, len(bank) - k :]
    else:
        nearest = np.tile(np.arange(len(bank)), (len(queries), 1))
    values = np.take_along_axis(similarity, nearest, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(nearest, order, axis=1)


def unit_rows(features):
    features = np.asarray(features, "float32").reshape(len(features), -1)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
