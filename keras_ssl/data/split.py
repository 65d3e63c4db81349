"""The parts of a data set: images, their labels, and what else is known of them."""

import dataclasses
import hashlib
import os

import numpy as np

from keras_ssl.data.labels import MISSING, class_labels
from keras_ssl.data.lazy import LazyArray, take
from keras_ssl.data.value_range import check_numbers


@dataclasses.dataclass(repr=False)
class Split:
    """One part of a data set.

    Attributes:
        images: `(N, height, width, channels)`, array or array-like; None for a stream.
        labels: integers `(N,)`, −1 for an image without a label; None where no image has one.
        class_names: a list of names by label, or None where labels are the user's own integers.
        dataset: the stream (`tf.data.Dataset`, `PyDataset`, `DataLoader`), or None for arrays.
        paths: of the pictures of a folder, one per image, or None.
        files: the pictures of a folder on disk, `ImageFiles`, also where `images` holds them in memory; or None.
        value_range: lowest and highest value that the images can have, or None where it is not known.
    """

    images: object = None
    labels: np.ndarray | None = None
    class_names: list | None = None
    dataset: object = None
    paths: list | None = None
    files: object = None
    value_range: tuple | None = None

    def __len__(self):
        return 0 if self.images is None else len(self.images)

    def __repr__(self):
        if self.images is None:
            return f"Split({self.dataset!r})"
        return f"Split({describe(self)}, {'×'.join(map(str, self.images.shape[1:]))} {self.images.dtype})"

    def __bool__(self):
        # A stream has no length, and an empty part is a part: `if data.test` asks whether there is one.
        return True

    @property
    def has_label(self):
        """Which images have a label: boolean `(N,)`."""
        return np.zeros(len(self), bool) if self.labels is None else self.labels != MISSING

    def labeled(self):
        """The part of it that has labels; itself where all images have one, None where none has."""
        known = self.has_label
        if not known.any():
            return None
        return self if known.all() else take_rows(self, np.flatnonzero(known))

    def labels_per_class(self):
        """How many labels each class has, ascending by label: integers `(classes,)`."""
        return np.unique(self.labels[self.has_label], return_counts=True)[1]

    def name_of(self, label):
        """The name of a label."""
        return str(self.class_names[label]) if self.class_names is not None else str(label)


@dataclasses.dataclass(repr=False)
class Data:
    """A data set.

    Attributes:
        train: the split to train on.
        test: the split that figures are taken from, or None. Where a set has no split named so, its validation split.
        validation: the split named so, or None.
        left_out: `(path, reason)` of the pictures of a folder that can't be used.
        notes: sentences about how a folder was read.
    """

    train: Split
    test: Split | None = None
    validation: Split | None = None
    left_out: list = dataclasses.field(default_factory=list)
    notes: list = dataclasses.field(default_factory=list)

    def __repr__(self):
        parts = "".join(f"\n  {name}={split!r}," for name, split in self.splits().items())
        lists = {"left_out": self.left_out, "notes": self.notes}
        more = "".join(f"\n  {name}: {len(found):,}" for name, found in lists.items() if found)
        return f"Data({parts}{more}\n)"

    def splits(self):
        """A dict of name to split, each once."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        if self.validation is self.test:
            del found["test"]
        return {name: split for name, split in found.items() if split is not None}


def make_split(images, labels=None, class_names=None):
    """A `Split` of arrays, checked; labels in any form that `keras_ssl.data.labels.class_labels` takes."""
    if labels is not None:
        (labels,), found = class_labels([labels], "labels")
        class_names = class_names if found is None else found
    images = images if hasattr(images, "__array_interface__") or isinstance(images, LazyArray) else np.asarray(images)
    check_numbers(images)
    if len(images.shape) == 3:
        images = images[..., None]
    if len(images.shape) != 4:
        raise ValueError(
            f"Images must be (N, height, width, channels) or (N, height, width); these are {images.shape}."
        )
    if labels is not None:
        if len(labels) != len(images):
            raise ValueError(f"`labels` must be one label an image: {len(images)} images, labels {labels.shape}.")
        if (labels == MISSING).all() and len(labels):
            labels, class_names = None, None
    return Split(images, labels, class_names)


def make_splits(parts, class_names=None):
    """`Data` of arrays with one numbering of labels.

    Args:
        parts: a dict of "train", "validation" and "test", as far as there are such, to `(images, labels or None)`.
        class_names: names by label, where labels are integers.
    """
    labels, found = class_labels([given for _, given in parts.values()], "labels")
    names = class_names if found is None else found
    splits = {name: make_split(images, known, names) for (name, (images, _)), known in zip(parts.items(), labels)}
    test = splits.get("test", splits.get("validation"))
    return Data(splits["train"], test, splits.get("validation"))


NOT_TRAINED_ON = "not used for training or for fitting the probes"


def hold_out(data, seed, share=0.2, most=2000, trained_here=True, pretrained=False):
    """Takes a test split out of training, for data that has labels and no test split of its own.

    Args:
        data: `Data` of images.
        seed: of the draw.
        share, most: at most this share of the images, and at most this many.
        trained_here: whether a model will be trained on, or was trained on, exactly the rest; for the sentence.
        pretrained: whether a model was trained on all of these images, before they had labels; for the sentence.

    Returns:
        A tuple `(data, sentence)`: the sentence says what was held out.
    """
    train, test = data.train, data.test
    if train.images is None:
        raise ValueError("hold_out: `data` is a stream, and images of arrays, a folder or a file are needed.")
    labeled = np.flatnonzero(train.has_label)
    if len(labeled) and len(np.unique(train.labels[labeled])) < 2:
        nothing = "nothing: all images are of one class, so there are no labels to evaluate with"
        data = dataclasses.replace(data, train=without_labels(train), test=without_labels(test))
        return data, f"{len(test):,} test images of the data set itself" if test is not None else nothing
    if test is not None and (test.labels is not None or not len(labeled)):
        which = "validation" if test is data.validation else "test"
        return data, f"{test.has_label.sum() or len(test):,} {which} images of the data set itself"
    if not len(labeled):
        return data, "nothing: there are no labels to evaluate with"
    rows = labeled[np.random.default_rng(seed).permutation(len(labeled))]
    size = min(most, int(share * len(rows)))
    held, kept = rows[:size], rows[size:]
    # A class must not be held out as a whole: no probe could learn it.
    lone = [row for row in held if not np.any(train.labels[kept] == train.labels[row])]
    lone = [row for place, row in enumerate(lone) if train.labels[row] not in train.labels[lone[:place]]]
    held = np.sort(np.setdiff1d(held, lone))
    if not len(held):
        return data, f"nothing: {len(labeled):,} labels are too few to hold some out"
    if pretrained:
        use = "not used for fitting the probes; the backbone was trained on them, without their labels"
    elif trained_here:
        use = NOT_TRAINED_ON
    else:
        use = "not used for fitting the probes; whether the backbone was trained on them is not known"
    of_labeled = " of those with a label" if len(labeled) < len(train) else ""
    sentence = f"{len(held):,} images drawn at random{of_labeled} ({use})"
    return hold_out_rows(data, held, sentence)


def hold_out_rows(data, held, sentence):
    """`(data, sentence)` as `hold_out`'s, with rows of the training images that are known: `held`, ascending."""
    train = data.train
    kept = np.setdiff1d(np.arange(len(train)), held)
    return dataclasses.replace(data, train=take_rows(train, kept), test=take_rows(train, held)), sentence


def fingerprint(split):
    """A word that is another one where images are added, missing, renamed or in another order.

    It is made of the names of pictures below their common folder, so that a copy of the folder has the same; of arrays
    it is made of their shape and numbers, of a thousand images where there are more.
    """
    digest = hashlib.sha256()
    if split.paths is not None:
        common = os.path.commonpath(split.paths) if split.paths else ""
        for path in split.paths:
            digest.update(os.fsencode(os.path.relpath(path, common)) + b"\0")
    else:
        digest.update(repr((tuple(split.images.shape), str(split.images.dtype))).encode())
        for row in np.unique(np.linspace(0, len(split) - 1, 1000).astype("int64")):
            digest.update(np.ascontiguousarray(split.images[row]).tobytes())
    return digest.hexdigest()


def take_rows(split, rows):
    """Some rows of a split; pictures of a large folder stay on disk."""
    return dataclasses.replace(
        split,
        images=take(split.images, rows),
        labels=None if split.labels is None else split.labels[rows],
        paths=None if split.paths is None else [split.paths[row] for row in rows],
        files=None if split.files is None else split.files.only(rows),
    )


def rows_known_to_train(split, train):
    """Numbers of the images of a split whose label the training images have too: no probe could learn another."""
    return np.flatnonzero(split.has_label & np.isin(split.labels, train.labels))


def known_to_train(split, train):
    """The images of `rows_known_to_train`, a split."""
    return take_rows(split, rows_known_to_train(split, train))


def of_known_classes(data, sentence):
    """`(data, sentence)` of `hold_out`, without the labels of test images of which no class is in training.

    A misspelled folder makes such classes: no probe could learn them.
    """
    train, test = data.train, data.test
    if test is None or test.labels is None or train.labels is None or len(rows_known_to_train(test, train)):
        return data, sentence

    def named(split):
        names = [split.name_of(label) for label in np.unique(split.labels[split.has_label])]
        return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")

    data = dataclasses.replace(data, test=without_labels(test))
    return data, (
        f"nothing: no class of the {len(test):,} test images ({named(test)}) is one of the training images' "
        f"({named(train)}), so their labels are of no use"
    )


def describe(split):
    """How many images there are, and how many of them have labels: a phrase."""
    known, count = split.has_label, len(split)
    if not known.any():
        return f"{count:,} images without labels"
    classes = len(np.unique(split.labels[known]))
    if known.all():
        return f"{count:,} images with labels of {classes:,} classes"
    return f"{count:,} images, {known.sum():,} with labels of {classes:,} classes and {(~known).sum():,} without"


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
