"""Chooses the images to label first, and writes a table to fill in.

    keras-ssl select --run=runs/simclr-photos-1 --count=100
    keras-ssl select --run=runs/simclr-photos-1 --data=photos/ --labels=labels.csv --count=50 --output=more.csv

Images that have a label already, by --labels or by folder, are not chosen, and are told from the others: what is chosen
is new beside them. The table has them first, with their labels, and then the chosen ones, most useful first, without:
fill those in, and give the table as --labels to keras-ssl finetune or pretrain.
"""

import csv
import pathlib
import shlex

import numpy as np
from absl import flags

from keras_ssl import names
from keras_ssl.cli import words
from keras_ssl.cli.flags import (
    define_backbone,
    define_data,
    define_overwrite,
    define_seed,
    new_flags,
    output_file,
    progress,
)
from keras_ssl.cli.trained import TrainedBackbone
from keras_ssl.files import replacing

FLAGS, _define = new_flags(__name__)
define_backbone(_define)
define_data(_define)
flags.DEFINE_integer("count", 100, "How many images to choose.", lower_bound=1, **_define)
flags.DEFINE_enum(
    "strategy",
    names.STRATEGIES[0],
    list(names.STRATEGIES),
    "both: the most typical image of each cluster; diverse: each the farthest from those before, which finds rare "
    "kinds and broken pictures; typical: those with the nearest neighbors.",
    **_define,
)
flags.DEFINE_boolean("ignore_labels", False, "Choose among all images, as if none had a label.", **_define)
define_seed(_define)
flags.DEFINE_string("output", "to_label.csv", "The table.", **_define)
flags.DEFINE_string("picture", None, "A picture of the chosen images, numbered (.png, .svg or .pdf).", **_define)
define_overwrite(_define, "--output and --picture")


def check(settings):
    output = output_file(settings.output, "--output", settings.overwrite, (".csv",))
    kinds = (".png", ".svg", ".pdf")
    picture = settings.picture and output_file(settings.picture, "--picture", settings.overwrite, kinds)
    used = TrainedBackbone(settings)
    used.check_data(settings)
    return used, output, picture


def run(settings, used, output, picture):
    from keras_ssl import evaluate
    from keras_ssl.cli import experiment
    from keras_ssl.data.listing import shown

    used.load()
    source, loaded = used.load_images(settings)
    train = loaded.train
    features = evaluate.extract_features(used.backbone, train.images, verbose=progress())
    kept = experiment.readable(train)
    labeled = np.zeros(len(kept), bool) if settings.ignore_labels else train.has_label[kept]
    free = int(np.count_nonzero(~labeled))
    if settings.count > free:
        ignore = "" if not labeled.any() else ", or --ignore_labels to choose among all"
        fewer = f"--count={free} or less" if free else "more images"
        raise ValueError(
            f"--count={settings.count}: {free:,} of the {len(kept):,} training images have no label: give {fewer}"
            f"{ignore}."
        )
    rows = kept[evaluate.select(features[kept], settings.count, settings.strategy, labeled, settings.seed)]
    known = [] if settings.ignore_labels else _known(loaded, source)
    chosen = [_name(train, row, source) for row in rows]
    _write(output, train.paths is not None, known, chosen)
    of = f"{free:,} training images{'' if settings.ignore_labels else ' without a label'}"
    print(f"\n{len(chosen):,} of {of}, chosen by --strategy={settings.strategy}:")
    for number, name in enumerate(chosen[:10], 1):
        print(f"  {number:3}  {shown(name)}")
    if len(chosen) > 10:
        print(f"  and {len(chosen) - 10:,} more")
    print(f"\ntable: {output}" + (f", with {len(known):,} that have a label" if known else ""))
    if train.paths is not None and settings.run:
        print("next: fill in the empty labels, then")
        given = {"run": settings.run, **({"data": settings.data} if settings.data else {}), "labels": str(output)}
        print(words.command("keras-ssl finetune", *(f"--{name}={shlex.quote(it)}" for name, it in given.items())))
    if picture:
        from keras_ssl.evaluate import plots

        first = rows[: plots.MOST_CHOSEN]
        images = np.stack([np.asarray(train.images[int(row)]) for row in first])
        figure = plots.chosen(images, train.value_range or (0, 255))
        with replacing(picture) as temporary:
            figure.savefig(temporary, dpi=160)
        print(f"picture: {picture}" + ("" if len(first) == len(rows) else f", of the first {len(first)}"))
    return {
        "strategy": settings.strategy,
        "labeled": int(labeled.sum()),
        "chosen": [{"image": name, "row": int(row)} for name, row in zip(chosen, rows)],
        "file": str(output),
    }


def _name(split, row, source):
    """What the table calls an image: its path from the folder, or its row."""
    return str(int(row)) if split.paths is None else _below(split.paths[row], source)


def _below(path, source):
    return pathlib.Path(path).relative_to(pathlib.Path(source).expanduser()).as_posix()


def _known(loaded, source):
    """`(name, label)` of all pictures of a folder that have a label: the table replaces what they have it of."""
    splits = [split for split in loaded.splits().values() if split.paths is not None]
    return [
        (_below(split.paths[row], source), split.name_of(split.labels[row]))
        for split in splits
        for row in np.flatnonzero(split.has_label)
    ]


def _write(output, of_files, known, chosen):
    # A file's name need not be valid text; `LabelTable` reads it back as it is.
    text = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
    with replacing(output) as temporary, open(temporary, "w", **text) as file:
        writer = csv.writer(file)
        writer.writerow(["file" if of_files else "row", "label"])
        writer.writerows([*known, *((name, "") for name in chosen)])
