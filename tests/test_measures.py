"""Measures without labels: against the papers' formulas and Lightly, and at the ends of their scales."""

import numpy as np
import pytest
from conftest import golden

from keras_ssl import evaluate

pytestmark = pytest.mark.one_backend


@pytest.mark.parametrize("case", golden("metrics_rank"), ids=lambda case: f"{case['n']}x{case['d']}")
def test_they_are_the_papers_formulas(case):
    z = case["z"]
    assert evaluate.rank_me(z) == pytest.approx(float(case["rankme"]), rel=1e-5)
    assert evaluate.uniformity(z) == pytest.approx(float(case["uniformity_t2"]), rel=1e-5)
    expected = float(case["mean_feature_std_l2"]) / float(case["collapse_ref"])
    assert evaluate.spread(z) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("case", golden("lightly_hypersphere"), ids=lambda case: f"{case['n']}x{case['d']}")
def test_alignment_and_uniformity_make_lightlys_loss(case):
    a, b, t = case["z0"], case["z1"], case.get("t", 1.0)
    uniform = (evaluate.uniformity(a, t) + evaluate.uniformity(b, t)) / 2
    loss = evaluate.alignment(a, b, case.get("alpha", 2.0)) + case.get("lam", 1.0) * uniform
    assert loss == pytest.approx(float(case["loss64"]), rel=1e-5)


def test_uniformity_of_parts_is_that_of_the_whole():
    z = np.random.default_rng(0).normal(size=(50, 4))
    assert evaluate.uniformity(z, max_bytes=8 * 50 * 7) == pytest.approx(evaluate.uniformity(z), rel=1e-12)


def test_features_that_are_all_one_are_at_the_end_of_each_scale():
    one = np.ones((20, 8))
    assert evaluate.rank_me(one) == pytest.approx(1.0, abs=1e-3)
    assert evaluate.spread(one) == pytest.approx(0.0, abs=1e-6)
    assert evaluate.uniformity(one) == pytest.approx(0.0, abs=1e-6)
    assert evaluate.alignment(one, one) == 0.0
    assert evaluate.alpha_req(one) == 0.0
    assert np.isfinite(evaluate.rank_me(np.zeros((20, 8))))


def test_features_that_fill_the_sphere_are_at_the_other():
    z = np.random.default_rng(0).normal(size=(4000, 16))
    assert evaluate.rank_me(z) > 15.5
    assert evaluate.spread(z) == pytest.approx(1.0, abs=0.02)
    assert evaluate.uniformity(z) < -3.2
    assert abs(evaluate.alpha_req(z)) < 0.2


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_req_is_the_exponent_of_the_spectrum(alpha):
    generator = np.random.default_rng(0)
    left = generator.normal(size=(400, 33))
    left -= left.mean(axis=0)
    left, _ = np.linalg.qr(left)
    right, _ = np.linalg.qr(generator.normal(size=(33, 33)))
    z = left * np.arange(1, 34) ** (-alpha / 2) @ right + 5.0  # the mean does not matter
    assert evaluate.alpha_req(z) == pytest.approx(alpha, rel=1e-3)
    assert evaluate.alpha_req(z, first=5, last=20) == pytest.approx(alpha, rel=1e-3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: evaluate.rank_me(np.zeros(4)), r"rank_me: features must be \(N, d\)"),
        (lambda: evaluate.spread(np.zeros((0, 4))), "spread: features must be"),
        (lambda: evaluate.alpha_req(np.full((3, 3), np.nan)), "NaN"),
        (lambda: evaluate.alignment(np.ones((3, 2)), np.ones((2, 2))), "views of the same images"),
        (lambda: evaluate.uniformity(np.ones((1, 2))), "2 rows or more"),
        (lambda: evaluate.uniformity(np.ones((2, 2)), t=0.0), "`t` must be above 0"),
    ],
)
def test_what_has_no_measure_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
