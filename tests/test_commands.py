"""The commands after `pretrain`: what each makes of a run, what it refuses, and how a run is stopped and resumed."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types

import keras
import numpy as np
import pytest
from conftest import pretrain
from PIL import Image

import keras_ssl
from keras_ssl.cli import _COMMANDS, main

pytestmark = pytest.mark.one_backend


@pytest.fixture
def folder(run):
    return run[0]


def asked(capsys, *arguments):
    """What a command gives to machines."""
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


# What they give.


def test_evaluate_says_again_what_the_run_said(folder, capsys):
    told = asked(capsys, "evaluate", f"--run={folder}")
    kept = json.loads((folder / "table.json").read_text())
    assert told["table"]["raw pixels"] == kept["raw pixels"], "the same images held out, the same draws of labels"
    for column, values in kept["trained backbone"].items():
        assert told["table"]["backbone.keras"][column] == pytest.approx(values, abs=0.06), column
    assert "18 images that the run held out" in told["held_out"]


def test_evaluate_by_layer_ends_with_the_last_layer(folder, capsys, tmp_path):
    told = asked(capsys, "evaluate", f"--run={folder}", "--layers", f"--plot={tmp_path / 'layers.png'}")
    assert len(told["layers"]) == len(told["accuracies"]) >= 2
    with Image.open(tmp_path / "layers.png") as picture:
        assert picture.size[0] > 100


def test_finetune_saves_a_classifier_of_plain_keras(folder, capsys, tmp_path):
    file = tmp_path / "classifier.keras"
    flags = ["--per_class=5", "--protocol=linear", "--epochs=2", f"--output={file}"]
    told = asked(capsys, "finetune", f"--run={folder}", *flags)
    assert told["labels"] == 10
    assert told["classes"] == ["boots", "trousers"]
    logits = keras.models.load_model(file).predict(np.zeros((3, 16, 16, 1), "uint8"), verbose=0)
    assert logits.shape == (3, 2)
    # What the outputs stand for, for whoever has the two files alone.
    assert json.loads((tmp_path / "classifier.classes.json").read_text()) == ["boots", "trousers"]
    assert main(["finetune", f"--run={folder}", *flags]) == 1, "never overwritten unasked"


def test_embed_writes_the_features_with_their_paths(folder, photos, capsys, tmp_path):
    told = asked(
        capsys, "embed", f"--run={folder}", f"--output={tmp_path / 'f.npz'}", f"--projector={tmp_path / 'logs'}"
    )
    with np.load(tmp_path / "f.npz") as file:
        assert file["features"].shape == (told["rows"], told["features"]) == (90, 128)
        paths, labels, names = file["paths"], file["labels"], file["class_names"]
        row = int(np.flatnonzero([path.endswith(os.path.join("boots", "7.png")) for path in paths])[0])
        assert names[labels[row]] == "boots"
        with Image.open(photos / "boots" / "7.png") as picture:
            image = np.asarray(picture.resize((16, 16), Image.Resampling.BILINEAR))[None, ..., None]
        backbone = keras.models.load_model(folder / "backbone.keras")
        alone = keras_ssl.evaluate.extract_features(backbone, image)
        np.testing.assert_allclose(file["features"][row], alone[0], rtol=1e-4, atol=1e-5)
    rows = (tmp_path / "logs" / "features.tsv").read_text().splitlines()
    assert len(rows) == len((tmp_path / "logs" / "names.tsv").read_text().splitlines()) == 90
    with Image.open(tmp_path / "logs" / "thumbnails.png") as sheet:
        assert sheet.size == (320, 320), "ten by ten of 32 pixels hold 90"


def test_search_finds_the_image_itself_elsewhere_and_not_at_its_own_place(folder, photos, capsys, tmp_path):
    own = photos / "boots" / "3.png"
    shutil.copy(own, tmp_path / "copy.png")
    of_own, of_copy = (
        asked(capsys, "search", f"--run={folder}", f"--query={query}", "--k=4", f"--output={tmp_path / name}")
        for query, name in ((own, "own.png"), (tmp_path / "copy.png", "found.png"))
    )
    (of_own,), (of_copy,) = of_own["found"].values(), of_copy["found"].values()
    assert [len(of_own), len(of_copy)] == [4, 4]
    assert str(own) not in [hit["image"] for hit in of_own]
    assert of_copy[0]["image"] == str(own)
    assert of_copy[0]["similarity"] == pytest.approx(1.0, abs=1e-3)
    with Image.open(tmp_path / "found.png") as picture:
        assert picture.size[0] > 100


@pytest.mark.slow
def test_search_finds_planted_copies(folder, photos, capsys, tmp_path):
    twice = tmp_path / "twice"
    shutil.copytree(photos, twice)
    shutil.copy(twice / "boots" / "5.png", twice / "boots" / "five_again.png")
    told = asked(
        capsys, "search", f"--run={folder}", f"--data={twice}", "--copies=0.99999", f"--output={tmp_path / 'c.png'}"
    )
    groups = [{os.path.basename(path) for path in group} for group in told["groups"]]
    assert {"5.png", "five_again.png"} in groups


def test_select_writes_a_table_to_fill_in_which_finetune_takes(folder, photos, capsys, tmp_path):
    flat, table, filled = tmp_path / "flat", tmp_path / "labels.csv", tmp_path / "filled.csv"
    for file in photos.glob("*/*"):
        (flat / "train").mkdir(parents=True, exist_ok=True)
        shutil.copy(file, flat / "train" / f"{file.parent.name}-{file.name}")
    table.write_text("file,label\ntrain/boots-3.png,boots\ntrain/trousers-7.png,trousers\n")
    flags = [f"--data={flat}", f"--labels={table}", "--count=12", f"--output={filled}"]
    told = asked(capsys, "select", f"--run={folder}", *flags, f"--picture={tmp_path / 'chosen.png'}")
    rows = list(csv.reader(filled.read_text().splitlines()))
    assert rows[:3] == [["file", "label"], ["train/boots-3.png", "boots"], ["train/trousers-7.png", "trousers"]]
    chosen = [name for name, _ in rows[3:]]
    assert chosen == [one["image"] for one in told["chosen"]]
    assert len({*chosen}) == 12
    assert not {*chosen} & {"train/boots-3.png", "train/trousers-7.png"}
    assert (told["labeled"], {label for _, label in rows[3:]}) == (2, {""})
    with Image.open(tmp_path / "chosen.png") as picture:
        assert picture.size[0] > 100
    # Empty cells are no labels; filled in, they are.
    assert keras_ssl.data.load(flat, labels=filled).train.has_label.sum() == 2
    filled.write_text("".join(f"{name},{label or name[6:].split('-')[0]}\n" for name, label in rows))
    assert keras_ssl.data.load(flat, labels=filled).train.has_label.sum() == 14


def test_select_names_files_that_are_no_text(folder, photos, capsys, tmp_path):
    odd, table = os.fsencode(tmp_path) + b"/odd", tmp_path / "table.csv"
    os.mkdir(odd)
    for file in photos.glob("*/*"):
        shutil.copy(file, odd + b"/\xff, " + os.fsencode(f"{file.parent.name}-{file.name}"))
    flags = [f"--data={tmp_path / 'odd'}", "--count=12", f"--output={table}"]
    assert main(["select", f"--run={folder}", *flags]) == 0
    assert "\ufffd, " in capsys.readouterr().out
    told = asked(capsys, "select", f"--run={folder}", *flags, "--overwrite")
    text = table.read_text(encoding="utf-8", errors="surrogateescape")
    rows = list(csv.reader(text.splitlines()))[1:]
    assert [name for name, _ in rows] == [one["image"] for one in told["chosen"]]
    filled = "".join(f'"{name}",{name[3:].split("-")[0]}\n' for name, _ in rows)
    table.write_bytes(filled.encode("utf-8", "surrogateescape"))
    train = keras_ssl.data.load(tmp_path / "odd", labels=table).train
    assert train.has_label.sum() == 12
    known = [(train.paths[row].name, train.name_of(train.labels[row])) for row in np.flatnonzero(train.has_label)]
    assert all(f" {label}-" in name for name, label in known)


def test_select_chooses_among_all_where_labels_are_to_be_ignored(folder, capsys, tmp_path):
    flags = ["--count=5", "--strategy=diverse", "--ignore_labels", f"--output={tmp_path / 'a.csv'}"]
    told = asked(capsys, "select", f"--run={folder}", *flags)
    assert (told["labeled"], len(told["chosen"])) == (0, 5)
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 6


@pytest.mark.slow
def test_report_makes_the_page_again(folder, photos, capsys, tmp_path):
    page = tmp_path / "page.html"
    assert asked(capsys, "report", f"--run={folder}", f"--output={page}") == {"report": str(page)}
    text, before = page.read_text(encoding="utf-8"), (folder / "report.html").read_text(encoding="utf-8")
    assert text.count("<h2 ") == before.count("<h2 ")
    assert text.count("data:image/") == before.count("data:image/")


def test_methods_lists_them_all_and_their_recipes(capsys):
    told = asked(capsys, "methods")
    assert {method["class"] for method in told["methods"]} >= {"SimCLR", "BYOL", "BarlowTwins", "Jigsaw"}
    for method in told["methods"]:
        one = asked(capsys, "methods", f"--method={method['name']}")
        assert one["recipe"]["learning_rate"] > 0


@pytest.mark.slow
def test_compare_trains_each_under_one_budget_and_only_once(photos, capsys, tmp_path):
    flags = [f"--data={photos}", "--image_size=16", "--epochs=1", "--batch_size=16", f"--output={tmp_path / 'all'}"]
    told = asked(capsys, "compare", "--methods=simclr", *flags)
    assert list(told["table"]) == ["raw pixels", "untrained", "simclr"]
    stamp = (tmp_path / "all" / "simclr.keras").stat().st_mtime_ns
    told = asked(capsys, "compare", "--methods=simclr,rotation", *flags)
    assert list(told["table"]) == ["raw pixels", "untrained", "simclr", "rotation"]
    assert [run["epochs"] for run in told["runs"].values()] == [1, 1]
    assert (tmp_path / "all" / "simclr.keras").stat().st_mtime_ns == stamp, "done once"
    assert main(["compare", "--methods=simclr", *flags, "--seed=5"]) == 1, "a comparison has one seed"


@pytest.mark.slow
def test_a_budget_in_seconds_is_kept(photos, capsys, tmp_path):
    flags = [f"--data={photos}", "--image_size=16", "--batch_size=16", f"--output={tmp_path / 'all'}"]
    told = asked(capsys, "compare", "--methods=simclr", "--seconds=5", *flags)
    assert told["runs"]["simclr"]["epochs"] > 3
    assert told["runs"]["simclr"]["seconds"] < 60


def test_inspect_tells_layers_and_images(folder, photos, capsys):
    told = asked(capsys, "inspect", f"--run={folder}")
    assert told["backbone"]["input"] == "16×16×1"
    assert told["settings"]["method"] == "simclr"
    assert told["last"]["loss"] > 0
    assert told["backbone"]["layers"][0]["name"] == "images"
    assert asked(capsys, "inspect", f"--data={photos}")["splits"]["train"]["classes"] == {"boots": 45, "trousers": 45}


# What is held out.


def pictures(folder, of_each):
    """A data set of a folder of gray noise: so many pictures of each class, by name."""
    draws = np.random.default_rng(0)
    for name, count in of_each.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(draws.integers(0, 255, (9, 9), "uint8")).save(folder / name / f"{number}.png")
    return folder


def test_no_class_is_held_out_as_a_whole(tmp_path):
    from keras_ssl.data.split import hold_out

    folder = pictures(tmp_path, {"common": 40, **{f"rare {number}": 1 for number in range(8)}})
    data, sentence = hold_out(keras_ssl.data.load(folder), seed=0)
    assert set(data.test.labels) <= set(data.train.labels) == set(range(9))
    assert len(data.train) + len(data.test) == 48
    assert sentence.startswith(f"{len(data.test)} images drawn at random")
    assert not set(map(str, data.train.paths)) & set(map(str, data.test.paths))


def test_what_is_held_out_of_a_large_folder_stays_on_disk(tmp_path):
    from keras_ssl.data.split import hold_out

    folder = pictures(tmp_path, {"a": 20, "b": 20})
    whole = keras_ssl.data.load(folder, max_bytes=0)
    data, _ = hold_out(whole, seed=1)
    assert isinstance(data.train.images, keras_ssl.data.ImageFiles)
    in_memory, _ = hold_out(keras_ssl.data.load(folder), seed=1)
    np.testing.assert_array_equal(data.test.images[:], in_memory.test.images)


def test_a_single_class_is_none(tmp_path):
    from keras_ssl.data.split import hold_out

    data, sentence = hold_out(keras_ssl.data.load(pictures(tmp_path, {"holiday": 12})), seed=0)
    assert data.test is None
    assert data.train.labels is None
    assert "all images are of one class" in sentence


def test_labeled_training_images_beside_a_flat_test_folder_are_held_out_of(tmp_path):
    from keras_ssl.data.split import hold_out

    pictures(tmp_path / "train", {"a": 10, "b": 10})
    pictures(tmp_path, {"test": 5})
    data, _ = hold_out(keras_ssl.data.load(tmp_path), seed=0)
    assert data.test.labels is not None


@pytest.fixture
def moved(folder, photos, tmp_path):
    """A copy of the run and of its pictures, which a test may change: `(run, pictures)`."""
    other, run = tmp_path / "photos", tmp_path / "run"
    shutil.copytree(photos, other)
    shutil.copytree(folder, run)
    settings = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps({**settings, "data": str(other)}))
    listed = (run / "held_out.csv").read_text()
    (run / "held_out.csv").write_text(listed.replace(str(photos), str(other)))
    return run, other


def held_out_names(run):
    with (run / "held_out.csv").open() as file:
        return [row["file"] for row in csv.DictReader(file)]


def test_what_the_run_held_out_stays_held_out_where_pictures_come_and_labels_change(moved, capsys, tmp_path):
    """Drawn anew, another fifth would be called held out, of which most was trained on."""
    run, other = moved
    shutil.copy(other / "boots" / "1.png", other / "boots" / "0_one_more.png")
    told = asked(capsys, "evaluate", f"--run={run}")
    assert told["held_out"].startswith("18 images that the run held out")
    assert main(["report", f"--run={run}"]) == 1, "the page shows what was trained on, which is not told any more"
    assert "what it held out can't be told any more" in capsys.readouterr().err


def test_pictures_that_were_renamed_are_not_taken_for_the_runs(moved, capsys):
    run, other = moved
    held, trained = held_out_names(run)[0], other / "boots" / "renamed.png"
    first = next(path for path in sorted((other / "boots").iterdir()) if str(path) not in held_out_names(run))
    first.rename(trained)
    assert main(["report", f"--run={run}"]) == 1
    assert "as many as the run was trained on, but some have another name" in capsys.readouterr().err
    os.rename(held, os.path.join(os.path.dirname(held), "renamed_too.png"))
    for command in ("evaluate", "finetune"):
        assert main([command, f"--run={run}"]) == 1
        assert "1 of the 18 pictures that the run held out are not in" in capsys.readouterr().err


@pytest.mark.slow
def test_other_images_than_the_runs_are_held_out_of_anew(folder, photos, tmp_path, capsys):
    other = shutil.copytree(photos, tmp_path / "photos")
    assert (
        main(["finetune", f"--run={folder}", f"--data={other}", "--epochs=1", f"--output={tmp_path / 'c.keras'}"]) == 0
    )
    assert "whether the backbone was trained on them is not known" in capsys.readouterr().out


@pytest.mark.slow
def test_labels_that_come_after_the_run_are_learned_from(photos, tmp_path, capsys):
    """`select`, fill in, `finetune`, as the command itself says."""
    flat, run, table = tmp_path / "flat", tmp_path / "run", tmp_path / "table.csv"
    flat.mkdir()
    for file in photos.glob("*/*"):
        shutil.copy(file, flat / f"{file.parent.name}-{file.name}")
    assert pretrain(flat, run) == 0
    capsys.readouterr()
    asked(capsys, "select", f"--run={run}", "--count=30", f"--output={table}")
    rows = list(csv.reader(table.read_text().splitlines()))[1:]
    table.write_text("file,label\n" + "".join(f"{name},{name.split('-')[0]}\n" for name, _ in rows))
    flags = [f"--labels={table}", "--protocol=linear", "--epochs=1"]
    told = asked(capsys, "finetune", f"--run={run}", *flags)
    assert told["held_out"].startswith("6 images drawn at random")
    assert "the backbone was trained on them, without their labels" in told["held_out"]
    told = asked(capsys, "evaluate", f"--run={run}", f"--labels={table}")
    assert told["held_out"].startswith("6 images drawn at random")


@pytest.mark.parametrize("named", ["--data={photos}/", "--data={copy}", None])
def test_pictures_are_read_as_the_run_read_them(named, folder, photos, tmp_path):
    from keras_ssl.cli.trained import TrainedBackbone

    run, copy = shutil.copytree(folder, tmp_path / "run"), shutil.copytree(photos, tmp_path / "copy")
    settings = json.loads((run / "settings.json").read_text())
    settings.update(resize="pad", background="black", labels=str(photos / "l.csv"))
    (run / "settings.json").write_text(json.dumps(settings))
    (photos / "l.csv").write_text("file,label\n")
    source = None if named is None else named.format(photos=photos, copy=copy).removeprefix("--data=")
    flags = types.SimpleNamespace(run=str(run), backbone=None, data=source)
    used = TrainedBackbone(flags)
    try:
        used.check_data(flags)
    finally:
        (photos / "l.csv").unlink()
    assert (used.options["resize"], used.options["background"]) == ("pad", "black")
    assert ("labels" in used.options) == (source is None or "copy" not in source), "labels are those of these pictures"


def test_a_query_is_read_as_the_pictures_that_are_searched(tmp_path):
    from keras_ssl.cli.search import _read

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 96), "uint8")).save(tmp_path / "wide.png")
    loaded = keras_ssl.data.load(tmp_path, image_size=16, resize="pad", background="black").train
    query = _read(tmp_path / "wide.png", (None, 16, 16, 1), loaded.files.decoder)
    np.testing.assert_array_equal(query, loaded.images[0])
    assert np.any(_read(tmp_path / "wide.png", (None, 16, 16, 1)) != query), "by default it is cropped"


def test_test_images_of_other_classes_have_no_labels_that_count(tmp_path):
    """`Cats` beside `cats`: a probe of nothing ended the first epoch."""
    from keras_ssl.cli import experiment

    pictures(tmp_path / "train", {"a": 10, "b": 10})
    pictures(tmp_path / "test", {"c": 5, "d": 5})
    data, sentence = experiment.hold_out(keras_ssl.data.load(tmp_path), seed=0)
    assert data.test.labels is None
    assert sentence.startswith("nothing: no class of the 10 test images (c, d) is one of the training images' (a, b)")
    assert experiment.probes(data) == []
    with pytest.raises(ValueError, match="nothing to learn from: no class of the 10 test images"):
        experiment.check_labels(data, "photos", "learn from", sentence)


def test_results_of_another_class_of_the_same_name_are_not_taken(tmp_path):
    from keras_ssl.cli import compare
    from keras_ssl.cli.run_folder import ComparisonFolder

    folder = ComparisonFolder(tmp_path)
    folder.result("simclr").write_text(json.dumps({"class": "mine:SimCLR"}))
    settings = types.SimpleNamespace(overwrite=False)
    with pytest.raises(ValueError, match=r"result of mine:SimCLR, and --methods asks for keras_ssl"):
        compare._check_same_class("simclr", keras_ssl.SimCLR, folder, settings)
    folder.result("simclr").write_text(json.dumps({"class": "keras_ssl.methods.simclr:SimCLR"}))
    compare._check_same_class("simclr", keras_ssl.SimCLR, folder, settings)


def test_a_map_without_room_for_a_grid_is_read_by_its_mean():
    from keras_ssl.cli.experiment import grid_of

    backbone = keras_ssl.backbones.resnet8((None, None, 1))
    assert grid_of(backbone, (28, 28, 1)) == 2
    assert grid_of(backbone, (8, 8, 1)) == 1


def test_a_picture_that_is_cut_off_is_named(tmp_path):
    folder = pictures(tmp_path, {"a": 3})
    whole = (folder / "a" / "1.png").read_bytes()
    (folder / "a" / "1.png").write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(ValueError, match=r"1 of 3 pictures can't be used.*1\.png: image file is truncated"):
        keras_ssl.data.load(folder)


def test_the_size_of_arrays_is_theirs():
    with pytest.raises(ValueError, match="is for the pictures of a folder"):
        keras_ssl.data.load("fashion_mnist_sample", image_size=64)


@pytest.mark.slow
def test_overwriting_leaves_nothing_of_the_run_before(run, photos, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    (tmp_path / "run" / "alarms.json").write_text('["old"]')
    for name in ("classifier.keras", "classifier.classes.json", "copies-1.png", "copies-2.png"):
        (tmp_path / "run" / name).write_text("of the run before")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras_ssl.cli.experiment.fit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert pretrain(photos, tmp_path / "run", "--overwrite") == 130
    assert list((tmp_path / "run").iterdir()) == [], "nor of this one, which was stopped before its first step"


# Stopped and resumed.


def stopped(photos, output, *more):
    """A run that Ctrl-C reaches in its first epoch; the exit code and what it said."""
    flags = [f"--data={photos}", f"--output={output}", "--image_size=16", "--epochs=200", "--batch_size=16", *more]
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_ssl", "pretrain", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not (output / "state.npz").exists() and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=300)
    return process.returncode, said


@pytest.mark.slow
def test_ctrl_c_keeps_the_run_and_says_how_to_go_on(photos, tmp_path, capsys):
    code, said = stopped(photos, tmp_path / "run")
    assert code == 130, said
    assert said.count(f"keras-ssl pretrain --resume={tmp_path / 'run'}") == 2, "at once, and when it is saved"
    assert "Ctrl-C again stops at once" in said
    assert "Traceback" not in said
    assert "\x1b[" not in said, "no colors where there is no terminal"
    assert main(["evaluate", f"--run={tmp_path / 'run'}"]) == 1
    assert "--resume=" in capsys.readouterr().err, "there is no backbone yet"


@pytest.mark.slow
@pytest.mark.papers_views
def test_a_run_that_was_stopped_ends_as_one_that_was_not(run, photos, tmp_path, capsys, monkeypatch):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2:
                os.kill(os.getpid(), signal.SIGINT)

    probes = sys.modules["keras_ssl.cli.experiment"].probes
    with monkeypatch.context() as patch:
        patch.setattr("keras_ssl.cli.experiment.probes", lambda data: [*probes(data), Stop()])
        assert pretrain(photos, tmp_path / "run") == 130
    assert not (tmp_path / "run" / "backbone.keras").exists()
    for flag in ("--epochs=7", f"--output={tmp_path}"):
        assert main(["pretrain", f"--resume={tmp_path / 'run'}", flag]) == 1
        assert "contradicts" in capsys.readouterr().err
    assert main(["pretrain", f"--resume={tmp_path / 'run'}"]) == 0
    one, other = (json.loads((path / "history.json").read_text()) for path in (run[0], tmp_path / "run"))
    for name, values in one.items():
        assert other[name] == pytest.approx(values, rel=1e-3), name
    assert not (tmp_path / "run" / "state.npz").exists()
    assert main(["pretrain", f"--resume={tmp_path / 'run'}"]) == 1
    assert "the run is finished" in capsys.readouterr().err


@pytest.mark.slow
def test_tensorboard_gets_the_probes_figures(photos, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert pretrain(photos, tmp_path / "run", "--tensorboard") == 0
    logs = tmp_path / "run" / "tensorboard"
    events = EventAccumulator(str(logs / "train"))
    events.Reload()
    names = set(events.Tags()["tensors"])
    assert {"epoch_loss", "epoch_knn_accuracy", "epoch_rank_me"} <= names
    assert (logs / "projector_config.pbtxt").exists()


# Refusals.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate"], "--run=FOLDER"),
        (["evaluate", "--run={run}", "--backbone=b.keras"], "both are given"),
        (["evaluate", "--run=nowhere"], "no such folder"),
        (["evaluate", "--run={photos}"], "is not a run folder"),
        (["evaluate", "--backbone=b.keras"], "there is no file b.keras"),
        (["evaluate", "--run={run}", "--plot=a.png"], "--layers"),
        (["evaluate", "--run={run}", "--data={photos}/boots"], "no labels"),
        (["finetune", "--run={run}", "--per_class=3", "--labels_fraction=0.1"], "give one of them"),
        (["finetune", "--run={run}", "--labels_fraction=0.001", "--output={tmp}/c.keras"], "class"),
        (["finetune", "--run={run}", "--labels_fraction=2", "--output={tmp}/c.keras"], "fraction"),
        (["finetune", "--run={run}", "--protocol=magic", "--output={tmp}/c.keras"], "magic"),
        (["finetune", "--run={run}", "--output={tmp}/c.h5"], ".keras"),
        (["embed", "--run={run}", "--output={tmp}/f.csv"], ".npz"),
        (["embed", "--run={run}", "--output={tmp}/f.npz", "--layer=none"], "no such layer"),
        (["search", "--run={run}"], "neither is"),
        (["search", "--run={run}", "--query={tmp}/x.png", "--copies=0.9"], "both are given"),
        (["search", "--run={run}", "--query={tmp}/x.png"], "no such file"),
        (["search", "--run={run}", "--query={broken}"], "can't be read as an image"),
        (["search", "--run={run}", "--query={photos}/boots/3.png", "--k=91"], "--k=90"),
        (["search", "--run={run}", "--copies=0.9", "--output={tmp}/x.foo"], ".png"),
        (["select", "--run={run}", "--output={tmp}/t.csv"], "--ignore_labels"),
        (["select", "--run={run}", "--ignore_labels", "--count=91", "--output={tmp}/t.csv"], "--count=90"),
        (["select", "--run={run}", "--output={tmp}/t.txt"], ".csv"),
        (["inspect", "--run={run}", "--image_size=16"], "--image_size"),
        (["finetune", "--run={run}", "--labels_fraction=0", "--output={tmp}/c.keras"], "fraction"),
        (["report"], "--run"),
        (["report", "--run={run}", "--data={photos}/boots"], "trained on"),
        (["compare", "--epochs=1", "--seconds=3"], "give one of them"),
        (["compare", "--methods=simclear"], "simclr"),
        (["compare", "--methods=simclr,byol,simclr"], "simclr has the name of another one"),
        (["compare", "--data={photos}/boots", "--batch_size=8"], "no labels"),
        (["inspect"], "none is given"),
        (["inspect", "--run={run}", "--data={photos}"], "are given"),
        (["pretrain", "--resume={run}"], "the run is finished"),
        (["pretrain", "--optimizer=adamm"], '"adam"'),
    ],
)
def test_what_contradicts_or_is_missing_is_refused_before_work_starts(arguments, words, run, photos, tmp_path, capsys):
    (tmp_path / "broken.png").write_text("no image")
    places = {"run": run[0], "photos": photos, "tmp": tmp_path, "broken": tmp_path / "broken.png"}
    before = sorted(path.name for path in run[0].iterdir())
    assert main([argument.format(**places) for argument in arguments]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1, "one sentence, no traceback"
    assert sorted(path.name for path in run[0].iterdir()) == before


@pytest.mark.parametrize("command", _COMMANDS)
def test_help_has_examples_of_each_command(command, capsys):
    assert main([command, "--help"]) == 0
    printed = capsys.readouterr().out
    assert f"    keras-ssl {command}" in printed
    assert "  --json" in printed


@pytest.mark.slow
def test_a_recipe_for_another_optimizer_warns_in_a_sentence(photos, tmp_path, capsys):
    assert pretrain(photos, tmp_path / "run", "--recipe=paper", "--optimizer=adam", "--epochs=1") == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "a rate fits one optimizer" in line]
    assert len(said) == 1
    assert said[0].startswith("keras-ssl pretrain: Adam gets")


@pytest.mark.slow
def test_an_alarm_is_said_kept_and_on_the_page(photos, tmp_path, capsys, monkeypatch):
    from keras_ssl import callbacks

    always = lambda images, most: callbacks.collapse.CollapseMonitor(images, most=most, patience=1, floor=9.0)  # noqa: E731
    monkeypatch.setattr("keras_ssl.cli.experiment.callbacks.CollapseMonitor", always)
    assert pretrain(photos, tmp_path / "run", "--epochs=2") == 0
    kept = json.loads((tmp_path / "run" / "alarms.json").read_text())
    assert kept
    assert kept[0] in capsys.readouterr().err
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "All images have nearly the same" in page
    (tmp_path / "run" / "report.html").unlink()
    assert main(["report", f"--run={tmp_path / 'run'}"]) == 0
    assert "All images have nearly the same" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
