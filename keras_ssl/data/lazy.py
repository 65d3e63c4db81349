"""Images that are read when rows of them are asked for: files, some rows, several sets as one."""

import concurrent.futures

import numpy as np


class LazyArray:
    """Images that are indexed like an array, and read or decoded when they are.

    Attributes:
        shape: `(N, height, width, channels)`.
        dtype: of the images.
    """

    def __len__(self):
        return self.shape[0]

    def only(self, rows):
        """Some of the images, not yet read.

        Args:
            rows: numbers of rows, or a slice.
        """
        return Rows(self, np.arange(len(self))[rows])


def take(array, rows):
    """Some rows of an array or a `LazyArray`: the one way to have them without reading what is on disk.

    Args:
        array: an array or a `LazyArray`.
        rows: numbers of rows, or a slice.
    """
    return array.only(rows) if isinstance(array, LazyArray) else array[rows]


class Rows(LazyArray):
    """Some rows of an array or a `LazyArray`; those of an array are not copied before they are asked for.

    Args:
        images: an array, or a `LazyArray`.
        rows: numbers of rows.
    """

    def __init__(self, images, rows):
        self.images, self.rows = images, np.asarray(rows)
        self.shape, self.dtype = (len(self.rows), *images.shape[1:]), images.dtype

    def only(self, rows):
        return Rows(self.images, self.rows[rows])

    def __getitem__(self, index):
        return self.images[self.rows[index]]


class Joined(LazyArray):
    """Images of several sets, numbered through.

    Args:
        parts: arrays or `LazyArray`s of images of one shape.
    """

    def __init__(self, parts):
        self.parts = list(parts)
        self.shape = (sum(map(len, self.parts)), *self.parts[0].shape[1:])
        self.dtype = self.parts[0].dtype
        self._starts = np.cumsum([0, *map(len, self.parts)])

    def __getitem__(self, rows):
        if isinstance(rows, slice):
            rows = range(*rows.indices(len(self)))
        if np.ndim(rows) == 0:
            return self._one(int(rows))
        images = [self._one(int(row)) for row in rows]
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), self.dtype)

    def _one(self, row):
        if not 0 <= row < len(self):
            raise IndexError(row)
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return np.asarray(self.parts[part][row - int(self._starts[part])])


class ImageFiles(LazyArray):
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

    def only(self, rows):
        numbers = np.arange(len(self))[rows]
        return ImageFiles([self.paths[row] for row in numbers], self.shape[1:3], self.shape[3])

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
