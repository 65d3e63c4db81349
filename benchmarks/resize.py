"""Which way of bringing photographs to a square is the default of `data.load(resize=…)`: a measurement.

    python benchmarks/resize.py FOLDER --epochs=8

Trains SimCLR on the training photographs of a folder with classes at 32 px, with `resize` "crop", "squash" and "pad",
three seeds each, and prints the accuracy of a linear probe (all labels of the training split) on the other splits.
"""

import argparse

import keras
import numpy as np

import keras_ssl


def accuracy(folder, resize, seed, epochs):
    data = keras_ssl.data.load(folder, image_size=32, resize=resize)
    held = [split for name, split in data.splits().items() if name != "train"]
    keras.utils.set_random_seed(seed)
    recipe = keras_ssl.recipes.recipe(keras_ssl.SimCLR, (32, 32, 3), len(data.train), 128, epochs)
    model = keras_ssl.SimCLR(keras_ssl.backbones.resnet8((32, 32, 3)), recipe.views, seed=seed, **recipe.arguments)
    model.compile(recipe.make_optimizer())
    model.fit(data.train.images, batch_size=128, epochs=epochs, verbose=0)
    features = [keras_ssl.evaluate.extract_features(model, split.images, grid=2) for split in (data.train, *held)]
    labels = np.concatenate([split.labels for split in held])
    return keras_ssl.evaluate.linear_probe(features[0], data.train.labels, np.concatenate(features[1:]), labels)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()
    found = {resize: [] for resize in ("crop", "squash", "pad")}
    for seed in range(3):
        for resize, values in found.items():
            values.append(accuracy(given.folder, resize, seed, given.epochs))
            print(f"{resize}, seed {seed}: {values[-1]:.3f}", flush=True)
    for resize, values in found.items():
        print(f"{resize}: {np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}")


if __name__ == "__main__":
    main()
