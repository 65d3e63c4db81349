"""Trains a classifier from a backbone and few labels, and saves it as plain Keras.

    keras-ssl finetune --run=runs/simclr-photos-1 --labels_fraction=0.1
    keras-ssl finetune --run=runs/simclr-photos-1 --per_class=10 --protocol=linear
    keras-ssl finetune --backbone=backbone.keras --data=photos/ --output=classifier.keras

The accuracy is that on held-out images, after the last epoch; they take no part in any choice.
"""

import pathlib

from absl import flags

from keras_ssl.cli.common import Run, define_backbone, define_data, new_flags, verbose, writable

FLAGS, _define = new_flags(__name__)
define_backbone(_define)
define_data(_define)
flags.DEFINE_string(
    "protocol",
    "fine-tune",
    "linear (the backbone frozen), fine-tune (all of it), frozen-then-unfrozen, or from-scratch, the control.",
    **_define,
)
flags.DEFINE_float(
    "labels_fraction", None, "The share of each class's labels that is used, above 0 and at most 1.", **_define
)
flags.DEFINE_integer("per_class", None, "Labels of each class that are used, in the place of a share.", **_define)
flags.DEFINE_integer("epochs", None, "Passes over the labelled images; the protocol's if left out.", **_define)
flags.DEFINE_integer("batch_size", None, "Images a step; the protocol's if left out.", **_define)
flags.DEFINE_float("learning_rate", None, "The protocol's if left out.", **_define)
flags.DEFINE_integer("seed", 0, "Of the draw of labels, initial weights and order.", **_define)
flags.DEFINE_string("output", None, "The classifier's file (default: classifier.keras in the run).", **_define)
flags.DEFINE_boolean("overwrite", False, "Write --output even where there is such a file.", **_define)


def run(settings):
    from keras_ssl import evaluate

    if settings.labels_fraction is not None and settings.per_class is not None:
        raise ValueError("--labels_fraction and --per_class both say how many labels: give one of them.")
    used = Run(settings)
    default = (used.folder or pathlib.Path()) / "classifier.keras"
    output = writable(settings.output or default, "--output", settings.overwrite, (".keras",))
    source, loaded = used.load(settings)
    data, held_out = used.held_out(settings, loaded)
    if data.test is None or data.train.labels is None or data.test.labels is None:
        raise ValueError(f"{source} has no labels to learn from. A folder with a sub-folder for each class has.")
    how_many = {"labels_fraction": 1.0 if settings.labels_fraction is None else settings.labels_fraction}
    if settings.per_class is not None:
        how_many = {"per_class": settings.per_class}
    done = evaluate.fine_tune(
        used.backbone,
        data.train,
        data.test,
        protocol=settings.protocol,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        verbose=verbose(),
        **how_many,
    )
    names = data.train.class_names
    done.classifier.save(output)
    print(
        f"\n{settings.protocol} with {done.labels:,} labels: accuracy {done.accuracy:.3f} on {held_out}\n"
        f"classifier: {output}"
    )
    return {
        "accuracy": float(done.accuracy),
        "labels": int(done.labels),
        "protocol": settings.protocol,
        "held_out": held_out,
        "classifier": str(output),
        "classes": [names[label] if names else int(label) for label in done.classes],
    }
