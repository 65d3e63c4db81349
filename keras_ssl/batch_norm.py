"""Which rows batch normalization takes its statistics from, and how they are computed, under any Keras model.

Under TensorFlow's strategies, and in several processes of torch, each replica would normalize with the statistics of
its own rows, and the result would depend on the number of replicas. Keras' `synchronized=True` cures it on TensorFlow,
but is written into the saved file, which then loads there alone. Here the layer instance's public `call` is replaced
instead: the layer's type, variables and file stay Keras' own, and `undo`, or `del layer.call`, undoes it. Inference and
frozen layers run Keras' own code.

A replaced `call` belongs to the instance: what is made from a model's config or file (`clone_model`, `from_config`,
`copy.deepcopy`, `load_model`) is plain again. As with `trainable`, a step that is compiled already doesn't notice a
change: call `compile` after it.
"""

import dataclasses
import math
import operator
import threading
import types
import warnings

import keras
from keras import ops

from keras_ssl import backend, distribute
from keras_ssl.keras_compat import flatten_layers

__all__ = ["undo", "use_fused", "use_ghost_batches", "use_global_statistics"]

_MOST_GROUPS = 16  # that a step fuses by itself

# Per thread, for TensorFlow's strategies run each replica's step on a thread of its own.
_pass = threading.local()


class SideBySide:
    """Within it the rows that layers get are so many neighboring views of each image; elsewhere one."""

    def __init__(self, views):
        self.views = views

    def __enter__(self):
        self._outer = getattr(_pass, "views", 1)
        _pass.views = self.views

    def __exit__(self, *exception):
        _pass.views = self._outer


def use_global_statistics(model):
    """Makes every `BatchNormalization` below `model` normalize by the statistics of the global batch.

    On one replica, and at inference, the layers do what they did. On JAX statistics are global by themselves: nothing
    is changed there. A layer with ghost batches keeps them: they don't depend on the number of replicas either. Layers
    with `renorm=True` are left as they are.

    Returns:
        The layers that were changed.
    """
    return _change(model, everywhere=True) if not backend.REPLICAS_SHARE_A_STEP else []


def use_ghost_batches(model, size=None, images=None):
    """Makes every `BatchNormalization` below `model` normalize groups of rows, each by its own statistics.

    A step's moving statistics move once, by the mean over all groups' means and variances, on all replicas. So the
    result does not depend on the number of replicas, and a large batch is normalized as many small ones would be. On
    any backend. Ghost batches go before global statistics, whichever was asked for first.

    Args:
        model: a Keras model or layer.
        size: rows of a group, 2 or more. Groups are consecutive rows of what the layer gets. A group never straddles
            replicas: in the step, a number of rows on a replica that `size` does not divide raises `ValueError` (where
            it is not known before the step runs, `tf.errors.InvalidArgumentError`).
        images: instead of `size`: images of a group, 2 or more, with all of their views that run in one pass. Of 2 and
            6 views of two sizes, groups are then of 2 · images and of 6 · images rows; a micro-batch normalizes the
            same rows.

    Returns:
        The layers that were changed.

    Raises:
        ValueError: where the number is below 2, both or none are given, or a layer has `renorm=True`.

    Reference: Hoffer et al., "Train longer, generalize better", 2017, algorithm 1, whose moving statistics take the
    groups of a step one after the other, where ours take their mean.
    """
    if (size is None) == (images is None):
        raise ValueError("use_ghost_batches: give `size`, rows of a group, or `images`, images of a group.")
    name, what, size = ("size", "rows", size) if images is None else ("images", "images", images)
    try:
        size = operator.index(size)
    except TypeError:
        raise TypeError(f"use_ghost_batches: `{name}` is a number of {what}; it is {size!r}.") from None
    if size < 2:
        raise ValueError(f"use_ghost_batches: `{name}` must be 2 or more, for one row has no spread; it is {size}.")
    renormed = [layer.name for layer in batch_norm_layers(model) if layer.renorm]
    if renormed:
        raise ValueError(
            f"use_ghost_batches: {_names(renormed)} of {model.name} have renorm=True, whose corrections are not "
            "defined for groups: make the layers without it."
        )
    return _change(model, group=size, of_images=images is not None)


def use_fused(model):
    """Makes every `BatchNormalization` below `model` use the framework's fused operation in training: it is quicker.

    A method's `fit` does so by itself on one replica, and ghost batches up to 16 groups (`compile(fused_layers=…)`).
    This is for other Keras models, several replicas, and more groups.

    The maths stay Keras' own. Layers that the operation can't serve compute as before: inputs that are not of rank 4,
    or not float16, bfloat16 or float32; an axis that is not the last; a mask; `renorm` or `synchronized`; moving
    statistics in half precision; an epsilon below 1e-5. With ghost batches it runs group by group. With global
    statistics it runs where there is one replica, for on several the statistics have to meet before anything is
    normalized. On JAX there is nothing to do.

    Returns:
        The layers that were changed.
    """
    return _change(model, fused=True) if backend.FUSED_BATCH_NORM else []


def fused_calls(layers):
    """Those of `layers` that a step may fuse, each with the function of its `call` in that step.

    Ghost batches of a few groups are as micro-batches are, fused, so that both round alike. With many groups a layer
    would be as many operations: it stays as it is.
    """
    if not backend.FUSED_BATCH_NORM:
        return []
    found = []
    for layer in layers:
        statistics = _statistics(layer) or _Statistics()
        if _is_plain(layer) and not layer.renorm and not statistics.fused:
            found.append((layer, dataclasses.replace(statistics, fused=True, most_groups=_MOST_GROUPS)))
    return found


def copy_statistics_mode(copy, original):
    """Gives each layer below `copy` the statistics of its twin below `original`, a model of the same layers.

    What is made from a model's config has layers that are plain again.
    """
    for layer, twin in zip(flatten_layers(copy), flatten_layers(original), strict=True):
        statistics = _statistics(twin)
        if statistics is not None:
            layer.call = types.MethodType(statistics, layer)
        elif _statistics(layer) is not None:
            del layer.call


def undo(model):
    """Gives every layer below `model` its own `call` back.

    Returns:
        The layers that were changed.
    """
    layers = [layer for layer in batch_norm_layers(model) if _statistics(layer)]
    for layer in layers:
        del layer.call
    return layers


def per_replica_layers(model):
    """The layers below `model` that would normalize by each replica's own rows in training, on TensorFlow and torch.

    They are those `BatchNormalization` (or of a class derived from it) that are trainable and have neither global
    statistics, nor ghost batches, nor `synchronized=True`. On JAX there are none.
    """
    if backend.REPLICAS_SHARE_A_STEP:
        return []
    layers = [layer for layer in flatten_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    return [layer for layer in layers if layer.trainable and not layer.synchronized and not _settled(layer)]


def share_statistics(model):
    """Gives the moving statistics of `per_replica_layers(model)`, within a step, the mean over all processes.

    TensorFlow does so where they are assigned. In processes of torch they would part, and each would save its own.
    """
    if not backend.STATISTICS_PER_PROCESS or distribute.replicas() == 1:
        return
    for layer in per_replica_layers(model):
        for weight in layer.weights:
            if weight is not layer.gamma and weight is not layer.beta:
                weight.assign(backend.mean_over_processes(ops.convert_to_tensor(weight)))


def layers_without_groups(model):
    """The trainable `BatchNormalization` layers below `model` that have no ghost batches."""
    layers = [layer for layer in flatten_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    return [layer for layer in layers if layer.trainable and not getattr(_statistics(layer), "group", None)]


def warn_of_per_replica_layers(model):
    """Warns of `per_replica_layers(model)`, and names the way out."""
    layers = per_replica_layers(model)
    ours = set(map(id, batch_norm_layers(model)))
    curable = [layer.name for layer in layers if id(layer) in ours and not layer.renorm]
    others = [layer.name for layer in layers if id(layer) not in ours or layer.renorm]
    if curable:
        warnings.warn(
            f"Batch normalization in {_names(curable)} will use the statistics of each replica's own rows, so that "
            "the result depends on the number of replicas. Before compile, call "
            "keras_ssl.batch_norm.use_global_statistics(backbone), or use_ghost_batches(backbone, size).",
            stacklevel=3,
        )
    if others:
        warnings.warn(
            f"Batch normalization in {_names(others)} will use the statistics of each replica's own rows, so that the "
            "result depends on the number of replicas. These layers are of a class of their own, or have renorm=True: "
            "make them as a plain keras.layers.BatchNormalization, or on TensorFlow with synchronized=True.",
            stacklevel=3,
        )


def batch_norm_layers(model):
    """All layers below `model`, at any depth, that are exactly `keras.layers.BatchNormalization`.

    Layers whose `call` somebody else has replaced are left out: it is theirs.
    """
    return [layer for layer in flatten_layers(model) if _is_plain(layer)]


def _is_plain(layer):
    exactly = type(layer) is keras.layers.BatchNormalization
    return exactly and ("call" not in vars(layer) or _statistics(layer) is not None)


def _change(model, **changes):
    layers = [layer for layer in batch_norm_layers(model) if not layer.renorm]
    for layer in layers:
        statistics = dataclasses.replace(_statistics(layer) or _Statistics(), **changes)
        layer.call = types.MethodType(statistics, layer)
    return layers


def _statistics(layer):
    """The `_Statistics` of a changed layer, or None."""
    function = getattr(vars(layer).get("call"), "__func__", None)
    return function if isinstance(function, _Statistics) else None


def _settled(layer):
    statistics = _statistics(layer)
    return statistics is not None and bool(statistics.everywhere or statistics.group)


def _names(names):
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more layers ({len(names)} in all)"


@dataclasses.dataclass(frozen=True)
class _Statistics:
    """Which rows a layer's statistics are of, and how they are computed: the function of its replaced `call`."""

    everywhere: bool = False
    group: int | None = None
    of_images: bool = False  # whether `group` counts images, with their views of a pass, and not rows
    fused: bool = False
    most_groups: float = math.inf  # that are fused, each as an operation

    def __call__(self, layer, inputs, training=None, mask=None):
        # Where the axis is the batch's, each row has statistics of its own, and other rows don't matter.
        if training and layer.trainable and layer.axis % len(inputs.shape) != 0:
            fused = self.fused and mask is None and backend.can_fuse_batch_norm(layer, inputs)
            if self.group:
                _check_mask(layer, mask, "ghost batches")
                size = self.group * (getattr(_pass, "views", 1) if self.of_images else 1)
                return _by_group(layer, inputs, size, self.most_groups if fused else 0)
            if self.everywhere and not layer.synchronized and distribute.replicas() > 1:
                _check_mask(layer, mask, "global statistics")
                return _by_everybody(layer, inputs)
            if fused:
                outputs, mean, variance = backend.fused_batch_norm(layer, inputs)
                _move(layer, mean, variance)
                return outputs
        return type(layer).call(layer, inputs, training=training, mask=mask)


def _check_mask(layer, mask, what):
    if mask is not None:
        raise ValueError(
            f"{layer.name} got a mask, and {what} are not defined for it: call keras_ssl.batch_norm.undo on the "
            "layer, or take the mask away before it."
        )


def _by_everybody(layer, inputs):
    x = _wide(inputs)
    outputs, mean, variance = _normalized(layer, ops.expand_dims(x, 0), distribute.global_sum)
    _move(layer, mean[0], variance[0])
    return ops.cast(outputs[0], layer.compute_dtype)


def _by_group(layer, inputs, size, most_fused):
    inputs = _whole_groups(layer, inputs, size)
    rows = inputs.shape[0]
    if rows is not None and rows // size <= most_fused:
        parts = [backend.fused_batch_norm(layer, part) for part in ops.split(inputs, rows // size, axis=0)]
        outputs, mean, variance = (list(part) for part in zip(*parts))
        outputs, mean, variance = ops.concatenate(outputs, axis=0), ops.stack(mean), ops.stack(variance)
    else:
        x = _wide(inputs)
        shape = ops.shape(x)
        grouped, mean, variance = _normalized(layer, ops.reshape(x, (-1, size, *shape[1:])), lambda sums: sums)
        outputs = ops.reshape(grouped, shape)
    groups = ops.cast(ops.shape(mean)[0], mean.dtype)
    sums = [ops.sum(ops.stop_gradient(values), axis=0) for values in (mean, variance)]
    mean, variance, groups = distribute.global_sum([*sums, groups])
    _move(layer, mean / groups, variance / groups)
    return ops.cast(outputs, layer.compute_dtype)


def _whole_groups(layer, inputs, size):
    """The inputs, once it is sure that they are whole groups."""
    rows = inputs.shape[0]
    sentence = (
        "{rows} rows come to {name} on a replica, and ghost batches of size={size} don't divide them: choose another "
        "batch size, or another `size` (or `images`, for views of several sizes) in "
        "keras_ssl.batch_norm.use_ghost_batches."
    )
    if rows is not None:
        if rows % size:
            raise ValueError(sentence.format(rows=rows, name=layer.name, size=size))
        return inputs
    return backend.check_divides(inputs, size, sentence.format(rows="The", name=layer.name, size=size))


def _wide(inputs):
    return ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))


def _normalized(layer, x, total):
    """Normalizes groups.

    Args:
        x: `(groups, rows, …)`, float32 or wider.
        total: sums a list of sums over whoever shares a group.

    Returns:
        The outputs like `x`, and the groups' means and variances, each `(groups, channels)`.
    """
    axis = layer.axis % (len(x.shape) - 1) + 1
    others = [i for i in range(1, len(x.shape)) if i != axis]
    count = ops.cast(math.prod(ops.shape(x)[i] for i in others), x.dtype)
    sums, count = total([ops.sum(x, axis=others, keepdims=True), count])
    mean = sums / count
    # In two passes, as one device does: the mean of squares less the square of the mean would cancel.
    centered = x - mean
    (squares,) = total([ops.sum(ops.square(centered), axis=others, keepdims=True)])
    variance = squares / count
    outputs = centered * ops.rsqrt(variance + layer.epsilon)
    channels = [-1 if i == axis else 1 for i in range(len(x.shape))]
    if layer.gamma is not None:
        outputs = outputs * ops.reshape(ops.cast(layer.gamma, x.dtype), channels)
    if layer.beta is not None:
        outputs = outputs + ops.reshape(ops.cast(layer.beta, x.dtype), channels)
    return outputs, ops.squeeze(mean, axis=others), ops.squeeze(variance, axis=others)


def _move(layer, mean, variance):
    """Moves the moving statistics, by one step, towards those of a step; each `(channels,)`."""
    for moving, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        before = ops.cast(moving, value.dtype)
        moving.assign(before * layer.momentum + ops.stop_gradient(value) * (1.0 - layer.momentum))
