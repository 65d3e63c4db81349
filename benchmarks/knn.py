"""Memory and time of `evaluate.knn` against scikit-learn's brute force.

    python benchmarks/knn.py                     # the table in docs/evaluation.md
    python benchmarks/knn.py --rows 5000 --queries 1000 --rounds 3

Memory is the highest resident memory of a process of its own during the first call, above what the process held before
it, with the libraries loaded and the features and queries there. Time is taken in one process in rounds: each round
runs every line once, so that what else the machine does falls on all of them. CPU seconds are those of all cores; on a
busy machine they tell more than the clock.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np

LINES = ("evaluate.knn", "scikit-learn, cosine", "scikit-learn, Euclidean on unit rows")


def classifier(line, k):
    """`(features, labels, queries) → predicted labels`. The last line gets unit rows, made before the clock starts."""
    if line == "evaluate.knn":
        from keras_ssl import evaluate

        return lambda features, labels, queries: evaluate.knn(features, labels, queries, k=k)
    from sklearn.neighbors import KNeighborsClassifier

    metric = "cosine" if line.endswith("cosine") else "euclidean"
    return lambda features, labels, queries: (
        KNeighborsClassifier(k, algorithm="brute", metric=metric).fit(features, labels).predict(queries)
    )


def problem(rows, queries, width, classes=100):
    """Noisy features of `classes` classes, as a rectified mean of a feature map is: not negative, of any length."""
    generator = np.random.default_rng(0)
    centers = generator.standard_normal((classes, width), "float32")

    def part(count):
        labels = generator.integers(0, classes, count)
        features = generator.standard_normal((count, width), "float32")
        features *= 3.0
        features += centers[labels]
        return np.maximum(features, 0.0, out=features), labels

    (features, labels), (asked, _) = part(rows), part(queries)
    return features, labels, asked


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def measure_memory(line, k, sizes):
    """MiB of one call above what the process held before it, in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps([line, k, sizes])]
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": str(pathlib.Path(__file__).parent.parent),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{line}, k={k}:\n{done.stderr[-3000:]}")
    return float(done.stdout.splitlines()[-1])


def _child(line, k, sizes):
    run = classifier(line, k)
    run(*problem(100 + k, 10, 16))  # thread pools and libraries
    given = list(problem(*sizes))
    if line.endswith("unit rows"):
        given[0], given[2] = unit(given[0]), unit(given[2])
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the highest value starts anew
    base = _memory("VmRSS")
    run(*given)
    print(_memory("VmHWM") - base)


def _memory(name):
    """`VmRSS`, the resident memory, or `VmHWM`, the highest it was, in MiB."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {name}: this benchmark needs Linux.")


def measure_time(k, sizes, rounds):
    """By line, `(seconds by the clock, CPU seconds)` of each round; every round runs all lines."""
    features, labels, queries = problem(*sizes)
    given = dict.fromkeys(LINES, (features, labels, queries))
    given[LINES[2]] = (unit(features), labels, unit(queries))
    runs = {line: classifier(line, k) for line in LINES}
    seconds = {line: [] for line in LINES}
    for line in LINES:
        runs[line](*problem(100 + k, 10, 16))  # thread pools and libraries
    for _ in range(rounds):
        for line in LINES:
            started = time.perf_counter(), time.process_time()
            runs[line](*given[line])
            seconds[line].append((time.perf_counter() - started[0], time.process_time() - started[1]))
    return seconds


def main(rows, queries, width, neighbors, rounds):
    sizes = (rows, queries, width)
    print(f"{rows:,} × {width} features, {queries:,} queries, {os.cpu_count()} cores, {rounds} rounds\n")
    print("| | k | MiB above the inputs | seconds: median (least to most) | CPU seconds |")
    print("|---|---|---|---|---|")
    for k in neighbors:
        seconds = measure_time(k, sizes, rounds)
        for line in LINES:
            clock, cpu = (
                f"{statistics.median(column):.1f} ({min(column):.1f} to {max(column):.1f})"
                for column in zip(*seconds[line])
            )
            print(f"| {line} | {k} | {measure_memory(line, k, sizes):.0f} | {clock} | {cpu} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--neighbors", type=int, nargs="+", default=[20, 200], metavar="K")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = vars(parser.parse_args())
    child = arguments.pop("child")
    _child(*json.loads(child)) if child else main(**arguments)
