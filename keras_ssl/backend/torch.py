"""torch: one device a process, processes that meet in a process group, and a random generator of its own."""

import torch
from keras import ops
from torch import distributed

from keras_ssl.backend import one_device
from keras_ssl.backend import torch_planes as planes
from keras_ssl.backend import torch_processes as processes
from keras_ssl.backend.torch_processes import (
    all_gather_ints,
    cluster,
    gather,
    global_sum,
    mean_over_processes,
    replicas,
    share_weights,
    sum_as_value,
    unequal_variable,
)

__all__ = [
    "HOW_TO_SHARE_A_STREAM",
    "REPLICAS_SHARE_A_STEP",
    "STATISTICS_PER_PROCESS",
    "all_gather_ints",
    "check_devices",
    "checkpointed_loop",
    "cluster",
    "gather",
    "get_rng_state",
    "global_sum",
    "is_single_device",
    "local_function",
    "mean_over_processes",
    "planes",
    "processes_of",
    "replicas",
    "replicas_of",
    "row_offset",
    "set_rng_state",
    "shard_of",
    "share_of_loss",
    "share_weights",
    "step_scope",
    "strategy_of",
    "sum_as_value",
    "unequal_variable",
]

REPLICAS_SHARE_A_STEP = False
STATISTICS_PER_PROCESS = True
HOW_TO_SHARE_A_STREAM = "a DataLoader with torch.utils.data.DistributedSampler(dataset, shuffle=False)"


def row_offset(rows):
    return processes.place()[1] * rows if replicas() > 1 else 0


def step_scope(batch, optimizer=None):
    return processes.step_scope()


def share_of_loss(loss):
    return loss / replicas()


def checkpointed_loop(function, weights, carried, count):
    return one_device.checkpointed_loop(processes.by_oneself(function), weights, carried, count)


def replicas_of(model):
    return processes.place()[0]


def processes_of(model):
    return processes.place()


def shard_of(model):
    return processes.place()


def strategy_of(model):
    return distributed.group.WORLD if processes.in_group() else None


def check_devices(model):
    processes.check(model)


def is_single_device():
    return not processes.in_group()


def local_function(network):
    # Keras' own `predict` may wrap the network, for which it would wait for the other processes.
    def run(images):
        with torch.no_grad():
            return network(ops.convert_to_tensor(images), training=False)

    return run


def get_rng_state():
    # Keras' Dropout without a seed draws from torch's own generator. Each process has its own.
    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state())
    state = torch.cat(states).numpy()
    return processes.all_gather_bytes(state) if processes.in_group() else state


def set_rng_state(state):
    if state is None:
        return
    if state.ndim == 2:
        state = state[processes.place()[1] % len(state)]  # there may have been fewer processes
    state, on_host = torch.from_numpy(state), torch.get_rng_state().numel()
    torch.set_rng_state(state[:on_host])
    if torch.cuda.is_available() and len(state) > on_host:
        torch.cuda.set_rng_state(state[on_host:])
