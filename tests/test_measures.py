"""Measures without labels: against the papers' formulas and Lightly, and at the ends of their scales."""

import itertools
import math

import numpy as np
import pytest
from conftest import golden

from keras_ssl import evaluate
from keras_ssl.evaluate.knn import knn_scores

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


# Hard features, against formulas of the test's own in float64.


def unit(z):
    """By Python's own numbers, which have no smallest square."""
    rows = []
    for row in z.astype("float64"):
        largest = max(abs(row))
        rows.append(row * 0.0 if largest == 0.0 else row / largest / math.hypot(*(row / largest)))
    return np.array(rows)


def uniformity(z, t=2.0):
    u = unit(z)
    logs = [-t * ((u[i] - u[j]) ** 2).sum() for i, j in itertools.permutations(range(len(u)), 2)]
    return max(logs) + math.log(math.fsum(math.exp(one - max(logs)) for one in logs) / len(logs))


def spread(z):
    u = unit(z)
    return np.sqrt(((u - u[0] - (u - u[0]).mean(axis=0)) ** 2).mean(axis=0)).mean() * math.sqrt(z.shape[1])


def rank_me(z):
    """By eigenvalues where ours has singular values."""
    z = z.astype("float64")
    z = z / (np.abs(z).max() or 1.0)
    gram = z @ z.T if len(z) < z.shape[1] else z.T @ z
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0.0))
    p = singular / (singular.sum() or 1.0) + 1e-7
    return math.exp(-(p * np.log(p)).sum())


def alpha_req(z):
    z = z.astype("float64")
    z = z / (np.abs(z).max() or 1.0)
    z = z - z[0]  # what is equal in all rows is nothing, and not a rounding of the mean
    z = z - z.mean(axis=0)
    eigenvalues = np.sort(np.linalg.eigvalsh(z.T @ z))[::-1][: min(z.shape)]
    kept = eigenvalues[eigenvalues > 1e-7 * eigenvalues[0]] if eigenvalues[0] > 0.0 else eigenvalues[:0]
    if len(kept) < 2:
        return 0.0
    x, y = np.log(np.arange(1, len(kept) + 1)), np.log(kept)
    return -((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()


def hard_features():
    generator = np.random.default_rng(0)
    z = generator.normal(size=(12, 5))
    low = generator.normal(size=(12, 2)) @ generator.normal(size=(2, 5))
    dead = z.copy()
    dead[3:7] = 0.0
    return {
        "plain": z,
        "float16": z.astype("float16"),
        "more dimensions than rows": generator.normal(size=(4, 9)),
        "constant": np.tile(generator.normal(size=5) / 3.0, (12, 1)),
        "constant, float32": np.tile((generator.normal(size=5) / 3.0).astype("float32"), (12, 1)),
        "zeros": np.zeros((12, 5)),
        "zeros beside others": dead,
        "one row of zeros": np.concatenate([np.zeros((1, 5)), z]),
        "one direction": z[:, :1] * np.ones((1, 5)),
        "rank deficient": low,
        "a dead dimension": z * np.array([1.0, 0.0, 1.0, 1.0, 1.0]),
        "far from the origin": z + 1e6,
        "a single row": z[:1],
        "a single dimension": z[:, :1],
        "two rows": z[:2],
        "opposite rows": np.concatenate([z, -z]),
        **{f"times {scale:g}": z * scale for scale in (1e-300, 1e-30, 1e-18, 1e18, 1e30, 1e300)},
        "of all sizes": z * 10.0 ** np.linspace(-150, 150, 12)[:, None],
    }


HARD = hard_features()
OF_ONE = {"rank_me": rank_me, "alpha_req": alpha_req, "spread": spread, "uniformity": uniformity}


@pytest.mark.parametrize("measure", OF_ONE)
@pytest.mark.parametrize("name", HARD)
def test_measures_of_hard_features(measure, name):
    z = HARD[name]
    if measure == "uniformity" and len(z) < 2:
        return  # refused, as above
    # Of singular values near 0 the eigenvalues' roots know 1e-8.
    near = {"rank_me": 1e-5, "alpha_req": 1e-4}.get(measure, 1e-9)
    assert getattr(evaluate, measure)(z) == pytest.approx(OF_ONE[measure](z), rel=near, abs=near)


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_alignment_of_hard_features(name, power):
    a = HARD[name]
    for b in (a[::-1], a * 3.0, -a, np.zeros_like(a)):
        expected = np.mean([math.dist(x, y) ** power for x, y in zip(unit(a), unit(b))])
        assert evaluate.alignment(a, b, power) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("t", [1e-3, 2.0, 1e4])
def test_uniformity_at_any_t(t):
    assert evaluate.uniformity(HARD["plain"], t) == pytest.approx(uniformity(HARD["plain"], t), rel=1e-9)
    assert evaluate.uniformity(HARD["plain"], t, max_bytes=1) == pytest.approx(uniformity(HARD["plain"], t), rel=1e-9)


def test_a_dead_network_is_at_the_bad_end_of_what_checkpoints_watch():
    """The collapse monitor names these to `ModelCheckpoint`, with which of their ends is good."""
    good = np.random.default_rng(0).normal(size=(40, 8))
    for dead in (np.zeros((40, 8)), np.ones((40, 8)), np.full((40, 8), 1e-30), good * 0.0 + good[0]):
        assert evaluate.uniformity(dead) == pytest.approx(0.0, abs=1e-9)
        assert evaluate.rank_me(dead) == pytest.approx(1.0, abs=1e-4)
        assert evaluate.spread(dead) == pytest.approx(0.0, abs=1e-9)
    assert evaluate.uniformity(good) < -1.0
    assert evaluate.rank_me(good) > 5.0
    assert evaluate.spread(good) > 0.5


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e18, 1e30])
def test_neighbors_do_not_depend_on_the_scale_of_features(scale):
    z, labels = np.random.default_rng(0).normal(size=(40, 6)).astype("float32"), np.arange(40) % 3
    plain = knn_scores(z, labels, z, k=5)[0]
    np.testing.assert_allclose(knn_scores(z * np.float32(scale), labels, z, k=5)[0], plain, rtol=1e-4)
    assert [g.tolist() for g in evaluate.near_copies(np.float32(scale) * np.concatenate([z, z[:2]]))] == [
        [0, 40],
        [1, 41],
    ]
