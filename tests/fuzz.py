"""Values of every kind for functions that take arrays, and what a function may make of them."""

import pathlib
import traceback
import warnings

import numpy as np
from hypothesis import strategies as st

import keras_ssl

PACKAGE = str(pathlib.Path(keras_ssl.__file__).parent)
SIDES = (0, 1, 2, 3, 5, 8)
FILLS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "counts": lambda rng, shape: rng.integers(0, 4, shape),
    "bytes": lambda rng, shape: rng.integers(0, 256, shape),
    "zeros": lambda rng, shape: np.zeros(shape),
    "ones": lambda rng, shape: np.ones(shape),
    "huge": lambda rng, shape: 1e30 * rng.normal(size=shape),
    "tiny": lambda rng, shape: 1e-30 * rng.normal(size=shape),
    "a NaN": lambda rng, shape: np.where(rng.random(shape) < 0.3, np.nan, rng.normal(size=shape)),
    "infinite": lambda rng, shape: np.where(rng.random(shape) < 0.3, np.inf, rng.normal(size=shape)),
}
DTYPES = ("float32", "float64", "float16", "int64", "int32", "uint8", "bool", "complex64", "object", "str")
ODD = (None, "text", b"bytes", 3, float("nan"), [], [[1.0, 2.0], [3.0]], {}, {"image": 1}, object(), (), set())


def array(shape, dtype, fill, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(FILLS[fill](np.random.default_rng(seed), tuple(shape))).astype(dtype)


def arrays(ranks):
    """Arrays of some ranks: mostly numbers, of every size down to none."""
    sides = st.sampled_from(SIDES)
    shapes = st.sampled_from(ranks).flatmap(lambda rank: st.lists(sides, min_size=rank, max_size=rank))
    likely = st.sampled_from(DTYPES[:5])
    return st.builds(
        array, shapes, st.one_of(likely, st.sampled_from(DTYPES)), st.sampled_from(sorted(FILLS)), st.integers(0, 9)
    )


def fitting(rows, *sides):
    """An array of as many rows as the others, so that what lies behind the check of shapes is reached too."""
    return st.builds(
        lambda dtype, fill, seed: array((rows, *sides), dtype, fill, seed),
        st.sampled_from(DTYPES[:5]),
        st.sampled_from(sorted(FILLS)),
        st.integers(0, 9),
    )


def anything(*ranks, like=()):
    """What a user may give for an array of these ranks; often one of `like`, of the right shape."""
    kinds = [arrays(ranks), arrays((0, 1, 2, 3, 4, 5)), st.sampled_from(ODD)]
    return st.one_of(*[fitting(*shape) for shape in like] * 3, *kinds)


def riddle(function, *given):
    """What is wrong with how a function took its arguments: None if it worked, or refused them in a sentence.

    A sentence is a `ValueError` or `TypeError` that this library raised itself: one of numpy, Keras or a framework
    tells what broke inside, and not what the user gave.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(*given)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        ours = where.filename.startswith(PACKAGE)
        ours = ours or "is incompatible with the layer" in str(error)  # Keras' own sentence for a shape
        if not isinstance(error, (ValueError, TypeError, FileNotFoundError)) or not ours or " " not in str(error):
            return f"{type(error).__name__}: {str(error)[:150]} ({pathlib.Path(where.filename).name}:{where.lineno})"
    return None
