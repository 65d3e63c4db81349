"""Maps of features: on a plane, and as matrices of similarity and correlation."""

import numpy as np
from keras import ops
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from threadpoolctl import threadpool_limits

from keras_ssl import losses
from keras_ssl.data.labels import MISSING, codes_of
from keras_ssl.evaluate.knn import unit_rows
from keras_ssl.evaluate.plots.style import GRAY, LINE, SMALL, displayable, label_colorbar, shortened


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
    """Plots features on a plane, as points or as thumbnails of their images.

    Args:
        features: `(n, d)`; a thousand take some seconds.
        images: `(n, height, width, channels)` for thumbnails, or None.
        names: one per row, None for one without a label. Points of one name have one color, and those without a label
            are gray; None for gray points alone.
        thumbnails: the number of images drawn at most; none covers another.
        seed, method: of `project`.
        plane: `(n, 2)`, the result of `project`, to draw it again; `features` are not used then.
        width: in inches.
    """
    plane = project(features, seed, method) if plane is None else np.asarray(plane)
    figure = Figure(figsize=(width, 0.9 * width + 0.25), layout="constrained")
    axes = figure.subplots()
    if names is None:
        axes.scatter(*plane.T, s=8, color=GRAY, alpha=0.7)
    else:
        kinds = sorted({name for name in names if name is not None})
        groups = []
        plain = [row for row, name in enumerate(names) if name is None]
        under = [axes.scatter(*plane[plain].T, s=8, color=GRAY, alpha=0.4)] if plain else []
        for number, kind in enumerate(kinds):
            rows = [row for row, name in enumerate(names) if name == kind]
            groups.append(axes.scatter(*plane[rows].T, s=9, color=category_color(number, len(kinds)), alpha=0.85))
        named = list(zip(groups, kinds)) if len(kinds) <= 20 else []
        if named or under:
            columns = max(1, int(width / 1.35))
            figure.legend(
                [*(group for group, _ in named), *under],
                [*(shortened(kind, 1.1) for _, kind in named), *(["no label"] if under else [])],
                loc="outside lower center",
                ncols=columns,
                fontsize=10 if width > 6 else SMALL,
                frameon=False,
                markerscale=2.5,
                handletextpad=0.2,
                columnspacing=1.0,
            )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(LINE)
    if images is not None:
        _thumbnails(axes, plane, images, value_range, thumbnails)
    return figure


def project(features, seed=0, method="tsne"):
    """Projects features onto a plane, `(n, 2)`, from the first 50 principal components of rows of length 1.

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
    from sklearn.decomposition import PCA  # a second of imports: for who projects alone
    from sklearn.manifold import TSNE

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
        # Of a thousand steps the second half was measured to change no neighborhood: KL 0.73 and 0.70.
        return TSNE(perplexity=perplexity, init=start, random_state=seed, max_iter=500).fit_transform(rows)


def _umap():
    try:
        from umap import UMAP
    except ImportError as error:
        raise ImportError(
            'project: method="umap" needs the package umap-learn: pip install umap-learn, or keras-ssl[umap]; or take '
            'method="tsne".'
        ) from error
    return UMAP


def category_color(number, count):
    """The color of one of `count` categories; none is gray, which is that of points without a label."""
    few = count <= 10
    place = number % (10 if few else 20)
    indigo = {7: 0} if few else {14: 0, 15: 3}  # of tab20b, in the place of the grays
    if place in indigo:
        return colormaps["tab20b"](indigo[place])
    return colormaps["tab10" if few else "tab20"](place)


def _thumbnails(axes, plane, images, value_range, most):
    """Draws images one after another, each where it covers none that was drawn before."""
    figure = axes.figure
    inches = min(0.28, figure.get_figwidth() / 18)
    figure.draw_without_rendering()  # lays the figure out: where the points are is known then
    places = axes.transData.transform(plane) / figure.dpi / inches
    height, width = images.shape[1:3]
    size = 1.1 * np.array([width, height]) / max(height, width)
    drawn = []
    for row, place in enumerate(places):
        if len(drawn) == most:
            break
        if all((np.abs(place - places[other]) > size).any() for other in drawn):
            drawn.append(row)
    zoom = 72 * inches / max(height, width)
    for row in drawn:
        picture = OffsetImage(displayable(images[row], value_range), zoom=zoom, cmap="gray", norm=Normalize(0.0, 1.0))
        box = AnnotationBbox(picture, plane[row], frameon=False, pad=0.0)
        box.set_in_layout(False)  # or a picture at the edge would move the points
        axes.add_artist(box)


def similarity_matrix(features, labels=None, names=None, most=200, width=6.0):
    """Plots the cosine similarities of all rows, ordered by label, with lines between labels.

    Args:
        features: `(n, d)`.
        labels: `(n,)`, integers or strings, by which rows are ordered, those without one (−1, None, NaN, an empty
            string) at the end; None to leave them as they are.
        names: the names of the labels, a list or a dict indexed by label; None for the labels themselves.
        most: the number of rows shown at most, taken evenly from the ordered rows.
        width: in inches.
    """
    rows = unit_rows(features)
    order = np.arange(len(rows))
    if labels is not None:
        codes, classes = codes_of(labels)
        codes = np.where(codes == MISSING, len(classes), codes)
        order = np.argsort(codes, kind="stable")
    order = order[np.unique(np.linspace(0, len(order) - 1, min(most, len(order))).astype(int))]
    rows = rows[order]
    figure = Figure(figsize=(width, (0.86 if width > 5 else 0.72) * width), layout="constrained")
    axes = figure.subplots()
    cosine = np.clip(rows @ rows.T, -1.0, 1.0)
    # From the least that occurs: after a ReLU no cosine is below 0, and often none below a half.
    shown = axes.imshow(cosine, cmap="magma", vmin=float(cosine.min()), vmax=1.0)
    label_colorbar(figure.colorbar(shown, ax=axes, shrink=0.8), "cosine")
    axes.set_xticks([])
    axes.set_yticks([])
    if labels is None:
        axes.set_ylabel(f"{len(rows)} rows", fontsize=SMALL)
        return figure
    kinds, first, counts = np.unique(codes[order], return_index=True, return_counts=True)
    for edge in first[1:]:
        axes.axhline(edge - 0.5, color="white", linewidth=0.8)
        axes.axvline(edge - 0.5, color="white", linewidth=0.8)
    if len(kinds) <= 30:
        labeled = [classes[kind] for kind in kinds if kind < len(classes)]
        titles = [shortened(label if names is None else names[label], 0.95) for label in labeled]
        titles += ["no label"] * (len(kinds) - len(labeled))
        titles = _apart(titles, first + (counts - 1) / 2, counts, len(rows), 0.7 * width)
        axes.set_yticks(first + (counts - 1) / 2, titles, fontsize=SMALL)
        if width > 5:
            axes.set_xticks(first + (counts - 1) / 2, titles, fontsize=SMALL, rotation=90)
        axes.tick_params(length=0)
    return figure


def _apart(titles, middles, counts, rows, inches):
    """Empties the titles that would stand on another one's, those of the smallest groups first."""
    kept = []
    for place in np.argsort(-counts, kind="stable"):
        if all(abs(middles[place] - middles[other]) * inches / rows > 0.16 for other in kept):
            kept.append(place)
    return [title if place in kept else "" for place, title in enumerate(titles)]


def cross_correlation(a, b, most=128, width=5.5):
    """Plots the cross-correlation of two views' embeddings over images, which Barlow Twins moves to the identity.

    Args:
        a, b: `(n, d)`, row i of both from one image; 2 rows or more. See `keras_ssl.losses.cross_correlation`.
        most: the number of dimensions shown at most, taken evenly from a wider embedding; the figure says so, and its
            numbers are of these.
        width: in inches.
    """
    a, b = np.asarray(a, "float32"), np.asarray(b, "float32")
    kept = np.unique(np.linspace(0, a.shape[1] - 1, min(most, a.shape[1])).astype(int))
    matrix = ops.convert_to_numpy(losses.cross_correlation(a[:, kept], b[:, kept]))
    figure = Figure(figsize=(width, 0.88 * width), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(matrix, cmap="RdBu_r", vmin=-1.0, vmax=1.0, interpolation="nearest")
    label_colorbar(figure.colorbar(shown, ax=axes, shrink=0.8), "correlation")
    which = f"{len(kept)} of {a.shape[1]:,} dimensions" if len(kept) < a.shape[1] else f"{a.shape[1]:,} dimensions"
    axes.set_xlabel(f"second view, {which}", fontsize=SMALL)
    axes.set_ylabel(f"first view, {which}", fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    diagonal = np.diagonal(matrix)
    rest = matrix[~np.eye(len(matrix), dtype=bool)]
    title = f"diagonal {diagonal.mean():.2f} on average"
    if rest.size:
        title += f"{', ' if width > 5 else chr(10)}the rest ±{np.sqrt(np.mean(rest**2)):.2f}"
    axes.set_title(title, fontsize=10)
    return figure
