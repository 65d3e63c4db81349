"""Label efficiency: probes at several numbers of labels per class, of several representations side by side."""

import dataclasses

import keras
import numpy as np

from keras_ssl.data.labels import flat_labels
from keras_ssl.evaluate.knn import knn_of_draws
from keras_ssl.evaluate.labels import draw_labels, labeled_rows
from keras_ssl.evaluate.linear import linear_probe


@dataclasses.dataclass
class Cell:
    """Accuracies of one probe at one number of labels, one for each draw of labels."""

    accuracies: list

    @property
    def mean(self):
        return float(np.mean(self.accuracies))

    @property
    def sd(self):
        """Standard deviation over draws; None for a single one."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else None

    def __str__(self):
        return f"{self.mean:.3f}" if self.sd is None else f"{self.mean:.3f} ± {self.sd:.3f}"


def label_efficiency(
    representations, labels, query_labels, per_class=(10, 100, None), draws=5, k=20, seed=0, most=20_000, verbose=0
):
    """Runs a linear probe and kNN on each representation, at several numbers of labels per class.

    Every representation sees the same draws of labels.

    Args:
        representations: a dict of name to `(features, query_features)`, `(N, any)` and `(M, any)`.
        labels, query_labels: integers or strings `(N,)` and `(M,)`. Rows without a label (−1, None, NaN, an empty
            string) are left out.
        per_class: labels per class; None for all of them. Numbers that no class has are left out.
        draws: the number of draws of labels per entry of `per_class`; all labels are drawn once.
        k: neighbors of kNN, at most the number of labels.
        seed: of the first draw.
        most: all labels means at most this many, drawn at random.
        verbose: 1 for a progress bar.

    Returns:
        A dict of representation to dict of column to `Cell`; columns are `"linear, 10 per class"`, `"kNN, all"` ….
    """
    labels, query_labels = flat_labels(labels), flat_labels(query_labels, "query_labels")
    labeled = labeled_rows("labels", labels)
    largest = np.unique(labels[labeled], return_counts=True)[1].max()
    plan = []
    for number in per_class:
        if number is None:
            rows = labeled[np.random.default_rng(seed).permutation(len(labeled))[:most]]
            plan.append(("all" if len(rows) == len(labeled) else f"{most} in all", [np.sort(rows)]))
        elif number < largest:
            plan.append((f"{number} per class", [draw_labels(labels, number, seed + draw) for draw in range(draws)]))
    total = len(representations) * sum(len(rows) for _, rows in plan)
    bar = keras.utils.Progbar(total, unit_name="probe", verbose=verbose) if verbose else None
    table = {}
    for name, (features, queries) in representations.items():
        cells = table[name] = {}
        # One product of features and queries serves all draws.
        drawn = [rows for _, draws_of_column in plan for rows in draws_of_column]
        accuracies = iter(knn_of_draws(features, labels, queries, query_labels, drawn, k))
        for column, draws_of_column in plan:
            linear, nearest = cells[f"linear, {column}"], cells[f"kNN, {column}"] = Cell([]), Cell([])
            for rows in draws_of_column:
                linear.accuracies.append(linear_probe(features[rows], labels[rows], queries, query_labels, seed=seed))
                nearest.accuracies.append(next(accuracies))
                if bar:
                    bar.add(1)
    return table


def as_rows(table):
    """`(header, rows)` of strings, linear probes first; a header has its probe in a line above the labels."""
    columns = list(next(iter(table.values())))
    columns = [c for c in columns if c.startswith("linear")] + [c for c in columns if not c.startswith("linear")]
    rows = [[name, *(str(cells[column]) for column in columns)] for name, cells in table.items()]
    return ["", *(column.replace(", ", "\n") for column in columns)], rows


def fewer_labels(table, labels_per_class):
    """A sentence where a column has more labels per class than some class has; else an empty one.

    Args:
        labels_per_class: how many labels each class has.
    """
    asked = [int(column.split()[1]) for column in next(iter(table.values())) if column.endswith("per class")]
    if not asked or max(asked) <= min(labels_per_class):
        return ""
    return " A class with fewer labels than a column says gives all that it has."


def as_text(header, rows):
    """A table for a terminal: columns as wide as their widest cell."""
    height = max(cell.count("\n") for cell in header) + 1
    split = [([""] * height + cell.split("\n"))[-height:] for cell in header]
    lines = [*([cell[line] for cell in split] for line in range(height)), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))])
        for line in lines
    )
