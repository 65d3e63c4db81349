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
from keras_ssl.cli.run_info import run_info
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
    from keras_ssl import report
    from keras_ssl.cli import experiment
    from keras_ssl.data.split import hold_out

    about = folder.settings
    model = load_model(folder.model)
    loaded = experiment.load(settings.data or about["data"], folder_options(types.SimpleNamespace(), about))
    data, held_out = hold_out(loaded, about["seed"])
    folder.check_same_images(data)
    path = report.write(
        pathlib.Path(settings.output).expanduser() if settings.output else folder.report,
        model,
        data,
        history=read_json(folder.history),
        table=read_json(folder.table) if folder.table.exists() else None,
        run=run_info(folder),
        held_out=held_out,
        alarms=read_json(folder.alarms) if folder.alarms.exists() else (),
    )
    print(f"report: {path}")
    return {"report": str(path)}
