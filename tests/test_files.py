"""Files: whole or not there, checked when they are read, written by one run at a time; what may hide in them."""

import ast
import errno
import json
import os
import pathlib
import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from conftest import tiny_backbone

import keras_ssl
from keras_ssl import files
from keras_ssl.callbacks.state_file import StateFile
from keras_ssl.cli import main

pytestmark = pytest.mark.one_backend

PACKAGE = pathlib.Path(keras_ssl.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


# Writing.


def test_a_file_is_replaced_when_the_next_is_whole_and_not_before(tmp_path):
    path = tmp_path / "new" / "table.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(RuntimeError, match="in the middle"), files.replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        assert files.read_json(path) == {"a": 1}
        assert temporary.parent == path.parent, "a rename within a file system"
        assert temporary.suffix == ".json"
        raise RuntimeError("in the middle")
    assert files.read_json(path) == {"a": 1}
    files.write_json(path, [2])
    assert files.read_json(path) == [2]
    assert left_in(path.parent) == ["table.json"]


def test_what_is_renamed_has_reached_the_disk(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda opened: (done.append("flushed"), fsync(opened)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("renamed"), replace(a, b)))
    files.write_text(tmp_path / "a.txt", "text")
    assert done == ["flushed", "renamed", "flushed"], "the file, its name, the folder"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_what_the_system_refuses_is_a_sentence_and_nothing_is_lost(number, tmp_path, monkeypatch):
    path = tmp_path / "history.json"
    files.write_json(path, "kept")

    def refuse(opened):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(
        OSError, match=f"history.json could not be written: {os.strerror(number)}; what stood"
    ) as raised:
        files.write_json(path, "new")
    assert raised.value.errno == number
    with pytest.raises(OSError, match="nothing is there"):
        files.write_json(tmp_path / "other.json", "new")
    assert files.read_json(path) == "kept"
    assert left_in(tmp_path) == ["history.json"]


def test_a_folder_is_never_replaced_and_a_link_is_replaced_itself(tmp_path):
    with pytest.raises(IsADirectoryError, match="name another"):
        files.write_text(tmp_path, "text")
    outside = tmp_path / "outside.txt"
    outside.write_text("not yours")
    link = tmp_path / "report.html"
    link.symlink_to(outside)
    files.write_text(link, "page")
    assert (outside.read_text(), link.read_text(), link.is_symlink()) == ("not yours", "page", False)


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    code = """
        import os, sys
        from keras_ssl import files
        with files.replacing(sys.argv[1]) as temporary:
            temporary.write_text("half")
            os._exit(9)
    """
    script = "\n".join(line.strip() if "with" in line or "import" in line else line[8:] for line in code.splitlines())
    path = tmp_path / "model[1].keras"
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    (tmp_path / "mine.keras").write_text("mine")
    assert len(left_in(tmp_path)) == 2
    files.remove_unfinished(tmp_path / "another.keras")
    assert len(left_in(tmp_path)) == 2
    files.remove_unfinished(path)
    assert left_in(tmp_path) == ["mine.keras"]


WRITERS = {"write_text", "write_bytes", "save", "savez", "savez_compressed", "savetxt", "savefig", "to_csv", "dump"}
ELSEWHERE = {  # what is no file of a run
    "files.py": "the one place",
    "cli/__init__.py": "a traceback, in a temporary file of its own",
    "datasets/make_clothes_sample.py": "makes what the package holds",
    "datasets/make_fashion_mnist_sample.py": "makes what the package holds",
    "testing/everywhere.py": "what processes of one check leave each other, in a temporary folder",
    "testing/checks.py": "a model in a temporary folder",
    "workers.py": "logs of processes, in a temporary folder",
}


def writes_in(tree, guarded=False):
    """`(line, name)` of what writes a file outside of `with files.replacing(…)`."""
    for node in ast.iter_child_nodes(tree):
        inside = guarded or (isinstance(node, ast.With) and any("replacing(" in ast.unparse(i) for i in node.items))
        if isinstance(node, ast.Call) and not inside:
            function, first = node.func, ast.unparse(node.args[0]) if node.args else ""
            name = getattr(function, "attr", getattr(function, "id", ""))
            of_files = isinstance(function, ast.Attribute) and ast.unparse(function.value) == "files"
            mode = "".join(ast.unparse(argument) for argument in [*node.args[1:2], *(k.value for k in node.keywords)])
            if name in WRITERS and not of_files and first != "picture" and ast.unparse(function) != "page.save":
                if not isinstance(function, ast.Name):
                    yield node.lineno, ast.unparse(function)
            elif name == "open" and re.search(r"['\"][rb]*[wax+]", mode):
                yield node.lineno, ast.unparse(node)
        yield from writes_in(node, inside)


def test_every_file_of_a_run_is_written_in_one_way():
    found = {}
    for path in SOURCES:
        name = path.relative_to(PACKAGE).as_posix()
        if name not in ELSEWHERE:
            writes = list(writes_in(ast.parse(path.read_text(encoding="utf-8"))))
            if writes:
                found[name] = writes
    assert found == {}
    torn = ast.parse('with open(path, "w") as file:\n    np.savez(path, a)\n    path.write_text("a")')
    assert len(list(writes_in(torn))) == 3, "it would be found"


# Checksums.


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """A `.keras` file and a state, each with its checksum."""
    folder = tmp_path_factory.mktemp("sealed")
    keras.utils.set_random_seed(0)
    files.save_model(tiny_backbone(), folder / "model.keras")
    StateFile(folder / "state.npz").write(about([3, 0]), {"0": np.arange(500, dtype="float32")})
    return folder


def about(place):
    return {"place": place, "state": ["(500,) float32"], "history": {}}


@pytest.mark.parametrize("name", ["model.keras", "state.npz"])
def test_every_flip_and_every_cut_is_found(name, sealed, tmp_path):
    content, path = (sealed / name).read_bytes(), tmp_path / name
    assert files.check(sealed / name)
    rng, found = np.random.default_rng(0), 0
    places = [*rng.integers(0, len(content), 300), *range(len(content) - 90, len(content)), *range(40)]
    for place in places:  # anywhere, in the table of contents and the checksum, and at the start
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(flipped)
        with pytest.raises(files.DamagedFile, match=name):
            files.check(path)
        found += 1
    for size in [*rng.integers(0, len(content), 200), *range(len(content) - 90, len(content)), 0, 1]:
        path.write_bytes(content[:size])
        with pytest.raises(files.DamagedFile, match=name):
            files.check(path)
        found += 1
    path.write_bytes(content + b"more")
    with pytest.raises(files.DamagedFile):
        files.check(path)
    assert found == len(places) + 292


def test_a_file_with_a_checksum_is_a_plain_one_for_everybody_else(sealed):
    keras.models.load_model(sealed / "model.keras")
    with np.load(sealed / "state.npz") as file:
        assert len(file["0"]) == 500
    with zipfile.ZipFile(sealed / "model.keras") as archive:
        assert archive.testzip() is None


def test_a_file_of_another_program_is_held_to_its_own_checksums(tmp_path):
    path = tmp_path / "model.keras"
    tiny_backbone().save(path)
    assert files.check(path) is False
    assert files.load_model(path).name == keras.models.load_model(path).name
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("model.weights.h5").header_offset + 200
    for place in range(start, start + 5000, 500):
        flipped = bytearray(content)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(files.DamagedFile, match=re.escape(str(path))):
            files.load_model(path)


@pytest.mark.parametrize("content", [b"", b"PK\5\6", b"no model", b"\x89HDF\r\n\x1a\n" + b"\0" * 99], ids=repr)
def test_what_is_no_model_is_named(content, tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        files.load_model(path)


def test_commands_name_a_damaged_file(sealed, tmp_path, capsys):
    path = tmp_path / "backbone.keras"
    path.write_bytes((sealed / "model.keras").read_bytes()[:-1000])
    commands = (
        ["inspect", f"--backbone={path}"],
        ["pretrain", f"--backbone={path}", f"--output={tmp_path / 'run'}"],
        ["embed", f"--backbone={path}", "--data=fashion_mnist_sample", f"--output={tmp_path / 'f.npz'}"],
    )
    for command in commands:
        assert main(command) == 1
        told = capsys.readouterr().err
        assert f"{path} is damaged" in told
        assert "not expected" not in told
    run = tmp_path / "old"
    run.mkdir()
    (run / "settings.json").write_text('{"data": "fash')
    (run / "backbone.keras").write_bytes(b"")
    assert main(["evaluate", f"--run={run}"]) == 1
    assert "settings.json is damaged" in capsys.readouterr().err


# The last two states.


def place_in(file):
    found = file.read()
    return found and found[0]["place"]


def write(file, place):
    file.write(about(place), {"0": np.full(500, place[0], "float32")})


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_the_last_two_states_are_kept(tmp_path):
    file = StateFile(tmp_path / "state")
    assert file.read() is None
    for epoch in range(1, 5):
        write(file, [epoch, 0])
    assert place_in(StateFile(tmp_path / "state")) == [4, 0]
    assert left_in(tmp_path) == ["state", "state.previous"]
    damage(tmp_path / "state")
    with pytest.warns(UserWarning, match=r"state is damaged.* 3 epochs and 0 batches are done"):
        assert place_in(StateFile(tmp_path / "state")) == [3, 0]


def test_a_damaged_state_never_takes_the_place_of_the_whole_one(tmp_path):
    file = StateFile(tmp_path / "state")
    write(file, [1, 0])
    write(file, [2, 0])
    damage(tmp_path / "state")
    resumed = StateFile(tmp_path / "state")
    with pytest.warns(UserWarning, match="is damaged"):
        resumed.read()
    write(resumed, [2, 5])
    damage(tmp_path / "state")
    with pytest.warns(UserWarning, match="is damaged"):
        assert place_in(StateFile(tmp_path / "state")) == [1, 0], "not the damaged one of before"


def test_two_damaged_states_are_an_error_that_says_so(tmp_path):
    file = StateFile(tmp_path / "state")
    write(file, [1, 0])
    damage(tmp_path / "state")
    with pytest.raises(files.DamagedFile, match="no state before it: delete the file"):
        file.read()
    write(file, [1, 0])
    write(file, [2, 0])
    for path in (file.path, file.previous):
        damage(path)
    with pytest.raises(
        files.DamagedFile, match=r"both states are damaged: .*state is .*state.previous is .*Delete both"
    ):
        file.read()


def test_a_state_whose_file_is_gone_is_not_begun_anew_without_a_word(tmp_path):
    file = StateFile(tmp_path / "state")
    write(file, [1, 0])
    write(file, [2, 0])
    file.path.unlink()
    with pytest.raises(FileNotFoundError, match=r"state.previous: rename that one to state"):
        file.read()


def test_a_state_without_its_checksum_is_no_state_of_before(tmp_path):
    file = StateFile(tmp_path / "state")
    write(file, [1, 0])
    with np.load(file.path) as kept:
        np.savez(tmp_path / "cut.npz", **kept)
    with pytest.raises(files.DamagedFile, match="checksum was cut off"):
        StateFile(tmp_path / "cut.npz").read()


def test_states_are_kept_on_file_systems_without_links(tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", refuse)
    test_the_last_two_states_are_kept(tmp_path)


# One run at a time.

HOLD = """
import os, sys, time
from keras_ssl import files
with files.Lock(sys.argv[1], "The folder a"):
    if len(sys.argv) > 2 and os.fork() == 0:
        time.sleep(20)
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


def held(path, *more):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.skipif(files.fcntl is None, reason="there are no such locks on Windows")
@pytest.mark.parametrize("more", [(), ("a child that lives on",)], ids=["alone", "with a child"])
def test_a_second_run_is_refused_until_the_first_ends_or_is_killed(more, tmp_path):
    path = tmp_path / ".lock"
    process = held(path, *more)
    with pytest.raises(BlockingIOError, match=rf"The folder a .* process {process.pid} on .*: wait"):
        files.Lock(path, "The folder a").__enter__()
    process.kill()
    process.wait()
    assert path.exists(), "it left its file"
    with files.Lock(path, "The folder a"), pytest.raises(BlockingIOError, match="another run in this process"):
        files.Lock(path, "The folder a").__enter__()
    assert left_in(tmp_path) == []


def test_a_folder_that_can_not_be_written_is_said_before_the_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Resume: .*state can't be written: "):
        StateFile(tmp_path / "file" / "state").acquire()


# What may hide in a file.


def test_nothing_in_the_package_unpickles():
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"} & set(names)
            assert not wrong, f"{path}: {wrong}"
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "__import__"), f"{path}:{node.lineno}"
                if called in ("np.load", "numpy.load"):
                    assert "allow_pickle=False" in ast.unparse(node), f"{path}:{node.lineno}"
                if called.endswith("load_model") and called != "load_model":
                    tested = path.parent.name == "testing"  # loads what it has just saved
                    assert tested or "safe_mode=True" in ast.unparse(node), f"{path}:{node.lineno}"


class Malicious:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ["images.npy", "images.npz", "state.npz", "values.npz"])
def test_an_array_that_would_run_code_runs_none(name, tmp_path):
    harm, path = tmp_path / "harm", tmp_path / name
    trap = np.array([Malicious(harm)], dtype=object)
    if name == "images.npy":
        np.save(path, trap, allow_pickle=True)
    else:
        np.savez(path, images=trap, about=trap, kind=trap, x_train=trap)
    if name == "state.npz":
        with pytest.raises(files.DamagedFile):
            StateFile(path).read()
    elif name == "values.npz":
        with pytest.raises(ValueError):
            files.read_values(path)
    else:
        with pytest.raises(ValueError, match=re.escape(str(path))):
            keras_ssl.data.load(path)
    assert not harm.exists()


def spoiled(path, change):
    """A `.keras` file whose configuration is changed."""
    tiny_backbone().save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    change(config)
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def test_a_model_that_would_run_code_runs_none(tmp_path):
    harm = tmp_path / "harm"
    target = str(harm)

    def call_system(config):
        config["config"]["layers"][-1].update(
            module="os", class_name="system", registered_name="system", config={"command": f"touch {harm}"}
        )

    def a_lambda(config):
        code = keras.saving.serialize_keras_object(keras.layers.Lambda(lambda x: open(target, "w") or x))  # noqa: SIM115
        last = config["config"]["layers"][-1]
        last.update(module="keras.layers", class_name="Lambda", registered_name=None)
        last["config"] = {**code["config"], "name": last["config"]["name"]}

    for number, change in enumerate((call_system, a_lambda)):
        path = spoiled(tmp_path / f"{number}.keras", change)
        with pytest.raises(ValueError, match=re.escape(f"{path} can't be loaded as a Keras model")):
            files.load_model(path)
        assert not harm.exists()


NAMES = ["<script>alert(1)</script>", "$\\frac$", "../../up", "\udcff", "a\tb", '"onload="alert(1)', "日本", "_hidden"]


@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_page_takes_names_as_text(tmp_path):
    from keras_ssl import report

    images = np.random.default_rng(0).integers(0, 255, (4 * len(NAMES), 28, 28, 1), "uint8")
    train = keras_ssl.data.Split(images, np.arange(len(images)) % len(NAMES), NAMES)
    model = keras_ssl.Rotation(tiny_backbone())
    model.build()
    path = report.write(
        tmp_path / "page.html",
        model,
        keras_ssl.data.Data(train, train),
        history={name: [1.0, 2.0] for name in NAMES},
        table={name: dict.fromkeys(NAMES, 0.5) for name in NAMES},
        run=report.RunInfo(" ".join(NAMES)),
        held_out=NAMES[0],
        alarms=NAMES,
    )
    page = path.read_text(encoding="utf-8")
    assert "&lt;script&gt;" in page
    for harm in ("<script", " onload=", '"onload='):
        assert harm not in page
    assert left_in(tmp_path) == ["page.html"]


def test_names_from_outside_stay_in_the_run_folder(tmp_path, monkeypatch):
    from keras_ssl.cli.run_folder import RunFolder

    monkeypatch.chdir(tmp_path)
    for source in ("../../etc/passwd", "..", "/", "a/../..", "~", "photos/"):
        folder = RunFolder.next_free("simclr", source)
        assert folder.path.resolve().parent == tmp_path.resolve() / "runs", source


def test_values_for_another_process_come_back_as_they_were(tmp_path):
    values = ([1, 2.5, "a", None, True], {"w": [np.arange(6.0).reshape(2, 3)], 3: (np.float32(2), np.array("text"))})
    files.write_values(tmp_path / "values.npz", values)
    back = files.read_values(tmp_path / "values.npz")
    assert back[0] == values[0]
    assert isinstance(back[1][3], tuple)
    np.testing.assert_array_equal(back[1]["w"][0], values[1]["w"][0])
    with pytest.raises(TypeError, match="Only numbers"):
        files.write_values(tmp_path / "values.npz", [object()])


def test_a_path_that_is_not_there_is_told_what_is_alike(tmp_path, monkeypatch, capsys):
    """Whatever names a file or a folder: data, labels, a run, a backbone, a query."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Photos" / "cats").mkdir(parents=True)
    (tmp_path / "runs" / "simclr-photos-1").mkdir(parents=True)
    (tmp_path / "labels.csv").write_text("file,label\n")
    (tmp_path / "backbone.keras").write_bytes(b"")
    for command, settings, alike in (
        ("pretrain", ["--data=fotos/cats"], "Photos/cats"),
        ("pretrain", ["--data=fotos/Cast"], "Photos/cats"),
        ("pretrain", ["--data=fotos/horses"], "Photos"),
        ("pretrain", ["--data=label.csv/a"], "labels.csv"),
        ("pretrain", [f"--data={tmp_path}/photo"], f"{tmp_path}/Photos"),
        ("pretrain", ["--data=Photos", "--labels=label.csv"], "labels.csv"),
        ("pretrain", ["--backbone=backbon.keras"], "backbone.keras"),
        ("pretrain", ["--resume=runs/simclr-photo-1"], "runs/simclr-photos-1"),
        ("evaluate", ["--run=run/simclr-photos-1"], "runs/simclr-photos-1"),
        ("evaluate", ["--backbone=./backbone.kera", "--data=Photos"], "backbone.keras"),
        ("search", ["--run=x", "--query=lables.csv"], "labels.csv"),
    ):
        assert main([command, *settings]) == 1
        error = capsys.readouterr().err
        assert f'Did you mean "{alike}"?' in " ".join(error.split()), (command, settings, error)
    with pytest.raises(FileNotFoundError, match=r'`labels`: there is no file .* Did you mean "labels\.csv"'):
        keras_ssl.data.load("Photos", labels="labels.cvs")
    with pytest.raises(FileNotFoundError, match=r'no data set or path "phtos".* Did you mean "Photos"'):
        keras_ssl.data.load("phtos")
    assert files.similar("/no/such/place/at/all") == ""
    assert files.similar("x" * 5000, "Known: a.") == "Known: a."
