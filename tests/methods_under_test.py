"""Each method in a small form, as `check_method` wants it. A new method adds one function here.

A variant of a method is named after it: "SimCLR with memory".
"""

import keras
import numpy as np
from conftest import tiny_backbone

import keras_ssl
from keras_ssl import augment, distances, heads, mining, regularizers, teacher


def simclr():
    return keras_ssl.SimCLR(tiny_backbone(), temperature=0.2)


def simclr_with_memory():
    # 150 is no multiple of the 64 rows that a step of the check pushes: the queue is overwritten across its end.
    # No batch normalization: a queue of what training embedded is no fair opponent for what inference embeds, until the
    # moving statistics have settled, and the check looks at the loss before and after.
    projector = heads.mlp([32, 32], batch_norm=False, last_batch_norm=False)
    return keras_ssl.SimCLR(tiny_backbone(), light_views(), projector=projector, temperature=0.2, memory=150)


def simclr_with_koleo():
    return keras_ssl.SimCLR(
        tiny_backbone(), light_views(), projector=head(32, 16), temperature=0.2, regularizers=regularizers.KoLeo(0.1)
    )


def barlow_twins():
    projector = heads.mlp([32, 32], last_batch_norm=False, last_bias=False)
    # The loss is a sum over 32 dimensions: at its full size the check's rate would be a large one.
    return keras_ssl.BarlowTwins(tiny_backbone(), light_views(), projector=projector, scale=1 / 32)


def head(*widths):
    """Smooth, and without batch normalization: what is checked is the method."""
    return keras.Sequential(
        [*[keras.layers.Dense(width, "gelu") for width in widths[:-1]], keras.layers.Dense(widths[-1])]
    )


def light_views():
    """Two random views of few operations: the policies are tested by themselves, and what they take to compile is not
    what a method is checked for."""
    layers = [augment.RandomHorizontalFlip(), augment.RandomColorJitter(brightness=0.4)]
    return augment.Views(layers, layers)


def three_views():
    return augment.Views(*light_views().branches, light_views().branches[0])


def siamese():
    return keras_ssl.Siamese(tiny_backbone(), light_views(), projector=head(16))


def siamese_with_labels():
    return keras_ssl.Siamese(tiny_backbone(), light_views(), projector=head(16), distance=distances.cosine, labels=True)


def triplet():
    # All triplets, by a soft margin: which one a miner chooses, and which side of a margin it is on, flips with the
    # last bit of a distance, and a step with it by more than rounding. Miners are compared by themselves, in
    # test_mining.py.
    return keras_ssl.Triplet(
        tiny_backbone(), light_views(), projector=head(16), margin=None, mining=mining.all_triplets
    )


def triplet_with_labels():
    return keras_ssl.Triplet(
        tiny_backbone(), light_views(), projector=head(16), margin=None, mining=mining.all_triplets, labels=True
    )


def byol():
    momentum = teacher.CosineMomentum(0.9, steps=10)  # not the run's, which an interrupted run would have less of
    return keras_ssl.BYOL(
        tiny_backbone(), light_views(), projector=head(32, 16), predictor=head(32, 16), momentum=momentum
    )


def spreading_head(*widths):
    """Smooth, with batch normalization, which spreads the embeddings of the tiny network over their dimensions."""
    layers = [keras.layers.Dense(widths[0], use_bias=False), keras.layers.BatchNormalization(momentum=0.9)]
    return keras.Sequential([*layers, keras.layers.Activation("gelu"), keras.layers.Dense(widths[1], use_bias=False)])


def vicreg():
    # With batch normalization: without, the tiny network's embeddings begin at a deviation of 0.01, which is VICReg's
    # collapse, and the 50 steps of the check `learns` go into spreading them (to 0.45). That cost three to five points
    # of kNN (0.553 to 0.503, 0.559 to 0.525), of which the check allows five; with it kNN rose by 3 to 17 points.
    projector = keras.Sequential(
        [
            keras.layers.Dense(32, use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.Activation("gelu"),
            keras.layers.Dense(32, use_bias=False),
        ]
    )
    return keras_ssl.VICReg(tiny_backbone(), light_views(), projector=projector)


def simsiam():
    return keras_ssl.SimSiam(tiny_backbone(), light_views(), projector=head(32, 16), predictor=head(8, 16))


def moco():
    # 70 is no multiple of the 32 keys that a step of the check pushes: the queue is overwritten across its end.
    return keras_ssl.MoCo(tiny_backbone(), light_views(), projector=head(32, 16), memory=70, momentum=0.9)


def tiny_vit(input_shape=(28, 28, 1), **options):
    return keras_ssl.backbones.vit(input_shape, patch_size=7, width=16, depth=1, heads=2, **options)


def one_light_view():
    return augment.Views([augment.RandomHorizontalFlip()])


SMALL_DECODER = {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}


def mae():
    return keras_ssl.MAE(tiny_vit(), one_light_view(), **SMALL_DECODER)


def simmim():
    return keras_ssl.SimMIM(tiny_vit(), one_light_view())


def nnclr():
    # With batch normalization: without, all embeddings begin at nearly one place, and which neighbor is the nearest
    # flips with the last bits of a cosine. 70 is no multiple of the 32 rows that a step of the check pushes.
    return keras_ssl.NNCLR(
        tiny_backbone(), light_views(), projector=spreading_head(32, 16), predictor=head(32, 16), memory=70
    )


def moco_v3():
    momentum = teacher.CosineMomentum(0.9, steps=10)
    return keras_ssl.MoCoV3(
        tiny_backbone(), light_views(), projector=head(32, 16), predictor=head(32, 16), momentum=momentum
    )


def tico():
    momentum = teacher.CosineMomentum(0.9, steps=10)
    # A decay of 0.5: with the paper's 0.9 the running mean, which begins at zero, is not half full when the check
    # `learns` looks at the loss for the first time, after five steps, and the loss grows as it fills.
    return keras_ssl.TiCo(
        tiny_backbone(), light_views(), projector=spreading_head(32, 16), decay=0.5, momentum=momentum
    )


def lejepa():
    return keras_ssl.LeJEPA(tiny_backbone(), three_views(), projector=head(32, 16), directions=32)


def mmcr():
    return keras_ssl.MMCR(tiny_backbone(), three_views(), projector=head(32, 16), momentum=0.9, local_weight=0.01)


def swav():
    # The queue fills and is dealt along within the ten steps: it begins at step 2, and holds two batches and a bit.
    return keras_ssl.SwAV(
        tiny_backbone(),
        light_views(),
        projector=head(32, 16),
        prototypes=12,
        memory=70,
        frozen_steps=2,
        memory_start=2,
    )


def dino():
    # Schedules of their own length, and not the run's, which an interrupted run would have less of.
    return keras_ssl.DINO(
        tiny_backbone(),
        light_views(),
        projector=head(32, 16),
        prototypes=24,
        warm_up_steps=8,
        momentum=teacher.CosineMomentum(0.9, steps=10),
        frozen_steps=2,
    )


def ibot():
    # Schedules as of DINO. A center that follows in few steps: where it begins at 0, the untrained teacher puts most
    # patches into few prototypes, and its loss is low until the center has found them.
    return keras_ssl.IBOT(
        tiny_vit(),
        light_views(),
        projector=head(32, 16),
        prototypes=24,
        teacher_temperature=0.04,
        center_momentum=0.5,
        mask_probability=0.8,
        warm_up_steps=8,
        momentum=teacher.CosineMomentum(0.9, steps=10),
        frozen_steps=2,
    )


def distill():
    # A teacher of another kind, whose features are good without training: coarse pixels, mixed at random. Batch
    # normalization would tell if it ran in training. 70 is no multiple of the 32 embeddings that a step pushes.
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.AveragePooling2D(4), keras.layers.Flatten()]
    mixed = keras.layers.Dense(32, name="mixed")
    teaching = keras.Sequential([keras.Input((28, 28, 1)), *layers, keras.layers.BatchNormalization(), mixed])
    mixed.kernel.assign(np.random.default_rng(0).normal(size=mixed.kernel.shape) / 7)
    views = augment.Views(light_views().branches[0])
    return keras_ssl.Distill(tiny_backbone(), teaching, views, memory=70, teacher_temperature=0.05)


def rotation():
    return keras_ssl.Rotation(tiny_backbone())


def distortion():
    return keras_ssl.Distortion(tiny_backbone(), head=head(32, 8))


def exemplar():
    return keras_ssl.Exemplar(tiny_backbone(), exemplars=640)


def relative_patch():
    return keras_ssl.RelativePatch(tiny_backbone((None, None, 1), strides=1), head=head(32, 8))


def jigsaw():
    return keras_ssl.Jigsaw(tiny_backbone((None, None, 1), strides=1), head=head(32, 24), grid=2)


METHODS = {
    "SimCLR": simclr,
    "SimCLR with memory": simclr_with_memory,
    "SimCLR with KoLeo": simclr_with_koleo,
    "BarlowTwins": barlow_twins,
    "BYOL": byol,
    "VICReg": vicreg,
    "SimSiam": simsiam,
    "MoCo": moco,
    "MAE": mae,
    "SimMIM": simmim,
    "NNCLR": nnclr,
    "MoCoV3": moco_v3,
    "TiCo": tico,
    "LeJEPA": lejepa,
    "MMCR": mmcr,
    "SwAV": swav,
    "DINO": dino,
    "IBOT": ibot,
    "Distill": distill,
    "Siamese": siamese,
    "Siamese with labels": siamese_with_labels,
    "Triplet": triplet,
    "Triplet with labels": triplet_with_labels,
    "Rotation": rotation,
    "Distortion": distortion,
    "Exemplar": exemplar,
    "RelativePatch": relative_patch,
    "Jigsaw": jigsaw,
}
