"""Makes clothes_sample.npz: photographs of clothes, 64×64 pixels, as WebP.

    python keras_ssl/datasets/make_clothes_sample.py FOLDER

FOLDER has the sub-folders train, validation and test of
https://github.com/alexeygrigorev/clothing-dataset-small, with a sub-folder of JPEGs for each class. Those of train and
validation become the training split. Their test folder stays the test split: it has other carpets and walls, and no
near copies of training pictures. A whole picture is brought to a square, as `data.load` does with a folder. Pictures
are in the order of their names, which are random, so that classes are mixed. The same versions of Pillow and libwebp
write the same file.
"""

import io
import pathlib
import sys

import numpy as np
from PIL import Image, ImageOps

SIDE, QUALITY = 64, 90
FOLDERS = {"train": ("train", "validation"), "test": ("test",)}


def encoded(path):
    with Image.open(path) as picture:
        upright = ImageOps.exif_transpose(picture).convert("RGB")
    small = upright.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    content = io.BytesIO()
    small.save(content, "WEBP", quality=QUALITY, method=6)
    return np.frombuffer(content.getvalue(), "uint8")


def main(folder, output=pathlib.Path(__file__).parent / "clothes_sample.npz"):
    root = pathlib.Path(folder)
    classes = sorted(entry.name for entry in (root / "test").iterdir() if entry.is_dir())
    arrays = {"class_names": np.array(classes)}
    for part, folders in FOLDERS.items():
        paths = sorted((path for name in folders for path in (root / name).rglob("*.jpg")), key=lambda path: path.name)
        pictures = [encoded(path) for path in paths]
        arrays[f"{part}_pictures"] = np.concatenate(pictures)
        arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, pictures)])
        arrays[f"{part}_labels"] = np.array([classes.index(path.parent.name) for path in paths], "uint8")
    np.savez(output, **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
