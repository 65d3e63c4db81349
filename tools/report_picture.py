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
    """The first picture below a heading of the page."""
    below = page.split(f"<h2>{heading}</h2>", 1)
    if len(below) < 2:
        raise SystemExit(f"The report has no part {heading!r}; it has {re.findall('<h2>(.*?)</h2>', page)}.")
    source = re.search(r'src="data:image/png;base64,([^"]+)"', below[1]).group(1)
    return Image.open(io.BytesIO(base64.b64decode(source)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=pathlib.Path)
    parser.add_argument("heading", help="of the part of the report")
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--width", type=int, default=860, help="in pixels")
    options = parser.parse_args()
    taken = picture(options.report.read_text(encoding="utf-8"), options.heading).convert("RGB")
    height = round(taken.height * options.width / taken.width)
    small = taken.resize((options.width, height), Image.Resampling.LANCZOS).quantize(128)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    small.save(options.output, optimize=True)
    print(f"{options.output}: {small.width}×{small.height} pixels, {options.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
