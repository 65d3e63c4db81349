"""Copies of models: the same layers with variables of their own."""

import contextlib
import random

import keras
import numpy as np

from keras_ssl.backbones import is_graph
from keras_ssl.keras_compat import flatten_layers


def clone(layer, with_weights=True, seed=None, unfreeze=False, input_shape=None):
    """Copies a layer or a model; the copy shares no variable with the original.

    The original may be a functional or sequential model, also of open input size, a subclass of `keras.Model` with a
    `get_config`, or a single layer.

    Args:
        layer: the original. It is not changed.
        with_weights: copy the weights too; False gives the copy new initial weights.
        seed: integer. Each initializer and each dropout layer without a seed of its own gets one that follows from
            this number, and the random states of Python and Keras are not changed. None leaves the seeds as they are.
        unfreeze: make each layer of the copy trainable.
        input_shape: `(height, width, channels)` of the images that the copy is called on, where its variables are only
            created then; an open side counts as 32. None builds the copy as the original was built.

    Returns:
        A built layer of the same configuration.

    Raises:
        ValueError: the original has no weights to copy, no configuration, or a Lambda layer of a nameless function.
    """
    if with_weights and not (layer.built or layer.weights):
        raise ValueError(f"The model {layer.name} has no weights yet: train it, or call it on images, first.")
    numbers = None if seed is None else np.random.default_rng([seed, 1])
    graph = isinstance(layer, keras.Sequential) or is_graph(layer)
    # Layers that a subclass creates in its __init__ are not in its config: they take seeds from Python's generator.
    with contextlib.nullcontext() if graph or numbers is None else _python_seed(int(numbers.integers(2**31))):
        try:
            copy = _from_config(layer, graph, numbers, unfreeze)
        except (NotImplementedError, TypeError) as error:
            raise ValueError(
                f"{layer.name} can't be copied, and training needs a copy: give {type(layer).__name__} a get_config, "
                "and register it with keras.saving.register_keras_serializable()."
            ) from error
        except ValueError as error:
            lambdas = [part.name for part in flatten_layers(layer) if isinstance(part, keras.layers.Lambda)]
            if not lambdas:
                raise
            raise ValueError(
                f"{layer.name} can't be copied, and training needs a copy: its Lambda layer ({', '.join(lambdas)}) has "
                "a function without a name, which could not be loaded from a file either. Put a layer of Keras in its "
                "place, such as keras.layers.Rescaling(1 / 255), or a class of yours, registered with "
                "keras.saving.register_keras_serializable()."
            ) from error
        if not copy.built or len(copy.weights) != len(layer.weights):
            if input_shape is None:
                copy.build_from_config(layer.get_build_config())
            else:
                copy(np.zeros((1, *(side or 32 for side in input_shape)), "float32"))
    if with_weights:
        copy.set_weights(layer.get_weights())
    return copy


def _from_config(layer, graph, numbers, unfreeze):
    def edited(part):
        return type(part).from_config(_edit(part.get_config(), numbers, unfreeze))

    if graph and (unfreeze or numbers is not None):
        # Layer by layer, in the order of the graph, in which the seeds are drawn.
        return keras.models.clone_model(layer, clone_function=edited, recursive=True)
    # As a whole: it keeps its class, and is not compiled as the original may be.
    return edited(layer)


def _edit(config, numbers, unfreeze):
    """A configuration in which each open seed has a number, if there are `numbers`, and nothing is frozen, if asked."""
    if isinstance(config, dict):
        config = {name: _edit(value, numbers, unfreeze) for name, value in config.items()}
        if numbers is not None and "seed" in config and config["seed"] is None:
            config["seed"] = int(numbers.integers(2**31))
        # A layer that is built while it is frozen stays frozen.
        return {**config, "trainable": True} if unfreeze and "trainable" in config else config
    if isinstance(config, (list, tuple)):
        return type(config)(_edit(value, numbers, unfreeze) for value in config)
    return config


@contextlib.contextmanager
def _python_seed(seed):
    """Seeds Python's generator for the block, and restores its state after it."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def trainable_flags(layer):
    """For each weight of a layer whether an optimizer would move it, if nothing were frozen: a list of booleans."""
    layers = flatten_layers(layer)
    kept = [part.trainable for part in layers]
    for part in layers:  # one by one: on TensorFlow, setting what is True already does not reach the layers below
        part.trainable = True
    moved = {id(variable) for variable in layer.trainable_variables}
    flags = [id(weight) in moved for weight in layer.weights]
    for part, trainable in zip(layers, kept):  # from the top down, for each sets all that is below it
        part.trainable = trainable
    return flags
