"""Images that are read when they are asked for."""

import numpy as np


class JoinedImages:
    """Images of several splits under one number, read when they are asked for.

    Args:
        parts: arrays or array-likes of one shape of image.
        rows: which of all their images, in which order; None for all.
    """

    def __init__(self, parts, rows=None):
        self.parts = parts
        self.rows = np.arange(sum(map(len, parts))) if rows is None else rows
        self.shape = (len(self.rows), *parts[0].shape[1:])

    def only(self, rows):
        """Some of them, numbered from 0."""
        return JoinedImages(self.parts, self.rows[rows])

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, row):
        row = self.rows[row]
        for part in self.parts:
            if row < len(part):
                return np.asarray(part[row])
            row -= len(part)
        raise IndexError(row)
