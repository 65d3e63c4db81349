"""MAE and SimMIM: the masks, the losses, the two parts of a backbone, and what both methods promise of them."""

import keras
import numpy as np
import pytest
from conftest import value_and_gradients
from keras import layers, ops
from methods_under_test import METHODS, SMALL_DECODER, one_light_view, tiny_vit
from test_tokens import hub

import keras_ssl
from keras_ssl import augment, backbones, losses, networks, token_parts
from keras_ssl.augment import masks
from keras_ssl.augment.rng import RowRNG


def numpy(x):
    return ops.convert_to_numpy(x)


def rng(rows=6, seed=3):
    return RowRNG(seed, np.arange(rows, dtype="int32")).fold_in("test")


# Masks.


@pytest.mark.parametrize("blocks", [None, 1, 3])
@pytest.mark.parametrize("grid", [(12,), (4, 6), (2, 3, 4)])
def test_an_order_holds_each_patch_once_and_differs_from_row_to_row(grid, blocks):
    order = numpy(masks.mask_order(rng(), grid, blocks))
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(np.prod(grid)), (6, 1)))
    assert len({tuple(row) for row in order}) == 6
    hidden = numpy(masks.first_of(order, 5))
    assert (hidden.sum(axis=1) == 5).all()
    assert all(set(np.flatnonzero(row)) == set(of[:5]) for row, of in zip(hidden, order))


def test_an_order_belongs_to_its_row_wherever_that_lies():
    whole = numpy(masks.mask_order(rng(8), (4, 4), 2))
    part = RowRNG(3, np.array([5, 2], "int32")).fold_in("test")
    np.testing.assert_array_equal(numpy(masks.mask_order(part, (4, 4), 2)), whole[[5, 2]])


def test_orders_are_these_on_every_backend():
    """Integers alone are compared: one that differed in a bit would hide other patches on another backend."""
    order = masks.mask_order(rng(2, seed=1), (3, 3), 1), masks.mask_order(rng(2, seed=1), (3, 3))
    np.testing.assert_array_equal(numpy(order[0])[:, :4], [[4, 1, 5, 2], [8, 7, 5, 4]])
    np.testing.assert_array_equal(numpy(order[1])[:, :4], [[5, 3, 6, 0], [5, 4, 0, 6]])


def test_one_block_is_a_box_that_lies_anywhere():
    hidden = numpy(masks.first_of(masks.mask_order(rng(400), (8, 8), 1), 20)).reshape(-1, 8, 8)
    rows, columns = hidden.any(axis=2).sum(axis=1), hidden.any(axis=1).sum(axis=1)
    # A box of its sides holds little else than the 20: its outermost rows or columns may be begun.
    assert ((rows * columns - 20) < 2 * np.maximum(rows, columns)).mean() > 0.95
    assert (rows >= 7).any()
    assert (columns >= 7).any()
    assert (hidden.mean(axis=0) > 0.05).all()
    assert hidden.mean(axis=0).max() < 0.6


def test_patches_are_cut_row_by_row_and_put_back():
    images = np.arange(2 * 4 * 6 * 2, dtype="float32").reshape(2, 4, 6, 2)
    cut = numpy(masks.patches_of(images, (2, 3)))
    assert cut.shape == (2, 4, 12)
    np.testing.assert_array_equal(cut[1, 2], images[1, 2:4, 0:3].reshape(-1))
    np.testing.assert_array_equal(numpy(masks.images_of(cut, (2, 2), (2, 3))), images)


@pytest.mark.parametrize(("shape", "patch"), [((12, 3), (4,)), ((4, 4, 8, 1), (2, 4, 2))])
def test_series_and_volumes_are_cut_and_put_back(shape, patch):
    given = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    grid = tuple(side // of for side, of in zip(shape, patch))
    np.testing.assert_array_equal(numpy(masks.images_of(masks.patches_of(given, patch), grid, patch)), given)


def test_a_finer_mask_has_the_cells_of_the_coarse_one():
    fine = numpy(masks.finer(np.array([[True, False, False, True]]), (2, 2), (1, 2))).reshape(2, 4)
    np.testing.assert_array_equal(fine, [[True, True, False, False], [False, False, True, True]])


@pytest.mark.parametrize(
    ("ratio", "patches", "up", "masked"),
    [
        (0.75, 196, False, 147),  # 49 are left
        (0.75, 49, False, 37),  # int(12.25) are left
        (0.9, 10, False, 9),  # 10 · (1 − 0.9) is a little less than 1
        (0.99, 16, False, 15),  # one is left
        (0.6, 36, True, 22),  # ⌈21.6⌉
        (0.6, 5, True, 3),
        (0.01, 4, False, 1),
    ],
)
def test_how_many_are_masked_is_rounded_as_the_authors_do(ratio, patches, up, masked):
    assert masks.masked_count("MAE", ratio, patches, up) == masked


# Losses, against the equations.


@pytest.mark.parametrize("normalize", [True, False])
def test_maes_loss_and_its_gradient_are_those_of_the_equation(normalize):
    generator = np.random.default_rng(0)
    predicted, patches = generator.normal(size=(2, 3, 5, 12)).astype("float32")
    masked = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 0, 1], [1, 0, 0, 1, 1]], bool)
    target = patches.astype("float64")
    if normalize:
        target = (target - target.mean(-1, keepdims=True)) / np.sqrt(target.var(-1, ddof=1, keepdims=True) + 1e-6)
        np.testing.assert_allclose(numpy(losses.normalized_patches(patches)), target, atol=1e-5)
    expected = (((predicted - target) ** 2).mean(-1) * masked).sum() / masked.sum()
    slope = 2.0 * (predicted - target) / 12 * masked[:, :, None] / masked.sum()

    def loss(predicted):
        given = losses.normalized_patches(patches) if normalize else patches
        return ops.mean(losses.masked_squared(predicted, given, masked))

    value, (gradient,) = value_and_gradients(loss, predicted)
    assert value == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, slope, atol=1e-6)


def test_simmims_loss_and_its_gradient_are_those_of_the_equation():
    generator = np.random.default_rng(1)
    predicted, target = generator.normal(size=(2, 2, 4, 6)).astype("float32")
    masked = np.array([[1, 1, 0, 1], [0, 1, 1, 1]], bool)
    expected = (np.abs(predicted - target) * masked[:, :, None]).sum() / (6 * masked.sum())
    value, (gradient,) = value_and_gradients(
        lambda predicted: ops.mean(losses.masked_absolute(predicted, target, masked)), predicted
    )
    assert value == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, np.sign(predicted - target) * masked[:, :, None] / 36, atol=1e-6)


def test_what_is_seen_costs_nothing_and_a_row_without_masks_is_0():
    target = np.zeros((2, 2, 3), "float32")
    predicted = np.array([[[1, 1, 1], [9, 9, 9]], [[5, 5, 5], [5, 5, 5]]], "float32")
    masked = np.array([[True, False], [False, False]])
    for loss in (losses.masked_squared, losses.masked_absolute):
        np.testing.assert_allclose(numpy(loss(predicted, target, masked)), [1.0, 0.0])


def test_a_patch_of_one_color_is_all_0():
    flat = np.full((1, 2, 16), 0.7, "float32")
    np.testing.assert_allclose(numpy(losses.normalized_patches(flat)), 0.0, atol=1e-3)


def test_the_guess_of_who_sees_no_shapes_is_the_mean_of_what_is_visible():
    target = np.array([[[1.0, 3.0], [5.0, 5.0], [100.0, 100.0]]], "float32")
    found = numpy(losses.mean_of_visible(target, np.array([[False, False, True]])))
    np.testing.assert_allclose(found, [[[3.5]]])


def test_shapes_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="masked_squared: `predicted`"):
        losses.masked_squared(np.zeros((2, 3, 4)), np.zeros((2, 3, 5)), np.zeros((2, 3)))


# The two parts of a backbone.


def around(inner):
    """A model around another: rescaled before, pooled after."""
    images = keras.Input(inner.input_shape[1:])
    return keras.Model(images, layers.GlobalAveragePooling1D()(inner(layers.Rescaling(1 / 255)(images))))


def in_a_sequence(inner):
    shape = inner.input_shape[1:]
    return keras.Sequential([keras.Input(shape), layers.Rescaling(1 / 255), inner, layers.GlobalAveragePooling1D()])


# Of twelve and of eight patches MAE leaves three and two: of one alone, attention has nothing to choose from, and
# queries and keys no gradient.
VIT = {"patch_size": 4, "width": 8, "depth": 1, "heads": 2}
PARTS = {
    "vit": lambda: backbones.vit((16, 16, 3), **VIT),
    "vit, pooled": lambda: backbones.vit((16, 16, 3), pooling="avg", **VIT),
    "series": lambda: backbones.vit((48, 3), value_range=None, **VIT),
    "volumes": lambda: backbones.vit((8, 8, 8, 1), value_range=None, **VIT),
    "ViT": lambda: hub("ViT"),
    "ViT inside of a model": lambda: around(hub("ViT")),
    "ViT inside of a sequence": lambda: in_a_sequence(hub("ViT")),
    "DINOv2": lambda: hub("DINOv2"),
}
WHOLE = {"DINOv3": lambda: hub("DINOv3"), "Swin": lambda: hub("Swin")}


def batch_for(backbone, rows=2):
    shape = backbones.input_shape(backbone)[1:]
    return np.random.default_rng(0).uniform(0, 255, (rows, *shape)).astype("float32")


@pytest.mark.parametrize("name", [*PARTS, *WHOLE])
def test_both_parts_together_are_the_backbone(name):
    backbone = backbones.of_one_array({**PARTS, **WHOLE}[name]())
    parts, images = token_parts.find(backbone), batch_for(backbone)
    tokens = parts.embed(ops.convert_to_tensor(images))
    assert tokens.shape == (2, parts.first + np.prod(parts.grid), parts.width)
    found = numpy(parts.encode(tokens, images=ops.convert_to_tensor(images)))
    assert found.shape == (2, parts.first + np.prod(parts.out_grid), parts.out_width)
    given = numpy(backbone(images))
    if given.ndim == 2:
        found = found.mean(axis=1)
    np.testing.assert_allclose(found, given, atol=1e-5)
    assert backbone.get_layer(backbone.layers[-1].name).output is not None, "and the backbone can still be cut"


@pytest.mark.parametrize("name", PARTS)
def test_tokens_can_be_left_out(name):
    """Attention alone joins tokens: what is left out can't be told from what is seen."""
    backbone = backbones.of_one_array(PARTS[name]())
    parts, images = token_parts.find(backbone), batch_for(backbone)
    other = images.copy()
    other[:, -parts.patch[0] :] = 0.0  # the last patches along the first axis
    seen = parts.first + np.prod(parts.grid[1:], dtype=int)
    encoded = [numpy(parts.encode(parts.embed(ops.convert_to_tensor(x))[:, :seen])) for x in (images, other)]
    assert encoded[0].shape == (2, seen, parts.out_width)
    np.testing.assert_array_equal(*encoded)


@pytest.mark.parametrize("name", ["vit", "ViT", "series", "DINOv2", "DINOv3", "Swin"])
def test_a_masked_token_has_its_place_and_nothing_of_its_patch(name):
    backbone = backbones.of_one_array({**PARTS, **WHOLE}[name]())
    parts, images = token_parts.find(backbone), batch_for(backbone)
    token = None if parts.own_mask_token else np.full(parts.width, 0.5, "float32")
    mask = np.zeros((2, np.prod(parts.grid)), bool)
    mask[:, 1:3] = True

    def masked(images):
        return numpy(parts.masked(ops.convert_to_tensor(images), ops.convert_to_tensor(mask), token, 127.5))

    tokens, plain = masked(images), numpy(parts.embed(ops.convert_to_tensor(images)))
    kept = np.concatenate([np.ones((2, parts.first), bool), ~mask], axis=1)
    np.testing.assert_allclose(tokens[kept], plain[kept], atol=1e-5)
    np.testing.assert_array_equal(tokens[0][~kept[0]], tokens[1][~kept[1]])
    if parts.width and name not in ("Swin", "DINOv3"):  # whose places are not in the tokens
        first, second = tokens[0][~kept[0]]
        assert np.abs(first - second).max() > 1e-4
    else:
        first, second = tokens[0][~kept[0]]
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_a_functional_model_of_ones_own_names_its_layers():
    images = keras.Input((8, 8, 1))
    x = layers.Reshape((4, 6))(layers.Conv2D(6, 4, 4, name="patches")(images))
    x = layers.Dense(6, name="placed")(x)
    model = keras.Model(images, layers.Dense(5, name="tokens")(layers.Dense(6)(x)))
    parts = token_parts.find(model)
    assert (parts.patch, parts.grid, parts.first, parts.width, parts.out_width) == ((4, 4), (2, 2), 0, 6, 5)
    method = keras_ssl.MAE(model, **SMALL_DECODER)
    method.compile("adam", run_eagerly=keras.backend.backend() == "tensorflow")
    assert np.isfinite(method.fit(np.random.rand(4, 8, 8, 1) * 255, batch_size=4, verbose=0).history["loss"]).all()


def test_a_model_that_resizes_its_images_is_refused():
    images = keras.Input((32, 32, 3))
    resized = layers.Resizing(16, 16)(images)
    backbone = keras.Model(images, backbones.vit((16, 16, 3), **VIT)(resized))
    with pytest.raises(ValueError, match=r"takes images of \(32, 32, 3\), and makes its patches of \(16, 16, 3\)"):
        keras_ssl.MAE(backbone)


# The methods.


def trained(method, images, epochs=1):
    method.compile(keras.optimizers.Adam(1e-3), run_eagerly=keras.backend.backend() == "tensorflow")
    return method.fit(images, batch_size=4, epochs=epochs, verbose=0).history


def slow_but(*names):
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in [*PARTS, *WHOLE, "map"]]


@pytest.mark.parametrize("name", slow_but("series"))
@pytest.mark.parametrize("method", [keras_ssl.MAE, keras_ssl.SimMIM], ids=lambda method: method.__name__)
def test_any_backbone_that_can_is_trained_and_saved(method, name, tmp_path):
    kinds = {**PARTS, **WHOLE, "map": lambda: backbones.resnet8((16, 16, 3), width=4)}
    if method is keras_ssl.MAE and name not in PARTS:
        pytest.skip("refused, see below")
    backbone = kinds[name]()
    options = {"value_range": None if name in ("series", "volumes") else (0, 255)}
    model = method(backbone, **options, **(SMALL_DECODER if method is keras_ssl.MAE else {}))
    images = batch_for(model.backbone, rows=8)
    before = [numpy(weight).copy() for weight in backbone.trainable_weights]
    assert np.isfinite(trained(model, images)["loss"]).all()
    still = {
        weight.path for weight, old in zip(backbone.trainable_weights, before) if np.array_equal(numpy(weight), old)
    }
    assert not {path for path in still if "mask_token" not in path}, "all of the given backbone is trained"
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    if name == "DINOv2":  # keras-hub stretches trained positions when it saves them: docs/ecosystem.md
        loaded.set_weights(model.get_weights())
    for one, other in zip(model.reconstruct(images[:2]), loaded.reconstruct(images[:2])):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["MAE", "SimMIM"])
def test_what_is_hidden_is_not_seen(name):
    """The prediction does not change with the hidden pixels, and changes with the visible ones."""
    model = METHODS[name]()
    model.build((None, 28, 28, 1))
    images = np.random.default_rng(0).uniform(0, 255, (4, 28, 28, 1)).astype("float32")
    order = masks.mask_order(rng(4), (4, 4))
    hidden = masks.first_of(order, 12 if name == "MAE" else 10)

    def predicted(images):
        if name == "MAE":
            return numpy(model.predict_patches(ops.convert_to_tensor(images), order))
        return numpy(model.predict_squares(ops.convert_to_tensor(images), hidden))

    patches = numpy(masks.patches_of(images, (7, 7)))
    for changed, same in ((numpy(hidden), True), (~numpy(hidden), False)):
        other = np.where(changed[:, :, None], 255.0 - patches, patches)
        other = numpy(masks.images_of(other.astype("float32"), (4, 4), (7, 7)))
        assert np.allclose(predicted(images), predicted(other), atol=1e-5) == same


def test_mae_puts_each_token_back_into_its_place():
    """With a decoder that gives what it is given, each visible patch's prediction is its own token."""

    class Bare(keras_ssl.MAE):
        def build_heads(self, width):
            self.bridge = self.decoder = keras.layers.Identity()
            self.mask_token = self.add_weight(shape=(16,), initializer=keras.initializers.Constant(-7.0))

    model = Bare(tiny_vit(), one_light_view(), **SMALL_DECODER)
    model.build((None, 28, 28, 1))
    images = np.random.default_rng(0).uniform(0, 255, (3, 28, 28, 1)).astype("float32")
    order = numpy(masks.mask_order(rng(3), (4, 4)))
    found = numpy(model.predict_patches(ops.convert_to_tensor(images), ops.convert_to_tensor(order)))
    parts = token_parts.find(model.backbone)
    tokens = numpy(parts.embed(ops.convert_to_tensor(images)))
    for row in range(3):
        seen = order[row, 12:]
        np.testing.assert_array_equal(found[row, order[row, :12]], -7.0)
        alone = numpy(parts.encode(ops.convert_to_tensor(tokens[row : row + 1, seen])))[0]
        np.testing.assert_allclose(found[row, seen], alone, atol=1e-5)


def test_the_decoder_knows_places_and_makes_nothing_of_the_class_token():
    decoder = networks.patch_decoder((2, 3), 1, 16, 1, 2, 5)
    assert decoder.output_shape == (None, 6, 5)
    alike = numpy(decoder(np.zeros((1, 7, 16), "float32")))[0]
    assert np.unique(alike.round(4), axis=0).shape[0] == 6


def test_explained_is_the_share_below_the_flat_guess():
    model = METHODS["SimMIM"]()
    target = np.random.default_rng(0).normal(size=(3, 16, 49)).astype("float32")
    masked = np.tile(np.arange(16) < 10, (3, 1))
    outputs = {"predicted": target, "target": target, "masked": masked}
    terms, metrics = model.objective(outputs, {})
    np.testing.assert_array_equal(numpy(terms["simmim"]), 0.0)
    assert float(metrics["explained"]) == pytest.approx(1.0)
    flat = target[:, 10:].mean(axis=(1, 2), keepdims=True) + np.zeros_like(target)
    _, metrics = model.objective({**outputs, "predicted": flat.astype("float32")}, {})
    assert float(metrics["explained"]) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("name", ["MAE", "SimMIM"])
def test_reconstructions_keep_what_is_seen_and_the_range(name, images):
    model = METHODS[name]()
    model.build((None, 28, 28, 1))
    masked, made = model.reconstruct(images[:4])
    hidden = np.any(masked != images[:4], axis=(1, 2, 3))
    assert hidden.all()
    assert masked.shape == made.shape == (4, 28, 28, 1)
    visible = np.isclose(masked, images[:4]) & ~np.isclose(masked, 127.5)
    np.testing.assert_allclose(made[visible], images[:4][visible], atol=1e-3)
    assert made.min() >= 0.0
    assert made.max() <= 255.0
    np.testing.assert_array_equal(model.reconstruct(images[:4])[0], masked)
    asked = model.pretext_examples(images[:4])
    assert len(asked["pictures"]) == len(asked["captions"][0]) == 3
    assert asked["captions"][0][0] == {"MAE": "75 % left out", "SimMIM": "62 % hidden"}[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MAE", "SimMIM"])
def test_half_precision_trains(name, images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = METHODS[name]()
        assert np.isfinite(trained(model, images[:8])["loss"]).all()
        assert keras.backend.standardize_dtype(model.decoder(np.zeros((1, 16, 16))).dtype) == "bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")


def test_the_views_are_the_papers_and_series_stay_as_they_are():
    crop, flip = keras_ssl.MAE(tiny_vit(), **SMALL_DECODER).views.branches[0]
    assert (crop.size, crop.scale, crop.interpolation) == ((28, 28), (0.2, 1.0), "bicubic")
    assert isinstance(flip, augment.RandomHorizontalFlip)
    assert keras_ssl.SimMIM(tiny_vit()).views.branches[0][0].scale == (0.67, 1.0)
    assert keras_ssl.MAE(PARTS["series"](), value_range=None, **SMALL_DECODER).views.branches == [[]]


@pytest.mark.parametrize("mask_size", [7, 14, (14, 7)])
def test_simmim_hides_squares_of_any_size_that_fits(mask_size, images):
    model = keras_ssl.SimMIM(tiny_vit(), one_light_view(), mask_size=mask_size)
    model.build((None, 28, 28, 1))
    masked, _ = model.reconstruct(images[:2] * 0 + 200)
    height, width = (mask_size,) * 2 if isinstance(mask_size, int) else mask_size
    squares = numpy(masks.patches_of(masked, (height, width)))
    assert set(np.unique(squares)) == {127.5, 200.0}
    assert (squares.std(axis=-1) == 0).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: keras_ssl.MAE(backbones.resnet8((16, 16, 3), width=4)), "MAE: `backbone` must be one of patches.*vit"),
        (lambda: keras_ssl.MAE(hub("DINOv3")), "MAE.*can be left out.*rotary.*SimMIM"),
        (lambda: keras_ssl.MAE(hub("Swin")), "MAE.*windows.*SimMIM"),
        (lambda: keras_ssl.MAE(tiny_vit(), mask_ratio=1.0), "MAE: `mask_ratio` is a share"),
        (lambda: keras_ssl.MAE(tiny_vit(), blocks=0), "MAE: `blocks`"),
        (lambda: keras_ssl.MAE(tiny_vit(), decoder_width=30), "multiple of decoder_heads=16"),
        (lambda: keras_ssl.MAE(tiny_vit(), decoder_depth=0), "`decoder_depth` 1 or more"),
        (
            lambda: keras_ssl.MAE(backbones.vit((8, 1), 1, 8, 1, 2), **SMALL_DECODER, value_range=None),
            "MAE: a patch of one number.*normalize=False",
        ),
        (lambda: keras_ssl.MAE(backbones.vit((4, 4, 1), 4, 8, 1, 2)), "MAE: the images are one patch"),
        (lambda: keras_ssl.SimMIM(tiny_vit(), mask_size=10), "SimMIM: `mask_size` must divide"),
        (lambda: keras_ssl.SimMIM(tiny_vit(), mask_size=4), "SimMIM: `mask_size` must divide"),
        (lambda: keras_ssl.SimMIM(tiny_vit(), mask_ratio=0.0), "SimMIM: `mask_ratio`"),
        (
            lambda: keras_ssl.SimMIM(backbones.resnet8((20, 20, 1), width=4)),
            "SimMIM: `backbone` must be one of patches that is known, or give a map of cells that divide",
        ),
        (lambda: keras_ssl.SimMIM(backbones.resnet8((16, 16, 3), width=4, pooling="avg")), "SimMIM: `backbone` must"),
    ],
)
def test_what_can_not_be_is_refused_with_the_way_out(make, words):
    with pytest.raises(ValueError, match=words):
        make()
