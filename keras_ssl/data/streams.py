"""Streams of batches that a user brings: what is one, and a `PyDataset` or an iterable as batches of one size."""

import contextlib
import warnings

import keras
import numpy as np
from keras import ops

from keras_ssl import backend
from keras_ssl.data import sharding, tf_data
from keras_ssl.data.batch import check_batch, check_parts, images_of, standard_batch
from keras_ssl.data.labels import flat_labels, label_words
from keras_ssl.data.value_range import check_images
from keras_ssl.keras_compat import is_tf_dataset

# What `fit` calls the number of batches of an argument; `evaluate` and `predict` call it `steps`.
STEPS_ARGUMENT = {"x": "steps_per_epoch", "validation_data": "validation_steps"}
# Of so many batches the last is read, to see whether it is a partial one. Of more it would take too long to read all
# before it, and one is a twentieth at most.
_FEW = 20


def is_stream(source):
    """Whether `source` gives batches one after another: a `tf.data.Dataset`, a `PyDataset`, any iterable of batches."""
    if isinstance(source, (dict, tuple, list)) or hasattr(source, "shape"):
        return False
    return isinstance(source, keras.utils.PyDataset) or is_tf_dataset(source) or hasattr(source, "__iter__")


def adapt_stream(x, needs, model, what, steps=None):
    """A stream as `StreamBatches` or `tf_data.Stream`; the arguments are those of `keras_ssl.data.adapter.adapt`."""
    kind = tf_data.adapt_tf_dataset if is_tf_dataset(x) else StreamBatches
    stream = kind(x, needs, what, steps)
    shares = backend.shard_of(model)[0]
    sharding.check_size(model, None, stream.batch_size * shares, what)
    if backend.processes_of(model)[0] > 1:
        about = {"the size of a batch": stream.batch_size, "the number of batches": stream.steps or 0}
        if shares > 1:
            sharding.check_shared_out(model, stream.example, about, what)
        elif isinstance(stream, StreamBatches):
            sharding.check_same(model, stream.example, about, what)
        # else a tf.data.Dataset, which TensorFlow deals to the workers as its options say.
    return stream


def possible_steps(asked, steps, what):
    """The steps of an epoch: those that were asked for, or as many as the whole batches of a stream suffice for.

    Args:
        asked: as the user says, or None.
        steps: whole batches of a stream; None where it can't be told.
        what: the argument that the stream is, for messages.
    """
    if asked is None or steps is None or asked <= steps:
        return asked
    argument, there_are = _steps_argument(what), _batches(steps, "whole ")
    warnings.warn(f"`{what}`: {argument} is {asked}, and a pass has {there_are}: an epoch has as many.")
    return steps


class StreamBatches(keras.utils.PyDataset):
    """A user's `PyDataset` or any other iterable of batches: standard form, one size, values looked at.

    Attributes:
        example: the first batch.
        parts: the names of all that a batch has, also of what is not kept.

    Args:
        source: a `PyDataset`, or anything that can be iterated anew for each epoch, such as a torch `DataLoader`; with
            `steps` a generator too, which goes on where the last epoch ended.
        needs: `keras_ssl.data.adapter.Needs`.
        what: the argument that this is, for messages.
        steps: batches of an epoch, where the user says so.
    """

    def __init__(self, source, needs, what="x", steps=None):
        self.source, self.needs, self.what = source, needs, what
        self.indexed = isinstance(source, keras.utils.PyDataset)
        self.once = not self.indexed and iter(source) is source
        workers = {}
        if self.indexed:
            names = ("workers", "use_multiprocessing", "max_queue_size")
            workers = {name: getattr(source, name) for name in names}
        super().__init__(**workers)
        self._iterator, self._next = (source, 0) if self.once else (None, 0)
        self._said = source.num_batches if self.indexed else _length(source)
        self.steps = self._steps(steps)
        self.example = self._first()
        self._unread = self.once  # the first batch of a generator was taken from it, and is still to be trained on
        self.batch_size = _rows(self.example)
        self._drop_partial()

    @property
    def num_batches(self):
        return self.steps

    def __getitem__(self, index):
        batch = self._read(index)
        if _rows(batch) != self.batch_size:
            raise ValueError(
                f"`{self.what}`: batch {self._next - 1 if self.once else index} holds {_rows(batch)} images and the "
                f"first one {self.batch_size}: make them equal, and leave out a partial one, as `drop_last=True` does "
                "in a DataLoader."
            )
        return batch

    def _steps(self, steps):
        """Batches of an epoch."""
        if self._said is None and steps is None:
            argument = STEPS_ARGUMENT.get(self.what, "steps")
            kind = type(self.source).__name__
            again = "" if self.indexed else " Or give what has a length: a PyDataset, a DataLoader, an array."
            raise ValueError(
                f"`{self.what}` is a {kind} without a length, and an epoch would have no end: pass {argument}=….{again}"
            )
        return steps if self._said is None else self._said

    def _first(self):
        try:
            return self._read(0)
        except IndexError:
            raise self._ended() from None

    def _drop_partial(self):
        """The last batch may be smaller than the others, and is left out."""
        partial = self._ends_in_partial()
        if partial is False:
            return
        last, kind = f"`{self.what}`: the last of {self.steps} batches", type(self.source).__name__
        self.steps -= 1
        warnings.warn(
            f"{last} holds fewer than {self.batch_size} images, and is left out of each epoch."
            if partial
            else f"{last} may hold fewer than {self.batch_size} images, which only reading all of them would tell, and "
            f"is left out of each epoch. If all are equal, set `drop_last = True` on the {kind}."
        )

    def _ends_in_partial(self):
        """Whether the last batch is smaller than the others; None where all would have to be read to know it."""
        source = self.source
        if self._said is None or self.once or self.steps < 2:
            return False
        if not self.indexed:
            if any(getattr(one, "drop_last", None) is True for one in (source, getattr(source, "batch_sampler", None))):
                return False
            size = getattr(source, "batch_size", None)
            if isinstance(size, int) and getattr(source, "drop_last", None) is False:  # a torch DataLoader
                # A sampler may draw a share of the set: in several processes, this one's.
                rows = [_length(getattr(source, name, None)) for name in ("sampler", "dataset")]
                if any(rows):
                    return (rows[0] or rows[1]) % size > 0
            if self.steps > _FEW:
                return None
        return _rows(self._read(self.steps - 1)) < self.batch_size

    def _read(self, index):
        if self.indexed:
            return self._standard(self.source[index])
        if self.once:
            if self.__dict__.pop("_unread", False):
                return self.example
            index = self._next
        elif index == 0 or self._iterator is None or index != self._next:
            self._iterator, self._next = iter(self.source), 0
        while self._next <= index:
            try:
                batch = next(self._iterator)
            except StopIteration:  # which ends a generator of Keras, too, and would say nothing
                raise self._ended() from None
            self._next += 1
        return self._standard(batch)

    def _ended(self):
        """The error of a source that gives fewer batches than it should."""
        kind, given = type(self.source).__name__, self._next
        if not given:
            return ValueError(f"`{self.what}`: the {kind} gives no batch.")
        ended = f"`{self.what}`: the {kind} ended after {_batches(given)}, and"
        if self._said is not None:
            return ValueError(f"{ended} its length is {self._said}: make `__len__` say how many it gives.")
        ended = f"{ended} {_steps_argument(self.what)} asks for {self.steps}"
        if not self.once:
            return ValueError(f"{ended}: pass {given} or fewer.")
        return ValueError(
            f"{ended} in each epoch, which goes on where the last one stopped: give as many as all epochs take, or "
            "what can be iterated anew for each epoch, such as a DataLoader."
        )

    def _standard(self, batch):
        batch = standard_batch(batch)
        check_parts(batch, self.needs, self.what)
        self.parts = set(batch)
        batch = {name: part for name, part in batch.items() if name in self.needs.parts}
        labels = batch.pop("label", None)
        batch = keras.tree.map_structure(_to_numpy, batch)
        if labels is not None:
            batch["label"] = _batch_labels(labels)
        check_batch(batch, self.needs, self.what)
        return batch

    def on_epoch_begin(self):
        if self.indexed:
            self.source.on_epoch_begin()

    def on_epoch_end(self):
        if self.indexed:
            self.source.on_epoch_end()


def _rows(batch):
    return len(keras.tree.flatten(batch)[0])


def _length(source):
    try:
        return len(source)
    except (TypeError, NotImplementedError):
        return None


def _steps_argument(what):
    """The argument that says the number of batches, for messages; `x` may be that of `fit` or of `evaluate`."""
    return "`steps_per_epoch` (or `steps`)" if what == "x" else f"`{STEPS_ARGUMENT.get(what, 'steps')}`"


def _batches(number, kind=""):
    return f"{number} {kind}batch{'es' * (number > 1)}"


def _batch_labels(labels):
    """Labels of a batch in numbers that each backend tells apart: small integers as they are, others as three words."""
    labels = np.asarray(
        labels if hasattr(labels, "__array_interface__") or isinstance(labels, list) else _to_numpy(labels)
    )
    if labels.dtype.kind in "iub" and labels.dtype.itemsize <= 4 and labels.dtype != np.uint32:
        return flat_labels(labels, "labels").astype("int32")
    return label_words(labels, "labels")


def _to_numpy(array):
    return array if isinstance(array, np.ndarray) else ops.convert_to_numpy(array)


def images_alone(source, value_range, what="x"):
    """The images of a stream, batch by batch in any size, with values looked at: for `predict`."""
    if is_tf_dataset(source):
        return tf_data.checked_images(source, value_range, what)
    if isinstance(source, keras.utils.PyDataset):
        return _CheckedImages(source, value_range, what)
    return _each_images(source, value_range, what)


def _each_images(source, value_range, what):
    """The images of any iterable of batches, as Keras takes them of a generator: tuples."""
    none = True
    for batch in source:
        none = False
        yield (_checked_images(batch, value_range, what),)
    if none:
        raise ValueError(f"`{what}`: the {type(source).__name__} gives no batch.")


@contextlib.contextmanager
def up_to_its_end(steps):
    """Within it `predict` takes what an iterable gives; Keras would warn that it ran out of data.

    Args:
        steps: batches that the user asked for: of those Keras warns where there are fewer. None for all.
    """
    with warnings.catch_warnings():
        if steps is None:
            warnings.filterwarnings("ignore", "Your input ran out of data")
        yield


class _CheckedImages(keras.utils.PyDataset):
    """The images of a user's `PyDataset`, with values looked at."""

    def __init__(self, source, value_range, what):
        names = ("workers", "use_multiprocessing", "max_queue_size")
        super().__init__(**{name: getattr(source, name) for name in names})
        self.source, self.value_range, self.what = source, value_range, what

    @property
    def num_batches(self):
        return self.source.num_batches

    def __getitem__(self, index):
        return _checked_images(self.source[index], self.value_range, self.what)


def _checked_images(batch, value_range, what):
    images = _to_numpy(images_of(batch, what))
    check_images(images, value_range, what)
    return images
