"""The numbers of docs/conventions.md: ours are computed again, and each way from another library's to ours is tried.

The page is read as it stands. A paragraph that begins with "Input:" names the case and may define names (`d = …`); the
tables below it have the columns library, number, from, to get ours. A row of ours holds the code that gives its number.
The last column of another library's row begins with `the same`, with steps such as `times 4, plus 4`, with code that
`gives theirs`, or with `no factor:` and the reason.
"""

import pathlib
import re
import typing

import keras
import numpy as np
import pytest
from conftest import golden
from keras import ops

import keras_ssl
from keras_ssl import losses

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "conventions.md"
HEADER = "| library | number | from | to get ours |"
STEPS = {
    "times": lambda x, y: x * y,
    "divide by": lambda x, y: x / y,
    "plus": lambda x, y: x + y,
    "minus": lambda x, y: x - y,
}
STEP = rf"({'|'.join(STEPS)}) (\d[\d./]*\d|\d)"


class Row(typing.NamedTuple):
    line: int
    section: str
    file: str
    case: int
    names: tuple  # definitions, in order
    library: str
    number: str
    source: str
    ours: object  # the row above to which `to get ours` leads; None for one of ours
    way: str


def rows_of(text):
    found, section, file, case, names, ours, table = [], "", None, None, (), None, False
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if line.startswith("## "):
            section, file, case, names = line[3:], None, None, ()
        elif line.startswith("Input:"):
            end = next((i for i in range(number, len(lines)) if not lines[i].strip()), len(lines))
            paragraph = " ".join(lines[number - 1 : end])
            where = re.search(r"case (\d+) of `tests/golden/(\w+)\.npz`", paragraph)
            file, case = where.group(2), int(where.group(1))
            names = tuple(code for code in re.findall(r"`([^`]*)`", paragraph) if re.match(r"[\w, ]+ = ", code))
        table = line == HEADER or (table and line.startswith("|"))
        if not table or line == HEADER or set(line) <= set("|- "):
            continue
        library, value, source, way = (cell.strip() for cell in line.strip("|").split("|"))
        row = Row(number, section, file, case, names, library, value, source, None, way)
        if library.startswith("keras_ssl"):
            ours = row
        else:
            row = row._replace(ours=ours)
        found.append(row)
    return found


ROWS = rows_of(PAGE.read_text(encoding="utf-8"))
OURS = [row for row in ROWS if row.ours is None]
THEIRS = [row for row in ROWS if row.ours is not None]


def ids(row):
    return f"line {row.line}: {row.section}, {row.library}"


def code_of(cell):
    return re.search(r"`([^`]*)`", cell).group(1)


def computed(row, code):
    """The mean of what a piece of the page's code gives on the arrays of the row's case."""
    case = golden(row.file)[row.case]

    def after(name, optimizer):
        """The length of a weight after the steps whose gradients the case holds."""
        weights = {"w": keras.Variable(case["w0"]), "b": keras.Variable(case["b0"])}
        for gradients in zip(case["gw"], case["gb"]):
            optimizer.apply([ops.convert_to_tensor(gradient) for gradient in gradients], list(weights.values()))
        return np.linalg.norm(ops.convert_to_numpy(weights[name]))

    modules = {name: getattr(keras_ssl, name) for name in ("distances", "losses", "mining", "optimizers", "teacher")}
    names = {**modules, "ops": ops, **case}
    names |= {"matrix": lambda optimizer: after("w", optimizer), "bias": lambda optimizer: after("b", optimizer)}
    for definition in row.names:
        exec(definition, names)
    return float(np.mean(ops.convert_to_numpy(eval(code, names))))


def half_a_digit(number):
    """Half a unit of the last printed digit, and half of that again for float32 beside a rounding boundary."""
    return 0.75 * 10.0 ** -len(number.partition(".")[2])


@pytest.mark.parametrize("row", OURS, ids=ids)
def test_our_number_is_what_the_code_gives(row):
    assert computed(row, code_of(row.library)) == pytest.approx(float(row.number), rel=0, abs=half_a_digit(row.number))


@pytest.mark.parametrize("row", THEIRS, ids=ids)
def test_the_way_from_their_number_to_ours_holds(row):
    assert row.source in ("run", "formula")
    tried = row.way.startswith("no factor: ")
    if row.way.startswith("the same"):
        tried = True
        tolerance = half_a_digit(row.number) + half_a_digit(row.ours.number)
        assert float(row.number) == pytest.approx(float(row.ours.number), rel=0, abs=tolerance)
    steps = re.match(rf"{STEP}(?:, {STEP})*", row.way)
    if steps:
        tried = True
        value, tolerance = float(row.number), half_a_digit(row.number)
        for name, amount in re.findall(STEP, steps.group(0)):
            over, _, under = amount.partition("/")
            amount = float(over) / float(under or 1)
            value = STEPS[name](value, amount)
            tolerance = STEPS[name](tolerance, amount) if name in ("times", "divide by") else tolerance
        tolerance += half_a_digit(row.ours.number)
        assert value == pytest.approx(float(row.ours.number), rel=0, abs=tolerance)
    for code in re.findall(r"`([^`]*)` gives theirs", row.way):
        tried = True
        assert computed(row, code) == pytest.approx(float(row.number), rel=0, abs=half_a_digit(row.number))
    assert tried, f"line {row.line}: {row.way!r} is no way to our number"


def test_every_loss_has_a_table():
    parts = {
        "weighted_mean_rows",
        "barlow_twins_terms",
        "vicreg_terms",
        "cross_correlation",
        "normalized",
        "nuclear_norm",
        "mean_of_visible",
        "normalized_patches",
    }
    figures = {"contrastive_accuracy", "correct_predictions", "finds_own_key"}
    as_keras_has_it = {"cross_entropy"}
    in_words = {"distillation", "masked_absolute", "masked_squared"}  # no golden file has them
    shown = {name for row in OURS for name in re.findall(r"losses\.(\w+)\(", " ".join((row.library, *row.names)))}
    assert set(losses.__all__) - parts - figures - as_keras_has_it - in_words <= shown


def test_no_table_is_overlooked():
    text = PAGE.read_text(encoding="utf-8")
    assert len(ROWS) == sum(line.startswith("| ") for line in text.splitlines()) - text.count(HEADER)
    assert all(row.ours is None or row.ours.section == row.section for row in ROWS)
