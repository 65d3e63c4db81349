"""What keeps BYOL from collapse: its parts switched off one by one, on a small network.

    python benchmarks/byol_parts.py

Prints a table: the spread of the projections (1 where they fill the sphere, 0 where all images have one) after the
first and the last pass, and kNN accuracy of the backbone's features; mean ± standard deviation over three seeds.
"""

import argparse

import keras
import numpy as np

import keras_ssl
from keras_ssl import augment, heads
from keras_ssl.evaluate import extract_features, knn
from keras_ssl.teacher import ConstantMomentum

NO_AVERAGE = {"momentum": ConstantMomentum(0.0)}


def variants():
    """By name: arguments of BYOL, and whether the backbone normalizes over the batch."""
    no_predictor = {"predictor": keras.layers.Identity()}
    return {
        "BYOL": ({}, True),
        "no predictor": (no_predictor, True),
        "no predictor, no moving average": ({**no_predictor, **NO_AVERAGE}, True),
        "no moving average (SimSiam)": (NO_AVERAGE, True),
        "no batch normalization anywhere": ({"batch_norm": False}, False),
    }


def backbone(batch_norm):
    layers = [keras.layers.Rescaling(1 / 127.5, -1)]
    for width in (16, 32, 64):
        layers.append(keras.layers.Conv2D(width, 3, 2, padding="same"))
        if batch_norm:
            layers.append(keras.layers.BatchNormalization(momentum=0.9))
        layers.append(keras.layers.ReLU())
    return keras.Sequential([keras.Input((28, 28, 1)), *layers])


def run(data, name, seed, passes):
    keras.utils.set_random_seed(seed)
    options, batch_norm = variants()[name]
    network = backbone(batch_norm)
    has_norm = options.get("batch_norm", True)
    parts = {
        part: heads.mlp([256, 64], batch_norm=has_norm, last_batch_norm=False) for part in ("projector", "predictor")
    }
    model = keras_ssl.BYOL(
        network, augment.small_gray(28), seed=seed, **{**parts, "momentum": ConstantMomentum(0.95), **options}
    )
    model.compile(keras.optimizers.Adam(3e-3))
    history = model.fit(data.train.images[:4096], batch_size=128, epochs=passes, verbose=0).history
    bank, queries = (extract_features(network, split.images[:2000]) for split in (data.train, data.test))
    accuracy = knn(bank, data.train.labels[:2000], queries, data.test.labels[:2000], k=20)
    return history["spread"][0], history["spread"][-1], history["byol"][-1], accuracy


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=6, help="over 4,096 images of the sample")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0")
    options = parser.parse_args()
    data = keras_ssl.data.load("fashion_mnist_sample")
    lines = [["", "spread, first pass", "spread, last pass", "loss, last pass", "kNN"], ["---"] * 5]
    for name in variants():
        runs = np.array([run(data, name, seed, options.passes) for seed in range(options.seeds)])
        cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(runs.mean(axis=0), runs.std(axis=0, ddof=1))]
        lines.append([name, *cells])
        print(name, *cells, flush=True)
    untrained = []
    for seed in range(options.seeds):
        keras.utils.set_random_seed(seed)
        network = backbone(True)
        bank, queries = (extract_features(network, split.images[:2000]) for split in (data.train, data.test))
        untrained.append(knn(bank, data.train.labels[:2000], queries, data.test.labels[:2000], k=20))
    lines.append(["untrained backbone", "", "", "", f"{np.mean(untrained):.3f} ± {np.std(untrained, ddof=1):.3f}"])
    print()
    print("\n".join("| " + " | ".join(line) + " |" for line in lines))


if __name__ == "__main__":
    main()
