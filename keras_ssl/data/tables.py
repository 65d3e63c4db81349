"""A table of labels beside a folder of pictures: a CSV file, a dict, a DataFrame."""

import csv
import io
import os
import pathlib

from keras_ssl.data.labels import means_none
from keras_ssl.data.listing import shown
from keras_ssl.files import existing_file

_FILE_COLUMNS = (
    "file",
    "filename",
    "file_name",
    "path",
    "filepath",
    "image",
    "image_id",
    "img",
    "picture",
    "name",
    "id",
)
_LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target", "y", "species", "diagnosis")


class LabelTable:
    """Labels by file.

    A file is named as the table has it: by its path from the folder, by the end of that path or its name, or by its
    name without the suffix. The first of these that fits a picture counts, and it must fit one alone.

    Args:
        source: a path of a CSV file (comma, semicolon or tab), a dict of file to label, a pandas DataFrame, or a list
            of `(file, label)`. Columns are known by name (`file` and `label`, and common others); of two columns whose
            names are not known, the first has the files.

    Raises:
        ValueError: among others for three columns or more of which none is known to hold the labels.
    """

    def __init__(self, source):
        self.name = str(source) if isinstance(source, (str, os.PathLike)) else f"a {type(source).__name__}"
        self._is_text = isinstance(source, (str, os.PathLike))
        self.by_file = {}
        for file, label in _rows(source, self.name):
            key, label = _key(file), None if means_none(label) else label
            if key in self.by_file and str(self.by_file[key]) != str(label):
                raise ValueError(
                    f"`labels` ({self.name}) gives {shown(str(file))} two labels, {self.by_file[key]} and {label}: "
                    "keep one."
                )
            self.by_file[key] = label
        if not self.by_file:
            raise ValueError(f"`labels` ({self.name}) holds no row of a file and its label.")

    def labels_for(self, paths, root, inner=None):
        """Labels of pictures, None for those without one: `(labels, files without a picture)`.

        Args:
            paths: of the pictures.
            root: the folder that was given; paths in the table begin there, or where its classes lie.
            inner: the folder in it where they lie; None for the same.

        Raises:
            ValueError: a name in the table fits several pictures, or none of them fits any.
        """
        places = [{}, {}, {}, {}]  # as `_keys_of` ranks them
        for row, path in enumerate(paths):
            for rank, keys in zip(places, _keys_of(path, root, inner)):
                for key in keys:
                    rank.setdefault(key, []).append(row)
        labels, unused = [None] * len(paths), []
        for file, label in self.by_file.items():
            rows = next((rank[file] for rank in places if file in rank), [])
            if len(rows) > 1:
                raise ValueError(
                    f"`labels` ({self.name}): {shown(file)} fits {len(rows)} pictures, such as {shown(paths[rows[0]])} "
                    f"and {shown(paths[rows[1]])}: write the path from {root}."
                )
            if rows:
                labels[rows[0]] = label
            else:
                unused.append(file)
        if self._is_text and not all(map(_is_utf8, unused)):
            raise _not_utf8(self.name)
        if len(unused) == len(self.by_file):
            raise ValueError(
                f"`labels` ({self.name}) names {len(unused)} files, such as {shown(unused[0])}, and none of them is a "
                f"picture under {root}: write each as its path from there."
            )
        return labels, unused


def _key(file):
    return pathlib.PurePath(str(file).strip().replace("\\", "/")).as_posix().removeprefix("./")


def _keys_of(path, root, inner=None):
    """What a table may call a picture, in sets of which the first that has a name decides: a whole path is that of one
    picture, however many others are called alike."""
    relative = path.relative_to(root)
    inside = {path.relative_to(inner)} if inner is not None and path.is_relative_to(inner) else set()
    # From each folder below the first: a table may stand inside of the one that was given.
    ends = {pathlib.PurePath(*relative.parts[first:]) for first in range(len(relative.parts))}
    return [{_key(key) for key in keys} for keys in ({relative}, {path, *inside}, ends, {relative.stem})]


def _rows(source, name):
    if isinstance(source, dict):
        return list(source.items())
    if hasattr(source, "columns") and hasattr(source, "itertuples"):
        header = [str(column) for column in source.columns]
        picture = next(filter(_names_picture, header), None)
        if picture is not None:
            raise ValueError(
                f"`labels` ({name}) has a column called {picture}: the first picture was read as the names of the "
                "columns. Read the file with header=None, or give its path."
            )
        file, label = _columns(header, name)
        return list(zip(source.iloc[:, file].tolist(), source.iloc[:, label].tolist()))
    if isinstance(source, (list, tuple)):
        if not all(isinstance(row, (list, tuple)) and len(row) == 2 for row in source):
            raise ValueError("`labels` as a list holds pairs, (file, label), one a picture.")
        return list(source)
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            "`labels` is the path of a CSV file, a dict of file to label, a list of (file, label), or a DataFrame; "
            f"it is a {type(source).__name__}."
        )
    path = existing_file(source, "`labels`")
    # A file's name need not be valid text: then other bytes than UTF-8's are right, and only there.
    text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    if "\0" in text:
        raise _not_utf8(name)
    first = text.splitlines()[0] if text.strip() else ""
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = [row for row in reader if any(cell.strip() for cell in row)]
    if not rows or len(rows[0]) < 2:
        raise ValueError(
            f"`labels` ({name}) needs two columns, the file and its label, with a comma, a semicolon or a tab between."
        )
    header = [cell.strip().lower() for cell in rows[0]]
    named = any(cell in (*_FILE_COLUMNS, *_LABEL_COLUMNS) for cell in header) and not any(map(_names_picture, header))
    file, label = _columns(rows[0], name) if named else (0, 1)
    short = next((row for row in rows if len(row) <= max(file, label)), None)
    if short:
        raise ValueError(
            f"`labels` ({name}) has a row of {len(short)} columns, and needs {max(file, label) + 1}: {short}."
        )
    if not all(_is_utf8(cell) for row in rows for place, cell in enumerate(row) if place != file):
        raise _not_utf8(name)
    return [(row[file], row[label].strip()) for row in (rows[1:] if named else rows)]


def _is_utf8(text):
    """Whether no byte of a file that was read with "surrogateescape" is left in a text."""
    return text.isascii() or not any("\udc80" <= character <= "\udcff" for character in text)


def _not_utf8(name):
    return ValueError(f"`labels` ({name}) is not a text file in UTF-8: save the table as CSV in UTF-8.")


def _names_picture(cell):
    from PIL import Image

    return os.path.splitext(cell.strip().lower())[1] in Image.registered_extensions()


def _columns(header, name):
    """Which columns hold the file and the label: by name, else the first two."""
    known = [cell.strip().lower() for cell in header]
    if len(known) < 2:
        raise ValueError(f"`labels` ({name}) needs two columns, the file and its label; it has {header}.")
    file = next((known.index(column) for column in _FILE_COLUMNS if column in known), None)
    label = next((known.index(column) for column in _LABEL_COLUMNS if column in known), None)
    if file is None and label is None:
        return 0, 1
    rest = [place for place in range(len(known)) if place not in (file, label)]
    if len(rest) > 1:
        lacks = "label" if label is None else "file"
        raise ValueError(
            f"`labels` ({name}) has the columns {', '.join(map(str, header))}, and none is called {lacks}: rename the "
            f"one that holds the {lacks}s to {lacks}."
        )
    return (rest[0] if file is None else file), (rest[0] if label is None else label)
