"""The whole contract, in processes of their own: each backend, several processes that train together, a fresh process.

For each backend one child runs the checks of one process on four devices and keeps its run; two workers train the same;
another child loads the saved model and continues. At the end the backends are compared with each other.
"""

import argparse
import functools
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import traceback

import keras
import numpy as np

from keras_ssl import distribute, workers
from keras_ssl.testing.checks import CHECKS, check_names, print_line, run_checks, timed
from keras_ssl.testing.reports import CheckResult, counts, table
from keras_ssl.testing.runs import MethodUnderTest, TrainedRun, same_arrays, same_run, same_weights

BACKENDS = ("tensorflow", "jax", "torch")
# What one process can't check. `only` names these as it names those of `check_method`.
TWO_WORKERS, LOADED_ELSEWHERE, SAME_ON_BACKENDS = "two_workers", "loaded_elsewhere", "same_on_backends"
ALL_CHECKS = (*CHECKS, TWO_WORKERS, LOADED_ELSEWHERE, SAME_ON_BACKENDS)
INCONCLUSIVE = 3  # exit code: nothing failed, and not all passed


def check_everywhere(specs, backends=BACKENDS, only=None, echo=print_line):
    """Checks methods on each backend, in processes of their own, and the backends against each other.

    All checks run, also after one fails. The last lines are a table per method, and what did not pass.

    Args:
        specs: `"package.module:make_model"`, or a list of them: a process is started once for all of them.
        backends: which.
        only: names of checks, or a dict of them by backend, where backends need different ones; None, and for a backend
            that the dict does not name, for all. Beside those of `check_method` there are "two_workers" (two processes
            train as one does), "loaded_elsewhere" (a saved model continues in a fresh process) and "same_on_backends".
        echo: is given each line of what is found, as soon as it is.

    Returns:
        What was found: `{(spec, backend): [CheckResult, …]}`. Results may be "inconclusive", which is not "passed".

    Raises:
        AssertionError: if checks fail, with all of them and what differs.
        ValueError: for an unknown name; ModuleNotFoundError: for a backend that is not installed. Both come before
            anything is run.
    """
    specs = list(dict.fromkeys([specs] if isinstance(specs, str) else specs))
    given = only if isinstance(only, dict) else dict.fromkeys(BACKENDS, only)
    for names in given.values():
        check_names(names, ALL_CHECKS)
    unknown = [name for name in [*backends, *given] if name not in BACKENDS]
    if unknown or not backends:
        raise ValueError(f"`backends`: there is no backend {', '.join(unknown)!r}. There are: {', '.join(BACKENDS)}.")
    missing = not_installed(backends)
    if missing:
        raise ModuleNotFoundError("; ".join(missing))
    checks = {name: ALL_CHECKS if given.get(name) is None else given[name] for name in backends}
    with tempfile.TemporaryDirectory() as folder:
        run = Everywhere(specs, folder, echo=echo)
        for backend in backends:
            run.only = checks[backend]
            run.check_backend(backend)
        for backend in backends[1:]:
            run.only = checks[backend]
            run.compare_backends(backend, backends[0])
    for line in run.summary(backends):
        echo(line)
    failed = run.with_verdict("failed")
    if failed:
        raise AssertionError(f"{len(failed)} checks failed:\n" + "\n".join(failed))
    return run.results


def not_installed(backends):
    """A sentence for each backend whose package is not here: its checks would fail, and the method be blamed."""
    # TensorFlow comes with the package itself, the others are extras of it.
    sources = {"tensorflow": "tensorflow", "jax": "'.[jax]'", "torch": "'.[torch]'"}
    missing = [name for name in backends if importlib.util.find_spec(name) is None]
    return [f"{name} is not installed: pip install {sources[name]}" for name in missing]


class Everywhere:
    """One run of the whole contract.

    Args:
        specs: `"package.module:make_model"` of each method.
        folder: for what processes leave each other; each method gets a folder in it.
        only: names of checks of the backend that is looked at.
        echo: is given lines.

    Attributes:
        results: `{(spec, backend): [CheckResult, …]}`.
    """

    def __init__(self, specs, folder, only=ALL_CHECKS, echo=print_line):
        self.folder, self.only, self.echo, self.results = pathlib.Path(folder), only, echo, {}
        self.folders = {spec: self.folder / str(number) for number, spec in enumerate(specs)}
        for each in self.folders.values():
            each.mkdir(exist_ok=True)

    def check_backend(self, backend):
        """All that one backend promises by itself."""
        self.child(backend, "checks")
        if TWO_WORKERS in self.only and backend in workers.BACKENDS:
            self.check_workers(backend)
        if LOADED_ELSEWHERE in self.only:
            self.child(backend, "load")

    def child(self, backend, role, specs=None):
        """Runs a role in a process of its own, passes its lines on as they come, and takes what it found."""
        specs = list(self.folders) if specs is None else specs
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
        environment = {**os.environ, "KERAS_BACKEND": backend, "XLA_FLAGS": flags.strip(), "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment["PYTHONPATH"] = os.pathsep.join([os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])])
        # The children compile the same small models again and again.
        environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(self.folder / "jax"))
        environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        environment.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
        command = [sys.executable, "-m", "keras_ssl.testing", *specs, "--role", role, "--only", ",".join(self.only)]
        command += ["--folders", *(str(self.folders[spec]) for spec in specs)]
        # What it writes to stderr is noise unless it fails, and a pipe that nobody reads would stop it.
        with tempfile.TemporaryFile("w+", errors="replace") as errors:
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
            for line in process.stdout:
                self.echo(line.rstrip())
            code = process.wait()
            errors.seek(0)
            end = errors.read()[-4000:]
        for spec in specs:
            file = _results_file(self.folders[spec], backend, role)
            if file.exists():
                for fields in json.loads(file.read_text(encoding="utf-8")):
                    self.add(spec, backend, CheckResult(**fields))
            else:
                self.add(spec, backend, CheckResult(f"process of {role}", "failed", f"it ended with {code}:\n{end}"))

    def check_workers(self, backend):
        """Two processes that train together give the weights and the logs of one."""
        specs = [spec for spec in self.folders if self._run_file(spec, backend).exists()]
        for spec in self.folders.keys() - set(specs):
            self.add(spec, backend, CheckResult(TWO_WORKERS, "failed", "there is no run to compare with"))
        if not specs:
            return
        initials = [read_arrays(self.folders[spec] / "initial.npz") for spec in specs]
        try:
            found = workers.run(f"{__name__}:train", backend, (specs, initials), seconds=300 + 60 * len(specs))
        except RuntimeError as error:
            for spec in specs:
                self.add(spec, backend, CheckResult(TWO_WORKERS, "failed", str(error)))
            return
        for spec, *pair in zip(specs, *found):
            pair = [TrainedRun(None, each["history"], each["weights"]) for each in pair]
            compare = functools.partial(_check_pair, *pair, read_run(self._run_file(spec, backend)))
            self.compare(TWO_WORKERS, spec, backend, compare)

    def compare_backends(self, backend, first):
        """The same run on two backends, random views included."""
        if SAME_ON_BACKENDS not in self.only:
            return
        for spec in self.folders:
            files = [self._run_file(spec, name) for name in (backend, first)]
            if not all(file.exists() for file in files):
                self.add(spec, backend, CheckResult(SAME_ON_BACKENDS, "failed", "there is no run to compare"))
                continue
            what = f"{backend} and {first}"
            self.compare(SAME_ON_BACKENDS, spec, backend, lambda: same_run(*map(read_run, files), what))  # noqa: B023

    def compare(self, check, spec, backend, function):
        """Takes what a comparison in this process finds; where runs differ, a child measures the rounding."""
        result = timed(check, function, lambda: self.rounding(spec, backend))
        self.echo(f"{spec} on {backend}: {check}: {result}")
        self.add(spec, backend, result)

    def rounding(self, spec, backend):
        """How far rounding alone moves a run of a method on a backend."""
        self.child(backend, "rounding", [spec])
        file = self.folders[spec] / f"{backend}.moved.json"
        # Where that process fails, which is a result of its own, nothing excuses the difference.
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"weights": float("nan")}

    def add(self, spec, backend, result):
        self.results.setdefault((spec, backend), []).append(result)

    def with_verdict(self, verdict):
        """A sentence for each check of that verdict."""
        return [
            f"{spec} on {backend}: {result.check}: {result.detail}"
            for (spec, backend), results in self.results.items()
            for result in results
            if result.verdict == verdict
        ]

    def summary(self, backends):
        """Lines: a table per method, and what did not pass."""
        for spec in self.folders:
            cells = {}
            for backend in backends:
                results = self.results.get((spec, backend), [])
                yield f"{spec} on {backend}: {counts(results)}"
                for result in results:
                    cells.setdefault(result.check, {})[backend] = result
            yield table(cells, backends)
        for verdict in ("skipped", "inconclusive", "failed"):
            yield from (f"{verdict}: {sentence}" for sentence in self.with_verdict(verdict))

    def _run_file(self, spec, backend):
        return self.folders[spec] / f"{backend}.npz"


def _check_pair(one, other, alone):
    """Two workers are equal to the last bit, and one process to the tolerance."""
    same_arrays(one.weights, other.weights, "the weights of two workers", tolerance=0.0)
    assert one.history == other.history, f"two workers log {one.history} and {other.history}"
    same_run(one, alone, "two workers and one process")


def train(specs, initials, options=None):
    """Runs of methods, in this process, under the strategy that is set: what each worker does.

    Args:
        specs: a list of `"package.module:make_model"`, or of the functions themselves.
        initials: for each the initial weights, a list of arrays in the order of `model.weights`; None for the model's
            own.
        options: `epochs`, of the runs; 2 unless given.

    Returns:
        A list of dicts: `weights`, `history`, and the `initial` weights.
    """
    results = []
    for spec, initial in zip(specs, initials):
        case = MethodUnderTest(workers.imported(spec) if isinstance(spec, str) else spec, initial=initial)
        done = case.train(**(options or {}))
        results.append({"weights": done.weights, "history": done.history, "initial": case.initial})
    return results


# What processes leave each other.


def write_run(path, run):
    """Keeps the weights and the logs of a `TrainedRun` in an `.npz` file."""
    weights = {f"weights/{number}": array for number, array in enumerate(run.weights)}
    np.savez(path, **weights, **{f"history/{name}": values for name, values in run.history.items()})


def read_run(path):
    """The `TrainedRun` of a file, without its model."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    history = {name.removeprefix("history/"): array for name, array in arrays.items() if name.startswith("history/")}
    return TrainedRun(None, history, [array for name, array in arrays.items() if name.startswith("weights/")])


def read_arrays(path):
    """The arrays of an `.npz` file, in their order."""
    with np.load(path, allow_pickle=False) as file:
        return [file[name] for name in file.files]


def _results_file(folder, backend, role):
    return folder / f"{backend}.{role}.json"


# What a child process does for one method: it returns results.


def _checks(spec, folder, only):
    """The checks of one process. What other processes are compared with is kept, and not trained again."""
    backend, shared = keras.backend.backend(), folder / "initial.npz"
    # The first backend's initial weights are everybody's.
    case = MethodUnderTest(workers.imported(spec), initial=read_arrays(shared) if shared.exists() else None)
    results = run_checks(case, only, lambda line: print_line(f"{spec}: {line}")).results
    if {TWO_WORKERS, LOADED_ELSEWHERE, SAME_ON_BACKENDS} & set(only):
        write_run(folder / f"{backend}.npz", case.trained())
        if LOADED_ELSEWHERE in only:
            case.half().model.save(folder / f"{backend}.keras")
        if not shared.exists():
            np.savez(shared, *case.initial)
    return results


def _load(spec, folder, only):
    """A model that was saved in another process continues as if it had not been interrupted."""
    backend = keras.backend.backend()
    case = MethodUnderTest(workers.imported(spec), initial=read_arrays(folder / "initial.npz"))

    def check():
        resumed = case.train(keras.models.load_model(folder / f"{backend}.keras"), epochs=(1, 2))
        straight = read_run(folder / f"{backend}.npz")
        same_weights(resumed.weights, straight.weights, "a run loaded in another process and a straight one")

    result = timed(LOADED_ELSEWHERE, check, case.rounding)
    print_line(f"{spec} on {backend}: {LOADED_ELSEWHERE}: {result}")
    return [result]


def _rounding(spec, folder, only):
    """Measures how far rounding alone moves a run."""
    case = MethodUnderTest(workers.imported(spec), initial=read_arrays(folder / "initial.npz"))
    (folder / f"{keras.backend.backend()}.moved.json").write_text(json.dumps(case.rounding()), encoding="utf-8")
    return []


ROLES = {"checks": _checks, "load": _load, "rounding": _rounding}


def _run_role(role, spec, folder, only):
    """One method's part of a child process. An error is a result: the other methods are still of interest."""
    try:
        results = ROLES[role](spec, folder, only)
    except Exception:
        results = [CheckResult(f"process of {role}", "failed", traceback.format_exc()[-4000:])]
        print_line(f"{spec} on {keras.backend.backend()}: {role}: failed")
    fields = [{"check": r.check, "verdict": r.verdict, "detail": r.detail, "seconds": r.seconds} for r in results]
    file = _results_file(folder, keras.backend.backend(), role)
    file.write_text(json.dumps(fields), encoding="utf-8")
    keras.utils.clear_session()


# The command.


def main(argv=None):
    """The command; returns its exit code: 0 all passed, 1 checks failed, 2 a wrong call, 3 checks are inconclusive.

    A backend that is not installed is a wrong call.
    """
    parser = argparse.ArgumentParser(
        prog="python -m keras_ssl.testing",
        description="Checks methods on each backend, in processes of their own. Exit code 0: all checks passed; 1: "
        "checks failed; 2: a wrong call, or a backend that is not installed; 3: no check failed, but some are "
        "inconclusive, because rounding alone moves a run of that network as far: take a smoother one.",
    )
    parser.add_argument(
        "specs",
        nargs="+",
        metavar="spec",
        help="package.module:make_model, a function that makes a new, uncompiled model",
    )
    parser.add_argument("--backends", default=",".join(BACKENDS), help="which backends, separated by commas")
    parser.add_argument("--only", help=f"names of checks, separated by commas: {', '.join(ALL_CHECKS)}")
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    parser.add_argument("--folders", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    only = options.only.split(",") if options.only else None
    if options.role:
        distribute.split_cpu(4)
        for spec, folder in zip(options.specs, options.folders):
            _run_role(options.role, spec, pathlib.Path(folder), only)
        return 0
    try:
        found = check_everywhere(options.specs, tuple(options.backends.split(",")), only)
    except ValueError as error:
        parser.error(str(error))
    except ModuleNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    except AssertionError as error:
        print(f"failed: {str(error).splitlines()[0].rstrip(':')}; the lines above say which", file=sys.stderr)
        return 1
    unclear = sum(result.verdict == "inconclusive" for results in found.values() for result in results)
    if unclear:
        print_line(
            f"no check failed, but {unclear} are inconclusive, which is not passed: take a smoother network, such as "
            "keras_ssl.testing.tiny_backbone"
        )
        return INCONCLUSIVE
    print_line("all checks passed")
    return 0
