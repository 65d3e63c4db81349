"""Holds the run of README's first line to its promise: 3 points at 10 labels per class, and a backbone that loads."""

import json
import pathlib
import sys

import keras
import numpy as np

folder = pathlib.Path(sys.argv[1])
table = json.loads((folder / "table.json").read_text(encoding="utf-8"))
means = {name: float(np.mean(cells["linear, 10 per class"])) for name, cells in table.items()}
print(", ".join(f"{name} {mean:.3f}" for name, mean in means.items()), "(linear probe, 10 labels per class)")
trained = means.pop("trained backbone")
if trained < max(means.values()) + 0.03:
    sys.exit("the trained backbone is not 3 points above raw pixels and the untrained backbone")
keras.models.load_model(folder / "backbone.keras").predict(np.zeros((1, 28, 28, 1), "uint8"), verbose=0)
