"""What a run says on a terminal: what, how long, a row an epoch, the table, a verdict and the next commands."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
from conftest import tiny_backbone

import keras_ssl
from keras_ssl import evaluate
from keras_ssl.cli import choices, main, words
from keras_ssl.cli.run_folder import Interrupted, RunFolder
from keras_ssl.evaluate.efficiency import Cell

pytestmark = pytest.mark.one_backend

WIDTH = 80


def visible(text):
    """The lines as a terminal shows them: without colors; what a carriage return or backspaces write over counts."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r\n", "\n")
    return re.split(r"[\n\r]|\x08+", text)


def too_wide(text):
    """Lines wider than 80 columns, but for a path alone or a word that is one."""
    return [line for line in visible(text) if len(line) > WIDTH and max(map(len, line.split())) < WIDTH // 2]


# Width.


def on_a_terminal(arguments, folder):
    """The command on a pseudo terminal of 80 columns: `(exit code, all that it wrote)`."""
    import pty

    ours, its = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(WIDTH), "TERM": "xterm"}
    environment["PYTHONPATH"] = os.path.dirname(os.path.dirname(keras_ssl.__file__))
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "keras_ssl", *arguments]
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment, cwd=folder)
    os.close(its)
    said = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux' way of saying that the other end is closed
            break
        if not part:
            break
        said += part
    os.close(ours)
    return process.wait(), said.decode()


@pytest.mark.slow
def test_a_run_on_a_terminal_of_80_columns_wraps_nothing(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    flags = ["--data=photos", "--image_size=16", "--epochs=2", "--batch_size=16", "--name=first"]
    code, said = on_a_terminal(["pretrain", *flags], tmp_path)
    assert code == 0, said
    assert too_wide(said) == []
    assert re.search(r"\repoch 1/2  \[=+\.*\] \d/4  loss \d+\.\d{4}", said), "a bar"
    assert re.search(r"epoch 2/2 .* left", said)
    assert "nt_xent" not in said, "it is the loss, which is shown already"
    assert re.search(r"A step takes .* about .* to go", said)
    lines = list(visible(said))
    assert [line.split()[0] for line in lines if re.match(r" +\d/2 ", line)] == ["1/2", "2/2"]
    assert any(line.startswith("Verdict: ") for line in lines)
    assert "keras-ssl finetune --run=runs/first --per_class=10" in said
    # What follows it, as it was printed.
    again = on_a_terminal(["pretrain", *flags], tmp_path)
    assert again[0] == 1
    assert "--overwrite" in again[1]
    assert too_wide(again[1]) == []


@pytest.mark.parametrize("arguments", [["methods", "--method=swav"], ["methods"], ["pretrain", "--views=simcrl"]])
def test_other_commands_fit_too(arguments, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    main(arguments)
    said = capsys.readouterr()
    assert too_wide(said.out + said.err) == []


def test_every_recipe_fits(monkeypatch):
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    for name in keras_ssl.names.METHODS:
        method = getattr(keras_ssl, name)
        for batch in (64, 1024):
            chosen = keras_ssl.recipes.recipe(method, (224, 224, 3), 60_000, batch, 800)
            assert too_wide(words.recipe(chosen)) == [], name
            for _, value, source in chosen.entries():
                squeezed = re.sub(r"\s+", "", words.recipe(chosen))
                assert re.sub(r"\s+", "", value) in squeezed
                assert re.sub(r"\s+", "", source) in squeezed


def table(trained=0.9):
    columns = [
        f"{probe}, {labels}" for labels in ("10 per class", "100 per class", "all") for probe in ("linear", "kNN")
    ]
    draws = {"raw pixels": 0.5, "untrained backbone": 0.6, "trained backbone": trained}
    return {name: {column: Cell([value - 0.001, value + 0.001]) for column in columns} for name, value in draws.items()}


def test_the_table_of_accuracies_fits_and_has_all_cells():
    header, rows = evaluate.efficiency.as_rows(table())
    text = words.table(header, rows)
    assert too_wide(text) == []
    assert text.count("0.900 ± 0.001") == 6
    assert text.count("trained backbone") == 4, "two rows in each of two blocks"
    narrow = {name: {"linear, all": cells["linear, all"]} for name, cells in table().items()}
    assert words.table(*evaluate.efficiency.as_rows(narrow)).count("raw pixels") == 1


def test_commands_can_be_copied_as_they_are_printed(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    printed = words.command("keras-ssl compare", "--methods=simclr,vicreg", "--data=photos", "--output=runs/a")
    assert len(printed.splitlines()) == 3
    assert shlex.split(printed.replace("\\\n", " ")) == [
        *["keras-ssl", "compare", "--methods=simclr,vicreg", "--data=photos", "--output=runs/a"]
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (42, "42 s"), (600, "10 min"), (7260, "2 h 1 min"), (7200, "2 h"), (200_000, "2 days 7 h")],
)
def test_times_are_said_in_words(seconds, said):
    assert words.duration(seconds) == said


# While it trains.


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("keras_ssl.cli.watch.time", types.SimpleNamespace(perf_counter=lambda: self.now))


def watched(monkeypatch, bar, epochs=3, steps=20, terms=("nt_xent",), earlier=None):
    from keras_ssl.cli.watch import Watch

    clock = Clock(monkeypatch)
    watch = Watch(steps, bar, earlier)
    watch.set_model(types.SimpleNamespace(terms=terms))
    watch.set_params({"epochs": epochs, "steps": steps})
    watch.on_train_begin()
    for epoch in range(epochs):
        watch.on_epoch_begin(epoch)
        for step in range(steps):
            clock.now += 30.0 if epoch == step == 0 else 0.5
            logs = {"loss": 4.0, "nt_xent": 4.0, "contrastive_accuracy": 0.25}
            watch.on_train_batch_end(step, {name: logs[name] for name in logs if name in ("loss", *terms, *logs)})
        watch.on_test_begin()
        clock.now += 5.0
        watch.on_epoch_end(epoch, {**logs, "knn_accuracy": 0.5, "rank_me": 12.34, "val_loss": 3.9, "alpha_req": 1.0})
    return watch


def test_an_epoch_is_one_row_of_an_aligned_table(monkeypatch, capsys):
    watched(monkeypatch, bar=False, epochs=12)
    said = capsys.readouterr().out
    assert "\r" not in said, "where there is no terminal there is no bar"
    lines = [line for line in said.splitlines() if not line.startswith("A step")]
    assert lines[0].split() == ["epoch", "loss", "kNN", "rank", "seconds"]
    assert lines[1].split() == ["1/12", "4.0000", "0.500", "12.3", "44.5"]
    assert len(lines) == 13
    assert len({len(line) for line in lines}) == 1


def test_how_long_it_takes_is_said_once_and_without_the_compilation(monkeypatch, capsys):
    watched(monkeypatch, bar=False)
    said = capsys.readouterr().out
    assert said.count("A step takes") == 1
    assert "A step takes 500 ms: about 26 s to go" in said, "of 60 steps, after 9"
    assert said.index("A step takes") < said.index("epoch ")


def test_the_line_is_empty_at_no_time_between_two_epochs(monkeypatch, capsys):
    watched(monkeypatch, bar=True)
    said = capsys.readouterr().out
    for epoch in (1, 2):
        after = said.split(f"  {epoch}/3  ")[1]
        line = after.partition("\n")[2]
        assert line.startswith(f"\repoch {epoch + 1}/3 …"), "until the first batch of the next"
    assert "4/3" not in said
    watched(monkeypatch, bar=False)
    assert "…" not in capsys.readouterr().out, "where there is no terminal nothing is written over"


def test_a_run_that_ends_early_leaves_no_line_of_an_epoch_that_never_began(monkeypatch, capsys):
    watch = watched(monkeypatch, bar=True)
    watch.on_epoch_begin(0)
    watch.on_epoch_end(0, {"loss": 4.0})
    capsys.readouterr()
    watch.on_train_end()
    assert re.fullmatch(r"\r +\r", capsys.readouterr().out)


def test_the_bar_fits_and_shows_no_term_twice(monkeypatch, capsys):
    watched(monkeypatch, bar=True)
    said = capsys.readouterr().out
    assert too_wide(said) == []
    assert "compiling…" in said
    assert "epoch 2/3  [========........] 10/20  loss 4.0000  15 s left" in said
    assert "1/20  loss 4.0000  contrastive_accuracy 0.25" in said, "where there is room"
    assert "nt_xent" not in said
    watched(monkeypatch, bar=True, terms=("nt_xent", "koleo"))
    assert "loss 4.0000  nt_xent 4 " in capsys.readouterr().out, "one of two terms is not the loss"


def test_the_time_left_counts_steps_and_measures(monkeypatch, capsys):
    watched(monkeypatch, bar=True)
    lefts = re.findall(r"epoch 3/3  \[.*?(\d+ s) left", capsys.readouterr().out)
    assert lefts[0] == "14 s", "19 steps of half a second, and 5 seconds of measures"
    assert lefts[-1] == "5 s"


def test_the_epochs_before_a_resumed_run_are_rows_too(monkeypatch, capsys):
    earlier = types.SimpleNamespace(history={"loss": [5.0, 4.5], "knn_accuracy": [0.1, 0.2], "rank_me": [3.0, 4.0]})
    watched(monkeypatch, bar=False, earlier=earlier)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["1/3", "5.0000", "0.100", "3.0", "before"]
    assert lines[2].split()[1] == "4.5000"


# After it.


def test_a_run_ends_with_a_verdict_and_commands_that_parse(run, capsys):
    folder, said = run
    assert re.search(r"\nVerdict: (Not better|[+−]\d)", said)
    assert said.index("Verdict: ") < said.index("drawing the page") < said.index("next, for example:")
    commands = said.split("next, for example:\n")[1].replace("\\\n", " ").strip().splitlines()
    # Where nothing became better, more epochs come first.
    no_better = re.search(r"\nVerdict: (Not better|−)", said)
    expected = ["pretrain", "finetune", "search"] if no_better else ["finetune", "search", "compare"]
    assert [shlex.split(command)[1] for command in commands] == expected
    for command in commands:
        _, name, *flags = shlex.split(command)
        assert name == "pretrain" or str(folder) in command
        module = __import__(f"keras_ssl.cli.{name}", fromlist=["FLAGS"])
        module.FLAGS.unparse_flags()
        assert module.FLAGS([name, *flags])[1:] == [], "all are flags"
        module.check(module.FLAGS)


def test_without_labels_the_next_command_is_to_choose_some(photos, tmp_path):
    from keras_ssl.cli import pretrain, results

    data = keras_ssl.data.load(photos / "boots", image_size=16)
    pretrain.FLAGS.unparse_flags()
    pretrain.FLAGS(["pretrain", "--method=mine:Mine", f"--data={photos}"])
    commands = results.next_commands(RunFolder(tmp_path / "a run"), data, pretrain.FLAGS)
    assert [command[0] for command in commands] == ["keras-ssl select", "keras-ssl search", "keras-ssl report"]
    assert commands[0][1] == f"'--run={tmp_path}/a run'".replace("'--run=", "--run='"), "as a shell takes it"


def test_where_training_made_nothing_better_more_epochs_come_first(run, photos):
    from keras_ssl.cli import pretrain, results
    from keras_ssl.evaluate.verdict import Verdict

    data = keras_ssl.data.load(photos, image_size=16)
    folder = RunFolder(run[0])
    pretrain.FLAGS.unparse_flags()
    pretrain.FLAGS(["pretrain", f"--data={photos}"])
    first = {}
    for kind in ("much better", "a little", "no better", "worse"):
        said = Verdict(kind, "", 0.0, "raw pixels", "linear, all")
        first[kind] = results.next_commands(folder, data, pretrain.FLAGS, said)[0]
    assert first["much better"] == first["a little"] != first["worse"] == first["no better"]
    assert first["a little"][0] == "keras-ssl finetune"
    said = Verdict("a little", "", 0.0, "raw pixels", "linear, all")
    assert results.next_commands(folder, data, pretrain.FLAGS, said)[-1] == first["worse"], "as the verdict advises"
    assert first["worse"][0] == "keras-ssl pretrain"
    assert first["worse"][-1] == f"--epochs={3 * folder.settings['used']['epochs']}"
    assert f"--data={photos}" in first["worse"]
    assert sum(word.startswith("--epochs") for word in first["worse"]) == 1


@pytest.mark.parametrize(
    ("flag", "words"), [("--epochs=two", "must be a whole number"), ("--learning_rate=x", "must be a number")]
)
def test_a_word_in_the_place_of_a_number_is_answered_in_english(flag, words, capsys):
    assert main(["pretrain", flag]) == 2
    assert f"{flag}: it {words}. See" in capsys.readouterr().err


def test_the_files_that_are_held_out_are_listed(run, photos):
    lines = (run[0] / "held_out.csv").read_text().splitlines()
    assert lines[0] == "file,label"
    assert len(lines) == 1 + 18
    for line in lines[1:]:
        file, label = line.split(",")
        assert os.path.basename(os.path.dirname(file)) == label
        assert os.path.exists(file)


def test_ctrl_c_after_training_says_what_is_there_and_what_makes_the_rest(run, tmp_path, monkeypatch):
    from keras_ssl.cli import experiment, pretrain, results

    def stop(*_, **__):
        raise KeyboardInterrupt

    folder = RunFolder(tmp_path / "run")
    shutil.copytree(run[0], folder.path)
    folder.table.unlink()
    settings = types.SimpleNamespace(backbone="resnet8", seed=0)
    monkeypatch.setattr(experiment, "probes", stop)
    with pytest.raises(
        Interrupted, match=r"before the table(.|\n)*backbone\.keras(.|\n)*keras-ssl report --run=.*/run$"
    ):
        pretrain._keep_references(folder, None, None, settings)
    monkeypatch.setattr(experiment, "table", stop)
    with pytest.raises(Interrupted, match=r"in the table(.|\n)*backbone\.keras(.|\n)*keras-ssl report --run=.*/run$"):
        results.make_table(folder, None, None, None, "nothing", settings)
    monkeypatch.setattr(results.report, "write", stop)
    with pytest.raises(Interrupted, match=r"in the page; the trained model is(.|\n)*keras-ssl report --run=.*/run$"):
        results.draw_page(folder, None, None, None, "nothing")


@pytest.mark.slow
def test_report_makes_the_table_that_is_missing(run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    kept = json.loads((folder / "table.json").read_text())
    for name in ("table.json", "report.html"):
        (folder / name).unlink()
    assert main(["report", f"--run={folder}"]) == 0
    made = json.loads((folder / "table.json").read_text())
    for name, cells in kept.items():
        for column, values in cells.items():
            assert made[name][column] == pytest.approx(values, abs=0.06), (name, column)
    assert (folder / "report.html").exists()
    assert "Verdict: " in capsys.readouterr().out


# Flags, one by one: what each changes, without training.


def begun(sample, *flags):
    """What a run with these flags would train: `(model, recipe)`."""
    from keras_ssl.cli import experiment, pretrain

    pretrain.FLAGS.unparse_flags()
    pretrain.FLAGS(["pretrain", "--batch_size=16", "--epochs=2", *flags])
    settings = pretrain.FLAGS
    pretrain.check(settings)
    data = keras_ssl.data.Data(keras_ssl.data.Split(sample.train.images[:64], sample.train.labels[:64]))
    model, _, chosen = experiment.begin(experiment.method_by_name(settings.method), data, settings)
    return model, chosen


def test_rates_are_those_that_were_given_and_the_schedule_stays(sample):
    model, chosen = begun(sample, "--learning_rate=0.004", "--weight_decay=0")
    own, its = begun(sample)
    assert chosen.learning_rate == 0.004 != its.learning_rate
    schedule = model.optimizer.get_config()["learning_rate"]["config"]
    assert (schedule["warmup_target"], schedule["decay_steps"]) == (0.004, 7)
    assert (model.optimizer.weight_decay, own.optimizer.weight_decay) == (0.0, 1e-4)
    sources = {name: source for name, _, source in chosen.entries()}
    assert (sources["learning rate"], sources["weight decay"]) == ("given", "given")


def test_a_rate_of_ones_own_fits_ones_own_optimizer(sample, recwarn):
    model, _ = begun(sample, "--optimizer=sgd", "--learning_rate=0.1", "--weight_decay=0.001")
    assert type(model.optimizer).__name__ == "SGD"
    assert model.optimizer.weight_decay == 0.001
    assert not [one for one in recwarn if "a rate fits one optimizer" in str(one.message)]


@pytest.mark.papers_views
def test_views_are_the_policys_at_its_strength(sample):
    def jitter(model):
        layers = model.views.branches[0]
        return next(layer.brightness for layer in layers if type(layer).__name__ == "RandomColorJitter")

    strong, weak = (begun(sample, f"--views=simclr,strength={strength}")[0] for strength in (1.0, 0.25))
    assert jitter(strong) != jitter(weak)
    assert begun(sample, "--views=byol")[1].config["views"] == "byol"
    assert len(begun(sample)[0].views.branches[0]) == 4, "the method's own: small_gray"


def test_views_of_several_sizes_get_a_backbone_of_open_size(sample):
    flags = ["--method=dino", "--method_args=prototypes=16"]
    model, _ = begun(sample, *flags, "--views=dino,locals=2")
    assert model.backbone.input_shape == (None, None, None, 1)
    assert len(model.views.branches) == 4
    assert begun(sample, *flags)[0].backbone.input_shape == (None, 28, 28, 1)


def test_arguments_of_the_method_reach_it(sample):
    given = "temperature=0.3,one_pass=False,memory=64,projector=keras_ssl.heads.mlp([24])"
    model, chosen = begun(sample, f"--method_args={given}")
    assert (model.temperature, model.one_pass, model.memory) == (0.3, False, 64)
    assert model.project(sample.train.images[:2].astype("float32"), training=False).shape == (2, 24)
    assert json.loads(json.dumps(chosen.config))["arguments"]["projector"] == "keras_ssl.heads.mlp([24])"
    made, again = (chosen.arguments["projector"] for _ in range(2))
    assert made is not again, "two models must not share a head"


def test_the_loss_itself_can_be_named(sample):
    assert begun(sample, "--method_args=contrast=keras_ssl.losses.dcl")[0].contrast is keras_ssl.losses.dcl


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_half_precision_is_that_of_the_network_alone(sample, name):
    before = keras.config.dtype_policy().name
    model, _ = begun(sample, f"--mixed_precision={name}")
    assert (model.backbone.compute_dtype, model.backbone.variable_dtype) == (name, "float32")
    assert model.compute_dtype == name
    assert keras.config.dtype_policy().name == before
    assert begun(sample)[0].backbone.compute_dtype == "float32"


def test_half_precision_is_refused_for_a_saved_backbone(sample, tmp_path):
    tiny_backbone((28, 28, 1)).save(tmp_path / "b.keras")
    with pytest.raises(ValueError, match=r"--mixed_precision=bfloat16: .* computes in float32, as it was saved"):
        begun(sample, f"--backbone={tmp_path / 'b.keras'}", "--mixed_precision=bfloat16")


def test_micro_batches_are_compiled_in(sample):
    assert begun(sample, "--micro_batch_size=8")[0].micro_batch_size == 8


def test_val_says_how_many_are_held_out(photos):
    from keras_ssl.cli import experiment

    data = keras_ssl.data.load(photos)
    sizes = {val: len(experiment.hold_out(data, 0, val)[0].test) for val in (None, "0.1", "0.5", "30")}
    assert sizes == {None: 18, "0.1": 9, "0.5": 45, "30": 30}
    with pytest.raises(ValueError, match=r"--val=90: 90 images have a label, and 81 of them .* --val=81"):
        experiment.hold_out(data, 0, "90")
    with pytest.raises(ValueError, match=r"--val=0\.1: these images have a test split of their own"):
        experiment.hold_out(keras_ssl.data.load("fashion_mnist_sample"), 0, "0.1")


def test_what_a_run_held_out_by_val_stays_held_out(run, tmp_path):
    from keras_ssl.cli.trained import TrainedBackbone

    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    settings = json.loads((folder / "settings.json").read_text())
    settings.update(val="30", training_images=[60, 16, 16, 1])
    del settings["fingerprint"]
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "held_out.csv").unlink()  # as of arrays, where the draw is repeated
    asked = types.SimpleNamespace(run=str(folder), backbone=None, data=None)
    used = TrainedBackbone(asked)
    used.check_data(asked)
    _, loaded = used.load().load_images(asked)
    assert len(used.hold_out(asked, loaded)[0].test) == 30


def test_a_name_is_that_of_the_folder(monkeypatch, tmp_path):
    from keras_ssl.cli import pretrain

    monkeypatch.chdir(tmp_path)
    pretrain.FLAGS.unparse_flags()
    pretrain.FLAGS(["pretrain", "--name=first"])
    assert pretrain.check(pretrain.FLAGS)[0].path.as_posix() == "runs/first"
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "a").write_text("")
    with pytest.raises(FileExistsError, match=r"not empty.*--overwrite"):
        pretrain.check(pretrain.FLAGS)
    # A run that can be continued is not thrown away by who repeats its command.
    RunFolder("runs/first").state.write_text("")
    with pytest.raises(FileExistsError, match="keras-ssl pretrain --resume=runs/first"):
        pretrain.check(pretrain.FLAGS)


def test_a_run_that_was_stopped_before_its_first_step_leaves_nothing(tmp_path):
    folder = RunFolder(tmp_path)
    for file in (folder.settings_file, folder.held_out, folder.left_out):
        file.write_text("{}")
    folder.withdraw()
    assert not any(tmp_path.iterdir())


OWN = """
import keras, keras_ssl

@keras.saving.register_keras_serializable("mine")
class MyOwn(keras_ssl.SimCLR):
    "Mine."

class NoMethod:
    pass
"""


def test_ones_own_method_is_named_by_module_and_class(sample, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_methods.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    model, chosen = begun(sample, "--method=my_methods:MyOwn", "--method_args=temperature=0.7")
    assert type(model).__name__ == "MyOwn"
    assert model.temperature == 0.7
    assert chosen.source == "small"
    assert main(["methods", "--method=my_methods:MyOwn"]) == 0
    assert "temperature=0.1" in capsys.readouterr().out
    for name, words_ in (("NoMethod", "MyOwn"), ("MyOwm", 'Did you mean "MyOwn"')):
        assert main(["pretrain", f"--method=my_methods:{name}"]) == 1
        assert words_ in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--learning_rate=0"], r"--learning_rate=0: write a number above 0"),
        (["--micro_batch_size=48"], r"--micro_batch_size=48 does not divide --batch_size=128: give 32"),
        (["--views=simcrl"], r'--views: there is no policy "simcrl"\. Did you mean "simclr"'),
        (["--views=strength=0.5"], r"--views=strength=0\.5: write a policy"),
        (["--views=byol,strength=0.5"], r'--views: the policy byol has no argument "strength"\. .*scale'),
        (["--views=simclr,strength=much"], r"--views=simclr,strength=much: it takes a number; the default is 1\.0"),
        (["--method=rotation", "--views=simclr"], r"--views=simclr: Rotation takes 1 view"),
        (["--method_args=temprature=0.2"], r'--method_args: SimCLR has no argument "temprature".*"temperature"'),
        (["--method_args=temperature"], r"--method_args=temperature: write name=value"),
        (["--method_args=temperature=hot"], r"--method_args=temperature=hot: it takes a number; the default is 0\.1"),
        (["--method_args=temperature=-1"], r"--method_args=temperature=-1: SimCLR: `temperature`"),
        (["--method_args=one_pass=1"], r"--method_args=one_pass=1: it takes True or False"),
        (["--method_args=views=simclr"], r"--method_args=views=…: --views sets it"),
        (["--method_args=contrast=keras_ssl.losses.nothing"], r"there is no keras_ssl\.losses\.nothing"),
        (["--val=2.5"], r"--val=2\.5: write a share"),
        (["--val=0.1"], r"test split of their own"),
        (["--name=a/b"], r"--name='a/b': write a name without slashes"),
        (["--name=a", "--output=b"], r"--name=a and --output=b both name the folder"),
        (["--method=nowhere:Mine"], r"there is no module nowhere here"),
        (["--method=no where:Mine"], r"write package\.module:Class"),
    ],
)
def test_a_bad_value_is_refused_before_work_starts(flags, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", *flags]) == 1
    printed = capsys.readouterr()
    assert re.search(said, printed.err), printed.err
    assert printed.err.count("\n") == 1
    assert "compiling" not in printed.out
    assert list(tmp_path.iterdir()) == [], "nothing is written"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["pretrain", "--lr=0.1"], '"--learning_rate"'),
        (["pretrain", "--epoch=3"], '"--epochs"'),
        (["pretrain", "--batch-size=3"], "--batch_size"),
        (["pretrain", "--temperature=0.2"], "--method_args=temperature"),
        (["pretrain", "--zzz"], "Known: --"),
        (["pretrain", "emoji"], "--data=emoji"),
        (["methods", "simclr"], "--method=simclr"),
        (["compare", "simclr,byol"], "--methods=simclr,byol"),
        (["evaluate", "{run}"], "--run={run}"),
        (["pretrain", "{run}"], "--resume={run}"),
        (["search", "{picture}"], "--query={picture}"),
    ],
)
def test_the_flag_that_was_meant_is_named(call, said, run, photos, capsys):
    places = {"run": str(run[0]), "picture": str(photos / "boots" / "1.png")}
    assert main([part.format(**places) for part in call]) == 2
    assert said.format(**places) in capsys.readouterr().err


def test_a_resumed_run_keeps_its_flags(tmp_path):
    from keras_ssl.cli import pretrain

    kept = {"views": "simclr,strength=0.5", "learning_rate": 0.1, "val": "0.1", "mixed_precision": "none"}
    (tmp_path / "settings.json").write_text(json.dumps({"data": "fashion_mnist_sample", **kept}))
    (tmp_path / "state.npz").write_text("")

    def checked(*flags):
        pretrain.FLAGS.unparse_flags()
        pretrain.FLAGS(["pretrain", f"--resume={tmp_path}", *flags])
        pretrain.check(pretrain.FLAGS)
        return pretrain.FLAGS

    assert {name: checked()[name].value for name in kept} == kept
    with pytest.raises(ValueError, match=r"--views=byol contradicts --resume=.*simclr,strength=0\.5"):
        checked("--views=byol")
    with pytest.raises(ValueError, match=r"--learning_rate=0\.2 contradicts"):
        checked("--learning_rate=0.2")


# methods, and search --copies.


def test_a_method_is_described_in_plain_words_with_its_flags(capsys):
    assert main(["methods", "--method=simclr"]) == 0
    said = capsys.readouterr().out
    assert "Args:" not in said
    assert "`" not in said
    assert "  temperature=0.1\n" in said
    assert "  contrast=keras_ssl.losses.nt_xent\n" in said, "as the flag takes it"
    assert "  backbone=" not in said
    assert "keras-ssl pretrain --method=simclr --method_args=temperature=0.1" in said


def test_every_method_is_described_in_plain_words():
    from keras_ssl.cli.method_words import METHODS

    assert set(METHODS) == {name.lower() for name in keras_ssl.names.METHODS}
    for name, (short, long) in METHODS.items():
        assert len(name.ljust(13) + "  " + short) <= WIDTH, name
        assert long.endswith(".")
    for name in keras_ssl.names.METHODS:
        known = choices.parameters(getattr(keras_ssl, name))
        assert not {"self", "backbone", "views", "kwargs", "seed"} & set(known)


def test_copies_are_groups_by_size_with_names_cosine_and_a_sheet(tmp_path, capsys, recwarn):
    from keras_ssl.cli import search

    draws = np.random.default_rng(0)
    features = draws.normal(size=(30, 8))
    features[[3, 4]] = features[3]
    features[10:15] = features[10] + 0.01 * draws.normal(size=(5, 8))
    images, paths = draws.integers(0, 255, (30, 8, 8, 1), "uint8"), [f"{row}.png" for row in range(30)]
    told = search._copies(features, images, paths, 0.99, tmp_path / "sheet.png")
    said = capsys.readouterr().out
    assert [len(group) for group in told["groups"]] == [5, 2]
    assert "2 groups of near copies" in said
    assert re.search(r"  5 images, cosine [\d. to]+\n    10\.png\n    11\.png\n    12\.png\n    and 2 more", said)
    assert told["similarity"][0][0] > 0.99
    assert "  2 images, cosine 1.0000\n    3.png\n    4.png" in said
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert "One group has 5 of the 30 images" in str(recwarn.pop(UserWarning).message)
    assert "--copies=0.995" in str(search._higher(0.99))


def test_a_small_group_is_no_reason_to_warn(tmp_path, recwarn):
    from keras_ssl.cli import search

    features = np.random.default_rng(0).normal(size=(30, 8))
    features[[3, 4]] = features[3]
    search._copies(features, np.zeros((30, 8, 8, 1), "uint8"), list(range(30)), 0.99, tmp_path / "sheet.png")
    assert not [one for one in recwarn if "One group" in str(one.message)]


def test_the_sheet_of_copies_has_a_name_that_is_free(run, tmp_path):
    from keras_ssl.cli import search

    (tmp_path / "copies-1.png").write_text("")
    assert search._next_free(tmp_path).name == "copies-2.png"
