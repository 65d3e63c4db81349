"""Trains a classifier from a backbone and few labels, and saves it as plain Keras.

    keras-ssl finetune --run=runs/simclr-photos-1 --labels_fraction=0.1
    keras-ssl finetune --run=runs/simclr-photos-1 --per_class=10 --protocol=linear
    keras-ssl finetune --backbone=backbone.keras --data=photos/ --output=classifier.keras

The accuracy is measured on held-out images after the last epoch; they take no part in any choice.
"""

from absl import flags

from keras_ssl import names
from keras_ssl.cli import words
from keras_ssl.cli.flags import (
    define_backbone,
    define_data,
    define_overwrite,
    define_seed,
    nearest,
    new_flags,
    output_file,
    progress,
)
from keras_ssl.cli.run_folder import RunFolder
from keras_ssl.cli.trained import TrainedBackbone
from keras_ssl.files import save_model, write_json

FLAGS, _define = new_flags(__name__)
define_backbone(_define)
define_data(_define)
flags.DEFINE_string(
    "protocol",
    "fine-tune",
    "linear (the backbone is frozen), fine-tune (all of it is trained), frozen-then-unfrozen, or from-scratch (new "
    "weights, for comparison).",
    **_define,
)
flags.DEFINE_float("labels_fraction", None, "Fraction of each class's labels to use, above 0 and at most 1.", **_define)
flags.DEFINE_integer("per_class", None, "Labels per class, instead of a fraction.", **_define)
flags.DEFINE_integer("epochs", None, "Epochs over the labeled images (default: the protocol's).", **_define)
flags.DEFINE_integer("batch_size", None, "Images per step (default: the protocol's).", **_define)
flags.DEFINE_float("learning_rate", None, "Learning rate (default: the protocol's).", **_define)
define_seed(_define)
flags.DEFINE_string("output", None, "The classifier's file (default: classifier.keras in the run folder).", **_define)
define_overwrite(_define, "--output")


def check(settings):
    if settings.labels_fraction is not None and settings.per_class is not None:
        raise ValueError("--labels_fraction and --per_class both set the number of labels: give one of them.")
    if settings.protocol not in names.PROTOCOLS:
        raise ValueError(
            f'--protocol: there is no protocol "{settings.protocol}". {nearest(settings.protocol, names.PROTOCOLS)}'
        )
    used = TrainedBackbone(settings)
    default = (used.run or RunFolder(".")).classifier
    output = output_file(settings.output or default, "--output", settings.overwrite, (".keras",))
    used.check_data(settings)
    return used, output


def run(settings, used, output):
    from keras_ssl import evaluate
    from keras_ssl.cli import experiment

    source, loaded = used.load().load_images(settings)
    data, held_out = used.hold_out(settings, loaded)
    experiment.check_labels(data, source, "learn from", held_out)
    how_many = {"labels_fraction": 1.0 if settings.labels_fraction is None else settings.labels_fraction}
    if settings.per_class is not None:
        how_many = {"per_class": settings.per_class}
    judged = experiment.known_to_train(data.test, data.train)
    done = evaluate.fine_tune(
        used.backbone,
        data.train,
        judged,
        protocol=settings.protocol,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        verbose=progress(),
        **how_many,
    )
    class_names = data.train.class_names
    classes = [class_names[label] if class_names else int(label) for label in done.classes]
    save_model(done.classifier, output)
    of_classes = output.with_suffix(".classes.json")
    write_json(of_classes, classes)
    held = judged.labels_per_class()
    said = (
        f"{settings.protocol} with {done.labels:,} labels: accuracy {done.accuracy:.3f} on {held_out}. Always the most "
        f"frequent class would be {held.max() / held.sum():.3f}."
    )
    print(f"\n{words.wrapped(said)}\nclassifier: {output}\nclasses:    {of_classes}, in the order of its outputs")
    return {
        "accuracy": float(done.accuracy),
        "labels": int(done.labels),
        "protocol": settings.protocol,
        "held_out": held_out,
        "classifier": str(output),
        "classes": classes,
    }
