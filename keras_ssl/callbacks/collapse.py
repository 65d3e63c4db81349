"""The collapse monitor: measures that need no labels, and a warning if a run stays at a trivial solution."""

import warnings

import keras
import numpy as np
from keras import ops

from keras_ssl import data
from keras_ssl.augment.rng import RowRNG
from keras_ssl.callbacks.periodic import PeriodicCallback, continues_epoch
from keras_ssl.data.batch import check_source
from keras_ssl.evaluate import features as feature_functions
from keras_ssl.evaluate import measures
from keras_ssl.shapes import pair

# Where the loss is blind to a collapse: BYOL's recipe is at 0.7 and, without its predictor, at 0.12 after three epochs.
_BLIND = 0.2


class Collapse(RuntimeError):
    """Raised by `CollapseMonitor(on_alarm="raise")` for a run that stays at a trivial solution."""


class CollapseMonitor(PeriodicCallback):
    """Measures the features of images during `fit`, without labels, and warns if nothing is learned.

    In the logs, all from the same images each time (so that epochs compare; other runs do with equal widths and
    numbers of images alone):

    - `feature_spread`, `rank_me`, `alpha_req`: of the backbone's features of the images;
    - `embedding_spread`, `uniformity`, and `alignment` of two views: of what the objective compares, the projector's
      output, or the features where a method has no projector.

    `ModelCheckpoint` and `EarlyStopping` can watch them (list those after the monitor): `rank_me`, `feature_spread`
    with `mode="max"`, `uniformity` with `mode="min"`. Not `alignment` alone: it is lowest where all images have one
    embedding.

    It warns once for each of two causes that last for `patience` batches:

    - the training loss is within `tolerance` of a value that the method's `collapse_losses` names;
    - the features or the embeddings are nearly the same for all images: their spread is below `floor`, or below 0.2 for
      the embeddings of a method whose trivial loss is 0, such as BYOL (docs/evaluation.md has the values of normal and
      of broken runs).

    The warning says what usually helps; `alarms` keeps all warnings.

    Args:
        images: `(N, height, width, channels)`, a split of `keras_ssl.data.load`, or a stream of batches, of which the
            first images are taken. They need no labels; held-out ones are more honest than training images.
        every, every_steps: epochs, and batches, between two measurements, as of `KNNProbe`.
        most: the number of images used at most, 2 or more; also an upper bound of `rank_me`.
        patience: batches for which a run must stay at a trivial solution. Many runs begin near one.
        tolerance: the distance to a trivial loss that counts as reaching it, as a fraction of that loss.
        floor: the spread below which all images count as having the same embedding.
        on_alarm: "warn", or "raise" to end `fit` with `keras_ssl.callbacks.Collapse`.
        batch_size: images per batch.

    Reference: RankMe, α-ReQ, alignment and uniformity, spread: see `keras_ssl.evaluate`.
    """

    def __init__(
        self,
        images,
        every=1,
        every_steps=None,
        most=512,
        patience=150,
        tolerance=0.01,
        floor=0.05,
        on_alarm="warn",
        batch_size=256,
    ):
        super().__init__(every, every_steps)
        if not (isinstance(most, int) and most >= 2):
            raise ValueError(f"CollapseMonitor: `most` must be 2 images or more; it is {most!r}.")
        if on_alarm not in ("warn", "raise"):
            raise ValueError(f'CollapseMonitor: `on_alarm` must be "warn" or "raise"; it is {on_alarm!r}.')
        for name, number in (("patience", patience), ("tolerance", tolerance), ("floor", floor)):
            if not number >= 0:
                raise ValueError(f"CollapseMonitor: `{name}` must be 0 or more; it is {number!r}.")
        self.images = _first_images(images, most)
        self.patience, self.tolerance, self.floor = patience, tolerance, floor
        self.on_alarm, self.batch_size = on_alarm, batch_size
        self.alarms = []
        self._networks = None

    def set_model(self, model):
        super().set_model(model)
        self._networks = None  # they were those of another model, or of other devices
        check_source(self.images, getattr(model, "value_range", None), "images")

    # The measures.

    def measure(self, step):
        features, a, b = self._embedded()
        found = {
            "feature_spread": measures.spread(features),
            "rank_me": measures.rank_me(features),
            "alpha_req": measures.alpha_req(features),
            "embedding_spread": measures.spread(a),
            "uniformity": measures.uniformity(a),
        }
        if b is not None:
            found["alignment"] = measures.alignment(a, b)
        self._watch_spread(step, found)
        return found

    def _embedded(self):
        """Features of the images, and the embeddings of two views of them: the second is None where none are made."""
        if self._networks is None:
            self._networks = _Seen(self.model, "features"), _Seen(self.model, "project")
        features, embedding = (lambda x, n=n: feature_functions.run(n, x, self.batch_size) for n in self._networks)
        if self.model.views is None:
            return features(self.images), embedding(self.images), None
        a, b = self._two_views()
        return features(self.images), embedding(a), embedding(b)

    def _two_views(self):
        """The same two views of each image, of one size, at every measurement; where no two are, one is drawn twice."""
        views, made = self.model.views, []
        numbers = pair(views.compute_output_shape(self.images.shape))
        for start in range(0, len(self.images), self.batch_size):
            part = self.images[start : start + self.batch_size]
            rng = RowRNG(self.model.seed, start + ops.arange(len(part), dtype="int32")).fold_in("collapse")
            two = views(part, rng=rng, only=numbers)
            if len(two) == 1:
                two += views(part, rng=rng.fold_in(1), only=numbers)
            made.append([ops.convert_to_numpy(view) for view in two])
        return tuple(np.concatenate(side) for side in zip(*made))

    # The alarm.

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        if continues_epoch(self.model):
            return
        self.alarms = []
        self._since = {}  # a trivial solution -> the batch since which the run sits there
        self._said = set()
        self._sum, self._read = 0.0, 0  # of the losses of this epoch that were judged, and how many

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self._sum, self._read = 0.0, 0

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        done, loss = self._in_epoch, self._loss(logs)
        if (
            self.every_steps is not None
            and loss is not None
            and done // self.every_steps > self._read // self.every_steps
        ):
            self._watch_loss(loss, done)

    def on_epoch_end(self, epoch, logs=None):
        loss = self._loss(logs)
        if loss is not None and self._in_epoch > self._read:
            self._watch_loss(loss, self._in_epoch)
        super().on_epoch_end(epoch, logs)

    def _loss(self, logs):
        """The method's own loss, so far: "loss" has regularizers in it, the model's and those of the user's layers."""
        names = set(self.model.terms) - {one.name for one in self.model.regularizers}
        terms = [float(logs[name]) for name in names if name in (logs or {})]
        return sum(terms) if terms and len(terms) == len(names) else None

    def _watch_loss(self, mean, batches):
        """Judges the mean loss since the last time; what Keras logs is the mean of the epoch so far."""
        total, first = mean * batches, self._step - (batches - self._read)
        loss, self._sum, self._read = (total - self._sum) / (batches - self._read), total, batches
        for sentence, value in self.model.collapse_losses(self.model.global_batch_size).items():
            if value == 0.0:  # what success looks like, too: spread decides
                continue
            sits = abs(loss - value) <= self.tolerance * abs(value)
            self._judge(
                sentence,
                sits,
                first,
                f"The loss has stayed at {loss:.4f} for {{steps}} batches, and {value:.4f} is where it stays when "
                f"nothing is learned: {sentence}.",
            )

    def _watch_spread(self, step, found):
        trivial = self.model.collapse_losses(self.model.global_batch_size).values()
        floors = {"feature_spread": self.floor, "embedding_spread": max(self.floor, _BLIND if 0.0 in trivial else 0.0)}
        for name, floor in floors.items():
            what = "features" if name == "feature_spread" else "embeddings"
            self._judge(
                name,
                found[name] < floor,
                step,
                f"All images have nearly the same {what}: for {{steps}} steps their spread has been {found[name]:.4f}, "
                "and it is near 1 when they fill the sphere.",
            )

    def _judge(self, solution, sits, first, sentence):
        if not sits:
            self._since.pop(solution, None)
            return
        since = self._since.setdefault(solution, first)
        if solution in self._said or self._step - since < self.patience:
            return
        self._said.add(solution)
        said = f"{type(self.model).__name__}: {sentence.format(steps=self._step - since)} {self.model.collapse_advice}"
        self.alarms.append(said)
        if self.on_alarm == "raise":
            raise Collapse(said)
        warnings.warn(said)


class _Seen(keras.Model):
    """`features` or `project` of a model as a Keras model, so that Keras compiles it and feeds it batch by batch."""

    def __init__(self, owner, method):
        super().__init__(autocast=False, name=method)
        self.owner, self.method = owner, method
        self.built = True

    def call(self, images):
        images = ops.cast(images, "float32")
        if len(images.shape) == 4:
            (images,) = self.owner.resize_to_backbone([images])
        rows = ops.cast(getattr(self.owner, self.method)(images, training=False), "float32")
        return ops.reshape(rows, (ops.shape(rows)[0], -1))


def _first_images(given, most):
    if isinstance(given, data.Split):
        given = given.dataset if given.images is None else given.images
    if given is None or isinstance(given, (tuple, list, dict)):
        raise ValueError("CollapseMonitor: `images` must be images alone, an array, a split, or a stream of batches.")
    if not hasattr(given, "shape"):
        given = feature_functions.first_images(given, most)
    if len(given) < 2:
        raise ValueError(f"CollapseMonitor: `images` must be 2 images or more; there are {len(given)}.")
    rows = np.unique(np.linspace(0, len(given) - 1, min(most, len(given))).astype(int))
    return np.asarray(given[rows])
