"""Features of images, extracted with a frozen network, as a plain array."""

import keras
import numpy as np
from keras import ops

from keras_ssl import backbones, backend
from keras_ssl.data.batch import check_rank, check_source, standard_batch
from keras_ssl.data.labels import MISSING, flat_labels, is_missing
from keras_ssl.data.lazy import blocks
from keras_ssl.data.split import Split
from keras_ssl.data.value_range import check_images
from keras_ssl.evaluate.labels import check_labels, labeled_rows


def extract_features(model, images, layer=None, grid=1, batch_size=256, verbose=0, value_range=None):
    """Runs a frozen network over images and collects its features on the host.

    Args:
        model: a Keras model, or a `SelfSupervisedModel` (its backbone, and its `pooling` of tokens).
        images: `(N, height, width, channels)`, an array or array-like; a `keras_ssl.data.Split`; a stream of batches.
        layer: name of a layer of a functional backbone: the features are that layer's output; None for the last.
        grid: a feature map of images is averaged over a grid of `grid × grid` cells, and the cells are put side by
            side: 1 for its mean, the only one for maps of series and volumes. 2 was measured two to three points better
            than the mean for linear probes of small images.
        batch_size: images per batch.
        verbose: 1 for a progress bar.
        value_range: lowest and highest value that the images can have, which are checked; None for the model's own, as
            far as it says (`keras_ssl.backbones.value_range`).

    Returns:
        float32 `(N, features)`, with `features = grid² · channels` for a feature map.
    """
    if isinstance(images, Split):
        images = images.images if images.dataset is None else images.dataset
    value_range = value_range or backbones.value_range(model)
    network = feature_network(model, layer, grid)
    if isinstance(images, (str, bytes, set, frozenset)) or images is None:
        raise TypeError(
            f"extract_features: `images` is an array (N, height, width, channels), or a stream; it is {images!r}."
        )
    if not hasattr(images, "shape"):
        return _of_stream(network, images, value_range)
    check_source(images, value_range, "images")
    shape = backbones.input_shape(backbones.backbone_of(model))
    check_rank(images.shape, len(shape) if shape else None, "images")
    return run(network, images, batch_size, verbose)


def run(network, images, batch_size=256, verbose=0):
    """The outputs `(N, features)` of a network of `feature_network`, with one batch of images in it at a time."""
    total, features = len(images), None
    outputs = _outputs_of(network)
    bar = keras.utils.Progbar(-(-total // batch_size), unit_name="batch", verbose=verbose) if verbose else None
    for number, batch in enumerate(blocks(images, batch_size)):
        start, batch = number * batch_size, np.asarray(batch)
        rows = len(batch)
        if rows < batch_size < total:  # one shape, compiled once
            batch = np.concatenate([batch, np.repeat(batch[-1:], batch_size - rows, axis=0)])
        part = outputs(batch)[:rows]
        if features is None:
            features = np.empty((total, part.shape[1]), "float32")
        features[start : start + rows] = part
        if bar:
            bar.add(1)
    if features is None:
        raise ValueError("`images` holds no image.")
    return features


def pooling_of(model):
    """The `pooling` of a `SelfSupervisedModel`; None for a backbone, and for a keras-hub task, whose own is another."""
    pooling = getattr(model, "pooling", None) if hasattr(model, "backbone") else None
    return pooling if pooling in ("class", "mean") else None


def feature_network(model, layer=None, grid=1, pooling=None):
    """The part of a model that gives features, pooled to `(n, features)`, as a Keras model.

    Args:
        model, layer, grid: as of `extract_features`.
        pooling: of tokens: "class" or "mean"; None for the model's own.
    """
    pooling, backbone = pooling or pooling_of(model), backbones.backbone_of(model)
    if layer is not None:
        names = [one.name for one in backbone.layers]
        if layer not in names:
            raise ValueError(f'`layer` is "{layer}", and {backbone.name} has no such layer; it has {", ".join(names)}.')
        backbone = keras.Model(backbone.inputs[0], backbone.get_layer(layer).output)
        pooling = of_any_layer(pooling)
    return _Pooled(backbone, grid, pooling)


def of_any_layer(pooling):
    """A `pooling` for the layers below the last: some have no class token yet, and None takes it where there is one."""
    return None if pooling == "class" else pooling


class _Pooled(keras.Model):
    def __init__(self, backbone, grid, pooling):
        super().__init__(autocast=False, name="features")
        self.backbone = backbone
        self.grid = grid
        self.pooling = pooling
        self.built = True

    def call(self, images):
        features = ops.cast(self.backbone(ops.cast(images, "float32"), training=False), "float32")
        if self.grid == 1:
            return backbones.pooled(features, self.backbone, self.pooling, images.shape)
        return _cells(backbones.token_map(self.backbone, features, images.shape), self.grid)


def _cells(features, grid):
    if len(features.shape) != 4:
        raise ValueError(
            f"`grid` is {grid}, and cells are of a feature map (n, height, width, channels); this network gives "
            f"{tuple(features.shape)}: leave `grid` 1, for the mean."
        )
    height, width = features.shape[1:3]
    if grid > min(height, width):
        raise ValueError(f"`grid` is {grid}, and the feature map has only {height}×{width} cells: use at most that.")
    # Cells as in adaptive pooling: they cover the map evenly, and overlap by a row where it does not divide.
    edges = [[(i * side // grid, -(-(i + 1) * side // grid)) for i in range(grid)] for side in (height, width)]
    cells = [ops.mean(features[:, a:b, c:d], axis=(1, 2)) for a, b in edges[0] for c, d in edges[1]]
    return ops.concatenate(cells, axis=1)


def _outputs_of(network):
    """A function from a batch of any size to the network's outputs, as an array."""
    if backend.is_single_device():
        return lambda batch: ops.convert_to_numpy(network.predict_on_batch(batch))
    function = backend.local_function(network)
    return lambda batch: ops.convert_to_numpy(function(batch))


def _of_stream(network, stream, value_range=None):
    outputs = _outputs_of(network)
    parts = [outputs(batch["image"]) for batch in _batches_of(stream, value_range)]
    if not parts:
        raise ValueError("`images` holds no image.")
    return np.concatenate(parts)


def of_labeled_stream(network, stream, most=None, name="the stream", value_range=None):
    """The features and the labels of the first `most` labeled images of a stream of batches, or of all.

    Returns:
        float32 `(n, features)`, and labels `(n,)` as of `data.labels.flat_labels`. Images without one are left out.
    """
    outputs, features, labels, rows, images = _outputs_of(network), [], [], 0, 0
    for batch in _batches_of(stream, value_range, name):
        if "label" not in batch:
            raise ValueError(
                f"A probe needs labeled batches, (images, labels), and this stream gives {sorted(batch)} alone."
            )
        given = check_labels(name, batch["image"], batch["label"])
        known = np.flatnonzero(~is_missing(given))
        images += len(given)
        if len(known):  # a batch whole: one shape, compiled once
            features.append(outputs(batch["image"])[known])
            labels.append(given[known])
            rows += len(known)
        if most is not None and rows >= most:
            break
    if not images:
        raise ValueError("The stream of labeled images is empty.")
    if not features:
        labeled_rows(name, np.full(images, MISSING))
    if len({part.dtype.kind for part in labels}) > 1:  # numpy would make floats of uint64 beside int64
        labels = [part.astype("object") for part in labels]
    return np.concatenate(features)[:most], flat_labels(np.concatenate(labels)[:most])


def _batches_of(stream, value_range=None, what="images"):
    if isinstance(stream, keras.utils.PyDataset):  # iterating would go on after its end
        dataset = stream
        stream = (dataset[number] for number in range(dataset.num_batches))
    for batch in stream:
        batch = {name: ops.convert_to_numpy(part) for name, part in standard_batch(batch).items() if name != "views"}
        if "image" not in batch:
            raise ValueError("These batches hold views, and features are of images: give images.")
        check_images(batch["image"], value_range, what)
        yield batch


def first_images(stream, most):
    """The first `most` images of a stream of batches, an array; whoever knows the range looks at their values."""
    images, rows = [], 0
    for batch in _batches_of(stream):
        images.append(batch["image"])
        rows += len(images[-1])
        if rows >= most:
            break
    if not images:
        raise ValueError("The stream of images is empty.")
    return np.concatenate(images)[:most]
