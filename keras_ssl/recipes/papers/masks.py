"""What the papers trained with that predict masked patches."""

import keras

from keras_ssl.methods.mae import MAE
from keras_ssl.methods.simmim import SimMIM
from keras_ssl.recipes.papers.families import CODE, linear
from keras_ssl.recipes.plan import Cosine, Plan, Sourced

_ALL_DECAY = (
    "the authors' code takes no decay off biases and normalization; Keras' AdamW does, unless its "
    'exclude_from_weight_decay(var_names=["bias", "gamma", "beta"]) is called.'
)
_SQUARE = 32  # pixels: the side of what SimMIM hides, of images of 192


def _mae(run):
    paper = "facebookresearch/mae, PRETRAIN.md and main_pretrain.py"
    value, rule = linear(1.5e-4, run)
    return Plan(
        optimizer=Sourced(keras.optimizers.AdamW, paper),
        rate=Sourced(value, paper, rule),
        schedule=Cosine(0.05, f"{paper}: 40 epochs of warm-up, a twentieth of 800", epochs=40),
        decay=Sourced(0.05, paper),
        epochs=Sourced(800, paper),
        options={"beta_1": Sourced(0.9, paper), "beta_2": Sourced(0.95, paper)},
        arguments={"mask_ratio": Sourced(0.75, paper), "normalize": Sourced(True, paper)},
        least_batch=4096,
        least_epochs=800,
        notes=("the paper's backbone is a ViT with patches of 16 of 224 pixels.", _ALL_DECAY),
    )


def _simmim(run):
    config = f"{CODE}, its configuration for Swin-B and 100 epochs"
    value, rule = linear(2e-4, run, 512)
    arguments = {"mask_ratio": Sourced(0.6, config)}
    if not run.small and all(side % _SQUARE == 0 for side in run.shape[:2]):
        arguments["mask_size"] = Sourced(_SQUARE, config)
    return Plan(
        optimizer=Sourced(keras.optimizers.AdamW, config),
        rate=Sourced(value, config, rule),
        schedule=Cosine(0.1, config, epochs=10, end=0.05),
        decay=Sourced(0.05, config),
        epochs=Sourced(100, config),
        options={
            "beta_1": Sourced(0.9, config),
            "beta_2": Sourced(0.999, config),
            "global_clipnorm": Sourced(5.0, config),
        },
        arguments=arguments,
        least_batch=2048,
        least_epochs=100,
        notes=(
            "for ViT-B its authors train 800 epochs at 1e-4 · B / 512, divided by 10 after 700.",
            "the paper's images are of 192 pixels, with squares of 32.",
            _ALL_DECAY,
        ),
    )


PAPERS = {MAE: _mae, SimMIM: _simmim}
