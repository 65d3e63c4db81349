"""Mining: which pairs, triplets and negatives count, as masks and weights of static shape for compiled steps.

A function that mines triplets takes three arrays with a row for each anchor and a column for each candidate:

- `distance`: float32 `(n, m)`;
- `positive`, `negative`: boolean `(n, m)`, which candidates are of the anchor's class, itself excepted, and which are
  of another class;

and gives a `Triplets` of three arrays that broadcast with each other. Nothing that it gives back has a pair of an
anchor with itself, or a positive of another class: these are no candidates. An anchor without a positive or without a
negative gives nothing that counts.
"""

import typing

import keras
from keras import ops

from keras_ssl import distribute, masked
from keras_ssl.data.labels import label_ids, words_of_ids

__all__ = [
    "DistanceWeighted",
    "HardnessWeighted",
    "Triplets",
    "WithinMargin",
    "WithoutFalseNegatives",
    "all_triplets",
    "easy_positive",
    "hard",
    "pair_masks",
    "same_class",
    "semi_hard",
    "two_view_masks",
]


class Triplets(typing.NamedTuple):
    """Mined triplets.

    Attributes:
        positive_distance, negative_distance: float32, of the anchor to its positive and to its negative.
        weight: float32, 0 or more: how much a triplet counts; 0 excludes it.
    """

    positive_distance: object
    negative_distance: object
    weight: object


def _serializable(function):
    return keras.saving.register_keras_serializable("keras_ssl")(function)


def pair_masks(ids, all_ids, row_offset=0):
    """Masks of the pairs of one class and of the pairs of different classes.

    Classes are compared for equality alone. A row without a label is of no class: it is positive to no row and negative
    to all others.

    Args:
        ids: the classes of the anchors: integers `(n,)`, −1 for no label; or words `(n, 3)`, of one class where all
            three agree, whose last is −1 for no label (`data.labels.label_words`). Arrays and lists may hold strings.
        all_ids: the classes of all candidates, `(m,)` or `(m, 3)`; the anchors are among them.
        row_offset: the candidate that is the first anchor itself, the others following; or `(n,)`, the candidate that
            each anchor is.

    Returns:
        `(positive, negative)`, boolean `(n, m)`. An anchor is neither its own positive nor its own negative.
    """
    ids, all_ids = label_ids(ids, "pair_masks"), label_ids(all_ids, "pair_masks")
    self_index = row_offset
    if not len(getattr(self_index, "shape", ())):
        self_index = self_index + ops.arange(ops.shape(ids)[0], dtype="int32")
    itself = ops.equal(self_index[:, None], ops.arange(ops.shape(all_ids)[0], dtype="int32")[None, :])
    same = ops.logical_or(same_class(ids, all_ids), itself)
    return ops.logical_and(same, ops.logical_not(itself)), ops.logical_not(same)


def same_class(ids, all_ids):
    """Which pairs have one label: boolean `(n, m)`. Both are what `data.labels.label_ids` gives."""
    if len(ids.shape) == len(all_ids.shape) == 1:
        labeled = ops.not_equal(ids, -1)
        same = ops.equal(ids[:, None], all_ids[None, :])
    else:
        ids, all_ids = words_of_ids(ids), words_of_ids(all_ids)
        labeled = ops.not_equal(ids[:, 2], -1)
        # Word by word: the pairs of all three at once would take three times the memory.
        first, second, third = (ops.equal(ids[:, None, word], all_ids[None, :, word]) for word in range(3))
        same = ops.logical_and(ops.logical_and(first, second), third)
    return ops.logical_and(same, labeled[:, None])


def two_view_masks(rows, ids=None):
    """`pair_masks` of two views: of this replica's images as anchors, and of all images as candidates.

    The two views of an image are positive to each other, with a label or without.

    Args:
        rows: the number of images of this replica.
        ids: the class of each image, integers `(rows,)` or words `(rows, 3)`, as of `pair_masks`: an image without a
            label is a class of its own. None if all are.

    Returns:
        `(positive, negative)`, boolean `(2n, 2N)`: first all first views, then all second ones.
    """
    images = rows * distribute.replicas()
    image = distribute.row_offset(rows) + ops.arange(rows, dtype="int32")
    same = ops.equal(image[:, None], ops.arange(images, dtype="int32")[None, :])
    if ids is not None:
        ids = label_ids(ids, "two_view_masks")
        same = ops.logical_or(same, same_class(ids, distribute.gather(ids)))
    same = ops.tile(same, (2, 2))
    view = ops.concatenate([image, image + images])
    itself = ops.equal(view[:, None], ops.arange(2 * images, dtype="int32")[None, :])
    return ops.logical_and(same, ops.logical_not(itself)), ops.logical_not(same)


@_serializable
def all_triplets(distance, positive, negative):
    """All triplets of an anchor, a positive and a negative: `(n, m, m)`, for small batches."""
    counted = ops.logical_and(positive[:, :, None], negative[:, None, :])
    return Triplets(distance[:, :, None], distance[:, None, :], ops.cast(counted, "float32"))


@_serializable
def hard(distance, positive, negative):
    """One triplet per anchor, of its farthest positive and its nearest negative: `(n,)`.

    Reference: Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017, eq. 5.
    """
    farthest, nearest = masked.largest(distance, positive), masked.smallest(distance, negative)
    counted = ops.logical_and(ops.any(positive, axis=1), ops.any(negative, axis=1))
    # What does not count is finite all the same: no gradient is ever 0 times infinity.
    return Triplets(ops.where(counted, farthest, 0.0), ops.where(counted, nearest, 0.0), ops.cast(counted, "float32"))


@_serializable
def semi_hard(distance, positive, negative):
    """One triplet for each anchor and positive: `(n, m)`.

    Its negative is the nearest of those that are farther than the positive, or, where there are none, the farthest of
    all. FaceNet's rule, as TensorFlow Addons had it. It is found by sorting, in memory of `(n, m)`.

    Reference: Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and Clustering", 2015, section 3.2.
    """
    negatives = ops.where(negative, distance, float("inf"))
    # The negatives of each anchor in order: how many of them are not farther than the positive is the place of the
    # first that is.
    ranked = ops.sort(negatives, axis=1)
    place = _count_not_greater(ranked, distance)
    total = ops.sum(ops.cast(negative, "int32"), axis=1, keepdims=True)
    place = ops.where(place < total, place, ops.maximum(total - 1, 0))
    chosen = ops.take_along_axis(ranked, place, axis=1)
    counted = ops.logical_and(positive, total > 0)
    return Triplets(ops.where(counted, distance, 0.0), ops.where(counted, chosen, 0.0), ops.cast(counted, "float32"))


@_serializable
def easy_positive(distance, positive, negative):
    """One triplet per anchor, of its nearest positive and the nearest negative beyond that: `(n,)`.

    An anchor whose negatives are all nearer gives none. It does not pull a class of several appearances into one point.

    Reference: Xuan et al., "Improved Embeddings with Easy Positive Triplet Mining", 2020, section 3.
    """
    nearest = masked.smallest(distance, positive)
    # "Not nearer" and not "farther": what is no number counts, and the loss tells of it.
    beyond = ops.logical_and(negative, ops.logical_not(distance <= nearest[:, None]))
    chosen = masked.smallest(distance, beyond)
    counted = ops.logical_and(ops.any(positive, axis=1), ops.any(beyond, axis=1))
    return Triplets(ops.where(counted, nearest, 0.0), ops.where(counted, chosen, 0.0), ops.cast(counted, "float32"))


def _count_not_greater(ranked, values):
    """For each value the number of entries of its row of `ranked` that are not greater: int32 `(n, m)`.

    A binary search by hand, for `keras.ops.searchsorted` takes one row.
    """
    ranked, values = ops.stop_gradient(ranked), ops.stop_gradient(values)
    columns = ranked.shape[1] if ranked.shape[1] is not None else 2**15
    low = ops.zeros_like(values, dtype="int32")
    high = low + ops.cast(ops.shape(ranked)[1], "int32")
    for _ in range(columns.bit_length()):
        middle = (low + high) // 2
        inside = ops.minimum(middle, ops.cast(ops.shape(ranked)[1], "int32") - 1)
        right = ops.logical_and(ops.take_along_axis(ranked, inside, axis=1) <= values, low < high)
        low, high = ops.where(right, middle + 1, low), ops.where(right, high, middle)
    return low


@keras.saving.register_keras_serializable("keras_ssl")
class WithinMargin:
    """Triplets by how far their negative lies beyond their positive, `violation = d_an − d_ap`: `(n, m, m)`.

    ```python
    keras_ssl.Triplet(backbone, mining=keras_ssl.mining.WithinMargin(0.0, 0.2))  # semi-hard ones alone
    ```

    Args:
        low, high: those with `low < violation ≤ high`; None for no bound. `(None, 0)` are the hard ones, whose
            negative is nearer than the positive; `(0, margin)` the semi-hard ones; `(None, margin)` all that a margin
            makes cost anything.
    """

    def __init__(self, low=None, high=None):
        if low is not None and high is not None and not low < high:
            raise ValueError(f"WithinMargin: `low` must be below `high`; they are {low!r} and {high!r}.")
        self.low, self.high = low, high

    def __call__(self, distance, positive, negative):
        positive_distance, negative_distance, weight = all_triplets(distance, positive, negative)
        violation = negative_distance - positive_distance
        if self.low is not None:
            weight = ops.where(violation <= self.low, 0.0, weight)
        if self.high is not None:
            weight = ops.where(violation > self.high, 0.0, weight)
        return Triplets(positive_distance, negative_distance, weight)

    def get_config(self):
        return {"low": self.low, "high": self.high}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable("keras_ssl")
class DistanceWeighted:
    """Negatives in inverse proportion to how many points lie at their distance on a sphere: `(n, m, m)`.

    On a sphere of many dimensions nearly all points are √2 apart, so negatives drawn at random are all alike. The
    paper draws one negative with a probability in proportion to `min(λ, q(d)⁻¹)`; here each anchor and positive has
    all negatives with these weights, which add up to 1: the mean over such draws.

    Args:
        width: of the embedding, whose rows are of length 1; d must be their Euclidean distance.
        nearest: distances below it count as this; the authors' code: 0.5.
        farthest: negatives beyond it have no weight; the authors' code: 1.4.

    Reference: Wu et al., "Sampling Matters in Deep Embedding Learning", 2017, eq. 3 and 4.
    """

    on_the_sphere = True  # what Triplet holds its distance to

    def __init__(self, width, nearest=0.5, farthest=1.4):
        if not isinstance(width, int) or width < 3:
            raise ValueError(f"DistanceWeighted: `width` is of the embedding, 3 or more; it is {width!r}.")
        if not 0.0 < nearest < farthest <= 2.0:
            raise ValueError(
                f"DistanceWeighted: `nearest` and `farthest` are distances on the unit sphere, 0 < nearest < farthest "
                f"≤ 2; they are {nearest!r} and {farthest!r}."
            )
        self.width, self.nearest, self.farthest = width, nearest, farthest

    def __call__(self, distance, positive, negative):
        usable = ops.logical_and(negative, distance < self.farthest)
        # A batch may have no negative as near as that: then all of them take part.
        usable = ops.where(ops.any(usable, axis=1, keepdims=True), usable, negative)
        d = ops.clip(ops.stop_gradient(distance), self.nearest, 1.99)
        # log of q(d)⁻¹, where q(d) ∝ d^(width−2) · (1 − d²/4)^((width−3)/2)
        logits = (2.0 - self.width) * ops.log(d) - (self.width - 3.0) / 2.0 * ops.log(1.0 - ops.square(d) / 4.0)
        weights = ops.cast(positive, "float32")[:, :, None] * masked.softmax(logits, usable)[:, None, :]
        return Triplets(distance[:, :, None], distance[:, None, :], weights)

    def get_config(self):
        return {"width": self.width, "nearest": self.nearest, "farthest": self.farthest}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


# Negatives of contrastive losses. Each is a function of `similarity`, float32 `(n, m)` in [−1, 1], and `negative`,
# boolean `(n, m)`, that gives a weight for each negative, 0 or more; a weight of 1 leaves it as it is.


@keras.saving.register_keras_serializable("keras_ssl")
class HardnessWeighted:
    """Weights negatives by `exp(concentration · similarity)`, at a mean of 1 over the negatives of a row.

    No gradient goes through the weights (`losses.nt_xent`).

    Args:
        concentration: 0 or more; 0 weights all alike. The paper's code has β / T where this has `concentration`.

    Reference: Robinson et al., "Contrastive Learning with Hard Negative Samples", 2021, eq. 4.
    """

    def __init__(self, concentration=5.0):
        if not 0.0 <= concentration < float("inf"):
            raise ValueError(f"HardnessWeighted: `concentration` must be 0 or more; it is {concentration!r}.")
        self.concentration = concentration

    def __call__(self, similarity, negative):
        count = ops.sum(ops.cast(negative, "float32"), axis=1, keepdims=True)
        return masked.softmax(self.concentration * similarity, negative) * count

    def get_config(self):
        return {"concentration": self.concentration}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable("keras_ssl")
class WithoutFalseNegatives:
    """Leaves out negatives so similar that they are probably of the anchor's own class.

    Never more than a share of them: or all images at one place, where no negative would be left, would cost nothing.

    Args:
        threshold: the cosine from which on a negative is left out, in (−1, 1].
        most: the largest share of an anchor's negatives that is left out, in (0, 1): about the share of the data that
            is of its class. The most similar are left out; of equals none.

    Reference: Huynh et al., "Boosting Contrastive Self-Supervised Learning with False Negative Cancellation", 2022,
    section 3.3 (elimination), with a threshold.
    """

    def __init__(self, threshold=0.9, most=0.1):
        if not -1.0 < threshold <= 1.0:
            raise ValueError(f"WithoutFalseNegatives: `threshold` is a cosine in (−1, 1]; it is {threshold!r}.")
        if not 0.0 < most < 1.0:
            raise ValueError(f"WithoutFalseNegatives: `most` is a share, in (0, 1); it is {most!r}.")
        self.threshold, self.most = threshold, most

    def __call__(self, similarity, negative):
        ranked = ops.sort(ops.where(negative, similarity, -float("inf")), axis=1)
        count = ops.cast(ops.sum(ops.cast(negative, "int32"), axis=1, keepdims=True), "float32")
        # The negative from which on those that are more similar are as many as may be left out.
        place = ops.cast(ops.shape(similarity)[1], "int32") - 1 - ops.cast(ops.floor(self.most * count), "int32")
        bound = ops.take_along_axis(ranked, place, axis=1)
        left_out = ops.logical_and(similarity >= self.threshold, similarity > bound)
        return ops.cast(ops.logical_and(negative, ops.logical_not(left_out)), "float32")

    def get_config(self):
        return {"threshold": self.threshold, "most": self.most}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
