"""Many pictures and few labels, from a folder and a table to a classifier; and what the command says on the way."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_ssl.cli import main

pytestmark = pytest.mark.one_backend


@pytest.fixture(scope="module")
def folder(sample, tmp_path_factory):
    """120 pictures without sub-folders and a table of 40 labels: two classes, some pictures of another shape."""
    root = tmp_path_factory.mktemp("own") / "my photos"
    root.mkdir()
    labels = []
    for name, label in (("boot", 9), ("bag", 8)):
        for number, row in enumerate(np.flatnonzero(sample.train.labels == label)[:60]):
            picture = Image.fromarray(sample.train.images[row, :, :, 0])
            if number % 7 == 0:
                picture = picture.resize((40, 30))
            file = f"{name} {number}.png"
            picture.save(root / file)
            labels += [(file, name)] if number < 20 else []
    (root / "broken.png").write_bytes(b"")
    with open(root / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "label"), *labels])
    return root


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "one"
    flags = ["--image_size=16", "--epochs=1", "--batch_size=16", f"--labels={folder / 'labels.csv'}"]
    assert main(["pretrain", f"--data={folder}", f"--output={output}", *flags]) == 0
    return output


def test_all_pictures_train_and_the_table_is_of_those_with_labels(trained, capsys):
    settings = json.loads((trained / "settings.json").read_text())
    assert settings["training_images"][0] == 112  # 120 less a fifth of the 40 with labels
    assert settings["held_out"].startswith("8 images drawn at random of those with a label")
    assert (trained / "table.json").exists()
    assert "broken.png,the file is empty" in (trained / "left_out.csv").read_text()


def test_a_classifier_is_trained_on_the_labeled_part(trained, capsys):
    assert main(["finetune", f"--run={trained}", "--epochs=1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["labels"] == 32
    assert result["classes"] == ["bag", "boot"]


def test_features_of_all_pictures_are_written_with_labels_of_some(trained, tmp_path):
    assert main(["embed", f"--run={trained}", f"--output={tmp_path / 'f.npz'}"]) == 0
    with np.load(tmp_path / "f.npz") as file:
        assert len(file["features"]) == len(file["paths"]) == 120
        assert np.unique(file["labels"], return_counts=True)[1].tolist() == [80, 20, 20]


def test_a_table_whose_labels_can_not_be_told_is_refused(folder, tmp_path, capsys):
    table = tmp_path / "labels.csv"
    table.write_text("file,owner,price\n0.png,anna,3\n1.png,anna,4\n")
    assert main(["inspect", str(folder), f"--labels={table}"]) == 1
    assert "has the columns file, owner, price, and none is called label: rename" in capsys.readouterr().err


def test_what_classes_let_one_expect_is_said(folder, tmp_path, capsys):
    table = tmp_path / "labels.csv"
    files = sorted(path.name for path in folder.glob("*.png"))[:20]

    def said(*labels):
        table.write_text("file,label\n" + "".join(f"{file},{label}\n" for file, label in zip(files, labels)))
        assert main(["inspect", str(folder), f"--labels={table}"]) == 0
        return " ".join(capsys.readouterr().out.split())

    found = said(*["T-shirt"] * 6, *["t-shirt"] * 7, "hat")
    assert "1 of 3 classes have fewer than 5 pictures: hat 1." in found
    assert "T-shirt and t-shirt differ in case alone, and are 2 classes." in found
    assert "All labels are hat: there are no two classes to tell apart." in said("hat", "hat")


def test_inspect_says_what_lies_in_a_folder(folder, capsys):
    assert main(["inspect", str(folder), f"--labels={folder / 'labels.csv'}"]) == 0
    printed = capsys.readouterr().out
    assert all(len(line) <= 80 for line in printed.splitlines() if str(folder) not in line)
    for words in ("120 pictures", "bag", "(no label)", "PNG 120", "28×28", "left out: 1", "the file is empty"):
        assert words in printed
    assert main(["inspect", str(folder), f"--labels={folder / 'labels.csv'}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["splits"]["train"]["classes"] == {"(no label)": 80, "bag": 20, "boot": 20}
    assert found["left_out"][0]["reason"] == "the file is empty"
    assert found["other_files"] == {".csv": 1}


def test_inspect_counts_what_means_no_label_as_none(folder, tmp_path, capsys):
    table = tmp_path / "labels.csv"
    files = sorted(path.name for path in folder.glob("*.png"))[:4]
    rows = zip(files, ("3", "-1", "nan", "7"))
    table.write_text("file,label\n" + "".join(f"{file},{label}\n" for file, label in rows))
    assert main(["inspect", str(folder), f"--labels={table}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["splits"]["train"]["classes"] == {"(no label)": 118, "3": 1, "7": 1}
    assert found["notes"] == ["2 of 2 classes have fewer than 5 pictures: 3 1, 7 1."]


def test_inspect_prints_names_that_are_no_text(folder, tmp_path, capsys):
    for name in (b"caf\xe9", b"CAF\xe9"):
        path = os.fsencode(tmp_path) + b"/photos/" + name
        os.makedirs(path)
        for number, file in enumerate(sorted(folder.glob("*.png"))[:2]):
            shutil.copy(file, path + b"/%d\xff.png" % number)
        with open(path + b"/notes.\xff", "wb"):
            pass
    table = tmp_path / "labels.csv"
    table.write_bytes(b"caf\xe9/0\xff.png,y\nCAF\xe9/0\xff.png,n\n")
    for more in ([], [f"--labels={table}"]):
        assert main(["inspect", str(tmp_path / "photos"), *more]) == 0
        printed = capsys.readouterr().out
        assert ("(no label)" in printed) == bool(more)
        assert ("caf\ufffd" in printed.split("classes")[-1]) or more
    table.write_bytes(b"file,label\ncaf\xe9/0\xff.png,y\nother.png,n\n")
    assert main(["inspect", str(tmp_path / "photos"), f"--labels={table}"]) == 0
    assert "such as other.png" in " ".join(capsys.readouterr().out.split())


def test_inspect_finds_the_same_picture_in_two_splits(tmp_path, capsys):
    for number, name in enumerate(("train/a", "train/b", "test/a", "test/b")):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (0, 0, 60 * (number if number < 3 else 0))).save(tmp_path / name / "1.png")
    assert main(["inspect", str(tmp_path), "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["copies"]
    assert [split for split, _ in group] == ["train", "test"]


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--image_size=a", "HEIGHTxWIDTH"),
        ("--image_size=4", "8 or more"),
        ("--labels=nowhere.csv", "--labels: there is no file"),
        ("--background=nocolor", "background"),
    ],
)
def test_flags_of_a_folder_are_checked(flag, words, folder, capsys):
    assert main(["pretrain", f"--data={folder}", flag]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_height_and_width_can_differ(folder, tmp_path, capsys):
    flags = ["--image_size=24x16", "--epochs=1", "--batch_size=32", f"--output={tmp_path / 'run'}"]
    assert main(["pretrain", f"--data={folder}", *flags]) == 0
    assert "24×16×1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error", [OSError("<urlopen error no network>"), Exception("URL fetch failure on x: None -- y")]
)
def test_a_data_set_that_can_not_be_fetched_ends_in_a_sentence(error, monkeypatch, capsys):
    import keras

    def fail():
        raise error

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", fail)
    assert main(["pretrain", "--data=cifar10"]) == 1
    printed = capsys.readouterr().err
    assert "cifar10 can't be fetched" in printed
    assert "fashion_mnist_sample" in printed
    assert "Traceback" not in printed


def test_a_fault_that_no_one_expected_keeps_its_traceback_in_a_file(monkeypatch, capsys):
    from keras_ssl.cli import inspect

    def fail(settings):
        raise ZeroDivisionError("one over nothing")

    monkeypatch.setattr(inspect, "check", fail)
    assert main(["inspect", "--data=fashion_mnist_sample"]) == 1
    printed = capsys.readouterr().err
    assert "ZeroDivisionError: one over nothing" in printed
    file = printed.split("The traceback is in ")[1].split(": please")[0]
    with open(file) as content:
        assert "test_few_labels" in content.read()
