"""The one door: whatever a user gives to `fit` or `evaluate`, checked, in batches of one size.

`adapt(x, y, needs, model)` gives a `Feed`, which answers once what the training asks: how many images a step sees, how
many steps an epoch has, what Keras is given, and what is left of an epoch that was cut off.
"""

import contextlib
import dataclasses

import keras
import numpy as np

from keras_ssl import backbones, backend
from keras_ssl.data import tf_data
from keras_ssl.data.arrays import ArrayBatches, adapt_arrays, check_rows_meet
from keras_ssl.data.batch import check_batch, check_parts, check_rank, standard_batch, whole_set
from keras_ssl.data.labels import codes_of
from keras_ssl.data.lazy import LazyArray, pictures_of, take
from keras_ssl.data.split import Split
from keras_ssl.data.streams import STEPS_ARGUMENT, adapt_stream, images_alone, is_stream, possible_steps
from keras_ssl.data.value_range import check_images, concrete


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
        pair_labels: whether it takes pairs that come with whether they are of a kind, `"same"`.
        view_counts: how many views of an image it takes where the user makes them; None for any.
        backbone: the Keras model that is trained, which says what images it takes; None for any.
    """

    method: str
    value_range: tuple
    seed: int
    labels: bool = False
    index: bool = False
    batch_dependent: bool = True
    pair_labels: bool = False
    view_counts: tuple | None = None
    backbone: keras.Model | None = None

    @property
    def image_rank(self):
        """Dimensions of a batch of images, as the backbone takes it; None where it does not say."""
        shape = None if self.backbone is None else backbones.input_shape(self.backbone)
        return None if shape is None else len(shape)

    @property
    def parts(self):
        """The names of the parts of a batch that are used."""
        more = (("label",) if self.labels else ()) + (("index",) if self.index else ())
        return ("image", "views", "same", *more)


class Feed:
    """Batches of one size, and all that is asked of them.

    Attributes:
        global_batch_size: images of a batch, over all replicas and processes.
        steps: batches of an epoch; None where a stream's length is not known.
        steps_for_keras: what `keras.Model.fit` must be told of them: an array's batches are repeated to as many as an
            epoch has, a stream is cut off by Keras.
        rows: images there are; None for a stream.
        rows_left_over: images that fill no batch of a pass.
        shuffled: whether each pass has an order of its own; None for a stream, whose order is the user's.
        resumable: whether an epoch can be entered in its middle.
        has_unused_labels: whether labels were given that the method does not use.
        for_keras: what `keras.Model.fit` is given.
        callbacks: what must be told the epoch.
    """

    def __init__(self, source, model, needs, steps=None):
        from_array = isinstance(source, ArrayBatches)
        self._source = source
        self._row_order = backend.multiworker_row_order(model, source.batch_size)
        self.global_batch_size = source.batch_size * (1 if from_array else backend.shard_of(model)[0])
        self.steps = steps or source.steps
        self.steps_for_keras = None if from_array else steps
        self.rows = source.rows if from_array else None
        self.rows_left_over = source.rows % source.batch_size if from_array else 0
        self.shuffled = source.shuffle if from_array else None
        self.resumable = from_array
        self.has_unused_labels = "label" in source.parts and not needs.labels
        self.for_keras = self._to_keras()
        self.callbacks = source.callbacks if from_array else []

    @contextlib.contextmanager
    def rest_of_epoch(self, first):
        """Within it these are the batches of an epoch from number `first` on; gives what Keras is given of them."""
        with self._source.rest_of_epoch(first):
            yield self._to_keras()

    def reading_ahead(self):
        """Within it pictures on disk are read before they are asked for, by threads that end with it."""
        return self._source.reading_ahead() if isinstance(self._source, ArrayBatches) else contextlib.nullcontext()

    def _to_keras(self):
        if isinstance(self._source, tf_data.Stream):
            return self._source.dataset
        return backend.dataset_for_fit(self._source, self._row_order)

    def shapes(self):
        """The shapes of one batch, in the library's form."""
        return keras.tree.map_structure(lambda part: tuple(part.shape), self.example)

    @property
    def example(self):
        """The first batch, in the library's form."""
        return self._source.example

    @property
    def pictures(self):
        """The `ImageFiles` that its images are read from while it is trained on; none for arrays and streams."""
        return pictures_of(self._source.arrays) if isinstance(self._source, ArrayBatches) else []


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
    for name, number in (("batch_size", batch_size), (STEPS_ARGUMENT.get(what, "steps"), steps)):
        if number is not None and not (isinstance(number, (int, np.integer)) and number >= 1):
            raise ValueError(f"`{name}` must be 1 or more, or None for the default; it is {number!r}.")
    if isinstance(x, Split) and x.dataset is not None:
        x = x.dataset
    if isinstance(x, (tuple, list)) and len(x) == 1 and y is None:
        x = x[0]
    if is_stream(x):
        if batch_size is not None and what == "x":
            raise ValueError(f"`batch_size` is {batch_size}, but a stream comes in batches of its own: leave it out.")
        source = adapt_stream(x, needs, model, what, steps)
        steps = possible_steps(steps, source.steps, what)
    else:
        source = adapt_arrays(x, y, needs, model, batch_size, shuffle, steps, what)
    feed = Feed(source, model, needs, steps)
    check_rows_meet(needs, feed.global_batch_size, f"`{what}` gives batches of {feed.global_batch_size} image")
    return feed


def images_for_predict(x, value_range, what="x", rank=None):
    """Images for `predict`, in any form, with values looked at: an array, a `LazyArray`, or a stream of batches.

    Args:
        rank: dimensions that the backbone takes, as `Needs.image_rank`.
    """
    if isinstance(x, Split):
        x = x.images if x.dataset is None else x.dataset
    if isinstance(x, LazyArray):  # files are checked when they are read
        return x
    if isinstance(x, dict) and "image" in x:
        x = x["image"]
    if isinstance(x, (str, bytes, set, frozenset)):
        raise TypeError(f"predict: `{what}` is an array (N, height, width, channels), or a stream; it is {x!r}.")
    if is_stream(x):
        return images_alone(x, value_range, what)
    if isinstance(x, dict) and x:  # the inputs of a backbone that has several
        return x
    found = concrete(x)
    if (found is None and not hasattr(x, "shape")) or (found is not None and not np.shape(found)):
        raise TypeError(
            f"predict: `{what}` is images, an array (N, height, width, channels), or a stream; it is {x!r}."
        )
    if found is not None:
        if not len(found):
            raise ValueError(f"`{what}` holds no image.")
        check_images(found, value_range, what)
        check_rank(found.shape, rank, what)
    return x


def check_given(batch, needs, what="x"):
    """Checks one batch in any form, as `train_on_batch` gets it: `standard_batch` with class numbers for labels."""
    batch = standard_batch(batch)
    check_parts(batch, needs, what)
    batch = {name: part for name, part in batch.items() if name in needs.parts}
    labels = batch.pop("label", None)
    check_batch({name: keras.tree.map_structure(concrete, part) for name, part in batch.items()}, needs, what)
    images = len(keras.tree.flatten(batch)[0]) * backend.shard_of(needs.backbone)[0]
    check_rows_meet(needs, images, f"`{what}` holds {images} image")
    if labels is not None:
        batch["label"] = codes_of(labels, f"{what}: labels")[0]
    return batch


def split_validation(x, y, needs, share):
    """The arrays of `fit(validation_split=share)`, in two: `(training, validation)`; files stay on disk."""
    if not 0.0 < share < 1.0:
        raise ValueError(f"fit: `validation_split` must lie between 0 and 1; it is {share!r}.")
    whole = whole_set(x, y, needs, "validation_split")
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
