"""Labeled images: what the evaluations ask of them, and which of their rows are used."""

import math

import numpy as np

from keras_ssl.data import Data, Split, load


def check_labels(name, features, labels):
    """Returns labels as int64 `(N,)`, one for each row of `features`."""
    labels = np.asarray(labels)
    if labels.shape != (len(features),):
        raise ValueError(
            f"`{name}` has {len(features)} rows, and its labels the shape {labels.shape}: give one per row."
        )
    if labels.dtype.kind not in "iub":
        raise ValueError(f"Labels of `{name}` must be integers; they are {labels.dtype}.")
    return labels.astype("int64")


def check_classes(name, labels):
    """Raises `ValueError` if all labels are of one class."""
    if len(np.unique(labels)) < 2:
        raise ValueError(f"The labels of `{name}` name a single class: there is nothing to tell apart.")


def labeled_images(name, data):
    """Returns `(images, labels)` of a `Split` or of a pair of arrays, checked."""
    if isinstance(data, Data):
        raise ValueError(f"`{name}` is a whole data set: give its .train or its .test.")
    split = data if isinstance(data, Split) else load(data).train
    if split.images is None:
        raise ValueError(f"`{name}` is a stream, and rows of it are drawn by label: give arrays or a folder of images.")
    if split.labels is None:
        raise ValueError(f"`{name}` has no labels: give (images, labels), or a folder with a sub-folder a class.")
    if len(split.images) == 0:
        raise ValueError(f"`{name}` holds no image.")
    return split.images, check_labels(name, split.images, split.labels)


def check_validation(images, labels, held, held_labels):
    """Raises `ValueError` for held-out images of another shape, and for labels that no training image has."""
    if tuple(held.shape[1:]) != tuple(images.shape[1:]):
        raise ValueError(
            f"Images of `validation` have the shape {tuple(held.shape[1:])} and those of `train` "
            f"{tuple(images.shape[1:])}: give both the same."
        )
    unknown = np.setdiff1d(held_labels, labels)
    if len(unknown):
        raise ValueError(
            f"`validation` has labels that `train` has not, such as {unknown[0]}: no classifier can learn them. Leave "
            "those images out, or give `train` some of them."
        )


def draw_fraction(labels, fraction, seed):
    """Draws a fraction of the labels of each class, rounded to the nearest number.

    Args:
        labels: integers `(N,)`.
        fraction: in (0, 1].
        seed: of the draw; the draws of one seed are nested.

    Returns:
        The rows, ascending.

    Raises:
        ValueError: a class would have no label; names the class and the smallest fraction that gives it one.
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"`labels_fraction` must lie in (0, 1], such as 0.01 for 1 %; it is {fraction!r}.")
    labels = np.asarray(labels)
    classes, counts = np.unique(labels, return_counts=True)
    drawn = np.floor(fraction * counts + 0.5).astype(int)
    if not drawn.all():
        rarest = np.argmin(counts)
        enough = math.ceil(0.5 / counts[rarest] * 1e4) / 1e4
        raise ValueError(
            f"`labels_fraction`={fraction:g} leaves class {classes[rarest]} empty, which has {counts[rarest]} labeled "
            f"images: give {enough:g} or more, or per_class=1 for one label of each class."
        )
    generator = np.random.default_rng(seed)
    rows = [generator.permutation(np.flatnonzero(labels == one))[:number] for one, number in zip(classes, drawn)]
    return np.sort(np.concatenate(rows))


def draw_labels(labels, per_class, seed):
    """Draws `per_class` labels of each class, or all if there are fewer; returns the rows, ascending."""
    generator = np.random.default_rng(seed)
    rows = [generator.permutation(np.flatnonzero(labels == label))[:per_class] for label in np.unique(labels)]
    return np.sort(np.concatenate(rows))


def sample_by_class(labels, most, seed=0):
    """Draws at most `most` rows: the same number from each class, or all rows of a class that has fewer."""
    if most is None or len(labels) <= most:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    shuffled = np.asarray(labels)[order]
    # The place of each row among those of its class: first all first rows, then all second ones.
    place = np.zeros(len(labels), "int64")
    for label in np.unique(shuffled):
        same = shuffled == label
        place[same] = np.arange(same.sum())
    return np.sort(order[np.argsort(place, kind="stable")[:most]])
