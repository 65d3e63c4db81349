"""Writes features for TensorBoard's projector: a table, names and thumbnails, in its documented format."""

import pathlib

import numpy as np
from PIL import Image

from keras_ssl import files
from keras_ssl.evaluate.labels import check_finite


def write(folder, features, names=None, images=None, value_range=(0, 255), side=32):
    """Writes features that `tensorboard --logdir=FOLDER` shows in its projector.

    Args:
        folder: TensorBoard's log folder; created if missing.
        features: `(n, d)`; a browser can show a few thousand rows.
        names: one per row, or None.
        images: `(n, height, width, channels)` for thumbnails, or None.
        value_range: of the images.
        side: of a thumbnail, in pixels.

    Returns:
        The paths that were written.

    Raises:
        ValueError: features that are not finite or no `(n, d)`; names or images that are not one per row.
    """
    folder = pathlib.Path(folder)
    features = np.asarray(features, "float32")
    if features.ndim != 2:
        raise ValueError(f"projector: `features` is (n, d); its shape is {features.shape}.")
    check_finite(features, "projector: `features`")  # or the browser would show none of them
    for what, rows in (("names", names), ("images", images)):
        if rows is not None and len(rows) != len(features):
            raise ValueError(f"projector: there are {len(features)} features and {len(rows)} {what}: give one per row.")
    written = [folder / "features.tsv"]
    with files.replacing(written[0]) as temporary:
        np.savetxt(temporary, features, fmt="%.6g", delimiter="\t")
    config = ["embeddings {", '  tensor_name: "features"', '  tensor_path: "features.tsv"']
    if names is not None:
        written.append(folder / "names.tsv")
        # One column has no header, says the projector; a tab or a line's end in a name would make another row of it.
        files.write_text(written[-1], "".join(" ".join(str(name).split()) + "\n" for name in names), errors="replace")
        config.append('  metadata_path: "names.tsv"')
    if images is not None:
        written.append(folder / "thumbnails.png")
        with files.replacing(written[-1]) as temporary:
            _sprite(np.asarray(images), value_range, side).save(temporary)
        size = f"single_image_dim: {side}\n    single_image_dim: {side}"
        config.append(f'  sprite {{\n    image_path: "thumbnails.png"\n    {size}\n  }}')
    written.append(folder / "projector_config.pbtxt")
    files.write_text(written[-1], "\n".join([*config, "}"]) + "\n")
    return written


def _sprite(images, value_range, side):
    """All thumbnails in one picture, row by row, as many across as down."""
    across = int(np.ceil(np.sqrt(len(images))))
    low, high = value_range
    sheet = Image.new("RGB", (across * side, across * side), "white")
    for number, image in enumerate(images):
        shown = np.clip((image.astype("float32") - low) / (high - low) * 255.0, 0, 255).astype("uint8")
        shown = shown[..., :3] if shown.shape[-1] >= 3 else shown[..., 0]
        thumbnail = Image.fromarray(shown).convert("RGB").resize((side, side))
        sheet.paste(thumbnail, (number % across * side, number // across * side))
    return sheet
