"""Lists methods.

    keras-ssl methods
    keras-ssl methods --method=byol --batch_size=512 --images=50000
    keras-ssl methods --json

With --method: what the method is, the arguments that --method_args of pretrain takes, and the recipe that pretrain
would use.
"""

import inspect
import re

from absl import flags

from keras_ssl import names
from keras_ssl.cli import choices, words
from keras_ssl.cli.flags import new_flags
from keras_ssl.cli.method_words import METHODS

FLAGS, _define = new_flags(__name__)
flags.DEFINE_string("method", None, "Describe one method, or your own class, package.module:Class.", **_define)
flags.DEFINE_integer("images", 10_000, "With --method: number of training images.", lower_bound=2, **_define)
flags.DEFINE_integer("epochs", None, "With --method: epochs (default: the recipe's).", lower_bound=1, **_define)
flags.DEFINE_integer("batch_size", 128, "With --method: images per step.", lower_bound=2, **_define)
flags.DEFINE_integer("image_size", 32, "With --method: side length of an image in pixels.", lower_bound=8, **_define)
flags.DEFINE_integer("channels", 3, "With --method: channels of an image.", lower_bound=1, **_define)
flags.DEFINE_enum("recipe", "auto", list(names.RECIPES), "With --method: the recipe.", **_define)


def check(settings):
    if settings.method is not None:
        choices.check_method(settings.method)
    return ()


def run(settings):
    from keras_ssl.cli import experiment

    known = experiment.methods()
    if settings.method is not None:
        return _one(experiment.method_by_name(settings.method), settings)
    width = max(map(len, known))
    lines = {name: _first_line(method) for name, method in known.items()}
    for name in lines:
        print(words.wrapped(METHODS[name][0], " " * (width + 2), f"{name.ljust(width)}  "))
    print(
        "\n"
        + words.wrapped(
            "keras-ssl methods --method=NAME describes one; docs/methods.md compares them on the sample data set."
        )
    )
    return {"methods": [_as_json(name, known[name], line) for name, line in lines.items()]}


def _one(method, settings):
    from keras_ssl import recipes

    shape = (settings.image_size, settings.image_size, settings.channels)
    chosen = recipes.recipe(
        method, shape, settings.images, settings.batch_size, settings.epochs, source=settings.recipe
    )
    name = choices.method_label(settings.method)
    short, long = METHODS.get(name, ("a method of your own", inspect.getdoc(method) or ""))
    print(f"{words.wrapped(f'{method.__name__}: {short}')}\n\n{words.wrapped(long)}")
    if name in METHODS:
        print("\n" + words.wrapped(f"From: {_first_line(method)}", "  "))
    arguments = _arguments(method)
    if arguments:
        print("\narguments, as --method_args=name=value,…:")
    for argument in arguments:
        print(words.wrapped(f"{argument['name']}={argument['default']}", "      ", "  "))
        if argument["what"]:
            print(words.wrapped(argument["what"], "      "))
    print("\n" + words.recipe(chosen))
    print(
        f"\ntry it:\n{words.command('keras-ssl pretrain', f'--method={settings.method}', *_example(arguments, chosen))}"
    )
    described = _as_json(method.__name__.lower(), method, _first_line(method))
    return {**described, "arguments": arguments, "recipe": chosen.config}


def _arguments(method):
    """The arguments that can be set on the command line, with their defaults and a sentence each."""
    texts = {}
    for owner in reversed([one for one in method.__mro__ if "Args:" in (one.__doc__ or "")]):
        texts.update(_texts(inspect.getdoc(owner)))
    found = []
    for name, parameter in choices.parameters(method).items():
        found.append({"name": name, "default": _written(parameter.default), "what": texts.get(name, "")})
    return found


def _written(default):
    """A default as `--method_args` takes it."""
    import keras_ssl

    name = getattr(default, "__name__", None)
    places = {"keras_ssl.losses": keras_ssl.losses, "keras_ssl.distances": keras_ssl.distances}
    for place, module in places.items():
        if name and getattr(module, name, None) is default:
            return f"{place}.{name}"
    return name or str(default)


def _texts(docstring):
    """What a docstring says of each argument: its first sentence."""
    _, _, text = docstring.partition("Args:\n")
    text = re.split(r"\n(?=\S)", text)[0]  # up to the next section
    found = {}
    for part in re.split(r"\n?^ {4}(?=\S)", text, flags=re.MULTILINE):
        names_of, _, what = part.partition(": ")
        sentence = re.split(r"(?<=[.;]) (?=[A-Z])", " ".join(what.replace("`", "").split()))[0].rstrip(";")
        if what:
            found.update({name.strip(): sentence for name in names_of.split(",")})
    return found


def _example(arguments, chosen):
    """An argument with a number, to be changed: one that the recipe sets, or the first."""
    numbers = {one["name"]: one["default"] for one in arguments if re.fullmatch(r"\d+(\.\d+)?", one["default"])}
    numbers.update({name: value for name, value in chosen.config["arguments"].items() if name in numbers})
    given = [name for name in numbers if name in chosen.config["arguments"]] or list(numbers)
    return [f"--method_args={given[0]}={numbers[given[0]]}"] if given else []


def _first_line(method):
    return (inspect.getdoc(method) or method.__name__).split("\n\n")[0].replace("\n", " ")


def _as_json(name, method, line):
    return {
        "name": name,
        "class": method.__name__,
        "what": line,
        "terms": list(method.terms),
        "metrics": list(method.metric_names),
        "needs_labels": bool(method.uses_labels),
    }
