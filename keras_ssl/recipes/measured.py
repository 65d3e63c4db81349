"""What was measured on the sample: 10,000 images of 28×28, batches of 128, AdamW, minutes on two cores."""

import dataclasses
import math

import keras

from keras_ssl import augment
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
from keras_ssl.recipes.plan import Cosine, Head, Plan, Sourced

SOURCE = "measured: docs/methods.md"

BATCH, LARGEST_BATCH = 128, 512
IMAGES, MOST_EPOCHS = 10_000, 100


@dataclasses.dataclass(frozen=True)
class Measured:
    """Epochs over how many images, the peak of the rate at batches of 128, arguments of the method."""

    epochs: int
    rate: float = 1e-2
    arguments: dict = dataclasses.field(default_factory=dict)
    images: int = IMAGES


# Three layers, the last normalized without scale and shift.
NORMALIZED = Head((256, 256, 256), last_batch_norm=True, last_scale=False)
MEASURED = {
    Siamese: Measured(9, arguments={"projector": Head((128,))}),
    Triplet: Measured(9, arguments={"projector": Head((128,))}),
    SimCLR: Measured(8, arguments={"temperature": 0.1}),
    # The papers' heads, 4,096 and 8,192 wide, would take most of the time on a CPU. In hundreds of steps a teacher that
    # moves by a hundredth of the way is still near its random start.
    BYOL: Measured(6, 3e-3, {"projector": NORMALIZED, "predictor": Head((64, 256)), "momentum": 0.95}),
    BarlowTwins: Measured(7, arguments={"projector": Head((512, 512)), "scale": 1 / 32}),
    # With a weight of 25 the deviation is far below 1 after hundreds of steps, and that term most of the loss.
    VICReg: Measured(7, arguments={"projector": Head((256, 256, 256)), "variance_weight": 50.0}),
    SimSiam: Measured(6, 3e-3, {"projector": NORMALIZED, "predictor": Head((64, 256))}),
    # Without batch normalization in the head the teacher decided on nothing in hundreds of steps.
    DINO: Measured(
        6,
        3e-3,
        {
            "projector": Head((512, 512, 128)),
            "prototypes": 256,
            "teacher_temperature": 0.04,
            "momentum": 0.95,
            "frozen_steps": 0,
        },
    ),
    Rotation: Measured(4),
    Distortion: Measured(8),
    Exemplar: Measured(72, 2e-3, images=2_000),
    RelativePatch: Measured(55),
    Jigsaw: Measured(12),
}
# Nothing was tried for these: the values of the measured method that is nearest, by its name.
NEAREST = {
    MoCo: ("SimCLR", Measured(8, arguments={"momentum": 0.99})),
    # Fewer prototypes than a batch has images, so that they can be dealt evenly.
    SwAV: ("SimCLR", Measured(8, arguments={"projector": Head((512, 128)), "prototypes": 64})),
    NNCLR: ("SimCLR", Measured(8, arguments={"projector": Head((512, 128)), "predictor": Head((512, 128))})),
    MoCoV3: ("BYOL", Measured(6, 3e-3, {"projector": Head((512, 128)), "predictor": Head((512, 128))})),
    TiCo: ("BYOL", Measured(6, 3e-3, {"projector": Head((512, 128))})),
    LeJEPA: ("BarlowTwins", Measured(7, arguments={"projector": Head((512, 128))})),
    MMCR: ("BarlowTwins", Measured(7, arguments={"projector": Head((512, 128))})),
    Distill: ("SimCLR", Measured(8)),
    # Of a small ViT: no method of the table has one.
    IBOT: (
        None,
        Measured(
            20,
            1e-3,
            {
                "projector": Head((512, 512, 128), False, "gelu"),
                "prototypes": 256,
                "teacher_temperature": 0.04,
                "momentum": 0.99,
            },
        ),
    ),
    MAE: (None, Measured(20, 1.5e-3, {"decoder_width": 64, "decoder_depth": 1, "decoder_heads": 4})),
    SimMIM: (None, Measured(20, 1.5e-3)),
}


def small(method, known, run):
    """The `Plan` of a method; `known` is the class of this library that it is or derives from, or None."""
    measured, source, notes = MEASURED.get(known, Measured(8)), SOURCE, []
    if known is None:
        source = "a default: SimCLR's, docs/methods.md"
        notes.append(f"{method.__name__} has no recipe here: nothing was measured with it.")
    elif known in NEAREST:
        nearest, measured = NEAREST[known]
        of = "guesses, for a small ViT" if nearest is None else f"those that were found for {nearest}"
        source = "not tuned: docs/recipes.md" if nearest is None else f"not tuned: after {nearest}'s, docs/methods.md"
        notes.append(f"{known.__name__} was not tuned here: rate and epochs are {of}.")
    arguments = {name: Sourced(value, source) for name, value in measured.arguments.items()}
    if known in (MoCo, NNCLR):
        keys = max(run.batch_size, min(4096, run.images // 4))
        rule = "MoCo's 4096 for CIFAR-10, at most a quarter of the images"
        arguments["memory"] = Sourced(keys, "facebookresearch/moco, its demo for CIFAR-10", rule)
    if known in (SwAV, IBOT):
        epoch = max(1, run.images // run.batch_size)
        arguments["frozen_steps"] = Sourced(epoch, "its paper", "one epoch")
    if known is Distill:
        rule = "at most 2048, and a quarter of the images"
        keys = max(run.batch_size, min(2048, run.images // 4))
        arguments["memory"] = Sourced(keys, "not measured", rule)
    if known is Exemplar:
        arguments["exemplars"] = Sourced(run.images, "the number of images")
        if run.images > measured.images:
            notes.append(
                f"{measured.images:,} images as classes were learned in {measured.epochs} epochs; 10,000 in 16 epochs "
                "at a rate of 1e-2 were not (docs/methods.md)."
            )
    return Plan(
        optimizer=Sourced(keras.optimizers.AdamW, source),
        rate=_rate(measured, run, source),
        schedule=Cosine(0.05, source),
        decay=Sourced(1e-4, source),
        epochs=_epochs(measured, run, source),
        views=small_views(known, run),
        arguments=arguments,
        notes=tuple(notes),
    )


def _rate(measured, run, source):
    if run.batch_size == BATCH:
        return Sourced(measured.rate, source)
    counted = min(run.batch_size, LARGEST_BATCH)
    held = f", capped at batch {LARGEST_BATCH}" if run.batch_size > LARGEST_BATCH else ""
    rule = f"{measured.rate:g} · √({counted} / {BATCH}){held}"
    return Sourced(measured.rate * math.sqrt(counted / BATCH), f"{source}, at {BATCH}; √: Malladi et al. 2022", rule)


def _epochs(measured, run, source):
    """With fewer images there are more epochs, so that the same total number of images is seen."""
    more = min(MOST_EPOCHS, round(measured.epochs * measured.images / run.images))
    if more <= measured.epochs:
        return Sourced(measured.epochs, source)
    rule = f"as many images in total as {measured.epochs} epochs over {measured.images:,}, at most {MOST_EPOCHS}"
    return Sourced(more, source, rule)


def small_views(known, run):
    """Weaker color jitter for small images, where the method's own views are SimCLR's for ImageNet."""
    if known not in (SimCLR, Siamese, Triplet, Exemplar) or not run.small or run.shape[2] == 1:
        return Plan.views
    height, width, channels = run.shape

    def make():
        both = augment.simclr((height, width), channels, strength=0.5, value_range=run.value_range)
        return augment.Views(both.branches[0]) if known is Exemplar else both

    rule = f"augment.simclr(({height}, {width}), {channels}, strength=0.5)"
    rule = f"the first of {rule}" if known is Exemplar else rule
    return Sourced(make, "Chen et al. 2020, appendix B.9; not measured here", rule)
