"""Trains several methods under one budget, and prints the accuracy of their features side by side.

    keras-ssl compare --methods=simclr,byol,rotation
    keras-ssl compare --methods=simclr,barlowtwins --data=photos/ --image_size=64 --seconds=300
    keras-ssl compare --methods=simclr,triplet --epochs=4 --output=runs/both

The budget is the same training time for each method (--seconds: a few steps are timed first, so that the schedule ends
when the time is up) or the same number of epochs (--epochs). Each method uses its recipe. All begin with the same
weights of the backbone, and are evaluated on the same held-out images and draws of labels. Finished methods are kept in
the folder, and are trained again only with --overwrite.
"""

import time
import types

from absl import flags

from keras_ssl.cli import choices
from keras_ssl.cli.flags import (
    check_backbone,
    check_data,
    default_backbone,
    define_overwrite,
    define_training,
    folder_options,
    new_flags,
)
from keras_ssl.cli.run_folder import ComparisonFolder, Interrupted
from keras_ssl.files import load_model, read_json, save_model, write_json

FLAGS, _define = new_flags(__name__)
define_training(_define)
flags.DEFINE_list(
    "methods",
    ["simclr", "byol", "barlowtwins"],
    "Names with commas between: keras-ssl methods; or your own class, package.module:Class.",
    **_define,
)
flags.DEFINE_float(
    "seconds",
    None,
    "Training time per method, in seconds, on this machine (default: 60 without --epochs).",
    lower_bound=1.0,
    **_define,
)
flags.DEFINE_integer("epochs", None, "Epochs per method, instead of --seconds.", lower_bound=1, **_define)
flags.DEFINE_string("output", None, "The folder (default: the next free runs/compare-DATA-N).", **_define)
define_overwrite(_define, "what --output holds, and train again,")


def check(settings):
    if settings.seconds and settings.epochs:
        raise ValueError("--seconds and --epochs both set the budget: give one of them.")
    classes = [choices.check_method(name.strip()) for name in settings.methods]
    labels = [choices.method_label(name.strip()) for name in settings.methods]
    twice = [name for place, name in enumerate(settings.methods) if labels[place] in labels[:place]]
    if twice:
        raise ValueError(
            f"--methods={','.join(settings.methods)}: {twice[0]} has the name of another one in the table and in the "
            "files. Name each method once, and rename a class of your own."
        )
    settings.backbone = settings.backbone or default_backbone(classes)
    check_data(settings.data)
    check_backbone(settings.backbone)
    folder = ComparisonFolder(settings.output) if settings.output else None
    folder = folder or ComparisonFolder.next_free("compare", settings.data)
    kept = folder.settings_file
    if kept.exists() and not settings.overwrite and folder.settings != _asked(settings):
        raise FileExistsError(
            f"--output={folder} holds a comparison with other settings: name another folder, or add --overwrite."
        )
    return folder, folder_options(settings)


def _asked(settings):
    """The flags that a comparison is made with."""
    asked = {flag.name: flag.value for flag in settings.get_flags_for_module(__name__)}
    return {name: asked[name] for name in asked if name not in ("json", "verbose", "output", "overwrite", "methods")}


def run(settings, folder, options):
    from keras_ssl.cli import experiment

    given = [name.strip() for name in settings.methods]
    methods = {choices.method_label(name): experiment.method_by_name(name) for name in given}
    data, held_out = experiment.hold_out(experiment.load(settings.data, options), settings.seed)
    experiment.check_labels(data, f"--data={settings.data}", "compare methods with", held_out)
    for name, method in methods.items():  # whatever can be refused, before anything is written
        _check_same_class(name, method, folder, settings)
        experiment.begin(method, data, _with_epochs(settings, settings.epochs or 1))
    with folder.in_use():
        return _compared(methods, data, held_out, settings, folder)


def _check_same_class(name, method, folder, settings):
    """Refuses a class whose name is that of another one, whose result is in the folder."""
    file = folder.result(name)
    if settings.overwrite or not file.exists():
        return
    kept = read_json(file).get("class", _class_of(method))  # results of the first versions do not say it
    if kept != _class_of(method):
        raise ValueError(
            f"--output={folder}: {file.name} is the result of {kept}, and --methods asks for {_class_of(method)}: name "
            "another folder, or add --overwrite."
        )


def _class_of(method):
    return f"{method.__module__}:{method.__qualname__}"


def _compared(methods, data, held_out, settings, folder):
    """Trains what is not there yet, and writes all files of the folder."""
    from keras_ssl.cli import experiment

    _prepare(folder, settings, methods)
    backbones, done = {}, {}
    for name, method in methods.items():
        try:
            untrained, trained, done[name] = _trained(name, method, data, settings, folder)
        except KeyboardInterrupt:
            again = f"Run keras-ssl compare --output={folder} with the same flags, without --overwrite, to continue"
            raise Interrupted(f"stopped in {name}; {len(done)} of {len(methods)} methods are done. {again}.") from None
        backbones.setdefault("untrained", untrained)
        backbones[name] = trained
    table = experiment.table(data, backbones, settings.seed)
    write_json(folder.table, experiment.table_to_json(table))
    experiment.print_table(table, held_out, data.train)
    print()
    for name, result in done.items():
        alarms = "".join(" · " + alarm for alarm in result["alarms"])
        print(f"{name}: {result['epochs']} epochs in {result['seconds']:.0f} s{alarms}")
    print(f"\nfolder: {folder}")
    return {"folder": str(folder), "table": experiment.table_to_json(table), "held_out": held_out, "runs": done}


def _prepare(folder, settings, methods):
    from keras_ssl.cli import experiment

    if settings.overwrite:  # nothing of another budget stays to be taken for this one's
        for name in {*experiment.methods(), *methods}:
            folder.result(name).unlink(missing_ok=True)
    write_json(folder.settings_file, _asked(settings))


def _trained(name, method, data, settings, folder):
    """`(untrained backbone, trained backbone, result)`; from the folder if it is there already."""
    from keras_ssl.cli import experiment

    result_file, path = folder.result(name), folder.backbone(name)
    model, untrained, chosen = experiment.begin(method, data, _with_epochs(settings, settings.epochs or 1))
    if result_file.exists() and path.exists():
        print(f"{name}: done before")
        return untrained, load_model(path), read_json(result_file)
    if settings.epochs is None:
        epochs = _epochs_in(settings.seconds or 60.0, method, data, settings)
        model, untrained, chosen = experiment.begin(method, data, _with_epochs(settings, epochs))
    print(f"\n{name}: {chosen.epochs} epochs")
    start = time.perf_counter()
    history, alarms = experiment.fit(model, data, chosen, settings)
    result = {
        "class": _class_of(method),
        "epochs": chosen.epochs,
        "seconds": time.perf_counter() - start,
        "alarms": alarms,
        "history": history,
        "recipe": chosen.config,
    }
    save_model(model.backbone, path)
    write_json(result_file, result)
    return untrained, model.backbone, result


def _epochs_in(seconds, method, data, settings):
    """How many epochs of a method fit into a time: some of its steps are timed after the first ones."""
    from keras_ssl.cli import experiment

    model, _, _ = experiment.begin(method, data, _with_epochs(settings, 1))
    steps_per_epoch = len(data.train) // settings.batch_size
    steps = min(10, steps_per_epoch)
    options = {"batch_size": settings.batch_size, "steps_per_epoch": steps, "verbose": 0}
    model.fit(data.train.images, **options)  # traced and compiled
    start = time.perf_counter()
    model.fit(data.train.images, **options)
    return max(1, round(seconds / ((time.perf_counter() - start) / steps * steps_per_epoch)))


def _with_epochs(settings, epochs):
    """The flags as `experiment` takes them, with a number of epochs."""
    known = {flag.name: flag.value for flag in settings.get_flags_for_module(__name__)}
    return types.SimpleNamespace(**{**known, "epochs": epochs, "optimizer": None})
