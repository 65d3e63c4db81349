"""How a model was trained: what the page says of it, so that the run can be repeated from the page."""

import dataclasses
import datetime

import keras

from keras_ssl import provenance
from keras_ssl.model import SelfSupervisedModel
from keras_ssl.saving import init_arguments

# Of a layer's settings, those that every layer has.
_PLAIN = ("name", "trainable", "dtype", "value_range", "seed")


@dataclasses.dataclass
class RunInfo:
    """How a model was trained; the page leaves out what is None.

    Attributes:
        data: the name of the images, in words.
        epochs, batch_size: of the run; the page says with `batch_size` at which loss nothing is learned.
        seed: of the run.
        command: the line that repeats the run.
        settings: a dict of what was set, in words and numbers; a dict in it is a group under its own name.
        versions: a dict of package to version; "backend" names the backend.
        machine: in words, such as "2 CPU cores".
        started, finished: the times, in ISO 8601, as `datetime.datetime.isoformat` writes them.
        resumed: whether the run was interrupted in between.
        references: what the probes of the curves find before training, dashed lines beside them: a dict of curve to a
            dict of words to number, such as `{"knn_accuracy": {"raw pixels": 0.74, "untrained": 0.70}}`. Measure them
            with the probe itself: other images or another probe give numbers that do not compare. A group of that name
            in `settings`, where `keras-ssl pretrain` keeps it, is taken for it.
    """

    data: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    seed: int | None = None
    command: str | None = None
    settings: dict | None = None
    versions: dict | None = None
    machine: str | None = None
    started: str | None = None
    finished: str | None = None
    resumed: bool = False
    references: dict | None = None

    def __post_init__(self):
        if self.references is None and self.settings and "references" in self.settings:
            rest = dict(self.settings)
            self.references = rest.pop("references")
            self.settings = rest


def of_model(model, history):
    """The `RunInfo` of a model that was just trained in this process."""
    epochs = max(map(len, history.values()), default=None) if history else None
    return RunInfo(
        epochs=epochs,
        batch_size=model.global_batch_size,
        seed=model.seed,
        versions=provenance.versions(),
        machine=provenance.machine(),
    )


def repeat(page, model, run):
    """The last part of a page: command, times, machine, versions, and all settings."""
    page.heading("How to repeat this run")
    versions = run.versions or {}
    if run.command:
        backend = versions.get("backend", "tensorflow")
        page.code(run.command)
        page.text(
            "The same command, data, versions and machine give the same run, in a run folder of its own."
            + (f" It ran with KERAS_BACKEND={backend}." if backend != "tensorflow" else ""),
            note=True,
        )
    facts = {
        "Date": _times(run),
        "Machine": run.machine,
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    page.facts({title: text for title, text in facts.items() if text})
    rows = [[f"{group}: {name}" if group else name, value] for group, name, value in _flat(run.settings or {})]
    rows += [[f"model: {name}", value] for name, value in _of_method(model).items()]
    rows = [row for row in rows if row[1] not in ("", "()", "None")]
    page.folded("All settings", ["setting", "value"], rows)


def _times(run):
    """When a run began and how long it took."""
    if not run.started:
        return None
    began = datetime.datetime.fromisoformat(run.started)
    words = f"{began:%Y-%m-%d %H:%M} {began.tzname() or ''}".strip()
    if not run.finished:
        return words
    seconds = (datetime.datetime.fromisoformat(run.finished) - began).total_seconds()
    took = _duration(seconds)
    return f"{words}, {took} to its end, with an interruption" if run.resumed else f"{words}, {took} of training"


def _duration(seconds):
    hours, minutes, seconds = int(seconds) // 3600, int(seconds) // 60 % 60, int(seconds) % 60
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def _flat(settings):
    """`(group, name, value)` of each setting; groups come last."""
    for name, value in settings.items():
        if not isinstance(value, dict):
            yield "", name, _text(value)
    for group, part in settings.items():
        if isinstance(part, dict):
            for name, value in part.items():
                inner = value if isinstance(value, dict) else None
                if inner is None:
                    yield group, name, _text(value)
                else:
                    for key, one in inner.items():
                        yield group, f"{name} {key}", _text(one)


def _of_method(model):
    """What a method was made with, by the names of its arguments; views layer by layer, and the optimizer."""
    found = {}
    for name in init_arguments(type(model), SelfSupervisedModel):
        value = getattr(model, name, None)
        if name == "views":
            found |= _of_views(value)
        elif name == "backbone":
            found[name] = f"{value.name}, {value.count_params():,} parameters"
        else:
            found[name] = value.name if isinstance(value, keras.layers.Layer) else _text(value)
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        found["optimizer"] = _described(optimizer, ("name", "learning_rate"))
    return found


def _of_views(views):
    branches = [", ".join(map(_described, branch)) for branch in getattr(views, "branches", [])]
    if len(set(branches)) == 1:
        return {f"each of {len(branches)} views" if len(branches) > 1 else "view": branches[0]}
    return {f"view {number}": branch for number, branch in enumerate(branches, 1)}


def _described(made, plain=_PLAIN):
    """A layer or an optimizer with its settings, such as "RandomGrayscale(probability=0.2)"."""
    config = {name: value for name, value in made.get_config().items() if name not in plain and value is not None}
    inside = [f"{name}={_text(value)}" for name, value in config.items() if not isinstance(value, dict)]
    return f"{type(made).__name__}({', '.join(inside)})"


def _text(value):
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return f"({', '.join(map(_text, value))})"
    return getattr(value, "__name__", None) or str(value)
