"""What happens to a pixel's value: jitter, gray, solarization.

The formulas are torchvision's, which Lightly and most published recipes use. Keras' color layers are others: contrast
per channel instead of about the mean of the gray image, saturation in HSV instead of a blend with gray. The functions
take images in [0, 1], and a factor that is a number or `(n, 1, 1, 1)`.
"""

import keras
import numpy as np
from keras import ops

from keras_ssl import backend
from keras_ssl.augment.layer import RandomLayer, per_image

# ITU-R 601, as torchvision and Pillow.
_LUMA = (0.2989, 0.587, 0.114)


def grayscale(images):
    """One gray channel `(n, height, width, 1)`. One channel is gray already; others than 1 and 3 have no gray."""
    channels = images.shape[-1]
    check_has_gray(channels)
    if channels == 1:
        return images
    return sum(weight * images[..., i : i + 1] for i, weight in enumerate(_LUMA))


def check_has_gray(channels):
    if channels not in (1, 3):
        raise ValueError(
            f"Gray, saturation and hue are defined for 1 or 3 channels, and these images have {channels}. "
            "Leave those steps out: augment.simclr(size, channels=…) does."
        )


def blend(images, other, factor):
    """`factor` of the image and the rest of the other, cut to [0, 1]."""
    return ops.clip(factor * images + (1.0 - factor) * other, 0.0, 1.0)


def adjust_brightness(images, factor):
    return blend(images, 0.0, factor)


def adjust_contrast(images, factor):
    return blend(images, _mean_gray(images), factor)


def adjust_saturation(images, factor):
    return blend(images, grayscale(images), factor)


def adjust_hue(images, turn):
    """Turns the hue of HSV by `turn`, `(n, 1, 1, 1)` in whole turns: 0.5 is the opposite color."""
    if images.shape[-1] == 1:
        return images
    return ops.stack(_turned(images[..., 0], images[..., 1], images[..., 2], turn[..., 0]), axis=-1)


def _turned(red, green, blue, turn):
    """`adjust_hue` of three planes, whatever their shape: a list of three."""
    value = ops.maximum(ops.maximum(red, green), blue)
    chroma = value - ops.minimum(ops.minimum(red, green), blue)
    red_leads, green_leads = ops.equal(value, red), ops.equal(value, green)
    difference = ops.where(red_leads, green - blue, ops.where(green_leads, blue - red, red - green))
    sector = difference / ops.where(chroma > 0.0, chroma, 1.0)
    sector = sector + ops.where(red_leads, 0.0, ops.where(green_leads, 2.0, 4.0)) + 6.0 * turn
    channels = []
    # A channel is the value less a share of the chroma that depends on its distance from the hue: f(5), f(3), f(1) of
    # the usual closed form of HSV to RGB.
    for offset in (5.0, 3.0, 1.0):
        distance = sector + offset
        distance = distance - 6.0 * ops.floor(distance / 6.0)
        channels.append(value - chroma * ops.clip(ops.minimum(distance, 4.0 - distance), 0.0, 1.0))
    return channels


def solarize(images, threshold):
    """Inverts the values from `threshold` upwards."""
    return ops.where(images >= threshold, 1.0 - images, images)


def _mean_gray(images):
    # An image of many bands has no gray; its mean is the mean of all of them.
    gray = grayscale(images) if images.shape[-1] in (1, 3) else images
    return ops.mean(gray, axis=(1, 2, 3), keepdims=True)


def _blend_one(images, step, names, factors):
    """Each image takes the step whose number it drew: one blend, whose factor and partner are the image's own."""
    factor, partner = 1.0, 0.0
    for number, name in names.items():
        mine = per_image(ops.equal(step, number))
        factor = ops.where(mine, factors[name], factor)
        if name == "contrast":
            partner = ops.where(mine, _mean_gray(images), partner)
        elif name == "saturation":
            partner = ops.where(mine, grayscale(images), partner)
    return blend(images, partner, factor)


def _mean_gray_of_planes(planes):
    # A product with ones, for it goes by vectors, and a mean adds number by number.
    channels, height, width = planes.shape
    weights = np.array([_LUMA] if channels == 3 else [[1.0 / channels] * channels], "float32")
    means = backend.matmul(
        ops.reshape(planes, (channels, -1)), np.full((height * width, 1), 1.0 / (height * width), "float32")
    )
    return backend.matmul(weights, means)[0, 0]


def _gray_of_planes(planes):
    return sum(weight * planes[place] for place, weight in enumerate(_LUMA))


# The steps for one image as planes `(channels, height, width)`: of a factor, a function.
_PLANE_STEPS = {
    "brightness": lambda factor: lambda planes: blend(planes, 0.0, factor),
    "contrast": lambda factor: lambda planes: blend(planes, _mean_gray_of_planes(planes), factor),
    "saturation": lambda factor: lambda planes: blend(planes, _gray_of_planes(planes), factor),
    "hue": lambda factor: lambda planes: ops.stack(_turned(planes[0], planes[1], planes[2], factor)),
}


@keras.saving.register_keras_serializable("keras_ssl")
class RandomColorJitter(RandomLayer):
    """Random brightness, contrast, saturation and hue, in an order of its own for each image.

    Args:
        brightness, contrast, saturation: the factor is uniform in [max(0, 1 − x), 1 + x]; 0 leaves the step out.
        hue: the turn of the hue is uniform in [−hue, hue], in whole turns, at most 0.5; 0 leaves the step out.

    Saturation and hue do nothing to one channel, and raise an error for others than 1 and 3.

    Reference: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020, appendix A;
    the arithmetic is torchvision's `ColorJitter`.
    """

    def __init__(self, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, **kwargs):
        super().__init__(**kwargs)
        strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
        for name, strength in strengths.items():
            highest = 0.5 if name == "hue" else float("inf")
            if not 0.0 <= strength <= highest:
                until = " and at most 0.5 (half a turn)" if name == "hue" else ""
                raise ValueError(f"RandomColorJitter: `{name}` must be 0 or more{until}; it is {strength!r}.")
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def _drawn(self, rng, channels):
        """The factor of each step that does something, `(n,)`, and their order, `(n, steps)`."""
        factors = {}
        for name in ("brightness", "contrast", "saturation", "hue"):
            strength = getattr(self, name)
            if strength > 0.0 and (channels != 1 or name in ("brightness", "contrast")):
                bounds = (-strength, strength) if name == "hue" else (max(0.0, 1.0 - strength), 1.0 + strength)
                factors[name] = rng.uniform(name, None, *bounds)
        return factors, rng.permutation("order", len(factors)) if factors else None

    image_by_image = True

    @property
    def faster_by_image(self):
        return sum(strength > 0.0 for strength in (self.brightness, self.contrast, self.saturation, self.hue)) > 1

    def transform_image(self, image, rng):
        factors, order = self._drawn(rng, image.shape[-1])
        if not factors:
            return self.from_unit(self.to_unit(image))
        # Plane by plane, for three colors side by side don't fill a processor's vectors.
        planes = ops.transpose(self.to_unit(image), (2, 0, 1))
        steps = [_PLANE_STEPS[name](factor[0]) for name, factor in factors.items()]

        def step(place, planes):
            return ops.switch(backend.take_inside(order[0], place, 0), steps, planes)

        planes = ops.fori_loop(0, len(steps), step, planes)
        return self.from_unit(ops.transpose(planes, (1, 2, 0)))

    def transform(self, images, rng):
        images = self.to_unit(images)
        factors, order = self._drawn(rng, images.shape[-1])
        if not factors:
            return self.from_unit(images)
        active = list(factors)
        factors = {name: per_image(factor) for name, factor in factors.items()}
        blends = {number: name for number, name in enumerate(active) if name != "hue"}
        if "hue" not in active:
            for place in range(len(active)):
                images = _blend_one(images, order[:, place], blends, factors)
            return self.from_unit(images)
        # Turning the hue is the dear step, so it is done once for all images, between the blends that an image drew to
        # come before it and those that it drew to come after; at the other places the image passes unchanged.
        hue_place = ops.argmax(ops.cast(ops.equal(order, active.index("hue")), "int32"), axis=1)
        for place in range(len(active) - 1):
            images = _blend_one(images, ops.where(hue_place > place, order[:, place], -1), blends, factors)
        images = adjust_hue(images, factors["hue"])
        for place in range(1, len(active)):
            images = _blend_one(images, ops.where(hue_place < place, order[:, place], -1), blends, factors)
        return self.from_unit(images)

    def transform_planes(self, rng, shape):
        factors, order = self._drawn(rng, shape[-1])
        if not factors:
            return lambda planes, rows: planes
        if "saturation" in factors or "hue" in factors:
            check_has_gray(shape[-1])
        low, high = self.value_range

        return lambda planes, rows: backend.planes.jitter(planes, order, factors, rows, low, high)

    def get_config(self):
        names = ("brightness", "contrast", "saturation", "hue")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable("keras_ssl")
class RandomGrayscale(RandomLayer):
    """Takes the color from a share of the images; the number of channels stays."""

    def __init__(self, probability=0.2, **kwargs):
        super().__init__(probability=probability, **kwargs)

    image_by_image = True

    def transform(self, images, rng):
        # In [0, 1], for the three weights of gray sum to 0.9999, and black must stay black.
        gray = self.from_unit(grayscale(self.to_unit(images)))
        return ops.broadcast_to(gray, ops.shape(images))

    def transform_planes(self, rng, shape):
        check_has_gray(shape[-1])
        return lambda planes, rows: backend.planes.grayscale(planes, self.value_range[0])


@keras.saving.register_keras_serializable("keras_ssl")
class RandomSolarization(RandomLayer):
    """Inverts the bright values of a share of the images.

    Args:
        threshold: from where on values are inverted, as a fraction of the value range; in [0, 1].

    Reference: Grill et al., "Bootstrap Your Own Latent", 2020, appendix B: threshold 0.5, probability 0.2, in the
    second view only.
    """

    def __init__(self, probability=0.2, threshold=0.5, **kwargs):
        super().__init__(probability=probability, **kwargs)
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"RandomSolarization: `threshold` must lie between 0 and 1; it is {threshold!r}.")
        self.threshold = float(threshold)

    image_by_image = True

    def transform(self, images, rng):
        return self.from_unit(solarize(self.to_unit(images), self.threshold))

    def transform_planes(self, rng, shape):
        low, high = self.value_range
        return lambda planes, rows: backend.planes.solarize(planes, self.threshold, low, high)

    def get_config(self):
        return {**super().get_config(), "threshold": self.threshold}
