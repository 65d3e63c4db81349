"""What a trained run is worth and what to do next: the table, the verdict, the page, and the next commands."""

import shlex

from keras_ssl import report
from keras_ssl.cli import experiment, run_info, words
from keras_ssl.cli.choices import method_label
from keras_ssl.cli.flags import FOLDER_FLAGS
from keras_ssl.cli.run_folder import Interrupted
from keras_ssl.data.split import rows_known_to_train
from keras_ssl.evaluate.verdict import verdict
from keras_ssl.files import read_json, write_json


def make_table(folder, untrained, trained, data, held_out, settings):
    """Evaluates, prints the table with a verdict, and keeps it in the run folder.

    Args:
        settings: of the run: `backbone`, `seed`.

    Returns:
        The table; None without labels.
    """
    before = "backbone before" if settings.backbone.endswith(".keras") else "untrained backbone"
    try:
        table = experiment.table(data, {before: untrained, "trained backbone": trained}, settings.seed)
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped in the table; the trained model is kept:\n  {folder.model}\n  {folder.backbone}\n"
            f"The table and the page are made by\n  keras-ssl report --run={folder}"
        ) from None
    if table:
        write_json(folder.table, experiment.table_to_json(table))
    experiment.print_table(table, held_out, data.train)
    said = verdict_on(table, data)
    if said:
        print("\n" + words.wrapped(f"Verdict: {said.text}"))
    return table


def verdict_on(table, data):
    """The `Verdict` on a table; None without one."""
    if not table:
        return None
    classes, judged = len(data.train.labels_per_class()), len(rows_known_to_train(data.test, data.train))
    return verdict(table, trained="trained backbone", classes=classes, held_out=judged)


def draw_page(folder, model, data, table, held_out, path=None, data_name=None):
    """Draws the page of a run from its files; its path.

    Args:
        path: of the page; None for that of the folder.
        data_name: where the images are now; None for where they were.
    """
    print("\ndrawing the page: a map of the images, neighbors, views")
    try:
        return report.write(
            path or folder.report,
            model,
            data,
            history=read_json(folder.history),
            table=table,
            run=run_info.run_info(folder, data_name),
            held_out=held_out,
            alarms=read_json(folder.alarms) if folder.alarms.exists() else (),
        )
    except KeyboardInterrupt:
        have = "the trained model and the table are" if folder.table.exists() else "the trained model is"
        raise Interrupted(
            f"stopped in the page; {have} kept in\n  {folder}\nThe page is drawn by\n  keras-ssl report --run={folder}"
        ) from None


def next_commands(folder, data, settings, said=None):
    """The three commands that one will most likely want, as lists of words: with this run's name, ready to be run.

    Args:
        said: the `Verdict`; None where there is none. Where training made nothing better, more of it comes first; where
            it made it a little better, last.
    """
    run = f"--run={_quoted(folder)}"
    commands = []
    if said and said.kind in ("no better", "worse"):
        commands.append(_longer(folder))
    labels = data.train.labels is not None
    if labels:
        # The rarest class decides how many labels a class may have: where it has few, all labels are used.
        enough = data.train.labels_per_class().min() >= _FEW
        commands.append(["keras-ssl finetune", run, *([f"--per_class={_FEW}"] if enough else [])])
    else:
        commands.append(["keras-ssl select", run, f"--count={min(100, len(data.train))}"])
    paths = (data.test or data.train).paths
    if paths is not None:
        commands.append(["keras-ssl search", run, f"--query={_quoted(paths[0])}", "--output=found.png"])
    else:
        commands.append(["keras-ssl embed", run, "--output=features.npz"])
    if said and said.kind == "a little":
        commands.append(_longer(folder))
    elif labels and ":" not in settings.method:
        # One's own beside two that are cheap and unlike each other.
        others = [name for name in (method_label(settings.method), "simclr", "vicreg", "byol") if name != "distill"]
        same = [
            f"--{name}={_quoted(settings[name].value)}"
            for name in _SAME
            if settings[name].value not in (settings[name].default, _PLAIN.get(name))
        ]
        methods = ",".join(list(dict.fromkeys(others))[:2])
        commands.append(
            ["keras-ssl compare", f"--methods={methods}", *same, f"--output={_quoted(f'{folder}-compared')}"]
        )
    else:
        commands.append(["keras-ssl report", run, "--output=again.html"])
    return commands[:3]


_FEW = 10  # labels per class to begin with
_PLAIN = {"backbone": "resnet8"}  # what most methods get by themselves
_SAME = ("data", *FOLDER_FLAGS, "backbone", "batch_size")


def _longer(folder):
    """The same run with three times as many epochs."""
    about = folder.settings
    words_of = [word for word in shlex.split(about["command"]) if not word.startswith("--epochs=")]
    program = " ".join(words_of[:2])
    return [program, *map(_quoted, words_of[2:]), f"--epochs={3 * about['used']['epochs']}"]


def print_next(commands):
    print("\nnext, for example:")
    for command in commands:
        print(words.command(*command))


def _quoted(value):
    """As a shell takes it."""
    return shlex.quote(str(value))
