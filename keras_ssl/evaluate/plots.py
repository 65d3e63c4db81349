"""Pictures of a run: each function gives a matplotlib figure, and nothing is shown or written.

`width` is in inches. At 96 pixels an inch no text is smaller than 12 pixels, whatever the width: a narrow figure shows
fewer things, not smaller ones.
"""

import numpy as np
from keras import ops
from matplotlib import colormaps
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from keras_ssl import losses
from keras_ssl.evaluate.indicator import paired, rank_correlation
from keras_ssl.evaluate.knn import most_similar, unit_rows

_SMALL = 9  # points, 12 pixels of a screen
_TEXT, _GAP = 0.19, 0.08  # inches: a line of it, and the space between pictures
_BLUE, _ORANGE, _RED, _GRAY, _LINE = "#2f6fde", "#e07a2f", "#d0342c", "#8a8f98", "#dddddd"
_LATER = LinearSegmentedColormap.from_list("later", ["#c3d3ee", "#123a7a"])


def curves(history, names=None, width=None):
    """One panel for each figure of a history, by epoch; the validation figure in the same panel.

    Args:
        history: a dict of name to list, as Keras' `History.history`.
        names: which figures; None for all.
        width: of all panels together; None for 3 inches each.
    """
    names = names or [name for name in history if not name.startswith("val_")]
    figure = Figure(figsize=(width or 3.0 * len(names), 2.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names):
        for key, colour, label in ((name, _BLUE, "training"), (f"val_{name}", _ORANGE, "validation")):
            if key in history:
                _curve(axes, np.arange(1, len(history[key]) + 1), history[key], colour, label)
        low, high = axes.get_ylim()
        if high - low < 0.05:  # or noise in the third decimal would look like ups and downs
            axes.set_ylim((low + high) / 2 - 0.025, (low + high) / 2 + 0.025)
        axes.set_title(_words(name), fontsize=10)
        axes.set_xlabel("epoch", fontsize=_SMALL)
        if f"val_{name}" in history:
            axes.legend(fontsize=_SMALL, frameon=False)
    return figure


def indicator(history, figure, downstream, width=8.0):
    """A figure that needs no labels beside a downstream accuracy: both over epochs, and against each other.

    Args:
        history: a dict of name to list by epoch.
        figure, downstream: names in it. Only epochs where both were measured are shown.
        width: below 6 inches the three panels stand below each other.

    Returns:
        A figure; among its points later checkpoints are darker.
    """
    epochs, proxy, accuracy = paired(history, figure, downstream)
    if not len(epochs):
        raise ValueError(f"plots.indicator: there is no epoch of which both `{figure}` and `{downstream}` are known.")
    narrow = width < 6.0
    drawn = Figure(figsize=(width, 6.6 if narrow else 3.7), layout="constrained")
    if narrow:
        above, below, cloud = drawn.subplots(3, 1, gridspec_kw={"height_ratios": [1, 1, 1.7]})
    else:
        panels = drawn.subplot_mosaic([["proxy", "cloud"], ["downstream", "cloud"]])
        above, below, cloud = panels["proxy"], panels["downstream"], panels["cloud"]
    below.sharex(above)
    _curve(above, epochs, proxy, _BLUE)
    _curve(below, epochs, accuracy, _ORANGE)
    above.tick_params(labelbottom=False)
    for axes, name in ((above, figure), (below, downstream)):
        axes.set_title(_words(name), fontsize=10, loc="left")
    below.set_xlabel("epoch", fontsize=_SMALL)

    cloud.plot(proxy, accuracy, color=_LINE, zorder=1)
    cloud.scatter(proxy, accuracy, c=epochs, cmap=_LATER, s=34, zorder=2)
    _plain(cloud)
    for place, above_it in {len(epochs) - 1: False, 0: True}.items():
        cloud.annotate(
            f"epoch {epochs[place]}",
            (proxy[place], accuracy[place]),
            (0, 7 if above_it else -8),
            textcoords="offset points",
            fontsize=_SMALL,
            ha="center",
            va="bottom" if above_it else "top",
        )
    cloud.margins(0.14)
    cloud.set_xlabel(_words(figure), fontsize=_SMALL)
    cloud.set_ylabel(_words(downstream), fontsize=_SMALL)
    rho, _, count = rank_correlation(proxy, accuracy)
    found = "undefined" if rho is None else f"{rho:+.2f}".replace("-", "−")
    cloud.set_title(f"rank correlation {found}, {count} checkpoints", fontsize=10, loc="left")
    return drawn


def views(images, made, value_range=(0, 255), width=None):
    """Images in the first row, and one row below for each of their views.

    Args:
        images: `(n, height, width, channels)`.
        made: the views, each `(n, height, width, channels)`.
        value_range: of all of them.
        width: None for an inch an image.
    """
    rows, width, label = [images, *made], width or 1.0 * len(images) + 0.6, 0.55
    step, side = _columns(width - label, len(images))
    height = side * _aspect(images)
    sheet = _Sheet(width, len(rows) * (height + _GAP) - _GAP)
    for row, pictures in enumerate(rows):
        top = row * (height + _GAP)
        sheet.text(0.0, top + height / 2, "image" if row == 0 else f"view {row}", va="center")
        for number, picture in enumerate(pictures):
            sheet.picture(label + number * step, top, side, picture, value_range)
    return sheet.figure


def views_of(images, views, count=8, value_range=(0, 255), width=None):
    """Each image under so many draws of a policy, to check an augmentation by eye.

    Args:
        images: one image `(height, width, channels)`, or a few, `(n, height, width, channels)`.
        views: `keras_ssl.augment.Views`, or any function of a batch that gives a batch, or one for each view.
        count: draws of each view.
        value_range: of the images.
        width: None for an inch a picture.

    Returns:
        A figure with the images in the first column; a row for each view of each image.
    """
    images = np.asarray(images)
    images = images[None] if images.ndim == 3 else images
    made = views(np.repeat(images, count, axis=0))
    made = [ops.convert_to_numpy(view) for view in (made if isinstance(made, (tuple, list)) else [made])]
    # Image, draw, and the rest.
    made = [view.reshape(len(images), count, *view.shape[1:]) for view in made]
    width, first = width or 1.0 * (count + 1.4), 0.2
    step, side = _columns(width - first, count + 1)
    block = side * _aspect(images) + _TEXT + _GAP
    sheet = _Sheet(width, len(images) * len(made) * block)
    for number, image in enumerate(images):
        for kind, view in enumerate(made):
            top = (number * len(made) + kind) * block
            if kind == 0:
                sheet.text(side / 2, top, "image", ha="center")
                sheet.picture(0.0, top + _TEXT, side, image, value_range)
            sheet.text(step + first, top, f"view {kind + 1}" if len(made) > 1 else "views")
            for draw, picture in enumerate(view[number]):
                sheet.picture((draw + 1) * step + first, top + _TEXT, side, picture, value_range)
    return sheet.figure


def task(images, pictures, captions, places=None, value_range=(0, 255), width=None):
    """What a task that labels itself shows the network, with the answers.

    `task(images, **model.task(images))` for `images` as `model.views` makes them.

    Args:
        images: `(n, height, width, channels)`.
        pictures: k arrays `(n, h, w, channels)`: what the network is shown, in its order.
        captions: n lists of k strings: what the network does not know.
        places: for patches: whole numbers `(n, k, 2)`, the first row and column of each in its image.
        value_range: of images and pictures.
        width: None for 2 inches a panel.

    Returns:
        A figure with a row for each image. Without places: the pictures. With places: the image with its patches
        outlined, the patches as they are shown with the answers below, and the patches put back. Numbers, where there
        is room for them, are the order in which patches are shown.
    """
    pictures = [ops.convert_to_numpy(picture) for picture in pictures]
    images = ops.convert_to_numpy(images)
    if places is None:
        return _captioned(pictures, captions, value_range, width)
    places = ops.convert_to_numpy(places)
    width = width or 6.6
    step, side = _columns(width, 3)
    across = int(np.ceil(np.sqrt(len(pictures))))
    down, small = -(-len(pictures) // across), side / across - _GAP
    inch = side / images.shape[2]
    numbered = pictures[0].shape[2] * inch > 0.4  # or the numbers would cover the patches
    block = max(side * _aspect(images), down * (small + _TEXT)) + 2 * _GAP
    low, high = value_range
    sheet = _Sheet(width, len(images) * block + _TEXT)
    for column, title in enumerate(("cut out", "shown", "put back")):
        sheet.text(column * step, 0.0, title)
    for row, image in enumerate(images):
        top = _TEXT + row * block
        patches = [picture[row] for picture in pictures]
        sheet.picture(0.0, top, side, image, value_range)
        for number, (patch, (first, left)) in enumerate(zip(patches, places[row]), 1):
            sheet.frame(left * inch, top + first * inch, patch.shape[1] * inch, patch.shape[0] * inch, _ORANGE, 1.2)
            if numbered:
                sheet.number(left * inch, top + first * inch, number)
        for number, (patch, caption) in enumerate(zip(patches, captions[row])):
            left = step + number % across * side / across
            above = top + number // across * (small + _TEXT)
            sheet.picture(left, above, small, patch, value_range)
            sheet.frame(left, above, small, small * _aspect(patch), _LINE, 0.8)
            if numbered:
                sheet.number(left, above, number + 1)
            sheet.text(left + small / 2, above + small, caption, ha="center")
        whole = put_back(patches, places[row], image.shape, fill=low + 0.9 * (high - low))
        sheet.picture(2 * step, top, side, whole, value_range)
    return sheet.figure


def put_back(patches, places, shape, fill=0.0):
    """One image's patches at their places: `(height, width, channels)`, the rest filled.

    Args:
        patches: k arrays `(h, w, channels)`.
        places: `(k, 2)`, first row and column.
        shape: of the image.
        fill: value where no patch lies.
    """
    image = np.full(shape, fill, "float32")
    for patch, (top, left) in zip(patches, np.asarray(places)):
        image[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
    return image


def neighbours(
    features, images, queries, query_features, count=8, value_range=(0, 255), names=None, query_names=None, width=None
):
    """Queries in the first column, and beside each its most similar images with the cosine.

    Args:
        features, images: `(N, d)` and `(N, height, width, channels)`: what is searched.
        queries, query_features: the images that are asked for, and their features.
        count: neighbours a query.
        names, query_names: a caption an image, or None. Neighbours of another name than their query's are framed, and
            their names given.
        width: None for an inch a picture.
    """
    similarity, nearest = most_similar(unit_rows(features), unit_rows(query_features), min(count, len(features)))
    count = nearest.shape[1]
    width, first = width or 1.0 * (count + 1.4), 0.2
    step, side = _columns(width - first, count + 1)
    named = names is not None and query_names is not None
    above = _TEXT * (2 if named else 1)
    block = side * _aspect(images) + above + _GAP
    sheet = _Sheet(width, len(queries) * block)
    for row, query in enumerate(queries):
        top = row * block + above
        sheet.picture(0.0, top, side, query, value_range)
        if query_names is not None:
            sheet.text(side / 2, top, _short(query_names[row], step), ha="center", va="bottom")
        for column, place in enumerate(nearest[row]):
            left, caption = (column + 1) * step + first, f"{similarity[row, column]:.2f}"
            sheet.picture(left, top, side, images[place], value_range)
            if named and names[place] != query_names[row]:
                caption = f"{_short(names[place], step)}\n{caption}"
                sheet.frame(left, top, side, side * _aspect(images), _RED, 2)
            sheet.text(left + side / 2, top, caption, ha="center", va="bottom")
    return sheet.figure


def groups(images, found, most=8, value_range=(0, 255)):
    """Groups of images, one a row: near copies, such as of `keras_ssl.evaluate.near_copies`.

    Args:
        images: anything that gives `(height, width, channels)` for a row's number.
        found: lists of rows.
        most: images of a group that are shown.
        value_range: of the images.
    """
    across = min(most, max(map(len, found)))
    step, side = _columns(1.0 * across, across)
    block = side * _aspect(images) + _TEXT + _GAP
    sheet = _Sheet(1.0 * across, len(found) * block)
    for row, group in enumerate(found):
        top = row * block + _TEXT
        more = f", {across} of them shown" if len(group) > across else ""
        sheet.text(0.0, top, f"{len(group)} images{more}", ha="left", va="bottom")
        for column, place in enumerate(group[:across]):
            sheet.picture(column * step, top, side, images[place], value_range)
    return sheet.figure


def embedding_map(
    features,
    images=None,
    names=None,
    value_range=(0, 255),
    thumbnails=150,
    seed=0,
    method="tsne",
    plane=None,
    width=8.0,
):
    """Features on a plane, as points or as thumbnails of their images.

    Args:
        features: `(n, d)`; a thousand take some seconds.
        images: `(n, height, width, channels)` for thumbnails, or None.
        names: one a row, by which points are coloured, or None.
        thumbnails: how many images are drawn at most; none covers another.
        seed, method: of `project`.
        plane: `(n, 2)`, what `project` gave, to draw it once more; `features` are not looked at then.
        width: in inches.
    """
    plane = project(features, seed, method) if plane is None else np.asarray(plane)
    figure = Figure(figsize=(width, 0.9 * width + 0.25), layout="constrained")
    axes = figure.subplots()
    if names is None:
        axes.scatter(*plane.T, s=8, color=_GRAY, alpha=0.7)
    else:
        kinds = sorted(set(names))
        groups = []
        for number, kind in enumerate(kinds):
            rows = [row for row, name in enumerate(names) if name == kind]
            groups.append(axes.scatter(*plane[rows].T, s=9, color=colour(number, len(kinds)), alpha=0.85))
        if len(kinds) <= 20:
            labels = [_short(kind, 1.1) for kind in kinds]
            columns = max(1, int(width / 1.35))
            figure.legend(
                groups,
                labels,
                loc="outside lower center",
                ncols=columns,
                fontsize=10 if width > 6 else _SMALL,
                frameon=False,
                markerscale=2.5,
                handletextpad=0.2,
                columnspacing=1.0,
            )
    if images is not None:
        _thumbnails(axes, plane, images, value_range, thumbnails)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(_LINE)
    return figure


def project(features, seed=0, method="tsne"):
    """Features on a plane, `(n, 2)`, from the 50 first principal components of rows of length 1.

    Args:
        features: `(n, d)`, three rows or more.
        seed: of the method's draws.
        method: "tsne" (van der Maaten & Hinton, 2008), "pca" (the first two components), or "umap" (McInnes et al.,
            2018), which needs the package umap-learn.

    Raises:
        ValueError: for another method, and for fewer than three rows; ImportError: for UMAP without its package.
    """
    if method not in ("tsne", "pca", "umap"):
        raise ValueError(f'project: `method` is "tsne", "pca" or "umap"; it is {method!r}.')
    umap = _umap() if method == "umap" else None
    rows = unit_rows(features)
    if len(rows) < 3:
        raise ValueError(f"project: a map needs three rows of features or more; there are {len(rows)}.")
    rows = PCA(min(50, *rows.shape), random_state=seed).fit_transform(rows)
    if rows.std(axis=0).max() < 1e-7 or (method == "pca" and rows.shape[1] < 2):
        # All in one place, or on one line: nothing to arrange, and both other methods would divide by zero.
        return np.pad(rows, ((0, 0), (0, 1)))[:, :2]
    if method == "pca":
        return rows[:, :2]
    if umap is not None:
        return umap(n_neighbors=min(15, len(rows) - 1), random_state=seed, n_jobs=1).fit_transform(rows)
    perplexity = min(30.0, max(1.0, (len(rows) - 1) / 3))
    start = "pca" if rows.shape[1] > 1 else "random"
    with threadpool_limits(1):  # its threads wait for each other: on two busy cores one was measured ten times quicker
        return TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(rows)


def _umap():
    try:
        from umap import UMAP
    except ImportError as error:
        raise ImportError(
            'project: method="umap" needs the package umap-learn: pip install umap-learn, or keras-ssl[umap]; or take '
            'method="tsne".'
        ) from error
    return UMAP


def similarity_matrix(features, labels=None, names=None, most=200, width=6.0):
    """Cosine similarities of rows with each other, ordered by label, with lines between labels.

    Args:
        features: `(n, d)`.
        labels: `(n,)`, by which rows are ordered; None to leave them as they are.
        names: of the labels: a list that labels are places in, or a dict; None for the labels themselves.
        most: rows shown at most, spread evenly over them after they were ordered.
        width: in inches.
    """
    rows = unit_rows(features)
    order = np.arange(len(rows)) if labels is None else np.argsort(np.asarray(labels), kind="stable")
    order = order[np.unique(np.linspace(0, len(order) - 1, min(most, len(order))).astype(int))]
    rows = rows[order]
    figure = Figure(figsize=(width, (0.86 if width > 5 else 0.72) * width), layout="constrained")
    axes = figure.subplots()
    cosine = np.clip(rows @ rows.T, -1.0, 1.0)
    # From the least that occurs: after a ReLU no cosine is below 0, and often none below a half.
    shown = axes.imshow(cosine, cmap="magma", vmin=float(cosine.min()), vmax=1.0)
    _bar(figure.colorbar(shown, ax=axes, shrink=0.8), "cosine")
    axes.set_xticks([])
    axes.set_yticks([])
    if labels is None:
        axes.set_ylabel(f"{len(rows)} rows", fontsize=_SMALL)
        return figure
    kinds, first, counts = np.unique(np.asarray(labels)[order], return_index=True, return_counts=True)
    for edge in first[1:]:
        axes.axhline(edge - 0.5, color="white", linewidth=0.8)
        axes.axvline(edge - 0.5, color="white", linewidth=0.8)
    if len(kinds) <= 30:
        titles = [_short(kind if names is None else names[kind], 0.95) for kind in kinds]
        axes.set_yticks(first + (counts - 1) / 2, titles, fontsize=_SMALL)
        if width > 5:
            axes.set_xticks(first + (counts - 1) / 2, titles, fontsize=_SMALL, rotation=90)
        axes.tick_params(length=0)
    return figure


def cross_correlation(a, b, most=128, width=5.5):
    """The cross-correlation of two views' embeddings over images: what Barlow Twins brings to the identity.

    Args:
        a, b: `(n, d)`, row i of both from one image; 2 rows or more. See `keras_ssl.losses.cross_correlation`.
        most: dimensions shown at most. Of wider embeddings so many are taken, spread evenly over them; the figure says
            so, and its numbers are of these.
        width: in inches.
    """
    a, b = np.asarray(a, "float32"), np.asarray(b, "float32")
    kept = np.unique(np.linspace(0, a.shape[1] - 1, min(most, a.shape[1])).astype(int))
    matrix = ops.convert_to_numpy(losses.cross_correlation(a[:, kept], b[:, kept]))
    figure = Figure(figsize=(width, 0.88 * width), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(matrix, cmap="RdBu_r", vmin=-1.0, vmax=1.0, interpolation="nearest")
    _bar(figure.colorbar(shown, ax=axes, shrink=0.8), "correlation")
    which = f"{len(kept)} of {a.shape[1]:,} dimensions" if len(kept) < a.shape[1] else f"{a.shape[1]:,} dimensions"
    axes.set_xlabel(f"second view, {which}", fontsize=_SMALL)
    axes.set_ylabel(f"first view, {which}", fontsize=_SMALL)
    axes.tick_params(labelsize=_SMALL)
    diagonal = np.diagonal(matrix)
    rest = matrix[~np.eye(len(matrix), dtype=bool)]
    title = f"diagonal {diagonal.mean():.2f} on average"
    if rest.size:
        title += f"{', ' if width > 5 else chr(10)}the rest ±{np.sqrt(np.mean(rest**2)):.2f}"
    axes.set_title(title, fontsize=10)
    return figure


def colour(number, count):
    return colormaps["tab10" if count <= 10 else "tab20"](number % (10 if count <= 10 else 20))


def _thumbnails(axes, plane, images, value_range, most):
    """Draws images one after another, each where it covers none that was drawn before."""
    inches = min(0.28, axes.figure.get_figwidth() / 18)
    low, high = plane.min(axis=0), plane.max(axis=0)
    # In thumbnails, of which so many lie side by side.
    places = (plane - low) / np.maximum(high - low, 1e-9) * 0.88 * axes.figure.get_figwidth() / inches
    drawn = []
    for row, place in enumerate(places):
        if len(drawn) == most:
            break
        if all(np.abs(place - places[other]).max() > 1.1 for other in drawn):
            drawn.append(row)
    zoom = 72 * inches / max(images.shape[1:3])
    for row in drawn:
        picture = OffsetImage(_shown(images[row], value_range), zoom=zoom, cmap="gray", norm=Normalize(0.0, 1.0))
        axes.add_artist(AnnotationBbox(picture, plane[row], frameon=False))


def _captioned(pictures, captions, value_range, width):
    """A row for each image, a column for each picture, its caption above it."""
    count, lines = len(pictures), max(caption.count("\n") + 1 for row in captions for caption in row)
    width = width or 2.0 * count
    step, side = _columns(width, count)
    block = side * _aspect(pictures[0]) + lines * _TEXT + _GAP
    sheet = _Sheet(width, len(captions) * block)
    for row, words in enumerate(captions):
        top = row * block + lines * _TEXT
        for column, (picture, caption) in enumerate(zip(pictures, words)):
            sheet.text(column * step + side / 2, top, caption, ha="center", va="bottom")
            sheet.picture(column * step, top, side, picture[row], value_range)
    return sheet.figure


class _Sheet:
    """A figure on which pictures and words are put, in inches from the upper left.

    One axes for all of them: a hundred axes, laid out by matplotlib, take seconds.
    """

    def __init__(self, width, height):
        self.figure = Figure(figsize=(width, height))
        self.axes = self.figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0.0, width), ylim=(height, 0.0))
        self.axes.set_autoscale_on(False)
        self.axes.set_axis_off()

    def picture(self, left, top, width, picture, value_range):
        extent = (left, left + width, top + width * _aspect(picture), top)
        # Not imshow, which would set the limits anew.
        image = AxesImage(self.axes, cmap="gray", norm=Normalize(0.0, 1.0), extent=extent, interpolation="nearest")
        image.set_data(_shown(picture, value_range))
        self.axes.add_image(image)

    def frame(self, left, top, width, height, colour, line):
        self.axes.add_patch(
            Rectangle((left, top), width, height, fill=False, edgecolor=colour, linewidth=line, clip_on=False)
        )

    def text(self, left, top, words, ha="left", va="top"):
        self.axes.text(left, top + {"top": 0.02, "bottom": -0.03}.get(va, 0.0), words, fontsize=_SMALL, ha=ha, va=va)

    def number(self, left, top, number):
        box = {"facecolor": _ORANGE, "edgecolor": "none", "pad": 0.6}
        self.axes.text(left + 0.01, top + 0.01, str(number), fontsize=_SMALL, color="white", va="top", bbox=box)


def _columns(width, count):
    """The step from column to column and the width of a picture, in inches."""
    step = (width - 0.02 + _GAP) / count
    return step, step - _GAP


def _aspect(images):
    """Height over width of an image or of a batch."""
    return images.shape[-3] / images.shape[-2]


def _curve(axes, epochs, values, colour, label=None):
    axes.plot(epochs, np.array(values, "float64"), color=colour, marker=".", label=label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _plain(axes)


def _plain(axes):
    axes.tick_params(labelsize=_SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)


def _bar(bar, label):
    bar.set_label(label, fontsize=_SMALL)
    bar.ax.tick_params(labelsize=_SMALL)
    bar.outline.set_visible(False)


def _shown(picture, value_range):
    """An image of any number of channels as gray or RGB in [0, 1]; of many bands, the first three."""
    low, high = value_range
    picture = np.clip((np.asarray(picture, "float32") - low) / (high - low), 0.0, 1.0)
    return picture[..., :3] if picture.shape[-1] >= 3 else picture[..., 0]


def _words(name):
    words = name.removeprefix("val_").replace("_", " ")
    return f"validation {words}" if name.startswith("val_") else words


def _short(name, inches):
    """A name as far as it fits; folders are named by people, who may write a dollar, which matplotlib would typeset."""
    most = max(3, int(inches * 72 / (0.53 * _SMALL)))
    name = str(name)
    return (name if len(name) <= most else name[: most - 1] + "…").replace("$", r"\$")
