"""The page about a trained model, as a notebook makes it, without the command."""

import base64
import html
import io
import re
import shlex
import types

import keras
import numpy as np
import pytest
from conftest import tiny_backbone
from matplotlib.figure import Figure
from methods_under_test import light_views
from PIL import Image

import keras_ssl
from keras_ssl import report
from keras_ssl.callbacks import KNNProbe
from keras_ssl.cli import pretrain
from keras_ssl.cli.run_info import command_line
from keras_ssl.data import Data, Split
from keras_ssl.evaluate import plots
from keras_ssl.evaluate.efficiency import Cell
from keras_ssl.report import HtmlPage, about, layers, pictures
from keras_ssl.report import page as sections

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


def test_the_layers_of_a_figure_lie_on_each_other_as_matplotlib_saves_it():
    def figure():
        drawn = Figure(figsize=(3.0, 2.0), layout="constrained")
        axes = drawn.subplots()
        shown = axes.imshow(np.random.default_rng(0).uniform(size=(5, 9)))
        drawn.colorbar(shown, ax=axes)
        axes.axhline(2.5, color="white")
        axes.set_ylabel("a label")
        return drawn

    saved = io.BytesIO()
    figure().savefig(saved, format="png", dpi=160)
    page = Image.new("RGBA", (480, 320), "white")
    pictures, ink = (Image.fromarray(layer) for layer in layers.drawn(figure()))
    page.alpha_composite(pictures)
    page.alpha_composite(ink)
    expected = np.asarray(Image.open(saved).convert("RGB"), "int32")
    assert np.abs(np.asarray(page.convert("RGB"), "int32") - expected).max() <= 4, "rounding, where both are half there"
    words = np.asarray(ink, "int32")
    assert np.ptp(words[words[..., 3] == 255][:, :3], axis=1).max() == 0, "black words and the white line, no picture"


def test_words_have_a_palette_and_photographs_do_not():
    draws = np.random.default_rng(0)
    smooth = np.clip(np.linspace(0, 255, 90 * 120 * 3).reshape(90, 120, 3) + draws.normal(0, 9, (90, 120, 3)), 0, 255)
    pixels = np.concatenate([smooth, np.full((90, 120, 1), 255)], -1).astype("uint8")
    photograph = layers.as_source(pixels)
    assert photograph.startswith("data:image/webp;base64,")
    again = Image.open(io.BytesIO(base64.b64decode(photograph.partition(",")[2]))).convert("RGB")
    assert np.abs(np.asarray(again, "float32") - pixels[..., :3]).mean() < 8
    lines = np.zeros((90, 120, 4), "uint8")
    lines[10:12, :, 3] = 255
    drawn = layers.as_source(lines, words=True)
    assert drawn.startswith("data:image/png;base64,")
    again = Image.open(io.BytesIO(base64.b64decode(drawn.partition(",")[2]))).convert("RGBA")
    np.testing.assert_array_equal(np.asarray(again)[..., 3], lines[..., 3])


def words(path):
    text = re.sub(r'(src|srcset)="data:[^"]*"', "", path.read_text(encoding="utf-8"))
    return re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)


def test_a_matrix_keeps_its_colors():
    steps = np.arange(256, dtype="uint8").repeat(9).reshape(48, 48)
    matrix = np.stack([steps, steps[::-1], 255 - steps, np.full_like(steps, 255)], -1)
    again = Image.open(io.BytesIO(base64.b64decode(layers.as_source(matrix).partition(",")[2]))).convert("RGBA")
    np.testing.assert_array_equal(np.asarray(again), matrix)


def test_a_page_of_what_a_notebook_has(trained, data, tmp_path):
    model, history = trained
    table = {"raw pixels": {"kNN": 0.4, "linear": [0.5, 0.6]}, "backbone": {"kNN": 0.7, "linear": Cell([0.8, 0.9])}}
    path = report.write(tmp_path / "page.html", model, data, history=history, table=table)
    assert path == tmp_path / "page.html"
    page = words(path)
    assert "<h1>SimCLR</h1>" in page
    assert "2 epochs, batches of 16 · seed 7" in page
    assert "<td class=best>0.850 ± 0.071</td>" in page
    assert '<p class="verdict better">+30.0 points over raw pixels in &quot;linear&quot;.' in page
    assert "Accuracy on 64 images" in page
    assert f"keras {keras.__version__}, backend tensorflow" in page, "what a notebook has: this process"
    assert "A loss that stays at 3.434" in page, "ln(2·16 − 1)"
    for heading in ("Training", "What the model saw", "A map of the embedding", "nearest neighbors"):
        assert heading in page
    assert "http" not in page, "it opens offline"


def test_a_page_of_a_model_and_arrays_alone(trained, data, tmp_path):
    path = report.write(tmp_path, trained[0], data.train.images)
    assert path == tmp_path / "report.html", "a folder is given its page"
    page = words(path)
    assert "The pictures below show images that were trained on." in page
    assert "verdict" not in page
    for absent in ("What the features are worth", "Does the loss tell", "Colors are labels", ">Training</h2>"):
        assert absent not in page
    named = report.write(tmp_path / "new" / "a.html", trained[0], (data.train.images[:5], data.train.labels[:5]))
    assert "Colors are labels" in words(named)


TABLE = {
    "raw pixels": {"linear, 10 per class": Cell([0.5, 0.6]), "kNN, all": 0.72},
    "untrained backbone": {"linear, 10 per class": Cell([0.5, 0.5]), "kNN, all": 0.61},
    "trained backbone": {"linear, 10 per class": Cell([0.5, 0.61]), "kNN, all": 0.7},
}


def headings(page):
    return re.findall(r'<h2 id="[^"]*">(.*?)</h2>', page)


def test_a_page_goes_from_the_verdict_to_the_doubts(trained, data, tmp_path):
    history = {"loss": [3.0, 2.5, 2.0, 1.5, 1.0], "knn_accuracy": [0.5, 0.6, 0.7, 0.6, 0.7]}
    page = words(report.write(tmp_path, trained[0], data, history=history, table=TABLE))
    found = headings(page)
    assert found == [
        "What the features are worth",
        "What the model saw",
        "Images and their nearest neighbors",
        "A map of the embedding",
        "Training",
        "How similar images are to each other",
        "What two views of an image have in common",
        "Does the loss tell you how good the features are?",
        "What was held out",
        "How to repeat this run",
    ]
    assert page.index('class="verdict') < page.index("<table>")
    links = re.findall(r'<a href="#([^"]*)">(.*?)</a>', page)
    assert [text for _, text in links] == found
    assert all(f'<h2 id="{name}">' in page for name, _ in links)


def test_four_checkpoints_tell_nothing_of_the_loss():
    history = {"loss": [3.0, 2.5, 2.0, 1.5], "knn_accuracy": [0.5, 0.6, 0.7, 0.6]}
    page = HtmlPage("A page")
    sections._loss_and_accuracy(page, history)
    assert headings(page.html()) == []
    sections._loss_and_accuracy(page, {"loss": [*history["loss"], 1.0], "knn_accuracy": [0.5] * 5})
    assert "the accuracy, or all else, was the same at all checkpoints" in page.html()


def test_the_best_cells_are_bold_and_no_others(data):
    page = HtmlPage("A page")
    sections._results(page, types.SimpleNamespace(train=data.train, judged=None), "64 images", TABLE)
    page = page.html()
    cells = re.findall(r"<tr><td>(raw|untrained|trained) \w+</td><td(.*?)>(.*?)</td><td(.*?)>(.*?)</td></tr>", page)
    bold = {(row, column) for row, *both in cells for column in (0, 1) if both[2 * column] == " class=best"}
    # Of the linear probe the two rows can't be told apart: the draws differ by more than their means.
    assert bold == {("raw", 0), ("trained", 0), ("untrained", 0), ("raw", 1)}


def test_curves_stand_beside_what_costs_nothing(trained, monkeypatch):
    given, drawn = [], plots.curves
    monkeypatch.setattr(plots, "curves", lambda *names, **options: given.append(options) or drawn(*names, **options))
    history = {"loss": [3.4, 3.0], "knn_accuracy": [0.5, 0.6], "seconds": [3.0, 3.0]}
    page = HtmlPage("A page")
    lines = {"knn_accuracy": {"raw pixels": 0.58, "untrained": 0.51}}
    run = report.RunInfo(batch_size=16, settings={"epochs": 2, "references": lines})
    assert run.settings == {"epochs": 2}, "they are none"
    sections._training(page, trained[0], history, run, ())
    assert len(given) == 2, "how long an epoch took is no result"
    trivial = {"loss": {"trivial: 3.43": pytest.approx(3.434, abs=1e-3)}}
    assert given[0]["references"] == {**trivial, **lines}
    said = (
        "Before training, the same probe finds kNN accuracy 0.580 (raw pixels) and 0.510 (untrained): the dashed lines"
    )
    assert said in page.html(), "a line that is far from the curve is not drawn"
    assert "do not compare" not in page.html()
    sections._training(page, trained[0], history, run, (), TABLE)
    assert "its numbers do not compare with the curve" in page.html()


def test_a_curve_has_no_lines_of_another_probe(trained, data, tmp_path, monkeypatch):
    # The table is of more images, and of a grid of cells: what lies above its rows may have learned nothing.
    given, drawn = [], plots.curves
    monkeypatch.setattr(plots, "curves", lambda *names, **options: given.append(options) or drawn(*names, **options))
    history = {"loss": [3.4, 3.0], "knn_accuracy": [0.5, 0.6]}
    page = words(report.write(tmp_path, trained[0], data, history=history, table=TABLE))
    assert {name for one in given for name in one["references"]} == {"loss"}
    assert "Before training, the same probe" not in page
    assert "What counts is kNN accuracy" in page


@pytest.mark.parametrize("labels", ["all", "some"])
def test_gray_points_of_a_map_are_said_to_have_no_label(trained, data, tmp_path, labels):
    known = data.test.labels.copy()
    known[: 32 if labels == "some" else 0] = -1
    part = Data(data.train, Split(data.test.images, known, data.test.class_names))
    page = words(report.write(tmp_path, trained[0], part))
    assert ("Gray points have no label." in page) == (labels == "some")


def test_a_run_can_be_repeated_from_its_page(trained):
    def parsed(arguments):
        settings = pretrain.FLAGS
        settings.unparse_flags()
        assert settings(["keras-ssl pretrain", *arguments])[1:] == []
        return settings, {name: flag.value for name, flag in settings.__flags.items()}

    given = ["--data=my photos & 'others'/", "--method=byol", "--epochs=7", "--image_size=64x48", "--seed=3"]
    given += ["--max_unreadable=0.5", "--tensorboard", "--output=runs/a", "--overwrite"]
    settings, values = parsed(given)
    line = command_line("pretrain", settings)
    run = report.RunInfo(
        "photos",
        7,
        command=line,
        settings={"image_size": [64, 48], "recipe": {"learning_rate": 0.01, "arguments": {"temperature": 0.1}}},
        versions={"keras": "3.15.1", "backend": "jax"},
        machine="2 CPU cores",
        started="2026-01-02T03:04:05+00:00",
        finished="2026-01-02T04:06:05+00:00",
    )
    page = repeat(trained[0], run)
    found = html.unescape(re.search(r"<pre[^>]*><code>(.*?)</code></pre>", page)[1])
    command, name, *arguments = shlex.split(found)
    assert (command, name) == ("keras-ssl", "pretrain")
    again = parsed(arguments)[1]
    own = {"output": None, "overwrite": False}  # a run that is repeated has a folder of its own
    assert again == {**values, **own}
    for text in (
        "2026-01-02 03:04 UTC, 1 h 02 min of training",
        "2 CPU cores",
        "keras 3.15.1, backend jax",
        "It ran with KERAS_BACKEND=jax.",
        "<td>image_size</td><td>(64, 48)</td>",
        "<td>recipe: learning_rate</td><td>0.01</td>",
        "<td>recipe: arguments temperature</td><td>0.1</td>",
        f"<td>model: temperature</td><td>{trained[0].temperature}</td>",
        "<td>model: each of 2 views</td><td>",
        "<td>model: optimizer</td><td>Adam(",
    ):
        assert text in page
    run.resumed, run.finished = True, "2026-01-02T03:05:07+00:00"
    assert "1 min 02 s to its end, with an interruption" in repeat(trained[0], run)
    page = repeat(trained[0], report.RunInfo())
    assert "<dt>Date</dt>" not in page
    assert "<code>" not in page


def repeat(model, run):
    page = HtmlPage("A page")
    about.repeat(page, model, run)
    return page.html()


def test_a_page_of_photographs_is_no_larger_than_an_e_mail_may_be(tmp_path):
    photos = keras_ssl.data.load("clothes_sample", image_size=64)
    few = Data(
        *(Split(split.images[:300], split.labels[:300], split.class_names) for split in (photos.train, photos.test))
    )
    model = keras_ssl.SimCLR(tiny_backbone((64, 64, 3)), keras_ssl.augment.simclr(64, channels=3))
    model.build((None, 64, 64, 3))
    history = {name: np.linspace(1.0, 2.0, 6).tolist() for name in ("loss", "knn_accuracy", "rank_me", "uniformity")}
    path = report.write(tmp_path, model, few, history=history, table=TABLE)
    assert path.stat().st_size <= 1.5e6


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


@pytest.mark.parametrize("labels", ["both", "held out", "none"])
def test_a_map_of_few_held_out_images_is_filled_up(trained, data, labels):
    few = Split(data.test.images[:5], None if labels == "none" else data.test.labels[:5], data.test.class_names)
    train = Split(data.train.images, data.train.labels if labels == "both" else None, data.train.class_names)
    shown = pictures.PageData(trained[0], Data(train, few))
    assert len(shown.placed) == 5 + min(295, len(train))
    np.testing.assert_array_equal(shown.placed.images[:5], few.images)
    names = shown.names(shown.placed)
    if labels == "none":
        assert names is None
    else:
        assert [name is None for name in names] == [False] * 5 + [labels == "held out"] * (len(names) - 5)
    assert shown.placed_kind == "held-out and training"
    assert len(shown.queried) == 5
