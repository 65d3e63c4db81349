"""Images in rows and columns: views, pretext tasks, neighbors, groups of near copies."""

import numpy as np
from keras import ops
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from keras_ssl.evaluate.knn import most_similar, unit_rows
from keras_ssl.evaluate.plots.style import GAP, GREEN, LINE, ORANGE, RED, SMALL, TEXT, displayable, shortened


def views(images, made, value_range=(0, 255), width=None):
    """Shows images in the first row, and one row below for each of their views.

    Args:
        images: `(n, height, width, channels)`.
        made: the views, each `(n, height, width, channels)`; of several sizes, small ones are shown small.
        value_range: of all of them.
        width: in inches; None for one per image.
    """
    rows, width, label = [images, *made], width or 1.0 * len(images) + 0.6, 0.55
    step, side = _columns(width - label, len(images))
    across = [side, *_widths(made, side)]
    heights = [wide * _aspect(pictures) + GAP for wide, pictures in zip(across, rows)]
    sheet = _Sheet(width, sum(heights) - GAP)
    top = 0.0
    for row, (pictures, wide, height) in enumerate(zip(rows, across, heights)):
        sheet.text(0.0, top + (height - GAP) / 2, "image" if row == 0 else f"view {row}", va="center")
        for number, picture in enumerate(pictures):
            sheet.picture(label + number * step, top, wide, picture, value_range)
        top += height
    return sheet.figure


def views_of(images, views, count=8, value_range=(0, 255), width=None):
    """Shows several draws of an augmentation policy for each image, to check it by eye.

    Args:
        images: one image `(height, width, channels)`, or a few, `(n, height, width, channels)`.
        views: `keras_ssl.augment.Views`, or any function from a batch to a batch, or to one batch per view.
        count: draws of each view.
        value_range: of the images.
        width: in inches; None for one per picture.

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
    across = _widths(made, side)
    blocks = [wide * _aspect(view) + TEXT + GAP for wide, view in zip(across, made)]
    blocks[0] = max(blocks[0], side * _aspect(images) + TEXT + GAP)
    sheet = _Sheet(width, len(images) * sum(blocks))
    top = 0.0
    for number, image in enumerate(images):
        for kind, (view, wide, block) in enumerate(zip(made, across, blocks)):
            if kind == 0:
                sheet.text(side / 2, top, "image", ha="center")
                sheet.picture(0.0, top + TEXT, side, image, value_range)
            sheet.text(step + first, top, f"view {kind + 1}" if len(made) > 1 else "views")
            for draw, picture in enumerate(view[number]):
                sheet.picture((draw + 1) * step + first, top + TEXT, wide, picture, value_range)
            top += block
    return sheet.figure


def pretext_task(images, pictures, captions, places=None, value_range=(0, 255), width=None):
    """Shows what the network sees in a pretext task, with the answers.

    `pretext_task(images, **model.pretext_examples(images))` for `images` as `model.views` makes them.

    Args:
        images: `(n, height, width, channels)`.
        pictures: k arrays `(n, h, w, channels)`: the network's inputs, in their order.
        captions: n lists of k strings: the answers.
        places: for patches: integers `(n, k, 2)`, the first row and column of each in its image.
        value_range: of images and pictures.
        width: in inches; None for 2 per panel.

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
    down, small = -(-len(pictures) // across), side / across - GAP
    inch = side / images.shape[2]
    numbered = pictures[0].shape[2] * inch > 0.4  # or the numbers would cover the patches
    block = max(side * _aspect(images), down * (small + TEXT)) + 2 * GAP
    low, high = value_range
    sheet = _Sheet(width, len(images) * block + TEXT)
    for column, title in enumerate(("cut out", "shown", "put back")):
        sheet.text(column * step, 0.0, title)
    for row, image in enumerate(images):
        top = TEXT + row * block
        patches = [picture[row] for picture in pictures]
        sheet.picture(0.0, top, side, image, value_range)
        for number, (patch, (first, left)) in enumerate(zip(patches, places[row]), 1):
            sheet.frame(left * inch, top + first * inch, patch.shape[1] * inch, patch.shape[0] * inch, ORANGE, 1.2)
            if numbered:
                sheet.number(left * inch, top + first * inch, number)
        for number, (patch, caption) in enumerate(zip(patches, captions[row])):
            left = step + number % across * side / across
            above = top + number // across * (small + TEXT)
            sheet.picture(left, above, small, patch, value_range)
            sheet.frame(left, above, small, small * _aspect(patch), LINE, 0.8)
            if numbered:
                sheet.number(left, above, number + 1)
            sheet.text(left + small / 2, above + small, caption, ha="center")
        whole = put_back(patches, places[row], image.shape, fill=low + 0.9 * (high - low))
        sheet.picture(2 * step, top, side, whole, value_range)
    return sheet.figure


def _captioned(pictures, captions, value_range, width):
    """A row for each image, a column for each picture, its caption above it."""
    count, lines = len(pictures), max(caption.count("\n") + 1 for row in captions for caption in row)
    width = width or 2.0 * count
    step, side = _columns(width, count)
    block = side * _aspect(pictures[0]) + lines * TEXT + GAP
    sheet = _Sheet(width, len(captions) * block)
    for row, words in enumerate(captions):
        top = row * block + lines * TEXT
        for column, (picture, caption) in enumerate(zip(pictures, words)):
            sheet.text(column * step + side / 2, top, caption, ha="center", va="bottom")
            sheet.picture(column * step, top, side, picture[row], value_range)
    return sheet.figure


def put_back(patches, places, shape, fill=0.0):
    """Puts the patches of one image at their places: `(height, width, channels)`.

    Args:
        patches: k arrays `(h, w, channels)`.
        places: `(k, 2)`, first row and column.
        shape: of the image.
        fill: the value where there is no patch.
    """
    image = np.full(shape, fill, "float32")
    for patch, (top, left) in zip(patches, np.asarray(places)):
        image[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
    return image


def neighbors(
    features, images, queries, query_features, count=8, value_range=(0, 255), names=None, query_names=None, width=None
):
    """Shows queries in the first column, and beside each its most similar images with the cosine.

    Args:
        features, images: the collection, `(N, d)` and `(N, height, width, channels)`.
        queries, query_features: the images to find neighbors of, and their features.
        count: neighbors per query.
        names, query_names: a caption per image, or None; None among them for an image without a label. Neighbors of
            their query's name have a green frame; others a red one, and their name.
        width: in inches; None for one per picture.
    """
    similarity, nearest = most_similar(unit_rows(features), unit_rows(query_features), min(count, len(features)))
    count = nearest.shape[1]
    width, first = width or 1.0 * (count + 1.4), 0.2
    step, side = _columns(width - first, count + 1)
    # So many digits that a network whose features are all much alike does not show 1.00 beside each image.
    digits = 2 if similarity.min() < 0.95 else 4 if similarity.min() >= 0.995 else 3
    named = names is not None and query_names is not None
    above = TEXT * (2 if named else 1)
    block = side * _aspect(images) + above + GAP
    sheet = _Sheet(width, len(queries) * block)
    for row, query in enumerate(queries):
        top = row * block + above
        sheet.picture(0.0, top, side, query, value_range)
        if query_names is not None and query_names[row] is not None:
            sheet.text(0.0, top, shortened(query_names[row], step), va="bottom")
        for column, place in enumerate(nearest[row]):
            left, caption = (column + 1) * step + first, f"{similarity[row, column]:.{digits}f}"
            sheet.picture(left, top, side, images[place], value_range)
            if named and None not in (names[place], query_names[row]):
                same = names[place] == query_names[row]
                caption = caption if same else f"{shortened(names[place], step - 0.03)}\n{caption}"
                sheet.frame(left, top, side, side * _aspect(images), GREEN if same else RED, 1 if same else 2)
            sheet.text(left + side / 2, top, caption, ha="center", va="bottom")
    return sheet.figure


def groups(images, found, most=8, value_range=(0, 255)):
    """Shows groups of images, one per row, such as those of `keras_ssl.evaluate.near_copies`.

    Args:
        images: an array, or any object that gives `(height, width, channels)` for an index.
        found: lists of indices.
        most: the number of images shown per group.
        value_range: of the images.
    """
    across = min(most, max(map(len, found)))
    step, side = _columns(1.0 * across, across)
    block = side * _aspect(images) + TEXT + GAP
    sheet = _Sheet(1.0 * across, len(found) * block)
    for row, group in enumerate(found):
        top = row * block + TEXT
        more = f", {across} of them shown" if len(group) > across else ""
        sheet.text(0.0, top, f"{len(group)} images{more}", ha="left", va="bottom")
        for column, place in enumerate(group[:across]):
            sheet.picture(column * step, top, side, images[place], value_range)
    return sheet.figure


MOST_CHOSEN = 200  # more would be no picture that one looks at


def chosen(images, value_range=(0, 255), across=10, width=10.0):
    """Shows images with their numbers, from 1, row by row: those of `keras_ssl.evaluate.select`, in its order.

    Args:
        images: `(n, height, width, channels)`.
        value_range: of the images.
        across: images in a row.
        width: in inches.
    """
    across = min(across, len(images))
    step, side = _columns(width, across)
    block = side * _aspect(images) + GAP
    sheet = _Sheet(width, -(-len(images) // across) * block)
    for number, image in enumerate(images):
        left, top = number % across * step, number // across * block
        sheet.picture(left, top, side, image, value_range)
        sheet.number(left, top, number + 1)
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
        image.set_data(displayable(picture, value_range))
        self.axes.add_image(image)

    def frame(self, left, top, width, height, color, line):
        self.axes.add_patch(
            Rectangle((left, top), width, height, fill=False, edgecolor=color, linewidth=line, clip_on=False)
        )

    def text(self, left, top, words, ha="left", va="top"):
        self.axes.text(left, top + {"top": 0.02, "bottom": -0.03}.get(va, 0.0), words, fontsize=SMALL, ha=ha, va=va)

    def number(self, left, top, number):
        box = {"facecolor": ORANGE, "edgecolor": "none", "pad": 0.6}
        self.axes.text(left + 0.01, top + 0.01, str(number), fontsize=SMALL, color="white", va="top", bbox=box)


def _columns(width, count):
    """The step from column to column and the width of a picture, in inches."""
    step = (width - 0.02 + GAP) / count
    return step, step - GAP


def _widths(views, side):
    """The width of each view's pictures: the largest views fill a column, smaller ones are shown smaller."""
    widest = max(view.shape[-2] for view in views)
    return [side * view.shape[-2] / widest for view in views]


def _aspect(images):
    """Height over width of an image or of a batch."""
    return images.shape[-3] / images.shape[-2]
