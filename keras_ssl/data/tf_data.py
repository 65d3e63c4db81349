"""How TensorFlow is fed, and a user's `tf.data.Dataset` with checks in it.

Beside `keras_ssl.backend` the only room that imports a framework: `tf.data` feeds Keras on each backend.
"""

import dataclasses

from keras_ssl.data.batch import standard_batch


@dataclasses.dataclass
class Stream:
    """A `tf.data.Dataset` of batches in the library's form.

    Attributes:
        dataset: with checks in it.
        batch_size: images of a batch.
        steps: batches; None where it can't be told.
        parts: the names of all that a batch has, also of what is not kept.
    """

    dataset: object
    batch_size: int
    steps: int | None
    parts: set


def adapt_tf_dataset(dataset, value_range, keep):
    """A user's `tf.data.Dataset` of batches: standard form, one size, values looked at on the way.

    Args:
        dataset: batched; elements in any form that `fit` takes.
        value_range: of the model.
        keep: names of the parts of a batch that the model uses.

    Returns:
        `Stream`.
    """
    import tensorflow as tf

    parts = set()

    low, high = value_range
    slack = 1e-3 * (high - low)

    def check(images):
        if images.dtype == tf.uint8 and low <= 0.0 and high >= 255.0:
            return images
        smallest, largest = tf.reduce_min(images), tf.reduce_max(images)
        inside = tf.cast(smallest, tf.float32) >= low - slack, tf.cast(largest, tf.float32) <= high + slack
        message = (
            f"A batch holds NaN or values outside of the model's value_range=({low:g}, {high:g}): pass the range that "
            "the images have, such as value_range=(0, 1), or bring them into this one. Smallest and largest:"
        )
        with tf.control_dependencies([tf.debugging.Assert(tf.logical_and(*inside), [message, smallest, largest])]):
            return tf.identity(images)

    def standard(*given):
        batch = standard_batch(given[0] if len(given) == 1 else given)
        parts.update(batch)
        batch = {name: part for name, part in batch.items() if name in keep}
        for name in ("image", "views"):
            if name in batch:
                batch[name] = tf.nest.map_structure(check, batch[name])
        return batch

    dataset = dataset.map(standard, num_parallel_calls=tf.data.AUTOTUNE)
    cardinality = int(dataset.cardinality())
    sizes = {spec.shape[0] if spec.shape.rank else 0 for spec in tf.nest.flatten(dataset.element_spec)}
    if 0 in sizes:
        raise ValueError("The data set gives single numbers: batch it, dataset.batch(256, drop_remainder=True).")
    if None not in sizes and len(sizes) == 1:
        return Stream(dataset, sizes.pop(), cardinality if cardinality > 0 else None, parts)
    try:
        rows = len(tf.nest.flatten(next(iter(dataset)))[0])
    except StopIteration:
        raise ValueError("The data set is empty.") from None
    return Stream(dataset.rebatch(rows, drop_remainder=True), rows, None, parts)
