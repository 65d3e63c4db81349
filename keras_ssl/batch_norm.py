"""Which rows batch normalisation takes its statistics from, under any Keras model.

Under TensorFlow's strategies each replica would normalise with the statistics of its own rows, and the result would
depend on the number of replicas. Keras' `synchronized=True` cures it, but is written into the saved file, which then
loads on TensorFlow alone. Here the layer instance's public `call` is replaced instead: the layer's type, variables and
file stay Keras' own, and `del layer.call` undoes it.
"""

import types

import keras
from keras import ops

from keras_ssl import distribute
from keras_ssl.keras_gaps import flatten_layers


def use_global_statistics(model):
    """Makes every `BatchNormalization` below `model` normalise by the statistics of the global batch.

    On one replica, and at inference, the layers do what they did. On JAX statistics are global by themselves.

    Returns:
        The layers that were changed.
    """
    if keras.backend.backend() != "tensorflow":
        return []
    layers = batch_norm_layers(model)
    for layer in layers:
        layer.call = types.MethodType(_global_call, layer)
    return layers


def batch_norm_layers(model):
    """All layers below `model`, at any depth, that are exactly `keras.layers.BatchNormalization`."""
    return [layer for layer in flatten_layers(model) if type(layer) is keras.layers.BatchNormalization]


def _global_call(layer, inputs, training=None, mask=None):
    live = training and layer.trainable and distribute.replicas() > 1
    if not live or mask is not None or layer.renorm or layer.synchronized:
        return type(layer).call(layer, inputs, training=training, mask=mask)
    x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
    axis = layer.axis % len(x.shape)
    others = [i for i in range(len(x.shape)) if i != axis]
    count = distribute.global_sum(ops.cast(ops.size(x) // x.shape[axis], x.dtype))
    # In two passes, as one device does: the mean of squares less the square of the mean would cancel.
    mean = distribute.global_sum(ops.sum(x, axis=others)) / count
    shape = [-1 if i == axis else 1 for i in range(len(x.shape))]
    variance = distribute.global_sum(ops.sum(ops.square(x - ops.reshape(mean, shape)), axis=others)) / count
    for moving, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + ops.cast(value, moving.dtype) * (1.0 - layer.momentum))
    y = ops.batch_normalization(x, mean, variance, layer.axis, layer.beta, layer.gamma, layer.epsilon)
    return ops.cast(y, layer.compute_dtype)
