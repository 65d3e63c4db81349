"""On what `fit` will run: what can't be right there is refused before it begins, and what it is is said."""

from keras_ssl import backend


def check(model, creation_strategy):
    """Makes ready what `fit` and `evaluate` will run on, and refuses what can't be right there.

    Args:
        model: a compiled model.
        creation_strategy: what `backend.current_strategy()` was when the model was made.

    Raises:
        ValueError: with the way out.
    """
    here = backend.current_strategy()
    if here is not creation_strategy and not (backend.MODELS_CARRY_THEIR_STRATEGY and here is None):
        raise ValueError(
            f"fit: it is called under {_name(here)}, but the model was made under {_name(creation_strategy)}: "
            "variables live where they are made. Make the backbone and the model where you call fit: "
            f"{backend.HOW_TO_ENTER_A_STRATEGY}"
        )
    backend.check_devices(model)


def _name(strategy):
    return "no strategy" if strategy is None else type(strategy).__name__


def describe(model, batch_size):
    """The sentence with which `fit` begins where there is more than one replica; None on one.

    Args:
        batch_size: images of a global batch.
    """
    replicas, (processes, _) = backend.replicas_of(model), backend.processes_of(model)
    if replicas == 1:
        return None
    among = f" in {processes} processes" if processes > 1 else ""
    return (
        f"{_name(backend.strategy_of(model))}, {replicas} replicas{among}: a global batch of {batch_size} images, "
        f"{batch_size // replicas} per replica; embeddings are gathered, so that each image meets the whole batch."
    )
