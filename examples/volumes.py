"""SimCLR, BYOL, VICReg and MAE on volumes, without labels: kNN on their features, against raw voxels and untrained
networks.

python examples/volumes.py
"""

import functools

import keras
import numpy as np
from keras import layers

import keras_ssl


def scans(rows, seed):
    """Volumes `(rows, 16, 16, 16, 1)` in 0 … 255 with one body each: a ball, a shell, a rod or a plate, anywhere."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(4, size=rows)
    place = np.stack(np.meshgrid(*[np.arange(16.0)] * 3, indexing="ij"), axis=-1)
    volumes = np.empty((rows, 16, 16, 16, 1), "float32")
    for row, label in enumerate(labels):
        offset = place - rng.uniform(5.5, 9.5, 3)
        axis = rng.normal(size=3)
        along = offset @ (axis / np.linalg.norm(axis))
        far = np.linalg.norm(offset, axis=-1)
        across = np.sqrt(np.maximum(far**2 - along**2, 0.0))
        body = (far < 3.4, (far < 4.4) & (far > 3.2), (across < 1.5) & (far < 6), (abs(along) < 1) & (far < 5))[label]
        volumes[row, ..., 0] = 60.0 + rng.uniform(60.0, 120.0) * body + 25.0 * rng.normal(size=body.shape)
    return np.clip(volumes, 0.0, 255.0), labels


def convolutions():
    return keras.Sequential(
        [
            keras.Input((None, None, None, 1)),  # views are smaller than the volumes
            layers.Rescaling(1 / 127.5, offset=-1.0),
            layers.Conv3D(8, 3, activation="relu"),
            layers.MaxPooling3D(2),  # on a CPU much faster than a convolution with strides
            layers.Conv3D(16, 3, activation="relu"),
            layers.Conv3D(32, 3, activation="relu"),
        ]
    )


def transformer():
    """Tokens of 4×4×4 voxels: what MAE leaves out of."""
    return keras_ssl.backbones.vit((16, 16, 16, 1), patch_size=4, width=48, depth=3, heads=4)


def method(name):
    """A model by the name of its method. The papers' heads are made for 2,048 features, and these have 32."""
    views = keras_ssl.augment.volumes(13, value_range=(0, 255))
    backbone = transformer() if name == "MAE" else convolutions()
    if name == "SimCLR":
        return keras_ssl.SimCLR(backbone, views)
    if name == "BYOL":
        projector, predictor = (keras_ssl.heads.mlp([128, 32], last_batch_norm=False) for _ in range(2))
        return keras_ssl.BYOL(backbone, views, projector=projector, predictor=predictor, momentum=0.97)
    if name == "VICReg":
        return keras_ssl.VICReg(backbone, views, projector=keras_ssl.heads.mlp([128, 128]))
    whole = keras_ssl.augment.Views([keras_ssl.augment.RandomFlip3D(value_range=(0, 255))])
    return keras_ssl.MAE(backbone, whole, decoder_width=24, decoder_depth=1, decoder_heads=4)


def main(epochs=6, rows=500, methods=("SimCLR", "BYOL", "VICReg", "MAE")):
    (train, train_labels), (test, test_labels) = scans(rows, seed=1), scans(300, seed=2)

    def accuracy(represent):
        return keras_ssl.evaluate.knn(represent(train), train_labels, represent(test), test_labels, k=20)

    results = {"raw voxels": accuracy(lambda x: x.reshape(len(x), -1))}
    for name in methods:
        keras.utils.set_random_seed(0)
        model = method(name)
        before = "untrained transformer" if name == "MAE" else "untrained"
        if before not in results:
            results[before] = accuracy(functools.partial(keras_ssl.evaluate.extract_features, model))
        model.compile(optimizer=keras.optimizers.AdamW(2e-3))
        # Those begin slowly: BYOL's first target is an untrained network, and MAE sees some patches of each example.
        passes = epochs * {"BYOL": 3, "MAE": 5}.get(name, 1)
        model.fit(train, batch_size=100, epochs=passes, verbose=2)
        results[name] = accuracy(functools.partial(keras_ssl.evaluate.extract_features, model))

    print(f"kNN accuracy on {len(test)} test volumes of four bodies")
    for name, value in results.items():
        print(f"  {name:21}  {value:.3f}")
    return results


if __name__ == "__main__":
    main()
