"""A figure as two pictures that lie on each other: what it shows, and the words and lines around it.

Photographs look the same on a dark page as on a bright one; words must not. So the words are a transparent picture of
their own, which a dark page turns around: black becomes white, and colors keep their hue.
"""

import base64
import io

import numpy as np

DPI = 160  # nearly twice as fine as the screen needs


def drawn(figure):
    """`(pictures, ink)` of a matplotlib figure: transparent RGBA arrays `(height, width, 4)`; pictures may be None."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import QuadMesh
    from matplotlib.image import AxesImage
    from matplotlib.offsetbox import AnnotationBbox

    # Not savefig, which lays a figure out and draws it twice: the pictures are the same, dot by dot.
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # it is laid out
    figure.patch.set_alpha(0.0)
    for axes in figure.axes:
        axes.patch.set_alpha(0.0)
    shown = figure.findobj(lambda artist: isinstance(artist, (AxesImage, AnnotationBbox, QuadMesh)))
    pictures = None
    if shown:
        renderer = canvas.get_renderer()
        for artist in shown:
            artist.draw(renderer)
            artist.set_visible(False)
        pictures = np.array(canvas.buffer_rgba())
    canvas.draw()
    ink = np.array(canvas.buffer_rgba())
    for artist in shown:
        artist.set_visible(True)
    return pictures, ink


def as_source(pixels, exact=True):
    """The address of an RGBA array as a picture that is part of the page.

    Args:
        exact: words and lines; a photograph may be a little blurred where that makes the file smaller.
    """
    from PIL import Image, features

    image, found = Image.fromarray(pixels), []
    # A tenth to a half of the bytes of PNG, which every browser since 2020 reads; not every build of Pillow writes it.
    kinds = [("webp", {"lossless": True, "quality": 30, "method": 2})]
    kinds += [] if exact else [("webp", {"quality": 82, "method": 2})]
    for kind, options in kinds if features.check("webp") else [("png", {})]:
        file = io.BytesIO()
        image.save(file, format=kind, **options)
        found.append((len(file.getvalue()), kind, file.getvalue()))
    _, kind, data = min(found)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
