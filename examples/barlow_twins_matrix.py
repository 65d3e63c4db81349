"""
Title: Barlow Twins and its matrix
Description: The loss is about one matrix. Look at it before training, while it trains, and after.
"""

"""
Contrastive methods push images apart. Barlow Twins has no negatives: it looks at the *dimensions* of the embedding
instead. Take a batch, make two views of each image, and embed both. Correlate each dimension of the first view with
each dimension of the second, over the batch. The loss wants this matrix to be the identity:

- **1 on the diagonal**: a dimension says the same of both views. What the views change (crop, brightness) is left out.
- **0 beside it**: two dimensions say different things. If all images had one embedding, or all dimensions were copies
  of one, this could not be.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_ssl
from keras_ssl.evaluate import plots

IMAGES = 5120
EPOCHS = 6

data = keras_ssl.data.load("fashion_mnist_sample")
images = data.train.images[:IMAGES]

keras.utils.set_random_seed(0)
recipe = keras_ssl.recipes.recipe(keras_ssl.BarlowTwins, images.shape[1:], IMAGES, batch_size=128, epochs=EPOCHS)
backbone = keras_ssl.backbones.resnet8((28, 28, 1), width=16)
model = keras_ssl.BarlowTwins(backbone, views=recipe.views, **recipe.arguments)
model.compile(recipe.optimizer)
model.build(images.shape)
print(*(line.partition("  [")[0].rstrip() for line in recipe.describe().splitlines()[1:]), sep="\n")

"""
## Before training

Two views each of 1,000 images that are not trained on, through backbone and projector. `model.project` gives the
embedding that the loss compares. The picture shows 64 of its 512 dimensions.
"""

held_out = data.test.images[:1000]
views = [keras.ops.convert_to_numpy(view) for view in model.views(held_out)]


def embeddings():
    return [
        np.concatenate(
            [
                keras.ops.convert_to_numpy(model.project(view[at : at + 250], training=False))
                for at in range(0, 1000, 250)
            ]
        )
        for view in views
    ]


before = embeddings()
plots.cross_correlation(*before, most=64)

"""
There is no diagonal. The matrix is a plaid: its rows are nearly multiples of one row. Most of what the random network
says of an image is one thing, and all dimensions repeat it, some with the sign turned.

## Training

A callback of Keras keeps the matrix after each epoch, in two numbers: the mean of the diagonal and the size of the
rest.
"""


def two_numbers():
    matrix = keras.ops.convert_to_numpy(keras_ssl.losses.cross_correlation(*embeddings()))
    rest = matrix[~np.eye(len(matrix), dtype=bool)]
    return np.diagonal(matrix).mean(), np.sqrt(np.mean(rest**2))


numbers = [two_numbers()]
watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: numbers.append(two_numbers()))
probe = keras_ssl.callbacks.KNNProbe(data.train, data.test)
untrained = keras_ssl.evaluate.extract_features(backbone, data.test.images)
probe.set_model(model)
accuracies = [probe.accuracy()]
history = model.fit(images, batch_size=128, epochs=EPOCHS, verbose=0, callbacks=[watch, probe]).history
accuracies += history["knn_accuracy"]

print(f"{'epoch':>6}{'loss':>8}{'diagonal':>10}{'rest':>8}{'kNN':>8}")
for epoch, ((diagonal, rest), accuracy) in enumerate(zip(numbers, accuracies)):
    loss = f"{history['loss'][epoch - 1]:8.2f}" if epoch else " " * 8
    print(f"{epoch:6}{loss}{diagonal:10.3f}{rest:8.3f}{accuracy:8.3f}")

"""
## After training
"""

plots.cross_correlation(*embeddings(), most=64)

"""
The diagonal has come, and the plaid has gone: no row repeats another. The rest is not pale, though. The table has it in
numbers, of all 512 dimensions: it rises with the diagonal at first, and begins to fall when the diagonal stands still.
Its 512 · 511 entries count 0.005 each in the loss (`off_diagonal_weight`), and still make more than half of it at the
end. A longer run would go on there.

Why does this help a classifier? A direction that repeats another is no use to it. **RankMe** counts how many directions
the features of the backbone use; here before and after, with the share of the variance of each.
"""

trained = keras_ssl.evaluate.extract_features(backbone, data.test.images)
figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
for name, features in (("untrained", untrained), ("trained", trained)):
    shares = np.linalg.svd(features - features.mean(axis=0), compute_uv=False) ** 2
    label = f"{name}, RankMe {keras_ssl.evaluate.rank_me(features):.1f}"
    axes.semilogy(np.arange(1, len(shares) + 1), shares / shares.sum(), label=label)
axes.set_xlabel("direction, the largest first")
axes.set_ylabel("share of the variance")
axes.set_title("directions that the backbone's features use", fontsize=10)
axes.legend(frameon=False)
plt.show()

"""
## Few labels

The matrix is a means. What counts is what the features do for a classifier: a linear one on the frozen features, with
10 labels per class.
"""


def few_labels(network, draws=5):
    train = keras_ssl.evaluate.extract_features(network, data.train.images, grid=2)
    test = keras_ssl.evaluate.extract_features(network, data.test.images, grid=2)
    found = []
    for draw in range(draws):
        few = keras_ssl.evaluate.draw_labels(data.train.labels, per_class=10, seed=draw)
        found.append(keras_ssl.evaluate.linear_probe(train[few], data.train.labels[few], test, data.test.labels))
    return np.mean(found), np.std(found, ddof=1)


keras.utils.set_random_seed(0)
for name, network in (
    ("untrained", keras_ssl.backbones.resnet8((28, 28, 1), width=16)),
    ("Barlow Twins", backbone),
):
    print("{:14}{:.3f} ± {:.3f}".format(name, *few_labels(network)))

"""
Mean and standard deviation are over five draws of the labels, the same for both; the network was trained once. The
[table of all methods](../methods.md#side-by-side) has three seeds, and raw pixels, which are as good as this.

## What to try next

Set `off_diagonal_weight` to 0: nothing then keeps the dimensions apart, and the matrix turns red. Make the projector
wider, `keras_ssl.heads.mlp([1024, 1024], last_batch_norm=False)`, which the authors found to help. Or look at
[BYOL](byol_collapse.md), where nothing in the loss forbids the collapse. [Methods](../methods.md) has VICReg, which
writes the same idea without a correlation, and [pictures](../evaluation.md#pictures) other things to draw.
"""
