"""Takes a picture out of a report, for README and docs.

python tools/report_picture.py runs/RUN/report.html "A map of the embedding" docs/images/map.png
"""

import argparse
import base64
import io
import pathlib
import re

from PIL import Image


def picture(page, heading):
    """The first picture below a heading of the page, on white: what it shows, and the words that lie on it."""
    below = re.split(rf'<h2 id="[^"]*">{re.escape(heading)}</h2>', page, maxsplit=1)
    if len(below) < 2:
        found = re.findall('<h2 id="[^"]*">(.*?)</h2>', page)
        raise SystemExit(f"The report has no part {heading!r}; it has {found}.")
    layers = re.search(r'<div class="layers">(.*?)</div>', below[1])[1]
    layers = [
        Image.open(io.BytesIO(base64.b64decode(source))).convert("RGBA")
        for source in re.findall(r'<img [^>]*src="data:image/\w+;base64,([^"]+)"', layers)
    ]
    whole = Image.new("RGBA", layers[0].size, "white")
    for layer in layers:
        whole.alpha_composite(layer)
    return whole


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=pathlib.Path)
    parser.add_argument("heading", help="of the part of the report")
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--width", type=int, default=860, help="in pixels")
    options = parser.parse_args()
    taken = picture(options.report.read_text(encoding="utf-8"), options.heading).convert("RGB")
    height = round(taken.height * options.width / taken.width)
    small = taken.resize((options.width, height), Image.Resampling.LANCZOS).quantize(256, kmeans=3)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    small.save(options.output, optimize=True)
    print(f"{options.output}: {small.width}×{small.height} pixels, {options.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
