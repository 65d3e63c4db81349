"""The linear probe: how well a linear classifier predicts labels from frozen features."""

import numpy as np
from threadpoolctl import threadpool_limits

from keras_ssl.evaluate.labels import check_classes, check_finite, check_some_known, common_codes, labeled_part

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
        regularization: values of `C` to choose from, as scikit-learn's `LogisticRegression` has it; one value is taken
            as it is.
        validation_share: the fraction of the labeled features that is held out to choose `C`.
        max_iterations: the solver's (L-BFGS); a fit ends before where it is near its optimum.
        seed: of the split.

    Returns:
        The accuracy on the queries in [0, 1], or the predicted labels `(M,)`, of the kind of `labels`, where
        `query_labels` is None.

    Raises:
        ValueError: no label, a single class; no query is of a class that `labels` name; features or queries that are
            not finite in float32.
    """
    features, labels = labeled_part("features", features, labels)
    check_classes("features", labels)
    if query_labels is not None:
        queries, query_labels = labeled_part("queries", queries, query_labels)
    codes, classes, query_codes = common_codes(labels, labels[:0] if query_labels is None else query_labels)
    if query_labels is not None:
        check_some_known(query_labels, query_codes)
    features, queries = (np.asarray(rows, "float32").reshape(len(rows), -1) for rows in (features, queries))
    for name, rows in (("Features", features), ("Queries", queries)):
        check_finite(rows, name)
    from sklearn.preprocessing import StandardScaler  # a second: for who probes alone

    scaler = StandardScaler()
    train = scaler.fit_transform(features)
    with _threads(train, len(classes)):
        space = _Space(train, len(classes))
        targets = np.eye(len(classes), dtype="float32")[codes]
        c, start = _chosen(space, codes, targets, regularization, validation_share, max_iterations, seed)
        weights = _fit(space.rows, targets, c, space.curvature, max_iterations, start, _FINAL)
        # The scaler's work goes into the weights: the queries are neither copied nor rotated.
        slopes = space.slopes(weights) / scaler.scale_[:, None]
        offsets = weights[-1] - scaler.mean_ @ slopes
        predicted = np.argmax(queries @ slopes.astype("float32") + offsets.astype("float32"), axis=1)
    return classes[predicted] if query_labels is None else float(np.mean(predicted == query_codes))


class _Space:
    """Standardized features in coordinates in which a fit costs less. Its optimum stays the same.

    The penalty is on the length of a class's weights, which no rotation changes, and directions without features get no
    weight. So few rows of many features are rotated into as many columns as there are rows; and where many fits pay
    for it, features are rotated to their principal axes, along which the solver can be told how curved the loss is.

    Args:
        features: standardized, float32 `(n, d)`.
        classes: how many.

    Attributes:
        rows: the features in the new coordinates, and a column of ones.
        curvature: the mean square of each column; None where the columns are no principal axes.
    """

    def __init__(self, features, classes):
        count, width = features.shape
        self._axes = None
        if count < width:
            self._axes, corner = np.linalg.qr(features.T)
            features, width = corner.T, count
        self.curvature = None
        # Products to find the axes, and to rotate, against those of a hundred steps of the solver less.
        if width * (1.0 + 2.25 * width / count) < 100 * classes:
            squares, axes = np.linalg.eigh((features.T @ features).astype("float64"))
            axes = axes.astype("float32")
            features = features @ axes
            self._axes = axes if self._axes is None else self._axes @ axes
            self.curvature = np.append(np.maximum(squares, 0.0) / count, 1.0)
        self.rows = np.concatenate([features, np.ones((count, 1), "float32")], axis=1)

    def slopes(self, weights):
        """What was fitted, in the coordinates of the features: float64 `(d, classes)`, without the offsets."""
        return weights[:-1] if self._axes is None else self._axes @ weights[:-1]


def _chosen(space, labels, targets, regularization, share, max_iterations, seed):
    """`(C, weights)`: the value that classifies most of the held-out labels right, and where a fit with it may begin.

    Of values that are equal the most regularized is taken. None of weights stands for zero.
    """
    if len(regularization) == 1:
        return regularization[0], None
    counts = np.unique(labels, return_counts=True)[1]
    held = max(round(share * len(labels)), len(counts))
    if counts.min() < 2 or len(labels) - held < len(counts):
        # One label of a class can't be on both sides: take the middle of the scale.
        return regularization[len(regularization) // 2], None
    from sklearn.model_selection import StratifiedShuffleSplit

    # Few labels make a rough judge, so few labels judge several times.
    splits = StratifiedShuffleSplit(5 if len(labels) <= 500 else 1, test_size=held, random_state=seed)
    judges = [
        (space.rows[kept], targets[kept], space.rows[held], labels[held]) for kept, held in splits.split(labels, labels)
    ]
    weights, best = [None] * len(judges), (-1.0, None, None)
    for c in sorted(regularization):
        right = 0.0
        for number, (rows, aims, queries, known) in enumerate(judges):
            # Each begins where the last one ended: a third of the time of fits anew.
            weights[number] = _fit(rows, aims, c, space.curvature, max_iterations, weights[number])
            right += np.mean(np.argmax(queries @ weights[number].astype("float32"), axis=1) == known)
        if right > best[0]:
            best = right, c, weights[0]
    return best[1], best[2]


# How curved the loss of a class is at most where it predicts as chance does, of ten classes: p (1 - p).
_CURVED = 0.1
_FINAL = 3e-4  # tolerance of the fit that is judged: accuracies within 0.002 of the optimum's


def _fit(rows, targets, c, curvature, max_iterations, start=None, tolerance=1e-3):
    """Logistic regression by SciPy's L-BFGS, as scikit-learn's `LogisticRegression(C=c, tol=1e-3)` poses it.

    The mean of the cross-entropy, and the square of the weights by `1 / (2 c n)`, offsets excepted.

    Args:
        rows: float32 `(n, d + 1)`, the last column of ones.
        targets: float32 `(n, classes)`, one 1 a row.
        c: the inverse of the penalty.
        curvature: of `_Space`, by which the solver's steps are scaled; None to leave them.
        max_iterations: stopped early is one more regularization, and validation judges the fit as it is.
        start: weights to begin at; None for zeros.
        tolerance: the slope of the loss, along each weight in the solver's scale, at which the fit ends.

    Returns:
        float64 `(d + 1, classes)`.
    """
    from scipy.optimize import minimize

    count, classes = targets.shape
    # Of two classes scikit-learn fits one set of weights, the difference of two: half of their squares is a quarter.
    penalty = np.full((rows.shape[1], 1), (2.0 if classes == 2 else 1.0) / (c * count))
    penalty[-1] = 0.0
    scale = 1.0 if curvature is None else 1.0 / np.sqrt(_CURVED * curvature[:, None] + penalty)
    shape = rows.shape[1], classes
    transposed = np.ascontiguousarray(targets.T)

    def loss_and_gradient(scaled):
        weights = scaled.reshape(shape) * scale
        # A column a sample: a matrix of few rows is multiplied, and normalized, more quickly than one of few columns.
        logits = weights.T.astype("float32") @ rows.T
        logits -= logits.max(axis=0)
        right = np.vdot(logits, transposed)
        np.exp(logits, out=logits)
        sums = logits.sum(axis=0)
        loss = (np.log(sums).sum(dtype="float64") - right) / count + 0.5 * np.sum(penalty * weights**2)
        logits /= sums
        logits -= transposed
        gradient = (logits @ rows).T.astype("float64") / count + penalty * weights
        return loss, (gradient * scale).ravel()

    begin = np.zeros(shape) if start is None else start / scale
    options = {"maxiter": max_iterations, "maxls": 50, "gtol": tolerance, "ftol": 64 * np.finfo("float64").eps}
    found = minimize(loss_and_gradient, begin.ravel(), jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(shape) * scale


def _threads(features, classes):
    # A small product is slower on two threads than on one (measured: by three on two cores).
    small = features.shape[0] * features.shape[1] * classes < 10**9
    return threadpool_limits(1 if small else None)
