"""Exemplar: every image is a class of its own, and all its distortions belong to it."""

import math

import keras
from keras import ops

from keras_ssl import augment, heads, losses
from keras_ssl.augment.policies import default_views
from keras_ssl.model import SelfSupervisedModel


@keras.saving.register_keras_serializable("keras_ssl")
class Exemplar(SelfSupervisedModel):
    """Exemplar-CNN (Dosovitskiy et al., "Discriminative Unsupervised Feature Learning with Convolutional Neural
    Networks", 2014).

    Each training image with its random distortions is a surrogate class (section 2.1), and a classifier over all of
    them is trained (eq. 1). It has a row of weights an image: good for thousands of images, too large for millions.

    An image's class is its place in the array that `fit` is given, so that `evaluate` is for the same array; held-out
    images have no class. Streams give it: `{"image": …, "index": …}`, from 0 to `exemplars − 1`; another makes the loss
    NaN, which stops the run.

    Term: `exemplar`. Metric: `exemplar_accuracy`; chance is 1 / exemplars.

    Args:
        backbone: a Keras model from images to `(n, features)` or a feature map.
        exemplars: how many images there are at most, 2 or more.
        views: one view; None for the first of SimCLR's policy at the backbone's size, or of `augment.small_gray`.
        head: from pooled features to one logit an exemplar; None for one dense layer.
        **kwargs: `value_range`, `seed`, `name`, `dtype`: see `SelfSupervisedModel`.
    """

    terms = ("exemplar",)
    metric_names = ("exemplar_accuracy",)
    view_counts = (1,)
    batch_dependent = False
    uses_index = True
    collapse_advice = "Fewer exemplars, more epochs and a smaller learning rate usually help: each image is a class."

    def __init__(self, backbone, exemplars, views=None, head=None, **kwargs):
        if not isinstance(exemplars, int) or exemplars < 2:
            raise ValueError(f"Exemplar: `exemplars` is the number of images, 2 or more; it is {exemplars!r}.")
        super().__init__(backbone, views, **kwargs)
        self.exemplars = exemplars
        self.head = head

    def default_views(self):
        both = default_views(self.backbone, self.value_range)
        return None if both is None else augment.Views(both.branches[0])

    def build_heads(self, width):
        if self.head is None:
            self.head = keras.layers.Dense(self.exemplars, name="head", dtype=self.dtype_policy)
        heads.build(self.head, width, self.exemplars, "Exemplar")

    def embed(self, views, training):
        return {"logits": self.head(self.features(views[0], training=training), training=training)}

    def objective(self, outputs, batch):
        index = ops.cast(batch["index"], "int32")
        known = ops.logical_and(index >= 0, index < self.exemplars)
        cost = losses.cross_entropy(outputs["logits"], ops.where(known, index, 0))
        # A stream with a number that is none stops the run; on JAX it would cost nothing.
        return (
            {"exemplar": ops.where(known, cost, float("nan"))},
            {"exemplar_accuracy": losses.correct_predictions(outputs["logits"], index)},
        )

    def check_rows(self, rows):
        if rows > self.exemplars:
            raise ValueError(
                f"Exemplar: there are {rows} images and `exemplars` is {self.exemplars}: each image is a class, so "
                f"make it {rows}, or give fewer images."
            )

    def collapse_losses(self, batch_size):
        return {"all images look alike to the network": math.log(self.exemplars)}
