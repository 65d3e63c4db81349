"""The parts of a data set: images, their labels, and what else is known of them."""

import dataclasses

import numpy as np

from keras_ssl.data.lazy import LazyArray, take


@dataclasses.dataclass
class Split:
    """One part of a data set.

    Attributes:
        images: `(N, height, width, channels)`, array or array-like; None for a stream.
        labels: integers `(N,)`, or None.
        class_names: a list of names by label, or None.
        dataset: the stream (`tf.data.Dataset`, `PyDataset`, `DataLoader`), or None for arrays.
        paths: of the pictures of a folder, one per image, or None.
    """

    images: object = None
    labels: np.ndarray | None = None
    class_names: list | None = None
    dataset: object = None
    paths: list | None = None

    def __len__(self):
        return 0 if self.images is None else len(self.images)

    def __bool__(self):
        # A stream has no length, and an empty part is a part: `if data.test` asks whether there is one.
        return True


@dataclasses.dataclass
class Data:
    """`train`, and `test` or None."""

    train: Split
    test: Split | None = None


def make_split(images, labels=None, class_names=None):
    images = images if hasattr(images, "__array_interface__") or isinstance(images, LazyArray) else np.asarray(images)
    if len(images.shape) == 3:
        images = images[..., None]
    if len(images.shape) != 4:
        raise ValueError(
            f"Images must be (N, height, width, channels) or (N, height, width); these are {images.shape}."
        )
    if labels is not None:
        labels = np.asarray(labels)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.shape != (len(images),):
            raise ValueError(f"`labels` must be one integer an image: {len(images)} images, labels {labels.shape}.")
        if labels.dtype.kind not in "iub":
            raise ValueError(f"`labels` must be integers, and these are {labels.dtype}.")
    return Split(images, labels, class_names)


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
        return data, f"{len(data.test):,} test images of the data set itself" if data.test is not None else nothing
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
    return Data(take_rows(train, kept), take_rows(train, test)), sentence


def take_rows(split, rows):
    """Some rows of a split; pictures of a large folder stay on disk."""
    images = take(split.images, rows)
    paths = None if split.paths is None else [split.paths[row] for row in rows]
    labels = None if split.labels is None else split.labels[rows]
    return Split(images, labels, split.class_names, paths=paths)


def sample_evenly(split, most, decode=True):
    """At most `most` images of a split, spread evenly over it.

    Args:
        decode: True for an array; False leaves pictures on disk where they are.
    """
    found = take_rows(split, np.unique(np.linspace(0, len(split) - 1, min(most, len(split))).astype(int)))
    if decode:
        found.images = found.images[:]
    return found


def without_labels(split):
    """The same images without labels; None for None."""
    return None if split is None else dataclasses.replace(split, labels=None, class_names=None)
