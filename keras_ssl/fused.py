"""Layers that a training step computes by one operation of the framework, where Keras composes several.

Keras composes batch normalization of a mean, a variance and an affine map, where TensorFlow and torch have one
operation for it, forward and backward; and on torch it copies what goes into a convolution to another layout and back.
These layers are Keras' own before and after a step: their `call` is replaced only while the step runs, which on
TensorFlow is while it is traced. So callbacks, what is saved and what the user gets back are plain Keras.
"""

import contextlib
import types

import keras

from keras_ssl import backend, batch_norm
from keras_ssl.keras_compat import flatten_layers


def check(fused_layers):
    """Raises `ValueError` for what is no value of `compile(fused_layers=…)`."""
    if fused_layers is not False and fused_layers != "auto":
        raise ValueError(
            f'compile: `fused_layers` is "auto" or False; it is {fused_layers!r}. For single layers, or on several '
            "replicas, leave it at False and call keras_ssl.batch_norm.use_fused(layer)."
        )


def run(model, function, *arguments):
    """`function(*arguments)`, a training step of `model`, with fused layers where that is safe.

    Not in one of several replicas: those of TensorFlow are threads that share the layers. And not where torch compiles
    the step, which fuses by itself.
    """
    if not model.fused_layers or not backend.can_fuse_step(model):
        return function(*arguments)
    with _replaced(_calls(model)):
        return function(*arguments)


def describe(model):
    """The sentence with which `fit` says what is fused in a built model; None where nothing is."""
    if not model.fused_layers or backend.replicas_of(model) > 1 or not backend.can_fuse_step(model):
        return None
    kinds = {}
    for layer, _ in _calls(model):
        if layer.built and layer.trainable and layer.input_spec.ndim in (4, None):
            kinds.setdefault(type(layer).__name__, []).append(layer)
    if not kinds:
        return None
    counts = " and ".join(f"{len(layers)} {name}" for name, layers in kinds.items())
    return (
        f"{counts} layers run as one operation each while training; compile(fused_layers=False) leaves them to Keras."
    )


def _calls(model):
    """Pairs of a layer and the function that takes the place of its `call`, which decides for itself by its inputs."""
    layers = flatten_layers(model)
    return [*batch_norm.fused_calls(layers), *_convolutions(layers)]


def _convolutions(layers):
    """Convolutions that are exactly Keras' own, and whose `call` nobody has replaced."""
    if not backend.FUSED_CONVOLUTION:
        return []
    layers = [layer for layer in layers if type(layer) is keras.layers.Conv2D and "call" not in vars(layer)]
    return [(layer, _convolve) for layer in layers if layer.data_format == "channels_last"]


def _convolve(layer, inputs):
    if len(inputs.shape) != 4 or layer.padding not in ("same", "valid") or getattr(layer, "quantization_mode", None):
        return type(layer).call(layer, inputs)
    outputs = backend.convolution(
        inputs, layer.kernel, layer.strides, layer.dilation_rate, same_padding=layer.padding == "same"
    )
    if layer.use_bias:
        outputs = keras.ops.add(outputs, layer.bias)
    return outputs if layer.activation is None else layer.activation(outputs)


@contextlib.contextmanager
def _replaced(calls):
    before = [(layer, vars(layer).get("call")) for layer, _ in calls]
    try:
        for layer, call in calls:
            layer.call = types.MethodType(call, layer)
        yield
    finally:
        for layer, own in before:
            if own is not None:
                layer.call = own
            elif "call" in vars(layer):
                del layer.call
