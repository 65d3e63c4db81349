"""Prototypes, Sinkhorn-Knopp, centers and schedules, and the two methods that are made of them: SwAV and DINO."""

import keras
import numpy as np
import pytest
from conftest import golden, tiny_backbone, value_and_gradients
from keras import ops
from methods_under_test import METHODS, head, light_views

import keras_ssl
from keras_ssl import augment, losses, progress, prototypes, teacher


def as_array(x):
    return ops.convert_to_numpy(ops.stop_gradient(x))


def rows(n=12, d=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype("float32")


# DINO's loss and center. SwAV's are held to Lightly's in test_oracles.py.


@pytest.mark.parametrize("number", [0, 1])
def test_dinos_loss_its_gradient_and_its_center_are_lightlys_over_four_steps(number):
    case = golden("lightly_dino")[number]
    center = prototypes.Center(case.get("center_momentum", 0.9))
    center.build((None, case["output_dim"]))
    for step, teacher_views in enumerate(case["teacher"]):

        def loss(student, teacher_views=teacher_views):
            views = [ops.convert_to_tensor(view) for view in teacher_views]
            temperatures = case.get("student_temp", 0.1), case["teacher_temp"]
            return ops.mean(losses.dino(ops.unstack(student, axis=0), views, center.value(), *temperatures))

        value, (gradient,) = value_and_gradients(loss, case["student"][step])
        assert value == pytest.approx(float(case["loss"][step]), rel=1e-5)
        np.testing.assert_allclose(gradient, case["grad_student"][step], rtol=1e-4, atol=1e-6)
        center.update(teacher_views.mean(axis=(0, 1)))
        np.testing.assert_allclose(as_array(center.value()), case["center"][step], rtol=1e-5, atol=1e-6)


# Sinkhorn-Knopp.


def sinkhorn_of_the_paper(scores, epsilon, iterations):
    """Eq. 3 to 5, as appendix A.1 writes them, in float64."""
    q = np.exp(scores.astype("float64") / epsilon).T
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(axis=1, keepdims=True) * len(q)
        q /= q.sum(axis=0, keepdims=True) * q.shape[1]
    return (q * q.shape[1]).T


@pytest.mark.parametrize(("epsilon", "iterations"), [(0.05, 3), (0.5, 1), (0.2, 10)])
def test_codes_are_the_papers(epsilon, iterations):
    scores = np.clip(rows(20, 7) / 3.0, -1, 1)
    codes = as_array(losses.sinkhorn_knopp(scores, epsilon, iterations))
    np.testing.assert_allclose(codes, sinkhorn_of_the_paper(scores, epsilon, iterations), rtol=1e-4, atol=1e-6)


def test_an_epsilon_whose_exponential_leaves_float32_deals_all_the_same():
    scores = np.clip(rows(24, 4) / 3.0, -1, 1)
    codes = as_array(losses.sinkhorn_knopp(scores, 0.005, 50))
    assert np.isfinite(codes).all()
    np.testing.assert_allclose(codes.sum(axis=1), 1.0, rtol=1e-5)
    assert codes.sum(axis=0) == pytest.approx(24 / 4, rel=0.2)


def test_each_prototype_gets_its_share_even_where_all_rows_are_near_one():
    scores = np.clip(rows(40, 5) * 0.05 + np.array([0.6, 0, 0, 0, 0]), -1, 1).astype("float32")
    codes = as_array(losses.sinkhorn_knopp(scores, 0.05, 30))
    assert codes.sum(axis=0) == pytest.approx(8.0, rel=0.02)


def test_rows_that_do_not_count_change_no_code():
    scores, others = np.clip(rows(10, 4) / 3, -1, 1), np.clip(rows(6, 4, seed=1) / 3, -1, 1)
    valid = np.arange(16) < 10
    both = as_array(losses.sinkhorn_knopp(np.concatenate([scores, others]), valid=ops.convert_to_tensor(valid)))
    np.testing.assert_allclose(both[:10], as_array(losses.sinkhorn_knopp(scores)), rtol=1e-5)
    counted = as_array(losses.sinkhorn_knopp(np.concatenate([scores, others])))
    assert np.abs(counted[:10] - both[:10]).max() > 0.01


def test_no_gradient_goes_through_codes_or_through_the_teacher():
    scores = np.clip(rows(8, 4) / 3, -1, 1)
    _, (gradient,) = value_and_gradients(lambda s: ops.sum(ops.square(losses.sinkhorn_knopp(s))) + 0.0 * ops.sum(s), scores)
    np.testing.assert_array_equal(gradient, 0.0)
    _, (of_teacher,) = value_and_gradients(
        lambda t: ops.mean(losses.dino([scores, scores], [t, t])) + 0.0 * ops.sum(t), rows(8, 4)
    )
    np.testing.assert_array_equal(of_teacher, 0.0)


# The two losses at known points.


def test_the_losses_of_alike_scores_are_those_that_the_methods_call_collapse():
    flat = [np.zeros((6, 12), "float32")] * 3
    assert as_array(losses.swav(flat, flat_codes := [np.full((6, 12), 1 / 12)] * 2)) == pytest.approx(np.log(12))
    assert METHODS["SwAV"]().collapse_losses(32) == {
        "all images are as near to one prototype as to any other": pytest.approx(np.log(12))
    }
    assert len(flat_codes) == 2
    flat = [np.zeros((6, 24), "float32")] * 3
    one = [np.eye(24, dtype="float32")[[3] * 6]] * 3
    uniform, single = METHODS["DINO"]().collapse_losses(32).values()
    assert as_array(losses.dino(flat, flat[:2])) == pytest.approx(uniform)
    assert as_array(losses.dino([10 * view for view in one], one[:2])) == pytest.approx(single, abs=1e-6)


def test_pairs_are_of_different_views_and_their_mean_is_taken():
    """By hand, of two targets and four views: six pairs."""
    views, targets = [rows(5, 3, seed) for seed in range(4)], [np.eye(3)[[0, 1, 2, 0, 1]], np.full((5, 3), 1 / 3)]
    expected = []
    for i, target in enumerate(targets):
        for v, view in enumerate(views):
            if v != i:
                logits = view.astype("float64") / 0.5
                log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
                expected.append(-(target * log_softmax).sum(axis=1))
    assert len(expected) == 6
    found = losses.swav(views, [target.astype("float32") for target in targets], 0.5)
    np.testing.assert_allclose(as_array(found), np.mean(expected, axis=0), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_cast_before_anything_is_computed(dtype):
    halves = [ops.cast(rows(6, 4, seed), dtype) for seed in range(2)]
    full = [ops.cast(view, "float32") for view in halves]
    for found, expected in (
        (losses.dino(halves, halves), losses.dino(full, full)),
        (losses.sinkhorn_knopp(halves[0]), losses.sinkhorn_knopp(full[0])),
    ):
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        np.testing.assert_array_equal(as_array(found), as_array(expected))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: losses.sinkhorn_knopp(rows(), epsilon=0.0), "sinkhorn_knopp: `epsilon`"),
        (lambda: losses.sinkhorn_knopp(rows(), iterations=0), "sinkhorn_knopp: `iterations`"),
        (lambda: losses.sinkhorn_knopp(rows()[0]), "`scores` has the shape"),
        (lambda: losses.sinkhorn_knopp(rows(), valid=np.ones(3, bool)), "`valid` has the shape"),
        (lambda: losses.swav([rows()], [rows()]), "two views or more"),
        (lambda: losses.swav([rows(), rows()], []), "of 2 and 0"),
        (lambda: losses.swav([rows(), rows(4)], [rows()]), r"`scores\[1\]` has the shape \(4, 6\)"),
        (lambda: losses.swav([rows(), rows()], [rows()], 0.0), "swav: `temperature`"),
        (lambda: losses.dino([rows(), rows()], [rows()], student_temperature=-1), "dino: `student_temperature`"),
    ],
)
def test_what_a_loss_can_not_take_is_refused_by_name(call, words):
    with pytest.raises(ValueError, match=words):
        call()
