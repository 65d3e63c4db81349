"""Kills training with SIGKILL at random steps, again and again, and compares what it ends with to an undisturbed run.

    KERAS_BACKEND=torch python benchmarks/kills.py                  # 36 kills over six methods
    KERAS_BACKEND=jax python benchmarks/kills.py --methods=simclr,byol --kills=15 --seed=1
    KERAS_BACKEND=tensorflow python benchmarks/kills.py --methods=simclr,byol --kills=15

For each method: one run of 4 epochs of 6 steps that nobody disturbs, and one with `Resume` that is killed `--kills`
times, each time at a random step and at a random moment of it, and begun again. Half of the kills aim at the moments in
which a state is written. A kill is survived if the next process goes on from a whole state without a word of damage, at
the place that was saved last or later. At the end all weights, the optimizer's state and the history must be those of
the undisturbed run, to the last bit.

On torch the processes are forks of one that has imported everything; elsewhere each starts anew. What JAX compiled is
kept from one to the next. Exit code 1 if a run differs or does not go on.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / "keras_ssl_kills_jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

EPOCHS, STEPS, BATCH = 4, 6, 16
METHODS = ("simclr", "byol", "barlowtwins", "triplet", "rotation", "exemplar")


def small_backbone():
    """A network of a few weights with batch normalization and dropout."""
    import keras

    layers = [keras.layers.Conv2D(width, 3, 2, activation="gelu") for width in (8, 16)]
    return keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 127.5, -1), *layers]
        + [keras.layers.BatchNormalization(), keras.layers.Dropout(0.1)]
    )


def make_model(name):
    """A method with all that can be lost: batch normalization, dropout, a queue or a teacher, random views."""
    import keras

    import keras_ssl

    keras.utils.set_random_seed(0)
    backbone, head = small_backbone(), keras_ssl.heads.mlp
    make = {
        "simclr": lambda: keras_ssl.SimCLR(backbone, projector=head([16, 8]), memory=100, seed=3),
        "byol": lambda: keras_ssl.BYOL(backbone, projector=head([16, 8]), predictor=head([16, 8], name="p"), seed=3),
        "barlowtwins": lambda: keras_ssl.BarlowTwins(backbone, projector=head([16, 8]), seed=3),
        "triplet": lambda: keras_ssl.Triplet(backbone, projector=head([16, 8]), seed=3),
        "rotation": lambda: keras_ssl.Rotation(backbone, seed=3),
        "exemplar": lambda: keras_ssl.Exemplar(backbone, exemplars=STEPS * BATCH, seed=3),
    }
    model = make[name]()
    model.compile(keras.optimizers.Adam(1e-3))
    return model


def train(name, folder, resumed, told):
    """One run, or the rest of it: writes weights and history into the folder, and a line per step to `told`."""
    import keras
    import numpy as np

    import keras_ssl
    from keras_ssl.callbacks import Resume

    images = keras_ssl.data.load("fashion_mnist_sample").train.images[: STEPS * BATCH]
    model = make_model(name)
    saving = Resume(folder / "state.npz", every_steps=1)
    write = saving.file.write
    saving.file.write = lambda about, arrays: (tell(f"saving {about['place']}"), write(about, arrays), tell("saved"))

    def tell(line):
        told.write(f"{line}\n")
        told.flush()

    steps = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: tell(f"epoch {epoch}"), on_train_batch_begin=lambda batch, logs: tell("step")
    )
    tell("begins")
    history = model.fit(
        images, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=[steps, *([saving] if resumed else [])]
    ).history
    state = [keras.ops.convert_to_numpy(v) for v in [*model.variables, *model.optimizer.variables]]
    np.savez(folder / f"{'killed' if resumed else 'whole'}.npz", *state, history=json.dumps(history))
    tell("ends")


def start(name, folder, resumed):
    """`(process id, what it tells, line by line)` of a child that trains."""
    if os.environ.get("KERAS_BACKEND") == "torch":
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            code = 1
            try:
                os.dup2(os.open(folder / "errors.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
                train(name, folder, resumed, os.fdopen(writer, "w"))
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(writer)
        return child, os.fdopen(reader)
    with open(folder / "errors.txt", "w") as errors:
        command = [sys.executable, __file__, "--child", name, str(folder), str(int(resumed))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    return process.pid, process.stdout


def run(name, folder, resumed, chance=None):
    """Trains in a child; kills it at a random moment where `chance` is given.

    Returns:
        Whether it was killed (before its end).
    """
    child, lines = start(name, folder, resumed)
    wanted, delay, seen = None, 0.0, 0
    if chance is not None:
        kind = chance.choice(["step", "saving"])
        # Few steps at a time: the run is to be killed often before it ends.
        wanted, delay = (kind, chance.randint(1, 4)), chance.uniform(0.0, 0.02 if kind == "step" else 0.003)
    killed = False
    for line in lines:
        if wanted and line.startswith(wanted[0]):
            seen += 1
            if seen == wanted[1]:
                time.sleep(delay)
                os.kill(child, signal.SIGKILL)
                killed = True
                break
    lines.close()
    status = os.waitpid(child, 0)[1]
    if not killed and os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError((folder / "errors.txt").read_text()[-3000:])
    if "damaged" in (folder / "errors.txt").read_text():
        raise RuntimeError(f"a state was damaged: {(folder / 'errors.txt').read_text()[-3000:]}")
    return killed


def place(folder):
    from keras_ssl.callbacks.state_file import StateFile

    found = StateFile(folder / "state.npz").read()
    return tuple(found[0]["place"]) if found else (0, 0)


def compare(name, kills, chance):
    """`(kills, survived, whether the end is the same to the last bit)` of one method."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        run(name, folder, resumed=False)
        done = survived = 0
        before, rounds = (0, 0), 0
        while True:
            killed = run(name, folder, True, chance if done < kills else None)
            survived += done > rounds  # the one before this was killed, and this one went on from it
            rounds = done
            done += killed
            if not killed and done >= kills:
                break
            if not killed:  # it came to its end before the moment: once more from the start
                for path in folder.glob("state.npz*"):
                    path.unlink()
                before = (0, 0)
                continue
            now = place(folder)
            if now < before:
                raise RuntimeError(f"{name}: the state went back from {before} to {now}")
            before = now
        left = [path.name for path in folder.iterdir() if "unfinished" in path.name or path.suffix == ".lock"]
        with np.load(folder / "whole.npz") as whole, np.load(folder / "killed.npz") as other:
            assert whole.files == other.files
            same = all(np.array_equal(whole[key], other[key], equal_nan=whole[key].dtype.kind == "f") for key in whole)
    if left:
        raise RuntimeError(f"{name}: {left} stayed behind")
    return done, survived, same


def main(options):
    if os.environ.get("KERAS_BACKEND") == "torch":  # what all forks need is imported once
        import tensorflow  # noqa: F401

        import keras_ssl.callbacks
        import keras_ssl.data

        keras_ssl.data.load("fashion_mnist_sample")
        for name in METHODS:
            make_model(name)
    chance, backend = random.Random(options.seed), os.environ.get("KERAS_BACKEND", "tensorflow")
    print(f"backend {backend}, {EPOCHS} epochs of {STEPS} steps, saved after each step\n")
    print("| method | kills | survived | weights and history bit-equal | s |\n|---|---|---|---|---|")
    total, failed = [0, 0], False
    for name in options.methods.split(","):
        began = time.monotonic()
        done, survived, same = compare(name, options.kills, chance)
        print(
            f"| {name} | {done} | {survived} | {'yes' if same else 'NO'} | {time.monotonic() - began:.0f} |", flush=True
        )
        total, failed = [total[0] + done, total[1] + survived], failed or not same or done != survived
    print(f"\n{total[1]} of {total[0]} kills survived")
    return int(failed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        train(sys.argv[2], pathlib.Path(sys.argv[3]), bool(int(sys.argv[4])), sys.stdout)
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--methods", default=",".join(METHODS))
        parser.add_argument("--kills", type=int, default=6, help="of each method")
        parser.add_argument("--seed", type=int, default=0)
        sys.exit(main(parser.parse_args()))
