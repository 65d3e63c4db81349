"""Decoded pictures that are kept, so that later epochs need not decode them again."""

import itertools


class PictureCache:
    """Pictures by the path of their file, as many as fit into a number of bytes.

    The first ones that are read stay. To make room for later ones would help nobody: an epoch reads each picture once,
    in an order of its own, so that all have the same chance to be asked for next.

    Attributes:
        most: how many pictures fit.

    Args:
        max_bytes: of all pictures together.
        bytes_of_picture: of one; all are of one size.
    """

    def __init__(self, max_bytes, bytes_of_picture):
        self.max_bytes, self.bytes_of_picture = max_bytes, bytes_of_picture
        self.most = max_bytes // max(1, bytes_of_picture)
        self._pictures = {}
        # `next` of a counter is one operation of the interpreter: no lock, which a forked process could find held.
        self._places = itertools.count()

    def __len__(self):
        return len(self._pictures)

    def __reduce__(self):  # a copy in another process begins empty
        return type(self), (self.max_bytes, self.bytes_of_picture)

    def get(self, path):
        """The pixels of a file, which must not be written to, or None."""
        return self._pictures.get(path)

    def keep(self, path, image):
        """Keeps the pixels of a file, if there is room."""
        if len(self) < self.most and path not in self._pictures and next(self._places) < self.most:
            self._pictures[path] = image
