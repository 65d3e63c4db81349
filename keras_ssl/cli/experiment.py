"""What commands that train or evaluate share: a model from flags, its training, and the table of accuracies."""

import contextlib
import inspect
import sys
import warnings

import keras
import numpy as np

import keras_ssl
from keras_ssl import callbacks, evaluate, names, recipes
from keras_ssl.cli import choices, words
from keras_ssl.cli.flags import FOLDER_FLAGS, held_out_options, method_class, nearest, progress
from keras_ssl.cli.watch import Watch
from keras_ssl.clone import clone
from keras_ssl.data import split
from keras_ssl.data.batch import check_source
from keras_ssl.data.lazy import pictures_of
from keras_ssl.data.split import known_to_train, rows_known_to_train, sample_evenly
from keras_ssl.evaluate import efficiency
from keras_ssl.files import load_model
from keras_ssl.keras_compat import flatten_layers

SAVE_SECONDS = 180  # between two states of a run that is saved by time, too


def methods():
    """All methods of the package by their names on the command line."""
    return {name.lower(): getattr(keras_ssl, name) for name in names.METHODS}


def method_by_name(name):
    return choices.own_method(name) if ":" in name else getattr(keras_ssl, method_class(name))


def backbone_by_name(name, shape):
    """A backbone for images of `(height, width, channels)`."""
    if name.endswith(".keras"):
        return load_model(name)
    if name.startswith("hub:"):
        return keras_ssl.hub.backbone(name.removeprefix("hub:"), shape)
    if name in names.BACKBONES:
        return getattr(keras_ssl.backbones, name)(shape)
    theirs = {
        key: value
        for key, value in vars(keras.applications).items()
        if inspect.isfunction(value) and "include_top" in inspect.signature(value).parameters
    }
    if name in theirs:
        return theirs[name](include_top=False, weights=None, input_shape=tuple(shape))
    raise ValueError(f'--backbone: there is no backbone "{name}". {nearest(name, [*names.BACKBONES, *theirs])}')


def load(source, options):
    """`data.load` with progress, and with what was found said in a few lines."""
    try:
        data = keras_ssl.data.load(source, verbose=1, **options)
    except ValueError as error:  # it names arguments of Python
        said = str(error)
        for name in FOLDER_FLAGS:
            said = said.replace(f"`{name}`", f"--{name}")
        raise ValueError(said) from error
    for note in data.notes:
        print(words.wrapped(note, "    ", "  "))
    return data


def hold_out(loaded, seed, val=None, **options):
    """`data.split.hold_out`, of as many images as `--val` says.

    Args:
        val: of the flag; None for the default.
        **options: of `data.split.hold_out`.
    """
    data, sentence = split.hold_out(loaded, seed, **held_out_options(val), **options)
    data, sentence = split.of_known_classes(data, sentence)
    if val is None:
        return data, sentence
    if data.test is not None and data.test is loaded.test:
        raise ValueError(
            f"--val={val}: these images have a test split of their own, and nothing has to be held out: leave it out."
        )
    asked, found = float(val), 0 if data.test is None else len(data.test)
    if asked >= 1 and found < asked:
        labels = int(loaded.train.has_label.sum())
        raise ValueError(
            f"--val={val}: {labels:,} images have a label, and {found:,} of them at most can be held out: give "
            + (f"--val={found} or less." if found else "images with labels, or leave it out.")
        )
    return data, sentence


def readable(split):
    """The rows of a split whose pictures could be read, ascending; the others are named."""
    broken = {path: reason for files in pictures_of(split.images) for path, reason in files.broken.items()}
    kept = [row for row in range(len(split)) if not (broken and split.paths[row] in broken)]
    if broken:
        path, reason = next(iter(broken.items()))
        warnings.warn(f"{len(broken):,} pictures could not be read and are left out, such as {path}: {reason}.")
    return np.array(kept, "int64")


def begin(method, data, settings):
    """Sets a run up: `(model compiled by its recipe, copy of its untrained backbone, recipe)`."""
    keras.utils.set_random_seed(settings.seed)
    images = data.train.images
    if len(images) < settings.batch_size:
        raise ValueError(
            f"--batch_size={settings.batch_size} is more than the {len(images)} images to train on: give "
            f"--batch_size={len(images)} or less."
        )
    shape = images.shape[1:]
    chosen = recipes.recipe(method, shape, len(images), settings.batch_size, settings.epochs, settings.recipe)
    chosen, several_sizes = _as_given(chosen, method, shape, settings)
    with _precision(getattr(settings, "mixed_precision", "none")):
        open_size = method.patch_based or several_sizes
        backbone = backbone_by_name(settings.backbone, (None, None, shape[-1]) if open_size else shape)
    _check_precision(backbone, getattr(settings, "mixed_precision", "none"))
    untrained = clone(backbone)
    arguments = {**chosen.arguments, **_teacher(method, settings, shape)}
    model = _made(method, backbone, {"views": chosen.views, "seed": settings.seed, **arguments}, settings)
    # fit would say so too, but after the run folder was made
    try:
        check_source(images, model.value_range, f"--data={settings.data}: images")
    except ValueError as error:
        if "value_range=" not in str(error):
            raise
        raise ValueError(
            f"{error} The command takes images of 0 to 255 alone; in Python a method takes others."
        ) from None
    model.compile(
        chosen.make_optimizer(_optimizer_by_name(settings.optimizer)),
        micro_batch_size=getattr(settings, "micro_batch_size", None),
    )
    return model, untrained, chosen


def _as_given(chosen, method, shape, settings):
    """`(recipe with what flags set, whether the views have several sizes)`."""
    views = getattr(settings, "views", None)
    views = views and choices.views(views, shape)
    given = choices.method_arguments(getattr(settings, "method_args", None), method)
    given = {
        name: recipes.Made(value.text, value.make) if isinstance(value, choices.Dotted) else value
        for name, value in given.items()
    }
    rates = {name: getattr(settings, name, None) for name in ("learning_rate", "weight_decay")}
    chosen = chosen.replaced(**rates, views=views, arguments=given)
    return chosen, bool(views) and choices.of_several_sizes(views[1], shape)


def _made(method, backbone, options, settings):
    """The method; what it refuses is said of the flag that gave it."""
    try:
        return method(backbone, **options)
    except (TypeError, ValueError) as error:
        flags = [
            f"--{name}={getattr(settings, name)}" for name in ("views", "method_args") if getattr(settings, name, None)
        ]
        raise type(error)(f"{' '.join(flags)}: {error}" if flags else str(error)) from None


@contextlib.contextmanager
def _precision(name):
    """Within it, new networks compute in this precision, and keep their weights in float32."""
    before = keras.config.dtype_policy()
    if name != "none":
        keras.config.set_dtype_policy(f"mixed_{name}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _check_precision(backbone, name):
    """Refuses a backbone whose layers keep the precision that they were saved with."""
    computes = {layer.compute_dtype for layer in flatten_layers(backbone) if layer.weights and layer is not backbone}
    if name != "none" and name not in computes:
        raise ValueError(
            f"--mixed_precision={name}: {backbone.name} computes in {', '.join(sorted(computes))}, as it was saved: "
            "leave the flag out, or name a backbone that is made anew."
        )


def _teacher(method, settings, shape):
    """The argument `teacher` of `Distill`; no argument for other methods."""
    if not issubclass(method, keras_ssl.Distill):
        return {}
    name = getattr(settings, "teacher", None)
    if name is None:
        raise ValueError("distill needs a teacher: keras-ssl pretrain --method=distill --teacher=FILE.keras has one.")
    return {"teacher": backbone_by_name(name, None if name.startswith("hub:") else shape)}


def _optimizer_by_name(name):
    """A class of `keras.optimizers`, or None for the recipe's."""
    if name is None:
        return None
    known = {
        key.lower(): value
        for key, value in vars(keras.optimizers).items()
        if inspect.isclass(value) and issubclass(value, keras.optimizers.Optimizer)
    }
    known["lars"] = keras_ssl.optimizers.LARS
    if name.lower() not in known:
        raise ValueError(f'--optimizer: there is no optimizer "{name}". {nearest(name.lower(), known)}')
    return known[name.lower()]


def fit(model, data, chosen, settings, folder=None):
    """Trains, and evaluates on the held-out images after each epoch.

    Args:
        chosen: the recipe of `begin`.
        folder: the `RunFolder`, for the state from which a run that was interrupted continues, and for TensorBoard;
            None to keep neither.

    Returns:
        A tuple `(history, alarms)`: a dict of metrics per epoch, and the sentences of the collapse monitor.
    """
    looked_at = data.test or data.train
    monitor = callbacks.CollapseMonitor(looked_at, most=min(512, max(2, len(looked_at))))
    resume = callbacks.Resume(folder.state, every_seconds=SAVE_SECONDS) if folder else None
    steps = len(data.train) // settings.batch_size
    watch = Watch(steps, progress() == 1, resume, folder and (lambda: _say_what_is_saved(folder)))
    after = [resume] if folder else []
    if folder and settings.tensorboard:
        after.append(keras.callbacks.TensorBoard(str(folder.tensorboard), write_graph=False))
    print("\ncompiling the training step; the first epoch begins after some seconds")
    history = model.fit(
        data.train.images,
        batch_size=settings.batch_size,
        epochs=chosen.epochs,
        # Where each training image is a class, held-out images have none.
        validation_data=None if model.uses_index else _validation_images(data, settings.batch_size),
        callbacks=[*probes(data), monitor, watch, *after],
        verbose=0,
    ).history
    return history, monitor.alarms


def _say_what_is_saved(folder):
    print(
        f"\nCtrl-C: when the step or the measures that run are done, the state is saved in\n  {folder.state}\n"
        f"To go on:\n  keras-ssl pretrain --resume={folder}\nCtrl-C again stops at once, without saving.",
        file=sys.stderr,
        flush=True,
    )


def _validation_images(data, batch_size):
    held = data.test if data.validation is None else data.validation
    return None if held is None or len(held) < batch_size else held.images


def probes(data):
    """A probe on the validation images where there are such: the test images are for what comes after training."""
    held = data.validation if data.validation is not None and data.validation.labels is not None else data.test
    if held is None or held.labels is None or data.train.labels is None:
        return []
    if not len(rows_known_to_train(held, data.train)):
        return []
    return [
        callbacks.KNNProbe(data.train, known_to_train(held, data.train), k=min(20, int(data.train.has_label.sum())))
    ]


def check_labels(data, source, purpose, held_out=""):
    """Refuses images without labels where a command can do nothing without them.

    Args:
        purpose: for the sentence, such as "evaluate with".
        held_out: the sentence of `hold_out`, which says why nothing was.
    """
    if data.test is None or data.train.labels is None or data.test.labels is None:
        if data.train.labels is not None and held_out.startswith("nothing: "):
            raise ValueError(f"{source}: there is nothing to {purpose}: {held_out.removeprefix('nothing: ')}.")
        raise ValueError(
            f"{source} has no labels to {purpose}. A folder with a sub-folder for each class has labels; --labels "
            "gives those of a table."
        )


def table(data, backbones, seed):
    """Probes of raw pixels, and of the features of each backbone, a dict by name; None without labels."""
    if data.test is None or data.train.labels is None or data.test.labels is None:
        return None
    print("evaluating: linear probe and kNN on frozen features")
    train = sample_evenly(data.train.labeled(), 20_000, decode=False)
    test = sample_evenly(known_to_train(data.test, data.train), 10_000, decode=False)
    representations = {"raw pixels": tuple(pixels(split.images) for split in (train, test))}
    for name, network in backbones.items():
        grid = grid_of(network, train.images.shape[1:])
        representations[name] = tuple(
            evaluate.extract_features(network, split.images, grid=grid) for split in (train, test)
        )
    return efficiency.label_efficiency(representations, train.labels, test.labels, seed=seed, verbose=progress())


def table_to_json(table):
    """A table as plain lists; None for None."""
    if table is None:
        return None
    return {name: {column: cell.accuracies for column, cell in cells.items()} for name, cells in table.items()}


def grid_of(backbone, shape):
    """2 where the feature map of images of `(height, width, channels)` has room; a class token stands alone."""
    features = backbone.compute_output_shape((1, *shape))
    layout = keras_ssl.backbones.tokens(backbone, features, (1, *shape))
    if layout:
        return 2 if layout.first == 0 and min(layout.rows, layout.columns) >= 2 else 1
    return 2 if len(features) == 4 and min(features[1:3]) >= 2 else 1


def pixels(images, side=32):
    """Pixels as a row; images larger than 32×32 are brought to that, or the probe would have more weights than data."""
    rows = []
    for start in range(0, len(images), 256):
        batch = np.asarray(images[start : start + 256], "float32")
        if max(batch.shape[1:3]) > side:
            batch = keras.ops.convert_to_numpy(keras.ops.image.resize(batch, (side, side), antialias=True))
        rows.append(batch.reshape(len(batch), -1))
    return np.concatenate(rows)


def print_table(table, held_out, train):
    """Prints the table, or why there is none.

    Args:
        train: the `Split` that the probes learned from.
    """
    if table is None:
        why = held_out.removeprefix("nothing: ") if held_out.startswith("nothing: ") else "the images have no labels"
        labels = "A folder with a sub-folder for each class has labels; --labels=labels.csv gives those of a table."
        print("\n" + words.wrapped(f"No accuracies: {why}. {labels}"))
        return
    said = f"Accuracy on {held_out}."
    if any(len(cell.accuracies) > 1 for cells in table.values() for cell in cells.values()):
        said = f"{said[:-1]}; ± is the standard deviation over random draws of labels."
    said += efficiency.fewer_labels(table, train.labels_per_class())
    print(f"\n{words.wrapped(said)}\n")
    print(words.table(*efficiency.as_rows(table)))


def embedded(backbone, split, most=1000, **options):
    """`(features, names, images)` of some images of a split, as `projector.write` takes them; names may be None."""
    shown = sample_evenly(split, most)
    names = shown.labels
    if names is not None:
        names = [shown.name_of(label) if known else None for label, known in zip(names, shown.has_label)]
    return evaluate.extract_features(backbone, shown.images, **options), names, np.asarray(shown.images[:])
