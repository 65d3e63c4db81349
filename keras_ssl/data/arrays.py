"""Arrays as batches of one size, in an order that is a function of (seed, epoch)."""

import contextlib

import keras
import numpy as np


class ArrayBatches(keras.utils.PyDataset):
    """Arrays as batches of one size.

    The order is a function of seed and epoch, so that a resumed run sees what an uninterrupted one would have seen.
    The rows that don't fill a batch are left out of a pass; with another order each pass they are others each time.

    Attributes:
        parts: the names of all that was given, also of what is not kept; the names in `arrays` unless set.

    Args:
        arrays: a standard batch that holds the whole set: anything with a length that takes an array of row numbers.
        batch_size: images a batch.
        shuffle: in an order of its own each pass; else as they come.
        seed: of the order.
        steps: batches an epoch; None for one pass.
        share: `(number, mine)`: each batch is cut into so many shares of neighbouring rows, and this process's alone
            is given. The order is that of the whole set, so that the shares together are the batch of one process.
    """

    def __init__(self, arrays, batch_size, shuffle=True, seed=0, steps=None, share=(1, 0)):
        super().__init__()
        self.arrays = arrays
        self.parts = set(arrays) if isinstance(arrays, dict) else set()
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rows = len(keras.tree.flatten(arrays)[0])
        self.steps_a_pass = self.rows // batch_size
        self.steps = steps or self.steps_a_pass
        self.share = share
        self.epoch = 0
        self.first = 0  # batches of this epoch that are done already
        self._shuffled = (None, None)

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

    def __getitem__(self, index):
        # With steps_per_epoch an epoch goes on where the last one stopped.
        whole, place = divmod(self.epoch * self.steps + self.first + index, self.steps_a_pass)
        shares, mine = self.share
        first, size = place * self.batch_size, self.batch_size // shares
        rows = self._order(whole)[first + mine * size : first + (mine + 1) * size]
        return keras.tree.map_structure(lambda array: array[rows], self.arrays)

    def _order(self, whole):
        if not self.shuffle:
            return np.arange(self.rows)
        if self._shuffled[0] != whole:
            self._shuffled = (whole, np.random.default_rng([self.seed, whole]).permutation(self.rows))
        return self._shuffled[1]


class EpochTracker(keras.callbacks.Callback):
    """Tells the batches which epoch it is, also where a run starts in the middle; and the others how many there are.

    Args:
        batches: `ArrayBatches`.
        epochs: of the whole run, which is more than Keras knows where the rest of an epoch is a run of its own.
    """

    def __init__(self, batches, epochs):
        super().__init__()
        self.batches, self.epochs = batches, epochs

    def set_params(self, params):
        super().set_params(params)
        if params:
            params["epochs"] = self.epochs  # one dict for all callbacks, of which this is the first

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.epoch = epoch
