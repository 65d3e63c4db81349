"""Probes of intermediate layers: at which depth of a backbone the features predict labels best."""

import dataclasses

import keras
import numpy as np

from keras_ssl import backbones
from keras_ssl.backbones import backbone_of, image_shape, is_graph
from keras_ssl.data import Data
from keras_ssl.data.batch import check_source
from keras_ssl.evaluate.features import feature_network, of_any_layer, pooling_of, run
from keras_ssl.evaluate.knn import knn
from keras_ssl.evaluate.labels import check_classes, check_validation, draw_labels, labeled_images
from keras_ssl.evaluate.linear import linear_probe

_MOST = 12


@dataclasses.dataclass
class LayerProbes:
    """The result of `probe_layers`.

    Attributes:
        layers: names, from the images to the last.
        accuracies: of each layer's probe on the test images, in [0, 1].
        widths: how many features each probe was given.
        probe: "linear" or "knn".
        labels: the number of labels that the probes were fitted to.
    """

    layers: list
    accuracies: list
    widths: list
    probe: str
    labels: int

    @property
    def best(self):
        """The layer with the highest accuracy; of equals the first."""
        return self.layers[int(np.argmax(self.accuracies))]

    def as_rows(self):
        """`(header, rows)` of strings, one row per layer."""
        rows = zip(self.layers, self.widths, self.accuracies)
        return ["layer", "features", "accuracy"], [[name, str(width), f"{value:.3f}"] for name, width, value in rows]

    def plot(self):
        """Accuracy by layer, as a matplotlib figure; the best one is marked."""
        from matplotlib.figure import Figure  # half a second: for who plots alone

        from keras_ssl.evaluate.plots.style import shortened

        figure = Figure(figsize=(max(4.0, 0.6 * len(self.layers) + 1.5), 3.4), layout="constrained")
        axes = figure.subplots()
        places, best = np.arange(len(self.layers)), int(np.argmax(self.accuracies))
        axes.plot(places, self.accuracies, color="#2f6fde", marker="o", markersize=4)
        axes.plot(best, self.accuracies[best], color="#e07a2f", marker="o", markersize=8)
        axes.annotate(
            f"{self.accuracies[best]:.3f}",
            (best, self.accuracies[best]),
            (0, 8),
            textcoords="offset points",
            ha="center",
        )
        axes.margins(y=0.2)
        axes.set_xticks(places, [shortened(layer, 2.0) for layer in self.layers], rotation=35, ha="right", fontsize=8)
        axes.set_ylabel(f"accuracy of the {'linear' if self.probe == 'linear' else 'kNN'} probe", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        return figure


def probe_layers(
    backbone,
    data,
    layers=None,
    probe="linear",
    grid=2,
    per_class=None,
    k=20,
    batch_size=256,
    seed=0,
    verbose=0,
    value_range=None,
):
    """Probes the frozen features of several layers on the same labels.

    The features of one layer are in memory at a time; the network runs once per layer. The layer that is best on the
    test images is best on them alone: to choose a layer by this and report its accuracy, give a part of the training
    images as the test split.

    Args:
        backbone: a functional or sequential Keras model from images, or a `SelfSupervisedModel` (its backbone, and its
            `pooling` of tokens). Models inside of it are opened: their layers are named `"model/layer"`.
        data: a `keras_ssl.data.Data` with a test split, or `(train, test)`, each a `Split` or `(images, labels)`.
            Images without a label (−1, None, NaN, an empty string) are left out.
        layers: names; None for the ends of the backbone's stages, 12 at most and the last layer among them: layers
            through whose output everything must pass, each the last one before the next convolution or dense layer.
        probe: `"linear"` for `linear_probe`, `"knn"` for `knn`.
        grid: a feature map is averaged over `grid × grid` cells, or as many as it has.
        per_class: labels of each class to learn from, drawn by `seed`; None for all.
        k: neighbors of `"knn"`, at most the number of labels.
        batch_size: images in the network at a time.
        seed: of the draw of labels, and of the linear probe's splits.
        verbose: 1 for a progress bar over layers.
        value_range: lowest and highest value that the images can have, which are checked; None for the backbone's own,
            as far as it says (`keras_ssl.backbones.value_range`).

    Returns:
        A `LayerProbes`.

    Raises:
        ValueError: no such layer, a backbone without a graph of layers, labels that don't fit, no label, a single
            class.

    Reference: Alain & Bengio, "Understanding intermediate layers using linear classifier probes", 2016.
    """
    if probe not in ("linear", "knn"):
        raise ValueError(f'probe_layers: `probe` is "linear" or "knn"; it is {probe!r}.')
    if not isinstance(grid, (int, np.integer)) or grid < 1:
        raise ValueError(f"probe_layers: `grid` must be an integer, 1 or more; it is {grid!r}.")
    images, labels, test, test_labels = _splits(data)
    check_classes("train", labels)
    check_validation(images, labels, test, test_labels, "test")
    for which, part in (("train", images), ("test", test)):
        check_source(part, value_range or backbones.value_range(backbone), which)
    rows = np.arange(len(labels)) if per_class is None else draw_labels(labels, _per_class(per_class), seed)
    graph, pooling = _Graph(backbone_of(backbone), images.shape[1:]), of_any_layer(pooling_of(backbone))
    names = graph.stages() if layers is None else graph.known(layers)

    found = LayerProbes(list(names), [], [], probe, len(rows))
    shown = images if per_class is None else images[rows]
    bar = keras.utils.Progbar(len(names), unit_name="layer", verbose=verbose) if verbose else None
    for name in names:
        network = graph.network(name, grid, pooling)
        train, queries = run(network, shown, batch_size), run(network, test, batch_size)
        known = train, labels[rows], queries, test_labels
        accuracy = linear_probe(*known, seed=seed) if probe == "linear" else knn(*known, k=min(k, len(rows)))
        found.accuracies.append(accuracy)
        found.widths.append(train.shape[1])
        if bar:
            bar.add(1)
    return found


def _splits(data):
    if isinstance(data, Data):
        if data.test is None:
            raise ValueError(
                "`data` has no test split, and probes are judged on images that they have not learned: "
                "give (train, test)."
            )
        data = data.train, data.test
    if not isinstance(data, (tuple, list)) or len(data) != 2 or hasattr(data[0], "shape"):
        raise ValueError("`data` is a keras_ssl.data.Data, or (train, test), each a Split or (images, labels).")
    return *labeled_images("train", data[0]), *labeled_images("test", data[1])


def _per_class(number):
    if not isinstance(number, (int, np.integer)) or number < 1:
        raise ValueError(f"probe_layers: `per_class` must be an integer, 1 or more; it is {number!r}.")
    return number


@dataclasses.dataclass
class _Call:
    """One call of a layer: what went in, and what came out."""

    name: str
    layer: object
    inputs: list
    output: object

    @property
    def readable(self):
        return hasattr(self.output, "shape") and len(self.output.shape) in (2, 3, 4)

    @property
    def has_kernel(self):
        return any(len(weight.shape) >= 2 for weight in getattr(self.layer, "weights", ()))


class _Graph:
    """The layers of a backbone as one graph on new inputs, with models inside of it opened. The weights are its own."""

    def __init__(self, backbone, shape):
        if not is_graph(backbone):
            raise ValueError(
                f"The backbone {backbone.name} is a {type(backbone).__name__} without a graph of layers, in which no "
                "intermediate output can be reached: give a functional or sequential model that has been built."
            )
        self.backbone = backbone
        self.images = keras.Input(image_shape(backbone, shape))
        self.calls = []
        self._replay(backbone, self.images, "")

    def _replay(self, model, x, prefix):
        """Calls each layer of a model again, on `x`: the model's output, or None if it is unknown."""
        if isinstance(model, keras.Sequential):
            for layer in model.layers:
                x = self._call(prefix, layer, x)
            return x
        outputs = {}

        def call(layer, *args, **kwargs):
            outputs[id(layer)] = self._call(prefix, layer, *args, **kwargs)
            return outputs[id(layer)]

        keras.models.clone_model(
            model,
            input_tensors=keras.tree.pack_sequence_as(model.input, [x]),
            clone_function=lambda layer: layer,
            call_function=call,
        )
        last = [one for one in model.operations if _gives(one, model.outputs[0])]
        return outputs.get(id(last[0]), x) if last else None

    def _call(self, prefix, layer, *args, **kwargs):
        if is_graph(layer) and len(layer.inputs) == len(layer.outputs) == 1 and _told_apart(layer):
            return self._replay(layer, keras.tree.flatten(args)[0], f"{prefix}{layer.name}/")
        output = layer(*args, **kwargs)
        if not isinstance(layer, keras.layers.InputLayer):
            self.calls.append(_Call(prefix + layer.name, layer, keras.tree.flatten((args, kwargs)), output))
        return output

    def stages(self):
        """The ends of stages, spread over the depth where there are many."""
        last_use = {}
        for place, call in enumerate(self.calls):
            last_use.update((id(tensor), place) for tensor in call.inputs)
        # Outputs through which everything passes, and whether there is a kernel between the one before and this one.
        needed, kernel, ends = last_use.get(id(self.images), 0), False, []
        for place, call in enumerate(self.calls):
            kernel |= call.has_kernel
            if needed <= place:  # nothing from before this output is used after it
                ends.append((call, kernel))
                kernel = False
            needed = max(needed, *(last_use.get(id(tensor), 0) for tensor in keras.tree.flatten(call.output)))
        first = next((place for place, (_, kernel) in enumerate(ends) if kernel), len(ends) - 1)
        kernel_follows = [*(kernel for _, kernel in ends[1:]), True]
        chosen = [
            call.name for (call, _), follows in list(zip(ends, kernel_follows))[first:] if follows and call.readable
        ]
        if not chosen or not self.calls[-1].readable:
            raise ValueError(
                f"The backbone {self.backbone.name} must give (n, features), tokens (n, tokens, width) or (n, height, "
                f"width, channels); it gives {self.backbone.output_shape}."
            )
        places = np.unique(np.linspace(0, len(chosen) - 1, min(_MOST, len(chosen))).round().astype(int))
        return [chosen[place] for place in places]

    def known(self, names):
        names = [names] if isinstance(names, str) else list(names)
        here = {call.name: call for call in self.calls}
        for name in names:
            if name not in here:
                raise ValueError(
                    f'`layers` names "{name}", and {self.backbone.name} has no such layer; it has {", ".join(here)}.'
                )
            if not here[name].readable:
                raise ValueError(
                    f'`layers` names "{name}", which gives {here[name].output.shape}: a probe reads (n, features), '
                    "tokens (n, tokens, width) or (n, height, width, channels)."
                )
        if not names:
            raise ValueError("`layers` is empty: name a layer, or leave it at None.")
        return names

    def network(self, name, grid, pooling):
        output = {call.name: call for call in self.calls}[name].output
        sides = output.shape[1:3] if len(output.shape) == 4 else (1,)
        grid = min((grid, *(side for side in sides if side)))
        return feature_network(keras.Model(self.images, output), grid=grid, pooling=pooling)


def _told_apart(model):
    """Whether it can be told which call of which layer gave the model's output."""
    return isinstance(model, keras.Sequential) or any(_gives(one, model.outputs[0]) for one in model.operations)


def _gives(operation, tensor):
    try:
        return any(output is tensor for output in keras.tree.flatten(operation.output))
    except (AttributeError, ValueError):  # called several times
        return False
