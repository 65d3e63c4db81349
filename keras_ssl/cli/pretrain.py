"""Trains a backbone on images without labels, and evaluates its features.

With no flag: SimCLR on the 10,000 images of Fashion-MNIST that come with the package, a few minutes on two cores.

    keras-ssl pretrain
    keras-ssl pretrain --data=photos/ --image_size=64 --epochs=50
    keras-ssl pretrain --data=cifar10 --backbone=resnet18 --batch_size=512 --recipe=paper --output=runs/cifar
    keras-ssl pretrain --learning_rate=0.003 --views=simclr,strength=0.5 --method_args=temperature=0.2 --name=warm
    keras-ssl pretrain --resume=runs/cifar

The run folder gets model.keras (to train on), backbone.keras (plain Keras, to build on), history.json, settings.json,
table.json, report.html, and where images are files held_out.csv. Ctrl-C keeps the state of the run; --resume continues
it, and it ends with the same result.
"""

import contextlib
import pathlib
import time

from absl import flags

from keras_ssl import names
from keras_ssl.cli import choices, run_info
from keras_ssl.cli.flags import (
    check_backbone,
    check_data,
    check_tensorboard,
    check_val,
    default_backbone,
    define_overwrite,
    define_training,
    folder_options,
    new_flags,
)
from keras_ssl.cli.run_folder import Interrupted, RunFolder
from keras_ssl.files import save_model, write_json

FLAGS, _define = new_flags(__name__)
define_training(_define)
flags.DEFINE_string(
    "method",
    "simclr",
    "The method: keras-ssl methods lists them; or your own class, package.module:Class.",
    **_define,
)
flags.DEFINE_string(
    "method_args",
    None,
    "Arguments of the method, such as temperature=0.2,memory=4096: keras-ssl methods --method=NAME lists them.",
    **_define,
)
flags.DEFINE_string(
    "views",
    None,
    "A policy of views and its arguments, such as simclr,strength=0.5, instead of the recipe's: "
    f"{', '.join(names.POLICIES)}.",
    **_define,
)
flags.DEFINE_float(
    "learning_rate", None, "The peak of the learning rate, instead of the recipe's; the schedule stays.", **_define
)
flags.DEFINE_float("weight_decay", None, "Weight decay, instead of the recipe's.", lower_bound=0.0, **_define)
flags.DEFINE_string(
    "optimizer", None, "An optimizer of keras.optimizers, such as SGD, instead of the recipe's.", **_define
)
flags.DEFINE_string(
    "teacher", None, "Of --method=distill: a model.keras or backbone.keras, or hub:PRESET or hub:FOLDER.", **_define
)
flags.DEFINE_integer("epochs", None, "Epochs (default: the recipe's).", lower_bound=1, **_define)
flags.DEFINE_string(
    "val",
    None,
    "What is held out for the table: a share of the labeled images, such as 0.1, or a number of them (default: 0.2, at "
    "most 2000). Images that are split already keep their split.",
    **_define,
)
flags.DEFINE_enum(
    "mixed_precision",
    "none",
    list(names.PRECISIONS),
    "Compute in half precision, and keep weights in float32: faster on a GPU.",
    **_define,
)
flags.DEFINE_integer(
    "micro_batch_size",
    None,
    "Images in the network at a time; the step stays that of --batch_size, in less memory and more time.",
    lower_bound=1,
    **_define,
)
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
flags.DEFINE_string("name", None, "A name for the run: its folder is runs/NAME.", **_define)
define_overwrite(_define, "the run in --output")
flags.DEFINE_string("resume", None, "Continue the interrupted run in this folder, with its settings.", **_define)
flags.DEFINE_boolean(
    "tensorboard", False, "Write logs for TensorBoard and its projector into the run folder.", **_define
)


def check(settings):
    _take_settings_of_resumed(settings)
    method = choices.check_method(settings.method)
    settings.backbone = settings.backbone or default_backbone([method])
    if (method == "Distill") != (settings.teacher is not None):
        raise ValueError(
            f"--method={settings.method} --teacher={settings.teacher}: distill, and no other method, has a teacher: a "
            "model.keras or backbone.keras of an earlier run, or hub:PRESET."
        )
    if settings.teacher is not None:
        check_backbone(settings.teacher, "--teacher")
    _check_numbers(settings)
    choices.check_method_args(settings.method_args)
    if settings.views:
        choices.check_views(settings.views)
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
    output, label = _output(settings), choices.method_label(settings.method)
    return RunFolder.for_output(output, label, settings.data, settings.overwrite), options


def _check_numbers(settings):
    rate, size, batch = settings.learning_rate, settings.micro_batch_size, settings.batch_size
    if rate is not None and not rate > 0:
        raise ValueError(f"--learning_rate={rate:g}: write a number above 0, such as 0.001.")
    if size is not None and batch % size:
        fitting = next(number for number in range(min(size, batch), 0, -1) if batch % number == 0)
        raise ValueError(
            f"--micro_batch_size={size} does not divide --batch_size={batch}: give {fitting}, or another divisor."
        )
    check_val(settings.val)


def _output(settings):
    """The folder that --output or --name says; None for the next free one."""
    if settings.name is None or settings.resume:
        return settings.output
    if settings.output is not None:
        raise ValueError(f"--name={settings.name} and --output={settings.output} both name the folder: give one.")
    if settings.name in ("", ".", "..") or pathlib.Path(settings.name).name != settings.name:
        raise ValueError(f"--name={settings.name!r}: write a name without slashes; --output takes any folder.")
    return str(pathlib.Path("runs") / settings.name)


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

    method = experiment.method_by_name(settings.method)
    choices.method_arguments(settings.method_args, method)  # before the images are read, which may take minutes
    if settings.views:
        choices.views(settings.views)
    loaded = experiment.load(settings.data, options)
    data, held_out = experiment.hold_out(loaded, settings.seed, settings.val)
    del loaded  # its images would be held in memory twice
    if settings.resume:
        folder.check_same_images(data)
    model, untrained, recipe = experiment.begin(method, data, settings)
    with folder.in_use():
        return _trained(settings, folder, model, untrained, recipe, data, held_out)


def _trained(settings, folder, model, untrained, recipe, data, held_out):
    """Trains, and writes all files of the run."""
    from keras_ssl.cli import experiment

    backbone, began = model.backbone, time.perf_counter()
    if settings.resume is None:
        folder.clear()
        write_json(folder.settings_file, _settings(settings, data, held_out, backbone, recipe))
        folder.write_left_out(data)
        folder.write_held_out(data)
    _say_what(settings, folder, model, recipe, data, held_out)
    try:
        try:
            history, alarms = experiment.fit(model, data, recipe, settings, folder)
        finally:
            run_info.add_time(folder, time.perf_counter() - began)
    except KeyboardInterrupt:
        if not folder.has_state():
            folder.withdraw()
            raise Interrupted("stopped; nothing was trained yet, and nothing is kept.") from None
        raise Interrupted(
            f"stopped; what was trained is kept. Continue with\n  keras-ssl pretrain --resume={folder}"
        ) from None
    print("saving the models", flush=True)
    # What can't be made again is on disk before anything else can fail.
    save_model(model, folder.model)
    save_model(backbone, folder.backbone)
    folder.write_left_out(data)
    write_json(folder.history, history)
    if alarms:
        write_json(folder.alarms, alarms)
    folder.remove_state()
    run_info.note_end(folder, settings.resume)

    # Only here: what evaluates and draws takes a second to import.
    from keras_ssl.cli import results
    from keras_ssl.evaluate import projector

    _keep_references(folder, untrained, data, settings)
    if data.test is not None and data.train.labels is not None and data.test.labels is not None:
        print("features for the table, by the backbone before and after training", flush=True)
    table = results.make_table(folder, untrained, backbone, data, held_out, settings)
    if settings.tensorboard:
        projector.write(folder.tensorboard, *experiment.embedded(backbone, data.test or data.train))
    results.draw_page(folder, model, data, table, held_out)
    print(f"\nbackbone: {folder.backbone}\nreport:   {folder.report}")
    results.print_next(results.next_commands(folder, data, settings, results.verdict_on(table, data)))
    return {
        "folder": str(folder),
        "history": history,
        "alarms": alarms,
        "table": experiment.table_to_json(table),
        "held_out": held_out,
        "recipe": recipe.config,
    }


def _keep_references(folder, untrained, data, settings):
    """Measures raw pixels and the untrained network by the probe of the epochs: lines beside its curve on the page.

    Those of the table are of more images, and of another probe. `RunInfo.references` takes them from the settings.
    """
    # The very probe, or the lines would not compare with the curve.
    from keras_ssl.cli.experiment import pixels, probes

    before = "backbone before" if settings.backbone.endswith(".keras") else "untrained"
    found = {}
    try:
        for probe in probes(data):
            (bank, labels), (queries, query_labels) = probe.train, probe.test
            print(f"kNN of raw pixels and of the backbone before training, on {len(queries):,} images", flush=True)
            probe.set_model(untrained)
            found[probe.name] = {
                "raw pixels": probe.classified(pixels(bank), labels, pixels(queries), query_labels),
                before: probe.accuracy(),
            }
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped before the table; the trained model is kept:\n  {folder.model}\n  {folder.backbone}\n"
            f"The table and the page are made by\n  keras-ssl report --run={folder}"
        ) from None
    if found:
        write_json(folder.settings_file, {**folder.settings, "references": found})


def _say_what(settings, folder, model, recipe, data, held_out):
    """What will be trained, on what, into where, and by which recipe."""
    from keras_ssl.cli import words
    from keras_ssl.data.split import describe
    from keras_ssl.training.preflight import describe_replicas

    backbone, shape = model.backbone, "×".join(map(str, data.train.images.shape[1:]))
    steps, size = recipe.steps_per_epoch, settings.batch_size
    rest = len(data.train) - steps * size
    dropped = f"; {rest} images are left out of each, others each time" if rest else ""
    epochs = f"each of {recipe.epochs:,} epochs" if recipe.epochs > 1 else "one epoch"
    lines = {
        "method": type(model).__name__,
        "images": f"{describe(data.train)}, {shape}",
        "held out": held_out,
        "backbone": f"{backbone.name}, {backbone.count_params():,} parameters",
        "steps": f"{steps:,} of {size:,} images in {epochs}{dropped}",
        "into": str(folder),
    }
    if (devices := describe_replicas(model, size)) is not None:
        lines["devices"] = devices
    if settings.resume:
        lines["resumed"] = "the epochs that are done are not done again"
    print()
    for name, line in lines.items():
        print(words.wrapped(line, " " * 10, name.ljust(10)))
    print("\n" + words.recipe(recipe))
    if settings.optimizer:
        note = f"Note: {type(model.optimizer).__name__} replaces the optimizer above, because of --optimizer."
        print(words.wrapped(note, "    ", "  "))


def _settings(settings, data, held_out, backbone, recipe):
    from keras_ssl import provenance
    from keras_ssl.data.split import fingerprint

    own = settings.get_flags_for_module(__name__)
    return {
        **{flag.name: flag.value for flag in own if flag.name not in ("json", "verbose")},
        "training_images": list(data.train.images.shape),
        "held_out": held_out,
        "fingerprint": fingerprint(data.train),
        "backbone_parameters": backbone.count_params(),
        "used": recipe.config,
        "started": run_info.now(),
        "command": run_info.command_line("pretrain", settings),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
    }
