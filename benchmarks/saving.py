"""What it costs to save the state of a run: its size, the time of a save, and the share of the time at an interval.

    KERAS_BACKEND=torch python benchmarks/saving.py
    KERAS_BACKEND=torch python benchmarks/saving.py --folder=/mnt/slow --every=600

SimCLR with `AdamW`: weights and two moments. A save writes the file, reads it again for its checksum, and waits until
it has reached the disk. The share is that of `keras-ssl pretrain`, which saves each 180 seconds; `Resume` saves less
often where a save takes more than 3 % of that.
"""

import argparse
import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main(options):
    import keras
    import numpy as np

    import keras_ssl
    from keras_ssl.callbacks import Resume

    print(f"backend {keras.backend.backend()}, a save every {options.every} s\n")
    print("| backbone | state, MB | a save, s (median of 5, largest) | share of the time |\n|---|---|---|---|")
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), "uint8")
    for name in ("resnet8", "resnet18"):
        model = keras_ssl.SimCLR(getattr(keras_ssl.backbones, name)((32, 32, 3)))
        model.compile(keras.optimizers.AdamW(1e-3))
        seconds = []

        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            path = pathlib.Path(folder) / "state.npz"
            saving = Resume(path)
            model.fit(images, batch_size=4, epochs=1, verbose=0, callbacks=[saving])
            for _ in range(6):
                start = time.perf_counter()
                saving._save(1, 0)
                seconds.append(time.perf_counter() - start)
            size = path.stat().st_size / 1e6
        median = statistics.median(seconds[1:])
        print(f"| {name} | {size:.0f} | {median:.2f}, {max(seconds):.2f} | {median / options.every:.2%} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="where the state is written (default: that of temporary files)")
    parser.add_argument("--every", type=float, default=180.0)
    main(parser.parse_args())
