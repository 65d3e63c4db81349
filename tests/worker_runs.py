"""What the two workers of test_workers.py do. Each function is called in every process, under the cluster's scope."""

import json
import os
import pathlib
import shutil
import signal

import keras
import numpy as np
from keras import ops

import keras_ssl
from keras_ssl import augment, backend, distribute, heads
from keras_ssl.callbacks.state_file import StateFile

STEPS = 10
BATCH = 16
RATE = 0.003


def make_model():
    """SimCLR with random views and a projector that normalizes by the statistics of the global batch."""
    keras.utils.set_random_seed(0)
    convolutions = [keras.layers.Conv2D(width, 3, 2, activation="gelu") for width in (8, 16, 16)]
    backbone = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 127.5, -1), *convolutions])
    crop = [augment.RandomHorizontalFlip(), augment.RandomErasing()]
    return keras_ssl.SimCLR(
        backbone, views=augment.Views(crop, crop), projector=heads.mlp([16, 8]), temperature=0.2, seed=3
    )


def images():
    return keras_ssl.data.load("fashion_mnist_sample").train.images[: BATCH * STEPS // 2 + 5]


def train(initial=None):
    """Ten steps of SGD with momentum from these weights: 2 epochs of 5, in an order of their own; and what is logged.

    Returns:
        A dict of arrays: `initial`, `weights`, `history`, `evaluated`, `features` of 10 images, `accuracy` by epoch.
    """
    model = make_model()
    if initial is None:
        initial = [ops.convert_to_numpy(weight) for weight in model.weights]
    for weight, value in zip(model.weights, initial):
        weight.assign(value)
    # A small rate: at 0.01 rounding alone was seen to move a run of these by 7e-3.
    model.compile(keras.optimizers.SGD(RATE, momentum=0.9))
    x, labels = images(), np.arange(40) % 4
    probe = keras_ssl.callbacks.KNNProbe((x[:40], labels), (x[40:50], labels[:10]), k=3)
    history = model.fit(
        x, batch_size=BATCH, epochs=2, verbose=0, validation_data=x[: 2 * BATCH], callbacks=[probe]
    ).history
    return {
        "initial": initial,
        "weights": [ops.convert_to_numpy(weight) for weight in model.weights],
        "history": history,
        "evaluated": model.evaluate(x, batch_size=BATCH, verbose=0),
        "features": keras_ssl.evaluate.extract_features(model, x[:10]),
        "step": int(ops.convert_to_numpy(model.step)),
    }


class CtrlC(keras.callbacks.Callback):
    """Presses Ctrl-C in process 0 alone, within the second batch of the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == (1, 1) and backend.processes_of(self.model)[1] == 0:
            os.kill(os.getpid(), signal.SIGINT)


def resumes(initial, folder):
    """The run of `train` in all processes, cut off by Ctrl-C in one of them, and resumed.

    Returns:
        A dict: `weights` and `history` of the run that was resumed; `interrupted`, whether Ctrl-C ended it here;
        `saved`, the files; and the sentences with which it is refused that one process has `no file`, an `older file`,
        or one that is `torn`.
    """
    folder = pathlib.Path(folder)

    def fit(path, *callbacks):
        model = make_model()
        for weight, value in zip(model.weights, initial):
            weight.assign(value)
        model.compile(keras.optimizers.SGD(RATE, momentum=0.9))
        callbacks = [keras_ssl.callbacks.Resume(path, every_steps=2), *callbacks]
        history = model.fit(images(), batch_size=BATCH, epochs=2, verbose=0, callbacks=callbacks).history
        return {"weights": [ops.convert_to_numpy(weight) for weight in model.weights], "history": history}

    mine = backend.processes_of(make_model())[1]
    result = {"interrupted": False}
    try:
        fit(folder / "state", CtrlC())
    except KeyboardInterrupt:
        result["interrupted"] = True
    result["saved"] = sorted(path.name for path in folder.glob("state*") if not path.name.endswith(".lock"))
    own = folder / f"own {mine}"
    own.mkdir()
    for name, change in {
        "no file": lambda path: path.unlink(),
        "older file": make_older,
        "torn": make_torn,
    }.items():
        path = own / "state"
        shutil.copy(folder / "state", path)
        if mine == 1:
            change(path)
        result[name] = ""
        try:
            fit(path)
        except Exception as error:
            result[name] = f"{type(error).__name__}: {error}"
    return {**result, **fit(folder / "state")}


def make_older(path):
    """Makes a saved state one of two batches before."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    about = json.loads(str(arrays.pop("about")))
    about["place"][1] -= 2
    StateFile(path).write(about, arrays)


def make_torn(path):
    """Cuts a saved state off, of which there is none before."""
    StateFile(path).previous.unlink(missing_ok=True)
    path.write_bytes(path.read_bytes()[:1000])


class Share(keras.utils.PyDataset):
    """ArrayBatches of rows of an array."""

    def __init__(self, array, size):
        super().__init__()
        self.array, self.size = array, size

    def __len__(self):
        return len(self.array) // self.size

    def __getitem__(self, index):
        return self.array[index * self.size : (index + 1) * self.size]


def refusals():
    """The sentence with which each of these is refused, by name; an empty one where it was not."""
    model = make_model()
    model.compile(keras.optimizers.SGD(0.01))
    x, (processes, mine) = images(), backend.processes_of(model)
    own = x[mine::processes]
    tries = {
        "an array of its own": lambda: model.fit(own, batch_size=BATCH, verbose=0),
        "another batch size": lambda: model.fit(x, batch_size=BATCH + 2 * mine, verbose=0),
        "predict": lambda: model.predict(x[:4], verbose=0),
        "a stream that is the same in all": lambda: model.fit(Share(x, 8), verbose=0),
        "a stream of its own": lambda: model.fit(Share(own, 8), verbose=0),
    }
    said = {}
    for name, attempt in tries.items():
        said[name] = ""
        try:
            attempt()
        except ValueError as error:
            said[name] = str(error)
    return said


def auto_sharding():
    """JAX: the sentence about Keras' own cutting of data sets. It leaves that distribution behind."""
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    model = make_model()
    model.compile(keras.optimizers.SGD(0.01))
    try:
        model.fit(images(), batch_size=BATCH, verbose=0)
    except ValueError as error:
        return str(error)


def two_devices():
    """TensorFlow gives a worker several replicas on GPUs alone: here its two logical CPUs stand for them."""
    from tensorflow.python.distribute.collective_all_reduce_strategy import CollectiveAllReduceExtended

    distribute.split_cpu(2)
    CollectiveAllReduceExtended._initialize_local_devices = lambda self, resolver, worker: (
        tuple(f"{worker}/device:CPU:{i}" for i in range(2)),
        "CPU",
    )


def needs_repair():
    """TensorFlow: whether Keras' own fit of a plain model fails on several workers."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.zeros((8, 3), "float32")
    try:
        model.fit(x, x[:, :1], batch_size=4, verbose=0)
    except ValueError:
        return True
    return False


def everything(initial, folder):
    """All of the above in one pair of processes: to start them is what takes longest."""
    backend = keras.backend.backend()
    repair = needs_repair() if backend == "tensorflow" else None  # before a fit of ours makes it
    result = {"train": train(initial), "refusals": refusals(), "needs_repair": repair}
    result["resumed"] = resumes(initial, folder)
    return {**result, "auto_sharding": auto_sharding() if backend == "jax" else None}
