"""What the features of a backbone are worth: linear probe and kNN at several numbers of labels, or layer by layer.

    keras-ssl evaluate --run=runs/simclr-photos-1
    keras-ssl evaluate --backbone=backbone.keras --data=photos/
    keras-ssl evaluate --run=runs/simclr-photos-1 --layers --plot=layers.png

Images without a test split of their own are split as the run split them, so that what was held out stays held out.
"""

from absl import flags

from keras_ssl.cli.common import Run, define_backbone, define_data, new_flags, verbose, writable

FLAGS, _define = new_flags(__name__)
define_backbone(_define)
define_data(_define)
flags.DEFINE_boolean("layers", False, "One row for each of the backbone's stages, at all labels.", **_define)
flags.DEFINE_string("plot", None, "With --layers: a picture of accuracy by layer, a .png or .svg file.", **_define)
flags.DEFINE_boolean("overwrite", False, "Write --plot even where there is such a file.", **_define)


def run(settings):
    from keras_ssl.cli import outcome

    if settings.plot and not settings.layers:
        raise ValueError("--plot is of accuracy by layer: add --layers, or leave it out.")
    plot = writable(settings.plot, "--plot", settings.overwrite, (".png", ".svg", ".pdf")) if settings.plot else None
    used = Run(settings)
    source, loaded = used.load(settings)
    data, held_out = used.held_out(settings, loaded)
    if data.test is None or data.train.labels is None or data.test.labels is None:
        raise ValueError(f"{source} has no labels to evaluate with. A folder with a sub-folder for each class has.")
    if settings.layers:
        return _by_layer(used, data, held_out, plot)
    table = outcome.table(data, {used.path.name: used.backbone}, used.seed)
    outcome.print_table(table, held_out)
    return {"table": outcome.lists(table), "held_out": held_out}


def _by_layer(used, data, held_out, plot):
    from keras_ssl import evaluate
    from keras_ssl.cli import outcome
    from keras_ssl.evaluate import efficiency

    train, test = (outcome.some(split, most, False) for split, most in ((data.train, 20_000), (data.test, 10_000)))
    result = evaluate.probe_layers(used.backbone, (train, test), seed=used.seed, verbose=verbose())
    print(f"\nAccuracy of a linear probe on {held_out}, by layer.\n")
    print(efficiency.as_text(*result.as_rows()))
    if plot:
        result.plot().savefig(plot, dpi=160)
        print(f"\nplot: {plot}")
    return {"layers": list(result.layers), "accuracies": list(map(float, result.accuracies)), "held_out": held_out}
