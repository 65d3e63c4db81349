"""What a table of accuracies says of a training, in words."""

import dataclasses
import math
import re
import statistics

MUCH = 5.0  # points
LEAST = 1.0  # points; less is nothing that one run can tell, however small the spread over draws is
ERRORS = 1 / 3  # of the reference's errors: near the top no five points are left to gain
AGAIN = "more epochs or more images"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A verdict.

    Attributes:
        kind: "much better", "a little", "no better" or "worse".
        text: one or two sentences.
        points: by how many points of accuracy the trained backbone is above the reference; below 0 it is under it.
        reference: the name of the row that it was compared with, the better of the others.
        column: the name of the column that was compared.
    """

    kind: str
    text: str
    points: float
    reference: str
    column: str


def verdict(table, trained=None, classes=None, held_out=None):
    """Says whether training made the features better than those that cost nothing.

    The trained backbone is compared with the better of the other rows, which are raw pixels and the untrained network,
    by the linear probe at the fewest labels per class; where other columns say something else, a second sentence says
    so. Differences are in points (0.01 of accuracy), rounded to a tenth:

    - no better: less than 1 point, or less than two standard errors of the difference, to either side.
    - worse: below that.
    - much better: above that, and by 5 points or more, or with a third of the reference's errors gone.
    - a little: above that, and less.

    All rows have the same draws of labels, so the standard error is that of the differences, draw by draw. It holds
    for other draws of labels, not for another training run, which is what the 1 point is for. With `held_out` it holds
    for other held-out images as well: their part of the variance is p (1 − p) / n, with p the mean accuracy of both
    rows and n the images, which is that of two rows whose errors correlate by a half.

    ```python
    table = {"raw pixels": {"linear, all": 0.80}, "trained backbone": {"linear, all": 0.89}}
    print(verdict(table).text)  # +9.0 points over raw pixels with all labels.
    ```

    Args:
        table: a dict of row to dict of column to accuracies, as `keras_ssl.evaluate.efficiency.label_efficiency` gives
            it; a cell may be a list, one number for each draw of labels, or a number, too.
        trained: the row that is judged; None for the last row whose name begins with "trained", or the last of all.
        classes: the number of classes, to tell what chance would reach; or None.
        held_out: the number of images that the accuracies are of; None where it is not known.

    Returns:
        A `Verdict`; None where there is nothing to compare: no table, or a single row.

    Raises:
        ValueError: for a row that is not in the table.
    """
    if not table or len(table) < 2:
        return None
    if trained is None:
        trained = [name for name in table if name.startswith("trained")] or list(table)
        trained = trained[-1]
    if trained not in table:
        raise ValueError(f"verdict: `trained` is a row of the table, one of {list(table)}; it is {trained!r}.")
    others = [name for name in table if name != trained]
    columns = sorted(table[trained], key=_by_labels)
    found = {column: _compared(table, trained, others, column, held_out) for column in columns}
    first = found[columns[0]]
    sentence = _sentence(first, trained)
    chance = _chance(table[trained][first.column], first, classes)
    second = chance or _others(first, [found[column] for column in columns[1:]])
    text = " ".join(filter(None, [sentence, second, _few(held_out)]))
    return Verdict(first.kind, text, first.points, first.reference, first.column)


def best(table, held_out=None):
    """The best rows of each column: a dict of column to list of rows, no row where there is none to compare with.

    A row whose difference to the highest accuracy is within two standard errors, or within the third decimal, is as
    good: of two rows that the draws of labels can't tell apart, neither is the better one.

    Args:
        table, held_out: as of `verdict`.
    """
    if not table or len(table) < 2:
        return {column: [] for cells in (table or {}).values() for column in cells}
    found = {}
    for column in next(iter(table.values())):
        numbers = {row: _numbers(cells[column]) for row, cells in table.items()}
        means = {row: statistics.fmean(values) for row, values in numbers.items()}
        top = max(means, key=means.get)
        found[column] = [
            row
            for row in table
            if round(means[top], 3) == round(means[row], 3)
            or means[top] - means[row] <= 2 * _standard_error(numbers[top], numbers[row], held_out)
        ]
    return found


@dataclasses.dataclass
class _Comparison:
    column: str
    kind: str
    points: float
    spread: float  # two standard errors of the difference, in points
    reference: str
    beside: tuple | None  # another row that the trained one is clearly above: (name, points)

    @property
    def side(self):
        return {"worse": -1, "no better": 0}.get(self.kind, 1)


def _compared(table, trained, others, column, held_out):
    judged = _numbers(table[trained][column])
    reference = max(others, key=lambda name: statistics.fmean(_numbers(table[name][column])))
    numbers = _numbers(table[reference][column])
    kind, points, spread = _kind(judged, numbers, held_out)
    beside = None
    if kind in ("no better", "worse"):
        for name in others:
            other, gained, _ = _kind(judged, _numbers(table[name][column]), held_out)
            if other in ("much better", "a little"):
                beside = (name, gained)
    return _Comparison(column, kind, points, spread, reference, beside)


def _kind(judged, reference, held_out):
    """`(kind, points, two standard errors in points)`."""
    base = statistics.fmean(reference)
    points = round(100 * (statistics.fmean(judged) - base), 1)
    spread = 200 * _standard_error(judged, reference, held_out)
    if abs(points) < LEAST or abs(points) <= spread:
        return "no better", points, spread
    if points < 0:
        return "worse", points, spread
    much = points >= MUCH or points >= round(100 * ERRORS * (1 - base), 1)
    return "much better" if much else "a little", points, spread


def _standard_error(judged, reference, held_out=None):
    """Of the difference of the means, over draws of labels and, where their number is known, held-out images."""
    share = statistics.fmean([*judged, *reference])
    of_images = share * (1 - share) / held_out if held_out else 0.0
    return math.hypot(_over_draws(judged, reference), math.sqrt(of_images))


def _over_draws(judged, reference):
    """Of the difference of the means; 0 where a single draw tells nothing of it."""
    if len(judged) == len(reference):
        differences = [one - other for one, other in zip(judged, reference)]
        return statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    parts = [statistics.variance(numbers) / len(numbers) for numbers in (judged, reference) if len(numbers) > 1]
    return math.sqrt(sum(parts))


def _numbers(cell):
    """The accuracies of a cell, by draw."""
    numbers = getattr(cell, "accuracies", cell)
    return [float(number) for number in (numbers if isinstance(numbers, (list, tuple)) else [numbers])]


def _by_labels(column):
    """Fewest labels first, and the linear probe before others."""
    number = re.search(r"(\d+) (per class|in all)", column)
    kind = 2 if number is None else ["per class", "in all"].index(number[2])
    return kind, int(number[1]) if number else 0, not column.startswith("linear")


def _sentence(found, trained):
    name, where = _name(found.reference), _where(found.column)
    points = _signed(found.points)
    if found.kind == "much better":
        return f"{points} points over {name} {where}."
    if found.kind == "a little":
        return f"{points} points over {name} {where}: a little; more epochs or more images may give more."
    though = f", though {_signed(found.beside[1])} over {_name(found.beside[0])}" if found.beside else ""
    if found.kind == "worse":
        return f"{points} points, worse than {name} {where}{though}: {AGAIN}."
    if found.points == 0.0:
        why = "the same accuracy"
    else:
        within = f", within two standard errors, {found.spread:.1f}" if abs(found.points) >= LEAST else ""
        why = f"{points} points{within}"
    return f"Not better than {name} {where} ({why}{though}): {AGAIN}."


def _others(first, rest):
    """A sentence on the columns that say something else; an empty one where all agree."""
    words = {1: "better", 0: "not better", -1: "worse"}
    parts = []
    for side in (1, 0, -1):
        named = [f"{_where(one.column)} ({_signed(one.points)})" for one in rest if one.side == side != first.side]
        if len(named) > 2:
            parts.append(f"{words[side]} in {len(named)} of {len(rest)} other columns")
        elif named:
            parts.append(f"{words[side]} {' and '.join(named)}")
    return f"It is {'; '.join(parts)}." if parts else ""


def _chance(cell, found, classes):
    """A sentence where the trained features tell the classes no better than a guess would."""
    if classes is None or classes < 2:
        return ""
    numbers = _numbers(cell)
    error = statistics.stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else 0.0
    if statistics.fmean(numbers) - 1 / classes > max(LEAST / 100, 2 * error):
        return ""
    what = (
        "the features may have collapsed"
        if found.kind == "worse"
        else "look whether the labels fit the images, for no features here tell them apart"
    )
    return f"An accuracy of {statistics.fmean(numbers):.3f} is what a guess among {classes} classes reaches: {what}."


def _few(held_out):
    """A sentence where a single image is a point or more."""
    if not held_out or held_out > 100:
        return ""
    return f"It is measured on {held_out} images, of which one is {100 / held_out:.1f} points."


def _name(row):
    if row.startswith("untrained"):
        return "the untrained network"
    if row == "backbone before":
        return "the backbone before this training"
    return row if row == "raw pixels" else f'"{row}"'


def _where(column):
    """A column in words: "linear, 10 per class" is "at 10 labels per class"."""
    probe, _, labels = column.partition(", ")
    probe = f" by {probe}" if probe != "linear" else ""
    number = re.fullmatch(r"(\d+) (per class|in all)", labels)
    if number:
        return f"at {int(number[1]):,} labels {number[2]}{probe}"
    return f"with all labels{probe}" if labels == "all" else f'in "{column}"'


def _signed(points):
    return f"{points:+.1f}".replace("-", "−")
