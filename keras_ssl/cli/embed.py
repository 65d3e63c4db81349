"""Writes the features of images into a file.

    keras-ssl embed --run=runs/simclr-photos-1 --data=photos/ --output=features.npz
    keras-ssl embed --backbone=backbone.keras --data=photos/ --output=features.npz --grid=2
    keras-ssl embed --run=runs/simclr-photos-1 --output=features.npz --projector=logs/

The file holds `features` (float32, a row an image), and `labels`, `paths` and `class_names` where there are such.
Images of the training split come first, then those of the test split: `split` says which (0, 1).
"""

import pathlib

import numpy as np
from absl import flags

from keras_ssl.cli.common import Run, define_backbone, define_data, new_flags, verbose, writable

FLAGS, _define = new_flags(__name__)
define_backbone(_define)
define_data(_define)
flags.DEFINE_string("output", "features.npz", "The file.", **_define)
flags.DEFINE_boolean("overwrite", False, "Write --output even where there is such a file.", **_define)
flags.DEFINE_string("layer", None, "A layer of the backbone, by name: keras-ssl inspect lists them.", **_define)
flags.DEFINE_integer("grid", 1, "A feature map is averaged over so many cells a side.", lower_bound=1, **_define)
flags.DEFINE_integer("batch_size", 256, "Images in the network at a time.", lower_bound=1, **_define)
flags.DEFINE_string(
    "projector", None, "A folder of TensorBoard's logs: features of 1,000 images for its projector.", **_define
)


def run(settings):
    from keras_ssl import evaluate
    from keras_ssl.cli import outcome
    from keras_ssl.evaluate import projector

    output = writable(settings.output, "--output", settings.overwrite, (".npz",))
    used = Run(settings)
    _, loaded = used.load(settings)
    splits = [split for split in (loaded.train, loaded.test) if split is not None]
    arrays = {"features": [], "split": []}
    options = {"layer": settings.layer, "grid": settings.grid, "batch_size": settings.batch_size}
    for number, split in enumerate(splits):
        rows = evaluate.extract_features(used.backbone, split.images, verbose=verbose(), **options)
        arrays["features"].append(rows)
        arrays["split"].append(np.full(len(rows), number))
    if all(split.labels is not None for split in splits):
        arrays["labels"] = [split.labels for split in splits]
    if all(split.paths is not None for split in splits):
        arrays["paths"] = [np.array([str(path) for path in split.paths]) for split in splits]
    arrays = {name: np.concatenate(parts) for name, parts in arrays.items()}
    if loaded.train.class_names:
        arrays["class_names"] = np.array(loaded.train.class_names)
    np.savez(output, **arrays)
    rows, width = arrays["features"].shape
    print(f"\n{rows:,} rows of {width} features: {output}")
    if settings.projector:
        logs = pathlib.Path(settings.projector).expanduser()
        projector.write(logs, *outcome.embedded(used.backbone, loaded.test or loaded.train, **options))
        print(f"projector: tensorboard --logdir={settings.projector}")
    return {"rows": rows, "features": width, "file": str(output)}
