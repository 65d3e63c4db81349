"""One page that opens offline and holds everything of a run: text, tables, and pictures as part of the file."""

import html
import re

from keras_ssl import files
from keras_ssl.report.layers import as_source, drawn
from keras_ssl.report.style import STYLE

# Wide pictures are for pages of this width; on narrower ones their narrow twins take their place.
WIDE, NARROW = 9.3, 3.7  # inches, 96 pixels each


def _lines(text):
    return html.escape(str(text)).replace("\n", "<br>")


def _pixels(figure):
    return int(figure.get_figwidth() * 96)


def _picture(figure, alt, narrow=None, under=False):
    """A figure, and its twin for narrow screens: what it shows below, words and lines on top, or the other way."""
    pictures, ink = drawn(figure)
    twins = (None, None) if narrow is None else drawn(narrow)
    words = _image(ink, twins[1], _pixels(figure), "" if pictures is not None else alt, "ink")
    if pictures is None:
        return f'<div class="layers">{words}</div>'
    shown = _image(pictures, twins[0], _pixels(figure), alt, "shown")
    return f'<div class="layers">{words + shown if under else shown + words}</div>'


def _image(pixels, narrow, width, alt, kind):
    hidden = "" if alt else ' aria-hidden="true"'  # the words in a picture are no second picture
    image = f'<img class="{kind}" width="{width}" alt="{html.escape(alt)}"{hidden} src="{as_source(pixels)}">'
    if narrow is None:
        return image
    twin = f'<source media="(max-width: 44rem)" srcset="{as_source(narrow)}">'
    return f'<picture class="twins">{twin}{image}</picture>'


class HtmlPage:
    """A page, section by section, with a list of them at its head.

    Args:
        title: of the page.
        subtitle: a line below it.
    """

    def __init__(self, title, subtitle=""):
        self.title, self.subtitle = title, subtitle
        self._parts, self._headings = [], {}

    def heading(self, text):
        name = re.sub(r"\W+", "-", text.lower()).strip("-")
        self._headings[name] = text
        self._parts.append(f'<h2 id="{html.escape(name)}">{html.escape(text)}</h2>')

    def text(self, text, note=False):
        kind = ' class="note"' if note else ""
        self._parts.append(f"<p{kind}>{html.escape(text)}</p>")

    def verdict(self, text, kind):
        """A sentence that one can't miss. Kind: a class of the page's style, "better", "same" or "worse"."""
        self._parts.append(f'<p class="verdict {kind}">{html.escape(text)}</p>')

    def code(self, text):
        """A line for a terminal."""
        self._parts.append(f'<pre class="scroll"><code>{html.escape(text)}</code></pre>')

    def table(self, header, rows, bold=()):
        """A table; the cells in `bold`, pairs of row and column from 0, are set in bold."""
        self._parts.append(f'<div class="scroll">{_table(header, rows, bold)}</div>')

    def folded(self, title, header, rows):
        """A table that is read when its title is clicked."""
        table = f'<div class="scroll words">{_table(header, rows)}</div>'
        self._parts.append(f"<details><summary>{html.escape(title)}</summary>{table}</details>")

    def facts(self, facts):
        """A list of short titles, each with a sentence: a dict."""
        pairs = "".join(f"<dt>{html.escape(title)}</dt><dd>{html.escape(text)}</dd>" for title, text in facts.items())
        self._parts.append(f"<dl>{pairs}</dl>")

    def figure(self, figure, caption, narrow=None, under=False):
        """A matplotlib figure.

        Args:
            figure: up to `WIDE` inches wide.
            caption: below it, and what is read out in its place.
            narrow: the same for narrow screens, `NARROW` inches wide; None to scroll the wide one in its own frame, so
                that its text stays readable.
            under: whether points and lines lie under the pictures in the figure, not over them.
        """
        picture = _picture(figure, caption, narrow, under)
        if narrow is None:
            picture = f'<div class="scroll whole" style="--width: {_pixels(figure)}px">{picture}</div>'
        self._figure(picture, caption, beside=figure.get_figwidth() < 7)

    def panels(self, figures, caption):
        """Small figures side by side, and below each other where the screen is narrow. Figures: a dict by name."""
        pictures = "".join(_picture(figure, name) for name, figure in figures.items())
        self._figure(f'<div class="panels">{pictures}</div>', caption)

    def _figure(self, content, caption, beside=False):
        """`beside`: on a wide screen there is room for the caption on the right."""
        kind = ' class="beside"' if beside else ""
        self._parts.append(f"<figure{kind}>{content}<figcaption>{html.escape(caption)}</figcaption></figure>")

    def _contents(self):
        if len(self._headings) < 2:
            return ""
        links = "".join(
            f'<a href="#{html.escape(name)}">{html.escape(text)}</a>' for name, text in self._headings.items()
        )
        return f'<nav aria-label="Contents">{links}</nav>'

    def html(self):
        head = f'<h1>{html.escape(self.title)}</h1><p class="note">{html.escape(self.subtitle)}</p>'
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f"<title>{html.escape(self.title)}</title><style>{STYLE}</style></head>\n"
            f"<body>{chr(10).join([head, self._contents(), *self._parts])}</body></html>\n"
        )

    def save(self, path):
        files.write_text(path, self.html(), errors="replace")  # a file's name need not be valid text


def _table(header, rows, bold=()):
    lines = ["<tr>" + "".join(f'<th scope="col">{_lines(cell)}</th>' for cell in header) + "</tr>"]
    for number, row in enumerate(rows):
        cells = [
            f"<td{' class=best' if (number, column) in bold else ''}>{html.escape(str(cell))}</td>"
            for column, cell in enumerate(row)
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"
