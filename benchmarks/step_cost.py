"""Seconds of a training step, and of its loss, against the batch, the size of the images, their views and the width.

    KERAS_BACKEND=tensorflow python benchmarks/step_cost.py --picture=docs/images/step_cost.png

SimCLR on ResNet-8, ready views, SGD; one thing is changed at a time, the others stay at `BASE`. All that differ in one
thing live in one process and take turns; figures are CPU seconds of one core, medians. What is printed beside them is
the slope in logarithms of the upper half: 1 where twice as much costs twice as much.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BASE = {"batch": 64, "size": 32, "views": 2, "width": 16}
AXES = {
    "batch": (16, 32, 64, 128, 256),
    "size": (16, 24, 32, 48, 64),
    "views": (2, 3, 4, 6, 8),
    "width": (8, 16, 32, 64),
}
LOSS = (256, 512, 1024, 2048)
# What the cost should be proportional to, for large values.
SHOULD = {
    "batch": ("images", lambda x: x),
    "size": ("pixels, size²", lambda x: x**2),
    "views": ("views", lambda x: x),
    "width": ("products, width²", lambda x: x**2),
    "loss": ("similarities, (2 · batch)²", lambda x: (2 * x) ** 2),
}


def step(batch, size, views, width):
    """A function that makes one training step."""
    import keras
    import numpy as np

    import keras_ssl
    from keras_ssl import losses

    class EachWithTheFirst(keras_ssl.SelfSupervisedModel):
        """NT-Xent of the first view with each other: as much work a view, however many there are."""

        terms = ("nt_xent",)

        def build_heads(self, features):
            self.projector = keras_ssl.heads.mlp([features, 128], name="projector")
            keras_ssl.heads.build(self.projector, features)

        def embed(self, views, training):
            embedded = self.map_views(self.project, views, training, one_pass=True)
            return {str(number): view for number, view in enumerate(embedded)}

        def objective(self, outputs, batch):
            first, *others = outputs.values()
            return {"nt_xent": sum(losses.nt_xent(first, other) for other in others) / len(others)}, {}

    backbone = keras_ssl.backbones.resnet8((size, size, 3), width=width)
    model = EachWithTheFirst(backbone)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9))
    rng = np.random.default_rng(0)
    data = {"views": tuple(rng.integers(0, 256, (batch, size, size, 3)).astype("float32") for _ in range(views))}
    return lambda: model.train_on_batch(data)  # gives numbers back, and so waits for the step


def loss(batch):
    """A function that computes NT-Xent of two views and its gradient."""
    import keras
    import numpy as np

    from keras_ssl.losses import nt_xent

    a, b = (np.random.default_rng(seed).normal(size=(batch, 128)).astype("float32") for seed in (0, 1))
    a, b = keras.ops.convert_to_tensor(a), keras.ops.convert_to_tensor(b)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        @tf.function
        def run(a, b):
            with tf.GradientTape() as tape:
                tape.watch((a, b))
                value = tf.reduce_mean(nt_xent(a, b))
            return tape.gradient(value, (a, b))

        return lambda: run(a, b)[0].numpy()
    if keras.backend.backend() == "jax":
        import jax

        run = jax.jit(jax.grad(lambda a, b: nt_xent(a, b).mean(), argnums=(0, 1)))
        return lambda: run(a, b)[0].block_until_ready()
    a, b = a.requires_grad_(), b.requires_grad_()
    return lambda: nt_xent(a, b).mean().backward()


def measured(functions, turns):
    for function in functions:
        function()
        function()
    seconds = [[] for _ in functions]
    for _ in range(turns):
        for place, function in enumerate(functions):
            begin = time.process_time()
            function()
            seconds[place].append(time.process_time() - begin)
    return [statistics.median(of_one) for of_one in seconds]


def slope(xs, seconds):
    """How fast the cost grows from the middle of an axis to its end: an exponent."""
    import math

    middle = len(xs) // 2
    return math.log(seconds[-1] / seconds[middle]) / math.log(xs[-1] / xs[middle])


def draw(found, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(found), figsize=(3 * len(found), 3.2))
    for axes, (name, (points, seconds)) in zip(panels, found.items()):
        what, work = SHOULD[name]
        xs = [work(point) for point in points]
        axes.loglog(xs, seconds, "o-")
        axes.loglog(xs, [seconds[-1] * x / xs[-1] for x in xs], "--", color="0.5", label="proportional")
        axes.set_title(f"{'loss' if name == 'loss' else 'step'} against {'batch' if name == 'loss' else name}")
        axes.set_xlabel(what)
        axes.set_xticks(xs, [str(point) for point in points])
        axes.minorticks_off()
    panels[0].set_ylabel("CPU seconds")
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--core", type=int, default=0, help="on which it runs")
    parser.add_argument("--picture", default=None, help="path of a PNG")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.sched_setaffinity(0, {options.core})  # before a framework counts the cores
    import side_by_side

    found = {}
    print(f"| {' | '.join(('what grows', 'CPU seconds of a step', 'exponent of the work'))} |\n|---|---|---|")
    for name, points in (*AXES.items(), ("loss", LOSS)):
        made = [loss(point) if name == "loss" else step(**{**BASE, name: point}) for point in points]
        seconds = measured(made, options.turns)
        found[name] = points, seconds
        what, work = SHOULD[name]
        cells = ", ".join(f"{point}: {second:.3g}" for point, second in zip(points, seconds))
        exponent = slope([work(point) for point in points], seconds)
        label = "loss alone, batch" if name == "loss" else name
        print(f"| {label} | {cells} | {exponent:.2f} in {what} |", flush=True)
    print(side_by_side.machine())
    if options.picture:
        draw(found, options.picture)


if __name__ == "__main__":
    main()
