"""Policies: the lists of augmentations that papers and this library use, one function each."""

from keras_ssl.augment.blur import RandomGaussianBlur
from keras_ssl.augment.color import RandomColorJitter, RandomGrayscale, RandomSolarization
from keras_ssl.augment.geometry import RandomErasing, RandomHorizontalFlip, RandomResizedCrop
from keras_ssl.augment.layer import checked_size
from keras_ssl.augment.views import Views


def simclr(size, channels=3, strength=1.0, scale=(0.08, 1.0), value_range=(0, 255)):
    """SimCLR's policy: crop, flip, color jitter, gray, blur; both views alike.

    Up to 32 pixels there is no blur, as in the paper's experiments on CIFAR-10 (appendix B.9). With other than three
    channels, saturation, hue and gray have no meaning and are left out.

    Args:
        size: height and width of a view in pixels, or one number for both.
        channels: of the images.
        strength: of the color jitter; 1 for ImageNet, 0.5 for CIFAR-10.
        scale: smallest and largest area of the crop, as a fraction of the image.
        value_range: of the images.

    Returns:
        `Views` of two views.

    Reference: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020, appendix A.
    """
    side = min(checked_size("simclr", size))
    color = channels == 3
    layers = [
        RandomResizedCrop(size, scale, value_range=value_range),
        RandomHorizontalFlip(value_range=value_range),
        RandomColorJitter(
            brightness=0.8 * strength,
            contrast=0.8 * strength,
            saturation=0.8 * strength if color else 0.0,
            hue=0.2 * strength if color else 0.0,
            probability=0.8,
            value_range=value_range,
        ),
    ]
    if color:
        layers.append(RandomGrayscale(value_range=value_range))
    if side > 32:
        layers.append(RandomGaussianBlur(odd_tenth(side), value_range=value_range))
    return Views(layers, layers)


def moco(size, channels=3, scale=(0.2, 1.0), value_range=(0, 255)):
    """MoCo v2's policy, which SimSiam takes over: SimCLR's with half of its color jitter, and crops of 20 to 100 %.

    As in `simclr`, there is no blur up to 32 pixels, and with other than three channels saturation, hue and gray are
    left out.

    Args:
        size, channels, scale, value_range: as of `simclr`.

    Returns:
        `Views` of two views.

    Reference: Chen et al., "Improved Baselines with Momentum Contrastive Learning", 2020; the authors' code.
    """
    return simclr(size, channels, strength=0.5, scale=scale, value_range=value_range)


def byol(size, channels=3, scale=(0.08, 1.0), value_range=(0, 255)):
    """BYOL's policy: crop, flip, color jitter, gray, blur, solarization; the two views differ.

    The first view is always blurred and never solarized; the second is blurred once in ten times and solarized once in
    five. As in `simclr`, there is no blur up to 32 pixels (where a tenth of the side is no kernel), and with other than
    three channels saturation, hue and gray are left out.

    Args:
        size: height and width of a view in pixels, or one number for both.
        channels: of the images.
        scale: smallest and largest area of the crop, as a fraction of the image.
        value_range: of the images.

    Returns:
        `Views` of two views.

    Reference: Grill et al., "Bootstrap Your Own Latent", 2020, appendix B, table 6.
    """
    side = min(checked_size("byol", size))
    color = channels == 3
    shared = [
        RandomResizedCrop(size, scale, interpolation="bicubic", value_range=value_range),
        RandomHorizontalFlip(value_range=value_range),
        RandomColorJitter(
            brightness=0.4,
            contrast=0.4,
            saturation=0.2 if color else 0.0,
            hue=0.1 if color else 0.0,
            probability=0.8,
            value_range=value_range,
        ),
    ]
    if color:
        shared.append(RandomGrayscale(value_range=value_range))
    first, second = list(shared), list(shared)
    if side > 32:
        first.append(RandomGaussianBlur(odd_tenth(side), probability=1.0, value_range=value_range))
        second.append(RandomGaussianBlur(odd_tenth(side), probability=0.1, value_range=value_range))
    second.append(RandomSolarization(probability=0.2, value_range=value_range))
    return Views(first, second)


def barlow_twins(size, channels=3, scale=(0.08, 1.0), value_range=(0, 255)):
    """Barlow Twins' policy, which is `byol`'s.

    Args:
        size, channels, scale, value_range: as of `byol`.

    Returns:
        `Views` of two views.

    Reference: Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", 2021, section 2.2.
    """
    return byol(size, channels, scale, value_range)


def small_gray(size, value_range=(0, 255)):
    """For small gray images such as Fashion-MNIST: mild crop, flip, brightness and contrast, an erased box.

    SimCLR's own crops take down to 8 % of the image, which leaves nothing to recognize of a shirt of 28 pixels, and
    most of its color steps do nothing to gray. This policy is measured (docs/methods.md), not a paper's.

    Args:
        size: height and width of a view in pixels, or one number for both.
        value_range: of the images.

    Returns:
        `Views` of two views.
    """
    layers = [
        RandomResizedCrop(size, scale=(0.6, 1.0), value_range=value_range),
        RandomHorizontalFlip(value_range=value_range),
        RandomColorJitter(brightness=0.8, contrast=0.8, value_range=value_range),
        RandomErasing(probability=0.5, value_range=value_range),
    ]
    return Views(layers, layers)


def mae(size, scale=(0.2, 1.0), value_range=(0, 255)):
    """MAE's policy, one view: a crop of 20 to 100 % of the area, and a flip. What is hidden is what augments.

    Args:
        size: height and width of the view in pixels, or one number for both.
        scale: smallest and largest area of the crop, as a fraction of the image.
        value_range: of the images.

    Returns:
        `Views` of one view.

    Reference: He et al., "Masked Autoencoders Are Scalable Vision Learners", 2022; the authors' code.
    """
    crop = RandomResizedCrop(size, scale, interpolation="bicubic", value_range=value_range)
    return Views([crop, RandomHorizontalFlip(value_range=value_range)])


def simmim(size, scale=(0.67, 1.0), value_range=(0, 255)):
    """SimMIM's policy, one view: a crop of 67 to 100 % of the area, and a flip.

    Args:
        size, scale, value_range: as of `mae`.

    Returns:
        `Views` of one view.

    Reference: Xie et al., "SimMIM: a Simple Framework for Masked Image Modeling", 2022; the authors' code.
    """
    crop = RandomResizedCrop(size, scale, value_range=value_range)
    return Views([crop, RandomHorizontalFlip(value_range=value_range)])


def proxy(value_range=(0, 255)):
    """One view for tasks that label themselves, of any size: flip, brightness and contrast up to ±0.4.

    What such a task asks for (a rotation, a place) must not be changed by its view: so no crop, and no flip upside
    down. Brightness and contrast keep a patch from being told by its exact values.

    Args:
        value_range: of the images.

    Returns:
        `Views` of one view.
    """
    jitter = RandomColorJitter(brightness=0.4, contrast=0.4, value_range=value_range)
    return Views([RandomHorizontalFlip(value_range=value_range), jitter])


def odd_tenth(side):
    """A tenth of a side in whole pixels, made odd: SimCLR's width of the blur's kernel."""
    return max(3, side // 10 // 2 * 2 + 1)


def default_views(backbone, value_range, policy=simclr):
    """The views that a method takes where it is given none: by the size and channels of the backbone's images.

    Args:
        backbone: any Keras model.
        value_range: of the images.
        policy: of the method's paper, such as `simclr` or `byol`.

    Returns:
        `small_gray` for one channel and up to 64 pixels, else those of `policy`; None for a backbone whose input is of
        an open size or no image, for which the user must say.
    """
    shape = getattr(backbone, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:]:
        return None
    _, height, width, channels = shape
    if channels == 1 and max(height, width) <= 64:
        return small_gray((height, width), value_range)
    return policy((height, width), channels, value_range=value_range)


def one_view(backbone, value_range, policy):
    """The view of a method of masks where it is given none: the policy's for images; other inputs as they are.

    Args:
        backbone: any Keras model.
        value_range: of the images.
        policy: `mae` or `simmim`.

    Returns:
        `Views` of one view; None where the size is open.
    """
    shape = getattr(backbone, "input_shape", None)
    if not isinstance(shape, tuple) or None in shape[1:]:
        return None
    return policy(shape[1:3], value_range=value_range) if len(shape) == 4 else Views([])
