"""Images that are read when rows of them are asked for: files, some rows, several sets as one."""

import collections
import dataclasses

import numpy as np

from keras_ssl.data.ahead import readers
from keras_ssl.data.pictures import reason_of

# Pictures that a thread decodes before another gets its turn: what is begun is waited for, also after Ctrl-C.
_AT_A_TIME = 4


class LazyArray:
    """Images that are indexed like an array, and read or decoded when they are.

    Attributes:
        shape: `(N, height, width, channels)`.
        dtype: of the images.
        workers: threads that read them; None for `keras_ssl.data.ahead.number_of_threads()`.
    """

    workers = None

    def start(self, rows, submit):
        """Begins to read some rows; returns a function that waits for them and gives the array.

        Args:
            rows: numbers of rows, an array.
            submit: of `keras_ssl.data.ahead.readers`.
        """
        return submit(self.__getitem__, rows).result

    def __len__(self):
        return self.shape[0]

    def only(self, rows):
        """Some of the images, not yet read.

        Args:
            rows: numbers of rows, or a slice.
        """
        return Rows(self, np.arange(len(self))[rows])


def is_on_disk(array):
    """Whether rows of it are read when they are asked for: a `LazyArray`, or a `.npy` file that numpy maps."""
    return isinstance(array, (LazyArray, np.memmap))


def start(array, rows, submit):
    """`LazyArray.start` of an array or a `LazyArray`: rows in memory are copied when they are waited for."""
    if isinstance(array, LazyArray):
        return array.start(rows, submit)
    return submit(array.__getitem__, rows).result if is_on_disk(array) else lambda: array[rows]


def workers_of(arrays):
    """How many threads read arrays and `LazyArray`s together: as many as the one that asks for most; None for all."""
    asked = {getattr(array, "workers", None) for array in arrays if is_on_disk(array)}
    return None if None in asked else max(asked, default=None)


def blocks(images, size):
    """Images in order, `size` at a time; of a `LazyArray` the next ones are read meanwhile."""
    if not isinstance(images, LazyArray):
        yield from (images[first : first + size] for first in range(0, len(images), size))
        return
    rows, waiting = np.arange(len(images)), collections.deque()
    with readers(images.workers) as submit:
        for first in range(0, len(images), size):
            waiting.append(images.start(rows[first : first + size], submit))
            if len(waiting) > 1:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()


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
        self.workers = workers_of([images])

    def only(self, rows):
        return Rows(self.images, self.rows[rows])

    def __getitem__(self, index):
        return self.images[self.rows[index]]

    def start(self, rows, submit):
        return start(self.images, self.rows[rows], submit)


class Joined(LazyArray):
    """Images of several sets, numbered through.

    Args:
        parts: arrays or `LazyArray`s of images of one shape.
    """

    def __init__(self, parts):
        self.parts = list(parts)
        self.shape = (sum(map(len, self.parts)), *self.parts[0].shape[1:])
        self.dtype = self.parts[0].dtype
        self.workers = workers_of(self.parts)
        self._starts = np.cumsum([0, *map(len, self.parts)])

    def __getitem__(self, rows):
        if isinstance(rows, slice):
            rows = range(*rows.indices(len(self)))
        if np.ndim(rows) == 0:
            return self._one(int(rows))
        with readers(self.workers) as submit:
            return self.start(np.asarray(rows, "int64"), submit)()

    def start(self, rows, submit):
        outside = (rows < 0) | (rows >= len(self))
        if outside.any():
            raise IndexError(rows[outside][0])
        of_part = np.searchsorted(self._starts, rows, side="right") - 1
        waiting = []
        for part in np.unique(of_part):
            places = np.flatnonzero(of_part == part)
            waiting.append((places, start(self.parts[part], rows[places] - self._starts[part], submit)))

        def finish():
            images = np.empty((len(rows), *self.shape[1:]), self.dtype)
            for places, wait in waiting:
                images[places] = wait()
            return images

        return finish

    def _one(self, row):
        if not 0 <= row < len(self):
            raise IndexError(row)
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return np.asarray(self.parts[part][row - int(self._starts[part])])


class ImageFiles(LazyArray):
    """Pictures on disk that are indexed like an array: `files[rows]` decodes just those.

    A file that can't be read any more is replaced by the next one that can, of the same label where labels are given:
    a run of days must not end on it. `broken` says which, and why.

    Attributes:
        broken: a dict of path to reason, shared by all that `only` gives.

    Args:
        paths: of the pictures.
        decoder: `keras_ssl.data.pictures.Decoder`.
        labels: integers, one a picture, or None.
        cache: `keras_ssl.data.cache.PictureCache` of pictures that were read, or None.
        workers: as of `LazyArray`.
    """

    def __init__(self, paths, decoder, labels=None, broken=None, cache=None, workers=None):
        self.paths = list(paths)
        self.decoder = decoder
        self.labels = labels
        self.broken = {} if broken is None else broken
        self.cache = cache
        self.workers = workers
        self.shape = (len(self.paths), *decoder.size, decoder.channels)
        self.dtype = np.dtype(decoder.dtype)

    def only(self, rows):
        numbers = np.arange(len(self))[rows]
        labels = None if self.labels is None else self.labels[numbers]
        paths = [self.paths[row] for row in numbers]
        return ImageFiles(paths, self.decoder, labels, self.broken, self.cache, self.workers)

    def with_channels(self, channels):
        """The same pictures in gray (1) or in color (3)."""
        decoder = dataclasses.replace(self.decoder, channels=channels)
        return ImageFiles(self.paths, decoder, self.labels, self.broken, workers=self.workers)

    def __getitem__(self, rows):
        if isinstance(rows, slice):
            rows = range(*rows.indices(len(self)))
        if np.ndim(rows) == 0:
            return self._decode(rows).copy()  # the one that is kept must not be written to
        with readers(self.workers) as submit:
            return self.start(np.asarray(rows, "int64"), submit)()

    def start(self, rows, submit):
        images = np.empty((len(rows), *self.shape[1:]), self.dtype)
        begun = [
            submit(self._fill, images[first : first + _AT_A_TIME], rows[first : first + _AT_A_TIME])
            for first in range(0, len(rows), _AT_A_TIME)
        ]

        def finish():
            for future in begun:
                future.result()
            return images

        return finish

    def _fill(self, images, rows):
        for image, row in zip(images, rows.tolist()):
            image[...] = self._decode(row)

    def decoded(self, report=None):
        """All pictures that can be read: `(images, rows, reasons)`.

        Args:
            report: called with each number of pictures that were decoded.

        Returns:
            An array, the rows that it holds, and a dict of row to reason of those that can't be read.
        """
        images, kept, reasons = np.empty(self.shape, self.dtype), [], {}
        with readers(self.workers) as submit:
            for row, (image, reason) in enumerate(_in_order(self._tried, range(len(self)), submit)):
                if reason is None:
                    images[len(kept)] = image
                    kept.append(row)
                else:
                    reasons[row] = reason
                if report:
                    report(row + 1)
        return images[: len(kept)], kept, reasons

    def _tried(self, row):
        path = self.paths[row]
        if self.cache is not None and (image := self.cache.get(path)) is not None:
            return image, None
        if path in self.broken:
            return None, self.broken[path]
        try:
            image = self.decoder(path)
        except Exception as error:  # whatever a decoder makes of a broken file
            return None, reason_of(error)
        if self.cache is not None:
            self.cache.keep(path, image)
        return image, None

    def _decode(self, row):
        for other in self._replacements(row):
            image, reason = self._tried(other)
            if image is not None:
                return image
            self.broken[self.paths[other]] = reason
        path = self.paths[row]
        raise ValueError(f"{path} can't be read ({self.broken[path]}), nor any other picture that could replace it.")

    def _replacements(self, row):
        """The row itself, then those after it, around the end: of its label first."""
        yield row
        others = (np.arange(len(self)) + row)[1:] % len(self)
        if self.labels is not None:
            alike = self.labels[others] == self.labels[row]
            others = np.concatenate([others[alike], others[~alike]])
        yield from others.tolist()


def pictures_of(images):
    """All `ImageFiles` in an array, a `LazyArray` of them, or a structure of these."""
    if isinstance(images, ImageFiles):
        return [images]
    if isinstance(images, Rows):
        return pictures_of(images.images)
    if isinstance(images, Joined):
        return [found for part in images.parts for found in pictures_of(part)]
    if isinstance(images, dict):
        images = tuple(images.values())
    return [found for part in images for found in pictures_of(part)] if isinstance(images, (tuple, list)) else []


def _in_order(function, rows, submit, ahead=64):
    """`function(row)` of each row in order, some of them computed ahead by the threads."""
    waiting = collections.deque()
    for row in rows:
        waiting.append(submit(function, row))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
