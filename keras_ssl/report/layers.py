"""A figure as two pictures that lie on each other: what it shows, and the words and lines around it.

Photographs look the same on a dark page as on a bright one; words must not. So the words are a transparent picture of
their own, which a dark page turns around: black becomes white, and colors keep their hue.
"""

import base64
import io

import numpy as np

DPI = 160  # nearly twice as fine as the screen needs
COLORS = 4096  # a picture with more is a photograph


def drawn(figure):
    """`(pictures, ink)` of a matplotlib figure: transparent RGBA arrays `(height, width, 4)`; pictures may be None."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import QuadMesh
    from matplotlib.image import AxesImage
    from matplotlib.offsetbox import AnnotationBbox

    # Not savefig, which lays a figure out and draws it twice: the pictures are the same, dot by dot.
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    figure.patch.set_alpha(0.0)
    for axes in figure.axes:
        axes.patch.set_alpha(0.0)
    shown = figure.findobj(lambda artist: isinstance(artist, (AxesImage, AnnotationBbox, QuadMesh)))
    for artist in shown:
        artist.set_visible(False)
    canvas.draw()
    ink = np.array(canvas.buffer_rgba())
    if not shown:
        return None, ink
    renderer = canvas.get_renderer()
    renderer.clear()
    for artist in shown:
        artist.set_visible(True)
        artist.draw(renderer)
    return np.array(canvas.buffer_rgba()), ink


def as_source(pixels, words=False):
    """The address of an RGBA array as a picture that is part of the page.

    Words and lines are a PNG with a palette, smaller than any other and quickly made. Matrices and gray images, of
    few colors, are a WebP that keeps each of them; photographs are one that does not. A WebP has transparent parts,
    where a JPEG has none.

    Args:
        words: whether these are words and lines.
    """
    from PIL import Image, features

    image, picture = Image.fromarray(pixels), io.BytesIO()
    if words or not features.check("webp"):  # a Pillow of one's own build may not write it
        image.quantize(256, method=Image.Quantize.FASTOCTREE).save(picture, format="png")
        return _address("png", picture)
    if image.getcolors(COLORS) is not None:
        image.save(picture, format="webp", lossless=True, quality=0, method=1)
    else:
        image.save(picture, format="webp", quality=75, method=2)
    return _address("webp", picture)


def _address(kind, picture):
    return f"data:image/{kind};base64,{base64.b64encode(picture.getvalue()).decode()}"
