"""Are the views of quality.py alike in both libraries? What 2,000 images become, in figures.

    KERAS_BACKEND=torch python benchmarks/quality_views.py IMAGES.npy       # ours
    peers/bin/python benchmarks/quality_views.py IMAGES.npy --lightly       # Lightly's

`IMAGES.npy` holds uint8 images `(n, height, width, channels)`. Each gets two views. Printed: the mean of all pixels,
the quartiles of the mean and of the deviation of a view, the mean difference of two views of an image, and their
correlation.
"""

import argparse

import numpy as np
import quality


def ours(images):
    import keras

    return [keras.ops.convert_to_numpy(view).astype("float32") for view in quality.our_views(images.shape[1:])(images)]


def lightly(images):
    import quality_peer
    import torch

    torch.manual_seed(0)
    pairs = list(quality_peer.InMemory(images))
    return [(np.stack([pair[place].numpy() for pair in pairs]) + 1.0) * 127.5 for place in range(2)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images")
    parser.add_argument("--lightly", action="store_true")
    options = parser.parse_args()
    images = np.load(options.images)[:2000]
    a, b = (view.reshape(len(view), -1) for view in (lightly if options.lightly else ours)(images))
    print(f"mean of all pixels {a.mean():.2f}")
    for name, numbers in (("mean", a.mean(axis=1)), ("standard deviation", a.std(axis=1))):
        print(f"{name} of a view, quartiles: {np.percentile(numbers, [25, 50, 75]).round(1).tolist()}")
    print(f"difference of two views {np.abs(a - b).mean():.2f}")
    print(f"correlation of two views {np.mean([np.corrcoef(one, other)[0, 1] for one, other in zip(a, b)]):.3f}")


if __name__ == "__main__":
    main()
