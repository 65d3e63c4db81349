"""Labels are identities: equal ones are of one class, and what they are, a number or a word, means nothing else.

A product's number, a patient's, a name: any integers of 64 bits, any strings. An image may have none.
"""

import hashlib

import numpy as np

MISSING = -1  # in arrays of integers; elsewhere also None, NaN and the empty string

_EXACT_FLOATS = {"float16": 2**11, "float32": 2**24, "float64": 2**53}


def class_labels(parts, what="labels"):
    """Labels of several sets as integers, one numbering for all.

    Args:
        parts: a list of labels `(N,)` or `(N, 1)` each, or None for a set without: integers, floats that are whole
            numbers, booleans, strings; arrays, lists, pandas. None, NaN, an empty string and −1 mean no label.
        what: the argument that they were given as, for messages.

    Returns:
        `(arrays, names)`: for each part int64 `(N,)`, `MISSING` where there is no label, or None. Integers stay as they
        are, and `names` is None; other labels become their place among the sorted `names`, a list of strings.

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
    labels = np.asarray(labels)
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
        return np.array([str(word).strip() for word in labels.tolist()], dtype=str)
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
    if all(isinstance(value, (int, np.integer, float, np.floating, bool)) for value in known):
        if all(isinstance(value, (int, np.integer, bool)) for value in known):
            numbers = [MISSING if value is None else int(value) for value in values]
            low, high = min(numbers, default=0), max(numbers, default=0)
            if low >= np.iinfo(np.int64).min and high <= np.iinfo(np.int64).max:
                return np.array(numbers, "int64")
            if low >= 0 and high <= np.iinfo(np.uint64).max:
                return np.array(numbers, "uint64")
            return np.array(["" if value is None else str(value) for value in values], dtype=str)
        return _of_floats(np.array([np.nan if value is None else value for value in values], "float64"), what)
    odd = [value for value in known if not isinstance(value, (str, bytes, int, np.integer, bool))]
    if odd:
        raise ValueError(
            f"`{what}` must be integers or strings, one an image; among them is a {type(odd[0]).__name__}, {odd[0]!r}."
        )
    words = ["" if value is None else value.decode() if isinstance(value, bytes) else str(value) for value in values]
    return np.array([word.strip() for word in words], dtype=str)


def _is_none(value):
    # pandas' NA is a type of its own, and equals nothing, not even in a condition.
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )


def _as_words(labels):
    if labels.dtype.kind == "U":
        return labels
    return np.array(["" if value == MISSING else str(value) for value in labels.tolist()], dtype=str)
