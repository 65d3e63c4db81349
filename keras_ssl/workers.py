"""Several processes on this machine that train one model together, and the check that they do it as one process would.

```python
print(workers.run("package.module:function", "tensorflow"))  # what function() of each of two workers returned
```

`keras_ssl.testing` asks with it whether two workers train a method as one process does.
"""

import importlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np

from keras_ssl import distribute, files

__all__ = ["run"]

BACKENDS = ("tensorflow", "jax", "torch")


def run(spec, backend, arguments=(), count=2, before="", seconds=300):
    """Calls a function in several processes that form a cluster, under the strategy that spans them.

    Args:
        spec: `"package.module:function"`; the function must be importable from the working directory.
        backend: `"tensorflow"` (`MultiWorkerMirroredStrategy`), `"jax"` (`DataParallel`) or `"torch"` (a process
            group).
        arguments: of the function: numbers, strings, arrays, and lists, tuples and dicts of them.
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
        files.write_values(folder / "arguments.npz", tuple(arguments))
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
        return [files.read_values(folder / f"{worker}.npz") for worker in range(count)]


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
    elif backend == "jax":
        environment["KERAS_DISTRIBUTION_JOB_ADDRESSES"] = addresses[0]
    else:
        environment.update(MASTER_ADDR="localhost", MASTER_PORT=str(ports[0]), LOCAL_RANK=str(worker))
    return environment


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def imported(spec):
    """The function that `"package.module:function"` names."""
    module, _, name = spec.partition(":")
    return getattr(importlib.import_module(module), name or "make_model")


def main(argv=None):
    """One worker."""
    spec, worker, count, before, folder = sys.argv[1:] if argv is None else argv
    folder = pathlib.Path(folder)
    arguments = files.read_values(folder / "arguments.npz")
    if before:
        imported(before)()
    with distribute.cluster(int(worker), int(count)):
        result = imported(spec)(*arguments)
    result = keras.tree.map_structure(lambda leaf: None if leaf is None else np.asarray(leaf), result)
    files.write_values(folder / f"{worker}.npz", result)


if __name__ == "__main__":
    main()
