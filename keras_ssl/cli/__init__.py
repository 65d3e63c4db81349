"""The command `keras-ssl`: one module per sub-command, absl flags.

A module of a command has `FLAGS`; `check(settings)`, which looks at flags, files and names without a framework, so that
a wrong call is answered at once; and `run(settings, *checked)`, which gets what `check` returned and does the work.
"""

import contextlib
import difflib
import importlib
import json
import os
import pathlib
import re
import sys
import tempfile
import traceback
import warnings

from absl.flags import Error as FlagError
from absl.flags import UnrecognizedFlagError

import keras_ssl
from keras_ssl import names
from keras_ssl.cli import words
from keras_ssl.cli.quiet import start_keras
from keras_ssl.cli.run_folder import Interrupted, RunFolder

_COMMANDS = {
    "pretrain": "train a backbone on images without labels, and evaluate its features",
    "evaluate": "evaluate a backbone's features by number of labels, or layer by layer",
    "finetune": "train a classifier from a backbone and a few labels",
    "embed": "write the features of images into a file",
    "search": "find the images most similar to an image, or near copies",
    "select": "choose the images to label first",
    "report": "rebuild a run's report",
    "methods": "list methods",
    "compare": "train several methods under one budget, side by side",
    "inspect": "describe a run, a model or a data set",
}


def main(argv=None, whole_process=False):
    """Runs `keras-ssl COMMAND [--flags]`.

    Args:
        argv: what stands behind `keras-ssl`; None for that of this process.
        whole_process: whether the process is for this command alone, so that what it does not need may be left out.

    Returns:
        The exit code: 0; 1 for a run that failed; 2 for a usage error (an unknown command or flag, or an invalid
        value); 130 after Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("help", "--help", "-h"):
        print(_overview())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"keras-ssl {keras_ssl.__version__}")
        return 0
    name, *rest = argv
    if name not in _COMMANDS:
        near = difflib.get_close_matches(name, _COMMANDS, n=1)
        hint = f'Did you mean "{near[0]}"?' if near else f"Commands: {', '.join(_COMMANDS)}."
        print(f'keras-ssl: there is no command "{name}". {hint}', file=sys.stderr)
        return 2
    command = importlib.import_module(f"keras_ssl.cli.{name}")
    if any(flag in ("--help", "-h", "--helpfull", "--help=true") for flag in rest):
        print(_help(name, command))
        return 0
    settings = command.FLAGS
    settings.unparse_flags()  # a process may run several commands, each with its own flags
    try:
        left = settings([f"keras-ssl {name}", *rest])[1:]
        positional = getattr(command, "POSITIONAL", None)
        if positional and len(left) == 1 and not left[0].startswith("-") and not settings[positional].present:
            settings[positional].parse(left.pop())
            settings[positional].using_default_value = False
        if left:
            raise FlagError(f'"{left[0]}" is not a flag: write {_meant(left[0], settings)}.')
    except UnrecognizedFlagError as error:
        _complain(f"keras-ssl {name}: {_unknown_flag(error, settings)} See keras-ssl {name} --help.")
        return 2
    except FlagError as error:
        _complain(f"keras-ssl {name}: {_plain(error).rstrip('.')}. See keras-ssl {name} --help.")
        return 2
    try:
        # With --json, standard output gets one JSON object, and everything else goes to stderr.
        with (
            _plain_warnings(name),
            contextlib.redirect_stdout(sys.stderr) if settings.json else contextlib.nullcontext(),
        ):
            checked = command.check(settings)
            start_keras(settings.verbose, whole_process)
            result = command.run(settings, *checked)
    except BrokenPipeError:
        raise  # `entry` ends quietly
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        _complain(f"keras-ssl {name}: {error}")
        return 1
    except Interrupted as message:
        print(file=sys.stderr)
        _complain(f"keras-ssl {name}: {message}")
        return 130
    except Exception as error:  # a fault of ours, or of a package below: its traceback is for a report
        _complain(f"keras-ssl {name}: {_fault(error)}")
        return 1
    except KeyboardInterrupt:
        print(f"\nkeras-ssl {name}: stopped.", file=sys.stderr)
        return 130
    if settings.json:
        print(json.dumps(result, indent=1))
    return 0


# What other programs, and papers, call what a flag sets here.
_ALSO = {
    "lr": "learning_rate",
    "rate": "learning_rate",
    "wd": "weight_decay",
    "decay": "weight_decay",
    "bs": "batch_size",
    "batch": "batch_size",
    "dataset": "data",
    "data_dir": "data",
    "input": "data",
    "arch": "backbone",
    "model": "backbone",
    "network": "backbone",
    "encoder": "backbone",
    "algorithm": "method",
    "augment": "views",
    "augmentation": "views",
    "augmentations": "views",
    "out": "output",
    "output_dir": "output",
    "out_dir": "output",
    "size": "image_size",
    "resolution": "image_size",
    "gpus": "strategy",
    "amp": "mixed_precision",
    "precision": "mixed_precision",
    "fp16": "mixed_precision",
    "bf16": "mixed_precision",
    "checkpoint": "resume",
    "continue": "resume",
    "force": "overwrite",
    "temperature": "method_args",
    "momentum": "method_args",
    "projector": "method_args",
    "strength": "views",
    "validation": "val",
    "n": "count",
    "top_k": "k",
    "threshold": "copies",
}


def _unknown_flag(error, settings):
    """A sentence about a flag that there is not, with the one that was meant if that can be told."""
    given = error.flagname.lstrip("-").replace("-", "_").lower()
    known = [flag.name for flag in settings.get_flags_for_module(_module_of(settings))]
    if given in known:
        return f'flags are written with two hyphens and underscores: --{given}, and not "--{error.flagname}".'
    if given.removeprefix("no") in known:
        return f"--{given.removeprefix('no')} takes a value: leave it out for none."
    also = _ALSO.get(given)
    near = [also] if also in known else difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    meant = f"--{near[0]}" if near else None
    if near == ["method_args"]:
        meant = f"--method_args={given}=…"
    if near == ["views"] and given == "strength":
        meant = "--views=simclr,strength=…"
    hint = f'Did you mean "{meant}"?' if meant else f"Known: {', '.join('--' + name for name in known)}."
    return f'there is no flag "--{error.flagname}". {hint}'


def _module_of(settings):
    """The module of a command's flags."""
    return next(iter(settings.flags_by_module_dict()))


def _plain(error):
    """What is wrong with a flag's value, without Python's words for it."""
    said = re.sub(r"invalid literal for int\(\) with base 10: .*", "it must be a whole number", str(error))
    return re.sub(r"could not convert string to float: .*", "it must be a number", said)


def _meant(word, settings):
    """The flag that a word without one is most likely the value of."""
    if word.startswith("-"):
        return "flags as --name=value"
    known = {name.lower() for name in names.METHODS}
    is_run = RunFolder(word).settings_file.exists()
    kinds = [
        ("run", is_run),
        ("resume", is_run),
        ("method", word.lower() in known),
        ("methods", all(part.lower() in known for part in word.split(","))),
        ("query", "query" in settings and pathlib.Path(word).is_file()),
        ("data", True),
    ]
    return next((f"--{flag}={word}" for flag, fits in kinds if fits and flag in settings), "flags as --name=value")


def _complain(text):
    """A sentence on stderr: on a terminal in lines that fit, but for commands and paths, which are indented."""
    lines = [
        line if line.startswith(" ") or not sys.stderr.isatty() else words.wrapped(line) for line in text.split("\n")
    ]
    print("\n".join(lines), file=sys.stderr)


def _fault(error):
    """A sentence about an exception that no one expected; its traceback is kept in a file."""
    with tempfile.NamedTemporaryFile("w", prefix="keras-ssl-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write(f"keras_ssl {keras_ssl.__version__}, Python {sys.version}\n{' '.join(sys.argv)}\n\n")
        traceback.print_exception(error, file=file)
    lines = str(error).strip().splitlines() or ["it says no more"]
    return (
        f"{type(error).__name__}: {lines[0]} This is not expected. The traceback is in {file.name}: please report it, "
        "with the command."
    )


@contextlib.contextmanager
def _plain_warnings(name):
    """Warnings for the user as sentences, without the line of code that gave them."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message, category, *where, **how):
            if category is UserWarning:
                print(file=sys.stderr)
                _complain(f"keras-ssl {name}: {message}")
            else:
                shown(message, category, *where, **how)

        warnings.showwarning = show
        yield


def _overview():
    width = max(map(len, _COMMANDS))
    lines = [words.wrapped(what, " " * (width + 4), f"  {name.ljust(width)}  ") for name, what in _COMMANDS.items()]
    more = "keras-ssl COMMAND --help shows the flags of a command, with examples; keras-ssl --version the version."
    return "\n".join(
        ["Self-supervised learning for Keras 3.", "", "usage: keras-ssl COMMAND [--flag=value …]", "", *lines, ""]
        + [words.wrapped(more)]
    )


def _help(name, command):
    lines = [words.reflowed(command.__doc__), "", f"usage: keras-ssl {name} [--flag=value …]", ""]
    for flag in command.FLAGS.get_flags_for_module(command.__name__):
        default = "" if flag.default is None else f" (default:\xa0{flag.default_as_str.strip(chr(39))})"
        lines += [f"  --{flag.name}", words.wrapped(f"{flag.help}{default}", " " * 6).replace("\xa0", " ")]
    return "\n".join(lines)


def entry():
    """The command as a process. It ends quietly when nobody reads what it prints any more, as in `| head`."""
    try:
        code = main(whole_process=True)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python writes out what is left when it ends, and would complain of the pipe again.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.dup2(nowhere, sys.stderr.fileno())
        code = 1
    sys.exit(code)
