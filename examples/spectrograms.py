"""SimCLR on spectrograms, without labels: kNN on its features, on raw spectrograms, and on an untrained backbone.

python examples/spectrograms.py
"""

import keras
import numpy as np
from keras import layers

import keras_ssl


def sounds(rows, seed):
    """Spectrograms `(rows, 40, 32, 1)` of one of six sounds each: a tone, a rising or a falling one, pure or buzzing.

    Pitch, start and loudness are any; the values are standardized logarithms of the power.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(6, size=rows)
    time = np.arange(2560) / 2560.0
    slope = np.array([0.0, 300.0, -300.0])[labels % 3][:, None]
    phase = 2.0 * np.pi * ((rng.uniform(350.0, 650.0, (rows, 1)) * time) + slope * time**2 / 2.0)
    wave = np.where((labels < 3)[:, None], np.sin(phase), 0.7 * np.sign(np.sin(phase)))
    wave = wave * rng.uniform(0.3, 1.0, (rows, 1)) + 0.3 * rng.normal(size=wave.shape)
    frames = wave.reshape(rows, 40, 64) * np.hanning(64)
    power = np.abs(np.fft.rfft(frames, axis=2))[:, :, :32] ** 2
    decibels = np.log(power + 1e-2)[..., None]
    return ((decibels - decibels.mean()) / decibels.std()).astype("float32"), labels


def encoder():
    return keras.Sequential(
        [
            keras.Input((40, 32, 1)),
            layers.Conv2D(16, 3, strides=2, activation="gelu"),
            layers.Conv2D(32, 3, strides=2, activation="gelu"),
            layers.Conv2D(48, 3, activation="gelu"),
            layers.GlobalAveragePooling2D(),
        ]
    )


def main(epochs=10, rows=1000):
    keras.utils.set_random_seed(0)
    (train, train_labels), (test, test_labels) = sounds(rows, seed=1), sounds(500, seed=2)
    backbone = encoder()

    def accuracy(represent):
        return keras_ssl.evaluate.knn(represent(train), train_labels, represent(test), test_labels)

    results = {
        "raw": accuracy(lambda x: x.reshape(len(x), -1)),
        "untrained": accuracy(lambda x: keras_ssl.evaluate.extract_features(backbone, x)),
    }
    # A fast or slow sound would be another one here, so the parts are not stretched much.
    views = keras_ssl.augment.spectrograms(40, scale=(0.8, 1.0))
    model = keras_ssl.SimCLR(backbone, views=views, value_range=None)
    model.compile(optimizer=keras.optimizers.AdamW(2e-3))
    model.fit(train, batch_size=250, epochs=epochs, verbose=2)
    results["SimCLR"] = accuracy(lambda x: keras_ssl.evaluate.extract_features(backbone, x))

    print(f"kNN accuracy on {len(test)} test spectrograms of six sounds")
    for name, value in results.items():
        print(f"  {name:12}  {value:.3f}")
    return results


if __name__ == "__main__":
    main()
