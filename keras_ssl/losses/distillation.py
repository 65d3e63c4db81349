"""Distillation without labels: a student finds the neighbors that a teacher finds."""

from keras import ops

from keras_ssl import backend, masked
from keras_ssl.losses.nt_xent import check_temperature, normalized
from keras_ssl.shapes import check_one_a_row, check_rows, check_width


def distillation(student, teacher, keys, temperature=0.2, teacher_temperature=0.01, valid=None):
    """The divergence of what student and teacher are near to, for each row.

    Among past embeddings of the teacher, `keys`, and the teacher's own of the same image, a row has a distribution: the
    softmax of its cosines over a temperature. The loss is `Σ p · log(p / q)` of the teacher's p and the student's q:
    0 where they are the same. The paper's is the cross entropy, which is larger by the entropy of p, and has the same
    gradient.

    Args:
        student: `(n, d)`, any float type. All rows are normalized here, in float32.
        teacher: `(n, d)`, of the same images. No gradient goes into it.
        keys: `(m, d)`, past embeddings of the teacher.
        temperature: of the student, above 0.
        teacher_temperature: above 0. The smaller, the more the own embedding alone counts: the authors' code has 1e-4.
        valid: boolean `(m,)`, which of the keys count; None for all.

    Returns:
        float32 `(n,)`.

    Reference: Fang et al., "SEED: Self-supervised Distillation for Visual Representation", 2021, eq. 3 to 5.
    """
    check_temperature("distillation", temperature)
    check_temperature("distillation: `teacher_temperature`", teacher_temperature)
    check_rows("distillation", student=student, teacher=teacher)
    check_width("distillation", ("student", student), keys=keys)
    check_one_a_row("distillation", ("keys", keys), valid=valid)
    s, t, keys = normalized(student), ops.stop_gradient(normalized(teacher)), ops.stop_gradient(normalized(keys))
    near_s, near_t = (
        ops.concatenate([ops.sum(rows * t, axis=1, keepdims=True), backend.matmul(rows, ops.transpose(keys))], axis=1)
        for rows in (s, t)
    )
    counted = ops.ones_like(keys[:, 0], dtype="bool") if valid is None else ops.cast(valid, "bool")
    counted = ops.concatenate([ops.ones((1,), "bool"), counted])[None, :]
    counted = ops.logical_and(counted, ops.ones_like(near_s, dtype="bool"))
    log_q, log_p = (
        near / heat - masked.log_sum_exp(near / heat, counted)[:, None]
        for near, heat in ((near_s, temperature), (near_t, teacher_temperature))
    )
    p = ops.where(counted, ops.exp(log_p), 0.0)
    return ops.sum(p * (log_p - log_q), axis=1)
