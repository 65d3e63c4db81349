"""A picture of behavior, to be compared before and after a change that must not alter any.

For each method under test: the weights after ten steps from fixed initial weights, what `fit` and `evaluate` log, the
features, the configuration, and the names in the `.keras` file.

```sh
cd tests
KERAS_BACKEND=jax python ../tools/behavior.py --write=before
KERAS_BACKEND=jax python ../tools/behavior.py --compare=before
```
"""

import argparse
import io
import json
import os
import pathlib
import sys
import tempfile
import zipfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.getcwd())

import keras
import numpy as np
from methods_under_test import METHODS

from keras_ssl import data

BATCH, STEPS, ROWS = 32, 5, 165


def picture(make_model, initial):
    """`(initial weights, arrays by name, texts by name)` of one method."""
    keras.utils.set_random_seed(0)
    model = make_model()
    split = data.load("fashion_mnist_sample").train
    height, width, channels = (side or default for side, default in zip(model.backbone.input_shape[1:], (28, 28, 1)))
    images = split.images[:ROWS].astype("float32")
    if (height, width) != (28, 28):
        images = keras.ops.convert_to_numpy(keras.ops.image.resize(images, (height, width)))
    images = np.repeat(np.clip(images, 0.0, 255.0), channels, axis=-1)
    low, high = model.value_range
    images = (low + (high - low) * images / 255.0).astype("float32")
    x = {"image": images, "label": split.labels[:ROWS]} if model.uses_labels else images
    if not model.built:
        model.build(keras.tree.map_structure(lambda array: (None, *array.shape[1:]), x))
    if initial is None:
        initial = state(model)
    for variable, value in zip(model.weights, initial, strict=True):
        variable.assign(value)
    model.compile(keras.optimizers.SGD(0.003, momentum=0.9))
    history = model.fit(x, batch_size=BATCH, epochs=2, verbose=0).history
    arrays = {f"weight_{number}": value for number, value in enumerate(state(model))}
    arrays.update({f"log_{name}": np.array(values) for name, values in history.items()})
    arrays["predict"] = model.predict(images[:8], verbose=0)
    logs = model.evaluate(x, batch_size=BATCH, verbose=0, return_dict=True)
    arrays.update({f"evaluate_{name}": np.array(value) for name, value in logs.items()})
    texts = {"config": json.dumps(model.get_config(), sort_keys=True, default=str)}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        texts["keras_file"] = json.dumps(names_in(path))
    return initial, arrays, texts


def names_in(path):
    """The members of a `.keras` file, and the names and shapes of its data sets."""
    import h5py

    found = []
    with zipfile.ZipFile(path) as archive:
        found += sorted(archive.namelist())
        with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
            file.visititems(
                lambda name, part: found.append(f"{name} {part.shape}") if isinstance(part, h5py.Dataset) else None
            )
    return found


def state(model):
    return [keras.ops.convert_to_numpy(variable) for variable in model.weights]


def write(folder):
    for name, make_model in METHODS.items():
        initial, arrays, texts = picture(make_model, None)
        initial = {f"initial_{number}": value for number, value in enumerate(initial)}
        np.savez(folder / f"{file_name(name)}.npz", **initial, **arrays, texts=json.dumps(texts))
        keras.utils.clear_session()
        print(f"{name}: written", flush=True)


def compare(folder):
    """Prints what differs; returns the largest difference, or infinity where names or texts differ."""
    worst = 0.0
    for name, make_model in METHODS.items():
        with np.load(folder / f"{file_name(name)}.npz") as file:
            before = {key: file[key] for key in file.files}
        texts = json.loads(str(before.pop("texts")))
        initial = [before.pop(f"initial_{number}") for number in range(sum(k.startswith("initial_") for k in before))]
        _, arrays, now = picture(make_model, initial)
        found = []
        if set(before) != set(arrays):
            found.append(f"names differ: {sorted(set(before) ^ set(arrays))}")
        both = set(before) & set(arrays)
        differences = [float(np.max(np.abs(np.float64(before[key]) - arrays[key]), initial=0.0)) for key in both]
        found += [f"{key}: {first_difference(texts[key], now[key])}" for key in texts if texts[key] != now[key]]
        worst = float("inf") if found else max(worst, *differences)
        print(f"{name}: {max(differences):.3g}", *found, sep="\n  ", flush=True)
        keras.utils.clear_session()
    return worst


def first_difference(before, now):
    """Where two texts part, with what stands around."""
    place = next((i for i, (a, b) in enumerate(zip(before, now)) if a != b), min(len(before), len(now)))
    around = slice(max(0, place - 40), place + 40)
    return f"… {before[around]} … is now … {now[around]} …"


def file_name(name):
    return name.lower().replace(" ", "_")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=pathlib.Path, help="folder to write the picture to")
    parser.add_argument("--compare", type=pathlib.Path, help="folder of the picture to compare with")
    options = parser.parse_args()
    if options.write:
        folder = options.write / keras.backend.backend()
        folder.mkdir(parents=True, exist_ok=True)
        write(folder)
    if options.compare:
        worst = compare(options.compare / keras.backend.backend())
        print(f"largest difference: {worst:.3g}")
        sys.exit(0 if worst <= 1e-7 else 1)


if __name__ == "__main__":
    main()
