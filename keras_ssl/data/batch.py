"""A batch in the library's own form, and what is checked of one.

Inside of the library a batch is a dict: `"image"`, or `"views"` made by the user; with `"label"` or, for given pairs,
`"same"` where there are any; with `"index"`, an image's number, for methods that need it.
"""

import keras
import numpy as np
from keras import ops

from keras_ssl.backbones import check_sizes
from keras_ssl.data.labels import MISSING, codes_of, flat_labels
from keras_ssl.data.lazy import Joined, LazyArray, Rows
from keras_ssl.data.split import Split
from keras_ssl.data.value_range import check_images

_KEYS = ("image", "views", "label", "same", "index")


def standard_batch(batch):
    """Any form in which a user gives a batch (or whole arrays) as the library's dict.

    Args:
        batch: `images`, `(images,)`, `(images, labels)`, `((left, right), same)`, `(anchors, positives, negatives)`, a
            dict, `(dict,)` or `(dict, labels)`; arrays or tensors. Which of them a method takes is `check_parts`'.
    """
    labels = None
    if isinstance(batch, (tuple, list)):
        batch, labels = _taken_apart(batch)
    if isinstance(batch, dict):
        given = dict(batch)
        if labels is not None:
            given["label"] = labels
    elif isinstance(batch, (tuple, list)):
        given = {"views": batch} if labels is None else {"views": batch, "same": labels}
    else:
        given = {"image": batch} if labels is None else {"image": batch, "label": labels}
        _check_pair(batch, labels)
    unknown = sorted(str(name) for name in set(given) - set(_KEYS))
    if unknown or ("image" in given) == ("views" in given):
        which = f'the key "{unknown[0]}" is none of them: leave it out' if unknown else f"this one has {sorted(given)}"
        raise ValueError(
            'A batch as a dict has "image" or "views", and may have "label", "same" or "index"; '
            f"{which}. For views of your own write {{'views': (view_a, view_b)}}."
        )
    if "views" in given:
        views = given["views"]
        if not isinstance(views, (tuple, list)) or len(views) < 2:
            raise ValueError('"views" must be a tuple of two arrays or more, one a view.')
        given["views"] = tuple(views)
    if given.get("image", given.get("views")) is None:
        raise ValueError("There are no images: they are None.")
    return {name: value for name, value in given.items() if value is not None}


def images_of(batch, what):
    """The images of a batch in any form, for what has no use for views and labels."""
    batch = standard_batch(batch)
    if "image" not in batch:
        raise ValueError(f"`{what}`: these batches hold views, and features are of images: give images.")
    return batch["image"]


def _taken_apart(batch):
    """`(images or views, labels or None)` of a tuple."""
    if len(batch) == 3 and _are_views(batch):
        return tuple(batch), None
    if len(batch) == 3 and batch[2] is not None:
        raise ValueError("Sample weights have no meaning for self-supervised losses: give (images, labels).")
    if not 1 <= len(batch) <= 3:
        raise ValueError(f"A batch is images, (images, labels) or a dict; this one is a tuple of {len(batch)}.")
    return (*batch, None)[:2]


def _are_views(parts):
    """Whether all parts are images of one shape: labels and weights have fewer dimensions."""
    if not all(hasattr(part, "shape") for part in parts):
        return False
    shapes = {tuple(part.shape) for part in parts}
    return len(shapes) == 1 and len(shapes.pop()) >= 3


def _check_pair(images, labels):
    shape = getattr(labels, "shape", None)
    if shape is None:
        return
    shape, of_images = tuple(shape), tuple(getattr(images, "shape", ()))
    if len(shape) >= 3 or (len(shape) == 2 and len(of_images) == 2 and shape[1:] == of_images[1:] and shape[1] != 1):
        raise ValueError(
            f"A pair of shapes {of_images} and {shape} looks like two views, and Keras would read the second as "
            "labels. Write {'views': (view_a, view_b)} for views of your own, or give the images alone."
        )


def whole_set(x, y, needs, what):
    """A set of arrays, as a user gives it to `fit`, as one batch in the library's form.

    Args:
        x: images, a dict, or a `Split` of arrays.
        y: labels, or None.
        needs: `keras_ssl.data.adapter.Needs`.
        what: the argument that this is, for messages.
    """
    if isinstance(x, Split) and x.dataset is None:
        x, y = x.images, x.labels if needs.labels and y is None else y
    if not isinstance(x, (dict, tuple, list)) and hasattr(x, "__iter__") and not hasattr(x, "shape"):
        raise ValueError(f"`{what}` needs arrays, and this is a {type(x).__name__}: split the stream yourself.")
    if isinstance(x, (tuple, list)) and y is None and not (len(x) == 3 and _are_views(x)):
        raise ValueError(
            f"`{what}` is a bare {type(x).__name__} of {len(x)}. Write fit(images, labels) for labels, or "
            '{"views": (view_a, view_b)} for views of your own.'
        )
    parts = standard_batch(x if y is None else (x, y))
    labels = parts.pop("label", None)
    parts = keras.tree.map_structure(_array_like, parts)
    if labels is not None:
        parts["label"] = flat_labels(labels, f"{what}: labels") if needs.labels else np.asarray(labels)
    return parts


def checked_set(x, y, needs, what):
    """A set of arrays in the library's form, checked, and with the parts that the method uses.

    Args:
        x, y, needs, what: as of `whole_set`.

    Returns:
        A tuple `(arrays, parts)`: a batch that holds the whole set, and the names of all parts that were given.
    """
    arrays = whole_set(x, y, needs, what)
    parts = set(arrays)
    check_parts(arrays, needs, what, all_indexed=True)
    arrays = {name: part for name, part in arrays.items() if name in needs.parts}
    if "label" in arrays:
        arrays["label"] = _class_codes(needs.method, arrays["label"], what)
    rows = {len(array) for array in keras.tree.flatten(arrays)}
    if len(rows) > 1:
        raise ValueError(f"`{what}`: images, views and labels must be of one length; they have {sorted(rows)}.")
    if needs.index and "index" not in arrays:
        if what == "validation_data":
            raise ValueError(
                f"`validation_data`: {needs.method} makes each training image a class, and held-out images belong to "
                "none: leave it out."
            )
        arrays["index"] = np.arange(rows.pop(), dtype="int32")
    check_batch(arrays, needs, what)
    return arrays, parts


def check_batch(batch, needs, what=None):
    """Checks the images of a batch in the library's form; files are checked when they are read.

    Args:
        batch: arrays, in the library's form.
        needs: `keras_ssl.data.adapter.Needs`.
        what: the argument that it was given as; None for the name of its part.
    """
    for name in ("image", "views"):
        for images in keras.tree.flatten(batch.get(name, ())):
            check_source(images, needs.value_range, what or name)
            check_rank(images.shape, needs.image_rank, what or name)
    if "views" in batch and needs.backbone is not None:
        shapes = [view.shape for view in batch["views"]]
        check_sizes(needs.backbone, shapes, f"`{what or 'views'}`: the views are of", "resize them")


def check_source(images, value_range, what):
    """Checks images that may lie on disk: those in memory now, pictures when they are read."""
    if isinstance(images, Rows):
        check_source(images.images, value_range, what)
    elif isinstance(images, Joined):
        for part in images.parts:
            check_source(part, value_range, what)
    elif not isinstance(images, LazyArray):
        check_images(images, value_range, what)


def check_rank(shape, rank, what):
    if rank is not None and len(shape) == rank - 1:
        raise ValueError(
            f"`{what}`: the shape is {tuple(shape)}, and the backbone takes {rank} dimensions, the batch first and the "
            "channels last. For images without channels write images[..., None]; for a data set that is not batched "
            "dataset.batch(256, drop_remainder=True)."
        )
    if rank is not None and len(shape) != rank:
        raise ValueError(f"`{what}`: the shape is {tuple(shape)}, and the backbone takes {rank} dimensions.")


def check_parts(batch, needs, what, all_indexed=False):
    """Refuses a batch that lacks what a method needs, or has what it can't use.

    Args:
        batch: in the library's form.
        all_indexed: whether images are numbered by their place where the batch does not number them.
    """
    if needs.labels and "label" not in batch:
        raise ValueError(
            f"`{what}`: {needs.method} was made with labels=True and needs them: write fit(images, labels)."
        )
    if needs.index and "index" not in batch and not all_indexed:
        raise ValueError(
            f'`{what}`: {needs.method} makes each image a class, and needs its number: {{"image": …, "index": …}}.'
        )
    if "same" in batch and not needs.pair_labels:
        raise ValueError(
            f"`{what}`: {needs.method} takes both views of a pair as being of a kind, and these pairs come with a "
            'second part, "same": give {"views": (left, right)} with the pairs that are of a kind alone, or train a '
            "keras_ssl.Siamese, which takes ((left, right), same)."
        )
    views = len(batch["views"]) if "views" in batch else None
    if views is not None and needs.view_counts is not None and views not in needs.view_counts:
        wanted = " or ".join(map(str, needs.view_counts))
        triple = " Triples (anchors, positives, negatives) are for keras_ssl.Triplet." if views == 3 else ""
        raise ValueError(f"`{what}`: {needs.method} takes {wanted} view(s) of an image, and is given {views}.{triple}")


def _class_codes(method, labels, what):
    """Labels as class numbers int32 `(N,)`; refuses those that make no pairs."""
    codes, classes = codes_of(labels, f"{what}: labels")
    counts = np.bincount(codes[codes != MISSING], minlength=1)
    if len(classes) < 2 or counts.max() < 2:
        nothing = "there are none" if not len(classes) else "all images have one label"
        nothing = "no two images have one label" if len(classes) > 1 else nothing
        raise ValueError(f"`{what}`: {nothing}, so there is nothing for {method} to learn from labels.")
    return codes


def image_shape(input_shape):
    """The shape of the images in whatever shapes Keras gives to `build`: a shape, or a dict of shapes."""
    if isinstance(input_shape, dict):
        input_shape = input_shape.get("image") or input_shape.get("views")
    if input_shape and isinstance(input_shape[0], (tuple, list)):
        input_shape = input_shape[0]
    return tuple(input_shape) if input_shape else None


def _array_like(array):
    if hasattr(array, "__array_interface__") or isinstance(array, LazyArray):
        return array
    return ops.convert_to_numpy(array)
