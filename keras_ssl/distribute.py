"""Replicas: how many there are, which rows are mine, and everybody's rows together.

TensorFlow's strategies run the step once per replica, each on its own rows, and sum the gradients. So do several
processes of torch, each of which is one replica. JAX runs one program over the global batch, so there everything is
global already: one replica that holds all rows.

The first four functions are what a method's author calls within `objective`; the others make devices to run on.
"""

from keras_ssl import backend

__all__ = [
    "cluster",
    "gather",
    "global_sum",
    "local_accelerators",
    "local_replicas",
    "repair",
    "replicas",
    "row_offset",
    "split_cpu",
]


def replicas():
    """The number of replicas that run this step side by side, as a Python integer; 1 inside of a micro-batch."""
    return backend.replicas()


def row_offset(rows):
    """The row of the global batch at which this replica's `rows` rows begin: 0 where one replica holds all."""
    return backend.row_offset(rows)


def gather(x):
    """The rows of all replicas, in the order of the global batch; gradients flow back to the replica they came from.

    Args:
        x: `(n, …)`, this replica's rows.

    Returns:
        `(n · replicas, …)`, the same on every replica.
    """
    return backend.gather(x)


def global_sum(x):
    """The sum over replicas, with its gradient, of a tensor or of each in a list."""
    return backend.global_sum(x)


# Devices to run on.


def local_accelerators():
    """The number of GPUs or TPU cores of this machine that the backend can use."""
    return backend.local_accelerators()


def local_replicas(count):
    """A scope that spreads training over `count` devices of this machine; None where that can't be had.

    TensorFlow: `MirroredStrategy`. JAX: `keras.distribution.DataParallel`.
    """
    return backend.local_replicas(count)


def split_cpu(count):
    """Makes several logical devices of the CPU, so that strategies can be tried without a second machine.

    To be called before anything runs. On JAX the environment variable
    `XLA_FLAGS=--xla_force_host_platform_device_count=4` does it as well, and goes before this.
    """
    backend.split_cpu(count)


def cluster(process, processes):
    """The scope of all processes of a cluster: what a training script of many hosts writes at its top.

    TensorFlow: `MultiWorkerMirroredStrategy`, which reads `TF_CONFIG`. JAX: `keras.distribution.initialize`, which
    reads the coordinator's address in `KERAS_DISTRIBUTION_JOB_ADDRESSES`, and `DataParallel`. torch:
    `torch.distributed.init_process_group`, which reads `MASTER_ADDR` and `MASTER_PORT`, with NCCL on GPUs and gloo on
    CPUs; which GPU is this process's is in `LOCAL_RANK`.

    Args:
        process, processes: which this one is, and how many there are.
    """
    return backend.cluster(process, processes)


def repair(strategy):
    """Makes a strategy of several workers usable by Keras' `fit` and `evaluate`, of any Keras model.

    `fit` of this library does it by itself; it does nothing on strategies of one process.

    Returns:
        Whether the strategy was changed now.
    """
    return backend.repair(strategy)
