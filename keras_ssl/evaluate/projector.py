"""Writes features for TensorBoard's projector: a table, names and thumbnails, in its documented format."""

import pathlib

import numpy as np
from PIL import Image


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
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    features = np.asarray(features, "float32")
    for what, rows in (("names", names), ("images", images)):
        if rows is not None and len(rows) != len(features):
            raise ValueError(f"projector: there are {len(features)} features and {len(rows)} {what}: give one per row.")
    written = [folder / "features.tsv"]
    np.savetxt(written[0], features, fmt="%.6g", delimiter="\t")
    config = ["embeddings {", '  tensor_name: "features"', '  tensor_path: "features.tsv"']
    if names is not None:
        written.append(folder / "names.tsv")
        # One column has no header, says the projector; a tab or a line's end in a name would make another row of it.
        written[-1].write_text("".join(" ".join(str(name).split()) + "\n" for name in names), encoding="utf-8")
        config.append('  metadata_path: "names.tsv"')
    if images is not None:
        written.append(folder / "thumbnails.png")
        _sprite(np.asarray(images), value_range, side).save(written[-1])
        size = f"single_image_dim: {side}\n    single_image_dim: {side}"
        config.append(f'  sprite {{\n    image_path: "thumbnails.png"\n    {size}\n  }}')
    written.append(folder / "projector_config.pbtxt")
    written[-1].write_text("\n".join([*config, "}"]) + "\n", encoding="utf-8")
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
