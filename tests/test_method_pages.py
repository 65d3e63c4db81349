"""Each method has a page and a picture, and the tables of the pages are those of the recipes and of docs/methods.md."""

import importlib.util
import pathlib
import re

import pytest

from keras_ssl import names

pytestmark = pytest.mark.one_backend

ROOT = pathlib.Path(__file__).parent.parent
PAGES = ROOT / "docs" / "methods"
FIGURE = r"\d+\.\d+ ± \d+\.\d+"
WITH_TABLES = ("methods.md", "recipes.md", "quality.md", "data.md")
SECTIONS = ["When to use it", "Code", "Recipe", "Figures", "Collapse", "Source and reference"]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("method_pages", ROOT / "tools" / "method_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_method_has_a_page_and_a_picture():
    assert {page.stem for page in PAGES.glob("*.md")} == set(names.METHODS)
    assert {picture.stem for picture in (PAGES / "images").glob("*.svg")} == set(names.METHODS)


def test_the_overview_links_to_each_page_once():
    overview = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\]\(methods/(\w+)\.md\)", overview)) == sorted(names.METHODS)


@pytest.mark.parametrize("name", names.METHODS)
def test_a_page_has_its_sections_picture_and_tables(name, tool):
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    headings = [heading for heading in re.findall(r"^## (.*)$", text, flags=re.M) if heading in SECTIONS]
    assert headings == SECTIONS
    assert f"](images/{name}.svg)" in text
    assert f"reference/methods.md#keras_ssl.{name})" in text
    assert tool.written(name, text) == text, "run python tools/method_pages.py"


def test_figures_that_are_quoted_stand_in_a_table():
    """A table that is measured again leaves no sentence behind that quotes the old one."""

    def figures(text):
        return set(re.findall(FIGURE, text))

    def prose(page):  # its tables are its own, or the tool's
        return "\n".join(line for line in page.read_text(encoding="utf-8").splitlines() if not line.startswith("|"))

    tables = figures("".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in WITH_TABLES))
    quoted = {page.name: figures(prose(page)) for page in PAGES.glob("*.md")}
    for page in (ROOT / "README.md", ROOT / "docs" / "choosing.md"):
        quoted[page.name] = figures(page.read_text(encoding="utf-8"))
    assert len(quoted["README.md"]) > 20, "its table of methods"
    assert {name: found - tables for name, found in quoted.items() if found - tables} == {}
