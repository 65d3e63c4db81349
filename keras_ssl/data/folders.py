"""A folder of pictures as a data set: its listing, labels, size and depth become splits."""

import collections
import dataclasses
import warnings

import numpy as np

from keras_ssl.data.cache import PictureCache
from keras_ssl.data.labels import MISSING, class_labels, means_none
from keras_ssl.data.lazy import ImageFiles
from keras_ssl.data.listing import list_folder, shown
from keras_ssl.data.pictures import MAX_PIXELS, REDUCING_GAP, Decoder, deep_bounds, deep_range
from keras_ssl.data.progress import Progress
from keras_ssl.data.split import Data, make_split
from keras_ssl.data.tables import LabelTable
from keras_ssl.names import RESIZE

IN_MEMORY = 4 * 2**30


@dataclasses.dataclass(frozen=True)
class FolderOptions:
    """How the pictures of a folder are read: the arguments of `keras_ssl.data.load`, checked.

    Attributes:
        image_size: `(height, width)`, or None.
        labels, resize, background, max_value, dtype: as of `load`.
        max_unreadable, max_pixels, max_bytes, verbose, reducing_gap, workers: as of `load`.
    """

    image_size: object = None
    labels: object = None
    resize: str = RESIZE[0]
    background: object = "white"
    max_value: float | None = None
    dtype: str = "uint8"
    max_unreadable: float = 0.05
    max_pixels: int = MAX_PIXELS
    max_bytes: int = IN_MEMORY
    verbose: int = 0
    reducing_gap: float | None = REDUCING_GAP
    workers: int | None = None

    def __post_init__(self):
        fix = object.__setattr__
        fix(self, "image_size", _size(self.image_size))
        fix(self, "background", _color(self.background))
        if self.resize not in RESIZE:
            raise ValueError(f"`resize` is one of {', '.join(RESIZE)}; it is {self.resize!r}.")
        if self.dtype not in ("uint8", "uint16"):
            raise ValueError(f'`dtype` is "uint8", or "uint16" for pictures of 16 bits; it is {self.dtype!r}.')
        if not 0.0 <= self.max_unreadable <= 1.0:
            raise ValueError(f"`max_unreadable` is a share between 0 and 1; it is {self.max_unreadable!r}.")
        if self.max_value is not None and not self.max_value > 0:
            raise ValueError(f"`max_value` must be a number above 0; it is {self.max_value!r}.")
        if self.reducing_gap is not None and not self.reducing_gap >= 1.0:
            raise ValueError(
                f"`reducing_gap` is 1 or more, or None to decode JPEG files whole; it is {self.reducing_gap!r}."
            )
        if self.workers is not None and (not isinstance(self.workers, int) or self.workers < 1):
            raise ValueError(f"`workers` is a number of threads, 1 or more, or None; it is {self.workers!r}.")
        if self.max_pixels < 1:
            raise ValueError(f"`max_pixels` must be 1 or more; it is {self.max_pixels!r}.")

    def given(self):
        """Names of the options that are not as by default."""
        ours = [field for field in dataclasses.fields(self) if field.name not in ("verbose", "max_bytes", "background")]
        names = [
            field.name
            for field in ours
            if (value := getattr(self, field.name)) is not field.default
            and not (isinstance(value, (str, int, float)) and value == field.default)
        ]
        return names + (["background"] if self.background != (255, 255, 255) else [])


def load_folder(root, options=None):
    """A folder of pictures as `Data`.

    Args:
        root: path.
        options: `FolderOptions`.

    Raises:
        ValueError: no picture, too many that can't be read, sizes that differ where none is asked for.
    """
    options = options or FolderOptions()

    def progress(what, total):
        return Progress(what, total, options.verbose)

    found = list_labeled(root, options, progress)
    _check_any(found, root)
    _check_unreadable(found, options)
    headers = [picture.header for picture in found.pictures]
    decoder = Decoder(
        size=_common_size(headers, options.image_size, root),
        channels=1 if all(header.gray for header in headers) else 3,
        resize=options.resize,
        background=options.background,
        deep_range=_deep_range(found, options, progress),
        dtype=_dtype(headers, options.dtype),
        reducing_gap=options.reducing_gap,
    )
    _note_kinds(found, headers, options)
    note_classes(found)
    return _as_data(found, decoder, options, progress)


_FEW = 5  # pictures of a class: fewer can hardly be learned from and tested on


def note_classes(found):
    """Notes on a `Listing` what its classes let one expect."""
    counts = collections.Counter(str(picture.label) for picture in found.pictures if not means_none(picture.label))
    if len(counts) == 1:
        found.notes.append(f"All labels are {shown(next(iter(counts)))}: there are no two classes to tell apart.")
        return
    few = {name: count for name, count in counts.items() if count < _FEW}
    if few:
        named = ", ".join(f"{shown(name)} {count}" for name, count in sorted(few.items(), key=lambda one: one[1])[:5])
        found.notes.append(f"{len(few):,} of {len(counts):,} classes have fewer than {_FEW} pictures: {named}.")
    alike = collections.defaultdict(list)
    for name in counts:
        alike[name.casefold().strip()].append(name)
    for names in alike.values():
        if len(names) > 1:
            found.notes.append(
                f"{' and '.join(map(shown, sorted(names)))} differ in case alone, and are {len(names)} classes."
            )


def list_labeled(root, options, progress):
    """`Listing` of a folder, with the labels of the table where one is given.

    Args:
        root: path.
        options: `FolderOptions`.
        progress: as of `list_folder`.
    """
    table = None if options.labels is None else LabelTable(options.labels)
    _allow_pixels(options.max_pixels)
    found = list_folder(root, options.max_pixels, progress)
    if table is not None:
        _label(found, table, root)
    _note_no_classes(found)
    return found


def _as_data(found, decoder, options, progress):
    labels, names = class_labels(
        [[picture.label for picture in pictures] for pictures in found.splits.values()], "labels"
    )
    splits = {}
    in_memory, cache = _memory(found, decoder, options.max_bytes)
    on_disk = sum(len(pictures) for name, pictures in found.splits.items() if name not in in_memory)
    if on_disk:
        found.notes.append(
            f"{on_disk:,} pictures do not fit into {options.max_bytes / 2**30:.3g} GiB (`max_bytes`): "
            f"{min(cache.most, on_disk):,} of them stay in memory once they are read, the others are decoded in each "
            "epoch."
        )
    for (name, pictures), of_split in zip(found.splits.items(), labels):
        paths = [picture.path for picture in pictures]
        known = of_split if (of_split != MISSING).any() else None
        kept = None if name in in_memory else cache
        files = ImageFiles(paths, decoder, known, cache=kept, workers=options.workers)
        images, rows = files, np.arange(len(files))
        if name in in_memory:
            report = progress("decoding", len(files))
            images, rows, reasons = files.decoded(report)
            report.close()
            found.left_out += [(paths[row], reason) for row, reason in reasons.items()]
        splits[name] = make_split(images, None if known is None else known[rows], names if known is not None else None)
        splits[name].paths = [paths[row] for row in rows]
        splits[name].files = files.only(rows)
        splits[name].value_range = (0.0, 255.0) if decoder.dtype == "uint8" else (0.0, decoder.deep_range[1])
    read = sum(len(split) for split in splits.values())
    _check_unreadable(found, options, read)
    if not len(splits["train"]):
        raise ValueError(f"None of the pictures to train on under {shown(found.root)} can be read.")
    test = splits.get("test", splits.get("validation"))
    data = Data(splits["train"], test, splits.get("validation"), left_out=found.left_out, notes=found.notes)
    if found.left_out:
        path, reason = found.left_out[0]
        warnings.warn(
            f"{len(found.left_out):,} of {len(found.left_out) + read:,} pictures can't be used and are left out, such "
            f"as {shown(path)}: {reason}."
        )
    return data


def _memory(found, decoder, max_bytes):
    """What the memory is given to: splits that are decoded at once, smallest first; the rest keeps what is read."""
    a_picture = int(np.prod(decoder.size)) * decoder.channels * np.dtype(decoder.dtype).itemsize
    in_memory = set()
    for name, pictures in sorted(found.splits.items(), key=lambda of_split: len(of_split[1])):
        if len(pictures) * a_picture <= max_bytes:
            in_memory.add(name)
            max_bytes -= len(pictures) * a_picture
    return in_memory, PictureCache(max_bytes, a_picture)


def _check_any(found, root):
    if found.pictures or found.left_out:
        if not found.splits.get("train"):
            path, reason = next(iter(found.left_out), (None, None))
            why = f": {shown(path)}, {reason}" if path else ""
            raise ValueError(f"None of the pictures under {shown(root)} can be used for training{why}.")
        return
    kinds = "JPEG, PNG, BMP, GIF, WebP, TIFF, AVIF, PPM, TGA"
    others = ", ".join(f"{count} {suffix}" for suffix, count in found.others.most_common(3))
    raise ValueError(
        f"There is no picture under {shown(root)}. It was searched in any depth for {kinds}"
        + (f"; there are other files: {others}." if others else ".")
    )


def _check_unreadable(found, options, read=None):
    """A few broken files are normal; many say that something else is wrong."""
    left, read = len(found.left_out), len(found.pictures) if read is None else read
    share = left / max(1, left + read)
    if share <= options.max_unreadable:
        return
    some = "; ".join(f"{shown(path)}: {reason}" for path, reason in found.left_out[:3])
    raise ValueError(
        f"{left:,} of {left + read:,} pictures can't be used, {share:.0%} of them, and at most "
        f"{options.max_unreadable:.0%} are left out by themselves: {some}. Repair or remove them, or give "
        f"max_unreadable={min(1.0, np.ceil(share * 100) / 100):g}."
    )


def _label(found, table, root):
    """Labels of a table replace those of folders."""
    pictures = found.pictures
    labels, unused = table.labels_for([picture.path for picture in pictures], root, found.root)
    for picture, label in zip(pictures, labels):
        picture.label = label
    if unused:
        found.notes.append(
            f"{len(unused):,} of {len(table.by_file):,} files in the table of labels are no pictures of this folder, "
            f"such as {shown(unused[0])}."
        )


def _note_no_classes(found):
    """Takes labels away that mean none: of folders, for `LabelTable` gives no such label."""
    without = [picture for picture in found.pictures if picture.label is not None and means_none(picture.label)]
    if without:
        found.notes.append(
            f"{len(without):,} pictures lie in a folder called {without[0].label}, which means no label: rename it if "
            "they are a class."
        )
    for picture in without:
        picture.label = None


def _common_size(headers, image_size, root):
    if image_size is not None:
        return image_size
    sizes = {header.size for header in headers}
    if len(sizes) > 1:
        smallest, largest = min(sizes), max(sizes)
        raise ValueError(
            f"The pictures under {shown(root)} have {len(sizes)} sizes, from {smallest[0]}×{smallest[1]} to "
            f"{largest[0]}×{largest[1]} pixels, and a batch needs one. Say which by `image_size`: "
            "one side, such as 64, or height and width."
        )
    return next(iter(sizes))


def _dtype(headers, dtype):
    if dtype == "uint16" and not any(header.deep for header in headers):
        raise ValueError('`dtype` is "uint16", and none of the pictures has more than 8 bits: leave it out.')
    return dtype


def _deep_range(found, options, progress):
    """The values of deep pictures that become 0 … 255: those that are stated, else those that the set holds."""
    deep = [picture.path for picture in found.pictures if picture.header.deep]
    if not deep:
        if options.max_value is not None:
            raise ValueError(
                f"`max_value` is {options.max_value}, and none of the pictures has more than 8 bits: leave it out."
            )
        return 0.0, 65535.0
    if options.max_value is not None:
        bounds = 0.0, float(options.max_value)
    else:
        report = progress("finding the depth", len(deep))
        low, high, whole = deep_bounds(deep, report)
        report.close()
        bounds = deep_range(low, high, whole)
        found.notes.append(
            f"{len(deep):,} pictures have more than 8 bits, with values from {low:g} to {high:g}: {bounds[0]:g} … "
            f"{bounds[1]:g} is their range" + (" and becomes 0 … 255." if options.dtype == "uint8" else ".")
        )
    return bounds


def _note_kinds(found, headers, options):
    """What was done to the pictures, in a sentence each."""
    counts = {
        "transparent and lie on the background {}": sum(header.transparent for header in headers),
        "turned upright": sum(header.rotated for header in headers),
    }
    for what, count in counts.items():
        if count:
            color = "#{:02x}{:02x}{:02x}".format(*options.background)
            found.notes.append(f"{count:,} of {len(headers):,} pictures are {what.format(color)}.")
    several = sum(header.frames > 1 for header in headers)
    if several:
        found.notes.append(f"{several:,} files hold several frames or pages: the first is used.")


def _allow_pixels(most):
    from PIL import Image

    # Pillow's own limit is one number for the process: it gives way where more is asked for.
    if Image.MAX_IMAGE_PIXELS is not None and most > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = most


_MOST_PIXELS = 2**16  # a side


def _size(size):
    if size is None:
        return None
    if isinstance(size, str) and "x" in size.lower():
        size = size.lower().split("x")
    try:
        pair = tuple(int(side) for side in size) if isinstance(size, (tuple, list)) else (int(size),) * 2
    except (TypeError, ValueError, OverflowError):
        pair = ()
    if len(pair) != 2 or not 1 <= min(pair) <= max(pair) <= _MOST_PIXELS:
        raise ValueError(
            f"`image_size` is a number of pixels up to {_MOST_PIXELS:,}, or (height, width); it is {size!r}."
        )
    return pair


def _color(color):
    if isinstance(color, str):
        from PIL import ImageColor

        try:
            return ImageColor.getrgb(color)[:3]
        except ValueError:
            raise ValueError(
                f'`background` is a color, such as "white", "#f0f0f0" or (240, 240, 240); it is {color!r}.'
            ) from None
    try:
        color = tuple(int(value) for value in color)
    except (TypeError, ValueError):
        color = ()
    if len(color) != 3 or not all(0 <= value <= 255 for value in color):
        raise ValueError('`background` is a color, such as "white", "#f0f0f0" or (240, 240, 240).')
    return color
