"""How TensorFlow is fed, and a user's `tf.data.Dataset` with checks in it.

Beside `keras_ssl.backend` the only room that imports a framework: `tf.data` feeds Keras on each backend.
"""

import contextlib
import dataclasses
import pathlib
import re

import keras

from keras_ssl.data import value_range as ranges
from keras_ssl.data.batch import check_batch, check_parts, images_of, standard_batch
from keras_ssl.data.labels import MISSING

_PACKAGE = str(pathlib.Path(__file__).parents[1])


@dataclasses.dataclass
class Stream:
    """A `tf.data.Dataset` of batches in the library's form.

    Attributes:
        dataset: with checks in it.
        batch_size: images of a batch.
        steps: batches; None where it can't be told.
        parts: the names of all that a batch has, also of what is not kept.
        example: the first batch, arrays.
    """

    dataset: object
    batch_size: int
    steps: int | None
    parts: set
    example: dict


def adapt_tf_dataset(dataset, needs, what="x", steps=None):
    """A user's `tf.data.Dataset` of batches: standard form, one size, values looked at on the way.

    Args:
        dataset: batched; elements in any form that `fit` takes.
        needs: `keras_ssl.data.adapter.Needs`.
        what: the argument that this is, for messages.
        steps: batches of an epoch, where the user says so.

    Returns:
        `Stream`.
    """
    import tensorflow as tf

    cardinality = int(dataset.cardinality())
    if cardinality == tf.data.INFINITE_CARDINALITY and steps is None:
        raise ValueError(
            f"`{what}` is a data set without an end, and an epoch would have none: pass steps_per_epoch=…, or "
            "validation_steps=… for validation data."
        )
    _check_spec(dataset.element_spec, what)
    parts = set()

    def standard(*given):
        batch = standard_batch(given[0] if len(given) == 1 else given)
        check_parts(batch, needs, what)
        parts.update(batch)
        batch = {name: part for name, part in batch.items() if name in needs.parts}
        for name in ("image", "views"):
            if name in batch:
                check = _checked(needs.value_range, what)
                batch[name] = tf.nest.map_structure(check, batch[name])
        if "label" in batch:
            batch["label"] = _labels(batch["label"])
        return batch

    given_dataset = dataset
    dataset = dataset.map(standard, num_parallel_calls=tf.data.AUTOTUNE)
    example = _first(dataset, what)
    check_batch(example, needs, what)
    rows = len(keras.tree.flatten(example)[0])
    sizes = {spec.shape[0] if spec.shape.rank else 0 for spec in tf.nest.flatten(dataset.element_spec)}
    if None not in sizes and len(sizes) == 1:
        return Stream(dataset, rows, cardinality if cardinality > 0 else None, parts, example)
    if cardinality <= 0:
        return Stream(dataset.rebatch(rows, drop_remainder=True), rows, None, parts, example)
    full = cardinality if _last_is_full(given_dataset, cardinality, rows) else cardinality - 1
    if full == 0:
        raise ValueError(f"`{what}`: the data set has no whole batch.")
    dataset = dataset.take(full).rebatch(rows, drop_remainder=True)
    return Stream(dataset.apply(tf.data.experimental.assert_cardinality(full)), rows, full, parts, example)


# Of so many batches one is a twentieth at most: then it is rather left out than all others read to look at it.
_FEW = 20


def _last_is_full(dataset, batches, rows):
    """Whether the last batch of a user's data set has as many rows as the first."""
    import tensorflow as tf

    files = getattr(dataset, "file_paths", None)  # of keras.utils.image_dataset_from_directory
    if files is not None:
        return len(files) == batches * rows
    if batches == 1:
        return True
    if batches > _FEW:
        return False
    return all(len(tf.nest.flatten(last)[0]) == rows for last in dataset.skip(batches - 1))


def checked_images(dataset, value_range, what="x"):
    """The images of a user's data set, batch by batch as they are, with values looked at: for `predict`."""
    check = _checked(value_range, what)

    def images(*given):
        return check(images_of(given[0] if len(given) == 1 else given, what))

    return dataset.map(images)


@contextlib.contextmanager
def plain_errors():
    """Within it what is found while TensorFlow reads batches is the error with its sentence that it is for arrays.

    That is what a check in a data set's graph finds, and what Python code of this package raises that the graph calls.
    """
    try:
        yield
    except Exception as error:  # on JAX and torch it is TensorFlow's own as well
        plain = _asserted(str(error)) or _raised(str(error))
        if plain is None:
            raise
        raise plain from None


def _asserted(text):
    if "assertion failed" not in text:
        return None
    found = re.search(r"assertion failed: \[(`.*?(?:\.|torch, .*? in numpy\.))\]", text, re.DOTALL)
    return found and ValueError(found[1].replace("\\'", "'").replace('\\"', '"'))


def _raised(text):
    """The error of this package in the text of TensorFlow's; None for one of the user's code, whose lines it shows."""
    found = re.search(r"(?:^|\}\} )(ValueError|TypeError): (.*?)\nTraceback \(most recent .*?:(.*)", text, re.S | re.M)
    lines = re.findall(r'^ *File "(.*?)", line \d+', found[3], re.M) if found else []
    if not lines or not lines[-1].startswith(_PACKAGE):
        return None
    return {"ValueError": ValueError, "TypeError": TypeError}[found[1]](found[2])


def _first(dataset, what):
    import tensorflow as tf

    try:
        with plain_errors():
            return tf.nest.map_structure(lambda part: part.numpy(), next(iter(dataset)))
    except StopIteration:
        raise ValueError(f"`{what}`: the data set is empty.") from None


def _check_spec(specs, what):
    """Refuses what has no batches of known shape, with the call that is missing."""
    import tensorflow as tf

    for spec in tf.nest.flatten(specs):
        if isinstance(spec, tf.RaggedTensorSpec):
            raise ValueError(
                f"`{what}` gives ragged batches, {spec}: resize the images before they are batched, or pad them with "
                "dataset.map(lambda images: images.to_tensor())."
            )
        if spec.shape.rank is None:
            raise ValueError(
                f"`{what}` gives tensors of unknown shape, as after numpy_function or py_function: say it with "
                "dataset.map(lambda images: tf.ensure_shape(images, (None, height, width, channels)))."
            )
        if spec.shape.rank == 0:
            raise ValueError(f"`{what}` is not batched: dataset.batch(256, drop_remainder=True).")


def _checked(value_range, what):
    """A function that gives a tensor of images back once its values were looked at: the graph of `check_images`."""
    import tensorflow as tf

    def check(images):
        if images.shape.rank == 4:
            ranges.check_channels_last(tuple(images.shape), what)
        numbers = tf.cast(images, tf.uint8) if images.dtype == tf.bool else images
        smallest, largest = (tf.cast(ends(numbers), tf.float32) for ends in (tf.reduce_min, tf.reduce_max))
        sound = tf.math.is_finite(smallest) & tf.math.is_finite(largest)
        sentence = not_finite = tf.constant(ranges.NOT_FINITE.format(what=what))
        if ranges.has_ends(value_range):
            low, high = value_range
            ends = {"what": what, "smallest": "@1", "largest": "@2", "low": low, "high": high}
            outside = ranges.is_outside(smallest, largest, low, high)
            inside = ranges.is_far_inside(largest, low, high)
            sentence = tf.where(inside, ranges.INSIDE.format(**ends, **ranges.way_out(high)), sentence)
            sentence = tf.where(outside, ranges.OUTSIDE.format(**ends), sentence)
            sentence = tf.where(sound, sentence, not_finite)
            for mark, number in (("@1", smallest), ("@2", largest)):
                sentence = tf.strings.regex_replace(sentence, mark, tf.strings.as_string(number, shortest=True))
            sound = sound & ~outside & ~inside
        with tf.control_dependencies([tf.debugging.Assert(sound, [sentence], summarize=-1)]):
            return tf.identity(images)

    return check


def _labels(labels):
    """Labels in numbers that each backend tells apart: `keras_ssl.data.labels.label_words` in a graph."""
    import tensorflow as tf

    if labels.shape.rank == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape.rank != 1:
        raise ValueError(
            f"labels must be one label an image, and their shape is {labels.shape}: from one-hot rows take "
            "argmax(axis=1)."
        )
    if labels.dtype == tf.string:
        missing = tf.strings.regex_full_match(tf.strings.strip(labels), "|-1|-1\\.0|nan|NaN")  # as `labels.means_none`
        digest = tf.fingerprint(labels)  # 64 bits a string
        labels = tf.bitcast(digest, tf.int64)
    elif labels.dtype in (tf.int8, tf.int16, tf.int32, tf.uint8, tf.uint16, tf.bool):
        return tf.cast(labels, tf.int32)
    elif labels.dtype.is_integer:
        labels = tf.cast(labels, tf.int64) if labels.dtype != tf.uint64 else tf.bitcast(labels, tf.int64)
        missing = tf.equal(labels, MISSING)
    else:
        raise ValueError(f"labels must be integers or strings, one an image; they are {labels.dtype.name}.")
    words = [labels, tf.bitwise.right_shift(labels, 22), tf.bitwise.right_shift(labels, 44)]
    masks = (0x3FFFFF, 0x3FFFFF, 0xFFFFF)
    words = tf.stack([tf.bitwise.bitwise_and(word, tf.constant(mask, tf.int64)) for word, mask in zip(words, masks)], 1)
    none = tf.constant([[0, 0, MISSING]], tf.int64)
    return tf.cast(tf.where(missing[:, None], none, words), tf.int32)
