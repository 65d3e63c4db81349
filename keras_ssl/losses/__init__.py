"""Losses as functions of arrays: one value a sample, in float32, with the paper's normalisation."""

from keras_ssl.losses.nt_xent import contrastive_accuracy, nt_xent

__all__ = ["contrastive_accuracy", "nt_xent"]
