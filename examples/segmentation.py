"""A segmentation head on the feature maps of a backbone that was trained without labels, in plain Keras.

python examples/segmentation.py
python examples/segmentation.py --labeled=30

The task: canvases of 56×56 pixels with two garments of Fashion-MNIST on a grainy ground; each pixel is ground or one
of ten kinds of garment. Masks come with the canvases, for they are made of single garments. A few are labeled; the
backbone saw 28×28 images without labels. Beside it, the same network from scratch.
"""

import argparse

import keras
import numpy as np

import keras_ssl

SIDE, GARMENTS, KINDS = 56, 2, 11


def pretrained(images, epochs):
    # Of open size: trained on images of 28×28, used on canvases of 56×56.
    backbone = keras_ssl.backbones.resnet8((None, None, 1))
    model = keras_ssl.SimCLR(backbone, views=keras_ssl.augment.simclr(images.shape[1:3]))
    model.compile(optimizer=keras.optimizers.AdamW(3e-3))
    model.fit(images, batch_size=128, epochs=epochs, verbose=2)
    return backbone


def canvases(split, count, seed):
    """`(images, masks)`: uint8 `(count, 56, 56, 1)`, and integers `(count, 56, 56)`, 0 for the ground."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 80, (count, SIDE, SIDE, 1)).astype("uint8")
    masks = np.zeros((count, SIDE, SIDE), "int32")
    for image, mask in zip(images, masks):
        for row in generator.integers(len(split), size=GARMENTS):
            garment = split.images[row]
            top, left = generator.integers(0, SIDE - garment.shape[0] + 1, size=2)
            place = np.s_[top : top + garment.shape[0], left : left + garment.shape[1]]
            cloth = garment[..., 0] > 20
            image[place][cloth] = garment[cloth]
            mask[place][cloth] = 1 + split.labels[row]
    return images, masks


def segmenter(backbone, pretrained_weights):
    """A U-Net whose way down is the backbone: its map is enlarged step by step, each step beside an earlier map."""
    copy = keras.models.clone_model(backbone)
    if pretrained_weights:
        copy.set_weights(backbone.get_weights())
    blocks = [layer.output for layer in copy.layers if isinstance(layer, keras.layers.Add)]  # 1/2, 1/4, 1/8 of a side
    x = copy.output
    for earlier in (blocks[1], blocks[0]):
        x = keras.layers.Concatenate()([keras.layers.UpSampling2D(2)(x), earlier])
        x = keras.layers.Conv2D(64, 3, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.UpSampling2D(2, interpolation="bilinear")(x)
    return keras.Model(copy.input, keras.layers.Conv2D(KINDS, 3, padding="same")(x))


def mean_iou(model, images, masks):
    """Intersection over union of what was found and what is there, the mean over the kinds."""
    found = np.argmax(model.predict(images, batch_size=32, verbose=0), axis=-1)
    pairs = np.bincount(masks.ravel() * KINDS + found.ravel(), minlength=KINDS**2).reshape(KINDS, KINDS)
    both, either = np.diag(pairs), pairs.sum(axis=0) + pairs.sum(axis=1) - np.diag(pairs)
    return float(np.mean(both[either > 0] / either[either > 0]))


def main(labeled=100, tested=200, epochs=5, images=10_000, head_epochs=40):
    keras.utils.set_random_seed(0)
    data = keras_ssl.data.load("fashion_mnist_sample")
    backbone = pretrained(data.train.images[:images], epochs)
    train, test = canvases(data.train, labeled, seed=0), canvases(data.test, tested, seed=1)

    results = {}
    for name in ("pretrained", "from scratch"):
        model = segmenter(backbone, name == "pretrained")
        rate = keras.optimizers.schedules.CosineDecay(2e-3, head_epochs * -(-labeled // 10))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss)
        model.fit(*train, batch_size=10, epochs=head_epochs, verbose=0)
        results[name] = mean_iou(model, *test)

    print(f"mean IoU on {tested} canvases, {KINDS} kinds, {labeled} labeled canvases")
    for name, value in results.items():
        print(f"  {name:12}  {value:.3f}")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labeled", type=int, default=100, help="canvases with masks to learn from")
    parser.add_argument("--tested", type=int, default=200, help="canvases to test on")
    parser.add_argument("--epochs", type=int, default=5, help="of pretraining")
    parser.add_argument("--images", type=int, default=10_000, help="to pretrain on")
    parser.add_argument("--head_epochs", type=int, default=40, help="over the labeled canvases")
    main(**vars(parser.parse_args()))
