"""What is imported when: `import keras_ssl` and a wrong call of the command need no framework, and Keras finds all."""

import ast
import inspect
import os
import pathlib
import pickle
import re
import subprocess
import sys

import keras
import pytest
from conftest import tiny_backbone

import keras_ssl
from keras_ssl import names, networks
from keras_ssl.cli import quiet, run_folder
from keras_ssl.recipes import select

pytestmark = pytest.mark.one_backend

PACKAGE = pathlib.Path(keras_ssl.__file__).parent
HEAVY = ("keras", "tensorflow", "jax", "torch", "sklearn", "scipy", "matplotlib", "PIL")


def python(code, *arguments):
    """Runs code in a fresh process; what it printed, or an error with what it said."""
    code = "\n".join(line.removeprefix("        ") for line in code.splitlines())
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


# The package.


def test_importing_the_package_imports_no_framework():
    python(f"""
        import sys, keras_ssl, keras_ssl.cli
        assert "SimCLR" in dir(keras_ssl) and keras_ssl.__version__
        loaded = [name for name in {HEAVY} if name in sys.modules]
        assert not loaded, loaded
        assert "numpy" not in sys.modules
    """)


@pytest.mark.parametrize(
    "imports",
    [
        "import keras_ssl; import keras",
        "import keras; import keras_ssl",
        "import keras_ssl.losses; import keras",  # Keras comes in the middle of a module of ours
        # Each starts TensorFlow once more.
        pytest.param("from keras_ssl.methods.triplet import Triplet; import keras", marks=pytest.mark.slow),
        pytest.param("import keras_ssl; import tensorflow; keras = tensorflow.keras", marks=pytest.mark.slow),
    ],
)
def test_a_saved_model_is_loaded_in_a_process_that_only_imported_the_package(imports, tmp_path):
    model = keras_ssl.Siamese(tiny_backbone((16, 16, 1)), distance=keras_ssl.distances.cosine)
    model.build((None, 16, 16, 1))
    model.save(tmp_path / "model.keras")
    python(
        f"""
        import sys
        {imports}
        model = keras.models.load_model(sys.argv[1])
        import keras_ssl
        assert type(model) is keras_ssl.Siamese
        assert model.distance is keras_ssl.distances.cosine
        assert "keras_ssl.evaluate" not in sys.modules, "probes and plots are not needed to load a model"
        assert not any(type(finder).__name__ == "_AfterKeras" for finder in sys.meta_path), "it is there no longer"
        """,
        tmp_path / "model.keras",
    )


def test_every_name_is_given_and_is_the_one_of_its_module():
    for name in keras_ssl.__all__:
        assert name in dir(keras_ssl)
        value = getattr(keras_ssl, name)
        assert value is sys.modules[names.CLASSES.get(name, f"keras_ssl.{name}")].__dict__.get(name, value)
    for name in names.MORE_MODULES:
        assert getattr(keras_ssl, name) is sys.modules[f"keras_ssl.{name}"]
    everything = {}
    exec("from keras_ssl import *", everything)
    assert set(keras_ssl.__all__) <= set(everything)
    assert pickle.loads(pickle.dumps(keras_ssl.SimCLR)) is keras_ssl.SimCLR
    with pytest.raises(AttributeError, match="'keras_ssl' has no attribute 'SimCRL'"):
        keras_ssl.SimCRL  # noqa: B018
    assert not hasattr(keras_ssl, "__wrapped__")


def test_editors_see_what_is_given():
    """The imports under TYPE_CHECKING are those of the tables."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == {**dict.fromkeys(names.MODULES, "keras_ssl"), **names.CLASSES}
    assert sorted(keras_ssl.__all__) == sorted(seen)


# The table of names.


def public(module, kind):
    return {
        name
        for name, value in vars(module).items()
        if kind(value) and value.__module__ == module.__name__ and name[0] != "_"
    }


def test_names_are_those_of_the_package():
    found = {}
    for file in (PACKAGE / "methods").glob("*.py"):
        module = __import__(f"keras_ssl.methods.{file.stem}", fromlist=["*"])
        for name in public(module, inspect.isclass):
            if issubclass(getattr(module, name), keras_ssl.SelfSupervisedModel):
                found[name] = module.__name__
    assert found == names.METHODS
    takes_images = {
        name
        for name in public(networks, inspect.isfunction)
        if "input_shape" in inspect.signature(getattr(networks, name)).parameters
    }
    assert takes_images == set(names.BACKBONES)
    assert all(getattr(keras_ssl.backbones, name) is getattr(networks, name) for name in takes_images)
    makes_views = {
        name
        for name in keras_ssl.augment.__all__
        if inspect.isfunction(getattr(keras_ssl.augment, name)) and name not in ("series", "spectrograms", "volumes")
    }
    assert makes_views == set(names.POLICIES)
    assert keras_ssl.data.NAMES == names.DATA_SETS
    assert set(select.SOURCES) == set(names.RECIPES)
    assert set(keras_ssl.evaluate.PROTOCOLS) == set(names.PROTOCOLS)


def test_every_module_that_registers_is_imported_with_keras():
    registering = {
        ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
        for file in PACKAGE.glob("**/*.py")
        if re.search(r'register_keras_serializable\("keras_ssl"\)', file.read_text(encoding="utf-8"))
    }
    assert registering
    done = python("""
        import sys, keras, keras_ssl
        print(*(name for name in sys.modules if name.startswith("keras_ssl.")))
    """)
    assert registering <= set(done.stdout.split())


# The command.


def test_a_command_starts_without_what_it_draws_and_evaluates_with():
    """Up to the first step: one process for all of it, for TensorFlow starts in it."""
    python("""
        import gc, sys
        sys.modules["jax"] = None  # TensorFlow imports it where it is there, and it imports SciPy
        from keras_ssl.cli import pretrain, quiet
        quiet.start_keras(verbose=False, whole_process=True)
        from keras_ssl.cli import experiment
        from keras_ssl.data.split import hold_out
        settings = pretrain.FLAGS(["pretrain", "--backbone=resnet8"]) and pretrain.FLAGS
        data, _ = hold_out(experiment.load("fashion_mnist_sample", {}), 0)
        experiment.begin(experiment.method_by_name("simclr"), data, settings)
        experiment.probes(data)
        late = ("sklearn", "scipy.stats", "scipy.optimize", "matplotlib.figure", "keras_ssl.report",
                "keras_ssl.evaluate.plots")
        loaded = [name for name in late if name in sys.modules]
        assert not loaded, loaded
        assert gc.isenabled() and gc.get_freeze_count() > 10_000
        import sklearn.linear_model, keras_ssl.evaluate
        assert keras_ssl.evaluate.plots.curves and sys.modules["keras_ssl.evaluate.plots"]
        assert not hasattr(keras_ssl.evaluate, "plts")
    """)


def test_what_is_wrong_in_a_call_is_said_before_a_framework_is_imported(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "settings.json").write_text('{"data": "fashion_mnist_sample", "seed": 0}')
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "backbone.keras").write_text("")
    backbone = f"--backbone={tmp_path / 'backbone.keras'}"
    commands = ("pretrain", "evaluate", "finetune", "embed", "search", "select")
    commands += ("report", "methods", "compare", "inspect")
    calls = [
        (0, ["--help"]),
        (0, ["--version"]),
        (2, []),
        (2, ["pretrian"]),
        *((0, [name, "--help"]) for name in commands),
        *((2, [name, "--hlep=1"]) for name in commands),
        *((1, [name, "--run=nowhere"]) for name in ("evaluate", "finetune", "embed", "report", "inspect")),
        *((1, [name, f"--run={run}"]) for name in ("evaluate", "finetune", "embed", "report")),
        *((1, [name, f"--run={tmp_path}"]) for name in ("evaluate", "finetune", "embed", "report", "inspect")),
        *((1, [name, backbone]) for name in ("evaluate", "finetune", "embed", "select")),
        *((1, [name, backbone, "--data=nowhere"]) for name in ("evaluate", "finetune", "embed", "select")),
        *((1, [name, "--data=nowhere"]) for name in ("pretrain", "compare", "inspect")),
        *((1, [name, "--backbone=nowhere.keras"]) for name in ("pretrain", "compare", "evaluate", "finetune", "embed")),
        (1, ["search", "--query=nowhere.png", f"--run={run}"]),
        (1, ["search", f"--run={run}"]),
        (1, ["pretrain", "--method=simclear"]),
        (1, ["pretrain", "--resume=nowhere"]),
        (1, ["pretrain", f"--resume={run}"]),
        (1, ["pretrain", f"--output={tmp_path}"]),
        (1, ["pretrain", f"--output={tmp_path / 'file.txt'}"]),
        (1, ["pretrain", "--devices=2"]),
        (1, ["pretrain", "--views=simcrl"]),
        (1, ["pretrain", "--method_args=temperature"]),
        (1, ["pretrain", "--method=nowhere:Mine"]),
        (1, ["pretrain", "--learning_rate=0"]),
        (1, ["pretrain", "--val=many"]),
        (1, ["pretrain", "--micro_batch_size=3"]),
        (2, ["pretrain", "emoji"]),
        (2, ["pretrain", "--lr=3"]),
        (1, ["compare", "--methods=simclr,simclear"]),
        (1, ["compare", "--epochs=1", "--seconds=5"]),
        (1, ["methods", "--method=simclear"]),
        (1, ["finetune", backbone, "--protocol=magic"]),
        (1, ["embed", backbone, "--output=a.csv"]),
        (1, ["select", backbone, "--data=fashion_mnist_sample", "--output=a.npz"]),
        (1, ["inspect"]),
    ]
    python(f"""
        import contextlib, io, os, pathlib, re, sys
        from keras_ssl.cli import main
        os.chdir({str(tmp_path)!r})
        for code, call in {calls!r}:
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                assert main(call) == code, (call, said.getvalue())
            assert said.getvalue().strip(), call
            loaded = [name for name in {HEAVY} if name in sys.modules]
            assert not loaded, (call, loaded)
        status = pathlib.Path("/proc/self/status")
        peak = re.search(r"VmHWM:\\s*(\\d+) kB", status.read_text()) if status.exists() else None
        assert peak is None or int(peak[1]) < 80_000, peak[0]
    """)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backbone.keras", "file.txt", "run"], (
        "nothing is written"
    )


def test_help_names_what_there_is(capsys):
    from keras_ssl.cli import main

    assert main(["pretrain", "--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in names.BACKBONES)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"keras-ssl {keras_ssl.__version__}\n"


def test_file_names_of_a_run_stand_in_one_place():
    folders = [run_folder.RunFolder("."), run_folder.ComparisonFolder(".")]
    files = {
        path.name
        for folder in folders
        for path in vars(folder).values()
        if path.suffix in (".json", ".keras", ".npz", ".html")
    }
    assert {"settings.json", "backbone.keras", "state.npz", "report.html", "table.json"} <= files
    elsewhere = []
    for file in sorted(PACKAGE.glob("**/*.py")):
        if "testing" in (file.stem, file.parent.name):  # its checks save models of their own
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in files:
                elsewhere.append(f"{file.relative_to(PACKAGE).as_posix()}: {node.value}")
    # The page's own name in a folder of a notebook.
    assert {place for place in elsewhere if not place.startswith("cli/run_folder.py")} == {
        "report/page.py: report.html"
    }
    assert (
        len([place for place in elsewhere if place.startswith("cli/run_folder.py")])
        == len(files)
        == len(set(elsewhere)) - 1
    )


# What frameworks log.

ONE_DNN = "I0000 00:00:1795635915.688616   17183 port.cc:153] oneDNN custom operations are on."
OLD_ONE_DNN = "2025-11-02 10:11:12.345678: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on."
NO_DRIVER = "E0000 00:00:1795635955.397686   17264 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error"
NO_CUDA = "I0000 00:00:1795635915.689073   17183 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU"
ERRORS = (
    "E0000 00:00:1795635955.397686   17264 cuda_dnn.cc:529] Loaded runtime CuDNN library: 8.0 but source was compiled",
    "W0000 00:00:1795635955.397686   17264 gpu_device.cc:2344] Cannot dlopen some GPU libraries.",
    "An NVIDIA GPU may be present on this machine, but a CUDA-enabled jaxlib is not installed.",
    "F0000 00:00:1795635955.397686   17264 device.cc:1] Check failed",
    "Traceback (most recent call last):",
)


def test_a_line_is_held_back_only_where_it_is_known_to_be_harmless():
    assert quiet.harmless(ONE_DNN)
    assert quiet.harmless(OLD_ONE_DNN)
    for line in (NO_DRIVER, NO_CUDA):
        assert quiet.harmless(line, driver=False)
        assert not quiet.harmless(line, driver=True), "it says why the GPU is not used"
    for line in ERRORS:
        assert not quiet.harmless(line, driver=False), line


@pytest.mark.parametrize("fails", [False, True])
def test_the_log_of_a_start_is_printed_where_something_is_wrong(fails):
    code = f"""
        import os
        from keras_ssl.cli.quiet import _harmless_held_back
        try:
            with _harmless_held_back():
                os.write(2, {ONE_DNN!r}.encode() + b"\\n" + {ERRORS[0]!r}.encode() + b"\\n")
                os.system("echo of a child >&2")
                if {fails}:
                    raise ImportError
        except ImportError:
            pass
        os.write(2, b"after\\n")
    """
    said = python(code).stderr.splitlines()
    assert said == [ONE_DNN] * fails + [ERRORS[0], "of a child", "after"]


def test_a_crash_in_the_start_is_traced():
    code = (
        "import ctypes, faulthandler\nfrom keras_ssl.cli.quiet import _harmless_held_back\n"
        "with _harmless_held_back():\n    ctypes.string_at(0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode < 0
    assert "Segmentation fault" in done.stderr


@pytest.mark.parametrize("backend", ["tensorflow"])
def test_a_command_starts_without_a_log_unless_it_is_asked_for(backend):
    def said(*flags):
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "KERAS_BACKEND": backend}
        environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
        command = [sys.executable, "-m", "keras_ssl", "methods", *flags]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0
        return done.stderr

    assert said() == ""
    assert "I0000" in said("--verbose")  # which lines there are is a matter of the processor


def test_keras_that_was_imported_before_is_left_alone(capfd):
    before = dict(os.environ)
    assert "keras" in sys.modules
    assert keras.backend.backend()
    quiet.start_keras(verbose=False)
    assert dict(os.environ) == before
