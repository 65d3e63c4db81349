"""Tells what a run, a model or a set of images is made of.

    keras-ssl inspect --run=runs/simclr-photos-1
    keras-ssl inspect --backbone=backbone.keras
    keras-ssl inspect --data=photos/

The names of layers are what --layer of embed takes.
"""

import json

import numpy as np
from absl import flags

from keras_ssl.cli.common import Run, folder_of, new_flags

FLAGS, _define = new_flags(__name__)
flags.DEFINE_string("run", None, "A run folder of keras-ssl pretrain.", **_define)
flags.DEFINE_string("backbone", None, "A .keras file.", **_define)
flags.DEFINE_string("data", None, "A name, a folder of images, or a file.", **_define)
flags.DEFINE_integer(
    "image_size", None, "Side in pixels to which the pictures of a folder are resized.", lower_bound=8, **_define
)


def run(settings):
    given = [name for name in ("run", "backbone", "data") if settings[name].value is not None]
    if len(given) != 1:
        told = f"{' and '.join('--' + name for name in given)} are given" if given else "none is given"
        raise ValueError(f"Say what to look at, one of --run, --backbone and --data: {told}.")
    if settings.data:
        return _data(settings)
    if settings.image_size is not None:
        raise ValueError("--image_size is for --data: leave it out.")
    told = {}
    if settings.run:
        folder = folder_of(settings.run)
        told["settings"] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        for name, value in told["settings"].items():
            if not isinstance(value, dict) and value is not None:
                print(f"{name}: {value}")
        history = folder / "history.json"
        if history.exists():
            told["last"] = {k: v[-1] for k, v in json.loads(history.read_text(encoding="utf-8")).items() if v}
            print("last epoch: " + ", ".join(f"{name} {value:.4g}" for name, value in told["last"].items()))
        print()
    if settings.run and not (folder / "backbone.keras").exists():
        print(f"There is no backbone yet: keras-ssl pretrain --resume={folder} goes on with the run.")
        return told
    told["backbone"] = _backbone(Run(settings).backbone)
    return told


def _backbone(backbone):
    print(f"{backbone.name}: {backbone.count_params():,} parameters, {_shape(backbone.input_shape)} in\n")
    layers = [
        {
            "name": layer.name,
            "class": type(layer).__name__,
            "output": _shape(getattr(layer.output, "shape", "") if hasattr(layer, "output") else ""),
            "parameters": layer.count_params(),
        }
        for layer in backbone.layers
    ]
    widths = [max(len(str(layer[key])) for layer in layers) for key in ("name", "class", "output")]
    for layer in layers:
        cells = [str(layer[key]).ljust(width) for key, width in zip(("name", "class", "output"), widths)]
        print("  ".join([*cells, f"{layer['parameters']:>12,}"]))
    return {
        "name": backbone.name,
        "parameters": backbone.count_params(),
        "input": _shape(backbone.input_shape),
        "output": _shape(backbone.output_shape),
        "layers": layers,
    }


def _shape(shape):
    return "×".join("any" if side is None else str(side) for side in shape[1:]) if shape else ""


def _data(settings):
    from keras_ssl import data

    loaded = data.load(settings.data, image_size=settings.image_size)
    told = {}
    for name, split in (("train", loaded.train), ("test", loaded.test)):
        if split is None or split.images is None:
            continue
        first = np.asarray(split.images[: min(256, len(split))])
        told[name] = {
            "images": len(split),
            "shape": list(split.images.shape[1:]),
            "dtype": str(split.images.dtype),
            "range": [float(first.min()), float(first.max())],
        }
        print(
            f"{name}: {len(split):,} images of {'×'.join(map(str, split.images.shape[1:]))}, {split.images.dtype}, "
            f"values {first.min():g} to {first.max():g}" + (" in the first 256" if len(split) > 256 else "")
        )
        if split.labels is not None:
            labels, counts = np.unique(split.labels, return_counts=True)
            names = [split.class_names[label] if split.class_names else str(label) for label in labels]
            told[name]["classes"] = dict(zip(names, map(int, counts)))
            print("  " + ", ".join(f"{label} {count:,}" for label, count in zip(names, counts)))
        else:
            print("  without labels")
    return told
