"""Trains for a quarter of an hour with all that a long run has, and measures how its memory grows.

    KERAS_BACKEND=torch python benchmarks/soak.py
    KERAS_BACKEND=tensorflow python benchmarks/soak.py --seconds=300 --method=byol

Batches of 16 images of 28×28 with random views, a kNN probe, the collapse monitor, validation, and `Resume`, which
saves after each epoch of 4 steps and every 5 seconds: in minutes it comes by as many epochs, probes and saves as a run
of days. The resident memory is read after each epoch; the slope is that of a line through all of them after the first
half, in MiB per 1,000 epochs, with its standard error. Exit code 1 if it grows by more than 3 MiB per 1,000 epochs and
by more than three standard errors. With `--trim`, glibc gives free memory back to the system every 20 epochs: what
still grows is in use.
"""

import argparse
import ctypes
import os
import pathlib
import sys
import tempfile
import time

from kills import small_backbone

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")

STEPS, BATCH = 4, 16


def resident():
    """Memory of this process, in MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def make_model(name):
    import keras

    import keras_ssl

    keras.utils.set_random_seed(0)
    backbone = small_backbone()
    if name == "byol":
        model = keras_ssl.BYOL(backbone, projector=keras_ssl.heads.mlp([16, 8]))
    else:
        model = keras_ssl.SimCLR(backbone, projector=keras_ssl.heads.mlp([16, 8]), memory=256)
    model.compile(keras.optimizers.Adam(1e-3))
    return model


def main(options):
    import keras
    import numpy as np

    import keras_ssl
    from keras_ssl import callbacks

    data = keras_ssl.data.load("fashion_mnist_sample")
    images, labels = data.train.images[: STEPS * BATCH], data.train.labels[: STEPS * BATCH]
    held, held_labels = data.test.images[:100], data.test.labels[:100]
    end, memory, times, seen = time.monotonic() + options.seconds, [], [], []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if options.trim and epoch % 20:
                return
            if options.trim:
                ctypes.CDLL("libc.so.6").malloc_trim(0)
            seen.append(epoch)
            memory.append(resident())
            times.append(time.monotonic())
            if time.monotonic() > end:
                self.model.stop_training = True

    with tempfile.TemporaryDirectory() as folder:
        make_model(options.method).fit(
            images,
            batch_size=BATCH,
            epochs=10**6,
            validation_data=held[:BATCH],
            callbacks=[
                callbacks.KNNProbe((images, labels), (held, held_labels), k=5),
                callbacks.CollapseMonitor(held),
                callbacks.Resume(pathlib.Path(folder) / "state.npz", every_seconds=5),
                Watch(),
            ],
            verbose=0,
        )
    memory = np.array(memory)
    kept = np.arange(len(memory)) >= len(memory) // 2
    epochs = np.array(seen)[kept]
    (slope, _), covariance = np.polyfit(epochs, memory[kept], 1, cov=True)
    error = 1000 * covariance[0, 0] ** 0.5
    seconds = times[-1] - times[0]
    first, half, last = memory[0], memory[kept][0], memory[-1]
    print(f"backend {keras.backend.backend()}, {options.method}: {seen[-1] + 1:,} epochs in {seconds:.0f} s")
    print(f"resident memory: {first:.0f} MiB after the first epoch, {half:.0f} after a half, {last:.0f} at the end")
    print(f"slope after the first half: {1000 * slope:+.2f} ± {error:.2f} MiB per 1,000 epochs")
    return int(1000 * slope > 3.0 and 1000 * slope > 3.0 * error)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=900.0)
    parser.add_argument("--method", choices=["simclr", "byol"], default="simclr")
    parser.add_argument("--trim", action="store_true")
    sys.exit(main(parser.parse_args()))
