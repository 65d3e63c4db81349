"""Labeled images: what the evaluations ask of them, and which of their rows are used.

Labels are identities: any integers of 64 bits, or strings. Rows without one (−1, None, NaN, an empty string) are left
out: they do not vote, do not train and do not count.
"""

import math

import numpy as np

from keras_ssl.data import Data, Split, load
from keras_ssl.data.labels import MISSING, codes_of, flat_labels, is_missing
from keras_ssl.data.lazy import LazyArray, Rows, take


def check_labels(name, features, labels):
    """Returns labels as `data.labels.flat_labels` does, one for each row of `features`."""
    labels = flat_labels(labels, f"labels of {name}")
    if len(labels) != len(features):
        raise ValueError(
            f"`{name}` has {len(features)} rows, and its labels the shape {labels.shape}: give one per row."
        )
    return labels


def check_finite(features, name="Features"):
    """Raises `ValueError` for float32 features that are not finite."""
    # By their two ends, which NaN reaches: a mark for each number would take a quarter of their memory.
    if features.size and not np.isfinite([features.min(), features.max()]).all():
        raise ValueError(f"{name} hold NaN, infinity or numbers too large for float32: look at where they come from.")


def labeled_rows(name, labels):
    """The rows that have a label, ascending. Raises `ValueError` if there are none."""
    rows = np.flatnonzero(~is_missing(labels))
    if len(labels) and not len(rows):
        raise ValueError(
            f"`{name}` has no label left: all {len(labels)} are −1, None, NaN or empty, which means none. Give labels "
            "of some of its images."
        )
    return rows


def labeled_part(name, features, labels):
    """Returns `(features, labels)` of the rows that have a label, checked."""
    labels = check_labels(name, features, labels)
    rows = labeled_rows(name, labels)
    return (features, labels) if len(rows) == len(labels) else (np.asarray(features)[rows], labels[rows])


def check_classes(name, labels):
    """Raises `ValueError` if all labels are of one class."""
    if len(np.unique(labels)) < 2:
        raise ValueError(f"The labels of `{name}` name a single class: there is nothing to tell apart.")


def common_codes(labels, others):
    """Labels of two sets as class numbers.

    Args:
        labels, others: as of `flat_labels`, without missing ones.

    Returns:
        A tuple `(codes, classes, other_codes)`: the class of each of `labels`, the sorted classes, and the class of
        each of `others`, −1 where it is not among them.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    if classes.dtype.kind == others.dtype.kind:
        known, sought = classes, others
    else:  # words beside numbers, as of a table; or numbers that int64 does not hold: numpy would make them floats
        known, sought = np.array([str(one) for one in classes.tolist()]), others.astype(str)
    places = {one: place for place, one in enumerate(known.tolist())}
    return codes, classes, np.array([places.get(one, MISSING) for one in sought.tolist()], "int64")


def some_of(labels):
    """Some of the labels, for a message."""
    kinds = np.unique(labels).tolist()
    return ", ".join(str(one) for one in kinds[:3]) + (" …" if len(kinds) > 3 else "")


def check_some_known(others, other_codes):
    """Raises `ValueError` if no query could be right."""
    if len(others) and np.all(other_codes == MISSING):
        raise ValueError(
            f"`query_labels` name no class that `labels` name, but such as {some_of(others)}: no query could be right. "
            "Give labels of the same classes for both."
        )


def labeled_images(name, data):
    """Returns `(images, labels)` of a `Split` or of a pair of arrays, checked: those that have a label."""
    return labeled_split(name, data)[:2]


def labeled_split(name, data):
    """`labeled_images`, and the row of each: `(images, labels, rows)`. What is on disk stays there."""
    if isinstance(data, Data):
        raise ValueError(f"`{name}` is a whole data set: give its .train or its .test.")
    if isinstance(data, Split):
        split, labels = data, data.labels
    else:
        split, labels = _loaded(data)
    if split.images is None:
        raise ValueError(f"`{name}` is a stream, and rows of it are drawn by label: give arrays or a folder of images.")
    if labels is None:
        raise ValueError(f"`{name}` has no labels: give (images, labels), or a folder with a sub-folder a class.")
    if len(split.images) == 0:
        raise ValueError(f"`{name}` holds no image.")
    labels = check_labels(name, split.images, labels)
    rows = labeled_rows(name, labels)
    return some_images(split.images, rows), labels[rows], rows


def some_images(images, rows):
    """Some rows of images, ascending: neither read from disk nor copied."""
    if len(rows) == len(images):
        return images
    return take(images, rows) if isinstance(images, LazyArray) else Rows(images, rows)


def _loaded(data):
    """`(split, labels)` of what `load` takes. Labels of a pair go around it, which may number words."""
    if not (isinstance(data, (tuple, list)) and len(data) == 2) or data[1] is None:
        split = load(data).train
        return split, split.labels
    return load((data[0], codes_of(data[1])[0])).train, data[1]


def check_validation(images, labels, held, held_labels, name="validation"):
    """Raises `ValueError` for held-out images of another shape, and for labels that no training image has."""
    if tuple(held.shape[1:]) != tuple(images.shape[1:]):
        raise ValueError(
            f"Images of `{name}` have the shape {tuple(held.shape[1:])} and those of `train` "
            f"{tuple(images.shape[1:])}: give both the same."
        )
    check_all_known(labels, held_labels, name)


def unknown_rows(labels, held_labels):
    """Which held-out images have labels that no training image has: boolean, one an image."""
    return common_codes(labels, held_labels)[2] == MISSING


def check_all_known(labels, held_labels, name):
    """Raises `ValueError` for held-out labels that no training image has."""
    unknown = held_labels[unknown_rows(labels, held_labels)]
    if len(unknown):
        raise ValueError(
            f"`{name}` has labels that `train` has not, such as {some_of(unknown)}: no classifier can learn them. "
            "Leave those images out, or give `train` some of them."
        )


def draw_fraction(labels, fraction, seed):
    """Draws a fraction of the labels of each class, rounded to the nearest number.

    Args:
        labels: `(N,)`, integers or strings. Rows without one are not drawn, and do not count.
        fraction: in (0, 1].
        seed: of the draw; the draws of one seed are nested.

    Returns:
        The rows, ascending.

    Raises:
        ValueError: a class would have no label; names the class and the smallest fraction that gives it one.
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"`labels_fraction` must lie in (0, 1], such as 0.01 for 1 %; it is {fraction!r}.")
    classes, members = _rows_by_class(labels)
    counts = np.array([len(rows) for rows in members])
    drawn = np.floor(fraction * counts + 0.5).astype(int)
    if not drawn.all():
        rarest = np.argmin(counts)
        enough = math.ceil(0.5 / counts[rarest] * 1e4) / 1e4
        raise ValueError(
            f"`labels_fraction`={fraction:g} leaves class {classes[rarest]} empty, which has {counts[rarest]} labeled "
            f"images: give {enough:g} or more, or per_class=1 for one label of each class."
        )
    generator = np.random.default_rng(seed)
    return np.sort(np.concatenate([generator.permutation(rows)[:number] for rows, number in zip(members, drawn)]))


def draw_labels(labels, per_class, seed):
    """Draws `per_class` labels of each class, or all if there are fewer; returns the rows, ascending.

    Rows without a label (−1, None, NaN, an empty string) are not drawn.
    """
    generator = np.random.default_rng(seed)
    return np.sort(np.concatenate([generator.permutation(rows)[:per_class] for rows in _rows_by_class(labels)[1]]))


def sample_by_class(labels, most, seed=0):
    """Draws at most `most` rows: the same number from each class, or all rows of a class that has fewer.

    Rows without a label are not drawn.
    """
    codes, classes = codes_of(labels)
    labeled = np.flatnonzero(codes != MISSING)
    if most is None or len(labeled) <= most:
        return labeled
    order = labeled[np.random.default_rng(seed).permutation(len(labeled))]
    shuffled = codes[order]
    # The place of each row among those of its class: first all first rows, then all second ones.
    place = np.zeros(len(order), "int64")
    for rows in _groups(shuffled, len(classes)):
        place[rows] = np.arange(len(rows))
    return np.sort(order[np.argsort(place, kind="stable")[:most]])


def _rows_by_class(labels):
    """`(classes, rows)`: the sorted classes, and the rows of each, ascending."""
    labels = flat_labels(labels)
    labeled_rows("labels", labels)
    codes, classes = codes_of(labels)
    return classes, _groups(codes, len(classes))


def _groups(codes, count):
    # By one sort: a look at all rows for each class would take a hundred thousand looks for as many identities.
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.searchsorted(codes[order], np.arange(count + 1)))[1:-1]
