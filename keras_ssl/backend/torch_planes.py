"""Views of images on torch's CPU: what is done to planes `(m, channels, height, width)`, a few images at a time.

Uncompiled, an operation costs what it moves through memory. So these work in place, on so few images that they stay in
the processor's cache (`chunk`), and on the rows alone that drew an operation. Planes make an operation on one channel
a run of neighboring numbers. Nothing here chooses between two values pixel by pixel: `torch.where` jumps for each of
them, and takes forty times as long as an addition where pixels differ; signs, minima and maxima do it instead.

Each function's arithmetic is that of its namesake in `keras_ssl.augment`, up to rounding.
"""

import functools

import numpy as np
import torch
from torch.nn import functional

_CACHE = 2**21
"""Bytes of planes that are worked on at a time: a few MiB stay in a processor's caches, and fewer cost more calls."""

_LUMA = (0.2989, 0.587, 0.114)


def serves(images, rows):
    """Whether views are made here: of plain tensors of the CPU, in a step that is not being compiled.

    Args:
        images: `(n, height, width, channels)`.
        rows: their rows in the global batch, from which numbers are drawn.
    """
    if torch.compiler.is_compiling() or images.requires_grad:
        return False
    return all(type(x) is torch.Tensor and x.device.type == "cpu" for x in (images, rows))


def chunk(channels, height, width):
    """How many images of float32 are worked on at a time."""
    return max(1, _CACHE // max(1, 4 * channels * height * width))


def make(images, size, change):
    """Changed images.

    Args:
        images: `(n, height, width, channels)` of any type.
        size: `(height, width)` of the result.
        change: `function(planes, rows)`, called for a few rows at a time, an array of their places. It is given planes
            that are the images' own, of their type, which it must not change (`crop` and `read` don't), and gives
            float32 planes of that size.

    Returns:
        float32 `(n, *size, channels)`.
    """
    count, channels = len(images), images.shape[-1]
    made = torch.empty((count, *size, channels), dtype=torch.float32)
    step = chunk(channels, *size)
    for first in range(0, count, step):
        last = min(first + step, count)
        planes = change(images[first:last].permute(0, 3, 1, 2), np.arange(first, last))
        made[first:last].copy_(planes.permute(0, 2, 3, 1))
    return made


def read(planes):
    """Planes of one's own, float32."""
    return planes.to(torch.float32, memory_format=torch.contiguous_format, copy=True)


def on_some(planes, chosen, change):
    """Changes some of the planes.

    Args:
        chosen: places among the planes, an array of integers.
        change: `function(planes)`, of these alone; it may work in place.
    """
    if len(chosen) == len(planes):
        return change(planes)
    if len(chosen) == 1:
        mine = planes[chosen[0] : chosen[0] + 1]
        changed = change(mine)
        if changed is not mine:
            mine.copy_(changed)
    elif len(chosen):
        # Four times as fast as planes[chosen], but for small images.
        changed = change(planes.index_select(0, torch.from_numpy(chosen)))
        for place, image in zip(chosen.tolist(), changed):
            planes[place].copy_(image)
    return planes


def crop(planes, boxes, size, interpolation, antialias):
    """Cuts a box out of each and resizes it; only what lies in the box is read.

    Args:
        planes: of any type.
        boxes: lists of top, left, height and width, integers, one for each of the planes.
    """
    made = torch.empty((*planes.shape[:2], *size), dtype=torch.float32)
    for place, (top, left, height, width) in enumerate(boxes):
        box = planes[place : place + 1, :, top : top + height, left : left + width]
        box = box.to(torch.float32, memory_format=torch.contiguous_format)
        made[place] = functional.interpolate(box, size, mode=interpolation, antialias=antialias, align_corners=False)[0]
    return made


def clip(planes, low, high):
    return planes.clamp_(low, high)


def flip(planes):
    return planes.flip(3)


def erase(planes, boxes, fill):
    for place, (top, left, height, width) in enumerate(boxes):
        planes[place, :, top : top + height, left : left + width] = fill
    return planes


def blur(planes, taps, rows):
    """Sums shifted planes, first of rows and then of columns.

    Args:
        taps: `(n, kernel_size)`, those of all rows, symmetric.
    """
    height, width = planes.shape[2:]
    taps = taps[torch.from_numpy(rows)]
    middle = taps.shape[1] // 2
    # Taps whose sum float32 can't tell from nothing beside 1 are left out: a narrow blur costs less.
    outer = 2.0 * taps[:, middle + 1 :].amax(0).flip(0).cumsum(0)
    reach = int((outer > 2.0**-25).sum())
    if not reach:
        return planes
    taps = taps[:, :, None, None, None]
    padded = functional.pad(planes, (reach,) * 4, mode="reflect")
    rows = padded[:, :, reach : reach + height] * taps[:, middle]
    for far in range(1, reach + 1):
        for start in (reach - far, reach + far):
            rows.addcmul_(padded[:, :, start : start + height], taps[:, middle + far])
    columns = rows[..., reach : reach + width] * taps[:, middle]
    for far in range(1, reach + 1):
        for start in (reach - far, reach + far):
            columns.addcmul_(rows[..., start : start + width], taps[:, middle + far])
    return columns


def grayscale(planes, low):
    """Every channel the gray of all, of values that begin at `low`: black stays black, though weights sum to 0.9999."""
    if planes.shape[1] == 3:
        gray = _gray(planes)
        planes.copy_(gray.add_(low * (1.0 - sum(_LUMA))) if low else gray)
    return planes


def solarize(planes, threshold, low, high):
    """Inverts the values from the threshold upwards, a fraction of their range."""
    bright = planes.sub(low).div_(high - low).ge_(threshold)
    return planes.addcmul_(bright, (low + high) - 2.0 * planes)


def jitter(planes, order, factors, rows, low, high):
    """Takes each image through its own steps, those of one kind at one place together.

    Args:
        order: array of integers `(n, steps)`, which step comes at each place, of all rows.
        factors: `{name: (n,)}`, in the order of the numbers of steps, of all rows.
        low, high: the range of values.
    """
    planes = (planes.sub_(low) if low else planes).div_(high - low)
    for place in range(order.shape[1]):
        for number, (name, factor) in enumerate(factors.items()):
            chosen = np.flatnonzero(order[rows, place] == number)
            mine = torch.from_numpy(factor[rows[chosen]])[:, None, None, None]
            planes = on_some(planes, chosen, functools.partial(_STEPS[name], factor=mine))
    planes.mul_(high - low)
    return planes.add_(low) if low else planes


def _gray(planes):
    gray = planes[:, :1] * _LUMA[0]
    for channel in (1, 2):
        gray.add_(planes[:, channel : channel + 1], alpha=_LUMA[channel])
    return gray


def _brightness(planes, factor):
    return planes.mul_(factor).clamp_(0.0, 1.0)


def _contrast(planes, factor):
    gray = _gray(planes) if planes.shape[1] == 3 else planes
    mean = gray.mean((1, 2, 3), keepdim=True)
    return planes.mul_(factor).add_(mean.mul_(1.0 - factor)).clamp_(0.0, 1.0)


def _saturation(planes, factor):
    gray = _gray(planes).mul_(1.0 - factor)
    return planes.mul_(factor).add_(gray).clamp_(0.0, 1.0)


def _hue(planes, factor):
    """Turns the hue by `factor` turns.

    The hue is known in sixths of a turn, from −3 to 3, as its size and its side, that of green against blue.
    With m and n the larger and the smaller of green and blue, the size is 1 + (m − r + max(n − r, 0)) / chroma: in each
    of its three sixths this is the closed form of HSV. A channel is then the value less a share of the chroma, by the
    distance of the hue from the channel's own: |hue| − 1, 2 − |hue + 1|, 2 − |hue − 1|, cut to [0, 1].
    """
    red, green, blue = (planes[:, channel : channel + 1] for channel in range(3))
    hue, other = torch.maximum(green, blue), torch.minimum(green, blue)
    value = torch.maximum(hue, red)
    chroma = torch.minimum(other, red)
    torch.sub(value, chroma, out=chroma)
    other.sub_(red).clamp_(min=0.0)
    hue.sub_(red).add_(other)
    hue.div_(torch.clamp(chroma, min=1e-30, out=other)).add_(1.0)
    hue.copysign_(torch.sub(green, blue, out=other)).add_(6.0 * factor)
    hue.sub_(torch.mul(hue, 1.0 / 6.0, out=other).round_(), alpha=6.0)
    torch.addcmul(value, chroma, torch.abs(hue, out=other).sub_(1.0).clamp_(0.0, 1.0), value=-1.0, out=red)
    for channel, shift in ((green, 1.0), (blue, -1.0)):
        share = torch.add(hue, shift, out=other).abs_().neg_().add_(2.0).clamp_(0.0, 1.0)
        torch.addcmul(value, chroma, share, value=-1.0, out=channel)
    return planes


_STEPS = {"brightness": _brightness, "contrast": _contrast, "saturation": _saturation, "hue": _hue}
