"""The benchmarks of quality: their rules of training, their reading of images, their tables."""

import json
import math
import pathlib
import pickle
import sys
import types

import keras
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks"))

import cifar10
import quality
import quality_runs


def test_sgd_is_torchs():
    """Against torch's rule in numpy: with a rate that changes, it is not Keras'."""
    rates = [0.5, 0.1]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], rates)
    optimizer = cifar10.sgd(schedule, 0.9, 0.01, share=0.25)
    weight = keras.Variable(np.array([1.0, -2.0], "float32"))
    optimizer.build([weight])
    expected, velocity = np.array([1.0, -2.0]), 0.0
    for rate, gradient in zip(rates, ([0.3, 0.1], [-0.2, 0.7])):
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")])
        velocity = 0.9 * velocity + 0.25 * np.array(gradient) + 0.01 * expected
        expected = expected - rate * velocity
    np.testing.assert_allclose(keras.ops.convert_to_numpy(weight), expected, rtol=1e-6)


def test_cosine_goes_down_by_epochs():
    rate = cifar10.by_epochs(0.24, epochs=4, steps_per_epoch=3)
    found = [float(rate(step)) for step in range(12)]
    expected = [0.12 * (1 + math.cos(math.pi * (step // 3) / 4)) for step in range(12)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_schedule_is_one_in_both_libraries():
    ours = quality.our_schedule(40, 0.01)
    theirs = [quality.rate_at(step, 40, 0.01) for step in range(40)]
    np.testing.assert_allclose([float(ours(step)) for step in range(40)], theirs, rtol=1e-5, atol=1e-9)
    assert theirs[0] == pytest.approx(0.005)
    assert max(theirs) == pytest.approx(0.01)
    assert theirs[-1] < 1e-4


@pytest.mark.parametrize("name", list(quality.METHODS))
def test_order_of_weights_is_that_of_the_layers(name):
    """A kernel, then the scale and shift of its normalization; where both lose their order, shapes would not tell."""
    model = quality.our_model(name, (28, 28, 1), 0)
    weights = quality.our_weights(model)
    assert len(weights) == len(model.trainable_variables)
    assert {id(weight) for weight in weights} == {id(weight) for weight in model.trainable_variables}
    assert [len(weight.shape) for weight in weights[:6]] == [4, 1, 1, 4, 1, 1]
    filters = [weight.shape[-1] for weight in weights if len(weight.shape) == 4]
    assert filters == [16, 16, 16, 32, 32, 32, 64, 64, 64]


def _batches(folder, count=2):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6 * count, 32, 32, 3), dtype="uint8")
    labels = np.arange(6 * count) % 3
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        rows = slice(count * number, count * (number + 1))
        held = {b"data": images[rows].transpose(0, 3, 1, 2).reshape(count, -1), b"labels": labels[rows].tolist()}
        (folder / name).write_bytes(pickle.dumps(held))
    return images, labels


@pytest.mark.one_backend
def test_cifar10_is_read_as_its_authors_publish_it(tmp_path):
    images, labels = _batches(tmp_path)
    (train, train_labels), (test, test_labels) = cifar10.load(tmp_path)
    np.testing.assert_array_equal(np.concatenate([train, test]), images)
    np.testing.assert_array_equal(np.concatenate([train_labels, test_labels]), labels)
    file = tmp_path / "all.npz"
    np.savez(file, x_train=train, y_train=train_labels[:, None], x_test=test, y_test=test_labels)
    np.testing.assert_array_equal(cifar10.load(file)[0][1], train_labels)


@pytest.mark.one_backend
def test_cifar10_refuses_what_it_can_not_read(tmp_path):
    with pytest.raises(SystemExit, match=r"no folder with data_batch_1.*fetches nothing"):
        cifar10.load(tmp_path)
    with pytest.raises(SystemExit, match="--data"):
        cifar10.main([])
    _batches(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": print}))
    with pytest.raises(pickle.UnpicklingError, match=r"builtins\.print"):
        cifar10.load(tmp_path)
    np.savez(tmp_path / "few.npz", x_train=np.zeros((2, 32, 32, 3), "uint8"))
    with pytest.raises(SystemExit, match="lacks y_train, x_test, y_test"):
        cifar10.load(tmp_path / "few.npz")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(cifar10.ROWS))
def test_cifar10_trains(name, tmp_path, capsys):
    _batches(tmp_path, count=4)
    policy = keras.config.dtype_policy()
    options = [f"--data={tmp_path}", f"--rows={name}", "--epochs=2", "--batch=8", "--width=8"]
    try:
        cifar10.main([*options, f"--output={tmp_path / 'rows.jsonl'}"])
    finally:
        keras.config.set_dtype_policy(policy)
    (row,) = map(json.loads, (tmp_path / "rows.jsonl").read_text("utf-8").splitlines())
    assert len(row["accuracies"]) == 2
    assert np.isfinite(row["losses"]).all()
    assert row["largest"] == max(row["accuracies"])
    assert capsys.readouterr().out.count("not run") == 2 * (len(cifar10.ROWS) - 1)


def _options(folder):
    return types.SimpleNamespace(
        output=str(folder), data="set", image_size=None, images=None, epochs=1, batch=256, methods="SimCLR"
    )


@pytest.mark.one_backend
def test_table_compares_pairs_of_seeds(tmp_path, capsys):
    options = _options(tmp_path)
    lines = []
    for seed in range(3):
        for who, score in (("ours", 0.80 + 0.1 * seed + 0.001 * seed), ("lightly", 0.79 + 0.1 * seed)):
            for name in ("SimCLR", "BYOL")[: 1 if seed else 2]:
                row = {"setting": quality_runs.setting(options), "name": name, "who": who, "seed": seed, "on": who}
                lines.append(json.dumps({**row, "scores": {"kNN, all": score}, "steps": 4, "cpu_seconds": 2.0}))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    quality_runs.print_tables(options)
    out = capsys.readouterr().out
    assert "| SimCLR, ours | 3 | 4 | 0.901 ± 0.101 | 2 |" in out
    # Pairs differ by 1.0, 1.1 and 1.2 points: 1.1, and 0.1 / √3.
    assert "| SimCLR | 3 | **+1.1 ± 0.1** | 1.00 |" in out
    assert "| BYOL | 1 | +1.0 | 1.00 |" in out
    assert "| all of them | 4 | **+1.1 ± 0.0** | 1.00 |" in out
    options.epochs = 2
    quality_runs.print_tables(options)
    assert "no run" in capsys.readouterr().out
