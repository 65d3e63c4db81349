"""From a pretrained backbone and some labels to a classifier: the protocols of the literature, and plain Keras."""

import dataclasses
import math
import random
import re

import keras
import numpy as np
from keras import layers

from keras_ssl.batches import Batches, SetEpoch
from keras_ssl.data import Data, Split, feed, load
from keras_ssl.evaluate.checks import labelled, some_classes
from keras_ssl.evaluate.features import run
from keras_ssl.evaluate.linear import draw_labels

# Peak learning rates of the head and of the backbone, by protocol. They were chosen by `benchmarks/transfer.py
# --choose` on images of the sample's training split, each protocol from the same number of candidates.
_RATES = {
    "linear": (3e-3, None),
    "fine-tune": (3e-3, 1e-3),
    "frozen-then-unfrozen": (3e-3, 1e-3),
    "from-scratch": (1e-2, 1e-2),
}
PROTOCOLS = tuple(_RATES)

_BATCH = 32
# Few labels need many passes before a head has learned anything; many labels need few.
_LEAST_EPOCHS, _LEAST_STEPS = 20, 400


def classifier(backbone, classes, grid=None, dropout=0.0, name="classifier", input_shape=None, seed=None):
    """A backbone with a linear classifier on top, of Keras' own layers alone: it is saved and loaded without keras_ssl.

    The layers are the backbone itself (its weights are shared, not copied), the mean of its feature map over a grid of
    cells side by side, batch normalisation without scale and offset, and a dense layer. The normalisation makes the
    learning rate of the dense layer independent of the scale of the features.

    Args:
        backbone: a Keras model from images to `(n, features)` or to a feature map `(n, height, width, channels)`.
        classes: how many logits, 2 or more.
        grid: a feature map is averaged over `grid × grid` cells, as `extract_features` does. None for 2 where the map
            is known to have two cells a side or more, else 1, its mean.
        dropout: share of the features that are dropped in training, in [0, 1).
        name: of the model.
        input_shape: `(height, width, channels)` of the images; None for the backbone's own. A backbone of open size
            has a map of known size once the images' is given.
        seed: of the dense layer's initial weights and of dropout; None for new ones each time.

    Returns:
        A functional `keras.Model` from images, in the range that the backbone takes, to logits `(n, classes)`.

    Reference: the normalisation is that of the linear probes of He et al., "Masked Autoencoders Are Scalable Vision
    Learners", 2022, appendix A.1.
    """
    if not isinstance(classes, (int, np.integer)) or classes < 2:
        raise ValueError(f"classifier: `classes` must be an integer, 2 or more; it is {classes!r}.")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"classifier: `dropout` must lie in [0, 1); it is {dropout!r}.")
    backbone = _backbone_of(backbone)
    images = keras.Input(_input_shape(backbone, input_shape), name="images")
    x = _pooled(backbone(images), grid)
    # In float32 whatever the backbone computes in: logits of half precision lose the small probabilities.
    x = layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, center=False, scale=False, dtype="float32", name="standardize"
    )(x)
    if dropout:
        x = layers.Dropout(dropout, seed=seed, dtype="float32", name="dropout")(x)
    initializer = keras.initializers.GlorotUniform(seed)
    logits = layers.Dense(int(classes), kernel_initializer=initializer, dtype="float32", name="logits")(x)
    return keras.Model(images, logits, name=name)


@dataclasses.dataclass
class FineTuned:
    """What `fine_tune` made.

    Attributes:
        classifier: the trained `keras.Model`, compiled to be evaluated or trained further; plain Keras.
        accuracy: on the validation images after the last epoch, in [0, 1].
        history: a dict of name to list, one value an epoch, of the labelled images: `loss` and `accuracy`.
        protocol: its name.
        rows: the rows of the training images whose labels were used, ascending.
        classes: the label that each logit stands for, ascending.
    """

    classifier: keras.Model
    accuracy: float
    history: dict
    protocol: str
    rows: np.ndarray
    classes: np.ndarray

    @property
    def labels(self):
        """How many labels were used."""
        return len(self.rows)


def fine_tune(
    backbone,
    train,
    validation,
    labels_fraction=1.0,
    per_class=None,
    protocol="fine-tune",
    epochs=None,
    batch_size=None,
    learning_rate=None,
    backbone_rate=None,
    grid=None,
    dropout=0.0,
    seed=0,
    verbose=0,
):
    """Trains a classifier on a copy of a backbone with a part of the labels, and tests it once, at the end.

    The protocols:

    - `"linear"`: the backbone is frozen, its batch normalisation in inference mode, and the head is trained on its
      features, which are computed once.
    - `"fine-tune"`: all weights are trained, the backbone's with a smaller learning rate than the head's. "Fine-tune at
      1 %" and "at 10 %" of the literature are `labels_fraction=0.01` and `0.1`, or `protocol="fine-tune 1%"`.
    - `"frozen-then-unfrozen"`: the first half of the epochs as `"linear"`, the second as `"fine-tune"`, so that the
      backbone is not moved by the gradients of a head that knows nothing yet.
    - `"from-scratch"`: the control. The same architecture begins with new initial weights. An initialiser that was
      given a seed of its own keeps it.

    Optimizer: Adam; the learning rates rise over the first tenth of the steps and fall to zero by a cosine. Nothing is
    chosen by the validation images: neither a rate nor the epoch whose accuracy is reported.

    Args:
        backbone: a Keras model as `classifier` takes it, or a `SelfSupervisedModel` (its backbone). It is not changed.
        train: a `keras_ssl.data.Split`, or `(images, labels)`: `(N, height, width, channels)` and integers `(N,)`.
        validation: the same. Its labels must be among those of `train`.
        labels_fraction: of each class, in (0, 1]: the draw is as balanced as the classes are.
        per_class: instead of a fraction, so many labels of each class (all where there are fewer).
        protocol: one of `evaluate.PROTOCOLS`.
        epochs: passes over the labelled images; None for 20 or as many as make 400 steps.
        batch_size: None for at most 32, so that few of the labelled images are left out of a pass.
        learning_rate: of the head at its peak; None for the protocol's.
        backbone_rate: of the backbone at its peak; None for the protocol's. Not for `"linear"`.
        grid, dropout: of `classifier`.
        seed: of the draw of labels, the head, the order of the images, dropout and new initial weights. The draws of
            one seed are nested: the labels of a smaller fraction are among those of a larger one.
        verbose: 1 for a progress bar over epochs.

    Returns:
        A `FineTuned`.

    Raises:
        ValueError: labels that don't fit, a single class, validation labels that are not in `train`, a fraction that
            leaves a class without labels; a loss that is not finite.

    References: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020, section 4.2
    and appendix B.5 (1 % and 10 % of the labels, balanced by class); Grill et al., "Bootstrap Your Own Latent", 2020,
    appendix C.1 (linear and semi-supervised); Kumar et al., "Fine-Tuning can Distort Pretrained Features and
    Underperform Out-of-Distribution", 2022, section 4 (frozen, then unfrozen).
    """
    protocol, labels_fraction = _protocol(protocol, labels_fraction, per_class)
    images, labels = labelled_images("train", train)
    held, held_labels = labelled_images("validation", validation)
    some_classes("train", labels)
    _check_validation(images, labels, held, held_labels)
    backbone = _backbone_of(backbone)
    shape = _input_shape(backbone, images.shape[1:])
    if per_class is None:
        rows = draw_fraction(labels, labels_fraction, seed)
    else:
        if not isinstance(per_class, (int, np.integer)) or per_class < 1:
            raise ValueError(f"fine_tune: `per_class` must be an integer, 1 or more; it is {per_class!r}.")
        rows = draw_labels(labels, per_class, seed)
    epochs, batch_size = _plan(len(rows), epochs, batch_size)
    rates = _rates(protocol, learning_rate, backbone_rate)

    classes, codes = np.unique(labels, return_inverse=True)
    copy = _copy(backbone, shape, seed, with_weights=protocol != "from-scratch")
    model = classifier(copy, len(classes), grid, dropout, input_shape=shape, seed=seed)
    shown = images if len(rows) == len(images) else _Rows(images, rows)
    _check_finite(shown)
    frozen = {"linear": epochs, "frozen-then-unfrozen": (epochs + 1) // 2}.get(protocol, 0)
    history = {"loss": [], "accuracy": []}
    progress = []
    if verbose:
        options = {"unit_name": "epoch", "stateful_metrics": tuple(history), "verbose": verbose}
        progress = [_Progress(keras.utils.Progbar(epochs, **options))]
    if frozen:
        head = _Head(model)
        rate = _RATES["linear"][0] if protocol != "linear" and learning_rate is None else rates[0]
        _train(head.network, head.features(shown), codes[rows], frozen, batch_size, rate, seed, progress, history)
    if frozen < epochs:
        slower = copy.trainable_variables, rates[1] / rates[0]
        rest = epochs - frozen
        _train(model, shown, codes[rows], rest, batch_size, rates[0], seed + frozen, progress, history, slower)
    # An optimizer of Keras' own, so that the classifier is loaded where keras_ssl is not.
    _compile(model, keras.optimizers.Adam(rates[1] or rates[0]))
    predicted = classes[np.argmax(run(model, held), axis=1)]
    return FineTuned(model, float(np.mean(predicted == held_labels)), history, protocol, rows, classes)


def draw_fraction(labels, fraction, seed):
    """The rows of a draw of labels by class: of each class the number nearest to `fraction` of it.

    Args:
        labels: integers `(N,)`.
        fraction: in (0, 1].
        seed: of the draw; the draws of one seed are nested.

    Raises:
        ValueError: a class would have no label; names the class and the smallest fraction that gives it one.
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"`labels_fraction` must lie in (0, 1], such as 0.01 for 1 %; it is {fraction!r}.")
    labels = np.asarray(labels)
    classes, counts = np.unique(labels, return_counts=True)
    drawn = np.floor(fraction * counts + 0.5).astype(int)
    if not drawn.all():
        rarest = np.argmin(counts)
        enough = math.ceil(0.5 / counts[rarest] * 1e4) / 1e4
        raise ValueError(
            f"`labels_fraction`={fraction:g} leaves class {classes[rarest]} empty, which has {counts[rarest]} labelled "
            f"images: give {enough:g} or more, or per_class=1 for one label of each class."
        )
    generator = np.random.default_rng(seed)
    rows = [generator.permutation(np.flatnonzero(labels == one))[:number] for one, number in zip(classes, drawn)]
    return np.sort(np.concatenate(rows))


def labelled_images(name, data):
    """`(images, labels)` of a `Split` or of a pair of arrays, checked."""
    if isinstance(data, Data):
        raise ValueError(f"`{name}` is a whole data set: give its .train or its .test.")
    split = data if isinstance(data, Split) else load(data).train
    if split.images is None:
        raise ValueError(f"`{name}` is a stream, and rows of it are drawn by label: give arrays or a folder of images.")
    if split.labels is None:
        raise ValueError(f"`{name}` has no labels: give (images, labels), or a folder with a sub-folder a class.")
    if len(split.images) == 0:
        raise ValueError(f"`{name}` holds no image.")
    return split.images, labelled(name, split.images, split.labels)


def _check_validation(images, labels, held, held_labels):
    if tuple(held.shape[1:]) != tuple(images.shape[1:]):
        raise ValueError(
            f"Images of `validation` have the shape {tuple(held.shape[1:])} and those of `train` "
            f"{tuple(images.shape[1:])}: give both the same."
        )
    unknown = np.setdiff1d(held_labels, labels)
    if len(unknown):
        raise ValueError(
            f"`validation` has labels that `train` has not, such as {unknown[0]}: no classifier can learn them. Leave "
            "those images out, or give `train` some of them."
        )


def _check_finite(images):
    # Not by the loss: a ReLU makes 0 of NaN on some backends.
    for start in range(0, len(images) if images.dtype.kind == "f" else 0, 1024):
        if not np.isfinite(images[start : start + 1024]).all():
            raise ValueError("`train` holds NaN or infinite values: remove those images, or repair them.")


def _protocol(protocol, fraction, per_class):
    """The protocol and the fraction, which its name may hold: "fine-tune 1%"."""
    named = re.fullmatch(r"(.+?)(?: at)? (\d+(?:\.\d+)?) ?%", str(protocol))
    if named:
        if fraction != 1.0 or per_class is not None:
            raise ValueError(
                f'The protocol "{protocol}" says how many labels: leave `labels_fraction` and `per_class`.'
            )
        protocol, fraction = named[1], float(named[2]) / 100.0
    if protocol not in PROTOCOLS:
        raise ValueError(f"fine_tune: `protocol` is one of {', '.join(PROTOCOLS)}; it is {protocol!r}.")
    if per_class is not None and fraction != 1.0:
        raise ValueError("fine_tune: give either `labels_fraction` or `per_class`.")
    return protocol, fraction


def _plan(rows, epochs, batch_size):
    """How many epochs, and how many images a batch."""
    if batch_size is None:
        # Of a size that leaves few rows out of a pass, and a multiple of 4: where a batch is odd, oneDNN (of TensorFlow
        # 2.21 and torch 2.13) overwrites memory in the gradient of convolutions of 8 channels.
        batch_size = rows // -(-rows // _BATCH)
        batch_size -= batch_size % 4 if batch_size > 4 else 0
    elif not 2 <= batch_size <= rows:
        raise ValueError(
            f"fine_tune: `batch_size` must lie between 2, for there is batch normalisation, and the {rows} labelled "
            f"images; it is {batch_size!r}."
        )
    if epochs is None:
        epochs = max(_LEAST_EPOCHS, -(-_LEAST_STEPS // (rows // batch_size)))
    elif not isinstance(epochs, (int, np.integer)) or epochs < 1:
        raise ValueError(f"fine_tune: `epochs` must be an integer, 1 or more; it is {epochs!r}.")
    return int(epochs), int(batch_size)


def _rates(protocol, learning_rate, backbone_rate):
    if protocol == "linear" and backbone_rate is not None:
        raise ValueError('fine_tune: `backbone_rate` is not for protocol="linear", whose backbone is frozen.')
    given = {"learning_rate": learning_rate, "backbone_rate": backbone_rate}
    for name, rate in given.items():
        if rate is not None and not 0.0 < rate < math.inf:
            raise ValueError(f"fine_tune: `{name}` must be a number above 0; it is {rate!r}.")
    head, body = _RATES[protocol]
    if learning_rate is not None and body is not None:  # in the same proportion as by default
        body *= learning_rate / head
    return learning_rate or head, backbone_rate or body


def _backbone_of(model):
    backbone = getattr(model, "backbone", model)
    if not isinstance(backbone, keras.layers.Layer):
        raise TypeError(f"`backbone` must be a Keras model; it is a {type(backbone).__name__}.")
    return backbone


def _input_shape(backbone, images):
    """The shape of the images that go in: the backbone's, the given one, or both where they agree."""
    own = _own_input_shape(backbone)
    if images is None:
        if own is None:
            raise ValueError(
                f"The backbone {backbone.name} does not know the shape of its images: give input_shape=(height, width, "
                "channels)."
            )
        return own
    images = tuple(images)
    if own is not None and (
        len(own) != len(images) or any(a not in (None, b) for a, b in zip(own, images) if b is not None)
    ):
        raise ValueError(
            f"The backbone {backbone.name} takes images of {own}, and these are {images}: resize them to what it was "
            "trained on."
        )
    return images


def _own_input_shape(backbone):
    try:
        shape = backbone.input_shape
    except (AttributeError, ValueError):  # a subclass, or not built
        return None
    if not isinstance(shape, tuple) or any(isinstance(part, (tuple, list)) for part in shape):
        raise ValueError(f"The backbone {backbone.name} must take one array of images; it takes {shape}.")
    return tuple(shape[1:])


def _pooled(features, grid):
    """Features `(n, d)` as they are; a feature map by its cells, side by side."""
    shape = getattr(features, "shape", None)
    if shape is None or len(shape) not in (2, 4):
        raise ValueError(
            "A backbone must give (n, features) or a feature map (n, height, width, channels); this one gives "
            f"{shape or type(features).__name__}."
        )
    if len(shape) == 2:
        if grid not in (None, 1):
            raise ValueError(f"`grid` is {grid}, and the backbone gives no feature map but (n, {shape[1]}): leave it.")
        return features
    sides = shape[1:3]
    if grid is None:
        grid = 2 if all(side is not None and side >= 2 for side in sides) else 1
    if not isinstance(grid, (int, np.integer)) or grid < 1:
        raise ValueError(f"`grid` must be an integer, 1 or more; it is {grid!r}.")
    if grid == 1:
        return layers.GlobalAveragePooling2D(data_format="channels_last", name="pool")(features)
    if None in sides:
        raise ValueError(
            f"`grid` is {grid}, and the backbone's images are of open size: give input_shape=(height, width, channels)."
        )
    if grid > min(sides):
        raise ValueError(
            f"`grid` is {grid}, and the feature map has only {sides[0]}×{sides[1]} cells: use at most that."
        )
    cells = layers.AdaptiveAveragePooling2D(int(grid), data_format="channels_last", name="pool")(features)
    return layers.Flatten(data_format="channels_last", name="flatten")(cells)


def _copy(backbone, shape, seed, with_weights):
    """A backbone like the given one with variables of its own: its weights, or new initial ones."""
    if with_weights and not backbone.weights:
        raise ValueError(f"The backbone {backbone.name} has no weights yet: train it, or call it on images, first.")
    numbers = np.random.default_rng([seed, 1])

    def clone(layer):
        # Initial weights and dropout of the copy are functions of the seed, and no generator of the user's is touched.
        return type(layer).from_config(_afresh(layer.get_config(), numbers))

    try:
        if isinstance(backbone, keras.Sequential) or is_graph(backbone):
            copy = keras.models.clone_model(backbone, clone_function=clone, recursive=True)
        else:
            # What a subclass makes in its __init__ has no config here: Keras draws open seeds from Python's generator.
            state = random.getstate()
            random.seed(int(numbers.integers(2**31)))
            try:
                copy = clone(backbone)
                copy(np.zeros((1, *(side or 32 for side in shape)), "float32"))
            finally:
                random.setstate(state)
    except (NotImplementedError, TypeError) as error:
        raise ValueError(
            f"The backbone {backbone.name} can't be copied, and a copy is what is trained: give "
            f"{type(backbone).__name__} a get_config, and register it with keras.saving.register_keras_serializable()."
        ) from error
    if not copy.built or len(copy.weights) != len(backbone.weights):
        copy(np.zeros((1, *(side or 32 for side in shape)), "float32"))
    if with_weights:
        copy.set_weights(backbone.get_weights())
    return copy


def is_graph(model):
    """Whether a model is a graph of layers: functional or sequential, and built."""
    graph = isinstance(model, keras.Sequential) or hasattr(model, "operations")
    return isinstance(model, keras.Model) and graph and model.built and bool(model.inputs)


def _afresh(config, numbers):
    """A configuration in which every open seed has a number, of initialisers and of dropout, and nothing is frozen."""
    if isinstance(config, dict):
        config = {name: _afresh(value, numbers) for name, value in config.items()}
        if "seed" in config and config["seed"] is None:
            config["seed"] = int(numbers.integers(2**31))
        # A layer that is built while it is frozen stays so.
        return {**config, "trainable": True} if "trainable" in config else config
    if isinstance(config, (list, tuple)):
        return type(config)(_afresh(value, numbers) for value in config)
    return config


class _Rows:
    """Some rows of an array or of files, read when they are asked for."""

    def __init__(self, images, rows):
        self.images, self.rows = images, rows
        self.shape, self.dtype = (len(rows), *images.shape[1:]), images.dtype

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.images[self.rows[index]]


class _Head:
    """The layers of a classifier above its backbone, as a network from pooled features to logits."""

    def __init__(self, model):
        names = [layer.name for layer in model.layers]
        above = model.layers[names.index("standardize") :]
        pooled = above[0].input
        self.below = keras.Model(model.input, pooled)
        self.network = keras.Sequential([keras.Input(pooled.shape[1:]), *above])

    def features(self, images):
        return run(self.below, images)


def _train(network, inputs, codes, epochs, batch_size, rate, seed, progress, history, slower=((), 1.0)):
    """Trains a network from inputs to logits, and adds its figures to the history."""
    batches = Batches((inputs, codes), batch_size, seed=seed)
    steps = epochs * batches.steps
    warm = max(1, steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(0.0, max(1, steps - warm), warmup_target=rate, warmup_steps=warm)
    _compile(network, _TwoRates(schedule, *slower))
    callbacks = [SetEpoch(batches, epochs), *progress]
    figures = network.fit(feed(batches), epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks).history
    for name, values in history.items():
        values += figures[name]
    if not np.isfinite(history["loss"]).all():
        raise ValueError(
            f"fine_tune: the loss is not finite after {len(history['loss'])} epochs: the learning "
            f"rate {rate:g} is too high; give a lower learning_rate."
        )


def _compile(network, optimizer):
    network.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )


class _TwoRates(keras.optimizers.Adam):
    """Adam whose step is `ratio` times as long for some variables. (Scaled gradients would not do: Adam undoes it.)"""

    def __init__(self, learning_rate, slower=(), ratio=1.0):
        super().__init__(learning_rate, name="adam")
        self._slower = {id(variable) for variable in slower}
        self._ratio = ratio

    def build(self, variables):
        super().build(variables)
        self._ratios = [self._ratio if id(variable) in self._slower else 1.0 for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate * self._ratios[self._get_variable_index(variable)])


class _Progress(keras.callbacks.Callback):
    """One bar over the epochs of all phases."""

    def __init__(self, bar):
        super().__init__()
        self.bar = bar

    def on_epoch_end(self, epoch, logs=None):
        self.bar.add(1, [(name, float(logs[name])) for name in ("loss", "accuracy")])
