"""On what `fit` will run: what can't be right there is refused before it begins, and what it is is said."""

import numpy as np
from keras import ops

from keras_ssl import backend, fused
from keras_ssl.augment.layer import apply_layers
from keras_ssl.augment.rng import RowRNG
from keras_ssl.data.value_range import has_ends

_LOOKED_AT = 8  # images of the first batch


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


def check_compile(model, optimizer, micro_batch_size, given):
    """Refuses arguments of `compile` that can't be right.

    Args:
        model: the method.
        optimizer: of Keras.
        micro_batch_size: as given.
        given: a dict of name to value of the arguments that Keras' own `compile` takes and a method brings itself.

    Raises:
        ValueError: with the way out.
    """
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"compile: `{name}` is {value!r}, but {type(model).__name__} brings its loss and metrics itself. "
                f"Leave `{name}` out; for downstream accuracy pass keras_ssl.callbacks.KNNProbe to `fit`."
            )
    if model.batch_dependent and accumulated_steps(optimizer) > 1:
        raise ValueError(
            f"compile: the optimizer has gradient_accumulation_steps={accumulated_steps(optimizer)}, but "
            f"{type(model).__name__} compares the rows of a batch, and the mean of small batches is not the large "
            "batch: it would see fewer negatives, or coarser statistics. Leave accumulation out."
        )
    if micro_batch_size is not None and not (isinstance(micro_batch_size, int) and micro_batch_size > 0):
        raise ValueError(f"compile: `micro_batch_size` must be a positive integer; it is {micro_batch_size!r}.")


def accumulated_steps(optimizer):
    """How many batches an optimizer takes together for one step of its own: 1 without accumulation."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # under the scaling of half precision
    return getattr(optimizer, "gradient_accumulation_steps", None) or 1


def check_views(model, batch):
    """Raises `ValueError` where a layer of the views leaves the value range, with the layer's name.

    A few images go through each list of layers one by one. What shrinks them to a twentieth of their spread, or moves
    them out of the range by half of it, was made for another range: Keras' `Rescaling`, a normalization. Noise that
    passes the ends a little is let through.

    Args:
        model: a built model.
        batch: a batch in the library's form, arrays.
    """
    if model.views is None or "image" not in batch or not has_ends(model.value_range):
        return
    low, high = model.value_range
    images = np.asarray(batch["image"][:_LOOKED_AT], "float32")
    rng = RowRNG(model.seed, ops.arange(len(images), dtype="int32")).fold_in("preflight")
    for number, branch in enumerate(model.views.branches):
        if all(_keeps_range(layer) for layer in branch):
            continue
        view, spread = images, float(np.ptp(images))
        for place, layer in enumerate(branch):
            view = apply_layers([layer], view, rng.fold_in("view", number, place))
            seen = ops.convert_to_numpy(view)
            smallest, largest = float(seen.min()), float(seen.max())
            outside = smallest < low - 0.5 * (high - low) or largest > high + 0.5 * (high - low)
            if not np.isfinite(seen).all() or outside or largest - smallest < 0.05 * spread:
                raise ValueError(
                    f"The view layer {layer.name} ({type(layer).__name__}) makes images in [{smallest:g}, {largest:g}] "
                    f"of images in [{images.min():g}, {images.max():g}]: views must keep the model's value_range="
                    f"({low:g}, {high:g}), for the backbone sees images in it after training too. Leave the layer out, "
                    "or put it into the backbone."
                )


def _keeps_range(layer):
    """Whether a layer is one of this package, which are tested to keep the range of the images."""
    inner = getattr(layer, "layers", ())
    return type(layer).__module__.startswith("keras_ssl.") and all(_keeps_range(one) for one in inner)


def _name(strategy):
    return "no strategy" if strategy is None else type(strategy).__name__


def sentences(model, feed, validation=None):
    """What a user should know before the first step: a dict from what it is about to a sentence, in their order.

    Args:
        model: a built model.
        feed: `keras_ssl.data.adapter.Feed`, what it will train on.
        validation: the same of the validation data; None where there is none.
    """
    found = {"fused": fused.describe(model)}
    replicas = describe_replicas(model, feed.global_batch_size)
    found[replicas] = replicas
    found["dropped"] = describe_dropped(feed)
    if validation is not None:
        found["dropped of validation data"] = describe_dropped(validation, "`validation_data`: ")
    return {about: sentence for about, sentence in found.items() if sentence}


def describe_dropped(feed, where=""):
    """What is said where images are left over that fill no batch; None where none are.

    Args:
        where: they are: the beginning of the sentence.
    """
    if not feed.rows_left_over:
        return None
    return (
        f"{where}{feed.rows} images make {feed.rows // feed.global_batch_size} batches of {feed.global_batch_size}; "
        f"the last partial batch ({feed.rows_left_over} images) is dropped"
        f"{', different images each epoch' if feed.shuffled else ''}."
    )


def describe_replicas(model, batch_size):
    """What is said where there is more than one replica; None on one.

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
