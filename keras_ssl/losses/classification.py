"""The cross entropy of pretext tasks."""

import keras
from keras import ops


def cross_entropy(logits, labels):
    """`−log softmax(logits)[label]` of each row, in float32.

    Args:
        logits: `(…, classes)`.
        labels: integers `(…)`.

    Returns:
        float32 `(…)`; of logits that are all alike `ln(classes)`.
    """
    return keras.losses.sparse_categorical_crossentropy(labels, ops.cast(logits, "float32"), from_logits=True)


def correct_predictions(logits, labels):
    """1 where the largest logit is the label's, else 0: float32 `(…)`."""
    found = ops.cast(ops.argmax(logits, axis=-1), "int32")
    return ops.cast(ops.equal(found, ops.cast(labels, "int32")), "float32")
