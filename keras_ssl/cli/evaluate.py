"""Evaluates a backbone's features: linear probe and kNN at several numbers of labels, or layer by layer.

    keras-ssl evaluate --run=runs/simclr-photos-1
    keras-ssl evaluate --backbone=backbone.keras --data=photos/
    keras-ssl evaluate --run=runs/simclr-photos-1 --layers --plot=layers.png

Images without a test split are split as the run split them, so that what was held out stays held out.
"""

from absl import flags

from keras_ssl.cli import words
from keras_ssl.cli.flags import define_backbone, define_data, define_overwrite, new_flags, output_file, progress
from keras_ssl.cli.trained import TrainedBackbone
from keras_ssl.files import replacing

FLAGS, _define = new_flags(__name__)
define_backbone(_define)
define_data(_define)
flags.DEFINE_boolean("layers", False, "Evaluate each stage of the backbone, with all labels.", **_define)
flags.DEFINE_string("plot", None, "With --layers: a picture of accuracy by layer (.png, .svg or .pdf).", **_define)
define_overwrite(_define, "--plot")


def check(settings):
    if settings.plot and not settings.layers:
        raise ValueError("--plot shows accuracy by layer: add --layers, or leave --plot out.")
    plot = settings.plot and output_file(settings.plot, "--plot", settings.overwrite, (".png", ".svg", ".pdf"))
    used = TrainedBackbone(settings)
    used.check_data(settings)
    return used, plot


def run(settings, used, plot):
    from keras_ssl.cli import experiment

    source, loaded = used.load().load_images(settings)
    data, held_out = used.hold_out(settings, loaded)
    experiment.check_labels(data, source, "evaluate with", held_out)
    if settings.layers:
        return _by_layer(used, data, held_out, plot)
    table = experiment.table(data, {used.path.name: used.backbone}, used.seed)
    experiment.print_table(table, held_out, data.train)
    return {"table": experiment.table_to_json(table), "held_out": held_out}


def _by_layer(used, data, held_out, plot):
    from keras_ssl import evaluate
    from keras_ssl.data.split import sample_evenly
    from keras_ssl.evaluate import efficiency

    train, test = (sample_evenly(split, most, False) for split, most in ((data.train, 20_000), (data.test, 10_000)))
    result = evaluate.probe_layers(used.backbone, (train, test), seed=used.seed, verbose=progress())
    print("\n" + words.wrapped(f"Accuracy of a linear probe on {held_out}, by layer.") + "\n")
    print(efficiency.as_text(*result.as_rows()))
    if plot:
        with replacing(plot) as temporary:
            result.plot().savefig(temporary, dpi=160)
        print(f"\nplot: {plot}")
    return {"layers": list(result.layers), "accuracies": list(map(float, result.accuracies)), "held_out": held_out}
