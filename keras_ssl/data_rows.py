"""Some rows of images that may lie on the disk."""


class Rows:
    """Some rows of an array or of files, read when they are asked for."""

    def __init__(self, images, rows):
        self.images, self.rows = images, rows
        self.shape, self.dtype = (len(rows), *images.shape[1:]), images.dtype

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.images[self.rows[index]]
