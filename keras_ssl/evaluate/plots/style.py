"""What all pictures share: sizes, colors, axes, and how images and names are shown."""

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

SMALL = 9  # points, 12 pixels of a screen
FONT = FontProperties(size=SMALL)
TEXT, GAP = 0.19, 0.08  # inches: a line of it, and the space between pictures
BLUE, ORANGE, RED, GREEN, GRAY, LINE = "#2f6fde", "#e07a2f", "#d0342c", "#3f9b50", "#8a8f98", "#dddddd"
FAINT = "#5f6670"  # words that are not the first to be read
LATER = LinearSegmentedColormap.from_list("later", ["#a9c1ea", "#123a7a"])


def plain_axes(axes):
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)


def label_colorbar(bar, label):
    bar.set_label(label, fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)


def displayable(picture, value_range):
    """Returns an image as gray or RGB in [0, 1]; of more than three channels the first three."""
    low, high = value_range
    picture = np.clip((np.asarray(picture, "float32") - low) / (high - low), 0.0, 1.0)
    return picture[..., :3] if picture.shape[-1] >= 3 else picture[..., 0]


def words_of(name):
    """The name of a metric as words: "val_knn_accuracy" is "validation knn accuracy"."""
    words = name.removeprefix("val_").replace("knn", "kNN").replace("rank_me", "RankMe").replace("alpha_req", "α-ReQ")
    words = words.replace("_", " ").encode("utf-8", "replace").decode().replace("$", r"\$")
    return f"validation {words}" if name.startswith("val_") else words


def shortened(name, inches):
    """Cuts a name to a width, and escapes dollar signs, which matplotlib would read as mathematics."""
    name = shown = str(name).encode("utf-8", "replace").decode()  # the name of a folder need not be valid text
    while len(name) > 1 and text_to_path.get_text_width_height_descent(shown, FONT, False)[0] > inches * 72:
        name = name[:-1]
        shown = f"{name.rstrip()}…"
    return shown.replace("$", r"\$")
