"""Self-supervised learning for Keras 3."""

from keras_ssl import augment, backbones, batch_norm, callbacks, data, evaluate, heads, losses, queue
from keras_ssl.methods.barlow_twins import BarlowTwins
from keras_ssl.methods.simclr import SimCLR
from keras_ssl.model import SelfSupervisedModel

__version__ = "0.1.0"

__all__ = [
    "BarlowTwins",
    "SelfSupervisedModel",
    "SimCLR",
    "augment",
    "backbones",
    "batch_norm",
    "callbacks",
    "data",
    "evaluate",
    "heads",
    "losses",
    "queue",
]
