"""SimCLR on series of sensors, without labels: kNN on its features, on raw series, and on an untrained backbone.

python examples/series.py
"""

import keras
import numpy as np
from keras import layers

import keras_ssl


def sensors(rows, seed):
    """Series `(rows, 96, 3)` of one of six motions each: a wave of one shape and speed, at any phase, in noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(6, size=rows)
    speed = np.array([3.0, 6.0, 12.0])[labels % 3] * rng.uniform(0.9, 1.1, rows)
    time = np.linspace(0.0, 2.0 * np.pi, 96)
    phase = speed[:, None] * time + rng.uniform(0.0, 2.0 * np.pi, (rows, 1))
    wave = np.where((labels < 3)[:, None], np.sin(phase), np.sign(np.sin(phase)))
    axes = rng.normal(size=(rows, 1, 3))  # how the sensor was held
    series = wave[:, :, None] * axes / np.linalg.norm(axes, axis=2, keepdims=True)
    return (series + 0.4 * rng.normal(size=series.shape)).astype("float32"), labels


def encoder():
    return keras.Sequential(
        [
            keras.Input((96, 3)),
            layers.Conv1D(32, 7, strides=2, activation="gelu"),
            layers.Conv1D(64, 5, strides=2, activation="gelu"),
            layers.Conv1D(64, 3, activation="gelu"),
            layers.GlobalAveragePooling1D(),
        ]
    )


def main(epochs=10, rows=1500):
    keras.utils.set_random_seed(0)
    (train, train_labels), (test, test_labels) = sensors(rows, seed=1), sensors(500, seed=2)
    backbone = encoder()

    def accuracy(represent):
        return keras_ssl.evaluate.knn(represent(train), train_labels, represent(test), test_labels)

    results = {
        "raw series": accuracy(lambda x: x.reshape(len(x), -1)),
        "untrained": accuracy(lambda x: keras_ssl.evaluate.extract_features(backbone, x)),
    }
    model = keras_ssl.SimCLR(backbone, views=keras_ssl.augment.series(96), value_range=None)
    model.compile(optimizer=keras.optimizers.AdamW(2e-3))
    model.fit(train, batch_size=250, epochs=epochs, verbose=2)
    results["SimCLR"] = accuracy(lambda x: keras_ssl.evaluate.extract_features(backbone, x))

    print(f"kNN accuracy on {len(test)} test series of six motions")
    for name, value in results.items():
        print(f"  {name:12}  {value:.3f}")
    return results


if __name__ == "__main__":
    main()
