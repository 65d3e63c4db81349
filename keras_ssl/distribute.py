"""Replicas: how many there are, which rows are mine, and everybody's rows together.

TensorFlow's strategies run the step once a replica, each on its own rows, and sum the gradients. JAX runs one program
over the global batch, so there everything is global already: one replica that holds all rows. torch has one device.
"""

import contextlib

import keras
from keras import ops

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
else:
    tf = None


def _context():
    # None in the cross-replica context, where nothing of a step runs.
    return tf.distribute.get_replica_context() if tf else None


def replicas():
    """The number of replicas that run this step side by side, as a Python integer."""
    context = _context()
    return context.num_replicas_in_sync if context else 1


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
    return _context().all_gather(x, axis=0)


def global_sum(x):
    """The sum over replicas, with its gradient."""
    if replicas() == 1:
        return x
    return _context().all_reduce(tf.distribute.ReduceOp.SUM, x)


def replicas_of(model):
    """The number of replicas that `model.fit` will use, asked from outside of a step."""
    return model.distribute_strategy.num_replicas_in_sync if tf else 1


def scope_of(model):
    """The scope in which variables of `model` are created."""
    return model.distribute_strategy.scope() if tf else contextlib.nullcontext()


def after(batch):
    """A context in which nothing of the step runs before its batch is there.

    When a data set ends before the number of steps that Keras was told, TensorFlow still runs whatever of the last,
    aborted step doesn't depend on the data: every seed and counter would tick once more each epoch.
    """
    if tf is None:
        return contextlib.nullcontext()
    return tf.control_dependencies([x for x in tf.nest.flatten(batch) if tf.is_tensor(x)])


def split_cpu(count):
    """Makes several logical devices of the CPU, so that strategies can be tried without a second machine.

    To be called before anything runs. On JAX the environment variable
    `XLA_FLAGS=--xla_force_host_platform_device_count=4` does it.
    """
    if tf is not None:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)


def local_replicas(count):
    """A scope that spreads training over `count` devices of this machine; None where that can't be had.

    TensorFlow: `MirroredStrategy`. JAX: `keras.distribution.DataParallel`.
    """
    if tf is not None:
        return _mirrored(count)
    if keras.backend.backend() == "jax" and len(keras.distribution.list_devices()) >= count:
        return _data_parallel(keras.distribution.list_devices()[:count])
    return None


# A second strategy object on the same devices mixes up its collective operations with those of the first (TF 2.21).
_STRATEGIES = {}


def _mirrored(count):
    kinds = [kind for kind in ("GPU", "CPU") if len(tf.config.list_logical_devices(kind)) >= count]
    if not kinds:
        return None
    devices = tuple(device.name for device in tf.config.list_logical_devices(kinds[0])[:count])

    @contextlib.contextmanager
    def scope():
        if devices not in _STRATEGIES:
            _STRATEGIES[devices] = tf.distribute.MirroredStrategy(devices)
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
