"""Trains a backbone on images without labels, and shows what its features are worth.

With no flag: SimCLR on the 10,000 images of Fashion-MNIST that come with the package, a few minutes on two cores.

    keras-ssl pretrain
    keras-ssl pretrain --data=photos/ --image_size=64 --epochs=50
    keras-ssl pretrain --data=cifar10 --backbone=resnet18 --batch_size=512 --recipe=paper --output=runs/cifar
    keras-ssl pretrain --resume=runs/cifar

The run folder gets model.keras (to train on), backbone.keras (plain Keras, to build on), history.json, settings.json,
table.json and report.html. Ctrl-C keeps the state of the run, and --resume goes on from it, to the same end.
"""

import contextlib
import datetime
import json
import pathlib
import platform
import shutil

from absl import flags

from keras_ssl.cli.common import folder_of, new_flags, write_json

FLAGS, _define = new_flags(__name__)

flags.DEFINE_string("data", "fashion_mnist_sample", "A name, a folder of images, or a file: see load().", **_define)
flags.DEFINE_string("method", "simclr", "The method by name: keras-ssl methods lists them.", **_define)
flags.DEFINE_string(
    "backbone", "resnet8", "resnet8, resnet18, a name in keras.applications, or a .keras file.", **_define
)
flags.DEFINE_enum(
    "recipe",
    "auto",
    ["auto", "small", "paper"],
    "What is trained with: small, as measured on the sample; paper, as the method's authors did; auto chooses by batch "
    "size and number of images, and says why.",
    **_define,
)
flags.DEFINE_string(
    "optimizer", None, "An optimizer of keras.optimizers, such as SGD, in the place of the recipe's.", **_define
)
flags.DEFINE_integer("epochs", None, "Passes over the images; the recipe's if left out.", lower_bound=1, **_define)
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
flags.DEFINE_string("resume", None, "A run folder that was cut off: go on with it, as it was set up.", **_define)
flags.DEFINE_boolean(
    "tensorboard", False, "Write logs for TensorBoard into the run folder, and the embedding's projector.", **_define
)
flags.DEFINE_integer("seed", 0, "Of initial weights, order, views and draws of labels.", **_define)

STATE = "state.npz"


def run(settings):
    _continue(settings)
    with _replicas(settings):
        return _pretrain(settings)


def _continue(settings):
    """With `--resume`, all other flags are those of the run."""
    if settings.resume is None:
        return
    folder = folder_of(settings.resume)
    if not (folder / STATE).exists():
        done = (folder / "backbone.keras").exists()
        raise FileNotFoundError(
            f"--resume={folder}: there is no {STATE} in it; "
            + ("the run is finished." if done else "it was cut off before its first epoch: start it anew.")
        )
    kept = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    for flag in settings.get_flags_for_module(__name__):
        if flag.name in ("json", "resume", "output", "overwrite") or flag.name not in kept:
            continue
        if flag.present and flag.value != kept[flag.name]:
            raise ValueError(
                f"--{flag.name}={flag.value} contradicts --resume={folder}, which was started with "
                f"{kept[flag.name]}: leave it out, or start a run of its own."
            )
        flag.value = kept[flag.name]
    if settings["output"].present and pathlib.Path(settings.output) != folder:
        raise ValueError(f"--output={settings.output} contradicts --resume={folder}: a run goes on in its own folder.")
    settings.output = str(folder)


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
    from keras_ssl.cli import Interrupted, outcome, page
    from keras_ssl.evaluate import projector

    method = outcome.method_by_name(settings.method)
    if settings.tensorboard:
        outcome.check_tensorboard()
    folder = _run_folder(settings)
    loaded = keras_ssl.data.load(settings.data, image_size=settings.image_size)
    data, held_out = outcome.hold_out(loaded, settings.seed)
    del loaded  # what was held out of it is held twice otherwise
    if settings.resume:
        outcome.same_images(data, json.loads((folder / "settings.json").read_text(encoding="utf-8")))
    model, untrained, recipe = outcome.begin(method, data, settings)
    backbone, shape = model.backbone, data.train.images.shape

    folder.mkdir(parents=True, exist_ok=True)
    if settings.resume is None:
        _clear(folder)
        write_json(folder / "settings.json", _settings(settings, data, held_out, backbone, recipe))
    print(
        f"{type(model).__name__} on {shape[0]:,} images of {'×'.join(map(str, shape[1:]))}, backbone "
        f"{backbone.name} with {backbone.count_params():,} parameters, into {folder}\n{recipe.describe()}"
    )
    if settings.optimizer:
        print(f"  Note: {type(model.optimizer).__name__} takes the place of the optimizer above, as --optimizer says.")
    try:
        history, alarms = outcome.fit(model, data, recipe, settings, folder, folder / STATE)
    except KeyboardInterrupt:
        kept = f"what was trained is kept. Go on: keras-ssl pretrain --resume={folder}"
        raise Interrupted(f"stopped; {kept if (folder / STATE).exists() else 'nothing was trained yet.'}") from None
    # What can't be made again is on disk before anything else can fail.
    model.save(folder / "model.keras")
    backbone.save(folder / "backbone.keras")
    write_json(folder / "history.json", history)
    if alarms:
        write_json(folder / "alarms.json", alarms)
    (folder / STATE).unlink(missing_ok=True)

    before = "backbone before" if settings.backbone.endswith(".keras") else "untrained backbone"
    table = outcome.table(data, {before: untrained, "trained backbone": backbone}, settings.seed)
    if table:
        write_json(folder / "table.json", outcome.lists(table))
    if settings.tensorboard:
        projector.write(folder / "tensorboard", *outcome.embedded(backbone, data.test or data.train))
    about = page.About(settings.data, recipe.epochs, settings.batch_size, settings.seed)
    page.write(folder / "report.html", model, data, held_out, history, table, about, alarms)
    outcome.print_table(table, held_out)
    print(f"\nbackbone: {folder / 'backbone.keras'}    report: {folder / 'report.html'}")
    return {
        "folder": str(folder),
        "history": history,
        "alarms": alarms,
        "table": outcome.lists(table) if table else None,
        "held_out": held_out,
        "recipe": recipe.config,
    }


def _clear(folder):
    """With --overwrite: nothing of the run that was here passes for the new one's."""
    for name in (STATE, "model.keras", "backbone.keras", "alarms.json", "history.json", "table.json", "report.html"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)


def _run_folder(settings):
    """The folder of this run; refuses one that holds another run."""
    if settings.output is None:
        source = pathlib.Path(settings.data).stem or "data"
        numbers = (pathlib.Path("runs") / f"{settings.method}-{source}-{n}" for n in range(1, 10_000))
        return next(folder for folder in numbers if not folder.exists())
    folder = pathlib.Path(settings.output).expanduser()
    if folder.is_file():
        raise FileExistsError(f"--output={folder} is a file: name a folder.")
    if folder.exists() and any(folder.iterdir()) and not (settings.overwrite or settings.resume):
        raise FileExistsError(
            f"--output={folder} holds files already, and a run is never overwritten unasked: name another folder, or "
            "add --overwrite."
        )
    return folder


def _settings(settings, data, held_out, backbone, recipe):
    import keras

    import keras_ssl

    kept = {flag.name: flag.value for flag in settings.get_flags_for_module(__name__) if flag.name != "json"}
    return {
        **kept,
        "training_images": list(data.train.images.shape),
        "held_out": held_out,
        "backbone_parameters": backbone.count_params(),
        "used": recipe.config,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "keras_ssl": keras_ssl.__version__,
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
            "python": platform.python_version(),
        },
    }
