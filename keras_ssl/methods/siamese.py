"""Siamese networks: one encoder for both images of a pair, near where they are of a kind and apart where not."""

import keras
import numpy as np
from keras import ops

from keras_ssl import distances, distribute, heads, losses, mining
from keras_ssl.augment.policies import default_views
from keras_ssl.data.labels import label_ids
from keras_ssl.data.value_range import check_images
from keras_ssl.losses.labeled import squeeze_column
from keras_ssl.losses.pairs import check_margin
from keras_ssl.losses.reducers import weighted_fraction
from keras_ssl.model import SelfSupervisedModel
from keras_ssl.saving import check_function


@keras.saving.register_keras_serializable("keras_ssl")
class Siamese(SelfSupervisedModel):
    """Siamese networks with the contrastive loss (Hadsell et al., "Dimensionality Reduction by Learning an Invariant
    Mapping", 2006, eq. 4).

    `1[same] · d² + 1[different] · max(0, margin − d)²` of the distance d of two embeddings. Only the encoder has
    parameters. What is a pair:

    - given ones: batches `{"views": (a, b), "same": y}`, with y = 1 for two of a kind and 0 for different ones;
    - by views: the two views of an image are of a kind, views of two images are not, over the whole global batch;
    - `labels=True`: all views of images with one label are of a kind. That needs labels: any integers or strings. The
      views of an image without one are of a kind with each other alone.

    Terms: `same` and `different`, weighted. Metrics: `pair_accuracy`, the share of pairs on their side of half the
    margin, same and different ones at the same weights as in the loss; `same_share`, the share of pairs of a kind.

    Args:
        backbone: a Keras model from images to `(n, features)` or a feature map.
        views: two views; None for SimCLR's policy at the backbone's size, or `augment.small_gray`.
        projector: from pooled features to what is compared; None for none, as in the paper.
        distance: of `keras_ssl.distances`: `euclidean`, as in the paper, `cosine`, `dot_product` …, or a function that
            broadcasts as those do.
        margin: above 0, in the distance's units.
        positive_weight: of pairs of a kind among pairs made of a batch, in (0, 1). Each kind is averaged by itself, and
            the two means get this weight and the rest: or N positive pairs would drown in N² negative ones. Given
            pairs are averaged all alike.
        labels: make pairs by labels.
        one_pass: run both views as one batch; else one view after the other.
        **kwargs: `value_range`, `seed`, `name`, `dtype`: see `SelfSupervisedModel`.
    """

    terms = ("same", "different")
    metric_names = ("pair_accuracy", "same_share")
    uses_pair_labels = True
    view_counts = (2,)
    collapse_advice = "A smaller learning rate, a margin that suits the distances, and milder views usually help."

    def __init__(
        self,
        backbone,
        views=None,
        projector=None,
        distance=distances.euclidean,
        margin=1.0,
        positive_weight=0.5,
        labels=False,
        one_pass=True,
        **kwargs,
    ):
        check_margin("Siamese", margin)
        if not 0.0 < positive_weight < 1.0:
            raise ValueError(f"Siamese: `positive_weight` must lie between 0 and 1; it is {positive_weight!r}.")
        check_function("Siamese: `distance`", distance, "keras_ssl.distances.euclidean")
        super().__init__(backbone, views, **kwargs)
        self.projector = projector
        self.distance = distance
        self.margin = margin
        self.positive_weight = positive_weight
        self.labels = self.uses_labels = labels
        self.one_pass = one_pass

    def default_views(self):
        return default_views(self.backbone, self.value_range)

    def build_heads(self, width):
        if self.projector is not None:
            heads.build(self.projector, width)

    def embed(self, views, training):
        a, b = self.map_views(self.project, views, training, self.one_pass)
        return {"a": a, "b": b}

    def objective(self, outputs, batch):
        a, b = outputs["a"], outputs["b"]
        if "same" in batch:
            same = squeeze_column('Siamese: "same"', batch["same"])
            return self._of_given_pairs(self.distance(a, b), ops.cast(same, "float32") > 0.5)
        ids = label_ids(batch["label"], "Siamese") if self.labels else None
        same, different = mining.two_view_masks(ops.shape(a)[0], ids)
        # Both views of each row against both views of every row.
        queries, keys = ops.concatenate([a, b]), ops.concatenate([distribute.gather(a), distribute.gather(b)])
        distance = distances.matrix(self.distance, queries, keys)
        costs = losses.contrastive(distance, same, self.margin)
        near = distance < self.margin / 2
        weight, rest = self.positive_weight, 1.0 - self.positive_weight
        accuracy = weight * weighted_fraction(same, near) + rest * weighted_fraction(different, ops.logical_not(near))
        return (
            {
                "same": weight * losses.weighted_mean_rows(costs, same),
                "different": rest * losses.weighted_mean_rows(costs, different),
            },
            {"pair_accuracy": accuracy, "same_share": weighted_fraction(ops.logical_or(same, different), same)},
        )

    def _of_given_pairs(self, distance, same):
        costs = losses.contrastive(distance, same, self.margin)
        right = ops.equal(distance < self.margin / 2, same)
        return (
            {"same": ops.where(same, costs, 0.0), "different": ops.where(same, 0.0, costs)},
            {"pair_accuracy": ops.cast(right, "float32"), "same_share": ops.cast(same, "float32")},
        )

    def check_logs(self, logs):
        kind = {0.0: "of a kind", 1.0: "of different kinds"}.get(logs.get("same_share"))
        if kind:
            raise ValueError(
                f"Siamese: no pair {kind} was in any batch of this epoch, so that nothing keeps all embeddings from "
                "one place, or from flying apart. Give pairs of both kinds, or larger batches."
            )

    def similarity(self, images_a, images_b, batch_size=256):
        """How alike two images are, row by row: `max(0, 1 − d / margin)`.

        1 is for embeddings at one place, 0 for those as far apart as different images are pushed, or farther.

        Args:
            images_a, images_b: `(n, height, width, channels)`, in the model's value range.
            batch_size: pairs that are in the network at a time.

        Returns:
            A float32 array `(n,)`, in [0, 1].

        Raises:
            ValueError: where the two are not equally many.
        """
        pair = [ops.convert_to_numpy(one) if ops.is_tensor(one) else one for one in (images_a, images_b)]
        for images in pair:
            check_images(images, self.value_range)
        first, second = map(len, pair)
        if first != second:
            raise ValueError(
                f"similarity: `images_a` has {first} images and `images_b` {second}: row i of one is compared with row "
                "i of the other."
            )
        found = []
        for start in range(0, first, batch_size):
            batches = (ops.cast(images[start : start + batch_size], "float32") for images in pair)
            distance = self.distance(*map(self.project, batches))
            found.append(ops.convert_to_numpy(ops.relu(1.0 - distance / self.margin)))
        return np.concatenate(found)

    def collapse_losses(self, batch_size):
        far = (1.0 - self.positive_weight) * self.margin**2
        return {"all images have one embedding, as it is for pairs made of a batch": far}
