"""NT-Xent: the normalised, temperature-scaled cross entropy of SimCLR."""

import keras
from keras import ops

# Below this many similarities the whole matrix is as fast as going by chunks and takes at most 300 MiB with its
# gradient (measured at 2 x 2048 rows on each backend).
_FULL_MATRIX = 4096 * 4096
_CHUNK = 512


def nt_xent(a, b, temperature=0.1, keys=None, first_row=0):
    """NT-Xent of each row: how surely it finds its other view among all the other images' views.

    For row i of the 2N normalised rows, with partner j(i): `-log( exp(s_ij/T) / Σ_{k≠i} exp(s_ik/T) )`.

    Args:
        a, b: embeddings of the first and of the second view, `(n, d)`, any float type; row i of both is one image.
            They are normalised here, in float32.
        temperature: T above 0. The paper: 0.1 for ImageNet, 0.5 for CIFAR-10.
        keys: `(a, b)` of the global batch, `(N, d)` each, where `a` and `b` are the rows of one replica; None for
            `a` and `b` themselves.
        first_row: the row of `keys` at which `a` and `b` begin.

    Returns:
        `(2n,)`: the rows of `a`, then those of `b`. Their mean over the global batch is the loss as Lightly and the
        paper's equation 1 have it.

    Reference: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020, eq. 1.
    """
    if not temperature > 0.0:
        raise ValueError(f"nt_xent: `temperature` must be above 0; it is {temperature!r}.")
    queries, keys, own, partner = _arranged(a, b, keys, first_row)
    positive = ops.sum(queries * ops.take(keys, partner, axis=0), axis=1)

    def log_sum(queries, own, keys):
        logits = ops.matmul(queries, ops.transpose(keys)) / temperature
        return ops.logsumexp(_hide(logits, own), axis=1)

    return by_chunks(log_sum, queries, own, keys) - positive / temperature


def contrastive_accuracy(a, b, keys=None, first_row=0):
    """1 for each row whose other view is the nearest of all rows but itself, else 0: `(2n,)`, as `nt_xent`."""
    queries, keys, own, partner = _arranged(a, b, keys, first_row)
    queries, keys = ops.stop_gradient(queries), ops.stop_gradient(keys)

    def nearest(queries, own, keys):
        return ops.argmax(_hide(ops.matmul(queries, ops.transpose(keys)), own), axis=1)

    return ops.cast(ops.equal(ops.cast(by_chunks(nearest, queries, own, keys), "int32"), partner), "float32")


def _arranged(a, b, keys, first_row):
    queries = normalized(ops.concatenate([a, b], axis=0))
    if keys is None:
        everyone, total = queries, ops.shape(a)[0]
    else:
        everyone, total = normalized(ops.concatenate(keys, axis=0)), ops.shape(keys[0])[0]
    row = first_row + ops.arange(ops.shape(a)[0], dtype="int32")
    total = ops.cast(total, "int32")
    # By the image's own row and not by place in a matrix: a gathered batch is not square.
    return queries, everyone, ops.concatenate([row, row + total]), ops.concatenate([row + total, row])


def _hide(logits, own):
    """Takes each query's similarity to itself out of the running."""
    column = ops.arange(ops.shape(logits)[1], dtype="int32")
    return ops.where(ops.equal(own[:, None], column[None, :]), -1e9, logits)


def normalized(x):
    """Rows of length 1, in float32: cast first, for half precision would spoil the direction."""
    x = ops.cast(x, "float32")
    return x / ops.sqrt(ops.maximum(ops.sum(ops.square(x), axis=-1, keepdims=True), 1e-24))


def by_chunks(rows, queries, own, keys):
    """`rows(queries, own, keys)` for a few queries at a time, so that memory grows with N and not with N².

    Each chunk is computed again for its gradient. Everything it needs is an argument: on TensorFlow `keras.remat` loses
    the gradient of what a function closes over.
    """
    total, known = queries.shape[0], keys.shape[0]
    if total is None or known is None or total * known <= _FULL_MATRIX:
        return rows(queries, own, keys)
    chunks = -(-total // _CHUNK)
    # The last chunk repeats the last row; what it gives twice is cut off below.
    index = ops.reshape(ops.minimum(ops.arange(chunks * _CHUNK, dtype="int32"), total - 1), (chunks, _CHUNK))
    once = keras.remat(lambda i, q, o, k: rows(ops.take(q, i, axis=0), ops.take(o, i, axis=0), k))
    return ops.reshape(ops.map(lambda i: once(i, queries, own, keys), index), (-1,))[:total]
