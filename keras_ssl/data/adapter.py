"""The one door: whatever a user gives to `fit` or `evaluate`, checked, in batches of one size.

`adapt(x, y, needs, model)` gives a `Feed`, which answers once what the training asks: how many images a step sees, how
many steps an epoch has, what Keras is given, and what is left of an epoch that was cut off.
"""

import contextlib
import dataclasses

import keras
import numpy as np
from keras import ops

from keras_ssl import distribute
from keras_ssl.data import tf_data
from keras_ssl.data.arrays import ArrayBatches, EpochTracker
from keras_ssl.data.batch import check_images, check_labels, standard_batch
from keras_ssl.data.lazy import LazyArray, take
from keras_ssl.data.split import Split
from keras_ssl.data.streams import StreamBatches, is_iterable, is_stream, is_tf_dataset

BATCH_SIZE = 256


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a method asks of a batch.

    Attributes:
        method: its name, for messages.
        value_range: lowest and highest value of the images.
        seed: of the order of the images.
        labels: whether it uses labels.
        index: whether it uses each image's number.
        batch_dependent: whether a row's loss depends on the other rows of its batch.
    """

    method: str
    value_range: tuple
    seed: int
    labels: bool = False
    index: bool = False
    batch_dependent: bool = True

    @property
    def parts(self):
        """The names of the parts of a batch that are used."""
        more = (("label",) if self.labels else ()) + (("index",) if self.index else ())
        return ("image", "views", "same", *more)


class Feed:
    """ArrayBatches of one size, and all that is asked of them.

    Attributes:
        global_batch_size: images of a batch, over all replicas and processes.
        steps: batches of an epoch; None where a stream's length is not known.
        rows: images there are; None for a stream.
        rows_left_over: images that fill no batch of a pass.
        shuffled: whether each pass has an order of its own; None for a stream, whose order is the user's.
        resumable: whether an epoch can be entered in its middle.
        has_unused_labels: whether labels were given that the method does not use.
    """

    def __init__(self, source, model, needs, steps=None):
        self._source = source
        self._from_array = isinstance(source, ArrayBatches)
        self._row_order = distribute.dealing_order(model, source.batch_size)
        shares = 1 if self._from_array else distribute.share_of(model)[0]
        self.global_batch_size = source.batch_size * shares
        self.steps = steps or source.steps
        # An array's batches are repeated to as many as an epoch has; a stream is cut off by Keras.
        self.steps_for_keras = None if self._from_array else steps
        self.rows = source.rows if self._from_array else None
        self.rows_left_over = source.rows % source.batch_size if self._from_array else 0
        self.shuffled = source.shuffle if self._from_array else None
        self.resumable = self._from_array
        self.has_unused_labels = "label" in source.parts and not needs.labels

    def to_keras(self):
        """What `keras.Model.fit` is given."""
        if isinstance(self._source, tf_data.Stream):
            return self._source.dataset
        return tf_data.to_keras(self._source, self._row_order)

    def callbacks(self, epochs):
        """What must be told the epoch, for `fit` of so many epochs."""
        return [EpochTracker(self._source, epochs)] if self._from_array else []

    @contextlib.contextmanager
    def rest_of_epoch(self, first):
        """Within it these are the batches of an epoch from number `first` on; gives what Keras is given of them."""
        with self._source.rest_of_epoch(first):
            yield self.to_keras()

    def shapes(self):
        """The shapes of one batch, in the library's form."""
        feed = self.to_keras()
        first = next(iter(feed)) if is_tf_dataset(feed) else feed[0]
        return keras.tree.map_structure(lambda part: tuple(part.shape), first)


def adapt(x, y, needs, model, batch_size=None, shuffle=False, steps=None, what="x"):
    """Checks what a user gives and brings it into batches of one size.

    Args:
        x: images `(N, height, width, channels)`, a dict, a `Split`, or a stream of batches.
        y: labels, or None.
        needs: `Needs`.
        model: a compiled Keras model; it says on which devices and processes the batches will be spread.
        batch_size: images of a batch over all replicas; None for 256, and for streams.
        shuffle: an order of its own for each pass of an array.
        steps: batches of an epoch; None for a whole pass.
        what: the argument of `fit` or `evaluate` that this is, for messages.

    Returns:
        `Feed`.

    Raises:
        ValueError: with the argument, its value, and the way out.
    """
    if isinstance(x, Split) and x.dataset is not None:
        x = x.dataset
    if is_tf_dataset(x) or isinstance(x, keras.utils.PyDataset) or is_iterable(x):
        if batch_size is not None and what == "x":
            raise ValueError(f"`batch_size` is {batch_size}, but a stream comes in batches of its own: leave it out.")
        source = _adapt_stream(x, needs, model, what)
    else:
        source = _adapt_arrays(x, y, needs, model, batch_size or BATCH_SIZE, shuffle, steps, what)
    return Feed(source, model, needs, steps)


def split_validation(x, y, needs, share):
    """The arrays of `fit(validation_split=share)`, in two: `(training, validation)`; files stay on disk."""
    if not 0.0 < share < 1.0:
        raise ValueError(f"fit: `validation_split` must lie between 0 and 1; it is {share!r}.")
    whole = keras.tree.map_structure(_array_like, standard_arrays(x, y, needs, "validation_split"))
    kept = int(len(keras.tree.flatten(whole)[0]) * (1.0 - share))
    return tuple(
        keras.tree.map_structure(lambda array, rows=rows: take(array, rows), whole)
        for rows in (slice(None, kept), slice(kept, None))
    )


def images_and_labels(validation_data):
    """`(x, y)` of what Keras takes as validation data."""
    if isinstance(validation_data, (tuple, list)):
        return (*validation_data, None)[:2]
    return validation_data, None


def standard_arrays(x, y, needs, what):
    """A whole set of arrays in the library's form."""
    if isinstance(x, Split) and x.dataset is None:
        x, y = x.images, x.labels if needs.labels and y is None else y
    if not isinstance(x, (dict, tuple, list)) and is_stream(x) and not hasattr(x, "shape"):
        raise ValueError(f"`{what}` needs arrays, and this is a {type(x).__name__}: split the stream yourself.")
    if isinstance(x, (tuple, list)) and y is None:
        raise ValueError(
            f"`{what}` is a bare {type(x).__name__} of {len(x)}. Write fit(images, labels) for labels, or "
            '{"views": (view_a, view_b)} for views of your own.'
        )
    return standard_batch(x if y is None else (x, y))


def _adapt_arrays(x, y, needs, model, batch_size, shuffle, steps, what):
    arrays = standard_arrays(x, y, needs, what)
    parts = set(arrays)
    _check_parts({*arrays, "index"}, needs, what)
    if needs.labels:
        check_labels(needs.method, arrays["label"], what)
    if needs.index and "index" not in arrays:
        if what == "validation_data":
            raise ValueError(
                f"`validation_data`: {needs.method} makes each training image a class, and held-out images belong to "
                "none: leave it out."
            )
        arrays["index"] = np.arange(len(keras.tree.flatten(arrays)[0]), dtype="int32")
    arrays = {name: part for name, part in arrays.items() if name in needs.parts}
    arrays = keras.tree.map_structure(_array_like, arrays)
    rows = {len(array) for array in keras.tree.flatten(arrays)}
    if len(rows) > 1:
        raise ValueError(f"`{what}`: images, views and labels must be of one length; they have {sorted(rows)}.")
    rows = rows.pop()
    if batch_size < 2 and needs.batch_dependent:
        raise ValueError(f"`batch_size` is {batch_size}: {needs.method} compares images, and needs 2 or more.")
    if rows < batch_size:
        raise ValueError(
            f"`{what}` holds {rows} images, fewer than a batch of {batch_size}: pass batch_size={rows} or less."
        )
    for name in ("image", "views"):
        for images in keras.tree.flatten(arrays.get(name, ())):
            if not isinstance(images, LazyArray):
                check_images(images, needs.value_range, what)
    distribute.refuse_size(model, rows, batch_size, what)
    about = {"batch_size": batch_size, "the model's seed": needs.seed, "the number of steps": steps or 0}
    distribute.refuse_differing(model, arrays, about, what)
    batches = ArrayBatches(arrays, batch_size, shuffle, needs.seed, steps, share=distribute.share_of(model))
    batches.parts = parts
    return batches


def _adapt_stream(x, needs, model, what):
    if is_tf_dataset(x):
        stream = tf_data.adapt_tf_dataset(x, needs.value_range, needs.parts)
    else:
        stream = StreamBatches(x, needs.value_range, needs.parts)
    _check_parts(stream.parts, needs, what)
    shares = distribute.share_of(model)[0]
    distribute.refuse_size(model, None, stream.batch_size * shares, what)
    if distribute.processes_of(model)[0] > 1:
        about = {"the size of a batch": stream.batch_size, "the number of batches": stream.steps or 0}
        if shares > 1:
            first = next(iter(stream.dataset)) if isinstance(stream, tf_data.Stream) else stream[0]
            distribute.refuse_shared(model, keras.tree.map_structure(ops.convert_to_numpy, first), about, what)
        elif isinstance(stream, StreamBatches):
            distribute.refuse_differing(model, stream[0], about, what)
        # else a tf.data.Dataset, which TensorFlow deals to the workers as its options say.
    return stream


def _check_parts(parts, needs, what):
    if needs.labels and "label" not in parts:
        raise ValueError(
            f"`{what}`: {needs.method} was made with labels=True and needs them: write fit(images, labels)."
        )
    if needs.index and "index" not in parts:
        raise ValueError(
            f'`{what}`: {needs.method} makes each image a class, and needs its number: {{"image": …, "index": …}}.'
        )


def _array_like(array):
    return (
        array if hasattr(array, "__array_interface__") or isinstance(array, LazyArray) else ops.convert_to_numpy(array)
    )
