"""Policies of views of several sizes (multi-crop): two large crops of each image, and some small ones.

Small crops cost little: one of 96 pixels is less than a fifth of one of 224. The backbone must be of open size.
"""

from keras_ssl.augment.blur import RandomGaussianBlur
from keras_ssl.augment.color import RandomColorJitter, RandomGrayscale, RandomSolarization
from keras_ssl.augment.geometry import RandomErasing, RandomHorizontalFlip, RandomResizedCrop
from keras_ssl.augment.layer import checked_size
from keras_ssl.augment.policies import odd_tenth
from keras_ssl.augment.views import Views

_SMALL_SIDE = 64
_SMALL_SCALES = (0.4, 1.0), (0.15, 0.4)


def multi_crop(
    global_size,
    local_size=None,
    locals=6,
    channels=3,
    strength=1.0,
    global_scale=None,
    local_scale=None,
    value_range=(0, 255),
):
    """Two large and some small crops with SimCLR's colors: SwAV's policy.

    Each view is cropped, flipped, jittered in color, grayed and blurred as in `simclr`; a view of up to 32 pixels is
    not blurred, and with other than three channels saturation, hue and gray are left out.

    Args:
        global_size: height and width of a large view in pixels, or one number for both.
        local_size: of a small view; None for 3/7 of the large one as in the paper, 96 of 224, in multiples of 16; and
            for half of it up to 96 pixels, in multiples of 4: 16 of 28, 32 of 64.
        locals: how many small views; 0 for the two large ones alone, which a backbone of fixed size can take.
        channels: of the images.
        strength: of the color jitter; 1 for ImageNet, 0.5 for CIFAR-10.
        global_scale: smallest and largest area of a large crop, as a fraction of the image; None for the paper's, 0.14
            to 1. With large views of up to 64 pixels 0.4 to 1: less of so small an image is nothing to recognize.
        local_scale: of a small crop; None for the paper's, 0.05 to 0.14. With large views of up to 64 pixels 0.15 to
            0.4.
        value_range: of the images.

    Returns:
        `Views`, the large views first.

    Reference: Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", 2020,
    appendix A; the authors' code. What small images get is this library's, and not measured.
    """
    large, small = _sizes(global_size, local_size, locals)
    scales = _scales(large, (global_scale, local_scale), ((0.14, 1.0), (0.05, 0.14)))

    def view(size, scale):
        jitter = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
        jitter = {name: most * strength for name, most in jitter.items()}
        layers = _cropped_and_colored(size, scale, channels, jitter, "bilinear", value_range)
        return layers + _blurred(size, large, 0.5, value_range)

    return _views([view(large, scales[0])] * 2, view(small, scales[1]), locals)


def swav(size, channels=3, local_size=None, locals=6, value_range=(0, 255)):
    """SwAV's policy: `multi_crop`, with its arguments.

    Args:
        size, channels, local_size, locals, value_range: as of `multi_crop`.

    Returns:
        `Views`, the large views first.

    Reference: Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", 2020.
    """
    return multi_crop(size, local_size, locals, channels, value_range=value_range)


def dino(size, channels=3, local_size=None, locals=8, global_scale=None, local_scale=None, value_range=(0, 255)):
    """DINO's policy: two large and eight small crops with BYOL's colors.

    The first large view is always blurred, the second once in ten times and solarized once in five, the small ones are
    blurred every other time. As in `multi_crop`, a view of up to 32 pixels is not blurred, and with other than three
    channels saturation, hue and gray are left out.

    Args:
        size: height and width of a large view in pixels, or one number for both.
        channels: of the images.
        local_size, locals: as of `multi_crop`.
        global_scale: smallest and largest area of a large crop, as a fraction of the image; None for the authors', 0.4
            to 1, and 0.14 to 1 without small views.
        local_scale: of a small crop; None for the authors', 0.05 to 0.4. With large views of up to 64 pixels 0.15 to
            0.4, which is this library's, and not measured.
        value_range: of the images.

    Returns:
        `Views`, the large views first.

    Reference: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021; the authors' code.
    """
    large, small = _sizes(size, local_size, locals)
    paper = (0.4, 1.0) if locals else (0.14, 1.0), (0.05, 0.4)
    scales = _scales(large, (global_scale, local_scale), paper)
    jitter = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}

    def view(size, scale, blurred):
        layers = _cropped_and_colored(size, scale, channels, jitter, "bicubic", value_range)
        return layers + _blurred(size, large, blurred, value_range)

    first, second = view(large, scales[0], 1.0), view(large, scales[0], 0.1)
    second.append(RandomSolarization(probability=0.2, value_range=value_range))
    return _views([first, second], view(small, scales[1], 0.5), locals)


def small_gray_crops(size, local_size=None, locals=6, value_range=(0, 255)):
    """`small_gray` in two sizes, for gray images of up to 64 pixels: its own views, and small ones with no erased box.

    Not measured, and no paper's.

    Args:
        size: height and width of a large view in pixels, or one number for both.
        local_size, locals: as of `multi_crop`.
        value_range: of the images.

    Returns:
        `Views`, the large views first.
    """
    large, small = _sizes(size, local_size, locals)

    def view(size, scale):
        return [
            RandomResizedCrop(size, scale=scale, value_range=value_range),
            RandomHorizontalFlip(value_range=value_range),
            RandomColorJitter(brightness=0.8, contrast=0.8, value_range=value_range),
        ]

    whole = [*view(large, (0.6, 1.0)), RandomErasing(probability=0.5, value_range=value_range)]
    return _views([whole, whole], view(small, (0.2, 0.6)), locals)


def _views(large, small, count):
    return Views(*large, *[small] * count)


def _cropped_and_colored(size, scale, channels, jitter, interpolation, value_range):
    color = channels == 3
    if not color:
        jitter = {**jitter, "saturation": 0.0, "hue": 0.0}
    layers = [
        RandomResizedCrop(size, scale, interpolation=interpolation, value_range=value_range),
        RandomHorizontalFlip(value_range=value_range),
        RandomColorJitter(**jitter, probability=0.8, value_range=value_range),
    ]
    return [*layers, RandomGrayscale(value_range=value_range)] if color else layers


def _blurred(size, large, probability, value_range):
    """The blur of a view. Its kernel is that of the large views, as the authors': the same widths blur both."""
    if min(size) <= 32:
        return []
    kernel = min(odd_tenth(min(large)), 2 * min(size) - 1)
    return [RandomGaussianBlur(kernel, probability=probability, value_range=value_range)]


def _sizes(size, local_size, locals):
    """`(large, small)`, each height and width."""
    if not isinstance(locals, int) or locals < 0:
        raise ValueError(f"`locals` must be a number of views, 0 or more; it is {locals!r}.")
    large = checked_size("multi_crop", size)
    if local_size is None:
        return large, tuple(_local_side(side) for side in large)
    return large, checked_size("multi_crop", local_size, argument="local_size")


def _local_side(side):
    if side <= 96:
        return max(4, -(-side // 8) * 4)
    return round(side * 96 / 224 / 16) * 16


def _scales(large, given, paper):
    small = max(large) <= _SMALL_SIDE
    return [mine or (ours if small else theirs) for mine, ours, theirs in zip(given, _SMALL_SCALES, paper)]
