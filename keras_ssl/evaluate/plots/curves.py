"""Metrics over epochs, as curves."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from keras_ssl.evaluate.loss_correlation import paired, rank_correlation
from keras_ssl.evaluate.plots.style import BLUE, LATER, LINE, ORANGE, SMALL, plain_axes, words_of


def curves(history, names=None, width=None):
    """Plots each metric of a history by epoch, in a panel of its own; the validation metric is in the same panel.

    Args:
        history: a dict of name to list, as Keras' `History.history`.
        names: the metrics to plot; None for all.
        width: of all panels together, in inches; None for 3 inches each.
    """
    names = names or [name for name in history if not name.startswith("val_")]
    figure = Figure(figsize=(width or 3.0 * len(names), 2.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names):
        for key, color, label in ((name, BLUE, "training"), (f"val_{name}", ORANGE, "validation")):
            if key in history:
                _curve(axes, np.arange(1, len(history[key]) + 1), history[key], color, label)
        low, high = axes.get_ylim()
        if high - low < 0.05:  # or noise in the third decimal would look like ups and downs
            axes.set_ylim((low + high) / 2 - 0.025, (low + high) / 2 + 0.025)
        axes.set_title(words_of(name), fontsize=10)
        axes.set_xlabel("epoch", fontsize=SMALL)
        if f"val_{name}" in history:
            axes.legend(fontsize=SMALL, frameon=False)
    return figure


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
