"""Replicas: how many there are, which rows are mine, and everybody's rows together.

TensorFlow's strategies run the step once a replica, each on its own rows, and sum the gradients. JAX runs one program
over the global batch, so there everything is global already: one replica that holds all rows. torch has one device.

Below the functions of a step stands what `fit` asks before it begins: on what it will run, and what can't work there.
"""

import contextlib
import logging
import os
import threading
import zlib

import keras
import numpy as np
from keras import ops

tf = jax = None
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
elif keras.backend.backend() == "jax":
    import jax


# Whether this thread is inside of a micro-batch: a loop, where replicas that are threads of one process can't meet.
_alone = threading.local()


def _context():
    # None in the cross-replica context, where nothing of a step runs.
    return tf.distribute.get_replica_context() if tf else None


def replicas():
    """The number of replicas that run this step side by side, as a Python integer; 1 inside of a micro-batch."""
    context = None if getattr(_alone, "inside", False) else _context()
    return context.num_replicas_in_sync if context else 1


def steps_are_stateless():
    """Whether Keras runs a step as a function of values and not of variables: on JAX."""
    return jax is not None


def only_builds():
    """Whether this runs under a strategy but on no replica: so Keras builds a model, and no step is taken.

    What it builds from there is a mean over the replicas' batches, in which integers have become float64.
    """
    return tf is not None and tf.distribute.has_strategy() and tf.distribute.in_cross_replica_context()


def first_row(rows):
    """The row of the global batch at which this replica's `rows` rows begin: 0 where one replica holds all."""
    if replicas() == 1:
        return 0
    return ops.cast(_context().replica_id_in_sync_group, "int32") * rows


def gather(x):
    """The rows of all replicas, in the order of the global batch; gradients flow back to the replica they came from.

    Args:
        x: `(n, …)`, this replica's rows.

    Returns:
        `(n · replicas, …)`, the same on every replica.
    """
    if replicas() == 1:
        return x
    rows = _context().all_gather(x, axis=0)
    # The strategy forgets the shape, and what is compiled or goes by chunks wants it.
    rows.set_shape((None if x.shape[0] is None else x.shape[0] * replicas(), *x.shape[1:]))
    return rows


def global_sum(x):
    """The sum over replicas, with its gradient, of a tensor or of each in a list."""
    if replicas() == 1:
        return x
    return _context().all_reduce(tf.distribute.ReduceOp.SUM, x)


def replicas_of(model):
    """The number of replicas among which `model.fit` will divide a batch, asked from outside of a step."""
    if tf:
        return model.distribute_strategy.num_replicas_in_sync
    shared = keras.distribution.distribution() if jax else None
    return getattr(shared, "num_model_replicas", 1) if shared else 1


def processes_of(model):
    """`(number, mine)`: how many processes train this model together, and which of them this one is."""
    if jax:
        return jax.process_count(), jax.process_index()
    if tf and _is_multi_worker(model.distribute_strategy):
        resolver = model.distribute_strategy.cluster_resolver
        # A chief, where the cluster has one, is the first worker.
        chief = len(resolver.cluster_spec().as_dict().get("chief", ()))
        workers = chief + len(resolver.cluster_spec().as_dict().get("worker", ()))
        return workers, resolver.task_id + (chief if resolver.task_type == "worker" else 0)
    return 1, 0


def share_of(model):
    """`(number, mine)`: into how many shares we cut each batch of an array, and which is this process's.

    TensorFlow deals the global batch to the workers by itself; Keras on JAX takes what each process gives as its share.
    """
    return processes_of(model) if jax else (1, 0)


def dealing_order(model, batch_size):
    """The order in which TensorFlow must be given the rows of a batch, so that its dealing restores the global order.

    It cuts a batch in a piece a replica and deals them to the workers in turn, so that with several devices a worker
    the pieces of the first worker are not the first rows: an image would have another global row, and other views, than
    on one device.

    Returns:
        Row numbers `(batch_size,)`, or None where rows may stay as they are.
    """
    workers, _ = processes_of(model) if tf else (1, 0)
    replicas = replicas_of(model)
    if workers == 1 or replicas == workers:
        return None
    pieces = np.arange(batch_size).reshape(workers, replicas // workers, batch_size // replicas)
    return pieces.transpose(1, 0, 2).reshape(-1)


def scope_of(model):
    """The scope in which variables of `model` are created."""
    return model.distribute_strategy.scope() if tf else contextlib.nullcontext()


def current():
    """The TensorFlow strategy or the JAX distribution in whose scope this line runs; None for one device."""
    if tf:
        return tf.distribute.get_strategy() if tf.distribute.has_strategy() else None
    return keras.distribution.distribution() if jax else None


def prepare(model, made_under):
    """Makes ready what `fit` and `evaluate` will run on, and refuses what can't be right there.

    Args:
        model: a compiled model.
        made_under: what `current()` was when the model was made.

    Raises:
        ValueError: with the way out.
    """
    _refuse_other_scope(made_under)
    if tf:
        _refuse_on_strategies(model)
        _refuse_foreign_variables(model)
        repair(model.distribute_strategy)
    elif jax:
        _refuse_lone_processes()
        _refuse_foreign_variables(model)
    elif _torch_group():
        raise ValueError(
            "fit: a torch.distributed process group is initialised, and keras_ssl trains on one device with torch: "
            "each process would train a model of its own on its own negatives. For several devices use "
            "KERAS_BACKEND=tensorflow or jax (docs/distributed.md); for one, don't call init_process_group."
        )


def _refuse_other_scope(made_under):
    here = current()
    # TensorFlow's models take their strategy along, so that fit may be called outside of its scope.
    if here is not made_under and not (tf and here is None):
        raise ValueError(
            f"fit: it is called under {_name(here)}, but the model was made under {_name(made_under)}: variables live "
            "where they are made. Make the backbone and the model where you call fit: "
            + (
                "`with strategy.scope():` around both."
                if tf
                else "call keras.distribution.set_distribution(…) before the first of them, and leave it set."
            )
        )


def _name(strategy):
    return "no strategy" if strategy is None else type(strategy).__name__


def _refuse_on_strategies(model):
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1 or isinstance(strategy, tf.distribute.TPUStrategy):
        return
    accumulated = getattr(model.optimizer, "gradient_accumulation_steps", None) or 1
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


def _refuse_foreign_variables(model):
    """Variables made outside of the scope would be updated on one replica, or stop the run with a riddle."""
    strategy = model.distribute_strategy if tf else keras.distribution.distribution()
    if strategy is None or replicas_of(model) == 1:
        return
    for variable in model.variables:
        if tf:
            at_home = strategy.extended.variable_created_in_scope(variable.value)
        else:
            at_home = len(variable.value.sharding.device_set) == strategy.device_mesh.devices.size
        if not at_home:
            raise ValueError(
                f"fit: the variable {variable.path} of shape {tuple(variable.shape)} was made outside of "
                f"{type(strategy).__name__}, under which the model was made. Make the backbone, or load it, in the "
                "same scope as the model."
            )


def _refuse_lone_processes():
    if jax.process_count() == 1:
        return
    shared = keras.distribution.distribution()
    if not isinstance(shared, keras.distribution.DataParallel):
        raise ValueError(
            f"fit: there are {jax.process_count()} processes, and the distribution is {_name(shared)}: each would "
            "train a model of its own. Before the first layer is made, call keras.distribution.set_distribution("
            "keras.distribution.DataParallel(auto_shard_dataset=False))."
        )
    if shared.auto_shard_dataset:
        raise ValueError(
            "fit: with several processes write keras.distribution.DataParallel(auto_shard_dataset=False). keras_ssl "
            "cuts arrays into shares itself, and Keras' own cutting knows tf.data alone; give of a stream this "
            "process's share, such as dataset.shard(jax.process_count(), jax.process_index())."
        )


def _torch_group():
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch.distributed.is_available() and torch.distributed.is_initialized()


def refuse_size(model, rows, batch_size, what):
    """Refuses a global batch that can't be cut into equal parts, one a replica.

    Args:
        rows: images there are, or None for a stream.
        batch_size: images of a global batch.
        what: the argument that they were given as.
    """
    replicas = replicas_of(model)
    if rows is not None and rows < replicas:
        raise ValueError(f"`{what}` holds {rows} images for {replicas} replicas: each needs one or more a batch.")
    if batch_size % replicas:
        below = batch_size // replicas * replicas
        near = " or ".join(str(size) for size in (below, below + replicas) if size)
        raise ValueError(
            f"A global batch of {batch_size} images (`{what}`) does not divide among {replicas} replicas: make it "
            f"{near}. `batch_size` counts the images of all replicas together."
        )


def description(model, batch_size):
    """The sentence with which `fit` begins where there is more than one replica; None on one.

    Args:
        batch_size: images of a global batch.
    """
    replicas, (processes, _) = replicas_of(model), processes_of(model)
    if replicas == 1:
        return None
    strategy = model.distribute_strategy if tf else keras.distribution.distribution()
    among = f" in {processes} processes" if processes > 1 else ""
    return (
        f"{type(strategy).__name__}, {replicas} replicas{among}: a global batch of {batch_size} images, "
        f"{batch_size // replicas} a replica; embeddings are gathered, so that each image meets the whole batch."
    )


def refuse_differing(model, images, about, what):
    """Refuses arrays that are not the same in all processes that train together.

    Args:
        images: a batch, or the whole set, in standard form.
        about: numbers that must be equal as well, by name.
        what: the argument that they were given as.
    """
    told = _told_by_all(model, [_checksum(images), *about.values()])
    if told is None:
        return
    for place, name in enumerate((None, *about)):
        if len(set(told[:, place].tolist())) > 1:
            raise ValueError(
                f"`{what}` is not the same in all {len(told)} processes: "
                + (f"{name} is {told[:, place].tolist()}. " if name else "the images differ. ")
                + "Each process is given the whole set (or, on TensorFlow, the global batches of one stream) in one "
                "order, and takes its own rows of it. If the processes hold different images, give them as a stream "
                "of this process's share: on JAX a keras.utils.PyDataset or a tf.data.Dataset, on TensorFlow a "
                "tf.data.Dataset with AutoShardPolicy.OFF."
            )


def refuse_shared(model, batch, about, what):
    """Refuses streams that give the same images to several processes: each image would be in the batch several times.

    Args:
        batch: the first batch, in standard form.
        about: numbers that must be equal in all processes, by name.
        what: the argument that they were given as.
    """
    told = _told_by_all(model, [_checksum(batch), *about.values()])
    if told is None:
        return
    for place, name in enumerate(about, start=1):
        if len(set(told[:, place].tolist())) > 1:
            raise ValueError(
                f"`{what}`: {name} is {told[:, place].tolist()} in the {len(told)} processes: make them equal, or the "
                "processes would wait for each other for ever."
            )
    sums = told[:, 0].tolist()
    if len(set(sums)) < len(sums):
        raise ValueError(
            f"`{what}`: the first batch is the same in several processes. A stream gives each process its own share, "
            "and Keras would train on these images twice, as negatives of themselves. Give this process's share, such "
            "as dataset.shard(jax.process_count(), jax.process_index()), or give the images as an array, which is cut "
            "into shares by itself."
        )


def _told_by_all(model, numbers):
    """What every process tells: integers `(processes, numbers)`; None where there is one process."""
    processes, _ = processes_of(model)
    if processes == 1:
        return None
    numbers = np.asarray([numbers], "int32")
    if jax:
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(numbers[0]))
    strategy = model.distribute_strategy
    told = strategy.gather(
        strategy.experimental_distribute_values_from_function(lambda context: tf.constant(numbers)), axis=0
    )
    return told.numpy()[:: strategy.num_replicas_in_sync // processes]


def _checksum(images):
    """A number for what arrays hold, of shapes, types and 16 rows: it tells sets apart, not single pixels."""
    total = 0
    for array in keras.tree.flatten(images):
        total = zlib.crc32(f"{tuple(array.shape)} {array.dtype}".encode(), total)
        for row in np.unique(np.linspace(0, len(array) - 1, 16).astype(int)):
            total = zlib.crc32(np.ascontiguousarray(array[row : row + 1]).tobytes(), total)
    return total & 0x7FFFFFFF


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


def alone():
    """Whether there is one device here as far as Keras knows, so that its own `predict_on_batch` can be used."""
    return current() is None


def local_function(network):
    """`function(images)` that runs a network on one device of this process, with its copy of the weights.

    Keras' own `predict` wants a batch that the devices divide, waits for the other processes, and on JAX can't read
    what they hold. The weights are those at the time of this call.
    """
    if tf:
        run = tf.function(lambda images: network(images), reduce_retracing=True)
        return lambda images: run(tf.convert_to_tensor(images))
    mine = [
        [jax.numpy.asarray(variable.value.addressable_data(0)) for variable in variables]
        for variables in (network.trainable_variables, network.non_trainable_variables)
    ]
    run = jax.jit(lambda weights, images: network.stateless_call(*weights, images)[0])
    return lambda images: run(mine, images)


def after(batch):
    """A context in which nothing of the step runs before its batch is there.

    When a data set ends before the number of steps that Keras was told, TensorFlow still runs whatever of the last,
    aborted step doesn't depend on the data: every seed and counter would tick once more each epoch.
    """
    if tf is None:
        return contextlib.nullcontext()
    return tf.control_dependencies([x for x in tf.nest.flatten(batch) if tf.is_tensor(x)])


def global_draws():
    """The state of draws that are no variable, as an array: on torch Keras' Dropout without a seed draws from torch's
    own generator. None where there is no such thing."""
    if keras.backend.backend() != "torch":
        return None
    import torch

    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state())
    return torch.cat(states).numpy()


def set_global_draws(state):
    """Goes on from a state of `global_draws`."""
    if keras.backend.backend() == "torch" and state is not None:
        import torch

        state, on_host = torch.from_numpy(state), torch.get_rng_state().numel()
        torch.set_rng_state(state[:on_host])
        if torch.cuda.is_available() and len(state) > on_host:
            torch.cuda.set_rng_state(state[on_host:])


def quiet():
    """Keeps TensorFlow from warning that functions are traced anew: each network that is looked at is traced once."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def split_cpu(count):
    """Makes several logical devices of the CPU, so that strategies can be tried without a second machine.

    To be called before anything runs. On JAX the environment variable
    `XLA_FLAGS=--xla_force_host_platform_device_count=4` does it as well, and goes before this.
    """
    if jax is not None and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", count)
    if tf is not None:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)


def local_accelerators():
    """The number of GPUs or TPU cores of this machine that the backend can use."""
    if tf is not None:
        return len(tf.config.list_physical_devices("GPU"))
    if jax is not None and jax.default_backend() != "cpu":
        return jax.local_device_count()
    return 0


def local_replicas(count):
    """A scope that spreads training over `count` devices of this machine; None where that can't be had.

    TensorFlow: `MirroredStrategy`. JAX: `keras.distribution.DataParallel`.
    """
    if tf is not None:
        return _mirrored(count)
    if keras.backend.backend() == "jax" and len(keras.distribution.list_devices()) >= count:
        return _data_parallel(keras.distribution.list_devices()[:count])
    return None


# A second strategy object on the same devices mixes up its collective operations with those of the first (TF 2.21), so
# each group of devices has one; and other groups number their operations from elsewhere, as TensorFlow's tests do it.
_STRATEGIES = {}


def _mirrored(count):
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
def _data_parallel(devices):
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    try:
        yield "DataParallel"
    finally:
        keras.distribution.set_distribution(before)


@contextlib.contextmanager
def cluster(process, processes):
    """The scope of all processes of a cluster: what a training script of many hosts writes at its top.

    TensorFlow: `MultiWorkerMirroredStrategy`, which reads `TF_CONFIG`. JAX: `keras.distribution.initialize`, which
    reads the coordinator's address in `KERAS_DISTRIBUTION_JOB_ADDRESSES`, and `DataParallel`.

    Args:
        process, processes: which this one is, and how many there are.
    """
    if tf:
        with tf.distribute.MultiWorkerMirroredStrategy().scope():
            yield
        return
    keras.distribution.initialize(num_processes=processes, process_id=process)
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    yield
    jax.distributed.shutdown()  # or the processes that are left complain of those that ended


def one_by_one(function, xs, dtype):
    """`keras.ops.map`, strictly in turn. TensorFlow would run ten entries side by side, with the memory of ten.

    Args:
        function: of one entry of `xs`.
        xs: a tensor, mapped over its first axis.
        dtype: of what `function` gives.
    """
    if tf is None:
        return ops.map(function, xs)
    return tf.map_fn(function, xs, parallel_iterations=1, fn_output_signature=dtype)


# Micro-batches: the batch spread over time instead of over devices.


def shards():
    """In how many blocks of rows, each on its own device, the batch of this program lies.

    JAX runs one program over all devices. On TensorFlow each replica runs its own, whose rows are on one device.
    """
    distribution = keras.distribution.distribution()
    return distribution.device_mesh.shape[0] if isinstance(distribution, keras.distribution.DataParallel) else 1


def values(variables):
    """The values of variables at this moment, as tensors that stay what they are when the variables change."""
    # On TensorFlow ops.convert_to_tensor hands out the variable itself.
    return [tf.identity(x.value) if tf else ops.convert_to_tensor(x) for x in variables]


def one_after_another(function, weights, carried, count):
    """Runs parts of a computation one after another, keeping nothing of each but what it returns.

    For its gradient each part is computed again. Inside of a part a replica is alone.

    Args:
        function: `(weights, carried, number) → (outputs, summed, carried)`, three lists of tensors. It must read what
            gradients are wanted of from `weights`, and assign nothing.
        weights: tensors; gradients flow to them from `outputs`.
        carried: tensors that go from one part to the next.
        count: number of parts.

    Returns:
        outputs with a new first axis, one entry a part; the sums over parts; the last `carried`.
    """
    if tf is not None:
        return _in_two_passes(_by_oneself(function), weights, carried, count)
    stacked, sums = [], None
    for number in range(count):
        once = keras.remat(lambda weights, carried, number=number: function(weights, carried, number))
        outputs, summed, carried = once(weights, carried)
        stacked.append(outputs)
        sums = summed if sums is None else [a + b for a, b in zip(sums, summed)]
    return [ops.stack(parts) for parts in zip(*stacked)], sums, carried


def _by_oneself(function):
    def run(*arguments):
        _alone.inside = True
        try:
            return function(*arguments)
        finally:
            _alone.inside = False

    return run


def _in_two_passes(function, weights, carried, count):
    """TensorFlow, where loops keep one part's memory: `keras.remat` in a Python loop was measured to keep three."""
    kinds = {}

    @tf.custom_gradient
    def run(*weights):
        # The first part stands before the loop and shows it what the others will give.
        outputs, sums, after = function(weights, carried, 0)
        starts = [tf.TensorArray(x.dtype, count, element_shape=x.shape).write(0, x) for x in carried]
        arrays = [tf.TensorArray(x.dtype, count, element_shape=x.shape).write(0, x) for x in outputs]
        kinds.update(outputs=len(outputs), sums=len(sums))

        def forward(number, arrays, sums, carried, starts):
            starts = [array.write(number, x) for array, x in zip(starts, carried)]
            outputs, summed, carried = function(weights, carried, number)
            arrays = [array.write(number, x) for array, x in zip(arrays, outputs)]
            return number + 1, arrays, [a + b for a, b in zip(sums, summed)], carried, starts

        _, arrays, sums, after, starts = tf.while_loop(
            lambda number, *_: number < count,
            forward,
            (tf.constant(1), arrays, sums, after, starts),
            parallel_iterations=1,
        )

        def gradient(*upstream):
            upstream = upstream[: kinds["outputs"]]

            def backward(number, totals):
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(weights)
                    outputs, _, _ = function(weights, [array.read(number) for array in starts], number)
                wanted = [i for i, x in enumerate(outputs) if x.dtype.is_floating]
                shares = tape.gradient(
                    [outputs[i] for i in wanted],
                    weights,
                    output_gradients=[upstream[i][number] for i in wanted],
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
                return number + 1, [total + tf.convert_to_tensor(share) for total, share in zip(totals, shares)]

            _, totals = tf.while_loop(
                lambda number, _: number < count,
                backward,
                (tf.constant(0), [tf.zeros_like(weight) for weight in weights]),
                parallel_iterations=1,
            )
            return totals

        return (*(array.stack() for array in arrays), *sums, *after), gradient

    results = list(run(*weights))
    outputs, sums = kinds["outputs"], kinds["sums"]
    return results[:outputs], results[outputs : outputs + sums], results[outputs + sums :]
