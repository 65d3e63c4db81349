"""Prototypes, directions that embeddings are compared with, and the center of such comparisons."""

import keras
from keras import ops

from keras_ssl import backend
from keras_ssl.distances import normalized

__all__ = ["Center", "Prototypes"]


@keras.saving.register_keras_serializable("keras_ssl")
class Prototypes(keras.layers.Layer):
    """Compares embeddings with directions that are trained: the cosine to each.

    Each prototype is a column of the kernel. Either it is set to length 1 after each step of the optimizer, as in
    SwAV's code (`keras.constraints.UnitNorm`), or it is of any length and divided by it, which is weight normalization
    with its scale held at 1, as of DINO's last layer.

    Args:
        count: how many prototypes, 2 or more.
        weight_norm: divide by the length, and leave the length to the optimizer.

    Reference: Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", 2020,
    section 3; Salimans & Kingma, "Weight Normalization", 2016, eq. 2.
    """

    def __init__(self, count, weight_norm=False, **kwargs):
        # Its scores are divided by small temperatures: they are float32, whatever the policy of the network.
        super().__init__(**{"dtype": "float32", **kwargs})
        check_count("Prototypes: `count`", count)
        self.count = count
        self.weight_norm = weight_norm

    def build(self, input_shape):
        bound = input_shape[-1] ** -0.5  # of the papers' codes: uniform in ± 1 / √d
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.count),
            initializer=keras.initializers.RandomUniform(-bound, bound),
            constraint=None if self.weight_norm else keras.constraints.UnitNorm(axis=0),
            name="kernel",
        )
        if not self.weight_norm:
            self.kernel.assign(self.kernel.constraint(ops.convert_to_tensor(self.kernel)))

    def call(self, embeddings, frozen=False):
        """The scores `(n, count)` in float32.

        Args:
            embeddings: `(n, d)`, of length 1.
            frozen: boolean scalar tensor; where it is true, no gradient reaches the prototypes. What momentum and decay
                make of them is undone by the model: `held_variables`.
        """
        kernel = ops.convert_to_tensor(self.kernel)
        kernel = ops.where(frozen, ops.stop_gradient(kernel), kernel)
        if self.weight_norm:
            kernel = ops.transpose(normalized(ops.transpose(kernel)))
        return backend.matmul(ops.cast(embeddings, "float32"), kernel)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.count)

    def get_config(self):
        return {**super().get_config(), "count": self.count, "weight_norm": self.weight_norm}


@keras.saving.register_keras_serializable("keras_ssl")
class Center(keras.layers.Layer):
    """A moving average of the rows of past batches: `center ← m · center + (1 − m) · mean of the batch`.

    It begins at 0. A method subtracts `value()` in its objective, and calls `update` in its `after_optimizer_step`.

    Args:
        momentum: m, in [0, 1].

    Reference: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021, eq. 4.
    """

    def __init__(self, momentum=0.9, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs, "trainable": False})
        check_center_momentum("Center: `momentum`", momentum)
        self.momentum = momentum

    def build(self, input_shape):
        self.center = self.add_weight(
            shape=(input_shape[-1],), dtype="float32", initializer="zeros", trainable=False, name="center"
        )

    def value(self):
        """The center: float32 `(d,)`."""
        return ops.convert_to_tensor(self.center)

    def update(self, mean, stepped=True):
        """Moves the center.

        Args:
            mean: `(d,)`, of the rows of all replicas.
            stepped: boolean scalar tensor; where it is false nothing changes.
        """
        moved = self.momentum * self.value() + (1.0 - self.momentum) * ops.cast(mean, "float32")
        self.center.assign(ops.where(stepped, moved, self.value()))

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum}


def check_count(what, count):
    """Raises `ValueError` for a number of prototypes that is none."""
    if not isinstance(count, int) or count < 2:
        raise ValueError(f"{what} must be a number of prototypes, 2 or more; it is {count!r}.")


def check_center_momentum(what, momentum):
    """Raises `ValueError` for a momentum outside of [0, 1]."""
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(f"{what} must lie between 0 and 1; it is {momentum!r}.")
