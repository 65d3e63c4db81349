"""Hard inputs: losses, distances and miners against float64, from temperatures of 0.001 to 100 and norms of 1e-18 to
1e18, with equal, opposite and zero rows, ties, two images and half precision. Values and gradients.

Bounds are those of float32: a cosine has the rounding of a few 1e-7, a temperature divides it.
"""

import float64
import numpy as np
import pytest
from hard_inputs import LABELS, VIEWS, assert_right, at_temperatures, cases, labeled, normal, two
from keras import ops

from keras_ssl import distances, losses, mining

# Losses of cosines. The rounding of a logit is that of a cosine over T, and weighs a gradient of 1/T.

OF_VIEWS = {
    "nt_xent": (losses.nt_xent, float64.nt_xent),
    "dcl": (losses.dcl, float64.dcl),
    "dclw": (losses.dclw, float64.dclw),
    "debiased_nt_xent": (losses.debiased_nt_xent, float64.debiased_nt_xent),
    "nt_xent, hard negatives": (
        lambda a, b, t: losses.nt_xent(a, b, t, weighting=mining.HardnessWeighted(3.0)),
        float64.hard_nt_xent,
    ),
}
OF_LABELS = {
    "supcon": (losses.supcon, float64.supcon),
    "SupCon": (lambda z, labels, t: losses.SupCon(t)(labels, z), lambda *given: float64.supcon(*given).mean(axis=-1)),
    "labeled_nt_xent": (losses.labeled_nt_xent, float64.labeled_nt_xent),
}
COSINE = 4e-7  # the rounding of a cosine


def bounds(temperature, count=6):
    """Of a value, and of a gradient: of logits that are off by the rounding of a cosine."""
    logit = COSINE / temperature
    return count * logit, count / temperature * (logit + COSINE)


@at_temperatures("loss", OF_VIEWS)
def test_losses_of_two_views(loss, name, temperature):
    a, b, dtype = two(name)
    ours, formula = OF_VIEWS[loss]
    assert_right(
        lambda a, b: ours(a, b, temperature),
        lambda a, b: formula(a, b, temperature),
        [a, b],
        dtype,
        *bounds(temperature),
    )


@at_temperatures("loss", OF_LABELS)
def test_losses_of_labels(loss, name, temperature):
    z, labels, dtype = labeled(name)
    ours, formula = OF_LABELS[loss]
    assert_right(
        lambda z: ours(z, labels, temperature),
        lambda z: formula(z, temperature, labels),
        [z],
        dtype,
        *bounds(temperature),
    )


@at_temperatures("queued", ["some", "none", "the key itself"])
def test_losses_with_a_queue(queued, name, temperature):
    """Negatives of past batches: two of four, none at all, or one that is the key."""
    a, b, dtype = two(name)
    valid = np.array([True, False, True, False]) if queued != "none" else np.zeros(4, bool)
    queue = b[[0] * 4] if queued == "the key itself" else normal(4, b.shape[1], seed=2).astype(b.dtype)
    assert_right(
        lambda a, b, queue: losses.info_nce(a, b, queue, temperature, valid),
        lambda a, b, queue: float64.info_nce(a, b, queue, temperature, valid),
        [a, b, queue],
        dtype,
        *bounds(temperature),
    )
    assert_right(
        lambda a, b: losses.nt_xent(a, b, temperature, negatives=queue, valid=valid),
        lambda a, b: float64.nt_xent(a, b, temperature, queue[valid].astype("float64")),
        [a, b],
        dtype,
        *bounds(temperature, 8),
    )


@cases(name=VIEWS)
def test_multi_similarity(name):
    z, labels, dtype = labeled(name)
    assert_right(
        lambda z: losses.multi_similarity(z, labels),
        lambda z: float64.multi_similarity(z, labels),
        [z],
        dtype,
        *bounds(1 / 50),
    )


def test_a_key_among_its_negatives_is_as_likely_as_they_are():
    """TensorFlow's `logaddexp(0, x)` has the gradient 0 at x = 0, where a key's own copy is."""
    z = np.eye(4, dtype="float32")[:2]
    assert_right(
        lambda q, k, n: losses.info_nce(q, k, n, 0.1),
        lambda q, k, n: float64.info_nce(q, k, n, 0.1, np.ones(1, bool)),
        [z + 0.5, z, z[:1]],
        "float32",
        *bounds(0.1),
    )


# Distances.

# The matrix knows a squared distance to a millionth of |a|² + |b|²: where rows are a hundredth of their length apart,
# their distance is known so much worse, and its direction by the square of it.
NEARER = 30.0


@cases(distance=["squared", "euclidean", "cosine", "angular", "dot_product"], name=VIEWS)
def test_distances(distance, name):
    a, b, dtype = two(name)
    ours, formula = getattr(distances, distance), getattr(float64, distance)
    size = max(np.abs(a.astype("float64")).max(), np.abs(b.astype("float64")).max(), 1e-30)
    of_size = {"squared": (size**2, size), "euclidean": (size, 1.0), "dot_product": (max(size**2, 1.0), size)}
    value, slope = of_size.get(distance, (1.0, 1.0))
    free = distance not in of_size
    assert_right(ours, formula, [a, b], dtype, 4e-7 * value + 5e-38, 1e-6 * slope, free)
    if name == "mixed norms" and not free:
        return  # of the shortest rows the product keeps nothing, as the docstring says
    near = NEARER if name == "nearly equal views" else 1.0
    assert_right(
        lambda a, b: distances.matrix(ours, a, b),
        lambda a, b: float64.all_pairs(formula, a, b),
        [a, b],
        dtype,
        1e-5 * value * near,
        # On its way a gradient is a square, whose digits end at the smallest float32.
        1e-4 * slope * near**2 + 4 * np.finfo("float32").tiny / size,
        free,
    )


# Losses of distances and similarities.


def of_size(z):
    return max(np.linalg.norm(z.astype("float64"), axis=1).max(), 1.0)


@cases(
    loss=["LiftedStructure", "TripletHard", "TripletSemiHard", "TripletHard, squared"],
    name=[name for name in VIEWS if name != "mixed norms"],
)
def test_losses_of_distances(loss, name):
    z, labels, dtype = labeled(name)
    size, near = of_size(z), NEARER if name == "nearly equal views" else 1.0
    if loss == "LiftedStructure":
        ours = losses.LiftedStructure()
        given = lambda z: ours.rows(z, labels, z, labels, 0), lambda z: float64.lifted(z, labels)
        assert_right(*given, [z], dtype, 1e-5 * near * size**2, 1e-4 * near**2 * size, False)
        return
    power = 2 if "squared" in loss else 1
    distance = "squared" if power == 2 else "euclidean"
    cls, miner = loss.split(",")[0], float64.semi_hard if "Semi" in loss else float64.hard
    ours = getattr(losses, cls)(distance=getattr(distances, distance))
    assert_right(
        lambda z: ours.rows(z, labels, z, labels, 0),
        lambda z: float64.triplets_of(miner, z, labels, getattr(float64, distance)),
        [z],
        dtype,
        1e-5 * near * size**power,
        1e-4 * near**2 * size ** (power - 1),
        False,
        # Of candidates that are alike, each may be the one that is pulled.
        slopes=name not in ("ties", "unit vectors", "equal views", "all rows equal", "all zeros"),
    )


def test_no_distance_is_beyond_what_marks_a_mask():
    """With 1e9 for infinity, this negative was farther than a masked row, and had no gradient."""
    z, labels = np.array([[0.0], [2e5], [1e5]], "float32"), np.array([0, 0, 1])
    ours = losses.TripletHard(distance=distances.squared)
    assert_right(
        lambda z: ours.rows(z, labels, z, labels, 0),
        lambda z: float64.triplets_of(float64.hard, z, labels, float64.squared),
        [z],
        "float32",
        1e5,
        1.0,
        False,
        slopes=False,
    )
    far = normal(6) * np.float32(1e12)
    assert_right(
        lambda z: ours.rows(z, LABELS, z, LABELS, 0),
        lambda z: float64.triplets_of(float64.hard, z, LABELS, float64.squared),
        [far],
        "float32",
        1e-5 * of_size(far) ** 2,
        1e-4 * of_size(far),
        False,
    )


@cases(name=VIEWS)
def test_cosine_and_barlow_twins(name):
    a, b, dtype = two(name)
    assert_right(losses.cosine, lambda a, b: 2 * float64.cosine(a, b), [a, b], dtype, 1e-6, 2e-6)
    # Where a dimension is nearly constant, the centered numbers have the rounding of the constant.
    assert_right(losses.barlow_twins, float64.barlow_twins, [a, b], dtype, 2e-5, 2e-5 * len(a))


# Its fourth powers of 1e18 are beyond float32.
@cases(name=[name for name in VIEWS if name not in ("norms of 1e+18", "mixed norms")])
def test_vicreg(name):
    a, b, dtype = two(name)
    assert_right(losses.vicreg, float64.vicreg, [a, b], dtype, 2e-5, 2e-4, False)


@cases(constant=[123456.79, 1.0, 1e6 / 3, 1e18])
def test_a_constant_dimension_correlates_with_nothing_however_large(constant):
    a, b = normal(7), normal(7, seed=1)
    a[:, 1] = b[:, 1] = constant
    assert_right(losses.barlow_twins, float64.barlow_twins, [a, b], "float32", 2e-5, 2e-3)


@cases(scale=[0.0, 1e-18, 1e-3, 1.0, 1e3, 1e6, 1e18])
def test_losses_of_given_distances_and_similarities(scale):
    d, other = np.abs(normal(6, 1)[:, 0]) * np.float32(scale), np.abs(normal(6, 1, 1)[:, 0]) * np.float32(scale)
    same = np.arange(6) % 2 == 0
    assert_right(
        lambda d: losses.contrastive(d, same),
        lambda d: np.where(same, d**2, float64.relu(1 - d) ** 2),
        [d],
        "float32",
        1e-6,
        1e-6,
        False,
    )
    for ours, formula in ((1.0, lambda x: float64.relu(x + 1)), (None, float64.log_one_plus_exp)):
        assert_right(
            lambda d, e, margin=ours: losses.triplet(d, e, margin),
            lambda d, e, f=formula: f(d - e),
            [d, other],
            "float32",
            1e-6 * max(scale, 1.0),
            1e-6,
            False,
        )
    s = normal(6, 6) * np.float32(scale)
    bound = 1e-6 * max(scale, 1.0)
    ours = losses.NPairs()
    assert_right(
        lambda s: ours.call(np.stack([LABELS * 0, LABELS * 0, LABELS], axis=1), s),
        lambda s: float64.n_pairs(s, LABELS),
        [s],
        "float32",
        bound,
        1e-6 * max(1.0, min(scale, 1e2)),
        False,
    )
    every = np.ones(6, bool)
    assert_right(
        lambda s: losses.cross_entropy(s, np.arange(6)),
        lambda s: np.stack([float64.log_sum_exp(s[:, i], every) - s[:, i, i] for i in range(6)], axis=-1),
        [s],
        "float32",
        bound,
        1e-6 * max(1.0, min(scale, 1e2)),
        False,
    )


# Miners.

MINERS = {
    "hard": (mining.hard, float64.hard),
    "semi_hard": (mining.semi_hard, float64.semi_hard),
    "easy_positive": (mining.easy_positive, float64.easy_positive),
    "all_triplets": (mining.all_triplets, float64.all_triplets),
    "WithinMargin": (mining.WithinMargin(0.0, 0.2), float64.within_margin),
    "DistanceWeighted": (mining.DistanceWeighted(16), float64.distance_weighted),
}


@cases(miner=MINERS, scale=[0.0, 1e-18, 1.0, 1e10, 1e18, "ties", "one", "two"])
def test_miners(miner, scale):
    d = np.random.default_rng(3).uniform(0.1, 1.6, (6, 6)).astype("float32")
    labels = {"one": np.zeros(6, int), "two": np.array([0, 1])}.get(scale, LABELS)
    d = d[: len(labels), : len(labels)]
    d = np.round(d * 2) / 2 if scale == "ties" else d * np.float32(scale) if isinstance(scale, float) else d
    positive, negative = float64.masks(labels)
    ours, formula = MINERS[miner]

    def mined(d):
        near, far, weight = ours(d, ops.convert_to_tensor(positive), ops.convert_to_tensor(negative))
        inner = tuple(range(1, len(weight.shape)))
        return ops.concatenate([ops.sum(weight * part, axis=inner) if inner else weight * part for part in (near, far)])

    size = max(float(np.abs(d).max()), 1e-30)
    assert_right(
        mined,
        lambda d: float64.mined(formula, d, positive, negative),
        [d],
        "float32",
        1e-5 * size,
        1e-5,
        False,
        slopes=scale not in ("ties", 0.0),
    )


# What is no number stays none: a network that has broken must not look like one that has learned.


@cases(loss=[*OF_VIEWS, *OF_LABELS, "multi_similarity", "cosine", "barlow_twins", "vicreg", *MINERS])
def test_a_nan_is_not_hidden(loss):
    a, b = normal(3), normal(3, seed=1)
    a[1, 2] = np.nan
    z = np.concatenate([a, b])
    if loss in OF_VIEWS:
        value = OF_VIEWS[loss][0](a, b, 0.1)
    elif loss in OF_LABELS:
        value = OF_LABELS[loss][0](z, LABELS, 0.1)
    elif loss in MINERS:
        mined = MINERS[loss][0](distances.matrix(distances.euclidean, z, z), *map(ops.array, float64.masks(LABELS)))
        value = losses.weighted_mean_rows(
            losses.triplet(mined.positive_distance, mined.negative_distance), mined.weight
        )
    else:
        value = losses.multi_similarity(z, LABELS) if loss == "multi_similarity" else getattr(losses, loss)(a, b)
    assert np.isnan(ops.convert_to_numpy(ops.sum(value)))


@pytest.mark.parametrize("distance", [distances.squared, distances.euclidean, distances.cosine, distances.angular])
def test_distances_to_what_is_no_number_are_none(distance):
    a = normal(3)
    a[1, 2] = np.nan
    assert np.isnan(ops.convert_to_numpy(distance(a, normal(3)))[1])
    assert np.isnan(ops.convert_to_numpy(distances.matrix(distance, a, normal(3)))[1]).all()
