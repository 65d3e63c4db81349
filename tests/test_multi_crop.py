"""Views of several sizes: who makes them, who embeds them, and who shows them."""

import keras
import numpy as np
import pytest
from conftest import compiled, tiny_backbone
from crops_under_test import AllViews, all_views, light_views
from keras import ops

import keras_ssl
from keras_ssl import augment, backbones, batch_norm, shapes
from keras_ssl.augment import blur, color, geometry, loop
from keras_ssl.augment.layer import apply_layers
from keras_ssl.augment.rng import RowRNG
from keras_ssl.evaluate import plots
from keras_ssl.testing import CHECKS, check_method

BACKEND = keras.backend.backend()


def built(method, shape=(None, 28, 28, 1)):
    method.build(shape)
    return method


def photographs(count=6, height=70, width=66, channels=3):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels), "uint8")


# Views.


POLICIES = {
    "multi_crop": lambda: augment.multi_crop(48, 24, locals=3),
    "dino": lambda: augment.dino(48, local_size=36, locals=2),
    "gray": lambda: augment.small_gray_crops(28, locals=2),
    "of different kinds, not in the order of sizes": lambda: augment.Views(
        [augment.RandomResizedCrop(20)],
        [augment.RandomResizedCrop(34), augment.RandomGrayscale(0.5)],
        [augment.RandomResizedCrop(20), augment.RandomSolarization(0.5)],
        [augment.RandomResizedCrop(34)],
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_views_of_several_sizes_are_drawn_as_each_would_be_alone(name):
    """The compiled loop, torch's few images at a time, and batch by batch: the same draws for a view by its number."""
    views, images = POLICIES[name](), photographs(channels=1 if name == "gray" else 3)
    rows = np.arange(10, 10 + len(images), dtype="int32")

    def rng():
        return RowRNG(5, rows).fold_in(3)

    def make(images):
        assert BACKEND == "torch" or all(loop.runs(branch, images) for branch in views.branches)
        return views(images, rng=rng())

    made = compiled(make)(ops.convert_to_tensor(images))
    assert [tuple(view.shape) for view in made] == [tuple(shape) for shape in views.compute_output_shape(images.shape)]
    as_floats = ops.cast(images, "float32")
    for number, (view, branch) in enumerate(zip(made, views.branches)):
        alone = apply_layers(branch, as_floats, rng().fold_in("view", number))
        # Another draw of a single row would be off by tens.
        np.testing.assert_allclose(ops.convert_to_numpy(view), ops.convert_to_numpy(alone), atol=0.02)


def test_some_views_alone_are_those_of_all():
    views, images = augment.multi_crop(20, 12, locals=3), photographs()
    rng = RowRNG(5, np.arange(6, dtype="int32"))
    every, some = views(images, rng=rng), views(images, rng=rng, only=[4, 1])
    for number, view in zip((4, 1), some):
        np.testing.assert_array_equal(ops.convert_to_numpy(view), ops.convert_to_numpy(every[number]))


def test_views_may_differ_in_size_alone():
    gray = augment.Views([augment.RandomResizedCrop(24)], [keras.layers.Conv2D(5, 3)])
    with pytest.raises(ValueError, match=r"same channels.* 1 × \(24, 24, 3\), 1 × \(30, 30, 5\)"):
        gray.build((None, 32, 32, 3))


def test_views_are_saved(tmp_path):
    views = augment.dino(48, local_size=24, locals=3)
    loaded = augment.Views.from_config(views.get_config())
    images, rng = photographs(), RowRNG(5, np.arange(6, dtype="int32"))
    for one, other in zip(views(images, rng=rng), loaded(images, rng=rng), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(other))


# Policies.


def layers_of(branch):
    return [type(layer) for layer in branch]


def test_swavs_policy_is_the_papers():
    views = augment.swav(224)
    assert [branch[0].size for branch in views.branches] == [(224, 224)] * 2 + [(96, 96)] * 6
    assert [branch[0].scale for branch in views.branches] == [(0.14, 1.0)] * 2 + [(0.05, 0.14)] * 6
    for branch in views.branches:
        crop, flip, jitter, gray, blurring = branch
        assert (crop.interpolation, flip.probability, gray.probability) == ("bilinear", 0.5, 0.2)
        strengths = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue, jitter.probability)
        assert strengths == (0.8, 0.8, 0.8, 0.2, 0.8)
        assert (blurring.kernel_size, blurring.sigma, blurring.probability) == (23, (0.1, 2.0), 0.5)


def test_dinos_policy_is_the_papers():
    views = augment.dino(224)
    assert [branch[0].size for branch in views.branches] == [(224, 224)] * 2 + [(96, 96)] * 8
    assert [branch[0].scale for branch in views.branches] == [(0.4, 1.0)] * 2 + [(0.05, 0.4)] * 8
    shared = [geometry.RandomResizedCrop, geometry.RandomHorizontalFlip, color.RandomColorJitter, color.RandomGrayscale]
    for branch in views.branches:
        assert layers_of(branch)[:4] == shared
        jitter = branch[2]
        strengths = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue, jitter.probability)
        assert (branch[0].interpolation, strengths) == ("bicubic", (0.4, 0.4, 0.2, 0.1, 0.8))
    assert [branch[4].probability for branch in views.branches] == [1.0, 0.1] + [0.5] * 8
    solarized = [color.RandomSolarization in layers_of(branch) for branch in views.branches]
    assert solarized == [False, True] + [False] * 8
    assert views.branches[1][5].probability == 0.2
    assert [branch[0].scale for branch in augment.dino(224, locals=0).branches] == [(0.14, 1.0)] * 2


@pytest.mark.parametrize(("size", "small"), [(224, 96), (96, 48), (64, 32), (32, 16), (28, 16), (128, 48), (160, 64)])
def test_small_crops_are_about_half_the_size_in_whole_patches(size, small):
    views = augment.multi_crop(size, locals=1)
    assert views.branches[2][0].size == (small, small)
    assert views.branches[2][0].scale == ((0.15, 0.4) if size <= 64 else (0.05, 0.14))


def test_small_and_gray_views_lack_what_makes_no_sense_of_them():
    for policy in (augment.swav, augment.dino):
        gray = policy(28, channels=1)
        assert not {color.RandomGrayscale, blur.RandomGaussianBlur} & {
            kind for b in gray.branches for kind in layers_of(b)
        }
        assert all((branch[2].saturation, branch[2].hue) == (0.0, 0.0) for branch in gray.branches)
        both = policy(48)
        assert [blur.RandomGaussianBlur in layers_of(b) for b in both.branches[1:3]] == [True, False]


@pytest.mark.parametrize("locals", [-1, 2.5, None])
def test_a_number_of_views_that_is_none_is_refused(locals):
    with pytest.raises(ValueError, match="`locals` must be a number of views"):
        augment.multi_crop(28, locals=locals)


# Backbones.


def test_a_backbone_of_fixed_size_refuses_other_sizes_and_says_the_way_out():
    with pytest.raises(ValueError, match=r"2 × \(28, 28, 1\), 4 × \(16, 16, 1\).*tiny takes \(28, 28, 1\).*None, 1\)"):
        built(AllViews(tiny_backbone(), light_views()))
    with pytest.raises(ValueError, match=r"`views` make images of \(16, 16, 1\).*: give the policy that size\.$"):
        built(AllViews(tiny_backbone(), light_views(16, 16)))


def test_a_vit_of_open_size_takes_whole_patches_of_any_number(images, tmp_path):
    fixed, opened = (backbones.vit(shape, 4, 16, 2, 2) for shape in ((28, 28, 1), (None, None, 1)))
    opened.set_weights(fixed.get_weights())
    x = images[:3].astype("float32")
    expected = ops.convert_to_numpy(fixed(x))
    np.testing.assert_allclose(ops.convert_to_numpy(opened(x)), expected, atol=1e-5)
    opened.save(tmp_path / "vit.keras")
    loaded = keras.saving.load_model(tmp_path / "vit.keras")
    np.testing.assert_allclose(ops.convert_to_numpy(loaded(x)), expected, atol=1e-5)
    assert loaded(x[:, :16, :20]).shape == (3, 20, 16)
    assert not [layer for layer in opened.layers if not type(layer).__module__.startswith("keras.")]
    method = built(AllViews(opened, light_views(28, 16)))
    assert method.features(x).shape == (3, 16)
    assert backbones.tokens(opened, (None, 49, 16), (None, 28, 28, 1)) == (0, 7, 7)
    with pytest.raises(ValueError, match=r"1 × \(28, 28, 1\), 1 × \(18, 18, 1\).*patches of vit are of \(4, 4\)"):
        built(AllViews(opened, augment.Views([], [keras.layers.CenterCrop(18, 18)])))


# Embedding.


def seen_by(method, views, one_pass):
    """The shapes that a function is given, and what `map_views` makes of it."""
    given = []

    def function(images, training):
        given.append(tuple(images.shape))
        return ops.mean(images, axis=(1, 2))

    return given, [ops.convert_to_numpy(row) for row in method.map_views(function, views, True, one_pass)]


@pytest.mark.parametrize("one_pass", [True, False])
def test_views_of_one_size_are_embedded_together_in_the_order_of_the_views(one_pass):
    method = AllViews(tiny_backbone((None, None, 1)), light_views())
    generator = np.random.default_rng(0)
    views = [generator.normal(size=(3, side, side, 1)).astype("float32") for side in (8, 5, 8, 5, 5)]
    given, rows = seen_by(method, [ops.convert_to_tensor(view) for view in views], one_pass)
    assert given == ([(6, 8, 8, 1), (9, 5, 5, 1)] if one_pass else [(3, *view.shape[1:]) for view in views])
    for view, row in zip(views, rows, strict=True):
        np.testing.assert_allclose(row, view.mean(axis=(1, 2)), atol=1e-6)


def normalizing(one_pass=True):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(8, 3, 2), keras.layers.BatchNormalization(), keras.layers.Activation("gelu")]
    backbone = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Rescaling(1 / 127.5, -1), *layers])
    return built(AllViews(backbone, light_views(count=3), one_pass=one_pass))  # with its heads, to be changed as well


def trained(images, method, **compiled_with):
    method.compile(keras.optimizers.SGD(0.01), fused_layers=False, **compiled_with)
    logs = method.fit(images[:32], batch_size=16, epochs=2, verbose=0).history["loss"]
    return logs, [ops.convert_to_numpy(weight) for weight in method.weights]


def assert_same(one, other, atol=2e-5):
    np.testing.assert_allclose(one[0], other[0], atol=atol)
    for a, b in zip(one[1], other[1], strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


@pytest.mark.slow
def test_a_ghost_batch_of_images_holds_all_of_their_views_of_a_size():
    layer = keras.layers.BatchNormalization()
    layer.build((None, 3))
    batch_norm.use_ghost_batches(layer, images=4)
    method = AllViews(tiny_backbone((None, None, 1)), light_views())
    generator = np.random.default_rng(0)
    views = [generator.normal(size=(8, side, side, 3)).astype("float32") for side in (8, 8, 5, 5, 5)]

    def function(images, training):
        return layer(ops.mean(images, axis=(1, 2)), training=training)

    rows = [ops.convert_to_numpy(row) for row in method.map_views(function, views, True, True)]
    means = [view.mean(axis=(1, 2)) for view in views]
    for numbers in ([0, 1], [2, 3, 4]):
        for first in (0, 4):
            group = np.concatenate([means[number][first : first + 4] for number in numbers])
            expected = (group - group.mean(axis=0)) / np.sqrt(group.var(axis=0) + 1e-3)
            got = np.concatenate([rows[number][first : first + 4] for number in numbers])
            np.testing.assert_allclose(got, expected, atol=1e-4)
    # Outside of a pass of several views an image is a row.
    alone = ops.convert_to_numpy(layer(means[0], training=True))[:4]
    np.testing.assert_allclose(alone.mean(axis=0), 0.0, atol=1e-5)


@pytest.mark.parametrize("one_pass", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_micro_batches_normalize_what_ghost_batches_of_as_many_images_do(images, one_pass):
    ghost = normalizing(one_pass)
    batch_norm.use_ghost_batches(ghost, images=4)
    parts, whole = trained(images, normalizing(one_pass), micro_batch_size=4), trained(images, ghost)
    assert_same(parts, whole)
    assert np.abs(np.subtract(parts[0], trained(images, normalizing(one_pass))[0])).max() > 1e-4


def test_ghost_batches_are_of_rows_or_of_images():
    for wrong in ({}, {"size": 4, "images": 4}):
        with pytest.raises(ValueError, match="give `size`, rows of a group, or `images`"):
            batch_norm.use_ghost_batches(tiny_backbone(), **wrong)
    with pytest.raises(ValueError, match="`images` must be 2 or more"):
        batch_norm.use_ghost_batches(tiny_backbone(), images=1)


def test_rows_that_are_no_whole_group_are_refused(images):
    method = normalizing()
    batch_norm.use_ghost_batches(method, 16)  # 16 images have 32 rows of the large views, and 48 of the small
    trained(images, method)
    method = normalizing()
    batch_norm.use_ghost_batches(method, 32)
    with pytest.raises(Exception, match="ghost batches of size=32 don't divide"):
        trained(images, method)


# A method.


TELLING = ["loss_is_the_sum_of_its_terms", "two_replicas", "micro_batches", "saves_and_goes_on"]


@pytest.mark.skipif(BACKEND == "tensorflow", reason="the whole contract below, which is slow, has these checks")
def test_the_contract_of_a_method_of_views_of_two_sizes():
    report = check_method(all_views, only=TELLING)
    skipped = {"two_replicas"} if BACKEND == "torch" else set()
    assert set(report.passed) | skipped == set(TELLING)


@pytest.mark.slow
def test_the_whole_contract_of_a_method_of_views_of_two_sizes():
    # What sizes can break: not whether a step is compiled, and four replicas are as two.
    left = {"same_seed_same_run", "jit_compiled", "steps_per_execution", "four_replicas"}
    report = check_method(all_views, only=[check for check in CHECKS if check not in left])
    assert not report.inconclusive


@pytest.mark.slow
def test_bfloat16_trains_on_views_of_two_sizes(images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        method = AllViews(backbones.vit((None, None, 1), 4, 16, 1, 2), light_views(count=2))
        assert np.isfinite(trained(images, method)[0]).all()
    finally:
        keras.config.set_dtype_policy("float32")


# Batches of the user's own views.


def own_views(images, count=32):
    return tuple(
        np.ascontiguousarray(view) for view in (images[:count], images[:count, 6:22, 4:20], images[:count, ::2, ::2])
    )


@pytest.mark.parametrize("form", ["arrays", "stream", "one batch"])
def test_views_of_ones_own_may_differ_in_size(images, form):
    views = own_views(images)
    method = AllViews(tiny_backbone((None, None, 1), widths=(8, 8)))
    method.compile("sgd")
    batches = [{"views": tuple(view[first : first + 8] for view in views)} for first in range(0, 32, 8)]
    if form == "arrays":
        loss = method.fit({"views": views}, batch_size=8, verbose=0, validation_data={"views": views}).history["loss"][
            -1
        ]
    elif form == "stream":
        loss = method.fit(iter(batches), verbose=0, steps_per_epoch=4).history["loss"][-1]
    else:
        loss = method.train_on_batch(batches[0], return_dict=True)["loss"]
    assert np.isfinite(loss)


@pytest.mark.skipif(BACKEND == "torch", reason="tf.data is read by any backend in the same way")
def test_a_tf_data_set_may_hold_views_of_several_sizes(images):
    tf = pytest.importorskip("tensorflow")
    method = AllViews(tiny_backbone((None, None, 1), widths=(8, 8)))
    method.compile("sgd")
    dataset = tf.data.Dataset.from_tensor_slices({"views": own_views(images)}).batch(8, drop_remainder=True)
    assert np.isfinite(method.fit(dataset, verbose=0).history["loss"][-1])


@pytest.mark.parametrize("enter", ["fit", "evaluate", "train_on_batch"])
def test_views_of_ones_own_must_be_what_the_backbone_takes(images, enter):
    method = AllViews(tiny_backbone(widths=(8, 8)))
    method.compile("sgd")
    with pytest.raises(ValueError, match=r"the views are of 1 × \(28, 28, 1\), 1 × \(16, 16, 1\).*: resize them, or"):
        getattr(method, enter)({"views": own_views(images)[:2]})


# Who looks.


def test_the_monitor_and_the_probe_look_at_views_of_one_size(images, sample):
    method = AllViews(tiny_backbone((None, None, 1)), light_views())
    method.compile("sgd")
    monitor = keras_ssl.callbacks.CollapseMonitor(images[:20])
    history = method.fit(images, batch_size=32, verbose=0, callbacks=[monitor]).history
    assert np.isfinite([history[name][-1] for name in ("alignment", "uniformity", "rank_me", "embedding_spread")]).all()
    a, b = monitor._two_views()
    assert a.shape == b.shape == (20, 28, 28, 1)


@pytest.mark.parametrize(
    ("sizes", "numbers"), [((8, 8, 5, 5), [0, 1]), ((8, 5, 5), [1, 2]), ((8, 5), [0]), ((8,), [0]), ((5, 8, 5), [0, 2])]
)
def test_a_pair_of_views_is_of_one_size(sizes, numbers):
    assert shapes.pair([(None, size, size, 1) for size in sizes]) == numbers


def test_small_views_are_shown_small(images):
    views = light_views(count=1)
    made = [ops.convert_to_numpy(view) for view in views(images[:3], rng=RowRNG(0, np.arange(3, dtype="int32")))]
    for figure, per_row in ((plots.views(images[:3], made), 3), (plots.views_of(images[0], views, 3), 3)):
        widths = [image.get_extent()[1] - image.get_extent()[0] for image in figure.axes[0].images]
        assert min(widths) / max(widths) == pytest.approx(16 / 28)
        assert sum(width < 0.9 * max(widths) for width in widths) == per_row
        heights = [image.get_extent()[2] - image.get_extent()[3] for image in figure.axes[0].images]
        np.testing.assert_allclose(heights, widths)
        lowest = max(image.get_extent()[2] for image in figure.axes[0].images)
        assert lowest <= figure.axes[0].get_ylim()[0] + 1e-6
