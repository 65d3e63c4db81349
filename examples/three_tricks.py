"""
Title: Three tricks of contrastive learning, each on and off
Description: Heavy augmentation, large batches and hard negatives in SimCLR: what each brings, in figures.
"""

"""
Three things are said to make contrastive learning work:

- **Heavy augmentation**: views that differ so much that only the content is left to recognize them by.
- **Large batches**: the negatives are the other images of the batch; with more of them the task is harder.
- **Hard negatives**: those that look like the image say more than those that don't, so they get more weight.

Each is an argument here. Start with all three off, switch each on alone, then all together. Every run sees the same
number of images, and there are two seeds, for one seed can't tell a gain from luck.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_ssl
from keras_ssl import augment
from keras_ssl.evaluate import plots

IMAGES = 2560
EPOCHS = 4
SEEDS = 2

data = keras_ssl.data.load("fashion_mnist_sample")
images = data.train.images[:IMAGES]
bank, labels = data.train.images[:4000], data.train.labels[:4000]  # to classify with

"""
## The views

Light views are a crop of nine tenths or more and a flip. Heavy views are the library's policy for small gray images:
crops from 60 %, brightness and contrast, and an erased box.
"""


def light():
    layers = [augment.RandomResizedCrop(28, scale=(0.9, 1.0)), augment.RandomHorizontalFlip()]
    return augment.Views(layers, layers)


def heavy():
    return augment.small_gray(28)


plots.views_of(images[1:3], light(), count=7)

"""
And the heavy ones, of the same two images:
"""

plots.views_of(images[1:3], heavy(), count=7)

"""
## The runs

All else is the measured recipe of SimCLR. It adapts the learning rate to the batch. All runs see the same images, so
batches of 32 take eight times the steps of batches of 256.
"""


def train(views=light, batch_size=32, negatives=None, seed=0):
    keras.utils.set_random_seed(seed)
    recipe = keras_ssl.recipes.recipe(keras_ssl.SimCLR, (28, 28, 1), IMAGES, batch_size=batch_size, epochs=EPOCHS)
    backbone = keras_ssl.backbones.resnet8((28, 28, 1), width=16)
    if views is not None:
        model = keras_ssl.SimCLR(backbone, views=views(), negatives=negatives, seed=seed, **recipe.arguments)
        model.compile(recipe.optimizer)
        model.fit(images, batch_size=batch_size, epochs=EPOCHS, verbose=0)
    return backbone


def accuracies(backbone, draws=5):
    """A linear classifier with 10 labels per class, the mean of some draws of labels; and kNN with 4,000 labels."""
    train = keras_ssl.evaluate.extract_features(backbone, bank, grid=2)
    test = keras_ssl.evaluate.extract_features(backbone, data.test.images, grid=2)
    linear = []
    for draw in range(draws):
        few = keras_ssl.evaluate.draw_labels(labels, per_class=10, seed=draw)
        linear.append(keras_ssl.evaluate.linear_probe(train[few], labels[few], test, data.test.labels))
    return np.mean(linear), keras_ssl.evaluate.knn(train, labels, test, data.test.labels)


hard = keras_ssl.mining.HardnessWeighted(2.0)
settings = {
    "untrained": {"views": None},
    "all off": {},
    "heavy augmentation": {"views": heavy},
    "batches of 256": {"batch_size": 256},
    "hard negatives": {"negatives": hard},
    "all on": {"views": heavy, "batch_size": 256, "negatives": hard},
}
results = {
    name: np.array([accuracies(train(**setting, seed=seed)) for seed in range(SEEDS)])
    for name, setting in settings.items()
}

print(f"{'':22}{'10 labels per class':>26}{'kNN, 4,000 labels':>26}")
for name, found in results.items():
    columns = (f"{f.mean():.3f} ({', '.join(f'{value:.3f}' for value in f)})" for f in found.T)
    print(f"{name:22}" + "".join(f"{column:>26}" for column in columns))

figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
off = results["all off"][:, 0].mean()
for place, found in enumerate(results.values()):
    axes.scatter(found[:, 0], [place] * SEEDS, color="tab:blue")
    axes.scatter(found[:, 0].mean(), place, marker="|", s=300, color="black")
axes.axvline(off, color="gray", linestyle=":")
axes.set_yticks(range(len(results)), list(results))
axes.invert_yaxis()
axes.set_xlabel("accuracy with 10 labels per class: each seed, and their mean")
axes.grid(alpha=0.3)
plt.show()

"""
The dotted line is "all off". What the runs say:

- **Heavy augmentation is the trick**: 8.6 points over all off. Without it, training makes features *worse* than those
  of the untrained network, by both measures: two light views of a picture can be matched by their outline and
  brightness, and the network gives up the rest.
- **Larger batches and hard negatives**: about one point each at 10 labels per class, which is as much as two seeds
  differ. By kNN there is nothing. For all that these runs show, both may be luck.
- **All on** is 1.4 points below heavy augmentation alone. Batches of 256 have 40 steps here, beside 320 of batches of
  32: with heavy views, which are harder, that seems to cost more than the negatives bring. The tricks don't add up by
  themselves.

The papers saw gains of batch size and of hard negatives in runs of many more steps, on more classes. What is true
there need not be true of 2,560 images, and the other way round. Measure on yours.

## What to try next

Take the heavy policy apart: leave out one layer at a time. Raise `HardnessWeighted(2.0)` to 10, where negatives of the
image's own class get most of the weight; `keras_ssl.mining.WithoutFalseNegatives` leaves those out. A memory of past
embeddings (`memory=2048`) gives small batches more negatives. [Large batches](../large_batches.md) shows how to get
them on a small machine, [BYOL](byol_collapse.md) how to do without negatives, and
[SimCLR](../methods/SimCLR.md) what else can be done with them.
"""
