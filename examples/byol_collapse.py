"""
Title: BYOL, and what keeps it from collapse
Description: Two parts of BYOL switched off in turn, and what the loss, the spread, the rank and the accuracy say of it.
"""

"""
BYOL shows a network two views of an image. The network, with a small predictor behind it, predicts what a slow copy of
itself, the teacher, makes of the other view. No other image is pushed away. So there is a perfect answer that learns
nothing: give every image the same embedding. The loss is then 0. That is a **collapse**, and the loss does not show it:
it looks like success.

Two parts are said to prevent it: the *predictor*, which only one side has, and the *moving average*, by which the
teacher follows the student slowly. Here you switch each off, and measure.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_ssl
from keras_ssl.evaluate import plots
from keras_ssl.teacher import ConstantMomentum

IMAGES = 4096
EPOCHS = 6

data = keras_ssl.data.load("fashion_mnist_sample")
images = data.train.images[:IMAGES]
plots.views_of(images[:2], keras_ssl.augment.small_gray(28), count=7)

"""
Both rows of an image are views of it: random crops, flips, another brightness, and at times an erased box. The task is
to predict one from the other.

## One run

The network is small, three convolutions, so that four runs take two or three minutes. Optimizer, learning rate,
schedule and heads are the measured recipe of the library for BYOL. One thing differs: the recipe's momentum rises
from 0.95 to 1 during the run, and here it stays at 0.95.

Two callbacks look on. `CollapseMonitor` needs no labels: it measures whether embeddings differ from image to image.
`KNNProbe` uses labels that the training does not see.
"""


def network():
    layers = [keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 127.5, -1)]
    for width in (16, 32, 64):
        layers += [keras.layers.Conv2D(width, 3, 2, padding="same"), keras.layers.BatchNormalization(momentum=0.9)]
        layers += [keras.layers.ReLU()]
    return keras.Sequential(layers)


def train(**switched_off):
    keras.utils.set_random_seed(0)
    recipe = keras_ssl.recipes.recipe(keras_ssl.BYOL, (28, 28, 1), IMAGES, batch_size=128, epochs=EPOCHS)
    arguments = {**recipe.arguments, "momentum": ConstantMomentum(0.95), **switched_off}
    model = keras_ssl.BYOL(network(), views=recipe.views, **arguments)
    model.compile(recipe.optimizer)
    monitor = keras_ssl.callbacks.CollapseMonitor(data.test, every_steps=16, patience=10_000)
    probe = keras_ssl.callbacks.KNNProbe(data.train, data.test, every_steps=16)
    history = model.fit(images, batch_size=128, epochs=EPOCHS, verbose=0, callbacks=[monitor, probe]).history
    return {
        "loss": history["byol"],
        "steps": [step for step, _ in monitor.values],
        "spread": [found["embedding_spread"] for _, found in monitor.values],
        "rank": [found["rank_me"] for _, found in monitor.values],
        "kNN": [found["knn_accuracy"] for _, found in probe.values],
    }


"""
## Four runs

`keras.layers.Identity()` is no predictor. A momentum of 0 makes the teacher a copy of the student at each step; with
the predictor, that is nearly SimSiam.
"""

no_predictor = {"predictor": keras.layers.Identity()}
no_average = {"momentum": ConstantMomentum(0.0)}
runs = {
    "BYOL": train(),
    "no moving average": train(**no_average),
    "no predictor": train(**no_predictor),
    "neither": train(**no_predictor, **no_average),
}

keras.utils.set_random_seed(0)
few = keras_ssl.evaluate.draw_labels(data.train.labels, per_class=200, seed=0)
half = keras_ssl.evaluate.draw_labels(data.test.labels, per_class=100, seed=0)
untrained = network()
bank = keras_ssl.evaluate.extract_features(untrained, data.train.images[few])
queries = keras_ssl.evaluate.extract_features(untrained, data.test.images[half])
chance = keras_ssl.evaluate.knn(bank, data.train.labels[few], queries, data.test.labels[half])

print(f"{'':20}{'loss':>8}{'spread':>8}{'rank':>8}{'kNN':>8}")
for name, run in runs.items():
    print(f"{name:20}" + "".join(f"{run[key][-1]:8.3f}" for key in ("loss", "spread", "rank", "kNN")))
print(f"{'untrained network':20}{'':24}{chance:8.3f}")

"""
Read the first two columns together. The two runs without a predictor have by far the lowest loss, nearly 0, and it is
no success: their **spread** is nearly 0, too. It is the standard deviation of embeddings of length 1, scaled to be 1
where they fill the sphere, and 0 where all are one. The network answers the same whatever it is shown, and so each
view predicts the other.
"""

figure, panels = plt.subplots(2, 2, figsize=(8, 6), layout="constrained", sharex=True)
steps_per_epoch = IMAGES // 128
for name, run in runs.items():
    panels[0, 0].plot(np.arange(1, EPOCHS + 1) * steps_per_epoch, run["loss"], marker=".", label=name)
    for axes, key in zip(panels.flat[1:], ("spread", "rank", "kNN")):
        axes.plot(run["steps"], run[key], marker=".")
panels[1, 1].axhline(chance, color="gray", linestyle=":")
panels[1, 1].annotate(
    "untrained", (runs["BYOL"]["steps"][0], chance), (2, 3), textcoords="offset points", color="gray", fontsize=9
)
titles = ("loss (lower looks better)", "spread of embeddings", "rank of the features", "kNN accuracy")
for axes, title in zip(panels.flat, titles):
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
for axes in panels[1]:
    axes.set_xlabel("step")
panels[0, 0].legend(frameon=False, fontsize=9)
plt.show()

"""
The dotted line is the untrained network.

## What to take from it

- **A falling loss is no evidence** for a method without negatives. Watch the spread: `CollapseMonitor` does, and warns
  when it stays low. Its patience was set out of reach here, so that the runs go on.
- **The predictor is what prevents it** at this size. Without the moving average, BYOL stays as spread out as with it:
  this is close to SimSiam, which was published as a method of its own. Without the predictor, the average slows the
  collapse down and does not stop it.
- **kNN does not show the collapse**: it is measured on the backbone's features, and the collapse is in the projector
  behind it. The network without a predictor classifies no worse here than BYOL. The rank of the features tells more: it
  falls from run to run in the order of the list above. Had you looked at accuracies alone, you would have noticed
  nothing until much later.
- One seed, one small network, 192 steps; 1,000 test images leave an uncertainty of 1.5 points of kNN. The table in
  [methods](../methods/BYOL.md#collapse) has three seeds of such runs, in which kNN was lower after a collapse, and one
  without batch normalization, which collapses as well.

## What to try next

Set the momentum to 0.5 or 0.999. Give `CollapseMonitor` `patience=30, on_alarm="raise"`, and see when each run ends.
Replace `keras_ssl.BYOL` by `keras_ssl.SimSiam`, or by [Barlow Twins](barlow_twins_matrix.md), which forbids the
collapse in its loss. [Evaluating features](../evaluation.md#warnings-of-collapse) lists what each measure says.
"""
