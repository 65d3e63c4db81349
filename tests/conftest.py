"""One process has one backend, KERAS_BACKEND, and four devices, so that strategies can be tried."""

import gc
import importlib
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Two test processes share two cores. torch's threads wait for each other by spinning: with two threads in each process
# the same tests took ten times the CPU time of one thread, most of it in waiting.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4".strip()

import keras
import numpy as np
import pytest

from keras_ssl import distribute
from keras_ssl.data import load
from keras_ssl.testing import tiny_backbone


def pytest_configure(config):
    # Not on import: methods_under_test is imported by processes that have devices of their own already.
    distribute.split_cpu(4)
    # Traced graphs are millions of objects that stay: looking through them at Python's own rate took 6 % of the time.
    # Not much more rarely: models are freed by it alone, and a job of CI held 8.6 GB with thresholds of 50,000, 20, 20.
    gc.set_threshold(10_000, 10, 10)


# On TensorFlow each small model is traced for longer than JAX or torch take to train it. What takes more than two
# seconds there is slow there, and not elsewhere: tools/slow_tests.py writes the list, .ci/run runs them all. Of these
# files, too, what needs a fixture that trains.
SLOW_ON_TENSORFLOW = frozenset((pathlib.Path(__file__).parent / "slow_on_tensorflow.txt").read_text().splitlines())
TRAINS_FOR = {
    "tests/test_commands.py": "run",
    "tests/test_few_labels.py": "trained",
    "tests/test_fine_tuning.py": "logits",
    "tests/test_terminal.py": "run",
}


def is_slow_on_tensorflow(item):
    return item.nodeid in SLOW_ON_TENSORFLOW or TRAINS_FOR.get(item.nodeid.split("::")[0]) in item.fixturenames


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marks
def pytest_collection_modifyitems(config, items):
    """What is marked `one_backend` computes with numpy and scikit-learn, draws pictures, or puts together what tests
    of its own hold to each backend: pages of the docs, runs of the command. It runs on the default backend alone."""
    if keras.backend.backend() == "tensorflow":
        for item in filter(is_slow_on_tensorflow, items):
            item.add_marker(pytest.mark.slow)
        return
    elsewhere = [item for item in items if item.get_closest_marker("one_backend")]
    config.hook.pytest_deselected(items=elsewhere)
    items[:] = [item for item in items if not item.get_closest_marker("one_backend")]


@pytest.fixture(autouse=True)
def seeded():
    """A test sees the same initial weights alone and after others: a bound must not hold on some days only."""
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def few_operations(request, monkeypatch):
    """Where a method is given no views, it takes two flips, and not its paper's policy: that is traced and compiled
    anew for each model, longer than all else of most tests. Policies are tested by themselves in test_augment.py, and
    with methods by tests that are marked `papers_views`, by the contract and by the README's first line. What a fixture
    of the session trains has the papers' views, too: it is made before this."""
    if request.node.get_closest_marker("papers_views"):
        return
    from keras_ssl import augment

    def flips(backbone, value_range, policy=None):
        if policies.default_views(backbone, value_range) is None:
            return None
        return augment.Views(*[[augment.RandomHorizontalFlip(value_range=value_range)] for _ in range(2)])

    policies = importlib.import_module("keras_ssl.augment.policies")
    plain = ("siamese", "byol", "simclr", "exemplar", "triplet", "barlow_twins", "vicreg", "simsiam", "moco")
    later = ("swav", "dino", "nnclr", "moco_v3", "tico", "lejepa", "mmcr")
    for name in plain + later:
        monkeypatch.setattr(importlib.import_module(f"keras_ssl.methods.{name}"), "default_views", flips)


@pytest.fixture(scope="session")
def sample():
    return load("fashion_mnist_sample")


@pytest.fixture(scope="session")
def images(sample):
    """64 images, uint8 (64, 28, 28, 1)."""
    return sample.train.images[:64]


@pytest.fixture
def backbone():
    return tiny_backbone()


@pytest.fixture(scope="session")
def photos(sample, tmp_path_factory):
    """A folder of 90 gray pictures of 28×28: two classes in sub-folders."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    for label, name in ((1, "trousers"), (9, "boots")):
        (folder / name).mkdir()
        for number, row in enumerate(np.flatnonzero(sample.train.labels == label)[:45]):
            Image.fromarray(sample.train.images[row, :, :, 0]).save(folder / name / f"{number}.png")
    return folder


def pretrain(photos, output, *more):
    """The command, on a small folder for one epoch; more flags overwrite these."""
    from keras_ssl.cli import main

    flags = [f"--data={photos}", f"--output={output}", "--image_size=16", "--epochs=1", "--batch_size=16", "--seed=3"]
    return main(["pretrain", *flags, *more])


@pytest.fixture(scope="session")
def run(photos, tmp_path_factory):
    """`(folder, what was printed)` of one run of the command."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("runs") / "one"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert pretrain(photos, folder) == 0
    return folder, printed.getvalue()


def golden(name):
    """The cases of a golden file: dicts of parameters and arrays."""
    import json
    import pathlib

    with np.load(pathlib.Path(__file__).parent / "golden" / f"{name}.npz") as file:
        cases = json.loads(str(file["cases"]))
        for number, case in enumerate(cases):
            prefix = f"{number}."
            case.update({key[len(prefix) :]: file[key] for key in file.files if key.startswith(prefix)})
    return cases


def value_and_gradients(function, *arrays):
    """The value of a scalar function of tensors, and its gradients, as numpy, on any backend."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tensors = [tf.convert_to_tensor(array) for array in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
        gradients = tape.gradient(value, tensors, unconnected_gradients="zero")
        return float(value), [np.asarray(gradient) for gradient in gradients]
    if backend == "jax":
        import jax

        of_all = jax.value_and_grad(function, argnums=tuple(range(len(arrays))))
        value, gradients = jax.jit(of_all)(*map(jax.numpy.asarray, arrays))
        return float(value), [np.asarray(gradient) for gradient in gradients]
    import torch

    device = keras.ops.zeros(()).device  # where Keras puts its tensors
    tensors = [torch.tensor(array, requires_grad=True, device=device) for array in arrays]
    value = function(*tensors)
    value.backward()
    # Where nothing depends on an input, torch has no gradient at all.
    gradients = [np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.cpu().numpy() for tensor in tensors]
    return float(value.detach()), gradients


def numpy(tensor):
    """An array of a tensor on whichever device."""
    return keras.ops.convert_to_numpy(tensor)


def compiled(function):
    """The function compiled as the backend compiles a step: XLA on TensorFlow and JAX, as it is on torch."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    if backend == "jax":
        import jax

        return jax.jit(function)
    return function
