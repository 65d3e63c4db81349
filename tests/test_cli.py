"""The command, end to end: what a run writes, what it says, what it refuses."""

import html.parser
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
from conftest import pretrain

import keras_ssl
from keras_ssl.cli import _COMMANDS, main
from keras_ssl.cli.run_folder import ComparisonFolder, RunFolder

FILES = {"backbone.keras", "held_out.csv", "history.json", "model.keras", "report.html", "settings.json", "table.json"}


# What a run leaves behind.


def test_a_run_says_what_takes_time_and_prints_the_table_before_it_draws(run):
    order = [
        "compiling the training step",
        "epoch       loss ",
        "saving the models",
        "kNN of raw pixels and of the backbone before training, on 18 images",
        "features for the table",
        "evaluating: ",
        "\nraw pixels ",
        "drawing the page",
        "report:   ",
        "next, for example:",
    ]
    places = [run[1].index(said) for said in order]
    assert places == sorted(places)


def test_a_run_writes_its_files(run):
    assert {path.name for path in run[0].iterdir()} == FILES


@pytest.mark.one_backend
def test_the_backbone_is_plain_keras(run):
    code = """
        import sys
        sys.modules["keras_ssl"] = None  # importing it fails, as where it is not installed
        import keras, numpy as np
        backbone = keras.models.load_model(sys.argv[1])
        assert backbone.predict(np.zeros((2, 16, 16, 1), "uint8"), verbose=0).shape == (2, 2, 2, 128)
    """
    code = "\n".join(line.strip() for line in code.splitlines())
    subprocess.run([sys.executable, "-c", code, str(run[0] / "backbone.keras")], check=True, capture_output=True)


def test_the_model_loads_with_the_same_trained_backbone(run):
    model = keras.models.load_model(run[0] / "model.keras")
    assert isinstance(model, keras_ssl.SimCLR)
    alone = keras.models.load_model(run[0] / "backbone.keras")
    for a, b in zip(model.backbone.weights, alone.weights):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))


def test_history_and_settings_say_what_was_done(run):
    history = json.loads((run[0] / "history.json").read_text())
    assert {"loss", "val_loss", "contrastive_accuracy", "knn_accuracy"} <= set(history)
    assert all(len(values) == 1 and np.isfinite(values).all() for values in history.values())
    settings = json.loads((run[0] / "settings.json").read_text())
    assert settings["method"] == "simclr"
    assert settings["seed"] == 3
    assert settings["image_size"] == "16"
    assert settings["training_images"] == [72, 16, 16, 1], "a fifth of 90 is held out"
    assert settings["versions"]["keras"] == keras.__version__
    assert settings["versions"]["backend"] == keras.backend.backend()


def test_the_lines_beside_the_curve_are_by_the_probe_of_the_epochs(run, photos):
    from keras_ssl.cli import experiment
    from keras_ssl.cli.run_info import run_info

    kept = json.loads((run[0] / "settings.json").read_text())
    about = types.SimpleNamespace(**kept)
    data, _ = experiment.hold_out(keras_ssl.data.load(photos, image_size=16), 3)
    (probe,) = experiment.probes(data)
    model, _, _ = experiment.begin(experiment.method_by_name("simclr"), data, about)
    probe.set_model(model)
    train, test = (split.images.reshape(len(split), -1) for split in (data.train, data.test))
    pixels = keras_ssl.evaluate.knn(train, data.train.labels, test, data.test.labels, k=20)
    assert kept["references"] == {
        "knn_accuracy": {"raw pixels": pytest.approx(pixels), "untrained": pytest.approx(probe.accuracy(), abs=0.06)}
    }
    info = run_info(RunFolder(run[0]))
    assert info.references == kept["references"]
    assert "references" not in info.settings
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    assert f"Before training, the same probe finds kNN accuracy {pixels:.3f} (raw pixels) and " in page


def test_a_run_without_such_lines_has_its_page_all_the_same(run, tmp_path):
    from keras_ssl.cli.run_info import run_info

    folder = RunFolder(tmp_path)
    kept = json.loads((run[0] / "settings.json").read_text())
    del kept["references"]  # as of a run of an earlier version
    folder.settings_file.write_text(json.dumps(kept))
    assert run_info(folder).references is None


def test_the_table_is_printed_and_kept(run):
    folder, printed = run
    table = json.loads((folder / "table.json").read_text())
    assert list(table) == ["raw pixels", "untrained backbone", "trained backbone"]
    for name, cells in table.items():
        assert len(cells["linear, 10 per class"]) == 5
        assert len(cells["kNN, all"]) == 1
        assert all(0.0 <= value <= 1.0 for values in cells.values() for value in values)
        line = next(line for line in printed.splitlines() if line.startswith(name))
        assert f"{np.mean(cells['linear, 10 per class']):.3f} ± " in line
    assert "18 images drawn at random" in printed
    assert str(folder / "report.html") in printed


class References(html.parser.HTMLParser):
    """Everything that a page would fetch, and its pictures."""

    def __init__(self, page):
        super().__init__()
        self.fetched, self.pictures, self.tags = [], [], set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        for name, value in attributes:
            if name in ("src", "href", "srcset", "data", "poster") and not value.startswith("#"):  # a place in the page
                (self.pictures if value.startswith("data:image/") else self.fetched).append(value)


def test_the_report_is_one_file_that_opens_offline(run):
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    references = References(page)
    assert references.fetched == []
    assert len(references.pictures) >= 6, "three curves, the views, the map, the neighbors"
    assert "script" not in references.tags
    text = re.sub(r'src(set)?="[^"]*"', "", page)
    assert "http" not in text
    assert "url(" not in text
    for words in (
        "SimCLR on",
        "trained backbone",
        "What the model saw",
        "A map of the embedding",
        "nearest neighbors",
    ):
        assert words in text


# Running it again.


@pytest.mark.slow
@pytest.mark.papers_views
def test_a_run_with_the_same_seed_repeats_and_overwrites_when_told(run, photos, tmp_path, capsys):
    folder = tmp_path / "again"
    shutil.copytree(run[0], folder)
    (folder / "table.json").write_text("{}")
    assert pretrain(photos, folder, "--overwrite") == 0
    one, other = (json.loads((path / "history.json").read_text()) for path in (run[0], folder))
    for name, values in one.items():
        assert other[name] == pytest.approx(values, rel=1e-4), name
    assert list(json.loads((folder / "table.json").read_text())) != []


def test_a_folder_that_holds_a_run_is_left_untouched(run, photos, capsys):
    def state():
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run[0].iterdir()}

    before = state()
    assert pretrain(photos, run[0]) == 1
    error = capsys.readouterr().err
    assert str(run[0]) in error
    assert "--overwrite" in error
    assert state() == before


def test_a_folder_that_another_run_writes_into_is_refused(run, photos, capsys):
    from keras_ssl.files import Lock

    folder, _ = run
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with Lock(folder / ".lock", "a"):
        assert pretrain(photos, folder, "--overwrite") == 1
    assert f"The folder {folder} is being written by another run" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_without_output_the_next_free_folder_is_taken(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        folder = RunFolder.for_output(None, "simclr", "photos/", overwrite=False)
        assert folder.path.as_posix() == f"runs/simclr-photos-{number}"
        folder.path.mkdir(parents=True)
    assert ComparisonFolder.next_free("compare", "photos/").path.as_posix() == "runs/compare-photos-1"


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("methods", "backbone"), [(["MAE"], "vit"), (["IBOT", "SimMIM"], "vit"), (["MAE", "SimCLR"], "resnet8")]
)
def test_methods_of_patches_get_a_vit_unless_a_backbone_is_named(methods, backbone):
    from keras_ssl.cli.flags import default_backbone

    assert default_backbone(methods) == backbone


@pytest.mark.one_backend
@pytest.mark.slow
def test_a_method_of_patches_is_run_by_its_name_alone(photos, tmp_path):
    assert pretrain(photos, tmp_path / "run", "--method=simmim") == 0
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["backbone"] == "vit"


@pytest.mark.one_backend
@pytest.mark.parametrize("method", ["jigsaw", pytest.param("exemplar", marks=pytest.mark.slow)])
def test_tasks_that_label_themselves_are_run_by_name(method, photos, tmp_path, capsys):
    """Patches in a backbone of open size; a class an image, and so no loss of held-out ones."""
    assert pretrain(photos, tmp_path / "run", f"--method={method}") == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert {f"{method}_accuracy", "knn_accuracy"} <= set(history)
    assert ("val_loss" in history) == (method == "jigsaw")
    backbone = keras.models.load_model(tmp_path / "run" / "backbone.keras")
    assert backbone.input_shape == ((None, None, None, 1) if method == "jigsaw" else (None, 16, 16, 1))


@pytest.mark.one_backend
def test_images_without_labels_are_trained_on_without_a_table(photos, tmp_path, capsys):
    flat = tmp_path / "flat"
    flat.mkdir()
    for picture in (photos / "boots").iterdir():
        shutil.copy(picture, flat)
    assert pretrain(flat, tmp_path / "run") == 0
    printed = capsys.readouterr().out
    assert "No accuracies: there are no labels to evaluate with." in printed
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES - {"table.json", "held_out.csv"}
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Colors are labels" not in page
    assert "knn_accuracy" not in json.loads((tmp_path / "run" / "history.json").read_text())


# Refusals: one sentence on stderr, no folder, no traceback.


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--method=simclear"], r'--method.*"simclear".*"simclr"'),
        (["--backbone=resnet_18"], r'--backbone.*"resnet_18".*"resnet18"'),
        (["--backbone=mobilenetv2"], r'"MobileNetV2"'),
        (["--data=fashion_mnist_sampel"], r'"fashion_mnist_sampel".*"fashion_mnist_sample"'),
        (["--batch_size=100"], r"--batch_size=100.*72 images.*--batch_size=72"),
    ],
)
def test_what_is_unknown_or_too_large_is_refused_with_the_way_out(photos, tmp_path, capsys, flags, words):
    assert pretrain(photos, tmp_path / "run", *flags) == 1
    assert re.search(words, capsys.readouterr().err, re.DOTALL)
    assert not (tmp_path / "run").exists()


def test_an_empty_folder_and_a_file_as_output_are_refused(photos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert pretrain(tmp_path / "empty", tmp_path / "run") == 1
    assert "no picture under" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert pretrain(photos, tmp_path / "file") == 1
    assert "is a file" in capsys.readouterr().err


def test_images_of_another_range_are_refused_before_a_folder_is_made(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).uniform(0, 1, (30, 16, 16, 1)).astype("float32"))
    assert main(["pretrain", f"--data={tmp_path / 'a.npy'}", "--batch_size=8", f"--output={tmp_path / 'run'}"]) == 1
    assert "multiply by 255" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pretrain", "--epoch=3"], "epochs"),
        (["pretrain", "--epochs=none"], "--epochs=none"),
        (["pretrain", "--epochs=0"], "epochs"),
        (["pretrain", "--seed=-1"], "seed"),
        (["pretrain", "--batch_size=1"], "batch_size"),
        (["pretrain", "data/"], "--data=data/"),
        (["pretrian"], '"pretrain"'),
        (["dance"], "Commands: pretrain"),
    ],
)
def test_a_wrong_call_ends_with_2_and_says_what_is_wrong(capsys, arguments, words):
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_flags_of_one_call_are_not_those_of_the_next(photos, tmp_path, capsys):
    assert pretrain(photos, tmp_path / "run", "--method=other") == 1
    assert main(["pretrain", "--data=nowhere", f"--output={tmp_path / 'run'}"]) == 1
    assert '"nowhere"' in capsys.readouterr().err, "not the unknown method of the call before"


def test_help_tells_every_flag_and_its_default(capsys):
    assert main(["pretrain", "--help"]) == 0
    printed = capsys.readouterr().out
    flags = ("data", "method", "backbone", "epochs", "batch_size", "image_size", "output", "overwrite", "seed")
    for flag in flags:
        assert f"\n  --{flag}\n" in printed
    assert "(default: fashion_mnist_sample)" in printed
    assert "usage: keras-ssl pretrain" in printed
    assert main(["--help"]) == 0
    assert "pretrain" in capsys.readouterr().out
    assert main([]) == 2


@pytest.mark.one_backend
@pytest.mark.parametrize("name", [None, *_COMMANDS])
@pytest.mark.parametrize("columns", [80, 60])
def test_help_is_no_wider_than_the_terminal(name, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main([name, "--help"] if name else ["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    wide = [line for line in lines if len(line) > columns]
    assert wide == []
    if name:
        help_of = importlib.import_module(f"keras_ssl.cli.{name}").FLAGS["json"].help
        assert f"  --json\n      {help_of[:40]}" in "\n".join(lines), "below its flag"


def test_examples_in_a_help_can_be_copied_and_are_all_there(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for name in _COMMANDS:
        assert main([name, "--help"]) == 0
        said = capsys.readouterr().out.replace("\\\n", " ")
        module = importlib.import_module(f"keras_ssl.cli.{name}")
        examples = [line.split() for line in module.__doc__.splitlines() if line.startswith("    ")]
        shown = [line.split() for line in said.splitlines() if line.startswith("    keras-ssl ")]
        assert shown == examples != []
        for word in module.__doc__.split():
            assert word in said


@pytest.mark.one_backend
@pytest.mark.parametrize("arguments", [["--help"], ["methods", "--json"], ["inspect", "{photos}"], ["pretrian"]])
def test_a_reader_that_went_away_ends_the_command_quietly(arguments, photos):
    read, write = os.pipe()
    os.close(read)  # as `| head -c 0` does
    command = [sys.executable, "-m", "keras_ssl", *(part.format(photos=photos) for part in arguments)]
    unread = arguments == ["pretrian"]  # what is wrong is said to stderr
    streams = {"stdout": subprocess.PIPE, "stderr": write} if unread else {"stdout": write, "stderr": subprocess.PIPE}
    done = subprocess.run(command, **streams, text=True)
    os.close(write)
    assert done.returncode == 1
    said = done.stdout if unread else done.stderr
    assert "Traceback" not in said
    assert "pipe" not in said.lower()


@pytest.mark.one_backend
def test_python_m_keras_ssl_is_the_command():
    done = subprocess.run([sys.executable, "-m", "keras_ssl", "pretrian"], capture_output=True, text=True)
    assert done.returncode == 2
    assert 'Did you mean "pretrain"?' in done.stderr
