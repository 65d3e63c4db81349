"""Rebuilds a run's report, a page of results and pictures, from the files of the run.

    keras-ssl report --run=runs/simclr-photos-1
    keras-ssl report --run=runs/simclr-photos-1 --data=photos/ --output=page.html

The images must be those of the run, so that what the run held out is held out on the page as well.
"""

import pathlib
import types

from absl import flags

from keras_ssl.cli.flags import check_data, folder_options, new_flags
from keras_ssl.cli.run_folder import RunFolder
from keras_ssl.files import load_model, read_json

FLAGS, _define = new_flags(__name__)
flags.DEFINE_string("run", None, "A run folder of keras-ssl pretrain.", **_define)
flags.DEFINE_string("data", None, "Where the images are now, if they were moved since the run.", **_define)
flags.DEFINE_string("output", None, "The page (default: report.html in the run folder, which is replaced).", **_define)


def check(settings):
    if settings.run is None:
        raise ValueError("--run: name a run folder of keras-ssl pretrain.")
    folder = RunFolder.existing(settings.run)
    folder.require(folder.model)
    check_data(settings.data or folder.settings["data"])
    return (folder,)


def run(settings, folder):
    from keras_ssl.cli import choices, experiment, results

    about = folder.settings
    if ":" in about["method"]:
        choices.own_method(about["method"])  # Keras finds its class when it is imported
    model = load_model(folder.model)
    loaded = experiment.load(settings.data or about["data"], folder_options(types.SimpleNamespace(), about))
    data, held_out = experiment.hold_out(loaded, about["seed"], about.get("val"))
    folder.check_same_images(data)
    with folder.in_use():
        table = read_json(folder.table) if folder.table.exists() else _table(folder, model, data, held_out, settings)
        output = settings.output and pathlib.Path(settings.output).expanduser()
        path = results.draw_page(folder, model, data, table, held_out, output, settings.data)
    print(f"report: {path}")
    return {"report": str(path)}


def _table(folder, model, data, held_out, settings):
    """The table of a run that was stopped in it; its untrained network is made again by the run's seed."""
    from keras_ssl.cli import experiment, results

    run = types.SimpleNamespace(**{**folder.settings, "data": settings.data or folder.settings["data"]})
    _, untrained, _ = experiment.begin(experiment.method_by_name(run.method), data, run)
    return results.make_table(folder, untrained, model.backbone, data, held_out, run)
