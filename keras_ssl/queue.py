"""A queue of past embeddings: more negatives than a batch holds."""

import keras
from keras import ops

__all__ = ["Queue"]


@keras.saving.register_keras_serializable("keras_ssl")
class Queue(keras.layers.Layer):
    """The last embeddings of past batches, the oldest overwritten first.

    What is kept are variables, which `.keras` files save. Nothing is trained: gradients stop at `push`.

    ```python
    queue = keras_ssl.queue.Queue(1024)
    queue.build((None, 128))
    queue.push(embeddings)
    rows, valid = queue.negatives()
    ```

    A method holds one, reads `negatives()` in its objective, and pushes in its `after_optimizer_step`, which runs once
    per optimizer step and after it: so no embedding is its own negative, and a step that was left out leaves nothing
    behind.

    Args:
        size: number of embeddings that are kept, 1 or more.
        labeled: keep an integer label with each of them (`classes()`), so that they can be positives as well: Wang et
            al., "Cross-Batch Memory for Embedding Learning", 2020.

    Reference: He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", 2020, section 3.2.
    """

    def __init__(self, size, labeled=False, **kwargs):
        # Embeddings that are compared are float32 in every loss of this library, whatever the policy of the network.
        super().__init__(**{"dtype": "float32", **kwargs, "trainable": False})
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"Queue: `size` must be an integer, 1 or more; it is {size!r}.")
        self.size = size
        self.labeled = labeled

    def build(self, input_shape):
        width = input_shape[-1]
        state = {"initializer": "zeros", "trainable": False}
        self.rows = self.add_weight(shape=(self.size, width), dtype="float32", name="rows", **state)
        if self.labeled:
            self.labels = self.add_weight(shape=(self.size,), dtype="int32", name="labels", **state)
        # The slot that is written next, and how many were written: at most all.
        self.pointer = self.add_weight(shape=(), dtype="int32", name="pointer", **state)
        self.count = self.add_weight(shape=(), dtype="int32", name="count", **state)

    def negatives(self):
        """`(rows, valid)`: float32 `(size, width)`, and boolean `(size,)`, which of them hold an embedding."""
        valid = ops.arange(self.size, dtype="int32") < ops.convert_to_tensor(self.count)
        return ops.convert_to_tensor(self.rows), valid

    def classes(self):
        """The labels of the rows of `negatives()`: int32 `(size,)`, of any value where nothing is held yet."""
        return ops.convert_to_tensor(self.labels)

    def push(self, embeddings, stepped=True, labels=None):
        """Writes embeddings over the oldest ones.

        Args:
            embeddings: `(n, width)`, at most `size` rows; of all replicas, in one order on each of them.
            stepped: boolean scalar; where it is false nothing changes.
            labels: integers `(n,)`, for a queue that keeps them.
        """
        if self.labeled != (labels is not None):
            raise ValueError(f"Queue.push: `labels` are for a queue with labeled=True; this one has {self.labeled}.")
        if embeddings.shape[0] is not None:  # several workers of TensorFlow leave it open; `fit` has checked it there
            check_size("Queue.push", self.size, embeddings.shape[0])
        count = ops.shape(embeddings)[0]
        embeddings = ops.stop_gradient(ops.cast(embeddings, "float32"))
        rows, pointer, filled = (ops.convert_to_tensor(part) for part in (self.rows, self.pointer, self.count))
        slots = ops.mod(pointer + ops.arange(count, dtype="int32"), self.size)
        # Where there was no step, the slots are overwritten with what they hold.
        written = ops.where(stepped, embeddings, ops.take(rows, slots, axis=0))
        self.rows.assign(ops.scatter_update(rows, slots[:, None], written))
        if self.labeled:
            kept = self.classes()
            written = ops.where(stepped, ops.cast(labels, "int32"), ops.take(kept, slots))
            self.labels.assign(ops.scatter_update(kept, slots[:, None], written))
        self.pointer.assign(ops.where(stepped, ops.mod(pointer + count, self.size), pointer))
        self.count.assign(ops.where(stepped, ops.minimum(filled + count, self.size), filled))

    def get_config(self):
        return {**super().get_config(), "size": self.size, "labeled": self.labeled}


def check_size(owner, size, pushed):
    """Refuses a queue that could not hold what is pushed at once."""
    if size < pushed:
        raise ValueError(
            f"{owner}: a queue of {size} embeddings is smaller than the {pushed} that a batch pushes at once: make the "
            f"queue {pushed} or larger, or the batch smaller."
        )
