"""Where images come from: names, folders, files, arrays, streams; and how TensorFlow wants to be fed.

`load` gives a train and a test split of anything a user may point at. Nothing here needs a network but the names that
`keras.datasets` fetches by itself.
"""

import concurrent.futures
import dataclasses
import difflib
import gzip
import pathlib
import warnings

import keras
import numpy as np

from keras_ssl.batches import Batches, Checked, standard_batch

_SAMPLE = pathlib.Path(__file__).parent / "datasets" / "fashion_mnist_sample.npz"
_KERAS_NAMES = ("fashion_mnist", "mnist", "cifar10", "cifar100")
NAMES = ("fashion_mnist_sample", *_KERAS_NAMES)
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
_TRAIN_FOLDERS = ("train", "training")
_TEST_FOLDERS = ("test", "val", "valid", "validation")
_IN_MEMORY = 4 * 2**30

_FASHION_CLASSES = ["T-shirt", "trouser", "pullover", "dress", "coat"] + [
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
]
_CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_CLASS_NAMES = {
    "fashion_mnist_sample": _FASHION_CLASSES,
    "fashion_mnist": _FASHION_CLASSES,
    "mnist": [str(digit) for digit in range(10)],
    "cifar10": _CIFAR10_CLASSES,
}


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


@dataclasses.dataclass
class Data:
    """`train`, and `test` or None."""

    train: Split
    test: Split | None = None


def load(source, image_size=None, max_bytes=_IN_MEMORY):
    """Loads images.

    Args:
        source: one of
            - a name: `"fashion_mnist_sample"` comes with the package (10,000 training and 2,000 test images of 28×28,
              MIT licence); `"fashion_mnist"`, `"mnist"`, `"cifar10"`, `"cifar100"` are fetched once by Keras;
            - a folder of images in any depth (JPEG, PNG, BMP, GIF, WebP). The first level of sub-folders gives the
              labels; sub-folders `train` and `test` (or `val`) give the splits;
            - a folder or file in MNIST's IDX format, gzipped or not;
            - a `.npy` file of images, or a `.npz` with `images` and `labels`, or `x_train`, `y_train`, `x_test` …;
            - an array, `(images, labels)`, or a dict;
            - a stream: `tf.data.Dataset`, `keras.utils.PyDataset`, torch `DataLoader`.
        image_size: `(height, width)` or one number, in pixels: images of a folder are resized to it. Needed where they
            are not of one size already.
        max_bytes: a folder that takes more than this is decoded batch by batch, else once.

    Returns:
        `Data` with `.train` and `.test` (or None); each has `.images` and `.labels`, or `.dataset` for a stream.

    Raises:
        ValueError, FileNotFoundError: what is wrong, and the way out.
    """
    if isinstance(source, Data):
        return source
    if isinstance(source, (str, pathlib.Path)):
        return _load_named(source, image_size, max_bytes)
    if isinstance(source, (tuple, list, dict)) or hasattr(source, "shape"):
        parts = standard_batch(source)
        if "image" not in parts:
            raise ValueError('Views of your own go to `fit` as they are; `load` takes images, or {"image": …}.')
        return Data(_split(parts["image"], parts.get("label")))
    if is_stream(source):
        return Data(Split(dataset=source))
    raise TypeError(f"Can't load images from a {type(source).__name__}: give a name, a path, arrays or a data set.")


def is_stream(source):
    """Whether `source` gives batches one after another."""
    return isinstance(source, keras.utils.PyDataset) or is_tf_dataset(source) or hasattr(source, "__iter__")


def is_tf_dataset(source):
    return any(cls.__name__ == "DatasetV2" and cls.__module__.startswith("tensorflow.") for cls in type(source).__mro__)


def _split(images, labels=None, class_names=None):
    images = images if hasattr(images, "__array_interface__") or isinstance(images, ImageFiles) else np.asarray(images)
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


def _load_named(source, image_size, max_bytes):
    path = pathlib.Path(source).expanduser()
    name = str(source)
    pictures = path.is_dir() and not any(path.glob("*-idx3-ubyte*"))
    if image_size is not None and not pictures and (path.exists() or name in NAMES):
        raise ValueError(
            f"`image_size` is {image_size}, and resizes the pictures of a folder; {name} holds arrays, which have a "
            "size: leave it out, or resize them before."
        )
    if name in NAMES and not path.exists():
        return _load_known(name)
    if not path.exists():
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f'Did you mean "{near[0]}"?' if near else f"Known names: {', '.join(NAMES)}."
        raise FileNotFoundError(f'There is no data set or path "{name}". {hint}')
    if path.is_file():
        return _load_file(path)
    if any(path.glob("*-idx3-ubyte*")):
        return _load_idx_folder(path)
    return _load_folder(path, image_size, max_bytes)


def _load_known(name):
    classes = _CLASS_NAMES.get(name)
    if name == "fashion_mnist_sample":
        with np.load(_SAMPLE) as file:
            return Data(
                _split(file["train_images"], file["train_labels"], classes),
                _split(file["test_images"], file["test_labels"], classes),
            )
    train, test = getattr(keras.datasets, name).load_data()
    return Data(_split(*train, classes), _split(*test, classes))


def _load_file(path):
    if path.suffix == ".npy":
        return Data(_split(np.load(path, mmap_mode="r")))
    if path.suffix == ".npz":
        return _load_npz(path)
    if "ubyte" in path.name:
        return Data(_split(_read_idx(path)))
    raise ValueError(f"Can't read {path}: files of images are .npy, .npz or IDX; or give a folder of pictures.")


def _load_npz(path):
    with np.load(path) as file:
        names = set(file.files)
        for images, labels in (("x_{}", "y_{}"), ("{}_images", "{}_labels")):
            if images.format("train") in names:
                splits = {
                    part: _split(
                        file[images.format(part)],
                        file[labels.format(part)] if labels.format(part) in names else None,
                    )
                    for part in ("train", "test")
                    if images.format(part) in names
                }
                return Data(splits["train"], splits.get("test"))
        if "images" in names:
            return Data(_split(file["images"], file["labels"] if "labels" in names else None))
    raise ValueError(f'{path} holds {sorted(names)}; name the arrays "images" and "labels", or "x_train", "y_train" ….')


def _load_idx_folder(path):
    splits = {}
    for part, prefixes in (("train", ("train",)), ("test", ("t10k", "test"))):
        for prefix in prefixes:
            images = sorted(path.glob(f"{prefix}-images*-idx3-ubyte*"))
            labels = sorted(path.glob(f"{prefix}-labels*-idx1-ubyte*"))
            if images:
                splits[part] = _split(_read_idx(images[0]), _read_idx(labels[0]).astype("int64") if labels else None)
    if "train" not in splits:
        raise ValueError(f"{path} holds IDX files, but no train-images-idx3-ubyte.")
    return Data(splits["train"], splits.get("test"))


def _read_idx(path):
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    zeros, kind, rank = content[:2], content[2], content[3]
    if zeros != b"\0\0" or kind != 8:
        raise ValueError(f"{path} is not an IDX file of bytes.")
    shape = np.frombuffer(content, ">i4", rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


class ImageFiles:
    """Pictures on disk that are indexed like an array: `files[rows]` decodes just those, as uint8.

    Args:
        paths: of the pictures.
        size: `(height, width)` to which each is resized.
        channels: 1 or 3.
    """

    dtype = np.dtype("uint8")

    def __init__(self, paths, size, channels):
        self.paths = list(paths)
        self.shape = (len(self.paths), *size, channels)
        self._workers = concurrent.futures.ThreadPoolExecutor(4)

    def __len__(self):
        return len(self.paths)

    def only(self, rows):
        """Some of the pictures, not yet decoded."""
        return ImageFiles([self.paths[row] for row in rows], self.shape[1:3], self.shape[3])

    def __getitem__(self, rows):
        if isinstance(rows, slice):
            rows = range(*rows.indices(len(self)))
        if np.ndim(rows) == 0:
            return self._decode(rows)
        images = list(self._workers.map(self._decode, rows))
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), "uint8")

    def _decode(self, row):
        try:
            return self._decoded(self.paths[row])
        except OSError as error:  # its header was read before
            raise ValueError(f"{self.paths[row]} can't be read: {error}. Remove it, or repair it.") from None

    def _decoded(self, path):
        from PIL import Image

        with Image.open(path) as picture:
            if picture.mode.startswith("I;16"):  # sixteen bits a pixel; Pillow would cut them off at 255
                picture = Image.fromarray((np.asarray(picture) >> 8).astype("uint8"))
            picture = picture.convert("L" if self.shape[3] == 1 else "RGB")
            if picture.size != (self.shape[2], self.shape[1]):
                picture = picture.resize((self.shape[2], self.shape[1]), Image.Resampling.BILINEAR)
            return np.asarray(picture).reshape(self.shape[1:])


def _load_folder(root, image_size, max_bytes):
    folders = {entry.name.lower(): entry for entry in sorted(root.iterdir()) if entry.is_dir()}
    train = next((folders[name] for name in _TRAIN_FOLDERS if name in folders), None)
    test = next((folders[name] for name in _TEST_FOLDERS if name in folders), None) if train else None
    listed = {"train": _list_pictures(train or root)}
    if test:
        listed["test"] = _list_pictures(test)
    classes = sorted({label for paths in listed.values() for _, label in paths if label is not None})
    headers = [_header(path) for paths in listed.values() for path, _ in paths]
    bad = {path for path, size, _ in headers if size is None}
    if len(bad) == len(headers):
        raise ValueError(f"None of the {len(headers)} pictures under {root} can be read; the first is {headers[0][0]}.")
    if bad:
        warnings.warn(f"{len(bad)} of {len(headers)} pictures can't be read and are left out, such as {min(bad)}.")
    sizes = {size for _, size, _ in headers if size is not None}
    if image_size is None and len(sizes) > 1:
        smallest, largest = min(sizes), max(sizes)
        raise ValueError(
            f"The pictures under {root} have {len(sizes)} sizes, from {smallest[0]}×{smallest[1]} to {largest[0]}×"
            f"{largest[1]} pixels, and a batch needs one. Say which: image_size=64, or image_size=(height, width)."
        )
    size = (image_size, image_size) if isinstance(image_size, int) else image_size or next(iter(sizes))
    channels = 1 if all(gray for _, size_, gray in headers if size_ is not None) else 3
    splits = {}
    for part, paths in listed.items():
        paths = [(path, label) for path, label in paths if path not in bad]
        labels = None
        if classes and all(label is not None for _, label in paths):
            labels = np.array([classes.index(label) for _, label in paths])
        files = [path for path, _ in paths]
        images = ImageFiles(files, size, channels)
        if np.prod(images.shape, dtype="int64") <= max_bytes:
            images = images[:]
        splits[part] = _split(images, labels, classes if labels is not None else None)
        splits[part].paths = files
    return Data(splits["train"], splits.get("test"))


def _list_pictures(folder):
    """`(path, label)` of each picture; the label is the first folder on the way, or None right below `folder`."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    if not paths:
        kinds = ", ".join(suffix[1:] for suffix in _SUFFIXES)
        raise ValueError(f"There is no picture under {folder}. It was searched in any depth for {kinds}.")
    levels = [path.relative_to(folder).parts for path in paths]
    return [(path, parts[0] if len(parts) > 1 else None) for path, parts in zip(paths, levels)]


def _header(path):
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return path, (picture.size[1], picture.size[0]), picture.mode in ("1", "L", "LA") or picture.mode[0] == "I"
    except (UnidentifiedImageError, OSError):
        return path, None, False


def feed(batches, order=None):
    """What Keras' `fit` is given for `Batches` or `Checked`: on TensorFlow a data set whose shapes are known.

    Keras would make one itself, but with an open batch size, and XLA and the chunked losses want it closed.

    Args:
        batches: of one size.
        order: of the rows of each batch, from `distribute.dealing_order`; None as they come.
    """
    if order is not None and (batches.steps is None or batches.workers > 1):
        raise ValueError(
            "With several workers of several devices a PyDataset must have a length and workers=1: its rows are "
            "brought into the order in which TensorFlow deals them out."
        )
    if keras.backend.backend() != "tensorflow" or batches.steps is None or batches.workers > 1:
        return batches
    import tensorflow as tf

    spec = keras.tree.map_structure(lambda array: tf.TensorSpec(array.shape, array.dtype), batches[0])

    def read():
        for index in range(batches.num_batches):
            batch = batches[index]
            yield batch if order is None else keras.tree.map_structure(lambda array: array[order], batch)

    dataset = tf.data.Dataset.from_generator(read, output_signature=spec)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches.num_batches)).prefetch(2)
    options = tf.data.Options()
    # Several workers: each reads the whole order and keeps its own rows of every batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def checked_stream(dataset, value_range, keep):
    """A user's `tf.data.Dataset` of batches: standard form, one size, values looked at on the way.

    Args:
        dataset: batched; elements in any form that `fit` takes.
        value_range: of the model.
        keep: names of the parts of a batch that the model uses.

    Returns:
        `(dataset, batch_size, steps, parts)`; steps is None where it can't be told; parts are the names of all that a
        batch has, also of what is not kept.
    """
    import tensorflow as tf

    parts = set()

    low, high = value_range
    slack = 1e-3 * (high - low)

    def check(images):
        if images.dtype == tf.uint8 and low <= 0.0 and high >= 255.0:
            return images
        smallest, largest = tf.reduce_min(images), tf.reduce_max(images)
        inside = tf.cast(smallest, tf.float32) >= low - slack, tf.cast(largest, tf.float32) <= high + slack
        message = (
            f"A batch holds NaN or values outside of the model's value_range=({low:g}, {high:g}): pass the range that "
            "the images have, such as value_range=(0, 1), or bring them into this one. Smallest and largest:"
        )
        with tf.control_dependencies([tf.debugging.Assert(tf.logical_and(*inside), [message, smallest, largest])]):
            return tf.identity(images)

    def standard(*given):
        batch = standard_batch(given[0] if len(given) == 1 else given)
        parts.update(batch)
        batch = {name: part for name, part in batch.items() if name in keep}
        for name in ("image", "views"):
            if name in batch:
                batch[name] = tf.nest.map_structure(check, batch[name])
        return batch

    dataset = dataset.map(standard, num_parallel_calls=tf.data.AUTOTUNE)
    cardinality = int(dataset.cardinality())
    sizes = {spec.shape[0] if spec.shape.rank else 0 for spec in tf.nest.flatten(dataset.element_spec)}
    if 0 in sizes:
        raise ValueError("The data set gives single numbers: batch it, dataset.batch(256, drop_remainder=True).")
    if None not in sizes and len(sizes) == 1:
        return dataset, sizes.pop(), cardinality if cardinality > 0 else None, parts
    try:
        rows = len(tf.nest.flatten(next(iter(dataset)))[0])
    except StopIteration:
        raise ValueError("The data set is empty.") from None
    return dataset.rebatch(rows, drop_remainder=True), rows, None, parts


__all__ = ["NAMES", "Batches", "Checked", "Data", "ImageFiles", "Split", "load"]
