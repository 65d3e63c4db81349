"""What the papers trained with whose images label themselves."""

import keras

from keras_ssl.methods.distortion import Distortion
from keras_ssl.methods.exemplar import Exemplar
from keras_ssl.methods.jigsaw import Jigsaw
from keras_ssl.methods.relative_patch import RelativePatch
from keras_ssl.methods.rotation import Rotation
from keras_ssl.recipes.measured import small_views
from keras_ssl.recipes.papers.families import CODE, sgd
from keras_ssl.recipes.plan import Constant, Drops, Plan, Sourced


def _rotation(run):
    if run.small:
        paper = "Gidaris et al. 2018, section 4.1, for CIFAR-10"
        return sgd(run, paper, 0.1, 128, Drops((30, 60, 80), 100, 0.2, paper), Sourced(100, paper))
    code = f"{CODE}, for ImageNet"
    return sgd(run, code, 0.01, 192, Drops((15, 30, 45), 50, 0.1, code), Sourced(50, code))


def _distortion(run):
    notes = (
        "the paper also scales and turns images, and predicts the map's matrix; here the corners are predicted, at the "
        "paper's rate.",
    )
    if run.small:
        paper = "Zhang et al. 2019, section 4.1, for CIFAR-10"
        drops = Drops((240, 480, 640, 800, 1000), 1500, 0.2, paper)
        return sgd(run, paper, 0.1, 512, drops, Sourced(1500, paper), notes=notes)
    code = f"{CODE}, for ImageNet"
    return sgd(run, code, 0.01, 768, Drops((100, 150), 200, 0.1, code), Sourced(200, code), notes=notes)


def _jigsaw(run):
    paper = "Noroozi & Favaro 2016, section 4"
    source = f"{paper}, and {CODE}"
    # The code drops the rate every 100,000 steps, which are 20 epochs.
    epochs = Sourced(70, paper, "350,000 steps of 256 over 1.28 million images")
    return sgd(run, source, 0.01, 256, Drops((20, 40, 60), 70, 0.1, CODE), epochs, nesterov=False)


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
    Rotation: _rotation,
    Distortion: _distortion,
    Jigsaw: _jigsaw,
    Exemplar: _exemplar,
    RelativePatch: _relative_patch,
}
