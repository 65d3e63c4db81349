"""LoRA on a backbone: only small matrices beside its kernels are trained, and a file keeps them."""

import copy

import keras
from keras import ops

from keras_ssl import backbones
from keras_ssl.keras_compat import flatten_layers

__all__ = ["LoRA"]

QUERY_AND_VALUE = ("query", "value", "query_dense", "value_dense", "q_proj", "v_proj")


@keras.saving.register_keras_serializable("keras_ssl")
class LoRA(keras.Model):
    """A backbone of which only low-rank matrices beside some kernels are trained: `W + alpha / rank · A·B`.

    ```python
    backbone = keras_ssl.lora.LoRA(keras_ssl.hub.backbone("dinov2_small"), rank=8)
    model = keras_ssl.SimCLR(backbone)
    ...
    plain = backbone.merged()  # a Keras model without LoRA, to build on
    ```

    The matrices are Keras' own (`enable_lora`); B begins at 0, so that the features begin as they were. All other
    weights of the backbone are frozen, whatever `trainable` says: a method freezes again what was thawed layer by layer
    when it is compiled and at each `fit`; elsewhere call `freeze`. `trainable=False` freezes the matrices as well. A
    `.keras` file keeps A and B and goes on with them: Keras alone merges them into the kernel and loads zeros, which no
    gradient moves, and keras-hub's backbones load without LoRA. A moving average has them too. The layers of the given
    backbone are used, and changed.

    Args:
        backbone: a built graph of layers, of keras-hub or any other.
        rank: of A and B, 1 or more.
        layers: names of the layers that get LoRA, `Dense`, `EinsumDense` or `Embedding`; the default names queries and
            values of attentions.
        alpha: the scale times the rank; None for the rank, a scale of 1.

    Reference: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2022, section 4.
    """

    def __init__(self, backbone, rank, layers=QUERY_AND_VALUE, alpha=None, **kwargs):
        backbone = backbones.checked(backbone)
        if not backbones.is_graph(backbone):
            raise ValueError(f"LoRA: `backbone` must be a built graph of layers; {backbone.name} is none.")
        if not isinstance(rank, int) or rank < 1:
            raise ValueError(f"LoRA: `rank` must be an integer, 1 or more; it is {rank!r}.")
        super().__init__(backbone.inputs[0], backbone.outputs[0], **{"name": backbone.name, **kwargs})
        self.rank, self.targets, self.alpha = rank, tuple(layers), alpha
        self.plain = _Plain(_without_lora(keras.saving.serialize_keras_object(backbone)))
        found = [layer for layer in flatten_layers(self) if layer.name in self.targets and _takes_lora(layer)]
        if not found:
            known = sorted({layer.name for layer in flatten_layers(self) if _takes_lora(layer)})
            raise ValueError(f"LoRA: no layer of {backbone.name} is named {self.targets}; `layers` may name {known}.")
        for layer in found:
            if not layer.lora_enabled:
                layer.enable_lora(rank, lora_alpha=alpha)
        # Behind the layers, for Keras loads those first.
        self.matrices = _Matrices(found)
        self.freeze()

    def freeze(self):
        """Freezes all but the matrices, and these too where `trainable` of the whole is False."""
        trained = {id(matrix) for layer in self.matrices.adapted.value for matrix in _matrices(layer)}
        for variable in self.variables:
            variable.trainable = self.trainable and id(variable) in trained

    @property
    def trainable(self):
        return keras.Model.trainable.fget(self)

    @trainable.setter
    def trainable(self, value):
        keras.Model.trainable.fset(self, value)
        if value and hasattr(self, "matrices"):
            self.freeze()

    def merged(self):
        """The backbone without LoRA, its kernels with what LoRA learned: a new model, all of it trainable."""
        plain = keras.saving.deserialize_keras_object(copy.deepcopy(self.plain.value))  # Keras empties what it is given
        adapted = {id(_kernel(layer)): layer for layer in self.matrices.adapted.value}
        small = {id(matrix) for layer in adapted.values() for matrix in _matrices(layer)}
        weights = [weight for weight in self.weights if id(weight) not in small]
        plain.set_weights(
            [
                ops.convert_to_numpy(weight + _difference(adapted[id(weight)]) if id(weight) in adapted else weight)
                for weight in weights
            ]
        )
        return plain

    def get_config(self):
        return {
            "name": self.name,
            "backbone": copy.deepcopy(self.plain.value),
            "rank": self.rank,
            "layers": list(self.targets),
            "alpha": self.alpha,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "backbone": keras.saving.deserialize_keras_object(_without_lora(config["backbone"]))})


def within(model):
    """Each `LoRA` that is the model or lies below it: a list."""
    return [layer for layer in flatten_layers(model) if isinstance(layer, LoRA)]


class _Plain:
    """Holds what Keras is not to track."""

    def __init__(self, value):
        self.value = value


class _Matrices(keras.layers.Layer):
    """Keeps A and B of layers in a file. Keras' layers save their merged kernels, and load zeros for A and B."""

    def __init__(self, adapted):
        super().__init__(name="matrices")
        self.adapted = _Plain(adapted)
        self.built = True

    def save_own_variables(self, store):
        for place, layer in enumerate(self.adapted.value):
            for name, matrix in zip("ab", _matrices(layer)):
                store[f"{place}_{name}"] = ops.convert_to_numpy(matrix)

    def load_own_variables(self, store):
        for place, layer in enumerate(self.adapted.value):
            for name, matrix in zip("ab", _matrices(layer)):
                matrix.assign(store[f"{place}_{name}"])
            kernel = _kernel(layer)
            kernel.assign(kernel - _difference(layer))


def _takes_lora(layer):
    return layer.built and hasattr(layer, "enable_lora") and hasattr(layer, "lora_enabled")


def _matrices(layer):
    """A and B. An embedding has its own names for them."""
    if isinstance(layer, keras.layers.Embedding):
        return layer.lora_embeddings_a, layer.lora_embeddings_b
    return layer.lora_kernel_a, layer.lora_kernel_b


def _kernel(layer):
    """The variable of the kernel: `layer.kernel` is what it makes together with A and B."""
    name = "embeddings" if isinstance(layer, keras.layers.Embedding) else "kernel"
    return next(variable for variable in layer.variables if variable.name == name)


def _difference(layer):
    return (layer.lora_alpha / layer.lora_rank) * ops.matmul(*_matrices(layer))


def _without_lora(config):
    """A configuration in which no layer has LoRA by itself: here it comes after the weights, in one order."""
    if isinstance(config, dict):
        return {name: _without_lora(value) for name, value in config.items() if name not in ("lora_rank", "lora_alpha")}
    return type(config)(map(_without_lora, config)) if isinstance(config, (list, tuple)) else config
