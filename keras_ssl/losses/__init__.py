"""Losses as functions of arrays: one value a sample, in float32, with the paper's normalisation.

What couples a whole batch beyond that (Barlow Twins) takes the gathered batch and gives a scalar.
"""

from keras_ssl.losses.barlow_twins import barlow_twins, barlow_twins_terms, cross_correlation
from keras_ssl.losses.nt_xent import contrastive_accuracy, normalized, nt_xent

__all__ = ["barlow_twins", "barlow_twins_terms", "contrastive_accuracy", "cross_correlation", "normalized", "nt_xent"]
