"""Flags that several commands share, and what can be said of their values before a framework is imported."""

import difflib
import importlib.util
import os
import pathlib
import sys

from absl import flags

from keras_ssl import names
from keras_ssl.files import existing_file, similar

IMAGE_SIZE = "Size in pixels to which the pictures of a folder are resized: 64, or HEIGHTxWIDTH such as 64x48"


def new_flags(module):
    """`(FLAGS, define)` of a command: its own flags, and what `DEFINE_…` takes besides.

    Args:
        module: `__name__` of the command's module.
    """
    values = flags.FlagValues()
    define = {"flag_values": values, "module_name": module}
    flags.DEFINE_boolean("json", False, "Print one JSON object, for scripts; everything else goes to stderr.", **define)
    flags.DEFINE_boolean("verbose", False, "Show everything that TensorFlow, JAX or torch log at start.", **define)
    return values, define


def define_backbone(define):
    flags.DEFINE_string("run", None, "A run folder of keras-ssl pretrain.", **define)
    flags.DEFINE_string("backbone", None, "A .keras file, instead of a run folder.", **define)


def define_data(define):
    flags.DEFINE_string(
        "data", None, "A data set's name, a folder of images, or a file (default: the data of the run).", **define
    )
    flags.DEFINE_string("image_size", None, f"{IMAGE_SIZE} (default: the backbone's).", **define)
    define_folder(define, "that of the run, else ")


def define_folder(define, or_else=""):
    """Flags of how the pictures of a folder are read: arguments of `keras_ssl.data.load`."""
    flags.DEFINE_string(
        "labels",
        None,
        "A CSV file with the columns file and label, instead of sub-folders by class; other pictures have no label.",
        **define,
    )
    flags.DEFINE_enum(
        "resize",
        None,
        list(names.RESIZE),
        "How a picture of another shape is brought to --image_size: crop (the center), squash, or pad "
        f"(default: {or_else}{names.RESIZE[0]}).",
        **define,
    )
    flags.DEFINE_string(
        "background",
        None,
        f"The color under transparent pictures and around padded ones (default: {or_else}white).",
        **define,
    )
    flags.DEFINE_float(
        "max_unreadable",
        None,
        "The share of pictures that may be left out because they can't be read (default: 0.05).",
        lower_bound=0.0,
        upper_bound=1.0,
        **define,
    )
    flags.DEFINE_integer(
        "workers",
        None,
        "Threads that read the pictures (default: one a core, 4 at least and 32 at most).",
        lower_bound=1,
        **define,
    )


FOLDER_FLAGS = ("image_size", "labels", "resize", "background", "max_unreadable", "workers")


def folder_options(settings, kept=None):
    """What `keras_ssl.data.load` is given beside the source, checked as far as it can be without a framework.

    Args:
        settings: flags.
        kept: the settings of a run on the same images, which hold where a flag is not given; or None.
    """
    options = {}
    for name in FOLDER_FLAGS:
        value = getattr(settings, name, None)
        value = (kept or {}).get(name) if value is None else value
        if value is not None:
            options[name] = value
    if "image_size" in options:
        options["image_size"] = parsed_size(options["image_size"])
    if "labels" in options:
        existing_file(options["labels"], "--labels")
    return options


def check_val(value):
    """Refuses what is no share and no number of images to hold out; None is the default."""
    if value is not None:
        held_out_options(value)


def held_out_options(value):
    """What `keras_ssl.data.split.hold_out` is given for `--val`."""
    if value is None:
        return {}
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if 0.0 < number < 1.0:
        return {"share": number, "most": sys.maxsize}
    if number >= 1 and number == int(number):
        return {"share": 0.9, "most": int(number)}
    raise ValueError(
        f"--val={value}: write a share of the labeled images between 0 and 1, such as 0.1, or a number of images, such "
        "as 500. Images in sub-folders named train and val, or train and test, are split already."
    )


def parsed_size(size):
    """`(height, width)` of what --image_size was given."""
    parts = str(size).lower().split("x") if not isinstance(size, (list, tuple)) else size
    try:
        sides = [int(part) for part in parts] * (2 if len(parts) == 1 else 1)
    except ValueError:
        sides = []
    if len(sides) != 2 or min(sides) < 8:
        raise ValueError(f"--image_size={size}: write a number of pixels, 8 or more, or HEIGHTxWIDTH such as 64x48.")
    return tuple(sides)


def define_training(define):
    """Flags of the commands that train."""
    flags.DEFINE_string("data", "fashion_mnist_sample", "A data set's name, a folder of images, or a file.", **define)
    flags.DEFINE_string(
        "backbone",
        None,
        f"{', '.join(names.BACKBONES)}, a name in keras.applications, hub:PRESET or hub:FOLDER of keras-hub, or a "
        f".keras file (default: resnet8; vit for {', '.join(names.FOR_VIT).lower()}).",
        **define,
    )
    flags.DEFINE_enum(
        "recipe",
        "auto",
        list(names.RECIPES),
        "The recipe to train with. small: measured on the sample data set; paper: what the method's authors used; "
        "auto: chosen by batch size and number of images, with the reason printed.",
        **define,
    )
    flags.DEFINE_integer("batch_size", 128, "Images per step.", lower_bound=2, **define)
    flags.DEFINE_string("image_size", None, f"{IMAGE_SIZE}.", **define)
    define_folder(define)
    define_seed(define)


def define_seed(define):
    flags.DEFINE_integer("seed", 0, "Random seed.", lower_bound=0, upper_bound=2**32 - 1, **define)


def define_overwrite(define, what):
    flags.DEFINE_boolean("overwrite", False, f"Replace {what} if it exists.", **define)


def progress():
    """How Keras shows progress here: 1 for a bar, 2 for lines without colors and control characters."""
    dumb = os.environ.get("TERM", "dumb") == "dumb" or "NO_COLOR" in os.environ
    return 1 if sys.stdout.isatty() and not dumb else 2


def nearest(name, known):
    """A sentence that names what is most like `name`, or all that is known."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f'Did you mean "{near[0]}"?' if near else f"Known: {', '.join(known)}."


def method_class(name):
    """The name of the class of a method that was named without regard to case."""
    known = {method.lower(): method for method in names.METHODS}
    if name.lower() not in known:
        raise ValueError(f'--method: there is no method "{name}". {nearest(name.lower(), known)}')
    return known[name.lower()]


def check_data(source, flag="--data"):
    """Refuses a name that is neither a data set nor a path."""
    if source not in names.DATA_SETS and not pathlib.Path(source).expanduser().exists():
        hint = similar(source, f"Known names: {', '.join(names.DATA_SETS)}.", names.DATA_SETS)
        raise FileNotFoundError(f'{flag}: there is no data set or path "{source}". {hint}')


def default_backbone(methods):
    """What `--backbone` is where it is not given: one for all of the methods, by their classes' names."""
    return "vit" if all(method in names.FOR_VIT for method in methods) else "resnet8"


def check_backbone(name, flag="--backbone"):
    """Refuses a file that is not there; names of keras.applications are known to Keras alone."""
    if name.endswith(".keras"):
        existing_file(name, flag)


def check_tensorboard(flag="--tensorboard"):
    """TensorBoard is a package of its own, and TensorFlow writes no logs without it."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError(f"{flag} needs the package tensorboard: pip install 'keras-ssl[tensorboard]'.")


def output_file(name, flag, overwrite, suffixes):
    """The path of a file that will be written; refuses another kind of file, and one that exists already."""
    path = pathlib.Path(name).expanduser()
    if path.suffix not in suffixes:
        raise ValueError(f"{flag}={name}: the file's name must end in {' or '.join(suffixes)}.")
    if path.is_dir():
        raise IsADirectoryError(f"{flag}={name} is a folder: name a file.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{flag}={path} exists: name another file, or add --overwrite.")
    return path
