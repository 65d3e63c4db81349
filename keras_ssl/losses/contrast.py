"""Variants of NT-Xent: other denominators, other positives.

`dcl`, `dclw` and `debiased_nt_xent` take what `nt_xent` takes, and `SimCLR(contrast=…)` takes each of them.
"""

import math

import keras
from keras import ops

from keras_ssl import backend, masked
from keras_ssl.losses.nt_xent import align_views, by_chunks, check_temperature, normalized, other_keys
from keras_ssl.losses.reducers import weighted_mean_rows
from keras_ssl.mining import pair_masks
from keras_ssl.shapes import check_one_a_row, check_rows, check_width


@keras.saving.register_keras_serializable("keras_ssl")
def dcl(a, b, temperature=0.1, keys=None, row_offset=0):
    """The decoupled contrastive loss of each row: NT-Xent without the positive in its denominator.

    `−s_ij/T + log Σ_{k ∉ {i, j}} exp(s_ik/T)`. Where positives are easy, NT-Xent's gradient fades with them; this one's
    does not, which helps small batches.

    Args:
        a, b, temperature, keys, row_offset: as of `nt_xent`; two images or more.

    Returns:
        float32 `(2n,)`: the rows of `a`, then those of `b`. It can be below 0.

    Reference: Yeh et al., "Decoupled Contrastive Learning", 2022, eq. 6.
    """
    positive, negatives = _decoupled("dcl", a, b, temperature, keys, row_offset)
    return negatives - positive / temperature


@keras.saving.register_keras_serializable("keras_ssl")
def dclw(a, b, temperature=0.1, keys=None, row_offset=0, sigma=0.5):
    """`dcl` with harder positives weighted more: its positive term times `2 − N · softmax_i(s_i / σ)`.

    Args:
        a, b, temperature, keys, row_offset: as of `nt_xent`; two images or more.
        sigma: of the weights, above 0. They have no gradient, and a mean of 1.

    Returns:
        float32 `(2n,)`: the rows of `a`, then those of `b`.

    Reference: Yeh et al., "Decoupled Contrastive Learning", 2022, section 3.3.
    """
    if not sigma > 0.0:
        raise ValueError(f"dclw: `sigma` must be above 0; it is {sigma!r}.")
    positive, negatives = _decoupled("dclw", a, b, temperature, keys, row_offset)
    one, other = (a, b) if keys is None else keys
    all_positives = ops.sum(normalized(one) * normalized(other), axis=1) / sigma
    total = ops.cast(ops.shape(all_positives)[0], "float32")
    weight = 2.0 - total * ops.exp(positive / sigma - ops.logsumexp(all_positives))
    return negatives - ops.stop_gradient(weight) * positive / temperature


def _decoupled(owner, a, b, temperature, keys, row_offset):
    """Each row's cosine to its positive, and the log-sum-exp over all but itself and that."""
    check_temperature(owner, temperature)
    queries, keys, self_index, positive_index, _ = align_views(owner, a, b, keys, row_offset, None, None)
    logits = backend.matmul(queries, ops.transpose(keys)) / temperature
    positive = ops.sum(queries * ops.take(keys, positive_index, axis=0), axis=1)
    counted = other_keys(keys, ops.stack([self_index, positive_index], axis=1))
    return positive, masked.log_sum_exp(logits, counted)


@keras.saving.register_keras_serializable("keras_ssl")
def debiased_nt_xent(a, b, temperature=0.1, keys=None, row_offset=0, positive_prior=0.1):
    """NT-Xent of each row, less the part of its negatives that are expected to be of its own class.

    `−log( p / (p + max(M·e^(−1/T), (Σ_k exp(s_ik/T) − M·τ⁺·p) / (1 − τ⁺))) )`, with p = exp(s_ij/T) and M negatives.

    Args:
        a, b, temperature, keys, row_offset: as of `nt_xent`; two images or more.
        positive_prior: τ⁺, the share of the data that is of an image's own class, in [0, 1); 0 gives `nt_xent`.

    Returns:
        float32 `(2n,)`: the rows of `a`, then those of `b`.

    Reference: Chuang et al., "Debiased Contrastive Learning", 2020, eq. 8.
    """
    if not 0.0 <= positive_prior < 1.0:
        raise ValueError(f"debiased_nt_xent: `positive_prior` must lie in [0, 1); it is {positive_prior!r}.")
    positive, negatives = _decoupled("debiased_nt_xent", a, b, temperature, keys, row_offset)
    # In logarithms throughout: at a low temperature each of these exponentials is 0 or infinite in float32.
    count = ops.log(2.0 * ops.cast(ops.shape(a if keys is None else keys[0])[0] - 1, "float32"))
    ratio = negatives - positive / temperature  # log Σ_k exp(s_ik/T) / p
    debiased = ratio - math.log1p(-positive_prior)
    if positive_prior > 0.0:
        share = count + math.log(positive_prior)  # log M·τ⁺
        # Where the negatives are not more than expected, the difference is 0 or less, and the least takes its place.
        more = ratio > share
        rest = ops.log(-ops.expm1(ops.where(more, share - ratio, -1.0)))
        debiased = ops.where(more, debiased + rest, -float("inf"))
    return ops.softplus(ops.maximum(debiased, count - (1.0 + positive) / temperature))


def info_nce(queries, keys, negatives=None, temperature=0.1, valid=None, row_offset=0):
    """Computes InfoNCE for each query: the cross entropy of its key among other keys.

    `−log( exp(q·k/T) / (exp(q·k/T) + Σ_m exp(q·n_m/T)) )` of rows that are brought to length 1.

    Args:
        queries: `(n, d)`.
        keys: `(n, d)`; row i of both is one image. Without `negatives` those of the global batch, `(N, d)`.
        negatives: `(m, d)`, shared by all queries, such as a `keras_ssl.queue.Queue` holds; None for the keys of the
            other rows.
        temperature: above 0. MoCo: 0.07.
        valid: `(m,)`, boolean: which negatives count; None for all.
        row_offset: without `negatives`, the index in `keys` of the first query's own.

    Returns:
        float32 `(n,)`.

    References: He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", 2020, eq. 1; without
    `negatives` Chen et al., "An Empirical Study of Training Self-Supervised Vision Transformers", 2021, algorithm 1.
    """
    check_temperature("info_nce", temperature)
    if negatives is None:
        return _among_keys(queries, keys, temperature, valid, row_offset)
    check_rows("info_nce", queries=queries, keys=keys)
    check_width("info_nce", ("queries", queries), negatives=negatives)
    check_one_a_row("info_nce", ("negatives", negatives), valid=valid)
    queries = normalized(queries)
    positive = ops.sum(queries * normalized(keys), axis=1)
    others = backend.matmul(queries, ops.transpose(normalized(negatives))) / temperature
    counted = ops.ones_like(others, dtype="bool")
    if valid is not None:
        counted = ops.logical_and(counted, ops.cast(valid, "bool")[None, :])
    # Not the difference of two large logarithms, of which little is left where the loss is small. And not `logaddexp`,
    # whose gradient is 0 on TensorFlow where both are equal: for a key among its own negatives.
    return ops.softplus(masked.log_sum_exp(others, counted) - positive / temperature)


def _among_keys(queries, keys, temperature, valid, row_offset):
    """InfoNCE with the keys of the other rows as negatives."""
    if valid is not None:
        raise ValueError("info_nce: `valid` says which of the `negatives` count, and there are none.")
    queries, keys, own = _aligned("info_nce", queries, keys, row_offset)
    positive = ops.sum(queries * ops.take(keys, own, axis=0), axis=1)

    def log_sum_of_others(queries, own, keys):
        return masked.log_sum_exp(
            backend.matmul(queries, ops.transpose(keys)) / temperature, other_keys(keys, own[:, None])
        )

    return ops.softplus(by_chunks(log_sum_of_others, "float32", queries, own, keys) - positive / temperature)


def finds_own_key(queries, keys, row_offset=0):
    """Returns 1 for each query whose nearest key is its own, else 0: float32 `(n,)`, without gradients.

    Args:
        queries, keys, row_offset: as of `info_nce` without `negatives`.
    """
    queries, keys, own = _aligned("finds_own_key", queries, keys, row_offset)
    queries, keys = ops.stop_gradient(queries), ops.stop_gradient(keys)

    def nearest(queries, own, keys):
        return ops.cast(ops.argmax(backend.matmul(queries, ops.transpose(keys)), axis=1), "int32")

    return ops.cast(ops.equal(by_chunks(nearest, "int32", queries, own, keys), own), "float32")


def _aligned(owner, queries, keys, row_offset):
    """Queries and keys at length 1, and the row of each query's own key."""
    check_rows(owner, queries=queries)
    check_rows(owner, keys=keys)
    check_width(owner, ("queries", queries), keys=keys)
    own = row_offset + ops.arange(ops.shape(queries)[0], dtype="int32")
    return normalized(queries), normalized(keys), own


def supcon(embeddings, labels, temperature=0.1, keys=None, key_labels=None, row_offset=0, valid=None):
    """The supervised contrastive loss of each row: NT-Xent with all images of its class as positives.

    `−1/|P(i)| · Σ_{p ∈ P(i)} log( exp(s_ip/T) / Σ_{k≠i} exp(s_ik/T) )`.

    Args:
        embeddings: `(n, d)`; they are brought to length 1 here.
        labels: `(n,)`, compared for equality: integers, −1 for no label, or strings; or words `(n, 3)`
            (`mining.pair_masks`). A row without a label is negative to all others.
        temperature: above 0. The paper: 0.1.
        keys, key_labels: all rows of the global batch, `embeddings` among them; None for these themselves.
        row_offset: the row of `keys` at which `embeddings` begin.
        valid: boolean, one per key: which keys count (`keras_ssl.queue.Queue`); None for all.

    Returns:
        float32 `(n,)`. Rows without a positive are 0 and are left out of the mean: the others are scaled so that the
        mean over the global batch is the loss. A batch of one class has no negatives: its rows are pushed to
        equal similarities, at a loss of log(n − 1).

    Reference: Khosla et al., "Supervised Contrastive Learning", 2020, eq. 2 (L_out).
    """
    log_share, positive = _among_all("supcon", embeddings, labels, temperature, keys, key_labels, row_offset, valid)
    count = ops.sum(ops.cast(positive, "float32"), axis=1)
    rows = -ops.sum(ops.where(positive, log_share, 0.0), axis=1) / ops.maximum(count, 1.0)
    return weighted_mean_rows(rows, count > 0.0)


def labeled_nt_xent(embeddings, labels, temperature=0.1, keys=None, key_labels=None, row_offset=0, valid=None):
    """NT-Xent of each pair of a class, whose denominator holds that positive and the negatives, but no other positive.

    Args:
        embeddings, labels, temperature, keys, key_labels, row_offset, valid: as of `supcon`.

    Returns:
        float32 `(n,)`, scaled so that the mean over the global batch is the mean over its positive pairs: the number of
        pytorch-metric-learning's `NTXentLoss`.

    Reference: Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", 2016; with one positive
    an anchor, Chen et al. 2020, eq. 1.
    """
    log_share, positive = _among_all(
        "labeled_nt_xent", embeddings, labels, temperature, keys, key_labels, row_offset, valid, pairwise=True
    )
    return weighted_mean_rows(-log_share, positive)


def multi_similarity(
    embeddings, labels, alpha=2.0, beta=50.0, base=0.5, epsilon=None, keys=None, key_labels=None, row_offset=0
):
    """The multi-similarity loss of each row, over cosines s.

    `log(1 + Σ_p exp(−α(s_ip − λ)))/α + log(1 + Σ_n exp(β(s_in − λ)))/β`.

    Args:
        embeddings, labels, keys, key_labels, row_offset: as of `supcon`.
        alpha, beta, base: α, β and λ; α and β above 0.
        epsilon: the paper's mining (eq. 11 and 12): a negative counts where it is more similar than the least similar
            positive less this, a positive where it is less similar than the most similar negative plus this; None for
            all pairs.

    Returns:
        float32 `(n,)`.

    Reference: Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning", 2019, eq. 15.
    """
    keys, key_labels = _keys_of("multi_similarity", embeddings, labels, keys, key_labels)
    positive, negative = pair_masks(labels, key_labels, row_offset)
    similarity = backend.matmul(normalized(embeddings), ops.transpose(normalized(keys)))
    if epsilon is not None:
        least = masked.smallest(similarity, positive)[:, None]
        most = masked.largest(similarity, negative)[:, None]
        positive = ops.logical_and(positive, similarity - epsilon < most)
        negative = ops.logical_and(negative, similarity + epsilon > least)
    attract = _log_one_plus(-alpha * (similarity - base), positive) / alpha
    return attract + _log_one_plus(beta * (similarity - base), negative) / beta


def _log_one_plus(logits, counted):
    """`log(1 + Σ exp(logits))` of each row, over what is counted."""
    return ops.softplus(masked.log_sum_exp(logits, counted))


def _keys_of(owner, embeddings, labels, keys, key_labels, valid=None):
    """`(keys, key_labels)`, which are the embeddings and their labels where none are given; refuses what does not go
    together."""
    if (keys is None) != (key_labels is None):
        raise ValueError(f"{owner}: give `keys` and `key_labels` together.")
    check_rows(owner, embeddings=embeddings)
    check_one_a_row(owner, ("embeddings", embeddings), labels=labels)
    keys, key_labels = (embeddings, labels) if keys is None else (keys, key_labels)
    check_width(owner, ("embeddings", embeddings), keys=keys)
    check_one_a_row(owner, ("keys", keys), key_labels=key_labels, valid=valid)
    return keys, key_labels


def _among_all(owner, embeddings, labels, temperature, keys, key_labels, row_offset, valid, pairwise=False):
    """log of each key's share in its row's denominator, and which keys are positives."""
    check_temperature(owner, temperature)
    keys, key_labels = _keys_of(owner, embeddings, labels, keys, key_labels, valid)
    positive, negative = pair_masks(labels, key_labels, row_offset)
    if valid is not None:
        held = ops.cast(valid, "bool")[None, :]
        positive, negative = ops.logical_and(positive, held), ops.logical_and(negative, held)
    logits = backend.matmul(normalized(embeddings), ops.transpose(normalized(keys))) / temperature
    if pairwise:
        return -ops.softplus(masked.log_sum_exp(logits, negative)[:, None] - logits), positive
    return logits - masked.log_sum_exp(logits, ops.logical_or(positive, negative))[:, None], positive
