"""What the papers trained with."""

import math

import keras
import numpy as np

from keras_ssl.methods.barlow_twins import BarlowTwins
from keras_ssl.methods.byol import BYOL
from keras_ssl.methods.distortion import Distortion
from keras_ssl.methods.exemplar import Exemplar
from keras_ssl.methods.jigsaw import Jigsaw
from keras_ssl.methods.moco import MoCo
from keras_ssl.methods.relative_patch import RelativePatch
from keras_ssl.methods.rotation import Rotation
from keras_ssl.methods.siamese import Siamese
from keras_ssl.methods.simclr import SimCLR
from keras_ssl.methods.simsiam import SimSiam
from keras_ssl.methods.triplet import Triplet
from keras_ssl.methods.vicreg import VICReg
from keras_ssl.optimizers import LARS
from keras_ssl.recipes.measured import small_views
from keras_ssl.recipes.plan import Constant, Cosine, Drops, Head, Plan, Sourced

CODE = "the authors' code"


def _linear(base, run, batch=256):
    """The linear scaling rule: `(value, rule)`."""
    return base * run.batch_size / batch, f"{base:g} · {run.batch_size} / {batch}"


# The four of large batches: LARS, 10 epochs of warm-up, a cosine.


def _lars(run, paper, rate, decay, epochs, least_batch, least_epochs, end=0.0, options=None, notes=(), **more):
    """`rate` is (base, source) at a batch of 256, `decay` and `epochs` are `Sourced`s."""
    value, rule = _linear(rate[0], run)
    options = {"momentum": Sourced(0.9, CODE), "trust_coefficient": Sourced(1e-3, CODE), **(options or {})}
    if run.epochs is not None and run.epochs < 100:
        notes = (f"10 epochs of warm-up are for runs of 100 and more: here it is a tenth of {run.epochs}.", *notes)
    return Plan(
        optimizer=Sourced(LARS, f"{paper}; biases and normalization have no decay and no scaling"),
        rate=Sourced(value, rate[1], rule),
        schedule=Cosine(0.1, paper, epochs=10, end=end),
        decay=decay,
        epochs=epochs,
        options=options,
        least_batch=least_batch,
        least_epochs=least_epochs,
        notes=notes,
        **more,
    )


def _simclr(run):
    paper = "Chen et al. 2020, section 2.2"
    decay = Sourced(1e-6, paper)
    if run.small:
        cifar = "Chen et al. 2020, appendix B.9"
        code = f"{CODE}, for CIFAR-10"
        return _lars(
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
    return _lars(
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


# By epochs: the base of the rate, the weight decay, the base of the teacher's momentum.
_BYOL = {40: (0.45, 1e-6, 0.97), 100: (0.45, 1e-6, 0.99), 300: (0.3, 1e-6, 0.99), 1000: (0.2, 1.5e-6, 0.996)}


def _byol(run):
    paper = "Grill et al. 2020, section 3.3"
    wanted = 1000 if run.epochs is None else run.epochs
    nearest = next((epochs for epochs in _BYOL if epochs >= wanted), 1000)
    rate, decay, momentum = _BYOL[nearest]
    source = paper if nearest == 1000 else f"{CODE}, for {nearest} epochs"
    return _lars(
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
    return _lars(
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


def _vicreg(run):
    paper = "Bardes et al. 2022, section 4.2"
    short = run.epochs is not None and run.epochs <= 100
    rate = (0.3, f"{CODE}, for 100 epochs in batches of 512") if short else (0.2, paper)
    return _lars(
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


def _between(table, batch_size):
    """The value at a batch size: on a straight line over log₂ between two of the table, held beyond its ends."""
    return round(float(np.interp(math.log2(batch_size), np.log2(list(table)), list(table.values()))), 4)


# Momentum SGD. The rate goes with the batch. Those that label themselves report one batch size, and their rate drops.


def _sgd(run, source, rate, batch, schedule, epochs, nesterov=True, decay=5e-4, **more):
    value, rule = _linear(rate, run, batch)
    # In the papers decay is a part of the gradient, so momentum makes it 1 / (1 − 0.9) times as large; Keras takes it
    # off the weight, beside the momentum.
    decay = Sourced(10 * decay, source, f"{decay:g} / (1 − 0.9), for Keras' decay is outside of the momentum")
    return Plan(
        optimizer=Sourced(keras.optimizers.SGD, source),
        rate=Sourced(value, source if run.batch_size == batch else f"{source}; by batch: Goyal et al. 2017", rule),
        schedule=schedule,
        decay=decay,
        epochs=epochs,
        options={"momentum": Sourced(0.9, source), "nesterov": Sourced(nesterov, CODE)},
        **{"least_batch": batch, "least_epochs": epochs.value, **more},
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
    return _sgd(run, paper, rate, 256, cosine, Sourced(epochs, paper), **more)


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
    return _sgd(
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


def _rotation(run):
    if run.small:
        paper = "Gidaris et al. 2018, section 4.1, for CIFAR-10"
        return _sgd(run, paper, 0.1, 128, Drops((30, 60, 80), 100, 0.2, paper), Sourced(100, paper))
    code = f"{CODE}, for ImageNet"
    return _sgd(run, code, 0.01, 192, Drops((15, 30, 45), 50, 0.1, code), Sourced(50, code))


def _distortion(run):
    notes = (
        "the paper also scales and turns images, and predicts the map's matrix; here the corners are predicted, at the "
        "paper's rate.",
    )
    if run.small:
        paper = "Zhang et al. 2019, section 4.1, for CIFAR-10"
        drops = Drops((240, 480, 640, 800, 1000), 1500, 0.2, paper)
        return _sgd(run, paper, 0.1, 512, drops, Sourced(1500, paper), notes=notes)
    code = f"{CODE}, for ImageNet"
    return _sgd(run, code, 0.01, 768, Drops((100, 150), 200, 0.1, code), Sourced(200, code), notes=notes)


def _jigsaw(run):
    paper = "Noroozi & Favaro 2016, section 4"
    source = f"{paper}, and {CODE}"
    # The code drops the rate every 100,000 steps, which are 20 epochs.
    epochs = Sourced(70, paper, "350,000 steps of 256 over 1.28 million images")
    return _sgd(run, source, 0.01, 256, Drops((20, 40, 60), 70, 0.1, CODE), epochs, nesterov=False)


# Papers that say part of it: they state no number of epochs.


def _exemplar(run):
    paper = "Dosovitskiy et al. 2014, section 3"
    return Plan(
        optimizer=Sourced(keras.optimizers.SGD, paper),
        rate=Sourced(0.01, paper),
        schedule=Constant(paper),
        decay=Sourced(0.0, "none is taken over"),
        epochs=Sourced(None, paper),
        options={"momentum": Sourced(0.9, paper)},
        views=small_views(Exemplar, run),
        arguments={"exemplars": Sourced(run.images, "the number of images")},
        notes=(
            "the paper divides the rate by 3 whenever the validation error stops falling, which is no function of the "
            "step: keras.callbacks.ReduceLROnPlateau(factor=1 / 3).",
            "the paper draws a set of distortions for each image once, scalings and turns among them.",
        ),
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


def _relative_patch(run):
    return Plan(
        optimizer=Sourced(keras.optimizers.SGD, CODE),
        rate=Sourced(1e-5 * run.batch_size, CODE, f"1e-5 · {run.batch_size}, for the loss there is a sum"),
        schedule=Constant(CODE),
        decay=Sourced(0.0, CODE),
        epochs=Sourced(None, "Doersch et al. 2015"),
        notes=(
            "the paper states no rate; it speaks well of a momentum of 0.999, and its code has none.",
            "its batch normalization has neither scale nor shift: that is up to the backbone.",
        ),
    )


PAPERS = {
    SimCLR: _simclr,
    BYOL: _byol,
    BarlowTwins: _barlow_twins,
    VICReg: _vicreg,
    SimSiam: _simsiam,
    MoCo: _moco,
    Rotation: _rotation,
    Distortion: _distortion,
    Jigsaw: _jigsaw,
    Exemplar: _exemplar,
    Triplet: _triplet,
    RelativePatch: _relative_patch,
}
NO_PAPER = {Siamese: "the paper of Siamese (Hadsell et al. 2006) states no learning rate"}
