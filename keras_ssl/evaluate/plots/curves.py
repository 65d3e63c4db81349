"""Metrics over epochs, as curves."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from keras_ssl.evaluate.loss_correlation import paired, rank_correlation
from keras_ssl.evaluate.plots.style import BLUE, FAINT, GRAY, LATER, LINE, ORANGE, SMALL, plain_axes, words_of

_HEIGHT = 2.4
_MARGINS = (0.58, 0.1, 0.48, 0.3)  # left, right, bottom, top; inches, like the height
# By the ends of their names; what has no better end, such as a learning rate, is not here.
_UP = ("accuracy", "rank_me", "feature_spread", "embedding_spread")
_DOWN = ("loss", "alignment", "uniformity")


def better(name, falling=()):
    """ "up" or "down": where a metric is better; None where no end is.

    Args:
        falling: names of terms of a loss.
    """
    name = name.removeprefix("val_")
    if name in falling or name.endswith(_DOWN):
        return "down"
    return "up" if name.endswith(_UP) else None


def curves(history, names=None, width=None, references=None, falling=()):
    """Plots each metric of a history by epoch, in a panel of its own; the validation metric is in the same panel.

    The title of a panel says where better is, and the axis begins and ends near the curve: at least 0.05 high, and with
    those reference lines in it that leave the curve a quarter of its height.

    Args:
        history: a dict of name to list, as Keras' `History.history`.
        names: the metrics to plot; None for all.
        width: of all panels together, in inches; None for 3 inches each.
        references: a dict of metric to a dict of words to number: dashed lines, such as
            `{"knn_accuracy": {"raw pixels": 0.7}}`.
        falling: names of the terms of the loss, which are better where they are lower, as "loss" is.
    """
    names = names or [name for name in history if not name.startswith("val_")]
    width = (width or 3.0 * len(names)) / len(names)
    figure = Figure(figsize=(width * len(names), _HEIGHT))
    left, right, bottom, top = _MARGINS
    for place, name in enumerate(names):
        # At places in inches: the frames of all panels are in line, and no layout has to be worked out.
        axes = figure.add_axes(
            (
                (place * width + left) / (width * len(names)),
                bottom / _HEIGHT,
                (width - left - right) / (width * len(names)),
                (_HEIGHT - bottom - top) / _HEIGHT,
            )
        )
        for key, color, label in ((name, BLUE, "training"), (f"val_{name}", ORANGE, "validation")):
            if key in history:
                _curve(axes, np.arange(1, len(history[key]) + 1), history[key], color, label)
        _limits(axes, [history.get(key, []) for key in (name, f"val_{name}")])
        _references(axes, (references or {}).get(name, {}))
        arrow = {"up": ", better is ↑", "down": ", better is ↓", None: ""}[better(name, falling)]
        axes.set_title(f"{words_of(name)}{arrow}", fontsize=10, loc="left")
        axes.set_xlabel("epoch", fontsize=SMALL)
        if f"val_{name}" in history:
            axes.legend(fontsize=SMALL, frameon=False, handlelength=1.2)
    return figure


def _limits(axes, columns):
    """Sets the axis to the finite values, at least 0.05 high, or noise in the third decimal would look like ups and
    downs."""
    values = np.concatenate([np.array(column, "float64") for column in columns])
    values = values[np.isfinite(values)]
    if len(values):
        axes.set_ylim(*_around(values.min(), values.max()))


def _around(low, high):
    height = max(high - low, 0.045)
    middle = (low + high) / 2
    return middle - 0.55 * height, middle + 0.55 * height


def _references(axes, lines):
    """Draws the lines that leave the curve a quarter of the axis, the nearest first."""
    low, high = axes.get_ylim()
    shown = []
    for words, value in sorted(lines.items(), key=lambda line: max(low - line[1], line[1] - high)):
        first, last = min(low, value), max(high, value)
        if last - first <= 4 * (high - low):
            shown.append((words, value))
    if not shown:
        return
    first, last = min(low, *(value for _, value in shown)), max(high, *(value for _, value in shown))
    axes.set_ylim(first - 0.05 * (last - first) * (first < low), last + 0.05 * (last - first) * (last > high))
    bottom, top = axes.get_ylim()
    for words, value in shown:
        upper = value > bottom + 0.85 * (top - bottom)  # or the words would stand in the title
        axes.axhline(value, color=GRAY, linestyle="--", linewidth=1.2, zorder=1)
        axes.annotate(
            words,
            (1.0, value),
            (-2, -2 if upper else 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            fontsize=SMALL,
            color=FAINT,
            ha="right",
            va="top" if upper else "bottom",
        )


def loss_correlation(history, metric, downstream, width=8.0):
    """Plots a metric that needs no labels beside a downstream accuracy: both by epoch, and one against the other.

    Args:
        history: a dict of name to list by epoch.
        metric, downstream: names in it. Only epochs at which both were measured are shown.
        width: in inches; below 6 the three panels are stacked.

    Returns:
        A matplotlib figure; the points of later checkpoints are darker.
    """
    epochs, proxy, accuracy = paired(history, metric, downstream)
    if not len(epochs):
        raise ValueError(
            f"plots.loss_correlation: there is no epoch of which both `{metric}` and `{downstream}` are known."
        )
    narrow = width < 6.0
    drawn = Figure(figsize=(width, 6.6 if narrow else 3.7), layout="constrained")
    if narrow:
        above, below, cloud = drawn.subplots(3, 1, gridspec_kw={"height_ratios": [1, 1, 1.7]})
    else:
        panels = drawn.subplot_mosaic([["proxy", "cloud"], ["downstream", "cloud"]])
        above, below, cloud = panels["proxy"], panels["downstream"], panels["cloud"]
    below.sharex(above)
    _curve(above, epochs, proxy, BLUE)
    _curve(below, epochs, accuracy, ORANGE)
    above.tick_params(labelbottom=False)
    for axes, name in ((above, metric), (below, downstream)):
        axes.set_title(words_of(name), fontsize=10, loc="left")
    below.set_xlabel("epoch", fontsize=SMALL)

    cloud.plot(proxy, accuracy, color=LINE, zorder=1)
    cloud.scatter(proxy, accuracy, c=epochs, cmap=LATER, s=34, zorder=2)
    plain_axes(cloud)
    for place, above_it in {len(epochs) - 1: False, 0: True}.items():
        cloud.annotate(
            f"epoch {epochs[place]}",
            (proxy[place], accuracy[place]),
            (0, 7 if above_it else -8),
            textcoords="offset points",
            fontsize=SMALL,
            ha="center",
            va="bottom" if above_it else "top",
        )
    cloud.margins(0.14)
    cloud.set_xlabel(words_of(metric), fontsize=SMALL)
    cloud.set_ylabel(words_of(downstream), fontsize=SMALL)
    rho, _, count = rank_correlation(proxy, accuracy)
    found = "undefined" if rho is None else f"{rho:+.2f}".replace("-", "−")
    cloud.set_title(f"rank correlation {found}, {count} checkpoints", fontsize=10, loc="left")
    return drawn


def _curve(axes, epochs, values, color, label=None):
    axes.plot(epochs, np.array(values, "float64"), color=color, marker=".", label=label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    plain_axes(axes)
