"""What several commands share: flags, where a backbone and images come from, and what the terminal can show."""

import json
import os
import pathlib
import sys

from absl import flags


def new_flags(module):
    """`(FLAGS, define)` of a command: its own flags, `--json` among them, and what `DEFINE_…` takes beside."""
    values = flags.FlagValues()
    define = {"flag_values": values, "module_name": module}
    flags.DEFINE_boolean("json", False, "Print one JSON object for machines; all else goes to stderr.", **define)
    return values, define


def define_backbone(define):
    flags.DEFINE_string("run", None, "A run folder of keras-ssl pretrain.", **define)
    flags.DEFINE_string("backbone", None, "A .keras file, in the place of a run.", **define)


def define_data(define, what="A name, a folder of images, or a file; that of the run if left out."):
    flags.DEFINE_string("data", None, what, **define)
    flags.DEFINE_integer(
        "image_size",
        None,
        "Side in pixels to which the pictures of a folder are resized; the backbone's if left out.",
        lower_bound=8,
        **define,
    )


def verbose():
    """How much progress the terminal can show: 1 for a bar, 2 for lines without colours and control characters."""
    dumb = os.environ.get("TERM", "dumb") == "dumb" or "NO_COLOR" in os.environ
    return 1 if sys.stdout.isatty() and not dumb else 2


class Run:
    """A run folder, or a backbone's file alone.

    Args:
        settings: flags `run` and `backbone`, one of which is given.

    Attributes:
        backbone, folder (or None), settings: what the run was started with; {} without one.
    """

    def __init__(self, settings):
        import keras

        if (settings.run is None) == (settings.backbone is None):
            both = "both are given" if settings.run else "neither is"
            raise ValueError(f"Give --run=FOLDER of keras-ssl pretrain, or --backbone=FILE.keras: {both}.")
        self.folder, self.settings = None, {}
        if settings.run is not None:
            self.folder = folder_of(settings.run)
            self.settings = json.loads((self.folder / "settings.json").read_text(encoding="utf-8"))
        path = self.folder / "backbone.keras" if self.folder else pathlib.Path(settings.backbone).expanduser()
        if not path.is_file():
            unfinished = self.folder and (self.folder / "state.npz").exists()
            way = (
                f"It was cut off: keras-ssl pretrain --resume={self.folder} goes on."
                if unfinished
                else ("Name the folder of a finished run, or the file with --backbone.")
            )
            raise FileNotFoundError(f"There is no {path}. {way}")
        loaded = keras.models.load_model(path)
        self.path, self.backbone = path, getattr(loaded, "backbone", loaded)  # a model.keras has one, too

    def load(self, settings):
        """The images of `--data`, or of the run, resized to what the backbone takes unless `--image_size` is given."""
        from keras_ssl import data

        source = settings.data or self.settings.get("data")
        if source is None:
            raise ValueError("--data: say which images; a backbone alone does not know what it was trained on.")
        same = source == self.settings.get("data")
        shape = self.backbone.input_shape
        size = settings.image_size or (self.settings.get("image_size") if same else None)
        if size is None and pathlib.Path(source).expanduser().is_dir():
            # An open-size backbone takes any; then those of the run tell.
            known = shape[1:3] if None not in shape[1:3] else self.settings.get("training_images", (0, None))[1:3]
            size = tuple(known) if None not in known else None
        loaded = data.load(source, image_size=size)
        if loaded.train.images is None:
            raise ValueError("--data: give images in a folder or a file; streams are for Python.")
        for split in filter(None, (loaded.train, loaded.test)):
            split.images = fitting(split.images, shape, split.paths)
        return source, loaded

    def held_out(self, settings, loaded):
        """`(data, sentence)` of `outcome.hold_out`: what the run held out stays held out."""
        from keras_ssl.cli import outcome

        same = self.folder is not None and (settings.data is None or settings.data == self.settings.get("data"))
        data, sentence = outcome.hold_out(loaded, self.seed, trained_here=same)
        if same:
            outcome.same_images(data, self.settings)
        return data, sentence

    @property
    def seed(self):
        return self.settings.get("seed", 0)


def folder_of(name):
    folder = pathlib.Path(name).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"--run={name}: there is no such folder. Name one that keras-ssl pretrain wrote.")
    if not (folder / "settings.json").is_file():
        raise FileNotFoundError(f"--run={name} holds no settings.json: it is no run folder of keras-ssl pretrain.")
    return folder


def fitting(images, shape, paths=None):
    """Images as the backbone takes them, or an error that says what differs.

    Args:
        paths: of pictures that were decoded already, from which they can be read anew.
    """
    from keras_ssl.data import ImageFiles

    wanted = tuple(shape[1:])
    if wanted[-1] == 3 and images.shape[-1] == 1:  # gray pictures for a backbone of colours
        if isinstance(images, ImageFiles):
            return ImageFiles(images.paths, images.shape[1:3], 3)
        images = images.repeat(3, axis=-1)
    if wanted[-1] == 1 and images.shape[-1] == 3:
        if isinstance(images, ImageFiles):
            images = ImageFiles(images.paths, images.shape[1:3], 1)
        elif paths is not None:
            images = ImageFiles(paths, images.shape[1:3], 1)[:]
    if any(want is not None and want != have for want, have in zip(wanted, images.shape[1:])):
        raise ValueError(
            f"The images are {'×'.join(map(str, images.shape[1:]))}, and the backbone takes "
            f"{'×'.join(map(str, wanted))}: give --image_size, or images with as many channels."
        )
    return images


def write_json(path, content):
    path = pathlib.Path(path)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def writable(name, flag, overwrite, suffixes):
    """A path for a file of some kinds that is not there yet, unless it may be overwritten."""
    path = pathlib.Path(name).expanduser()
    if path.suffix not in suffixes:
        raise ValueError(f"{flag}={name}: the file's name must end in {' or '.join(suffixes)}.")
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"{flag}={path} exists, and is never overwritten unasked: name another, or add --overwrite."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
