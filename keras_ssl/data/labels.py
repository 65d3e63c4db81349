"""Labels are identities: equal ones are of one class, and what they are, a number or a word, means nothing else.

A product's number, a patient's, a name: any integers of 64 bits, any strings. An image may have none.
"""

import hashlib

import keras
import numpy as np
from keras import ops

from keras_ssl import backend

MISSING = -1  # in arrays of integers; elsewhere also None, NaN and the empty string
# A table of text has no numbers: −1 and NaN stand in it as programs write them.
_NO_LABEL = frozenset(("", "-1", "-1.0", "nan", "NaN"))

_WHOLE = (int, np.integer, np.bool_)
_EXACT_FLOATS = {"float16": 2**11, "float32": 2**24, "float64": 2**53}


def class_labels(parts, what="labels"):
    """Labels of several sets as integers, one numbering for all.

    Args:
        parts: a list of labels `(N,)` or `(N, 1)` each, or None for a set without: integers, floats that are whole
            numbers, booleans, strings; arrays, lists, pandas. None, NaN, an empty string and −1 mean no label, the two
            numbers also as strings.
        what: the argument that they were given as, for messages.

    Returns:
        A tuple `(arrays, names)`: for each part int64 `(N,)`, `MISSING` where there is no label, or None. Integers stay
        as they are, and `names` is None; other labels become their place among the sorted `names`, a list of strings.

    Raises:
        ValueError: one-hot rows, fractions, other objects; with the way out.
    """
    known = [None if part is None else flat_labels(part, what) for part in parts]
    given = [part for part in known if part is not None]
    if all(part.dtype == np.int64 for part in given):
        return known, None
    # Words, or numbers that int64 does not hold: some parts may be integers beside words, as in a table.
    words = [None if part is None else _as_words(part) for part in known]
    names = sorted({word for part in words if part is not None for word in part.tolist() if word != ""})
    places = {name: place for place, name in enumerate(names)}
    codes = [
        None if part is None else np.array([places.get(word, MISSING) for word in part.tolist()], "int64")
        for part in words
    ]
    return codes, names


def flat_labels(labels, what="labels"):
    """Labels `(N,)`: int64 with `MISSING`, uint64 where a number is that large, or an array of strings with `""`."""
    given, labels = labels, np.asarray(labels)
    if isinstance(given, (list, tuple)) and labels.dtype.kind in "fU":
        # numpy reads ["a", nan] as ["a", "nan"], and large integers of both signs as floats.
        labels = np.asarray(given, "object")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(
            f"`{what}` must be one label an image, and their shape is {labels.shape}: from one-hot rows take "
            "argmax(axis=1)."
        )
    kind = labels.dtype.kind
    if kind == "O":
        return _of_objects(labels, what)
    if kind == "f":
        return _of_floats(labels, what)
    if kind == "S":
        labels = np.char.decode(labels, "utf-8")
        kind = "U"
    if kind in "UT":  # T: numpy's strings of any length
        return np.array([_word(str(word)) for word in labels.tolist()], dtype=str)
    if kind == "u" and labels.size and labels.max() > np.iinfo(np.int64).max:
        return labels.astype("uint64")
    if kind in "iub":
        return labels.astype("int64")
    raise ValueError(f"`{what}` must be integers or strings, one an image; they are of type {labels.dtype}.")


def is_missing(labels):
    """Which of the labels that `flat_labels` or `class_labels` gave are none: boolean `(N,)`."""
    if labels.dtype == np.uint64:  # where −1 would be 2⁶⁴ − 1, a number like others
        return np.zeros(len(labels), bool)
    return labels == "" if labels.dtype.kind == "U" else labels == MISSING


def means_none(label):
    """Whether one label, in any form in which labels are given, means that there is none."""
    if isinstance(label, bytes):
        label = label.decode()
    return _word(label) == "" if isinstance(label, str) else _is_none(label)


def codes_of(labels, what="labels"):
    """Labels as class numbers int32 `(N,)` in 0 … C − 1 and `MISSING`, with the classes: `(codes, classes)`."""
    flat = flat_labels(labels, what)
    known = ~is_missing(flat)
    classes, places = np.unique(flat[known], return_inverse=True)
    codes = np.full(len(flat), MISSING, "int32")
    codes[known] = places
    return codes, classes


def label_words(labels, what="labels"):
    """Labels as three numbers each, int32 `(N, 3)`: of one class where all three agree; the last is −1 without a label.

    A stream's labels can't be numbered before the last batch was read. Three numbers below 2²² are exact in float32,
    to which Keras casts labels, and on JAX, which has no integers of 64 bits. A string gives a hash of 64 bits.
    """
    flat = flat_labels(labels, what)
    missing = is_missing(flat)
    if flat.dtype.kind == "U":
        digests = [hashlib.blake2b(word.encode(), digest_size=8).digest() for word in flat.tolist()]
        flat = np.frombuffer(b"".join(digests), "uint64")
    bits = flat.astype("uint64")
    words = np.stack([bits & 0x3FFFFF, (bits >> np.uint64(22)) & 0x3FFFFF, bits >> np.uint64(44)], axis=1)
    words = words.astype("int32").reshape(-1, 3)
    words[missing] = (0, 0, MISSING)
    return words


def label_ids(labels, owner="labels", words=True):
    """Labels as numbers that can be compared within a step: a tensor, int32 `(n,)` or `(n, 3)`.

    Args:
        labels: `(n,)` or `(n, 1)`: integers, also strings where they are no tensor; or `(n, 3)`, what `label_words` or
            this function gave.
        owner: whose labels they are, for messages.
        words: whether three columns are words; else they are one-hot rows.

    Returns:
        Class numbers `(n,)`, −1 without a label; or three numbers below 2²² each, `(n, 3)`, the last −1 without one.

    Raises:
        ValueError: floats, which are rarely equal; one-hot rows.
    """
    if not (ops.is_tensor(labels) or isinstance(labels, (keras.KerasTensor, keras.Variable))):
        # Looked at before they become a tensor: JAX would cut them off at 32 bits.
        array = np.asarray(labels)
        _check_comparable(array.shape, array.dtype.name if array.dtype.kind in "fc" else "", owner, words)
        if array.ndim == 2 and array.shape[1] == 3:
            return ops.convert_to_tensor(array.astype("int32"))
        flat = flat_labels(labels, "labels")
        narrow = flat.dtype == np.int64 and np.all(flat == flat.astype("int32"))
        return ops.convert_to_tensor(flat.astype("int32") if narrow else label_words(flat))
    labels = ops.convert_to_tensor(labels)
    dtype = keras.backend.standardize_dtype(labels.dtype)
    is_integer = "int" in dtype or dtype == "bool" or backend.in_cross_replica_context()
    _check_comparable(labels.shape, "" if is_integer else dtype, owner, words)
    if len(labels.shape) == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if len(labels.shape) == 2 or dtype not in ("int64", "uint64", "uint32"):
        return ops.cast(labels, "int32")
    return _words_of_tensor(labels, dtype)


def words_of_ids(ids):
    """What `label_ids` gave as three numbers each: int32 `(n, 3)`."""
    return ids if len(ids.shape) == 2 else _words_of_tensor(ids, "int32")


def _words_of_tensor(labels, dtype):
    """`label_words` of integers that are a tensor."""
    if dtype in ("int64", "uint64"):
        bits = ops.cast(labels, "int64")
        parts = [bits, ops.right_shift(bits, 22), ops.right_shift(bits, 44)]
        masks = 0x3FFFFF, 0x3FFFFF, 0xFFFFF
    else:
        bits = ops.cast(labels, "int32")
        # A signed number's upper bits are its sign; an unsigned one has none, though int32 may take it for one.
        signed = dtype != "uint32"
        parts = [bits, ops.right_shift(bits, 22), ops.right_shift(bits, 31)]
        masks = 0x3FFFFF, 0x3FFFFF if signed else 0x3FF, 0xFFFFF if signed else 0
    words = [ops.cast(ops.bitwise_and(part, mask), "int32") for part, mask in zip(parts, masks)]
    if not dtype.startswith("u"):
        missing = ops.equal(bits, MISSING)
        words = [ops.where(missing, none, word) for word, none in zip(words, (0, 0, MISSING))]
    return ops.stack(words, axis=1)


def _check_comparable(shape, odd_type, owner, words):
    if odd_type:
        raise ValueError(
            f"{owner}: labels are of type {odd_type}, and classes are compared for equality: give integers, such as "
            'labels.astype("int64"), with −1 for no label; or strings.'
        )
    if len(shape) != 1 and not (len(shape) == 2 and shape[1] in ((1, 3) if words else (1,))):
        raise ValueError(
            f"{owner}: labels must be one integer or string per row, and have the shape {tuple(shape)}: from one-hot "
            "rows take argmax(axis=1)."
        )


def _of_floats(labels, what):
    known = ~np.isnan(labels)
    most = np.abs(labels[known]).max(initial=0)
    if not np.array_equal(labels[known], np.round(labels[known])):
        fraction = labels[known][labels[known] != np.round(labels[known])][0]
        raise ValueError(
            f"`{what}` must be integers or strings, one an image; they are {labels.dtype}, and one is {fraction:g}."
        )
    if most >= _EXACT_FLOATS.get(labels.dtype.name, 2**53):
        raise ValueError(
            f"`{what}` are {labels.dtype} and as large as {most:.0f}, where the type does not tell neighboring numbers "
            "apart: give them as int64, or as strings."
        )
    whole = np.full(len(labels), MISSING, "int64")
    whole[known] = labels[known].astype("int64")
    return whole


def _of_objects(labels, what):
    values = [None if _is_none(value) else value for value in labels.tolist()]
    known = [value for value in values if value is not None]
    if all(isinstance(value, (*_WHOLE, float, np.floating)) for value in known):
        if all(isinstance(value, _WHOLE) for value in known):
            numbers = [MISSING if value is None else int(value) for value in values]
            low, high = min(numbers, default=0), max(numbers, default=0)
            if low >= np.iinfo(np.int64).min and high <= np.iinfo(np.int64).max:
                return np.array(numbers, "int64")
            if low >= 0 and high <= np.iinfo(np.uint64).max:
                return np.array(numbers, "uint64")
            return np.array(["" if value is None else str(value) for value in values], dtype=str)
        return _of_floats(np.array([np.nan if value is None else value for value in values], "float64"), what)
    odd = [value for value in known if not isinstance(value, (str, bytes, *_WHOLE))]
    if odd:
        raise ValueError(
            f"`{what}` must be integers or strings, one an image; among them is a {type(odd[0]).__name__}, {odd[0]!r}."
        )
    words = ["" if value is None else value.decode() if isinstance(value, bytes) else str(value) for value in values]
    return np.array([_word(word) for word in words], dtype=str)


def _word(text):
    text = text.strip()
    return "" if text in _NO_LABEL else text


def _is_none(value):
    # pandas' NA is a type of its own, and equals nothing, not even in a condition.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, (float, np.floating)):
        return bool(np.isnan(value))
    return isinstance(value, (int, np.integer)) and value == MISSING


def _as_words(labels):
    if labels.dtype.kind == "U":
        return labels
    return np.array(["" if value == MISSING else str(value) for value in labels.tolist()], dtype=str)
