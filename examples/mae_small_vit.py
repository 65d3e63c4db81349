"""
Title: MAE on a small ViT
Description: Leave out most of a picture, let the network draw the rest, and look at what it draws. Then ask honestly
what its features are good for.
"""

"""
Most methods of this library compare two views of an image. A *masked autoencoder*
([He et al., 2022](https://arxiv.org/abs/2111.06377)) compares nothing. It cuts the image into patches, leaves out three
quarters of them, and asks a transformer for the pixels of those. Who can draw a missing sleeve knows that this is a
shirt.

That has three practical sides. There are no negatives and no teacher, so small batches are enough. The views hardly
matter, because what is hidden is what makes the task hard. And it is fast: the backbone sees a quarter of the patches.

## The task

Here are the images, what the network gets of them, and the network's first drawing, before it has learned anything.
`backbones.vit` is a transformer whose patches can be left out; keras-hub's `ViTBackbone` and `DINOV2Backbone` serve
too.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_ssl

IMAGES = 5000
EPOCHS = 8
BATCH = 128
PATCH = 7

data = keras_ssl.data.load("fashion_mnist_sample")
images = data.train.images[:IMAGES]


def vit():
    keras.utils.set_random_seed(0)
    return keras_ssl.backbones.vit((28, 28, 1), patch_size=PATCH, width=64, depth=3)


recipe = keras_ssl.recipes.recipe(keras_ssl.MAE, (28, 28, 1), len(images), BATCH, epochs=EPOCHS)
views = keras_ssl.augment.mae(28, scale=(0.6, 1.0))  # a mild crop, and a flip
model = keras_ssl.MAE(vit(), views, normalize=False, **recipe.arguments)
model.compile(recipe.optimizer)
model.build((None, 28, 28, 1))

held = data.test.images[[np.flatnonzero(data.test.labels == kind)[0] for kind in range(10)]]


def show(title):
    gaps, made = model.reconstruct(held)
    figure, axes = plt.subplots(3, 10, figsize=(8, 2.8), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for row, pictures, name in zip(axes, (held, gaps, made), ("image", "seen", "drawn")):
        row[0].text(-3, 14, name, rotation=90, va="center", ha="right", fontsize=9)
        for ax, picture in zip(row, pictures):
            ax.imshow(np.clip(picture[..., 0], 0, 255), cmap="gray", vmin=0, vmax=255)
            ax.axis("off")
    plt.show()


show("Ten test images before training")

"""
Each image has 4 × 4 patches, of which 4 are seen. Which ones is drawn anew for each image and each step.

## Training

The recipe gives optimizer, rate, schedule and the size of the decoder. It says itself how much it knows:
"""

for name, value, _source in recipe.entries():
    print(f"{name:15}{value}")
print(recipe.notes[0])

"""
Two metrics are logged. `mae` is the loss, the mean square of what is wrong in the hidden patches. `explained` is easier
to read: below 0 at first, 0 where the network does no better than to paint the gaps in the mean color of what it sees,
1 where every pixel is right. `normalize=False` predicts pixels as they are. The paper's default subtracts the mean of
each patch and divides by its deviation, which its authors found better for features, and which makes worse pictures.
"""

history = model.fit(images, batch_size=BATCH, epochs=EPOCHS, verbose=0).history

figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.plot(range(1, EPOCHS + 1), history["explained"], marker="o")
ax.set(xlabel="epoch", ylabel="explained", title="How much of the hidden patches is explained")
ax.axhline(0, color="0.6", linewidth=1)
plt.show()

"""
And the same ten images, none of which it was trained on:
"""

show("Ten test images after training")

"""
After 312 steps it goes on with what it sees: a garment is bright around the middle, shoes are dark above, a trouser leg
has a dark side. It knows no sleeves yet, and all is blurred. Some of that stays: where several continuations are
possible, their mean has the least square error. The rest is time. The paper trains for 800 epochs, on 1.3 million
images.

## What are the features good for?

`model.backbone` is a plain Keras model. We ask it the usual question, a linear probe on frozen features with 10 labels
per class, and then what MAE is made for: *fine-tuning*, in which all weights are trained on the labels. Each stands
beside the same network with its first weights.
"""


def probe(backbone, draws=3):
    """Frozen: mean and deviation over draws of the labels."""
    train, test = (
        keras_ssl.evaluate.extract_features(backbone, split.images, grid=2) for split in (data.train, data.test)
    )
    found = []
    for seed in range(draws):
        few = keras_ssl.evaluate.draw_labels(data.train.labels, per_class=10, seed=seed)
        labels = data.train.labels[few]
        found.append(keras_ssl.evaluate.linear_probe(train[few], labels, test, data.test.labels))
    return found


def fine_tune(backbone, draws=3, protocol="fine-tune"):
    return [
        keras_ssl.evaluate.fine_tune(
            backbone, data.train, data.test, per_class=10, protocol=protocol, epochs=20, seed=seed
        ).accuracy
        for seed in range(draws)
    ]


results = {
    "frozen, 10 labels per class: untrained": probe(vit()),
    "frozen, 10 labels per class: MAE": probe(model.backbone),
    "fine-tuned, 10 per class: from scratch": fine_tune(vit(), protocol="from-scratch"),
    "fine-tuned, 10 per class: MAE": fine_tune(model.backbone),
}
for name, found in results.items():
    print(f"{name:40} {np.mean(found):.3f} ± {np.std(found, ddof=1):.3f}")

"""
These are the figures of half a minute of training, and they say what one may expect of it:

- *Frozen*, the features are no better than those of the untrained network (0.609 and 0.602 with a deviation of 0.034).
  MAE never asks that images of one kind lie together, so a linear probe finds little.
- *Fine-tuned*, its weights are a better start than random ones in the mean of three draws (0.627 and 0.572), within the
  deviation of 0.080 that the draws of labels have. A claim would need more draws.

With so little time a contrastive method gains more on these images: [methods](../methods.md) has the figures of all
methods in the same time. MAE pays with larger transformers, larger images and long training.

## What to try next

- More time: `EPOCHS = 50`. See how far `explained` goes, and whether sleeves appear.
- `PATCH = 4` gives 49 patches of which 12 are seen: finer drawings, and three times the work.
- `normalize=True`, the paper's choice. Does the fine-tuned accuracy rise, as the paper reports?
- `keras_ssl.SimMIM` hides patches behind a token instead of leaving them out, and takes convolutions too.
- MAE from weights that exist: [continued pretraining](../continued_pretraining.md).
"""
