"""
Title: A method of your own: alignment and uniformity
Description: Two terms from a paper become a method of forty lines. It is tested, broken on purpose, and trained beside
SimCLR.
"""

"""
A new idea in self-supervised learning is most often a new loss. Views, backbone, loop, saving and evaluation stay as
they are. So a method here is a class that states its loss, and little else.

The idea of this tutorial is that of
[Wang & Isola, 2020](https://arxiv.org/abs/2005.10242). They asked what a contrastive loss does, and found two things.
It pulls the two views of an image together (*alignment*), and it spreads all images over the sphere of embeddings
(*uniformity*). Then they left the contrastive loss out and minimized the two directly. The library measures both
(`keras_ssl.evaluate.alignment`, `uniformity`), and has no method that trains on them. We write it.

## What the two terms want

Here are embeddings of 60 images in the plane, two views each. A line joins the views of one image. All embeddings have
length 1, so they lie on a circle.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops

import keras_ssl

keras_ssl.distribute.split_cpu(2)  # the processor plays two devices, for a check below
keras.utils.set_random_seed(0)
generator = np.random.default_rng(0)


def on_the_circle(angles):
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


anywhere, nudge = generator.uniform(0, 2 * np.pi, 60), generator.normal(0, 0.06, 60)
cases = {
    "all in one place": (on_the_circle(1 + nudge), on_the_circle(1 - nudge)),
    "views apart": (on_the_circle(anywhere), on_the_circle(anywhere + generator.uniform(1, 5, 60))),
    "what we want": (on_the_circle(anywhere + nudge), on_the_circle(anywhere - nudge)),
}
figure, axes = plt.subplots(1, 3, figsize=(8, 3.2), layout="constrained")
for ax, (name, (a, b)) in zip(axes, cases.items()):
    for one, other in zip(a, b):
        ax.plot(*zip(one, other), color="0.8", linewidth=0.8, zorder=0)
    ax.scatter(*a.T, s=14)
    ax.scatter(*b.T, s=14)
    alignment, uniformity = keras_ssl.evaluate.alignment(a, b), keras_ssl.evaluate.uniformity(a)
    ax.set_title(f"{name}\nalignment {alignment:.2f}, uniformity {uniformity:.2f}", fontsize=9)
    ax.set_aspect("equal")
    ax.axis("off")
plt.show()

"""
Both numbers are better the lower they are. On the left alignment alone is perfect, and nothing is learned: the network
has *collapsed*. In the middle uniformity alone is good, and views of one image do not know each other. Only the two
together force the network to find what distinguishes images.

## The loss

Two functions of tensors, with `keras.ops` so that they run on TensorFlow, JAX and torch. Alignment is one value a row.
Uniformity is about pairs of rows, so it is one number for the whole batch. We take the logarithm of the sum by
`logsumexp`, because a sum of small exponentials rounds to 0.
"""


def alignment(a, b):
    """The squared distance of the two views of each image: `(n,)`."""
    return ops.sum(ops.square(a - b), axis=1)


def uniformity(rows, t):
    """log of the mean of exp(−t·|x − y|²) over pairs of different rows of length 1: a scalar."""
    count = ops.shape(rows)[0]
    squared = 2.0 - 2.0 * ops.matmul(rows, ops.transpose(rows))
    itself = 1e9 * ops.eye(count)  # a row and itself are no pair
    pairs = ops.cast(count * (count - 1), "float32")
    return ops.logsumexp(-t * squared - itself) - ops.log(pairs)


"""
The library's measures are written in NumPy, apart from this. They tell us whether we got the formulas right.
"""

a, b = (generator.normal(size=(256, 32)) for _ in range(2))
unit_a, unit_b = (keras_ssl.losses.normalized(ops.convert_to_tensor(x, "float32")) for x in (a, b))
print(f"alignment   ours {float(ops.mean(alignment(unit_a, unit_b))):.5f}", end="")
print(f"   measured {keras_ssl.evaluate.alignment(a, b):.5f}")
print(f"uniformity  ours {float(uniformity(unit_a, t=2.0)):.5f}", end="")
print(f"  measured {keras_ssl.evaluate.uniformity(a):.5f}")

"""
## The class

A method says five things:

- `terms` and `metric_names`: the names that `fit` logs. The loss is the sum of the terms.
- `__init__` keeps each argument under its own name. That is how the model is saved and loaded.
- `build_heads` makes what stands between the features and the loss.
- `embed` takes the views of a batch, and gives named tensors.
- `objective` makes the terms of them.

`objective` must be right on many devices too. Each device holds a part of the batch, and uniformity is about the pairs
of the *whole* batch. `distribute.gather` brings all rows together, and gradients flow back through it. On one device
it does nothing. You never average anything yourself: values per row, or one scalar of the global batch, are all that
the base class wants.
"""


@keras.saving.register_keras_serializable("tutorial")
class AlignUniform(keras_ssl.SelfSupervisedModel):
    """Alignment and uniformity (Wang & Isola, 2020), equations 1 and 2 with α = 2."""

    terms = ("alignment", "uniformity")
    metric_names = ("distance",)
    view_counts = (2,)

    def __init__(self, backbone, views=None, projector=None, weight=1.0, t=2.0, **kwargs):
        if not weight > 0.0 or not t > 0.0:
            raise ValueError(f"AlignUniform: `weight` and `t` must be above 0; they are {weight!r} and {t!r}.")
        super().__init__(backbone, views, **kwargs)
        self.projector = projector
        self.weight = weight
        self.t = t

    def build_heads(self, width):
        if self.projector is None:
            self.projector = keras_ssl.heads.mlp([width, 128], last_batch_norm=False, name="projector")
        keras_ssl.heads.build(self.projector, width)

    def embed(self, views, training):
        a, b = self.map_views(self.project, views, training, True)  # one forward pass over both views
        return {"a": keras_ssl.losses.normalized(a), "b": keras_ssl.losses.normalized(b)}

    def objective(self, outputs, batch):
        a, b = outputs["a"], outputs["b"]
        spread = [uniformity(keras_ssl.distribute.gather(rows), self.t) for rows in (a, b)]
        terms = {"alignment": alignment(a, b), "uniformity": self.weight * (spread[0] + spread[1]) / 2.0}
        return terms, {"distance": ops.sqrt(ops.maximum(alignment(a, b), 1e-12))}

    def collapse_losses(self, batch_size):
        return {"all images have one embedding": 0.0}


"""
The last method tells where the loss stays when nothing is learned: one embedding for all images has alignment 0 and
uniformity 0. `keras_ssl.callbacks.CollapseMonitor` reads it.

## Is it right?

`check_method` trains the method some dozen times for a few steps, and asks what is easy to get wrong: is it saved and
does it go on from a file, do four micro-batches give the run of one batch, is it the same on two devices? Here are four
of its checks; without `only` it runs all that one process can.
"""


def make(method=AlignUniform):
    views = keras_ssl.augment.small_gray(28)
    return method(keras_ssl.testing.tiny_backbone(), views, keras_ssl.heads.mlp([16], last_batch_norm=False))


CHECKS = ["arguments_are_attributes", "micro_batches", "two_replicas", "saves_and_goes_on"]
report = keras_ssl.testing.check_method(make, only=CHECKS, verbose=False)
for result in report.results:
    print(f"{result.check:30} {result.verdict}")

"""
A test that never failed says little. So we make the mistake that is easiest to make, and forget `gather`. On one device
that is the same method. On two, each compares its own half of the batch:
"""


@keras.saving.register_keras_serializable("tutorial")
class OwnHalf(AlignUniform):
    def objective(self, outputs, batch):
        a, b = outputs["a"], outputs["b"]
        spread = (uniformity(a, self.t) + uniformity(b, self.t)) / 2.0
        return {"alignment": alignment(a, b), "uniformity": self.weight * spread}, {"distance": alignment(a, b)}


try:
    keras_ssl.testing.check_method(lambda: make(OwnHalf), only=["two_replicas"], verbose=False)
except AssertionError as error:
    print(error)

"""
## Beside SimCLR

Now both methods train on the sample of Fashion-MNIST without labels: same network, same first weights, same views. The
learning rate, its schedule and the optimizer are those that `keras_ssl.recipes` has measured for SimCLR. A method of
one's own gets these too, and the recipe says that nothing was measured with it.
"""

EPOCHS = 5
BATCH = 128
data = keras_ssl.data.load("fashion_mnist_sample")
images = data.train.images[:8000]

recipe = keras_ssl.recipes.recipe(AlignUniform, (28, 28, 1), len(images), BATCH, epochs=EPOCHS)
print(recipe.notes[0], f"Optimizer: {type(recipe.optimizer).__name__}, rate up to {recipe.learning_rate:g}.")

"""
While they train we watch the two quantities on images that no one trains on: two views of 500 test images, the same
ones after each epoch. SimCLR never sees these numbers as its loss.
"""

held_views = keras_ssl.augment.small_gray(28)(data.test.images[:500])


class Watch(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.path = []
        self.on_epoch_end(-1)

    def on_epoch_end(self, epoch, logs=None):
        a, b = (ops.convert_to_numpy(self.model.project(view, training=False)) for view in held_views)
        self.path.append((keras_ssl.evaluate.alignment(a, b), keras_ssl.evaluate.uniformity(a)))


def accuracy(backbone):
    """Of a linear probe with 10 labels per class: mean and standard deviation over five draws of the labels."""
    train, test = (
        keras_ssl.evaluate.extract_features(backbone, split.images, grid=2) for split in (data.train, data.test)
    )
    found = []
    for seed in range(5):
        few = keras_ssl.evaluate.draw_labels(data.train.labels, per_class=10, seed=seed)
        labels = data.train.labels[few]
        found.append(keras_ssl.evaluate.linear_probe(train[few], labels, test, data.test.labels))
    return np.mean(found), np.std(found, ddof=1)


def network():
    keras.utils.set_random_seed(0)
    return keras_ssl.backbones.resnet8((28, 28, 1), width=8)


results, paths = {"untrained network": accuracy(network())}, {}
for method in (keras_ssl.SimCLR, AlignUniform):
    views = keras_ssl.augment.small_gray(28)
    model = method(network(), views, **({"temperature": 0.1} if method is keras_ssl.SimCLR else {}))
    model.compile(recipe.optimizer)
    watch = Watch()
    history = model.fit(images, batch_size=BATCH, epochs=EPOCHS, callbacks=[watch], verbose=0).history
    results[method.__name__] = accuracy(model.backbone)
    paths[method.__name__] = np.array(watch.path)
    print(method.__name__, {name: round(float(values[-1]), 3) for name, values in history.items()})

print("\nlinear probe, 10 labels per class, five draws")
for name, (mean, deviation) in results.items():
    print(f"  {name:18} {mean:.3f} ± {deviation:.3f}")

"""
And the way that each took through the two quantities:
"""

figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for name, path in paths.items():
    ax.plot(*path.T, marker="o", label=name)
    ax.annotate("start", path[0], textcoords="offset points", xytext=(6, 4), fontsize=8)
ax.set(xlabel="alignment (lower: views agree)", ylabel="uniformity (lower: images spread)")
ax.set_title("Two views of 500 test images, after each epoch")
ax.legend()
plt.show()

"""
## What to try next

- `weight` is what balances the two terms. Train with 0.5 and with 3, and look at the way in the last picture.
- Run all checks, `check_method(make)`, and on all backends with two workers:
  `python -m keras_ssl.testing your_module:make`.
- Train it from the command with `--method=your_module:AlignUniform`, or give it to `keras_ssl.report`.
- A teacher, a queue, a variable of your own: [methods](../methods.md) says which method of the library has what, and
  each is one file of less than 150 lines to read.
"""
