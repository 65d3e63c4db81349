"""Parts of a split: what is held out of training, some of its images, and the same without labels."""

import dataclasses

import numpy as np

from keras_ssl.data import Data, ImageFiles, Split


def hold_out(data, seed, share=0.2, most=2000, trained_here=True):
    """Takes a test split out of training, for data that has labels and no test split of its own.

    Args:
        data: `Data` of images.
        seed: of the draw.
        share, most: at most this share of the images, and at most this many.
        trained_here: whether a model will be trained on, or was trained on, exactly the rest; for the sentence.

    Returns:
        `(data, sentence)`: the sentence says what was held out.
    """
    train = data.train
    if train.images is None:
        raise ValueError("hold_out: `data` is a stream, and images of arrays, a folder or a file are needed.")
    if train.labels is not None and len(np.unique(train.labels)) < 2:
        nothing = "nothing: all images are of one class, so there are no labels to evaluate with"
        data = Data(without_labels(train), without_labels(data.test))
        return data, f"{len(data.test):,} test images of the data set itself" if data.test else nothing
    if data.test is not None and (data.test.labels is not None or train.labels is None):
        return data, f"{len(data.test):,} test images of the data set itself"
    if train.labels is None:
        return data, "nothing: there are no labels to evaluate with"
    rows = np.random.default_rng(seed).permutation(len(train))
    size = min(most, int(share * len(rows)))
    test, kept = rows[:size], rows[size:]
    # A class must not be held out as a whole: no probe could learn it.
    lone = [row for row in test if not np.any(train.labels[kept] == train.labels[row])]
    lone = [row for place, row in enumerate(lone) if train.labels[row] not in train.labels[lone[:place]]]
    test, kept = np.sort(np.setdiff1d(test, lone)), np.sort(np.concatenate([kept, lone]).astype(rows.dtype))
    if trained_here:
        use = "not used for training or for fitting the probes"
    else:
        use = "not used for fitting the probes; whether the backbone was trained on them is not known"
    sentence = f"{len(test):,} images drawn at random ({use})"
    return Data(take(train, kept), take(train, test)), sentence


def take(split, rows):
    """Some rows of a split; pictures of a large folder stay on disk."""
    images = split.images.only(rows) if isinstance(split.images, ImageFiles) else split.images[rows]
    paths = None if split.paths is None else [split.paths[row] for row in rows]
    labels = None if split.labels is None else split.labels[rows]
    return Split(images, labels, split.class_names, paths=paths)


def sample_evenly(split, most, decode=True):
    """At most `most` images of a split, spread evenly over it.

    Args:
        decode: True for an array; False leaves pictures on disk where they are.
    """
    found = take(split, np.unique(np.linspace(0, len(split) - 1, min(most, len(split))).astype(int)))
    if decode:
        found.images = found.images[:]
    return found


def without_labels(split):
    """The same images without labels; None for None."""
    return None if split is None else dataclasses.replace(split, labels=None, class_names=None)
