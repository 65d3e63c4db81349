"""What those trained with who spread embeddings over all dimensions: by a covariance, singular values or a Gaussian."""

import keras

from keras_ssl import augment
from keras_ssl.methods.lejepa import LeJEPA
from keras_ssl.methods.mmcr import MMCR
from keras_ssl.methods.tico import TiCo
from keras_ssl.recipes.papers.families import lars
from keras_ssl.recipes.plan import Constant, Cosine, Head, Plan, Sourced


def _tico(run):
    code = "lightly-ai/lightly, benchmarks/imagenet/resnet50/tico.py"
    return lars(
        run,
        code,
        (0.2, code),
        Sourced(1.5e-6, code),
        Sourced(100, code),
        least_batch=256,
        least_epochs=100,
        arguments={"momentum": Sourced(0.99, code)},
        notes=("its authors published no code: these are Lightly's settings, and were not compared with the paper's.",),
    )


def _mmcr(run):
    code = "the authors' code, ThomasYerxa/mmcr"
    arguments = {"local_weight": Sourced(0.0, code)}
    if run.small:
        arguments |= {"momentum": Sourced(None, code), "projector": Sourced(Head((512, 128)), code)}
        return Plan(
            optimizer=Sourced(keras.optimizers.Adam, f"{code}, for CIFAR-10"),
            rate=Sourced(1e-3, code),
            schedule=Constant(code),
            decay=Sourced(1e-6, code),
            epochs=Sourced(500, code),
            arguments=arguments,
            least_batch=32,
            least_epochs=500,
            notes=(
                "the authors take batches of 32 and 40 views of an image; here it is the method's two: pass views.",
                "their weight decay is a part of Adam's gradient; Keras' is taken off the weight.",
            ),
        )
    height, width, channels = run.shape

    def eight():
        both = augment.barlow_twins((height, width), channels, value_range=run.value_range)
        return augment.Views(*both.branches * 4)

    return lars(
        run,
        code,
        (0.8, code),
        Sourced(1e-6, code),
        Sourced(100, code),
        least_batch=2048,
        least_epochs=100,
        end=1e-3,
        views=Sourced(eight, code, f"augment.barlow_twins(({height}, {width}), {channels}), each of its views 4 times"),
        arguments={**arguments, "momentum": Sourced(0.99, code)},
    )


def _lejepa(run):
    code = "the authors' code, rbalestr-lab/lejepa, README.md"
    minimal = "the authors' code, rbalestr-lab/lejepa, MINIMAL.md"
    return Plan(
        optimizer=Sourced(keras.optimizers.AdamW, code),
        rate=Sourced(5e-4, code),
        schedule=Cosine(0.1, f"{code}: warm-up and a cosine to a thousandth; {minimal}: one epoch", epochs=1, end=1e-3),
        decay=Sourced(5e-2, f"{code}, for ViT"),
        epochs=Sourced(100, f"{code}, for ImageNet"),
        arguments={"sigreg_weight": Sourced(0.02, minimal), "directions": Sourced(256, minimal)},
        least_batch=256,
        least_epochs=100,
        notes=(
            "for ResNets the authors take a weight decay of 5e-4.",
            "the authors take two views of 224 and six of 98 pixels, crops of 30 to 100 % and of 5 to 30 %; here it is "
            "the method's two: pass views.",
        ),
    )


PAPERS = {TiCo: _tico, MMCR: _mmcr, LeJEPA: _lejepa}
