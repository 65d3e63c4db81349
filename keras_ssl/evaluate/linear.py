"""The linear probe: how well a linear classifier predicts labels from frozen features."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from keras_ssl.evaluate.labels import check_classes, check_labels

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
    held out by class; the probe is then fitted to all of them.

    Args:
        features, labels: `(N, d)` and integers `(N,)`.
        queries, query_labels: `(M, d)`, and integers `(M,)` or None.
        regularization: values of scikit-learn's `C` to choose from; one value is taken as it is.
        validation_share: the fraction of the labeled features that is held out to choose `C`.
        max_iterations: the solver's (L-BFGS).
        seed: of the split.

    Returns:
        The accuracy on the queries in [0, 1], or the predicted labels `(M,)` where `query_labels` is None.
    """
    labels = check_labels("features", features, labels)
    check_classes("features", labels)
    scaler = StandardScaler()
    train = scaler.fit_transform(np.asarray(features, "float32").reshape(len(features), -1))
    test = scaler.transform(np.asarray(queries, "float32").reshape(len(queries), -1))
    with _threads(train, len(np.unique(labels))):
        choice = _chosen(train, labels, regularization, validation_share, max_iterations, seed)
        (probe,) = _path(train, labels, [choice], max_iterations)
        predicted = probe.predict(test)
    if query_labels is None:
        return predicted
    return float(np.mean(predicted == check_labels("queries", queries, query_labels)))


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
