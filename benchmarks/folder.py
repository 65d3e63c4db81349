"""A large folder: how many pictures are listed and checked a second, and the memory of training from disk.

    python benchmarks/folder.py --pictures=100000 --epochs=3

Makes a folder of small JPEG files in ten classes, in a place of its own that is removed at the end. It prints the rate
of listing (each header is read), then trains SimCLR on a part of the folder from disk, with `validation_split` and
without, and prints the memory of the process after each epoch.
"""

import argparse
import os
import pathlib
import resource
import tempfile
import time

import keras
import numpy as np

import keras_ssl
from keras_ssl.data.listing import list_folder
from keras_ssl.data.progress import Progress


def make(folder, count, side, rng):
    """Pictures that differ, but not in their size: 64 of them, each under many names."""
    from PIL import Image

    contents = []
    for number in range(64):
        pixels = rng.integers(0, 256, (side // 8, side // 8, 3), dtype="uint8")
        file = folder / f"source-{number}.jpg"
        Image.fromarray(pixels).resize((side, side)).save(file, quality=80)
        contents.append(file.read_bytes())
        file.unlink()
    for label in range(10):
        (folder / f"class {label}").mkdir()
    for number in range(count):
        (folder / f"class {number % 10}" / f"{number:06}.jpg").write_bytes(contents[number % 64])


def resident():
    """MiB of memory that the process holds now."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


class Memory(keras.callbacks.Callback):
    """Keeps the memory at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.after = []

    def on_epoch_end(self, epoch, logs=None):
        self.after.append(resident())


def train(images, epochs, validation_split):
    model = keras_ssl.SimCLR(keras_ssl.backbones.resnet8((32, 32, 3)))
    model.compile(keras.optimizers.SGD(0.01))
    memory = Memory()
    model.fit(images, batch_size=128, epochs=epochs, validation_split=validation_split, callbacks=[memory], verbose=0)
    return memory.after


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=48, help="pixels of a picture")
    parser.add_argument("--rounds", type=int, default=3, help="times that the folder is listed")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--train_on", type=int, default=6_000, help="pictures of an epoch")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        make(folder, given.pictures, given.side, np.random.default_rng(0))
        for _ in range(given.rounds):
            start, cpu = time.perf_counter(), time.process_time()
            found = list_folder(folder, progress=Progress)
            wall, cpu = time.perf_counter() - start, time.process_time() - cpu
            count = len(found.pictures)
            print(f"listed {count:,} pictures in {wall:.1f} s ({cpu:.1f} s of CPU): {count / wall:,.0f} a second")
        data = keras_ssl.data.load(folder, image_size=32, max_bytes=0)
        rows = np.random.default_rng(0).permutation(len(data.train))[: given.train_on]
        images = data.train.images.only(np.sort(rows))
        for share in (0.0, 0.2):
            after = train(images, given.epochs, share)
            shown = ", ".join(f"{value:,.0f}" for value in after)
            print(f"validation_split={share:g}: {shown} MiB after each of {given.epochs} epochs from disk")
    print(f"peak: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")


if __name__ == "__main__":
    main()
