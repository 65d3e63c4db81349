"""Trains a backbone on images without labels, and shows what its features are worth.

With no flag: SimCLR on the 10,000 images of Fashion-MNIST that come with the package, a few minutes on two cores.

    keras-ssl pretrain
    keras-ssl pretrain --data=photos/ --image_size=64 --epochs=50
    keras-ssl pretrain --data=cifar10 --backbone=resnet18 --batch_size=256 --output=runs/cifar

The run folder gets model.keras (to train on), backbone.keras (plain Keras, to build on), history.json, settings.json,
table.json and report.html.
"""

import contextlib
import datetime
import json
import pathlib
import platform

from absl import flags

FLAGS = flags.FlagValues()
_define = {"flag_values": FLAGS, "module_name": __name__}

flags.DEFINE_string("data", "fashion_mnist_sample", "A name, a folder of images, or a file: see load().", **_define)
flags.DEFINE_string("method", "simclr", "The method by name.", **_define)
flags.DEFINE_string(
    "backbone", "resnet8", "resnet8, resnet18, a name in keras.applications, or a .keras file.", **_define
)
flags.DEFINE_integer("epochs", 8, "Passes over the images.", lower_bound=1, **_define)
flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=2, **_define)
flags.DEFINE_integer(
    "image_size", None, "Side in pixels to which the images of a folder are resized.", lower_bound=8, **_define
)
flags.DEFINE_enum(
    "strategy",
    "none",
    ["none", "mirrored", "data_parallel", "auto"],
    "Train on all GPUs of this machine: mirrored on TensorFlow, data_parallel on JAX, auto whichever it is.",
    **_define,
)
flags.DEFINE_integer(
    "devices",
    None,
    "With --strategy, to try it without GPUs: so many devices made of the CPU.",
    lower_bound=2,
    **_define,
)
flags.DEFINE_string("output", None, "The run folder (default: the next free runs/METHOD-DATA-N).", **_define)
flags.DEFINE_boolean("overwrite", False, "Write into --output even where it holds a run already.", **_define)
flags.DEFINE_integer("seed", 0, "Of initial weights, order, views and draws of labels.", **_define)


def run(settings):
    with _replicas(settings):
        _pretrain(settings)


def _replicas(settings):
    """The scope of the run: all GPUs of this machine, or parts of its CPU, or nothing."""
    import keras

    from keras_ssl import distribute

    backend, strategy, devices = keras.backend.backend(), settings.strategy, settings.devices
    if strategy == "none":
        if devices:
            raise ValueError(
                f"--devices={devices} makes devices for a strategy, and --strategy=none uses one: add auto."
            )
        return contextlib.nullcontext()
    needed = {"mirrored": "tensorflow", "data_parallel": "jax", "auto": backend}[strategy]
    if needed != backend or backend == "torch":
        needed = "tensorflow or jax" if strategy == "auto" else needed
        raise ValueError(f"--strategy={strategy} needs KERAS_BACKEND={needed}; the backend is {backend}.")
    if devices and settings.batch_size % devices:
        raise ValueError(f"--batch_size={settings.batch_size} does not divide among --devices={devices}.")
    if devices:
        distribute.split_cpu(devices)
    found = distribute.local_accelerators()
    if devices and found:
        raise ValueError(f"--devices={devices} divides the CPU, and there are {found} GPUs: leave it out to use them.")
    count = devices or found
    if count < 2 and strategy == "auto":
        return contextlib.nullcontext()
    scope = distribute.local_replicas(count) if count > 1 else None
    if scope is None:
        raise ValueError(
            f"--strategy={strategy} needs two GPUs or more, and there are {found}. Take --strategy=auto to use what "
            "there is, or --devices=2 to try it on the CPU."
        )
    return scope


def _pretrain(settings):
    import keras_ssl
    from keras_ssl.cli import outcome, page

    method = outcome.method_by_name(settings.method)
    folder = _run_folder(settings)
    loaded = keras_ssl.data.load(settings.data, image_size=settings.image_size)
    data, held_out = outcome.hold_out(loaded, settings.seed)
    model, untrained = outcome.begin(method, data, settings)
    backbone, shape = model.backbone, data.train.images.shape

    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "settings.json", _settings(settings, data, held_out, backbone))
    print(
        f"{type(model).__name__} on {shape[0]:,} images of {'×'.join(map(str, shape[1:]))}, backbone "
        f"{backbone.name} with {backbone.count_params():,} parameters, into {folder}"
    )
    history = outcome.fit(model, data, settings)
    # What can't be made again is on disk before anything else can fail.
    model.save(folder / "model.keras")
    backbone.save(folder / "backbone.keras")
    _write_json(folder / "history.json", history)

    table = outcome.table(data, backbone, untrained, settings.seed)
    if table:
        _write_json(
            folder / "table.json",
            {name: {column: cell.accuracies for column, cell in cells.items()} for name, cells in table.items()},
        )
    page.write(folder / "report.html", model, data, held_out, history, table, settings)
    outcome.print_table(table, data, held_out)
    print(f"\nbackbone: {folder / 'backbone.keras'}    report: {folder / 'report.html'}")


def _run_folder(settings):
    """The folder of this run; refuses one that holds another run."""
    if settings.output is None:
        source = pathlib.Path(settings.data).stem or "data"
        numbers = (pathlib.Path("runs") / f"{settings.method}-{source}-{n}" for n in range(1, 10_000))
        return next(folder for folder in numbers if not folder.exists())
    folder = pathlib.Path(settings.output)
    if folder.is_file():
        raise FileExistsError(f"--output={folder} is a file: name a folder.")
    if folder.exists() and any(folder.iterdir()) and not settings.overwrite:
        raise FileExistsError(
            f"--output={folder} holds files already, and a run is never overwritten unasked: name another folder, or "
            "add --overwrite."
        )
    return folder


def _settings(settings, data, held_out, backbone):
    import keras

    import keras_ssl

    return {
        **{flag.name: flag.value for flag in settings.get_flags_for_module(__name__)},
        "training_images": list(data.train.images.shape),
        "held_out": held_out,
        "backbone_parameters": backbone.count_params(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "keras_ssl": keras_ssl.__version__,
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "python": platform.python_version(),
        },
    }


def _write_json(path, content):
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
