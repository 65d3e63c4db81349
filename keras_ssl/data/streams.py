"""Streams of batches that a user brings: what is one, and a `PyDataset` or an iterable as batches of one size."""

import keras
import numpy as np
from keras import ops

from keras_ssl import backend
from keras_ssl.data import sharding, tf_data
from keras_ssl.data.batch import check_batch, check_parts, standard_batch
from keras_ssl.keras_compat import is_tf_dataset


def is_stream(source):
    """Whether `source` gives batches one after another: a `tf.data.Dataset`, a `PyDataset`, any iterable of batches."""
    if isinstance(source, (dict, tuple, list)) or hasattr(source, "shape"):
        return False
    return isinstance(source, keras.utils.PyDataset) or is_tf_dataset(source) or hasattr(source, "__iter__")


def adapt_stream(x, needs, model, what):
    """A stream as `StreamBatches` or `tf_data.Stream`; the arguments are those of `keras_ssl.data.adapter.adapt`."""
    kind = tf_data.adapt_tf_dataset if is_tf_dataset(x) else StreamBatches
    stream = kind(x, needs.value_range, needs.parts)
    check_parts(stream.parts, needs, what)
    shares = backend.shard_of(model)[0]
    sharding.check_size(model, None, stream.batch_size * shares, what)
    if backend.processes_of(model)[0] > 1:
        about = {"the size of a batch": stream.batch_size, "the number of batches": stream.steps or 0}
        if shares > 1:
            first = next(iter(stream.dataset)) if isinstance(stream, tf_data.Stream) else stream[0]
            sharding.check_shared_out(model, keras.tree.map_structure(ops.convert_to_numpy, first), about, what)
        elif isinstance(stream, StreamBatches):
            sharding.check_same(model, stream[0], about, what)
        # else a tf.data.Dataset, which TensorFlow deals to the workers as its options say.
    return stream


class StreamBatches(keras.utils.PyDataset):
    """A user's `PyDataset` or any other iterable of batches: standard form, one size, values looked at.

    Args:
        source: a `PyDataset`, or anything that can be iterated anew for each epoch, such as a torch `DataLoader`.
        value_range: of the model.
        keep: names of the parts of a batch that the model uses.
    """

    def __init__(self, source, value_range, keep):
        self.source = source
        self.indexed = isinstance(source, keras.utils.PyDataset)
        workers = {}
        if self.indexed:
            names = ("workers", "use_multiprocessing", "max_queue_size")
            workers = {name: getattr(source, name) for name in names}
        super().__init__(**workers)
        self.value_range = value_range
        self.keep = keep
        self._iterator, self._next = None, 0
        first = self._read(0)
        self.batch_size = len(keras.tree.flatten(first)[0])
        self.steps = source.num_batches if self.indexed else _length(source)
        if self.indexed and self.steps and len(keras.tree.flatten(self._read(self.steps - 1))[0]) != self.batch_size:
            self.steps -= 1
        if not self.indexed and getattr(source, "drop_last", True) is False:
            rows = getattr(getattr(source, "dataset", None), "__len__", lambda: 0)()
            self.steps -= 1 if rows % self.batch_size else 0

    @property
    def num_batches(self):
        return self.steps

    def __getitem__(self, index):
        batch = self._read(index)
        rows = len(keras.tree.flatten(batch)[0])
        if rows != self.batch_size:
            raise ValueError(f"Batch {index} holds {rows} images and the first one {self.batch_size}: make them equal.")
        return batch

    def _read(self, index):
        if self.indexed:
            batch = self.source[index]
        else:
            if index == 0 or self._iterator is None or index != self._next:
                self._iterator, self._next = iter(self.source), 0
            for _ in range(index - self._next + 1):
                batch = next(self._iterator)
            self._next = index + 1
        batch = standard_batch(batch)
        self.parts = set(batch)  # also of what is not kept
        batch = {name: part for name, part in batch.items() if name in self.keep}
        batch = keras.tree.map_structure(_to_numpy, batch)
        check_batch(batch, self.value_range)
        return batch

    def on_epoch_begin(self):
        if self.indexed:
            self.source.on_epoch_begin()

    def on_epoch_end(self):
        if self.indexed:
            self.source.on_epoch_end()


def _length(source):
    try:
        return len(source)
    except TypeError:
        raise ValueError(
            f"A {type(source).__name__} has no length, and the number of steps must be known before training. Give a "
            "tf.data.Dataset, a keras.utils.PyDataset or a torch DataLoader, or collect the images in an array."
        ) from None


def _to_numpy(array):
    return array if isinstance(array, np.ndarray) else keras.ops.convert_to_numpy(array)
