"""Tutorials: their pages and notebooks are those of the scripts, and the renderer shows what a script does."""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.one_backend

ROOT = pathlib.Path(__file__).parent.parent
PAGES = ROOT / "docs" / "tutorials"


def load_renderer():
    spec = importlib.util.spec_from_file_location("render", ROOT / "examples" / "render.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


render = load_renderer()
TUTORIALS = render.tutorials()
each = pytest.mark.parametrize("tutorial", TUTORIALS.values(), ids=TUTORIALS.keys())


# The tutorials of the folder.


@each
def test_a_page_is_that_of_its_script(tutorial):
    """Its code and its prose are; its output is the run's, which nothing here repeats."""
    text = (PAGES / f"{tutorial.name}.md").read_text(encoding="utf-8")
    code, outputs, made = render.taken(text)
    assert code == tutorial.code, f"run `python examples/render.py {tutorial.name}` again"
    assert text == render.page(tutorial, outputs, made), f"run `python examples/render.py {tutorial.name} --prose`"
    assert any(outputs)
    assert re.search(r"`KERAS_BACKEND=\w+ python examples/render\.py \w+`: \d+ seconds of processor time", made)


@each
def test_a_notebook_is_that_of_its_script(tutorial):
    nbformat = pytest.importorskip("nbformat")
    path = ROOT / "examples" / "notebooks" / f"{tutorial.name}.ipynb"
    nbformat.validate(nbformat.read(path, as_version=4))
    assert json.loads(path.read_text(encoding="utf-8")) == render.notebook(tutorial)
    for target in re.findall(r"\]\((?!http)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


@each
def test_a_script_begins_with_words_and_ends_with_what_to_read_next(tutorial):
    assert tutorial.blocks[0].kind == tutorial.blocks[-1].kind == "markdown"
    assert "](../" in tutorial.blocks[-1].text
    for block in tutorial.blocks:
        assert "```python" not in block.text, "code of a tutorial is run: write it as code"
        if block.kind == "code":
            compile(block.text, tutorial.name, "exec")


@each
def test_pictures_are_there_and_small(tutorial):
    text = (PAGES / f"{tutorial.name}.md").read_text(encoding="utf-8")
    named = re.findall(r"!\[[^\]]+\]\(images/([\w.]+)\)", text)
    assert sorted(named) == sorted(path.name for path in (PAGES / "images").glob(f"{tutorial.name}_[0-9]*.png"))
    assert named
    assert all((PAGES / "images" / name).stat().st_size <= render.MOST_BYTES for name in named)


def test_every_page_has_its_script_and_its_place():
    index = (PAGES / "index.md").read_text(encoding="utf-8")
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert {path.stem for path in PAGES.glob("*.md")} == {*TUTORIALS, "index"}
    assert index == render.index(index), "run `python examples/render.py --all --prose`"
    assert all(f"]({name}.md) |" in index for name in TUTORIALS)
    for name in TUTORIALS:
        assert f": tutorials/{name}.md\n" in navigation, f"add a line for tutorials/{name}.md to nav in mkdocs.yml"
    assert "- tutorials/index.md\n" in navigation


# The renderer.

SCRIPT = '''"""
Title: A small one
Description: Two lines
of description.
"""

"""
Words, see [the guide](../data.md) and [another](other.md).
"""

# A comment belongs to its code.
import matplotlib.pyplot as plt

COUNT = 3

"""Between."""

print("1/2 \\u2501\\u2501\\u2501\\u2501 1s 2ms/step - loss: 0.5\\x08\\x08\\x08\\r2/2 \\u2501\\u2501 0s", end="\\n")
print("counted to", COUNT)
print("word " * 30)
plt.plot([1, 2])
plt.title("A line")
plt.show()

from matplotlib.figure import Figure

figure = Figure((1, 1))
figure.suptitle("Its own")
figure.get_suptitle() and figure

"""The end, [more](../index.md)."""
'''


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder with one tutorial, `small.py`, as the renderer's."""
    monkeypatch.setattr(render, "EXAMPLES", tmp_path)
    monkeypatch.setattr(render, "PAGES", tmp_path)
    monkeypatch.setattr(render, "IMAGES", tmp_path / "images")
    monkeypatch.setattr(render, "NOTEBOOKS", tmp_path / "notebooks")
    (tmp_path / "small.py").write_text(SCRIPT, encoding="utf-8")
    (tmp_path / "plain.py").write_text('"""No tutorial."""\n', encoding="utf-8")
    return render.tutorials()["small"]


def test_a_script_is_read_as_words_and_code(small):
    assert list(render.tutorials()) == ["small"]
    assert (small.title, small.description) == ("A small one", "Two lines of description.")
    assert [block.kind for block in small.blocks] == ["markdown", "code", "markdown", "code", "markdown"]
    assert small.blocks[1].text.startswith("# A comment")
    assert small.blocks[1].text.endswith("COUNT = 3")
    lines = SCRIPT.splitlines()
    assert all(lines[block.line - 1] == block.text.splitlines()[0] for block in small.blocks if block.kind == "code")


def test_a_block_is_shown_with_what_it_printed_and_drew(small, tmp_path):
    outputs = render.run(small, tmp_path)
    assert outputs[0] == ("", [])
    lines = outputs[1].text.splitlines()
    assert lines[0] == "counted to 3"
    assert len(lines) == 3 and max(map(len, lines)) <= render.WIDTH  # noqa: PT018
    words = [("small_1.png", "A small one: A line"), ("small_2.png", "A small one: Its own")]
    assert outputs[1].pictures == words
    assert all((tmp_path / name).stat().st_size > 300 for name, _ in words)


def test_a_page_gives_back_what_went_into_it(small, tmp_path):
    outputs = [render.shown(render.Output("printed", [("small_1.png", "words")])), ""]
    made = render.made_line(small, {"backend": "torch", "seconds": 3, "versions": "keras 3"})
    text = render.page(small, outputs, made)
    assert render.taken(text) == (small.code, outputs, made)
    assert "![words](images/small_1.png)" in text
    (tmp_path / "small.md").write_text(text.replace("Between.", "Old words."), encoding="utf-8")
    render.rewrite(small)
    assert (tmp_path / "small.md").read_text(encoding="utf-8") == text
    sources = ["".join(cell["source"]) for cell in render.notebook(small)["cells"]]
    assert sources[1] == "Words, see [the guide](../../docs/data.md) and [another](../../docs/tutorials/other.md)."
    with pytest.raises(ValueError, match="its code is not that of its page"):
        render.rewrite(render.with_constants(small, {"COUNT": "4"}))


def test_constants_are_set_where_they_are_written(small):
    assert "COUNT = 4" in render.with_constants(small, {"COUNT": "4"}).code[0]
    with pytest.raises(ValueError, match="no one line `STEPS = …`"):
        render.with_constants(small, {"STEPS": "4"})


def test_a_failure_names_the_line_of_the_script(small, tmp_path):
    broken = small._replace(blocks=[render.Block("code", "x = 1\nraise KeyError(x)", 11)])
    with pytest.raises(KeyError) as raised:
        render.run(broken, tmp_path)
    assert (raised.traceback[-1].path.name, raised.traceback[-1].lineno + 1) == ("small.py", 12)


def test_names_that_are_not_there_are_refused(capsys):
    with pytest.raises(SystemExit):
        render.main(["simclr_few"])
    assert "no tutorial is called simclr_few" in capsys.readouterr().err


def test_progress_bars_and_controls_are_no_output():
    bar = "\r1/10 ━━━━ 9s 1s/step - loss: 3.1\b\b\b\r10/10 ━━━━━━━━ 2s 11ms/step - loss: 2.9\n"
    assert render.clean(f"Epoch 1/2\n{bar}\x1b[1mdone\x1b[0m  \n\n\n\nab\bc") == "Epoch 1/2\ndone\n\nac"
    assert render.clean("3/4 of them") == "3/4 of them"


@pytest.mark.slow
def test_a_tutorial_runs_in_a_process_of_its_own():
    """One of them, with small constants: nothing is written."""
    tutorial = TUTORIALS["barlow_twins_matrix"]
    before = (PAGES / "barlow_twins_matrix.md").read_bytes()
    outputs = render.render(tutorial, {"EPOCHS": "1", "IMAGES": "256"})
    assert [bool(output.pictures) for output in outputs] == [False, True, False, True, True, False]
    assert outputs[2].text.splitlines()[-1].split()[0] == "1", "the table's last epoch"
    assert (PAGES / "barlow_twins_matrix.md").read_bytes() == before


def test_a_run_that_fails_writes_nothing(small, tmp_path):
    (tmp_path / "small.py").write_text(SCRIPT.replace("COUNT = 3", "COUNT = 1 / 0"), encoding="utf-8")
    script = (ROOT / "examples" / "render.py").read_text(encoding="utf-8")
    script = script.replace('EXAMPLES, PAGES = ROOT / "examples"', f"EXAMPLES, PAGES = pathlib.Path({str(tmp_path)!r})")
    (tmp_path / "other_render.py").write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "other_render.py"), "small", f"--child={tmp_path}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert 'small.py", line 14' in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert not (tmp_path / "result.json").exists()
