"""Where images come from: names, folders, files, arrays, streams.

`load` gives a train and a test split of anything a user may point at. Nothing here needs a network but the names that
`keras.datasets` fetches by itself.
"""

import contextlib
import gzip
import pathlib

import keras
import numpy as np

from keras_ssl.data import samples
from keras_ssl.data.batch import standard_batch
from keras_ssl.data.folders import IN_MEMORY, FolderOptions, load_folder
from keras_ssl.data.listing import SPLITS
from keras_ssl.data.pictures import MAX_PIXELS, REDUCING_GAP, reason_of
from keras_ssl.data.split import Data, Split, make_split, make_splits
from keras_ssl.data.streams import is_stream
from keras_ssl.files import similar
from keras_ssl.names import DATA_SETS, RESIZABLE, RESIZE

NAMES = DATA_SETS

_CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_CLASS_NAMES = {
    "fashion_mnist": samples.FASHION_CLASSES,
    "mnist": [str(digit) for digit in range(10)],
    "cifar10": _CIFAR10_CLASSES,
}


def load(
    source,
    image_size=None,
    max_bytes=IN_MEMORY,
    labels=None,
    resize=RESIZE[0],
    background="white",
    max_value=None,
    dtype="uint8",
    max_unreadable=0.05,
    max_pixels=MAX_PIXELS,
    verbose=0,
    reducing_gap=REDUCING_GAP,
    workers=None,
):
    """Loads images.

    Args:
        source: one of
            - a name: two samples come with the package, `"clothes_sample"` (3,409 training and 372 test photographs of
              64×64, CC0) and `"fashion_mnist_sample"` (10,000 and 2,000 gray images of 28×28, MIT license);
              `"fashion_mnist"`, `"mnist"`, `"cifar10"`, `"cifar100"` are fetched once by Keras;
            - a folder of pictures in any depth (docs/data.md lists the kinds). The first level of sub-folders gives the
              labels; sub-folders `train`, `val` (or `valid`, `validation`) and `test` give the splits; pictures beside
              the folders of classes, or in a folder `unlabeled`, have no label;
            - a folder or file in MNIST's IDX format, gzipped or not;
            - a `.npy` file of images, or a `.npz` with `images` and `labels`, or `x_train`, `y_train`, `x_val` …;
            - an array, `(images, labels)`, or a dict;
            - a stream: `tf.data.Dataset`, `keras.utils.PyDataset`, torch `DataLoader`.
        image_size: `(height, width)` or one number, in pixels: pictures of a folder or of "clothes_sample" are resized
            to it. Needed where they are not of one size already.
        max_bytes: memory for the decoded pictures of a folder, 4 GiB by default. What fits is decoded once; of what
            does not, as many pictures as fit are kept when they are first read, and the others are decoded in each
            epoch, ahead of the step. 0 keeps none.
        labels: for a folder, the labels of its pictures instead of the names of sub-folders: a CSV file with the
            columns `file` and `label`, a dict, or a DataFrame. Pictures that are not in it have no label.
        resize: how a picture of another shape is brought to `image_size`: "crop" brings its shorter side there and cuts
            the center out, "squash" changes the shape, "pad" fits all of it in.
        background: a color, by name, "#rrggbb" or `(red, green, blue)`: under what is transparent, and around what is
            padded.
        max_value: the value that is white in pictures with more than 8 bits; None for what the whole set shows: the
            range of 10, 12, 14 or 16 bits that holds it.
        dtype: "uint8", or "uint16" to keep pictures with more than 8 bits as they are; `.value_range` of the split is
            then their range.
        max_unreadable: the share of pictures that may be left out because they can't be used; more is an error.
        max_pixels: a picture with more is left out: a small file can decode to more than the memory holds.
        verbose: 1 shows progress while a folder is read.
        reducing_gap: a JPEG file is decoded at a half, a quarter or an eighth of its size where that is still so many
            times the size that it is resized to, which takes much less time. None decodes it whole; 1 is fastest, and
            least exact.
        workers: threads that read and decode the pictures of a folder; None for one a core, 4 at least and 32 at most.
            More help where a disk or a network is slow to answer, fewer where others need the cores. The images are the
            same with any number.

    Returns:
        `Data` with `.train`, `.test` and `.validation` (or None); each has `.images` and `.labels`, or `.dataset` for a
        stream. `.left_out` lists the pictures that can't be used, with a reason.

    Raises:
        ValueError, FileNotFoundError: what is wrong, and the way out.
    """
    options = FolderOptions(
        image_size,
        labels,
        resize,
        background,
        max_value,
        dtype,
        max_unreadable,
        max_pixels,
        max_bytes,
        verbose,
        reducing_gap,
        workers,
    )
    if isinstance(source, (str, pathlib.Path)):
        return _load_named(source, options)
    if options.given():
        raise ValueError(
            f"`{options.given()[0]}` is for a folder of pictures, and this is a {type(source).__name__}: leave it out."
            + (" Give (images, labels)." if labels is not None else "")
        )
    if isinstance(source, Data):
        return source
    if isinstance(source, Split):
        return Data(source)
    if isinstance(source, (tuple, list, dict)) or hasattr(source, "shape"):
        parts = standard_batch(source)
        if "image" not in parts:
            raise ValueError('Views of your own go to `fit` as they are; `load` takes images, or {"image": …}.')
        return Data(make_split(parts["image"], parts.get("label")))
    if is_stream(source):
        return Data(Split(dataset=source))
    raise TypeError(f"Can't load images from a {type(source).__name__}: give a name, a path, arrays or a data set.")


def _load_named(source, options):
    path = pathlib.Path(source).expanduser()
    name = str(source)
    pictures = path.is_dir() and not any(path.glob("*-idx3-ubyte*"))
    given = [option for option in options.given() if not (name in RESIZABLE and option == "image_size")]
    if given and not pictures and (path.exists() or name in NAMES):
        value = getattr(options, given[0])
        raise ValueError(
            f"`{given[0]}` is {value}, and is for the pictures of a folder; {name} holds arrays, which have a size, a "
            "type and labels of their own: leave it out."
        )
    if name in NAMES and not path.exists():
        return _load_known(name, options.image_size)
    if not path.exists():
        hint = similar(name, f"Known names: {', '.join(NAMES)}.", NAMES)
        raise FileNotFoundError(f'There is no data set or path "{name}". {hint}')
    if path.is_file():
        return _load_file(path)
    if any(path.glob("*-idx3-ubyte*")):
        return _load_idx_folder(path)
    return load_folder(path, options)


def _load_known(name, image_size):
    if name == "clothes_sample":
        return samples.clothes_sample(image_size)
    if name == "fashion_mnist_sample":
        return samples.fashion_mnist_sample()
    classes = _CLASS_NAMES.get(name)
    try:
        train, test = getattr(keras.datasets, name).load_data()
    except Exception as error:  # what urllib, the file system or numpy raise, where the network or the cache fails
        raise ConnectionError(
            f"{name} can't be fetched: {reason_of(error)}. Keras downloads it once, which needs a network. Without "
            'one, copy the file into ~/.keras/datasets, give a folder of pictures, or take "fashion_mnist_sample", '
            "which comes with the package."
        ) from error
    return make_splits({"train": train, "test": test}, classes)


def _load_file(path):
    if path.suffix == ".npy":
        with _named(path):
            images = np.load(path, mmap_mode="r", allow_pickle=False)
        return Data(make_split(images))
    if path.suffix == ".npz":
        return _load_npz(path)
    if "ubyte" in path.name:
        return Data(make_split(_read_idx(path)))
    raise ValueError(f"Can't read {path}: files of images are .npy, .npz or IDX; or give a folder of pictures.")


def _load_npz(path):
    with _named(path):
        opened = np.load(path, allow_pickle=False)
    with opened as file:
        names = set(file.files)
        for images, labels in (("x_{}", "y_{}"), ("{}_images", "{}_labels")):
            if images.format("train") in names:
                parts = {}
                for word, part in SPLITS.items():
                    if images.format(word) in names and part not in parts:
                        known = labels.format(word)
                        with _named(path):
                            parts[part] = file[images.format(word)], file[known] if known in names else None
                return make_splits(parts)
        if "images" in names:
            with _named(path):
                arrays = file["images"], file["labels"] if "labels" in names else None
            return Data(make_split(*arrays))
    raise ValueError(f'{path} holds {sorted(names)}; name the arrays "images" and "labels", or "x_train", "y_train" ….')


def _load_idx_folder(path):
    splits = {}
    for part, prefixes in (("train", ("train",)), ("test", ("t10k", "test"))):
        for prefix in prefixes:
            images = sorted(path.glob(f"{prefix}-images*-idx3-ubyte*"))
            labels = sorted(path.glob(f"{prefix}-labels*-idx1-ubyte*"))
            if images:
                splits[part] = _read_idx(images[0]), _read_idx(labels[0]).astype("int64") if labels else None
    if "train" not in splits:
        raise ValueError(f"{path} holds IDX files, but no train-images-idx3-ubyte.")
    return make_splits(splits)


def _read_idx(path):
    content = path.read_bytes()
    if path.suffix == ".gz":
        with _named(path):
            content = gzip.decompress(content)
    if content[:3] != b"\0\0\x08" or len(content) < 4:
        raise ValueError(f"{path} is not an IDX file of bytes.")
    rank = content[3]
    with _named(path):
        shape = np.frombuffer(content, ">i4", rank, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


@contextlib.contextmanager
def _named(path):
    """Names the file in what numpy and decompressors make of one that is damaged, or that holds Python objects."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{path} can't be read: {reason_of(error)}. It is damaged, or holds Python objects, which could run code "
            "and are not loaded: save the images as an array of numbers."
        ) from error
