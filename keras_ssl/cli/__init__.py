"""The command `keras-ssl`: one module a sub-command, absl flags."""

import difflib
import importlib
import sys

from absl import flags

_COMMANDS = {"pretrain": "train a backbone on images without labels, and see what it is worth"}


def main(argv=None):
    """Runs `keras-ssl COMMAND [--flags]`; returns the exit code: 0, 1 for a run that failed, 2 for a wrong call."""
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
    command.FLAGS.unparse_flags()  # a process may run several commands, each with its own flags
    try:
        left = command.FLAGS([f"keras-ssl {name}", *rest])[1:]
        if left:
            raise flags.Error(f'"{left[0]}" is no flag: flags are written --name=value.')
    except flags.Error as error:
        print(f"keras-ssl {name}: {error} See keras-ssl {name} --help.", file=sys.stderr)
        return 2
    try:
        return command.run(command.FLAGS) or 0
    except (ValueError, TypeError, FileNotFoundError, FileExistsError) as error:
        print(f"keras-ssl {name}: {error}", file=sys.stderr)
        return 1


def _overview():
    width = max(map(len, _COMMANDS))
    lines = [f"  {name.ljust(width)}  {what}" for name, what in _COMMANDS.items()]
    return "\n".join(
        ["Self-supervised learning for Keras 3.", "", "usage: keras-ssl COMMAND [--flag=value …]", "", *lines, ""]
        + ["keras-ssl COMMAND --help tells the flags of a command."]
    )


def _help(name, command):
    lines = [command.__doc__.strip(), "", f"usage: keras-ssl {name} [--flag=value …]", ""]
    for flag in command.FLAGS.get_flags_for_module(command.__name__):
        default = "" if flag.default is None else f" (default: {flag.default_as_str.strip(chr(39))})"
        lines += [f"  --{flag.name}", f"      {flag.help}{default}"]
    return "\n".join(lines)


def entry():
    sys.exit(main())
