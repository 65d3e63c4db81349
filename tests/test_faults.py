"""What may happen to a run from outside: its disk is full, its process is killed."""

import contextlib
import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import tiny_backbone
from matplotlib.figure import Figure

from keras_ssl import files
from keras_ssl.callbacks.state_file import StateFile

pytestmark = pytest.mark.one_backend

ROOM = 1 << 20  # bytes of the small disk
ROOT = pathlib.Path(__file__).parents[1]


@contextlib.contextmanager
def small_file_system(folder):
    """A disk of 1 MiB, where this process may mount one."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    if os.name == "nt" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a file system; the test beside this one limits the size of files")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def small_files(folder):
    """No file may grow beyond 1 MiB, which the system refuses in the same place as a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def network(width):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(width)])


def noise(count):
    return np.random.default_rng(0).integers(0, 256, count, "uint8")


def save_state(path, count):
    about = {"place": [count, 0], "state": ["a"], "history": {}}
    StateFile(path).write(about, {"0": noise(count)})


def save_figure(path, count):
    side = int(count**0.5 / 2) + 8  # pixels; noise can't be made smaller by the format
    figure = Figure(figsize=(side / 100, side / 100))
    figure.figimage(noise(4 * side * side).reshape(side, side, 4))
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)


WRITERS = {
    "state.npz": save_state,
    "model.keras": lambda path, count: files.save_model(network(count // 20 + 1), path),
    "history.json": lambda path, count: files.write_json(path, [0.5] * (count // 3)),
    "page.html": lambda path, count: files.write_text(path, "<p>" * (count // 3)),
    "figure.png": save_figure,
}


@pytest.mark.parametrize("small", [small_file_system, small_files])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_ends_in_a_sentence_and_loses_nothing(name, small, tmp_path):
    with small(tmp_path):
        path = tmp_path / name
        WRITERS[name](path, 1000)
        kept = path.read_bytes()
        with pytest.raises(OSError, match=rf"{re.escape(str(path))} could not be written: .*; what stood there before"):
            WRITERS[name](path, 4 * ROOM)
        assert path.read_bytes() == kept
        assert [left.name for left in tmp_path.iterdir()] == [name], "nothing half written is left"
        WRITERS[name](path, 2000)  # there is room again
        assert path.read_bytes() != kept


def test_a_state_of_before_lives_where_there_is_room_for_one_alone(tmp_path):
    """The third file of the moment in which a state is written does not fit."""
    with small_file_system(tmp_path):
        path = tmp_path / "state.npz"
        for count in (400_000, 400_001):
            save_state(path, count)
        with pytest.raises(OSError, match="No space left on device"):
            save_state(path, 400_002)
        assert StateFile(path).read()[0]["place"] == [400_001, 0]
        path.write_bytes(b"torn")
        with pytest.warns(UserWarning, match="is damaged"):
            assert StateFile(path).read()[0]["place"] == [400_000, 0]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_said_in_a_sentence(tmp_path):
    path = tmp_path / "model.keras"
    files.save_model(tiny_backbone(), path)
    kept = path.read_bytes()
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OSError, match="could not be written: Permission denied"):
            files.save_model(network(3), path)
        with pytest.raises(OSError, match="can't be written: Permission denied"):
            StateFile(tmp_path / "state").acquire()
    finally:
        tmp_path.chmod(0o700)
    assert path.read_bytes() == kept


def test_a_file_system_that_became_read_only_is_said_in_a_sentence(tmp_path):
    path = tmp_path / "state.npz"
    with small_file_system(tmp_path):
        save_state(path, 1000)
        kept = path.read_bytes()
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with pytest.raises(OSError, match="could not be written: Read-only file system; what stood there before"):
            save_state(path, 2000)
        with pytest.raises(OSError, match="can't be written: Read-only file system"):
            StateFile(path).acquire()
        assert path.read_bytes() == kept


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="the runs are forks, on torch")
def test_runs_that_are_killed_again_and_again_end_as_one_that_is_not():
    command = [sys.executable, ROOT / "benchmarks" / "kills.py", "--methods=simclr", "--kills=4"]
    environment = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": str(ROOT)}
    environment.pop("XLA_FLAGS", None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "4 of 4 kills survived" in done.stdout
