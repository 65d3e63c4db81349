"""What the papers trained with whose loss has negatives."""

import math

import keras

from keras_ssl.methods.moco import MoCo
from keras_ssl.methods.moco_v3 import MoCoV3
from keras_ssl.methods.nnclr import NNCLR
from keras_ssl.methods.simclr import SimCLR
from keras_ssl.methods.triplet import Triplet
from keras_ssl.recipes.measured import small_views
from keras_ssl.recipes.papers.families import CODE, lars, linear, sgd
from keras_ssl.recipes.plan import Constant, Cosine, Head, Plan, Sourced


def _simclr(run):
    paper = "Chen et al. 2020, section 2.2"
    decay = Sourced(1e-6, paper)
    if run.small:
        cifar = "Chen et al. 2020, appendix B.9"
        code = f"{CODE}, for CIFAR-10"
        return lars(
            run,
            paper,
            (1.0, f"{code}; {cifar} tries 0.5, 1 and 1.5"),
            decay,
            Sourced(1000, code),
            least_batch=256,
            least_epochs=100,
            views=small_views(SimCLR, run),
            arguments={"temperature": Sourced(0.5, f"{code}; {cifar} tries 0.1, 0.5 and 1")},
        )
    root = 0.075 * math.sqrt(run.batch_size)
    notes = f"in batches below 4096 and few epochs the paper found 0.075 · √batch better (appendix B.1): {root:.3g}."
    return lars(
        run,
        paper,
        (0.3, paper),
        decay,
        Sourced(100, paper),
        least_batch=256,
        least_epochs=100,
        arguments={"temperature": Sourced(0.1, f"{CODE}, for ImageNet")},
        notes=(notes,) if run.batch_size < 4096 else (),
    )


def _moco(run):
    if run.small:
        demo = "facebookresearch/moco, its demo for CIFAR-10"
        values, rate, batch, decay = (0.1, 4096, 0.99), 0.06, 512, 5e-4
        notes = ("the demo's projector is one dense layer of 128, and its batch normalization sees groups of 64.",)
        least = {"least_batch": 512}
    else:
        demo = f"Chen et al. 2020 (MoCo v2), and {CODE}"
        values, rate, batch, decay, notes = (0.2, 65536, 0.999), 0.03, 256, 1e-4, ()
        least = {"least_batch": 128}  # for four GPUs the authors advise that, and the rate in proportion
    return sgd(
        run,
        demo,
        rate,
        batch,
        Cosine(0.0, demo, epochs=0),
        Sourced(200, demo),
        nesterov=False,
        decay=decay,
        notes=notes,
        arguments={name: Sourced(value, demo) for name, value in zip(("temperature", "memory", "momentum"), values)},
        **least,
    )


def _moco_v3(run):
    code = "facebookresearch/moco-v3, CONFIG.md, for ViT"
    value, rule = linear(1.5e-4, run)
    return Plan(
        optimizer=Sourced(keras.optimizers.AdamW, code),
        rate=Sourced(value, code, rule),
        schedule=Cosine(40 / 300, code, epochs=40),
        decay=Sourced(0.1, code),
        epochs=Sourced(300, code),
        arguments={"temperature": Sourced(0.2, code), "momentum": Sourced(0.99, code)},
        least_batch=1024,
        least_epochs=300,
        notes=(
            "the authors freeze the patch projection of a ViT: see the docstring of MoCoV3.",
            "for ResNet-50 and 100 epochs the authors take LARS at 0.45 · batch / 256, a weight decay of 1e-6, a "
            "temperature of 1, a projector of two layers and crops from 20 % of the area.",
        ),
    )


def _nnclr(run):
    paper = "Dwibedi et al. 2021, section 4.1"
    return lars(
        run,
        paper,
        (0.3, paper),
        Sourced(1e-6, paper),
        Sourced(1000, paper),
        least_batch=256,
        least_epochs=100,
        arguments={"temperature": Sourced(0.1, paper), "memory": Sourced(98304, paper)},
        notes=("its authors published no code, and these figures were not compared with the paper's text.",),
    )


def _triplet(run):
    paper = "Schroff et al. 2015, section 3.3"
    return Plan(
        optimizer=Sourced(keras.optimizers.Adagrad, paper),
        rate=Sourced(0.05, paper),
        schedule=Constant(paper),
        decay=Sourced(0.0, "none is stated"),
        epochs=Sourced(None, paper),
        views=small_views(Triplet, run),
        arguments={"margin": Sourced(0.2, paper), "projector": Sourced(Head((128,)), "Schroff et al. 2015, section 3")},
        notes=(
            "the paper has labels, batches of about 1,800 faces and 1,000 hours and more; it lowers the rate at the "
            "end, and does not say how.",
        ),
    )


PAPERS = {SimCLR: _simclr, MoCo: _moco, MoCoV3: _moco_v3, NNCLR: _nnclr, Triplet: _triplet}
