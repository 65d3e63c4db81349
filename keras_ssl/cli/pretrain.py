"""Trains a backbone on images without labels, and shows what its features are worth.

With no flag: SimCLR on the 10,000 images of Fashion-MNIST that come with the package, a few minutes on two cores.

    keras-ssl pretrain
    keras-ssl pretrain --data=photos/ --image_size=64 --epochs=50
    keras-ssl pretrain --data=cifar10 --backbone=resnet18 --batch_size=256 --output=runs/cifar

The run folder gets model.keras (to train on), backbone.keras (plain Keras, to build on), history.json, settings.json,
table.json and report.html.
"""

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
flags.DEFINE_integer("epochs", 6, "Passes over the images.", lower_bound=1, **_define)
flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=2, **_define)
flags.DEFINE_integer(
    "image_size", None, "Side in pixels to which the images of a folder are resized.", lower_bound=8, **_define
)
flags.DEFINE_string("output", None, "The run folder (default: the next free runs/METHOD-DATA-N).", **_define)
flags.DEFINE_boolean("overwrite", False, "Write into --output even where it holds a run already.", **_define)
flags.DEFINE_integer("seed", 0, "Of initial weights, order, views and draws of labels.", **_define)


def run(settings):
    import keras

    import keras_ssl
    from keras_ssl.cli import outcome

    method = outcome.method_by_name(settings.method)
    folder = _run_folder(settings)
    keras.utils.set_random_seed(settings.seed)
    loaded = keras_ssl.data.load(settings.data, image_size=settings.image_size)
    data, held_out = outcome.hold_out(loaded, settings.seed)
    images = data.train.images
    backbone = outcome.backbone_by_name(settings.backbone, images.shape[1:])
    untrained = keras.models.clone_model(backbone)
    untrained.set_weights(backbone.get_weights())
    model = method(backbone, seed=settings.seed)
    steps = settings.epochs * max(1, len(images) // settings.batch_size)
    model.compile(optimizer=outcome.optimizer(steps))

    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "settings.json", _settings(settings, data, held_out, backbone))
    print(
        f"{type(model).__name__} on {len(images):,} images of {'×'.join(map(str, images.shape[1:]))}, backbone "
        f"{backbone.name} with {backbone.count_params():,} parameters, into {folder}"
    )
    history = model.fit(
        images,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        validation_data=outcome.validation_images(data, settings.batch_size),
        callbacks=outcome.probes(data),
    ).history
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
    outcome.report(folder / "report.html", model, data, held_out, history, table, settings)
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
