"""What `fit` reports on the way: thin, over `keras_ssl.evaluate`."""

import keras
import numpy as np

from keras_ssl import data, teacher
from keras_ssl.evaluate import features as feature_functions
from keras_ssl.evaluate.checks import labelled, some_classes
from keras_ssl.evaluate.knn import knn
from keras_ssl.evaluate.linear import REGULARIZATION, linear_probe


class _Probe(keras.callbacks.Callback):
    """Classifies labelled images of its own by the backbone's features, now and then during `fit`."""

    def __init__(self, train, test, every, layer, grid, batch_size, name):
        super().__init__()
        self.train, self.test = _images_and_labels("train", train), _images_and_labels("test", test)
        some_classes("train", self.train[1])
        if every < 1:
            raise ValueError(f"{type(self).__name__}: `every` must be 1 epoch or more; it is {every!r}.")
        self.every, self.layer, self.grid, self.batch_size, self.name = every, layer, grid, batch_size, name
        self._network = None

    def on_epoch_end(self, epoch, logs=None):
        due = (epoch + 1) % self.every == 0 or epoch + 1 == self.params.get("epochs")
        if due and logs is not None:
            logs[self.name] = self.accuracy()

    def accuracy(self):
        """The accuracy of the model as it stands, in [0, 1]."""
        if self._network is None:
            self._network = feature_functions.feature_network(self.model, self.layer, self.grid)
        (bank, labels), (queries, query_labels) = (
            (feature_functions.run(self._network, images, self.batch_size), labels)
            for images, labels in (self.train, self.test)
        )
        return self.classified(bank, labels, queries, query_labels)


class KNNProbe(_Probe):
    """Classifies labelled images by their nearest neighbours in the backbone's features, during `fit`.

    The labelled images are the probe's own: pretraining needs no labels. The accuracy enters the logs, so that
    `ModelCheckpoint` and `EarlyStopping` can watch it (`mode="max"`), and `History` keeps it.

    Args:
        train, test: labelled images: a split of `keras_ssl.data.load`, or `(images, labels)`. The test images are
            classified by the training images.
        every: epochs between two probes; the last epoch is always probed.
        k, temperature: of `keras_ssl.evaluate.knn`.
        layer, grid, batch_size: of `keras_ssl.evaluate.extract_features`.
        name: of the figure in the logs.
    """

    def __init__(
        self, train, test, every=1, k=20, temperature=0.1, layer=None, grid=1, batch_size=256, name="knn_accuracy"
    ):
        super().__init__(train, test, every, layer, grid, batch_size, name)
        if not 1 <= k <= len(self.train[0]):
            raise ValueError(
                f"KNNProbe: `k` must lie between 1 and the {len(self.train[0])} images of `train`; it is {k}."
            )
        self.k, self.temperature = k, temperature

    def classified(self, bank, labels, queries, query_labels):
        return knn(bank, labels, queries, query_labels, self.k, self.temperature)


class LinearProbe(_Probe):
    """Fits a linear classifier on the backbone's frozen features, during `fit`: `keras_ssl.evaluate.linear_probe`.

    It takes longer than `KNNProbe` and is nearer to what a classifier on the features will reach.

    Args:
        train, test: labelled images: a split of `keras_ssl.data.load`, or `(images, labels)`. The classifier is fitted
            to the training images, and its accuracy is that on the test images.
        every: epochs between two probes; the last epoch is always probed.
        regularization, max_iterations, seed: of `keras_ssl.evaluate.linear_probe`.
        layer, grid, batch_size: of `keras_ssl.evaluate.extract_features`.
        name: of the figure in the logs.
    """

    def __init__(
        self,
        train,
        test,
        every=1,
        regularization=REGULARIZATION,
        max_iterations=100,
        seed=0,
        layer=None,
        grid=1,
        batch_size=256,
        name="linear_accuracy",
    ):
        super().__init__(train, test, every, layer, grid, batch_size, name)
        self.regularization, self.max_iterations, self.seed = regularization, max_iterations, seed

    def classified(self, bank, labels, queries, query_labels):
        return linear_probe(
            bank,
            labels,
            queries,
            query_labels,
            regularization=self.regularization,
            max_iterations=self.max_iterations,
            seed=self.seed,
        )


class TeacherEMA(keras.callbacks.Callback):
    """Owns the schedule of a teacher's momentum; the moving average itself runs inside of the training step.

    The schedule replaces the model's own, in this `fit` and in what is saved after it, and counts optimizer steps.
    Without this callback a method with a teacher follows its `momentum` argument.

    Args:
        schedule: a function of the step: `keras_ssl.teacher.CosineMomentum`, `ConstantMomentum`, any
            `keras.optimizers.schedules.LearningRateSchedule`, or a class of yours with `get_config` and `from_config`;
            a number is the base of BYOL's cosine over the run.
        name: of the momentum in the logs: that of the last step of the epoch.

    Raises:
        ValueError: in `fit`, where the model has no teacher; at once, for a schedule that could not be saved.
    """

    def __init__(self, schedule=0.996, name="momentum"):
        super().__init__()
        self.schedule = teacher.schedule_of("TeacherEMA", schedule)
        self.name = name

    def before_run(self, model):
        """Hands the schedule to the model; `fit` calls it before the length of the run is set and a step is traced."""
        if getattr(model, "teacher", None) is None:
            raise ValueError(
                f"TeacherEMA: {type(model).__name__} has no teacher whose momentum could be set: leave it out."
            )
        if model.momentum is not self.schedule:
            model.momentum = model.teacher.schedule = self.schedule
            # A step that was compiled in an earlier fit has the old schedule in it.
            model.make_train_function(force=True)
            model.make_test_function(force=True)

    def on_train_begin(self, logs=None):
        if getattr(self.model, "teacher", None) is None:  # no model of this library, whose fit calls before_run
            self.before_run(self.model)

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs[self.name] = float(keras.ops.convert_to_numpy(self.model.teacher.last))


def _images_and_labels(name, given):
    if isinstance(given, data.Split):
        given = (given.images, given.labels)
    if not isinstance(given, (tuple, list)) or len(given) != 2 or given[0] is None or given[1] is None:
        raise ValueError(
            f"`{name}` must be labelled images: a split of keras_ssl.data.load with labels, or (images, labels)."
        )
    images, labels = given
    return images, labelled(name, np.empty(len(images)), labels)
