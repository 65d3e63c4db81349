"""NT-Xent: the normalized, temperature-scaled cross entropy of SimCLR."""

import keras
from keras import ops

from keras_ssl import backend, masked
from keras_ssl.distances import normalized
from keras_ssl.shapes import check_one_a_row, check_rows, check_width

# Below this many similarities the whole matrix is as fast as going by chunks and takes at most 300 MiB with its
# gradient (measured at 2 x 2048 rows on each backend).
_FULL_MATRIX = 4096 * 4096
# Rows of a chunk at most, and similarities: 32 MiB a matrix, of which a backend holds a few. Smaller chunks are no
# better: torch keeps a gradient of all keys for each of them until the end.
_CHUNK = 512
_CHUNK_SIMILARITIES = 2**23


@keras.saving.register_keras_serializable("keras_ssl")
def nt_xent(a, b, temperature=0.1, keys=None, row_offset=0, negatives=None, valid=None, weighting=None):
    """Computes NT-Xent for each row: the cross entropy of its other view among all other images' views.

    For row i of the 2N normalized rows, whose positive is j(i): `-log( exp(s_ij/T) / Σ_{k≠i} exp(s_ik/T) )`. Further
    `negatives` add their `exp(s_ik/T)` to each row's denominator.

    Memory grows with the number of keys, not with its square. Above 4096 x 4096 similarities, or if the number of rows
    is not known when the step is compiled, rows are computed in chunks of 512 or fewer (eight million similarities),
    and again for the gradient.

    Args:
        a, b: embeddings of the first and of the second view, `(n, d)`, any float type; row i of both is one image.
            They are normalized here, in float32.
        temperature: T above 0. The paper: 0.1 for ImageNet, 0.5 for CIFAR-10.
        keys: `(a, b)` of the global batch, `(N, d)` each, where `a` and `b` are the rows of one replica; None for
            `a` and `b` themselves.
        row_offset: the index in `keys` of the first row of `a` and `b`.
        negatives: `(m, d)`, embeddings of other images, such as those of past batches (`keras_ssl.queue.Queue`); they
            are normalized here too.
        valid: boolean `(m,)`, which of the negatives count; None for all.
        weighting: a function that weights negatives, such as `keras_ssl.mining.HardnessWeighted()`: of `similarity`,
            float32 `(rows, keys)`, and `negative`, boolean `(rows, keys)`, it gives the weight of each negative's
            `exp(s_ik/T)`, 0 or more. It sees some rows at a time, with all of their keys; no gradient goes through it.

    Returns:
        float32 `(2n,)`: the rows of `a`, then those of `b`. Their mean over the global batch is the loss as Lightly and
        the paper's equation 1 have it.

    Reference: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020, eq. 1.
    """
    check_temperature("nt_xent", temperature)
    queries, keys, self_index, positive_index, empty = align_views("nt_xent", a, b, keys, row_offset, negatives, valid)
    positive = ops.sum(queries * ops.take(keys, positive_index, axis=0), axis=1)

    def log_sum_of_negatives(queries, places, keys, empty):
        similarity = backend.matmul(queries, ops.transpose(keys))
        logits, counted = similarity / temperature, other_keys(keys, places, empty)
        if weighting is not None:
            logits, counted = _weighted(weighting, ops.stop_gradient(similarity), logits, counted)
        return masked.log_sum_exp(logits, counted)

    places = ops.stack([self_index, positive_index], axis=1)
    negatives = by_chunks(log_sum_of_negatives, "float32", queries, places, keys, empty)
    # -log(p / (p + n)) as log(1 + n/p): a difference of log(p + n) and log(p), which are both near 1/T, would leave
    # little of a small loss in float32.
    return ops.softplus(negatives - positive / temperature)


def _weighted(weighting, similarity, logits, negative):
    """The negatives' logits with the logarithms of their weights added, and which of them are left."""
    weight = ops.stop_gradient(ops.cast(weighting(similarity, negative), "float32"))
    counted = ops.logical_and(negative, weight > 0.0)
    return logits + ops.log(ops.where(counted, weight, 1.0)), counted


def check_temperature(owner, temperature):
    """Raises `ValueError` for a temperature that is not positive and finite."""
    if not 0.0 < temperature < float("inf"):
        raise ValueError(f"{owner}: `temperature` must be above 0; it is {temperature!r}.")


def contrastive_accuracy(a, b, keys=None, row_offset=0, negatives=None, valid=None):
    """1 for each row whose nearest row, itself excepted, is its other view, else 0.

    Args:
        a, b, keys, row_offset, negatives, valid: as of `nt_xent`.

    Returns:
        float32 `(2n,)`: the rows of `a`, then those of `b`. It has no gradient.
    """
    queries, keys, self_index, positive_index, empty = align_views(
        "contrastive_accuracy", a, b, keys, row_offset, negatives, valid
    )
    queries, keys = ops.stop_gradient(queries), ops.stop_gradient(keys)

    def nearest(queries, self_index, keys, empty):
        similarity = backend.matmul(queries, ops.transpose(keys))
        counted = other_keys(keys, self_index[:, None], empty)
        return ops.cast(ops.argmax(ops.where(counted, similarity, -float("inf")), axis=1), "int32")

    return ops.cast(ops.equal(by_chunks(nearest, "int32", queries, self_index, keys, empty), positive_index), "float32")


def align_views(owner, a, b, keys, row_offset, negatives, valid):
    """Puts the views of all images in one array of rows.

    Returns:
        The queries; all rows that they are compared with; of each query, its own row's index and its positive's; which
        rows hold nothing yet, or None.
    """
    check_rows(owner, a=a, b=b)
    if keys is not None:
        check_rows(owner, **{"keys[0]": keys[0], "keys[1]": keys[1]})
        check_width(owner, ("a", a), **{"keys[0]": keys[0]})
    if negatives is not None:
        check_width(owner, ("a", a), negatives=negatives)
        check_one_a_row(owner, ("negatives", negatives), valid=valid)
    queries = normalized(ops.concatenate([a, b], axis=0))
    if keys is None:
        all_rows, total = queries, ops.shape(a)[0]
    else:
        all_rows, total = normalized(ops.concatenate(keys, axis=0)), ops.shape(keys[0])[0]
    row = row_offset + ops.arange(ops.shape(a)[0], dtype="int32")
    total = ops.cast(total, "int32")
    # By the image's own row and not by place in a matrix: a gathered batch is not square.
    self_index, positive_index = ops.concatenate([row, row + total]), ops.concatenate([row + total, row])
    if negatives is None:
        if valid is not None:
            raise ValueError(f"{owner}: `valid` says which of the `negatives` count, and there are none.")
        return queries, all_rows, self_index, positive_index, None
    empty = None
    if valid is not None:
        empty = ops.cast(ops.logical_not(valid), "int32")
        empty = ops.concatenate([ops.zeros_like(all_rows[:, 0], dtype="int32"), empty])
    return queries, ops.concatenate([all_rows, normalized(negatives)], axis=0), self_index, positive_index, empty


def other_keys(keys, places, empty=None):
    """Which keys count for each query: all but those at its places, such as itself, and but the empty ones.

    Args:
        keys: `(m, d)`.
        places: int32 `(n, k)`, of each query the keys that do not count.
        empty: 1 for keys that hold nothing, else 0, `(m,)`; None for none.

    Returns:
        Boolean `(n, m)`.
    """
    column = ops.arange(ops.shape(keys)[0], dtype="int32")[None, :]
    counted = ops.not_equal(places[:, :1], column)
    for place in range(1, places.shape[1]):
        counted = ops.logical_and(counted, ops.not_equal(places[:, place : place + 1], column))
    if empty is not None:
        counted = ops.logical_and(counted, ops.logical_not(ops.cast(empty, "bool"))[None, :])
    return counted


def by_chunks(rows, dtype, queries, per_query, *shared):
    """Calls `rows(queries, per_query, *shared)` on chunks of queries, so that memory grows with N, not with N².

    Each chunk is computed again for its gradient. Everything it needs is an argument: on TensorFlow `keras.remat` loses
    the gradient of what a function closes over. There an argument can be of floats or integers, but not boolean.

    Args:
        rows: gives one value for each of the queries that it is given.
        dtype: of these values.
        queries: `(n, d)`.
        per_query: `(n,)` or `(n, …)`, what belongs to each query, such as the index of its own row among the keys.
        *shared: what each chunk gets whole, first of all the keys `(m, d)`; tensors or None.
    """
    total, known = queries.shape[0], shared[0].shape[0]
    if total is not None and known is not None and total * known <= _FULL_MATRIX:
        return rows(queries, per_query, *shared)
    # Where the batch dimension is open the whole matrix could be of any size: chunks then, whatever it turns out to be.
    total = ops.shape(queries)[0]
    # Where only the keys are open: as for 32768 of them.
    size = min(_CHUNK, max(16, _CHUNK_SIMILARITIES // (known or 2**15)))
    chunks = (total + size - 1) // size
    # The last chunk repeats the last row; what it gives twice is cut off below.
    index = ops.reshape(ops.minimum(ops.arange(chunks * size, dtype="int32"), total - 1), (-1, size))
    given = [number for number, part in enumerate(shared) if part is not None]

    def chunk(index, queries, per_query, *parts):
        whole = [None] * len(shared)
        for number, part in zip(given, parts):
            whole[number] = part
        return rows(ops.take(queries, index, axis=0), ops.take(per_query, index, axis=0), *whole)

    once, parts = keras.remat(chunk), [shared[number] for number in given]
    values = backend.sequential_map(lambda i: once(i, queries, per_query, *parts), index, dtype)
    return ops.reshape(values, (-1,))[:total]
