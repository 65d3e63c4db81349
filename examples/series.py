"""
Title: Series of sensors
Description: Six motions, recorded by a sensor that was held in any direction. Which views make a network see the
motion, what other methods make of it, and which part of the views does the work.
"""

"""
Nothing in self-supervised learning is about photographs but the views. For other data two questions are left: which
network, and what may change in an example without changing what it is? This tutorial answers both for *series*, arrays
of `(time, channels)`, such as those of a sensor of acceleration with three axes.

## The series

We make them, so that we know what is in them. There are six motions: a sine or a square wave, slow, medium or fast.
Each recording starts at another moment, the sensor is held in another direction (so the wave is spread over the three
channels in another way), and there is noise.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers, ops

import keras_ssl

ROWS = 1500
EPOCHS = 10
LENGTH = 96
MOTIONS = [f"{shape}, {speed}" for shape in ("sine", "square") for speed in ("slow", "medium", "fast")]


def sensors(rows, seed):
    """Series `(rows, LENGTH, 3)` and the number of the motion of each."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(6, size=rows)
    speed = np.array([3.0, 6.0, 12.0])[labels % 3] * rng.uniform(0.9, 1.1, rows)
    time = np.linspace(0.0, 2.0 * np.pi, LENGTH)
    phase = speed[:, None] * time + rng.uniform(0.0, 2.0 * np.pi, (rows, 1))
    wave = np.where((labels < 3)[:, None], np.sin(phase), np.sign(np.sin(phase)))
    axes = rng.normal(size=(rows, 1, 3))  # how the sensor was held
    series = wave[:, :, None] * axes / np.linalg.norm(axes, axis=2, keepdims=True)
    return (series + 0.4 * rng.normal(size=series.shape)).astype("float32"), labels


(train, train_labels), (test, test_labels) = sensors(ROWS, seed=1), sensors(500, seed=2)

figure, axes = plt.subplots(2, 3, figsize=(8, 3.6), sharex=True, sharey=True, layout="constrained")
figure.suptitle("One recording of each motion: three channels over time")
for label, ax in enumerate(axes.flat):
    ax.plot(train[np.argmax(train_labels == label)], linewidth=1)
    ax.set_title(MOTIONS[label], fontsize=9)
plt.show()

"""
## The views

`keras_ssl.augment.series` makes two views of each series: a part of the time, stretched to the whole length; a span
that is covered; another amplitude for each channel; noise. Look at views before you train. Can you still tell the
motion? If not, no network can.
"""

views = keras_ssl.augment.series(LENGTH)
chosen = train[[np.argmax(train_labels == label) for label in (1, 4)]]
drawn = [ops.convert_to_numpy(view) for view in views(chosen)]

figure, axes = plt.subplots(2, 3, figsize=(8, 3.6), sharex=True, sharey=True, layout="constrained")
figure.suptitle("Series, and two views of each")
for row, label in enumerate((1, 4)):
    for ax, series, name in zip(axes[row], (chosen[row], drawn[0][row], drawn[1][row]), ("series", "view 1", "view 2")):
        ax.plot(series, linewidth=1)
        ax.set_title(f"{MOTIONS[label]}: {name}", fontsize=9)
plt.show()

"""
One thing looks dangerous here. A part of half of the time, stretched to the whole, is a wave of half the speed, and
speed is what tells three of our motions from the others. Below we measure whether that costs anything.

## A network, and a first result

A few convolutions over time do. `value_range=None` says that series have no lowest and highest value. We measure by the
nearest neighbors: is the most similar series one of the same motion? Beside the trained network stand the raw series
and the untrained network. Without them a number says nothing.
"""


def convolutions():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((LENGTH, 3)),
            layers.Conv1D(32, 7, strides=2, activation="gelu"),
            layers.Conv1D(64, 5, strides=2, activation="gelu"),
            layers.Conv1D(64, 3, activation="gelu"),
            layers.GlobalAveragePooling1D(),
        ]
    )


def accuracy(network):
    """Of the nearest neighbors in the features of a network; None for the raw series."""
    bank, queries = (
        x.reshape(len(x), -1) if network is None else keras_ssl.evaluate.extract_features(network, x)
        for x in (train, test)
    )
    return keras_ssl.evaluate.knn(bank, train_labels, queries, test_labels)


def trained(model, epochs=EPOCHS):
    model.compile(keras.optimizers.AdamW(2e-3))
    model.fit(train, batch_size=250, epochs=epochs, verbose=0)
    return accuracy(model)


results = {"raw series": accuracy(None), "untrained": accuracy(convolutions())}
results["SimCLR"] = trained(keras_ssl.SimCLR(convolutions(), views, value_range=None))
for name, value in results.items():
    print(f"{name:24} {value:.3f}")

"""
Raw series are close where they start at the same moment and were held alike, which is chance. A convolution with a mean
over time does not mind the moment. What SimCLR adds is the rest.

## Other methods

All methods take series. BYOL and VICReg have no negatives; their papers' heads are made for 2,048 features, so we give
them smaller ones. MAE needs no views at all: it leaves out half of a transformer's tokens of 8 moments each, and
predicts them. BYOL's first target is an untrained network, and MAE sees a part of each example, so both get more
epochs. All of them are given 1,500 series and no labels.
"""


def mlp(*widths):
    return keras_ssl.heads.mlp(list(widths), last_batch_norm=False)


def transformer():
    keras.utils.set_random_seed(0)
    return keras_ssl.backbones.vit((LENGTH, 3), patch_size=8, width=64, depth=3, heads=4, value_range=None)


byol = keras_ssl.BYOL(
    convolutions(), views, projector=mlp(256, 64), predictor=mlp(256, 64), momentum=0.97, value_range=None
)
results["BYOL, 2 x the epochs"] = trained(byol, 2 * EPOCHS)
vicreg = keras_ssl.VICReg(convolutions(), views, projector=mlp(256, 256), value_range=None)
results["VICReg"] = trained(vicreg)
results["untrained transformer"] = accuracy(transformer())
decoder = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 4}
mae = keras_ssl.MAE(transformer(), mask_ratio=0.5, normalize=False, value_range=None, **decoder)
results["MAE, 3 x the epochs"] = trained(mae, 3 * EPOCHS)
for name, value in results.items():
    print(f"{name:24} {value:.3f}")

"""
VICReg is far ahead here, after the same ten epochs. MAE is hardly better than the untrained transformer. Why? We ask it
what it predicts. `reconstruct` gives the series with gaps, and with what the model puts there.
"""

gaps, made = mae.reconstruct(chosen)
figure, axes = plt.subplots(2, 1, figsize=(8, 4), sharex=True, layout="constrained")
figure.suptitle("MAE: the first channel, what was seen, and what was put into the gaps")
for row, ax in enumerate(axes):
    hidden = np.repeat(np.all(gaps[row].reshape(-1, 8, 3) == 0, axis=(1, 2)), 8)
    ax.plot(chosen[row, :, 0], color="0.7", linewidth=1, label="series")
    ax.plot(np.where(hidden, np.nan, chosen[row, :, 0]), color="C0", linewidth=1.5, label="seen")
    ax.plot(np.where(hidden, made[row, :, 0], np.nan), color="C1", linewidth=1.5, label="predicted")
    ax.set_title(MOTIONS[(1, 4)[row]], fontsize=9)
axes[0].legend(loc="upper right", fontsize=8)
plt.show()

"""
It predicts the mean, 0, and no wave. That is what a model of this kind learns first, and after 30 epochs of 6 steps it
has learned nothing else. No accuracy would have told us so plainly. More epochs are the first thing to try (see below).

## Which view does the work?

The strengths of `augment.series` are guesses for series of any kind. Yours are of one kind, so try. We train SimCLR
with the whole time, with parts of at least 90 % of it, which change the speed little, and without noise.
"""

ablation = {
    "the whole time": {"scale": (1.0, 1.0)},
    "parts of 90 % or more": {"scale": (0.9, 1.0)},
    "no noise": {"std": 0.0},
}
found = {
    name: trained(keras_ssl.SimCLR(convolutions(), keras_ssl.augment.series(LENGTH, **changed), value_range=None))
    for name, changed in ablation.items()
}
shown = {"raw series": results["raw series"], "untrained": results["untrained"], "as above": results["SimCLR"], **found}

figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
bars = ax.barh(list(shown)[::-1], list(shown.values())[::-1], color=["C0"] * (len(shown) - 2) + ["0.7"] * 2)
ax.bar_label(bars, fmt="%.3f", padding=3)
ax.set(xlim=(0, 1.1), title="SimCLR on series: kNN accuracy by its views (one run each)")
plt.show()

"""
These are one run each, on 500 test series; the standard error of each figure alone is two points. So the three changed
views are not better than those of `augment.series`, and the danger that we saw is none here: with the whole time, so
that each speed is kept, it is 0.722 and not more than 0.762. That the three speeds differ by a factor of two, and a
part is rarely as short as a half, may be why. **A suspicion about views is worth a run.** The choice of the method made
more of a difference than all of them.

## What to try next

- MAE with `trained(mae, 30 * EPOCHS)`: does it draw waves? What does its accuracy do?
- Your own series: an array `(n, time, channels)`, each channel less its mean and divided by its deviation. Plot views
  of it first.
- Is there something that must not count, such as how the sensor was held? Write it as a view. A random rotation of the
  three axes is a Keras layer of a few lines, and stands in a list of views with others.
- [Other data than photographs](../other_data.md) lists the views for spectrograms, volumes and tables; the scripts
  `examples/spectrograms.py` and `examples/volumes.py` train on them.
- [A small ViT with MAE](mae_small_vit.md) is about predicting what was left out, of images.
"""
