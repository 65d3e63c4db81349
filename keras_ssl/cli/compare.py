"""Trains several methods under one budget, and prints what their features are worth, side by side.

    keras-ssl compare --methods=simclr,byol,rotation
    keras-ssl compare --methods=simclr,barlowtwins --data=photos/ --image_size=64 --seconds=300
    keras-ssl compare --methods=simclr,triplet --epochs=4 --output=runs/both

The budget is the same time of training for each (--seconds: steps are timed first, and the schedule made to end with
it) or the same number of passes (--epochs). Each method uses its recipe. All begin with one backbone's weights and are
judged on one draw of held-out images and labels. What is done is kept in the folder, and done again only with
--overwrite.
"""

import json
import pathlib
import time
import types

from absl import flags

from keras_ssl.cli.common import new_flags, write_json

FLAGS, _define = new_flags(__name__)
flags.DEFINE_list("methods", ["simclr", "byol", "barlowtwins"], "Names with commas: keras-ssl methods.", **_define)
flags.DEFINE_string("data", "fashion_mnist_sample", "A name, a folder of images, or a file: see load().", **_define)
flags.DEFINE_string("backbone", "resnet8", "As of keras-ssl pretrain.", **_define)
flags.DEFINE_enum("recipe", "auto", ["auto", "small", "paper"], "As of keras-ssl pretrain.", **_define)
flags.DEFINE_float(
    "seconds",
    None,
    "Of training a method, on this machine (default: 60, without --epochs).",
    lower_bound=1.0,
    **_define,
)
flags.DEFINE_integer("epochs", None, "Passes over the images, in the place of time.", lower_bound=1, **_define)
flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=2, **_define)
flags.DEFINE_integer("image_size", None, "Side in pixels to which images are resized.", lower_bound=8, **_define)
flags.DEFINE_string("output", None, "The folder (default: the next free runs/compare-DATA-N).", **_define)
flags.DEFINE_boolean("overwrite", False, "Train again what --output holds already.", **_define)
flags.DEFINE_integer("seed", 0, "Of initial weights, order, views and draws of labels.", **_define)


def run(settings):
    import keras_ssl
    from keras_ssl.cli import Interrupted, outcome

    if settings.seconds and settings.epochs:
        raise ValueError("--seconds and --epochs are both a budget: give one of them.")
    methods = {name: outcome.method_by_name(name) for name in dict.fromkeys(map(str.strip, settings.methods))}
    data, held_out = outcome.hold_out(keras_ssl.data.load(settings.data, image_size=settings.image_size), settings.seed)
    if data.test is None or data.train.labels is None or data.test.labels is None:
        raise ValueError(f"--data={settings.data} has no labels, and without them methods can't be compared.")
    for method in methods.values():  # whatever can be refused, before anything is written
        outcome.begin(method, data, _with_epochs(settings, settings.epochs or 1))
    folder = _folder(settings)
    backbones, told = {}, {}
    for name, method in methods.items():
        try:
            untrained, trained, told[name] = _trained(name, method, data, settings, folder)
        except KeyboardInterrupt:
            again = f"keras-ssl compare --output={folder} with the same flags, but --overwrite, does what is missing"
            raise Interrupted(f"stopped in {name}; {len(told)} of {len(methods)} methods are done. {again}.") from None
        backbones.setdefault("untrained", untrained)
        backbones[name] = trained
    table = outcome.table(data, backbones, settings.seed)
    write_json(folder / "table.json", outcome.lists(table))
    outcome.print_table(table, held_out)
    print()
    for name, about in told.items():
        print(
            f"{name}: {about['epochs']} passes in {about['seconds']:.0f} s{''.join(' · ' + a for a in about['alarms'])}"
        )
    print(f"\nfolder: {folder}")
    return {"folder": str(folder), "table": outcome.lists(table), "held_out": held_out, "runs": told}


def _folder(settings):
    from keras_ssl.cli import outcome

    if settings.output:
        folder = pathlib.Path(settings.output).expanduser()
    else:
        source = pathlib.Path(settings.data).stem or "data"
        numbers = (pathlib.Path("runs") / f"compare-{source}-{n}" for n in range(1, 10_000))
        folder = next(folder for folder in numbers if not folder.exists())
    folder.mkdir(parents=True, exist_ok=True)
    asked = {flag.name: flag.value for flag in settings.get_flags_for_module(__name__)}
    asked = {name: asked[name] for name in asked if name not in ("json", "output", "overwrite", "methods")}
    kept = folder / "settings.json"
    if kept.exists() and not settings.overwrite and json.loads(kept.read_text(encoding="utf-8")) != asked:
        raise FileExistsError(
            f"--output={folder} holds a comparison with other settings: name another folder, or add --overwrite."
        )
    if settings.overwrite:  # nothing of another budget stays to be taken for this one's
        for name in outcome.methods():
            (folder / f"{name}.json").unlink(missing_ok=True)
    write_json(kept, asked)
    return folder


def _trained(name, method, data, settings, folder):
    """`(untrained backbone, trained backbone, what it took)`; from the folder where it is there already."""
    import keras

    from keras_ssl.cli import outcome

    about, path = folder / f"{name}.json", folder / f"{name}.keras"
    model, untrained, chosen = outcome.begin(method, data, _with_epochs(settings, settings.epochs or 1))
    if about.exists() and path.exists():
        print(f"{name}: done before")
        return untrained, keras.models.load_model(path), json.loads(about.read_text(encoding="utf-8"))
    if settings.epochs is None:
        passes = _passes_in(settings.seconds or 60.0, method, data, settings)
        model, untrained, chosen = outcome.begin(method, data, _with_epochs(settings, passes))
    print(f"\n{name}: {chosen.epochs} passes")
    start = time.perf_counter()
    history, alarms = outcome.fit(model, data, chosen, settings)
    done = {
        "epochs": chosen.epochs,
        "seconds": time.perf_counter() - start,
        "alarms": alarms,
        "history": history,
        "recipe": chosen.config,
    }
    model.backbone.save(path)
    write_json(about, done)
    return untrained, model.backbone, done


def _passes_in(seconds, method, data, settings):
    """How many passes over the images a method makes in a time: some steps of it, timed after the first ones."""
    from keras_ssl.cli import outcome

    model, _, _ = outcome.begin(method, data, _with_epochs(settings, 1))
    a_pass = len(data.train) // settings.batch_size
    steps = min(10, a_pass)
    options = {"batch_size": settings.batch_size, "steps_per_epoch": steps, "verbose": 0}
    model.fit(data.train.images, **options)  # traced and compiled
    start = time.perf_counter()
    model.fit(data.train.images, **options)
    return max(1, round(seconds / ((time.perf_counter() - start) / steps * a_pass)))


def _with_epochs(settings, epochs):
    """The flags as `outcome` takes them, with a number of passes."""
    known = {flag.name: flag.value for flag in settings.get_flags_for_module(__name__)}
    return types.SimpleNamespace(**{**known, "epochs": epochs, "optimizer": None})
