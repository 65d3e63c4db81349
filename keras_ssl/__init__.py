"""Self-supervised learning for Keras 3."""

from keras_ssl import augment, backbones, callbacks, data, evaluate, heads, losses
from keras_ssl.methods.simclr import SimCLR
from keras_ssl.model import SelfSupervisedModel

__version__ = "0.1.0"

__all__ = ["SelfSupervisedModel", "SimCLR", "augment", "backbones", "callbacks", "data", "evaluate", "heads", "losses"]
