"""Random numbers as a pure function of (key, row).

Keras' generators can't make views that are the same everywhere: under `MirroredStrategy` a `SeedGenerator` draws the
same numbers on every replica, and `keras.random` differs between backends. Here a number depends only on what it is
for: the seed, the step, the view, the layer, and the row of the image in the global batch. It is bit-equal on every
backend, compiled or not, and whichever replica or micro-batch the row sits in. There is no state to save or restore.
"""

import copy
import math
import zlib

import numpy as np
from keras import ops

# Two odd constants of Weyl sequences (the golden ratio, and sqrt(3) - 1, in 32 bits) keep the counters apart before
# they are mixed.
_GOLDEN = 0x9E3779B9
_SQRT3 = 0xBB67AE85
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B


def _int32(number):
    """A Python integer of any size as the int32 with the same low 32 bits."""
    return np.uint32(int(number) & 0xFFFFFFFF).astype(np.int32)


def _shift_right(x, bits, on=ops):
    # int32 is the one integer type that every backend and XLA multiply alike; its right shift copies the sign, so the
    # copies are masked away.
    return on.bitwise_and(on.right_shift(x, np.int32(bits)), np.int32((1 << (32 - bits)) - 1))


def _mix(x, on=ops):
    """`lowbias32` (Chris Wellons' search for low-bias integer hashes): every input bit moves every output bit.

    Args:
        on: `keras.ops`, or NumPy.
    """
    x = on.bitwise_xor(x, _shift_right(x, 16, on)) * _int32(_FIRST)
    x = on.bitwise_xor(x, _shift_right(x, 15, on)) * _int32(_SECOND)
    return on.bitwise_xor(x, _shift_right(x, 16, on))


def _mix_number(x):
    """The same of a Python integer: what is known while a step is traced costs the step nothing."""
    if not isinstance(x, int):
        return _mix(x)
    x = x & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * _FIRST) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * _SECOND) & 0xFFFFFFFF
    return x ^ (x >> 16)


class RowRNG:
    """The random numbers of some rows, for one purpose.

    Args:
        seed: any Python integer.
        rows: int32 tensor `(n,)`: the row of each image in the global batch.
    """

    on = ops

    def __init__(self, seed, rows):
        self.rows = ops.cast(rows, "int32")
        # A key is a number known while tracing and, once a step or another tensor came in, a scalar tensor.
        self._number = _mix_number(int(seed) & 0xFFFFFFFF)
        self._tensor = None
        self._mixed_rows = _mix(self.rows * _int32(_GOLDEN))

    def fold_in(self, *purpose):
        """Independent draws of the same rows for another purpose.

        Args:
            purpose: integers, integer scalar tensors or strings, such as a step, a view's number, a layer's number.
        """
        rng = copy.copy(self)
        for part in purpose:
            if isinstance(part, str):
                part = zlib.crc32(part.encode())
            if isinstance(part, int):
                more = (part + 1) * _GOLDEN
                rng._number = _mix_number(rng._number + (more if isinstance(rng._number, int) else _int32(more)))
            else:
                rng._tensor = _mix(rng.key + rng._integers(part) * _int32(_GOLDEN), rng.on)
                rng._number = 0
        return rng

    def _integers(self, x):
        return ops.cast(x, "int32")

    def of_row(self, place):
        """The draws of one row alone, by its place among the rows, an integer scalar tensor."""
        rng = copy.copy(self)
        rng.rows = ops.reshape(ops.take(self.rows, place, axis=0), (1,))
        rng._mixed_rows = ops.reshape(ops.take(self._mixed_rows, place, axis=0), (1,))
        return rng

    def choose(self, purposes, number):
        """`fold_in(*purpose)` of one of several purposes, integers and strings; which of them, a tensor tells."""
        numbers = [self.fold_in(*purpose)._number for purpose in purposes]
        rng = copy.copy(self)
        rng._number = ops.take(ops.convert_to_tensor([_int32(number) for number in numbers]), number, axis=0)
        return rng

    @property
    def key(self):
        """The key as an int32 scalar tensor."""
        number = _int32(self._number) if isinstance(self._number, int) else self._number
        return ops.convert_to_tensor(number) if self._tensor is None else _mix(self._tensor + number)

    def uniform(self, name, columns=None, low=0.0, high=1.0):
        """Uniform float32 numbers in `[low, high)`, up to rounding where the bounds are not 0 and 1.

        Args:
            name: string; numbers of another name are independent of these.
            columns: how many numbers a row; None for one.

        Returns:
            `(n,)`, or `(n, columns)`.
        """
        counter = self._mixed_rows + self.fold_in(name).key
        if columns is not None:
            counter = counter[:, None] + ops.arange(columns, dtype="int32")[None, :] * _int32(_SQRT3)
        bits = _shift_right(_mix(counter), 8)
        # 24 bits are what a float32 holds exactly: the same number on each backend, and never 1.
        return ops.cast(bits, "float32") * np.float32(2.0**-24 * (high - low)) + np.float32(low)

    def normal(self, name, columns=None):
        """Numbers of mean 0 and deviation 1, nearly normal: the sum of four uniform ones, standardized.

        Logarithms and cosines, which exactly normal numbers need, differ in their last bits between backends; sums
        don't. No number lies beyond 3.46 deviations.

        Args:
            name, columns: as of `uniform`.
        """
        total = sum(self.uniform(f"{name} {part}", columns) for part in range(4))
        return (total - np.float32(2.0)) * np.float32(math.sqrt(3.0))

    def bernoulli(self, name, probability):
        """Boolean `(n,)`: true with the given probability."""
        return self.uniform(name) < np.float32(probability)

    def permutation(self, name, columns):
        """A random order of `0 … columns-1` a row, int32 `(n, columns)`."""
        return ops.cast(ops.argsort(self.uniform(name, columns), axis=1), "int32")

    def on_host(self):
        """The same draws as arrays of NumPy, where the rows are known now: uncompiled, a framework's small operations
        take ten times as long, together longer than what is done with small images."""
        return _HostRNG(self)


class _HostRNG(RowRNG):
    on = np

    def __init__(self, rng):
        self.rows, self._mixed_rows = self._integers(rng.rows), self._integers(rng._mixed_rows)
        self._number, self._tensor = rng._number, None if rng._tensor is None else self._integers(rng._tensor)

    def _integers(self, x):
        # At least one axis, or NumPy would warn that a number wraps around.
        return np.atleast_1d(ops.convert_to_numpy(x)).astype("int32")

    @property
    def key(self):
        number = np.full(1, _int32(self._number))
        return number if self._tensor is None else _mix(self._tensor + number, np)

    def uniform(self, name, columns=None, low=0.0, high=1.0):
        counter = self._mixed_rows + self.fold_in(name).key
        if columns is not None:
            counter = counter[:, None] + np.arange(columns, dtype="int32") * _int32(_SQRT3)
        bits = _shift_right(_mix(counter, np), 8, np)
        return bits.astype("float32") * np.float32(2.0**-24 * (high - low)) + np.float32(low)

    def permutation(self, name, columns):
        return np.argsort(self.uniform(name, columns), axis=1, kind="stable")
