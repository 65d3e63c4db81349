"""report.html: what was trained, what it is worth, what was held out, and what it looks like, on one page."""

import dataclasses
import math

import keras
import numpy as np

from keras_ssl import evaluate
from keras_ssl.augment.draws import Draws
from keras_ssl.cli.outcome import some
from keras_ssl.evaluate import efficiency, plots
from keras_ssl.evaluate import features as feature_functions
from keras_ssl.evaluate.loss_correlation import DOWNSTREAM
from keras_ssl.evaluate.report import NARROW, WIDE, Report


@dataclasses.dataclass
class About:
    """What a run was told: `data` in words, `epochs`, `batch_size` and `seed`."""

    data: str
    epochs: int
    batch_size: int
    seed: int


def write(path, model, data, held_out, history, table, settings, alarms=()):
    """Writes the page of a run. All it needs is in the files of a run, so that it can be made again from them.

    Args:
        path: of the page.
        model: a trained `SelfSupervisedModel`.
        data: `keras_ssl.data.Data` of images, split as for the run.
        held_out: what was held out, in words: see `outcome.hold_out`.
        history: a dict of name to list by epoch, as history.json.
        table: of `efficiency.label_efficiency`, or its lists as table.json has them; None or empty for none.
        settings: the run's `About`.
        alarms: what the collapse monitor said, sentences.
    """
    shown = _Shown(model, data)
    page = Report(
        f"{type(model).__name__} on {settings.data}",
        f"{len(data.train):,} images of {'×'.join(map(str, data.train.images.shape[1:]))} · backbone "
        f"{model.backbone.name}, {model.backbone.count_params():,} parameters · {settings.epochs} epochs, batches of "
        f"{settings.batch_size} · seed {settings.seed}",
    )
    _worth(page, held_out, table)
    _training(page, model, history, settings, alarms)
    _loss_correlation(page, history)
    _held_out(page, shown, held_out, history, table)
    _views(page, shown)
    _task(page, shown)
    _map(page, shown)
    _neighbours(page, shown)
    _similarity(page, shown)
    _cross_correlation(page, shown)
    page.save(path)


class _Shown:
    """The images that pictures are made of, and their features: held-out ones, where there are some."""

    def __init__(self, model, data):
        self.model, self.data, self.range = model, data, model.value_range
        self.labels_used = model.uses_labels
        self.held_out = data.test is not None and len(data.test) >= 3
        self.kind = "held-out" if self.held_out else "training"
        self.queried = data.test if self.held_out else data.train
        self.placed, self.bank = some(self.queried, 1000), some(data.train, 5000)
        self.network = feature_functions.feature_network(model)
        self.features = self.features_of(self.placed.images)

    def features_of(self, images):
        return feature_functions.run(self.network, images)

    def names(self, split):
        if split.labels is None:
            return None
        return [self.name(label, split) for label in split.labels]

    def name(self, label, split=None):
        names = (split or self.placed).class_names
        return names[label] if names else str(label)

    def views(self, images):
        """Views by draws of a fixed seed, so that a page made again looks the same."""
        draws = Draws(self.model.seed, np.arange(len(images))).fold("report")
        return [keras.ops.convert_to_numpy(view) for view in self.model.views(images, draws=draws)]


def _worth(page, held_out, table):
    if not table:
        return
    table = {
        name: {
            column: cell if isinstance(cell, efficiency.Cell) else efficiency.Cell(cell)
            for column, cell in cells.items()
        }
        for name, cells in table.items()
    }
    header, rows = efficiency.as_rows(table)
    page.heading("What the features are worth")
    page.table(header, rows, best=len(rows) - 1)
    page.text(
        f"Accuracy on {held_out}; ± is the standard deviation over draws of labels. Features are frozen; the linear "
        "probe is a logistic regression on them, its regularisation chosen on labels of the training split.",
        note=True,
    )


def _training(page, model, history, settings, alarms):
    names = [name for name in history if not name.startswith("val_")]
    if len(model.terms) == 1:  # the loss is its only term
        names = [name for name in names if name not in model.terms]
    if not names:
        return
    page.heading("Training")
    for alarm in alarms:
        page.text(alarm)
    caption = " ".join(
        f"A loss that stays at {value:.3f} would mean: {meaning}."
        for meaning, value in model.collapse_losses(settings.batch_size).items()
    )
    probes = _probes(history)
    if probes:
        verb = "is" if len(probes) == 1 else "are"
        caption += (
            f" {_listed(probes)} {verb} measured on held-out labelled images, which is what counts; the loss is not."
        )
    page.panels({name: plots.curves(history, [name], width=2.9) for name in names}, caption.strip() or "By epoch.")


def _loss_correlation(page, history):
    found = evaluate.loss_correlation(history)
    defined = {pair: value for pair, value in found.items() if value.rho is not None}
    if not found:
        return
    page.heading("Does the loss tell what features are worth?")
    if not defined:
        count = max(value.checkpoints for value in found.values())
        page.text(
            f"This run does not say: a rank correlation needs three checkpoints whose figures differ, and there "
            f"{'is 1' if count == 1 else f'are {count}'}. Train for more epochs.",
            note=True,
        )
        return
    # The loss of held-out images comes nearest to the question; of downstream figures the first.
    figure, downstream = next((pair for pair in defined if pair[0] == "val_loss"), next(iter(defined)))
    count = defined[figure, downstream].checkpoints
    wide, narrow = (plots.loss_correlation(history, figure, downstream, width=width) for width in (WIDE, NARROW))
    page.figure(
        wide,
        "Each point is a checkpoint, the model after an epoch. A rank correlation of −1 between a loss and an accuracy "
        "means that the lower loss always had the higher accuracy; near 0, it tells nothing. Later checkpoints are "
        f"darker. {count} checkpoints of one run say little: they follow each other, and whatever rises or falls "
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
        "Spearman's rho; p is the share of all orders of the checkpoints whose rho is as far from 0. It takes "
        "checkpoints for independent, which those of one run are not."
        + (f" With {count} of them no p can be below {least:.3f}." if least > 0.001 else ""),
        note=True,
    )


def _held_out(page, shown, held_out, history, table):
    data = shown.data
    labels = "" if data.train.labels is None else f" Their labels took {'' if shown.labels_used else 'no '}part in it."
    page.heading("What was held out")
    facts = {
        "Trained on": f"{len(data.train):,} images.{labels}",
        "Held out": f"{_sentence(held_out)}.",
    }
    if data.test is None:
        facts["So"] = "The pictures below show images that were trained on."
        page.facts(facts)
        return
    uses = []
    if any(name.startswith("val_") for name in history):
        uses.append("the validation curves (without labels)")
    if "rank_me" in history:
        uses.append("the measures without labels during training, rank me and others (up to 512 of them)")
    if _probes(history):
        uses.append(f"{_listed(_probes(history))} during training (up to 1,000 of them)")
    if table:
        uses.append(f"the table after training ({'all' if len(data.test) <= 10_000 else '10,000'} of them)")
    if shown.held_out:
        uses.append("the pictures below")
    facts["They are used for"] = f"{_sentence('; '.join(uses) or 'nothing')}."
    if data.train.labels is not None:
        facts["Probes learn from"] = (
            "Labels of training images. The network saw those images"
            f"{'.' if shown.labels_used else ', not their labels.'} The regularisation of the linear probe is chosen "
            "among them, not on held-out images."
        )
    facts["Chosen by held-out images"] = (
        "Nothing in this run: the model is that of the last epoch. If you choose an epoch, a setting or a method by "
        "figures of this page, you choose on these images, and the figures of your choice are too good: keep other "
        "images for the last word."
    )
    page.facts(facts)


def _views(page, shown):
    model = shown.model
    if model.views is None:
        return
    page.heading("What the model saw")
    images = some(shown.data.train, 10).images
    made = shown.views(images)
    seen = "What changes between the views of one image is what the features learn to ignore."
    page.figure(
        plots.views(images, made, shown.range, width=WIDE),
        "Images in the first row; below them random views, as in training. "
        + (seen if len(made) > 1 else "The method makes its task of them."),
        plots.views(images[::2], [view[::2] for view in made], shown.range, width=NARROW),
    )
    images = images[[2, 7]] if len(images) > 7 else images[:1]
    page.figure(
        plots.views_of(images, shown.views, 8, shown.range, width=WIDE),
        f"{'Two images' if len(images) > 1 else 'One image'} under several draws each: a person should still see what "
        "it is in most of them, and no two should look alike.",
        plots.views_of(images, shown.views, 4, shown.range, width=NARROW),
    )


def _task(page, shown):
    model = shown.model
    if model.views is None:
        return
    images = shown.views(some(shown.queried, 4).images)[0]
    asked = model.pretext_examples(images)
    if asked is None:
        return
    page.heading("The task")
    images = images[:3]
    asked = {name: [part[:3] for part in value] if name == "pictures" else value[:3] for name, value in asked.items()}
    caption = f"What the network is shown of three {shown.kind} images. It does not know the captions, the answers."
    if "places" in asked:
        caption += " Numbers in corners are the order shown; the cells of an image are counted row by row."
    wide, narrow = (
        plots.pretext_task(images, value_range=shown.range, width=width, **asked)
        for width in (6.6 if "places" in asked else 1.65 * len(asked["pictures"]), NARROW)
    )
    page.figure(wide, caption, narrow)


def _map(page, shown):
    placed, names = shown.placed, shown.names(shown.placed)
    if len(placed) < 3:
        return
    page.heading("A map of the embedding")
    plane = plots.project(shown.features)
    wide, narrow = (
        plots.embedding_map(None, placed.images, names, shown.range, thumbnails=thumbnails, plane=plane, width=width)
        for width, thumbnails in ((WIDE, 200), (NARROW, 50))
    )
    page.figure(
        wide,
        f"{len(placed):,} {shown.kind} images by the mean of the trained backbone's features, brought to the plane by "
        "t-SNE. Neighbours on the map are neighbours in the features; distances between groups mean little."
        + (f" Colours are labels{'' if shown.labels_used else ', which training did not see'}." if names else ""),
        narrow,
    )


def _neighbours(page, shown):
    page.heading("Images and their nearest neighbours")
    asked, bank = some(shown.queried, 8), shown.bank
    features = shown.features_of(bank.images)
    query_features = shown.features_of(asked.images)
    names, query_names = shown.names(bank), shown.names(asked)
    most = 8 if shown.held_out else 9  # a training image is its own nearest neighbour
    wide, narrow = (
        plots.neighbors(
            features, bank.images, asked.images, query_features, count, shown.range, names, query_names, width
        )
        for width, count in ((WIDE, most), (NARROW, most - 4))
    )
    page.figure(
        wide,
        f"On the left {shown.kind} images; beside each the most similar of {len(bank):,} training images, with the "
        "cosine of their features." + (" A red frame marks another label, which is named." if names else ""),
        narrow,
    )


def _similarity(page, shown):
    page.heading("How similar images are to each other")
    labels = shown.placed.labels
    names = None if labels is None else {label: shown.name(label) for label in np.unique(labels)}
    wide, narrow = (
        plots.similarity_matrix(shown.features, labels, names, most=200, width=width) for width in (6.6, NARROW)
    )
    page.figure(
        wide,
        f"Cosines of the features of {min(200, len(shown.placed))} {shown.kind} images with each other"
        + (
            ", ordered by label: bright squares on the diagonal are classes that the features hold together, bright "
            "squares beside it classes that they confuse."
            if labels is not None
            else ". One colour all over would be a collapse: all images alike."
        ),
        narrow,
    )


def _cross_correlation(page, shown):
    model = shown.model
    if model.views is None or len(model.views.branches) != 2:
        return
    images = some(shown.queried, 512).images
    a, b = (_embedded(model, view) for view in shown.views(images))
    if len(a) < 2:
        return
    page.heading("What two views of an image have in common")
    wide, narrow = (plots.cross_correlation(a, b, width=width) for width in (6.6, NARROW))
    projected = "projector's outputs, on which the loss is" if hasattr(model, "project") else "backbone's features"
    page.figure(
        wide,
        f"How each dimension of the {projected}, correlates between the two views, over {len(images)} {shown.kind} "
        "images. A red diagonal: the views agree. A pale rest: no dimension repeats another. Barlow Twins trains "
        "for both; other methods only ask views to agree, each in its own way.",
        narrow,
    )


def _embedded(model, images, batch_size=256):
    """What the method compares of its views, where it says so (`project`), else the pooled features."""
    function = getattr(model, "project", model.features)
    parts = [
        keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(images[start : start + batch_size]), False))
        for start in range(0, len(images), batch_size)
    ]
    return np.concatenate(parts).astype("float32")


def _label(name):
    return f"{name.removeprefix('val_')} (validation)" if name.startswith("val_") else name


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
