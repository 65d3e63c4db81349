"""Unlabeled images in, a trained Keras backbone out.

python examples/quickstart.py
"""

import argparse

import keras

import keras_ssl


def main(epochs=6, images=10_000):
    keras.utils.set_random_seed(0)
    data = keras_ssl.data.load("fashion_mnist_sample")  # or a folder, arrays, a tf.data.Dataset
    unlabeled = data.train.images[:images]

    backbone = keras_ssl.backbones.resnet8(unlabeled.shape[1:])  # or any Keras model
    model = keras_ssl.SimCLR(backbone)
    model.compile(optimizer=keras.optimizers.AdamW(3e-3))
    probe = keras_ssl.callbacks.KNNProbe(data.train, data.test)  # labeled images, to look on with
    model.fit(unlabeled, batch_size=128, epochs=epochs, callbacks=[probe])

    # From here on it is plain Keras: the features are what a few labels suffice for.
    train = keras_ssl.evaluate.extract_features(backbone, data.train.images, grid=2)
    test = keras_ssl.evaluate.extract_features(backbone, data.test.images, grid=2)
    few = keras_ssl.evaluate.draw_labels(data.train.labels, per_class=10, seed=0)
    accuracy = keras_ssl.evaluate.linear_probe(train[few], data.train.labels[few], test, data.test.labels)
    print(f"linear probe with 10 labels per class: {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=10_000, help="how many of the sample's images to train on")
    options = parser.parse_args()
    main(options.epochs, options.images)
