"""Writes the features of images into a file.

    keras-ssl embed --run=runs/simclr-photos-1 --data=photos/ --output=features.npz
    keras-ssl embed --backbone=backbone.keras --data=photos/ --output=features.npz --grid=2
    keras-ssl embed --run=runs/simclr-photos-1 --output=features.npz --projector=logs/

The file holds `features` (float32, one row per image), and `labels`, `paths` and `class_names` where there are any.
Images of the training split come first, then those of the validation and of the test split; `split` numbers them.
A label of −1 means none. A picture that can't be read when it is its turn is left out, and named.
"""

import pathlib

import numpy as np
from absl import flags

from keras_ssl.cli.flags import define_backbone, define_data, define_overwrite, new_flags, output_file, progress
from keras_ssl.cli.trained import TrainedBackbone
from keras_ssl.files import replacing

FLAGS, _define = new_flags(__name__)
define_backbone(_define)
define_data(_define)
flags.DEFINE_string("output", "features.npz", "The file to write.", **_define)
define_overwrite(_define, "--output")
flags.DEFINE_string("layer", None, "A layer of the backbone, by name: keras-ssl inspect lists them.", **_define)
flags.DEFINE_integer(
    "grid", 1, "Cells per side over which a feature map is averaged; 1 for one mean.", lower_bound=1, **_define
)
flags.DEFINE_integer("batch_size", 256, "Images per batch.", lower_bound=1, **_define)
flags.DEFINE_string(
    "projector", None, "A log folder of TensorBoard: write features of 1,000 images for its projector.", **_define
)


def check(settings):
    output = output_file(settings.output, "--output", settings.overwrite, (".npz",))
    used = TrainedBackbone(settings)
    used.check_data(settings)
    return used, output


def run(settings, used, output):
    from keras_ssl import evaluate
    from keras_ssl.cli import experiment
    from keras_ssl.evaluate import projector

    _, loaded = used.load().load_images(settings)
    splits = list(loaded.splits().values())
    arrays = {"features": [], "split": [], "labels": [], "paths": []}
    options = {"layer": settings.layer, "grid": settings.grid, "batch_size": settings.batch_size}
    for number, split in enumerate(splits):
        rows = evaluate.extract_features(used.backbone, split.images, verbose=progress(), **options)
        kept = experiment.readable(split)
        arrays["features"].append(rows[kept])
        arrays["split"].append(np.full(len(kept), number))
        arrays["labels"].append(np.full(len(kept), -1) if split.labels is None else split.labels[kept])
        arrays["paths"].append(np.array([str(split.paths[row]) for row in kept]) if split.paths else None)
    if all(split.labels is None for split in splits):
        del arrays["labels"]
    if not all(split.paths for split in splits):
        del arrays["paths"]
    arrays = {name: np.concatenate(parts) for name, parts in arrays.items()}
    if loaded.train.class_names:
        arrays["class_names"] = np.array(loaded.train.class_names)
    with replacing(output) as temporary:
        np.savez(temporary, **arrays)
    rows, width = arrays["features"].shape
    print(f"\n{rows:,} rows of {width} features: {output}")
    if settings.projector:
        logs = pathlib.Path(settings.projector).expanduser()
        projector.write(logs, *experiment.embedded(used.backbone, loaded.test or loaded.train, **options))
        print(f"projector: tensorboard --logdir={settings.projector}")
    return {"rows": rows, "features": width, "file": str(output)}
