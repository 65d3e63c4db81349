"""Where images come from: names, folders, files, arrays, streams.

`load` gives a train and a test split of anything a user may point at. Nothing here needs a network but the names that
`keras.datasets` fetches by itself.
"""

import difflib
import gzip
import pathlib

import keras
import numpy as np

from keras_ssl.data import samples
from keras_ssl.data.batch import standard_batch
from keras_ssl.data.folders import load_folder
from keras_ssl.data.split import Data, Split, make_split
from keras_ssl.data.streams import is_stream
from keras_ssl.names import DATA_SETS, RESIZABLE

NAMES = DATA_SETS
_IN_MEMORY = 4 * 2**30

_CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_CLASS_NAMES = {
    "fashion_mnist": samples.FASHION_CLASSES,
    "mnist": [str(digit) for digit in range(10)],
    "cifar10": _CIFAR10_CLASSES,
}


def load(source, image_size=None, max_bytes=_IN_MEMORY):
    """Loads images.

    Args:
        source: one of
            - a name: two samples come with the package, `"clothes_sample"` (3,409 training and 372 test photographs of
              64×64, CC0) and `"fashion_mnist_sample"` (10,000 and 2,000 gray images of 28×28, MIT license);
              `"fashion_mnist"`, `"mnist"`, `"cifar10"`, `"cifar100"` are fetched once by Keras;
            - a folder of images in any depth (JPEG, PNG, BMP, GIF, WebP). The first level of sub-folders gives the
              labels; sub-folders `train` and `test` (or `val`) give the splits;
            - a folder or file in MNIST's IDX format, gzipped or not;
            - a `.npy` file of images, or a `.npz` with `images` and `labels`, or `x_train`, `y_train`, `x_test` …;
            - an array, `(images, labels)`, or a dict;
            - a stream: `tf.data.Dataset`, `keras.utils.PyDataset`, torch `DataLoader`.
        image_size: `(height, width)` or one number, in pixels: pictures of a folder or of "clothes_sample" are resized
            to it. Needed where they are not of one size already.
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
        return Data(make_split(parts["image"], parts.get("label")))
    if is_stream(source):
        return Data(Split(dataset=source))
    raise TypeError(f"Can't load images from a {type(source).__name__}: give a name, a path, arrays or a data set.")


def _load_named(source, image_size, max_bytes):
    path = pathlib.Path(source).expanduser()
    name = str(source)
    pictures = name in RESIZABLE or (path.is_dir() and not any(path.glob("*-idx3-ubyte*")))
    if image_size is not None and not pictures and (path.exists() or name in NAMES):
        raise ValueError(
            f"`image_size` is {image_size}, and resizes the pictures of a folder or of {', '.join(RESIZABLE)}; {name} "
            "holds arrays, which have a size: leave it out, or resize them before."
        )
    if name in NAMES and not path.exists():
        return _load_known(name, image_size)
    if not path.exists():
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f'Did you mean "{near[0]}"?' if near else f"Known names: {', '.join(NAMES)}."
        raise FileNotFoundError(f'There is no data set or path "{name}". {hint}')
    if path.is_file():
        return _load_file(path)
    if any(path.glob("*-idx3-ubyte*")):
        return _load_idx_folder(path)
    return load_folder(path, image_size, max_bytes)


def _load_known(name, image_size):
    if name == "clothes_sample":
        return samples.clothes_sample(image_size)
    if name == "fashion_mnist_sample":
        return samples.fashion_mnist_sample()
    classes = _CLASS_NAMES.get(name)
    train, test = getattr(keras.datasets, name).load_data()
    return Data(make_split(*train, classes), make_split(*test, classes))


def _load_file(path):
    if path.suffix == ".npy":
        return Data(make_split(np.load(path, mmap_mode="r")))
    if path.suffix == ".npz":
        return _load_npz(path)
    if "ubyte" in path.name:
        return Data(make_split(_read_idx(path)))
    raise ValueError(f"Can't read {path}: files of images are .npy, .npz or IDX; or give a folder of pictures.")


def _load_npz(path):
    with np.load(path) as file:
        names = set(file.files)
        for images, labels in (("x_{}", "y_{}"), ("{}_images", "{}_labels")):
            if images.format("train") in names:
                splits = {
                    part: make_split(
                        file[images.format(part)],
                        file[labels.format(part)] if labels.format(part) in names else None,
                    )
                    for part in ("train", "test")
                    if images.format(part) in names
                }
                return Data(splits["train"], splits.get("test"))
        if "images" in names:
            return Data(make_split(file["images"], file["labels"] if "labels" in names else None))
    raise ValueError(f'{path} holds {sorted(names)}; name the arrays "images" and "labels", or "x_train", "y_train" ….')


def _load_idx_folder(path):
    splits = {}
    for part, prefixes in (("train", ("train",)), ("test", ("t10k", "test"))):
        for prefix in prefixes:
            images = sorted(path.glob(f"{prefix}-images*-idx3-ubyte*"))
            labels = sorted(path.glob(f"{prefix}-labels*-idx1-ubyte*"))
            if images:
                splits[part] = make_split(
                    _read_idx(images[0]), _read_idx(labels[0]).astype("int64") if labels else None
                )
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
