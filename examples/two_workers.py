"""Two processes of this machine train SimCLR together, as two hosts would.

    KERAS_BACKEND=tensorflow python examples/two_workers.py
    KERAS_BACKEND=jax python examples/two_workers.py --steps=50
    KERAS_BACKEND=torch python examples/two_workers.py

Each process is given the whole set and the global batch size, and takes its own rows of each batch. Embeddings are
gathered: an image meets the images of both processes, and both print the same loss.

On hosts of your own, start `pretrain` of this file on each of them, with TF_CONFIG (TensorFlow), with
KERAS_DISTRIBUTION_JOB_ADDRESSES (JAX) or with torchrun (torch), as docs/distributed.md shows.
"""

import argparse
import os
import sys

BATCH = 64


def pretrain(steps):
    """What runs in each process, under the strategy of all of them."""
    import keras

    import keras_ssl

    images = keras_ssl.data.load("fashion_mnist_sample").train.images[:2048]
    backbone = keras.Sequential(
        [
            keras.Input(images.shape[1:]),
            keras.layers.Rescaling(1 / 127.5, -1),
            keras.layers.Conv2D(16, 3, 2, activation="relu"),
            keras.layers.Conv2D(32, 3, 2, activation="relu"),
        ]
    )
    model = keras_ssl.SimCLR(backbone, seed=1)
    model.compile(keras.optimizers.Adam(1e-3))
    return model.fit(images, batch_size=BATCH, steps_per_epoch=steps, epochs=1, verbose=0).history["loss"][-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps
    here = os.path.dirname(os.path.abspath(__file__))
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])

    import keras

    from keras_ssl import workers

    losses = workers.run("two_workers:pretrain", keras.backend.backend(), (steps,))
    for worker, loss in enumerate(losses):
        print(f"worker {worker}: mean loss of {steps} steps with {BATCH} images: {float(loss):.6f}")
    return 0 if losses[0] == losses[1] else 1


if __name__ == "__main__":
    sys.exit(main())
