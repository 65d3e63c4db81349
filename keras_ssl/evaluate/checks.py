"""What all evaluations ask of labelled features."""

import numpy as np


def labelled(name, features, labels):
    """Labels as a flat array of integers, one for each row of `features`."""
    labels = np.asarray(labels)
    if labels.shape != (len(features),):
        raise ValueError(f"`{name}` has {len(features)} rows, and its labels the shape {labels.shape}: give one a row.")
    if labels.dtype.kind not in "iub":
        raise ValueError(f"Labels of `{name}` must be integers; they are {labels.dtype}.")
    return labels.astype("int64")


def some_classes(name, labels):
    if len(np.unique(labels)) < 2:
        raise ValueError(f"The labels of `{name}` name a single class: there is nothing to tell apart.")
