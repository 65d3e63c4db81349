"""Fine-tuning: from a pretrained backbone and some labels to a plain Keras classifier, by the usual protocols."""

import dataclasses
import math
import re

import keras
import numpy as np

from keras_ssl import backbones, backend
from keras_ssl.backbones import backbone_of, image_shape
from keras_ssl.clone import clone
from keras_ssl.data.arrays import ArrayBatches
from keras_ssl.data.batch import check_source
from keras_ssl.evaluate.classifier import Head, classifier
from keras_ssl.evaluate.features import pooling_of, run
from keras_ssl.evaluate.labels import (
    check_classes,
    check_validation,
    common_codes,
    draw_fraction,
    draw_labels,
    labeled_images,
    labeled_split,
    some_images,
)
from keras_ssl.keras_compat import variable_index
from keras_ssl.lora import LoRA, within
from keras_ssl.optimizers.half_precision import scaled

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
# With few labels a head needs many epochs before it has learned anything; with many labels it needs few.
_LEAST_EPOCHS, _LEAST_STEPS = 20, 400


@dataclasses.dataclass
class FineTuned:
    """The result of `fine_tune`.

    Attributes:
        classifier: the trained `keras.Model`, compiled to be evaluated or trained further; plain Keras.
        accuracy: on the validation images after the last epoch, in [0, 1].
        history: a dict of name to list, one value per epoch, of the labeled images: `loss` and `accuracy`.
        protocol: its name.
        rows: the rows of the training images whose labels were used, ascending.
        classes: the label that each logit stands for, ascending: integers or strings, as they were given.
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
    value_range=None,
):
    """Trains a classifier on a copy of a backbone with some of the labels, and evaluates it once, at the end.

    The protocols:

    - `"linear"`: the backbone is frozen, its batch normalization in inference mode, and the head is trained on its
      features, which are computed once.
    - `"fine-tune"`: all weights are trained, the backbone's with a smaller learning rate than the head's. "Fine-tune at
      1 %" and "at 10 %" of the literature are `labels_fraction=0.01` and `0.1`, or `protocol="fine-tune 1%"`.
    - `"frozen-then-unfrozen"`: the first half of the epochs as `"linear"`, the second as `"fine-tune"`, so that the
      gradients of an untrained head don't move the backbone.
    - `"from-scratch"`: the control. The same architecture starts from new initial weights. An initializer that has a
      seed keeps it.

    Optimizer: Adam; the learning rates rise over the first tenth of the steps and fall to zero by a cosine. Nothing is
    chosen on the validation images, neither a rate nor the epoch of the reported accuracy.

    Args:
        backbone: a Keras model as `classifier` takes it, or a `SelfSupervisedModel` (its backbone, and its `pooling` of
            tokens). It is not changed. Of a `keras_ssl.lora.LoRA` it is what `merged` gives: all of it is trained.
        train: a `keras_ssl.data.Split`, or `(images, labels)`: `(N, height, width, channels)`, and integers or strings
            `(N,)`. Images without a label (−1, None, NaN, an empty string) are left out.
        validation: the same. Its labels must be among those of `train`.
        labels_fraction: of each class, in (0, 1]: the draw is as balanced as the classes are.
        per_class: instead of a fraction, the number of labels of each class (all if there are fewer).
        protocol: one of `evaluate.PROTOCOLS`.
        epochs: epochs over the labeled images; None for 20, or more where 20 make fewer than 400 steps.
        batch_size: None for at most 32, chosen so that few of the labeled images are left out of an epoch.
        learning_rate: of the head at its peak; None for the protocol's.
        backbone_rate: of the backbone at its peak; None for the protocol's. Not for `"linear"`.
        grid, dropout: of `classifier`.
        seed: of the draw of labels, the head, the order of the images, dropout and new initial weights. The draws of
            one seed are nested: the labels of a smaller fraction are among those of a larger one.
        verbose: 1 for a progress bar over epochs.
        value_range: lowest and highest value that the images can have, which are checked; None for the backbone's own,
            as far as it says (`keras_ssl.backbones.value_range`).

    Returns:
        A `FineTuned`.

    Raises:
        ValueError: labels that don't fit, no label, a single class, validation labels that are not in `train`, a
            fraction that leaves a class without labels; a loss that is not finite.

    References: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020, section 4.2
    and appendix B.5 (1 % and 10 % of the labels, balanced by class); Grill et al., "Bootstrap Your Own Latent", 2020,
    appendix C.1 (linear and semi-supervised); Kumar et al., "Fine-Tuning can Distort Pretrained Features and
    Underperform Out-of-Distribution", 2022, section 4 (frozen, then unfrozen).
    """
    protocol, labels_fraction = _protocol(protocol, labels_fraction, per_class)
    images, labels, given_rows = labeled_split("train", train)
    held, held_labels = labeled_images("validation", validation)
    check_classes("train", labels)
    check_validation(images, labels, held, held_labels)
    value_range = value_range or backbones.value_range(backbone)
    for which, part in (("train", images), ("validation", held)):
        check_source(part, value_range, which)
    pooling, backbone = pooling_of(backbone), backbone_of(backbone)
    if isinstance(backbone, LoRA):  # its weights are trained as any other's, and the classifier is plain Keras
        backbone = backbone.merged()
    if within(backbone):
        raise ValueError(
            f"fine_tune: a LoRA lies within {backbone.name}, which would be trained in part: give `backbone` with its "
            "`merged()` in its place, or the LoRA itself."
        )
    shape = image_shape(backbone, images.shape[1:])
    if per_class is None:
        rows = draw_fraction(labels, labels_fraction, seed)
    else:
        if not isinstance(per_class, (int, np.integer)) or per_class < 1:
            raise ValueError(f"fine_tune: `per_class` must be an integer, 1 or more; it is {per_class!r}.")
        rows = draw_labels(labels, per_class, seed)
    epochs, batch_size = _plan(len(rows), epochs, batch_size)
    rates = _rates(protocol, learning_rate, backbone_rate)

    codes, classes, held_codes = common_codes(labels, held_labels)
    copy = clone(backbone, protocol != "from-scratch", seed, unfreeze=True, input_shape=shape)
    model = classifier(copy, len(classes), grid, dropout, input_shape=shape, seed=seed, pooling=pooling)
    shown = some_images(images, rows)
    frozen = {"linear": epochs, "frozen-then-unfrozen": (epochs + 1) // 2}.get(protocol, 0)
    history = {"loss": [], "accuracy": []}
    progress = []
    if verbose:
        shown_names = tuple(_Progress.NAMES.values())
        # Narrow enough for the two figures beside it in 80 columns.
        options = {"width": 10, "unit_name": "epoch", "stateful_metrics": shown_names, "verbose": verbose}
        progress = [_Progress(keras.utils.Progbar(epochs, **options))]
    if frozen:
        head = Head(model)
        rate = _RATES["linear"][0] if protocol != "linear" and learning_rate is None else rates[0]
        _train(head.network, head.features(shown), codes[rows], frozen, batch_size, rate, seed, progress, history)
    if frozen < epochs:
        slower = copy.trainable_variables, rates[1] / rates[0]
        rest = epochs - frozen
        _train(model, shown, codes[rows], rest, batch_size, rates[0], seed + frozen, progress, history, slower)
    # An optimizer of Keras' own, so that the classifier is loaded where keras_ssl is not.
    _compile(model, keras.optimizers.Adam(rates[1] or rates[0]))
    model.optimizer.build(model.trainable_variables)  # or Keras would warn whenever a saved classifier is loaded
    accuracy = float(np.mean(np.argmax(run(model, held), axis=1) == held_codes))
    return FineTuned(model, accuracy, history, protocol, given_rows[rows], classes)


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
    """Returns `(epochs, batch_size)`, checked."""
    if batch_size is None:
        # A size that leaves few rows out of an epoch, and a multiple of 4: with odd batches oneDNN (TensorFlow 2.21 and
        # torch 2.13) overwrites memory in the gradient of convolutions of 8 channels.
        batch_size = rows // -(-rows // _BATCH)
        batch_size -= batch_size % 4 if batch_size > 4 else 0
    elif not 2 <= batch_size <= rows:
        raise ValueError(
            f"fine_tune: `batch_size` must lie between 2, for there is batch normalization, and the {rows} labeled "
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


def _train(network, inputs, codes, epochs, batch_size, rate, seed, progress, history, slower=((), 1.0)):
    """Trains a network from inputs to logits, and adds its metrics to the history."""
    batches = ArrayBatches((inputs, codes), batch_size, seed=seed)
    steps = epochs * batches.steps
    warm = max(1, steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(0.0, max(1, steps - warm), warmup_target=rate, warmup_steps=warm)
    _compile(network, _TwoRates(schedule, *slower))
    callbacks = [*batches.callbacks, *progress]
    with batches.reading_ahead():
        metrics = network.fit(
            backend.dataset_for_fit(batches), epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks
        ).history
    for name, values in history.items():
        values += metrics[name]
    if not np.isfinite(history["loss"]).all():
        raise ValueError(
            f"fine_tune: the loss is not finite after {len(history['loss'])} epochs: the learning "
            f"rate {rate:g} is too high; give a lower learning_rate."
        )


def _compile(network, optimizer):
    network.compile(
        optimizer=scaled(optimizer, network),
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
        super().update_step(gradient, variable, learning_rate * self._ratios[variable_index(self, variable)])


class _Progress(keras.callbacks.Callback):
    """One bar over the epochs of all phases; it says that its accuracy is not that of held-out images."""

    NAMES = {"loss": "loss", "accuracy": "training_accuracy"}

    def __init__(self, bar):
        super().__init__()
        self.bar = bar

    def on_epoch_end(self, epoch, logs=None):
        self.bar.add(1, [(shown, float(logs[name])) for name, shown in self.NAMES.items()])
