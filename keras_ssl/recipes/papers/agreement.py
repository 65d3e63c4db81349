"""What the papers trained with whose views agree, without negatives."""

import math

import numpy as np

from keras_ssl.methods.barlow_twins import BarlowTwins
from keras_ssl.methods.byol import BYOL
from keras_ssl.methods.simsiam import SimSiam
from keras_ssl.methods.vicreg import VICReg
from keras_ssl.recipes.papers.families import CODE, lars, sgd
from keras_ssl.recipes.plan import Cosine, Sourced

# By epochs: the base of the rate, the weight decay, the base of the teacher's momentum.
_BYOL = {40: (0.45, 1e-6, 0.97), 100: (0.45, 1e-6, 0.99), 300: (0.3, 1e-6, 0.99), 1000: (0.2, 1.5e-6, 0.996)}


def _byol(run):
    paper = "Grill et al. 2020, section 3.3"
    wanted = 1000 if run.epochs is None else run.epochs
    nearest = next((epochs for epochs in _BYOL if epochs >= wanted), 1000)
    rate, decay, momentum = _BYOL[nearest]
    source = paper if nearest == 1000 else f"{CODE}, for {nearest} epochs"
    return lars(
        run,
        paper,
        (rate, source),
        Sourced(decay, source),
        Sourced(1000, paper),
        least_batch=256,
        least_epochs=40,
        arguments={"momentum": Sourced(momentum, source)},
    )


# By batch size: the base of the rate, the best of its authors over 300 epochs on ImageNet.
_BARLOW_TWINS = {128: 0.7, 256: 0.4, 512: 0.3, 1024: 0.25, 2048: 0.2}


def _barlow_twins(run):
    paper = "Zbontar et al. 2021, section 2.2"
    table = "facebookresearch/barlowtwins, issue 7: its authors' table by batch size"
    return lars(
        run,
        paper,
        (_between(_BARLOW_TWINS, run.batch_size), paper if run.batch_size >= 2048 else table),
        Sourced(1.5e-6, paper),
        Sourced(1000, paper),
        least_batch=128,
        least_epochs=300,
        end=1e-3,
        options={"excluded_rate": Sourced(0.024, paper, "0.0048 / 0.2, of biases and normalization")},
        arguments={"off_diagonal_weight": Sourced(5e-3, paper), "scale": Sourced(1.0, paper)},
    )


def _between(table, batch_size):
    """The value at a batch size: on a straight line over log₂ between two of the table, held beyond its ends."""
    return round(float(np.interp(math.log2(batch_size), np.log2(list(table)), list(table.values()))), 4)


def _vicreg(run):
    paper = "Bardes et al. 2022, section 4.2"
    short = run.epochs is not None and run.epochs <= 100
    rate = (0.3, f"{CODE}, for 100 epochs in batches of 512") if short else (0.2, paper)
    return lars(
        run,
        paper,
        rate,
        Sourced(1e-6, paper),
        Sourced(1000, paper),
        least_batch=128,
        least_epochs=100,
        end=1e-3,
        arguments={
            "invariance_weight": Sourced(25.0, paper),
            "variance_weight": Sourced(25.0, paper),
            "covariance_weight": Sourced(1.0, paper),
        },
    )


def _simsiam(run):
    notes = ("the paper holds the predictor's rate constant; here one schedule is for all weights.",)
    if run.small:
        paper = "Chen & He 2021, appendix D, for CIFAR-10"
        notes = ("for CIFAR-10 the paper's projector has two layers; here it has the three for ImageNet.", *notes)
        rate, decay, epochs, more = 0.03, 5e-4, 800, {}
    else:
        paper = "Chen & He 2021, section 4"
        rate, decay, epochs, more = 0.05, 1e-4, 100, {"least_batch": 64}  # its table 2 has batches of 64 to 4096
    cosine = Cosine(0.0, paper, epochs=0)
    more = {"decay": decay, "nesterov": False, "notes": notes, "least_batch": 512, **more}
    return sgd(run, paper, rate, 256, cosine, Sourced(epochs, paper), **more)


PAPERS = {BYOL: _byol, BarlowTwins: _barlow_twins, VICReg: _vicreg, SimSiam: _simsiam}
