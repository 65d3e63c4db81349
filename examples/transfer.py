"""The trained backbone in a plain Keras classifier, with 10 labels a class: frozen, fine-tuned, and from scratch.

python examples/transfer.py
python examples/transfer.py --backbone runs/simclr-fashion_mnist_sample-1/backbone.keras
"""

import argparse

import keras
import numpy as np

import keras_ssl


def pretrained(images, epochs):
    backbone = keras_ssl.backbones.resnet8(images.shape[1:])
    model = keras_ssl.SimCLR(backbone)
    model.compile(optimizer=keras.optimizers.AdamW(3e-3))
    model.fit(images, batch_size=128, epochs=epochs, verbose=2)
    return backbone


def copy_of(backbone, with_weights):
    copy = keras.models.clone_model(backbone)
    if with_weights:
        copy.set_weights(backbone.get_weights())
    return copy


def accuracy_of_classifier(backbone, frozen, train, test, epochs):
    """Trains a classifier on top of a backbone, as any Keras user would."""
    backbone.trainable = not frozen
    layers = [backbone, keras.layers.AdaptiveAveragePooling2D(2), keras.layers.Flatten()]
    classifier = keras.Sequential([*layers, keras.layers.BatchNormalization(), keras.layers.Dense(10)])
    classifier.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    classifier.fit(*train, batch_size=20, epochs=epochs, verbose=0)
    return classifier.evaluate(*test, verbose=0, return_dict=True)["accuracy"]


def main(backbone=None, epochs=6, images=10_000, classifier_epochs=60, draws=3):
    keras.utils.set_random_seed(0)
    data = keras_ssl.data.load("fashion_mnist_sample")
    if backbone is None:
        backbone = pretrained(data.train.images[:images], epochs)
    else:
        backbone = keras.models.load_model(backbone)  # plain Keras: keras_ssl is not needed for it
    test = data.test.images, data.test.labels

    results = {"frozen": [], "fine-tuned": [], "from scratch": []}
    for draw in range(draws):
        rows = keras_ssl.evaluate.draw_labels(data.train.labels, per_class=10, seed=draw)
        train = data.train.images[rows], data.train.labels[rows]
        for name, accuracies in results.items():
            start = copy_of(backbone, with_weights=name != "from scratch")
            accuracies.append(accuracy_of_classifier(start, name == "frozen", train, test, classifier_epochs))

    print(f"accuracy on {len(test[0]):,} test images, with 10 labels a class ({draws} draws of labels)")
    for name, accuracies in results.items():
        print(f"  {name:12}  {np.mean(accuracies):.3f} ± {np.std(accuracies, ddof=1) if draws > 1 else 0:.3f}")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", help="a backbone.keras of keras-ssl pretrain; without it one is trained first")
    parser.add_argument("--epochs", type=int, default=6, help="of pretraining")
    parser.add_argument("--images", type=int, default=10_000, help="to pretrain on")
    parser.add_argument("--classifier_epochs", type=int, default=60)
    parser.add_argument("--draws", type=int, default=3, help="of labels")
    main(**vars(parser.parse_args()))
