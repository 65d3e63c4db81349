"""A run that was cut off, and goes on, ends as one that was not."""

import os
import signal
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from conftest import tiny_backbone
from methods_under_test import light_views

import keras_ssl
from keras_ssl.callbacks import Resume
from keras_ssl.callbacks.state_file import StateFile


def byol():
    """A method with all that can be lost: teacher, momentum's step, batch normalization, dropout, Keras' own draws."""
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential([tiny_backbone(), keras.layers.BatchNormalization(), keras.layers.Dropout(0.1)])
    heads = {name: keras_ssl.heads.mlp([16, 8], name=name) for name in ("projector", "predictor")}
    views = keras_ssl.augment.Views([keras.layers.RandomFlip(seed=1)], [keras_ssl.augment.RandomResizedCrop(28)])
    model = keras_ssl.BYOL(backbone, views=views, momentum=0.9, seed=4, **heads)
    model.compile(keras.optimizers.Adam(1e-3))
    return model


def simclr():
    keras.utils.set_random_seed(0)
    model = keras_ssl.SimCLR(tiny_backbone(), light_views(), memory=64, seed=2)
    model.compile(keras.optimizers.Adam(1e-3))
    return model


def state(model):
    return [np.array(keras.ops.convert_to_numpy(v)) for v in [*model.variables, *model.optimizer.variables]]


class CutOff(keras.callbacks.Callback):
    """Presses Ctrl-C while a batch runs."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.epoch, self.batch = epoch, batch

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.now, batch) == (self.epoch, self.batch):
            os.kill(os.getpid(), signal.SIGINT)


def fit(model, images, *callbacks, epochs=3, batch_size=16):
    return model.fit(images, batch_size=batch_size, epochs=epochs, callbacks=[*callbacks], verbose=0).history


@pytest.mark.parametrize(
    ("make", "cut"),
    [
        pytest.param(byol, (0, 1), id="in the first epoch"),
        pytest.param(simclr, (1, 3), id="at the last batch of an epoch"),
        pytest.param(simclr, (1, 1), id="in an epoch", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(make, cut, images, tmp_path):
    whole = make()
    history = fit(whole, images)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(make(), images, Resume(tmp_path / "state"), CutOff(*cut))
    assert signal.getsignal(signal.SIGINT) is handler, "Ctrl-C works as before once fit has ended"
    resumed = make()
    for variable in resumed.trainable_variables:  # whatever a new process begins with
        variable.assign(variable + 0.5)
    assert fit(resumed, images, Resume(tmp_path / "state")) == history
    for a, b in zip(state(whole), state(resumed)):
        np.testing.assert_array_equal(a, b)


def test_averaged_weights_wait_for_the_end_of_the_run(images, tmp_path):
    """Keras puts an optimizer's moving average into the weights where a fit ends; the rest of an epoch is no end."""

    def averaging():
        model = simclr()
        model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5))
        return model

    whole, resumed = averaging(), averaging()
    probe = keras_ssl.callbacks.KNNProbe((images, np.arange(64) % 4), (images, np.arange(64) % 4), every=3, k=3)
    history = fit(whole, images, probe)
    with pytest.raises(KeyboardInterrupt):
        fit(averaging(), images, Resume(tmp_path / "state"), CutOff(1, 1))
    assert fit(resumed, images, Resume(tmp_path / "state"), probe) == history, "probed at the last epoch alone"
    for a, b in zip(state(whole), state(resumed)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras runs one step at a time on torch")
def test_steps_in_one_call_that_do_not_divide_the_epoch_are_not_counted_past_its_end(images, tmp_path):
    def by_three():
        model = simclr()
        model.compile(keras.optimizers.Adam(1e-3), steps_per_execution=3)
        return model

    monitor = keras_ssl.callbacks.CollapseMonitor(images, every=None, every_steps=4)
    with pytest.raises(KeyboardInterrupt):
        fit(by_three(), images, Resume(tmp_path / "state"), monitor, CutOff(1, 3))
    assert [step for step, _ in monitor.values] == [4, 8]
    assert len(fit(by_three(), images, Resume(tmp_path / "state"))["loss"]) == 3


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="a callback can't reach into a compiled step's state")
def test_what_is_broken_never_replaces_what_is_sound(images, tmp_path):
    class Break(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2:
                kernel = self.model.backbone.trainable_variables[0]
                kernel.assign(kernel * float("nan"))

    model = simclr()
    with pytest.raises(FloatingPointError):
        fit(model, images, Resume(tmp_path / "state", every_steps=1), Break())
    with np.load(tmp_path / "state") as file:
        assert all(np.isfinite(file[name]).all() for name in file.files if file[name].dtype.kind == "f")


def test_a_run_that_is_done_is_not_done_again(images, tmp_path):
    model = simclr()
    beside = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(beside=epoch))
    history = fit(model, images, Resume(tmp_path / "state"), beside, epochs=2)
    assert history["beside"] == [0.0, 1.0], "Resume keeps what the others log, wherever it stands"
    before = state(model)
    refused = []

    def run_beside():  # the run itself is done, and still holds its file
        with pytest.raises(BlockingIOError, match="being written by another run"):
            Resume(tmp_path / "state").file.acquire()
        refused.append(True)

    longer = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: run_beside())
    assert fit(model, images, Resume(tmp_path / "state"), epochs=2) == history
    for a, b in zip(before, state(model)):
        np.testing.assert_array_equal(a, b)
    longer = fit(model, images, Resume(tmp_path / "state"), longer, epochs=3)
    assert longer["loss"][:2] == history["loss"]
    assert len(longer["loss"]) == 3
    assert refused == [True], "a second run on the file of the first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state", "state.previous"], "the lock is given up"


def test_a_damaged_state_is_named_and_the_one_before_it_used(images, tmp_path):
    model = simclr()
    history = fit(model, images, Resume(tmp_path / "state"), epochs=2)
    content = bytearray((tmp_path / "state").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "state").write_bytes(content)
    before = state(model)
    for variable in model.trainable_variables:
        variable.assign(variable + 0.5)
    with pytest.warns(UserWarning, match="state is damaged.* 1 epochs and 0 batches are done"):
        assert fit(model, images, Resume(tmp_path / "state"), epochs=2) == history
    for a, b in zip(before, state(model)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.one_backend
def test_a_full_disk_ends_the_run_and_keeps_the_states(images, tmp_path, monkeypatch):
    import errno

    model = simclr()
    fit(model, images, Resume(tmp_path / "state"), epochs=1)
    kept = (tmp_path / "state").read_bytes()

    def full(file, **arrays):
        file.write(b"PK")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="state could not be written: No space left on device; what stood there before"):
        fit(model, images, Resume(tmp_path / "state"), epochs=2)
    assert (tmp_path / "state").read_bytes() == kept
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.one_backend
def test_saving_by_time_takes_a_share_of_it_at_most(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("keras_ssl.callbacks.resume.time.monotonic", lambda: now[0])
    resume = Resume(tmp_path / "state", every_seconds=60)
    with resume.during_run():
        now[0] += 59
        assert not resume._is_time()
        now[0] += 1
        assert resume._is_time()
        resume._cost = 6.0  # seconds that a slow disk took
        now[0] += 139
        assert not resume._is_time()
        now[0] += 1.1
        assert resume._is_time()
    assert not Resume(tmp_path / "state")._is_time()


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_from_the_last_save(images, tmp_path):
    """kill -9 between two saves: what was done since is done again, and the end is the same."""
    code = """
        import os, signal, sys
        sys.path.insert(0, sys.argv[2])
        import conftest, keras, test_resume
        from keras_ssl.callbacks import Resume
        from keras_ssl.data import load
        class Killed(test_resume.CutOff):
            def on_train_batch_begin(self, batch, logs=None):
                if (self.now, batch) == (self.epoch, self.batch):
                    os.kill(os.getpid(), signal.SIGKILL)
        images = load("fashion_mnist_sample").train.images[:64]
        test_resume.fit(test_resume.simclr(), images, Resume(sys.argv[1], every_steps=2), Killed(1, 3))
    """
    arguments = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "state"), os.path.dirname(__file__)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    resumed, whole = simclr(), simclr()
    history = fit(resumed, images, Resume(tmp_path / "state"))
    for name, values in fit(whole, images).items():
        assert values == pytest.approx(history[name], rel=1e-5), name
    for a, b in zip(state(whole), state(resumed)):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_size": 32}, "batch_size 16, now 32"),
        ({"model": byol}, "model SimCLR, now BYOL"),
        ({"images": slice(0, 48)}, "steps 4, now 3"),
    ],
    ids=["batch size", "method", "images"],
)
def test_the_state_of_another_run_is_refused(change, words, images, tmp_path):
    fit(simclr(), images, Resume(tmp_path / "state"), epochs=1)
    model, kept = change.get("model", simclr)(), (tmp_path / "state").read_bytes()
    with pytest.raises(ValueError, match=words):
        fit(
            model,
            images[change.get("images", slice(None))],
            Resume(tmp_path / "state"),
            batch_size=change.get("batch_size", 16),
        )
    assert (tmp_path / "state").read_bytes() == kept


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({"backend": "another"}, "written on the another backend.*KERAS_BACKEND=another"),
        ({"backend": keras.backend.backend()}, "another run.*other shapes or types"),
        ({}, "another run.*other shapes or types"),
    ],
    ids=["another backend", "this backend", "a state that does not say"],
)
def test_variables_of_another_backend_are_told_from_those_of_another_run(written, words, images, tmp_path):
    fit(simclr(), images, Resume(tmp_path / "state"), epochs=1)
    about, arrays, _ = StateFile(tmp_path / "state").read()
    assert about.pop("backend") == keras.backend.backend()
    # On another backend the seeds of Keras' generators are of another type.
    others = ["(2,) float64" if kind.startswith("(2,)") else kind for kind in about["state"]]
    StateFile(tmp_path / "state").write({**about, **written, "state": others}, arrays)
    with pytest.raises(ValueError, match=words):
        fit(simclr(), images, Resume(tmp_path / "state"))
    StateFile(tmp_path / "state").write({**about, **written}, arrays)
    assert len(fit(simclr(), images, Resume(tmp_path / "state"), epochs=2)["loss"]) == 2


@pytest.mark.slow
def test_a_stream_is_resumed_after_whole_epochs_alone(images, tmp_path):
    import tensorflow as tf

    stream = tf.data.Dataset.from_tensor_slices(images).batch(16, drop_remainder=True)
    with pytest.raises(ValueError, match="every_steps"):
        simclr().fit(stream, epochs=1, verbose=0, callbacks=[Resume(tmp_path / "state", every_steps=2)])
    whole, cut = simclr(), simclr()
    whole.fit(stream, epochs=3, verbose=0)
    cut.fit(stream, epochs=1, verbose=0, callbacks=[Resume(tmp_path / "state")])
    resumed = simclr()
    resumed.fit(stream, epochs=3, verbose=0, callbacks=[Resume(tmp_path / "state")])
    for a, b in zip(state(whole), state(resumed)):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("every", [0, 1.5])
def test_senseless_intervals_are_refused(every, tmp_path):
    with pytest.raises(ValueError, match="every_steps"):
        Resume(tmp_path / "state", every_steps=every)
    with pytest.raises(ValueError, match="every_seconds"):
        Resume(tmp_path / "state", every_seconds=-every)
