"""A picture file as pixels: upright, on a background, of one size, in the range 0 … 255 (or as deep as it is)."""

import dataclasses
import os
import struct

import numpy as np

from keras_ssl.names import RESIZE

# Pixels of a picture at most: where Pillow warns of a "decompression bomb", a small file that fills the memory.
MAX_PIXELS = 89_478_485

# How many times the size that it is resized to a JPEG has at least when it is decoded: Pillow's own for thumbnails. The
# pixels then differ from those of the whole picture by a third of what bilinear and bicubic resizing differ by.
REDUCING_GAP = 2.0

_GRAY = ("1", "L", "LA", "La", "F")
_REDUCIBLE = ("JPEG", "MPO")
_DEPTHS = (8, 10, 12, 14, 16)


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says of its picture before it is decoded.

    Attributes:
        size: `(height, width)` upright, in pixels.
        format: "JPEG", "PNG" ….
        mode: Pillow's, such as "RGB"; of 16 bits a color, "RGB;16".
        gray: whether it has no color.
        deep: whether a pixel has more than 8 bits.
        transparent: whether it has an alpha channel or a transparent color.
        rotated: whether it was taken with a turned camera, and is turned upright when it is read.
        frames: of an animation, pages of a TIFF.
    """

    size: tuple
    format: str
    mode: str
    gray: bool
    deep: bool
    transparent: bool
    rotated: bool
    frames: int


@dataclasses.dataclass(frozen=True)
class Decoder:
    """How files become pixels of one shape.

    Attributes:
        size: `(height, width)` of the result, in pixels.
        channels: 1 or 3.
        resize: "crop" brings the shorter side to the size and cuts the center out; "squash" changes the shape; "pad"
            fits the whole picture in, on the background.
        background: `(red, green, blue)`, 0 … 255, under what is transparent and around what is padded.
        deep_range: `(lowest, highest)` value of pictures with more than 8 bits, which becomes 0 … 255.
        dtype: "uint8"; "uint16" keeps deep pictures as they are.
        reducing_gap: a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that is so many times `size`; None: whole.
    """

    size: tuple
    channels: int
    resize: str = RESIZE[0]
    background: tuple = (255, 255, 255)
    deep_range: tuple = (0, 65535)
    dtype: str = "uint8"
    reducing_gap: float | None = REDUCING_GAP

    def __call__(self, path):
        """The pixels of a file, `(height, width, channels)`, read-only. Raises whatever the decoder raises."""
        from PIL import Image

        with Image.open(path) as picture:
            if _is_deep(picture):
                return self._of_deep(_deep_pixels(picture, path), _orientation(picture))
            reduced = self._reduced(picture) if picture.format in _REDUCIBLE and self.reducing_gap else None
            picture = self._on_background(_upright(picture)) if reduced is None else reduced
            gray = round(float(_gray(np.array(self.background, "float32"))))
            picture = self._sized(picture, self.background if picture.mode == "RGB" else gray)
            return np.asarray(picture).reshape(*self.size, self.channels).astype(self.dtype, copy=False)

    def _reduced(self, picture):
        """A JPEG as large as it must be, upright, from as few of its frequencies as needed; None where it needs all."""
        from PIL import Image

        turn, (width, height) = _orientation(picture), picture.size
        size = self.size if turn in _ON_ITS_SIDE else self.size[::-1]  # as it lies in the file
        scales = width / size[0], height / size[1]
        scale = max(scales) if self.resize == "pad" else min(scales)
        by = next((by for by in (8, 4, 2) if by * self.reducing_gap <= scale), 1)
        if by == 1:
            return None
        picture.draft(None, (width // by, height // by))
        if picture.size == (width, height):
            return None
        box = 0.0, 0.0, width / by, height / by  # the last column and row may be less than a whole pixel
        if self.resize == "crop":
            across, down = ((side - scale * wanted) / by / 2 for side, wanted in zip((width, height), size))
            box = across, down, width / by - across, height / by - down
        elif self.resize == "pad":
            size = tuple(max(1, min(wanted, round(side / scale))) for side, wanted in zip((width, height), size))
        picture = self._on_background(picture).resize(size, Image.Resampling.BILINEAR, box)
        return picture if turn is None else picture.transpose(turn)

    def _on_background(self, picture):
        from PIL import Image

        mode = "L" if self.channels == 1 else "RGB"
        if not picture.has_transparency_data:
            return picture if picture.mode == mode else picture.convert(mode)
        under = Image.new("RGBA", picture.size, (*self.background, 255))
        return Image.alpha_composite(under, picture.convert("RGBA")).convert(mode)

    def _sized(self, picture, color):
        from PIL import Image, ImageOps

        size = self.size[::-1]
        if picture.size == size:
            return picture
        if self.resize == "squash":
            return picture.resize(size, Image.Resampling.BILINEAR)
        if self.resize == "crop":
            return ImageOps.fit(picture, size, Image.Resampling.BILINEAR)
        return ImageOps.pad(picture, size, Image.Resampling.BILINEAR, color=color)

    def _of_deep(self, pixels, turn):
        """Deep pixels `(height, width, channels)`, scaled before they are rounded, channel by channel."""
        from PIL import Image

        low, high = (0.0, 65535.0) if self.dtype == "uint16" else self.deep_range
        to = 65535.0 if self.dtype == "uint16" else 255.0
        colors = pixels[..., :-1] if pixels.shape[2] in (2, 4) else pixels
        background = np.array(self.background, "float32") * (to / 255.0)
        if self.channels == 1 or colors.shape[2] == 1:
            background = np.full(3, _gray(background), "float32")
        values = (np.asarray(colors, "float32") - low) * (to / (high - low))
        if colors.shape[2] < pixels.shape[2]:  # alpha has the whole range, however deep the colors are
            alpha = np.asarray(pixels[..., -1:], "float32") / 65535.0
            values = values * alpha + background[: colors.shape[2]] * (1.0 - alpha)
        if values.shape[2] == 3 and self.channels == 1:
            values = _gray(values)[..., None]
        planes = []
        for channel in range(values.shape[2]):
            plane = Image.fromarray(np.ascontiguousarray(values[..., channel]))
            plane = plane if turn is None else plane.transpose(turn)
            planes.append(np.asarray(self._sized(plane, float(background[channel]))))
        if len(planes) < self.channels:
            planes = planes * self.channels
        return np.clip(np.rint(np.stack(planes, axis=-1)), 0.0, to).astype(self.dtype)


def read_header(path, max_pixels=MAX_PIXELS):
    """`Header` of a file. Raises `ValueError` with a reason in words where it can't be a picture that is used."""
    from PIL import Image, UnidentifiedImageError

    try:
        if os.stat(path).st_size == 0:
            raise ValueError("the file is empty")
        with Image.open(path) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise ValueError(f"{width}×{height} is more than the {max_pixels:,} pixels that are allowed")
            deep, turn = _is_deep(picture), _orientation(picture)
            if turn in _ON_ITS_SIDE and picture.format != "TIFF":  # of which Pillow gives the upright size
                width, height = height, width
            return Header(
                size=(height, width),
                format=picture.format or "",
                mode=_mode(picture, deep),
                gray=picture.mode in _GRAY or picture.mode[0] == "I",
                deep=deep,
                transparent=picture.has_transparency_data,
                rotated=turn is not None,
                frames=getattr(picture, "n_frames", 1) if picture.format in ("TIFF", "GIF", "WEBP", "MPO") else 1,
            )
    except UnidentifiedImageError:
        raise ValueError("no picture of a kind that is known") from None
    except Image.DecompressionBombError:
        raise ValueError(f"more than the {max_pixels:,} pixels that are allowed") from None
    except FileNotFoundError:
        raise ValueError("the file is gone, or a link to nothing") from None
    except Exception as error:  # whatever a decoder makes of a broken file
        raise ValueError(reason_of(error)) from None


def reason_of(error):
    """A short reason of an exception, on one line."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 120 else words[:117] + "…"


def deep_bounds(paths, report=None):
    """The lowest and highest value that pictures with more than 8 bits hold, and whether they are whole numbers.

    Args:
        paths: of the pictures; what can't be decoded is left to whoever decodes it.
        report: called with each number of pictures that were read.
    """
    from PIL import Image

    low, high, whole = 0.0, 0.0, True
    for number, path in enumerate(paths, start=1):
        try:
            with Image.open(path) as picture:
                pixels = _deep_pixels(picture, path)
        except Exception:  # found, and given its reason, where it is decoded
            continue
        values = pixels[..., :-1] if pixels.shape[2] in (2, 4) else pixels
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
        whole = whole and values.dtype.kind != "f"
        if report:
            report(number)
    return low, high, whole


def deep_range(low, high, whole):
    """The range that values from `low` to `high` were made for, most likely: of 8, 10, 12, 14 or 16 bits, or 0 … 1."""
    if low < 0.0:
        return low, high if high > low else low + 1.0
    if not whole:
        return 0.0, 1.0 if high <= 1.0 else high
    return 0.0, next((2.0**bits - 1.0 for bits in _DEPTHS if high < 2**bits), high)


def _turns():
    """EXIF's orientations as Pillow's transpositions."""
    from PIL.Image import Transpose

    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }


_ON_ITS_SIDE = (5, 2, 6, 4)  # TRANSPOSE, ROTATE_90, TRANSVERSE, ROTATE_270: width and height change places


def _orientation(picture):
    """How a picture must be turned to stand upright, of Pillow's `Transpose`; None for not at all."""
    try:
        return _turns().get(picture.getexif().get(0x0112))
    except Exception:  # broken EXIF beside a sound picture
        return None


def _upright(picture):
    picture.load()  # which turns a TIFF upright by itself
    turn = _orientation(picture)
    return picture if turn is None else picture.transpose(turn)


def _is_deep(picture):
    if picture.mode[0] in "IF":
        return True
    if picture.format == "PNG":
        return _png_depth(picture) == 16
    if picture.format == "TIFF":
        return max(picture.tag_v2.get(258, (8,))) > 8
    return False


def _png_depth(picture):
    # Pillow keeps 8 of 16 bits of a color, and does not say so; the file's fixed header does.
    file = picture.fp
    place = file.tell()
    file.seek(24)
    depth = struct.unpack("B", file.read(1))[0]
    file.seek(place)
    return depth


def _deep_pixels(picture, path):
    """Pixels of more than 8 bits as they are in the file, not turned: `(height, width, channels)`."""
    if picture.mode[0] in "IF":
        pixels = np.asarray(picture)
        return pixels[..., None]
    if picture.format == "PNG":
        from keras_ssl.backend.png import decode_png

        with open(path, "rb") as file:
            return decode_png(file.read())
    raise ValueError(
        "a TIFF with more than 8 bits a color, of which Pillow keeps 8: save it as PNG, or as one gray channel"
    )


def _mode(picture, deep):
    return f"{picture.mode};16" if deep and picture.mode[0] not in "IF" else picture.mode


def _gray(colors):
    return colors @ np.array([0.299, 0.587, 0.114], "float32")
