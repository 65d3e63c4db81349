"""Peak memory and time of a loss: value, gradient and, for NT-Xent, accuracy, compiled as a training step is.

    python benchmarks/nt_xent_memory.py                                 # the table in docs/scale.md
    python benchmarks/nt_xent_memory.py --backends jax --images 4096

Each line is measured in a process of its own. What counts is the highest resident memory during the call above what
the process held before, with the library loaded and the embeddings there. On TensorFlow and JAX the call compiles too,
and its memory counts.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

BACKENDS = ("tensorflow", "tensorflow-xla", "jax", "torch")
USES = ("batch", "gathered keys", "queue")
REPLICAS = 4  # of "gathered keys": the rows of one replica among the keys of all


def measure(backend, **case):
    """Runs one case in a process of its own.

    Args:
        backend: one of `BACKENDS`.
        **case: `loss` ("nt_xent" or "barlow_twins"), `images`, `width`; for NT-Xent `use` (one of `USES`; the queue
            holds as many rows as the batch's two views) and `form` ("chunks" or "full"); `compare`, to compute the
            other form as well.

    Returns:
        A dict: `mib` (MiB above the base), `seconds` of a second call, and with `compare` `value` and `gradient`, the
        largest differences, relative to the value and to the largest gradient.
    """
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend.removesuffix("-xla"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": str(pathlib.Path(__file__).parent.parent),
    }
    command = [sys.executable, __file__, "--child", json.dumps({"backend": backend, **case})]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{backend}, {case}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _child(backend, images, width, loss="nt_xent", use="batch", form="chunks", compare=False):
    import importlib

    import keras
    import numpy as np
    from keras import ops

    from keras_ssl import losses

    module = importlib.import_module("keras_ssl.losses.nt_xent")
    generator = np.random.default_rng(0)

    def rows(count):
        return generator.normal(size=(count, width)).astype("float32")

    a, b = rows(images), rows(images)
    b = 0.5 * a + b
    extra = (rows(2 * images), np.arange(2 * images) < images) if use == "queue" else None
    part = slice(images // REPLICAS, 2 * images // REPLICAS) if use == "gathered keys" else slice(None)

    def objective(a, b):
        if loss == "barlow_twins":
            return losses.barlow_twins(a, b), ops.zeros(())
        options = {"keys": (a, b), "row_offset": part.start} if use == "gathered keys" else {}
        if extra is not None:
            options.update(negatives=extra[0], valid=extra[1])
        rows = losses.nt_xent(a[part], b[part], 0.1, **options)
        return ops.mean(rows), ops.mean(losses.contrastive_accuracy(a[part], b[part], **options))

    def set_form(form):
        module._FULL_MATRIX = 0 if form == "chunks" else 10**15

    set_form(form)
    run = _compiled(backend, objective)
    if extra is not None:
        extra = tuple(map(ops.convert_to_tensor, extra))
    given = [ops.convert_to_tensor(array) for array in (a, b)]
    ops.convert_to_numpy(keras.ops.matmul(given[0][:2], ops.transpose(given[1][:2])))  # thread pools and libraries
    base = _memory("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the highest value starts anew
    value, gradients = run(*given)
    result = {"mib": _memory("VmHWM") - base}
    started = time.perf_counter()
    run(*given)
    result["seconds"] = time.perf_counter() - started
    if compare:
        set_form("full" if form == "chunks" else "chunks")
        other, others = _compiled(backend, objective)(*given)
        largest = max(float(np.abs(x).max()) for x in gradients)
        result["value"] = abs(value - other) / abs(other)
        result["gradient"] = max(float(np.abs(x - y).max()) for x, y in zip(gradients, others)) / largest
    print(json.dumps(result))


def _compiled(backend, objective):
    """`(a, b) → (value, gradients)` as numbers and numpy arrays."""
    import numpy as np

    if backend.startswith("tensorflow"):
        import tensorflow as tf

        @tf.function(jit_compile=backend == "tensorflow-xla")
        def step(a, b):
            with tf.GradientTape() as tape:
                tape.watch([a, b])
                value, accuracy = objective(a, b)
            return value, accuracy, tape.gradient(value, [a, b])

        def run(a, b):
            value, _, gradients = step(a, b)
            return float(value), [np.asarray(x) for x in gradients]

        return run
    if backend == "jax":
        import jax

        step = jax.jit(jax.value_and_grad(objective, argnums=(0, 1), has_aux=True))

        def run(a, b):
            (value, _), gradients = step(a, b)
            return float(value), [np.asarray(x) for x in gradients]

        return run

    def run(a, b):
        a, b = (x.clone().requires_grad_() for x in (a, b))
        value, _ = objective(a, b)
        value.backward()
        return float(value.detach()), [a.grad.numpy(), b.grad.numpy()]

    return run


def _memory(name):
    """`VmRSS`, the resident memory, or `VmHWM`, the highest it was, in MiB."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {name}: this benchmark needs Linux.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default=",".join(BACKENDS), help="separated by commas")
    parser.add_argument("--images", type=int, default=8192, help="of the global batch")
    parser.add_argument("--small", type=int, default=2048, help="images where both forms are compared")
    parser.add_argument("--width", type=int, default=128, help="of the embeddings")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(**json.loads(options.child))
        return
    print("| backend | use | images | form | peak MiB | seconds | value differs by | gradient differs by |")
    print("|---|---|---|---|---|---|---|---|")
    for backend in options.backends.split(","):
        small = [(use, options.small, "chunks", True) for use in USES] + [("batch", options.small, "full", False)]
        large = [(use, options.images, "chunks", False) for use in USES] + [("batch", options.images, "full", False)]
        for use, images, form, compare in small + large:
            case = {"images": images, "width": options.width, "use": use, "form": form, "compare": compare}
            found = measure(backend, **case)
            differs = f"{found['value']:.1e} | {found['gradient']:.1e}" if compare else " | "
            print(
                f"| {backend} | {use} | {images} | {form} | {found['mib']:.0f} | {found['seconds']:.2f} | {differs} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
