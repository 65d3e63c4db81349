"""What lies in a folder of pictures: which files, in which split, with which label, and what is left out and why."""

import collections
import dataclasses
import os
import pathlib
import warnings

from keras_ssl.data.pictures import MAX_PIXELS, read_header

_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff", ".avif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga"),
)
# Pictures, but none that Pillow reads unless a package has taught it to.
_FOREIGN = {
    **dict.fromkeys((".heic", ".heif"), "HEIC: save it as JPEG, or pip install pillow-heif and register its opener"),
    **dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2"), "a camera's raw file: save it as JPEG"),
    ".jxl": "JPEG XL: save it as JPEG",
    ".psd": "a Photoshop file: save it as PNG",
    ".svg": "a drawing, not pixels: save it as PNG",
}
# Names of the folders of splits, in lower case.
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_WITHOUT_LABELS = ("unlabelled", "unlabeled", "unsup", "unsupervised")


@dataclasses.dataclass
class Picture:
    """One file: its path, the label that its place gives it, or None, and what its header says."""

    path: pathlib.Path
    label: str | None
    header: object = None


@dataclasses.dataclass
class Listing:
    """What lies in a folder.

    Attributes:
        root: where classes or splits lie: the folder, or one inside of it that was stepped into.
        splits: a dict of "train", "validation" and "test", as far as there are such, to lists of `Picture`.
        left_out: `(path, reason)` of pictures that can't be used.
        hidden: how many files and folders were skipped for their names.
        others: how many files are no pictures, by suffix.
        notes: sentences about how the folder was read.
    """

    root: pathlib.Path
    splits: dict = dataclasses.field(default_factory=dict)
    left_out: list = dataclasses.field(default_factory=list)
    hidden: int = 0
    others: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    notes: list = dataclasses.field(default_factory=list)

    @property
    def pictures(self):
        """Those of all splits."""
        return [picture for pictures in self.splits.values() for picture in pictures]


def list_folder(folder, max_pixels=MAX_PIXELS, progress=None):
    """Lists a folder of pictures and reads their headers.

    Args:
        folder: path.
        max_pixels: pictures with more are left out.
        progress: makes a function that is called with each number of pictures done, of a sentence and a total or None.

    Returns:
        `Listing`. Its splits hold what has a header that can be read.
    """
    found = Listing(pathlib.Path(folder))
    _step_in(found)
    walk = _Walk(found, progress and progress("looking for pictures", None))
    folders, pictures = _visible(found.root)
    named = {}
    for entry in folders:
        split = SPLITS.get(entry.name.lower())
        if split and split not in named:
            named[split] = entry
    if "train" in named:
        for split in ("train", "validation", "test"):
            if split in named:
                found.splits[split] = walk.pictures(named[split].path)
        _beside_splits(found, walk, folders, pictures, named)
    else:
        found.splits["train"] = walk.pictures(found.root)
        if named:
            names = ", ".join(entry.name for entry in named.values())
            found.notes.append(f"There is no folder train, so {names} counts as a class like any other folder.")
    walk.close()
    _read_headers(found, max_pixels, progress)
    return found


def shown(path):
    """A path as it can be printed anywhere: a name need not be valid text."""
    return os.fsencode(path).decode("utf-8", "replace")


def _visible(folder):
    """Sub-folders and pictures right in a folder that are not hidden, each sorted by name."""
    with os.scandir(folder) as entries:
        entries = sorted((entry for entry in entries if not _is_hidden(entry.name)), key=lambda entry: entry.name)
    return [entry for entry in entries if entry.is_dir()], [entry for entry in entries if _is_picture(entry)]


def _is_hidden(name):
    return name.startswith((".", "__"))


def _is_picture(entry):
    suffix = os.path.splitext(entry.name)[1].lower()
    return (suffix in _SUFFIXES or suffix in _FOREIGN) and not entry.is_dir()


def _step_in(found):
    """Goes into a single folder, and a single one in it, if classes or splits lie there: data/images/{cats,dogs}."""
    root, seen = found.root, set()
    while True:
        folders, pictures = _visible(root)
        if pictures or not folders or any(entry.name.lower() in _WITHOUT_LABELS for entry in folders):
            return
        if len(folders) > 1 or folders[0].name.lower() in SPLITS:
            break
        if _identity(folders[0]) in seen:
            return
        seen.add(_identity(folders[0]))
        root = pathlib.Path(folders[0].path)
    if root != found.root:
        found.root = root
        found.notes.append(f"The classes lie in {shown(root)}, the single folder there is.")


def _beside_splits(found, walk, folders, pictures, named):
    """Beside train and test: a folder without labels belongs to the training images; all else is left out."""
    used = {entry.name for entry in named.values()}
    left = [shown(entry.name) for entry in (*folders, *pictures) if entry.name not in used]
    for entry in folders:
        if entry.name.lower() in _WITHOUT_LABELS:
            more = walk.pictures(entry.path)
            for picture in more:
                picture.label = None
            found.splits["train"] += more
            left.remove(shown(entry.name))
            found.notes.append(f"{len(more):,} pictures in {shown(entry.name)} train without labels.")
    if left:
        some = ", ".join(left[:3]) + (" …" if len(left) > 3 else "")
        found.notes.append(f"Beside the splits {len(left):,} folders and files are not used: {some}.")


class _Walk:
    """Walks through folders at any depth, into each real folder once, so that a loop of links ends."""

    def __init__(self, found, report):
        self.found, self.report = found, report
        self.seen, self.count = set(), 0

    def pictures(self, root):
        """The pictures under a folder, sorted by path; the label is the first folder on the way."""
        found, links = [], []
        self._enter(pathlib.Path(root), None, 0, found, links)
        while links:  # after all that lies here itself, so that a link to it adds nothing
            link, label, depth = links.pop(0)
            if link.is_dir():
                self._enter(link, label, depth, found, links)
                continue
            status = link.stat() if link.exists() else None
            if status is None or self._is_new(status.st_dev, status.st_ino):  # one to nothing is named as such later
                self._take(link, label, found)
        return sorted(found, key=lambda picture: picture.path.parts)

    def close(self):
        if self.report:
            self.report.close()

    def _enter(self, folder, label, depth, found, links):
        status = os.stat(folder)
        if not self._is_new(status.st_dev, status.st_ino):
            return
        with os.scandir(folder) as entries:
            entries = list(entries)
        for entry in entries:
            if _is_hidden(entry.name):
                self.found.hidden += 1
                continue
            path = folder / entry.name
            if entry.is_dir():
                # The first folder on the way is the class.
                inner = label if depth else None if entry.name.lower() in _WITHOUT_LABELS else entry.name
                if entry.is_symlink():
                    links.append((path, inner, depth + 1))
                else:
                    self._enter(path, inner, depth + 1, found, links)
            elif not _is_picture(entry):
                self.found.others[path.suffix.lower() or "without a suffix"] += 1
            elif entry.is_symlink():
                links.append((path, label, depth))
            else:
                self._is_new(status.st_dev, entry.inode())  # a link may lead to it as well
                self._take(path, label, found)

    def _is_new(self, device, inode):
        if (device, inode) in self.seen:
            return False
        self.seen.add((device, inode))
        return True

    def _take(self, path, label, found):
        suffix = path.suffix.lower()
        if suffix not in _SUFFIXES and not _is_taught(suffix):
            self.found.left_out.append((path, _FOREIGN[suffix]))
            return
        found.append(Picture(path, label))
        self.count += 1
        if self.report:
            self.report(self.count)


def _identity(entry):
    status = entry.stat()
    return status.st_dev, status.st_ino


def _is_taught(suffix):
    from PIL import Image

    return suffix in Image.registered_extensions()


def _read_headers(found, max_pixels, progress):
    from PIL import Image

    report = progress("reading headers", len(found.pictures)) if progress else None
    done = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `max_pixels` decides
        warnings.filterwarnings("ignore", module="PIL")  # of broken files, which are left out with a reason or are read
        for split, pictures in found.splits.items():
            kept = []
            for picture in pictures:
                try:
                    picture.header = read_header(picture.path, max_pixels)
                    kept.append(picture)
                except ValueError as error:
                    found.left_out.append((picture.path, str(error)))
                done += 1
                if report:
                    report(done)
            found.splits[split] = kept
    if report:
        report.close()
