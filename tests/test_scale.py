"""The formulas of docs/scale.md against what the code does."""

import importlib
import pathlib
import sys

import keras
import numpy as np
import pytest
from conftest import tiny_backbone

import keras_ssl
from keras_ssl import augment, distribute, heads

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import scale  # noqa: E402

nt_xent = importlib.import_module("keras_ssl.losses.nt_xent")


def test_chunks_are_those_of_the_loss():
    assert (scale.CHUNK_SIMILARITIES, scale.CHUNK_ROWS) == (nt_xent._CHUNK_SIMILARITIES, nt_xent._CHUNK)


def test_the_page_holds_the_tables_of_the_formulas():
    page = (ROOT / "docs" / "scale.md").read_text()
    assert "\n".join(scale.tables()) in page, "run python benchmarks/scale.py, and put what it prints into the page"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX gathers by itself, torch has one device")
@pytest.mark.parametrize("memory", [0, 64])
def test_bytes_gathered_in_a_step_are_those_of_the_formula(images, monkeypatch, memory):
    moved = []
    gather = distribute.gather

    def counted(x):
        rows = gather(x)
        moved.append((int(np.prod(rows.shape)) * 4, int(np.prod(x.shape)) * 4))
        return rows

    monkeypatch.setattr(distribute, "gather", counted)
    with distribute.local_replicas(2):
        views = augment.Views([augment.RandomHorizontalFlip()], [augment.RandomErasing()])
        projector = heads.mlp([8], last_batch_norm=False)
        model = keras_ssl.SimCLR(tiny_backbone(), views=views, projector=projector, memory=memory)
        model.compile(keras.optimizers.SGD(0.01))
        model.fit(images[:16], batch_size=16, verbose=0)
    passes = 2 if memory else 1  # the queue's push gathers once more
    # The step is traced once for each of the two replicas.
    assert len(moved) % (2 * 2 * passes) == 0
    traces = len(moved) // (2 * passes)
    assert sum(whole for whole, _ in moved) == traces * passes * scale.gathered(16, 8)
    assert sum(whole - own for whole, own in moved) == traces * passes * scale.received(16, 8, 2)
