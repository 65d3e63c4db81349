"""Losses as functions of arrays: one value per sample, in float32, with the paper's normalization.

What couples a whole batch beyond that (Barlow Twins, VICReg) takes the gathered batch and gives a scalar. The classes
are `keras.losses.Loss` on labeled data, for the `compile` of any Keras model.
"""

from keras_ssl.losses.barlow_twins import barlow_twins, barlow_twins_terms, cross_correlation
from keras_ssl.losses.classification import correct_predictions, cross_entropy
from keras_ssl.losses.clusters import dino, ibot, sinkhorn_knopp, swav
from keras_ssl.losses.contrast import (
    dcl,
    dclw,
    debiased_nt_xent,
    finds_own_key,
    info_nce,
    labeled_nt_xent,
    multi_similarity,
    supcon,
)
from keras_ssl.losses.distillation import distillation
from keras_ssl.losses.koleo import koleo
from keras_ssl.losses.labeled import Contrastive, LiftedStructure, NPairs, SupCon, TripletHard, TripletSemiHard
from keras_ssl.losses.mmcr import mmcr, nuclear_norm
from keras_ssl.losses.nt_xent import contrastive_accuracy, normalized, nt_xent
from keras_ssl.losses.pairs import contrastive, cosine, triplet
from keras_ssl.losses.reconstruction import masked_absolute, masked_squared, mean_of_visible, normalized_patches
from keras_ssl.losses.reducers import weighted_mean_rows
from keras_ssl.losses.sigreg import sigreg
from keras_ssl.losses.tico import tico_terms
from keras_ssl.losses.vicreg import vicreg, vicreg_terms

__all__ = [
    "Contrastive",
    "LiftedStructure",
    "NPairs",
    "SupCon",
    "TripletHard",
    "TripletSemiHard",
    "barlow_twins",
    "barlow_twins_terms",
    "contrastive",
    "contrastive_accuracy",
    "correct_predictions",
    "cosine",
    "cross_correlation",
    "cross_entropy",
    "dcl",
    "dclw",
    "debiased_nt_xent",
    "dino",
    "distillation",
    "finds_own_key",
    "ibot",
    "info_nce",
    "koleo",
    "labeled_nt_xent",
    "masked_absolute",
    "masked_squared",
    "mean_of_visible",
    "mmcr",
    "multi_similarity",
    "normalized",
    "normalized_patches",
    "nt_xent",
    "nuclear_norm",
    "sigreg",
    "sinkhorn_knopp",
    "supcon",
    "swav",
    "tico_terms",
    "triplet",
    "vicreg",
    "vicreg_terms",
    "weighted_mean_rows",
]
