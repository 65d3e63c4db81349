"""Every loss against an implementation that is not ours: its inputs, values and gradients in `golden/`.

Each entry of ORACLES says how this library computes what the other one printed. Values and gradients are held to 1e-5
of the oracle's float64; a gradient by its norm, for its smallest entries are differences of large numbers.
"""

import keras
import numpy as np
import pytest
from conftest import compiled, golden, value_and_gradients
from keras import ops

from keras_ssl import distances, distribute, losses, mining, optimizers
from keras_ssl.losses.tico import running_covariance
from keras_ssl.queue import Queue
from keras_ssl.teacher import CosineMomentum

# TensorFlow Addons' names.
DISTANCES = {"L2": distances.euclidean, "squared-L2": distances.squared, "angular": distances.cosine}


def mean(rows):
    return ops.mean(rows)


def two_views(loss, **names):
    """A loss of (a, b) whose arguments are named in the case."""

    def of(case):
        options = {ours: case[theirs] for ours, theirs in names.items()}
        return (lambda a, b: mean(loss(a, b, **options))), {"z0": case["z0"], "z1": case["z1"]}

    return of


def byol_negcos(case):
    def negative_cosine(p, z):
        return mean(losses.cosine(p, z)) / 2.0 - 1.0

    p1, z0 = case["p1"], case["z0"]

    def value(p0, z1):
        if case["kind"] == "negcos":
            return negative_cosine(p0, z1)
        # The targets' gradients are stopped in both of the others.
        stopped = ops.stop_gradient(ops.convert_to_tensor(z1))
        if case["kind"] == "simsiam":
            return 0.5 * (negative_cosine(p0, stopped) + negative_cosine(p1, z0))
        return mean(losses.cosine(p0, stopped)) + mean(losses.cosine(p1, z0))

    return value, {"p0": case["p0"], "z1": case["z1"]}


def on_labels(function):
    """A function of (case, embeddings, labels)."""

    def of(case):
        name = "emb"
        return (lambda embeddings: function(case, embeddings, ops.convert_to_tensor(case["labels"]))), {
            name: case[name]
        }

    return of


def tfa(loss_class, **names):
    """A loss class on (labels, embeddings), called as Keras calls it."""

    def value(case, embeddings, labels):
        options = {ours: case[theirs] for ours, theirs in names.items()}
        if "distance" in case:
            options["distance"] = DISTANCES[case["distance"]]
        if case.get("soft"):
            options["margin"] = None
        return loss_class(**options)(labels, embeddings)

    return on_labels(value)


def tfa_contrastive(case):
    loss = losses.Contrastive(case["margin"])
    return (lambda a, b: loss(case["y"], distances.euclidean(a, b))), {"a": case["a"], "b": case["b"]}


def tfa_npairs(case):
    def value(a, p):
        return losses.NPairs()(ops.convert_to_tensor(case["labels"]), ops.matmul(a, ops.transpose(p)))

    return value, {"a": case["a"], "p": case["p"]}


def pairs_of(embeddings, labels):
    unit = losses.normalized(embeddings)
    return distances.matrix(distances.euclidean, unit, unit), *mining.pair_masks(labels, labels)


def pml_contrastive(case, embeddings, labels):
    distance, positive, negative = pairs_of(embeddings, labels)
    cost = losses.contrastive(distance, positive, case["neg_margin"], case["pos_margin"], square=False)
    return mean(losses.weighted_mean_rows(cost, positive, True) + losses.weighted_mean_rows(cost, negative, True))


PML_MINERS = {
    "none": mining.all_triplets,
    "TripletMarginMiner_all": mining.WithinMargin(None, 0.2),
    "TripletMarginMiner_hard": mining.WithinMargin(None, 0.0),
    "TripletMarginMiner_semihard": mining.WithinMargin(0.0, 0.2),
    "BatchHardMiner": mining.hard,
    "BatchEasyHard_easy_semihard": mining.easy_positive,
}


def pml_triplet_miners(case, embeddings, labels):
    if case["miner"] == "MultiSimilarityMiner":
        return mean(losses.multi_similarity(embeddings, labels, epsilon=case["epsilon"]))
    mined = PML_MINERS[case["miner"]](*pairs_of(embeddings, labels))
    if case["smooth_loss"]:  # theirs has the margin inside of the softplus, the paper's has none
        cost = ops.softplus(mined.positive_distance - mined.negative_distance + case["margin"])
    else:
        cost = losses.triplet(mined.positive_distance, mined.negative_distance, case["margin"])
    return mean(losses.weighted_mean_rows(cost, mined.weight, True))


def lightly_mmcr(case):
    """Lightly's loss of rows as they are; `losses.mmcr` brings them to length 1 first (`test_joint_methods.py`)."""

    def value(online):
        views = ops.concatenate([online, ops.convert_to_tensor(case["momentum"])], axis=1)
        local = mean(losses.nuclear_norm(views))
        return case["lmda"] * local - losses.nuclear_norm(ops.mean(views, axis=1))

    return value, {"online": case["online"]}


def as_array(tensor):
    return ops.convert_to_numpy(ops.stop_gradient(tensor))


VICREG = {"lambda_param": 25.0, "mu_param": 25.0, "nu_param": 1.0}  # where a case does not say


def lightly_swav(case):
    """Codes of the two large crops, which the queue's scores are dealt along with; each other crop predicts them."""
    defaults = {"temperature": 0.1, "sinkhorn_epsilon": 0.05, "sinkhorn_iterations": 3}
    temperature, epsilon, iterations = (case.get(name, value) for name, value in defaults.items())

    def value(high, low):
        views = [*ops.unstack(high, axis=0), *(ops.unstack(low, axis=0) if case["low"].size else ())]
        dealt = [ops.concatenate([view, ops.convert_to_tensor(past)]) for view, past in zip(views, case["queue"])]
        codes = [losses.sinkhorn_knopp(scores, epsilon, iterations)[: case["n"]] for scores in dealt]
        return mean(losses.swav(views, codes, temperature))

    return value, {"high": case["high"], "low": case["low"]}


ORACLES = {
    "byol_negcos": byol_negcos,
    "lightly_barlow": two_views(losses.barlow_twins, off_diagonal_weight="lambda_param"),
    "lightly_vicreg": lambda case: (
        lambda a, b: losses.vicreg(a, b, *(case.get(name, value) for name, value in VICREG.items())),
        {"z0": case["z0"], "z1": case["z1"]},
    ),
    "lightly_swav": lightly_swav,
    "lightly_ntxent": two_views(losses.nt_xent, temperature="temperature"),
    "lightly_koleo": lambda case: ((lambda rows: mean(losses.koleo(rows))), {"x": case["x"]}),
    "lightly_mmcr": lightly_mmcr,
    "lightly_dcl": two_views(losses.dcl, temperature="temperature"),
    "lightly_dclw": two_views(losses.dclw, temperature="temperature", sigma="sigma"),
    "pml_contrastive": on_labels(pml_contrastive),
    "pml_multi_similarity": on_labels(
        lambda case, z, labels: mean(
            losses.multi_similarity(z, labels, case.get("alpha", 2), case.get("beta", 50), case.get("base", 0.5))
        )
    ),
    "pml_ntxent": on_labels(lambda case, z, labels: mean(losses.labeled_nt_xent(z, labels, case["temperature"]))),
    "pml_supcon": on_labels(lambda case, z, labels: losses.SupCon(case["temperature"])(labels, z)),
    "pml_triplet_miners": on_labels(pml_triplet_miners),
    "tfa_contrastive": tfa_contrastive,
    "tfa_lifted_struct": tfa(losses.LiftedStructure, margin="margin"),
    "tfa_npairs": tfa_npairs,
    "tfa_triplet_hard": tfa(losses.TripletHard, margin="margin"),
    "tfa_triplet_semihard": tfa(losses.TripletSemiHard, margin="margin"),
}
# Where TensorFlow Addons takes an anchor for its own positive, or its farthest positive for its negative, or the other
# way round: what is right there is asserted below.
WITHOUT_PARTNER = {("tfa_triplet_hard", number) for number in (14, 15, 16, 17, 22, 23)} | {("tfa_triplet_semihard", 7)}

CASES = [
    (name, number, case)
    for name in ORACLES
    for number, case in enumerate(golden(name))
    if (name, number) not in WITHOUT_PARTNER
]


@pytest.mark.parametrize(("name", "number", "case"), CASES, ids=[f"{name}-{number}" for name, number, _ in CASES])
def test_value_and_gradients_are_the_oracles(name, number, case):
    function, inputs = ORACLES[name](case)
    value, gradients = value_and_gradients(function, *inputs.values())
    expected = float(case["loss64"])
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-9)
    for gradient, given in zip(gradients, inputs):
        if case.get("kind") in ("byol", "simsiam") and given == "z1":  # a target: no gradient, and none in the file
            np.testing.assert_array_equal(gradient, 0.0)
            continue
        expected = next(case[key] for key in (f"grad_{given}64", "grad64", f"grad_{given}") if key in case)
        tolerance = 1e-5
        if case.get("special") == "duplicates":
            # The oracle's float32 is up to 1e-4 from its float64 there. And where two equal rows are the nearest
            # negative, theirs get half of the gradient each, ours one of them all: both are subgradients.
            gradient, expected, tolerance = (
                of_equal_rows(case[given], gradient),
                of_equal_rows(case[given], expected),
                1e-4,
            )
        assert_close(gradient, expected, tolerance)


def assert_close(gradient, expected, tolerance=1e-5):
    assert np.linalg.norm(gradient - expected) <= tolerance * np.linalg.norm(expected)


def of_equal_rows(rows, gradients):
    """The gradient of each row as the mean over the rows that are equal to it."""
    _, group = np.unique(rows, axis=0, return_inverse=True)
    group = group.reshape(-1)
    return np.stack([gradients[group == number].mean(axis=0) for number in group])


@pytest.mark.parametrize("soft", [False, True])
def test_rows_without_partner_cost_nothing_where_addons_makes_one_up(soft):
    hard = golden("tfa_triplet_hard")
    loss = losses.TripletHard(margin=None if soft else 1.0)
    for number in (14, 16):  # one class; as many classes as rows
        case = hard[number + soft]
        value, (gradient,) = value_and_gradients(lambda z, case=case: loss(case["labels"], z), case["emb"])
        assert value == 0.0
        np.testing.assert_array_equal(gradient, 0.0)
        assert float(case["loss64"]) > 0.1
    case = hard[22 + soft]  # labels 0 0 0 1 1 2 3 4 4: rows 5 and 6 are alone
    loss = losses.TripletHard(margin=None if soft else 1.0, distance=distances.cosine)
    value, (gradient,) = value_and_gradients(lambda z: loss(case["labels"], z), case["emb"])
    z = case["emb"].astype("float64")
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    d, y, cost = 1.0 - z @ z.T, case["labels"], []
    for i in range(9):
        positives, negatives = [d[i, j] for j in range(9) if j != i and y[j] == y[i]], d[i][y != y[i]]
        if positives:
            violation = max(positives) - min(negatives)
            cost.append(np.log1p(np.exp(violation)) if soft else max(0.0, violation + 1.0))
    assert value == pytest.approx(sum(cost) / 9, rel=1e-5)
    assert value < float(case["loss64"])


def test_a_batch_of_one_class_has_no_semi_hard_triplet():
    case = golden("tfa_triplet_semihard")[7]
    value, (gradient,) = value_and_gradients(
        lambda z: losses.TripletSemiHard(case["margin"])(case["labels"], z), case["emb"]
    )
    assert value == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("case", golden("lightly_ntxent_memory_bank"))
def test_info_nce_against_lightlys_memory_bank(case):
    bank = case["bank0"]
    for step in range(6):
        value, (query, key) = value_and_gradients(
            lambda a, b, bank=bank: mean(losses.info_nce(a, b, bank, case["temperature"])),
            case["z0"][step],
            case["z1"][step],
        )
        assert value == pytest.approx(float(case["loss"][step]), rel=1e-5)
        assert_close(query, case["grad_z0"][step])
        assert_close(key, case["grad_z1"][step])
        bank = case["bank_after"][step]


def test_our_queue_holds_what_lightlys_bank_holds_until_that_cuts_a_batch():
    case = golden("lightly_ntxent_memory_bank")[1]  # 40 rows, batches of 16: the third passes the end
    queue = Queue(40)
    queue.build((None, 8))
    queue.rows.assign(case["bank0"])
    for step in range(3):
        queue.push(losses.normalized(case["z1"][step]))
        ours, theirs = ops.convert_to_numpy(queue.rows), case["bank_after"][step]
        if step < 2:
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    # They drop eight embeddings here and start again at the first row; ours go on there.
    np.testing.assert_allclose(ours[32:], theirs[32:], rtol=1e-5, atol=1e-6)
    newest = as_array(losses.normalized(case["z1"][2]))
    np.testing.assert_allclose(ours[:8], newest[8:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("number", [0, 1])
def test_a_queue_with_labels_is_cross_batch_memory(number):
    case = golden("pml_cross_batch_memory")[number]
    _, n, width = case["emb"].shape
    # Their memory takes the batch in first: ours holds the rest of it.
    queue = Queue(case["memory_size"] - n, labeled=True)
    queue.build((None, width))
    for step in range(6):
        z, labels = case["emb"][step], case["labels"][step].astype("int32")

        def value(z, labels=labels):
            past, valid = queue.negatives()
            keys = ops.concatenate([ops.stop_gradient(ops.convert_to_tensor(z)), past], axis=0)
            key_labels = ops.concatenate([labels, ops.where(valid, queue.classes(), -1)], axis=0)
            positive, negative = mining.pair_masks(labels, key_labels)
            held = ops.concatenate([ops.ones((n,), "bool"), valid], axis=0)[None, :]
            positive, negative = ops.logical_and(positive, held), ops.logical_and(negative, held)
            if number == 0:  # ContrastiveLoss; the other is NTXentLoss
                distance = distances.matrix(distances.euclidean, losses.normalized(z), losses.normalized(keys))
                cost = losses.contrastive(distance, positive, 1.0, square=False)
                return mean(
                    losses.weighted_mean_rows(cost, positive, True) + losses.weighted_mean_rows(cost, negative, True)
                )
            return mean(losses.labeled_nt_xent(z, labels, 0.1, keys, key_labels, valid=held[0]))

        loss, (gradient,) = value_and_gradients(value, z)
        assert loss == pytest.approx(float(case["loss"][step]), rel=1e-5)
        assert_close(gradient, case["grad_emb"][step])
        queue.push(z, labels=labels)


@pytest.mark.parametrize("case", golden("lightly_tico"))
def test_tico_and_its_running_covariance_are_lightlys(case):
    covariance = np.zeros(case["C"][0].shape, "float32")
    for step in range(4):
        queries, keys = case["z0"][step], case["z1"][step]
        covariance = as_array(running_covariance(covariance, queries, case["beta"]))
        np.testing.assert_allclose(covariance, case["C"][step], rtol=1e-5, atol=1e-7)
        value, gradients = value_and_gradients(
            lambda q, k, c=covariance: mean(sum(losses.tico_terms(q, k, c, case["rho"]))), queries, keys
        )
        assert value == pytest.approx(float(case["loss"][step]), rel=1e-5)
        for gradient, name in zip(gradients, ("grad_z0", "grad_z1")):
            assert_close(gradient, case[name][step])


@pytest.mark.parametrize("case", golden("lightly_lars"), ids=lambda case: f"lr{case['lr']}")
def test_lars_follows_lightlys_weights(case):
    w, b = (keras.Variable(case[name]) for name in ("w0", "b0"))
    optimizer = optimizers.LARS(
        case["lr"],
        momentum=case["momentum"],
        weight_decay=case["weight_decay"],
        nesterov=case.get("nesterov", False),
        trust_coefficient=case.get("trust_coefficient", 1e-3),
        exclude=1 if case["bias_excluded"] else -1,
    )
    for step in range(10):
        optimizer.apply([ops.convert_to_tensor(case[name][step]) for name in ("gw", "gb")], [w, b])
        np.testing.assert_allclose(ops.convert_to_numpy(w), case["w"][step], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ops.convert_to_numpy(b), case["b"][step], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", [case for case in golden("lightly_cosine_schedule") if "warmup_steps" not in case])
def test_the_cosine_of_the_momentum_is_byols_and_lightlys(case):
    # Lightly reaches the end at the last step of the run, step K − 1; the paper one step later.
    steps = case["max_steps"] - (case["kind"] == "cosine")
    schedule = CosineMomentum(case.get("start_value", case.get("tau_base")), steps=max(1, steps))
    for step, expected in zip(case["step"], case["value"]):
        if step <= steps and case["max_steps"] > 1:
            assert float(schedule(int(step))) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("case", [case for case in golden("lightly_cosine_schedule") if "warmup_steps" in case])
def test_keras_own_warm_up_and_cosine_is_lightlys_but_for_one_step(case):
    """`CosineDecay` serves where Lightly's schedule would: its warm-up begins at its first value, theirs one later."""
    warm, total = case["warmup_steps"], case["max_steps"]
    schedule = keras.optimizers.schedules.CosineDecay(
        case["warmup_start_value"],
        total - warm - 1,
        alpha=case["end_value"] / case["start_value"],
        warmup_target=case["start_value"],
        warmup_steps=warm,
    )
    rate = compiled(schedule)
    for step in range(total):
        shifted = step + 1 if step < warm else step
        found = float(rate(ops.convert_to_tensor(shifted, "int32")))
        assert found == pytest.approx(float(case["value"][step]), rel=1e-5, abs=1e-6), step


def test_every_golden_file_of_a_loss_is_matched():
    import pathlib

    elsewhere = {"lightly_knn", "lightly_hypersphere", "metrics_rank", "torchvision_color", "torchvision_resized_crop"}
    here = {"lightly_ntxent_memory_bank", "pml_cross_batch_memory", "lightly_lars", "lightly_cosine_schedule"}
    here |= {"lightly_dino", "lightly_ibot", "lightly_tico"}
    files = {path.stem for path in (pathlib.Path(__file__).parent / "golden").glob("*.npz")}
    assert files == set(ORACLES) | elsewhere | here
    assert distribute.replicas() == 1
