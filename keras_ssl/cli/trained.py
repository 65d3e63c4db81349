"""A trained backbone, of --run or of --backbone, and the images that it is used with."""

import pathlib

from keras_ssl import names
from keras_ssl.cli.flags import check_data, folder_options
from keras_ssl.cli.run_folder import RunFolder
from keras_ssl.files import existing_file, load_model

_READING = ("resize", "background")  # flags that say how pictures become pixels


class TrainedBackbone:
    """The backbone of a run folder, or of a file alone. Making one checks the flags; `load` needs Keras.

    Args:
        settings: flags `run` and `backbone`, one of which must be given.

    Attributes:
        run: the `RunFolder`, or None.
        path: of the backbone's file.
        settings: what the run was started with; {} without one.
        backbone: the Keras model, after `load`.
    """

    def __init__(self, settings):
        if (settings.run is None) == (settings.backbone is None):
            both = "both are given" if settings.run else "neither is given"
            raise ValueError(f"Give --run=FOLDER of keras-ssl pretrain, or --backbone=FILE.keras: {both}.")
        self.run, self.settings, self.backbone = None, {}, None
        if settings.run is not None:
            self.run = RunFolder.existing(settings.run)
            self.run.require(self.run.backbone)
            self.settings, self.path = self.run.settings, self.run.backbone
        else:
            self.path = existing_file(settings.backbone, "--backbone")

    @property
    def seed(self):
        return self.settings.get("seed", 0)

    def check_data(self, settings):
        """Refuses flags that name no images."""
        check_data(self.source(settings))
        # The backbone knows pictures as the run read them; labels are those of these images alone.
        kept = self.settings if self.same_images(settings) else {name: self.settings.get(name) for name in _READING}
        self.options = folder_options(settings, kept)

    def source(self, settings):
        """Where the images come from: --data, or the data of the run."""
        source = settings.data or self.settings.get("data")
        if source is None:
            raise ValueError("--data: name the images; a backbone's file does not say what it was trained on.")
        return source

    def same_images(self, settings):
        """Whether the images are named as the run named them; `photos/` and `photos` are the same."""
        mine, theirs = settings.data, self.settings.get("data")
        if self.run is None or mine is None or mine == theirs:
            return self.run is not None
        files = [pathlib.Path(one).expanduser() for one in (mine, theirs) if one not in names.DATA_SETS]
        return len(files) == 2 and files[0].resolve() == files[1].resolve()

    def load(self):
        """Loads the backbone."""
        loaded = load_model(self.path)
        self.backbone = getattr(loaded, "backbone", loaded)  # the file may be one of a method
        return self

    def load_images(self, settings):
        """The images, resized to what the backbone takes unless `--image_size` is given: `(source, data)`."""
        from keras_ssl.cli import experiment

        source, options = self.source(settings), dict(self.options)
        shape = self.backbone.input_shape
        if "image_size" not in options and (source in names.RESIZABLE or pathlib.Path(source).expanduser().is_dir()):
            # A backbone of open size takes any size; then that of the run's images is used.
            known = shape[1:3] if None not in shape[1:3] else self.settings.get("training_images", (0, None))[1:3]
            options.update({"image_size": tuple(known)} if None not in known else {})
        loaded = experiment.load(source, options)
        for split in loaded.splits().values():
            split.images = fitting(split.images, shape, split.files)
        return source, loaded

    def hold_out(self, settings, loaded):
        """`(data, sentence)` of `data.split.hold_out`; what the run held out stays held out."""
        from keras_ssl.cli import experiment
        from keras_ssl.data.split import NOT_TRAINED_ON, hold_out_rows

        same = self.same_images(settings)
        val = self.settings.get("val") if same else None
        if same and loaded.test is None and loaded.train.labels is not None:
            rows = self.run.held_out_rows(loaded.train, self.source(settings))
            if rows is not None and loaded.train.has_label[rows].any():  # whatever labels there are now
                return hold_out_rows(loaded, rows, f"{len(rows):,} images that the run held out ({NOT_TRAINED_ON})")
            if rows is not None or self.settings.get("held_out", "").startswith("nothing"):
                return experiment.hold_out(loaded, self.seed, pretrained=True)
        data, sentence = experiment.hold_out(loaded, self.seed, val, trained_here=same)
        if same:
            self.run.check_same_images(data)
        return data, sentence


def fitting(images, shape, files=None):
    """Images as the backbone takes them, or an error that says what differs.

    Args:
        shape: of the backbone's input.
        files: the `ImageFiles` of pictures that were decoded already, from which they can be read again.
    """
    from keras_ssl.data import ImageFiles

    wanted, have = tuple(shape[1:]), images.shape[-1]
    if wanted[-1] == 3 and have == 1:  # gray pictures for a backbone of colors
        images = images.with_channels(3) if isinstance(images, ImageFiles) else images.repeat(3, axis=-1)
    if wanted[-1] == 1 and have == 3:
        if isinstance(images, ImageFiles):
            images = images.with_channels(1)
        elif files is not None:
            images = files.with_channels(1)[:]
    if any(want is not None and want != have for want, have in zip(wanted, images.shape[1:])):
        raise ValueError(
            f"The images are {'×'.join(map(str, images.shape[1:]))}, and the backbone takes "
            f"{'×'.join(map(str, wanted))}: give --image_size, or images with as many channels."
        )
    return images
