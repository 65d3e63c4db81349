"""Evaluation of features: plain functions on arrays."""

import importlib

from keras_ssl.evaluate.classifier import classifier
from keras_ssl.evaluate.features import extract_features
from keras_ssl.evaluate.fine_tuning import PROTOCOLS, FineTuned, fine_tune
from keras_ssl.evaluate.knn import knn
from keras_ssl.evaluate.labels import draw_labels
from keras_ssl.evaluate.layers import LayerProbes, probe_layers
from keras_ssl.evaluate.linear import linear_probe
from keras_ssl.evaluate.loss_correlation import loss_correlation, rank_correlation
from keras_ssl.evaluate.measures import alignment, alpha_req, rank_me, spread, uniformity
from keras_ssl.evaluate.search import near_copies, search, without_copies
from keras_ssl.evaluate.selection import select
from keras_ssl.evaluate.verdict import Verdict, verdict

__all__ = [
    "PROTOCOLS",
    "FineTuned",
    "LayerProbes",
    "Verdict",
    "alignment",
    "alpha_req",
    "classifier",
    "draw_labels",
    "extract_features",
    "fine_tune",
    "knn",
    "linear_probe",
    "loss_correlation",
    "near_copies",
    "probe_layers",
    "rank_correlation",
    "rank_me",
    "search",
    "select",
    "spread",
    "uniformity",
    "verdict",
    "without_copies",
]


def __getattr__(name):
    if name == "plots":  # matplotlib takes half a second: for who plots alone
        return importlib.import_module("keras_ssl.evaluate.plots")
    raise AttributeError(f"module 'keras_ssl.evaluate' has no attribute {name!r}")
