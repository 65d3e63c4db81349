"""The triplet loss: an image is nearer to one of its kind than to any other, by a margin."""

import math

import keras
from keras import ops

from keras_ssl import distances, distribute, heads, losses, mining
from keras_ssl.augment.policies import default_views
from keras_ssl.data.labels import label_ids
from keras_ssl.losses.pairs import check_margin
from keras_ssl.losses.reducers import weighted_fraction
from keras_ssl.model import SelfSupervisedModel
from keras_ssl.saving import check_function


@keras.saving.register_keras_serializable("keras_ssl")
class Triplet(SelfSupervisedModel):
    """The triplet loss (Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and Clustering", 2015,
    eq. 3).

    `max(0, d(anchor, positive) − d(anchor, negative) + margin)`, with d the squared distance of embeddings of length 1
    unless another is given. What is a triplet:

    - given ones: batches `{"views": (anchors, positives, negatives)}`;
    - by views: an image's other view is its positive, views of all other images of the global batch are negatives;
    - `labels=True`: all views of images with its label are positives. That needs labels: any integers or strings. An
      image without one has its other view as its positive.

    Term: `triplet`. Metrics: `active_triplets`, the share of mined triplets that cost anything (given a soft margin, of
    those whose negative is nearer than the positive), `mined_triplets`, how many there are an anchor.

    Args:
        backbone: a Keras model from images to `(n, features)` or a feature map.
        views: two views; None for SimCLR's policy at the backbone's size, or `augment.small_gray`.
        projector: from pooled features to what is compared; None for none. FaceNet's is `keras.layers.Dense(128)`.
        distance: of `keras_ssl.distances`: `squared`, `euclidean`, `cosine`, `angular` …, or a function that
            broadcasts as those do.
        margin: above 0, in the distance's units; None for the soft margin. FaceNet: 0.2.
        mining: a function of `keras_ssl.mining`: `semi_hard`, `hard`, `all_triplets`, `easy_positive`,
            `WithinMargin()`, `DistanceWeighted()`. It sees the global batch.
        active_only: take the mean over triplets that cost anything; else over all that are mined.
        normalize: bring embeddings to length 1.
        labels: make triplets by labels.
        one_pass: run the views as one batch; else one view after the other.
        **kwargs: `value_range`, `seed`, `name`, `dtype`: see `SelfSupervisedModel`.
    """

    terms = ("triplet",)
    metric_names = ("active_triplets", "mined_triplets")
    view_counts = (2, 3)
    collapse_advice = (
        "Semi-hard instead of hardest negatives, a smaller learning rate and larger batches usually help; see whether "
        "views leave enough of the image."
    )

    def __init__(
        self,
        backbone,
        views=None,
        projector=None,
        distance=distances.squared,
        margin=0.2,
        mining=mining.semi_hard,
        active_only=False,
        normalize=True,
        labels=False,
        one_pass=True,
        **kwargs,
    ):
        check_margin("Triplet", margin, soft=True)
        check_function("Triplet: `mining`", mining, "keras_ssl.mining.semi_hard")
        check_function("Triplet: `distance`", distance, "keras_ssl.distances.squared")
        if getattr(mining, "on_the_sphere", False) and not (distance is distances.euclidean and normalize):
            raise ValueError(
                f"Triplet: {type(mining).__name__} goes by the Euclidean distance of rows of length 1: add "
                "distance=keras_ssl.distances.euclidean, and leave normalize=True."
            )
        super().__init__(backbone, views, **kwargs)
        self.projector = projector
        self.distance = distance
        self.margin = margin
        self.mining = mining
        self.active_only = active_only
        self.normalize = normalize
        self.labels = self.uses_labels = labels
        self.one_pass = one_pass

    def default_views(self):
        return default_views(self.backbone, self.value_range)

    def build_heads(self, width):
        if self.projector is not None:
            heads.build(self.projector, width)
            width = heads.width_of(self.projector, width)
        if getattr(self.mining, "on_the_sphere", False) and self.mining.width != width:
            raise ValueError(
                f"Triplet: {type(self.mining).__name__} was made for embeddings of {self.mining.width}, and these have "
                f"{width}: make it with width={width}."
            )

    def embed(self, views, training):
        names = ("a", "b", "c")
        return dict(zip(names, self.map_views(self.project, views, training, self.one_pass)))

    def project(self, images, training=None):
        z = super().project(images, training=training)
        return losses.normalized(z) if self.normalize else z

    def objective(self, outputs, batch):
        if "c" in outputs:  # given triplets
            near, far = (self.distance(outputs["a"], outputs[name]) for name in ("b", "c"))
            return self._terms(mining.Triplets(near, far, ops.ones_like(near)))
        a, b = outputs["a"], outputs["b"]
        ids = label_ids(batch["label"], "Triplet") if self.labels else None
        positive, negative = mining.two_view_masks(ops.shape(a)[0], ids)
        keys = ops.concatenate([distribute.gather(a), distribute.gather(b)])
        distance = distances.matrix(self.distance, ops.concatenate([a, b]), keys)
        return self._terms(self.mining(distance, positive, negative))

    def _terms(self, mined):
        costs = losses.triplet(mined.positive_distance, mined.negative_distance, self.margin)
        threshold = math.log(2.0) if self.margin is None else 0.0
        counted = mined.weight > 0.0
        rows = losses.weighted_mean_rows(costs, mined.weight, self.active_only)
        inner = tuple(range(1, len(mined.weight.shape)))
        mined_triplets = ops.sum(ops.cast(counted, "float32"), axis=inner) if inner else ops.cast(counted, "float32")
        return (
            {"triplet": rows},
            {"active_triplets": weighted_fraction(counted, costs > threshold), "mined_triplets": mined_triplets},
        )

    def check_logs(self, logs):
        if logs.get("mined_triplets") == 0.0:
            raise ValueError(
                "Triplet: no triplet was found in any batch of this epoch, so nothing is trained. "
                + (
                    "With labels=True a batch needs images of two labels: make batches larger, or shuffle."
                    if self.labels
                    else f"`mining` is {self.mining!r}: choose another, or wider bounds."
                )
            )

    def collapse_losses(self, batch_size):
        at_rest = math.log(2.0) if self.margin is None else self.margin
        # Some miners find no triplet where all distances are 0: there that costs nothing.
        positive, negative = mining.pair_masks([0, 0, 1, 1], [0, 0, 1, 1])
        mined = self.mining(ops.zeros((4, 4)), positive, negative)
        if float(ops.sum(mined.weight)) == 0.0:
            return {"all images have one embedding, where this mining finds no triplet": 0.0}
        return {"all images have one embedding: the loss is the margin": at_rest}
