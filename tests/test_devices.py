"""What an accelerator does otherwise than a CPU, tried without one."""

import threading

import keras
import numpy as np
import pytest
from conftest import tiny_backbone, value_and_gradients
from keras import ops

import keras_ssl
from keras_ssl import augment, backend, distances, losses, mining

on_torch = pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch's own")
on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX's own")

LABELS = np.array([0, 0, 1, 1, 2, 2, 3, 3])

LOSSES = {
    "nt_xent": lambda a, b: losses.nt_xent(a, b, 0.2),
    "nt_xent, hard negatives": lambda a, b: losses.nt_xent(a, b, 0.2, weighting=mining.HardnessWeighted(1.0)),
    "nt_xent, queue": lambda a, b: losses.nt_xent(a, b, 0.2, negatives=b),
    "dcl": lambda a, b: losses.dcl(a, b, 0.2),
    "dclw": lambda a, b: losses.dclw(a, b, 0.2),
    "info_nce": lambda a, b: losses.info_nce(a, b, b, 0.2),
    "supcon": lambda a, b: losses.supcon(a, LABELS, 0.2) + ops.sum(b),
    "barlow_twins": lambda a, b: losses.barlow_twins(a, b),
    "vicreg": losses.vicreg,
    "cosine": losses.cosine,
    "euclidean": lambda a, b: distances.matrix(distances.euclidean, a, b),
    "angular": lambda a, b: distances.matrix(distances.angular, a, b),
}

POLICIES = {  # above 32 px they blur
    "simclr": lambda: augment.simclr(40),
    "byol": lambda: augment.byol(40),
    "moco": lambda: augment.moco(40),
    "barlow_twins": lambda: augment.barlow_twins(40),
    "proxy": lambda: augment.proxy(),
}


def rows(seed):
    return np.random.default_rng(seed).normal(size=(8, 6)).astype("float32")


# torch's device "meta" has shapes and no numbers: what would take a tensor to the host fails there as it does on a GPU.


@pytest.fixture
def on_meta(monkeypatch):
    import torch

    def refuse(tensor, *_):
        raise TypeError("an array meets a tensor in an operator, which only a CPU can do: use keras.ops")

    monkeypatch.setattr(torch.Tensor, "__array__", refuse)
    with keras.device("meta"):
        yield


@on_torch
@pytest.mark.parametrize("name", LOSSES)
def test_losses_stay_on_the_device(name, on_meta):
    a, b = (ops.convert_to_tensor(rows(seed)) for seed in (0, 1))
    assert LOSSES[name](a, b).device.type == "meta"


@on_torch
@pytest.mark.parametrize("name", POLICIES)
def test_views_stay_on_the_device(name, on_meta):
    views = POLICIES[name]()
    images = ops.zeros((4, 48, 48, 3), "uint8")
    for view in views(images, rng=augment.RowRNG(0, ops.arange(4))):
        assert view.device.type == "meta"


@on_torch
def test_gradients_of_micro_batches_are_computed_on_any_thread(images, monkeypatch):
    """As torch computes those of what lies on a GPU: on a thread of its own."""
    import torch

    def trained():
        keras.utils.set_random_seed(0)
        model = keras_ssl.SimCLR(tiny_backbone())
        model.compile(keras.optimizers.SGD(0.1), micro_batch_size=8)
        model.fit(images[:32], batch_size=16, verbose=0)
        return model.get_weights()

    here, backward, failed = trained(), torch.Tensor.backward, []

    def elsewhere(tensor, *arguments, **options):
        def run():
            try:
                backward(tensor, *arguments, **options)
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        for error in failed:
            raise error

    monkeypatch.setattr(torch.Tensor, "backward", elsewhere)
    for one, other in zip(trained(), here):
        np.testing.assert_array_equal(one, other)


# By default XLA multiplies float32 with ten bits of mantissa on a GPU, and with seven on a TPU.


def products(jaxpr):
    """All products of matrices in a program, those of inner programs too."""
    import jax

    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "jaxpr") or hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from products(inner)


@on_jax
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "cosine"])
def test_losses_multiply_in_float32(name):
    import jax

    of_all = jax.value_and_grad(lambda a, b: ops.sum(LOSSES[name](a, b)), argnums=(0, 1))
    found = list(products(jax.make_jaxpr(of_all)(rows(0), rows(1)).jaxpr))
    assert len(found) >= 2  # forward, and gradients
    for equation in found:
        assert equation.params["precision"] == (jax.lax.Precision.HIGHEST,) * 2


@on_jax
@pytest.mark.parametrize("name", POLICIES)
def test_views_multiply_in_float32(name):
    import jax

    views = POLICIES[name]()
    images = np.zeros((4, 48, 48, 3), "uint8")
    views.build(images.shape)
    program = jax.make_jaxpr(lambda x: views(x, rng=augment.RowRNG(0, np.arange(4))))(images)
    for equation in products(program.jaxpr):
        assert equation.params["precision"] == (jax.lax.Precision.HIGHEST,) * 2


def test_the_product_is_that_of_keras():
    a, b = rows(0), rows(1).T
    value, (one, other) = value_and_gradients(lambda a, b: ops.sum(backend.matmul(a, b)), a, b)
    assert value == pytest.approx((a @ b).sum(), rel=1e-5)
    np.testing.assert_allclose(one, np.tile(b.sum(axis=1), (8, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(other, np.tile(a.sum(axis=0)[:, None], (1, 8)), rtol=1e-5, atol=1e-6)
