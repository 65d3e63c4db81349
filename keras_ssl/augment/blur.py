"""Gaussian blur with its own width for every image."""

import keras
import numpy as np
from keras import ops

from keras_ssl import backend
from keras_ssl.augment.geometry import resample
from keras_ssl.augment.layer import RandomLayer, held, sides


def gaussian_blur(images, kernel_size, sigma):
    """Blurs each image with its own Gaussian; edges are reflected, as in torchvision.

    Args:
        images: float32 `(n, height, width, channels)`.
        kernel_size: odd integer, in pixels.
        sigma: `(n,)`, standard deviations in pixels.
    """
    taps = _gaussian(kernel_size, sigma)
    rows, columns = (_blur_matrix(taps, length) for length in sides(images))
    return resample(images, rows, columns)


def _gaussian(kernel_size, sigma):
    """float32 `(n, kernel_size)`, each row summing to 1."""
    reach = kernel_size // 2
    offsets = ops.arange(-reach, reach + 1, dtype="float32")
    taps = ops.exp(-0.5 * ops.square(offsets[None, :] / sigma[:, None]))
    return taps / ops.sum(taps, axis=1, keepdims=True)


def blur_of_one(image, kernel_size, sigma, never):
    """`gaussian_blur` of one image, as a sum of shifted copies.

    Args:
        image: float32 `(height, width, channels)`, of a known size.
        sigma: `(1,)`, in pixels.
        never: see `held`.
    """
    height, width, channels = image.shape
    _check_reach(kernel_size, min(height, width))
    (taps,) = held(never, lambda: (_gaussian(kernel_size, sigma)[0],))

    def along(image, axis, step):
        """Weighted copies, each shifted by one more pixel: whole rows of numbers, as they lie in memory."""
        size, reach = image.shape[axis], kernel_size // 2
        before = (slice(None),) * axis  # what comes before the axis, whole

        def padded():
            first, last = image[(*before, slice(1, reach + 1))], image[(*before, slice(size - 1 - reach, size - 1))]
            padded = ops.concatenate([ops.flip(first, axis=axis), image, ops.flip(last, axis=axis)], axis=axis)
            return (ops.reshape(padded, _flat(image, axis, 2 * reach)),)

        def weighted():
            copies = [lines[(*before, slice(tap * step, (tap + size) * step))] for tap in range(kernel_size)]
            return (ops.reshape(sum(taps[tap] * copy for tap, copy in enumerate(copies)), image.shape),)

        (lines,) = held(never, padded)
        return held(never, weighted)[0]

    return along(along(image, 0, 1), 1, channels)


def _flat(image, axis, more):
    """The shape of an image with more pixels along an axis and that axis' pixels side by side with all after it."""
    height, width, channels = image.shape
    return (height + more, width * channels) if axis == 0 else (height, (width + more) * channels)


def _blur_matrix(taps, length):
    """`(n, length, length)`: the taps laid out along the diagonal, reflected at both ends."""
    width = taps.shape[1]
    reach = width // 2
    if not isinstance(length, int):
        return _open_blur_matrix(taps, length)
    _check_reach(width, length)
    source = np.arange(length)[:, None] + np.arange(-reach, reach + 1)[None, :]
    source = np.abs(source)
    source = np.where(source >= length, 2 * (length - 1) - source, source)
    layout = np.zeros((width, length, length), "float32")
    for tap in range(width):
        layout[tap, np.arange(length), source[:, tap]] = 1.0
    return ops.reshape(backend.matmul(taps, layout.reshape(width, -1)), (-1, length, length))


def _check_reach(kernel_size, length):
    if kernel_size // 2 >= length:
        raise ValueError(
            f"A blur of kernel_size={kernel_size} reaches beyond an image of {length} pixels: use a smaller one."
        )


def _open_blur_matrix(taps, length):
    """The same where the length is not known while a step is traced: a tensor. Short sides are reflected repeatedly."""
    width = taps.shape[1]
    place = ops.arange(length, dtype="int32")
    source = place[:, None] + ops.arange(-(width // 2), width // 2 + 1, dtype="int32")[None, :]
    source = ops.mod(source, ops.maximum(2 * (length - 1), 1))
    source = ops.where(source >= length, 2 * (length - 1) - source, source)
    layout = ops.cast(ops.equal(ops.transpose(source)[:, :, None], place), "float32")
    return ops.reshape(backend.matmul(taps, ops.reshape(layout, (width, -1))), (-1, length, length))


@keras.saving.register_keras_serializable("keras_ssl")
class RandomGaussianBlur(RandomLayer):
    """Blurs a share of the images, each with a standard deviation of its own.

    Args:
        kernel_size: in pixels, odd; SimCLR takes a tenth of the image's side.
        sigma: smallest and largest standard deviation, in pixels.

    Reference: Chen et al., 2020, appendix A: probability 0.5, sigma uniform in (0.1, 2).
    """

    def __init__(self, kernel_size, sigma=(0.1, 2.0), probability=0.5, **kwargs):
        super().__init__(probability=probability, **kwargs)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"RandomGaussianBlur: `kernel_size` must be odd and at least 1; it is {kernel_size!r}.")
        if not 0.0 < sigma[0] <= sigma[1]:
            raise ValueError(f"RandomGaussianBlur: `sigma` must be (smallest, largest), both above 0; it is {sigma!r}.")
        self.kernel_size = int(kernel_size)
        self.sigma = (float(sigma[0]), float(sigma[1]))

    image_by_image = faster_by_image = True

    def transform(self, images, rng):
        return gaussian_blur(images, self.kernel_size, rng.uniform("sigma", None, *self.sigma))

    def transform_image(self, image, rng):
        return blur_of_one(image, self.kernel_size, rng.uniform("sigma", None, *self.sigma), never=rng.rows[0] < 0)

    def transform_planes(self, rng, shape):
        _check_reach(self.kernel_size, min(shape[1:3]))
        taps = _gaussian(self.kernel_size, rng.uniform("sigma", None, *self.sigma))
        return lambda planes, rows: backend.planes.blur(planes, taps, rows)

    def get_config(self):
        return {**super().get_config(), "kernel_size": self.kernel_size, "sigma": self.sigma}
