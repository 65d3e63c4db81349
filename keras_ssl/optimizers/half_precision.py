"""Half precision in a model's layers, which the model itself may not say.

The config of a functional model has no dtype policy: one that is loaded, cloned or built upon another has that of
`keras.config`, while its layers keep theirs. Keras scales the loss by the policy of the model alone, and without the
scaling a good part of the gradients in float16 is rounded to 0.
"""

import keras

from keras_ssl.keras_compat import flatten_layers

_MIXED = ("mixed_float16", "mixed_bfloat16")


def policy_of(model):
    """The dtype policy of a model, or where that is float32 the mixed one that layers of it have."""
    policies = [layer.dtype_policy for layer in (model, *flatten_layers(model))]
    mixed = [policy for policy in policies if policy.name in _MIXED]
    return mixed[0] if mixed and policies[0].name == "float32" else policies[0]


def scaled(optimizer, model, without=()):
    """The optimizer, under Keras' scaling of the loss where a layer of the model has the policy mixed_float16.

    Args:
        without: layers through which no gradient goes, or None: they and those below them do not count.
    """
    others = {id(part) for layer in without if layer is not None for part in flatten_layers(layer)}
    learning = [layer for layer in flatten_layers(model) if id(layer) not in others]
    half = any(layer.dtype_policy.name == "mixed_float16" for layer in learning)
    if not half or isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale_optimizer")  # the name that Keras gives
