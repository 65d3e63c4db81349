"""The parts of a data set: images, their labels, and what else is known of them."""

import dataclasses

import numpy as np

from keras_ssl.data.lazy import LazyArray


@dataclasses.dataclass
class Split:
    """One part of a data set.

    Attributes:
        images: `(N, height, width, channels)`, array or array-like; None for a stream.
        labels: integers `(N,)`, or None.
        class_names: a list of names by label, or None.
        dataset: the stream (`tf.data.Dataset`, `PyDataset`, `DataLoader`), or None for arrays.
        paths: of the pictures of a folder, one an image, or None.
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
