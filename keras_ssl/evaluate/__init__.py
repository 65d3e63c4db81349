"""What the features are worth: plain functions on arrays."""

from keras_ssl.evaluate.features import extract_features
from keras_ssl.evaluate.indicator import indicator, rank_correlation
from keras_ssl.evaluate.knn import knn
from keras_ssl.evaluate.linear import draw_labels, linear_probe
from keras_ssl.evaluate.measures import alignment, alpha_req, rank_me, spread, uniformity

__all__ = [
    "alignment",
    "alpha_req",
    "draw_labels",
    "extract_features",
    "indicator",
    "knn",
    "linear_probe",
    "rank_correlation",
    "rank_me",
    "spread",
    "uniformity",
]
