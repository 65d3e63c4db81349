"""Is it as good as Lightly? The same images, network, initial weights, views, optimizer, schedule and steps in both.

    python -m venv peers && peers/bin/pip install -r benchmarks/requirements.txt
    python benchmarks/quality.py --check --peer_python=peers/bin/python       # the same views: the same loss, weights
    python benchmarks/quality.py --data=FOLDER --peer_python=peers/bin/python   # three seeds, all methods
    python benchmarks/quality.py --data=FOLDER --table                          # what is there, nothing trained

`--data` is what `keras_ssl.data.load` takes. The network is `resnet8` of width 16, written a second time in torch; both
begin with the weights that Keras drew, heads too. Each library makes its views by its own transforms from one policy of
equal numbers, and trains by its own loss, heads, moving averages and queue; Lightly's loop is written after its
documentation. Features of the last epoch leave both as arrays, and are judged by `keras_ssl.evaluate` alike. Each side
is a process with one thread, and they take turns. `own` is ours by its own recipe for as much processor time as
Lightly's runs of the method took.

A row of `--output` is a run, written when it ends; what is there is not run again. `KERAS_BACKEND` is ours' backend.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import math
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

WIDTH, FEATURES = 16, 64  # of the network, and of what it gives
DRAWS, PER_CLASS = 5, (10, 100, None)
WARM_UP, DECAY, MOMENTUM = 0.05, 1e-4, 0.99
QUEUE, PROTOTYPES = 1024, 256
CHECK_STEPS, CHECK_BATCH = 5, 64


@dataclasses.dataclass(frozen=True)
class Method:
    """What both libraries are given.

    Args:
        rate: the peak of AdamW's learning rate.
        heads: widths of the projector and the predictor.
        factor, offset: ours is `factor · theirs + offset` (docs/conventions.md). Lightly's is multiplied by the factor,
            which AdamW does not feel.
        check_rate: SGD's rate in `--check`, smaller for larger losses: where steps are too large for the loss to fall,
            they multiply what rounding left.
    """

    rate: float
    heads: tuple
    factor: float = 1.0
    offset: float = 0.0
    check_rate: float = 1e-3


METHODS = {
    "SimCLR": Method(1e-2, ((64, 128),)),
    "BYOL": Method(3e-3, ((256, 64), (256, 64)), 4.0, 4.0),
    "BarlowTwins": Method(1e-2, ((256, 256, 256),), check_rate=1e-5),
    "VICReg": Method(1e-2, ((256, 256, 256),), check_rate=1e-4),
    "SimSiam": Method(3e-3, ((256, 256, 256), (64, 256)), 1.0, 1.0),
    "MoCo": Method(1e-2, ((64, 128),)),
    "DINO": Method(3e-3, ((256, 256, 64),)),
}
TEMPERATURES = {"SimCLR": 0.1, "MoCo": 0.2, "DINO": (0.1, 0.04)}  # DINO: the student's, the teacher's
WHO = ("ours", "lightly", "own")
UNTRAINED = "untrained"


@dataclasses.dataclass(frozen=True)
class Policy:
    """Crop, flip, jitter, gray and blur, of equal numbers in both libraries."""

    area: tuple
    brightness: float
    contrast: float
    saturation: float
    hue: float
    gray: float
    blur: float


def policy_of(shape):
    """Mild crops for small gray images; for photographs SimCLR's with half of its jitter, blurred from 33 px."""
    if shape[-1] == 1:
        return Policy((0.4, 1.0), 0.8, 0.8, 0.0, 0.0, 0.0, 0.0)
    return Policy((0.2, 1.0), 0.4, 0.4, 0.4, 0.1, 0.2, 0.5 if min(shape[:2]) > 32 else 0.0)


def rate_at(step, steps, peak, least=min, most=max, cos=math.cos):
    """A straight line up within `WARM_UP` of the steps, then a cosine down to 0."""
    warm = max(1, round(WARM_UP * steps))
    down = 0.5 * (1.0 + cos(math.pi * most(step - warm, 0.0) / max(1, steps - warm)))
    return peak * least((step + 1.0) / warm, down)


# Ours. Lightly's is in quality_peer.py.


def our_network(shape):
    from keras_ssl import backbones

    return backbones.resnet8(shape, width=WIDTH, pooling="avg")


def our_views(shape):
    from keras_ssl import augment

    policy = policy_of(shape)
    jitter = {name: getattr(policy, name) for name in ("brightness", "contrast", "saturation", "hue")}
    layers = [
        augment.RandomResizedCrop(shape[:2], policy.area),
        augment.RandomHorizontalFlip(),
        augment.RandomColorJitter(**jitter, probability=0.8),
    ]
    if policy.gray:
        layers.append(augment.RandomGrayscale(policy.gray))
    if policy.blur:
        kernel = augment.policies.odd_tenth(min(shape[:2]))
        layers.append(augment.RandomGaussianBlur(kernel, probability=policy.blur))
    return augment.Views(layers, layers)


def our_model(name, shape, seed):
    """The method with the heads of `METHODS`; each view through the network by itself, as Lightly's examples do."""
    import keras

    import keras_ssl

    keras.utils.set_random_seed(seed)
    backbone = our_network(shape)
    widths = METHODS[name].heads
    plain = {"last_batch_norm": False}
    options = {
        "SimCLR": ({}, {"temperature": TEMPERATURES["SimCLR"], "one_pass": False}),
        "BYOL": (plain, {"momentum": keras_ssl.teacher.ConstantMomentum(MOMENTUM)}),
        "BarlowTwins": (plain, {}),
        "VICReg": (plain, {}),
        "SimSiam": ({"last_scale": False}, {}),
        "MoCo": (
            {**plain, "batch_norm": False},
            {"momentum": MOMENTUM, "memory": QUEUE, "temperature": TEMPERATURES["MoCo"]},
        ),
        "DINO": (
            {**plain, "batch_norm": False, "activation": "gelu"},
            {
                "prototypes": PROTOTYPES,
                "student_temperature": TEMPERATURES["DINO"][0],
                "teacher_temperature": TEMPERATURES["DINO"][1],
                "warm_up_temperature": TEMPERATURES["DINO"][1],
                "warm_up_steps": 0,
                "frozen_steps": 0,
                "momentum": keras_ssl.teacher.ConstantMomentum(MOMENTUM),
                "one_pass": False,
            },
        ),
    }[name]
    arguments = {"projector": keras_ssl.heads.mlp(widths[0], **options[0]), **options[1]}
    if len(widths) > 1:
        arguments["predictor"] = keras_ssl.heads.mlp(widths[1], **plain)
    model = getattr(keras_ssl, name)(backbone, views=our_views(shape), seed=seed, **arguments)
    model.build((None, *shape))
    return model


def our_weights(model):
    """The variables that are trained, in the order in which quality_peer.py finds those of its network."""
    import keras

    def made(kind):
        layers = [layer for layer in model.backbone.layers if isinstance(layer, kind)]
        return sorted(layers, key=lambda layer: (len(layer.name), layer.name))  # conv2d, conv2d_1, …, conv2d_10

    layers = [layer for pair in zip(made(keras.layers.Conv2D), made(keras.layers.BatchNormalization)) for layer in pair]
    heads = [head for name in ("projector", "predictor", "scores") if (head := getattr(model, name, None)) is not None]
    return [variable for layer in (*layers, *heads) for variable in layer.trainable_variables]


def our_run(name, seed, folder, epochs, batch):
    """Trains, and writes the initial weights and the features."""
    import keras

    from keras_ssl.evaluate import extract_features

    with np.load(folder / "images.npz") as file:
        train, test = file["train"], file["test"]
    shape = train.shape[1:]
    if name == UNTRAINED:
        keras.utils.set_random_seed(seed)
        backbone, result = our_network(shape), {}
    else:
        model = our_model(name, shape, seed)
        steps = epochs * (len(train) // batch)
        model.compile(keras.optimizers.AdamW(our_schedule(steps, METHODS[name].rate), DECAY, epsilon=1e-8))
        start = time.process_time()
        losses = model.fit(train, batch_size=batch, epochs=epochs, verbose=0).history["loss"]
        backbone = model.backbone
        result = {"cpu_seconds": time.process_time() - start, "steps": steps, "losses": losses}
    features = [extract_features(backbone, images) for images in (train, test)]
    return {**result, "on": _versions("keras", keras.backend.backend())}, features


def our_schedule(steps, peak):
    import keras
    from keras import ops

    class Schedule(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return rate_at(ops.cast(step, "float32"), steps, peak, ops.minimum, ops.maximum, ops.cos)

        def get_config(self):
            return {}

    return Schedule()


def own_run(name, seed, folder, seconds):
    """The method by its small recipe, with its own views, heads and batches of 128, for so many processor seconds."""
    import keras
    import methods

    import keras_ssl
    from keras_ssl.evaluate import extract_features
    from keras_ssl.recipes import recipe

    with np.load(folder / "images.npz") as file:
        train, test = file["train"], file["test"]
    shape, in_a_pass = train.shape[1:], len(train) // methods.BATCH

    def model_of(epochs, steps):
        keras.utils.set_random_seed(seed)
        chosen = recipe(getattr(keras_ssl, name), shape, steps * methods.BATCH, methods.BATCH, epochs, source="small")
        # The method's arguments are by the number of images, the schedule by what fits the time.
        all_images = recipe(getattr(keras_ssl, name), shape, len(train), methods.BATCH, epochs, source="small")
        model = getattr(keras_ssl, name)(our_network(shape), views=chosen.views, seed=seed, **all_images.arguments)
        model.compile(chosen.optimizer)
        return model

    timed = methods.Clock(model_of(1, in_a_pass), seconds=max(0.5, seconds / 20))
    timed.fit(train, 8, in_a_pass)
    steps = max(1, round(seconds / timed.step))
    epochs = -(-steps // in_a_pass)
    steps = max(1, round(steps / epochs))
    model = model_of(epochs, steps)
    clock = methods.Clock(model)
    losses = clock.fit(train, epochs, steps)["loss"]
    features = [extract_features(model.backbone, images) for images in (train, test)]
    result = {"cpu_seconds": clock.step * epochs * steps, "steps": epochs * steps, "losses": losses}
    return {**result, "on": _versions("keras", keras.backend.backend())}, features


def our_check(name, seed, folder, rule):
    """Losses of some steps on given views, and the weights after them."""
    import keras

    with np.load(folder / "check.npz") as file:
        a, b, bank = file["a"], file["b"], file["bank"]
    model = our_model(name, a.shape[1:], seed)
    np.savez(folder / f"{name}-{seed}-weights.npz", *_arrays(our_weights(model)))
    if name == "MoCo":
        model.queue.rows.assign(bank)
        model.queue.count.assign(len(bank))
    adam = rule == "AdamW"
    schedule = our_schedule(CHECK_STEPS, METHODS[name].rate)
    model.compile(
        keras.optimizers.AdamW(schedule, DECAY, epsilon=1e-8)
        if adam
        else keras.optimizers.SGD(METHODS[name].check_rate, 0.9)
    )
    losses = []
    for step in range(CHECK_STEPS):
        rows = slice(step * CHECK_BATCH, (step + 1) * CHECK_BATCH)
        views = {"views": (a[rows], b[rows])}
        history = model.fit(views, batch_size=CHECK_BATCH, initial_epoch=step, epochs=step + 1, verbose=0)
        losses += history.history["loss"]
    return {"losses": losses}, _arrays(our_weights(model))


def _arrays(variables):
    import keras

    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def _versions(*names):
    found = []
    for name in names:
        for package in (name, f"{name}-cpu"):
            try:
                found.append(f"{name} {importlib.metadata.version(package)}")
                break
            except importlib.metadata.PackageNotFoundError:
                continue
    return ", ".join(found)


def work(task):
    """A run, in the process of its side: what it gives goes to `task["file"]`, arrays beside it."""
    folder, file = pathlib.Path(task["folder"]), pathlib.Path(task["file"])
    arguments = {key: task[key] for key in ("name", "seed")}
    if task["who"] == "lightly":
        import quality_peer

        run = quality_peer.check if task["kind"] == "check" else quality_peer.run
    else:
        run = {"check": our_check, "ours": our_run, "own": own_run, "weights": our_initial}[task["kind"]]
    result, arrays = run(**arguments, folder=folder, **task["options"])
    np.savez(file.with_suffix(".npz"), *arrays)
    file.write_text(json.dumps(result), encoding="utf-8")


def our_initial(name, seed, folder):
    """The weights that both begin with."""
    with np.load(folder / "images.npz") as file:
        shape = file["train"].shape[1:]
    return {}, _arrays(our_weights(our_model(name, shape, seed)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="what keras_ssl.data.load takes")
    parser.add_argument("--image_size", type=int, default=None, help="of pictures in a folder, in pixels")
    parser.add_argument("--images", type=int, default=None, help="so many of the training images alone; all")
    parser.add_argument("--methods", default=",".join(METHODS), help="names of classes, with commas between; all")
    parser.add_argument("--who", default=",".join(WHO), help="ours, lightly, own, with commas between; all")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--peer_python", default=sys.executable, help="a Python that has lightly==1.6.*")
    parser.add_argument("--own_backend", default=None, help="of `own`; that of KERAS_BACKEND")
    parser.add_argument("--output", default="runs/quality", help="a folder: rows.jsonl, and what runs hand over")
    parser.add_argument("--check", action="store_true", help="the same views to both: losses and weights side by side")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve()
    import quality_runs

    unknown = [name for name in options.methods.split(",") if name not in METHODS]
    if unknown or set(options.who.split(",")) - set(WHO):
        raise SystemExit(
            f"--methods are of {', '.join(METHODS)}, --who of {', '.join(WHO)}; they are {options.methods!r} and "
            f"{options.who!r}."
        )
    if options.check:
        return quality_runs.check(options)
    if not options.data:
        raise SystemExit("--data: give what keras_ssl.data.load takes, such as a folder of pictures; or --check.")
    if not options.table:
        quality_runs.run_missing(options)
    quality_runs.print_tables(options)


class Side:
    """A process with one thread that does one task after another.

    Args:
        python: the interpreter.
        backend: `KERAS_BACKEND` of it; None for that of this process.
    """

    def __init__(self, python=sys.executable, backend=None):
        environment = {
            **os.environ,
            **{f"{count}_NUM_THREADS": "1" for count in ("OMP", "MKL", "OPENBLAS")},
            **{f"TF_NUM_{count}_THREADS": "1" for count in ("INTRAOP", "INTEROP")},
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **({"KERAS_BACKEND": backend} if backend else {}),
        }
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([python, __file__, "--serve"], env=environment, **pipes)

    def do(self, task):
        """Has `work` done in the process; returns `(result, arrays)`."""
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        if self.process.stdout.readline().strip() != "done":
            raise SystemExit(f"{task['name']}, {task['who']} failed: see what it wrote above.")
        file = pathlib.Path(task["file"])
        with np.load(file.with_suffix(".npz")) as held:
            return json.loads(file.read_text("utf-8")), [held[name] for name in held.files]

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def serve():
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    for line in sys.stdin:
        work(json.loads(line))
        print("done", file=answers, flush=True)


if __name__ == "__main__":
    main()
