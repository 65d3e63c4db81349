"""Losses of clusters: a view predicts to which prototypes the other views of its image belong."""

from keras import ops

from keras_ssl.shapes import check_one_a_patch, check_one_a_row, check_one_shape, check_rows


def sinkhorn_knopp(scores, epsilon=0.05, iterations=3, valid=None):
    """Deals rows to prototypes: each row to those that it is near, and all prototypes the same share of the rows.

    `exp(scores / ε)` is scaled so that its columns have one sum, and then its rows, as often as `iterations` says. It
    is computed with logarithms, so that no ε is too small for float32. No gradient goes through it.

    Args:
        scores: `(n, prototypes)`, cosines of all rows of the global batch: `keras_ssl.distribute.gather` first where
            there are replicas.
        epsilon: above 0. The smaller, the nearer the codes are to one prototype a row.
        iterations: 1 or more.
        valid: boolean `(n,)`, the rows that count, such as those that a queue holds; None for all.

    Returns:
        The codes, float32 `(n, prototypes)`. Each row sums to 1; those that don't count mean nothing.

    Reference: Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", 2020, eq. 3
    to 5, and its appendix A.1; Cuturi, "Sinkhorn Distances", 2013.
    """
    check_sinkhorn("sinkhorn_knopp", epsilon, iterations)
    check_rows("sinkhorn_knopp", scores=scores)
    check_one_a_row("sinkhorn_knopp", ("scores", scores), valid=valid)
    logarithms = ops.stop_gradient(ops.cast(scores, "float32")) / epsilon
    for _ in range(iterations):
        # The sums themselves, 1 / prototypes and 1 / n in the paper, cancel in the last softmax.
        counted = logarithms if valid is None else ops.where(valid[:, None], logarithms, -float("inf"))
        logarithms = logarithms - ops.logsumexp(counted, axis=0, keepdims=True)
        logarithms = logarithms - ops.logsumexp(logarithms, axis=1, keepdims=True)
    return ops.softmax(logarithms, axis=1)


def swav(scores, codes, temperature=0.1):
    """SwAV's loss: each view predicts the codes of the others.

    For code q_i of view i and the scores s_v of view v, the mean over all pairs of i ≠ v of
    `−Σ_k q_ik · log softmax(s_v / T)_k`.

    Args:
        scores: a list of `(n, prototypes)`, one a view: cosines of embedding and prototype. Row i of each is one image.
        codes: a list of `(n, prototypes)`, of the first views: those that are large crops, two in the paper. Their rows
            are of `sinkhorn_knopp`, over the global batch. They are taken as constants.
        temperature: T, above 0.

    Returns:
        float32 `(n,)`; ln(prototypes) where the scores don't differ.

    Reference: Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", 2020, eq. 1
    and 2; with more than two views as in the authors' code, which takes means where the paper's eq. 6 has a sum.
    """
    _check_pairs("swav", {"scores": scores, "codes": codes}, temperature=temperature)
    return _mean_over_pairs(codes, scores, temperature)


def dino(student, teacher, center=0.0, student_temperature=0.1, teacher_temperature=0.04):
    """DINO's loss: the student predicts from each view what the teacher makes of the others.

    For teacher t of view i and student s of view v, the mean over all pairs of i ≠ v of
    `−Σ_k softmax((t_i − c) / T_t)_k · log softmax(s_v / T_s)_k`.

    Args:
        student: a list of `(n, prototypes)`, one a view. Row i of each is one image.
        teacher: a list of `(n, prototypes)`, of the first views: those that are large crops, two in the paper. They are
            taken as constants.
        center: c, `(prototypes,)`: `keras_ssl.prototypes.Center`.
        student_temperature: T_s, above 0.
        teacher_temperature: T_t, above 0: a number or a scalar tensor.

    Returns:
        float32 `(n,)`; ln(prototypes) where neither differs, and 0 where all is one prototype.

    Reference: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021, eq. 3, as the mean over
    the pairs that the authors' code takes, where the equation has the sum.
    """
    temperatures = {"student_temperature": student_temperature, "teacher_temperature": teacher_temperature}
    _check_pairs("dino", {"student": student, "teacher": teacher}, **temperatures)
    targets = [teacher_probabilities(view, center, teacher_temperature) for view in teacher]
    return _mean_over_pairs(targets, student, student_temperature)


def ibot(student, teacher, masked, center=0.0, student_temperature=0.1, teacher_temperature=0.04):
    """iBOT's loss of patches: of one that is hidden, the student predicts what the teacher makes, which sees it.

    For student s and teacher t of a patch, `−Σ_k softmax((t − c) / T_t)_k · log softmax(s / T_s)_k`, and of each row
    the mean over what is masked.

    Args:
        student, teacher: `(n, patches, prototypes)`, of one view. The teacher is taken as constant.
        masked: `(n, patches)`, boolean or 0 and 1: the patches that were hidden from the student.
        center: c, `(prototypes,)`, of patches: `keras_ssl.prototypes.Center`.
        student_temperature: T_s, above 0.
        teacher_temperature: T_t, above 0: a number or a scalar tensor.

    Returns:
        float32 `(n,)`; 0 for a row of which nothing is masked, and ln(prototypes) where neither tells patches apart.

    Reference: Zhou et al., "iBOT: Image BERT Pre-Training with Online Tokenizer", 2022, section 3.1, as the mean
    over the masked patches of an image that the authors' code takes.
    """
    check_temperatures("ibot", student_temperature=student_temperature, teacher_temperature=teacher_temperature)
    check_one_shape("ibot", student=student, teacher=teacher)
    check_one_a_patch("ibot", ("student", student), masked=masked)
    target = teacher_probabilities(teacher, center, teacher_temperature)
    log_predicted = ops.log_softmax(ops.cast(student, "float32") / student_temperature, axis=-1)
    masked = ops.cast(masked, "float32")
    each = -ops.sum(target * log_predicted, axis=-1) * masked
    return ops.sum(each, axis=1) / ops.maximum(ops.sum(masked, axis=1), 1.0)


def teacher_probabilities(teacher, center, temperature):
    """`softmax((teacher − center) / temperature)`, float32 `(…, prototypes)`, as a constant."""
    centered = ops.cast(teacher, "float32") - ops.cast(center, "float32")
    return ops.stop_gradient(ops.softmax(centered / temperature, axis=-1))


def entropy(probabilities):
    """`−Σ p · log p` of each row, float32 `(n,)`; ln(classes) where all are alike."""
    p = ops.cast(probabilities, "float32")
    return -ops.sum(p * ops.log(ops.maximum(p, 1e-30)), axis=-1)


def spread(embeddings):
    """The standard deviation of the dimensions, times √d: a float32 scalar, near 1 where rows of length 1 fill the
    sphere, 0 where all are one."""
    return ops.mean(ops.std(embeddings, axis=0)) * ops.sqrt(ops.cast(embeddings.shape[1], "float32"))


def check_temperatures(owner, **temperatures):
    """Raises `ValueError` for a temperature, by the name of its argument, that is not positive and finite; of a tensor
    that can't be told when a step is compiled."""
    for name, temperature in temperatures.items():
        if isinstance(temperature, (int, float)) and not 0.0 < temperature < float("inf"):
            raise ValueError(f"{owner}: `{name}` must be above 0; it is {temperature!r}.")


def check_sinkhorn(owner, epsilon, iterations):
    """Raises `ValueError` for arguments of `sinkhorn_knopp` out of range."""
    if not 0.0 < epsilon < float("inf"):
        raise ValueError(f"{owner}: `epsilon` must be above 0; it is {epsilon!r}.")
    if not isinstance(iterations, int) or iterations < 1:
        raise ValueError(f"{owner}: `iterations` must be a whole number, 1 or more; it is {iterations!r}.")


def _mean_over_pairs(targets, scores, temperature):
    """The cross entropy of each target with the predictions of the other views, their mean over all pairs: `(n,)`."""
    targets = [ops.stop_gradient(ops.cast(target, "float32")) for target in targets]
    total = 0.0
    for place, view in enumerate(scores):
        # All targets that this view predicts at once: the prediction is the same.
        target = sum(target for number, target in enumerate(targets) if number != place)
        log_predicted = ops.log_softmax(ops.cast(view, "float32") / temperature, axis=-1)
        total = total - ops.sum(target * log_predicted, axis=-1)
    return total / (len(targets) * (len(scores) - 1))


def _check_pairs(owner, views, **temperatures):
    (scores, given), (targets, made) = views.items()
    check_temperatures(owner, **temperatures)
    if len(given) < 2 or not 1 <= len(made) <= len(given):
        raise ValueError(
            f"{owner}: `{scores}` are of two views or more, and `{targets}` of the first of them; they are of "
            f"{len(given)} and {len(made)}."
        )
    named = {f"{name}[{place}]": rows for name, many in views.items() for place, rows in enumerate(many)}
    check_one_shape(owner, **named)
    check_rows(owner, **named)
