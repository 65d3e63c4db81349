"""What the two torch processes of test_torch_processes.py do; `everything` is called in each, and in one alone."""

import contextlib
import os

import keras
import numpy as np
import torch
from keras import ops

import keras_ssl
from keras_ssl import augment, batch_norm, distribute, heads
from keras_ssl.backend import torch_processes

BATCH = 32


def images():
    return keras_ssl.data.load("fashion_mnist_sample").train.images[: 5 * BATCH]


def make_model(own_batch_norm=False):
    """SimCLR with random views, and a projector that normalizes by the statistics of the global batch."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(8, 3, 2, activation="gelu")]
    layers += [keras.layers.BatchNormalization()] if own_batch_norm else []
    layers += [keras.layers.Conv2D(16, 3, 2, activation="gelu", kernel_regularizer=keras.regularizers.L2(1e-2))]
    backbone = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 127.5, -1), *layers])
    crop = [augment.RandomHorizontalFlip(), augment.RandomErasing()]
    views, projector = augment.Views(crop, crop), heads.mlp([16, 8])
    return keras_ssl.SimCLR(backbone, views=views, projector=projector, temperature=0.2, seed=3)


def run(model=None, optimizer=None, **compiled):
    """Ten steps: the weights and the logs.

    A process alone would fuse its batch normalization. That rounds otherwise than Keras, which takes the mean square
    less the squared mean (3e-5 of a variance after these steps): what is compared here is how work is divided.
    """
    model = make_model() if model is None else model
    model.compile(optimizer or keras.optimizers.SGD(0.003, momentum=0.9), fused_layers=False, **compiled)
    history = model.fit(images(), batch_size=BATCH, epochs=2, verbose=0).history
    return {"weights": [ops.convert_to_numpy(weight) for weight in model.weights], "history": history}


# Trainings that are one process' on the global batch.


def with_batch_norm_of_the_backbone(change):
    model = make_model(own_batch_norm=True)
    change(model.backbone)
    return model


TRAININGS = {
    "plain": lambda: run(),
    "global statistics": lambda: run(with_batch_norm_of_the_backbone(batch_norm.use_global_statistics)),
    "ghost batches": lambda: run(
        with_batch_norm_of_the_backbone(lambda backbone: batch_norm.use_ghost_batches(backbone, 8))
    ),
    "micro-batches": lambda: run(make_model(own_batch_norm=True), micro_batch_size=8),
    "clipped gradients": lambda: run(optimizer=keras.optimizers.AdamW(1e-3, global_clipnorm=0.01)),
    "as Keras 3.16 wraps it": lambda: as_keras_3_16(),
    "as Keras 3.16 wraps it, and calls it": lambda: as_keras_3_16(keep_unwrapped=False),
}


@contextlib.contextmanager
def patched(owner, **members):
    kept = {name: getattr(owner, name) for name in members}
    for name, member in members.items():
        setattr(owner, name, member)
    try:
        yield
    finally:
        for name, member in kept.items():
            setattr(owner, name, member)


def as_keras_3_16(keep_unwrapped=True):
    """Keras 3.16 wraps a model in DistributedDataParallel unless `ddp_model` is set, and runs its step through that."""
    model = make_model()
    model.ddp_model = None
    plain = model.make_train_function

    def make_train_function(force=False):
        if torch_processes.in_group() and model.ddp_model is None:
            object.__setattr__(model, "ddp_model", torch.nn.parallel.DistributedDataParallel(model))
        plain(force)

    forward = type(model).__call__

    def through_wrapper(self, *arguments, **options):
        wrapper = self.__dict__.get("ddp_model")
        if not wrapper or getattr(self, "within", False) or not options.get("training"):
            return forward(self, *arguments, **options)
        self.within = True
        try:
            return wrapper(*arguments, **options)
        finally:
            self.within = False

    object.__setattr__(model, "make_train_function", make_train_function)
    unwrapped = {} if keep_unwrapped else {"keep_unwrapped": lambda model: None}
    with patched(torch_processes, **unwrapped), patched(type(model), __call__=through_wrapper):
        result = run(model)
    assert bool(model.ddp_model) == (not keep_unwrapped and torch_processes.in_group())
    return result


# Trainings that are not.


def without_gathering():
    with patched(distribute, gather=lambda x: x, row_offset=lambda rows: 0):
        return run()


def without_summing_gradients():
    with (
        patched(torch_processes, _summed_gradients=lambda gradients, variables: gradients),
        patched(keras_ssl.training.agreement, check_same_weights=lambda model, when: None),
    ):
        return run()


def without_gradients_through_gathering():
    with patched(torch_processes._Gather, backward=staticmethod(lambda ctx, gradient: None)):
        return run()


def with_statistics_per_process():
    with patched(batch_norm, use_global_statistics=lambda model: []):
        return run()


MUTATIONS = {
    "no gather": without_gathering,
    "no sum of gradients": without_summing_gradients,
    "no gradient through the gather": without_gradients_through_gathering,
    "statistics per process": with_statistics_per_process,
}


# What meets in a step.


def exchanged():
    """Values and gradients of `gather` and `global_sum` in a step, by the name of a type; what this process gave."""
    mine, result = torch_processes.place()[1], {}
    for dtype in ("float16", "bfloat16", "float32", "float64", "int32", "int64", "uint8", "bool"):
        x = ops.cast(np.array([[1.0, 0.0], [2.0, 3.0]]) + mine, dtype)
        if "float" in dtype:
            x.requires_grad_(True)
        with torch_processes.step_scope():
            rows, total = distribute.gather(x), None if dtype == "bool" else distribute.global_sum([x, x[0]])
            if "float" in dtype:
                # Each process has a loss of its own of everybody's rows.
                (ops.cast(rows, "float32") * (mine + 1)).sum().backward()
                gathered, x.grad = x.grad, None
                (ops.cast(distribute.global_sum(x), "float32") * (mine + 1)).sum().backward()
                gradients = [ops.convert_to_numpy(ops.cast(g, "float32")) for g in (gathered, x.grad)]
            else:
                gradients = []
        as_numbers = [rows] if total is None else [rows, *total]
        assert rows.dtype == x.dtype
        result[dtype] = ([ops.convert_to_numpy(ops.cast(each.detach(), "float32")) for each in as_numbers], gradients)
    return result


def statistics_of_each():
    """A backbone that normalizes by each process's rows: its weights, which must be the same in both."""
    return run(make_model(own_batch_norm=True))["weights"]


def refusals():
    """The sentence with which each of these is refused, by name; an empty one where it was not."""
    x, mine = images(), torch_processes.place()[1]

    class AssignsInOne(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if mine == 1:
                self.model.projector.weights[0].assign(self.model.projector.weights[0] + 1e-6)

    def fit(**options):
        model = make_model()
        compiled = {name: options.pop(name) for name in ("jit_compile",) if name in options}
        model.compile(keras.optimizers.SGD(0.01), **compiled)
        model.fit(x, verbose=0, **{"batch_size": BATCH, **options})

    def evaluate():
        model = make_model()
        model.compile("sgd")
        model.backbone.weights[0].assign(model.backbone.weights[0] + mine)
        model.evaluate(x, batch_size=BATCH, verbose=0)

    tries = {
        "a batch that does not divide": lambda: fit(batch_size=BATCH + 1),
        "jit_compile": lambda: fit(jit_compile=True),
        "a callback that assigns in one": lambda: fit(callbacks=[AssignsInOne()]),
        "evaluate of two models": evaluate,
    }
    said = {}
    for name, attempt in tries.items():
        said[name] = ""
        try:
            attempt()
        except ValueError as error:
            said[name] = str(error)
    return said


def from_loaders():
    """Losses of a step of a torch DataLoader with a sampler for each process, and of the same batch as an array."""
    x, (processes, mine) = images()[:40], torch_processes.place()
    if processes == 1:  # the rows of two processes, in the order in which their samplers draw them
        x = np.concatenate([x[0:BATCH:2], x[1:BATCH:2], x[BATCH:]])
    x = torch.from_numpy(x.copy())
    dataset = torch.utils.data.TensorDataset(x)
    sampler = torch.utils.data.DistributedSampler(dataset, processes, mine, shuffle=False)
    loader = torch.utils.data.DataLoader(dataset, BATCH // processes, sampler=sampler)
    model = make_model()
    model.compile(keras.optimizers.SGD(0.01))
    logged = model.fit(loader, verbose=0).history["loss"]
    own = x[mine:BATCH:processes]
    model = make_model()
    model.compile(keras.optimizers.SGD(0.01))
    return [*logged, model.train_on_batch(own.numpy(), return_dict=True)["loss"]]


def initial_weights_of_process_0():
    """Weights that each process has made by itself, before and after a fit at a rate of zero."""
    model = make_model()
    model.compile(keras.optimizers.SGD(0.0))
    for weight in model.trainable_weights:
        weight.assign(weight + torch_processes.place()[1])
    before = [ops.convert_to_numpy(weight).copy() for weight in model.trainable_weights]
    model.fit(images(), batch_size=BATCH, verbose=0)
    return before, [ops.convert_to_numpy(weight) for weight in model.trainable_weights]


def everything():
    result = {f"trained: {name}": training() for name, training in TRAININGS.items()}
    if torch_processes.in_group():
        result.update({f"broken: {name}": training() for name, training in MUTATIONS.items()})
        result["refusals"] = refusals()
        result["statistics of each"] = statistics_of_each()
        result["before and after"] = initial_weights_of_process_0()
    return {**result, "exchanged": exchanged(), "loaders": from_loaders()}


def ends():
    """Process 1 ends within a run without a word."""

    class Ends(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2 and torch_processes.place()[1] == 1:
                os._exit(0)

    model = make_model()
    model.compile(keras.optimizers.SGD(0.01))
    model.fit(images(), batch_size=BATCH, verbose=0, callbacks=[Ends()])
