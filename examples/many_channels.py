"""
Title: Pictures of many channels
Description: Eight bands instead of three colors. Which steps of a photograph's views make no sense, which one would
erase what you look for, and what that costs.
"""

"""
Satellites, microscopes and cameras for sorting food or plastic give pictures of 4, 8 or 200 channels. Two things change
against photographs. The first layer of the network has more channels, which Keras does by itself. And the views have to
be thought over, because the usual ones are made for colors that an eye sees:

- *Hue, saturation* and *gray* are defined for red, green and blue. With eight bands they mean nothing.
- *Brightness* and *contrast*, the same for all bands, are another light or another exposure. They still make sense.
- A change that differs *from band to band* bends the spectrum. If materials differ by their spectra, this shows the
  network not to look at them.

This tutorial makes pictures in which that matters, and measures it.

## The pictures

Garments of Fashion-MNIST, each of one of four materials, on one of two grounds, in eight bands. A material is a
spectrum: how much it reflects in each band. Light is stronger or weaker from picture to picture, and there is noise. So
each picture has two labels, its kind of garment and its material; the network gets neither.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops

import keras_ssl

PICTURES = 4000
EPOCHS = 5
BANDS = 8
MATERIALS = ("cotton", "wool", "leather", "nylon")
SPECTRA = np.array(
    [
        [0.50, 0.58, 0.66, 0.72, 0.76, 0.78, 0.79, 0.79],
        [0.52, 0.58, 0.62, 0.70, 0.78, 0.80, 0.74, 0.66],
        [0.60, 0.58, 0.60, 0.66, 0.72, 0.78, 0.82, 0.86],
        [0.64, 0.68, 0.70, 0.70, 0.70, 0.68, 0.66, 0.70],
    ]
)
GROUNDS = np.array([[0.25] * BANDS, np.linspace(0.15, 0.40, BANDS)])


def pictures(split, count, seed):
    """uint8 `(count, 28, 28, BANDS)`, and the numbers of garments and materials."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(split.images))[:count]
    shape = split.images[rows] / 255.0
    material, ground = rng.integers(4, size=count), rng.integers(2, size=count)
    cloth = (shape > 0.1) * (0.4 + 0.6 * shape) * SPECTRA[material][:, None, None]
    rest = (shape <= 0.1) * GROUNDS[ground][:, None, None]
    light = rng.uniform(0.5, 1.0, (count, 1, 1, 1))
    values = light * (cloth + rest) + rng.normal(0.0, 0.03, (count, 28, 28, BANDS))
    return (255 * np.clip(values, 0, 1)).astype("uint8"), split.labels[rows], material


sample = keras_ssl.data.load("fashion_mnist_sample")
train, train_garments, train_materials = pictures(sample.train, PICTURES, seed=1)
test, test_garments, test_materials = pictures(sample.test, 1000, seed=2)
print(train.shape, train.dtype)

figure = plt.figure(figsize=(8, 4.4), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=(1, 2))
above.suptitle("One picture, band by band", fontsize=10)
for band, ax in enumerate(above.subplots(1, BANDS)):
    ax.imshow(train[0, :, :, band], cmap="gray", vmin=0, vmax=255)
    ax.set_title(f"band {band + 1}", fontsize=8)
    ax.axis("off")
ax = below.subplots()
for name, spectrum in zip(MATERIALS, SPECTRA):
    ax.plot(range(1, BANDS + 1), spectrum, marker="o", label=name)
ax.set(xlabel="band", ylabel="reflected", title="Spectra of the materials")
ax.legend(fontsize=8)
plt.show()

"""
The bands of a picture look much alike: what tells wool from cotton is a few hundredths in some of them, and the light
varies by more than that.

## The views

`augment.simclr` takes the number of channels. With other than three it leaves saturation, hue and gray out. To ask for
gray anyway is an error that says so.
"""

policy = keras_ssl.augment.simclr(28, channels=BANDS, scale=(0.4, 1.0))
print([type(layer).__name__ for layer in policy.branches[0]])
try:
    keras_ssl.augment.Views([keras_ssl.augment.RandomGrayscale(probability=1.0)])(train[:4])
except ValueError as error:
    print(error)

"""
We compare three lists of steps:

- *crops*: a crop of 40 to 100 %, and a flip;
- *and light*: the policy above, which adds brightness and contrast, the same for all bands;
- *and each band*: these, and a factor of its own for each band, as a color jitter that works on single channels has it.

Here is what they do to the spectrum of a picture: the mean of each band over the garment, in six views.
"""


def views(kind):
    layers = list(keras_ssl.augment.simclr(28, channels=BANDS, scale=(0.4, 1.0)).branches[0])
    layers = layers[:2] if kind == "crops" else layers
    if kind == "and each band":
        layers.append(keras_ssl.augment.RandomScale(sigma=0.2, value_range=(0, 255)))
    return keras_ssl.augment.Views(layers, layers)


KINDS = ("crops", "and light", "and each band")
figure, axes = plt.subplots(1, 3, figsize=(8, 3), sharey=True, layout="constrained")
figure.suptitle("Spectra of six views of one picture (a thick line: the picture itself)", fontsize=10)
for ax, kind in zip(axes, KINDS):
    drawn = ops.convert_to_numpy(views(kind)(np.repeat(train[:1], 6, axis=0))[0])
    for picture in [*drawn, train[0].astype("float32")]:
        bright = picture[picture.mean(axis=-1) > np.quantile(picture.mean(axis=-1), 0.6)]
        ax.plot(range(1, BANDS + 1), bright.mean(axis=0), linewidth=1)
    ax.lines[-1].set(linewidth=3, color="black")
    ax.set(title=kind, xlabel="band")
plt.show()

"""
With crops the spectrum stays where it is: the six lines lie below the thick one. With light it moves up and down, and
keeps its form. With a factor for each band the form is gone: two views of one material look like two materials.

## Training

SimCLR with each of the three, from the same first weights, for the same steps. The optimizer and its schedule are
those of the [recipe](../recipes.md) for a few thousand small pictures. Then a question for each label: are the nearest
neighbors of a test picture of the same kind of garment? Of the same material?
"""


def network():
    keras.utils.set_random_seed(0)
    return keras_ssl.backbones.resnet8((28, 28, BANDS), width=8)


def accuracies(represent):
    bank, queries = represent(train), represent(test)
    return [
        keras_ssl.evaluate.knn(bank, labels, queries, test_labels)
        for labels, test_labels in ((train_garments, test_garments), (train_materials, test_materials))
    ]


recipe = keras_ssl.recipes.recipe(keras_ssl.SimCLR, train.shape[1:], len(train), batch_size=128, epochs=EPOCHS)
results = {
    "raw pixels": accuracies(lambda x: x.reshape(len(x), -1) / 255.0),
    "untrained network": accuracies(lambda x: keras_ssl.evaluate.extract_features(network(), x)),
}
for kind in KINDS:
    model = keras_ssl.SimCLR(network(), views(kind), **recipe.arguments)
    model.compile(recipe.optimizer)
    model.fit(train, batch_size=128, epochs=EPOCHS, verbose=0)
    results[kind] = accuracies(lambda x, model=model: keras_ssl.evaluate.extract_features(model, x))

print(f"{'kNN accuracy':20} garment  material")
for name, (garment, material) in results.items():
    print(f"{name:20} {garment:7.3f}  {material:8.3f}")

figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
places = np.arange(len(results))
for shift, which, label in ((-0.2, 0, "garment (chance 0.1)"), (0.2, 1, "material (chance 0.25)")):
    bars = ax.bar(places + shift, [value[which] for value in results.values()], 0.38, label=label)
    ax.bar_label(bars, fmt="%.2f", fontsize=8)
ax.set_xticks(places, results)
ax.set(ylim=(0, 1.15), title="Which label the features know, by the views")
ax.legend(ncols=2, fontsize=8)
plt.show()

"""
One run each, so a difference of three points is nothing. These are larger:

- With a factor for each band the material is lost: 0.391, where the untrained network has 0.442 and chance is 0.25. The
  network did as it was told. What differs between two views of a picture can't help to find the other one.
- With light that changes for all bands together it is 0.951. That step says that brightness does not count, and the
  form of the spectrum remains. With crops alone, where brightness counts, it is 0.901.
- For the garment it is the other way round. A network that can tell pictures apart by their spectra has little reason
  to look at shapes. Take the spectrum away, and it must.
- And the raw pixels are ahead of all of them for the garment: 5 passes over 4,000 pictures are few. Look at that column
  too before you believe a figure.

No list of views is right for all questions. **Vary what must not count, and keep what may.**

## What to try next

- `EPOCHS = 30`: does the garment come back in "and light"? It has 22 points to gain before it passes the raw pixels.
- Your own pictures: an array `(n, height, width, channels)` of any type, with `value_range=(0, 10_000)` or whatever
  they lie in, for the model and for each view.
- A view that you need and that is not there is a Keras layer, or a `keras_ssl.augment.RandomLayer` with one method.
  Bands that drop out, for example: `keras.layers.SpatialDropout2D(0.2)` covers whole channels.
- [Other data than photographs](../other_data.md) has more on volumes and series. [Series of sensors](series.md) asks
  the same question of time.
"""
