"""Views of series `(n, time, channels)` and of spectrograms `(n, time, frequency, channels)`.

Layers that change the first axis after the batch's take both, and whatever else has time there.
"""

import keras
import numpy as np
from keras import ops

from keras_ssl.augment.layer import RandomLayer, checked_range, fraction, per_image, sides
from keras_ssl.augment.views import Views


class SignalLayer(RandomLayer):
    """The base of layers for inputs that need not have a range: their result is cut to `value_range` where it is given.

    Args:
        value_range: lowest and highest value of the input; None for no range.
        **kwargs: `probability` and `seed`, see `RandomLayer`.
    """

    example_rank = None

    def __init__(self, value_range=None, **kwargs):
        super().__init__(**kwargs)
        self.value_range = None if value_range is None else checked_range(self, value_range)

    def in_range(self, values):
        return values if self.value_range is None else ops.clip(values, *self.value_range)


@keras.saving.register_keras_serializable("keras_ssl")
class RandomTimeCrop(SignalLayer):
    """A random part of each series, stretched or shrunk to one length.

    Values between two moments are interpolated linearly. There is no smoothing before a series is shrunk: parts much
    longer than `length` lose their fast changes to aliasing. Without training the whole series is resampled.

    Args:
        length: of the result, in moments.
        scale: shortest and longest part, as a fraction of the series; uniform. (1, 1) for the whole series.

    Input: `(n, time, …)`, such as `(n, time, channels)` or `(n, time, frequency, channels)`; its first axis is always
    the batch's. Output: `(n, length, …)`.

    Reference: Le Guennec et al., "Data Augmentation for Time Series Classification using Convolutional Neural
    Networks", 2016, section 3.1 (window slicing and window warping).
    """

    def __init__(self, length, scale=(0.5, 1.0), **kwargs):
        super().__init__(**kwargs)
        if self.probability != 1.0:
            raise ValueError("RandomTimeCrop sets the length, so it is applied to all series: leave `probability` 1.")
        if not isinstance(length, (int, np.integer)) or isinstance(length, bool) or length < 1:
            raise ValueError(f"RandomTimeCrop: `length` must be an integer, 1 or more; it is {length!r}.")
        if len(scale) != 2 or not 0.0 < scale[0] <= scale[1] <= 1.0:
            raise ValueError(
                f"RandomTimeCrop: `scale` must be (shortest, longest), above 0 and at most 1; it is {scale!r}."
            )
        self.length = int(length)
        self.scale = (float(scale[0]), float(scale[1]))

    def transform(self, series, rng):
        share = rng.uniform("length", None, *self.scale)
        return resampled(series, rng.uniform("start") * (1.0 - share), share, self.length)

    def without_draw(self, series):
        if series.shape[1] == self.length:
            return series
        whole = ops.ones(ops.shape(series)[:1])
        return resampled(series, 0.0 * whole, whole, self.length)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.length, *input_shape[2:])

    def get_config(self):
        return {**super().get_config(), "length": self.length, "scale": self.scale}


def resampled(series, start, share, length):
    """A part of each series at `length` moments, interpolated linearly.

    Args:
        series: float32 `(n, time, …)`.
        start, share: `(n,)`, where a part begins and how long it is, as fractions of the series.
        length: Python integer, in moments.

    Returns:
        float32 `(n, length, …)`.
    """
    inner = sides(series, 2, None)
    (time,) = sides(series, 1, 2)
    last = ops.cast(time - 1, "float32")
    # A moment stands in the middle of its own share of the time, as a pixel does: so the parts are of one scale.
    place = start[:, None] + share[:, None] * ((ops.arange(length, dtype="float32") + 0.5) / length)[None, :]
    place = ops.clip(place * ops.cast(time, "float32") - 0.5, 0.0, last)
    before = ops.floor(place)
    part = _per_moment(place - before, len(series.shape))
    first = ops.arange(ops.shape(series)[0], dtype="int32")[:, None] * time
    moments = ops.reshape(series, (-1, *inner))

    def at(moment):
        taken = ops.take(moments, first + ops.cast(moment, "int32"), axis=0)
        return ops.reshape(taken, (-1, length, *inner))  # on JAX `take` loses the axes of an empty batch

    return (1.0 - part) * at(before) + part * at(ops.minimum(before + 1.0, last))


def _per_moment(values, rank):
    """`(n, time)` as `(n, time, 1, …)`, for arithmetic with series of a rank."""
    return ops.reshape(values, (-1, values.shape[1], *[1] * (rank - 2)))


@keras.saving.register_keras_serializable("keras_ssl")
class RandomNoise(SignalLayer):
    """Adds noise of its own to every value.

    The noise is nearly normal: the sum of four uniform numbers, which is the same on every backend (`RowRNG.normal`).

    Args:
        std: its standard deviation, in the units of the input.
        value_range: where the result is cut off; None for nowhere.

    Input and output: `(n, …)`, of any rank; the first axis is always the batch's.
    """

    def __init__(self, std=0.1, **kwargs):
        super().__init__(**kwargs)
        self.std = not_negative(self, "std", std)

    def transform(self, values, rng):
        inner = sides(values, 1, None)
        columns = 1
        for side in inner:
            columns = columns * side
        return self.in_range(values + self.std * ops.reshape(rng.normal("noise", columns), (-1, *inner)))

    def get_config(self):
        return {**super().get_config(), "std": self.std}


@keras.saving.register_keras_serializable("keras_ssl")
class RandomJitter(RandomNoise):
    """`RandomNoise` for series `(n, time, channels)`, by the name that the field of time series gives it.

    Used alone it also takes one series, `(time, channels)`.

    Reference: Um et al., "Data Augmentation of Wearable Sensor Data for Parkinson's Disease Monitoring using
    Convolutional Neural Networks", 2017, section 3 (jittering).
    """

    example_rank = 2


@keras.saving.register_keras_serializable("keras_ssl")
class RandomScale(SignalLayer):
    """Multiplies each channel of each example by a factor of its own.

    Args:
        sigma: standard deviation of the factors, whose mean is 1; they are drawn as `RandomNoise` draws.
        value_range: where the result is cut off; None for nowhere.

    Input and output: `(n, …, channels)`, of any rank; the first axis is always the batch's. A factor multiplies the
    distance from 0, so give values whose middle is 0, or that are intensities.

    Reference: Um et al., 2017, section 3 (scaling).
    """

    def __init__(self, sigma=0.1, **kwargs):
        super().__init__(**kwargs)
        self.sigma = not_negative(self, "sigma", sigma)

    def transform(self, values, rng):
        channels = values.shape[-1]
        factors = 1.0 + self.sigma * rng.normal("factor", channels)
        return self.in_range(values * ops.reshape(factors, (-1, *[1] * (len(values.shape) - 2), channels)))

    def get_config(self):
        return {**super().get_config(), "sigma": self.sigma}


class _RandomMask(SignalLayer):
    """Covers a span along one axis. Its length is uniform between 0 and `share` of the axis, its place uniform too."""

    axis = 1

    def __init__(self, share=0.2, fill=None, **kwargs):
        super().__init__(**kwargs)
        self.share = fraction(self, "share", share)
        self.fill = fill

    def transform(self, values, rng):
        rank = len(values.shape)
        if rank < self.axis + 2:
            raise ValueError(
                f"{type(self).__name__} takes (n, time, …, channels), and this batch is of shape {tuple(values.shape)}."
            )
        (side,) = sides(values, self.axis, self.axis + 1)
        length = ops.cast(side, "float32")
        # Whole numbers from 0 to the largest, and so that each place is as likely as another.
        covered = ops.floor(rng.uniform("length") * (ops.floor(self.share * length) + 1.0))
        start = ops.floor(rng.uniform("start") * (length - covered + 1.0))
        shape = [1] * rank
        shape[self.axis] = -1
        place = ops.reshape(ops.arange(side, dtype="int32"), shape)
        place, start, covered = ops.cast(place, "float32"), per_image(start, rank), per_image(covered, rank)
        inside = ops.logical_and(place >= start, place < start + covered)
        if self.fill is None:
            fill = ops.mean(values, axis=tuple(range(1, rank - 1)), keepdims=True)
        else:
            fill = ops.cast(self.fill, "float32")
        return ops.where(inside, fill, values)

    def get_config(self):
        return {**super().get_config(), "share": self.share, "fill": self.fill}


@keras.saving.register_keras_serializable("keras_ssl")
class RandomTimeMask(_RandomMask):
    """Covers a random span of time with one value. For several spans put the layer into the list several times.

    Args:
        share: of the time that is covered at most, in [0, 1]; the length of the span is uniform from 0 to it.
        fill: the value; None for each example's mean in each channel.

    Input and output: `(n, time, …, channels)`, series or spectrograms; the first axis is always the batch's.

    Reference: Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition", 2019,
    section 2.
    """


@keras.saving.register_keras_serializable("keras_ssl")
class RandomFrequencyMask(_RandomMask):
    """Covers a random band of frequencies with one value. For several bands put the layer into the list several times.

    Args:
        share: of the frequencies that are covered at most, in [0, 1]; the width of the band is uniform from 0 to it.
        fill: the value; None for each example's mean in each channel.

    Input and output: spectrograms `(n, time, frequency, channels)`.

    Reference: Park et al., 2019, section 2.
    """

    axis = 2
    example_rank = 3


def not_negative(owner, name, value):
    if not value >= 0.0:
        raise ValueError(f"{type(owner).__name__}: `{name}` must be 0 or more; it is {value!r}.")
    return float(value)


def series(length, scale=(0.5, 1.0), std=0.1, sigma=0.2, share=0.2, value_range=None):
    """For series `(n, time, channels)`: a part of the time, a span covered, amplitude and noise; both views alike.

    The strengths are for series whose channels have deviation 1 (subtract the mean and divide by the deviation of the
    training data). They are this library's, not a paper's: tune them to what must not change the meaning of a series.

    Args:
        length: of a view, in moments.
        scale: shortest and longest part, as a fraction of the series.
        std: of the noise, in the units of the series.
        sigma: deviation of the amplitudes' factors.
        share: of the time that is covered at most.
        value_range: of the series, where views are cut off; None for no range.

    Returns:
        `Views` of two views.
    """
    layers = [
        RandomTimeCrop(length, scale, value_range=value_range),
        RandomTimeMask(share, value_range=value_range),
        RandomScale(sigma, value_range=value_range),
        RandomJitter(std, value_range=value_range),
    ]
    return Views(layers, layers)


def spectrograms(length, scale=(0.5, 1.0), time_share=0.2, frequency_share=0.2, value_range=None):
    """For spectrograms `(n, time, frequency, channels)`: a part of the time, and SpecAugment's masks; both views alike.

    Args:
        length: of a view, in frames; the frequencies stay.
        scale: shortest and longest part, as a fraction of the spectrogram's time.
        time_share, frequency_share: of the time and of the frequencies that are covered at most.
        value_range: of the spectrograms; None for no range.

    Returns:
        `Views` of two views.

    Reference: Park et al., 2019, section 2, for the masks; Saeed et al., "Contrastive Learning of General-Purpose Audio
    Representations", 2021, section 2, for parts of one recording as its views.
    """
    layers = [
        RandomTimeCrop(length, scale, value_range=value_range),
        RandomTimeMask(time_share, value_range=value_range),
        RandomFrequencyMask(frequency_share, value_range=value_range),
    ]
    return Views(layers, layers)
