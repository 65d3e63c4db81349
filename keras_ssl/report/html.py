"""One page that opens offline and holds everything of a run: text, tables, and pictures as part of the file."""

import base64
import html
import io

import numpy as np

from keras_ssl import files

# Wide pictures are for pages of this width; on narrower ones their narrow twins take their place.
WIDE, NARROW = 9.3, 3.7  # inches, 96 pixels each
_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2328; background: #fff; overflow-wrap: break-word;
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 56rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 2.6rem 0 .6rem; padding-top: 1rem; border-top: 1px solid #e3e6ea; }
p, figcaption, dl { max-width: 44rem; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; }
.panels { display: flex; flex-wrap: wrap; gap: .8rem 1.2rem; }
.whole img { min-width: var(--width); }
figcaption, .note { color: #59626d; font-size: .9rem; }
figcaption { margin-top: .6rem; }
dt { font-weight: 600; margin-top: .7rem; }
dd { margin: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem 0 .35rem 1.1rem; font-size: .93rem; text-align: right; border-bottom: 1px solid #e3e6ea;
  white-space: nowrap; }
th { vertical-align: bottom; font-weight: 500; color: #59626d; }
th:first-child, td:first-child { text-align: left; padding-left: 0; position: sticky; left: 0; background: #fff; }
tr.best td { font-weight: 600; }
@media (max-width: 44rem) {
  .twins img { width: 100%; max-width: 32rem; }
  .panels img { width: 100%; max-width: 24rem; }
  th:first-child, td:first-child { white-space: normal; min-width: 5rem; }
}
"""


def _lines(text):
    return html.escape(str(text)).replace("\n", "<br>")


def _source(figure):
    """The figure as a PNG that is part of the page, nearly twice as fine as the screen needs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    # Not savefig, which lays a figure out and draws it twice: the picture is the same, dot by dot.
    figure.set_dpi(160)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(picture, format="png")
    return f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"


def _picture(figure, alt):
    return f'<img width="{_pixels(figure)}" alt="{html.escape(alt)}" src="{_source(figure)}">'


def _pixels(figure):
    return int(figure.get_figwidth() * 96)


class HtmlPage:
    """A page, section by section.

    Args:
        title: of the page.
        subtitle: a line below it.
    """

    def __init__(self, title, subtitle=""):
        self.title = title
        self._parts = [f"<h1>{html.escape(title)}</h1>", f'<p class="note">{html.escape(subtitle)}</p>']

    def heading(self, text):
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text, note=False):
        kind = ' class="note"' if note else ""
        self._parts.append(f"<p{kind}>{html.escape(text)}</p>")

    def table(self, header, rows, best=None):
        """A table; the row with number `best` is set in bold."""
        lines = ["<tr>" + "".join(f"<th>{_lines(cell)}</th>" for cell in header) + "</tr>"]
        for number, row in enumerate(rows):
            cells = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row)
            lines.append(f'<tr class="best">{cells}</tr>' if number == best else f"<tr>{cells}</tr>")
        self._parts.append(f'<div class="scroll"><table>{"".join(lines)}</table></div>')

    def facts(self, facts):
        """A list of short titles, each with a sentence: a dict."""
        pairs = "".join(f"<dt>{html.escape(title)}</dt><dd>{html.escape(text)}</dd>" for title, text in facts.items())
        self._parts.append(f"<dl>{pairs}</dl>")

    def figure(self, figure, caption, narrow=None):
        """A matplotlib figure.

        Args:
            figure: up to `WIDE` inches wide.
            caption: below it, and what is read out in its place.
            narrow: the same for narrow screens, `NARROW` inches wide; None to scroll the wide one in its own frame, so
                that its text stays readable.
        """
        picture = _picture(figure, caption)
        if narrow is None:
            self._figure(f'<div class="scroll whole" style="--width: {_pixels(figure)}px">{picture}</div>', caption)
        else:
            twin = f'<source media="(max-width: 44rem)" srcset="{_source(narrow)}">'
            self._figure(f'<picture class="twins">{twin}{picture}</picture>', caption)

    def panels(self, figures, caption):
        """Small figures side by side, and below each other where the screen is narrow. Figures: a dict by name."""
        pictures = "".join(_picture(figure, name) for name, figure in figures.items())
        self._figure(f'<div class="panels">{pictures}</div>', caption)

    def _figure(self, content, caption):
        self._parts.append(f"<figure>{content}<figcaption>{html.escape(caption)}</figcaption></figure>")

    def html(self):
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self.title)}</title><style>{_STYLE}</style></head>\n"
            f"<body>{chr(10).join(self._parts)}</body></html>\n"
        )

    def save(self, path):
        files.write_text(path, self.html(), errors="replace")  # a file's name need not be valid text
