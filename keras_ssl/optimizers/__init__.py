"""Optimizers that Keras does not have, and what a learning rate means for each."""

from keras_ssl.optimizers.decayed import Decayed, tell_backbone
from keras_ssl.optimizers.lars import LARS
from keras_ssl.optimizers.rates import LARS_SIZED, peak_rate, warn_of_rate

__all__ = ["LARS", "LARS_SIZED", "Decayed", "peak_rate", "tell_backbone", "warn_of_rate"]
