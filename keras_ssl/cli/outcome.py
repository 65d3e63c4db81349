"""The parts of a run that commands share: what is trained on what, and what came of it."""

import difflib
import inspect

import keras
import numpy as np

import keras_ssl
from keras_ssl import callbacks, evaluate
from keras_ssl.batches import check_images
from keras_ssl.data import Data, Split
from keras_ssl.evaluate import efficiency

_LR = 1e-2


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


def hold_out(data, seed, share=0.2, most=2000):
    """A test split for data that has labels and none of its own; it is taken out of training.

    Returns:
        `(data, sentence)`: the sentence says what was held out.
    """
    train = data.train
    if train.images is None:
        raise ValueError("--data: give images in a folder or a file; streams are for Python.")
    if data.test is not None:
        return data, f"{len(data.test):,} test images of the data set itself"
    if train.labels is None:
        return data, "nothing: there are no labels to evaluate with"
    rows = np.random.default_rng(seed).permutation(len(train))
    size = min(most, int(share * len(rows)))
    test, kept = np.sort(rows[:size]), np.sort(rows[size:])
    held = Split(train.images[test], train.labels[test], train.class_names)
    rest = Split(train.images[kept], train.labels[kept], train.class_names)
    return Data(rest, held), f"{size:,} images drawn at random, neither trained on nor used by the probes to learn"


def begin(method, data, settings):
    """The model of a run, compiled by the default recipe, and a copy of its backbone as it is before training."""
    keras.utils.set_random_seed(settings.seed)
    images = data.train.images
    if len(images) < settings.batch_size:
        raise ValueError(
            f"--batch_size={settings.batch_size} is more than the {len(images)} images to train on: give "
            f"--batch_size={len(images)} or less."
        )
    shape = images.shape[1:]
    backbone = backbone_by_name(settings.backbone, (None, None, shape[-1]) if method.sees_patches else shape)
    untrained = keras.models.clone_model(backbone)
    untrained.set_weights(backbone.get_weights())
    model = method(backbone, seed=settings.seed, **({"exemplars": len(images)} if method.numbers_images else {}))
    if isinstance(images, np.ndarray):  # fit would say so too, but after the run folder was made
        check_images(images, model.value_range, f"--data={settings.data}: images")
    model.compile(optimizer=optimizer(settings.epochs * max(1, len(images) // settings.batch_size)))
    return model, untrained


def fit(model, data, settings):
    """Trains, looks at the held-out images after each epoch, and returns the history as a dict."""
    return model.fit(
        data.train.images,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        # Where each training image is a class, held-out images have none.
        validation_data=None if model.numbers_images else _validation_images(data, settings.batch_size),
        callbacks=_probes(data),
    ).history


def optimizer(steps, rate=_LR):
    """AdamW with 5 % warm-up and a cosine."""
    warm = max(1, steps // 20)
    schedule = keras.optimizers.schedules.CosineDecay(0.0, max(1, steps - warm), warmup_target=rate, warmup_steps=warm)
    return keras.optimizers.AdamW(schedule, weight_decay=1e-4)


def _validation_images(data, batch_size):
    if data.test is None or len(data.test) < batch_size:
        return None
    return data.test.images


def _probes(data):
    if data.test is None or data.test.labels is None or data.train.labels is None:
        return []
    bank = some(data.train, 2000)
    return [callbacks.KNNProbe(bank, some(data.test, 1000), k=min(20, len(bank)))]


def some(split, most):
    """At most so many images of a split, spread evenly over it."""
    rows = np.unique(np.linspace(0, len(split) - 1, min(most, len(split))).astype(int))
    return Split(split.images[rows], None if split.labels is None else split.labels[rows], split.class_names)


def table(data, backbone, untrained, seed):
    """Probes of raw pixels, of the untrained and of the trained backbone; None without labels."""
    if data.test is None or data.train.labels is None:
        return None
    print("evaluating: linear probe and kNN on frozen features")
    train, test = some(data.train, 20_000), some(data.test, 10_000)
    representations = {"raw pixels": tuple(_pixels(split.images) for split in (train, test))}
    for name, network in (("untrained backbone", untrained), ("trained backbone", backbone)):
        grid = grid_of(network)
        representations[name] = tuple(
            evaluate.extract_features(network, split.images, grid=grid) for split in (train, test)
        )
    return efficiency.label_efficiency(representations, train.labels, test.labels, seed=seed, verbose=1)


def grid_of(backbone):
    """2 for feature maps that have room for it."""
    shape = backbone.output_shape
    return 2 if len(shape) == 4 and min(side or 2 for side in shape[1:3]) >= 2 else 1


def _pixels(images, side=32):
    """Pixels as a row; images larger than 32×32 are brought to that, or the probe would have more weights than data."""
    rows = []
    for start in range(0, len(images), 256):
        batch = np.asarray(images[start : start + 256], "float32")
        if max(batch.shape[1:3]) > side:
            batch = keras.ops.convert_to_numpy(keras.ops.image.resize(batch, (side, side), antialias=True))
        rows.append(batch.reshape(len(batch), -1))
    return np.concatenate(rows)


def print_table(table, data, held_out):
    if table is None:
        print("\nNo table: the images have no labels. A folder with a sub-folder for each class has.")
        return
    header, rows = efficiency.as_rows(table)
    print(f"\nAccuracy on {held_out}; ± is the standard deviation over draws of labels.\n")
    print(efficiency.as_text(header, rows))
