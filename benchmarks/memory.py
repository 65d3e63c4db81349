"""Peak memory and time of a training step against its batch, with and without micro-batches.

    python benchmarks/memory.py                                   # the backend of KERAS_BACKEND; a table
    python benchmarks/memory.py --batches=4096 --rounds=3         # one batch size, plain and micro-batched in turn
    python benchmarks/memory.py --plot=docs/images/memory.png

SimCLR with `resnet8` (0.3 M parameters) on 32×32 images of three channels. Each figure is a process of its own: the
peak of its resident memory during three steps, less what it held before them, when weights, optimizer and images were
in place and a step of two micro-batches had been run, so that what a backend keeps for itself (its pools, its compiled
step) is not counted; and the median time of the steps after the first.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time


def measure(batch, micro, steps):
    """In a process of its own: one configuration."""
    import keras
    import numpy as np

    import keras_ssl

    class Times(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seconds = []

        def on_train_batch_begin(self, batch, logs=None):
            self.start = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])  # on JAX a step is over when its numbers are asked for
            self.seconds.append(time.perf_counter() - self.start)

    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (batch, 32, 32, 3), "uint8")
    model = keras_ssl.SimCLR(keras_ssl.backbones.resnet8((32, 32, 3)))
    model.compile("adam", micro_batch_size=micro or None)
    small = 2 * (micro or 32)
    model.fit(images[:small], batch_size=small, shuffle=False, verbose=0)
    times = Times()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    base = status("VmRSS")
    model.fit(images, batch_size=batch, epochs=steps, shuffle=False, verbose=0, callbacks=[times])
    print(json.dumps({"mib": (status("VmHWM") - base) / 1024, "seconds": statistics.median(times.seconds[1:])}))


def status(name):
    """A line of /proc/self/status, in KiB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))


def child(batch, micro, steps):
    command = [sys.executable, __file__, f"--measure={batch},{micro}", f"--steps={steps}"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    if done.returncode:
        return None if done.returncode < 0 else sys.exit(done.stderr)  # killed: it took more than there is
    return json.loads(done.stdout.splitlines()[-1])


def main(options):
    batches = [int(batch) for batch in options.batches.split(",")]
    rows = []
    print(f"backend {os.environ.get('KERAS_BACKEND', 'tensorflow')}, micro-batches of {options.micro}\n")
    print("| batch | plain, MiB | micro, MiB | ratio | plain, s | micro, s | ratio |\n|---|---|---|---|---|---|---|")
    for batch in batches:
        plain, micro = [], []
        for _ in range(options.rounds):  # in turn, so that a machine that slows down slows both
            plain.append(child(batch, 0, options.steps))
            micro.append(child(batch, options.micro, options.steps))
        row = {"batch": batch}
        for name, runs in (("plain", plain), ("micro", micro)):
            for figure in ("mib", "seconds"):
                row[f"{name}_{figure}"] = statistics.median(run[figure] for run in runs) if all(runs) else float("nan")
        row["spread"] = [[round(run["seconds"], 2) if run else None for run in runs] for runs in (plain, micro)]
        rows.append(row)
        print(
            f"| {batch:,} | {row['plain_mib']:,.0f} | {row['micro_mib']:,.0f} | "
            f"1/{row['plain_mib'] / row['micro_mib']:.1f} | {row['plain_seconds']:.2f} | {row['micro_seconds']:.2f} | "
            f"{row['micro_seconds'] / row['plain_seconds']:.2f} |",
            flush=True,
        )
    print("\nseconds of each round, plain and micro-batched:", *(f"{row['batch']}: {row['spread']}" for row in rows))
    if options.plot:
        plot(rows, options)


def plot(rows, options):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, color in (("plain", "#e07a2f"), ("micro", "#2f6fde")):
        label = "whole batch at once" if name == "plain" else f"micro-batches of {options.micro}"
        axes.plot([r["batch"] for r in rows], [r[f"{name}_mib"] for r in rows], "o-", color=color, label=label)
    axes.set(xlabel="images a batch", ylabel="peak memory of a step, MiB", xscale="log", yscale="log")
    axes.set_xticks([r["batch"] for r in rows], [f"{r['batch']:,}" for r in rows])
    powers = [128 * 2**n for n in range(8) if 128 * 2**n <= 2 * max(r["plain_mib"] for r in rows)]
    axes.set_yticks(powers, [f"{power:,}" for power in powers])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(options.plot, dpi=130)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", default="512,1024,2048,4096", help="separated by commas")
    parser.add_argument("--micro", type=int, default=256, help="images a micro-batch")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--plot", help="a PNG to write")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*map(int, options.measure.split(",")), options.steps)
    else:
        main(options)
