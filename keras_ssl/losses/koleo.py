"""KoLeo: rows spread over the sphere, each away from its nearest neighbor."""

from keras import ops

from keras_ssl import backend
from keras_ssl.losses.nt_xent import by_chunks, normalized, other_keys
from keras_ssl.shapes import check_rows, check_width, shape_of

# The square of the paper's code's 1e-8, beside the square of the distance: two rows at one place have no infinite loss.
_EPSILON = 1e-16


def koleo(rows, keys=None, row_offset=0, views=1):
    """The Kozachenko–Leonenko regularizer of each row: `−log(distance to the nearest other row)`, at length 1.

    Its mean is, up to constants, the negative entropy of the rows as estimated from their nearest neighbors: it is
    least where they are spread evenly over the sphere.

    Args:
        rows: `(n, d)`, any float type. They are brought to length 1 here, in float32.
        keys: the rows of the global batch, `(N, d)`, of which `rows` are those of one replica; None for `rows`
            themselves. Two or more.
        row_offset: the index in `keys` of the first of `rows`.
        views: how many rows an image has, side by side. Neighbors of a row are those of the same view alone.

    Returns:
        float32 `(n,)`, from −log 2 up to 18.4 for a row that another one equals, without a gradient there. The gradient
        goes into both, the row and its neighbor; which one is nearest counts as a constant.

    References: Sablayrolles et al., "Spreading Vectors for Similarity Search", 2019, eq. 4; Oquab et al., "DINOv2:
    Learning Robust Visual Features without Supervision", 2023, section 4.
    """
    check_rows("koleo", rows=rows)
    if keys is not None:
        check_rows("koleo", keys=keys)
        check_width("koleo", ("rows", rows), keys=keys)
    if shape_of(rows if keys is None else keys)[0] == 1:
        raise ValueError("koleo: one row has no neighbor: give 2 or more.")
    rows = normalized(rows)
    keys = rows if keys is None else normalized(keys)
    own = row_offset + ops.arange(ops.shape(rows)[0], dtype="int32")

    def nearest(rows, own, keys):
        counted = other_keys(keys, own[:, None])
        if not (isinstance(views, int) and views == 1):
            column = ops.arange(ops.shape(keys)[0], dtype="int32")
            counted = ops.logical_and(counted, ops.equal(ops.mod(column, views)[None, :], ops.mod(own, views)[:, None]))
        similarity = ops.where(counted, backend.matmul(rows, ops.transpose(keys)), -float("inf"))
        return ops.cast(ops.argmax(similarity, axis=1), "int32")

    neighbor = by_chunks(nearest, "int32", ops.stop_gradient(rows), own, ops.stop_gradient(keys))
    # The difference itself: from the cosine, the distance of two rows that are near has few digits left.
    apart = ops.sum(ops.square(rows - ops.take(keys, neighbor, axis=0)), axis=1)
    return -0.5 * ops.log(apart + _EPSILON)
