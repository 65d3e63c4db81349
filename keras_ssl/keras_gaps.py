"""What this library needs of Keras and Keras does not publish: each with its reason, and a test of it."""

import contextlib

from keras import ops


def flatten_layers(layer):
    """The layer and all layers below it, at any depth.

    `Model.layers` is public, but stops at the first level, and plain layers that hold layers have nothing like it.
    """
    return list(layer._flatten_layers())


@contextlib.contextmanager
def nothing_lost(model):
    """Puts the values back that Keras' `fit` on JAX took out of the variables, where its first step fails.

    While it trains, the state travels from step to step and the variables are empty. `fit` gives the state of the last
    step back whatever happens; but before there is one, an error leaves a model without weights.
    """
    kept = [(variable, variable.value) for variable in (*model.variables, *model.metrics_variables)]
    try:
        yield
    except BaseException:
        for variable, value in kept:
            try:
                ops.convert_to_tensor(variable)
            except TypeError:
                variable.assign(value)
        raise
