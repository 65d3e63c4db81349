"""Rotation: which of four ways up is it? Who can tell knows what the image shows."""

import math

import keras
from keras import ops

from keras_ssl import augment, heads, losses
from keras_ssl.model import SelfSupervisedModel


@keras.saving.register_keras_serializable("keras_ssl")
class Rotation(SelfSupervisedModel):
    """Rotation prediction (Gidaris et al., "Unsupervised Representation Learning by Predicting Image Rotations", 2018).

    Each image is shown in all four rotations by quarter turns (section 2.2), and a classifier on the backbone's
    features says which each is (eq. 3). Quarter turns move pixels and interpolate none, so that nothing but the content
    tells them. Things that look alike from all sides, and pictures taken from above, teach nothing here.

    Term: `rotation`, in nats, the mean over the four. Metric: `rotation_accuracy`; chance is 0.25.

    Args:
        backbone: a Keras model from square images to `(n, features)` or a feature map.
        views: one view; None for `augment.proxy`.
        head: from pooled features to 4 logits; None for one dense layer.
        **kwargs: `value_range`, `seed`, `name`, `dtype`: see `SelfSupervisedModel`.
    """

    terms = ("rotation",)
    metric_names = ("rotation_accuracy",)
    view_counts = (1,)
    batch_dependent = False
    collapse_advice = "A smaller learning rate usually helps; images without an upside have no rotation to see."

    def __init__(self, backbone, views=None, head=None, **kwargs):
        super().__init__(backbone, views, **kwargs)
        self.head = head

    def default_views(self):
        return augment.proxy(self.value_range)

    def build_heads(self, width):
        if self.head is None:
            self.head = keras.layers.Dense(4, name="head", dtype=self.dtype_policy)
        heads.build(self.head, width, 4, "Rotation")

    def embed(self, views, training):
        image = views[0]
        if image.shape[1] != image.shape[2]:
            raise ValueError(
                f"Rotation: images must be square, and these are {image.shape[1]}×{image.shape[2]}: a quarter turn "
                "would be told by its shape. Crop them, such as by views=Views([RandomResizedCrop(size)])."
            )
        logits = self.map_views(self.logits, quarter_turns(image), training, one_pass=True)
        return {"logits": ops.stack(logits, axis=1)}

    def logits(self, images, training):
        return self.head(self.features(images, training=training), training=training)

    def objective(self, outputs, batch):
        logits = outputs["logits"]
        turns = ops.broadcast_to(ops.arange(4, dtype="int32")[None], ops.shape(logits)[:2])
        return (
            {"rotation": ops.mean(losses.cross_entropy(logits, turns), axis=1)},
            {"rotation_accuracy": ops.mean(losses.correct_predictions(logits, turns), axis=1)},
        )

    def pretext_examples(self, images):
        captions = ["0°", "90°", "180°", "270°"]
        return {"pictures": quarter_turns(images), "captions": [captions] * len(images)}

    def collapse_losses(self, batch_size):
        return {"the four rotations look alike to the network": math.log(4.0)}


def quarter_turns(images):
    """The images turned by 0, 90, 180 and 270 degrees against the clock: a list of four."""
    turned = ops.transpose(images, (0, 2, 1, 3))
    return [images, ops.flip(turned, axis=1), ops.flip(images, axis=(1, 2)), ops.flip(turned, axis=2)]
