"""Gaussian blur with its own width for every image."""

import keras
import numpy as np
from keras import ops

from keras_ssl import backend
from keras_ssl.augment.geometry import resample
from keras_ssl.augment.layer import RandomLayer, sides


def gaussian_blur(images, kernel_size, sigma):
    """Blurs each image with its own Gaussian; edges are reflected, as in torchvision.

    Args:
        images: float32 `(n, height, width, channels)`.
        kernel_size: odd integer, in pixels.
        sigma: `(n,)`, standard deviations in pixels.
    """
    taps = gaussian_taps(kernel_size, sigma)
    rows, columns = (_blur_matrix(taps, length) for length in sides(images))
    return resample(images, rows, columns)


def gaussian_taps(kernel_size, sigma):
    """The weights of neighbors, `(n, kernel_size)`; each row sums to 1."""
    reach = kernel_size // 2
    offsets = np.arange(-reach, reach + 1, dtype="float32")
    taps = ops.exp(-0.5 * ops.square(offsets[None, :] / sigma[:, None]))
    return taps / ops.sum(taps, axis=1, keepdims=True)


def _check_reach(width, length):
    if width // 2 >= length:
        raise ValueError(
            f"A blur of kernel_size={width} reaches beyond an image of {length} pixels: use a smaller one."
        )


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
    return ops.reshape(ops.matmul(taps, layout.reshape(width, -1)), (-1, length, length))


def _open_blur_matrix(taps, length):
    """The same where the length is not known while a step is traced: a tensor. Short sides are reflected repeatedly."""
    width = taps.shape[1]
    place = ops.arange(length, dtype="int32")
    source = place[:, None] + ops.arange(-(width // 2), width // 2 + 1, dtype="int32")[None, :]
    source = ops.mod(source, ops.maximum(2 * (length - 1), 1))
    source = ops.where(source >= length, 2 * (length - 1) - source, source)
    layout = ops.cast(ops.equal(ops.transpose(source)[:, :, None], place), "float32")
    return ops.reshape(ops.matmul(taps, ops.reshape(layout, (width, -1))), (-1, length, length))


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

    def transform(self, images, rng):
        return gaussian_blur(images, self.kernel_size, rng.uniform("sigma", None, *self.sigma))

    def transform_planes(self, rng, shape):
        for length in shape[1:3]:
            _check_reach(self.kernel_size, length)
        taps = gaussian_taps(self.kernel_size, rng.uniform("sigma", None, *self.sigma))
        return lambda planes, rows: backend.planes.blur(planes, taps, rows)

    def get_config(self):
        return {**super().get_config(), "kernel_size": self.kernel_size, "sigma": self.sigma}
