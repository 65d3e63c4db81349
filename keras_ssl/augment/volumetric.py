"""Views of volumes `(n, depth, height, width, channels)`: scans, and videos with time as their depth."""

import keras
from keras import ops

from keras_ssl.augment.layer import checked_size, per_image, sides
from keras_ssl.augment.signals import RandomNoise, RandomScale, SignalLayer
from keras_ssl.augment.views import Views


@keras.saving.register_keras_serializable("keras_ssl")
class RandomCrop3D(SignalLayer):
    """A box of one size at a random place of each volume; voxels are copied, not resampled.

    Without training the box is the central one.

    Args:
        size: depth, height and width of the box in voxels, or one number for all three.

    Input: `(n, depth, height, width, channels)`, at least of `size`; used alone also one volume. Output: `(n, *size,
    channels)`.
    """

    example_rank = 4

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        if self.probability != 1.0:
            raise ValueError("RandomCrop3D sets the size, so it is applied to all volumes: leave `probability` 1.")
        self.size = checked_size(self, size, ("depth", "height", "width"))

    def transform(self, volumes, rng):
        room = [ops.cast(side - mine + 1, "float32") for side, mine in zip(self._sides(volumes), self.size)]
        first = [
            ops.cast(ops.floor(rng.uniform(name) * free), "int32")
            for name, free in zip(("depth", "height", "width"), room)
        ]
        return _boxes(volumes, first, self.size)

    def without_draw(self, volumes):
        if len(volumes.shape) == self.example_rank:
            return self.without_draw(volumes[None])[0]
        places = [(side - mine) // 2 for side, mine in zip(self._sides(volumes), self.size)]
        (d, h, w), (depth, height, width) = places, self.size
        return volumes[:, d : d + depth, h : h + height, w : w + width]

    def _sides(self, volumes):
        self._check(volumes.shape[1:4])
        return sides(volumes, 1, 4)

    def _check(self, given):
        if any(side is not None and side < mine for side, mine in zip(given, self.size)):
            raise ValueError(f"RandomCrop3D: `size` is {self.size}, and the volumes are only {tuple(given)}.")

    def compute_output_shape(self, input_shape):
        self._check(input_shape[-4:-1])
        return (*input_shape[:-4], *self.size, input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "size": self.size}


def _boxes(volumes, first, size):
    """The box of a size that begins, in each volume, at its own place: three integer tensors `(n,)`."""
    depth, height, width = sides(volumes, 1, 4)
    rows = ops.arange(ops.shape(volumes)[0], dtype="int32")
    d, h, w = (place[:, None] + ops.arange(side, dtype="int32")[None, :] for place, side in zip(first, size))
    place = (rows[:, None] * depth + d)[:, :, None, None] * height + h[:, None, :, None]
    place = place * width + w[:, None, None, :]
    voxels = ops.take(ops.reshape(volumes, (-1, volumes.shape[-1])), place, axis=0)
    return ops.reshape(voxels, (-1, *size, volumes.shape[-1]))  # on JAX `take` loses the axes of an empty batch


@keras.saving.register_keras_serializable("keras_ssl")
class RandomFlip3D(SignalLayer):
    """Mirrors volumes along some axes, each volume along each axis by a draw of its own, half of the time.

    Args:
        axes: which may be mirrored, of 0 for depth, 1 for height and 2 for width. Leave out those whose direction means
            something: time, or left and right where organs lie.
        probability: the share of volumes to which the draws apply.

    Input and output: `(n, depth, height, width, channels)`; used alone also one volume.
    """

    example_rank = 4

    def __init__(self, axes=(0, 1, 2), **kwargs):
        super().__init__(**kwargs)
        self.axes = (axes,) if isinstance(axes, int) else tuple(axes)
        if not self.axes or not set(self.axes) <= {0, 1, 2}:
            raise ValueError(
                f"RandomFlip3D: `axes` must be some of 0 (depth), 1 (height) and 2 (width); they are {axes!r}."
            )

    def transform(self, volumes, rng):
        for axis in self.axes:
            mirrored = per_image(rng.bernoulli(f"axis {axis}", 0.5), 5)
            volumes = ops.where(mirrored, ops.flip(volumes, axis=axis + 1), volumes)
        return volumes

    def get_config(self):
        return {**super().get_config(), "axes": self.axes}


def volumes(size, axes=(0, 1, 2), sigma=0.1, noise=0.05, value_range=None):
    """For volumes `(n, depth, height, width, channels)`: a box, mirrored, scaled, with noise; both views alike.

    The strengths are this library's, not a paper's.

    Args:
        size: depth, height and width of a view in voxels, or one number for all three.
        axes: along which a view may be mirrored: 0 depth, 1 height, 2 width.
        sigma: deviation of the factors on the values of each channel.
        noise: deviation of the noise, as a fraction of the value range; where that is None, in the volumes' own
            units.
        value_range: of the volumes, where views are cut off; None for no range.

    Returns:
        `Views` of two views.
    """
    std = noise if value_range is None else noise * (value_range[1] - value_range[0])
    layers = [
        RandomCrop3D(size, value_range=value_range),
        RandomFlip3D(axes, value_range=value_range),
        RandomScale(sigma, value_range=value_range),
        RandomNoise(std, value_range=value_range),
    ]
    return Views(layers, layers)
