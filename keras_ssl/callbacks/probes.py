"""Probes: how well labeled images can be classified by the backbone's features, measured during `fit`."""

import warnings

import numpy as np

from keras_ssl import data
from keras_ssl.callbacks.periodic import PeriodicCallback
from keras_ssl.data import streams
from keras_ssl.data.batch import check_source
from keras_ssl.evaluate import features as feature_functions
from keras_ssl.evaluate.knn import knn
from keras_ssl.evaluate.labels import (
    check_all_known,
    check_classes,
    check_labels,
    labeled_rows,
    sample_by_class,
    some_images,
    some_of,
    unknown_rows,
)
from keras_ssl.evaluate.linear import REGULARIZATION, linear_probe


class _Probe(PeriodicCallback):
    """Classifies its own labeled images by the backbone's features during `fit`."""

    def __init__(self, train, test, every, every_steps, most, layer, grid, batch_size, name):
        super().__init__(every, every_steps)
        self.most = _two_numbers(type(self).__name__, most)
        train, test = (_images_and_labels(which, given) for which, given in (("train", train), ("test", test)))
        if isinstance(train, tuple):
            check_classes("train", train[1])
            if isinstance(test, tuple):
                check_all_known(train[1], test[1], "test")
        self.train, self.test = map(_sampled, (train, test), self.most)
        if isinstance(self.train, tuple) and isinstance(self.test, tuple):
            self._check_sample(self.train[1], self.test[1])
        self.layer, self.grid, self.batch_size, self.name = layer, grid, batch_size, name
        self._network = None
        self._told = False

    def _check_sample(self, labels, query_labels):
        unknown = np.unique(query_labels[unknown_rows(labels, query_labels)])
        if len(unknown):
            raise ValueError(
                f"{type(self).__name__}: `most` keeps {len(labels)} images of `train`, and none of {len(unknown)} of "
                f"the classes of `test`, whose images could only be classified wrongly: make most[0] larger, or None."
            )

    def set_model(self, model):
        super().set_model(model)
        self._network = None  # it was that of another model, or of other devices
        for which, source in (("train", self.train), ("test", self.test)):
            if isinstance(source, tuple):
                check_source(source[0], getattr(model, "value_range", None), which)

    def measure(self, step):
        return {self.name: self.accuracy()}

    def accuracy(self):
        """The accuracy of the model as it stands, in [0, 1]."""
        if self._network is None:
            self._network = feature_functions.feature_network(self.model, self.layer, self.grid)
        (bank, labels), (queries, query_labels) = map(
            self._features, ("train", "test"), (self.train, self.test), self.most
        )
        check_classes("train", labels)
        self._tell_of_unknown(labels, query_labels)
        return self.classified(bank, labels, queries, query_labels)

    def _tell_of_unknown(self, labels, query_labels):
        """Warns, once, of streams whose test images no training image could classify; of arrays they are refused."""
        unknown = unknown_rows(labels, query_labels)
        if unknown.any() and not unknown.all() and not self._told:
            self._told = True
            warnings.warn(
                f"{type(self).__name__}: {np.mean(unknown):.0%} of the images of `test` are of classes that the "
                f"{len(labels)} images of `train` have none of, such as {some_of(query_labels[unknown])}, and count as "
                "wrong. Shuffle the streams, raise `most`, or leave those images out."
            )

    def _features(self, which, source, most):
        if isinstance(source, tuple):
            images, labels = source
            return feature_functions.run(self._network, images, self.batch_size), labels
        value_range = getattr(self.model, "value_range", None)
        return feature_functions.of_labeled_stream(self._network, source, most, which, value_range)


class KNNProbe(_Probe):
    """Classifies labeled images by their nearest neighbors in the backbone's features, during `fit`.

    The labeled images are the probe's own: pretraining needs no labels. The accuracy enters the logs, so that
    `ModelCheckpoint` and `EarlyStopping` can watch it (`mode="max"`; list them after the probe); `History` keeps it.

    Args:
        train, test: labeled images: a split of `keras_ssl.data.load`, `(images, labels)`, or a stream of such batches
            that can be read anew (`tf.data.Dataset`, `PyDataset`, `DataLoader`). The test images are classified by the
            training images. Labels are any integers or strings; images without one (−1, None, NaN, an empty string)
            are left out. `test` must have no class that `train` has not.
        every: epochs between two probes; the last epoch is always probed, also where `EarlyStopping` ends the run. None
            probes the last epoch only.
        every_steps: batches between two further probes, for long epochs; None for none. `values` holds each result with
            its step, and the latest enters the epoch's logs.
        most: the number of labeled images used at most, of `train` and of `test`. From arrays they are drawn once,
            evenly by class; from a stream the first are taken. Features are dropped after each probe. None for all.
        k, temperature: of `keras_ssl.evaluate.knn`.
        layer, grid, batch_size: of `keras_ssl.evaluate.extract_features`.
        name: of the accuracy in the logs.
    """

    def __init__(
        self,
        train,
        test,
        every=1,
        every_steps=None,
        most=(2000, 1000),
        k=20,
        temperature=0.1,
        layer=None,
        grid=1,
        batch_size=256,
        name="knn_accuracy",
    ):
        super().__init__(train, test, every, every_steps, most, layer, grid, batch_size, name)
        known = len(self.train[0]) if isinstance(self.train, tuple) else self.most[0]
        if k < 1 or (known is not None and k > known):
            raise ValueError(f"KNNProbe: `k` must lie between 1 and the {known} labeled images of `train`; it is {k}.")
        self.k, self.temperature = k, temperature

    def classified(self, bank, labels, queries, query_labels):
        return knn(bank, labels, queries, query_labels, self.k, self.temperature)


class LinearProbe(_Probe):
    """Fits a linear classifier on the backbone's frozen features, during `fit`: `keras_ssl.evaluate.linear_probe`.

    It takes longer than `KNNProbe`, and its accuracy is closer to that of a trained classifier.

    Args:
        train, test: labeled images, as of `KNNProbe`. The classifier is fitted to the training images, and its
            accuracy is that on the test images.
        every, every_steps, most: as of `KNNProbe`.
        regularization, max_iterations, seed: of `keras_ssl.evaluate.linear_probe`.
        layer, grid, batch_size: of `keras_ssl.evaluate.extract_features`.
        name: of the accuracy in the logs.
    """

    def __init__(
        self,
        train,
        test,
        every=1,
        every_steps=None,
        most=(2000, 1000),
        regularization=REGULARIZATION,
        max_iterations=100,
        seed=0,
        layer=None,
        grid=1,
        batch_size=256,
        name="linear_accuracy",
    ):
        super().__init__(train, test, every, every_steps, most, layer, grid, batch_size, name)
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


def _two_numbers(owner, most):
    numbers = most if isinstance(most, (tuple, list)) else (most, most)
    if len(numbers) != 2 or any(n is not None and not (isinstance(n, int) and n >= 2) for n in numbers):
        raise ValueError(
            f"{owner}: `most` must be numbers of images, 2 or more, of `train` and `test`, such as (2000, 1000), or "
            f"None; it is {most!r}."
        )
    return numbers


def _images_and_labels(name, given):
    """`(images, labels)` of those that have a label, or a stream as it is."""
    if isinstance(given, data.Split):
        given = given.dataset if given.images is None else (given.images, given.labels)
    pair = isinstance(given, (tuple, list))
    if not pair and given is not None and not hasattr(given, "shape") and streams.is_stream(given):
        if iter(given) is given:
            raise ValueError(f"`{name}` can be read once alone, and each probe reads it: give a data set or arrays.")
        return given
    if not pair or len(given) != 2 or given[0] is None or given[1] is None:
        raise ValueError(
            f"`{name}` must be labeled images: a split of keras_ssl.data.load with labels, (images, labels), or a "
            "stream of such batches."
        )
    images, labels = given
    labels = check_labels(name, images, labels)
    rows = labeled_rows(name, labels)
    return some_images(images, rows), labels[rows]


def _sampled(source, most):
    """At most `most` of labeled images, read once; a stream as it is."""
    if not isinstance(source, tuple):
        return source
    images, labels = source
    rows = sample_by_class(labels, most)
    return source if len(rows) == len(labels) else (images[rows], labels[rows])
