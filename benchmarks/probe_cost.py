"""What callbacks cost: epochs of SimCLR on the sample without any, with KNNProbe, and with CollapseMonitor.

    python benchmarks/probe_cost.py --rounds=5

The three take turns, and each looks after every epoch. Both wall clock and processor time are printed: on a machine
that others share the second is the steadier.
"""

import argparse
import time

import keras
import numpy as np

import keras_ssl


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    data = keras_ssl.data.load("fashion_mnist_sample")
    model = keras_ssl.SimCLR(keras_ssl.backbones.resnet8((28, 28, 1)))
    model.compile(keras.optimizers.AdamW(1e-3))
    kinds = {
        "alone": [],
        "with KNNProbe": [keras_ssl.callbacks.KNNProbe(data.train, data.test)],
        "with CollapseMonitor": [keras_ssl.callbacks.CollapseMonitor(data.test)],
    }

    def epoch(callbacks):
        start, cpu = time.perf_counter(), time.process_time()
        model.fit(data.train.images, batch_size=128, epochs=1, verbose=0, callbacks=callbacks)
        return time.perf_counter() - start, time.process_time() - cpu

    for callbacks in kinds.values():
        epoch(callbacks)  # traced and compiled
    taken = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, callbacks in kinds.items():
            taken[name].append(epoch(callbacks))
    print(f"seconds of an epoch of {len(data.train):,} images, median of {rounds} (smallest to largest)")
    for name, times in taken.items():
        wall, cpu = np.transpose(times)
        more = [100 * (np.median(part) / np.median(base) - 1) for part, base in zip((wall, cpu), zip(*taken["alone"]))]
        print(
            f"  {name:22} wall {np.median(wall):6.2f} ({wall.min():.2f} to {wall.max():.2f}) {more[0]:+5.1f} %   "
            f"processor {np.median(cpu):6.2f} ({cpu.min():.2f} to {cpu.max():.2f}) {more[1]:+5.1f} %"
        )


if __name__ == "__main__":
    main()
