"""The whole contract, in processes of their own: each backend, several processes that train together, a fresh process.

For each backend one child runs the checks of one process on four devices and keeps its run; two workers train the same;
another child loads the saved model and continues. At the end the backends are compared with each other.
"""

import argparse
import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np

from keras_ssl import distribute, workers
from keras_ssl.testing.checks import checked_names, print_line, run_checks, verdict_of
from keras_ssl.testing.runs import STEPS, TOLERANCE, Differs, MethodUnderTest, close, same_arrays

BACKENDS = ("tensorflow", "jax", "torch")


def check_everywhere(specs, backends=BACKENDS, only=None, echo=print_line):
    """Checks methods on each backend, in processes of their own, and the backends against each other.

    All checks run, also after one fails; the last lines are a table of what did not pass.

    Args:
        specs: `"package.module:make_model"`, or a list of them: a process is started once for all of them.
        backends: which.
        only: names of checks of one process; None for the whole contract, what needs several processes included.
        echo: is given each line of what is found, when it is.

    Returns:
        What is inconclusive, a list of sentences: on the method's network rounding hides whether the check holds.

    Raises:
        AssertionError: if a check fails, with all that failed.
    """
    specs = [specs] if isinstance(specs, str) else list(specs)
    checked_names(only)
    with tempfile.TemporaryDirectory() as folder:
        run = Everywhere(specs, [pathlib.Path(folder) / str(number) for number in range(len(specs))], only, echo)
        for each in run.folders:
            each.mkdir()
        for backend in backends:
            run.check_backend(backend)
        if only is None:
            for backend in backends[1:]:
                run.compare_backends(backend, backends[0])
    for verdict, sentences in (("failed", run.failed), ("inconclusive", run.inconclusive)):
        for sentence in sentences:
            echo(f"{verdict}: {sentence}")
    if run.failed:
        raise AssertionError(f"{len(run.failed)} checks failed:\n" + "\n".join(run.failed))
    return run.inconclusive


@dataclasses.dataclass
class Everywhere:
    """One run of the whole contract.

    Attributes:
        specs: `"package.module:make_model"` of each method.
        folders: one per method, for what its processes leave each other.
        only: names of checks of one process, or None.
        echo: is given lines.
        failed, inconclusive: sentences.
    """

    specs: list
    folders: list
    only: list | None
    echo: object
    failed: list = dataclasses.field(default_factory=list)
    inconclusive: list = dataclasses.field(default_factory=list)

    def check_backend(self, backend):
        start = time.monotonic()
        self.child(backend, "checks", [f"--only={','.join(self.only)}"] if self.only else [])
        if self.only is None:
            if backend in workers.BACKENDS:
                self.check_workers(backend)
            self.child(backend, "load")
        self.echo(f"{backend}: {time.monotonic() - start:.0f} s")

    def child(self, backend, role, more=()):
        """Runs a role in a process of its own, and passes its lines on when they come."""
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
        environment = {**os.environ, "KERAS_BACKEND": backend, "XLA_FLAGS": flags.strip(), "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment["PYTHONPATH"] = os.pathsep.join([os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-m", "keras_ssl.testing", *self.specs, "--role", role, *more]
        command += ["--folders", *map(str, self.folders)]
        with tempfile.TemporaryFile("w+", errors="replace") as errors:
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
            for line in process.stdout:
                self.take_line(line.rstrip())
            if process.wait():
                errors.seek(0)
                code, end = process.returncode, errors.read()[-4000:]
                self.failed.append(f"{backend}, {role}: the process ended with {code}:\n{end}")

    def take_line(self, line):
        """A child marks what did not pass; its other lines are for the reader."""
        for mark, found in (("failed: ", self.failed), ("inconclusive: ", self.inconclusive)):
            if line.startswith(mark):
                found.append(line.removeprefix(mark))
                return
        self.echo(line)

    def check_workers(self, backend):
        """Two processes that train together give the weights and the logs of one."""
        initials = [arrays_of(folder / "initial.npz") for folder in self.folders]
        try:
            seconds = 300 + 60 * len(self.specs)
            found = workers.run(f"{__name__}:train", backend, (self.specs, initials), seconds=seconds)
        except RuntimeError as error:
            self.failed.append(f"{backend}, two workers: {error}")
            return
        for spec, folder, one, other in zip(self.specs, self.folders, *found):
            what = f"{spec}, two workers on {backend}"
            self.compare(spec, backend, what, _check_pair, arrays_of(folder / f"{backend}.npz"), one, other)

    def rounding(self, spec, backend):
        """How far rounding alone moves a run of a method, measured in a process of its own."""
        folder = self.folders[self.specs.index(spec)]
        one = Everywhere([spec], [folder], None, self.echo)
        one.child(backend, "rounding")
        self.failed += one.failed
        return float("nan") if one.failed else float(np.load(folder / f"{backend}_rounding.npy"))

    def compare_backends(self, backend, first):
        for spec, folder in zip(self.specs, self.folders):
            one, other = (arrays_of(folder / f"{name}.npz") for name in (backend, first))
            what = f"{spec}: a run of {2 * STEPS} steps on {backend} and on {first}, random views included"
            self.compare(spec, backend, what, lambda what, one, other: same_arrays(one, other, what), one, other)

    def compare(self, spec, backend, what, function, *arguments):
        start = time.monotonic()
        try:
            function(what, *arguments)
        except Differs as error:
            verdict, detail = verdict_of(error, self.rounding(spec, backend))
            getattr(self, verdict).append(detail)
            self.echo(f"{what}: {verdict}")
        except AssertionError as error:
            self.failed.append(str(error))
            self.echo(f"{what}: failed")
        else:
            self.echo(f"{what}: passed ({time.monotonic() - start:.1f} s)")


def _check_pair(what, alone, one, other):
    """Two workers are equal to the last bit, and one process to the tolerance."""
    same_arrays(one["weights"], other["weights"], f"the weights of the workers, {what}", tolerance=0.0)
    if one["history"] != other["history"]:
        raise AssertionError(f"{what} log {one['history']} and {other['history']}")
    count = len(one["weights"])
    same_arrays(one["weights"], alone[:count], f"the weights of {what} and of one process")
    for name, values in zip(sorted(one["history"]), alone[count:], strict=True):
        close(one["history"][name], values, f"{name!r} as logged by {what} and by one process")


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


# What a child process does for one method.


def _checks(spec, folder, only):
    """The checks of one process; what the others are compared with is kept."""
    backend, shared = keras.backend.backend(), folder / "initial.npz"
    # The first backend's initial weights are everybody's.
    case = MethodUnderTest(workers.imported(spec), initial=arrays_of(shared) if shared.exists() else None)
    report = run_checks(case, only, print_line)
    print_line(str(report).splitlines()[0])
    for verdict in ("failed", "inconclusive"):
        for name, detail in getattr(report, verdict).items():
            detail = " ".join(detail.split())
            print_line(f"{verdict}: {report.method} on {backend}: {name}: {detail}")
    for name, reason in report.skipped.items():
        print_line(f"{report.method} on {backend}: not checked here: {name}: {reason}")
    if only is not None:
        return
    run = case.trained()
    if not shared.exists():
        np.savez(shared, *case.initial)
    logs = [np.array(run.history[name]) for name in sorted(run.history)]
    np.savez(folder / f"{backend}.npz", *run.weights, *logs)
    case.half().model.save(folder / f"{backend}.keras")


def _load(spec, folder, only):
    """A model that was saved in another process continues as if it had not been interrupted."""
    backend = keras.backend.backend()
    case = MethodUnderTest(workers.imported(spec), initial=arrays_of(folder / "initial.npz"))
    resumed = case.train(keras.models.load_model(folder / f"{backend}.keras"), epochs=(1, 2))
    straight = arrays_of(folder / f"{backend}.npz")[: len(resumed.weights)]
    what = f"{spec} on {backend}: a run saved, loaded in another process and continued, and a straight one"
    try:
        same_arrays(resumed.weights, straight, what)
    except Differs as error:
        verdict, detail = verdict_of(error, case.rounding())
        print_line(f"{verdict}: {detail}")
    else:
        print_line(f"{what}: passed")


def _rounding(spec, folder, only):
    """How far rounding alone moves a run."""
    case = MethodUnderTest(workers.imported(spec), initial=arrays_of(folder / "initial.npz"))
    np.save(folder / f"{keras.backend.backend()}_rounding.npy", case.rounding())


ROLES = {"checks": _checks, "load": _load, "rounding": _rounding}


def arrays_of(path):
    """The arrays of an `.npz` file, in their order."""
    with np.load(path) as file:
        return [file[name] for name in file.files]


def main(argv=None):
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_ssl.testing",
        description="Checks methods on each backend, in processes of their own.",
    )
    parser.add_argument(
        "specs",
        nargs="+",
        metavar="spec",
        help="package.module:make_model, a function that makes a new, uncompiled model",
    )
    parser.add_argument("--backends", default=",".join(BACKENDS), help="which backends, separated by commas")
    parser.add_argument("--only", help="names of checks of one process, separated by commas")
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    parser.add_argument("--folders", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    only = options.only.split(",") if options.only else None
    if options.role:
        distribute.split_cpu(4)
        for spec, folder in zip(options.specs, options.folders):
            ROLES[options.role](spec, pathlib.Path(folder), only)
            keras.utils.clear_session()
        return 0
    backends = tuple(options.backends.split(","))
    unknown = [name for name in backends if name not in BACKENDS]
    try:
        if unknown:
            raise ValueError(f'--backends: there is no backend "{unknown[0]}"; there are {", ".join(BACKENDS)}.')
        inconclusive = check_everywhere(options.specs, backends, only)
    except ValueError as error:
        parser.error(str(error))
    except AssertionError as error:
        print(error, file=sys.stderr)
        return 1
    if inconclusive:
        print(f"no check failed to {TOLERANCE:g}, but {len(inconclusive)} are inconclusive: take a smoother network")
        return 0
    print("all checks passed")
    return 0
