"""What each method is worth on the sample, for about as much work each: three seeds, against the untrained backbone.

    python benchmarks/methods.py                                  # what is missing of three seeds; then the table
    python benchmarks/methods.py --methods=BYOL,Jigsaw --seeds=1

Each run is a process of its own, and its figures are kept in `--output`, so that runs that were cut off go on with the
next. The budget is a number of passes over the 10,000 images (over 2,000 of them for Exemplar), chosen so that training
takes 100 to 180 s of processor time, which with the probes is about two minutes on two cores.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

import numpy as np

DRAWS = 5
UNTRAINED = "untrained backbone"
BATCH = 128
EXEMPLARS = 2000


def methods():
    """By name: passes over the images, the learning rate, and what makes a model of `(backbone, number of images)`."""
    import keras_ssl
    from keras_ssl import heads

    def small(*widths):
        # The papers' projectors, of 4,096 and 8,192, would take most of the time on two cores.
        return heads.mlp(list(widths), last_batch_norm=False)

    return {
        "Siamese": (9, 1e-2, lambda b, n: keras_ssl.Siamese(b, projector=small(128))),
        "Triplet": (9, 1e-2, lambda b, n: keras_ssl.Triplet(b, projector=small(128))),
        "SimCLR": (8, 1e-2, lambda b, n: keras_ssl.SimCLR(b)),
        "BYOL": (
            6,
            3e-3,
            lambda b, n: keras_ssl.BYOL(b, projector=small(512, 128), predictor=small(512, 128), momentum=0.99),
        ),
        "BarlowTwins": (7, 1e-2, lambda b, n: keras_ssl.BarlowTwins(b, projector=small(512, 512), scale=1 / 32)),
        "Rotation": (4, 1e-2, lambda b, n: keras_ssl.Rotation(b)),
        "Distortion": (8, 1e-2, lambda b, n: keras_ssl.Distortion(b)),
        # Ten thousand classes that come sixteen times each are not learned at all: its loss stayed at ln 10,000.
        "Exemplar": (72, 2e-3, lambda b, n: keras_ssl.Exemplar(b, exemplars=n)),
        "RelativePatch": (55, 1e-2, lambda b, n: keras_ssl.RelativePatch(b)),
        "Jigsaw": (12, 1e-2, lambda b, n: keras_ssl.Jigsaw(b)),
    }


def optimizer(steps, rate):
    """AdamW with 5 % warm-up and a cosine: what the recipes "small" took over from here."""
    import keras

    warm = max(1, steps // 20)
    schedule = keras.optimizers.schedules.CosineDecay(0.0, max(1, steps - warm), warmup_target=rate, warmup_steps=warm)
    return keras.optimizers.AdamW(schedule, weight_decay=1e-4)


def measure(name, seed):
    """The figures of one run; of the untrained backbone where `name` says so."""
    import keras

    import keras_ssl
    from keras_ssl.evaluate import efficiency, extract_features

    data = keras_ssl.data.load("fashion_mnist_sample")
    images = data.train.images
    keras.utils.set_random_seed(seed)
    if name == UNTRAINED:
        backbone, result = keras_ssl.backbones.resnet8(images.shape[1:]), {}
    else:
        passes, rate, make = methods()[name]
        # Patches are smaller than images, and a backbone of open size takes them as they are.
        patches = getattr(keras_ssl, name).patch_based
        images = images[:EXEMPLARS] if name == "Exemplar" else images
        backbone = keras_ssl.backbones.resnet8((None, None, 1) if patches else images.shape[1:])
        model = make(backbone, len(images))
        model.seed = seed
        model.compile(optimizer(passes * (len(images) // BATCH), rate))
        start, cpu = time.perf_counter(), time.process_time()
        history = model.fit(images, batch_size=BATCH, epochs=passes, verbose=0).history
        result = {
            "passes": passes,
            "rate": rate,
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - cpu,
            "history": history,
            "trivial": list(model.collapse_losses(BATCH).values()),
        }
        if not model.uses_index:
            result["held_out"] = model.evaluate(data.test.images, batch_size=BATCH, verbose=0, return_dict=True)
    features = tuple(extract_features(backbone, split.images, grid=2) for split in (data.train, data.test))
    table = efficiency.label_efficiency(
        {name: features}, data.train.labels, data.test.labels, draws=DRAWS, seed=DRAWS * seed
    )
    result["accuracies"] = {column: cell.accuracies for column, cell in table[name].items()}
    return result


COLUMNS = ("linear, 10 per class", "linear, 100 per class", "linear, all", "kNN, all")


def row(name, runs, untrained):
    """A line of the table: mean ± standard deviation over seeds and draws; the gain seed by seed."""
    cells = []
    for column in COLUMNS:
        values = [value for run in runs for value in run["accuracies"][column]]
        cells.append(f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else f"{values[0]:.3f}")
    if name == UNTRAINED:
        return [name, "", *cells, "", "", ""]
    gains = [
        np.mean(run["accuracies"][COLUMNS[0]]) - np.mean(before["accuracies"][COLUMNS[0]])
        for run, before in zip(runs, untrained)
    ]
    gain = f"{100 * np.mean(gains):+.1f}" + (f" ± {100 * np.std(gains, ddof=1):.1f}" if len(gains) > 1 else "")
    last = {key: np.mean([run["history"][key][-1] for run in runs]) for key in runs[0]["history"]}
    own = ", ".join(f"{key} {value:.3f}" for key, value in last.items() if key != "loss")
    seconds = f"{np.mean([run['cpu_seconds'] for run in runs]):.0f}"
    return [name, str(runs[0]["passes"]), *cells, gain, own, seconds]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", help="names with commas between; all unless given")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0")
    parser.add_argument("--output", default="runs/methods", help="where the figures are kept")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = pathlib.Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    if options.one:
        name, seed = options.one.split(":")
        result = measure(name, int(seed))
        (folder / f"{name}-{seed}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        return
    names = [UNTRAINED, *(options.methods.split(",") if options.methods else methods())]
    for seed in range(options.seeds):
        for name in names:
            if not (folder / f"{name}-{seed}.json").exists():
                print(f"{name}, seed {seed}", flush=True)
                one = [sys.executable, __file__, f"--output={folder}", f"--one={name}:{seed}"]
                subprocess.run(one, check=True)
    runs = {
        name: [
            json.loads((folder / f"{name}-{seed}.json").read_text(encoding="utf-8")) for seed in range(options.seeds)
        ]
        for name in names
    }
    header = ["", "passes", *COLUMNS, "gain at 10 per class, points", "its own figures, last pass", "processor s"]
    lines = [header, ["---"] * len(header), *(row(name, runs[name], runs[UNTRAINED]) for name in names)]
    print(f"\n{options.seeds} seeds, {DRAWS} draws of labels each; mean ± standard deviation over all of them\n")
    print("\n".join("| " + " | ".join(line) + " |" for line in lines))


if __name__ == "__main__":
    main()
