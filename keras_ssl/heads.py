"""Projection and prediction heads: small networks that are dropped after pretraining."""

import keras
from keras import ops

__all__ = ["build", "mlp"]


def mlp(
    widths,
    batch_norm=True,
    last_batch_norm=True,
    last_bias=True,
    last_scale=True,
    name=None,
    dtype=None,
    activation="relu",
):
    """A perceptron: dense, batch normalization, ReLU, … and a last dense layer without ReLU.

    Args:
        widths: the width of each dense layer; the last is the width of the embedding.
        batch_norm: normalize after each dense layer but the last.
        last_batch_norm: normalize after the last one.
        last_bias: give the last dense layer a bias, where it is not normalized.
        last_scale: give the last batch normalization, where there is one, a scale and a shift that are trained.
        name, dtype: as of any Keras model; the dtype policy of all layers.
        activation: in place of ReLU, by its name in Keras.

    Returns:
        `keras.Sequential` from `(n, any)` to `(n, widths[-1])`. Biases are left out where batch normalization would
        take them away again.
    """
    layers = []
    for place, width in enumerate(widths):
        last = place == len(widths) - 1
        normalized = last_batch_norm if last else batch_norm
        bias = not normalized and (last_bias or not last)
        layers.append(keras.layers.Dense(width, use_bias=bias, dtype=dtype))
        if normalized:
            # The constants of the papers' codes: a moving average over ten steps, a millionth of a variance.
            affine = last_scale or not last
            layers.append(
                keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, center=affine, scale=affine, dtype=dtype)
            )
        if not last:
            relu = keras.layers.ReLU(dtype=dtype)
            layers.append(relu if activation == "relu" else keras.layers.Activation(activation, dtype=dtype))
    return keras.Sequential(layers, name=name)


def build(head, width, expected=None, owner=""):
    """Builds a head for `(n, width)`, unless it came built.

    Args:
        head: any Keras layer or model.
        width: of what it gets.
        expected: the width that it must make, or None for any.
        owner: the method, for the error.
    """
    if not head.built:
        head.build((None, width))
    made = width_of(head, width) if expected is not None else None
    if made != expected:
        raise ValueError(f"{owner}: `head` must give (n, {expected}), and {head.name} gives (n, {made}).")


def by_row(head):
    """A head as a function of several vectors an image, from `(n, k, width)` to `(n, k, d)`: each is a row to it.

    Args:
        head: a Keras layer or model of `(n, width)`.
    """

    def function(vectors, training=None):
        embedded = head(ops.reshape(vectors, (-1, vectors.shape[-1])), training=training)
        return ops.reshape(embedded, (-1, vectors.shape[1], embedded.shape[-1]))

    return function


def width_of(head, width):
    """How wide the embedding is that a head makes of `(n, width)`."""
    return head.compute_output_shape((None, width))[-1]
