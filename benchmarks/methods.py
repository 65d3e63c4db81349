"""What each method is worth for equal processor time: its features against raw pixels and the untrained network.

    python benchmarks/methods.py --data=fashion_mnist_sample
    python benchmarks/methods.py --data=clothes_sample --processes=16
    python benchmarks/methods.py --methods=BYOL,Jigsaw --seeds=1 --seconds=5     # a few rows, to try
    python benchmarks/methods.py --methods=DINO --rates=3e-4,1e-3,3e-3           # a row for each rate
    python benchmarks/methods.py --methods=VICReg --arguments='{"variance_weight": 50.0}' --output=runs/tried
    python benchmarks/methods.py --data=clothes_sample --table                   # what is there, nothing trained

Each run is a process of its own with `--threads` threads, on cores of its own. It trains `--seconds` of processor time
by the small recipe of its method, batches of 128: some steps are timed first, so that the schedule ends when the time
is up. Tracing and compiling, until the end of the first step, are not counted. Then it runs a linear probe and kNN on
frozen features, on the 2×2 grid of the map, with five draws of labels. Its figures are kept in `--output`, so that what
was cut off goes on with the runs that are missing. `KERAS_BACKEND` chooses the backend.
"""

import argparse
import concurrent.futures
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import queue
import subprocess
import sys
import time

import numpy as np

DRAWS, BATCH = 5, 128
PIXELS = "raw pixels"
UNTRAINED = {"resnet": "untrained resnet", "vit": "untrained vit"}
COLUMNS = [f"{probe}, {count}" for probe in ("linear", "kNN") for count in ("10 per class", "100 per class", "all")]
GAINS = ("linear, 10 per class", "linear, all", "kNN, all")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row: the class, and what differs from its small recipe.

    Args:
        method: name of the class.
        network: "resnet" or "vit".
        rate: the peak of the learning rate; None for the recipe's.
        images: how many to train on; None for all.
        arguments: of `(backbone, image shape)`: arguments beside those of the recipe.
        open_size: a backbone for images of any size, as methods need that cut patches or crops of their own size.
    """

    method: str
    network: str = "resnet"
    rate: float | None = None
    images: int | None = None
    arguments: object = lambda backbone, shape: {}
    open_size: bool = False


ENTRIES = {
    "Siamese": Entry("Siamese"),
    "Triplet": Entry("Triplet"),
    "SimCLR": Entry("SimCLR"),
    "NNCLR": Entry("NNCLR"),
    "MoCo": Entry("MoCo"),
    "MoCoV3": Entry("MoCoV3"),
    "MoCoV3, vit": Entry("MoCoV3", "vit", rate=1e-3),
    "BYOL": Entry("BYOL"),
    "SimSiam": Entry("SimSiam"),
    "BarlowTwins": Entry("BarlowTwins"),
    "VICReg": Entry("VICReg"),
    "TiCo": Entry("TiCo"),
    "MMCR": Entry("MMCR"),
    "LeJEPA": Entry("LeJEPA"),
    "SwAV": Entry("SwAV"),
    "DINO": Entry("DINO"),
    "DINO, vit": Entry("DINO", "vit", rate=1e-3),
    "IBOT, vit": Entry("IBOT", "vit", rate=1e-3),
    "MAE, vit": Entry("MAE", "vit", rate=1e-3),
    "SimMIM, vit": Entry("SimMIM", "vit", rate=1e-3),
    "Rotation": Entry("Rotation"),
    "Distortion": Entry("Distortion"),
    # Ten thousand classes that come sixteen times each are not learned at all: its loss stayed at ln 10,000.
    "Exemplar": Entry("Exemplar", images=2_000),
    "RelativePatch": Entry("RelativePatch", open_size=True),
    "Jigsaw": Entry("Jigsaw", open_size=True),
}


# One run, in a process of its own.


class Clock:
    """Processor time at the end of each step of a model; ends its run after `seconds`, if they are given."""

    def __init__(self, model, seconds=None):
        self.model, self.seconds = model, seconds
        self.times = []

    def fit(self, images, epochs, steps):
        """The history of `epochs` times `steps` steps; each epoch draws its images anew from all."""
        import keras

        ticks = keras.callbacks.LambdaCallback(on_train_batch_end=self._tick)
        self.began = time.process_time()
        options = {"batch_size": BATCH, "epochs": epochs, "steps_per_epoch": steps, "verbose": 0}
        return self.model.fit(images, callbacks=[ticks], **options).history

    def _tick(self, batch, logs):
        self.times.append(time.process_time())
        if self.seconds is not None and len(self.times) > 8 and self.times[-1] - self.times[2] > self.seconds:
            self.model.stop_training = True

    @property
    def step(self):
        """Processor seconds of a step, without the first ones, which trace and compile."""
        first = min(2, len(self.times) - 2)
        return (self.times[-1] - self.times[first]) / (len(self.times) - 1 - first)


def network(kind, shape, open_size=False):
    """A small network for images of a shape."""
    from keras_ssl import backbones

    if kind == "vit":  # 7×7 or 8×8 tokens
        return backbones.vit(shape, patch_size=4 if min(shape[:2]) < 48 else 8, width=96, depth=4, heads=4)
    return backbones.resnet8((None, None, shape[-1]) if open_size else shape)


def given(text, shape):
    """The arguments of `--arguments`: Python, in which `keras_ssl` and the `shape` of an image are known."""
    import keras_ssl

    return eval(text, {"keras_ssl": keras_ssl, "shape": shape}) if text else {}


def model_of(entry, shape, images, seed, epochs, steps, rate, tried=""):
    """`(model, compiled to end its schedule after epochs × steps; the rate)`; `tried` goes before the recipe's."""
    import keras

    import keras_ssl
    from keras_ssl.recipes import recipe

    method = getattr(keras_ssl, entry.method)
    keras.utils.set_random_seed(seed)
    backbone = network(entry.network, shape, entry.open_size)
    chosen = recipe(method, shape, images, BATCH, epochs, source="small")
    arguments = {"views": chosen.views, **chosen.arguments, **entry.arguments(backbone, shape), **given(tried, shape)}
    model = method(backbone, seed=seed, **arguments)
    # An epoch has as many steps as fit the budget, not all of a pass.
    timed = recipe(method, shape, steps * BATCH, BATCH, epochs, source="small")
    timed.learning_rate = rate or entry.rate or timed.learning_rate
    model.compile(timed.optimizer)
    return model, timed.learning_rate


def trained(entry, images, seed, seconds, rate, tried=""):
    """`(backbone, figures of its training)`."""
    shape, in_a_pass = images.shape[1:], max(1, len(images) // BATCH)
    model, _ = model_of(entry, shape, len(images), seed, 1, in_a_pass, rate, tried)
    timed = Clock(model, seconds=max(0.5, seconds / 20))
    timed.fit(images, 8, in_a_pass)
    steps = max(1, round(seconds / timed.step))
    epochs = -(-steps // in_a_pass)
    steps = max(1, round(steps / epochs))
    model, rate = model_of(entry, shape, len(images), seed, epochs, steps, rate, tried)
    clock, start = Clock(model), time.perf_counter()
    history = clock.fit(images, epochs, steps)
    return model.backbone, {
        "rate": rate,
        "steps": epochs * steps,
        "passes": epochs * steps / in_a_pass,
        "cpu_seconds": clock.step * epochs * steps,
        "seconds": time.perf_counter() - start,
        "setup_cpu_seconds": clock.times[0] - clock.began,
        "history": history,
        "collapse": model.collapse_losses(BATCH),
    }


def measure(name, seed, source, seconds, rate, tried=""):
    """All figures of one run; of what was not trained where `name` says so."""
    import keras

    import keras_ssl
    from keras_ssl.cli import experiment
    from keras_ssl.evaluate import efficiency, extract_features

    begun = time.perf_counter()
    data = keras_ssl.data.load(source)
    shape, result = data.train.images.shape[1:], {}
    if name == PIXELS:
        features = [pixels(split.images) for split in (data.train, data.test)]
    else:
        kind = next((kind for kind, untrained in UNTRAINED.items() if untrained == name), None)
        if kind:
            keras.utils.set_random_seed(seed)
            backbone = network(kind, shape)
        else:
            entry = ENTRIES[name]
            backbone, result = trained(entry, data.train.images[: entry.images], seed, seconds, rate, tried)
        grid = experiment.grid_of(backbone, shape)
        features = [extract_features(backbone, split.images, grid=grid) for split in (data.train, data.test)]
    labels = data.train.labels, data.test.labels
    table = efficiency.label_efficiency({name: tuple(features)}, *labels, draws=DRAWS, seed=DRAWS * seed)
    result["accuracies"] = {column: cell.accuracies for column, cell in table[name].items()}
    backend = keras.backend.backend()
    packages = {"tensorflow": "tensorflow-cpu", "jax": "jax", "torch": "torch"}
    result["on"] = f"{version(backend, packages[backend])}, {version('keras')}"
    return {**result, "wall_seconds": time.perf_counter() - begun}


def version(*names):
    """Name and version of the first of some packages that is installed."""
    for name in names:
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return names[0]


def pixels(images, side=32):
    """Images as rows of pixels; larger ones at 32×32, or the probe would have more weights than there is data."""
    from keras import ops

    parts = []
    for start in range(0, len(images), 256):
        part = np.asarray(images[start : start + 256], "float32")
        if max(part.shape[1:3]) > side:
            part = ops.convert_to_numpy(ops.image.resize(part, (side, side), antialias=True))
        parts.append(part.reshape(len(part), -1))
    return np.concatenate(parts)


# All runs, so many at a time.


class Runs:
    """The runs of a table: a JSON file each, in a folder.

    Args:
        options: the flags.
        names: rows of the table.
    """

    def __init__(self, options, names):
        self.options, self.names = options, names
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        self.folder = pathlib.Path(options.output or f"runs/methods-{options.data}-{backend}-{options.seconds:g}s")
        self.cores = queue.Queue()

    def file(self, row, seed):
        return self.folder / f"{row.replace(', ', '-').replace(' ', '-')}-{seed}.json"

    def of(self, row):
        """The figures of the seeds that are there, by seed."""
        files = {seed: self.file(row, seed) for seed in range(self.options.seeds)}
        return {seed: json.loads(file.read_text("utf-8")) for seed, file in files.items() if file.exists()}

    def missing(self):
        """Runs that are not there, longest first, so that none begins alone when the others are done."""
        took = {row: max((run["wall_seconds"] for run in self.of(row).values()), default=1e9) for row in self.names}
        took.update({row: 0.0 for row in (PIXELS, *UNTRAINED.values()) if row in took})
        pairs = [(row, seed) for seed in range(self.options.seeds) for row in self.names]
        missing = [(row, seed) for row, seed in pairs if not self.file(row, seed).exists()]
        return sorted(missing, key=lambda pair: -took[pair[0]])

    def train(self):
        """Runs what is missing; returns the names of the logs of those that failed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        for slot in range(self.options.processes):
            some = usable[slot * self.options.threads : (slot + 1) * self.options.threads]
            self.cores.put(some if len(some) == self.options.threads else None)
        missing = self.missing()
        with concurrent.futures.ThreadPoolExecutor(self.options.processes) as pool:
            done = [pool.submit(self._run, row, seed) for row, seed in missing]
            for number, future in enumerate(concurrent.futures.as_completed(done), 1):
                print(f"{number} of {len(done)}: {future.result()[0]}", flush=True)
        return [log for sentence, log in (future.result() for future in done) if log]

    def _run(self, row, seed):
        """Trains and evaluates in a process of its own: `(sentence, log if it failed)`."""
        cores, file = self.cores.get(), self.file(row, seed)
        log = file.with_suffix(".log")
        one = json.dumps({"row": row, "seed": seed, "file": str(file)})
        start = time.perf_counter()
        with open(log, "w", encoding="utf-8") as out:
            flags = [f"--data={self.options.data}", f"--seconds={self.options.seconds}", f"--one={one}"]
            flags.append(f"--arguments={self.options.arguments}")
            child = subprocess.Popen(
                [sys.executable, __file__, *flags], stdout=out, stderr=out, env=environment(self.options.threads)
            )
            if cores:
                os.sched_setaffinity(child.pid, cores)  # before its libraries count the cores
            failed = child.wait() != 0
        self.cores.put(cores)
        if failed:
            return f"{row}, seed {seed} FAILED: see {log}", log
        log.unlink()
        return f"{row}, seed {seed}, {time.perf_counter() - start:.0f} s", None


def environment(threads):
    """The variables of a run: every library that it uses takes so many threads."""
    counts = ("OMP", "MKL", "OPENBLAS", "TF_NUM_INTRAOP", "TF_NUM_INTEROP")
    return {
        **os.environ,
        **{f"{count}_THREADS" if "TF" in count else f"{count}_NUM_THREADS": str(threads) for count in counts},
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


# The table.


def method_and_rate(row):
    """A row's name as `(entry's name, rate)`: "SimCLR, rate 0.003"; the rate is None where the row has none."""
    name, _, rate = row.partition(", rate ")
    return name, float(rate) if rate else None


def spread(values, digits, scale=1.0, sign=""):
    """Mean ± standard deviation."""
    values = scale * np.asarray(values)
    text = f"{np.mean(values):{sign}.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {np.std(values, ddof=1):.{digits}f}"


def lines(runs, columns):
    """The cells of each row that has a run."""
    of = {row: runs.of(row) for row in runs.names}
    for row in runs.names:
        if not of[row]:
            continue
        means = {
            column: {seed: np.mean(run["accuracies"][column]) for seed, run in of[row].items()} for column in columns
        }
        cells = [spread(list(means[column].values()), 3) for column in columns]
        name = row if len(of[row]) == runs.options.seeds else f"{row} ({len(of[row])} of {runs.options.seeds} seeds)"
        if row == PIXELS or row in UNTRAINED.values():
            yield [name, "", *cells, *[""] * (len(GAINS) + 1)]
            continue
        before = of.get(UNTRAINED[ENTRIES[method_and_rate(row)[0]].network], {})
        both = sorted(set(of[row]) & set(before))
        gains = [
            spread([means[g][seed] - np.mean(before[seed]["accuracies"][g]) for seed in both], 1, 100.0, "+")
            if both
            else ""
            for g in GAINS
        ]
        steps, seconds = (np.mean([run[key] for run in of[row].values()]) for key in ("steps", "cpu_seconds"))
        yield [name, f"{steps:,.0f}", *cells, *gains, f"{seconds:.0f}"]


def print_table(runs):
    """What is there, as a table of Markdown, and each method's own figures."""
    figures = {row: list(runs.of(row).values()) for row in runs.names}
    there = [run for row in figures.values() for run in row]
    if not there:
        print(f"{runs.folder} holds no run yet.")
        return
    columns = [column for column in COLUMNS if all(column in run["accuracies"] for run in there)]
    header = ["", "steps", *columns, *(f"gain, {column}" for column in GAINS), "processor s"]
    print(
        f"\n{runs.options.data}, {runs.options.seconds:g} s of processor time for training, batches of {BATCH}; "
        f"{', '.join(sorted({run['on'] for run in there}))}. Mean ± standard deviation over {runs.options.seeds} "
        f"seeds, each the mean of {DRAWS} draws of labels; gains in points, over the untrained network of the same "
        "seed.\n"
    )
    for line in (header, ["---"] * len(header), *lines(runs, columns)):
        print("| " + " | ".join(line) + " |")
    print("\nTheir own figures in the last epoch:\n")
    for row, done in figures.items():
        if done and "history" in done[0]:
            last = {key: np.mean([run["history"][key][-1] for run in done]) for key in done[0]["history"]}
            own = ", ".join(f"{key} {value:.3f}" for key, value in last.items())
            print(f"- {row}: rate {done[0]['rate']:g}, {done[0]['passes']:.1f} passes; {own}")


def rows(options):
    """The rows that were asked for, and what they are measured against; says what the package lacks."""
    from keras_ssl import names

    wanted = options.methods.split(",") if options.methods else []
    known = {entry.method for entry in ENTRIES.values()}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SystemExit(f"--methods: there is no row of {', '.join(unknown)}; of {', '.join(sorted(known))} there is.")
    asked = [name for name, entry in ENTRIES.items() if not options.methods or entry.method in wanted]
    for name in asked:
        if ENTRIES[name].method not in names.METHODS:
            print(f"{name}: this package has no {ENTRIES[name].method}, and the row is left out.")
    asked = [name for name in asked if ENTRIES[name].method in names.METHODS]
    kinds = {ENTRIES[name].network: UNTRAINED[ENTRIES[name].network] for name in asked}
    if options.rates:
        asked = [f"{name}, rate {float(rate):g}" for name in asked for rate in options.rates.split(",")]
    return [PIXELS, *(UNTRAINED[kind] for kind in UNTRAINED if kind in kinds), *asked]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion_mnist_sample", help="what keras_ssl.data.load takes")
    parser.add_argument("--seconds", type=float, default=60.0, help="processor time of training, for each run")
    parser.add_argument("--methods", default="", help="names of classes, with commas between; all")
    parser.add_argument("--rates", default="", help="peaks of the learning rate, a row for each; the recipe's")
    parser.add_argument(
        "--arguments", default="", help="a dict in Python, over the recipe's; in an --output of its own"
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads and cores of a run")
    parser.add_argument("--output", help="where the figures are kept: runs/methods-DATA-BACKEND-SECONDS")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one = json.loads(options.one)
        name, rate = method_and_rate(one["row"])
        result = measure(name, one["seed"], options.data, options.seconds, rate, options.arguments)
        file = pathlib.Path(one["file"])
        whole = file.with_suffix(".part")
        whole.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        whole.replace(file)
        return
    runs = Runs(options, rows(options))
    failed = [] if options.table else runs.train()
    print_table(runs)
    if failed:
        raise SystemExit(f"{len(failed)} runs failed: {', '.join(map(str, failed))}")


if __name__ == "__main__":
    main()
