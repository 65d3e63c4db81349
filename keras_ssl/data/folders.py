"""A folder of pictures: found in any depth, classes and splits by the names of sub-folders."""

import warnings

import numpy as np

from keras_ssl.data.lazy import ImageFiles
from keras_ssl.data.split import Data, make_split

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
_TRAIN_FOLDERS = ("train", "training")
_TEST_FOLDERS = ("test", "val", "valid", "validation")


def load_folder(root, image_size, max_bytes):
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
        splits[part] = make_split(images, labels, classes if labels is not None else None)
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
