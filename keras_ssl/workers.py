"""Several processes on this machine that train one model together, and the check that they do it as one process would.

```python
print(workers.run("package.module:function", "tensorflow"))  # what function() of each of two workers returned
```

`check_workers` is what `keras_ssl.testing` asks of a method: the weights and the logged loss of two workers are
those of one process on the same global batch.
"""

import importlib
import json
import os
import pathlib
import pickle
import socket
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np

from keras_ssl import distribute

BACKENDS = ("tensorflow", "jax")  # on torch one device is one process


def run(spec, backend, arguments=(), count=2, before="", seconds=300):
    """Calls a function in several processes that form a cluster, under the strategy that spans them.

    Args:
        spec: `"package.module:function"`; the function must be importable from the working directory.
        backend: `"tensorflow"` (`MultiWorkerMirroredStrategy`) or `"jax"` (`DataParallel`).
        arguments: of the function; they are pickled.
        count: processes.
        before: `"package.module:function"` of what each process calls before it joins the cluster.
        seconds: until they are stopped.

    Returns:
        What the function returned in each process: a list in the order of the workers.

    Raises:
        RuntimeError: if a process fails, with the end of what it wrote.
    """
    if backend not in BACKENDS:
        raise ValueError(f"Several processes train together on {' and '.join(BACKENDS)}; `backend` is {backend!r}.")
    ports = _free_ports(count)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "arguments.pkl").write_bytes(pickle.dumps(tuple(arguments)))
        started = []
        try:
            for worker in range(count):
                command = [
                    sys.executable,
                    "-m",
                    "keras_ssl.workers",
                    spec,
                    str(worker),
                    str(count),
                    before,
                    str(folder),
                ]
                with open(folder / f"{worker}.log", "wb") as log:
                    environment = _environment(backend, worker, ports)
                    started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
            _wait(started, folder, time.monotonic() + seconds)
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                process.wait()
        return [pickle.loads((folder / f"{worker}.pkl").read_bytes()) for worker in range(count)]


def _wait(started, folder, until):
    while any(process.poll() is None for process in started):
        # A worker whose partner failed would wait for it.
        if any(process.poll() for process in started) or time.monotonic() > until:
            break
        time.sleep(0.05)
    failed = [worker for worker, process in enumerate(started) if process.poll()]
    late = [worker for worker, process in enumerate(started) if process.poll() is None]
    if failed or late:
        worker = (failed or late)[0]
        text = (folder / f"{worker}.log").read_text(errors="replace")[-4000:]
        raise RuntimeError(f"Worker {worker} {'failed' if failed else 'did not end in time'}:\n{text}")


def _environment(backend, worker, ports):
    """What tells a process its place in the cluster."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = os.pathsep.join([os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment.pop("XLA_FLAGS", None)  # one device a process
    addresses = [f"localhost:{port}" for port in ports]
    if backend == "tensorflow":
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": worker}}
        environment["TF_CONFIG"] = json.dumps(cluster)
    else:
        environment["KERAS_DISTRIBUTION_JOB_ADDRESSES"] = addresses[0]
    return environment


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def train(specs, initials, options=None):
    """Runs of methods as `keras_ssl.testing` makes them, in this process, under the strategy that is set.

    Args:
        specs: a list of `"package.module:make_model"`, or of the functions themselves.
        initials: for each the initial weights, a list of arrays in the order of `model.weights`; None for the model's
            own.
        options: `epochs`, of the runs; 2 unless given.

    Returns:
        A list of dicts: `weights`, `history`, and the `initial` weights.
    """
    from keras_ssl import testing

    results = []
    for spec, initial in zip(specs, initials):
        case = testing._Case(imported(spec) if isinstance(spec, str) else spec, initial=initial)
        done = case.train(**(options or {}))
        results.append({"weights": done.weights, "history": done.history, "initial": case.initial})
    return results


def check_workers(specs, backend, folders, echo=print):
    """Checks that methods train in two processes as they do in one.

    Args:
        specs: a list of `"package.module:make_model"`.
        backend: `"tensorflow"` or `"jax"`.
        folders: one a method. It holds `initial.npz`, the initial weights, and `{backend}.npz`, the weights after the
            run in one process and then what it logged by epoch, in the order of the names: what
            `python -m keras_ssl.testing` writes in its role "save".
        echo: is given what was found.

    Raises:
        AssertionError: if the workers differ from one another or from the one process.
    """
    folders = [pathlib.Path(folder) for folder in folders]
    initials = [arrays_of(folder / "initial.npz") for folder in folders]
    try:
        found = run("keras_ssl.workers:train", backend, (specs, initials), seconds=300 + 60 * len(specs))
    except RuntimeError as error:
        raise AssertionError(f"{backend}, two workers: {error}") from error
    for spec, folder, one, other in zip(specs, folders, *found):
        _check_pair(f"{spec}, two workers on {backend}", arrays_of(folder / f"{backend}.npz"), one, other)
        echo(f"{spec}, two workers on {backend}: the run of one process")


def _check_pair(what, alone, one, other):
    from keras_ssl import testing

    testing._same_arrays(one["weights"], other["weights"], f"the weights of {what}", tolerance=0.0)
    if one["history"] != other["history"]:
        raise AssertionError(f"{what} log {one['history']} and {other['history']}")
    count = len(one["weights"])
    testing._same_arrays(one["weights"], alone[:count], f"the weights of {what} and of one process")
    for name, values in zip(sorted(one["history"]), alone[count:], strict=True):
        testing._close(one["history"][name], values, f"{name!r} as logged by {what} and by one process")


def arrays_of(path):
    with np.load(path) as file:
        return [file[name] for name in file.files]


def imported(spec):
    """The function that `"package.module:function"` names."""
    module, _, name = spec.partition(":")
    return getattr(importlib.import_module(module), name or "make_model")


def main(argv=None):
    """One worker."""
    spec, worker, count, before, folder = sys.argv[1:] if argv is None else argv
    folder = pathlib.Path(folder)
    arguments = pickle.loads((folder / "arguments.pkl").read_bytes())
    if before:
        imported(before)()
    with distribute.cluster(int(worker), int(count)):
        result = imported(spec)(*arguments)
    (folder / f"{worker}.pkl").write_bytes(pickle.dumps(keras.tree.map_structure(np.asarray, result)))


if __name__ == "__main__":
    main()
