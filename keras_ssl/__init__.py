"""Self-supervised learning for Keras 3."""

from keras_ssl import (
    augment,
    backbones,
    batch_norm,
    callbacks,
    data,
    distances,
    evaluate,
    heads,
    losses,
    mining,
    optimizers,
    queue,
    recipes,
    teacher,
)
from keras_ssl.methods.barlow_twins import BarlowTwins
from keras_ssl.methods.byol import BYOL
from keras_ssl.methods.distortion import Distortion
from keras_ssl.methods.exemplar import Exemplar
from keras_ssl.methods.jigsaw import Jigsaw
from keras_ssl.methods.relative_patch import RelativePatch
from keras_ssl.methods.rotation import Rotation
from keras_ssl.methods.siamese import Siamese
from keras_ssl.methods.simclr import SimCLR
from keras_ssl.methods.triplet import Triplet
from keras_ssl.model import SelfSupervisedModel

__version__ = "0.1.0"

__all__ = [
    "BYOL",
    "BarlowTwins",
    "Distortion",
    "Exemplar",
    "Jigsaw",
    "RelativePatch",
    "Rotation",
    "SelfSupervisedModel",
    "Siamese",
    "SimCLR",
    "Triplet",
    "augment",
    "backbones",
    "batch_norm",
    "callbacks",
    "data",
    "distances",
    "evaluate",
    "heads",
    "losses",
    "mining",
    "optimizers",
    "queue",
    "recipes",
    "teacher",
]
