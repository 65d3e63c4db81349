"""Arrays as batches of one size, in an order that is a function of (seed, epoch)."""

import contextlib

import keras
import numpy as np

from keras_ssl import backend
from keras_ssl.data import sharding
from keras_ssl.data.ahead import Ahead, readers
from keras_ssl.data.batch import checked_set
from keras_ssl.data.lazy import is_on_disk, start, workers_of

BATCH_SIZE = 256
# What `fit` calls the images of a batch of an argument.
BATCH_ARGUMENT = {"validation_data": "validation_batch_size"}


def adapt_arrays(x, y, needs, model, batch_size, shuffle, steps, what):
    """A set of arrays as `ArrayBatches`; the arguments are those of `keras_ssl.data.adapter.adapt`."""
    arrays, parts = checked_set(x, y, needs, what)
    batch_size = batch_size or BATCH_SIZE
    rows = len(keras.tree.flatten(arrays)[0])
    argument = BATCH_ARGUMENT.get(what, "batch_size")
    check_rows_meet(needs, batch_size, f"`{argument}` is {batch_size}")
    if rows == 1:
        check_rows_meet(needs, rows, f"`{what}` holds 1 image")
    if rows < batch_size:
        raise ValueError(
            f"`{what}` holds {rows} images, fewer than a batch of {batch_size}: pass {argument}={rows} or less."
        )
    sharding.check_size(model, rows, batch_size, what)
    about = {"batch_size": batch_size, "the model's seed": needs.seed, "the number of steps": steps or 0}
    sharding.check_same(model, arrays, about, what)
    return ArrayBatches(arrays, batch_size, shuffle, needs.seed, steps, backend.shard_of(model), parts)


def check_rows_meet(needs, images, given):
    """Refuses batches of one image where a method compares images: its loss would be the least there is, at once.

    Args:
        needs: `keras_ssl.data.adapter.Needs`.
        images: of a batch, over all processes.
        given: what says so: the beginning of the message.
    """
    if images < 2 and needs.batch_dependent:
        raise ValueError(f"{given}: {needs.method} compares images of a batch, and needs 2 or more.")


class ArrayBatches(keras.utils.PyDataset):
    """Arrays as batches of one size.

    The order is a function of seed and epoch, so that a resumed run sees what an uninterrupted one would have seen.
    The rows that don't fill a batch are left out of a pass; with another order each pass they are others each time.

    Attributes:
        callbacks: what `fit` must be given with the batches, so that they know their epoch.

    Args:
        arrays: a standard batch that holds the whole set: anything with a length that takes an array of row numbers.
        batch_size: images a batch.
        shuffle: in an order of its own each pass; else as they come.
        seed: of the order.
        steps: batches an epoch; None for one pass.
        share: `(number, mine)`: each batch is cut into so many shares of neighboring rows, and this process's alone
            is given. The order is that of the whole set, so that the shares together are the batch of one process.
        parts: the names of all parts that a user gave, also of those that are not in `arrays`.
    """

    def __init__(self, arrays, batch_size, shuffle=True, seed=0, steps=None, share=(1, 0), parts=()):
        super().__init__()
        self.arrays = arrays
        self.parts = set(parts)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rows = len(keras.tree.flatten(arrays)[0])
        self.steps_a_pass = self.rows // batch_size
        self.steps = steps or self.steps_a_pass
        self.share = share
        self.callbacks = [EpochTracker(self)]
        self.epoch = 0
        self.first = 0  # batches of this epoch that are done already
        self.epochs = None  # of the run, where one has begun
        self._ahead = None
        self._example = None, None  # the position of a batch and the batch
        self._shuffled = (None, None)

    @property
    def example(self):
        """The first batch; of pictures on disk it is kept until it is trained on, for several ask for it before."""
        if not self._on_disk or self._ahead is not None:
            return self[0]
        if self._example[0] != self._position(0):
            self._example = self._position(0), self[0]
        return self._example[1]

    @property
    def num_batches(self):
        return self.steps - self.first

    @contextlib.contextmanager
    def rest_of_epoch(self, first):
        """Within it these are the batches of an epoch from number `first` on."""
        self.first = first
        try:
            yield
        finally:
            self.first = 0

    @contextlib.contextmanager
    def reading_ahead(self):
        """Within it what lies on disk is read before it is asked for, by threads that end with it.

        After it nothing is read until it is entered again: TensorFlow has a thread of its own that goes on asking for
        batches where a callback or Ctrl-C cut an epoch off.
        """
        if not self._on_disk:
            yield
            return
        a_row = sum(int(np.prod(array.shape[1:])) * np.dtype(array.dtype).itemsize for array in self._on_disk)
        with readers(workers_of(self._on_disk)) as submit:
            self._ahead = Ahead(
                lambda position: self._start(position, submit),
                a_row * self.batch_size // self.share[0],
                self._read_already(),
            )
            try:
                yield
            finally:
                self._ahead.close()

    def _read_already(self):
        """The example as what is read ahead; it is kept here no longer."""
        (position, example), self._example = self._example, (None, None)
        return {} if position is None else {position: lambda: example}

    @property
    def _on_disk(self):
        return [array for array in keras.tree.flatten(self.arrays) if is_on_disk(array)]

    def _position(self, index):
        """Of a batch of this epoch: its number from the first batch of the first epoch."""
        return self.epoch * self.steps + self.first + index

    def __getitem__(self, index):
        position = self._position(index)
        if self._ahead is not None:
            return self._ahead.batch(position, self.steps * (self.epochs or self.epoch + 1))
        rows = self._rows(position)
        return keras.tree.map_structure(lambda array: array[rows], self.arrays)

    def _start(self, position, submit):
        rows = self._rows(position)
        waits = [start(array, rows, submit) for array in keras.tree.flatten(self.arrays)]
        return lambda: keras.tree.pack_sequence_as(self.arrays, [wait() for wait in waits])

    def _rows(self, position):
        """The rows of the batch at a position."""
        # With steps_per_epoch an epoch continues where the last one stopped.
        whole, place = divmod(position, self.steps_a_pass)
        shares, mine = self.share
        first, size = place * self.batch_size, self.batch_size // shares
        return self._order(whole)[first + mine * size : first + (mine + 1) * size]

    def _order(self, whole):
        if not self.shuffle:
            return np.arange(self.rows)
        if self._shuffled[0] != whole:
            self._shuffled = (whole, np.random.default_rng([self.seed, whole]).permutation(self.rows))
        return self._shuffled[1]


class EpochTracker(keras.callbacks.Callback):
    """Tells batches which epoch it is, also where a run starts in the middle.

    Args:
        batches: `ArrayBatches`.
    """

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def on_train_begin(self, logs=None):
        self.batches.epochs = (self.params or {}).get("epochs")

    def on_train_end(self, logs=None):
        self.batches.epochs = None

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.epoch = epoch
