"""Pictures of a run: each function gives a matplotlib figure, and nothing is shown or written."""

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from keras_ssl.evaluate.knn import most_similar, unit_rows

_GRAY = "#8a8f98"


def curves(history, names=None):
    """One panel for each figure of a history, by epoch; the validation figure in the same panel.

    Args:
        history: a dict of name to list, as Keras' `History.history`.
        names: which figures; None for all.
    """
    names = names or [name for name in history if not name.startswith("val_")]
    figure = Figure(figsize=(3.0 * len(names), 2.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names):
        for key, colour, label in ((name, "#2f6fde", "training"), (f"val_{name}", "#e07a2f", "validation")):
            if key in history:
                axes.plot(np.arange(1, len(history[key]) + 1), history[key], color=colour, marker=".", label=label)
        low, high = axes.get_ylim()
        if high - low < 0.05:  # or noise in the third decimal would look like ups and downs
            axes.set_ylim((low + high) / 2 - 0.025, (low + high) / 2 + 0.025)
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.set_xlabel("epoch", fontsize=9)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        if f"val_{name}" in history:
            axes.legend(fontsize=8, frameon=False)
    return figure


def views(images, made, value_range=(0, 255)):
    """Images in the first row, and one row below for each of their views.

    Args:
        images: `(n, height, width, channels)`.
        made: the views, each `(n, height, width, channels)`.
        value_range: of all of them.
    """
    rows = [images, *made]
    figure = Figure(figsize=(1.0 * len(images) + 0.8, 1.05 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(images), squeeze=False)
    for row, pictures in enumerate(rows):
        for axes, picture in zip(grid[row], pictures):
            _picture(axes, picture, value_range)
        grid[row, 0].set_ylabel("image" if row == 0 else f"view {row}", fontsize=9, rotation=0, ha="right", va="center")
    return figure


def neighbours(features, images, queries, query_features, count=8, value_range=(0, 255), names=None, query_names=None):
    """Queries in the first column, and beside each its most similar images.

    Args:
        features, images: `(N, d)` and `(N, height, width, channels)`: what is searched.
        queries, query_features: the images that are asked for, and their features.
        count: neighbours a query.
        names, query_names: a caption an image, or None. Neighbours of another name than their query's are framed.
    """
    similarity, nearest = most_similar(unit_rows(features), unit_rows(query_features), min(count, len(features)))
    count = nearest.shape[1]
    figure = Figure(figsize=(1.05 * (count + 1.4), 1.25 * len(queries)), layout="constrained")
    grid = figure.subplots(
        len(queries), count + 2, squeeze=False, gridspec_kw={"width_ratios": [1, 0.25] + [1] * count}
    )
    for row, query in enumerate(queries):
        _picture(grid[row, 0], query, value_range)
        grid[row, 1].set_axis_off()
        if query_names is not None:
            grid[row, 0].set_title(query_names[row], fontsize=9, fontweight="bold")
        for column, place in enumerate(nearest[row]):
            axes = grid[row, column + 2]
            _picture(axes, images[place], value_range)
            caption = f"{similarity[row, column]:.2f}"
            if names is not None:
                caption = f"{names[place]} {caption}"
                if query_names is not None and names[place] != query_names[row]:
                    for spine in axes.spines.values():
                        spine.set(visible=True, color="#d0342c", linewidth=2)
            axes.set_title(caption, fontsize=8)
    return figure


def embedding_map(features, images=None, names=None, value_range=(0, 255), thumbnails=150, seed=0):
    """Features on a plane by t-SNE (van der Maaten & Hinton, 2008), after PCA to 50 dimensions.

    Args:
        features: `(n, d)`; a thousand take some seconds.
        images: `(n, height, width, channels)` for thumbnails, or None.
        names: one a row, by which points are coloured, or None.
        thumbnails: how many images are drawn at most, spread over the map.
        seed: of PCA and t-SNE.
    """
    plane = project(features, seed)
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    if names is None:
        axes.scatter(*plane.T, s=8, color=_GRAY, alpha=0.7)
    else:
        kinds = sorted(set(names))
        for number, kind in enumerate(kinds):
            rows = [row for row, name in enumerate(names) if name == kind]
            axes.scatter(*plane[rows].T, s=9, color=colour(number, len(kinds)), label=kind, alpha=0.85)
        if len(kinds) <= 20:
            figure.legend(loc="outside lower center", ncols=5, fontsize=10, frameon=False, markerscale=2.5)
    if images is not None:
        _thumbnails(axes, plane, images, value_range, thumbnails)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#dddddd")
    return figure


def project(features, seed=0):
    """`(n, 2)`: t-SNE of the 50 first principal components of rows of length 1."""
    rows = unit_rows(features)
    components = min(50, *rows.shape)
    rows = PCA(components, random_state=seed).fit_transform(rows)
    perplexity = min(30.0, max(1.0, (len(rows) - 1) / 3))
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(rows)


def colour(number, count):
    from matplotlib import colormaps

    return colormaps["tab10" if count <= 10 else "tab20"](number % (10 if count <= 10 else 20))


def _thumbnails(axes, plane, images, value_range, most):
    """Draws the images whose places on the map are free: one a cell of a grid, the one nearest to its middle."""
    side = max(1, int(np.sqrt(most)))
    low, high = plane.min(axis=0), plane.max(axis=0)
    cells = np.minimum(((plane - low) / np.maximum(high - low, 1e-9) * side).astype(int), side - 1)
    taken = {}
    for row, cell in enumerate(map(tuple, cells)):
        taken.setdefault(cell, row)
    zoom = 20.0 / max(images.shape[1:3])
    for row in taken.values():
        picture = OffsetImage(_shown(images[row], value_range), zoom=zoom, cmap="gray", norm=Normalize(0.0, 1.0))
        axes.add_artist(AnnotationBbox(picture, plane[row], frameon=False))


def _picture(axes, picture, value_range):
    axes.imshow(_shown(picture, value_range), cmap="gray", vmin=0.0, vmax=1.0)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _shown(picture, value_range):
    """An image of any number of channels as gray or RGB in [0, 1]; of many bands, the first three."""
    low, high = value_range
    picture = np.clip((np.asarray(picture, "float32") - low) / (high - low), 0.0, 1.0)
    return picture[..., :3] if picture.shape[-1] >= 3 else picture[..., 0]
