"""A small network from a large one, without labels, beside the same network by itself for the same processor time.

    python benchmarks/distill.py                     # the table of docs/distillation.md
    python benchmarks/distill.py --figure=docs/images/distillation.png

The teacher is a resnet8 of width 32 (303,000 weights), trained by SimCLR on the 10,000 images of the sample.
The student is a resnet8 of width 8 (19,000 weights). It is trained by `Distill` from the teacher, and by SimCLR, for as
many epochs as fit into `--seconds` of processor time each, and measured untrained. Three seeds of the student are run;
the teacher is one, and its own training is not counted.
"""

import argparse
import json
import pathlib
import time

import keras
import numpy as np

import keras_ssl
from keras_ssl import clone
from keras_ssl.evaluate import efficiency, extract_features

BATCH, DRAWS = 128, 5
COLUMNS = ("linear, 10 per class", "linear, 100 per class", "linear, all", "kNN, all")


def optimizer(steps, rate=1e-2):
    """That of the recipes "small"."""
    warm = max(1, steps // 20)
    schedule = keras.optimizers.schedules.CosineDecay(0.0, max(1, steps - warm), warmup_target=rate, warmup_steps=warm)
    return keras.optimizers.AdamW(schedule, weight_decay=1e-4)


def train(make, student, images, seconds=None, epochs=None):
    """Trains for some epochs, or for those that fit into processor seconds; gives `(epochs, processor seconds)`."""
    if epochs is None:
        trial = make(clone.clone(student))
        trial.compile(optimizer(1_000))
        trial.fit(images[: 4 * BATCH], batch_size=BATCH, verbose=0)  # compiles
        begun = time.process_time()
        trial.fit(images[: 32 * BATCH], batch_size=BATCH, verbose=0)
        epochs = max(1, round(seconds * 32 * BATCH / len(images) / (time.process_time() - begun)))
    model = make(student)
    model.compile(optimizer(epochs * (len(images) // BATCH)))
    begun = time.process_time()
    model.fit(images, batch_size=BATCH, epochs=epochs, verbose=0)
    return epochs, time.process_time() - begun


def standardized(network, images):
    """The network with each of its features less its mean, divided by its deviation: those of ReLU have one sign."""
    layer = keras.layers.Normalization(axis=-1)
    layer.adapt(network.predict(images[:1_000], verbose=0))
    return keras.Model(network.input, layer(network.output))


def figures(backbone, data, seed):
    """The mean accuracies over draws of labels, on the 2×2 grid of features."""
    features = tuple(extract_features(backbone, split.images, grid=2) for split in (data.train, data.test))
    labels = data.train.labels, data.test.labels
    found = efficiency.label_efficiency({"": features}, *labels, draws=DRAWS, seed=DRAWS * seed)[""]
    return {column: float(np.mean(found[column].accuracies)) for column in COLUMNS}


def measure(seconds, seeds, teacher_epochs):
    data = keras_ssl.data.load("fashion_mnist_sample")
    images, shape = data.train.images, data.train.images.shape[1:]
    keras.utils.set_random_seed(0)
    large = keras_ssl.backbones.resnet8(shape, width=32)
    results = {"teacher, SimCLR": []}
    _, spent = train(keras_ssl.SimCLR, large, images, epochs=teacher_epochs)
    results["teacher, SimCLR"].append({**figures(large, data, 0), "epochs": teacher_epochs, "processor s": spent})
    print(results, flush=True)
    makers = {
        "student, untrained": None,
        "student, SimCLR": keras_ssl.SimCLR,
        "student, Distill": lambda student: keras_ssl.Distill(student, large, memory=2048),
        "student, Distill from standardized features": lambda student: keras_ssl.Distill(
            student, standardized(large, images), memory=2048
        ),
    }
    for seed in range(seeds):
        for name, make in makers.items():
            keras.utils.set_random_seed(1 + seed)
            student = keras_ssl.backbones.resnet8(shape, width=8)
            epochs, spent = (0, 0.0) if make is None else train(make, student, images, seconds)
            found = {**figures(student, data, seed), "epochs": epochs, "processor s": spent}
            results.setdefault(name, []).append(found)
            print(seed, name, found, flush=True)
    return results


def text(values, name):
    values = [one[name] for one in values]
    if name in ("epochs", "processor s"):
        return f"{np.mean(values):.0f}"
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def table(results):
    names = list(next(iter(results.values()))[0])
    lines = ["|  | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    return lines + [
        f"| {who} | " + " | ".join(text(found, name) for name in names) + " |" for who, found in results.items()
    ]


def draw(results, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 3.2), layout="constrained")
    for place, (who, found) in enumerate(results.items()):
        values = np.array([[one[name] for name in COLUMNS] for one in found])
        error = values.std(axis=0, ddof=1) if len(values) > 1 else None
        axes.bar(np.arange(4) + 0.2 * (place - 1.5), values.mean(axis=0), 0.18, yerr=error, label=who)
    axes.set_xticks(range(4), COLUMNS)
    axes.set_ylim(0.5, 1.0)
    axes.set_ylabel("accuracy on 2,000 test images")
    axes.legend(ncols=4, fontsize=8, loc="upper center")
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0, help="of the processor, for each training of a student")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--teacher_epochs", type=int, default=8)
    parser.add_argument("--figure", type=pathlib.Path)
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path("distill.json"))
    given = parser.parse_args()
    if given.results.exists():
        results = json.loads(given.results.read_text())
    else:
        results = measure(given.seconds, given.seeds, given.teacher_epochs)
        given.results.write_text(json.dumps(results, indent=1))
    print("\n".join(table(results)))
    if given.figure:
        draw(results, given.figure)


if __name__ == "__main__":
    main()
