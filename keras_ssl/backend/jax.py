"""JAX: one program computes the step of all devices, over the global batch; processes meet in it."""

import contextlib
import os

import jax
import keras
import numpy as np
from keras import ops

__all__ = [
    "COMPILES_BY_DEFAULT",
    "LOCAL_STRATEGY",
    "STATELESS_STEPS",
    "all_gather_ints",
    "check_devices",
    "cluster",
    "current_strategy",
    "local_accelerators",
    "local_function",
    "local_replicas",
    "loop_over_images",
    "loops_over_images",
    "matmul",
    "processes_of",
    "replicas_of",
    "shard_of",
    "shards",
    "split_cpu",
    "strategy_of",
    "take_inside",
]

COMPILES_BY_DEFAULT = True
LOCAL_STRATEGY = "data_parallel"
STATELESS_STEPS = True


def shards():
    distribution = keras.distribution.distribution()
    return distribution.device_mesh.shape[0] if isinstance(distribution, keras.distribution.DataParallel) else 1


def loops_over_images(images):
    # Over several devices the compiler would gather what a loop reads, and each device would make all views.
    return jax.default_backend() == "cpu" and isinstance(images, jax.core.Tracer) and shards() == 1


def loop_over_images(function, images, repeats):
    # All of one image, then the next: parts of one long result would be copied.
    def of_one(place):
        made = jax.lax.map(lambda repeat: function(images[place], place, repeat), jax.numpy.arange(repeats))
        return tuple(made[repeat] for repeat in range(repeats))

    return list(jax.lax.map(of_one, jax.numpy.arange(images.shape[0])))


def matmul(a, b):
    # By default a GPU takes TF32 for it, with 10 bits of mantissa, and a TPU bfloat16. The gradients are as exact.
    a, b = (ops.convert_to_tensor(x) for x in (a, b))
    return jax.numpy.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def take_inside(x, indices, axis):
    return x.at[(slice(None),) * axis + (indices,)].get(mode="promise_in_bounds")


def replicas_of(model):
    distribution = keras.distribution.distribution()
    return getattr(distribution, "num_model_replicas", 1) if distribution else 1


def processes_of(model):
    return jax.process_count(), jax.process_index()


def shard_of(model):
    # Keras takes what each process gives as its shard of the global batch.
    return processes_of(model)


def current_strategy():
    return keras.distribution.distribution()


def strategy_of(model):
    return keras.distribution.distribution()


def check_devices(model):
    _check_processes()
    distribution = keras.distribution.distribution()
    if distribution is None or replicas_of(model) == 1:
        return
    for variable in model.variables:
        if len(variable.value.sharding.device_set) != distribution.device_mesh.devices.size:
            raise ValueError(
                f"fit: the variable {variable.path} of shape {tuple(variable.shape)} was made outside of "
                f"{type(distribution).__name__}, under which the model was made. Make the backbone, or load it, in the "
                "same scope as the model."
            )


def _check_processes():
    if jax.process_count() == 1:
        return
    distribution = keras.distribution.distribution()
    if not isinstance(distribution, keras.distribution.DataParallel):
        name = "no strategy" if distribution is None else type(distribution).__name__
        raise ValueError(
            f"fit: there are {jax.process_count()} processes, and the distribution is {name}: each would train a model "
            "of its own. Before the first layer is made, call keras.distribution.set_distribution("
            "keras.distribution.DataParallel(auto_shard_dataset=False))."
        )
    if distribution.auto_shard_dataset:
        raise ValueError(
            "fit: with several processes write keras.distribution.DataParallel(auto_shard_dataset=False). keras_ssl "
            "cuts arrays into shards itself, and Keras' own cutting knows tf.data alone; give of a stream this "
            "process's share, such as dataset.shard(jax.process_count(), jax.process_index())."
        )


def all_gather_ints(model, numbers):
    if jax.process_count() == 1:
        return None
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.asarray(numbers, "int32")))


def local_function(network):
    # Keras' own `predict` waits for the other processes, and can't read what they hold.
    mine = [
        [jax.numpy.asarray(variable.value.addressable_data(0)) for variable in variables]
        for variables in (network.trainable_variables, network.non_trainable_variables)
    ]
    run = jax.jit(lambda weights, images: network.stateless_call(*weights, images)[0])
    return lambda images: run(mine, images)


def split_cpu(count):
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", count)


def local_accelerators():
    return 0 if jax.default_backend() == "cpu" else jax.local_device_count()


def local_replicas(count):
    devices = keras.distribution.list_devices()
    return _data_parallel(devices[:count]) if len(devices) >= count else None


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
    keras.distribution.initialize(num_processes=processes, process_id=process)
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    yield
    jax.distributed.shutdown()  # or the processes that are left complain of those that ended
