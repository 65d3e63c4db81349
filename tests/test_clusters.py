"""Prototypes, Sinkhorn-Knopp, centers and schedules, and the two methods that are made of them: SwAV and DINO."""

import itertools

import keras
import numpy as np
import pytest
from conftest import golden, tiny_backbone, value_and_gradients
from keras import ops
from methods_under_test import METHODS, head, light_views

import keras_ssl
from keras_ssl import augment, losses, prototypes, teacher


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
    _, (gradient,) = value_and_gradients(
        lambda s: ops.sum(ops.square(losses.sinkhorn_knopp(s))) + 0.0 * ops.sum(s), scores
    )
    np.testing.assert_array_equal(gradient, 0.0)
    _, (of_teacher,) = value_and_gradients(
        lambda t: ops.mean(losses.dino([scores, scores], [t, t])) + 0.0 * ops.sum(t), rows(8, 4)
    )
    np.testing.assert_array_equal(of_teacher, 0.0)


# The two losses at known points.


def test_the_losses_of_alike_scores_are_those_that_the_methods_call_collapse():
    flat = [np.zeros((6, 12), "float32")] * 3
    assert as_array(losses.swav(flat, [np.full((6, 12), 1 / 12)] * 2)) == pytest.approx(np.log(12))
    assert METHODS["SwAV"]().collapse_losses(32) == {
        "all images are as near to one prototype as to any other": pytest.approx(np.log(12))
    }
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


# Prototypes, and how long they are frozen.


@pytest.mark.parametrize("weight_norm", [False, True])
def test_scores_of_prototypes_are_cosines(weight_norm):
    layer = prototypes.Prototypes(5, weight_norm)
    layer.build((None, 6))
    z = rows() / np.linalg.norm(rows(), axis=1, keepdims=True)
    kernel = as_array(layer.kernel)
    if not weight_norm:
        np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1.0, rtol=1e-5)
    expected = z @ (kernel / np.linalg.norm(kernel, axis=0))
    np.testing.assert_allclose(as_array(layer(z)), expected, rtol=1e-5, atol=1e-6)
    assert as_array(layer(np.stack([z, z], axis=1))).shape == (12, 2, 5)


def fitted(images, model, optimizer=None, epochs=1, **options):
    model.compile(optimizer or keras.optimizers.SGD(0.1, momentum=0.9), **options)
    return model.fit(images, batch_size=8, epochs=epochs, verbose=0).history


def swav(prototypes=6, **options):
    return keras_ssl.SwAV(tiny_backbone(), light_views(), head(16, 8), prototypes, **options)


def dino(prototypes=6, **options):
    return keras_ssl.DINO(tiny_backbone(), light_views(), head(16, 8), prototypes, **options)


@pytest.mark.slow
@pytest.mark.parametrize("make", [swav, dino])
@pytest.mark.parametrize(
    ("optimizer", "rate", "least"), [(keras.optimizers.AdamW, 1e-2, 1e-3), (keras_ssl.optimizers.LARS, 0.5, 1e-5)]
)
def test_frozen_prototypes_keep_their_direction_under_any_optimizer_and_move_after(
    images, make, optimizer, rate, least
):
    method = make(frozen_steps=4)
    method.build((None, 28, 28, 1))

    def directions():
        return as_array(losses.normalized(ops.transpose(method.scores.kernel)))

    before = directions()
    fitted(images[:32], method, optimizer(rate, weight_decay=0.1))  # four steps
    np.testing.assert_allclose(directions(), before, atol=1e-6)
    method.fit(images[:8], batch_size=8, verbose=0)
    assert np.abs(directions() - before).max() > least
    if make is swav:
        np.testing.assert_allclose(np.linalg.norm(as_array(method.scores.kernel), axis=0), 1.0, rtol=1e-5)


def test_a_part_of_the_run_is_frozen_for_that_part_of_each_run(images):
    method = swav(frozen_steps=0.5)
    method.build((None, 28, 28, 1))
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):  # of one step: within an epoch JAX has no values in variables
            seen.append(bool(as_array(method.progress.within(method.frozen_steps))))

    method.compile(keras.optimizers.SGD(0.01))
    for _ in range(2):
        method.fit(images[:8], batch_size=8, epochs=6, verbose=0, callbacks=[Watch()])
    assert seen == 2 * [True, True, False, False, False, False]
    assert int(as_array(method.progress.updates)) == 12


@pytest.mark.parametrize("micro_batch_size", [None, 4])
@pytest.mark.parametrize("make", [swav, dino])
def test_frozen_prototypes_stay_as_they_are_in_a_second_run_that_the_optimizer_enters_with_momentum(
    images, make, micro_batch_size
):
    method = make(frozen_steps=0.5)
    method.build((None, 28, 28, 1))
    kernels = [as_array(method.scores.kernel)]

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):  # of one step: within an epoch JAX has no values in variables
            kernels.append(as_array(method.scores.kernel))

    method.compile(keras.optimizers.AdamW(1e-2, weight_decay=0.1), micro_batch_size=micro_batch_size)
    for _ in range(2):
        method.fit(images[:8], batch_size=8, epochs=4, verbose=0, callbacks=[Watch()])
    moved = [float(np.abs(one - other).max()) for one, other in itertools.pairwise(kernels)]
    assert [step > 1e-4 for step in moved] == 2 * [False, False, True, True]
    assert [step == 0.0 for step in moved] == 2 * [True, True, False, False]


def test_a_part_of_a_run_of_unknown_length_is_refused(images):
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    stream = tf.data.Dataset.from_generator(
        lambda: (images[i : i + 16] for i in range(0, 64, 16)), output_signature=tf.TensorSpec((16, 28, 28, 1), "uint8")
    )
    for make, word in ((swav, "frozen_steps"), (lambda: dino(frozen_steps=3), "warm_up_steps")):
        method = make()
        method.compile("sgd")
        with pytest.raises(ValueError, match=f"`{word}` is a part of the run.*steps_per_epoch"):
            method.fit(stream, verbose=0)


# SwAV.


def test_swavs_heads_are_the_papers():
    method = keras_ssl.SwAV(tiny_backbone(), light_views())
    method.build((None, 28, 28, 1))
    kinds = [type(layer).__name__ for layer in method.projector.layers]
    assert kinds == ["Dense", "BatchNormalization", "ReLU", "Dense"]
    assert [layer.units for layer in method.projector.layers if hasattr(layer, "units")] == [2048, 128]
    assert method.scores.kernel.shape == (128, 3000)


def test_swavs_objective_is_that_of_its_views(images):
    method = swav()
    method.build((None, 28, 28, 1))
    views = [images[4 * n : 4 * n + 4].astype("float32") for n in range(3)]
    terms, metrics = method.objective(method.embed(views, training=False), {})
    z = [losses.normalized(method.project(view)) for view in views]
    scores = [as_array(view) @ as_array(method.scores.kernel) for view in z]
    codes = [sinkhorn_of_the_paper(view, 0.05, 3).astype("float32") for view in scores[:2]]
    np.testing.assert_allclose(as_array(terms["swav"]), as_array(losses.swav(scores, codes)), rtol=1e-4)
    p = as_array(ops.softmax(scores[0] / 0.1, axis=1)).mean(axis=0)
    assert as_array(metrics["prototypes_used"]) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-4)


def test_swavs_queue_holds_past_views_side_by_side_from_its_first_step_on(images):
    method = swav(memory=20, memory_start=1, frozen_steps=0)
    method.build((None, 28, 28, 1))
    method.compile(keras.optimizers.SGD(0.01))
    seen = []
    for start in range(0, 32, 8):
        method.train_on_batch(images[start : start + 8])
        seen.append((int(as_array(method.queue.pointer)), int(as_array(method.queue.count))))
    assert seen == [(0, 0), (8, 8), (16, 16), (4, 20)]
    held = as_array(method.queue.negatives()[0])
    assert held.shape == (20, 16)
    for side in np.split(held, 2, axis=1):
        np.testing.assert_allclose(np.linalg.norm(side, axis=1), 1.0, rtol=1e-5)
    assert np.abs(held[:, :8] - held[:, 8:]).max() > 1e-3, "two views, not one twice"


def test_swavs_queue_is_dealt_along_once_it_is_full(images):
    method = swav(memory=20, frozen_steps=0)
    method.build((None, 28, 28, 1))
    outputs = method.embed([images[:4].astype("float32"), images[4:8].astype("float32")], training=False)
    alone = as_array(method.objective(outputs, {})[0]["swav"])
    past = as_array(losses.normalized(rows(20, 16).reshape(40, 8))).reshape(20, 16)
    method.queue.push(past[:19])
    np.testing.assert_allclose(as_array(method.objective(outputs, {})[0]["swav"]), alone, rtol=1e-5)
    method.queue.push(past[19:])
    with_queue = as_array(method.objective(outputs, {})[0]["swav"])
    kernel, z = as_array(method.scores.kernel), as_array(outputs["embeddings"])
    codes = [
        sinkhorn_of_the_paper(np.concatenate([z[:, n], past[:, 8 * n : 8 * n + 8]]) @ kernel, 0.05, 3)[:4]
        for n in range(2)
    ]
    expected = losses.swav([z[:, n] @ kernel for n in range(2)], [code.astype("float32") for code in codes])
    np.testing.assert_allclose(with_queue, as_array(expected), rtol=1e-4)
    assert np.abs(with_queue - alone).max() > 1e-3


# DINO.


def test_dinos_head_is_the_papers():
    method = keras_ssl.DINO(tiny_backbone(), light_views(), prototypes=100)
    method.build((None, 28, 28, 1))
    kinds = [type(layer).__name__ for layer in method.projector.layers]
    assert kinds == ["Dense", "Activation", "Dense", "Activation", "Dense"]
    assert [layer.units for layer in method.projector.layers if hasattr(layer, "units")] == [2048, 2048, 256]
    assert {layer.activation.__name__ for layer in method.projector.layers if not hasattr(layer, "units")} == {"gelu"}


def test_dinos_teacher_sees_the_first_two_views_and_the_student_all(images):
    method = dino(teacher_temperature=0.05, warm_up_steps=0)
    method.build((None, 28, 28, 1))
    for weight in method.teacher.copies[1].weights:  # or the teacher would be its student still
        weight.assign(-2.0 * ops.convert_to_tensor(weight))
    method.center.update(rows(1, 6)[0])
    views = [images[4 * n : 4 * n + 4].astype("float32") for n in range(4)]
    outputs = method.embed(views, training=False)
    assert (outputs["student"].shape, outputs["teacher"].shape) == ((4, 4, 8), (4, 2, 8))
    student = [method.scores(losses.normalized(method.project(view))) for view in views]
    backbone, projector, scores = method.teacher.copies
    seen = [scores(losses.normalized(projector(ops.mean(backbone(view), axis=(1, 2))))) for view in views[:2]]
    terms, metrics = method.objective(outputs, {})
    expected = losses.dino(student, seen, method.center.value(), 0.1, 0.05)
    np.testing.assert_allclose(as_array(terms["dino"]), as_array(expected), rtol=1e-5)
    p = as_array(ops.softmax((seen[0] - method.center.value()) / 0.05, axis=1))
    np.testing.assert_allclose(as_array(metrics["teacher_entropy"]), -(p * np.log(p)).sum(axis=1), rtol=1e-3, atol=1e-5)


def test_dinos_center_is_of_the_teacher_as_it_was_in_the_step(images):
    """And the teacher moves after it."""
    still = augment.Views(*[[augment.RandomHorizontalFlip(0.0)]] * 2)
    method = keras_ssl.DINO(tiny_backbone(), still, head(16, 8), 6, momentum=teacher.ConstantMomentum(0.5))
    method.build((None, 28, 28, 1))
    backbone, projector, scores = method.teacher.copies
    batch = images[:8].astype("float32")
    given = as_array(scores(losses.normalized(projector(ops.mean(backbone(batch), axis=(1, 2))))))
    before = as_array(projector.weights[0])
    fitted(images[:8], method, keras.optimizers.SGD(0.1))
    np.testing.assert_allclose(as_array(method.center.value()), 0.1 * given.mean(axis=0), rtol=1e-4, atol=1e-6)
    moved = 0.5 * before + 0.5 * as_array(method.projector.weights[0])
    np.testing.assert_allclose(as_array(projector.weights[0]), moved, atol=1e-6)


@pytest.mark.parametrize("make", [lambda: swav(memory=16, memory_start=0), dino])
def test_a_step_that_the_optimizer_leaves_out_moves_nothing(images, make):
    method = make()
    method.build((None, 28, 28, 1))
    ticking = [method.progress, *([method.queue] if hasattr(method, "queue") else [method.center, method.teacher])]
    before = [as_array(weight) for layer in ticking for weight in layer.weights]
    # A loss scale that overflows half precision: Keras leaves the step out.
    fitted(images[:8], method, keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=2.0**127))
    lengths = {
        id(weight) for weight in (method.progress.run_steps, getattr(method, "teacher", method.progress).run_steps)
    }
    for weight, value in zip([weight for layer in ticking for weight in layer.weights], before):
        if id(weight) not in lengths:
            np.testing.assert_array_equal(as_array(weight), value)


def test_the_temperature_of_dinos_teacher_warms_up_within_the_run(images):
    method = dino(warm_up_temperature=0.02, teacher_temperature=0.08, warm_up_steps=0.5)
    found = fitted(images[:32], method, epochs=2)["teacher_temperature"]  # eight steps, half of which warm up
    assert found == pytest.approx([np.mean([0.02, 0.035, 0.05, 0.065]), 0.08])
    method = dino(warm_up_temperature=0.02, teacher_temperature=0.06, warm_up_steps=2)
    assert fitted(images[:32], method)["teacher_temperature"] == pytest.approx([np.mean([0.02, 0.04, 0.06, 0.06])])
    # In a second run of its own number of steps it has warmed up.
    assert method.fit(images[:8], batch_size=8, verbose=0).history["teacher_temperature"] == pytest.approx([0.06])


@pytest.mark.parametrize("make", [swav, dino])
def test_one_view_is_refused_and_more_than_two_are_taken(images, make):
    flip = [augment.RandomHorizontalFlip()]
    kind = type(make())
    with pytest.raises(ValueError, match="takes 2 or more view"):
        kind(tiny_backbone(), augment.Views(flip))
    assert len(kind(tiny_backbone(), flip).views.branches) == 2
    assert np.isfinite(fitted(images[:16], kind(tiny_backbone(), augment.Views(*[flip] * 4), head(16, 8), 6))["loss"])


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (swav, {"prototypes": 1}, "SwAV: `prototypes`"),
        (swav, {"temperature": 0.0}, "SwAV: `temperature`"),
        (swav, {"epsilon": -0.1}, "SwAV: `epsilon`"),
        (swav, {"iterations": 0}, "SwAV: `iterations`"),
        (swav, {"memory": -1}, "SwAV: `memory`"),
        (swav, {"frozen_steps": -1}, "SwAV: `frozen_steps`"),
        (swav, {"memory_start": 1.5}, "SwAV: `memory_start`"),
        (dino, {"prototypes": 2.5}, "DINO: `prototypes`"),
        (dino, {"student_temperature": 0.0}, "DINO: `student_temperature`"),
        (dino, {"teacher_temperature": 0.0}, "DINO: `teacher_temperature`"),
        (dino, {"warm_up_temperature": 0.0}, "DINO: `warm_up_temperature`"),
        (dino, {"warm_up_steps": 1.5}, "DINO: `warm_up_steps`"),
        (dino, {"center_momentum": 1.1}, "DINO: `center_momentum`"),
        (dino, {"momentum": 1.5}, "DINO: `momentum`"),
        (dino, {"frozen_steps": True}, "DINO: `frozen_steps`"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(make, options, words):
    with pytest.raises(ValueError, match=words):
        make(**options)


def test_swavs_queue_below_a_batch_is_refused(images):
    method = swav(memory=7)
    method.compile("sgd")
    with pytest.raises(ValueError, match=r"SwAV: `memory`: a queue of 7 .* smaller than the 8"):
        method.fit(images, batch_size=8, verbose=0)


# Crops of several sizes.


def crops(count):
    """A batch of ready views: two of 28 pixels and four of 16. Policies are tested in test_multi_crop.py."""
    generator = np.random.default_rng(0)
    sides = (28, 28, 16, 16, 16, 16)
    return tuple(generator.uniform(0, 255, (count, side, side, 1)).astype("float32") for side in sides)


BACKBONES = {
    "vit": lambda: keras_ssl.backbones.vit((None, None, 1), patch_size=4, width=16, depth=1, heads=2),
    "resnet8": lambda: keras_ssl.backbones.resnet8((None, None, 1), width=8),
}


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("kind", [keras_ssl.SwAV, keras_ssl.DINO])
def test_large_and_small_crops_train(images, kind, backbone):
    projector = keras_ssl.heads.mlp([16, 8], last_batch_norm=False)
    method = kind(BACKBONES[backbone](), projector=projector, prototypes=6)
    method.compile(keras.optimizers.SGD(0.01))
    history = method.fit({"views": crops(16)}, batch_size=8, verbose=0).history
    assert np.isfinite(history["loss"][0])
    assert method.predict(images[:3], verbose=0).shape[0] == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "more"), [(keras_ssl.SwAV, {"memory": 20, "memory_start": 0}), (keras_ssl.DINO, {"warm_up_steps": 4})]
)
def test_micro_batches_of_large_and_small_crops_are_the_whole_batch(kind, more):
    """SwAV's queue is full from the fourth step on."""
    weights = []
    for size in (None, 4):
        keras.utils.set_random_seed(0)
        backbone = tiny_backbone((None, None, 1))
        method = kind(backbone, projector=head(16, 8), prototypes=6, frozen_steps=1, **more)
        method.compile(keras.optimizers.SGD(0.003, momentum=0.9), micro_batch_size=size)
        method.fit({"views": crops(40)}, batch_size=8, shuffle=False, verbose=0)
        weights.append([as_array(weight) for weight in method.weights])
    for one, other in zip(*weights):
        np.testing.assert_allclose(one, other, atol=1e-5)
