"""Lists methods.

    keras-ssl methods
    keras-ssl methods --method=byol --batch_size=512 --images=50000
    keras-ssl methods --json

With --method: what the method is, its arguments, and the recipe that pretrain would use.
"""

import inspect

from absl import flags

from keras_ssl import names
from keras_ssl.cli.flags import method_class, new_flags

FLAGS, _define = new_flags(__name__)
flags.DEFINE_string("method", None, "Describe one method.", **_define)
flags.DEFINE_integer("images", 10_000, "With --method: number of training images.", lower_bound=2, **_define)
flags.DEFINE_integer("epochs", None, "With --method: epochs (default: the recipe's).", lower_bound=1, **_define)
flags.DEFINE_integer("batch_size", 128, "With --method: images per step.", lower_bound=2, **_define)
flags.DEFINE_integer("image_size", 32, "With --method: side length of an image in pixels.", lower_bound=8, **_define)
flags.DEFINE_integer("channels", 3, "With --method: channels of an image.", lower_bound=1, **_define)
flags.DEFINE_enum("recipe", "auto", list(names.RECIPES), "With --method: the recipe.", **_define)


def check(settings):
    if settings.method is not None:
        method_class(settings.method)
    return ()


def run(settings):
    from keras_ssl.cli import experiment

    known = experiment.methods()
    if settings.method is not None:
        return _one(experiment.method_by_name(settings.method), settings)
    width = max(map(len, known))
    lines = {name: _first_line(method) for name, method in known.items()}
    for name, line in lines.items():
        print(f"{name.ljust(width)}  {line}")
    print("\nkeras-ssl methods --method=NAME describes one; docs/methods.md compares them on the sample data set.")
    return {"methods": [_as_json(name, known[name], line) for name, line in lines.items()]}


def _one(method, settings):
    from keras_ssl import recipes

    shape = (settings.image_size, settings.image_size, settings.channels)
    chosen = recipes.recipe(
        method, shape, settings.images, settings.batch_size, settings.epochs, source=settings.recipe
    )
    print(f"{inspect.getdoc(method)}\n\n{chosen.describe()}")
    return {**_as_json(method.__name__.lower(), method, _first_line(method)), "recipe": chosen.config}


def _first_line(method):
    return inspect.getdoc(method).split("\n\n")[0].replace("\n", " ")


def _as_json(name, method, line):
    return {
        "name": name,
        "class": method.__name__,
        "what": line,
        "terms": list(method.terms),
        "metrics": list(method.metric_names),
        "needs_labels": bool(method.uses_labels),
    }
