"""Makes the page of pictures of a run anew, from its files.

    keras-ssl report --run=runs/simclr-photos-1
    keras-ssl report --run=runs/simclr-photos-1 --data=photos/ --output=page.html

The images must be those of the run: what was held out of it is held out of the page as well.
"""

import json

from absl import flags

from keras_ssl.cli.common import folder_of, new_flags

FLAGS, _define = new_flags(__name__)
flags.DEFINE_string("run", None, "A run folder of keras-ssl pretrain.", **_define)
flags.DEFINE_string("data", None, "Where the images are now, if not where the run had them.", **_define)
flags.DEFINE_string("output", None, "The page (default: report.html in the run, which is replaced).", **_define)


def run(settings):
    import pathlib

    import keras

    import keras_ssl
    from keras_ssl.cli import outcome, page

    if settings.run is None:
        raise ValueError("--run: say which run, a folder of keras-ssl pretrain.")
    folder = folder_of(settings.run)
    if not (folder / "model.keras").is_file():
        raise FileNotFoundError(f"{folder} holds no model.keras: the run was cut off. --resume of pretrain goes on.")
    about = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    model = keras.models.load_model(folder / "model.keras")
    loaded = keras_ssl.data.load(settings.data or about["data"], image_size=about["image_size"])
    data, held_out = outcome.hold_out(loaded, about["seed"])
    outcome.same_images(data, about)
    table = folder / "table.json"
    table = json.loads(table.read_text(encoding="utf-8")) if table.exists() else None
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    path = pathlib.Path(settings.output) if settings.output else folder / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    used = page.About(about["data"], about["used"]["epochs"], about["batch_size"], about["seed"])
    alarms = folder / "alarms.json"
    alarms = json.loads(alarms.read_text(encoding="utf-8")) if alarms.exists() else ()
    page.write(path, model, data, held_out, history, table, used, alarms)
    print(f"report: {path}")
    return {"report": str(path)}
