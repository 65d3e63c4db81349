"""
Title: Similar images of your own: Siamese and triplet networks, and search
Description: Which pictures show the same kind of thing? Learned from views alone, and from labels; then a search.
"""

"""
A classifier needs a list of classes. A search does not: give it a picture, and it shows the most similar ones of a
collection. All that it needs is a network whose features are near for what is alike. Two old ideas train one:

- A **Siamese** network takes pairs. Both pictures go through one network; those of a pair that belongs together are
  pulled together, others are pushed apart up to a margin. What belongs together may be known, or be two random views of
  one picture, which needs no labels.
- A **triplet** network takes an anchor, a positive and a negative, and wants the positive to be nearer by a margin.
  Only triplets that are not right yet teach anything, so they are *mined* from the batch.
"""

import keras
import numpy as np

import keras_ssl
from keras_ssl.evaluate import plots

IMAGES = 3840
EPOCHS = 6

data = keras_ssl.data.load("fashion_mnist_sample")  # your own: load("photos/", image_size=64)
images, labels, names = data.train.images[:IMAGES], data.train.labels[:IMAGES], data.train.class_names
plots.chosen(images[:20], across=10, width=8)

"""
## Without labels: Siamese, from views

Recipes have optimizer, schedule, views and heads as they were measured.
"""


def trained(method, **arguments):
    keras.utils.set_random_seed(0)
    recipe = keras_ssl.recipes.recipe(method, images.shape[1:], len(images), batch_size=128, epochs=EPOCHS)
    backbone = keras_ssl.backbones.resnet8(images.shape[1:], width=16)
    model = method(backbone, views=recipe.views, **{**recipe.arguments, **arguments})
    model.compile(recipe.optimizer)
    given = (images, labels) if arguments.get("labels") else (images,)
    history = model.fit(*given, batch_size=128, epochs=EPOCHS, verbose=0).history
    print(method.__name__, " ".join(f"{loss:.3f}" for loss in history["loss"]))
    return model


siamese = trained(keras_ssl.Siamese)

"""
A Siamese network says how alike two pictures are, between 0 and 1. Here for pairs of test images of one kind, and
of different kinds.
"""

rng = np.random.default_rng(0)
first, second = rng.integers(0, len(data.test), (2, 2000))
same = data.test.labels[first] == data.test.labels[second]
first, second, same = first[first != second], second[first != second], same[first != second]
alike = siamese.similarity(data.test.images[first], data.test.images[second])
for name, kind in (("same kind", same), ("different kinds", ~same)):
    print(f"{name:16}{alike[kind].mean():.3f} on average, {np.mean(alike[kind] > 0.5):.0%} above a half")

"""
## With labels: triplets

If you have labels, a shop's categories for instance, they say better than views what belongs together. `labels=True`
takes them from `fit(images, labels)`. `semi_hard` mines negatives that are farther than the positive, yet within the
margin: FaceNet's choice.
"""

triplet = trained(keras_ssl.Triplet, labels=True, mining=keras_ssl.mining.semi_hard)

"""
## Which of them finds what you look for?

For each test image: how many of its five nearest images of the collection are of its kind? Raw pixels and the
untrained network stand beside the two, for a comparison without them says nothing.
"""

keras.utils.set_random_seed(0)
untrained = keras_ssl.backbones.resnet8(images.shape[1:], width=16)
networks = {"untrained": untrained, "Siamese, views": siamese.backbone, "Triplet, labels": triplet.backbone}
features = {"raw pixels": (images.reshape(len(images), -1), data.test.images.reshape(len(data.test), -1))}
for name, network in networks.items():
    parts = (images, data.test.images)
    features[name] = tuple(keras_ssl.evaluate.extract_features(network, part) for part in parts)

for name, (collection, queries) in features.items():
    _, found = keras_ssl.evaluate.search(collection, queries, k=5)
    print(f"{name:18}{np.mean(labels[found] == data.test.labels[:, None]):.3f}")
shares = np.bincount(labels) / len(labels)
print(f"{'at random':18}{np.mean(shares[data.test.labels]):.3f}")

"""
Both are ahead of their untrained network, by 6 points from views and by 9 from labels. **Raw pixels are still better**
by a point: garments of this sample are centered, of one size and on black, so that pictures of a kind nearly cover each
other, and the training was short. Where pixels do so well, take them; photographs of a camera are
rarely so tidy. A table without these rows would have looked like a success.

Now look. The first column has queries of the test images, beside each its nearest images of the collection with the
cosine. Those in a red frame are of another class.
"""

shown = np.array([np.flatnonzero(data.test.labels == label)[1] for label in (0, 2, 5, 6, 8)])
called = {"names": [names[label] for label in labels], "query_names": [names[data.test.labels[row]] for row in shown]}


def neighbors(name):
    collection, queries = features[name]
    return plots.neighbors(collection, images, data.test.images[shown], queries[shown], count=7, width=8, **called)


neighbors("Siamese, views")

"""
The Siamese network learned from views alone, and goes by what views keep, the outline: its cosines are all near 1, and
a long white T-shirt is a trouser to it. The triplet network was told what counts:
"""

neighbors("Triplet, labels")

"""
## A picture of your own

A query can be any file. Keras reads it; the network gives its features; `search` gives the rows of the collection.
"""

keras.utils.save_img("my_photo.png", data.test.images[shown[1]])  # stands for a file of yours
file = keras.utils.load_img("my_photo.png", color_mode="grayscale", target_size=images.shape[1:3])
picture = keras.utils.img_to_array(file)[None]
query = keras_ssl.evaluate.extract_features(triplet.backbone, picture)
cosines, rows = keras_ssl.evaluate.search(features["Triplet, labels"][0], query, k=5)
for cosine, row in zip(cosines[0], rows[0]):
    print(f"row {row:5}  cosine {cosine:.3f}  {names[labels[row]]}")

"""
## What to try next

A folder of yours is searched from the terminal by `keras-ssl search`, with the run that `keras-ssl pretrain` left:
see [the command](../commands.md). `keras_ssl.evaluate.near_copies` finds pictures that a collection holds twice, by the
same features. Try `mining=keras_ssl.mining.hard`, or `keras_ssl.SimCLR`, which compares each picture with all of a
batch ([few labels](simclr_few_labels.md)). [Siamese](../methods/Siamese.md) and [Triplet](../methods/Triplet.md)
tell how to give pairs and triplets that you know yourself.
"""
