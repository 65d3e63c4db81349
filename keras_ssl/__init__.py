"""Self-supervised learning for Keras 3."""

import importlib
from typing import TYPE_CHECKING

from keras_ssl import names as _names
from keras_ssl.registration import register_with_keras as _register_with_keras

__version__ = "0.1.0"

# Names are imported when they are used, because Keras takes seconds (PEP 562). Editors and type checkers read these:
if TYPE_CHECKING:
    from keras_ssl import (
        augment,
        backbones,
        batch_norm,
        callbacks,
        data,
        distances,
        evaluate,
        heads,
        hub,
        lora,
        losses,
        mining,
        optimizers,
        progress,
        prototypes,
        queue,
        recipes,
        regularizers,
        report,
        teacher,
    )
    from keras_ssl.methods.barlow_twins import BarlowTwins
    from keras_ssl.methods.byol import BYOL
    from keras_ssl.methods.dino import DINO
    from keras_ssl.methods.distill import Distill
    from keras_ssl.methods.distortion import Distortion
    from keras_ssl.methods.exemplar import Exemplar
    from keras_ssl.methods.ibot import IBOT
    from keras_ssl.methods.jigsaw import Jigsaw
    from keras_ssl.methods.lejepa import LeJEPA
    from keras_ssl.methods.mae import MAE
    from keras_ssl.methods.mmcr import MMCR
    from keras_ssl.methods.moco import MoCo
    from keras_ssl.methods.moco_v3 import MoCoV3
    from keras_ssl.methods.nnclr import NNCLR
    from keras_ssl.methods.relative_patch import RelativePatch
    from keras_ssl.methods.rotation import Rotation
    from keras_ssl.methods.siamese import Siamese
    from keras_ssl.methods.simclr import SimCLR
    from keras_ssl.methods.simmim import SimMIM
    from keras_ssl.methods.simsiam import SimSiam
    from keras_ssl.methods.swav import SwAV
    from keras_ssl.methods.tico import TiCo
    from keras_ssl.methods.triplet import Triplet
    from keras_ssl.methods.vicreg import VICReg
    from keras_ssl.model import SelfSupervisedModel

__all__ = [
    "BYOL",
    "DINO",
    "IBOT",
    "MAE",
    "MMCR",
    "NNCLR",
    "BarlowTwins",
    "Distill",
    "Distortion",
    "Exemplar",
    "Jigsaw",
    "LeJEPA",
    "MoCo",
    "MoCoV3",
    "RelativePatch",
    "Rotation",
    "SelfSupervisedModel",
    "Siamese",
    "SimCLR",
    "SimMIM",
    "SimSiam",
    "SwAV",
    "TiCo",
    "Triplet",
    "VICReg",
    "augment",
    "backbones",
    "batch_norm",
    "callbacks",
    "data",
    "distances",
    "evaluate",
    "heads",
    "hub",
    "lora",
    "losses",
    "mining",
    "optimizers",
    "progress",
    "prototypes",
    "queue",
    "recipes",
    "regularizers",
    "report",
    "teacher",
]


def __getattr__(name):
    if name in _names.CLASSES:
        value = getattr(importlib.import_module(_names.CLASSES[name]), name)
        globals()[name] = value
        return value
    if name in _names.MODULES or name in _names.MORE_MODULES:
        return importlib.import_module(f"keras_ssl.{name}")
    raise AttributeError(f"module 'keras_ssl' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})


_register_with_keras()
