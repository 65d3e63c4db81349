"""Several processes that train one model are one process on the global batch. Two local workers, on each backend."""

import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import worker_runs

from keras_ssl import workers
from keras_ssl.testing import everywhere
from keras_ssl.testing.runs import TrainedRun

BACKEND = keras.backend.backend()
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone():
    return worker_runs.train()


@pytest.fixture(scope="module")
def pair(alone, tmp_path_factory):
    """What two workers did: a list of two."""
    arguments = (alone["initial"], str(tmp_path_factory.mktemp("run")))
    return workers.run("tests.worker_runs:everything", BACKEND, arguments)


def close(one, other, tolerance=1e-5):
    for a, b in zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_two_workers_are_one_process_on_the_global_batch(alone, pair):
    one, other = (worker["train"] for worker in pair)
    assert int(one["step"]) == worker_runs.STEPS
    close(one["weights"], other["weights"], 0)
    close(one["history"], other["history"], 0)
    for name in ("weights", "history", "evaluated", "features"):
        close(one[name], alone[name])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere rows are numbered over all devices")
def test_two_workers_of_two_devices_see_the_rows_of_one_process(alone):
    one, other = workers.run(
        "tests.worker_runs:train", BACKEND, (alone["initial"],), before="tests.worker_runs:two_devices"
    )
    close(one["weights"], other["weights"], 0)
    close(one["weights"], alone["weights"])
    close(one["history"], alone["history"])


def test_data_that_would_train_images_twice_or_not_at_all_are_refused(pair):
    for worker in pair:
        said = {name: str(sentence) for name, sentence in worker["refusals"].items()}
        assert "not the same in all 2 processes: the images differ" in said["an array of its own"]
        assert "batch_size is [16, 18]" in said["another batch size"]
        assert "extract_features" in said["predict"]
        if BACKEND != "tensorflow":
            assert "the same in several processes" in said["a stream that is the same in all"]
            assert said["a stream of its own"] == ""
        else:
            assert said["a stream that is the same in all"] == ""
            assert "the images differ" in said["a stream of its own"]


def test_a_run_that_was_cut_off_ends_as_one_that_was_not(pair):
    for worker in pair:
        assert worker["resumed"]["interrupted"], "Ctrl-C in process 0 ends all of them"
        assert [str(name) for name in worker["resumed"]["saved"]] == ["state", "state.previous"]
        for a, b in zip(worker["resumed"]["weights"], worker["train"]["weights"], strict=True):
            np.testing.assert_array_equal(a, b)
        for name, values in worker["resumed"]["history"].items():
            assert values == worker["train"]["history"][name], name


def test_processes_that_would_not_continue_from_one_place_are_refused(pair):
    for worker in pair:
        said = worker["resumed"]
        assert "process 1 has no file" in str(said["no file"])
        assert "process 0 is after 1 epochs and 2 batches, process 1 is after 1 epochs and 0" in str(said["older file"])
    assert "failed in process 1 of 2" in str(pair[0]["resumed"]["torn"])
    assert "is damaged" in str(pair[1]["resumed"]["torn"])


@pytest.mark.skipif(BACKEND != "jax", reason="a setting of keras.distribution")
def test_keras_own_cutting_of_data_sets_is_refused(pair):
    for worker in pair:
        assert "auto_shard_dataset=False" in str(worker["auto_sharding"])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a repair of TensorFlow's strategy")
def test_keras_still_needs_the_repair_of_several_workers(pair):
    # When this fails, Keras does without: take distribute.repair out.
    assert all(bool(worker["needs_repair"]) for worker in pair)


def test_a_method_is_checked_in_two_workers(tmp_path, monkeypatch):
    run, made = workers.run, []

    def remember(*arguments, **options):
        made[:] = made or [run(*arguments, **options)]
        return made[0]

    monkeypatch.setattr(workers, "run", remember)  # the second check compares the same runs with others
    (alone,) = everywhere.train([worker_runs.make_model], [None])
    spec, said = "tests.worker_runs:make_model", []
    checked = everywhere.Everywhere([spec], tmp_path, echo=said.append)
    np.savez(checked.folders[spec] / "initial.npz", *alone["initial"])

    def check(weights):
        kept = checked.folders[spec] / f"{BACKEND}.npz"
        everywhere.write_run(kept, TrainedRun(None, alone["history"], weights))
        checked.check_workers(BACKEND)
        return checked.results[spec, BACKEND][-1]

    assert check(alone["weights"]).verdict == "passed"
    assert said[0].startswith(f"{spec} on {BACKEND}: two_workers: passed")
    # This network is smooth: rounding excuses nothing.
    monkeypatch.setattr(checked, "rounding", lambda spec, backend: {"weights": 1e-6})
    result = check([weight * 1.001 for weight in alone["weights"]])
    assert result.verdict == "failed"
    assert "two workers and one process" in result.detail


def test_two_workers_of_the_tutorial_print_one_loss_and_careless_ones_another():
    root = pathlib.Path(__file__).parent.parent
    command = [sys.executable, str(root / "examples" / "render.py"), "two_workers", "--set", "STEPS=2"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)})
    assert done.returncode == 0, done.stderr[-2000:]
    one = re.findall(r"one process: mean loss .*: ([0-9.]+)", done.stderr)
    gathered, careless = (
        re.findall(rf"{who} \d: .*?([0-9.]+)$", done.stderr, re.M) for who in (r"\| worker", "careless worker")
    )
    assert len(gathered) == len(careless) == 2
    assert float(gathered[0]) == float(gathered[1]) == pytest.approx(float(one[0]), abs=2e-6)
    if BACKEND == "jax":  # one program over the global batch: each row of it is there without being gathered
        assert float(careless[0]) == float(gathered[0])
    else:
        assert float(careless[0]) < float(gathered[0]) - 0.5


def test_a_worker_that_fails_is_shown_with_what_it_wrote():
    with pytest.raises(RuntimeError, match="no_such_function"):
        workers.run("tests.worker_runs:no_such_function", BACKEND, count=1)
