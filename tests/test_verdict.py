"""A verdict says what its table says: better, the same or worse, by how much, and where."""

import pathlib
import subprocess
import sys

import pytest

import keras_ssl
from keras_ssl.evaluate.efficiency import Cell
from keras_ssl.evaluate.verdict import best, verdict

pytestmark = pytest.mark.one_backend


def table(raw, untrained, trained, column="linear, 10 per class"):
    return {
        "raw pixels": {column: raw},
        "untrained backbone": {column: untrained},
        "trained backbone": {column: trained},
    }


@pytest.mark.parametrize(
    ("raw", "untrained", "trained", "kind", "text"),
    [
        (0.55, 0.60, 0.69, "much better", "+9.0 points over the untrained network at 10 labels per class."),
        (0.60, 0.55, 0.65, "much better", "+5.0 points over raw pixels at 10 labels per class."),
        (0.60, 0.55, 0.649, "a little", "+4.9 points over raw pixels at 10 labels per class: a little; more epochs"),
        (0.60, 0.55, 0.61, "a little", "+1.0 points over raw pixels"),
        (
            0.60,
            0.55,
            0.609,
            "no better",
            "Not better than raw pixels at 10 labels per class (+0.9 points, though +5.9 over the untrained network): "
            "more epochs or more images.",
        ),
        (0.60, 0.60, 0.60, "no better", "Not better than raw pixels at 10 labels per class (the same accuracy): more"),
        (0.60, 0.6, 0.591, "no better", "(−0.9 points): more epochs or more images."),
        (0.40, 0.457, 0.427, "worse", "−3.0 points, worse than the untrained network at 10 labels per class, though"),
    ],
)
def test_the_trained_backbone_is_compared_with_the_better_of_the_others(raw, untrained, trained, kind, text):
    found = verdict(table(raw, untrained, trained))
    assert found.kind == kind
    assert text in found.text
    assert found.reference == ("raw pixels" if raw >= untrained else "untrained backbone")


def test_near_the_top_a_third_of_the_errors_is_much():
    assert verdict(table(0.90, 0.94, 0.96)).kind == "much better"
    assert verdict(table(0.90, 0.94, 0.955)).kind == "a little"
    assert verdict(table(0.90, 0.995, 0.999)).kind == "no better", "less than a point"


def test_the_spread_is_that_of_the_differences_draw_by_draw():
    """Draws of labels that are hard for one row are hard for all: a difference that stays is a difference."""
    untrained = [0.40, 0.50, 0.60, 0.45, 0.55]
    steady = [number + 0.03 + step for number, step in zip(untrained, (0.001, -0.001, 0.0, 0.001, -0.001))]
    assert verdict(table(0.3, Cell(untrained), Cell(steady))).kind == "a little"
    # 3 points on average as well, and two standard errors are 10.
    wild = [number + 0.03 + step for number, step in zip(untrained, (0.15, -0.15, 0.0, 0.1, -0.1))]
    found = verdict(table(0.3, Cell(untrained), Cell(wild)))
    assert found.kind == "no better"
    assert "(+3.0 points, within two standard errors, 11.4, though +23.0 over raw pixels)" in found.text
    falling = [number - 0.06 - step for number, step in zip(untrained, (0.15, -0.15, 0.0, 0.1, -0.1))]
    assert verdict(table(0.3, Cell(untrained), Cell(falling))).kind == "no better"


def test_few_held_out_images_tell_little():
    """One of 20 images is 5 points: no difference of two is one that would stay with other images."""
    lucky = table(0.30, 0.30, 0.40, "linear, all")
    assert verdict(lucky).kind == "much better"
    found = verdict(lucky, held_out=20)
    assert found.kind == "no better"
    assert "within two standard errors, 21.3" in found.text
    assert found.text.endswith("It is measured on 20 images, of which one is 5.0 points.")
    assert best(lucky, held_out=20)["linear, all"] == [*lucky]
    # √(0.35 · 0.65 / n) is the standard error, and 10 points are two of it at 91 images.
    assert [verdict(lucky, held_out=images).kind for images in (90, 92)] == ["no better", "much better"]
    assert "measured on" not in verdict(lucky, held_out=2000).text


def test_rows_of_different_numbers_of_draws_are_taken_as_independent():
    assert verdict(table([0.5, 0.6], [0.5, 0.6], [0.52, 0.58, 0.65])).kind == "no better"
    assert verdict(table(0.5, 0.5, [0.59, 0.60, 0.61])).kind == "much better"


def test_the_fewest_labels_count_and_other_columns_are_told_where_they_differ():
    cells = {
        "raw pixels": {"linear, all": 0.85, "kNN, 10 per class": 0.5, "linear, 10 per class": 0.6},
        "untrained backbone": {"linear, all": 0.80, "kNN, 10 per class": 0.5, "linear, 10 per class": 0.55},
        "trained backbone": {"linear, all": 0.82, "kNN, 10 per class": 0.505, "linear, 10 per class": 0.7},
    }
    found = verdict(cells)
    assert found.column == "linear, 10 per class"
    assert found.text == (
        "+10.0 points over raw pixels at 10 labels per class. It is not better at 10 labels per class by kNN (+0.5); "
        "worse with all labels (−3.0)."
    )
    cells["trained backbone"] |= {"linear, all": 0.95, "kNN, 10 per class": 0.52}
    assert verdict(cells).text == "+10.0 points over raw pixels at 10 labels per class.", "all are better"
    few = cells["trained backbone"] | {"linear, 10 per class": 0.6, "linear, 100 per class": 0.9}
    cells["trained backbone"] = few
    for row in ("raw pixels", "untrained backbone"):
        cells[row]["linear, 100 per class"] = 0.7
    assert verdict(cells).text.endswith("more images. It is better in 3 of 3 other columns.")
    cells = {
        row: {"linear, 100 per class": 0.5, "linear, 9 per class": number} for row, number in (("a", 0.4), ("b", 0.6))
    }
    found = verdict(cells)
    assert found.column == "linear, 9 per class", "as numbers, not as words"
    assert found.text == '+20.0 points over "a" at 9 labels per class. It is not better at 100 labels per class (+0.0).'


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("linear, all", "with all labels."),
        ("kNN, all", "with all labels by kNN."),
        ("linear, 20000 in all", "at 20,000 labels in all."),
        ("kNN", 'in "kNN".'),
    ],
)
def test_a_table_of_one_column(column, words):
    assert verdict(table(0.5, 0.5, 0.9, column)).text == f"+40.0 points over raw pixels {words}"


def test_a_table_without_raw_pixels():
    cells = {"untrained backbone": {"linear, all": 0.5}, "trained backbone": {"linear, all": 0.4}}
    assert verdict(cells).text.startswith("−10.0 points, worse than the untrained network with all labels: more epochs")
    cells = {"backbone before": {"linear, all": 0.5}, "trained backbone": {"linear, all": 0.6}}
    assert "over the backbone before this training" in verdict(cells).text


def test_what_cannot_be_compared_has_no_verdict():
    assert verdict(None) is None
    assert verdict({}) is None
    assert verdict({"trained backbone": {"linear, all": 0.5}}) is None
    with pytest.raises(ValueError, match="`trained` is a row of the table"):
        verdict(table(0.1, 0.2, 0.3), trained="mine")
    assert verdict(table(0.1, 0.3, 0.2), trained="untrained backbone").kind == "much better"


def test_chance_is_called_chance():
    found = verdict(table(0.6, 0.5, 0.1), classes=10)
    assert found.kind == "worse"
    assert found.text.endswith(
        "An accuracy of 0.100 is what a guess among 10 classes reaches: the features may have collapsed."
    )
    found = verdict(table(0.51, 0.50, [0.49, 0.52]), classes=2)
    assert found.kind == "no better"
    assert "look whether the labels fit the images" in found.text
    assert "guess" not in verdict(table(0.51, 0.50, 0.55), classes=2).text
    assert "guess" not in verdict(table(0.6, 0.5, 0.1)).text, "without a number of classes no one can tell"


def test_a_verdict_needs_no_keras():
    path = pathlib.Path(keras_ssl.__file__).parent / "evaluate" / "verdict.py"
    code = f"""
import runpy, sys
names = runpy.run_path({str(path)!r}, run_name="verdict")
assert names["verdict"]({{"raw pixels": {{"kNN": 0.1}}, "trained": {{"kNN": 0.2}}}}).kind == "much better"
assert not {{"keras", "numpy", "tensorflow"}} & set(sys.modules), "a table is judged with what Python has"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_best_of_a_column_are_those_that_the_draws_cannot_tell_apart():
    draws = [0.50, 0.60, 0.55, 0.52, 0.58]
    cells = {
        "raw pixels": {"a": Cell([number - 0.001 for number in draws]), "b": 0.9, "c": 0.5001, "d": 0.2},
        "untrained backbone": {"a": Cell([0.54, 0.56, 0.57, 0.5, 0.56]), "b": 0.7, "c": 0.4, "d": 0.1},
        "trained backbone": {"a": Cell(draws), "b": 0.8, "c": 0.5, "d": Cell([0.3])},
    }
    assert best(cells) == {
        "a": ["untrained backbone", "trained backbone"],  # always 0.001 less is less, and printed so
        "b": ["raw pixels"],
        "c": ["raw pixels", "trained backbone"],  # 0.500 and 0.500
        "d": ["trained backbone"],
    }
    assert best({"a": {"x": 0.5}}) == {"x": []}, "a single row is not the best of anything"
    assert best(None) == {}
