"""Makes fashion_mnist_sample.npz: the first 1,000 training and 200 test images of each class of Fashion-MNIST.

    python keras_ssl/datasets/make_fashion_mnist_sample.py FOLDER_OF_THE_IDX_FILES

The images are in the order of the original files, so that classes are mixed. Fashion-MNIST is by Zalando Research,
under the MIT license beside this file.
"""

import pathlib
import sys

import numpy as np

from keras_ssl import data


def first_of_each_class(labels, count):
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]))


def main(folder):
    full = data.load(folder)
    arrays = {}
    for name, split, count in (("train", full.train, 1000), ("test", full.test, 200)):
        rows = first_of_each_class(split.labels, count)
        arrays[f"{name}_images"] = split.images[rows, ..., 0]
        arrays[f"{name}_labels"] = split.labels[rows].astype("uint8")
    np.savez_compressed(pathlib.Path(__file__).parent / "fashion_mnist_sample.npz", **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
