"""Describes a run, a model or a data set.

    keras-ssl inspect --run=runs/simclr-photos-1
    keras-ssl inspect --backbone=backbone.keras
    keras-ssl inspect photos/
    keras-ssl inspect photos/ --labels=labels.csv --json

Of a folder it says what will be trained on: pictures by class and split, sizes, kinds, copies in two splits, and what
is left out and why. No picture is changed. keras-ssl embed takes the names of layers for its flag --layer.
"""

import pathlib

import numpy as np
from absl import flags

from keras_ssl.cli.flags import FOLDER_FLAGS, IMAGE_SIZE, check_data, define_folder, folder_options, new_flags
from keras_ssl.cli.run_folder import RunFolder
from keras_ssl.cli.trained import TrainedBackbone
from keras_ssl.files import read_json

FLAGS, _define = new_flags(__name__)
flags.DEFINE_string("run", None, "A run folder of keras-ssl pretrain.", **_define)
flags.DEFINE_string("backbone", None, "A .keras file.", **_define)
flags.DEFINE_string("data", None, "A data set's name, a folder of images, or a file.", **_define)
flags.DEFINE_string("image_size", None, f"With --data: {IMAGE_SIZE}.", **_define)
define_folder(_define)
POSITIONAL = "data"  # keras-ssl inspect photos/


def check(settings):
    given = [name for name in ("run", "backbone", "data") if settings[name].value is not None]
    if len(given) != 1:
        which = f"{' and '.join('--' + name for name in given)} are given" if given else "none is given"
        raise ValueError(f"Name one thing to describe, with --run, --backbone or --data: {which}.")
    if settings.data:
        check_data(settings.data)
    else:
        given = next((name for name in FOLDER_FLAGS if settings[name].value is not None), None)
        if given:
            raise ValueError(f"--{given} is for --data: leave it out.")
    options = folder_options(settings)
    folder = RunFolder.existing(settings.run) if settings.run else None
    # A run that was interrupted has no backbone yet.
    has_backbone = folder.backbone.exists() if folder else settings.backbone is not None
    return folder, TrainedBackbone(settings) if has_backbone else None, options


def run(settings, folder, used, options):
    if settings.data:
        if _is_folder_of_pictures(settings.data):
            from keras_ssl.cli import inspect_folder

            return inspect_folder.describe(settings.data, options)
        return _data(settings.data, options)
    result = {}
    if folder:
        result["settings"] = folder.settings
        for name, value in result["settings"].items():
            if not isinstance(value, dict) and value is not None:
                print(f"{name}: {value}")
        if folder.history.exists():
            result["last"] = {name: values[-1] for name, values in read_json(folder.history).items() if values}
            print("last epoch: " + ", ".join(f"{name} {value:.4g}" for name, value in result["last"].items()))
        print()
    if used is None:
        print(f"There is no backbone yet: keras-ssl pretrain --resume={folder} continues the run.")
        return result
    result["backbone"] = _backbone(used.load().backbone)
    return result


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


def _is_folder_of_pictures(source):
    path = pathlib.Path(source).expanduser()
    return path.is_dir() and not any(path.glob("*-idx3-ubyte*"))


def _data(source, options):
    from keras_ssl import data
    from keras_ssl.data.split import describe

    result = {}
    for name, split in data.load(source, **options).splits().items():
        first = np.asarray(split.images[: min(256, len(split))])
        result[name] = {
            "images": len(split),
            "shape": list(split.images.shape[1:]),
            "dtype": str(split.images.dtype),
            "range": [float(first.min()), float(first.max())],
        }
        print(
            f"{name}: {describe(split)}, {'×'.join(map(str, split.images.shape[1:]))}, {split.images.dtype}, "
            f"values {first.min():g} to {first.max():g}" + (" in the first 256" if len(split) > 256 else "")
        )
        if split.labels is not None:
            labels, counts = np.unique(split.labels[split.has_label], return_counts=True)
            result[name]["classes"] = {split.name_of(label): int(count) for label, count in zip(labels, counts)}
            result[name]["without_label"] = int((~split.has_label).sum())
            print("  " + ", ".join(f"{label} {count:,}" for label, count in result[name]["classes"].items()))
    return result
