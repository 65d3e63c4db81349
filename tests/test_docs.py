"""What README, docs and examples say, runs.

The code is run as it stands, with one difference: the sample that it loads is cut to a few hundred images.
"""

import importlib.util
import inspect
import pathlib
import re
import shlex

import keras
import numpy as np
import pytest

import keras_ssl
from keras_ssl import cli
from keras_ssl.data import Data, Split

pytestmark = pytest.mark.one_backend

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
LANGUAGES = {"python", "sh", "console", "text", "json"}


def blocks(page):
    """`(language, first line, code)` of each fenced block of a page."""
    found, language, code = [], None, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = re.match(r"\s*```(.*)", line)
        if fence and language is None:
            language, code, start = fence.group(1).strip(), [], number + 1
        elif fence:
            found.append((language, start, "\n".join(code)))
            language = None
        elif language is not None:
            code.append(line)
    assert language is None, f"{page.name}: the block that begins in line {start} has no end"
    return found


def ids(page):
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def small_sample(sample, monkeypatch, tmp_path):
    """`load` gives 320 training and 160 test images, 32 and 16 per class; files are written to a folder of the test."""

    def few(split, per_class):
        rows = keras_ssl.evaluate.draw_labels(split.labels, per_class, seed=0)
        rows = np.random.default_rng(0).permutation(rows)
        return Split(split.images[rows], split.labels[rows], split.class_names)

    small, load = Data(few(sample.train, 32), few(sample.test, 16)), keras_ssl.data.load
    monkeypatch.setattr(
        keras_ssl.data,
        "load",
        lambda source, *a, **k: small if source == "fashion_mnist_sample" else load(source, *a, **k),
    )
    monkeypatch.chdir(tmp_path)
    yield small
    keras.utils.clear_session()


# Whose code compiles many steps, or needs keras-hub, an extra that .ci/run installs for the slow tests.
LONG = {
    "docs/choosing.md",
    "docs/continued_pretraining.md",
    "docs/distillation.md",
    "docs/distributed.md",
    "docs/evaluation.md",
    "docs/large_batches.md",
    "docs/methods.md",
    *(f"docs/methods/{name}.md" for name in keras_ssl.names.METHODS),
    "docs/migrating.md",
    "docs/reference/callbacks.md",
    "docs/reference/evaluate.md",
    "docs/reference/methods.md",
    "docs/own_method.md",
    "docs/troubleshooting.md",
    "docs/transfer.md",
}


# The code of a tutorial's page is that of its script, which examples/render.py runs: see test_tutorials.py.
RUN_HERE = [page for page in PAGES if page.parent.name != "tutorials"]


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if ids(page) in LONG else []) for page in RUN_HERE],
    ids=ids,
)
def test_the_python_of_a_page_runs(page, small_sample):
    namespace = {"__name__": "__main__"}
    for language, line, code in blocks(page):
        if language == "python":
            # Line numbers of the page, so that a failure names the line to repair.
            exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_the_python_of_a_page_is_python_and_its_names_are_there(page):
    """What of a page that is too long to be run each time can be told without running it."""
    for language, line, code in blocks(page):
        if language != "python":
            continue
        compile("\n" * (line - 1) + code, str(page), "exec")
        for dotted in re.findall(r"\bkeras_ssl((?:\.\w+)+)", code):
            value = keras_ssl
            for name in dotted[1:].split("."):
                if not inspect.ismodule(value) and not inspect.isclass(value):
                    break  # an attribute of what a call gives
                assert hasattr(value, name), f"keras_ssl{dotted}, after line {line} of {page.name}"
                value = getattr(value, name)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_block_says_its_language(page):
    assert {language for language, _, _ in blocks(page)} <= LANGUAGES


def calls_of_the_command():
    """Every `keras-ssl …` of pages and docstrings: in blocks, in lines of their own, and in backticks."""
    sources = [*PAGES, *sorted((ROOT / "examples").glob("*.py")), *sorted((ROOT / "keras_ssl").glob("**/*.py"))]
    for source in sources:
        for line in source.read_text(encoding="utf-8").splitlines():
            for pattern in (
                r"`(?:\S*/)?keras-ssl ([^`]*)`",
                r"^(?:\$| {4,}\$?) ?keras-ssl (.*)$",
                r"&& \S*keras-ssl (.*)$",
            ):
                for call in re.findall(pattern, line):
                    yield f"{source.relative_to(ROOT).as_posix()}: {call}", call


CALLS = dict(calls_of_the_command())


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_calls_of_the_command_name_commands_and_flags_that_are_there(call):
    name, *flags = shlex.split(call.partition("#")[0])
    if name in ("COMMAND", "--version"):  # the usage line, and a flag that is no command's
        return
    assert name in cli._COMMANDS
    command = importlib.import_module(f"keras_ssl.cli.{name}")
    if hasattr(command, "POSITIONAL") and flags and not flags[0].startswith("--"):
        flags = flags[1:]
    for flag in flags:
        assert flag.startswith("--"), flag
        word = flag[2:].partition("=")[0]
        assert word == "help" or word in command.FLAGS, f"keras-ssl {name} has no flag {flag}"


def test_the_extractors_find_what_is_there():
    assert len(CALLS) >= 6
    assert sum(language == "python" for page in PAGES for language, _, _ in blocks(page)) >= 8


def test_the_readme_has_the_two_lines_that_ci_runs():
    lines = [code for language, _, code in blocks(ROOT / "README.md") if language == "sh"]
    assert len(lines) == 2
    assert all("\n" not in line and line.startswith("python3 -m venv .venv") for line in lines)
    assert lines[0].endswith("keras-ssl pretrain")
    assert lines[1].endswith("-m pytest")


def test_paths_and_links_of_pages_are_there():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            if not target.startswith(("http:", "https:", "mailto:")):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
        for target in re.findall(
            r"`(?:python )?((?:examples|benchmarks|tools|docs|keras_ssl|tests)/[\w/.-]*)[^`]*`", text
        ):
            assert (ROOT / target).exists(), f"{page.name} names {target}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_a_cell_of_a_table_is_no_paragraph(page):
    """On a phone a cell of sixty words is a column of two screens: prose stands below the table."""
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert [cell for row in rows for cell in row.split("|") if len(cell.split()) > 60] == []


def test_every_page_is_in_the_navigation_once():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r"^ +- (?:.*: )?(\S+\.md)$", navigation, re.M)
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").glob("**/*.md")]
    assert sorted(named) == sorted(pages), "a page is a line of nav in mkdocs.yml"


def example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_quickstart_runs(small_sample, capsys):
    accuracy = example("quickstart").main(epochs=1, images=256)
    assert 0.2 < accuracy <= 1.0, "chance is 0.1"
    assert f"{accuracy:.3f}" in capsys.readouterr().out


@pytest.mark.slow
def test_transfer_runs_from_a_backbone_of_a_file(small_sample):
    keras_ssl.backbones.resnet8((28, 28, 1), width=8).save("backbone.keras")
    results = example("transfer").main(backbone="backbone.keras", classifier_epochs=1, draws=1)
    assert list(results) == ["frozen", "fine-tuned", "from scratch"]
    assert all(0.0 <= accuracy <= 1.0 for accuracies in results.values() for accuracy in accuracies)


@pytest.mark.slow
def test_transfer_trains_a_backbone_where_it_is_given_none(small_sample, capsys):
    results = example("transfer").main(epochs=1, images=256, classifier_epochs=1, draws=1)
    assert len(results["frozen"]) == 1
    assert "from scratch" in capsys.readouterr().out


@pytest.mark.slow
def test_segmentation_runs(small_sample, capsys):
    results = example("segmentation").main(labeled=20, tested=8, epochs=1, images=256, head_epochs=1)
    assert list(results) == ["pretrained", "from scratch"]
    assert all(0.0 <= value <= 1.0 for value in results.values())
    assert "mean IoU on 8 canvases" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spectrograms", "volumes"])
def test_examples_of_other_inputs_run(name, capsys):
    results = example(name).main(epochs=1, rows=250)
    more = [] if name == "spectrograms" else ["BYOL", "VICReg", "untrained transformer", "MAE"]
    assert list(results)[1:] == ["untrained", "SimCLR", *more]
    assert all(0.0 <= value <= 1.0 for value in results.values())
    assert f"{list(results.values())[-1]:.3f}" in capsys.readouterr().out


def test_canvases_show_what_their_masks_say(small_sample):
    images, masks = example("segmentation").canvases(small_sample.test, 5, seed=0)
    assert images.shape == (5, 56, 56, 1)
    assert masks.min() == 0
    assert len(np.unique(masks)) > 5
    assert images[..., 0][masks == 0].max() < 80 < np.quantile(images[..., 0][masks > 0], 0.75)


def test_every_example_is_run_here():
    here = {"quickstart", "transfer", "segmentation", "spectrograms", "volumes"}
    tutorials = {path.stem for path in (ROOT / "docs" / "tutorials").glob("*.md")} | {"render"}  # in test_tutorials.py
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} - tutorials == here


def test_a_new_picture_becomes_the_pixels_that_were_trained_on(tmp_path):
    """The page's own lines, on a photograph that lies on its side: by other pixels one of eight answers was another."""
    from PIL import Image, ImageOps

    rows, columns = np.mgrid[:60, :90]
    waves = 127 + 120 * np.sin(rows / 3)[..., None] * np.cos(columns[..., None] / np.array([4, 5, 7]))
    tags = Image.Exif()
    tags[0x0112] = 6  # orientation: turned by a quarter
    Image.fromarray(waves.astype("uint8")).save(tmp_path / "a.jpg", exif=tags)
    page = (ROOT / "docs" / "few_labels.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith(("picture = ", "pixels = "))]
    names = {"np": np, "Image": Image, "ImageOps": ImageOps, "new": tmp_path / "a.jpg"}
    exec("\n".join(lines), names)
    want = np.asarray(keras_ssl.data.load(tmp_path, image_size=32).train.images[:1], "float32")
    assert len(lines) == 3
    assert np.abs(names["pixels"] - want).mean() < 1.0


def test_a_data_set_says_what_it_is_in_a_line_a_split(sample):
    assert repr(sample) == (
        "Data(\n  train=Split(10,000 images with labels of 10 classes, 28×28×1 uint8),"
        "\n  test=Split(2,000 images with labels of 10 classes, 28×28×1 uint8),\n)"
    )


def test_figures_in_tables_of_the_site_stay_on_a_line():
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "tools" / "site_hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    html = '<td style="text-align: left">0.56 ± 0.02</td><p>0.56 ± 0.02</p>'
    assert hooks.on_page_content(html, page=None) == html.replace("0.56 ± 0.02</td>", "0.56&nbsp;±&nbsp;0.02</td>")


def test_what_is_returned_is_shown_as_words():
    """mkdocstrings takes `(2n,)`: … for a type, and shows its backticks."""
    code = {path: path.read_text(encoding="utf-8") for path in (ROOT / "keras_ssl").rglob("*.py")}
    assert [path.name for path, text in code.items() if re.search(r"\n +(Returns|Yields):\n +`[^`]+`: ", text)] == []
