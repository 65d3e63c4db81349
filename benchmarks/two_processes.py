"""How far runs of several processes are from the run of one: every method of tests/methods_under_test.py.

    KERAS_BACKEND=torch python benchmarks/two_processes.py
    KERAS_BACKEND=torch python benchmarks/two_processes.py --processes=4 --methods=SimCLR,BYOL

Each run is ten steps of SGD with momentum, in batches of 32 of random views, from the same initial weights. A
difference is the largest |a − b| / max(1, |b|) over all weights (of which a teacher and a queue are some), or over all
that is logged.
"""

import argparse
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PATHS = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]


def train(names, initials):
    """What each process does."""
    from methods_under_test import METHODS

    from keras_ssl.testing import everywhere

    return everywhere.train([METHODS[name] for name in names], initials)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--methods", default=None, help="names, separated by commas; all unless given")
    options = parser.parse_args()
    sys.path[:0] = PATHS
    os.environ["PYTHONPATH"] = os.pathsep.join([*PATHS, *filter(None, [os.environ.get("PYTHONPATH")])])

    import keras
    import numpy as np
    from methods_under_test import METHODS

    from keras_ssl import workers
    from keras_ssl.testing.runs import relative_difference

    names = options.methods.split(",") if options.methods else list(METHODS)
    alone = train(names, [None] * len(names))
    initials = [run["initial"] for run in alone]
    backend = keras.backend.backend()
    together = workers.run("two_processes:train", backend, (names, initials), count=options.processes, seconds=1800)
    print(f"{backend}, {options.processes} processes and one\n")
    print("| method | weights | logs | the processes among each other |\n|---|---|---|---|")
    for name, one, *runs in zip(names, alone, *together):
        weights = max(map(relative_difference, runs[0]["weights"], one["weights"]))
        logs = max(relative_difference(runs[0]["history"][log], values) for log, values in one["history"].items())
        equal = all(np.array_equal(a, b) for run in runs[1:] for a, b in zip(run["weights"], runs[0]["weights"]))
        print(f"| {name} | {weights:.1e} | {logs:.1e} | {'bit-equal' if equal else 'DIFFERENT'} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
