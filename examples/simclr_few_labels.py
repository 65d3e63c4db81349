"""
Title: From photographs to a classifier with few labels
Description: SimCLR learns from 3,409 photographs without labels; then 10 labels per class train a classifier.
"""

"""
You have photographs by the thousand, and somebody's afternoon for labels. A network trained on 100 labeled images from
scratch has little to go by. Here the same network first looks at all photographs without labels, by SimCLR: two random
views of one photograph are to be near each other, and far from those of all others. Then it gets the labels.

The photographs are of clothes, in ten classes. They come with the library.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_ssl
from keras_ssl.evaluate import plots

EPOCHS = 12
DRAWS = 2

data = keras_ssl.data.load("clothes_sample", image_size=32)  # or a folder of your own: load("photos/", image_size=32)
images = data.train.images
print(f"{len(images):,} photographs to learn from, {len(data.test):,} to test with, {images.shape[1:]}")
print(", ".join(data.train.class_names))

"""
## Look at the views first

What the views change is what the network learns to ignore. Can you still tell what it is? If not, the network can't
either. If views hardly differ, there is nothing to learn. Color jitter matters for photographs: without it, two crops
of one picture are recognized by their colors alone.
"""

recipe = keras_ssl.recipes.recipe(keras_ssl.SimCLR, images.shape[1:], len(images), batch_size=128, epochs=EPOCHS)
plots.views_of(images[[4, 40]], recipe.views, count=7)

"""
## Learn without labels

The recipe has optimizer, learning rate, schedule, views and temperature, and says where each is from.
"""

print(*(line.partition("  [")[0].rstrip() for line in recipe.describe().splitlines()[1:]), sep="\n")

keras.utils.set_random_seed(0)
backbone = keras_ssl.backbones.resnet8(images.shape[1:], width=16)
model = keras_ssl.SimCLR(backbone, views=recipe.views, **recipe.arguments)
model.compile(recipe.optimizer)
probe = keras_ssl.callbacks.KNNProbe(data.train, data.test, every=2)
history = model.fit(images, batch_size=128, epochs=EPOCHS, callbacks=[probe], verbose=0).history

"""
`fit` got images alone. The probe is for us: it classifies the test photographs by the nearest labeled ones in the
features as they stand.
"""

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
left.plot(np.arange(1, EPOCHS + 1), history["loss"], marker=".")
left.axhline(np.log(2 * 128 - 1), color="gray", linestyle=":")
left.annotate("nothing learned", (1, np.log(255)), (0, -11), textcoords="offset points", color="gray", fontsize=9)
left.set_title("loss (lower is better)", fontsize=10)
right.plot(np.append(np.arange(2, EPOCHS, 2), EPOCHS), history["knn_accuracy"], marker=".", color="tab:orange")
right.set_title("kNN accuracy (higher is better)", fontsize=10)
for axes in (left, right):
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
plt.show()

"""
The loss falls steadily. The probe stands at 0.31 after two epochs, and moves by no more than its uncertainty from there
on: 372 test photographs can't show a gain of a point or two.

## A classifier from few labels

`backbone` is a plain Keras model again. `fine_tune` puts a dense layer on a copy of it and trains with the labels it is
given, here 10 per class:

- **frozen**: only the new layer is trained;
- **fine-tuned**: all weights are;
- **from scratch**: the same network from new weights. This is what you would have without the photographs.

Nothing is chosen on the test photographs, and the draws of labels are the same in each row.
"""

rows = {"frozen": "linear", "fine-tuned": "fine-tune", "from scratch": "from-scratch"}
accuracies = {}
for name, protocol in rows.items():
    for draw in range(DRAWS):
        tuned = keras_ssl.evaluate.fine_tune(
            backbone, data.train, data.test, per_class=10, protocol=protocol, seed=draw
        )
        accuracies.setdefault(name, []).append(tuned.accuracy)
        if (name, draw) == ("fine-tuned", 0):
            classifier, classes = tuned.classifier, tuned.classes

for name, found in accuracies.items():
    print(f"{name:14}{np.mean(found):.3f}   ({', '.join(f'{accuracy:.3f}' for accuracy in found)})")
counts = np.bincount(data.test.labels)
print(f"{'always':14}{counts.max() / counts.sum():.3f}   {data.test.class_names[counts.argmax()]}, the largest class")

"""
In brackets are the draws of labels. Pretraining brings 6 to 8 points over the same network from scratch, and 8 to 10
over naming the largest class always. All are modest: the network is small, the photographs have 32 pixels, and the test
photographs are harder than the training ones, other rooms and other people ([the samples](../data.md#the-samples)).
There are 372 of them, which leaves an uncertainty of 2.4 points by itself.

## Use it

The classifier is Keras, images in and one number per class out. It saves and loads without keras_ssl.
"""

shown = np.random.default_rng(1).choice(len(data.test), 12, replace=False)
guesses = classes[classifier.predict(data.test.images[shown], verbose=0).argmax(axis=1)]
figure, panels = plt.subplots(2, 6, figsize=(8, 3.4), layout="constrained")
for axes, row, guess in zip(panels.flat, shown, guesses):
    right = guess == data.test.labels[row]
    axes.imshow(data.test.images[row])
    axes.set_title(data.test.class_names[guess], fontsize=9, color="tab:green" if right else "tab:red")
    axes.axis("off")
plt.show()
classifier.save("classifier.keras")

"""
Twelve test photographs, drawn at random: in green what is right, in red what is not.

## What to try next

Train longer and wider: the recipe's own number for this many photographs is 23 epochs, `resnet8` has a width of 32 by
default, and `image_size=64` shows more. With 200 labels of 3,000 photographs, 20 epochs and that width, pretraining
brought 12 points ([images](../data.md)). Pass a folder of your own to `load`, and with `labels="labels.csv"` the few
labels that you have. Which images should be labeled? `keras_ssl.evaluate.select` chooses them.
[Using a backbone](../transfer.md) compares ways of training with labels; [three tricks](three_tricks.md) takes SimCLR
apart.
"""
