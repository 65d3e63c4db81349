"""Finds the images that are most similar to an image, or near copies among all images.

    keras-ssl search --run=runs/simclr-photos-1 --data=photos/ --query=boot.jpg
    keras-ssl search --run=runs/simclr-photos-1 --data=photos/ --query=a.jpg --query=b.jpg --k=20 --output=found.png
    keras-ssl search --run=runs/simclr-photos-1 --data=photos/ --copies=0.98

Similarity is the cosine of the backbone's features: 1 for the same image. A query that is itself among the images is
left out of the results.
"""

import dataclasses
import pathlib
import warnings

import numpy as np
from absl import flags

from keras_ssl.cli import words
from keras_ssl.cli.flags import define_backbone, define_data, define_overwrite, new_flags, output_file, progress
from keras_ssl.cli.trained import TrainedBackbone, fitting
from keras_ssl.files import replacing, similar

_NAMES = 3  # of a group that are printed
_SWALLOWED = 0.1  # of all images in one group: those are not copies

FLAGS, _define = new_flags(__name__)
define_backbone(_define)
define_data(_define)
flags.DEFINE_multi_string("query", None, "An image file; repeat the flag for several.", **_define)
flags.DEFINE_integer("k", 9, "Results per query.", lower_bound=1, **_define)
flags.DEFINE_float(
    "copies",
    None,
    "Instead of a query: list the groups of images whose similarity is at least this.",
    lower_bound=-1.0,
    upper_bound=1.0,
    **_define,
)
flags.DEFINE_string(
    "output",
    None,
    "A picture of the queries and the results, or of the groups of copies (.png, .svg or .pdf; default with --copies: "
    "the next free copies-N.png in the run folder, or beside the backbone).",
    **_define,
)
define_overwrite(_define, "--output")


def check(settings):
    if bool(settings.query) == (settings.copies is not None):
        both = "both are given" if settings.query else "neither is given"
        raise ValueError(f"Give --query=IMAGE to find similar images, or --copies=0.98 to find near copies: {both}.")
    kinds = (".png", ".svg", ".pdf")
    output = settings.output and output_file(settings.output, "--output", settings.overwrite, kinds)
    for query in settings.query or ():
        if not pathlib.Path(query).expanduser().is_file():
            raise FileNotFoundError(f"--query={query}: there is no such file. {similar(query)}".rstrip())
    used = TrainedBackbone(settings)
    used.check_data(settings)
    if settings.copies is not None and output is None:
        output = _next_free(used.path.parent)
    return used, output


def _next_free(folder):
    """A contact sheet that is not there yet."""
    sheets = (folder / f"copies-{number}.png" for number in range(1, 10_000))
    return next(sheet for sheet in sheets if not sheet.exists())


def run(settings, used, output):
    from keras_ssl import evaluate
    from keras_ssl.cli import experiment

    used.load()
    for path in settings.query or ():
        _read(path, used.backbone.input_shape)  # a broken one is refused before the images are read
    _, loaded = used.load_images(settings)
    files = loaded.train.files
    images, paths = _all(loaded)
    shape = (None, *images.shape[1:])  # where the backbone's is open, that of the images
    queries = [_read(path, shape, files and files.decoder) for path in settings.query or ()]
    if settings.k > len(images):
        raise ValueError(f"--k={settings.k} is more than the {len(images)} images: give --k={len(images)} or less.")
    features = np.concatenate(
        [evaluate.extract_features(used.backbone, part, verbose=progress()) for part in images.parts]
    )
    kept = np.concatenate([experiment.readable(split) + start for start, split in _starts(loaded)])
    features, images, paths = features[kept], images.only(kept), [paths[row] for row in kept]
    if settings.copies is not None:
        return _copies(features, images, paths, settings.copies, output)
    return _search(settings, used, features, images, paths, queries, output)


def _search(settings, used, features, images, paths, queries, output):
    from keras_ssl import evaluate
    from keras_ssl.data.listing import shown
    from keras_ssl.evaluate import plots

    asked = evaluate.extract_features(used.backbone, np.stack(queries))
    own = {_path(query) for query in settings.query}
    others = np.array([row for row, path in enumerate(paths) if _path(path) not in own], "int64")
    if not len(others):
        raise ValueError(
            "--query: all images are queries, and there are no others to find: give --data with more images."
        )
    features = features[others]
    similarity, nearest = evaluate.search(features, asked, k=min(settings.k, len(others)))
    found = {}
    for number, query in enumerate(settings.query):
        print(f"\n{shown(query)}")
        found[query] = []
        for value, row in zip(similarity[number], others[nearest[number]]):
            found[query].append({"image": str(paths[row]), "similarity": round(float(value), 4)})
            print(f"  {value:.3f}  {shown(str(paths[row]))}")
    if output:
        figure = plots.neighbors(features, images.only(others), np.stack(queries), asked, count=settings.k)
        with replacing(output) as temporary:
            figure.savefig(temporary, dpi=160)
        print(f"\npicture: {output}")
    return {"found": found}


def _copies(features, images, paths, threshold, output):
    from keras_ssl import evaluate
    from keras_ssl.data.listing import shown

    found = [_group(features, group) for group in evaluate.near_copies(features, threshold=threshold)]
    found.sort(key=lambda group: (-len(group[0]), -group[2]))
    extra = sum(len(rows) - 1 for rows, _, _ in found)
    print(
        "\n"
        + words.wrapped(
            f"{len(found):,} groups of near copies with a similarity of {threshold:g} or more; {extra:,} of "
            f"{len(images):,} images are extra copies."
        )
    )
    for rows, least, most in found[:20]:
        cosine = f"{least:.4f}" if f"{least:.4f}" == f"{most:.4f}" else f"{least:.4f} to {most:.4f}"
        print(f"\n  {len(rows):,} images, cosine {cosine}")
        for row in rows[:_NAMES]:
            print(f"    {shown(str(paths[row]))}")
        if len(rows) > _NAMES:
            print(f"    and {len(rows) - _NAMES:,} more")
    if len(found) > 20:
        print(f"\n  and {len(found) - 20:,} more groups: --json lists all.")
    if found:
        from keras_ssl.evaluate import plots

        with replacing(output) as temporary:
            plots.groups(images, [rows for rows, _, _ in found[:12]]).savefig(temporary, dpi=160)
        print(f"\npicture: {output}")
    if found and len(found[0][0]) >= _SWALLOWED * len(images):
        warnings.warn(
            f"One group has {len(found[0][0]):,} of the {len(images):,} images: at a similarity of {threshold:g} these "
            f"are hardly copies. Try {_higher(threshold)}, and look at the picture."
        )
    return {
        "threshold": threshold,
        "groups": [[str(paths[row]) for row in rows] for rows, _, _ in found],
        "similarity": [[round(least, 4), round(most, 4)] for _, least, most in found],
        "picture": str(output) if found else None,
    }


def _group(features, rows):
    """`(rows, least, most)`: the cosines between each of its images and the one that is most similar to it."""
    from keras_ssl import evaluate

    rows = [int(row) for row in rows]
    similarity, _ = evaluate.search(features[rows], k=1)
    return rows, float(similarity.min()), float(similarity.max())


def _higher(threshold):
    """A value of --copies that is half as far from 1."""
    return f"--copies={1 - (1 - threshold) / 2:.4g}" if threshold < 0.9999 else "--copies=1"


def _path(path):
    return pathlib.Path(path).resolve() if isinstance(path, (str, pathlib.Path)) else None


def _all(loaded):
    """All images, and a name for each: its path, or its number."""
    from keras_ssl.data.lazy import Joined

    splits = list(loaded.splits().items())
    paths = [
        path for name, split in splits for path in (split.paths or [f"{name} image {row}" for row in range(len(split))])
    ]
    return Joined([split.images for _, split in splits]), paths


def _starts(loaded):
    """`(number of its first image, split)` of each split, as `_all` numbers the images through."""
    splits = list(loaded.splits().values())
    return zip(np.cumsum([0, *map(len, splits)])[:-1], splits)


def _read(path, shape, decoder=None):
    """A query as the backbone takes it: gray or RGB, and of its size where that is fixed.

    Args:
        decoder: of the images that are searched, whose way to bring pictures to a size is taken; None for the default.
    """

    from keras_ssl.data import ImageFiles
    from keras_ssl.data.pictures import Decoder, read_header, reason_of

    file = pathlib.Path(path).expanduser()
    try:
        size = tuple(fixed or side for fixed, side in zip(shape[1:3], read_header(file).size))
        channels = shape[-1] if shape[-1] in (1, 3) else 3
        same = dataclasses.replace(decoder, size=size, channels=channels) if decoder else Decoder(size, channels)
        files = ImageFiles([file], same)
        return fitting(files[:], shape)[0]
    except Exception as error:  # whatever a decoder makes of a broken file
        raise ValueError(f"--query={path} can't be read as an image: {reason_of(error)}.") from None
