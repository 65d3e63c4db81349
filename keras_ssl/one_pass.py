"""Several views of each image as one batch: what batch normalization then sees, and what a micro-batch holds."""

from keras import ops

from keras_ssl import batch_norm
from keras_ssl.augment.layer import sides
from keras_ssl.shapes import by_size


def map_views(function, views, training):
    """`function(images, training=…)` of all views, those of one size as one batch; sizes one after another.

    The views of an image lie side by side, so that ghost batches and micro-batches hold all of them.

    Args:
        function: from images to a tensor with as many rows.
        views: tensors `(n, …, channels)`, which may differ in size.

    Returns:
        What the function gave, for each view, in the order of the views.
    """
    embedded = [None] * len(views)
    for numbers in by_size([view.shape for view in views]):
        for number, rows in zip(numbers, _of_one_size(function, [views[number] for number in numbers], training)):
            embedded[number] = rows
    return embedded


def _of_one_size(function, views, training):
    side_by_side = ops.reshape(ops.stack(views, axis=1), (-1, *sides(views[0], 1, None)))
    with batch_norm.SideBySide(len(views)):
        embedded = function(side_by_side, training=training)
    embedded = ops.reshape(embedded, (-1, len(views), *embedded.shape[1:]))
    return [embedded[:, number] for number in range(len(views))]
