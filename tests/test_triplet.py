"""The triplet loss: FaceNet's equation 3 over given triplets, views and labels, and what the figures count."""

import keras
import numpy as np
import pytest
from conftest import tiny_backbone
from keras import ops

import keras_ssl
from keras_ssl import distances, distribute, mining

WIDTH = 6


def rows(n, seed):
    return np.random.default_rng(seed).normal(size=(n, WIDTH)).astype("float32")


def model(**options):
    backbone = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Identity()])
    triplet = keras_ssl.Triplet(backbone, value_range=(-10, 10), **options)
    triplet.compile("sgd")
    return triplet


def figures(triplet, batch):
    count = len(keras.tree.flatten(batch)[0])
    return triplet.evaluate(batch, batch_size=count, verbose=0, return_dict=True)


def unit(x):
    return x.astype("float64") / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("normalize", [True, False])
def test_given_triplets_are_equation_3(normalize):
    views = tuple(rows(8, seed) for seed in range(3))
    got = figures(model(normalize=normalize, margin=0.5), {"views": views})
    a, p, n = map(unit, views) if normalize else views
    cost = np.maximum(0.0, ((a - p) ** 2).sum(1) + 0.5 - ((a - n) ** 2).sum(1))
    assert got["loss"] == got["triplet"] == pytest.approx(cost.mean(), rel=1e-5)
    assert got["active_triplets"] == pytest.approx((cost > 0).mean())
    assert got["mined_triplets"] == 1.0


def every_triplet(a, b, ids, distance):
    z, ids = np.concatenate([a, b]), np.concatenate([ids, ids])
    count = len(z)
    return [
        (distance(z[i], z[p]), distance(z[i], z[n]))
        for i in range(count)
        for p in range(count)
        for n in range(count)
        if i != p and ids[i] == ids[p] and ids[i] != ids[n]
    ]


@pytest.mark.parametrize("by_labels", [False, True])
@pytest.mark.parametrize("active_only", [False, True])
def test_all_triplets_of_a_batch(by_labels, active_only):
    (a, b), labels = (rows(6, 0), rows(6, 1)), np.array([0, 1, 2, 0, 1, 3], "int32")
    triplet = model(
        margin=0.3, distance=distances.euclidean, mining=mining.all_triplets, labels=by_labels, active_only=active_only
    )
    batch = {"views": (a, b), "label": labels} if by_labels else {"views": (a, b)}
    got = figures(triplet, batch)
    ids = labels if by_labels else np.arange(6)
    found = np.array(every_triplet(unit(a), unit(b), ids, lambda x, y: np.linalg.norm(x - y)))
    cost = np.maximum(0.0, found[:, 0] - found[:, 1] + 0.3)
    assert got["loss"] == pytest.approx(cost[cost > 0].mean() if active_only else cost.mean(), rel=1e-5)
    assert got["active_triplets"] == pytest.approx((cost > 0).mean(), rel=1e-5)
    assert got["mined_triplets"] == pytest.approx(len(found) / 12)


def test_the_soft_margin_counts_as_active_what_is_on_the_wrong_side():
    views = tuple(rows(8, seed) for seed in range(3))
    got = figures(model(margin=None, normalize=False), {"views": views})
    a, p, n = views
    violation = ((a - p) ** 2).sum(1) - ((a - n) ** 2).sum(1)
    assert got["loss"] == pytest.approx(np.logaddexp(0.0, violation).mean(), rel=1e-5)
    assert got["active_triplets"] == pytest.approx((violation > 0).mean())


MINERS = {
    "all": mining.all_triplets,
    "semi-hard": mining.semi_hard,
    "hard": mining.hard,
    "weighted": mining.DistanceWeighted(WIDTH),
}
BLIND = {"easy": mining.easy_positive, "within": mining.WithinMargin(0.0, 0.2)}


@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("margin", [0.2, 1.5, None])
def test_the_loss_of_a_constant_encoder_is_the_margin(miner, margin):
    constant = np.ones((8, WIDTH), "float32")
    triplet = model(margin=margin, mining=MINERS[miner], distance=distances.euclidean)
    got = figures(triplet, {"views": (constant, constant)})
    (trivial,) = triplet.collapse_losses(8).values()
    assert got["loss"] == pytest.approx(np.log(2.0) if margin is None else margin, rel=1e-5)
    assert got["loss"] == pytest.approx(trivial, rel=1e-5)


@pytest.mark.parametrize("miner", BLIND)
def test_miners_that_find_nothing_at_one_place_say_so(miner):
    """For them a constant encoder costs nothing: a collapse is the best that they know."""
    constant = np.ones((8, WIDTH), "float32")
    triplet = model(mining=BLIND[miner])
    got = figures(triplet, {"views": (constant, constant)})
    ((sentence, trivial),) = triplet.collapse_losses(8).items()
    assert got["loss"] == trivial == got["mined_triplets"] == 0.0
    assert "no triplet" in sentence


@pytest.mark.parametrize("miner", [*MINERS, *BLIND])
def test_replicas_mine_in_everybodys_rows(miner):
    if keras.backend.backend() == "torch":
        return  # one device
    views = rows(16, 0), rows(16, 1)

    def loss():
        triplet = model(mining={**MINERS, **BLIND}[miner], distance=distances.euclidean, margin=0.5)
        return figures(triplet, {"views": views})

    alone = loss()
    with distribute.local_replicas(2):
        together = loss()
    assert together == pytest.approx(alone, rel=1e-5)
    assert alone["loss"] > 0.0


@pytest.mark.parametrize("options", [{}, {"distance": distances.euclidean, "normalize": False}], ids=["squared", "raw"])
def test_distance_weights_are_refused_for_distances_that_they_are_not_for(options):
    with pytest.raises(ValueError, match="DistanceWeighted goes by the Euclidean distance"):
        model(mining=mining.DistanceWeighted(WIDTH), **options)
    with pytest.raises(ValueError, match="make it with width=6"):
        model(mining=mining.DistanceWeighted(128), distance=distances.euclidean).build()


def test_views_of_which_one_would_be_dropped_are_refused():
    with pytest.raises(ValueError, match=r"takes 2 or 3 view\(s\) of an image, and is given 4"):
        figures(model(), {"views": tuple(rows(8, seed) for seed in range(4))})


def test_a_miner_of_the_users_is_called_with_the_whole_batch():
    seen = []

    @keras.saving.register_keras_serializable("tests")
    def nearest_two(distance, positive, negative):
        seen.append(tuple(distance.shape))
        return mining.hard(distance, positive, negative)

    figures(model(mining=nearest_two), {"views": (rows(6, 0), rows(6, 1))})
    assert seen[-1] == (12, 12)


def test_a_miner_that_selects_nothing_ends_the_run_after_the_first_epoch(images):
    triplet = keras_ssl.Triplet(tiny_backbone(), mining=mining.WithinMargin(4.0, 5.0))
    triplet.compile("sgd")
    with pytest.raises(ValueError, match=r"no triplet was found .*WithinMargin"):
        triplet.fit(images, batch_size=16, epochs=3, verbose=0)


def test_labels_of_which_no_batch_has_two_are_told(images):
    triplet = keras_ssl.Triplet(tiny_backbone(), labels=True)
    triplet.compile("sgd")
    # Each batch holds one class alone: no negatives.
    with pytest.raises(ValueError, match="make batches larger"):
        triplet.fit(images, np.repeat([0, 1, 2, 3], 16), batch_size=16, shuffle=False, verbose=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"margin": 0.0}, "`margin` must be above 0, or None"),
        ({"mining": "hard"}, "`mining` is a function"),
        ({"mining": lambda d, p, n: mining.hard(d, p, n)}, "`mining` .* can't be saved"),
        ({"distance": lambda a, b: a}, "`distance` .* can't be saved"),
    ],
)
def test_senseless_arguments_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        keras_ssl.Triplet(tiny_backbone(), **options)


def test_embeddings_are_brought_to_length_one():
    triplet = model()
    z = ops.convert_to_numpy(triplet.project(ops.convert_to_tensor(rows(4, 0)), training=False))
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1.0, rtol=1e-6)
