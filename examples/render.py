"""Runs tutorials, and writes each as a page with its output and pictures, and as a notebook.

python examples/render.py                          lists them
KERAS_BACKEND=torch python examples/render.py NAME…   or --all: runs, writes docs/tutorials/NAME.md and its images
python examples/render.py NAME… --prose             rewrites the page around the output it has: the code is the same
python examples/render.py NAME… --set EPOCHS=1      a trial with another constant: prints, writes nothing

A tutorial is a script in keras.io's form: a docstring of `Title: …` and `Description: …`, then code, with Markdown
between it in strings that stand alone. Its code is run in a new process, block by block in one namespace. Below a block
stand what it printed and its figures: those open in pyplot, and the one that its last line gives, as in a notebook.
"""

import argparse
import ast
import contextlib
import importlib.metadata
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import textwrap
import time
import types
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAMPLES, PAGES = ROOT / "examples", ROOT / "docs" / "tutorials"
IMAGES, NOTEBOOKS = PAGES / "images", EXAMPLES / "notebooks"
WIDTH = 80  # characters of a line of output
DPI = 110
MOST_BYTES = 150_000  # of a picture
BEGIN, END = "<!-- output -->", "<!-- end of output -->"
REPOSITORY_PAGES = "../../docs/"  # from a notebook


# Reading a script.


class Block(NamedTuple):
    """A piece of a tutorial: `kind` is "markdown" or "code"; `line` is its first in the script."""

    kind: str
    text: str
    line: int


class Tutorial(NamedTuple):
    name: str
    title: str
    description: str
    blocks: list[Block]

    @property
    def code(self):
        return [block.text for block in self.blocks if block.kind == "code"]


def read(path):
    """Reads a script as a `Tutorial`; None where it is none: where its docstring does not begin with a title."""
    source = pathlib.Path(path).read_text(encoding="utf-8")
    tree = ast.parse(source)
    header = re.match(r"\s*Title: *(.+)\n+Description: *((?:.|\n)+)", ast.get_docstring(tree) or "")
    if header is None:
        return None
    lines, blocks = source.splitlines(), []

    def add_code(first, last):
        """Lines `first` to `last`, from 1, without the empty ones around them."""
        while first <= last and not lines[first - 1].strip():
            first += 1
        while last >= first and not lines[last - 1].strip():
            last -= 1
        if first <= last:
            blocks.append(Block("code", "\n".join(lines[first - 1 : last]), first))

    reached = tree.body[0].end_lineno
    for node in tree.body[1:]:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            add_code(reached + 1, node.lineno - 1)
            blocks.append(Block("markdown", textwrap.dedent(node.value.value).strip(), node.lineno))
            reached = node.end_lineno
    add_code(reached + 1, len(lines))
    description = " ".join(header[2].split())
    return Tutorial(pathlib.Path(path).stem, header[1].strip(), description, blocks)


def tutorials():
    """All tutorials of the folder, by name."""
    found = [read(path) for path in sorted(EXAMPLES.glob("*.py"))]
    return {tutorial.name: tutorial for tutorial in found if tutorial is not None}


def with_constants(tutorial, constants):
    """The tutorial with other values of its constants, lines such as `EPOCHS = 8`: a dict of name to Python text."""
    blocks = tutorial.blocks
    for name, value in constants.items():
        pattern = rf"(?m)^{re.escape(name)} = .*$"
        if sum(len(re.findall(pattern, block.text)) for block in blocks if block.kind == "code") != 1:
            raise ValueError(f"{tutorial.name}: there is no one line `{name} = …` to set.")
        blocks = [
            block._replace(text=re.sub(pattern, f"{name} = {value}", block.text)) if block.kind == "code" else block
            for block in blocks
        ]
    return tutorial._replace(blocks=blocks)


# Running it, in a process of its own.


class Output(NamedTuple):
    """What a block printed, and the names and words of the pictures that it drew."""

    text: str
    pictures: list


def run(tutorial, folder):
    """Runs all code of a tutorial here; pictures go to `folder`. Returns an `Output` for each block of code."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.show = lambda *args, **kwargs: None  # a block's figures are taken when it ends
    path = EXAMPLES / f"{tutorial.name}.py"
    module = types.ModuleType("__main__")
    module.__file__ = str(path)
    sys.modules["__main__"] = module
    outputs, drawn = [], 0
    for number, block in enumerate((block for block in tutorial.blocks if block.kind == "code"), 1):
        start, printed = time.process_time(), io.StringIO()
        with contextlib.redirect_stdout(printed):
            last = _execute(block, str(path), module.__dict__)
        figures = [pyplot.figure(figure) for figure in pyplot.get_fignums()]
        if isinstance(last, matplotlib.figure.Figure) and last not in figures:
            figures.append(last)
        pictures = []
        for figure in figures:
            drawn += 1
            pictures.append((f"{tutorial.name}_{drawn}.png", _words(figure, tutorial, drawn)))
            _save(figure, folder / pictures[-1][0])
        pyplot.close("all")
        outputs.append(Output(clean(printed.getvalue()), pictures))
        spent = time.process_time() - start
        print(f"{tutorial.name}: block {number} of {len(tutorial.code)}: {spent:.1f} s", file=sys.stderr)
        print(textwrap.indent(outputs[-1].text, "  | "), file=sys.stderr, flush=True)
    return outputs


def _execute(block, path, namespace):
    """Runs a block, its lines counted as in the script; returns the value of its last line where that has one."""
    tree = ast.parse("\n" * (block.line - 1) + block.text, path)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, path, "exec"), namespace)
    return None if last is None else eval(compile(ast.Expression(last.value), path, "eval"), namespace)


def _words(figure, tutorial, number):
    """What a picture shows, for who cannot see it: the figure's title, or the first title in it."""
    titles = [figure.get_suptitle(), *(axes.get_title(loc) for axes in figure.axes for loc in ("center", "left"))]
    title = next((title for title in titles if title), f"figure {number}")
    return re.sub(r"[\[\]\s]+", " ", f"{tutorial.title}: {title}").strip()


def _save(figure, path):
    """Saves a figure in few bytes: with 256 colors and smaller, where it would have too many."""
    from PIL import Image

    for dpi, colors in ((DPI, None), (DPI, 256), (85, 256), (65, 256)):
        memory = io.BytesIO()
        figure.savefig(memory, dpi=dpi, format="png", facecolor="white")
        picture = Image.open(memory).convert("RGB")
        if colors:
            picture = _quantized(picture, colors)
        picture.save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            return
    raise ValueError(
        f"{path.name} has {path.stat().st_size:,} bytes, and {MOST_BYTES:,} are the most: draw less in it."
    )


def _quantized(picture, colors):
    """A picture with a palette: of two ways to choose it the one whose worst pixel is nearer. The median cut keeps
    photographs, and makes steps of a color bar, which has few pixels."""
    import numpy as np
    from PIL import Image

    ways = (Image.Quantize.MEDIANCUT, Image.Quantize.MAXCOVERAGE)
    made = [picture.quantize(colors, method=way, dither=Image.Dither.NONE) for way in ways]
    exact = np.asarray(picture, "int16")
    return min(made, key=lambda one: np.abs(np.asarray(one.convert("RGB"), "int16") - exact).max())


def clean(text):
    """Printed text as a page shows it: no progress bars, no control characters, no line wider than `WIDTH`."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    kept = []
    for line in text.replace("\r\n", "\n").split("\n"):
        line = line.rstrip("\r").rpartition("\r")[2]  # what a terminal would show last
        while "\x08" in line:  # as a terminal steps back over what it wrote
            line = re.sub(r"[^\x08]\x08|^\x08", "", line)
        if not re.match(r"\s*\d+/\d+ +(\S*[━=>.]|.*step)", line):
            kept += textwrap.wrap(line, WIDTH, subsequent_indent="    ", replace_whitespace=False) or [""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in kept)).strip("\n")


# Writing it.


def facts(seconds):
    """What a page says of the run that made it."""
    import keras

    import keras_ssl

    backend = keras.backend.backend()
    versions = {name: importlib.metadata.version(name) for name in ("keras", backend)}
    versions["keras_ssl"] = keras_ssl.__version__
    return {
        "backend": backend,
        "seconds": round(seconds),
        "versions": ", ".join(f"{name} {version.partition('+')[0]}" for name, version in versions.items()),
    }


def page(tutorial, outputs, made):
    """The page: Markdown. `outputs` are text, one for each block of code; `made` is the line on how it was made."""
    parts, outputs = [f"# {tutorial.title}", tutorial.description, made], iter(outputs)
    for block in tutorial.blocks:
        if block.kind == "markdown":
            parts.append(block.text)
            continue
        parts.append(f"```python\n{block.text}\n```")
        if shown := next(outputs):
            parts.append(f"{BEGIN}\n\n{shown}\n\n{END}")
    return "\n\n".join(parts) + "\n"


def shown(output):
    """An `Output` as Markdown; an empty string for none."""
    parts = [f"```text\n{output.text}\n```"] if output.text else []
    return "\n\n".join([*parts, *(f"![{words}](images/{name})" for name, words in output.pictures)])


def made_line(tutorial, known):
    return (
        f"*This page is the output of `KERAS_BACKEND={known['backend']} python examples/render.py {tutorial.name}`: "
        f"{known['seconds']} seconds of processor time, imports included ({known['versions']}). "
        f"The script is `examples/{tutorial.name}.py`, the notebook `examples/notebooks/{tutorial.name}.ipynb`.*"
    )


def taken(text):
    """`(code, outputs, made)` of a page as it stands: what `page` put into it, for `rewrite`."""
    code, outputs = [], []
    for match in re.finditer(rf"(?s)```python\n(.*?)\n```\n(?:\n{BEGIN}\n\n(.*?)\n\n{END})?", text):
        code.append(match[1])
        outputs.append(match[2] or "")
    return code, outputs, re.search(r"(?m)^\*This page is the output of .*\*$", text)[0]


def notebook(tutorial):
    """The notebook, a dict as nbformat 4.5 has it; without outputs, for the page shows them."""
    first = Block("markdown", f"# {tutorial.title}\n\n{tutorial.description}", 0)
    cells = []
    for number, block in enumerate([first, *tutorial.blocks], 1):
        text = block.text
        if block.kind == "markdown":
            text = re.sub(r"\]\(\.\./(?=[\w/-]+\.md)", f"]({REPOSITORY_PAGES}", text)
            text = re.sub(r"\]\((?=[\w-]+\.md)", f"]({REPOSITORY_PAGES}tutorials/", text)
        cell = {"cell_type": block.kind, "id": f"cell-{number}", "metadata": {}, "source": text.splitlines(True)}
        cells.append(cell | ({"execution_count": None, "outputs": []} if block.kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def write_notebook(tutorial):
    NOTEBOOKS.mkdir(exist_ok=True)
    text = json.dumps(notebook(tutorial), indent=1, ensure_ascii=False) + "\n"
    (NOTEBOOKS / f"{tutorial.name}.ipynb").write_text(text, encoding="utf-8")


def index(text):
    """The page that lists them, with a row for each that has a page: in the order of its rows, new ones at the end."""
    rows = {}
    for name, tutorial in tutorials().items():
        path = PAGES / f"{name}.md"
        if path.exists():
            seconds = re.search(r"(\d+) seconds of processor time", taken(path.read_text(encoding="utf-8"))[2])[1]
            rows[name] = f"| [{tutorial.title}]({name}.md) | {seconds} | {tutorial.description} |\n"
    order = [name for name in re.findall(r"(?m)^\| \[.*?\]\((\w+)\.md\)", text) if name in rows]
    order += [name for name in rows if name not in order]
    table = "| tutorial | seconds | what it shows |\n|---|---|---|\n" + "".join(rows[name] for name in order)
    return re.sub(r"(?m)^\| tutorial \|.*\n(\|.*\n)*", lambda _: table, text)


def write_index():
    path = PAGES / "index.md"
    path.write_text(index(path.read_text(encoding="utf-8")), encoding="utf-8")


def rewrite(tutorial):
    """Writes page and notebook around the output that the page has."""
    path = PAGES / f"{tutorial.name}.md"
    code, outputs, made = taken(path.read_text(encoding="utf-8"))
    if code != tutorial.code:
        raise ValueError(f"{tutorial.name}: its code is not that of its page any more: run it, without --prose.")
    path.write_text(page(tutorial, outputs, made), encoding="utf-8")
    write_notebook(tutorial)


def render(tutorial, constants=None):
    """Runs a tutorial in a new process, in an empty folder, and writes it; a trial with `constants` writes nothing."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        (folder / "work").mkdir()
        settings = [f"--set={name}={value}" for name, value in (constants or {}).items()]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        subprocess.run(
            [sys.executable, __file__, tutorial.name, f"--child={folder}", *settings],
            check=True,
            cwd=folder / "work",
            env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "PYTHONPATH": path},
        )
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        outputs = [Output(*output) for output in result["outputs"]]
        if constants:
            return outputs
        IMAGES.mkdir(parents=True, exist_ok=True)
        for old in IMAGES.glob(f"{tutorial.name}_[0-9]*.png"):
            old.unlink()
        for picture in folder.glob("*.png"):
            (IMAGES / picture.name).write_bytes(picture.read_bytes())
        text = page(tutorial, map(shown, outputs), made_line(tutorial, result["facts"]))
        (PAGES / f"{tutorial.name}.md").write_text(text, encoding="utf-8")
        write_notebook(tutorial)
    return outputs


def child(tutorial, folder):
    """The run, in the process of its own."""
    outputs = run(tutorial, folder)
    result = {"outputs": outputs, "facts": facts(time.process_time())}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of tutorials, as the list has them")
    parser.add_argument("--all", action="store_true", help="all of them, one after another")
    parser.add_argument("--prose", action="store_true", help="run nothing: the page keeps its output")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a trial: nothing is written")
    parser.add_argument("--child", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    known = tutorials()
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"no tutorial is called {', '.join(unknown)}; there are {', '.join(known)}")
    constants = dict(setting.split("=", 1) for setting in options.set)
    names = list(known) if options.all else options.names
    if options.child:
        child(with_constants(known[names[0]], constants), options.child)
        return
    for name in names:
        if options.prose:
            rewrite(known[name])
        else:
            render(known[name], constants)
        if not constants:
            write_index()
        print(f"{name}: {'a trial, nothing written' if constants else f'docs/tutorials/{name}.md'}")
    for tutorial in () if names else known.values():
        print(f"{tutorial.name:24}{tutorial.title}")


if __name__ == "__main__":
    main()
