"""What the features are worth: plain functions on arrays."""

from keras_ssl.evaluate.features import extract_features
from keras_ssl.evaluate.knn import knn
from keras_ssl.evaluate.linear import draw_labels, linear_probe

__all__ = ["draw_labels", "extract_features", "knn", "linear_probe"]
