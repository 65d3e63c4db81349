"""Distortion: two pictures of one image, one of them bent. How was it bent?"""

import keras
import numpy as np
from keras import ops

from keras_ssl import augment, heads
from keras_ssl.augment.geometry import warp
from keras_ssl.augment.rng import RowRNG
from keras_ssl.model import SelfSupervisedModel

# Upper left, upper right, lower right, lower left.
_CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], "float32")


@keras.saving.register_keras_serializable("keras_ssl")
class Distortion(SelfSupervisedModel):
    """Predicts a distortion from the image and the distorted image (Zhang et al., "AET vs. AED: Unsupervised
    Representation Learning by Auto-Encoding Transformations rather than Data", 2019, eq. 3).

    The corners of the image are moved, each by its own draw: four make a projective map, three an affine one. One
    backbone sees the image and its distortion, and a regression on both features says where the corners went. The paper
    regresses the entries of the map's matrix; corners are all of one unit. Beyond its edges an image goes on as in a
    mirror, for a border would give the map away. The paper's scaling and quarter turns on top are left out: `Rotation`
    asks for these.

    Term: `distortion`, the mean squared error of the corners' moves in units of `strength`. Metric: `explained`, the
    share of their variance that is predicted: 1 is perfect, 0 is chance.

    Args:
        backbone: a Keras model from images to `(n, features)` or a feature map. Pooled features say little of where
            things are: those of a deeper layer or a last dense layer say more.
        views: one view; None for `augment.proxy`.
        head: from the two features side by side to 2 numbers a corner; None for dense layers of 256 and that many.
        corners: 4 for projective distortions, 3 for affine ones.
        strength: how far a drawn corner goes at most along each side, as a share of it, in (0, 0.25). The paper: 0.125.
        **kwargs: `value_range`, `seed`, `name`, `dtype`: see `SelfSupervisedModel`.
    """

    terms = ("distortion",)
    metric_names = ("explained",)
    view_counts = (1,)
    batch_dependent = False
    collapse_advice = "A smaller learning rate and milder views usually help."

    def __init__(self, backbone, views=None, head=None, corners=4, strength=0.125, **kwargs):
        if corners not in (3, 4):
            raise ValueError(f"Distortion: `corners` is 4 (projective) or 3 (affine); it is {corners!r}.")
        if not 0.0 < strength < 0.25:  # from there on corners may pass each other, and fold the image
            raise ValueError(f"Distortion: `strength` is a share of the side, in (0, 0.25); it is {strength!r}.")
        super().__init__(backbone, views, **kwargs)
        self.head = head
        self.corners = corners
        self.strength = strength

    def default_views(self):
        return augment.proxy(self.value_range)

    def build_heads(self, width):
        if self.head is None:
            options = {"batch_norm": False, "last_batch_norm": False, "dtype": self.dtype_policy}
            self.head = heads.mlp([256, 2 * self.corners], name="head", **options)
        heads.build(self.head, 2 * width, 2 * self.corners, "Distortion")

    def embed(self, views, training):
        image = views[0]
        distorted, moves = self.distorted(image, self.rng("distortion"))
        features = self.map_views(self.features, [image, distorted], training, one_pass=True)
        return {"predicted": self.head(ops.concatenate(features, axis=1), training=training), "moves": moves}

    def distorted(self, images, rng):
        """The images, distorted, and the moves of their corners, `(n, 2 · corners)` in units of `strength`."""
        moves = rng.uniform("corners", 2 * self.corners, -1.0, 1.0)
        return warp(images, self._moved(ops.reshape(moves, (-1, self.corners, 2)))), moves

    def _moved(self, moves):
        """All four corners, where three are given: an affine map makes a parallelogram."""
        if self.corners == 3:
            first, second, last = (moves[:, corner] for corner in range(3))
            moves = ops.stack([first, second, second + last - first, last], axis=1)
        return ops.convert_to_tensor(_CORNERS) + self.strength * moves

    def objective(self, outputs, batch):
        error = ops.square(ops.cast(outputs["predicted"], "float32") - outputs["moves"])
        error = ops.mean(error, axis=1)
        # Draws from [−1, 1) have the variance 1/3.
        return {"distortion": error}, {"explained": 1.0 - 3.0 * error}

    def pretext_examples(self, images):
        images = ops.cast(images, "float32")
        distorted, moves = self.distorted(images, RowRNG(self.seed, ops.arange(len(images))))
        percent = 100.0 * self.strength * ops.convert_to_numpy(moves).reshape(len(images), -1, 2)
        captions = []
        for row in percent:
            words = [f"{mark} {x:+.0f} {y:+.0f}".replace("-", "−") for mark, (x, y) in zip("↖↗↘↙", row)]
            captions.append(["image", "\n".join(["corners moved, in %", "   ".join(words[:2]), "   ".join(words[2:])])])
        return {"pictures": [images, distorted], "captions": captions}

    def collapse_losses(self, batch_size):
        return {"the features say nothing of the distortion": 1.0 / 3.0}
