"""What a method is given must be saved with it, or a trained model could not be loaded."""

import keras


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
