"""The parts of a run that commands share: what is trained on what, and what came of it."""

import dataclasses
import difflib
import importlib.util
import inspect

import keras
import numpy as np

import keras_ssl
from keras_ssl import callbacks, evaluate, recipes
from keras_ssl.cli.common import verbose
from keras_ssl.clone import clone
from keras_ssl.data import Data, ImageFiles, Split
from keras_ssl.data.batch import check_images
from keras_ssl.evaluate import efficiency


def methods():
    """All methods of the library by their name on the command line."""
    base = keras_ssl.SelfSupervisedModel
    named = {name.lower(): getattr(keras_ssl, name) for name in keras_ssl.__all__}
    return {
        name: value
        for name, value in named.items()
        if inspect.isclass(value) and issubclass(value, base) and value is not base
    }


def method_by_name(name):
    known = methods()
    if name.lower() not in known:
        raise ValueError(f'--method: there is no method "{name}". {_nearest(name.lower(), known)}')
    return known[name.lower()]


def backbone_by_name(name, shape):
    """A backbone for images of `(height, width, channels)`."""
    if name.endswith(".keras"):
        return keras.models.load_model(name)
    own = {"resnet8": keras_ssl.backbones.resnet8, "resnet18": keras_ssl.backbones.resnet18}
    if name in own:
        return own[name](shape)
    theirs = {
        key: value
        for key, value in vars(keras.applications).items()
        if inspect.isfunction(value) and "include_top" in inspect.signature(value).parameters
    }
    if name in theirs:
        return theirs[name](include_top=False, weights=None, input_shape=tuple(shape))
    raise ValueError(f'--backbone: there is no backbone "{name}". {_nearest(name, [*own, *theirs])}')


def _nearest(name, known):
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f'Did you mean "{near[0]}"?' if near else f"Known: {', '.join(known)}."


def hold_out(data, seed, share=0.2, most=2000, trained_here=True):
    """A test split for data that has labels and none of its own; it is taken out of training.

    Returns:
        `(data, sentence)`: the sentence says what was held out.
    """
    train = data.train
    if train.images is None:
        raise ValueError("--data: give images in a folder or a file; streams are for Python.")
    if train.labels is not None and len(np.unique(train.labels)) < 2:
        nothing = "nothing: all images are of one class, so there are no labels to evaluate with"
        data = Data(_unlabelled(train), _unlabelled(data.test))
        return data, f"{len(data.test):,} test images of the data set itself" if data.test else nothing
    if data.test is not None and (data.test.labels is not None or train.labels is None):
        return data, f"{len(data.test):,} test images of the data set itself"
    if train.labels is None:
        return data, "nothing: there are no labels to evaluate with"
    rows = np.random.default_rng(seed).permutation(len(train))
    size = min(most, int(share * len(rows)))
    test, kept = rows[:size], rows[size:]
    # A class must not be held out as a whole: what is not known can't be told.
    lone = [row for row in test if not np.any(train.labels[kept] == train.labels[row])]
    lone = [row for place, row in enumerate(lone) if train.labels[row] not in train.labels[lone[:place]]]
    test, kept = np.sort(np.setdiff1d(test, lone)), np.sort(np.concatenate([kept, lone]).astype(rows.dtype))
    sentence = f"{len(test):,} images drawn at random, from which probes don't learn"
    if trained_here:
        sentence = f"{len(test):,} images drawn at random, neither trained on nor used by the probes to learn"
    else:
        sentence += "; whether the backbone was trained on them is not known"
    return Data(_rows(train, kept), _rows(train, test)), sentence


def same_images(data, kept):
    """Refuses images that are not those of a run: what it held out could not be told any more.

    Args:
        data: split by `hold_out`.
        kept: the run's settings.json.
    """
    now, then = len(data.train), kept["training_images"][0]
    if now != then:
        raise ValueError(
            f"There are {now:,} images to train on now, and the run was trained on {then:,}: what it held out can't be "
            "told any more. Give --data with the images that it had."
        )


def _rows(split, rows):
    """Some rows of a split; pictures of a large folder stay on disk."""
    images = split.images.only(rows) if isinstance(split.images, ImageFiles) else split.images[rows]
    paths = None if split.paths is None else [split.paths[row] for row in rows]
    labels = None if split.labels is None else split.labels[rows]
    return Split(images, labels, split.class_names, paths=paths)


def _unlabelled(split):
    return None if split is None else dataclasses.replace(split, labels=None, class_names=None)


def begin(method, data, settings):
    """A run set up: the model, compiled by its recipe, a copy of its backbone as it is before training, the recipe."""
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
    model = method(backbone, views=chosen.views, seed=settings.seed, **chosen.arguments)
    if isinstance(images, np.ndarray):  # fit would say so too, but after the run folder was made
        check_images(images, model.value_range, f"--data={settings.data}: images")
    model.compile(chosen.make_optimizer(_optimizer_by_name(settings.optimizer)))
    return model, untrained, chosen


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
        raise ValueError(f'--optimizer: there is no optimizer "{name}". {_nearest(name.lower(), known)}')
    return known[name.lower()]


def fit(model, data, chosen, settings, folder=None, state=None):
    """Trains, looks at the held-out images after each epoch.

    Args:
        chosen: the recipe of `begin`.
        folder: of the run, for TensorBoard.
        state: the file from which a run that was cut off goes on; None to keep none.

    Returns:
        `(history, alarms)`: a dict of figures by epoch, and what the collapse monitor said.
    """
    looked_at = data.test or data.train
    monitor = callbacks.CollapseMonitor(looked_at, most=min(512, max(2, len(looked_at))))
    after = [callbacks.Resume(state)] if state else []
    if getattr(settings, "tensorboard", False):
        after.append(_tensorboard(folder / "tensorboard"))
    history = model.fit(
        data.train.images,
        batch_size=settings.batch_size,
        epochs=chosen.epochs,
        # Where each training image is a class, held-out images have none.
        validation_data=None if model.uses_index else _validation_images(data, settings.batch_size),
        callbacks=[*_probes(data), monitor, *after],
        verbose=verbose(),
    ).history
    return history, monitor.alarms


def check_tensorboard():
    """TensorBoard is a package of its own, and TensorFlow writes no figures without it."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError("--tensorboard needs the package of that name: pip install tensorboard.")


def _tensorboard(folder):
    return keras.callbacks.TensorBoard(str(folder), write_graph=False)


def _validation_images(data, batch_size):
    if data.test is None or len(data.test) < batch_size:
        return None
    return data.test.images


def _probes(data):
    if data.test is None or data.test.labels is None or data.train.labels is None:
        return []
    return [callbacks.KNNProbe(data.train, data.test, k=min(20, len(data.train)))]


def some(split, most, decode=True):
    """At most so many images of a split, spread evenly over it; decoded, or as pictures on disk where they are."""
    found = _rows(split, np.unique(np.linspace(0, len(split) - 1, min(most, len(split))).astype(int)))
    if decode:
        found.images = found.images[:]
    return found


def table(data, backbones, seed):
    """Probes of raw pixels, and of the features of each backbone, a dict by name; None without labels."""
    if data.test is None or data.train.labels is None or data.test.labels is None:
        return None
    print("evaluating: linear probe and kNN on frozen features")
    train, test = some(data.train, 20_000, decode=False), some(data.test, 10_000, decode=False)
    representations = {"raw pixels": tuple(_pixels(split.images) for split in (train, test))}
    for name, network in backbones.items():
        grid = grid_of(network, train.images.shape[1:])
        representations[name] = tuple(
            evaluate.extract_features(network, split.images, grid=grid) for split in (train, test)
        )
    return efficiency.label_efficiency(representations, train.labels, test.labels, seed=seed, verbose=verbose())


def lists(table):
    """A table as plain lists, for JSON."""
    return {name: {column: cell.accuracies for column, cell in cells.items()} for name, cells in table.items()}


def grid_of(backbone, shape):
    """2 where the feature map of images of `(height, width, channels)` has room for it."""
    features = backbone.compute_output_shape((1, *shape))
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
        print("\nNo table: the images have no labels. A folder with a sub-folder for each class has.")
        return
    header, rows = efficiency.as_rows(table)
    print(f"\nAccuracy on {held_out}; ± is the standard deviation over draws of labels.\n")
    print(efficiency.as_text(header, rows))


def embedded(backbone, split, most=1000, **options):
    """`(features, names, images)` of some images of a split, as `projector.write` takes them; names may be None."""
    shown = some(split, most)
    names = shown.labels
    if names is not None and shown.class_names:
        names = [shown.class_names[label] for label in names]
    return evaluate.extract_features(backbone, shown.images, **options), names, np.asarray(shown.images[:])
