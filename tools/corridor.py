"""How often a batch changes files between `fit(images)` and the first step.

The profiler sees every call; those count that are given the images, or an object that holds them, and lie in another
file of the package than the one before. What Keras calls in between counts like the rest.

```sh
KERAS_BACKEND=torch python tools/corridor.py --verbose
```
"""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_ssl

PACKAGE = str(pathlib.Path(keras_ssl.__file__).parent)


class StepBegan(Exception):
    """The end of the corridor."""


def holds(value, images, depth=5):
    """Whether a value is the images, or has them in it."""
    if value is images:
        return True
    if depth == 0 or isinstance(value, (str, bytes, int, float, type, keras.layers.Layer, np.ndarray)):
        return False
    if isinstance(value, dict):
        inside = value.values()
    elif isinstance(value, (tuple, list)):
        inside = value
    elif type(value).__module__.startswith("keras_ssl"):
        inside = vars(value).values() if hasattr(value, "__dict__") else ()
    else:
        return False
    return any(holds(part, images, depth - 1) for part in inside)


def rooms_of(function, images):
    """`(file, function)` of each call that is given the images, where the file changes."""
    found = []

    def profile(frame, event, argument):
        name = frame.f_code.co_filename
        if event != "call" or not name.startswith(PACKAGE):
            return
        file, called = name[len(PACKAGE) + 1 :], frame.f_code.co_name
        given = called == "train_step" or any(holds(value, images) for value in list(frame.f_locals.values()))
        if given and (not found or found[-1][0] != file):
            found.append((file, called))
        if called == "train_step":
            raise StepBegan

    sys.setprofile(profile)
    try:
        function()
    except StepBegan:
        pass
    finally:
        sys.setprofile(None)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verbose", action="store_true", help="print each change")
    options = parser.parse_args()
    images = np.random.default_rng(0).integers(0, 256, (64, 28, 28, 1)).astype("uint8")
    backbone = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Conv2D(4, 3, 2), keras.layers.ReLU()])
    model = keras_ssl.SimCLR(backbone)
    model.compile("sgd")
    found = rooms_of(lambda: model.fit(images, batch_size=32, verbose=0), images)
    if options.verbose:
        for file, function in found:
            print(f"{file}: {function}")
    print(f"{len(found) - 1} changes of file, {len({file for file, _ in found})} files")


if __name__ == "__main__":
    main()
