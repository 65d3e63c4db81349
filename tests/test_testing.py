"""What the checks say: verdicts, lines, tables and exit codes. That methods pass them is in test_methods.py."""

import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import strangers
from conftest import tiny_backbone
from methods_under_test import METHODS
from test_methods import broken

from keras_ssl import testing
from keras_ssl.testing import CheckReport, CheckResult, check_method, checks, everywhere, runs

BACKEND = keras.backend.backend()


# Verdicts.


def found(one, other, rounding, **options):
    """The verdict of two runs: `weights` as an array, and `loss` as logged."""
    make = lambda weights, loss=1.0: runs.TrainedRun(None, {"loss": [loss]}, list(weights))  # noqa: E731
    with pytest.raises(runs.Differs) as error:
        runs.same_run(make(*one), make(*other), "two runs", **options)
    return runs.verdict_of(error.value, lambda: {"weights": rounding, "loss": rounding})


ZEROS, STEP = np.zeros(3, "float32"), np.array(10)


@pytest.mark.parametrize(
    ("difference", "rounding", "verdict"),
    [
        (1.06e-5, 8.6e-5, "inconclusive"),
        (2e-4, 8.6e-5, "inconclusive"),
        (3e-4, 8.6e-5, "failed"),
        (2e-5, 9e-6, "failed"),  # a smooth network excuses nothing
        (1.1e-5, 1e-7, "failed"),
        (np.nan, 8.6e-5, "failed"),
        (1e-4, np.inf, "failed"),
        (1e-4, np.nan, "failed"),
    ],
)
def test_a_difference_is_inconclusive_where_rounding_alone_makes_one_of_its_size(difference, rounding, verdict):
    assert found(([ZEROS + difference],), ([ZEROS],), rounding)[0] == verdict


def test_the_largest_difference_decides_and_not_the_first():
    verdict, detail = found(([ZEROS + 2e-5, ZEROS + 0.5],), ([ZEROS, ZEROS],), 8.6e-5)
    assert verdict == "failed"
    assert "variable 1 " in detail
    assert found(([ZEROS + 2e-5], 1.5), ([ZEROS], 1.0), 8.6e-5)[0] == "failed", "what is logged is compared with it"


@pytest.mark.parametrize(("difference", "verdict"), [(4e-2, "inconclusive"), (0.5, "failed")])
def test_a_log_may_move_as_far_as_rounding_moves_anything(difference, verdict):
    """A log's own figure is the largest of three runs, which one more run may well exceed."""
    with pytest.raises(runs.Differs) as error:
        runs.same_run(*(runs.TrainedRun(None, {"loss": [loss]}, [ZEROS]) for loss in (difference, 0.0)), "two runs")
    assert runs.verdict_of(error.value, lambda: {"weights": 0.13, "loss": 1.3e-2})[0] == verdict


def test_rounding_moves_no_counter():
    verdict, _ = found(([ZEROS + 2e-5, STEP + 1],), ([ZEROS, STEP],), 1.0)
    assert verdict == "failed"


def test_what_is_no_run_is_not_excused_by_rounding():
    measured = []
    for compare in (runs.same_arrays, lambda one, other, what: runs.same_values(one[0], other[0], what)):
        with pytest.raises(runs.Differs) as error:
            compare([ZEROS + 2e-5], [ZEROS], "features")
        assert runs.verdict_of(error.value, lambda: measured.append(1))[0] == "failed"
    assert not measured, "nor is it measured"


def test_rounding_is_small_on_the_network_that_is_advised():
    case = runs.MethodUnderTest(METHODS["Siamese"])
    initial = [value.copy() for value in case.trained() and case.initial]
    moved = case.rounding()
    assert set(moved) == {"weights", *case.trained().history}
    assert 0 < moved["weights"] < runs.TOLERANCE
    for value, before in zip(case.initial, initial):
        np.testing.assert_array_equal(value, before)


# What check_method says.


def two_faults():
    def compute_loss(self, *args, **kwargs):
        return 2.0 * type(self).__mro__[2].compute_loss(self, *args, **kwargs)

    def get_config(self):
        return {**type(self).__mro__[2].get_config(self), "strength": 1.0}

    return broken(compute_loss=compute_loss, get_config=get_config)


def test_all_checks_run_though_one_fails_and_the_error_lists_all_that_failed(capsys):
    only = ["arguments_are_attributes", "loss_is_the_sum_of_its_terms", "step_counts_batches"]
    with pytest.raises(AssertionError, match="fails 2 checks") as error:
        check_method(two_faults(), only=only)
    assert "strength" in str(error.value)
    assert "sum of its terms" in str(error.value)
    assert isinstance(error.value.__cause__, AssertionError), "the first failure, with its traceback"
    printed = capsys.readouterr().out
    assert f"Broken on {BACKEND}: step_counts_batches: passed" in printed, "a line for each"
    assert printed.count("loss_is_the_sum_of_its_terms") == 3, "its line, the table, and what differs"


def test_a_line_is_printed_when_its_check_is_done(monkeypatch):
    order = []
    monkeypatch.setattr(checks, "CHECKS", {name: lambda case, name=name: order.append(name) for name in ("a", "b")})
    checks.run_checks(runs.MethodUnderTest(METHODS["Siamese"]), None, order.append)
    assert [each.split(": ")[1] if ":" in each else each for each in order] == ["a", "a", "b", "b"]
    assert order[1].endswith("passed (0.0 s)")


def test_quiet_is_quiet(capsys):
    report = check_method(METHODS["Siamese"], only=["arguments_are_attributes"], verbose=False)
    assert capsys.readouterr().out == ""
    assert report.passed == ["arguments_are_attributes"]
    assert str(report).splitlines()[0] == "Siamese: 1 passed"


def test_what_a_method_cannot_do_fails_its_check_and_is_tried_once(monkeypatch):
    tries = []

    def fit(self, *args, **kwargs):
        tries.append(1)
        raise RuntimeError("no steps today")

    with pytest.raises(AssertionError, match="RuntimeError: no steps today") as error:
        check_method(broken(fit=fit), only=["features_are_the_backbones", "step_counts_batches"], verbose=False)
    assert "fails 2 checks" in str(error.value)
    assert len(tries) == 1


def test_an_inconclusive_check_has_not_passed(monkeypatch):
    def rough(case):
        raise runs.Differs("two runs differ by 1.06e-05 (allowed: 1e-05)", [("weights", 1.06e-5)])

    monkeypatch.setattr(checks, "CHECKS", {"jit_compiled": rough})
    monkeypatch.setattr(runs.MethodUnderTest, "rounding", lambda self: {"weights": 8.6e-5})
    with pytest.warns(UserWarning, match=r"1 checks are inconclusive, which is not passed") as warned:
        report = check_method(METHODS["Siamese"], verbose=False)
    assert __file__ in [each.filename for each in warned if "inconclusive" in str(each.message)]
    assert report.passed == []
    assert not report.failed
    assert (
        "rounding alone moves a run of this network by 8.6e-05: take a smoother" in report.inconclusive["jit_compiled"]
    )
    assert "inconclusive" in str(report)


def test_a_name_of_a_check_that_there_is_not_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match='Did you mean "jit_compiled"'):
        check_method(METHODS["Siamese"], only=["jit_compile"])
    with pytest.raises(ValueError, match="There are: arguments_are_attributes"):
        check_method(METHODS["Siamese"], only=["xyz"])
    with pytest.raises(ValueError, match=r"only=\['learns'\]"):
        check_method(METHODS["Siamese"], only="learns")


def test_checks_keep_their_names():
    assert list(testing.CHECKS) == [
        "arguments_are_attributes",
        "features_are_the_backbones",
        "loss_is_the_sum_of_its_terms",
        "same_seed_same_run",
        "step_counts_batches",
        "evaluation_repeats",
        "steps_per_execution",
        "jit_compiled",
        "two_replicas",
        "four_replicas",
        "micro_batches",
        "accumulation_refused",
        "saves_and_goes_on",
        "learns",
    ]


# The command.


@pytest.fixture
def all_installed(monkeypatch):
    monkeypatch.setattr(everywhere, "not_installed", lambda backends: [])


class Pretended(everywhere.Everywhere):
    """The command without its processes: what each would find is given."""

    verdicts = {}

    def child(self, backend, role, specs=None):
        for spec in self.folders:
            for check in self.only if role == "checks" else ():
                verdict = self.verdicts.get(check, "passed")
                self.add(spec, backend, CheckResult(check, verdict, "" if verdict == "passed" else "by 1e-3", 1.5))


@pytest.mark.parametrize(
    ("verdicts", "code", "sentence"),
    [
        ({}, 0, "all checks passed"),
        ({"learns": "skipped"}, 0, "all checks passed"),
        ({"jit_compiled": "inconclusive"}, 3, "no check failed, but 3 are inconclusive, which is not passed"),
        ({"jit_compiled": "inconclusive", "learns": "failed"}, 1, "failed: m:make on jax: learns: by 1e-3"),
    ],
)
def test_the_command_ends_with_a_table_and_a_code_that_is_zero_only_where_all_passed(
    monkeypatch, all_installed, capsys, verdicts, code, sentence
):
    monkeypatch.setattr(everywhere, "Everywhere", Pretended)
    monkeypatch.setattr(Pretended, "verdicts", verdicts)
    assert everywhere.main(["m:make", "--only=learns,jit_compiled"]) == code
    out, err = capsys.readouterr()
    assert sentence in out
    assert ("all checks passed" in out) == (code == 0)
    assert ("failed: 3 checks failed" in err) == (code == 1)
    rows = [line.split() for line in out.splitlines() if line.startswith(("check ", "learns ", "jit_compiled "))]
    assert rows[0] == ["check", *everywhere.BACKENDS]
    assert rows[1][:2] == ["learns", verdicts.get("learns", "passed")]


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [("--only=two_worker", 'Did you mean "two_workers"'), ("--backends=tensorflow,mxnet", "no backend 'mxnet'")],
)
def test_a_wrong_flag_is_answered_before_anything_starts(flag, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        everywhere.main(["m:make", flag])
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("missing", "backends", "sentences"),
    [
        (["torch"], "torch", "torch is not installed: pip install '.[torch]'"),
        (["jax"], "tensorflow,jax", "jax is not installed: pip install '.[jax]'"),
        (
            ["jax", "torch"],
            "tensorflow,jax,torch",
            "jax is not installed: pip install '.[jax]'; torch is not installed: pip install '.[torch]'",
        ),
    ],
)
def test_a_backend_that_is_not_installed_is_said_before_anything_starts(
    missing, backends, sentences, monkeypatch, capsys
):
    def started(*_):
        raise AssertionError("nothing may be run")

    monkeypatch.setattr(everywhere.Everywhere, "check_backend", started)
    monkeypatch.setattr(everywhere.importlib.util, "find_spec", lambda name: None if name in missing else object())
    assert everywhere.main(["m:make", f"--backends={backends}"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", sentences + "\n")


def test_a_process_that_died_is_a_failure_of_the_methods_it_did_not_get_to(tmp_path, monkeypatch):
    run = everywhere.Everywhere(["m:one", "m:two"], tmp_path, echo=lambda line: None)
    fields = [{"check": "learns", "verdict": "passed", "detail": "", "seconds": 1.0}]
    (tmp_path / "0" / "jax.checks.json").write_text(json.dumps(fields))
    monkeypatch.setattr(everywhere.sys, "executable", "/bin/false")
    run.child("jax", "checks")
    assert [result.verdict for result in run.results["m:one", "jax"]] == ["passed"]
    assert run.results["m:two", "jax"][0].check == "process of checks"
    assert run.results["m:two", "jax"][0].verdict == "failed"
    run.compare_backends("torch", "jax")
    assert run.results["m:two", "torch"][0].detail == "there is no run to compare"


def test_backends_that_differ_fail_unless_rounding_does_it(tmp_path, monkeypatch):
    run = everywhere.Everywhere(["m:one"], tmp_path, echo=lambda line: None)
    for name, weights in (("tensorflow", ZEROS), ("jax", ZEROS + 2e-5)):
        everywhere.write_run(tmp_path / "0" / f"{name}.npz", runs.TrainedRun(None, {"loss": [1.0, 0.5]}, [weights]))
    for moved, verdict in ((1e-7, "failed"), (5e-5, "inconclusive")):
        monkeypatch.setattr(run, "rounding", lambda spec, backend, moved=moved: {"weights": moved, "loss": moved})
        run.compare_backends("jax", "tensorflow")
        assert run.results["m:one", "jax"][-1].verdict == verdict
    assert run.with_verdict("inconclusive")[0].startswith("m:one on jax: same_on_backends: weights after 10 steps")


def test_backends_may_be_given_checks_of_their_own(monkeypatch, all_installed):
    asked = []
    monkeypatch.setattr(everywhere.Everywhere, "check_backend", lambda self, name: asked.append((name, self.only)))
    monkeypatch.setattr(everywhere.Everywhere, "compare_backends", lambda self, name, first: asked.append(self.only))
    everywhere.check_everywhere("m:one", ("tensorflow", "jax"), {"jax": ["learns"]}, echo=lambda line: None)
    assert asked == [("tensorflow", everywhere.ALL_CHECKS), ("jax", ["learns"]), ["learns"]]
    with pytest.raises(ValueError, match='Did you mean "learns"'):
        everywhere.check_everywhere("m:one", only={"jax": ["learn"]})
    with pytest.raises(ValueError, match="no backend 'jacks'"):
        everywhere.check_everywhere("m:one", only={"jacks": ["learns"]})


def test_a_run_is_kept_and_read_as_it_was(tmp_path):
    weights = [np.full(number + 1, number, "float32") for number in range(12)]
    everywhere.write_run(tmp_path / "run.npz", runs.TrainedRun(None, {"loss": [2.0, 1.0], "a/b": [0.5, 0.25]}, weights))
    run = everywhere.read_run(tmp_path / "run.npz")
    runs.same_run(run, runs.TrainedRun(None, {"a/b": [0.5, 0.25], "loss": [2.0, 1.0]}, weights), "two", 0.0)


def test_reports_of_two_backends_are_one_table():
    report = CheckReport("M", [CheckResult("learns", "passed", "", 1.25), CheckResult("x", "skipped", "why")], "jax")
    assert str(report).splitlines() == [
        "M: 1 passed, 1 skipped",
        "check   jax",
        "learns  passed (1.2 s)",
        "x       skipped (0.0 s)",
        "skipped: x: why",
    ]


@pytest.mark.slow
def test_the_command_passes_on_lines_as_they_come_and_reports_an_error_of_one_method_alone(tmp_path):
    code = """
        import methods_under_test
        def broken():
            raise RuntimeError("no such thing")
        def fine():
            return methods_under_test.siamese()
    """
    (tmp_path / "mine.py").write_text(textwrap.dedent(code))
    tests = os.path.dirname(__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(tests), tests, str(tmp_path)])}
    command = [sys.executable, "-m", "keras_ssl.testing", "mine:broken", "mine:fine", f"--backends={BACKEND}"]
    command += ["--only=arguments_are_attributes,step_counts_batches"]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    first = process.stdout.readline()
    assert first == f"mine:broken on {BACKEND}: checks: failed\n"
    assert process.poll() is None, "the line came while the command was at work"
    out, err = process.communicate()
    assert process.returncode == 1, err
    assert f"mine:fine: Siamese on {BACKEND}: step_counts_batches: passed" in out
    assert f"mine:fine on {BACKEND}: 2 passed" in out
    assert "RuntimeError: no such thing" in out


# A stranger's method.


@pytest.mark.skipif(BACKEND != "tensorflow", reason="where compiling moves this network as far as rounding does")
@pytest.mark.slow
def test_a_strangers_vicreg_is_inconclusive_on_a_rough_network_and_passes_on_a_smooth_one():
    assert check_method(strangers.smooth, only=["jit_compiled"]).passed == ["jit_compiled"]
    with pytest.warns(UserWarning, match="1 checks are inconclusive"):
        report = check_method(strangers.rough, only=["jit_compiled"])
    assert "take a smoother network" in report.inconclusive["jit_compiled"]


def test_the_network_that_is_advised_takes_other_ranges():
    images = np.linspace(0.0, 1.0, 28 * 28, dtype="float32").reshape(1, 28, 28, 1)
    one = tiny_backbone(value_range=(0, 1))
    other = tiny_backbone()
    other.set_weights(one.get_weights())
    np.testing.assert_allclose(
        *(keras.ops.convert_to_numpy(model(x)) for model, x in ((one, images), (other, 255 * images))), atol=1e-6
    )
    assert one.output_shape == (None, 2, 2, 16)
