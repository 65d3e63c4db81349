"""The trained backbone in a plain Keras classifier, with 10 labels per class: frozen, fine-tuned, and from scratch.

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


PROTOCOLS = {"frozen": "linear", "fine-tuned": "fine-tune", "from scratch": "from-scratch"}


def main(backbone=None, epochs=6, images=10_000, classifier_epochs=None, draws=3, save=None):
    keras.utils.set_random_seed(0)
    data = keras_ssl.data.load("fashion_mnist_sample")
    if backbone is None:
        backbone = pretrained(data.train.images[:images], epochs)
    else:
        backbone = keras.models.load_model(backbone)  # plain Keras: keras_ssl is not needed for it

    results = {name: [] for name in PROTOCOLS}
    for draw in range(draws):
        for name, protocol in PROTOCOLS.items():
            tuned = keras_ssl.evaluate.fine_tune(
                backbone, data.train, data.test, per_class=10, protocol=protocol, epochs=classifier_epochs, seed=draw
            )
            results[name].append(tuned.accuracy)
            if draw == 0 and save and name == "fine-tuned":
                tuned.classifier.save(save)  # images in, logits out: plain Keras again

    print(f"accuracy on {len(data.test):,} test images, with 10 labels per class ({draws} draws of labels)")
    for name, accuracies in results.items():
        print(f"  {name:12}  {np.mean(accuracies):.3f} ± {np.std(accuracies, ddof=1) if draws > 1 else 0:.3f}")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", help="a backbone.keras of keras-ssl pretrain; without it one is trained first")
    parser.add_argument("--epochs", type=int, default=6, help="of pretraining")
    parser.add_argument("--images", type=int, default=10_000, help="to pretrain on")
    parser.add_argument("--classifier_epochs", type=int, help="over the labeled images; 400 steps unless given")
    parser.add_argument("--draws", type=int, default=3, help="of labels")
    parser.add_argument("--save", help="where the first fine-tuned classifier goes, such as classifier.keras")
    main(**vars(parser.parse_args()))
