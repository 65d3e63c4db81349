"""The samples that come with the package, read without a network."""

import concurrent.futures
import io
import itertools
import pathlib

import numpy as np

from keras_ssl.data.pictures import Decoder
from keras_ssl.data.split import Data, make_split

FOLDER = pathlib.Path(__file__).parent.parent / "datasets"
PARTS = ("train", "test")
CLOTHES_SIZE = (64, 64)  # as the photographs are stored
FASHION_CLASSES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]


def fashion_mnist_sample():
    """10,000 training and 2,000 test images of Fashion-MNIST."""
    with np.load(FOLDER / "fashion_mnist_sample.npz", allow_pickle=False) as file:
        return Data(*(make_split(file[f"{part}_images"], file[f"{part}_labels"], FASHION_CLASSES) for part in PARTS))


def clothes_sample(size=None):
    """3,409 training and 372 test photographs of clothes.

    Args:
        size: `(height, width)` in pixels; None for the size that is stored.
    """
    splits, decoder = [], Decoder(size or CLOTHES_SIZE, 3)
    with (
        np.load(FOLDER / "clothes_sample.npz", allow_pickle=False) as file,
        concurrent.futures.ThreadPoolExecutor(4) as workers,
    ):
        classes = file["class_names"].tolist()
        for part in PARTS:
            content = file[f"{part}_pictures"].tobytes()
            pictures = [content[start:end] for start, end in itertools.pairwise(file[f"{part}_offsets"].tolist())]
            images = np.stack(list(workers.map(lambda picture: decoder(io.BytesIO(picture)), pictures)))
            splits.append(make_split(images, file[f"{part}_labels"], classes))
    return Data(*splits)
