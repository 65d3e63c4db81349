"""Batch normalization by one operation of TensorFlow, forward and backward, where Keras composes it of several."""

import math

import keras
import tensorflow as tf
from keras import ops

_KINDS = ("float16", "bfloat16", "float32")


def can_fuse_batch_norm(layer, x):
    rank = len(x.shape)
    return (
        rank == 4
        and layer.axis % rank == 3
        and keras.backend.standardize_dtype(x.dtype) in _KINDS
        # Statistics in half precision would be rounded elsewhere than Keras rounds them: 1e-2 apart after six steps.
        and keras.backend.standardize_dtype(layer.moving_mean.dtype) == "float32"
        and layer.epsilon >= 1e-5  # less was refused by some cuDNN
        and not layer.synchronized
    )


def fused_batch_norm(layer, x):
    # The operation wants scale and offset in float32, whatever the inputs are.
    channels = (x.shape[-1],)
    gamma = tf.ones(channels) if layer.gamma is None else ops.cast(layer.gamma, "float32")
    beta = tf.zeros(channels) if layer.beta is None else ops.cast(layer.beta, "float32")
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=[], variance=[], epsilon=layer.epsilon, is_training=True
    )
    # It gives the unbiased variance, sum / (n − 1), and Keras keeps the biased one, sum / n.
    count = ops.cast(math.prod(ops.shape(x)[:3]), "float32")
    variance = variance * ((count - 1.0) / count)
    return ops.cast(outputs, layer.compute_dtype), tf.stop_gradient(mean), tf.stop_gradient(variance)
