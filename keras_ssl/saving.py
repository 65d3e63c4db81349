"""What is saved with a model: its arguments, and the states of its random layers."""

import copy
import inspect

import keras
from keras import ops


def check_function(what, function, examples):
    """Refuses a function that Keras could not load again: a lambda, or one of a user's that is not registered.

    Args:
        what: the argument, for the error.
        function: what was given.
        examples: of what to give instead, for the error.
    """
    if not callable(function):
        raise ValueError(f"{what} is a function, such as {examples}; it is {function!r}.")
    try:
        if getattr(function, "__name__", "") != "<lambda>":
            keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(function))
            return
    except (TypeError, ValueError, AttributeError):
        pass
    raise ValueError(
        f"{what} is {function!r}, which can't be saved: a model with it could be trained and never loaded. Define it "
        "by name, with @keras.saving.register_keras_serializable() above it (a class also needs get_config)."
    )


def init_arguments(cls, base):
    """The names of all arguments that the `__init__` of `cls` and of its bases, up to `base`, take by name."""
    names = []
    for one in cls.__mro__[: cls.__mro__.index(base) + 1]:
        if "__init__" in vars(one):
            parameters = list(inspect.signature(one.__init__).parameters.values())[1:]
            kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
            names += [p.name for p in parameters if p.kind in kinds and p.name not in names]
    return names


def arguments_of(config):
    """The arguments that a config holds, made; it stays as it is, where Keras empties the config of a functional
    model."""
    return {name: keras.saving.deserialize_keras_object(value) for name, value in copy.deepcopy(config).items()}


def check_arguments(model, base):
    """Refuses a class of which a saved model would lack arguments; `build` does so before anything is trained."""
    if type(model).get_config is not base.get_config:
        return
    for name in init_arguments(type(model), base):
        if not hasattr(model, name):
            raise ValueError(
                f"{type(model).__name__}: `{name}` is an argument of __init__ and no attribute, so it can't be saved: "
                f"write self.{name} = {name} in __init__, or a get_config of the class."
            )


def seed_states(model):
    """The states of all seed generators below a model: they are in `variables`, and Keras saves `weights` alone."""
    weights = {id(weight) for weight in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def save_seed_states(model, store):
    """Adds the states of seed generators to what Keras stores of a model."""
    for place, state in enumerate(seed_states(model)):
        store[f"seed_{place}"] = ops.convert_to_numpy(state)


def load_seed_states(model, store):
    """Takes the states of seed generators from a store; a file without them leaves them as they are."""
    names = set(store.keys())
    for place, state in enumerate(seed_states(model)):
        if f"seed_{place}" in names:  # absent in files of another library, or of a model without random layers
            state.assign(store[f"seed_{place}"][...])


def is_seed_state(name):
    """Whether an entry of a store is one of `save_seed_states`."""
    return name.startswith("seed_")
