"""Does it pay to choose the images to label? A linear probe on chosen ones, against random draws.

    python benchmarks/which_to_label.py

Pretrains SimCLR by its small recipe on the sample, without labels, and chooses `--count` of the 10,000 training images
by each strategy of `keras_ssl.evaluate.select`. The probe gets the labels of those, as many as `random`, which draws
from all images, and `random, by class`, the same number of each class: what nobody can do who has no labels yet. Each
seed has weights, views and a choice of its own; random draws are ten a seed. "classes" is how many of the ten classes
are among the chosen, "largest" how many of them are of one.
"""

import argparse
import json
import pathlib

import numpy as np

DRAWS = 10


def pretrained(data, epochs, seed):
    import keras

    import keras_ssl
    from keras_ssl.recipes import recipe

    images = data.train.images
    keras.utils.set_random_seed(seed)
    chosen = recipe(keras_ssl.SimCLR, images.shape[1:], len(images), 128, epochs, source="small")
    model = keras_ssl.SimCLR(keras_ssl.backbones.resnet8(images.shape[1:]), seed=seed, **chosen.arguments)
    model.compile(chosen.optimizer)
    model.fit(images, batch_size=128, epochs=epochs, verbose=2)
    return model.backbone


def features_of(source, epochs, seed, folder):
    """Features for choosing and for the probe, and the data; kept, so that what was cut off goes on."""
    import keras_ssl

    data = keras_ssl.data.load(source)
    file = folder / f"features-{source}-{epochs}-{seed}.npz"
    if not file.exists():
        backbone = pretrained(data, epochs, seed)
        parts = {
            f"{name}_{grid}": keras_ssl.evaluate.extract_features(backbone, split.images, grid=grid)
            for name, split in (("train", data.train), ("test", data.test))
            for grid in (1, 2)
        }
        np.savez(file, **parts)
    with np.load(file) as kept:
        return {name: kept[name] for name in kept.files}, data


def measure(features, data, count, seed):
    """`{strategy: [(accuracy, classes, largest), …]}`."""
    from keras_ssl import evaluate, names

    labels, held = data.train.labels, data.test.labels
    classes = len(np.unique(labels))

    def judged(rows):
        counts = np.bincount(labels[rows], minlength=classes)
        if counts.max() == len(rows):  # of one class alone: it is all that a classifier can say
            return float(np.mean(held == labels[rows[0]])), 1, len(rows)
        accuracy = evaluate.linear_probe(features["train_2"][rows], labels[rows], features["test_2"], held, seed=seed)
        return accuracy, int(np.count_nonzero(counts)), int(counts.max())

    draws = range(DRAWS * seed, DRAWS * (seed + 1))
    random = [np.random.default_rng(draw).permutation(len(labels))[:count] for draw in draws]
    found = {
        "random": [judged(rows) for rows in random],
        "random, by class": [judged(evaluate.draw_labels(labels, count // classes, draw)) for draw in draws],
    }
    for strategy in names.STRATEGIES:
        found[strategy] = [judged(evaluate.select(features["train_1"], count, strategy, seed=seed))]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion_mnist_sample")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--counts", default="20,50,100,500", help="labels in all, with commas between")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", default="runs/select")
    options = parser.parse_args()
    folder = pathlib.Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    counts, tables = [int(count) for count in options.counts.split(",")], {}
    for seed in range(options.seeds):
        features, data = features_of(options.data, options.epochs, seed, folder)
        for count in counts:
            for name, found in measure(features, data, count, seed).items():
                tables.setdefault(name, {}).setdefault(count, []).append(found)
    (folder / f"{options.data}.json").write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
    print(f"\n{options.data}: accuracy of a linear probe, mean ± standard deviation over {options.seeds} seeds\n")
    print("| | " + " | ".join(f"{count} labels | classes, largest" for count in counts) + " |")
    print("|---" * (1 + 2 * len(counts)) + "|")
    for name, by_count in tables.items():
        cells = [name]
        for count in counts:
            means = np.array([np.mean(found, axis=0) for found in by_count[count]])
            spread = f" ± {means[:, 0].std(ddof=1):.3f}" if len(means) > 1 else ""
            cells += [f"{means[:, 0].mean():.3f}{spread}", f"{means[:, 1].mean():.1f}, {means[:, 2].mean():.1f}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
