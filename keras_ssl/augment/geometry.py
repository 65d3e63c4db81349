"""Where pixels come from: crops, flips, erased boxes.

A crop with a resize is linear in the image, so it is two small matrices an image, one for rows and one for columns.
That is a batched product on every backend, compiles with static shapes, and gives each image of a batch its own box.
"""

import math

import keras
import numpy as np
from keras import ops

from keras_ssl import backend
from keras_ssl.augment.layer import RandomLayer, checked_size, held, per_image, sides

_MOST_TAPS = 32
"""Of a pixel in one direction, up to which a crop is summed tap by tap; beyond, products with matrices are faster."""


def resample(images, rows, columns):
    """Each output row and column as a weighted sum of the input's.

    Args:
        images: `(n, height, width, channels)`.
        rows: `(n, new_height, height)`.
        columns: `(n, new_width, width)`.

    Returns:
        `(n, new_height, new_width, channels)`.
    """
    height, width = sides(images)
    channels = images.shape[-1]
    (new_height,), (new_width,) = sides(rows, 1, 2), sides(columns, 1, 2)
    # Channels ride along with the other side's pixels: a product with one or three columns would waste the machine.
    images = backend.matmul(rows, ops.reshape(images, (-1, height, width * channels)))
    images = ops.transpose(ops.reshape(images, (-1, new_height, width, channels)), (0, 2, 1, 3))
    images = backend.matmul(columns, ops.reshape(images, (-1, width, new_height * channels)))
    return ops.transpose(ops.reshape(images, (-1, new_width, new_height, channels)), (0, 2, 1, 3))


def _triangle(x):
    return ops.maximum(1.0 - ops.abs(x), 0.0)


def _cubic(x, a):
    x = ops.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    return ops.where(x < 1.0, near, ops.where(x < 2.0, far, 0.0))


def resize_matrix(start, extent, size, length, interpolation="bilinear", antialias=True):
    """The matrices that cut `[start, start + extent)` out of `length` pixels and bring it to `size`.

    Centers of pixels lie at halves, as in torchvision, Pillow and TensorFlow 2.

    Args:
        start: `(n,)`, whole numbers, in pixels.
        extent: `(n,)`, whole numbers, in pixels.
        size: Python integer, in pixels.
        length: integer, in pixels.
        interpolation: "bilinear" or "bicubic".
        antialias: widen the kernel where the crop is larger than `size`.

    Returns:
        float32 `(n, size, length)`; each row sums to 1.
    """
    start, extent = ops.cast(start, "float32")[:, None, None], ops.cast(extent, "float32")[:, None, None]
    scale = extent / size
    center = (ops.arange(size, dtype="float32")[None, :, None] + 0.5) * scale - 0.5
    pixel = ops.cast(ops.arange(length, dtype="int32"), "float32")[None, None, :] - start
    if interpolation == "bicubic" and not antialias:
        # PyTorch's own constant for this case, and taps beyond the edge fall on the edge.
        first, weights = ops.floor(center), 0.0
        for tap in (-1.0, 0.0, 1.0, 2.0):
            source = ops.clip(first + tap, 0.0, extent - 1.0)
            weights = weights + _cubic(center - first - tap, -0.75) * ops.cast(ops.equal(pixel, source), "float32")
        return weights
    width = ops.maximum(scale, 1.0) if antialias else 1.0
    distance = (pixel - center) / width
    weights = _triangle(distance) if interpolation == "bilinear" else _cubic(distance, -0.5)
    inside = ops.logical_and(pixel >= 0.0, pixel < extent)
    weights = ops.where(inside, weights, 0.0)
    return weights / ops.sum(weights, axis=-1, keepdims=True)


def resized_crop(images, top, left, height, width, size, interpolation="bilinear", antialias=True):
    """Cuts a box out of each image and resizes it, as torchvision's `resized_crop`.

    Args:
        images: float32 `(n, height, width, channels)`.
        top, left, height, width: `(n,)` whole numbers, in pixels.
        size: `(height, width)` of the result.
        interpolation, antialias: see `resize_matrix`.
    """
    full_height, full_width = sides(images)
    rows = resize_matrix(top, height, size[0], full_height, interpolation, antialias)
    columns = resize_matrix(left, width, size[1], full_width, interpolation, antialias)
    return resample(images, rows, columns)


def _taps(start, extent, size, length, interpolation, antialias, mirrored):
    """`resize_matrix` of one image without its zeros: which pixels, and how much of each.

    Returns:
        int32 and float32 `(size, taps)`. Their number is that of the largest box: boxes differ from image to image.
    """
    place = ops.arange(size, dtype="float32")
    place = place if mirrored is None else ops.where(mirrored, size - 1.0 - place, place)
    scale = extent / size
    center = (place + 0.5) * scale - 0.5
    reach = 1.0 if interpolation == "bilinear" else 2.0
    width = ops.maximum(scale, 1.0) if antialias else 1.0
    count = math.ceil(2 * reach * (max(length / size, 1.0) if antialias else 1.0))
    first = ops.floor(center - reach * width) + 1.0
    pixel = first[:, None] + ops.arange(count, dtype="float32")
    distance = (pixel - center[:, None]) / width
    inside = ops.clip(pixel, 0.0, extent - 1.0)
    if interpolation == "bicubic" and not antialias:
        weights = _cubic(distance, -0.75)
    else:
        weights = _triangle(distance) if interpolation == "bilinear" else _cubic(distance, -0.5)
        weights = ops.where(ops.equal(pixel, inside), weights, 0.0)
        weights = weights / ops.sum(weights, axis=1, keepdims=True)
    return ops.cast(inside + start, "int32"), weights


def resized_crop_of_one(image, box, size, interpolation="bilinear", antialias=True, mirrored=None, never=False):
    """`resized_crop` of one image, from the pixels that it needs.

    Args:
        image: `(height, width, channels)` of any type.
        box: top, left, height and width, float32 scalars, whole numbers, in pixels.
        mirrored: a boolean scalar, whether the result is flipped left to right; None for no.
        never: see `held`.

    Returns:
        float32 `(*size, channels)`.
    """
    height, width, channels = image.shape
    top, left, box_height, box_width = box
    row, down, column, across = held(
        never,
        lambda: (
            *_taps(top, box_height, size[0], height, interpolation, antialias, None),
            *_taps(left, box_width, size[1], width, interpolation, antialias, mirrored),
        ),
    )

    def rows():
        flat = ops.reshape(image, (height, width * channels))
        taken = (ops.cast(backend.take_inside(flat, row[:, tap], 0), "float32") for tap in range(row.shape[1]))
        total = sum(down[:, tap, None] * pixels for tap, pixels in enumerate(taken))
        return (ops.reshape(total, (size[0], width, channels)),)

    def columns():
        taken = (backend.take_inside(cut, column[:, tap], 1) for tap in range(column.shape[1]))
        return (sum(across[None, :, tap, None] * pixels for tap, pixels in enumerate(taken)),)

    (cut,) = held(never, rows)
    (resized,) = held(never, columns)
    return resized


def warp(images, corners):
    """Each image as seen when its four corners are taken from elsewhere: a projective map of the plane.

    Pixels are interpolated bilinearly. Beyond its edges an image goes on as in a mirror: a black border would give the
    map away.

    Args:
        images: float32 `(n, height, width, channels)`.
        corners: `(n, 4, 2)`, where the upper left, upper right, lower right and lower left corner of the result come
            from, as (x, y) in units of width and height: (0, 0), (1, 0), (1, 1) and (0, 1) change nothing. Where the
            third is the second plus the fourth less the first, the map is affine.

    Returns:
        float32, of the same shape.

    Reference: Heckbert, "Fundamentals of Texture Mapping and Image Warping", 1989, section 2.2.3.
    """
    _, height, width, channels = images.shape
    x, y = corners[:, :, 0, None, None], corners[:, :, 1, None, None]
    (x0, x1, x2, x3), (y0, y1, y2, y3) = ([part[:, corner] for corner in range(4)] for part in (x, y))
    dx1, dx2, sx = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, sy = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    determinant = dx1 * dy2 - dx2 * dy1
    g, h = (sx * dy2 - dx2 * sy) / determinant, (dx1 * sy - sx * dy1) / determinant
    u = ((ops.arange(width, dtype="float32") + 0.5) / width)[None, None, :]
    v = ((ops.arange(height, dtype="float32") + 0.5) / height)[None, :, None]
    scale = g * u + h * v + 1.0
    source_x = ((x1 - x0 + g * x1) * u + (x3 - x0 + h * x3) * v + x0) / scale * width - 0.5
    source_y = ((y1 - y0 + g * y1) * u + (y3 - y0 + h * y3) * v + y0) / scale * height - 0.5
    left, top = ops.floor(source_x), ops.floor(source_y)
    across, down = (source_x - left)[..., None], (source_y - top)[..., None]
    flat = ops.reshape(images, (-1, channels))
    first = ops.arange(ops.shape(images)[0], dtype="int32")[:, None, None] * (height * width)

    def pixel(row, column):
        place = _mirrored(row, height) * width + _mirrored(column, width)
        return ops.take(flat, first + place, axis=0)

    above = (1.0 - across) * pixel(top, left) + across * pixel(top, left + 1.0)
    below = (1.0 - across) * pixel(top + 1.0, left) + across * pixel(top + 1.0, left + 1.0)
    return (1.0 - down) * above + down * below


def _mirrored(place, length):
    """A pixel's number, of whole numbers that may lie beyond the edge: … 1 0 | 0 1 2 … n−1 | n−1 …"""
    place = ops.mod(ops.cast(place, "int32"), 2 * length)
    return ops.minimum(place, 2 * length - 1 - place)


def random_boxes(rng, size, scale, ratio, attempts=10):
    """Boxes of random area and shape, by torchvision's rule: ten attempts to fit, else the largest central box.

    Args:
        rng: `RowRNG` of n rows.
        size: `(height, width)` of the images, in pixels.
        scale: smallest and largest area, as a fraction of the image.
        ratio: smallest and largest width/height; the logarithm is uniform.

    Returns:
        top, left, height, width: float32 `(n,)` each, whole numbers.
    """
    full_height, full_width = (ops.cast(side, "float32") for side in size)
    area = ops.convert_to_tensor(rng.uniform("area", attempts, *scale)) * (full_height * full_width)
    shape = ops.exp(rng.uniform("ratio", attempts, math.log(ratio[0]), math.log(ratio[1])))
    width = ops.round(ops.sqrt(area * shape))
    height = ops.round(ops.sqrt(area / shape))
    fits = (width >= 1.0) & (width <= full_width) & (height >= 1.0) & (height <= full_height)
    # The first attempt that fits, as a mask. (A smallest number there is not, of an empty batch.)
    chosen = ops.cast(fits & ops.equal(ops.cumsum(ops.cast(fits, "int32"), axis=1), 1), "float32")
    width, height = ops.sum(width * chosen, axis=1), ops.sum(height * chosen, axis=1)
    shape = ops.clip(full_width / full_height, *ratio)
    none = ops.logical_not(ops.any(fits, axis=1))
    width = ops.where(none, ops.minimum(full_width, ops.round(full_height * shape)), width)
    height = ops.where(none, ops.minimum(full_height, ops.round(full_width / shape)), height)
    top = ops.floor(ops.convert_to_tensor(rng.uniform("top")) * (full_height - height + 1.0))
    left = ops.floor(ops.convert_to_tensor(rng.uniform("left")) * (full_width - width + 1.0))
    top = ops.where(none, ops.floor((full_height - height) / 2.0), top)
    left = ops.where(none, ops.floor((full_width - width) / 2.0), left)
    return top, left, height, width


@keras.saving.register_keras_serializable("keras_ssl")
class RandomResizedCrop(RandomLayer):
    """A random box of the image, resized: the augmentation that contrastive methods live on.

    The boxes are torchvision's (and so Lightly's): area uniform in `scale`, logarithm of the shape uniform in `ratio`.
    Without training the whole image is resized.

    Args:
        size: height and width of the result in pixels, or one number for both.
        scale: smallest and largest area of the box, as a fraction of the image. SimCLR: (0.08, 1).
        ratio: smallest and largest width/height of the box. SimCLR: (3/4, 4/3).
        interpolation: "bilinear" or "bicubic"; the overshoot of the latter is cut off at the ends of the value range.
        antialias: widen the kernel where the box is larger than `size`.

    Reference: Szegedy et al., "Going deeper with convolutions", 2015; Chen et al., 2020, appendix A.
    """

    def __init__(
        self, size, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), interpolation="bilinear", antialias=True, **kwargs
    ):
        super().__init__(**kwargs)
        if self.probability != 1.0:
            raise ValueError("RandomResizedCrop sets the size, so it is applied to all images: leave `probability` 1.")
        self.size = checked_size(self, size)
        self.scale = _increasing(self, "scale", scale, highest=1.0)
        self.ratio = _increasing(self, "ratio", ratio)
        if interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f'RandomResizedCrop: `interpolation` is "bilinear" or "bicubic", not {interpolation!r}.')
        self.interpolation = interpolation
        self.antialias = antialias

    image_by_image = faster_by_image = True

    def transform(self, images, rng):
        box = random_boxes(rng, sides(images), self.scale, self.ratio)
        return self._in_range(resized_crop(images, *box, self.size, self.interpolation, self.antialias))

    def transform_image(self, image, rng, mirrored=None):
        taps = max(side / size for side, size in zip(image.shape, self.size)) * (
            2 if self.interpolation == "bilinear" else 4
        )
        if self.antialias and taps > _MOST_TAPS:
            made = self.transform(ops.cast(image, "float32")[None], rng)[0]
            return made if mirrored is None else ops.where(mirrored, ops.flip(made, axis=1), made)
        box = [side[0] for side in random_boxes(rng, image.shape[:2], self.scale, self.ratio)]
        made = resized_crop_of_one(
            image, box, self.size, self.interpolation, self.antialias, mirrored, never=rng.rows[0] < 0
        )
        return self._in_range(made)

    def transform_planes(self, rng, shape):
        boxes = _integer_boxes(random_boxes(rng, shape[1:3], self.scale, self.ratio))

        def change(planes, rows):
            # Of these planes only the boxes are read, so they may be the images' own, of any type.
            made = backend.planes.crop(planes, boxes[rows].tolist(), self.size, self.interpolation, self.antialias)
            return backend.planes.clip(made, *self.value_range) if self.interpolation == "bicubic" else made

        return change

    def without_draw(self, images):
        if tuple(images.shape[-3:-1]) == self.size:
            return images
        return self._in_range(
            ops.image.resize(
                images, self.size, self.interpolation, antialias=self.antialias, data_format="channels_last"
            )
        )

    def _in_range(self, images):
        return ops.clip(images, *self.value_range) if self.interpolation == "bicubic" else images

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-3], *self.size, input_shape[-1])

    def get_config(self):
        config = super().get_config()
        names = ("size", "scale", "ratio", "interpolation", "antialias")
        return {**config, **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable("keras_ssl")
class RandomHorizontalFlip(RandomLayer):
    """Mirrors a share of the images left to right."""

    def __init__(self, probability=0.5, **kwargs):
        super().__init__(probability=probability, **kwargs)

    image_by_image = True

    def transform(self, images, rng):
        return ops.flip(images, axis=2)

    def transform_planes(self, rng, shape):
        return lambda planes, rows: backend.planes.flip(planes)


@keras.saving.register_keras_serializable("keras_ssl")
class RandomErasing(RandomLayer):
    """Covers a random box with one value.

    Args:
        scale: smallest and largest area of the box, as a fraction of the image.
        ratio: smallest and largest width/height of the box.
        fill: the value, in the images' range; None for its middle.

    Reference: Zhong et al., "Random Erasing Data Augmentation", 2020.
    """

    def __init__(self, probability=0.5, scale=(0.02, 0.33), ratio=(0.3, 3.3), fill=None, **kwargs):
        super().__init__(probability=probability, **kwargs)
        self.scale = _increasing(self, "scale", scale, highest=1.0)
        self.ratio = _increasing(self, "ratio", ratio)
        self.fill = fill

    image_by_image = True

    def transform(self, images, rng):
        full = sides(images)
        top, left, height, width = map(per_image, random_boxes(rng, full, self.scale, self.ratio))
        row, column = (ops.cast(ops.arange(side, dtype="int32"), "float32") for side in full)
        row, column = row[None, :, None, None], column[None, None, :, None]
        inside = (row >= top) & (row < top + height) & (column >= left) & (column < left + width)
        return ops.where(inside, ops.cast(self._fill(), "float32"), images)

    def transform_planes(self, rng, shape):
        boxes = _integer_boxes(random_boxes(rng, shape[1:3], self.scale, self.ratio))
        return lambda planes, rows: backend.planes.erase(planes, boxes[rows].tolist(), self._fill())

    def _fill(self):
        return sum(self.value_range) / 2 if self.fill is None else self.fill

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "ratio": self.ratio, "fill": self.fill}


def _integer_boxes(box):
    """What `random_boxes` gives as an array of integers `(n, 4)`."""
    return np.stack([ops.convert_to_numpy(side) for side in box], axis=1).astype("int64")


def _increasing(owner, name, bounds, highest=math.inf):
    try:
        low, high = (float(bound) for bound in bounds)
    except (TypeError, ValueError):
        low, high = -1.0, -1.0
    if not 0.0 < low <= high <= highest:
        until = "" if highest == math.inf else f" and at most {highest:g}"
        raise ValueError(
            f"{type(owner).__name__}: `{name}` must be (smallest, largest), both above 0{until}; it is {bounds!r}."
        )
    return (low, high)
