"""How the package is built: floors, frameworks, private parts of Keras, lengths of files."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

import keras_ssl
from keras_ssl.backend import one_device

PACKAGE = pathlib.Path(keras_ssl.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
FRAMEWORKS = ("tensorflow", "jax", "torch")
# Where private parts of Keras and of the frameworks may stand.
PRIVATE = {"keras_compat.py", "backend/tensorflow.py"}

pytestmark = pytest.mark.one_backend


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


def test_no_file_passes_400_lines():
    long = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}
    assert long["model.py"] <= 360


def test_no_method_passes_150_lines_beside_its_docstrings():
    own = {}
    for path in (PACKAGE / "methods").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        written = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
        said = [node.body[0] for node in [ast.parse(text), *written] if ast.get_docstring(node)]
        own[path.name] = len(text.splitlines()) - sum(node.end_lineno - node.lineno + 1 for node in said)
    assert {name: lines for name, lines in own.items() if lines >= 150} == {}
    assert max(own.values()) > 100, "they were counted"


def test_floors_and_frameworks_hold():
    command = [str(pathlib.Path(sys.executable).parent / "lint-imports")]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def names_in(path):
    """`__all__` of a module, without importing it."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path} has no __all__")


def functions_in(path):
    return {node.name: node for node in ast.parse(path.read_text(encoding="utf-8")).body if hasattr(node, "args")}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_backend_defines_only_names_of_the_contract(framework):
    path = PACKAGE / "backend" / f"{framework}.py"
    given = names_in(path)
    assert set(given) <= set(one_device.__all__)
    assert given == sorted(given)
    functions, contract = functions_in(path), functions_in(PACKAGE / "backend" / "one_device.py")
    assert {name for name in functions if not name.startswith("_")} <= set(given), "a public function is not exported"
    # Names, kinds and defaults: a call that is right on one backend is right on all.
    signatures = {name: ast.unparse(functions[name].args) for name in set(given) & set(functions)}
    assert signatures == {name: ast.unparse(contract[name].args) for name in signatures}


def test_every_name_of_the_contract_has_an_answer_for_one_device():
    assert [name for name in one_device.__all__ if not hasattr(one_device, name)] == []
    assert one_device.__all__ == sorted(one_device.__all__)


def test_no_file_but_the_backends_asks_which_framework_runs():
    asking = [name_of(path) for path in FILES if "keras.backend.backend()" in path.read_text(encoding="utf-8")]
    behavior = [name for name in asking if not name.startswith(("backend/", "testing/"))]
    told = ["callbacks/resume.py", "cli/pretrain.py", "provenance.py"]
    assert behavior == told, "for messages, and for a run's state, settings.json and page"


def private_reads(path):
    """`(line, attribute)` of each read of a private attribute of something that is not this file's own."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    own |= {
        target.attr
        for node in ast.walk(tree)
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign))
        for target in ast.walk(node)
        if isinstance(target, ast.Attribute) and isinstance(target.ctx, ast.Store)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.startswith("__"):
            continue
        of_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        of_super = isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "super"
        if node.attr not in own and not of_self and not of_super:
            yield node.lineno, node.attr


def test_what_must_be_exact_is_multiplied_in_float32():
    """`keras.ops.matmul` leaves the type of the product to the device: see `backend.matmul`."""
    exact = [path for path in FILES if name_of(path).split("/")[0] in ("augment", "losses", "methods", "distances.py")]
    assert exact
    for path in (*exact, PACKAGE / "mining.py", PACKAGE / "prototypes.py"):
        text = path.read_text(encoding="utf-8")
        for product in (" = ops.matmul(", "(ops.matmul(", "return ops.matmul(", "- ops.matmul(", "* ops.matmul("):
            assert product not in text, f"{name_of(path)}: backend.matmul instead of keras.ops.matmul"
        for product in ("ops.einsum(", "ops.tensordot(", "ops.dot("):
            assert product not in text, f"{name_of(path)}: backend.matmul instead of {product[:-1]}"


def test_private_parts_of_others_stand_in_one_place():
    found = {}
    for path in FILES:
        if name_of(path) not in PRIVATE:
            reads = list(private_reads(path))
            if reads:
                found[name_of(path)] = reads
    assert found == {}


def test_private_parts_that_self_inherits_stand_there_too():
    # `self._x` of a subclass of a Keras class reads Keras' own where the file does not set it.
    ours = set()
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        ours |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        ours |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
        ours |= {n.target.id for n in ast.walk(tree) if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    found = [
        (name_of(path), node.lineno, node.attr)
        for path in FILES
        if name_of(path) not in PRIVATE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr not in ours
    ]
    assert found == []


def test_no_files_import_each_other_in_a_circle():
    import graphlib

    import grimp

    graph = grimp.build_graph("keras_ssl", exclude_type_checking_imports=True, cache_dir=None)
    # The package itself imports what it is asked for by name.
    modules = graph.modules - {"keras_ssl"}
    needs = {module: graph.find_modules_directly_imported_by(module) & modules for module in modules}
    graphlib.TopologicalSorter(needs).prepare()  # raises CycleError, which names the circle


def test_the_tests_that_are_slow_on_tensorflow_are_there():
    """A test that is renamed would be back in the README's test line without a word."""
    tests = pathlib.Path(__file__).parent
    names = (tests / "slow_on_tensorflow.txt").read_text(encoding="utf-8").splitlines()
    assert names == sorted(set(names))
    for name in names:
        file, function = re.match(r"tests/(\w+\.py)::(\w+)", name).groups()
        assert f"def {function}(" in (tests / file).read_text(encoding="utf-8"), name
