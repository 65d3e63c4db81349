"""The command `keras-ssl`: one module a sub-command, absl flags."""

import contextlib
import difflib
import importlib
import json
import sys
import warnings

from absl import flags

_COMMANDS = {
    "pretrain": "train a backbone on images without labels, and see what it is worth",
    "evaluate": "what a backbone's features are worth, by number of labels or by layer",
    "finetune": "a classifier from a backbone and a few labels",
    "embed": "the features of images, as a file",
    "search": "the images most like an image, or near copies",
    "report": "the page of pictures of a run, anew",
    "methods": "what there is to train with",
    "compare": "several methods under one budget, side by side",
    "inspect": "what a run, a model or a data set is made of",
}


class Interrupted(Exception):
    """Ctrl-C, with what to say: what is kept, and how to go on."""


def main(argv=None):
    """Runs `keras-ssl COMMAND [--flags]`.

    Returns:
        The exit code: 0; 1 for a run that failed; 2 for a wrong call; 130 for one that was stopped by Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("help", "--help", "-h"):
        print(_overview())
        return 0 if argv else 2
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
        if left:
            raise flags.Error(f'"{left[0]}" is no flag: flags are written --name=value.')
    except flags.Error as error:
        print(f"keras-ssl {name}: {error} See keras-ssl {name} --help.", file=sys.stderr)
        return 2
    from keras_ssl import distribute

    distribute.quiet()
    try:
        # For machines: one JSON object on the standard output, and all that is said on the way on the other.
        with (
            _plain_warnings(name),
            contextlib.redirect_stdout(sys.stderr) if settings.json else contextlib.nullcontext(),
        ):
            result = command.run(settings)
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        print(f"keras-ssl {name}: {error}", file=sys.stderr)
        return 1
    except Interrupted as said:
        print(f"\nkeras-ssl {name}: {said}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print(f"\nkeras-ssl {name}: stopped.", file=sys.stderr)
        return 130
    if settings.json:
        print(json.dumps(result, indent=1))
    return 0


@contextlib.contextmanager
def _plain_warnings(name):
    """Warnings for the user as sentences, without the line of code that gave them."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message, category, *where, **how):
            if category is UserWarning:
                print(f"\nkeras-ssl {name}: {message}", file=sys.stderr)
            else:
                shown(message, category, *where, **how)

        warnings.showwarning = show
        yield


def _overview():
    width = max(map(len, _COMMANDS))
    lines = [f"  {name.ljust(width)}  {what}" for name, what in _COMMANDS.items()]
    return "\n".join(
        ["Self-supervised learning for Keras 3.", "", "usage: keras-ssl COMMAND [--flag=value …]", "", *lines, ""]
        + ["keras-ssl COMMAND --help tells the flags of a command, with examples."]
    )


def _help(name, command):
    lines = [command.__doc__.strip(), "", f"usage: keras-ssl {name} [--flag=value …]", ""]
    for flag in command.FLAGS.get_flags_for_module(command.__name__):
        default = "" if flag.default is None else f" (default: {flag.default_as_str.strip(chr(39))})"
        lines += [f"  --{flag.name}", f"      {flag.help}{default}"]
    return "\n".join(lines)


def entry():
    sys.exit(main())
