"""The reference has every public name once, and each is used by code of a page, which tests/test_docs.py runs."""

import ast
import collections
import importlib
import inspect
import re

import pytest
from test_docs import PAGES, ROOT, blocks

import keras_ssl
from keras_ssl import names

pytestmark = pytest.mark.one_backend

# Beside the modules that `from keras_ssl import *` takes.
MORE = ("distribute", "evaluate.plots", "testing", "workers")
# What no page can run: these start processes of their own, or come before all else in one. tests/test_workers.py,
# tests/test_testing.py and those of `distribute` run them.
IN_PROCESSES = [
    "keras_ssl.distribute.cluster",
    "keras_ssl.testing.check_everywhere",
]


def public_names():
    """The dotted names of all that is public."""
    found = [f"keras_ssl.{name}" for name in keras_ssl.__all__ if not inspect.ismodule(getattr(keras_ssl, name))]
    for module in (*names.MODULES, *MORE):
        found += [f"keras_ssl.{module}.{name}" for name in importlib.import_module(f"keras_ssl.{module}").__all__]
    return found


def value_of(name):
    """What a dotted name stands for; the last part is no module."""
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def test_the_reference_has_every_public_name_once():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    lines, public = re.findall(r"^::: (\S+)$", text, re.M), public_names()
    modules = [name for name in lines if (ROOT / f"{name.replace('.', '/')}.py").exists()]
    assert modules == [], "mkdocstrings would show the module of that name: name the function within its module"
    listed = collections.Counter()
    for line in lines:
        # A function within its module stands for the public name that is not listed itself.
        others = [name for name in public if name not in lines and value_of(name) is value_of(line)]
        listed[line if line in public or not others else others[0]] += 1
    assert {name: count for name, count in listed.items() if count > 1} == {}, "listed twice"
    assert sorted(listed) == sorted(public)


def dotted_names(tree, known):
    """Dotted names of a block, and of all that they begin with; `known` are the names that stand for others.

    It takes `import`, `from … import` and assignments of one dotted name to another, which is how pages shorten names.
    """

    def dotted(node):
        if isinstance(node, ast.Attribute):
            inner = dotted(node.value)
            return inner and f"{inner}.{node.attr}"
        return known.get(node.id) if isinstance(node, ast.Name) else None

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known.update({(alias.asname or alias.name.split(".")[0]): alias.name for alias in node.names})
        elif isinstance(node, ast.ImportFrom):
            known.update({(alias.asname or alias.name): f"{node.module}.{alias.name}" for alias in node.names})
        elif isinstance(node, ast.Assign) and isinstance(node.value, (ast.Attribute, ast.Name)) and dotted(node.value):
            known.update({name.id: dotted(node.value) for name in node.targets if isinstance(name, ast.Name)})
        elif isinstance(node, (ast.Attribute, ast.Name)) and dotted(node):
            yield dotted(node)


def names_that_pages_use(pages):
    used = set()
    for page in pages:
        known = {}
        for language, _, code in blocks(page):
            if language == "python":
                used |= set(dotted_names(ast.parse(code), known))
    return used


def test_every_public_name_is_used_by_code_that_runs():
    unused = set(public_names()) - names_that_pages_use(PAGES)
    assert sorted(unused) == IN_PROCESSES


def test_an_import_alone_is_no_use(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nfrom keras_ssl import losses\nfrom keras_ssl.data import load\nlosses.dcl(a, b)\n```\n")
    assert names_that_pages_use([page]) == {"keras_ssl.losses", "keras_ssl.losses.dcl"}


def test_every_public_name_has_a_docstring():
    for name in public_names():
        value = value_of(name)
        if callable(value):
            assert (inspect.getdoc(value) or "").strip(), name
