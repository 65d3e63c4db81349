"""Sentences and tables for a terminal, none wider than it."""

import shutil
import textwrap

MOST = 100  # columns; longer lines are hard to read


def columns():
    """How wide a line may be: of the terminal, or of COLUMNS, and 80 where there is neither."""
    return max(40, min(MOST, shutil.get_terminal_size((80, 24)).columns))


def wrapped(text, indent="", first=None):
    """A sentence in lines that fit; a word that is longer than a line, such as a path, stays whole."""
    return textwrap.fill(
        text,
        columns(),
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def reflowed(text):
    """A docstring in lines that fit: paragraphs as sentences, and in indented lines commands, which can be copied."""
    lines = []
    for block in text.strip().split("\n\n"):
        if block.startswith("    "):
            for line in block.splitlines():
                program, name, *flags = line.split()
                lines.append(command(f"{program} {name}", *flags, indent="    "))
        else:
            lines.append(wrapped(block))
        lines.append("")
    return "\n".join(lines[:-1])


def duration(seconds):
    """A time in words: `40 s`, `12 min`, `2 h 5 min`, `3 days 4 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} days {hours % 24} h"


def recipe(chosen):
    """The lines of a recipe: each value with its source, the source below the value where both don't fit a line."""
    entries = chosen.entries()
    width = max(len(name) for name, _, _ in entries)
    lines = [wrapped(f'recipe "{chosen.source}": {chosen.why}', "  ", "")]
    for name, value, source in entries:
        start = f"  {name.ljust(width)}  "
        whole = f"{start}{value}  [{source}]"
        if len(whole) <= columns():
            lines.append(whole)
        else:
            lines += [wrapped(value, " " * len(start), start), wrapped(f"[{source}]", " " * len(start))]
    return "\n".join([*lines, *(wrapped(f"Note: {note}", "    ", "  ") for note in chosen.notes)])


def table(header, rows):
    """A table as `evaluate.efficiency.as_rows` gives it: one block, or where that is too wide one for each probe.

    Args:
        header: `["", "linear\\n10 per class", …]`.
        rows: of strings, the row's name first.
    """
    from keras_ssl.evaluate.efficiency import as_text

    whole = as_text(header, rows)
    if max(map(len, whole.splitlines())) <= columns():
        return whole
    probes = list(dict.fromkeys(cell.split("\n")[0] for cell in header[1:]))
    blocks = []
    for probe in probes:
        places = [place for place, cell in enumerate(header) if place and cell.split("\n")[0] == probe]
        head = [probe, *(header[place].partition("\n")[2] for place in places)]
        blocks.append(as_text(head, [[row[0], *(row[place] for place in places)] for row in rows]))
    return "\n\n".join(blocks)


def command(*parts, indent="  "):
    """A command in lines that fit, which can be copied as they are."""
    line, lines = indent + parts[0], []
    for part in parts[1:]:
        if len(line) + 1 + len(part) + 2 > columns() and line.strip():
            lines.append(line + " \\")
            line = indent + "    " + part
        else:
            line += " " + part
    return "\n".join([*lines, line])
