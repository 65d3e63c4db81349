"""The pictures of a page: views, pretext tasks, the embedding, neighbors, similarities."""

import dataclasses

import keras
import numpy as np

from keras_ssl.augment.rng import RowRNG
from keras_ssl.data.labels import MISSING, codes_of, flat_labels, is_missing
from keras_ssl.data.split import rows_known_to_train, sample_evenly
from keras_ssl.evaluate import features as feature_functions
from keras_ssl.evaluate import plots
from keras_ssl.model import SelfSupervisedModel
from keras_ssl.report.html import NARROW, WIDE
from keras_ssl.shapes import pair

_FEW = 300  # images on a map: where fewer are held out, training images fill it up


class PageData:
    """The images that the pictures show, and their features: held-out images where there are at least three.

    Args:
        model: a trained `SelfSupervisedModel`.
        data: `keras_ssl.data.Data` of images.
    """

    def __init__(self, model, data):
        self.model, self.range = model, model.value_range
        self.train, self.test = data.train, data.test
        self.labels_used = model.uses_labels
        both = data.test is not None and data.test.labels is not None and data.train.labels is not None
        # Images that the table's accuracies are of.
        self.judged = len(rows_known_to_train(data.test, data.train)) if both else None
        self.held_out = data.test is not None and len(data.test) >= 3
        self.kind = "held-out" if self.held_out else "training"
        self.queried = data.test if self.held_out else data.train
        self.placed, self.bank = sample_evenly(self.queried, 1000), sample_evenly(data.train, 5000)
        self.placed_kind = self.kind
        if self.held_out and len(self.placed) < _FEW:
            self.placed = _joined(self.placed, sample_evenly(data.train, _FEW - len(self.placed)))
            self.placed_kind = "held-out and training"
        self.network = feature_functions.feature_network(model)
        self.features = self.features_of(self.placed.images)

    def features_of(self, images):
        return feature_functions.run(self.network, images)

    def names(self, split):
        if split.labels is None:
            return None
        labels = flat_labels(split.labels)
        missing = is_missing(labels)
        return [None if none else self.name(label, split) for label, none in zip(labels, missing)]

    def name(self, label, split=None):
        names = (split or self.placed).class_names
        return names[label] if names else str(label)

    def views(self, images, only=None):
        """Views from a fixed seed, so that the page looks the same when it is made again; all, or those numbers."""
        rng = RowRNG(self.model.seed, np.arange(len(images))).fold_in("report")
        return [keras.ops.convert_to_numpy(view) for view in self.model.views(images, rng=rng, only=only)]


def _joined(first, second):
    """Two splits of arrays as one; `MISSING` stands for the labels of one that has none."""
    both, labels = (first, second), None
    if any(one.labels is not None for one in both):
        labels = np.concatenate([np.full(len(one), MISSING) if one.labels is None else one.labels for one in both])
    images = np.concatenate([first.images, second.images])
    names = first.class_names or second.class_names
    return dataclasses.replace(first, images=images, labels=labels, class_names=names, paths=None, files=None)


def views(page, data):
    """Random views of some images, as in training."""
    model = data.model
    if model.views is None:
        return
    page.heading("What the model saw")
    images = sample_evenly(data.train, 10).images
    made = data.views(images)
    seen = "What changes between the views of one image is what the features learn to ignore."
    page.figure(
        plots.views(images, made, data.range, width=WIDE),
        "Images in the first row; below them random views, as in training. "
        + (seen if len(made) > 1 else "The method makes its pretext task from them."),
        plots.views(images[::2], [view[::2] for view in made], data.range, width=NARROW),
    )
    images = images[[2, 7]] if len(images) > 7 else images[:1]
    draws = [view.reshape(len(images), 8, *view.shape[1:]) for view in data.views(np.repeat(images, 8, axis=0))]
    few = [view[:, :4].reshape(-1, *view.shape[2:]) for view in draws]
    page.figure(
        plots.views_of(images, lambda _: [view.reshape(-1, *view.shape[2:]) for view in draws], 8, data.range, WIDE),
        f"{'Two images' if len(images) > 1 else 'One image'} under several random draws each: a person should still "
        "recognize most of them, and no two should look alike.",
        plots.views_of(images, lambda _: few, 4, data.range, NARROW),
    )


def pretext_task(page, data):
    """What a pretext task asks, where the method has one."""
    model = data.model
    if model.views is None or type(model).pretext_examples is SelfSupervisedModel.pretext_examples:
        return
    images = data.views(sample_evenly(data.queried, 4).images)[0]
    asked = model.pretext_examples(images)
    if asked is None:
        return
    page.heading("The pretext task")
    images = images[:3]
    asked = {name: [part[:3] for part in value] if name == "pictures" else value[:3] for name, value in asked.items()}
    caption = f"What the network is shown of three {data.kind} images. It does not know the captions, the answers."
    if "places" in asked:
        caption += " Numbers in corners are the order shown; the cells of an image are counted row by row."
    wide, narrow = (
        plots.pretext_task(images, value_range=data.range, width=width, **asked)
        for width in (6.6 if "places" in asked else 1.65 * len(asked["pictures"]), NARROW)
    )
    page.figure(wide, caption, narrow)


def embedding_map(page, data):
    """The features in the plane."""
    placed, names = data.placed, data.names(data.placed)
    if len(placed) < 3:
        return
    page.heading("A map of the embedding")
    plane = plots.project(data.features)
    wide, narrow = (
        plots.embedding_map(None, placed.images, names, data.range, thumbnails=thumbnails, plane=plane, width=width)
        for width, thumbnails in ((WIDE, 200), (NARROW, 50))
    )
    page.figure(
        wide,
        f"{len(placed):,} {data.placed_kind} images by the mean of the trained backbone's features, brought to the "
        "plane by t-SNE. Neighbors on the map are neighbors in the features; distances between groups mean little."
        + (f" Colors are labels{'' if data.labels_used else ', which training did not see'}." if names else "")
        + (" Gray points have no label." if names and None in names else ""),
        narrow,
        under=True,
    )


def neighbors(page, data):
    """Some images, each with the training images that are most similar to it."""
    page.heading("Images and their nearest neighbors")
    asked, bank = sample_evenly(data.queried, 8), data.bank
    # In one go: a few images alone would be a shape of their own to compile.
    features = data.features_of(np.concatenate([asked.images, bank.images]))
    query_features, features = features[: len(asked)], features[len(asked) :]
    names, query_names = data.names(bank), data.names(asked)
    most = min(8, len(bank)) if data.held_out else min(9, len(bank))  # a training image is its own nearest neighbor
    wide, narrow = (
        plots.neighbors(
            features, bank.images, asked.images, query_features, count, data.range, names, query_names, width
        )
        for width, count in ((WIDE, most), (NARROW, max(1, most - 4)))
    )
    page.figure(
        wide,
        f"On the left {data.kind} images; beside each the most similar of {len(bank):,} training images, with the "
        "cosine of their features."
        + (
            " A green frame marks the same label, a red one another, which is named; without a frame a label is "
            "not known."
            if names
            else ""
        ),
        narrow,
    )


def similarities(page, data):
    """The cosines of all pairs of some images."""
    page.heading("How similar images are to each other")
    labels = data.placed.labels
    names = None if labels is None else {label: data.name(label) for label in codes_of(labels)[1]}
    wide, narrow = (
        plots.similarity_matrix(data.features, labels, names, most=200, width=width) for width in (6.6, NARROW)
    )
    page.figure(
        wide,
        f"Cosines of the features of {min(200, len(data.placed))} {data.placed_kind} images with each other"
        + (
            ", ordered by label: bright squares on the diagonal are classes that the features hold together, bright "
            "squares beside it classes that they confuse."
            if labels is not None
            else ". One color all over would be a collapse: all images alike."
        ),
        narrow,
    )


def cross_correlation(page, data):
    """How each dimension of one view correlates with each of the other."""
    model = data.model
    if model.views is None:
        return
    images = sample_evenly(data.queried, 512).images
    numbers = pair(model.views.compute_output_shape(images.shape))
    if len(images) < 2 or len(numbers) < 2:
        return
    a, b = (_embedded(model, view) for view in data.views(images, numbers))
    page.heading("What two views of an image have in common")
    wide, narrow = (plots.cross_correlation(a, b, width=width) for width in (6.6, NARROW))
    projected = "projector's outputs, on which the loss is" if hasattr(model, "project") else "backbone's features"
    page.figure(
        wide,
        f"How each dimension of the {projected}, correlates between the two views, over {len(images)} {data.kind} "
        "images. A red diagonal: the views agree. A pale rest: no dimension repeats another. Barlow Twins trains "
        "for both; other methods only ask views to agree, each in its own way.",
        narrow,
    )


def _embedded(model, images, batch_size=256):
    """What the method compares of its views, where it says so (`project`), else the pooled features."""
    function = getattr(model, "project", model.features)
    parts = [
        keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(images[start : start + batch_size]), False))
        for start in range(0, len(images), batch_size)
    ]
    return np.concatenate(parts).astype("float32")
