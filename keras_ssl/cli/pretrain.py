"""Trains a backbone on images without labels, and evaluates its features.

With no flag: SimCLR on the 10,000 images of Fashion-MNIST that come with the package, a few minutes on two cores.

    keras-ssl pretrain
    keras-ssl pretrain --data=photos/ --image_size=64 --epochs=50
    keras-ssl pretrain --data=cifar10 --backbone=resnet18 --batch_size=512 --recipe=paper --output=runs/cifar
    keras-ssl pretrain --resume=runs/cifar

The run folder gets model.keras (to train on), backbone.keras (plain Keras, to build on), history.json, settings.json,
table.json and report.html. Ctrl-C keeps the state of the run; --resume continues it, and it ends with the same result.
"""

import contextlib
import pathlib

from absl import flags

from keras_ssl.cli import run_info
from keras_ssl.cli.flags import (
    check_backbone,
    check_data,
    check_tensorboard,
    define_overwrite,
    define_training,
    folder_options,
    method_class,
    new_flags,
)
from keras_ssl.cli.run_folder import Interrupted, RunFolder
from keras_ssl.files import save_model, write_json

FLAGS, _define = new_flags(__name__)
define_training(_define)
flags.DEFINE_string("method", "simclr", "The method: keras-ssl methods lists them.", **_define)
flags.DEFINE_string(
    "optimizer", None, "An optimizer of keras.optimizers, such as SGD, instead of the recipe's.", **_define
)
flags.DEFINE_string(
    "teacher", None, "Of --method=distill: a model.keras or backbone.keras, or hub:PRESET or hub:FOLDER.", **_define
)
flags.DEFINE_integer("epochs", None, "Epochs (default: the recipe's).", lower_bound=1, **_define)
flags.DEFINE_enum(
    "strategy",
    "none",
    ["none", "mirrored", "data_parallel", "auto"],
    "Train on all GPUs of this machine: mirrored on TensorFlow, data_parallel on JAX, auto for either.",
    **_define,
)
flags.DEFINE_integer(
    "devices",
    None,
    "With --strategy: split the CPU into this many devices, to try a strategy without GPUs.",
    lower_bound=2,
    **_define,
)
flags.DEFINE_string("output", None, "The run folder (default: the next free runs/METHOD-DATA-N).", **_define)
define_overwrite(_define, "the run in --output")
flags.DEFINE_string("resume", None, "Continue the interrupted run in this folder, with its settings.", **_define)
flags.DEFINE_boolean(
    "tensorboard", False, "Write logs for TensorBoard and its projector into the run folder.", **_define
)


def check(settings):
    _take_settings_of_resumed(settings)
    if (method_class(settings.method) == "Distill") != (settings.teacher is not None):
        raise ValueError(
            f"--method={settings.method} --teacher={settings.teacher}: distill, and no other method, has a teacher: a "
            "model.keras or backbone.keras of an earlier run, or hub:PRESET."
        )
    if settings.teacher is not None:
        check_backbone(settings.teacher, "--teacher")
    check_data(settings.data)
    options = folder_options(settings)
    check_backbone(settings.backbone)
    if settings.tensorboard:
        check_tensorboard()
    if settings.devices and settings.strategy == "none":
        raise ValueError(
            f"--devices={settings.devices} needs a strategy, and --strategy=none uses one device: add --strategy=auto."
        )
    if settings.resume:
        return RunFolder(settings.resume), options
    return RunFolder.for_output(settings.output, settings.method, settings.data, settings.overwrite), options


def _take_settings_of_resumed(settings):
    """With `--resume`, all other flags are those of the run."""
    if settings.resume is None:
        return
    folder = RunFolder.existing(settings.resume, "--resume")
    if not folder.has_state():
        done = folder.backbone.exists()
        raise FileNotFoundError(
            f"--resume={folder}: there is no {folder.state.name} in it; "
            + ("the run is finished." if done else "it was interrupted before its first state was saved: start again.")
        )
    kept = folder.settings
    for flag in settings.get_flags_for_module(__name__):
        if flag.name in ("json", "verbose", "resume", "output", "overwrite") or flag.name not in kept:
            continue
        if flag.present and flag.value != kept[flag.name]:
            raise ValueError(
                f"--{flag.name}={flag.value} contradicts --resume={folder}, which was started with "
                f"{kept[flag.name]}: leave it out, or start a new run."
            )
        flag.value = kept[flag.name]
    if settings["output"].present and pathlib.Path(settings.output) != folder.path:
        raise ValueError(
            f"--output={settings.output} contradicts --resume={folder}: a run continues in its own folder."
        )


def run(settings, folder, options):
    with _replicas(settings):
        return _pretrain(settings, folder, options)


def _replicas(settings):
    """The scope of the run: all GPUs of this machine, or parts of its CPU, or nothing."""
    import keras

    from keras_ssl import backend, distribute

    strategy, devices = settings.strategy, settings.devices
    if strategy == "none":
        return contextlib.nullcontext()
    if backend.LOCAL_STRATEGY is None or strategy not in ("auto", backend.LOCAL_STRATEGY):
        needed = {"mirrored": "tensorflow", "data_parallel": "jax", "auto": "tensorflow or jax"}[strategy]
        name = keras.backend.backend()
        raise ValueError(f"--strategy={strategy} needs KERAS_BACKEND={needed}; the backend is {name}.")
    if devices and settings.batch_size % devices:
        raise ValueError(f"--batch_size={settings.batch_size} does not divide among --devices={devices}.")
    if devices:
        distribute.split_cpu(devices)
    found = distribute.local_accelerators()
    if devices and found:
        raise ValueError(f"--devices={devices} splits the CPU, but there are {found} GPUs: leave it out to use them.")
    count = devices or found
    if count < 2 and strategy == "auto":
        return contextlib.nullcontext()
    scope = distribute.local_replicas(count) if count > 1 else None
    if scope is None:
        raise ValueError(
            f"--strategy={strategy} needs at least two GPUs, and there are {found}. Take --strategy=auto to use what "
            "there is, or --devices=2 to try it on the CPU."
        )
    return scope


def _pretrain(settings, folder, options):
    from keras_ssl.cli import experiment
    from keras_ssl.data.split import hold_out

    method = experiment.method_by_name(settings.method)
    loaded = experiment.load(settings.data, options)
    data, held_out = hold_out(loaded, settings.seed)
    del loaded  # its images would be held in memory twice
    if settings.resume:
        folder.check_same_images(data)
    model, untrained, recipe = experiment.begin(method, data, settings)
    with folder.in_use():
        return _trained(settings, folder, model, untrained, recipe, data, held_out)


def _trained(settings, folder, model, untrained, recipe, data, held_out):
    """Trains, and writes all files of the run."""
    from keras_ssl.cli import experiment
    from keras_ssl.data.split import describe

    backbone, shape = model.backbone, data.train.images.shape
    if settings.resume is None:
        folder.clear()
        write_json(folder.settings_file, _settings(settings, data, held_out, backbone, recipe))
        folder.write_left_out(data)
    print(
        f"{type(model).__name__} on {describe(data.train)}, {'×'.join(map(str, shape[1:]))}, backbone "
        f"{backbone.name} with {backbone.count_params():,} parameters, into {folder}\n{recipe.describe()}"
    )
    if settings.optimizer:
        print(f"  Note: {type(model.optimizer).__name__} replaces the optimizer above, because of --optimizer.")
    try:
        history, alarms = experiment.fit(model, data, recipe, settings, folder)
    except KeyboardInterrupt:
        kept = f"what was trained is kept. Continue with keras-ssl pretrain --resume={folder}"
        raise Interrupted(f"stopped; {kept if folder.has_state() else 'nothing was trained yet.'}") from None
    # What can't be made again is on disk before anything else can fail.
    save_model(model, folder.model)
    save_model(backbone, folder.backbone)
    folder.write_left_out(data)
    write_json(folder.history, history)
    if alarms:
        write_json(folder.alarms, alarms)
    folder.remove_state()
    run_info.note_end(folder, settings.resume)

    before = "backbone before" if settings.backbone.endswith(".keras") else "untrained backbone"
    table = experiment.table(data, {before: untrained, "trained backbone": backbone}, settings.seed)
    if table:
        write_json(folder.table, experiment.table_to_json(table))
    experiment.print_table(table, held_out)
    print("\ndrawing the page: a map of the images, neighbors, views")
    # Only here: what draws takes a second to import.
    from keras_ssl import report
    from keras_ssl.evaluate import projector

    if settings.tensorboard:
        projector.write(folder.tensorboard, *experiment.embedded(backbone, data.test or data.train))
    report.write(
        folder.report,
        model,
        data,
        history=history,
        table=table,
        run=run_info.run_info(folder),
        held_out=held_out,
        alarms=alarms,
    )
    print(f"\nbackbone: {folder.backbone}    report: {folder.report}")
    return {
        "folder": str(folder),
        "history": history,
        "alarms": alarms,
        "table": experiment.table_to_json(table),
        "held_out": held_out,
        "recipe": recipe.config,
    }


def _settings(settings, data, held_out, backbone, recipe):
    from keras_ssl import provenance

    own = settings.get_flags_for_module(__name__)
    return {
        **{flag.name: flag.value for flag in own if flag.name not in ("json", "verbose")},
        "training_images": list(data.train.images.shape),
        "held_out": held_out,
        "backbone_parameters": backbone.count_params(),
        "used": recipe.config,
        "started": run_info.now(),
        "command": run_info.command_line("pretrain", settings),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
    }
