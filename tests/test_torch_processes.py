"""Several torch processes are one process on the global batch, and what breaks that is found. Two processes, gloo."""

import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_ssl
from keras_ssl import workers
from keras_ssl.testing import everywhere
from keras_ssl.testing.runs import TrainedRun

if keras.backend.backend() != "torch":
    pytest.skip("of torch's process groups", allow_module_level=True)

import torch
import torch_runs
from torch import distributed

from keras_ssl.backend import torch_processes

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def alone():
    return torch_runs.everything()


@pytest.fixture(scope="module")
def pair():
    """What two processes did: a list of two."""
    return workers.run("tests.torch_runs:everything", "torch")


def trained(result):
    return TrainedRun(None, result["history"], result["weights"])


@pytest.mark.slow
@pytest.mark.parametrize("name", torch_runs.TRAININGS)
def test_two_processes_train_as_one_does(name, alone, pair):
    name = f"trained: {name}"
    everywhere._check_pair(*(trained(one[name]) for one in pair), trained(alone[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", torch_runs.MUTATIONS)
def test_what_is_broken_fails_the_check_of_two_workers(name, alone, pair):
    with pytest.raises(AssertionError, match="two workers"):
        everywhere._check_pair(*(trained(one[f"broken: {name}"]) for one in pair), trained(alone["trained: plain"]))


@pytest.mark.slow
def test_statistics_of_a_process_are_saved_as_the_mean_of_all(pair):
    for a, b in zip(*(one["statistics of each"] for one in pair), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_run_begins_with_the_weights_of_process_0(pair):
    first, _ = pair[0]["before and after"]
    for _, after in (one["before and after"] for one in pair):
        for a, b in zip(after, first, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("a batch that does not divide", "batch of 33 images .* 2 replicas: make it 32 or 34"),
        ("jit_compile", "jit_compile=True in several torch processes"),
        ("a callback that assigns in one", "fit: after the first step the variable .*kernel is not the same in all 2"),
        ("evaluate of two models", "evaluate: the variable .*kernel is not the same in all 2 processes"),
    ],
)
def test_what_can_not_be_right_is_refused_in_each_process(what, sentence, pair):
    for one in pair:
        assert re.search(sentence, str(one["refusals"][what]))


@pytest.mark.slow
def test_rows_and_sums_and_their_gradients_are_everybodys(pair):
    x = np.array([[1.0, 0.0], [2.0, 3.0]])
    for one in pair:
        for dtype, ((rows, *sums), gradients) in one["exchanged"].items():
            expected = np.concatenate([x, x + 1])
            np.testing.assert_array_equal(rows, expected != 0 if dtype == "bool" else expected)
            for total, of in zip(sums, (x, x[0])):
                np.testing.assert_array_equal(total, 2 * of + 1)
            # Process 0 takes its loss once and process 1 twice: each row gets three.
            assert all((gradient == 3).all() for gradient in gradients)


@pytest.mark.slow
def test_loaders_with_a_sampler_for_each_process_are_its_share(alone, pair):
    for one in pair:
        np.testing.assert_allclose(one["loaders"], alone["loaders"], rtol=1e-6)


@pytest.mark.slow
def test_where_a_process_has_died_the_others_say_so():
    with pytest.raises(RuntimeError) as raised:
        workers.run("tests.torch_runs:ends", "torch", seconds=100)
    assert "Process 0 of 2 could not meet the others: one of them has failed or is late" in str(raised.value)


@pytest.mark.slow
def test_the_script_of_the_page_trains_and_saves(sample, tmp_path):
    page = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```text\n(# train\.py\nimport os\n.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    # As it stands, but for a small network and few steps.
    smaller = {"resnet18(images.shape[1:])": "resnet8(images.shape[1:], width=4)", "1024": "32", "=100": "=2"}
    for large, small in smaller.items():
        assert large in script
        script = script.replace(large, small)
    (tmp_path / "train.py").write_text(script)
    np.savez(tmp_path / "photos.npz", x_train=sample.train.images[:96], y_train=sample.train.labels[:96])
    environment = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "train.py"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "ProcessGroup, 2 replicas in 2 processes: a global batch of 32 images, 16 per replica" in done.stdout
    assert done.stdout.count("replicas") == 1, "one process speaks"
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"train.py", "photos.npz", "state.npz", "state.npz.previous", "model.keras"}
    assert int(keras.ops.convert_to_numpy(keras.models.load_model(tmp_path / "model.keras").step)) == 6


# In one process.


@pytest.fixture
def group(tmp_path):
    """A process group of one process."""
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_a_group_of_one_process_changes_nothing(group, images):
    model = torch_runs.make_model()
    model.compile(keras.optimizers.SGD(0.01))
    model.fit(images, batch_size=16, verbose=0)
    assert "apply" not in vars(model.optimizer)
    assert len(model.predict(images[:3], verbose=0)) == 3


def test_a_process_meets_nobody_outside_of_a_step(monkeypatch):
    # One of them may be alone there: a probe in process 0.
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 4)
    monkeypatch.setattr(distributed, "get_rank", lambda: 3)
    assert keras_ssl.distribute.replicas() == 1
    assert keras_ssl.distribute.row_offset(5) == 0
    with torch_processes.step_scope():
        assert keras_ssl.distribute.replicas() == 4
        assert keras_ssl.distribute.row_offset(5) == 15
        assert torch_processes.by_oneself(keras_ssl.distribute.replicas)() == 1
        assert keras_ssl.distribute.replicas() == 4
    assert keras_ssl.distribute.replicas() == 1


@pytest.fixture
def two(monkeypatch):
    """As in a step of two processes that always have the same: what they sum is twice what one has."""
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(distributed, "all_reduce", lambda x: x.mul_(2))
    with torch_processes.step_scope():
        yield


@pytest.mark.parametrize("bucket", [1, 4, 100])
def test_gradients_are_summed_in_their_places_and_what_nobody_has_stays_away(two, bucket, monkeypatch):
    monkeypatch.setattr(torch_processes, "_BUCKET", bucket)
    gradients = [torch.ones(3), None, torch.full((2, 2), 2.0), torch.tensor(3.0, dtype=torch.float16)]
    variables = [torch.zeros(3), torch.zeros(5), torch.zeros(2, 2), torch.tensor(0.0, dtype=torch.float16)]
    a, nothing, b, c = torch_processes._summed_gradients(gradients, variables)
    assert nothing is None
    assert (a == 2).all()
    assert (b == 4).all()
    assert b.shape == (2, 2)
    assert c == 6
    assert c.dtype == torch.float16


def test_a_copy_of_an_optimizer_sums_its_own_gradients(two):
    import copy

    optimizer = keras.optimizers.SGD(1.0)
    torch_processes.sum_gradients(optimizer)
    torch_processes.sum_gradients(optimizer)
    other = copy.deepcopy(optimizer)
    assert other.apply.__self__ is other
    for one in (optimizer, other, keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0))):
        torch_processes.sum_gradients(one)
        weight = keras.Variable(np.zeros(2))
        gradient = keras.ops.convert_to_tensor([1.0, 2.0]) * getattr(one, "initial_scale", 1.0)
        one.apply([gradient], [weight])
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weight), [-2.0, -4.0])


def test_a_meeting_that_fails_ends_in_a_sentence(two, monkeypatch):
    def fails(with_words):
        def all_reduce(x):
            raise RuntimeError(with_words)

        monkeypatch.setattr(distributed, "all_reduce", all_reduce)
        return keras_ssl.distribute.global_sum(torch.ones(1))

    with pytest.raises(RuntimeError, match=r"Process 0 of 2 could not meet.*Resume.*`timeout`.*closed by peer"):
        fails("Connection closed by peer")
    with pytest.raises(RuntimeError, match=r"Two processes use one GPU: call torch\.cuda\.set_device"):
        fails("Duplicate GPU detected : rank 0 and rank 1")


def test_nccl_without_a_gpu_for_each_process_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "get_backend", lambda: "nccl")
    with pytest.raises(ValueError, match=r'"nccl", .* computes on "cpu": write .*init_process_group\("gloo"\)'):
        torch_processes.check_group_devices("cpu")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"4 processes and 2 GPUs on this host.*--nproc_per_node=2"):
        torch_processes.check_group_devices("cuda")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    torch_processes.check_group_devices("cuda")
    monkeypatch.setattr(distributed, "get_backend", lambda: "gloo")
    torch_processes.check_group_devices("cpu")


def test_a_wrapper_that_keras_would_make_is_declined():
    class Model:
        ddp_model = None

    model = Model()
    torch_processes.keep_unwrapped(model)
    assert model.ddp_model is False, "`self.ddp_model or self` is the model, and `is None` does not hold"
    torch_processes.keep_unwrapped(object())  # Keras 3.15
