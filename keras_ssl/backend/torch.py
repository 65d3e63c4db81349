"""torch: one device a process, processes that meet in a process group, and a random generator of its own."""

import math

import keras
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
    "FUSED_BATCH_NORM",
    "FUSED_CONVOLUTION",
    "HOW_TO_SHARE_A_STREAM",
    "REPLICAS_SHARE_A_STEP",
    "STATISTICS_PER_PROCESS",
    "all_gather_ints",
    "can_fuse_batch_norm",
    "can_fuse_step",
    "check_devices",
    "checkpointed_loop",
    "cluster",
    "convolution",
    "fused_batch_norm",
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

FUSED_BATCH_NORM = True
FUSED_CONVOLUTION = True
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


def can_fuse_step(model):
    # torch.compile fuses by itself, and does not trace layers that are changed on the way.
    return replicas() == 1 and not model.jit_compile


def can_fuse_batch_norm(layer, x):
    return (
        len(x.shape) == 4
        and layer.axis % 4 == 3
        and x.dtype in (torch.float16, torch.bfloat16, torch.float32)
        # Keras rounds statistics in half precision elsewhere.
        and keras.backend.standardize_dtype(layer.moving_mean.dtype) == "float32"
        and math.prod(x.shape[:3]) > 1  # torch refuses a variance of one number
        and not layer.synchronized
    )


def fused_batch_norm(layer, x):
    channels, count = x.shape[-1], math.prod(x.shape[:3])
    mean, variance = (torch.zeros(channels, device=x.device) for _ in range(2))
    gamma = None if layer.gamma is None else ops.cast(layer.gamma, "float32")
    beta = None if layer.beta is None else ops.cast(layer.beta, "float32")
    # Of what has its channels last in memory `permute` makes what torch calls channels_last: nothing is copied. With a
    # momentum of 1 the running statistics become those of the batch.
    outputs = torch.nn.functional.batch_norm(
        x.permute(0, 3, 1, 2), mean, variance, gamma, beta, training=True, momentum=1.0, eps=layer.epsilon
    ).permute(0, 2, 3, 1)
    # torch gives the unbiased variance, sum / (n − 1), and Keras keeps the biased one, sum / n.
    return ops.cast(outputs, layer.compute_dtype), mean, variance * ((count - 1) / count)


def convolution(x, kernel, strides, dilation, same_padding):
    # Keras 3.15 makes a copy with channels first of what `permute` gives, and then one with channels last of that, for
    # the inputs and again for their gradient.
    x, kernel = ops.convert_to_tensor(x).permute(0, 3, 1, 2), ops.convert_to_tensor(kernel).permute(3, 2, 0, 1)
    padding = [(0, 0), (0, 0)]
    if same_padding:
        padding = [_same_padding(*sides) for sides in zip(x.shape[2:], kernel.shape[2:], strides, dilation)]
    (top, bottom), (left, right) = padding
    if (top, left) != (bottom, right):
        x = torch.nn.functional.pad(x, (left, right, top, bottom))
        top = left = 0
    return torch.nn.functional.conv2d(
        x,
        kernel.contiguous(memory_format=torch.channels_last),
        stride=strides,
        padding=(top, left),
        dilation=dilation,
        groups=x.shape[1] // kernel.shape[1],
    ).permute(0, 2, 3, 1)


def _same_padding(size, kernel, stride, dilation):
    """Zeros before and after one side, so that it gives `size / stride` outputs, rounded up."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


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
