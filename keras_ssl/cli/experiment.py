"""What commands that train or evaluate share: a model from flags, its training, and the table of accuracies."""

import inspect
import warnings

import keras
import numpy as np

import keras_ssl
from keras_ssl import callbacks, evaluate, names, recipes
from keras_ssl.cli.flags import method_class, nearest, progress
from keras_ssl.clone import clone
from keras_ssl.data.batch import check_source
from keras_ssl.data.lazy import pictures_of
from keras_ssl.data.split import sample_evenly, take_rows
from keras_ssl.evaluate import efficiency
from keras_ssl.files import load_model

SAVE_SECONDS = 180  # between two states of a run that is saved by time, too


def methods():
    """All methods of the package by their names on the command line."""
    return {name.lower(): getattr(keras_ssl, name) for name in names.METHODS}


def method_by_name(name):
    return getattr(keras_ssl, method_class(name))


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
    data = keras_ssl.data.load(source, verbose=1, **options)
    for note in data.notes:
        print(f"  {note}")
    return data


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
    backbone = backbone_by_name(settings.backbone, (None, None, shape[-1]) if method.patch_based else shape)
    untrained = clone(backbone)
    chosen = recipes.recipe(method, shape, len(images), settings.batch_size, settings.epochs, settings.recipe)
    arguments = {**chosen.arguments, **_teacher(method, settings, shape)}
    model = method(backbone, views=chosen.views, seed=settings.seed, **arguments)
    # fit would say so too, but after the run folder was made
    check_source(images, model.value_range, f"--data={settings.data}: images")
    model.compile(chosen.make_optimizer(_optimizer_by_name(settings.optimizer)))
    return model, untrained, chosen


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
        `(history, alarms)`: a dict of metrics per epoch, and the sentences of the collapse monitor.
    """
    looked_at = data.test or data.train
    monitor = callbacks.CollapseMonitor(looked_at, most=min(512, max(2, len(looked_at))))
    after = [callbacks.Resume(folder.state, every_seconds=SAVE_SECONDS)] if folder else []
    if folder and settings.tensorboard:
        after.append(keras.callbacks.TensorBoard(str(folder.tensorboard), write_graph=False))
    print("compiling the training step; the first epoch begins after some seconds")
    history = model.fit(
        data.train.images,
        batch_size=settings.batch_size,
        epochs=chosen.epochs,
        # Where each training image is a class, held-out images have none.
        validation_data=None if model.uses_index else _validation_images(data, settings.batch_size),
        callbacks=[*_probes(data), monitor, *after],
        verbose=progress(),
    ).history
    return history, monitor.alarms


def _validation_images(data, batch_size):
    held = data.test if data.validation is None else data.validation
    return None if held is None or len(held) < batch_size else held.images


def _probes(data):
    """A probe on the validation images where there are such: the test images are for what comes after training."""
    held = data.validation if data.validation is not None and data.validation.labels is not None else data.test
    if held is None or held.labels is None or data.train.labels is None:
        return []
    return [
        callbacks.KNNProbe(data.train, known_to_train(held, data.train), k=min(20, int(data.train.has_label.sum())))
    ]


def known_to_train(split, train):
    """The images of a split whose label the training images have too: no probe could learn another."""
    return take_rows(split, np.flatnonzero(split.has_label & np.isin(split.labels, train.labels)))


def check_labels(data, source, purpose):
    """Refuses images without labels where a command can do nothing without them.

    Args:
        purpose: for the sentence, such as "evaluate with".
    """
    if data.test is None or data.train.labels is None or data.test.labels is None:
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
    representations = {"raw pixels": tuple(_pixels(split.images) for split in (train, test))}
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


def _pixels(images, side=32):
    """Pixels as a row; images larger than 32×32 are brought to that, or the probe would have more weights than data."""
    rows = []
    for start in range(0, len(images), 256):
        batch = np.asarray(images[start : start + 256], "float32")
        if max(batch.shape[1:3]) > side:
            batch = keras.ops.convert_to_numpy(keras.ops.image.resize(batch, (side, side), antialias=True))
        rows.append(batch.reshape(len(batch), -1))
    return np.concatenate(rows)


def print_table(table, held_out):
    if table is None:
        why = held_out.removeprefix("nothing: ") if held_out.startswith("nothing: ") else "the images have no labels"
        print(
            f"\nNo table: {why}. A folder with a sub-folder for each class has labels; --labels gives those of a table."
        )
        return
    header, rows = efficiency.as_rows(table)
    print(f"\nAccuracy on {held_out}; ± is the standard deviation over random draws of labels.\n")
    print(efficiency.as_text(header, rows))


def embedded(backbone, split, most=1000, **options):
    """`(features, names, images)` of some images of a split, as `projector.write` takes them; names may be None."""
    shown = sample_evenly(split, most)
    names = shown.labels
    if names is not None:
        names = [shown.name_of(label) if known else None for label, known in zip(names, shown.has_label)]
    return evaluate.extract_features(backbone, shown.images, **options), names, np.asarray(shown.images[:])
