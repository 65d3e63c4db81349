"""What the papers trained with whose views predict each other's clusters."""

import dataclasses

import keras

from keras_ssl.methods.dino import DINO
from keras_ssl.methods.ibot import IBOT
from keras_ssl.methods.swav import SwAV
from keras_ssl.recipes.papers.families import CODE, lars, linear
from keras_ssl.recipes.plan import Cosine, Plan, Sourced


def _swav(run):
    paper = "Caron et al. 2020 (SwAV), appendix A.1"
    small = run.batch_size <= 512  # the authors trained with 4096 and with 256
    scripts = f"facebookresearch/swav, its scripts for batches of {256 if small else 4096}"
    epoch = max(1, run.images // run.batch_size)
    plan = lars(
        run,
        paper,
        (0.6 if small else 0.3, scripts),
        Sourced(1e-6, paper),
        Sourced(400 if small else 800, scripts),
        least_batch=256,
        least_epochs=200 if small else 100,
        end=1e-3,
        options={"exclude": Sourced(-1, CODE, "biases and normalization are scaled and decay as the others do")},
        arguments={
            "prototypes": Sourced(3000, paper),
            "temperature": Sourced(0.1, paper),
            "epsilon": Sourced(0.05, paper),
            "iterations": Sourced(3, paper),
            "frozen_steps": Sourced(epoch, scripts, "one epoch"),
            **({"memory": Sourced(3840, scripts)} if small else {}),
            **({"memory_start": Sourced(15 * epoch, scripts, "after 15 epochs")} if small else {}),
        },
    )
    if small:  # without warm-up
        notes = [note for note in plan.notes if "warm-up" not in note]
        return dataclasses.replace(plan, schedule=Cosine(0.0, scripts, epochs=0, end=1e-3), notes=tuple(notes))
    note = "the authors' warm-up begins at a sixteenth of the peak, and here at 0."
    return dataclasses.replace(plan, notes=(note, *plan.notes))


def _dino(run):
    paper = "Caron et al. 2021 (DINO), section 3.2"
    code = "facebookresearch/dino, main_dino.py"
    rate, rule = linear(0.0005, run)
    epoch = max(1, run.images // run.batch_size)
    short = run.epochs is not None and run.epochs < 100
    warm_up = Sourced(0.3, paper, "30 epochs of 100") if short else Sourced(30 * epoch, paper, "30 epochs")
    small = run.batch_size <= 256
    return Plan(
        optimizer=Sourced(keras.optimizers.AdamW, paper),
        rate=Sourced(rate, paper, rule),
        schedule=Cosine(0.1, paper, epochs=10, end=1e-6 / rate),
        decay=Sourced(0.04, paper),
        decay_end=Sourced(0.4, paper),
        epochs=Sourced(300, "facebookresearch/dino, README"),
        options={"clipnorm": Sourced(3.0, code, "of each weight's gradient")},
        arguments={
            "prototypes": Sourced(65536, code),
            "student_temperature": Sourced(0.1, paper),
            "warm_up_temperature": Sourced(0.04, paper),
            "teacher_temperature": Sourced(0.07, paper),
            "warm_up_steps": warm_up,
            "momentum": Sourced(0.9995 if small else 0.996, f"{code}, for batches of 256" if small else paper),
            "center_momentum": Sourced(0.9, code),
            "frozen_steps": Sourced(epoch, code, "one epoch"),
        },
        least_batch=256,
        least_epochs=100,
        notes=(
            "these are for a ViT: ResNet-50 has the authors' SGD, a weight decay of 1e-4 and global crops of 14 to "
            "100 % (their README).",
        ),
    )


def _ibot(run):
    code, paper = "bytedance/ibot, README and main_ibot.py", "Zhou et al. 2022 (iBOT)"
    plan = _dino(run)
    others = {
        "prototypes": Sourced(8192, code),
        "mask_ratio": Sourced([0.1, 0.5], code),
        "mask_probability": Sourced(0.5, code),
    }
    shared = {name: dataclasses.replace(value, source=code) for name, value in plan.arguments.items()}
    as_dino = ("optimizer", "rate", "schedule", "decay", "decay_end")
    return dataclasses.replace(
        plan,
        **{name: dataclasses.replace(getattr(plan, name), source=code) for name in as_dino},
        epochs=Sourced(800, f"{code}, for ViT-S"),
        options={"clipnorm": Sourced(3.0, code, "of each weight's gradient")},
        arguments={**shared, **others},
        notes=(
            f"{paper}: the authors let the lengths of ViT-S's prototypes be trained, and here they are held at 1.",
            "the authors' crops, with a backbone of open size: augment.dino(224, locals=10, global_scale=(0.25, 1.0), "
            "local_scale=(0.05, 0.25)).",
        ),
    )


PAPERS = {SwAV: _swav, DINO: _dino, IBOT: _ibot}
