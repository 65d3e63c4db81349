"""TensorFlow: strategies run the step once per replica, each on its own rows, and sum the gradients."""

import concurrent.futures
import contextlib
import logging
import threading

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_ssl.backend.tensorflow_fused import can_fuse_batch_norm, fused_batch_norm
from keras_ssl.backend.tensorflow_loop import in_two_passes
from keras_ssl.backend.tensorflow_views import loop_over_images, loops_over_images, take_inside
from keras_ssl.keras_compat import one_rate_a_step

__all__ = [
    "FUSED_BATCH_NORM",
    "HOW_TO_ENTER_A_STRATEGY",
    "LOCAL_STRATEGY",
    "MODELS_CARRY_THEIR_STRATEGY",
    "REPLICAS_SHARE_A_STEP",
    "all_gather_ints",
    "can_fuse_batch_norm",
    "can_fuse_step",
    "check_devices",
    "check_divides",
    "checkpointed_loop",
    "cluster",
    "current_strategy",
    "dataset_for_fit",
    "find_devices_early",
    "fused_batch_norm",
    "gather",
    "global_sum",
    "in_cross_replica_context",
    "local_accelerators",
    "local_function",
    "local_replicas",
    "loop_over_images",
    "loops_over_images",
    "multiworker_row_order",
    "processes_of",
    "read_values",
    "repair",
    "replicas",
    "replicas_of",
    "row_offset",
    "scope_of",
    "sequential_map",
    "silence_retracing",
    "split_cpu",
    "step_scope",
    "strategy_of",
    "take_inside",
]

FUSED_BATCH_NORM = True
REPLICAS_SHARE_A_STEP = False
LOCAL_STRATEGY = "mirrored"
MODELS_CARRY_THEIR_STRATEGY = True
HOW_TO_ENTER_A_STRATEGY = "`with strategy.scope():` around both."
_SPEC_BATCHES = 8  # of a stream, whose shapes are compared

# Whether this thread is inside of a micro-batch: a loop, where replicas that are threads of one process can't meet.
_alone = threading.local()


def _context():
    # None in the cross-replica context, where nothing of a step runs.
    return tf.distribute.get_replica_context()


def replicas():
    context = None if getattr(_alone, "inside", False) else _context()
    return context.num_replicas_in_sync if context else 1


def row_offset(rows):
    if replicas() == 1:
        return 0
    return ops.cast(_context().replica_id_in_sync_group, "int32") * rows


def gather(x):
    if replicas() == 1:
        return x
    # Between workers TensorFlow refuses a tensor that no operation has put on a device: labels as they were fed.
    rows = _context().all_gather(tf.identity(x), axis=0)
    # Its gradient takes no `IndexedSlices`, as which that of `ops.take` comes; that of reshape makes them dense.
    rows = tf.reshape(rows, tf.shape(rows))
    # The strategy forgets the shape, and what is compiled or goes by chunks wants it.
    rows.set_shape((None if x.shape[0] is None else x.shape[0] * replicas(), *x.shape[1:]))
    return rows


def global_sum(x):
    if replicas() == 1:
        return x
    return _context().all_reduce(tf.distribute.ReduceOp.SUM, x)


def in_cross_replica_context():
    # What Keras builds from there is a mean over the replicas' batches, in which integers have become float64.
    return tf.distribute.has_strategy() and tf.distribute.in_cross_replica_context()


@contextlib.contextmanager
def step_scope(batch, optimizer=None):
    # When a data set ends before the number of steps that Keras was told, TensorFlow still runs whatever of the last,
    # aborted step doesn't depend on the data: every seed and counter would move once more each epoch.
    alone = optimizer if replicas() == 1 else None  # replicas are threads that share it
    with tf.control_dependencies([x for x in tf.nest.flatten(batch) if tf.is_tensor(x)]), one_rate_a_step(alone):
        yield


def sequential_map(function, xs, dtype):
    # `keras.ops.map` would run ten entries side by side, with the memory of ten.
    return tf.map_fn(function, xs, parallel_iterations=1, fn_output_signature=dtype)


def check_divides(x, size, message):
    rows = tf.shape(x)[0]
    check = tf.debugging.Assert(tf.equal(rows % size, 0), [message, "rows:", rows])
    with tf.control_dependencies([check]):
        return tf.identity(x)


def read_values(variables):
    # ops.convert_to_tensor hands out the variable itself.
    return [tf.identity(variable.value) for variable in variables]


def can_fuse_step(model):
    # Replicas are threads that take turns on the same layers: one would take back what another still needs.
    return replicas() == 1


# Around `fit`.


def replicas_of(model):
    return model.distribute_strategy.num_replicas_in_sync


def processes_of(model):
    if not _is_multi_worker(model.distribute_strategy):
        return 1, 0
    resolver = model.distribute_strategy.cluster_resolver
    # A chief, where the cluster has one, is the first worker.
    chief = len(resolver.cluster_spec().as_dict().get("chief", ()))
    workers = chief + len(resolver.cluster_spec().as_dict().get("worker", ()))
    return workers, resolver.task_id + (chief if resolver.task_type == "worker" else 0)


def multiworker_row_order(model, batch_size):
    """See `one_device`.

    TensorFlow cuts a batch in a piece per replica and deals them to the workers in turn, so that with several devices a
    worker the pieces of the first worker are not the first rows: an image would have another global row, and other
    views, than on one device.
    """
    workers, _ = processes_of(model)
    replicas = replicas_of(model)
    if workers == 1 or replicas == workers:
        return None
    pieces = np.arange(batch_size).reshape(workers, replicas // workers, batch_size // replicas)
    return pieces.transpose(1, 0, 2).reshape(-1)


def scope_of(model):
    return model.distribute_strategy.scope()


def current_strategy():
    return tf.distribute.get_strategy() if tf.distribute.has_strategy() else None


def strategy_of(model):
    return model.distribute_strategy


def check_devices(model):
    _check_options(model)
    _check_variables(model)
    repair(model.distribute_strategy)


def _check_options(model):
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1 or isinstance(strategy, tf.distribute.TPUStrategy):
        return
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # under the scaling of half precision
    accumulated = getattr(optimizer, "gradient_accumulation_steps", None) or 1
    for option, value, broken, instead in (
        ("steps_per_execution", model.steps_per_execution, model.steps_per_execution > 1, "leave it at 1"),
        ("jit_compile", model.jit_compile, model.jit_compile is True, 'leave it at "auto"'),
        (
            "gradient_accumulation_steps",
            accumulated,
            accumulated > 1,
            "leave it out, and use more replicas or smaller steps",
        ),
    ):
        if broken:
            raise ValueError(
                f"compile: {option}={value!r} does not work in Keras under {type(strategy).__name__} with "
                f"{strategy.num_replicas_in_sync} replicas (its step fails when it is traced): {instead}. On JAX with "
                "keras.distribution.DataParallel it works."
            )


def _check_variables(model):
    """Variables made outside of the scope would be updated on one replica, or stop the run with a riddle."""
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        return
    for variable in model.variables:
        if not strategy.extended.variable_created_in_scope(variable.value):
            raise ValueError(
                f"fit: the variable {variable.path} of shape {tuple(variable.shape)} was made outside of "
                f"{type(strategy).__name__}, under which the model was made. Make the backbone, or load it, in the "
                "same scope as the model."
            )


def all_gather_ints(model, numbers):
    processes, _ = processes_of(model)
    if processes == 1:
        return None
    numbers = np.asarray([numbers], "int32")
    strategy = model.distribute_strategy
    gathered = strategy.gather(
        strategy.experimental_distribute_values_from_function(lambda context: tf.constant(numbers)), axis=0
    )
    return gathered.numpy()[:: strategy.num_replicas_in_sync // processes]


def dataset_for_fit(batches, order=None):
    """See `one_device`. Keras would make a data set itself, but with an open batch size; XLA and chunked losses want it
    closed."""
    if order is not None and (batches.steps is None or batches.workers > 1):
        raise ValueError(
            "With several workers of several devices a PyDataset must have a length and workers=1: its rows are "
            "brought into the order in which TensorFlow deals them out."
        )
    if batches.steps is None or batches.workers > 1:
        return batches
    # The batches of an array are all of one shape; a user's own may differ from each other in the size of their images.
    varied = hasattr(batches, "source") and not batches.once
    seen = range(1, min(batches.num_batches, _SPEC_BATCHES) if varied else 1)
    spec = keras.tree.map_structure(_open_spec, batches.example, *(batches[index] for index in seen))

    def read():
        for index in range(batches.num_batches):
            try:
                batch = batches[index]
            except concurrent.futures.CancelledError:
                return  # a thread of TensorFlow asks for it, and `fit` was cut off meanwhile
            keras.tree.map_structure(lambda part, one, index=index: _check_shape(part, one, index), batch, spec)
            yield batch if order is None else keras.tree.map_structure(lambda array: array[order], batch)

    dataset = tf.data.Dataset.from_generator(read, output_signature=spec)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches.num_batches)).prefetch(2)
    options = tf.data.Options()
    # Several workers: each reads the whole order and keeps its own rows of every batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def _open_spec(*arrays):
    """What TensorFlow is told of arrays of several batches: an axis in which they differ is open."""
    axes = zip(*(array.shape for array in arrays))
    return tf.TensorSpec([lengths[0] if len(set(lengths)) == 1 else None for lengths in axes], arrays[0].dtype)


def _check_shape(array, spec, index):
    if not spec.shape.is_compatible_with(array.shape):
        raise ValueError(
            f"Batch {index} is of shape {array.shape}, and the first {_SPEC_BATCHES} were of {tuple(spec.shape)}: "
            "TensorFlow must know from them which sizes change. Put a batch of another size among them, or give a "
            "tf.data.Dataset with None for that size."
        )


def _is_multi_worker(strategy):
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and bool(
        strategy.cluster_resolver and strategy.cluster_resolver.cluster_spec().as_dict()
    )


def repair(strategy):
    """Makes a strategy of several workers usable by Keras' `fit` and `evaluate`, of any Keras model.

    Keras 3.15 takes the mean over replicas of a whole structure, to build a model, where only tensors can be averaged,
    and asks for the mean along an axis of logs that have none. The cure is on the strategy's instance; it is put there
    once, by `fit`, and does nothing on strategies of one process.

    Returns:
        Whether the strategy was changed now.
    """
    if not _is_multi_worker(strategy) or "reduce" in vars(strategy):
        return False
    plain = strategy.reduce

    def reduce(op, value, axis):
        if isinstance(value, (tuple, list, dict)):  # a batch to build from: that of one replica does
            return tf.nest.map_structure(lambda part: strategy.experimental_local_results(part)[0], value)
        if axis is not None and all(part.shape.rank == 0 for part in strategy.experimental_local_results(value)):
            axis = None  # logs are scalars
        return plain(op, value, axis=axis)

    strategy.reduce = reduce
    return True


# Beside `fit`.


def local_function(network):
    run = tf.function(lambda images: network(images), reduce_retracing=True)
    return lambda images: run(tf.convert_to_tensor(images))


def silence_retracing():
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def find_devices_early():
    # JAX must not look before its CPU is divided; TensorFlow may.
    tf.config.list_physical_devices("GPU")


def split_cpu(count):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)


def local_accelerators():
    return len(tf.config.list_physical_devices("GPU"))


# A second strategy object on the same devices mixes up its collective operations with those of the first (TF 2.21), so
# each group of devices has one; and other groups number their operations from elsewhere, as TensorFlow's tests do it.
_STRATEGIES = {}


def local_replicas(count):
    kinds = [kind for kind in ("GPU", "CPU") if len(tf.config.list_logical_devices(kind)) >= count]
    if not kinds:
        return None
    devices = tuple(device.name for device in tf.config.list_logical_devices(kinds[0])[:count])

    @contextlib.contextmanager
    def scope():
        if devices not in _STRATEGIES:
            # Strategies of different sizes number their collective operations from the same start, and the second fails
            # ("group has size 2") unless it has a start of its own; TensorFlow's own tests set it in this way.
            own = {"_collective_key_base": 10_000 * (1 + len(_STRATEGIES))}
            kind = type("MirroredStrategy", (tf.distribute.MirroredStrategy,), own)
            _STRATEGIES[devices] = kind(devices)
        with _STRATEGIES[devices].scope():
            yield "MirroredStrategy"

    return scope()


@contextlib.contextmanager
def cluster(process, processes):
    with tf.distribute.MultiWorkerMirroredStrategy().scope():
        yield


# Micro-batches: the batch spread over time instead of over devices.


def checkpointed_loop(function, weights, carried, count):
    """See `one_device`. Loops keep one part's memory; `keras.remat` in a Python loop was measured to keep three."""
    return in_two_passes(_by_oneself(function), weights, carried, count)


def _by_oneself(function):
    def run(*arguments):
        _alone.inside = True
        try:
            return function(*arguments)
        finally:
            _alone.inside = False

    return run
