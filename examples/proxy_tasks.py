"""
Title: Proxy tasks, and whether solving them helps
Description: Rotation, distortion, relative position and jigsaw. Does a network that solves them better classify better?
"""

"""
A **proxy task** makes its own labels from the image: turn it, and ask by how much. Nobody wants the answer. The hope is
that who can answer has learned what is in the picture. This tutorial trains four such tasks and asks two questions that
are often skipped: is the *downstream* accuracy, the one that you want, better than that of the untrained network? And
does it rise while the proxy task is being solved?
"""

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_ssl
from keras_ssl.evaluate import plots

IMAGES = 3840
EPOCHS = 8

data = keras_ssl.data.load("fashion_mnist_sample")
images = data.train.images[:IMAGES]
methods = [keras_ssl.Rotation, keras_ssl.Distortion, keras_ssl.RelativePatch, keras_ssl.Jigsaw]


def made(method):
    """A proxy task by its recipe. The backbone takes images of any size, for two of the tasks show it patches."""
    keras.utils.set_random_seed(0)
    recipe = keras_ssl.recipes.recipe(method, images.shape[1:], IMAGES, batch_size=128, epochs=EPOCHS)
    backbone = keras_ssl.backbones.resnet8((None, None, 1), width=16)
    options = {"grid": 2} if method is keras_ssl.Jigsaw else {}
    model = method(backbone, views=recipe.views, **recipe.arguments, **options)
    model.compile(recipe.optimizer)
    model.build(images.shape)
    return model


def puzzle(method, count=2):
    model = made(method)
    (views,) = model.views(images[:count])
    return plots.pretext_task(views, **model.pretext_examples(views))


"""
## What the network sees

**Rotation**: which of four quarter turns? You can only tell if you know how a shoe stands.
"""

puzzle(keras_ssl.Rotation)

"""
**Distortion**: from both images, by how much did each corner move, in percent of the side?
"""

puzzle(keras_ssl.Distortion)

"""
**Relative position**: which neighbor of the first patch is the second? There is a gap between patches, so that lines
that go on don't give the answer away.
"""

puzzle(keras_ssl.RelativePatch)

"""
**Jigsaw**: in which order are the pieces? Each is brought to one brightness and contrast, again against shortcuts. With
four pieces there are 24 orders.
"""

puzzle(keras_ssl.Jigsaw)

"""
## Train all four

Every task gets the same images, epochs, network and initial weights. `KNNProbe` measures the downstream accuracy after
each epoch, on labeled images that training does not see.
"""

scores = {
    "Rotation": ("rotation_accuracy", 0.25),
    "Distortion": ("explained", 0.0),
    "RelativePatch": ("position_accuracy", 0.125),
    "Jigsaw": ("jigsaw_accuracy", 1 / 24),
}


def few_labels(network, draws=5):
    train = keras_ssl.evaluate.extract_features(network, data.train.images, grid=2)
    test = keras_ssl.evaluate.extract_features(network, data.test.images, grid=2)
    draws = [keras_ssl.evaluate.draw_labels(data.train.labels, per_class=10, seed=draw) for draw in range(draws)]
    labels = data.train.labels
    return [keras_ssl.evaluate.linear_probe(train[few], labels[few], test, data.test.labels) for few in draws]


probe = keras_ssl.callbacks.KNNProbe(data.train, data.test)
model = made(keras_ssl.Rotation)
probe.set_model(model)
before, few_before = probe.accuracy(), few_labels(model.backbone)

histories, few = {}, {}
for method in methods:
    model = made(method)
    probe = keras_ssl.callbacks.KNNProbe(data.train, data.test)
    fitted = model.fit(images, batch_size=128, epochs=EPOCHS, verbose=0, callbacks=[probe])
    histories[method.__name__], few[method.__name__] = fitted.history, few_labels(model.backbone)

print(f"{'':16}{'proxy task':>12}{'by chance':>11}{'kNN':>8}{'10 labels per class':>22}")
print(f"{'untrained':16}{'':23}{before:8.3f}{np.mean(few_before):13.3f} ± {np.std(few_before, ddof=1):.3f}")
for name, history in histories.items():
    score, chance = scores[name]
    print(
        f"{name:16}{history[score][-1]:12.3f}{chance:11.3f}{history['knn_accuracy'][-1]:8.3f}"
        f"{np.mean(few[name]):13.3f} ± {np.std(few[name], ddof=1):.3f}"
    )

"""
The last column is a linear classifier on frozen features, with 10 labels per class: mean and standard deviation over
five draws of labels. Each task was trained once, and the 1,000 test images of kNN leave an uncertainty of 1.5 points.

Rotation and jigsaw are nearly solved, and the classifier gains almost nothing from it. Distortion is the task that is
solved least, half of the variance, and the only one whose gain is larger than that uncertainty. **How well a proxy task
is solved says nothing about which task to take.** Shirts, trousers and shoes all stand upright: whether the collar or
the hem is above can be seen without knowing which of them it is.

## Does the loss predict the accuracy?

`loss_correlation` ranks the epochs of a run by the loss and by the downstream accuracy. −1: the accuracy rises whenever
the loss falls. 0: the loss says nothing. p is the share of random orders that would correlate as strongly.
"""

print(f"{'':16}{'rank correlation':>18}{'p':>8}")
for name, history in histories.items():
    found = keras_ssl.evaluate.loss_correlation(history)["loss", "knn_accuracy"]
    print(f"{name:16}{found.rho:18.2f}{found.p_value:8.3f}")

figure, panels = plt.subplots(2, 4, figsize=(9, 4.2), layout="constrained", sharex=True, sharey="row")
for column, (name, history) in enumerate(histories.items()):
    score, chance = scores[name]
    epochs = np.arange(1, EPOCHS + 1)
    panels[0, column].plot(epochs, history[score], marker=".")
    panels[0, column].axhline(chance, color="gray", linestyle=":")
    panels[0, column].set_title(name, fontsize=10)
    panels[1, column].plot(epochs, history["knn_accuracy"], marker=".", color="tab:orange")
    panels[1, column].axhline(before, color="gray", linestyle=":")
    panels[1, column].set_xlabel("epoch")
panels[0, 0].set_ylabel("proxy task")
panels[1, 0].set_ylabel("kNN accuracy")
for axes in panels.flat:
    axes.grid(alpha=0.3)
plt.show()

"""
Above is how well the proxy task is solved, with chance dotted; below the downstream accuracy of the same epochs, with
the untrained network dotted.

- **Distortion**: the loss falls and the accuracy rises, as one hopes.
- **Jigsaw**: the strongest correlation, and at seven of eight epochs the accuracy is below that of the untrained
  network. Training first destroyed something, then brought it back. A correlation is no gain: draw the dotted line.
- **RelativePatch**: the best epoch is the second. From there on the task is solved better and the features get worse.
- **Rotation**: no relation.

Eight epochs of one run are weak evidence, and p takes them to be independent, which they are not. To choose a
checkpoint, a few labels and a probe are worth more than the loss of a proxy task.

## What to try next

A proxy task can be solved by a shortcut: watch what happens to RelativePatch with `gap=0, jitter=0`. Plot one run with
`plots.loss_correlation(history, "loss", "knn_accuracy")`. All methods at equal processor time, three seeds, are
[side by side](../methods.md#side-by-side): there, with wider networks and more images, rotation and jigsaw gain at 10
labels per class. Methods that compare views are the subject of [few labels](simclr_few_labels.md).
[Evaluating features](../evaluation.md#does-the-loss-predict-the-accuracy) says what a rank correlation of few
checkpoints is worth.
"""
