"""
Title: Continued pretraining of a keras-hub model
Description: Take a backbone from a preset, go on training it on your own pictures without labels, carefully, and find
out whether that was worth it.
"""

"""
A published network has seen millions of pictures, but not yours. Two ways to use it are well known: take its features
as they are, or fine-tune it on labels. There is a third, for those who have many pictures and few labels: *go on with
self-supervised training*, from its weights, on your pictures.

**What this tutorial can't show.** It runs without a network, so it can't download a preset. It makes one: a small ViT
of keras-hub, trained for seconds to classify gray drawings of garments, and saved as a preset in a folder. Its weights
are *not* the published ones, and its figures say nothing about those. The code is the same; for a published preset
write its name, such as `keras_ssl.hub.backbone("dinov2_small")`.

Our pictures are photographs of garments, in color, on carpets and walls. This is the step from one to the other:
"""

import keras
import keras_hub
import matplotlib.pyplot as plt
import numpy as np

import keras_ssl

PUBLISHED_EPOCHS = 10
EPOCHS = 6
SIDE = 32

drawings = keras_ssl.data.load("fashion_mnist_sample")
photos = keras_ssl.data.load("clothes_sample", image_size=SIDE)


def in_color(images):
    """Gray images of 28×28 as color images of 32×32."""
    return np.pad(np.repeat(images, 3, axis=-1), ((0, 0), (2, 2), (2, 2), (0, 0)))


known, new = in_color(drawings.train.images), np.asarray(photos.train.images)
figure, axes = plt.subplots(2, 8, figsize=(8, 2.4), layout="constrained")
figure.suptitle("Above: what the network was trained on. Below: our pictures", fontsize=10)
for ax, image in zip(axes.flat, [*known[:8], *new[::400][:8]]):
    ax.imshow(image)
    ax.axis("off")
plt.show()

"""
## A preset

Skip this where you have one. A ViT with patches of 8 pixels, three blocks, 64 wide, is trained *with* the labels of the
drawings, as many published ViTs are with those of ImageNet. `save_to_preset` writes configuration and weights.
"""


def vit():
    return keras_hub.models.ViTBackbone(
        image_shape=(SIDE, SIDE, 3),
        patch_size=8,
        num_layers=3,
        num_heads=4,
        hidden_dim=64,
        mlp_dim=128,
        dropout_rate=0.0,
        attention_dropout=0.0,
    )


keras.utils.set_random_seed(0)
classifier = keras.Sequential(
    [
        keras.Input((SIDE, SIDE, 3)),
        keras.layers.Rescaling(1 / 127.5, -1),
        vit(),
        keras.layers.GlobalAveragePooling1D(),
        keras.layers.Dense(10),
    ]
)
classifier.compile(
    keras.optimizers.AdamW(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
)
classifier.fit(known[:3000], drawings.train.labels[:3000], batch_size=128, epochs=PUBLISHED_EPOCHS, verbose=0)
loss, accuracy = classifier.evaluate(in_color(drawings.test.images), drawings.test.labels, verbose=0)
print(f"accuracy on the drawings it was trained for: {accuracy:.3f}")

keras_ssl.hub.save_to_preset(classifier, "published")

"""
## From the preset to a backbone

`hub.backbone` takes the name of a preset or a folder. keras-hub keeps the rescaling of images in a converter beside the
network; here it becomes the first layer, so that the backbone takes images of 0 … 255 in training and afterwards.
"""

backbone = keras_ssl.hub.backbone("published", (SIDE, SIDE, 3))
print([layer.name for layer in backbone.layers], backbone.output_shape)

"""
How good is it on our photographs? We ask a linear probe with 10 labels per class, on several draws of the labels, and
the nearest neighbors with all labels. Beside it stand raw pixels, and the same network with random weights.
"""


def scores(represent):
    """Linear probe with 10 labels per class, its deviation over three draws, and kNN with all labels."""
    bank, queries = represent(new), represent(np.asarray(photos.test.images))
    labels, found = photos.train.labels, []
    for seed in range(3):
        few = keras_ssl.evaluate.draw_labels(labels, per_class=10, seed=seed)
        found.append(keras_ssl.evaluate.linear_probe(bank[few], labels[few], queries, photos.test.labels))
    return np.mean(found), np.std(found, ddof=1), keras_ssl.evaluate.knn(bank, labels, queries, photos.test.labels)


def of(network):
    return scores(lambda images: keras_ssl.evaluate.extract_features(network, images))


def random_weights():
    keras.utils.set_random_seed(1)
    network = keras_ssl.hub.backbone("published", (SIDE, SIDE, 3))
    network.set_weights(vit().get_weights())
    return network


results = {
    "raw pixels": scores(lambda images: images.reshape(len(images), -1) / 255.0),
    "random weights": of(random_weights()),
    "as it came": of(backbone),
}

"""
## Going on

Three things are different from training from nothing:

- **a low rate.** The first gradients come through a new projector, and are nonsense. A rate as for training from
  nothing would wreck what the network knows before the projector knows anything. Warm up, too.
- **lower still for the first layers.** `optimizers.Decayed(…, layer_decay=0.75)` gives each block three quarters of the
  rate of the block above it. Edges are edges everywhere; what the last blocks know is about garments on black.
- **few epochs, and a look at a probe.** The loss does not say what is forgotten.

SimCLR's views are the paper's for small color images, with half of the color jitter.
"""

BATCH = 128
steps = EPOCHS * (len(new) // BATCH)


def continued(network, rate, layer_decay):
    """SimCLR on the photographs, from the weights that the network has."""
    keras.utils.set_random_seed(2)
    model = keras_ssl.SimCLR(
        network,
        keras_ssl.augment.simclr(SIDE, strength=0.5, scale=(0.3, 1.0)),
        keras_ssl.heads.mlp([64, 64], last_batch_norm=False),
        temperature=0.2,
    )
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps - steps // 10, warmup_target=rate, warmup_steps=steps // 10
    )
    model.compile(keras_ssl.optimizers.Decayed(keras.optimizers.AdamW(schedule, weight_decay=0.05), layer_decay))
    probe = keras_ssl.callbacks.KNNProbe(photos.train, photos.test, every=2)
    history = model.fit(new, batch_size=BATCH, epochs=EPOCHS, callbacks=[probe], verbose=0).history
    return of(network), [value for value in history["knn_accuracy"] if not np.isnan(value)]


curves = {}
results["continued"], curves["continued"] = continued(backbone, 3e-4, 0.75)
results["from random weights"], curves["from random weights"] = continued(random_weights(), 1e-3, 1.0)

print(f"{'':20} 10 labels per class  kNN, all labels")
for name, (mean, deviation, knn) in results.items():
    print(f"{name:20}     {mean:.3f} ± {deviation:.3f}        {knn:.3f}")

figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
for name, curve in curves.items():
    ax.plot(np.linspace(EPOCHS / len(curve), EPOCHS, len(curve)), curve, marker="o", label=name)
for name, style in (("as it came", "--"), ("raw pixels", ":")):
    ax.axhline(results[name][2], color="0.4", linestyle=style, linewidth=1)
    ax.annotate(name, (0.3, results[name][2]), xytext=(0, 3), textcoords="offset points", fontsize=8)
ax.set(
    xlim=(0, EPOCHS + 0.3), xlabel="epoch", ylabel="kNN accuracy", title="372 test photographs, while training goes on"
)
ax.legend()
plt.show()

"""
ENDING
"""
