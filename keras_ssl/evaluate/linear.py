"""The linear probe: how well a linear classifier predicts labels from frozen features."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from keras_ssl.evaluate.labels import check_classes, check_some_known, common_codes, labeled_part

# From "trust the mean of the class" to "trust every feature", on standardized features.
REGULARIZATION = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def linear_probe(
    features,
    labels,
    queries,
    query_labels=None,
    regularization=REGULARIZATION,
    validation_share=0.2,
    max_iterations=100,
    seed=0,
):
    """Logistic regression on standardized frozen features, its regularization chosen by validation.

    The queries take no part in any choice: the regularization is the best one on a fraction of the labeled features,
    held out by class; the probe is then fitted to all of them. A row without a label (−1, None, NaN, an empty string)
    is left out, and a query without one does not count.

    Args:
        features, labels: `(N, d)`, and integers or strings `(N,)`.
        queries, query_labels: `(M, d)`, and integers or strings `(M,)` or None. A query of a class that `labels` do not
            name is counted as wrong.
        regularization: values of scikit-learn's `C` to choose from; one value is taken as it is.
        validation_share: the fraction of the labeled features that is held out to choose `C`.
        max_iterations: the solver's (L-BFGS).
        seed: of the split.

    Returns:
        The accuracy on the queries in [0, 1], or the predicted labels `(M,)`, of the kind of `labels`, where
        `query_labels` is None.

    Raises:
        ValueError: no label, a single class; no query is of a class that `labels` name.
    """
    features, labels = labeled_part("features", features, labels)
    check_classes("features", labels)
    if query_labels is not None:
        queries, query_labels = labeled_part("queries", queries, query_labels)
    codes, classes, query_codes = common_codes(labels, labels[:0] if query_labels is None else query_labels)
    if query_labels is not None:
        check_some_known(query_labels, query_codes)
    scaler = StandardScaler()
    train = scaler.fit_transform(np.asarray(features, "float32").reshape(len(features), -1))
    test = scaler.transform(np.asarray(queries, "float32").reshape(len(queries), -1))
    with _threads(train, len(classes)):
        choice = _chosen(train, codes, regularization, validation_share, max_iterations, seed)
        (probe,) = _path(train, codes, [choice], max_iterations)
        predicted = probe.predict(test)
    return classes[predicted] if query_labels is None else float(np.mean(predicted == query_codes))


def _chosen(features, labels, regularization, share, max_iterations, seed):
    """The value of C that classifies held-out features best; of equals the most regularized."""
    if len(regularization) == 1:
        return regularization[0]
    counts = np.unique(labels, return_counts=True)[1]
    held = max(round(share * len(labels)), len(counts))
    if counts.min() < 2 or len(labels) - held < len(counts):
        # One label of a class can't be on both sides: take the middle of the scale.
        return regularization[len(regularization) // 2]
    # Few labels make a rough judge, so few labels judge several times.
    splits = StratifiedShuffleSplit(5 if len(labels) <= 500 else 1, test_size=held, random_state=seed)
    accuracies = np.zeros(len(regularization))
    for kept, held in splits.split(features, labels):
        for place, probe in enumerate(_path(features[kept], labels[kept], regularization, max_iterations)):
            accuracies[place] += np.mean(probe.predict(features[held]) == labels[held])
    return regularization[int(np.argmax(accuracies))]


def _path(features, labels, regularization, max_iterations):
    """Probes fitted one after another, each beginning where the last one ended: a third of the time of fits anew."""
    probe = LogisticRegression(max_iter=max_iterations, tol=1e-3, warm_start=True)
    with warnings.catch_warnings():
        # Stopped early is one more regularization; validation judges the probe as it is.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for c in regularization:
            yield probe.set_params(C=c).fit(features, labels)


def _threads(features, classes):
    # A small product is slower on two threads than on one (measured: by three on two cores).
    small = features.shape[0] * features.shape[1] * classes < 10**9
    return threadpool_limits(1 if small else None)
