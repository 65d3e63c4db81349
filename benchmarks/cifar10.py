"""CIFAR-10 by the public recipe of Lightly's benchmark page, on one GPU in bfloat16, all of it in the compiled step.

    KERAS_BACKEND=jax python benchmarks/cifar10.py --data=cifar-10-batches-py
    python benchmarks/cifar10.py --data=cifar10.npz --rows=SimCLR,BYOL --seeds=3
    python benchmarks/cifar10.py --table                      # what is there, nothing trained

ResNet-18 with the stem for small images, batches of 512, 200 epochs, SGD with momentum 0.9 at 0.06 · batch / 128,
weight decay 5e-4 of all weights added to the gradient as torch does, a cosine by epochs without warm-up, no blur, kNN
of 200 neighbors at temperature 0.1 on all training images after each epoch. Heads and views are each row's of the
page's script. Theirs are one run each, the largest accuracy of all epochs; ours are given as the last epoch and the
largest.

What differs from the script: bfloat16 (`--float32` for none), and initial weights, which are Keras'. `--data` is a
folder with the pickled batches as its authors publish them, or a `.npz` with x_train, y_train, x_test and y_test.
Nothing is fetched. A row of `--output` is a run, written when it ends; what is there is not run again.
"""

import argparse
import dataclasses
import json
import pathlib
import pickle
import time

import numpy as np

SHAPE = (32, 32, 3)
RATE, MOMENTUM, DECAY = 0.06, 0.9, 5e-4  # the rate is of batches of 128
NEIGHBORS, TEMPERATURE = 200, 0.1


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the page.

    Args:
        method: name of the class.
        theirs: the page's kNN accuracy at batches of 512, 200 epochs: the largest of all epochs, one run.
        policy: "simclr", with half of its jitter, or "byol".
        arguments: of `(width of the features)`: arguments of the method.
        share: the page's loss as a part of ours (docs/conventions.md): SGD feels it.
    """

    method: str
    theirs: float
    policy: str
    arguments: object
    share: float = 1.0


def _simclr(contrast, temperature):
    def arguments(width):
        from keras_ssl import heads, losses

        projector = heads.mlp([width, 128])
        return {
            "projector": projector,
            "temperature": temperature,
            "one_pass": False,
            "contrast": getattr(losses, contrast),
        }

    return arguments


def _byol(width):
    from keras_ssl import heads, teacher

    plain = {"last_batch_norm": False}
    projector, predictor = heads.mlp([1024, 256], **plain), heads.mlp([1024, 256], **plain)
    return {"projector": projector, "predictor": predictor, "momentum": teacher.ConstantMomentum(0.99)}


def _barlow_twins(width):
    from keras_ssl import heads

    return {"projector": heads.mlp([2048, 2048], last_batch_norm=False)}


ROWS = {
    "SimCLR": Row("SimCLR", 0.848, "simclr", _simclr("nt_xent", 0.5)),
    "BYOL": Row("BYOL", 0.868, "byol", _byol, share=0.25),
    "BarlowTwins": Row("BarlowTwins", 0.819, "byol", _barlow_twins),
    "DCL": Row("SimCLR", 0.840, "simclr", _simclr("dcl", 0.1)),
}


def views_of(policy):
    """Lightly's `SimCLRTransform` with `cj_strength=0.5`, or `BYOLTransform`, without blur."""
    from keras_ssl import augment

    strong = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    jitter = strong if policy == "simclr" else {**strong, "saturation": 0.2}
    view = [
        augment.RandomResizedCrop(SHAPE[:2], (0.08, 1.0)),
        augment.RandomHorizontalFlip(),
        augment.RandomColorJitter(**jitter, probability=0.8),
        augment.RandomGrayscale(0.2),
    ]
    second = view if policy == "simclr" else [*view, augment.RandomSolarization(0.2)]
    return augment.Views(view, second)


def sgd(rate, momentum, decay, share=1.0):
    """torch's SGD: `v ← m · v + (share · gradient + decay · w)`, `w ← w − rate · v`, for all weights.

    Keras' has the rate within v, and its weight decay outside of the momentum, which makes it ten times smaller at 0.9.
    """
    import keras
    from keras import ops

    from keras_ssl.keras_compat import variable_index

    class SGD(keras.optimizers.Optimizer):
        def build(self, variables):
            if not self.built:
                super().build(variables)
                self.velocities = self.add_optimizer_variables(variables, "velocity")

        def update_step(self, gradient, variable, learning_rate):
            rate = ops.cast(learning_rate, variable.dtype)
            slot = self.velocities[variable_index(self, variable)]
            gradient = share * ops.cast(gradient, variable.dtype) + decay * ops.convert_to_tensor(variable)
            velocity = momentum * ops.convert_to_tensor(slot) + gradient
            self.assign(slot, velocity)
            self.assign_sub(variable, rate * velocity)

        def get_config(self):
            return super().get_config()

    return SGD(learning_rate=rate)


def by_epochs(peak, epochs, steps_per_epoch):
    """torch's `CosineAnnealingLR`, stepped once an epoch."""
    import keras
    from keras import ops

    class Cosine(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            epoch = ops.floor(ops.cast(step, "float32") / steps_per_epoch)
            return 0.5 * peak * (1.0 + ops.cos(np.pi * epoch / epochs))

        def get_config(self):
            return {}

    return Cosine()


def trained(row, data, seed, epochs, batch, width=64, float32=False, every=1):
    """The accuracies of the epochs, the losses, and seconds: a dict."""
    import keras

    import keras_ssl

    (images, labels), (test, test_labels) = data
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy("float32" if float32 else "mixed_bfloat16")
    backbone = keras_ssl.backbones.resnet18(SHAPE, width=width, pooling="avg")
    arguments = row.arguments(backbone.output_shape[-1])
    model = getattr(keras_ssl, row.method)(backbone, views=views_of(row.policy), seed=seed, **arguments)
    steps = len(images) // batch
    rate = by_epochs(RATE * batch / 128, epochs, steps)
    model.compile(sgd(rate, MOMENTUM, DECAY, row.share))
    probe = keras_ssl.callbacks.KNNProbe(
        (images, labels),
        (test, test_labels),
        every=every,
        most=(None, None),
        k=min(NEIGHBORS, len(images)),
        temperature=TEMPERATURE,
        batch_size=batch,
        name="knn",
    )
    start = time.perf_counter()
    history = model.fit(images, batch_size=batch, epochs=epochs, callbacks=[probe], verbose=2).history
    accuracies = [values["knn"] for _, values in probe.values]
    return {
        "last": accuracies[-1],
        "largest": max(accuracies),
        "accuracies": accuracies,
        "losses": history["loss"],
        "seconds": time.perf_counter() - start,
        "backend": keras.backend.backend(),
    }


# The images.


class _Arrays(pickle.Unpickler):
    """Unpickles arrays alone: a pickle can hold any code."""

    def find_class(self, module, name):
        if module.split(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype"):
            return super().find_class(module, name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"a batch of CIFAR-10 holds arrays, and this file wants {module}.{name}.")


def load(path):
    """`((images, labels), (images, labels))`, of training and test: uint8 `(n, 32, 32, 3)` and integers."""
    path = pathlib.Path(path)
    if path.suffix == ".npz" and path.is_file():
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ("x_train", "y_train", "x_test", "y_test") if name not in file.files]
            if missing:
                raise SystemExit(f"--data: {path} lacks {', '.join(missing)}; it has {', '.join(file.files)}.")
            parts = [(file[f"x_{part}"], file[f"y_{part}"].reshape(-1)) for part in ("train", "test")]
    else:
        names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
        if missing := [name for name in names if not (path / name).is_file()]:
            raise SystemExit(
                f"--data: {path} is no .npz file, and no folder with {', '.join(missing)}: give the folder "
                "cifar-10-batches-py of the archive that the data set's authors publish, or a .npz with x_train, "
                "y_train, x_test and y_test. This script fetches nothing."
            )
        batches = [_batch(path / name) for name in names]
        parts = [tuple(map(np.concatenate, zip(*some))) for some in (batches[:5], batches[5:])]
    for images, labels in parts:
        if images.shape[1:] != SHAPE or images.dtype != np.uint8 or len(images) != len(labels):
            raise SystemExit(
                f"--data: images are uint8 (n, 32, 32, 3), with a label each; these are {images.dtype} {images.shape}, "
                f"with {len(labels)} labels."
            )
    return tuple(parts)


def _batch(file):
    with open(file, "rb") as opened:
        held = _Arrays(opened, encoding="bytes").load()
    images = np.asarray(held[b"data"]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.asarray(held[b"labels"])


# The table.


def print_table(rows, epochs, batch):
    print(f"\nkNN accuracy, {epochs} epochs, batches of {batch}; mean ± standard deviation over seeds.\n")
    print(
        "| row | seeds | last epoch | largest of all epochs | the page's, the largest, one run |\n|---|---|---|---|---|"
    )
    for name, row in ROWS.items():
        found = [run for run in rows if run["row"] == name]
        cells = [_spread([run[key] for run in found]) if found else "not run" for key in ("last", "largest")]
        print(f"| {name} | {len(found)} | {cells[0]} | {cells[1]} | {row.theirs:.3f} |")


def _spread(values):
    return f"{np.mean(values):.4f}" + (f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else "")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="cifar-10-batches-py, or a .npz file")
    parser.add_argument("--rows", default=",".join(ROWS), help="with commas between; all")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from 0")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--width", type=int, default=64, help="of the network's first stage")
    parser.add_argument("--every", type=int, default=1, help="epochs between two accuracies")
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--output", default="runs/cifar10.jsonl", help="a file; a line of it is a run")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args(arguments)
    names = options.rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        raise SystemExit(f"--rows: there is no {', '.join(unknown)}; there are {', '.join(ROWS)}.")
    output = pathlib.Path(options.output)
    setting = {key: getattr(options, key) for key in ("epochs", "batch", "width", "float32")}

    def there():
        lines = output.read_text("utf-8").splitlines() if output.exists() else []
        return [run for run in map(json.loads, lines) if run["setting"] == setting]

    if not options.table:
        if not options.data:
            raise SystemExit("--data: give the folder cifar-10-batches-py, or a .npz file; nothing is fetched.")
        data = load(options.data)
        output.parent.mkdir(parents=True, exist_ok=True)
        for seed in range(options.seeds):
            for name in names:
                if any((run["row"], run["seed"]) == (name, seed) for run in there()):
                    continue
                result = trained(ROWS[name], data, seed, every=options.every, **setting)
                with open(output, "a", encoding="utf-8") as file:
                    file.write(json.dumps({"setting": setting, "row": name, "seed": seed, **result}) + "\n")
                print(
                    f"{name}, seed {seed}: last epoch {result['last']:.4f}, largest {result['largest']:.4f}", flush=True
                )
    print_table(there(), options.epochs, options.batch)


if __name__ == "__main__":
    main()
