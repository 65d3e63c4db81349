"""SimCLR, BYOL, VICReg and MAE on series of sensors, without labels: kNN on their features, against raw series and
untrained networks.

python examples/series.py
"""

import functools

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


def convolutions():
    return keras.Sequential(
        [
            keras.Input((96, 3)),
            layers.Conv1D(32, 7, strides=2, activation="gelu"),
            layers.Conv1D(64, 5, strides=2, activation="gelu"),
            layers.Conv1D(64, 3, activation="gelu"),
            layers.GlobalAveragePooling1D(),
        ]
    )


def transformer():
    """Tokens of 8 moments each: what MAE leaves out of."""
    return keras_ssl.backbones.vit((96, 3), patch_size=8, width=64, depth=3, heads=4, value_range=None)


def method(name):
    """A model by the name of its method. The papers' heads are made for 2,048 features, and these have 64."""
    views = {"views": keras_ssl.augment.series(96), "value_range": None}  # the series have no range
    backbone = transformer() if name == "MAE" else convolutions()
    if name == "SimCLR":
        return keras_ssl.SimCLR(backbone, **views)
    if name == "BYOL":
        projector, predictor = (keras_ssl.heads.mlp([256, 64], last_batch_norm=False) for _ in range(2))
        return keras_ssl.BYOL(backbone, projector=projector, predictor=predictor, momentum=0.97, **views)
    if name == "VICReg":
        return keras_ssl.VICReg(backbone, projector=keras_ssl.heads.mlp([256, 256]), **views)
    decoder = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 4}
    return keras_ssl.MAE(backbone, mask_ratio=0.5, normalize=False, value_range=None, **decoder)


def main(epochs=10, rows=1500, methods=("SimCLR", "BYOL", "VICReg", "MAE")):
    (train, train_labels), (test, test_labels) = sensors(rows, seed=1), sensors(500, seed=2)

    def accuracy(represent):
        return keras_ssl.evaluate.knn(represent(train), train_labels, represent(test), test_labels)

    results = {"raw series": accuracy(lambda x: x.reshape(len(x), -1))}
    for name in methods:
        keras.utils.set_random_seed(0)
        model = method(name)
        before = "untrained transformer" if name == "MAE" else "untrained"
        if before not in results:
            results[before] = accuracy(functools.partial(keras_ssl.evaluate.extract_features, model))
        model.compile(optimizer=keras.optimizers.AdamW(2e-3))
        # Those begin slowly: BYOL's first target is an untrained network, and MAE sees some patches of each example.
        passes = epochs * {"BYOL": 3, "MAE": 5}.get(name, 1)
        model.fit(train, batch_size=250, epochs=passes, verbose=2)
        results[name] = accuracy(functools.partial(keras_ssl.evaluate.extract_features, model))

    print(f"kNN accuracy on {len(test)} test series of six motions")
    for name, value in results.items():
        print(f"  {name:21}  {value:.3f}")
    return results


if __name__ == "__main__":
    main()
