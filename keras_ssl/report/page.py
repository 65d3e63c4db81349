"""The page about a trained model: what its features are worth, how it was trained, and what it looks like."""

import math
import os
import pathlib

from keras_ssl import data as data_sources
from keras_ssl import evaluate
from keras_ssl.data.labels import codes_of
from keras_ssl.evaluate import efficiency, plots
from keras_ssl.evaluate.loss_correlation import DOWNSTREAM
from keras_ssl.evaluate.plots.style import words_of
from keras_ssl.evaluate.verdict import best, verdict
from keras_ssl.model import SelfSupervisedModel
from keras_ssl.report import about, pictures
from keras_ssl.report.about import RunInfo
from keras_ssl.report.html import NARROW, WIDE, HtmlPage

CHECKPOINTS = 5  # fewer tell nothing of how the loss and the accuracy go together


def write(path, model, data, *, history=None, table=None, run=None, held_out=None, alarms=()):
    """Writes one HTML page about a trained model. It holds its pictures and opens offline.

    ```python
    data = keras_ssl.data.load("fashion_mnist_sample")
    history = model.fit(data.train.images, batch_size=256, epochs=20)
    keras_ssl.report.write("report.html", model, data, history=history)
    ```

    `keras-ssl pretrain` and `keras-ssl report` write their page with this function.

    Args:
        path: of the page, such as "report.html"; in a folder the page is `report.html`.
        model: a trained method, such as `keras_ssl.SimCLR`.
        data: the images: `keras_ssl.data.Data`, or what `keras_ssl.data.load` takes: arrays, `(images, labels)`, a
            folder. The pictures show images of the test split; without one, or with fewer than three images in it, they
            show training images, and the page says so. Labels, where there are some, color the map.
        history: what `fit` returned, or its dict of name to list of values per epoch; None for no curves.
        table: accuracies, a dict of row to dict of column to a number, a list (one number per random draw of labels),
            or a `Cell` as `keras_ssl.evaluate.efficiency.label_efficiency` gives it; None for no table. All rows have
            the same columns. The best accuracy of each column is set in bold, with those that the draws can't tell
            from it; `keras_ssl.evaluate.verdict` says in words what the table says of its last row, or of the last one
            whose name begins with "trained".
        run: a `RunInfo`; None takes the number of epochs from `history`, the batch size of the last `fit` and the seed
            from `model`, and versions and machine from this process.
        held_out: what the accuracies were measured on, in words, such as "2,000 test images"; None says how many
            images the test split has.
        alarms: sentences, such as those of `keras_ssl.callbacks.CollapseMonitor.alarms`.

    Returns:
        The path of the page, a `pathlib.Path`.

    Raises:
        ValueError, TypeError: what is wrong with an argument, before anything is written.
    """
    if not isinstance(model, SelfSupervisedModel):
        raise TypeError(
            f"report.write: `model` is a method with its backbone, such as keras_ssl.SimCLR(backbone); it is {model!r}."
        )
    if not model.built:
        raise ValueError("report.write: `model` is not built yet: train it with fit, or load a trained one, first.")
    data = _checked_data(data)
    history, table = _checked_history(history), _checked_table(table)
    run = about.of_model(model, history) if run is None else run
    if not isinstance(run, RunInfo):
        raise TypeError(f"report.write: `run` is a keras_ssl.report.RunInfo or None; it is {run!r}.")
    alarms = [alarms] if isinstance(alarms, str) else list(alarms)
    if held_out is None:
        held_out = "nothing: there is no test split" if data.test is None else f"{len(data.test):,} images"
    path = pathlib.Path(path).expanduser()
    if path.is_dir() or str(path).endswith(os.sep) or not path.suffix:
        path = path / "report.html"

    shown = pictures.PageData(model, data)
    page = HtmlPage(f"{type(model).__name__}{f' on {run.data}' if run.data else ''}", _subtitle(model, data, run))
    _results(page, shown, held_out, table)
    for picture in (pictures.views, pictures.pretext_task, pictures.neighbors, pictures.embedding_map):
        picture(page, shown)
    _training(page, model, history, run, alarms, table)
    pictures.similarities(page, shown)
    pictures.cross_correlation(page, shown)
    _loss_and_accuracy(page, history)
    _held_out(page, shown, held_out, history, table)
    about.repeat(page, model, run)
    page.save(path)
    return path


def _checked_data(data):
    if isinstance(data, data_sources.Split):
        data = data_sources.Data(data)
    data = data_sources.load(data)
    if data.train is None or data.train.images is None:
        raise ValueError(
            "report.write: `data` is a stream, and the page shows the same images several times: give arrays, "
            "(images, labels), a folder, or keras_ssl.data.Data of them."
        )
    if len(data.train) < 2:
        raise ValueError(f"report.write: `data` has {len(data.train)} training images: give two or more.")
    return data


def _checked_history(history):
    history = getattr(history, "history", history)  # a keras.callbacks.History
    if history is None:
        return {}
    if not isinstance(history, dict) or not all(isinstance(values, (list, tuple)) for values in history.values()):
        raise TypeError(
            "report.write: `history` is what fit returned, or its dict of name to list of values per epoch; it is "
            f"{history!r}."
        )
    return history


def _checked_table(table):
    """The table with a `Cell` for each number or list; None for an empty one."""
    if not table:
        return None
    wrong = TypeError(
        "report.write: `table` is a dict of row to dict of column to accuracy, such as "
        f'{{"my backbone": {{"linear": 0.9}}}}; it is {table!r}.'
    )
    if not isinstance(table, dict) or not all(isinstance(cells, dict) for cells in table.values()):
        raise wrong
    columns = list(next(iter(table.values())))
    for row, cells in table.items():
        if list(cells) != columns:
            raise ValueError(f"report.write: `table` has the columns {columns}, and in row {row!r} {list(cells)}.")
    try:
        return {row: {column: _cell(value) for column, value in cells.items()} for row, cells in table.items()}
    except (TypeError, ValueError):
        raise wrong from None


def _cell(value):
    if isinstance(value, efficiency.Cell):
        return value
    values = value if isinstance(value, (list, tuple)) else [value]
    return efficiency.Cell([float(number) for number in values])


def _subtitle(model, data, run):
    parts = [
        f"{len(data.train):,} images of {'×'.join(map(str, data.train.images.shape[1:]))}",
        f"backbone {model.backbone.name}, {model.backbone.count_params():,} parameters",
    ]
    if run.epochs is not None:
        parts.append(f"{run.epochs} epochs" + (f", batches of {run.batch_size}" if run.batch_size else ""))
    if run.seed is not None:
        parts.append(f"seed {run.seed}")
    return " · ".join(parts)


def _results(page, shown, held_out, table):
    if not table:
        return
    page.heading("What the features are worth")
    classes = len(codes_of(shown.train.labels)[1]) if shown.train.labels is not None else None
    found = verdict(table, classes=classes, held_out=shown.judged)
    if found is not None:
        page.verdict(found.text, {"no better": "same", "worse": "worse"}.get(found.kind, "better"))
    header, rows = efficiency.as_rows(table)
    columns = [column.replace("\n", ", ") for column in header]
    tops = best(table, shown.judged)
    bold = {
        (number, place)
        for number, row in enumerate(rows)
        for place, column in enumerate(columns)
        if row[0] in tops.get(column, ())
    }
    page.table(header, rows, bold)
    page.text(
        f"Accuracy on {held_out}; ± is the standard deviation over random draws of labels. Features are frozen; the "
        "linear probe is a logistic regression on them, its regularization chosen on labels of the training split. "
        "Bold is the best of a column, and what two standard errors over draws and held-out images can't tell from it."
        + ("" if shown.train.labels is None else efficiency.fewer_labels(table, shown.train.labels_per_class())),
        note=True,
    )


_LEFT_OUT = ("learning_rate", "seconds")  # no results: no curves of them


def _training(page, model, history, run, alarms, table=None):
    names = [name for name in history if not name.startswith("val_") and name not in _LEFT_OUT]
    if len(model.terms) == 1:  # the loss is its only term
        names = [name for name in names if name not in model.terms]
    # What one looks for comes first.
    names.sort(key=lambda name: (name != "loss", not name.endswith(DOWNSTREAM)))
    if not names and not alarms:
        return
    page.heading("Training")
    for alarm in alarms:
        page.text(alarm)
    if not names:
        return
    trivial = model.collapse_losses(run.batch_size) if run.batch_size else {}
    words = [f"A loss that stays at {value:.3f} would mean: {meaning}." for meaning, value in trivial.items()]
    references = {"loss": {f"trivial: {value:.2f}": value for value in trivial.values()}}
    probes = _probes(history)
    if probes:
        named = _listed([_label(name) for name in probes])
        words.append(f"What counts is {named}, measured on held-out labeled images; the loss is not.")
        # Not the table's rows, of more images and a grid of cells: a run that learned may lie below them.
        lines = {name: found for name in probes if (found := (run.references or {}).get(name))}
        references |= lines
        for name, found in lines.items():
            numbers = _listed([f"{value:.3f} ({row})" for row, value in found.items()])
            words.append(
                f"Before training, the same probe finds {_label(name)} {numbers}: the dashed lines, where they are "
                "near the curve."
            )
        if lines and table:
            words.append("The table is of other images and another probe: its numbers do not compare with the curve.")
    if "alignment" in names:
        words.append("Alignment is lowest in a collapse: it counts beside uniformity alone.")
    figures = {
        name: plots.curves(history, [name], width=2.9, references=references, falling=model.terms) for name in names
    }
    page.panels(figures, " ".join(words) or "By epoch.")


def _loss_and_accuracy(page, history):
    found = evaluate.loss_correlation(history)
    # Three or four points in a row are in some order by chance.
    found = {pair: value for pair, value in found.items() if value.checkpoints >= CHECKPOINTS}
    defined = {pair: value for pair, value in found.items() if value.rho is not None}
    if not found:
        return
    page.heading("Does the loss tell you how good the features are?")
    if not defined:
        page.text("This run does not say: the accuracy, or all else, was the same at all checkpoints.", note=True)
        return
    # The loss of held-out images comes nearest to the question; of downstream accuracies the first.
    figure, downstream = next((pair for pair in defined if pair[0] == "val_loss"), next(iter(defined)))
    count = defined[figure, downstream].checkpoints
    wide, narrow = (plots.loss_correlation(history, figure, downstream, width=width) for width in (WIDE, NARROW))
    page.figure(
        wide,
        "Each point is a checkpoint, the model after an epoch. A rank correlation of −1 between a loss and an accuracy "
        "means that the lower loss always had the higher accuracy; near 0, it tells nothing. Later checkpoints stand "
        f"out more. {count} checkpoints of one run say little: they follow each other, and whatever rises or falls "
        "steadily correlates. Losses of different methods or settings do not compare at all.",
        narrow,
    )
    rows = [
        [_label(figure), _label(downstream), _signed(value.rho), _p(value.p_value), value.checkpoints]
        for (figure, downstream), value in defined.items()
    ]
    page.table(["without labels", "with labels", "rank\ncorrelation", "p", "check-\npoints"], rows)
    least = 2 / math.factorial(count)
    page.text(
        "Spearman's rho; p is the share of all orders of the checkpoints whose rho is at least as far from 0. It "
        "assumes independent checkpoints, and those of one run are not."
        + (f" With {count} of them no p can be below {least:.3f}." if least > 0.001 else ""),
        note=True,
    )


def _held_out(page, shown, held_out, history, table):
    train, test = shown.train, shown.test
    labels = "" if train.labels is None else f" Their labels were {'' if shown.labels_used else 'not '}used."
    page.heading("What was held out")
    facts = {
        "Trained on": f"{len(train):,} images.{labels}",
        "Held out": f"{_sentence(held_out)}.",
    }
    if test is None:
        facts["So"] = "The pictures below show images that were trained on."
        page.facts(facts)
        return
    uses = []
    if any(name.startswith("val_") for name in history):
        uses.append("the validation curves (without labels)")
    if "rank_me" in history:
        uses.append("the measures without labels during training, rank me and others (by default up to 512 of them)")
    if _probes(history):
        uses.append(
            f"{_listed([_label(name) for name in _probes(history)])} during training (by default up to 1,000 of them)"
        )
    if table:
        uses.append("the table of accuracies after training")
    if shown.held_out:
        uses.append("the pictures below")
    facts["They are used for"] = f"{_sentence('; '.join(uses) or 'nothing')}."
    if train.labels is not None:
        facts["Probes learn from"] = (
            "Labels of training images. The network saw those images"
            f"{'.' if shown.labels_used else ', not their labels.'} The regularization of the linear probe is chosen "
            "among them, not on held-out images."
        )
    facts["Chosen by held-out images"] = (
        "Nothing on this page: it shows the model that it was given. If you choose an epoch, a setting or a method by "
        "numbers of this page, you choose on these images, and the accuracy of your choice is optimistic: keep other "
        "images for the final test."
    )
    page.facts(facts)


def _label(name):
    words = words_of(name.removeprefix("val_"))
    return f"{words} (validation)" if name.startswith("val_") else words


def _signed(number):
    return f"{number:+.2f}".replace("-", "−")


def _p(p_value):
    return f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"


def _probes(history):
    return [name for name in history if name.endswith(DOWNSTREAM)]


def _listed(words):
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _sentence(words):
    return words[:1].upper() + words[1:]
