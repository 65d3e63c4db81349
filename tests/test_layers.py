"""Probes of layers: which layers there are, and that the informative one is found."""

import itertools

import keras
import numpy as np
import pytest
from conftest import tiny_backbone
from keras import layers, ops

import keras_ssl
from keras_ssl import evaluate
from keras_ssl.evaluate.layers import _Graph


def tinted(count=80, seed=0):
    """Images `(count, 8, 8, 2)` in [0, 1] whose first channel tells one of four classes, and whose second is noise."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    images = generator.uniform(size=(count, 8, 8, 2)).astype("float32")
    images[..., 0] = 0.1 * images[..., 0] + labels[:, None, None] / 4.0
    return images, labels


def forgetful():
    """A network whose second layer keeps both channels, and whose third lets the first one go."""
    both, noise = np.zeros((1, 1, 2, 2)), np.zeros((1, 1, 2, 2))
    both[0, 0] = np.eye(2)
    noise[0, 0, 1] = 1.0
    images = keras.Input((8, 8, 2))
    x = layers.Conv2D(2, 1, name="blind")(images)
    kept = layers.Conv2D(2, 1, name="kept")(images)
    x = layers.Conv2D(2, 1, name="forgot")(layers.Add(name="sum")([x, kept]))
    model = keras.Model(images, x)
    for name, kernel in (("blind", noise), ("kept", both), ("forgot", noise)):
        model.get_layer(name).set_weights([kernel, np.zeros(2)])
    return model


@pytest.mark.parametrize("probe", ["linear", "knn"])
def test_the_layer_that_holds_the_classes_is_found(probe):
    result = evaluate.probe_layers(
        forgetful(), (tinted(), tinted(seed=1)), layers=["blind", "kept", "forgot"], probe=probe
    )
    assert result.best == "kept"
    accuracy = dict(zip(result.layers, result.accuracies))
    assert accuracy["kept"] == 1.0
    assert accuracy["blind"] < 0.6
    assert accuracy["forgot"] < 0.6
    assert result.widths == [8, 8, 8]


def test_a_layers_probe_is_the_probe_of_its_features(sample):
    backbone = keras_ssl.backbones.resnet8((28, 28, 1), width=4)
    train, test = sample.train.images[:200], sample.test.images[:200]
    name = backbone.layers[3].name
    result = evaluate.probe_layers(
        backbone,
        ((train, sample.train.labels[:200]), (test, sample.test.labels[:200])),
        layers=name,
        per_class=5,
        seed=3,
    )
    rows = evaluate.draw_labels(sample.train.labels[:200], 5, seed=3)
    known, asked = (evaluate.extract_features(backbone, images, layer=name, grid=2) for images in (train[rows], test))
    expected = evaluate.linear_probe(known, sample.train.labels[rows], asked, sample.test.labels[:200], seed=3)
    assert result.accuracies == [pytest.approx(expected, abs=1e-9)]
    assert result.labels == len(rows) == 50


def test_stages_of_a_resnet_are_the_ends_of_its_blocks():
    backbone = keras_ssl.backbones.resnet8((28, 28, 1), width=4, pooling="avg")
    calls = [layer for layer in backbone.layers if isinstance(layer, (layers.ReLU, layers.Add))]
    ends = [after.name for before, after in itertools.pairwise(calls) if isinstance(before, layers.Add)]
    # The last block is read where its mean is taken, which is the last layer.
    assert _Graph(backbone, (28, 28, 1)).stages() == [calls[0].name, *ends[:-1], backbone.layers[-1].name]


def test_many_stages_are_spread_over_the_depth():
    deep = keras.Sequential([keras.Input((8, 8, 1)), *(layers.Conv2D(1, 1, name=f"c{n}") for n in range(40))])
    names = _Graph(deep, (8, 8, 1)).stages()
    assert len(names) == 12
    assert names[0] == "c0"
    assert names[-1] == "c39"


def test_models_inside_of_a_model_are_opened():
    inner = keras_ssl.backbones.resnet8((28, 28, 3), width=4)
    stem = keras.Sequential([layers.Conv2D(3, 1, name="conv"), layers.ReLU(name="relu")], name="stem")
    images = keras.Input((28, 28, 1))
    outer = keras.Model(images, layers.GlobalAveragePooling2D(name="mean")(inner(stem(images) + 1.0)))
    graph = _Graph(outer, (28, 28, 1))
    names = [call.name for call in graph.calls]
    assert names[:2] == ["stem/conv", "stem/relu"]
    assert f"resnet8/{inner.layers[2].name}" in names
    assert graph.stages()[-1] == "mean"
    batch = np.random.default_rng(0).uniform(0, 255, (4, 28, 28, 1)).astype("float32")
    again = keras.Model(graph.images, graph.calls[-1].output)
    np.testing.assert_allclose(ops.convert_to_numpy(again(batch)), ops.convert_to_numpy(outer(batch)), atol=1e-5)


def test_the_backbone_is_as_it_was(sample):
    backbone = keras_ssl.backbones.resnet8((None, None, 1), width=4)  # of open size, too
    before = [weight.copy() for weight in backbone.get_weights()]
    config = backbone.get_config()
    few = sample.train.images[:60], sample.train.labels[:60]
    result = evaluate.probe_layers(keras_ssl.SimCLR(backbone), (few, few), probe="knn", k=1)
    assert all(np.array_equal(a, b) for a, b in zip(before, backbone.get_weights()))
    assert backbone.get_config() == config
    assert len(result.layers) == 4


def test_the_result_is_a_table_and_a_plot():
    result = evaluate.LayerProbes(["a", "b", "c"], [0.5, 0.9, 0.7], [4, 8, 8], "linear", 40)
    assert result.best == "b"
    header, rows = result.as_rows()
    assert header == ["layer", "features", "accuracy"]
    assert rows[1] == ["b", "8", "0.900"]
    (axes,) = result.plot().axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [0.5, 0.9, 0.7])


@keras.saving.register_keras_serializable("test_layers")
class Closed(keras.Model):
    def call(self, images):
        return images


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers": ["nowhere"]}, '`layers` names "nowhere", and tiny has no such layer; it has'),
        ({"layers": []}, "`layers` is empty"),
        ({"probe": "tree"}, '`probe` is "linear" or "knn"'),
        ({"grid": 0}, "`grid` must be an integer"),
        ({"per_class": 0}, "`per_class` must be an integer"),
        ({"backbone": Closed()}, "without a graph of layers"),
        ({"data": tinted()}, r"or \(train, test\)"),
        ({"data": keras_ssl.data.load(tinted())}, "no test split"),
    ],
)
def test_what_can_not_be_probed_is_refused(change, words):
    backbone = tiny_backbone((8, 8, 2), widths=(4,), value_range=(0, 1))
    arguments = {"backbone": backbone, "data": (tinted(), tinted(seed=1)), **change}
    with pytest.raises(ValueError, match=words):
        evaluate.probe_layers(**arguments)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros(80, int), "single class"),
        (np.arange(79) % 4, "one label an image: 80 images"),
        (np.arange(80) % 3, "labels that `train` has not, such as 3"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, words):
    with pytest.raises(ValueError, match=words):
        evaluate.probe_layers(
            tiny_backbone((8, 8, 2), widths=(4,), value_range=(0, 1)), ((tinted()[0], labels), tinted(seed=1))
        )
