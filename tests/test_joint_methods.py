"""NNCLR, MoCo v3, TiCo, LeJEPA and MMCR: their losses by numpy and at known points, and what their papers ask of queue,
covariance, teacher and directions. Values and gradients that Lightly has are held to it in test_oracles.py."""

import keras
import numpy as np
import pytest
from conftest import golden, numpy, tiny_backbone, value_and_gradients
from keras import ops
from methods_under_test import METHODS, head, light_views, three_views

import keras_ssl
from keras_ssl import augment, losses


def rows(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def unit(x):
    x = np.asarray(x, "float64")
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def array(tensor):
    return ops.convert_to_numpy(tensor)


def still():
    return augment.Views(*[[augment.RandomHorizontalFlip(0.0)]] * 2)


def trained(method, images, steps=1):
    method.compile(keras.optimizers.SGD(0.1), run_eagerly=keras.backend.backend() != "jax")
    method.fit(images[: 8 * steps], batch_size=8, shuffle=False, verbose=0)
    return method


# InfoNCE among the keys of the batch.


def cross_entropy(queries, keys, temperature):
    logits = unit(queries) @ unit(keys).T / temperature
    logits -= logits.max(axis=1, keepdims=True)
    return np.log(np.exp(logits).sum(axis=1)) - np.diagonal(logits)


def test_info_nce_among_the_keys_is_the_cross_entropy_with_its_gradients():
    queries, keys, temperature = rows(9, 6), rows(9, 6, seed=1), 0.3
    value, gradients = value_and_gradients(
        lambda q, k: ops.mean(losses.info_nce(q, k, temperature=temperature)), queries, keys
    )
    assert value == pytest.approx(cross_entropy(queries, keys, temperature).mean(), rel=1e-5)
    q, k = unit(queries), unit(keys)
    p = np.exp(q @ k.T / temperature)
    p = (p / p.sum(axis=1, keepdims=True) - np.eye(9)) / temperature / 9
    for gradient, given, direction in ((gradients[0], queries, p @ k), (gradients[1], keys, p.T @ q)):
        one = unit(given)
        tangent = direction - (direction * one).sum(axis=1, keepdims=True) * one
        expected = tangent / np.linalg.norm(given, axis=1, keepdims=True)
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)


def test_rows_of_one_replica_find_their_keys_among_those_of_all():
    queries, keys = rows(8, 5), rows(8, 5, seed=1)
    whole, found = losses.info_nce(queries, keys), losses.finds_own_key(queries, keys)
    for start in (0, 4):
        part = slice(start, start + 4)
        np.testing.assert_allclose(
            array(losses.info_nce(queries[part], keys, row_offset=start)), array(whole)[part], rtol=1e-5
        )
        np.testing.assert_array_equal(array(losses.finds_own_key(queries[part], keys, start)), array(found)[part])
    similarity = unit(queries) @ unit(keys).T
    np.testing.assert_array_equal(array(found), similarity.argmax(axis=1) == np.arange(8))


def test_valid_without_negatives_is_refused():
    with pytest.raises(ValueError, match="info_nce: `valid`"):
        losses.info_nce(rows(4, 3), rows(4, 3), valid=np.ones(4, bool))


# NNCLR.


def nnclr(memory=16, **options):
    return keras_ssl.NNCLR(tiny_backbone(), still(), head(8), predictor=head(8), memory=memory, **options)


def test_nnclr_compares_each_prediction_with_the_other_views_neighbor():
    method = nnclr(temperature=0.2)
    method.build((None, 28, 28, 1))
    queue, given = unit(rows(12, 8, seed=9)), {name: rows(6, 8, seed=n) for n, name in enumerate(("p_a", "p_b"))}
    given |= {name: rows(6, 8, seed=n) for n, name in enumerate(("z_a", "z_b"), 4)}
    method.queue.push(queue)
    terms, metrics = method.objective({name: ops.array(value) for name, value in given.items()}, {})
    expected, similarity, found = 0.0, 0.0, 0.0
    for z, p in (("z_a", "p_b"), ("z_b", "p_a")):
        nearest = (unit(given[z]) @ queue.T).argmax(axis=1)
        expected = expected + cross_entropy(queue[nearest], given[p], 0.2) / 2
        similarity = similarity + (unit(given[z]) * queue[nearest]).sum(axis=1) / 2
        found = found + ((queue[nearest] @ unit(given[p]).T).argmax(axis=1) == np.arange(6)) / 2
    np.testing.assert_allclose(array(terms["info_nce"]), expected, rtol=1e-5)
    np.testing.assert_allclose(array(metrics["neighbor_similarity"]), similarity, rtol=1e-5)
    np.testing.assert_allclose(array(metrics["contrastive_accuracy"]), found)


def test_a_projection_is_its_own_neighbor_while_the_queue_is_empty_and_never_an_empty_place():
    method = nnclr()
    method.build((None, 28, 28, 1))
    z = unit(rows(5, 8)).astype("float32")
    np.testing.assert_allclose(array(method.neighbors(ops.array(z))), z)
    method.queue.push(-z[:1])  # the cosine to it is negative, and that to an empty place 0
    np.testing.assert_allclose(array(method.neighbors(ops.array(z[:1]))), -z[:1], rtol=1e-5)


def test_nnclrs_queue_gets_the_first_views_projections_once_a_step(images):
    method = nnclr()
    method.build((None, 28, 28, 1))
    z = array(losses.normalized(method.project(images[:8].astype("float32"))))
    trained(method, images)
    held, valid = (array(part) for part in method.queue.negatives())
    assert valid.sum() == 8
    order = np.argmax(held[:8] @ z.T, axis=1)  # `fit` may deal the rows in an order of its own
    assert sorted(order) == list(range(8))
    np.testing.assert_allclose(held[:8], z[order], atol=1e-5)


# MoCo v3.


def test_moco_v3_compares_both_directions_times_twice_the_temperature():
    method = keras_ssl.MoCoV3(tiny_backbone(), still(), head(8), head(8), temperature=0.3, momentum=constant())
    method.build((None, 28, 28, 1))
    given = {name: rows(6, 8, seed=n) for n, name in enumerate(("q_a", "q_b", "k_a", "k_b"))}
    terms, _ = method.objective({name: ops.array(value) for name, value in given.items()}, {})
    both = cross_entropy(given["q_a"], given["k_b"], 0.3) + cross_entropy(given["q_b"], given["k_a"], 0.3)
    np.testing.assert_allclose(array(terms["info_nce"]), 2 * 0.3 * both, rtol=1e-5)


def constant():
    return keras_ssl.teacher.ConstantMomentum(0.9)


def test_moco_v3s_heads_are_the_authors_of_vit():
    method = keras_ssl.MoCoV3(tiny_backbone(), light_views())
    method.build((None, 28, 28, 1))
    for part, widths in ((method.projector, [4096, 4096, 256]), (method.predictor, [4096, 256])):
        assert [layer.units for layer in part.layers if hasattr(layer, "units")] == widths
        last = part.layers[-1]
        assert (type(last).__name__, last.center, last.scale) == ("BatchNormalization", False, False)


@pytest.mark.slow
def test_a_frozen_patch_projection_stays_as_it_is_in_student_and_teacher_and_when_loaded(images, tmp_path):
    backbone = keras_ssl.backbones.vit((28, 28, 1), patch_size=14, width=16, depth=1, heads=2)
    backbone.get_layer("patches").trainable = False
    method = keras_ssl.MoCoV3(backbone, still(), head(8), head(8), momentum=constant())
    method.build((None, 28, 28, 1))
    before = [array(weight) for weight in backbone.get_layer("patches").weights]
    moving = array(backbone.get_layer("attention_0").weights[0])
    trained(method, images)
    copy = method.teacher.copies[0].get_layer("patches")
    for weight, averaged, old in zip(backbone.get_layer("patches").weights, copy.weights, before):
        np.testing.assert_array_equal(array(weight), old)
        np.testing.assert_allclose(array(averaged), old, rtol=1e-6)  # an average of equal numbers
    assert not np.array_equal(array(backbone.get_layer("attention_0").weights[0]), moving)
    method.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert not loaded.backbone.get_layer("patches").trainable
    trained(loaded, images)
    np.testing.assert_array_equal(array(loaded.backbone.get_layer("patches").weights[0]), before[0])


# TiCo.


def test_ticos_covariance_moves_once_a_step_and_not_where_none_was_made(images):
    method = keras_ssl.TiCo(tiny_backbone(), still(), head(8), momentum=constant())
    method.build((None, 28, 28, 1))
    query = rows(6, 8)
    method.after_optimizer_step({"query": ops.array(query)}, ops.convert_to_tensor(False))
    np.testing.assert_array_equal(array(method.covariance), 0.0)
    method.after_optimizer_step({"query": ops.array(query)}, ops.convert_to_tensor(True))
    expected = 0.1 * unit(query).T @ unit(query) / 6
    np.testing.assert_allclose(array(method.covariance), expected, rtol=1e-5, atol=1e-7)
    method.compile("sgd")
    method.evaluate(images[:16], batch_size=8, verbose=0)
    np.testing.assert_allclose(array(method.covariance), expected, rtol=1e-5, atol=1e-7)


def test_ticos_collapse_loss_is_what_one_embedding_costs_when_the_mean_has_filled():
    method = METHODS["TiCo"]()
    one = np.tile(rows(1, 6), (10, 1))
    covariance = np.zeros((6, 6), "float32")
    for _ in range(200):
        covariance = array(losses.tico.running_covariance(covariance, one))
    (collapsed,) = method.collapse_losses(10).values()
    assert float(ops.mean(sum(losses.tico_terms(one, one, covariance)))) == pytest.approx(collapsed, rel=1e-4)


# LeJEPA.


def epps_pulley(z, directions, knots=17, limit=3.0):
    """The paper's statistic on [−limit, limit], in float64 and complex numbers."""
    z, directions = np.asarray(z, "float64"), np.asarray(directions, "float64")
    t = np.linspace(-limit, limit, 2 * knots - 1)
    x = z @ (directions / np.linalg.norm(directions, axis=0))
    characteristic = np.exp(1j * x[:, :, None] * t).mean(axis=0)
    apart = np.abs(characteristic - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)
    return len(z) * np.trapezoid(apart, t, axis=1).mean()


def test_sigreg_is_the_papers_integral_with_its_gradient():
    z, directions = rows(20, 5) * 1.5 + 0.3, rows(5, 7, seed=1)
    value, (gradient,) = value_and_gradients(lambda z: losses.sigreg(z, directions), z)
    assert value == pytest.approx(epps_pulley(z, directions), rel=1e-5)
    step, expected = 1e-5, np.zeros(z.shape)
    for place in np.ndindex(*z.shape):
        more, less = z.astype("float64"), z.astype("float64")
        more[place] += step
        less[place] -= step
        expected[place] = (epps_pulley(more, directions) - epps_pulley(less, directions)) / (2 * step)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5)


def test_sigreg_of_normal_rows_is_small_and_of_collapsed_or_doubled_ones_large():
    z, directions = rows(2000, 8), rows(8, 32, seed=1)
    normal = float(losses.sigreg(z, directions))
    assert normal < 2.0
    assert float(losses.sigreg(2.0 * z, directions)) > 20.0 * normal
    assert float(losses.sigreg(np.zeros_like(z), directions)) > 20.0 * normal


def test_lejepas_terms_are_the_paper_s_over_all_views():
    method = keras_ssl.LeJEPA(tiny_backbone(), three_views(), head(6), sigreg_weight=0.1, directions=5)
    method.build((None, 28, 28, 1))
    z, center, directions = rows(9, 3, 6), rows(9, 6, seed=1), rows(6, 5, seed=2)
    method.draw_directions = lambda width: ops.array(directions)
    terms, metrics = method.objective({"z": ops.array(z), "center": ops.array(center)}, {})
    prediction = np.square(z - center[:, None]).mean(axis=(1, 2))
    np.testing.assert_allclose(array(terms["prediction"]), 0.9 * prediction, rtol=1e-5)
    expected = 0.1 * np.mean([epps_pulley(z[:, view], directions) for view in range(3)])
    assert float(terms["sigreg"]) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["spread"]) == pytest.approx(z.std(axis=0).mean(), rel=1e-5)


def test_lejepas_center_is_the_mean_of_the_views_of_the_first_views_size(images):
    backbone = tiny_backbone((None, None, 1))
    method = keras_ssl.LeJEPA(backbone, projector=keras.layers.Identity(), one_pass=False)
    method.build((None, 28, 28, 1))
    views = [images[:4].astype("float32"), images[4:8].astype("float32"), images[8:12, 4:20, 4:20].astype("float32")]
    given = method.embed(views, training=False)
    z = [array(method.project(view)) for view in views]
    np.testing.assert_allclose(array(given["z"]), np.stack(z, axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(array(given["center"]), (z[0] + z[1]) / 2, rtol=1e-5, atol=1e-6)


def test_lejepas_collapse_loss_is_that_of_embeddings_at_zero():
    method = keras_ssl.LeJEPA(
        tiny_backbone(), augment.Views(*3 * [[still()]]), head(6), sigreg_weight=0.3, directions=8
    )
    zeros = {"z": ops.zeros((12, 3, 6)), "center": ops.zeros((12, 6))}
    method.draw_directions = lambda width: np.eye(width, dtype="float32")
    terms, metrics = method.objective(zeros, {})
    (expected,) = method.collapse_losses(12).values()
    assert float(array(ops.mean(terms["prediction"]) + terms["sigreg"])) == pytest.approx(expected, rel=1e-5)
    assert float(array(metrics["spread"])) == 0.0
    # N · ∫ (1 − exp(−t²/2))² exp(−t²/2) dt over [−3, 3]
    t = np.linspace(-3.0, 3.0, 100_001)
    integral = np.trapezoid((1.0 - np.exp(-(t**2) / 2.0)) ** 2 * np.exp(-(t**2) / 2.0), t)
    assert expected == pytest.approx(0.3 * 12 * integral, rel=1e-3)


def test_lejepas_directions_are_of_the_step_and_those_of_evaluation_always_the_same(images):
    method = keras_ssl.LeJEPA(tiny_backbone(), still(), head(6), directions=4)
    drawn = []
    draw = method.draw_directions

    def draw_directions(width):
        made = draw(width)
        if keras.backend.backend() != "jax":
            drawn.append(array(made))
        return made

    method.draw_directions = draw_directions
    trained(method, images, steps=2)
    first = method.evaluate(images[:16], batch_size=8, verbose=0)
    assert method.evaluate(images[:16], batch_size=8, verbose=0) == first
    if keras.backend.backend() == "jax":  # whose step is traced once: the contract holds its runs
        return
    assert drawn[0].shape == (6, 4)
    assert not np.allclose(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[2], drawn[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LeJEPA", "MMCR"])
def test_views_of_several_sizes_train(name, images):
    views = augment.Views(*[[augment.RandomResizedCrop(size)] for size in (24, 24, 20, 20, 20)])
    method = getattr(keras_ssl, name)(tiny_backbone((None, None, 1)), views, head(6))
    logs = trained(method, images).history.history
    assert all(np.isfinite(values).all() for values in logs.values())
    seen = method.views(images[:4].astype("float32"))
    given = method.embed(seen, training=False)
    assert tuple(given["z"].shape) == (4, 5, 6)
    if name == "LeJEPA":
        np.testing.assert_allclose(array(given["center"]), array(given["z"])[:, :2].mean(axis=1), rtol=1e-5, atol=1e-6)


def test_mmcr_on_views_of_the_users_own_knows_no_collapse_loss_with_a_local_term(images):
    series = keras.Sequential([keras.Input((10, 2)), keras.layers.Conv1D(8, 3), keras.layers.GlobalAveragePooling1D()])
    for weight, known in ((0.0, 1), (0.1, 0)):
        method = keras_ssl.MMCR(series, value_range=None, projector=head(6), local_weight=weight, momentum=None)
        assert len(method.collapse_losses(16)) == known


@pytest.mark.parametrize("name", ["LeJEPA", "MMCR"])
def test_one_view_has_nothing_to_agree_with_and_is_refused(name, images):
    method = getattr(keras_ssl, name)(tiny_backbone(), augment.Views([augment.RandomHorizontalFlip()]), head(6))
    method.compile("sgd")
    with pytest.raises(ValueError, match=f"{name} takes two views"):
        method.fit(images, batch_size=32, verbose=0)


# MMCR.


def test_mmcr_brings_rows_to_length_one_and_so_loses_the_gradient_along_them():
    for case in golden("lightly_mmcr"):
        teacher = ops.convert_to_tensor(case["momentum"])
        value, (gradient,) = value_and_gradients(
            lambda online, t=teacher, w=case["lmda"]: losses.mmcr(ops.concatenate([3.0 * online, t], axis=1), w),
            case["online"],
        )
        assert value == pytest.approx(float(case["loss64"]), rel=1e-5)
        theirs, along = case["grad_online64"], unit(case["online"])
        expected = theirs - (theirs * along).sum(axis=2, keepdims=True) * along
        assert np.linalg.norm(gradient - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_what_can_not_be_decomposed_is_nan_and_no_error(value):
    matrices = np.random.default_rng(0).normal(size=(3, 4, 2)).astype("float32")
    sound = numpy(losses.nuclear_norm(matrices))
    matrices[1, 2, 0] = value
    found = numpy(losses.nuclear_norm(matrices))
    np.testing.assert_array_equal(np.isnan(found), [False, True, False])
    np.testing.assert_allclose(found[[0, 2]], sound[[0, 2]], rtol=1e-6)
    loss, (gradient,) = value_and_gradients(lambda x: losses.mmcr(x, 0.1), matrices)
    assert np.isnan(loss)
    assert gradient.shape == matrices.shape


def test_an_mmcr_that_explodes_is_named_by_its_term(images):
    method = METHODS["MMCR"]()
    method.compile(keras.optimizers.SGD(0.1))
    method.build((None, 28, 28, 1))
    for weight in method.projector.trainable_variables:
        weight.assign(np.full(weight.shape, 1e38))
    with pytest.raises(FloatingPointError, match=r"MMCR: the term 'centroids' of the loss became NaN .* at step 0"):
        method.fit(images, batch_size=32, verbose=0)


def test_mmcr_is_least_where_the_centroids_are_orthogonal_and_its_collapse_loss_where_all_are_one():
    orthogonal = np.repeat(np.eye(8, dtype="float32")[:, None], 3, axis=1)
    assert float(losses.mmcr(orthogonal)) == pytest.approx(-8.0, rel=1e-5)
    method = METHODS["MMCR"]()
    method.build((None, 28, 28, 1))
    one = np.tile(unit(rows(1, 1, 16)), (12, 3, 1)).astype("float32")
    terms, metrics = method.objective({"z": ops.array(one), "center": ops.array(one[:, 0])}, {})
    (collapsed,) = method.collapse_losses(12).values()
    assert float(terms["centroids"]) + float(ops.mean(terms["local"])) == pytest.approx(collapsed, rel=1e-4)
    assert float(metrics["share"]) == pytest.approx(1 / np.sqrt(12), rel=1e-4)


def test_the_nuclear_norm_has_no_gradient_into_a_null_space():
    """Rank 2 of 5: U Vᵀ of what is there, and not of a null space, which each framework would choose in its own way."""
    a, b = rows(7, 2), rows(2, 5, seed=1)
    value, (gradient,) = value_and_gradients(losses.nuclear_norm, a @ b)
    u, s, v = np.linalg.svd((a @ b).astype("float64"), full_matrices=False)
    assert value == pytest.approx(s.sum(), rel=1e-5)
    np.testing.assert_allclose(gradient, u[:, :2] @ v[:2], atol=1e-5)
    _, (gradient,) = value_and_gradients(losses.nuclear_norm, np.zeros((4, 3), "float32"))
    np.testing.assert_array_equal(gradient, 0.0)


def test_mmcr_without_a_teacher_has_none_and_takes_the_views_alone(images):
    method = keras_ssl.MMCR(tiny_backbone(), still(), head(6), momentum=None)
    method.build((None, 28, 28, 1))
    assert method.frozen_layers() == []
    given = method.embed([images[:4].astype("float32"), images[4:8].astype("float32")], training=False)
    np.testing.assert_allclose(array(given["center"]), array(given["z"]).mean(axis=1), rtol=1e-5, atol=1e-6)
    logs = trained(method, images).history.history
    assert logs["teacher_momentum"] == [0.0]
    assert logs["local"] == [0.0]
    assert type(method).from_config(method.get_config()).momentum is None


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("NNCLR", {"memory": 0}, "NNCLR: `memory`"),
        ("NNCLR", {"temperature": -1.0}, "NNCLR: `temperature`"),
        ("MoCoV3", {"temperature": 0.0}, "MoCoV3: `temperature`"),
        ("MoCoV3", {"momentum": 1.5}, "MoCoV3: `momentum`"),
        ("TiCo", {"covariance_weight": -1.0}, "TiCo: `covariance_weight`"),
        ("TiCo", {"decay": 1.0}, "TiCo: `decay`"),
        ("LeJEPA", {"sigreg_weight": 1.1}, "LeJEPA: `sigreg_weight`"),
        ("LeJEPA", {"directions": 0}, "LeJEPA: `directions`"),
        ("LeJEPA", {"knots": 1}, "LeJEPA: `knots`"),
        ("LeJEPA", {"limit": 0.0}, "LeJEPA: `limit`"),
        ("MMCR", {"local_weight": float("nan")}, "MMCR: `local_weight`"),
        ("MMCR", {"momentum": -0.1}, "MMCR: `momentum`"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(name, options, words):
    with pytest.raises(ValueError, match=words):
        getattr(keras_ssl, name)(tiny_backbone(), **options)


def test_a_queue_below_a_batch_is_refused(images):
    method = nnclr()
    method.compile("sgd")
    with pytest.raises(ValueError, match=r"NNCLR: `memory`: a queue of 16 .* smaller than the 32"):
        method.fit(images, batch_size=32, verbose=0)
