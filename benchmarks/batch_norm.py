"""Images a second of a SimCLR training step, with Keras' own batch normalization and with the fused one.

    KERAS_BACKEND=tensorflow python benchmarks/batch_norm.py

ResNet-8 of width 32, images of 28×28, two views each. All variants live in one process and take turns, so that a
change of the machine's load hits all of them. Printed are the median and the quartiles over the turns.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_ssl


def variant(fused, xla, width):
    keras.utils.set_random_seed(0)
    backbone = keras_ssl.backbones.resnet8((28, 28, 1), width=width)
    model = keras_ssl.SimCLR(backbone)
    if fused:
        keras_ssl.batch_norm.use_fused(backbone)
    # By hand, so that the variants differ in nothing but the layers.
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), jit_compile=xla, fused_layers=False)
    model.optimizer.build(model.trainable_variables)  # XLA makes no variables
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--steps", type=int, default=4, help="steps a turn")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=int, default=32)
    options = parser.parse_args()
    if keras.backend.backend() != "tensorflow":
        parser.error("the fused operation is TensorFlow's: set KERAS_BACKEND=tensorflow")
    images = np.random.default_rng(0).integers(0, 256, (options.batch, 28, 28, 1), "uint8")
    images = keras.ops.convert_to_tensor(images.astype("float32"))
    names = {
        (False, False): "Keras' own",
        (True, False): "fused",
        (False, True): "Keras' own, XLA",
        (True, True): "fused, XLA",
    }
    models = {name: variant(*which, options.width) for which, name in names.items()}
    for model in models.values():
        for _ in range(2):  # traces and compiles
            model.train_on_batch(images)
    speeds = {name: [] for name in models}
    for _ in range(options.turns):
        for name, model in models.items():
            begin = time.perf_counter()
            for _ in range(options.steps):
                model.train_on_batch(images)  # gives numbers back, and so waits for the step
            speeds[name].append(options.steps * options.batch / (time.perf_counter() - begin))
    base = np.array(speeds["Keras' own"])
    print(f"images/s, batch {options.batch}, width {options.width}, {options.turns} turns of {options.steps} steps")
    for name, values in speeds.items():
        low, middle, high = np.percentile(values, (25, 50, 75))
        ratio = np.median(np.array(values) / base)
        print(f"{name:16} {middle:7.1f}  ({low:.1f} to {high:.1f})  {ratio:.2f} × Keras' own of the same turn")


if __name__ == "__main__":
    main()
