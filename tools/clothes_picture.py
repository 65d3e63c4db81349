"""The picture of README: test photographs of clothes, those that a trained backbone finds similar side by side.

keras-ssl pretrain --data=clothes_sample --image_size=32 --epochs=20 --output=runs/clothes
python tools/clothes_picture.py runs/clothes/backbone.keras docs/images/clothes.png

The features are brought to a plane (t-SNE), and the plane to a grid by the assignment of least total distance.
"""

import argparse
import pathlib

import keras
import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment

import keras_ssl

SIDE, GAP = 42, 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--image_size", type=int, default=32, help="of the training")
    parser.add_argument("--grid", type=int, nargs=2, default=(20, 11), help="columns and rows")
    options = parser.parse_args()
    backbone = keras.models.load_model(options.backbone)
    small = keras_ssl.data.load("clothes_sample", image_size=options.image_size)
    whole = keras_ssl.data.load("clothes_sample").test  # to be looked at
    train, test = (keras_ssl.evaluate.extract_features(backbone, part.images) for part in (small.train, small.test))

    columns, rows = options.grid
    shown = np.random.default_rng(0).permutation(len(test))[: columns * rows]
    plane = keras_ssl.evaluate.plots.project(test, seed=0)[shown]
    # Places of a coordinate among all of them: the plane fills the grid evenly.
    plane = np.argsort(np.argsort(plane, axis=0), axis=0) / len(plane)
    places = np.stack(np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows), -1)
    distance = ((plane[:, None] - places.reshape(1, -1, 2)) ** 2).sum(-1)
    photographs, cells = linear_sum_assignment(distance)
    step = SIDE + GAP
    sheet = Image.new("RGB", (columns * step - GAP, rows * step - GAP), "white")
    for photograph, cell in zip(photographs, cells):
        picture = Image.fromarray(whole.images[shown[photograph]]).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        sheet.paste(picture, (cell % columns * step, cell // columns * step))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(160).save(options.output, optimize=True)
    _, found = keras_ssl.evaluate.search(train, test, k=1)
    same = np.mean(small.train.labels[found[:, 0]] == small.test.labels)
    print(f"{options.output}: {sheet.width}×{sheet.height} pixels, {options.output.stat().st_size / 1000:.0f} kB")
    print(f"{same:.2f} of {len(test)} test photographs have their class's photograph as the nearest of {len(train)}")


if __name__ == "__main__":
    main()
