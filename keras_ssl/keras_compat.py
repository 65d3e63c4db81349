"""What this library needs of Keras and Keras does not publish: each with its reason, and a test of it."""

import contextlib

import keras
from keras import ops


def flatten_layers(layer):
    """The layer and all layers below it, at any depth.

    `Model.layers` is public, but stops at the first level, and plain layers that hold layers have nothing like it.
    """
    return list(layer._flatten_layers())


def sublayers(layer):
    """The layers directly below a layer, in the order in which they were made.

    `Model.layers` is public; a plain layer that holds layers has nothing like it.
    """
    return list(layer._flatten_layers(include_self=False, recursive=False))


def variable_index(optimizer, variable):
    """The place of a variable among those that an optimizer was built with.

    An optimizer that keeps something per variable needs it in `update_step`; only the private method has it.
    """
    return optimizer._get_variable_index(variable)


@contextlib.contextmanager
def one_rate_a_step(optimizer):
    """Within it, a schedule of the learning rate is computed once, for a step that is being traced.

    Keras asks the schedule anew for the weight decay of every variable, with a condition of TensorFlow each time: in
    the step of a small network that is a third of the graph. Where the schedule is kept is private:
    `optimizer.learning_rate` is what it gives at the moment.

    Args:
        optimizer: of Keras; None, or one whose rate is a number, is left alone.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # under the scaling of half precision
    schedule = getattr(optimizer, "_learning_rate", None)
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        yield
        return
    rate = optimizer.learning_rate
    optimizer.learning_rate = lambda: rate
    try:
        yield
    finally:
        optimizer.learning_rate = schedule


def of_any_backend(config):
    """A serialized optimizer, or a structure that holds one, that can be loaded on each backend.

    On torch Keras writes the module of a class of its own, `keras.src.backend.torch.optimizers.torch_sgd`: where there
    is no torch such a file can't be loaded, and on another backend it gives an optimizer of torch.
    """
    if isinstance(config, dict):
        config = {name: of_any_backend(value) for name, value in config.items()}
        module, name = config.get("module"), config.get("class_name")
        if (
            isinstance(module, str)
            and module.startswith("keras.src.backend.")
            and hasattr(keras.optimizers, name or "")
        ):
            config.update(module="keras.optimizers", registered_name=None)
    elif isinstance(config, (list, tuple)):
        config = type(config)(of_any_backend(value) for value in config)
    return config


@contextlib.contextmanager
def saved_for_any_backend(model):
    """Within it, `model.save` writes an optimizer that can be loaded on each backend."""
    config = of_any_backend(model.get_compile_config())
    model.get_compile_config = lambda: config
    try:
        yield
    finally:
        del model.get_compile_config


def is_tf_dataset(source):
    """Whether an object is a `tf.data.Dataset`, told without importing TensorFlow.

    `isinstance` needs the import, which takes seconds; what the class is called is no promise.
    """
    return any(cls.__name__ == "DatasetV2" and cls.__module__.startswith("tensorflow.") for cls in type(source).__mro__)


def set_total_epochs(callback, epochs):
    """Tells all callbacks of a run how many epochs it has; to be called in `set_params` of the first of them.

    Keras hands one and the same dict to all callbacks; that it does so is not promised.
    """
    if callback.params:
        callback.params["epochs"] = epochs


def single_call(function, inputs):
    """`function(inputs)`, in which a layer may be called several times and all that it adds by `add_loss` counts.

    Keras' step on JAX enters `Model.call` past `Layer.__call__`, so that each layer below begins a call of its own:
    what its earlier call in the same step added is dropped, such as the activity regularization of the first view.
    """
    return _OneCall(function)(inputs)


class _OneCall(keras.layers.Layer):
    def __init__(self, function):
        super().__init__(autocast=False)
        self.function = function
        self.built = True

    def call(self, inputs):
        return self.function(inputs)


@contextlib.contextmanager
def restore_on_error(model):
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


def is_evaluation_of_fit(options):
    """Whether Keras' own `fit` calls `evaluate`, with these keyword arguments, on validation data that it has prepared.

    Nothing public tells it; Keras passes a private argument.
    """
    return bool(options.get("_use_cached_eval_dataset"))
