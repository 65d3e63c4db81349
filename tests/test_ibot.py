"""iBOT: its loss, its masks, what student and teacher see, and which backbones it takes."""

import keras
import numpy as np
import pytest
from conftest import golden, value_and_gradients
from keras import ops
from methods_under_test import head, light_views, tiny_vit
from test_masks import PARTS, WHOLE, batch_for

import keras_ssl
from keras_ssl import augment, backbones, losses, regularizers, teacher, token_parts
from keras_ssl.augment import masks
from keras_ssl.augment.rng import RowRNG


def numpy(x):
    return ops.convert_to_numpy(ops.stop_gradient(x))


def rng(rows, seed=3):
    return RowRNG(seed, np.arange(rows, dtype="int32"))


def ibot(backbone=None, views=None, **options):
    return keras_ssl.IBOT(backbone or tiny_vit(), views, head(16, 8), **{"prototypes": 6, **options})


def outside_of_a_step(method, rows):
    """`embed` may then be called as it is."""
    method.rng = lambda purpose: rng(rows).fold_in(purpose)
    return method


# The loss.


@pytest.mark.parametrize("number", [0, 1])
def test_the_loss_and_its_gradient_are_lightlys(number):
    """Three calls each, with the center that Lightly's has before it; one image of each has no mask."""
    case = golden("lightly_ibot")[number]
    center = np.zeros(case["prototypes"], "float32")
    for step, mask in enumerate(case["mask"]):

        def loss(student, step=step, mask=mask, center=center):
            temperatures = case["student_temp"], case["teacher_temp"]
            return ops.mean(losses.ibot(student, case["teacher"][step], mask, center, *temperatures))

        value, (gradient,) = value_and_gradients(loss, case["student"][step])
        assert value == pytest.approx(float(case["loss"][step]), rel=1e-5)
        np.testing.assert_allclose(gradient, case["grad_student"][step], rtol=1e-4, atol=1e-7)
        center = case["center"][step]


def test_a_loss_of_nothing_that_is_masked_is_0_and_of_alike_scores_ln_prototypes():
    flat = np.zeros((2, 3, 5), "float32")
    found = losses.ibot(flat, flat, np.array([[False] * 3, [True, False, True]]))
    np.testing.assert_allclose(numpy(found), [0.0, np.log(5)], rtol=1e-6)
    with pytest.raises(ValueError, match=r"ibot: .*`masked`"):
        losses.ibot(flat, flat, np.ones((2, 5)))
    with pytest.raises(ValueError, match=r"`student` must be \(n, patches, numbers\) and `masked` \(n, patches\)"):
        losses.ibot(flat[0], flat[0], np.ones((3,)))
    for name in ("student_temperature", "teacher_temperature"):
        with pytest.raises(ValueError, match=f"ibot: `{name}` must be above 0"):
            losses.ibot(flat, flat, np.ones((2, 3)), **{name: 0.0})


# Masks.


def test_each_row_hides_a_number_of_its_own_and_about_half_of_the_rows_none():
    order, count = masks.order_and_count(rng(2000), (7, 7), (0.1, 0.5), 0.5, blocks=2)
    count = numpy(count)[:, 0]
    hidden = numpy(masks.first_of(order, ops.convert_to_tensor(count[:, None])))
    np.testing.assert_array_equal(hidden.sum(axis=1), count)
    assert (count == 0).mean() == pytest.approx(0.5, abs=0.05)
    found, often = np.unique(count[count > 0], return_counts=True)
    np.testing.assert_array_equal(found, np.arange(4, 25))  # 4.9 and 24.5 of 49, rounded down
    assert often.min() > 0.5 * often.mean()
    every = numpy(masks.order_and_count(rng(50), (4, 4), (0.25, 0.25))[1])
    assert (every == 4).all()
    few = numpy(masks.order_and_count(rng(50), (2, 2), (0.1, 0.2))[1])
    assert (few == 1).all(), "a mask hides a patch at least"


@pytest.mark.one_backend  # uncompiled: JAX would compile each operation by itself
def test_both_crops_have_masks_of_their_own_that_are_drawn_for_each_row_and_step(images):
    """Of one image in every row: what differs is the draw alone."""
    seen = []

    class Watched(keras_ssl.IBOT):
        def embed(self, views, training):
            outputs = super().embed(views, training)
            seen.append({name: numpy(outputs[name]) for name in ("masked", "teacher_patches")})
            return outputs

    still = augment.Views(*[[augment.RandomHorizontalFlip(0.0)]] * 2)
    method = Watched(tiny_vit(), still, head(16, 8), 6, mask_probability=1.0, momentum=teacher.ConstantMomentum(1.0))
    method.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    method.fit(np.repeat(images[:1], 8, axis=0), batch_size=8, epochs=2, verbose=0)
    first, second = seen[-2:]
    assert first["masked"].shape == (8, 2, 8)  # at most half of 16
    assert (first["masked"].sum(axis=-1) >= 1).all()
    # Which patches they are is told by what the teacher, which stands still, makes of them.
    patches = first["teacher_patches"]
    assert not np.allclose(patches[:, 0], patches[:, 1], atol=1e-4), "crops differ"
    assert not np.allclose(patches[:-1], patches[1:], atol=1e-4), "rows differ"
    assert not np.allclose(patches, second["teacher_patches"], atol=1e-4), "steps differ"


# What student and teacher see.


def test_the_student_does_not_see_what_is_hidden_and_the_teacher_does():
    method = outside_of_a_step(ibot(mask_probability=1.0), 6)
    method.build((None, 28, 28, 1))
    views = np.random.default_rng(0).uniform(0, 255, (2, 6, 28, 28, 1)).astype("float32")
    changed = []
    for place, view in enumerate(views):
        order, count = method._drawn(method.rng("mask").fold_in("view", place), view.shape)
        changed.append(numpy(masks.painted(view, masks.first_of(order, count), (7, 7), 0.0)))
    one, other = ({key: numpy(x) for key, x in method.embed(list(v), False).items()} for v in (views, changed))
    for name in ("student", "student_patches"):
        np.testing.assert_allclose(one[name], other[name], atol=1e-5)
    for name in ("teacher", "teacher_patches", "mean_patch"):
        assert np.abs(one[name] - other[name]).max() > 1e-3


def of_the_authors(student, teacher, centers, temperatures, masked):
    """`iBOTLoss.forward` in float64: two lists of (image's scores, patches' scores), one a view."""

    def softmax(x, log=False):
        x = x - x.max(axis=-1, keepdims=True)
        x = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
        return x if log else np.exp(x)

    of_images, of_patches, entropies = [], [], None
    for q, (image, patches) in enumerate(teacher):
        target = softmax((image - centers[0]) / temperatures[1])
        for v, (predicted, predicted_patches) in enumerate(student):
            if v != q:
                of_images.append(-(target * softmax(predicted / temperatures[0], True)).sum(axis=-1))
                continue
            of_patch = softmax((patches - centers[1]) / temperatures[1])
            entropies = -(of_patch * np.log(of_patch)).sum(axis=-1) if q == 0 else entropies
            cost = -(of_patch * softmax(predicted_patches / temperatures[0], True)).sum(axis=-1)
            of_patches.append((cost * masked[q]).sum(axis=-1) / np.maximum(masked[q].sum(axis=-1), 1.0))
    return np.mean(of_images, axis=0), np.mean(of_patches, axis=0), entropies


@pytest.mark.parametrize("one_pass", [True, False])
def test_the_objective_is_that_of_the_authors_code(one_pass):
    method = ibot(mask_probability=0.7, mim_weight=0.5, teacher_temperature=0.05, warm_up_steps=0, one_pass=one_pass)
    method = outside_of_a_step(method, 5)
    method.build((None, 28, 28, 1))
    generator = np.random.default_rng(0)
    for weight in method.teacher.copies[1].weights:  # or the teacher would be its student still
        weight.assign(-2.0 * ops.convert_to_tensor(weight))
    centers = [generator.normal(0, 0.1, 6).astype("float32") for _ in range(2)]
    for layer, center in zip((method.center, method.patch_center), centers):
        layer.center.assign(center)
    views = generator.uniform(0, 255, (4, 5, 28, 28, 1)).astype("float32")

    def through(tokens, projector, scores):
        rows = np.concatenate([tokens.mean(axis=1, keepdims=True), tokens], axis=1)
        embedded = losses.normalized(projector(ops.convert_to_tensor(rows.reshape(-1, rows.shape[-1]))))
        scored = numpy(scores(embedded)).reshape(*rows.shape[:2], -1).astype("float64")
        return scored[:, 0], scored[:, 1:]

    student, sees, masked = [], [], []
    backbone, projector, scores = method.teacher.copies
    for place, view in enumerate(views):
        tokens = numpy(method.backbone(view))
        if place < 2:
            order, count = method._drawn(method.rng("mask").fold_in("view", place), view.shape)
            masked.append(numpy(masks.first_of(order, count)))
            parts, hidden = method._parts, ops.convert_to_tensor(masked[-1])
            tokens = numpy(parts.encode(parts.masked(ops.convert_to_tensor(view), hidden, method.mask_token, 127.5)))
            sees.append(through(numpy(backbone(view)), projector, scores))
        student.append(through(tokens, method.projector, method.scores))
    terms, metrics = method.objective(method.embed(list(views), training=False), {})
    of_images, of_patches, entropies = of_the_authors(student, sees, centers, (0.1, 0.05), masked)
    np.testing.assert_allclose(numpy(terms["dino"]), of_images, rtol=1e-4)
    np.testing.assert_allclose(numpy(terms["mim"]), 0.5 * of_patches, rtol=1e-4, atol=1e-6)
    order = numpy(method._drawn(method.rng("mask").fold_in("view", 0), views[0].shape)[0])[:, :8]
    shown = np.take_along_axis(entropies, order, axis=1).mean(axis=1)
    np.testing.assert_allclose(numpy(metrics["patch_entropy"]), shown, rtol=1e-3, atol=1e-5)


def test_the_center_of_patches_is_of_all_of_them_by_the_teacher_as_it_was():
    still = augment.Views(*[[augment.RandomHorizontalFlip(0.0)]] * 2)
    method = ibot(views=still, momentum=teacher.ConstantMomentum(0.5))
    method.compile(keras.optimizers.SGD(0.1))
    images = np.random.default_rng(0).uniform(0, 255, (8, 28, 28, 1)).astype("float32")
    method.build((None, 28, 28, 1))
    backbone, projector, scores = method.teacher.copies
    embedded = losses.normalized(projector(ops.reshape(backbone(images), (-1, 16))))
    expected = 0.1 * numpy(scores(embedded)).mean(axis=0)
    method.fit(images, batch_size=8, verbose=0)
    np.testing.assert_allclose(numpy(method.patch_center.value()), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.one_backend  # uncompiled: JAX would compile each operation by itself
def test_a_regularizer_sees_what_the_student_makes_of_all_views():
    method = ibot(mask_probability=1.0)
    method.build((None, 28, 28, 1))
    noted = []
    views = np.random.default_rng(0).uniform(0, 255, (2, 5, 28, 28, 1)).astype("float32")
    order, count = method._drawn(rng(5).fold_in("mask").fold_in("view", 1), views[1].shape)
    hidden = masks.first_of(order, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras_ssl.methods.ibot.steps.noted", lambda model, features: noted.append(features))
        outside_of_a_step(method, 5).embed([*views], training=False)
    parts, view = method._parts, ops.convert_to_tensor(views[1])
    seen = numpy(parts.encode(parts.masked(view, hidden, method.mask_token, 127.5))).mean(axis=1)
    np.testing.assert_allclose(numpy(noted[0]).reshape(5, 2, -1)[:, 1], seen, atol=1e-5)
    method = ibot(views=light_views(), regularizers=regularizers.KoLeo(0.1))
    method.compile(keras.optimizers.SGD(0.01))
    history = method.fit(views[0], batch_size=5, verbose=0).history
    assert history["loss"][0] == pytest.approx(history["dino"][0] + history["mim"][0] + history["koleo"][0], rel=1e-5)


def test_the_mask_token_learns(images):
    method = ibot(views=light_views(), mask_probability=1.0)
    method.compile(keras.optimizers.Adam(1e-2))
    method.build((None, 28, 28, 1))
    before = numpy(method.mask_token)
    method.fit(images[:16], batch_size=8, verbose=0)
    assert np.abs(numpy(method.mask_token) - before).min() > 1e-4


def test_where_nothing_is_told_apart_the_loss_is_the_collapse():
    """A projector that gives one embedding: all scores are one row of numbers, and centers bring them to 0."""
    method = ibot(mask_probability=0.5, mim_weight=0.7, center_momentum=0.0, frozen_steps=0, views=light_views())
    method.compile(keras.optimizers.SGD(0.0))
    method.build((None, 28, 28, 1))
    kernel, bias = method.projector.layers[-1].weights
    for weights in (method.projector.layers[-1].weights, method.teacher.copies[1].layers[-1].weights):
        weights[0].assign(ops.zeros(kernel.shape))
        weights[1].assign(ops.ones(bias.shape))
    for scores in (method.scores, method.teacher.copies[2]):
        scores.kernel.assign(ops.ones(scores.kernel.shape))
    images = np.random.default_rng(0).uniform(0, 255, (256, 28, 28, 1)).astype("float32")
    loss = method.evaluate(images, batch_size=256, verbose=0, return_dict=True)["loss"]
    assert max(method.collapse_losses(256).values()) == pytest.approx(loss, rel=0.02)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_trains(policy, images):
    method = ibot(tiny_vit(), light_views(), dtype=policy)
    method.compile(keras.optimizers.Adam(1e-3))
    assert np.isfinite(method.fit(images[:16], batch_size=8, verbose=0).history["loss"]).all()


def test_pictures_of_the_task_are_what_each_is_shown(images):
    method = ibot(mask_probability=0.1)  # the pictures have masks all the same
    shown, whole = method.pretext_examples(images[:4])["pictures"]
    np.testing.assert_array_equal(whole, images[:4].astype("float32"))
    gray = (shown == 127.5).all(axis=-1).mean(axis=(1, 2))
    assert ((gray >= 1 / 16) & (gray <= 0.5)).all()
    np.testing.assert_array_equal(shown[shown != 127.5], whole[shown != 127.5])


# Backbones, views of several sizes, refusals.


def crops(count):
    generator = np.random.default_rng(0)
    return tuple(generator.uniform(0, 255, (count, side, side, 1)).astype("float32") for side in (28, 28, 16, 16))


def open_vit():
    return backbones.vit((None, None, 1), patch_size=4, width=16, depth=1, heads=2)


def test_large_and_small_crops_train_in_micro_batches_as_in_one():
    weights = []
    for size in (None, 4):
        keras.utils.set_random_seed(0)
        method = ibot(open_vit(), frozen_steps=1, warm_up_steps=2)
        method.compile(keras.optimizers.SGD(0.01, momentum=0.9), micro_batch_size=size)
        history = method.fit({"views": crops(24)}, batch_size=8, shuffle=False, verbose=0).history
        assert np.isfinite(history["mim"][0])
        weights.append([numpy(weight) for weight in method.weights])
    for one, other in zip(*weights):
        np.testing.assert_allclose(one, other, atol=1e-5)


def behind(function):
    """A ViT, and what stands behind it is no layer."""
    images = keras.Input((28, 28, 1))
    return keras.Model(images, function(tiny_vit()(images)))


def resized(make, shape):
    images = keras.Input(shape)
    return keras.Model(images, make()(keras.layers.Resizing(16, 16)(images)))


@pytest.mark.parametrize("shape", [(None, 28, 1), (28, None, 1), (None, None, 1)])
def test_the_tokens_before_those_of_patches_are_told_of_open_sizes(shape):
    backbone = backbones.vit(shape, patch_size=4, width=8, depth=1, heads=2)
    parts = token_parts.find(backbone, open_size=True)
    assert (parts.first, parts.grids((2, 28, 16, 1))) == (0, ((7, 4), (7, 4)))
    with pytest.raises(ValueError, match="of one known size"):
        token_parts.find(backbone)


TAKEN = [
    name
    for name in [*PARTS, *WHOLE]
    if name not in ("vit, pooled", "ViT inside of a model", "ViT inside of a sequence")
]


@pytest.mark.slow
@pytest.mark.parametrize("name", TAKEN)
def test_any_backbone_that_gives_its_tokens_is_trained_and_saved(name, tmp_path):
    backbone = {**PARTS, **WHOLE}[name]()
    given = backbones.input_shape(backbones.of_one_array(backbone))[1:]
    options = {"value_range": None, "views": augment.Views([], [])} if name in ("series", "volumes") else {}
    method = ibot(backbone, **{"views": light_views(), **options})
    method.compile(keras.optimizers.Adam(1e-3), run_eagerly=keras.backend.backend() == "tensorflow")
    images = batch_for(method.backbone, rows=8)
    assert images.shape[1:] == given
    before = [numpy(weight) for weight in backbone.trainable_weights]
    history = method.fit(images, batch_size=4, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    moved = {w.path for w, old in zip(backbone.trainable_weights, before) if not np.array_equal(numpy(w), old)}
    assert {w.path for w in backbone.trainable_weights} - moved == set()
    method.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    if name == "DINOv2":  # keras-hub stretches trained positions when it saves them: docs/ecosystem.md
        loaded.set_weights(method.get_weights())
    found = [model.evaluate(images, batch_size=4, verbose=0, return_dict=True) for model in (loaded, method)]
    assert found[0] == pytest.approx(found[1], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ibot(backbones.resnet8((28, 28, 1))), "IBOT: `backbone` must be one of patches .* none that is known"),
        (lambda: ibot(tiny_vit(pooling="avg")), "IBOT: `backbone` must .* vit gives something else"),
        (lambda: ibot(mask_ratio=(0.5, 0.1)), r"IBOT: `mask_ratio` is the smallest and the largest .* \(0.5, 0.1\)"),
        (lambda: ibot(mask_ratio=(0.1, 1.0)), "IBOT: `mask_ratio`"),
        (lambda: ibot(mask_ratio=0.3), r"IBOT: `mask_ratio` .* or \(0.3, 0.3\) for one share; it is 0.3"),
        (lambda: ibot(behind(lambda x: ops.relu(x))), "IBOT: `backbone` must .* gives something else"),
        (lambda: ibot(behind(lambda x: x[:, :4])), "IBOT: `backbone` must .* gives something else"),
        (lambda: ibot(behind(lambda x: ops.mean(x, axis=1))), "IBOT: `backbone` must .* gives something else"),
        (lambda: ibot(resized(open_vit, (None, None, 1))), "IBOT: `backbone`: .* Resize images before. keras_ssl.DINO"),
        (lambda: ibot(resized(open_vit, (28, 28, 1))), "IBOT: `backbone`: .* Resize images before. keras_ssl.DINO"),
        (lambda: ibot(mask_probability=0.0), "IBOT: `mask_probability` must lie above 0, up to 1; it is 0.0"),
        (lambda: ibot(blocks=0), "IBOT: `blocks` is None"),
        (lambda: ibot(mim_weight=-1.0), "IBOT: `mim_weight` must be 0 or more; it is -1.0"),
        (lambda: ibot(prototypes=1), "IBOT: `prototypes` must be a number of prototypes, 2 or more; it is 1"),
    ],
)
def test_what_can_not_be_is_refused_with_the_way_out(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_large_crops_of_two_sizes_are_refused():
    method = ibot(open_vit())
    method.compile("sgd")
    with pytest.raises(ValueError, match=r"the large crops, of one size; they are \(28, 28, 1\) and \(16, 16, 1\)"):
        method.fit({"views": crops(8)[1:3]}, batch_size=8, verbose=0)
