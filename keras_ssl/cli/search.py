"""Finds the images that are most like an image, or near copies among all of them.

    keras-ssl search --run=runs/simclr-photos-1 --data=photos/ --query=boot.jpg
    keras-ssl search --run=runs/simclr-photos-1 --data=photos/ --query=a.jpg --query=b.jpg --k=20 --output=found.png
    keras-ssl search --run=runs/simclr-photos-1 --data=photos/ --copies=0.98

What is alike is what the backbone's features say: their cosine, 1 for the same image. Queries that are among the images
are not among the answers.
"""

import pathlib

import numpy as np
from absl import flags

from keras_ssl.cli.common import Run, define_backbone, define_data, fitting, new_flags, verbose, writable

FLAGS, _define = new_flags(__name__)
define_backbone(_define)
define_data(_define)
flags.DEFINE_multi_string("query", None, "An image file; give it several times for several.", **_define)
flags.DEFINE_integer("k", 9, "Images that are found for a query.", lower_bound=1, **_define)
flags.DEFINE_float(
    "copies",
    None,
    "In the place of a query: list the groups of images whose cosine is at least this.",
    lower_bound=-1.0,
    upper_bound=1.0,
    **_define,
)
flags.DEFINE_string("output", None, "A picture of queries and what was found, a .png file.", **_define)
flags.DEFINE_boolean("overwrite", False, "Write --output even where there is such a file.", **_define)


def run(settings):
    from keras_ssl import evaluate

    if bool(settings.query) == (settings.copies is not None):
        both = "both are given" if settings.query else "neither is"
        raise ValueError(f"Give --query=IMAGE to find what is like it, or --copies=0.98 to find near copies: {both}.")
    output = (
        writable(settings.output, "--output", settings.overwrite, (".png", ".svg", ".pdf")) if settings.output else None
    )
    used = Run(settings)
    queries = [_read(path, used.backbone.input_shape) for path in settings.query or ()]
    _, loaded = used.load(settings)
    images, paths = _all(loaded)
    if settings.k > len(images):
        raise ValueError(f"--k={settings.k} is more than the {len(images)} images: give --k={len(images)} or less.")
    features = np.concatenate(
        [evaluate.extract_features(used.backbone, part, verbose=verbose()) for part in images.parts]
    )
    if settings.copies is not None:
        return _copies(features, images, paths, settings.copies, output)
    return _search(settings, used, features, images, paths, queries, output)


def _search(settings, used, features, images, paths, queries, output):
    from keras_ssl import evaluate
    from keras_ssl.evaluate import plots

    if {query.shape for query in queries} != {tuple(images.shape[1:])}:  # a backbone of open size
        queries = [_read(path, (None, *images.shape[1:])) for path in settings.query]
    asked = evaluate.extract_features(used.backbone, np.stack(queries))
    own = {_path(query) for query in settings.query}
    others = np.array([row for row, path in enumerate(paths) if _path(path) not in own], "int64")
    if not len(others):
        raise ValueError("--query: all images are queries, and there is nothing else to find: give --data with more.")
    features = features[others]
    similarity, nearest = evaluate.search(features, asked, k=min(settings.k, len(others)))
    found = {}
    for number, query in enumerate(settings.query):
        print(f"\n{query}")
        found[query] = []
        for value, row in zip(similarity[number], others[nearest[number]]):
            found[query].append({"image": str(paths[row]), "similarity": round(float(value), 4)})
            print(f"  {value:.3f}  {paths[row]}")
    if output:
        figure = plots.neighbors(features, images.only(others), np.stack(queries), asked, count=settings.k)
        figure.savefig(output, dpi=160)
        print(f"\npicture: {output}")
    return {"found": found}


def _copies(features, images, paths, threshold, output):
    from keras_ssl import evaluate

    groups = [[int(row) for row in group] for group in evaluate.near_copies(features, threshold=threshold)]
    extra = sum(len(group) - 1 for group in groups)
    print(f"\n{len(groups):,} groups of near copies at a cosine of {threshold:g} or more; {extra:,} images are extra.")
    for group in groups[:20]:
        print("  " + "  ".join(str(paths[row]) for row in group))
    if len(groups) > 20:
        print(f"  and {len(groups) - 20:,} groups more: --json lists all.")
    if output and groups:
        from keras_ssl.evaluate import plots

        plots.groups(images, groups[:12]).savefig(output, dpi=160)
        print(f"\npicture: {output}")
    return {"threshold": threshold, "groups": [[str(paths[row]) for row in group] for group in groups]}


def _path(path):
    return pathlib.Path(path).resolve() if isinstance(path, (str, pathlib.Path)) else None


def _all(loaded):
    """All images, and a name for each: its path, or its number."""
    splits = [("train", loaded.train), ("test", loaded.test)]
    splits = [(name, split) for name, split in splits if split is not None]
    paths = [
        path for name, split in splits for path in (split.paths or [f"{name} image {row}" for row in range(len(split))])
    ]
    return _Joined([split.images for _, split in splits]), paths


class _Joined:
    """Images of several splits by one number, read when they are asked for."""

    def __init__(self, parts, rows=None):
        self.parts = parts
        self.rows = np.arange(sum(map(len, parts))) if rows is None else rows
        self.shape = (len(self.rows), *parts[0].shape[1:])

    def only(self, rows):
        """Some of them, numbered anew."""
        return _Joined(self.parts, self.rows[rows])

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, row):
        row = self.rows[row]
        for part in self.parts:
            if row < len(part):
                return np.asarray(part[row])
            row -= len(part)
        raise IndexError(row)


def _read(path, shape):
    """A query as the backbone takes it: gray or RGB, and of its size where that is fixed."""
    from PIL import Image, UnidentifiedImageError

    from keras_ssl.data import ImageFiles

    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"--query={path}: there is no such file.")
    try:
        with Image.open(file) as picture:
            size = (picture.size[1], picture.size[0])
        size = tuple(fixed or side for fixed, side in zip(shape[1:3], size))
        return fitting(ImageFiles([file], size, shape[-1])[:], shape)[0]
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(
            f"--query={path} can't be read as an image: {error}. Give a JPEG, PNG, BMP, GIF or WebP."
        ) from None
