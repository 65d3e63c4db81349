"""What a run's page says of how the run was made: the command, its settings, versions, machine and times."""

import datetime
import shlex

from keras_ssl.files import write_json

# A repeated run has an output of its own; the others say how a run is shown or continued.
_OWN = ("json", "verbose", "output", "name", "overwrite", "resume")
_NOTED = ("started", "finished", "resumed", "training_seconds", "versions", "machine", "command", "used", "held_out")
_NOTED += ("training_images",)


def command_line(command, settings):
    """The command that repeats a run, in the run folder of its own: each flag that is not at its default.

    Args:
        command: "pretrain".
        settings: its flags.
    """
    own = [flag for flag in settings.get_flags_for_module(f"keras_ssl.cli.{command}") if flag.name not in _OWN]
    given = [flag for flag in own if flag.value is not None and flag.value != flag.default]
    given = [flag for flag in given if flag.name != "backbone" or flag.present]  # else it follows from the method
    values = {flag.name: _written(flag) for flag in given}
    return shlex.join(["keras-ssl", command, *(f"--{name}{value}" for name, value in values.items())])


def _written(flag):
    if flag.boolean:
        return "" if flag.value else "=false"
    value = flag.value
    return f"={','.join(map(str, value)) if isinstance(value, (list, tuple)) else value}"


def now():
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def note_end(folder, resumed):
    """Notes in the settings of a run when it ended, and whether it was interrupted before."""
    write_json(folder.settings_file, {**folder.settings, "finished": now(), "resumed": bool(resumed)})


def add_time(folder, seconds):
    """Notes how long a run has trained, in all its parts; its other settings stay as they were written."""
    kept = folder.settings
    trained = round(kept.get("training_seconds", 0.0) + seconds, 1)
    write_json(folder.settings_file, {**kept, "training_seconds": trained})


def run_info(folder, data=None):
    """`keras_ssl.report.RunInfo` of a run folder.

    Args:
        data: where the images are now; None for where they were.
    """
    from keras_ssl import report

    about = folder.settings
    used = dict(about["used"])
    sources = used.pop("sources", {})
    recipe = {
        name: f"{value} [{sources[said]}]" if (said := name.replace("_", " ")) in sources else value
        for name, value in used.items()
    }
    flags = {name: value for name, value in about.items() if name not in (*_NOTED, *_OWN) and value is not None}
    return report.RunInfo(
        data or about["data"],
        about["used"]["epochs"],
        about["batch_size"],
        about["seed"],
        command=about.get("command"),
        settings={**flags, "recipe": recipe},
        versions=about.get("versions"),
        machine=about.get("machine"),
        started=about.get("started"),
        finished=about.get("finished"),
        resumed=about.get("resumed", False),
    )
