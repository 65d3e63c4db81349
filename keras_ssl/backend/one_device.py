"""The names of a backend, and what they mean on one device. A framework's module replaces those that differ there."""

import contextlib
import os

import keras
from keras import ops

__all__ = [
    "COMPILES_BY_DEFAULT",
    "FUSED_BATCH_NORM",
    "FUSED_CONVOLUTION",
    "HOW_TO_ENTER_A_STRATEGY",
    "HOW_TO_SHARE_A_STREAM",
    "LOCAL_STRATEGY",
    "MODELS_CARRY_THEIR_STRATEGY",
    "REPLICAS_SHARE_A_STEP",
    "STATELESS_STEPS",
    "STATISTICS_PER_PROCESS",
    "all_gather_ints",
    "can_fuse_batch_norm",
    "can_fuse_step",
    "check_devices",
    "check_divides",
    "checkpointed_loop",
    "cluster",
    "convolution",
    "current_strategy",
    "dataset_for_fit",
    "find_devices_early",
    "fused_batch_norm",
    "gather",
    "get_rng_state",
    "global_sum",
    "in_cross_replica_context",
    "is_single_device",
    "local_accelerators",
    "local_function",
    "local_replicas",
    "loop_over_images",
    "loops_over_images",
    "matmul",
    "mean_over_processes",
    "multiworker_row_order",
    "number_of_cores",
    "planes",
    "processes_of",
    "read_values",
    "repair",
    "replicas",
    "replicas_of",
    "row_offset",
    "scope_of",
    "sequential_map",
    "set_rng_state",
    "shard_of",
    "shards",
    "share_of_loss",
    "share_weights",
    "silence_retracing",
    "split_cpu",
    "step_scope",
    "strategy_of",
    "sum_as_value",
    "take_inside",
    "unequal_variable",
]

COMPILES_BY_DEFAULT = False
"""Whether `jit_compile="auto"` compiles a step that can be compiled, whatever the device."""

STATELESS_STEPS = False
"""Whether Keras runs a step as a function of values and not of variables."""

REPLICAS_SHARE_A_STEP = True
"""Whether one program computes the step of all replicas, so that statistics of a batch are of the global batch."""

STATISTICS_PER_PROCESS = False
"""Whether what a layer assigns in a step stays each process's own, where nobody takes the mean."""

FUSED_BATCH_NORM = False
"""Whether `fused_batch_norm` can be called."""

FUSED_CONVOLUTION = False
"""Whether `convolution` can be called."""

LOCAL_STRATEGY = None
"""What the command calls the strategy of `local_replicas`; None where there is none."""

MODELS_CARRY_THEIR_STRATEGY = False
"""Whether `fit` may be called outside of the scope in which a model was made."""

HOW_TO_ENTER_A_STRATEGY = "call keras.distribution.set_distribution(…) before the first of them, and leave it set."
"""The end of a sentence that tells to make the backbone and the model under one strategy."""

HOW_TO_SHARE_A_STREAM = "dataset.shard(jax.process_count(), jax.process_index())"
"""How a stream gives each process a share of its own, where processes must be given shares."""


planes = None
"""The module that makes views of images a few at a time, `torch_planes`; None where views are made otherwise."""


# Within a step.


def replicas():
    """The number of replicas that run this step side by side, as a Python integer; 1 inside of a micro-batch."""
    return 1


def row_offset(rows):
    """The row of the global batch at which this replica's `rows` rows begin."""
    return 0


def gather(x):
    """The rows of all replicas, in the order of the global batch."""
    return x


def global_sum(x):
    """The sum over replicas, with its gradient, of a tensor or of each in a list."""
    return x


def in_cross_replica_context():
    """Whether Keras only builds a model here, under a strategy but on no replica."""
    return False


def step_scope(batch, optimizer=None):
    """The context of a step: nothing of it runs before its batch is there, and its replicas meet in it.

    Args:
        optimizer: of a training step, where a framework traces what it does variable by variable.
    """
    return contextlib.nullcontext()


def mean_over_processes(x):
    """What is logged of a value per process: their mean, without a gradient, where the framework takes none itself."""
    return x


def sum_as_value(x):
    """A loss of which each process has a share as it must be logged, where the framework does not sum logs itself.

    Its value is the sum over processes, and its gradient that of this process's share.
    """
    return x


def share_of_loss(loss):
    """This replica's share of a loss that each of them computes alike, where Keras does not divide it itself."""
    return loss


def sequential_map(function, xs, dtype):
    """`keras.ops.map`, strictly in turn.

    Args:
        function: of one entry of `xs`.
        xs: a tensor, mapped over its first axis.
        dtype: of what `function` gives.
    """
    return ops.map(function, xs)


def loops_over_images(images):
    """Whether views of these images are made one by one: in a step that is being traced, to be compiled for a CPU."""
    return False


def loop_over_images(function, images, repeats):
    """Calls a function of one image for all images, several times over, in a compiled loop.

    Args:
        function: `(image, place, repeat) → tensor`, where place and repeat are integer scalar tensors.
        images: `(n, …)`.
        repeats: a Python integer.

    Returns:
        A list of tensors `(n, …)`, one for each repeat.
    """
    raise NotImplementedError("There is no compiled loop here: ask loops_over_images first.")


def take_inside(x, indices, axis):
    """`keras.ops.take` of indices that are known to lie inside, so that none is checked or turned."""
    return ops.take(x, indices, axis=axis)


def check_divides(x, size, message):
    """`x`, once it is sure that `size` divides its rows, whose number is known only within the step."""
    return x


def read_values(variables):
    """The values of variables at this moment, as tensors that stay what they are when the variables change."""
    return [ops.convert_to_tensor(variable) for variable in variables]


def shards():
    """In how many blocks of rows, each on its own device, the batch of this program lies."""
    return 1


def checkpointed_loop(function, weights, carried, count):
    """Runs parts of a computation one after another, keeping nothing of each but what it returns.

    For its gradient each part is computed again. Inside of a part a replica is alone.

    Args:
        function: `(weights, carried, number) → (outputs, summed, carried)`, three lists of tensors. It must read what
            gradients are wanted of from `weights`, and assign nothing.
        weights: tensors; gradients flow to them from `outputs`.
        carried: tensors that go from one part to the next.
        count: number of parts.

    Returns:
        outputs with a new first axis, one entry per part; the sums over parts; the last `carried`.
    """
    stacked, sums = [], None
    for number in range(count):
        once = keras.remat(lambda weights, carried, number=number: function(weights, carried, number))
        outputs, summed, carried = once(weights, carried)
        stacked.append(outputs)
        sums = summed if sums is None else [a + b for a, b in zip(sums, summed)]
    return [ops.stack(parts) for parts in zip(*stacked)], sums, carried


def matmul(a, b):
    """`keras.ops.matmul` of float32, in float32: a GPU's units for it may round the factors to ten bits."""
    return ops.matmul(a, b)


def can_fuse_batch_norm(layer, x):
    """Whether `fused_batch_norm` can serve a layer, with inputs of this shape and type."""
    return False


def fused_batch_norm(layer, x):
    """Outputs, mean and biased variance of a batch `(n, height, width, channels)` by one operation."""
    raise NotImplementedError("Fused batch normalization is TensorFlow's and torch's: ask FUSED_BATCH_NORM first.")


def convolution(x, kernel, strides, dilation, same_padding):
    """`keras.ops.conv` of `(n, height, width, channels)` without its copies, where Keras makes some."""
    raise NotImplementedError("Keras copies nothing here: ask FUSED_CONVOLUTION first.")


def can_fuse_step(model):
    """Whether the layers of `model` may be replaced by fused ones while its step runs here, or is traced."""
    return False


# Around `fit`.


def replicas_of(model):
    """The number of replicas among which `model.fit` will divide a batch, asked from outside of a step."""
    return 1


def processes_of(model):
    """`(number, mine)`: how many processes train this model together, and which of them this one is."""
    return 1, 0


def shard_of(model):
    """`(number, mine)`: into how many shards we cut each batch of an array, and which is this process's."""
    return 1, 0


def multiworker_row_order(model, batch_size):
    """The order in which the framework must be given the rows of a batch, so that it deals out the global order.

    Returns:
        Row numbers `(batch_size,)`, or None where rows may stay as they are.
    """
    return None


def scope_of(model):
    """The scope in which variables of `model` are created."""
    return contextlib.nullcontext()


def current_strategy():
    """The strategy or distribution in whose scope this line runs; None for one device."""
    return None


def strategy_of(model):
    """The strategy or distribution on which `model` trains; None for one device."""
    return None


def check_devices(model):
    """Makes ready what `fit` and `evaluate` will run on; raises `ValueError` where it can't be right there."""


def share_weights(model):
    """Gives all processes the variables of process 0, where each has made its own."""


def unequal_variable(model):
    """The path of the first variable that is not the same in all processes; None if there is none."""
    return None


def all_gather_ints(model, numbers):
    """What every process gives: int32 `(processes, numbers)`; None where there is one process."""
    return None


def dataset_for_fit(batches, order=None):
    """What Keras' `fit` is given for a `PyDataset` of batches of one size.

    Args:
        batches: with `steps`, `num_batches` and `workers`.
        order: of the rows of each batch, from `multiworker_row_order`; None as they come.
    """
    return batches


def repair(strategy):
    """Makes a strategy of several workers usable by Keras' `fit`; returns whether it was changed now."""
    return False


# Beside `fit`.


def is_single_device():
    """Whether there is one device here as far as Keras knows, so that its own `predict_on_batch` can be used."""
    return current_strategy() is None


def local_function(network):
    """`function(images)` that runs a network on one device of this process, with its copy of the weights."""
    return network


def get_rng_state():
    """The state of random draws that are no variable, as an array; None where there is no such thing."""
    return None


def set_rng_state(state):
    """Continues from a state of `get_rng_state`."""


def number_of_cores():
    """How many cores this process may use. Not every system tells; there it is those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def silence_retracing():
    """Keeps the framework from warning of functions that are traced anew: each network that is measured is one."""


def find_devices_early():
    """Looks for GPUs now, where the framework logs much while it does and looking changes nothing."""


def split_cpu(count):
    """Makes several logical devices of the CPU, so that strategies can be tried without a second machine."""


def local_accelerators():
    """The number of GPUs or TPU cores of this machine that the backend can use."""
    return 0


def local_replicas(count):
    """A scope that spreads training over `count` devices of this machine; None where that can't be had."""
    return None


@contextlib.contextmanager
def cluster(process, processes):
    """The scope of all processes of a cluster.

    Args:
        process, processes: which this one is, and how many there are.
    """
    raise ValueError(f"On {keras.backend.backend()} keras_ssl trains in one process.")
    yield
