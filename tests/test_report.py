"""The page about a trained model, as a notebook makes it, without the command."""

import re

import keras
import numpy as np
import pytest
from conftest import tiny_backbone
from methods_under_test import light_views

import keras_ssl
from keras_ssl import report
from keras_ssl.callbacks import KNNProbe
from keras_ssl.data import Data, Split
from keras_ssl.evaluate.efficiency import Cell

pytestmark = pytest.mark.one_backend


@pytest.fixture(scope="module")
def data(sample):
    train, test = (
        Split(split.images[:64], split.labels[:64], split.class_names) for split in (sample.train, sample.test)
    )
    return Data(train, test)


@pytest.fixture(scope="module")
def trained(data):
    """`(model, what fit returned)`."""
    model = keras_ssl.SimCLR(tiny_backbone(), light_views(), seed=7)
    model.compile(keras.optimizers.Adam(1e-3))
    history = model.fit(
        data.train.images, batch_size=16, epochs=2, verbose=0, callbacks=[KNNProbe(data.train, data.test, k=5)]
    )
    return model, history


def test_a_figure_in_the_page_is_what_matplotlib_saves():
    import base64
    import io

    from matplotlib.figure import Figure
    from PIL import Image

    from keras_ssl.report import html

    def figure():
        drawn = Figure(figsize=(3.0, 2.0), layout="constrained")
        axes = drawn.subplots()
        axes.plot([0.001, 1000.0], label="a curve")
        axes.set_ylabel("a label")
        axes.legend()
        return drawn

    saved = io.BytesIO()
    figure().savefig(saved, format="png", dpi=160)
    mine = io.BytesIO(base64.b64decode(html._source(figure()).partition(",")[2]))
    pixels = [np.asarray(Image.open(file).convert("RGB")) for file in (saved, mine)]
    np.testing.assert_array_equal(*pixels)


def words(path):
    text = re.sub(r'(src|srcset)="data:[^"]*"', "", path.read_text(encoding="utf-8"))
    return re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)


def test_a_page_of_what_a_notebook_has(trained, data, tmp_path):
    model, history = trained
    table = {"raw pixels": {"kNN": 0.4, "linear": [0.5, 0.6]}, "backbone": {"kNN": 0.7, "linear": Cell([0.8, 0.9])}}
    path = report.write(tmp_path / "page.html", model, data, history=history, table=table)
    assert path == tmp_path / "page.html"
    page = words(path)
    assert "<h1>SimCLR</h1>" in page
    assert "2 epochs, batches of 16 · seed 7" in page
    assert "0.850 ± 0.071" in page
    assert "Accuracy on 64 images" in page
    assert "A loss that stays at 3.434" in page, "ln(2·16 − 1)"
    for heading in ("Training", "What the model saw", "A map of the embedding", "nearest neighbors"):
        assert heading in page
    assert "http" not in page, "it opens offline"


def test_a_page_of_a_model_and_arrays_alone(trained, data, tmp_path):
    path = report.write(tmp_path, trained[0], data.train.images)
    assert path == tmp_path / "report.html", "a folder is given its page"
    page = words(path)
    assert "The pictures below show images that were trained on." in page
    for absent in ("What the features are worth", "Does the loss tell", "Colors are labels", "<h2>Training</h2>"):
        assert absent not in page
    named = report.write(tmp_path / "new" / "a.html", trained[0], (data.train.images[:5], data.train.labels[:5]))
    assert "Colors are labels" in words(named)


def test_a_run_is_described_in_the_words_that_are_given(trained, data, tmp_path):
    run = report.RunInfo("photos of shoes", epochs=9)
    path = report.write(
        tmp_path / "a.html",
        trained[0],
        data,
        run=run,
        held_out="64 shoes",
        table={"a": {"kNN": 1}},
        alarms=["Too flat."],
    )
    page = words(path)
    assert "SimCLR on photos of shoes" in page
    assert "9 epochs" in page
    assert "seed" not in page.split("</p>")[0]
    assert "Accuracy on 64 shoes" in page
    assert "Too flat." in page, "without a history too"


def test_a_model_that_was_loaded_has_a_page(trained, data, tmp_path):
    trained[0].save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    page = words(report.write(tmp_path / "a.html", model, data, history=trained[1].history))
    assert "2 epochs · seed 7" in page


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"model": tiny_backbone}, TypeError, "`model` is a method with its backbone"),
        ({"model": lambda: keras_ssl.SimCLR(tiny_backbone())}, ValueError, "`model` is not built yet"),
        ({"data": lambda: iter([np.zeros((4, 28, 28, 1))])}, ValueError, "`data` is a stream"),
        ({"data": lambda: np.zeros((1, 28, 28, 1), "uint8")}, ValueError, "give two or more"),
        ({"data": lambda: "nowhere"}, FileNotFoundError, "nowhere"),
        ({"history": lambda: [1.0]}, TypeError, "`history` is what fit returned"),
        ({"history": lambda: {"loss": 1.0}}, TypeError, "`history` is what fit returned"),
        ({"table": lambda: {"kNN": 0.8}}, TypeError, "`table` is a dict of row to dict"),
        ({"table": lambda: {"a": {"kNN": "high"}}}, TypeError, "`table` is a dict of row to dict"),
        ({"table": lambda: {"a": {"kNN": 0.8}, "b": {"linear": 0.8}}}, ValueError, "has the columns"),
        ({"run": lambda: {"epochs": 3}}, TypeError, "`run` is a keras_ssl.report.RunInfo"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(change, error, sentence, trained, data, tmp_path):
    given = {"model": trained[0], "data": data, **{name: make() for name, make in change.items()}}
    with pytest.raises(error, match=sentence):
        report.write(tmp_path / "new" / "a.html", given.pop("model"), given.pop("data"), **given)
    assert list(tmp_path.iterdir()) == []
