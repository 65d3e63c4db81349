"""torch: several processes, each with its rows of the batch, that meet in a process group of `torch.distributed`.

Each process computes its share of the loss from its own rows and everybody's embeddings. What is gathered gives each
process the gradients of all shares, and the gradients of the weights are summed before the optimizer sees them: so all
processes make the step of one process on the global batch, and their weights stay equal to the last bit.

All processes must meet in one order. So what is exchanged is exchanged within a step, which all of them run, and never
where one of them may be alone: outside of a step a process is a process, whatever it computes.
"""

import contextlib
import os
import types

import keras
import numpy as np
import torch
from torch import distributed

# How deep this process is in a step, and in parts of one in which it is alone. Not per thread: on GPUs autograd
# computes a checkpointed part again in a thread of its own.
_depth = {"step": 0, "alone": 0}

_BUCKET = 2**24  # elements that are summed at once: 64 MiB of float32


def in_group():
    """Whether several processes train together here."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def place():
    """`(number, mine)`: how many processes there are, and which this one is."""
    return (distributed.get_world_size(), distributed.get_rank()) if in_group() else (1, 0)


@contextlib.contextmanager
def _inside(of):
    _depth[of] += 1
    try:
        yield
    finally:
        _depth[of] -= 1


def step_scope():
    """A context in which the processes meet."""
    return _inside("step") if in_group() else contextlib.nullcontext()


def by_oneself(function):
    """The function, within which this process meets nobody."""

    def run(*arguments):
        with _inside("alone"):
            return function(*arguments)

    return run


def replicas():
    return distributed.get_world_size() if _depth["step"] and not _depth["alone"] and in_group() else 1


# What is exchanged.


@contextlib.contextmanager
def _meeting():
    try:
        yield
    except RuntimeError as error:  # torch has classes of its own for some of them, all derived from it
        number, mine = place()
        duplicate = (
            "Two processes use one GPU: call torch.cuda.set_device(int(os.environ['LOCAL_RANK'])) before the first "
            "layer is made, and start no more processes than there are GPUs. "
            if "uplicate GPU" in str(error)
            else ""
        )
        raise RuntimeError(
            f"Process {mine} of {number} could not meet the others: one of them has failed or is late, see what it "
            f"wrote. {duplicate}A run that is saved by keras_ssl.callbacks.Resume continues when all processes are "
            f"started anew. How long they wait for each other is the `timeout` of init_process_group. ({error})"
        ) from error


def _all_rows(x):
    """`(processes · n, …)` of `(n, …)`, of any type: what is exchanged are bytes."""
    own = x.detach().contiguous()
    sent = own.reshape(-1).view(torch.uint8)
    parts = [torch.empty_like(sent) for _ in range(distributed.get_world_size())]
    with _meeting():
        distributed.all_gather(parts, sent)
    return torch.cat([part.view(own.dtype).reshape(own.shape) for part in parts])


def _summed(x):
    """The sum over processes, without a gradient; of half precision in float32, and rounded once."""
    wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    total = x.detach().to(wide, copy=True, memory_format=torch.contiguous_format)
    with _meeting():
        distributed.all_reduce(total)
    return total.to(x.dtype)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.rows = len(x)
        return _all_rows(x)

    @staticmethod
    def backward(ctx, gradient):
        # Of the rows that came from here, by the losses of all.
        first = distributed.get_rank() * ctx.rows
        return _summed(gradient)[first : first + ctx.rows]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return _summed(x)

    @staticmethod
    def backward(ctx, gradient):
        return _summed(gradient)


class _SumAsValue(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return _summed(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def gather(x):
    return _Gather.apply(x) if replicas() > 1 else x


def global_sum(x):
    if replicas() == 1:
        return x
    if not isinstance(x, (list, tuple)):
        return _Sum.apply(x)
    if len({(part.dtype, part.device) for part in x}) > 1:
        return [_Sum.apply(part) for part in x]
    # At once: batch normalization sums a handful of small tensors in each layer.
    total = _Sum.apply(torch.cat([part.reshape(-1) for part in x]))
    parts = torch.split(total, [part.numel() for part in x])
    return [part.reshape(given.shape) for part, given in zip(parts, x)]


def sum_as_value(x):
    """A tensor with the value of the sum over processes, and the gradient of this process's own."""
    return _SumAsValue.apply(x) if replicas() > 1 else x


def mean_over_processes(x):
    return _summed(x) / replicas() if replicas() > 1 else x


# The gradients of the weights.


def sum_gradients(optimizer):
    """Makes an optimizer sum the gradients over processes, within a step, before it does anything with them."""
    if "apply" not in vars(optimizer):
        # A bound method, which a copy of the optimizer gets for itself.
        optimizer.apply = types.MethodType(_apply_summed, optimizer)


def _apply_summed(optimizer, grads, trainable_variables=None):
    if replicas() > 1:
        grads = _summed_gradients(list(grads), trainable_variables)
    return type(optimizer).apply(optimizer, grads, trainable_variables)


def _summed_gradients(gradients, variables):
    """Sums gradients over processes; one that no process has stays None."""
    variables = [getattr(variable, "value", variable) for variable in variables or gradients]
    like = zip(gradients, variables)
    filled = [torch.zeros_like(variable) if one is None else one for one, variable in like]
    here = torch.tensor([float(one is not None) for one in gradients], device=filled[0].device)
    *totals, here = _sums_by_bucket([*filled, here])
    if any(one is None for one in gradients):  # only then must the host wait for what came
        totals = [total if count else None for total, count in zip(totals, here.tolist())]
    return totals


def _sums_by_bucket(tensors):
    """The sums over processes of a list of tensors, many of one type at a time."""
    totals, buckets = [None] * len(tensors), {}

    def empty(kind):
        numbers = buckets.pop(kind, [])
        if numbers:
            total = _summed(torch.cat([tensors[number].detach().reshape(-1) for number in numbers]))
            for number, part in zip(numbers, torch.split(total, [tensors[number].numel() for number in numbers])):
                totals[number] = part.reshape(tensors[number].shape)

    for number, tensor in enumerate(tensors):
        kind = (tensor.dtype, tensor.device)
        buckets.setdefault(kind, []).append(number)
        if sum(tensors[one].numel() for one in buckets[kind]) >= _BUCKET:
            empty(kind)
    for kind in list(buckets):
        empty(kind)
    return totals


# Around a run.


def share_weights(model):
    """Gives all processes the variables of process 0: the model's and its optimizer's."""
    if not in_group():
        return
    for variable in _variables(model):
        value = variable.value.detach()
        sent = value.reshape(-1).contiguous()
        with _meeting():
            distributed.broadcast(sent.view(torch.uint8), src=0)
        value.copy_(sent.reshape(value.shape))


def unequal_variable(model):
    """The path of the first variable that is not the same in all processes; None if there is none."""
    if not in_group():
        return None
    variables = _variables(model)
    sums = [_checksum(variable.value.detach()) for variable in variables]
    rows = _all_rows(torch.stack(sums)[None].to(_meeting_device()))
    unequal = (rows != rows[:1]).any(dim=0).tolist()
    return next((variable.path for variable, found in zip(variables, unequal) if found), None)


def _checksum(value):
    """The sum of the bits, as integers, which copies nothing."""
    kind = torch.uint8 if value.element_size() % 4 else torch.int32
    return value.reshape(-1).contiguous().view(kind).sum(dtype=torch.int64)


def _variables(model):
    return [*model.variables, *(model.optimizer.variables if getattr(model, "optimizer", None) else ())]


def all_gather_ints(model, numbers):
    if not in_group():
        return None
    return _all_rows(torch.tensor([[int(number) for number in numbers]], device=_meeting_device())).cpu().numpy()


def all_gather_bytes(array):
    """uint8 `(processes, n)`: what each process gives, `(n,)`."""
    return _all_rows(torch.from_numpy(np.ascontiguousarray(array))[None].to(_meeting_device())).cpu().numpy()


def _meeting_device():
    """Where numbers of the host must be put to be exchanged: NCCL takes those of a GPU alone."""
    return torch.device("cuda", torch.cuda.current_device()) if distributed.get_backend() == "nccl" else "cpu"


def check(model):
    """Makes ready what several processes train on; raises `ValueError` where it can't be right."""
    if not in_group():
        return
    check_group_devices(keras.ops.convert_to_tensor(0.0).device.type)
    if model.jit_compile is True:
        raise ValueError(
            "compile: jit_compile=True in several torch processes, whose steps meet in the middle, is not supported: "
            'leave it at "auto".'
        )
    if model.optimizer is not None:
        sum_gradients(model.optimizer)
    keep_unwrapped(model)


def keep_unwrapped(model):
    """Keeps Keras from wrapping a model in DistributedDataParallel.

    Keras after 3.15 does so by itself where there is a process group, unless the attribute is set. Its wrapper averages
    gradients over processes, each of which would have been of that process's loss alone, and copies all of them once
    more. The results were the same (a mean of what is summed after it), at twice the cost; and where a weight gets no
    gradient, the wrapper stops the run.
    """
    if hasattr(model, "ddp_model"):
        model.ddp_model = False


def check_group_devices(computes_on):
    """Raises `ValueError` where processes have no devices over which their process group can exchange tensors."""
    if distributed.get_backend() != "nccl":
        return
    if computes_on != "cuda":
        raise ValueError(
            f'The process group\'s backend is "nccl", which exchanges tensors of GPUs, and Keras computes on '
            f'"{computes_on}": write torch.distributed.init_process_group("gloo").'
        )
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if here > gpus:
        raise ValueError(
            f'The process group\'s backend is "nccl", which needs a GPU for each process, and there are {here} '
            f"processes and {gpus} GPUs on this host: start as many as there are GPUs, torchrun --nproc_per_node={gpus}"
            ', or write torch.distributed.init_process_group("gloo").'
        )


@contextlib.contextmanager
def cluster(process, processes):
    on_gpu = keras.ops.convert_to_tensor(0.0).device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", process)) % torch.cuda.device_count())
    distributed.init_process_group("nccl" if on_gpu else "gloo", rank=process, world_size=processes)
    try:
        yield
    finally:
        distributed.destroy_process_group()
