"""What `fit` feeds to the model: batches of one size, in an order that is a function of (seed, epoch), checked.

Inside of the library a batch is a dict: `"image"`, or `"views"` made by the user; with `"label"` or, for given pairs,
`"same"` where there are any; with `"index"`, an image's number, for methods that need it.
"""

import contextlib

import keras
import numpy as np

_KEYS = ("image", "views", "label", "same", "index")


def standard_batch(batch):
    """Any form in which a user gives a batch (or whole arrays) as the library's dict.

    Args:
        batch: `images`, `(images,)`, `(images, labels)`, a dict, `(dict,)` or `(dict, labels)`; arrays or tensors.
    """
    labels = None
    if isinstance(batch, (tuple, list)):
        if len(batch) == 3 and batch[2] is not None:
            raise ValueError("Sample weights have no meaning for self-supervised losses: give (images, labels).")
        if not 1 <= len(batch) <= 3:
            raise ValueError(f"A batch is images, (images, labels) or a dict; this one is a tuple of {len(batch)}.")
        batch, labels = (*batch, None)[:2]
    if isinstance(batch, dict):
        given = dict(batch)
        if labels is not None:
            given["label"] = labels
    else:
        given = {"image": batch} if labels is None else {"image": batch, "label": labels}
        _refuse_pair(batch, labels)
    unknown = sorted(set(given) - set(_KEYS))
    if unknown or ("image" in given) == ("views" in given):
        raise ValueError(
            'A batch as a dict has "image" or "views", and may have "label" or "same"; this one has '
            f"{sorted(given)}. For views of your own write {{'views': (view_a, view_b)}}."
        )
    if "views" in given:
        views = given["views"]
        if not isinstance(views, (tuple, list)) or len(views) < 2:
            raise ValueError('"views" must be a tuple of two arrays or more, one a view.')
        given["views"] = tuple(views)
    return {name: value for name, value in given.items() if value is not None}


def _refuse_pair(images, labels):
    shape = getattr(labels, "shape", None)
    if shape is None:
        return
    if len(shape) >= 3 or (len(shape) == 2 and tuple(shape)[1:] == tuple(images.shape)[1:]):
        raise ValueError(
            f"A pair of shapes {tuple(images.shape)} and {tuple(shape)} looks like two views, and Keras would read the "
            "second as labels. Write {'views': (view_a, view_b)} for views of your own, or give the images alone."
        )


def check_images(images, value_range, what="images"):
    """Refuses NaN, and values outside of the range (or so far inside that the range must be wrong)."""
    low, high = value_range
    if images.dtype == np.uint8 and low <= 0.0 and high >= 255.0:
        return
    smallest, largest = float(np.min(images)), float(np.max(images))
    if not np.isfinite(smallest) or not np.isfinite(largest):
        raise ValueError(f"`{what}` hold NaN or infinite values: remove those images, or repair them, before training.")
    slack = 1e-3 * (high - low)  # a resize with a cubic kernel may pass the ends a little
    if smallest < low - slack or largest > high + slack:
        raise ValueError(
            f"`{what}` lie in [{smallest:g}, {largest:g}], outside of the model's value_range=({low:g}, {high:g}). "
            "Pass the range that they have, such as value_range=(0, 1), or bring them into this one."
        )
    if (low, high) == (0.0, 255.0) and images.dtype.kind == "f" and 0.0 < largest <= 1.0:
        raise ValueError(
            f"`{what}` lie in [{smallest:g}, {largest:g}], and the model's value_range is (0, 255), where that is all "
            "black. Pass value_range=(0, 1), or multiply by 255."
        )


def check_batch(batch, value_range):
    for name in ("image", "views"):
        for images in keras.tree.flatten(batch.get(name, ())):
            if isinstance(images, np.ndarray):
                check_images(images, value_range, what=name)


class Batches(keras.utils.PyDataset):
    """Arrays as batches of one size.

    The order is a function of seed and epoch, so that a resumed run sees what an uninterrupted one would have seen.
    The rows that don't fill a batch are left out of a pass; with another order each pass they are others each time.

    Args:
        arrays: a standard batch that holds the whole set: anything with a length that takes an array of row numbers.
        batch_size: images a batch.
        shuffle: in an order of its own each pass; else as they come.
        seed: of the order.
        steps: batches an epoch; None for one pass.
        share: `(number, mine)`: each batch is cut into so many shares of neighbouring rows, and this process's alone
            is given. The order is that of the whole set, so that the shares together are the batch of one process.
    """

    def __init__(self, arrays, batch_size, shuffle=True, seed=0, steps=None, share=(1, 0)):
        super().__init__()
        self.arrays = arrays
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rows = len(keras.tree.flatten(arrays)[0])
        self.steps_a_pass = self.rows // batch_size
        self.steps = steps or self.steps_a_pass
        self.share = share
        self.epoch = 0
        self.first = 0  # batches of this epoch that are done already
        self._shuffled = (None, None)

    @property
    def num_batches(self):
        return self.steps - self.first

    @contextlib.contextmanager
    def rest_of_epoch(self, first):
        """Within it these are the batches of an epoch from number `first` on."""
        self.first = first
        try:
            yield
        finally:
            self.first = 0

    def __getitem__(self, index):
        # With steps_per_epoch an epoch goes on where the last one stopped.
        whole, place = divmod(self.epoch * self.steps + self.first + index, self.steps_a_pass)
        shares, mine = self.share
        first, size = place * self.batch_size, self.batch_size // shares
        rows = self._order(whole)[first + mine * size : first + (mine + 1) * size]
        return keras.tree.map_structure(lambda array: array[rows], self.arrays)

    def _order(self, whole):
        if not self.shuffle:
            return np.arange(self.rows)
        if self._shuffled[0] != whole:
            self._shuffled = (whole, np.random.default_rng([self.seed, whole]).permutation(self.rows))
        return self._shuffled[1]


class SetEpoch(keras.callbacks.Callback):
    """Tells the batches which epoch it is, also where a run starts in the middle; and the others how many there are.

    Args:
        batches: `Batches`.
        epochs: of the whole run, which is more than Keras knows where the rest of an epoch is a run of its own.
    """

    def __init__(self, batches, epochs):
        super().__init__()
        self.batches, self.epochs = batches, epochs

    def set_params(self, params):
        super().set_params(params)
        if params:
            params["epochs"] = self.epochs  # one dict for all callbacks, of which this is the first

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.epoch = epoch


class Checked(keras.utils.PyDataset):
    """A user's `PyDataset` or any other iterable of batches: standard form, one size, values looked at.

    Args:
        source: a `PyDataset`, or anything that can be iterated anew for each epoch, such as a torch `DataLoader`.
        value_range: of the model.
        keep: names of the parts of a batch that the model uses.
    """

    def __init__(self, source, value_range, keep):
        self.source = source
        self.indexed = isinstance(source, keras.utils.PyDataset)
        workers = {}
        if self.indexed:
            names = ("workers", "use_multiprocessing", "max_queue_size")
            workers = {name: getattr(source, name) for name in names}
        super().__init__(**workers)
        self.value_range = value_range
        self.keep = keep
        self._iterator, self._next = None, 0
        first = self._read(0)
        self.batch_size = len(keras.tree.flatten(first)[0])
        self.steps = source.num_batches if self.indexed else _length(source)
        if self.indexed and self.steps and len(keras.tree.flatten(self._read(self.steps - 1))[0]) != self.batch_size:
            self.steps -= 1
        if not self.indexed and getattr(source, "drop_last", True) is False:
            rows = getattr(getattr(source, "dataset", None), "__len__", lambda: 0)()
            self.steps -= 1 if rows % self.batch_size else 0

    @property
    def num_batches(self):
        return self.steps

    def __getitem__(self, index):
        batch = self._read(index)
        rows = len(keras.tree.flatten(batch)[0])
        if rows != self.batch_size:
            raise ValueError(f"Batch {index} holds {rows} images and the first one {self.batch_size}: make them equal.")
        return batch

    def _read(self, index):
        if self.indexed:
            batch = self.source[index]
        else:
            if index == 0 or self._iterator is None or index != self._next:
                self._iterator, self._next = iter(self.source), 0
            for _ in range(index - self._next + 1):
                batch = next(self._iterator)
            self._next = index + 1
        batch = standard_batch(batch)
        self.parts = set(batch)  # also of what is not kept
        batch = {name: part for name, part in batch.items() if name in self.keep}
        batch = keras.tree.map_structure(_to_numpy, batch)
        check_batch(batch, self.value_range)
        return batch

    def on_epoch_begin(self):
        if self.indexed:
            self.source.on_epoch_begin()

    def on_epoch_end(self):
        if self.indexed:
            self.source.on_epoch_end()


def _length(source):
    try:
        return len(source)
    except TypeError:
        raise ValueError(
            f"A {type(source).__name__} has no length, and the number of steps must be known before training. Give a "
            "tf.data.Dataset, a keras.utils.PyDataset or a torch DataLoader, or collect the images in an array."
        ) from None


def _to_numpy(array):
    return array if isinstance(array, np.ndarray) else keras.ops.convert_to_numpy(array)
