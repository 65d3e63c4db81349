"""Many photographs and few labels, from a folder and a table to a classifier, by three commands.

    python benchmarks/few_labels.py PHOTOS

PHOTOS has the folders train and test, each with one folder per class. 200 of its training pictures, drawn by the seed,
are labeled and 2,800 others are not: they are copied into one flat folder, and the labels of the 200 and of the test
pictures are written to labels.csv. Then it runs

    keras-ssl inspect photos --labels=labels.csv
    keras-ssl pretrain --data=photos --labels=labels.csv --image_size=32 --epochs=20
    keras-ssl finetune --run=RUN

and, for comparison, `finetune --protocol=from-scratch`, which trains the same network with the same labels from new
weights. Prints the accuracy on the test pictures, of which neither took any.
"""

import argparse
import csv
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np

LABELED, UNLABELED = 200, 2_800


def lay_out(photos, folder, seed):
    """The folder `photos`, and `labels.csv`, as somebody has them who has labeled 200 pictures."""
    files = sorted((photos / "train").glob("*/*"))
    files = [files[row] for row in np.random.default_rng(seed).permutation(len(files))[: LABELED + UNLABELED]]
    rows = []
    for number, file in enumerate(files):
        copy = folder / "photos" / "train" / f"{number:04}{file.suffix}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
        if number < LABELED:
            rows.append((copy.relative_to(folder / "photos"), file.parent.name))
    for number, file in enumerate(sorted((photos / "test").glob("*/*"))):
        copy = folder / "photos" / "test" / f"{number:04}{file.suffix}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
        rows.append((copy.relative_to(folder / "photos"), file.parent.name))
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label"])
        writer.writerows(rows)


def command(folder, *words):
    done = subprocess.run(
        [sys.executable, "-m", "keras_ssl", *words], cwd=folder, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def accuracy(folder, *flags):
    return json.loads(command(folder, "finetune", "--run=run", "--json", "--overwrite", *flags))["accuracy"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=pathlib.Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    found = {"pretrained": [], "from scratch": []}
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            lay_out(given.photos.absolute(), folder, seed)
            print(command(folder, "inspect", "photos", "--labels=labels.csv"), flush=True)
            flags = ["--image_size=32", f"--epochs={given.epochs}", f"--seed={seed}", "--output=run"]
            command(folder, "pretrain", "--data=photos", "--labels=labels.csv", *flags)
            found["pretrained"].append(accuracy(folder, f"--seed={seed}"))
            found["from scratch"].append(accuracy(folder, f"--seed={seed}", "--protocol=from-scratch"))
        print(f"seed {seed}: " + ", ".join(f"{name} {values[-1]:.3f}" for name, values in found.items()), flush=True)
    for name, values in found.items():
        print(f"{name}: {np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}")


if __name__ == "__main__":
    main()
