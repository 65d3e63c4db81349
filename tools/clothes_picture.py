"""The picture of README: photographs of clothes, and those that a trained backbone finds most similar.

keras-ssl pretrain --data=clothes_sample --image_size=32 --epochs=20 --output=runs/clothes
python tools/clothes_picture.py runs/clothes/backbone.keras docs/images/search.png

The queries are the first test photographs of the largest classes, not chosen by what is found for them.
"""

import argparse
import pathlib

import keras
import numpy as np
from PIL import Image, ImageDraw

import keras_ssl

SIDE, GAP, FRAME = 90, 12, 4
OTHER = (230, 126, 34)


def paste(sheet, image, left, top, frame):
    picture = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    if frame:
        box = (left - FRAME, top - FRAME, left + SIDE + FRAME - 1, top + SIDE + FRAME - 1)
        ImageDraw.Draw(sheet).rectangle(box, fill=frame)
    sheet.paste(picture, (left, top))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--image_size", type=int, default=32, help="of the training")
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--found", type=int, default=7, help="photographs per query")
    options = parser.parse_args()
    backbone = keras.models.load_model(options.backbone)
    small = keras_ssl.data.load("clothes_sample", image_size=options.image_size)
    whole = keras_ssl.data.load("clothes_sample")  # to be looked at
    classes = np.argsort(-np.bincount(whole.train.labels), kind="stable")[: options.classes]
    queries = np.array([np.flatnonzero(whole.test.labels == label)[0] for label in classes])
    train, test = (keras_ssl.evaluate.extract_features(backbone, part.images) for part in (small.train, small.test))
    _, found = keras_ssl.evaluate.search(train, test[queries], k=options.found)

    step = SIDE + GAP
    sheet = Image.new("RGB", ((options.found + 1) * step + 3 * GAP, len(queries) * step + GAP), "white")
    for row, (query, places) in enumerate(zip(queries, found)):
        top = GAP + row * step
        paste(sheet, whole.test.images[query], GAP, top, None)
        for column, place in enumerate(places, 1):
            other = whole.train.labels[place] != whole.test.labels[query]
            paste(sheet, whole.train.images[place], 3 * GAP + column * step, top, OTHER if other else None)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(160).save(options.output, optimize=True)
    same = np.mean(whole.train.labels[found] == whole.test.labels[queries][:, None])
    _, found = keras_ssl.evaluate.search(train, test, k=1)
    of_all = np.mean(whole.train.labels[found[:, 0]] == whole.test.labels)
    print(f"{options.output}: {sheet.width}×{sheet.height} pixels, {options.output.stat().st_size / 1000:.0f} kB")
    print(f"of the same class: {same:.2f} of these, {of_all:.2f} of the nearest of all {len(test)} test photographs")


if __name__ == "__main__":
    main()
