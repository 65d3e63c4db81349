"""Shapes of embeddings. What does not go together is refused by name: a framework would broadcast it, or speak of
dimensions that nobody gave. And sizes of views, which may be several."""

import numpy as np


class OrMore(int):
    """A number that every number from it up is equal to: `view_counts = (OrMore(2),)` takes two views or more."""

    def __eq__(self, other):
        return int(self) <= other

    def __ne__(self, other):
        return not self == other

    __hash__ = int.__hash__

    def __str__(self):
        return f"{int(self)} or more"


def check_rows(owner, **arrays):
    """Raises `ValueError` unless all are `(n, d)` of one shape, with a row and a column at least.

    A size that is not known when a step is compiled goes with any other.

    Args:
        owner: of the arguments, for the message.
        arrays: by the names of the arguments; tensors, arrays or lists.
    """
    shapes = _known(arrays)
    if all(len(shape) == 2 and 0 not in shape for shape in shapes.values()) and _agree(shapes.values()):
        return
    every = "must be rows, (n, d)" if len(shapes) == 1 else "must be rows of one shape, (n, d)"
    raise ValueError(f"{owner}: {_named(shapes)}; {_listed(shapes)} {every}, with one row or more.")


def check_width(owner, of, **arrays):
    """Raises `ValueError` unless all are `(m, d)` with the d of other rows, whatever their number.

    Args:
        owner: for the message.
        of: `(name, array)` of the other rows.
        arrays: by the names of the arguments.
    """
    name, rows = of
    width = (shape_of(rows) or (None,))[-1]
    for other, shape in _known(arrays).items():
        if len(shape) != 2 or not _agree([shape[1:], (width,)]):
            raise ValueError(
                f"{owner}: `{other}` has the shape {shape}; beside `{name}` it must be rows, (m, {width})."
            )


def check_one_shape(owner, **arrays):
    """Raises `ValueError` unless all have one shape: (n,) and (n, 1) would give all pairs of rows.

    Args:
        owner: for the message.
        arrays: by the names of the arguments.
    """
    shapes = _known(arrays)
    if len({len(shape) for shape in shapes.values()}) > 1 or not _agree(shapes.values()):
        raise ValueError(f"{owner}: {_named(shapes)}; {_listed(shapes)} must have one shape.")


def check_one_a_row(owner, rows, **arrays):
    """Raises `ValueError` unless all have as many first entries as there are rows.

    Args:
        owner: for the message.
        rows: `(name, array)`.
        arrays: by the names of the arguments; None is let through.
    """
    name, array = rows
    of_rows = shape_of(array)
    for other, shape in _known({key: values for key, values in arrays.items() if values is not None}).items():
        if of_rows is not None and (not shape or not _agree([of_rows[:1], shape[:1]])):
            raise ValueError(f"{owner}: `{other}` has the shape {shape}, and `{name}` {of_rows}: give one a row.")


def check_one_a_patch(owner, patches, **arrays):
    """Raises `ValueError` unless all are `(n, patches)` for a `(n, patches, numbers)`.

    Args:
        owner: for the message.
        patches: `(name, array)` of these numbers.
        arrays: by the names of the arguments.
    """
    name, shape = patches[0], shape_of(patches[1])
    for other, given in _known(arrays).items():
        if shape is not None and (len(shape) != 3 or len(given) != 2 or not _agree([shape[:2], given])):
            raise ValueError(
                f"{owner}: `{name}` must be (n, patches, numbers) and `{other}` (n, patches); their shapes are {shape} "
                f"and {given}."
            )


def shape_of(array):
    """The shape of a tensor, an array or a list, as a tuple, with None for a size that is not known yet; None where not
    even the number of axes is known."""
    shape = getattr(array, "shape", None)
    if shape is None:
        return tuple(np.shape(array))
    return None if getattr(shape, "rank", 0) is None else tuple(shape)


def _known(arrays):
    shapes = {name: shape_of(array) for name, array in arrays.items()}
    return {name: shape for name, shape in shapes.items() if shape is not None}


def _agree(shapes):
    return all(len({size for size in sizes if size is not None}) < 2 for sizes in zip(*shapes))


def _named(shapes):
    return ", ".join(f"`{name}` has the shape {shape}" for name, shape in shapes.items())


def _listed(shapes):
    return "it" if len(shapes) == 1 else "they"


def by_size(shapes):
    """The numbers of the views that are of one size.

    Args:
        shapes: of the views, `(n, …, channels)` each.

    Returns:
        A list of lists of numbers, one for each size: sizes in the order in which they come first.
    """
    groups = {}
    for number, shape in enumerate(shapes):
        groups.setdefault(tuple(shape[1:]), []).append(number)
    return list(groups.values())


def pair(shapes):
    """The numbers of the first two views that are of one size; of the first alone, where no two are."""
    return next((numbers[:2] for numbers in by_size(shapes) if len(numbers) > 1), [0])


def sizes_in_words(shapes):
    """Sizes of views for a message: one alone as it is, several as `2 × (224, 224, 3), 6 × (96, 96, 3)`."""
    groups = by_size(shapes)
    if len(groups) == 1:
        return str(tuple(shapes[0][1:]))
    return ", ".join(f"{len(numbers)} × {tuple(shapes[numbers[0]][1:])}" for numbers in groups)
