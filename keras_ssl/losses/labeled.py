"""Losses on labeled data for `compile` of any Keras model: those of TensorFlow Addons, and SupCon.

```python
model.compile("adam", loss=keras_ssl.losses.TripletSemiHard(margin=1.0))
model.fit(images, labels)  # the model's output is the embedding
```

They return one value per row, and Keras takes the mean. Under a TensorFlow strategy rows are compared with those of all
replicas, so that the number of replicas changes nothing.

Labels are compared for equality alone: any integers of 64 bits, −1 for none. A row without a label is of no class:
positive to no other row and negative to all. In `fit` on JAX integers have 32 bits: number larger ones before, by
`np.unique(labels, return_inverse=True)[1]`. Called directly, with arrays or lists, a loss takes large integers and
strings on every backend.
"""

import keras
from keras import ops

from keras_ssl import distances, distribute, masked, mining
from keras_ssl.data.labels import label_ids, words_of_ids
from keras_ssl.losses.contrast import supcon
from keras_ssl.losses.nt_xent import check_temperature
from keras_ssl.losses.pairs import check_margin, contrastive, triplet
from keras_ssl.losses.reducers import weighted_mean_rows
from keras_ssl.saving import check_function
from keras_ssl.shapes import check_one_a_row, check_rows


class _InFloat32(keras.losses.Loss):
    """The base of all: Keras brings `y_true` and `y_pred` to the type of the loss before `call` sees them."""

    def __init__(self, name=None, **kwargs):
        kwargs.setdefault("dtype", "float32")  # not `floatx`, which may be of half precision
        super().__init__(name=name, **kwargs)


class _OfClasses(_InFloat32):
    """The base of losses whose `y_true` are labels. `call` gets them as words (`data.labels.label_words`).

    In float32 words are exact, and labels from 2^24 on are not.
    """

    def __call__(self, y_true, y_pred, sample_weight=None):
        ids = label_ids(y_true, type(self).__name__, words=False)
        return super().__call__(words_of_ids(ids), y_pred, sample_weight)


class _Labeled(_OfClasses):
    """The base of losses on (labels, embeddings): one writes `rows(embeddings, labels, keys, key_labels, first)`."""

    def call(self, y_true, y_pred):
        labels = ops.cast(y_true, "int32")
        check_rows(type(self).__name__, y_pred=y_pred)
        check_one_a_row(type(self).__name__, ("y_pred", y_pred), y_true=y_true)
        first = distribute.row_offset(ops.shape(y_pred)[0])
        return self.rows(y_pred, labels, distribute.gather(y_pred), distribute.gather(labels), first)

    def _matrix(self, embeddings, labels, keys, key_labels, first):
        distance = distances.matrix(self.distance, embeddings, keys)
        return distance, *mining.pair_masks(labels, key_labels, first)

    def _config(self, **members):
        return {**super().get_config(), **members}


def squeeze_column(owner, values):
    """Returns `(n,)` for `(n,)` or `(n, 1)`; refuses all other shapes."""
    values = ops.convert_to_tensor(values)
    if len(values.shape) == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if len(values.shape) != 1:
        raise ValueError(f"{owner}: there must be one value per row, and the shape is {tuple(values.shape)}.")
    return values


@keras.saving.register_keras_serializable("keras_ssl")
class Contrastive(_InFloat32):
    """The contrastive loss on (same, distance): `losses.contrastive` of each pair.

    `y_true` is 1 for two of a kind and 0 for different ones, `y_pred` the pair's distance, both `(n,)` or `(n, 1)`.
    TensorFlow Addons' `ContrastiveLoss`.

    Args:
        margin: above 0.
    """

    def __init__(self, margin=1.0, name="contrastive", **kwargs):
        super().__init__(name=name, **kwargs)
        check_margin("Contrastive", margin)
        self.margin = margin

    def call(self, y_true, y_pred):
        # (n,) and (n, 1) side by side would broadcast to all pairs of rows.
        same, distance = (squeeze_column("Contrastive", part) for part in (y_true, y_pred))
        return contrastive(distance, ops.cast(same, "float32") > 0.5, self.margin)

    def get_config(self):
        return {**super().get_config(), "margin": self.margin}


class _Triplets(_Labeled):
    def __init__(self, margin=1.0, distance=distances.euclidean, name=None, **kwargs):
        super().__init__(name=name, **kwargs)
        check_margin(type(self).__name__, margin, soft=True)
        self.margin = margin
        self.distance = keras.saving.deserialize_keras_object(distance) if isinstance(distance, dict) else distance
        check_function(f"{type(self).__name__}: `distance`", self.distance, "keras_ssl.distances.euclidean")

    def get_config(self):
        return self._config(margin=self.margin, distance=keras.saving.serialize_keras_object(self.distance))


@keras.saving.register_keras_serializable("keras_ssl")
class TripletSemiHard(_Triplets):
    """FaceNet's triplet loss with semi-hard negatives, on (labels, embeddings): the mean over anchors and positives.

    TensorFlow Addons' `TripletSemiHardLoss`, whose "L2" is `distances.euclidean`, "squared-L2" `distances.squared` and
    "angular" `distances.cosine`. Where a batch has no negative it costs nothing; there, Addons takes the anchor itself
    for the negative.

    Args:
        margin: above 0; None for the soft margin.
        distance: of `keras_ssl.distances`, or a function that broadcasts as those do.

    Reference: Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and Clustering", 2015.
    """

    def __init__(self, margin=1.0, distance=distances.euclidean, name="triplet_semi_hard", **kwargs):
        super().__init__(margin, distance, name, **kwargs)

    def rows(self, *given):
        mined = mining.semi_hard(*self._matrix(*given))
        return weighted_mean_rows(triplet(mined.positive_distance, mined.negative_distance, self.margin), mined.weight)


@keras.saving.register_keras_serializable("keras_ssl")
class TripletHard(_Triplets):
    """The triplet loss of each row's farthest positive and nearest negative, on (labels, embeddings).

    TensorFlow Addons' `TripletHardLoss`; its `soft=True` is `margin=None`. A row without a positive, or without a
    negative, costs nothing and counts as one in the mean. There, Addons takes the row itself for its positive, or its
    farthest positive for its negative.

    Args:
        margin: above 0; None for the soft margin.
        distance: of `keras_ssl.distances`, or a function that broadcasts as those do.

    Reference: Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017, eq. 5.
    """

    def __init__(self, margin=1.0, distance=distances.euclidean, name="triplet_hard", **kwargs):
        super().__init__(margin, distance, name, **kwargs)

    def rows(self, *given):
        mined = mining.hard(*self._matrix(*given))
        return mined.weight * triplet(mined.positive_distance, mined.negative_distance, self.margin)


@keras.saving.register_keras_serializable("keras_ssl")
class NPairs(_OfClasses):
    """The N-pairs loss on (labels, similarities): `y_pred[i, j]` is the dot product of anchor i and positive j.

    The cross entropy of each row against its columns of the same label, in equal shares; without a label, against its
    own column. TensorFlow Addons' `NpairsLoss`. The columns are those that are given: under a strategy they are this
    replica's alone.

    Reference: Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", 2016.
    """

    def __init__(self, name="n_pairs", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        labels = ops.cast(y_true, "int32")
        rows, columns = labels.shape[0], tuple(y_pred.shape)[1:]
        if len(columns) != 1 or (rows is not None and columns[0] is not None and columns[0] != rows):
            raise ValueError(
                f"NPairs: `y_pred` holds similarities, a row and a column for each label, and its shape is "
                f"{tuple(y_pred.shape)}. Of embeddings take ops.matmul(anchors, ops.transpose(positives)), or another "
                "loss, such as SupCon, which takes them as they are."
            )
        own = ops.arange(ops.shape(labels)[0], dtype="int32")
        same = ops.logical_or(mining.same_class(labels, labels), ops.equal(own[:, None], own[None, :]))
        same = ops.cast(same, "float32")
        targets = same / ops.sum(same, axis=1, keepdims=True)
        return -ops.sum(targets * ops.log_softmax(ops.cast(y_pred, "float32"), axis=1), axis=1)


@keras.saving.register_keras_serializable("keras_ssl")
class LiftedStructure(_Labeled):
    """The lifted structure loss on (labels, embeddings): each pair of a class against all negatives of both.

    The mean over ordered pairs of `½ max(0, J_ij)²`, with `J_ij = log(Σ_n exp(α − D_in) + Σ_n exp(α − D_jn)) + D_ij`
    over Euclidean distances. TensorFlow Addons' `LiftedStructLoss`.

    Args:
        margin: α, above 0.

    Reference: Song et al., "Deep Metric Learning via Lifted Structured Feature Embedding", 2016, eq. 4.
    """

    distance = staticmethod(distances.euclidean)

    def __init__(self, margin=1.0, name="lifted_structure", **kwargs):
        super().__init__(name=name, **kwargs)
        check_margin("LiftedStructure", margin)
        self.margin = margin

    def rows(self, embeddings, labels, keys, key_labels, first):
        distance, positive, _ = self._matrix(embeddings, labels, keys, key_labels, first)
        # The negatives of every key, of whichever replica it is.
        all_distances, _, negative = self._matrix(keys, key_labels, keys, key_labels, 0)
        some = ops.any(negative, axis=1)
        negatives = ops.where(some, masked.log_sum_exp(self.margin - all_distances, negative), 0.0)
        own = first + ops.arange(ops.shape(labels)[0], dtype="int32")
        more = ops.take(negatives, own)[:, None] - negatives[None, :]
        both = negatives[None, :] + ops.softplus(more) + distance
        # Two of a class have the same negatives: both some, or both none, at which J is minus infinity.
        cost = ops.where(some[None, :], 0.5 * ops.square(ops.relu(both)), 0.0)
        return weighted_mean_rows(cost, positive)

    def get_config(self):
        return self._config(margin=self.margin)


@keras.saving.register_keras_serializable("keras_ssl")
class SupCon(_Labeled):
    """The supervised contrastive loss on (labels, embeddings): `losses.supcon`.

    Args:
        temperature: above 0. The paper: 0.1.

    Reference: Khosla et al., "Supervised Contrastive Learning", 2020, eq. 2.
    """

    def __init__(self, temperature=0.1, name="sup_con", **kwargs):
        super().__init__(name=name, **kwargs)
        check_temperature("SupCon", temperature)
        self.temperature = temperature

    def rows(self, embeddings, labels, keys, key_labels, first):
        return supcon(embeddings, labels, self.temperature, keys, key_labels, first)

    def get_config(self):
        return self._config(temperature=self.temperature)
