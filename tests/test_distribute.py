"""Replicas of one process: gathering, global rows, batches, what is said and what is refused before work starts."""

import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import tiny_backbone
from keras import ops

import keras_ssl
from keras_ssl import augment, cli, distribute, heads
from keras_ssl.data import adapter, arrays

BACKEND = keras.backend.backend()
several = pytest.mark.skipif(BACKEND == "torch", reason="a process of torch has one device")
tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow's strategies")
jax_only = pytest.mark.skipif(BACKEND != "jax", reason="of JAX's DataParallel")


def simclr(backbone=None, **options):
    views = augment.Views([augment.RandomHorizontalFlip()], [augment.RandomErasing()])
    options = {"projector": heads.mlp([16, 8]), "views": views, "temperature": 0.2, **options}
    return keras_ssl.SimCLR(backbone or tiny_backbone(), **options)


def compiled(model=None, optimizer=None, **options):
    model = model or simclr()
    model.compile(optimizer or keras.optimizers.SGD(0.01, momentum=0.9), **options)
    return model


def state(model):
    return [ops.convert_to_numpy(weight) for weight in model.weights]


def train(images, initial=None, **fit):
    """Ten steps: `(initial weights, weights, history, evaluation)`."""
    model = compiled()
    if initial is None:
        initial = state(model)
    for weight, value in zip(model.weights, initial, strict=True):
        weight.assign(value)
    history = model.fit(images, batch_size=16, epochs=2, steps_per_epoch=5, verbose=0, **fit).history
    return initial, state(model), history, model.evaluate(images, batch_size=16, verbose=0)


def close(one, other):
    for a, b in zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def alone(images):
    return train(images, validation_data=images[:32])


@several
@pytest.mark.parametrize("replicas", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_replicas_train_log_and_evaluate_as_one_device(images, alone, replicas):
    # Random views, batch normalization in the projector, ten steps of SGD with momentum.
    with distribute.local_replicas(replicas):
        together = train(images, alone[0], validation_data=images[:32])
    close(together[1:], alone[1:])


@tensorflow_only
@pytest.mark.parametrize("replicas", [2, 4])
def test_gather_gives_every_replica_the_rows_of_all_in_the_order_of_the_batch(replicas):
    import tensorflow as tf

    with distribute.local_replicas(replicas):
        strategy = tf.distribute.get_strategy()
        batch = tf.data.Dataset.from_tensors(tf.range(8)[:, None])
        (rows,) = strategy.experimental_distribute_dataset(batch)

        def step(rows):
            return distribute.gather(rows), distribute.row_offset(len(rows)) - rows[0, 0], distribute.replicas()

        gathered, difference, count = strategy.run(step, args=(rows,))
    for one in strategy.experimental_local_results(gathered):
        np.testing.assert_array_equal(one[:, 0], np.arange(8))
    assert all(int(d) == 0 for d in strategy.experimental_local_results(difference))
    assert set(strategy.experimental_local_results(count)) == {replicas}


@tensorflow_only
@pytest.mark.parametrize(
    ("of_all", "by_hand"),
    [
        (lambda z: ops.sum(ops.take(z, [2, 0], axis=0)), lambda z: np.isin(np.arange(len(z)), [0, 2])[:, None] + 0 * z),
        (lambda z: ops.sum(ops.diagonal(ops.matmul(ops.transpose(z), z))), lambda z: 2 * z),
    ],
    ids=["take", "diagonal"],
)
def test_gathered_rows_have_gradients_through_operations_that_take_some(of_all, by_hand):
    import tensorflow as tf

    given = np.arange(24, dtype="float32").reshape(8, 3)
    with distribute.local_replicas(2):
        strategy = tf.distribute.get_strategy()
        (rows,) = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensors(given))

        @tf.function
        def step(rows):
            with tf.GradientTape() as tape:
                tape.watch(rows)
                loss = of_all(distribute.gather(rows))
            return tape.gradient(loss, rows)

        parts = strategy.experimental_local_results(strategy.run(step, args=(rows,)))
    # Each replica has the whole loss, and a row is in the losses of both.
    np.testing.assert_allclose(np.concatenate([part.numpy() for part in parts]), 2.0 * by_hand(given))


@tensorflow_only
def test_the_dealing_order_gives_each_worker_neighboring_rows(monkeypatch):
    # TensorFlow deals piece k of a batch to worker k mod 3, as its replica k div 3.
    from keras_ssl.backend import tensorflow as backend

    monkeypatch.setattr(backend, "processes_of", lambda model: (3, 0))
    monkeypatch.setattr(backend, "replicas_of", lambda model: 6)
    pieces = backend.multiworker_row_order(None, 12).reshape(6, 2)
    workers = [[pieces[k].tolist() for k in range(6) if k % 3 == worker] for worker in range(3)]
    assert workers == [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [10, 11]]]


def test_the_shares_of_a_batch_together_are_the_batch():
    images = np.arange(100)
    whole = arrays.ArrayBatches(images, 12, seed=5)
    shares = [arrays.ArrayBatches(images, 12, seed=5, share=(3, mine)) for mine in range(3)]
    for epoch in range(2):
        for one in (whole, *shares):
            one.epoch = epoch
        for index in range(whole.num_batches):
            np.testing.assert_array_equal(np.concatenate([share[index] for share in shares]), whole[index])


@several
def test_fit_says_first_on_what_it_runs(images, capsys):
    with distribute.local_replicas(4) as strategy:
        model = compiled()
        model.fit(images, batch_size=16, verbose=2)
        model.fit(images, batch_size=16, verbose=2)
    said = capsys.readouterr().out
    assert said.startswith(
        f"keras_ssl: {strategy}, 4 replicas: a global batch of 16 images, 4 per replica; embeddings are gathered"
    )
    assert said.count("replicas") == 1


def test_fit_says_nothing_of_replicas_on_one_device(images, capsys):
    compiled().fit(images, batch_size=16, verbose=2)
    assert "replica" not in capsys.readouterr().out


# Features.


@several
@pytest.mark.parametrize("count", [3, 10, 32])
def test_features_come_for_any_number_of_images(images, count):
    with distribute.local_replicas(4):
        model = compiled()
        expected = ops.convert_to_numpy(model.backbone(ops.cast(images[:count], "float32")))
        predicted = model.predict(images[:count], verbose=0)
        features = keras_ssl.evaluate.extract_features(model, images[:count])
    np.testing.assert_allclose(predicted, expected, atol=1e-5)
    np.testing.assert_allclose(features, expected.mean((1, 2)), atol=1e-5)


@several
def test_the_knn_probe_sees_the_weights_of_its_epoch(images, monkeypatch):
    seen = []

    def remember(bank, *_):
        seen.append(bank)
        return 0.0

    monkeypatch.setattr(keras_ssl.callbacks.probes, "knn", remember)
    labels = np.arange(20) % 4
    with distribute.local_replicas(4):
        model = compiled(optimizer=keras.optimizers.SGD(0.1))
        probe = keras_ssl.callbacks.KNNProbe((images[:20], labels), (images[:10], labels[:10]), k=3)
        model.fit(images, batch_size=16, epochs=2, verbose=0, callbacks=[probe])
        last = keras_ssl.evaluate.extract_features(model, images[:20])
    assert np.abs(seen[0] - seen[1]).max() > 1e-4
    np.testing.assert_allclose(seen[1], last, atol=1e-6)


# Refusals.


@several
@pytest.mark.parametrize(
    ("count", "fit", "sentence"),
    [
        (64, {"batch_size": 15}, "batch of 15 images .* 4 replicas: make it 12 or 16"),
        (64, {"batch_size": 2}, "batch of 2 images .* make it 4"),
        (3, {"batch_size": 3}, "holds 3 images for 4 replicas"),
        (64, {"batch_size": 16, "validation_batch_size": 10}, "batch of 10 images .*`validation_data`"),
    ],
)
def test_batches_that_replicas_do_not_divide_are_refused(images, count, fit, sentence):
    with distribute.local_replicas(4):
        model = compiled()
        with pytest.raises(ValueError, match=sentence):
            model.fit(images[:count], verbose=0, validation_data=images, **fit)
        with pytest.raises(ValueError, match="batch of 15"):
            model.evaluate(images, batch_size=15, verbose=0)


@several
def test_streams_that_replicas_do_not_divide_are_refused(images):
    class Stream(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return images[index * 10 : index * 10 + 10]

    with distribute.local_replicas(4):
        model = compiled()
        with pytest.raises(ValueError, match="batch of 10 images"):
            model.fit(Stream(), verbose=0)


@tensorflow_only
@pytest.mark.parametrize("option", [{"steps_per_execution": 2}, {"jit_compile": True}])
def test_what_keras_cannot_do_under_a_strategy_is_refused(images, option):
    with distribute.local_replicas(2):
        model = compiled(**option)
        for method in (model.fit, model.evaluate):
            with pytest.raises(ValueError, match=f"{next(iter(option))}=.* does not work in Keras under Mirrored"):
                method(images, batch_size=16, verbose=0)


@tensorflow_only
@pytest.mark.parametrize("wrapped", [lambda optimizer: optimizer, keras.optimizers.LossScaleOptimizer])
def test_accumulation_is_refused_under_a_strategy_for_any_method(wrapped, images, monkeypatch):
    monkeypatch.setattr(keras_ssl.SimCLR, "batch_dependent", False)
    with distribute.local_replicas(2):
        model = compiled(optimizer=wrapped(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)))
        with pytest.raises(ValueError, match="gradient_accumulation_steps=2 does not work"):
            model.fit(images, batch_size=16, verbose=0)


@several
def test_eager_steps_are_the_same_under_a_strategy(images, alone):
    def one_step():
        model = compiled(run_eagerly=True)
        for weight, value in zip(model.weights, alone[0], strict=True):
            weight.assign(value)
        model.fit(images[:16], batch_size=16, verbose=0)
        return state(model)

    with distribute.local_replicas(2):
        together = one_step()
    close(together, one_step())


@several
def test_a_model_made_outside_of_the_scope_of_fit_is_refused(images):
    model = compiled()
    with (
        distribute.local_replicas(2) as strategy,
        pytest.raises(ValueError, match=f"called under {strategy}.*made under no strategy"),
    ):
        model.fit(images, batch_size=16, verbose=0)


@several
def test_a_backbone_made_outside_of_the_scope_is_refused_by_its_variable(images):
    backbone = tiny_backbone()
    with distribute.local_replicas(2):
        model = compiled(simclr(backbone))
        with pytest.raises(ValueError, match=r"variable .*kernel.* was made outside of"):
            model.fit(images, batch_size=16, verbose=0)


@jax_only
def test_a_model_made_on_devices_is_not_trained_without_them(images):
    with distribute.local_replicas(2):
        model = compiled()
    with pytest.raises(ValueError, match="under no strategy, but the model was made under DataParallel"):
        model.fit(images, batch_size=16, verbose=0)


# What stands in for a TPU: XLA compiles the step, and every shape in it is known.


@tensorflow_only
def test_xla_compiles_the_step_with_static_shapes(images):
    import tensorflow as tf

    model = compiled(jit_compile=True)
    feed = adapter.adapt(images, None, model.needs(), model, batch_size=16).for_keras
    assert all(spec.shape.is_fully_defined() for spec in tf.nest.flatten(feed.element_spec))
    open_shapes = []
    objective = model.objective

    def look(outputs, batch):
        terms, figures = objective(outputs, batch)
        values = [*keras.tree.flatten(outputs), *keras.tree.flatten(batch), *terms.values(), *figures.values()]
        open_shapes.extend(value for value in values if not value.shape.is_fully_defined())
        return terms, figures

    model.objective = look
    history = model.fit(images, batch_size=16, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert not open_shapes
    assert model.jit_compile is True


# The command.


def pretrain(*flags, backend=BACKEND, cwd=None):
    root = str(keras_ssl.__path__[0]).rsplit("keras_ssl", 1)[0]
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": root, "XLA_FLAGS": ""}
    command = [sys.executable, "-c", "import keras_ssl.cli; keras_ssl.cli.entry()", "pretrain", *flags]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=cwd)


@several
@pytest.mark.slow
def test_pretrain_trains_on_the_devices_of_the_machine(tmp_path, images, sample):
    np.savez(tmp_path / "few.npz", x_train=sample.train.images[:64], y_train=sample.train.labels[:64])
    done = pretrain("--strategy=auto", "--devices=2", "--epochs=1", "--batch_size=16", "--data=few.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 replicas: a global batch of 16 images, 8 per replica" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--strategy=none", "--devices=2"], "--devices=2 .* --strategy=none"),
        (
            ["--strategy=data_parallel" if BACKEND != "jax" else "--strategy=mirrored"],
            "needs KERAS_BACKEND=" + ("tensorflow" if BACKEND == "jax" else "jax"),
        ),
        (["--strategy=auto", "--devices=3", "--batch_size=16"], "divide among" if BACKEND != "torch" else "is torch"),
    ],
)
def test_contradicting_flags_are_refused(flags, sentence, capsys):
    assert cli.main(["pretrain", *flags]) == 1
    assert re.search(sentence, capsys.readouterr().err)


@tensorflow_only
@pytest.mark.slow
def test_the_python_of_the_page_on_many_devices_runs_on_one(tmp_path):
    page = (pathlib.Path(__file__).parent.parent / "docs" / "distributed.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2
    (tmp_path / "page.py").write_text("\n".join(blocks))
    root = str(pathlib.Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, "page.py"], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
