"""Barlow Twins against Lightly's values and gradients, and against what it must be."""

import keras
import numpy as np
import pytest
from conftest import compiled, golden, tiny_backbone, value_and_gradients
from keras import ops

import keras_ssl
from keras_ssl import augment, heads, losses

CASES = golden("lightly_barlow")


def embeddings(n=12, d=6, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(n, d)).astype("float32") for _ in range(2)]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_value_and_gradients_are_lightlys(number):
    case = CASES[number]
    value, gradients = value_and_gradients(
        lambda a, b: losses.barlow_twins(a, b, off_diagonal_weight=case["lambda_param"]), case["z0"], case["z1"]
    )
    assert value == pytest.approx(float(case["loss64"]), rel=1e-5, abs=1e-9)
    for gradient, name in zip(gradients, ("grad_z064", "grad_z164")):
        np.testing.assert_allclose(gradient, case[name], rtol=1e-4, atol=1e-5)


def test_barlow_twins_is_zero_for_identical_white_views():
    # The columns of a Hadamard matrix but the first: mean 0, and orthogonal to each other.
    h = np.array([[1.0]])
    for _ in range(4):
        h = np.block([[h, h], [h, -h]])
    white = 100.0 * h[:, 1:].astype("float32")  # large beside the 1e-5 in the root of the variance
    assert float(losses.barlow_twins(white, white)) == pytest.approx(0.0, abs=1e-9)
    assert float(losses.barlow_twins(white, np.roll(white, 1, axis=1))) > 1.0


def test_the_loss_is_equation_1_of_the_matrix_of_equation_2():
    a, b = (array.astype("float64") for array in embeddings(9, 4))
    matrix = np.zeros((4, 4))
    for i in range(4):
        for j in range(4):
            x, y = a[:, i] - a[:, i].mean(), b[:, j] - b[:, j].mean()
            matrix[i, j] = (x @ y / 9) / np.sqrt((x @ x / 9 + 1e-5) * (y @ y / 9 + 1e-5))
    np.testing.assert_allclose(
        ops.convert_to_numpy(losses.cross_correlation(*embeddings(9, 4))), matrix, rtol=1e-5, atol=1e-6
    )
    off = sum(matrix[i, j] ** 2 for i in range(4) for j in range(4) if i != j)
    expected = 0.5 * (sum((matrix[i, i] - 1.0) ** 2 for i in range(4)) + 0.1 * off)
    assert float(losses.barlow_twins(a, b, off_diagonal_weight=0.1, scale=0.5)) == pytest.approx(expected, rel=1e-5)


def test_neither_mean_nor_size_of_a_dimension_matters():
    a, b = embeddings(32, 4)
    moved = a * np.array([1.0, 3.0, 10.0, 100.0], "float32") + np.array([5.0, 0.0, -3.0, 40.0], "float32")
    assert float(losses.barlow_twins(moved, b)) == pytest.approx(float(losses.barlow_twins(a, b)), rel=1e-4)


def test_a_dimension_that_is_constant_correlates_with_nothing_and_has_a_finite_gradient():
    a, b = embeddings(8, 3)
    a[:, 1] = 7.0
    value, gradients = value_and_gradients(losses.barlow_twins, a, b)
    assert np.isfinite(value)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    np.testing.assert_allclose(ops.convert_to_numpy(losses.cross_correlation(a, b))[1], 0.0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_cast_before_it_is_normalized(dtype):
    a, b = (ops.cast(array, dtype) for array in embeddings(16, 8))
    rounded = [ops.cast(array, "float32") for array in (a, b)]
    half = losses.barlow_twins(a, b)
    assert keras.backend.standardize_dtype(half.dtype) == "float32"
    assert float(half) == float(losses.barlow_twins(*rounded))


def test_it_compiles():
    a, b = map(ops.convert_to_tensor, embeddings(16))
    function = compiled(lambda a, b: losses.barlow_twins(a, b))
    assert float(function(a, b)) == pytest.approx(float(losses.barlow_twins(a, b)), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"off_diagonal_weight": -1.0}, "off_diagonal_weight"),
        ({"off_diagonal_weight": float("nan")}, "off_diagonal_weight"),
        ({"scale": 0.0}, "scale"),
        ({"scale": float("inf")}, "scale"),
    ],
)
def test_senseless_weights_are_refused_by_name(options, words):
    with pytest.raises(ValueError, match=f"barlow_twins: `{words}`"):
        losses.barlow_twins(*embeddings(), **options)
    with pytest.raises(ValueError, match=f"BarlowTwins: `{words}`"):
        keras_ssl.BarlowTwins(tiny_backbone(), **options)


def test_one_image_has_no_correlation_and_is_refused():
    a, b = embeddings(1, 4)
    with pytest.raises(ValueError, match="2 or more"):
        losses.barlow_twins(a, b)


def test_views_of_different_shapes_are_refused():
    a, _ = embeddings(8, 4)
    for other in (a[:6], a[:, :3], a[:, 0]):
        with pytest.raises(ValueError, match="rows of one shape"):
            losses.barlow_twins(a, other)


# The method.


def model(**options):
    projector = heads.mlp([16, 8], last_batch_norm=False, last_bias=False)
    return keras_ssl.BarlowTwins(tiny_backbone(), projector=projector, **options)


def test_the_paper_projector_is_three_layers_of_8192_the_last_without_norm_and_bias():
    # Built symbolically: the weights of the real one are half a gigabyte.
    head = heads.mlp([8192, 8192, 8192], last_batch_norm=False, last_bias=False)
    kinds = [type(layer).__name__ for layer in head.layers]
    assert kinds == ["Dense", "BatchNormalization", "ReLU", "Dense", "BatchNormalization", "ReLU", "Dense"]
    assert [layer.use_bias for layer in head.layers if isinstance(layer, keras.layers.Dense)] == [False] * 3
    assert keras_ssl.BarlowTwins(tiny_backbone()).projector is None


def test_trivial_losses_are_what_collapsed_and_unrelated_embeddings_cost():
    method = model(off_diagonal_weight=0.1, scale=0.5)
    method.build((None, 28, 28, 1))
    collapsed, unrelated = method.collapse_losses(64).values()
    one = np.ones((64, 8), "float32")
    assert float(losses.barlow_twins(one, one, 0.1, 0.5)) == pytest.approx(collapsed)
    random = [float(losses.barlow_twins(*embeddings(64, 8, seed), 0.1, 0.5)) for seed in range(200)]
    assert np.mean(random) == pytest.approx(unrelated, rel=0.02)


def test_trivial_losses_need_the_width_of_the_embedding():
    open_size = keras.Sequential([keras.layers.Conv2D(4, 3)])
    with pytest.raises(ValueError, match="build"):
        keras_ssl.BarlowTwins(open_size).collapse_losses(64)


@pytest.mark.papers_views
def test_the_default_views_are_the_papers():
    color = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Conv2D(4, 3)])
    views = keras_ssl.BarlowTwins(color).views
    assert type(views.branches[1][-1]).__name__ == "RandomSolarization"
    assert "RandomErasing" in [type(layer).__name__ for layer in model().views.branches[0]]


def test_byols_policy_follows_table_6():
    first, second = augment.byol(224).branches
    names = ["RandomResizedCrop", "RandomHorizontalFlip", "RandomColorJitter", "RandomGrayscale", "RandomGaussianBlur"]
    assert [type(layer).__name__ for layer in first] == names
    assert [type(layer).__name__ for layer in second] == [*names, "RandomSolarization"]
    jitter = first[2]
    assert (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) == (0.4, 0.4, 0.2, 0.1)
    assert (jitter.probability, first[3].probability, first[1].probability) == (0.8, 0.2, 0.5)
    assert (first[4].probability, second[4].probability, second[5].probability) == (1.0, 0.1, 0.2)
    assert (first[4].kernel_size, first[4].sigma, second[5].threshold) == (23, (0.1, 2.0), 0.5)
    assert first[0].interpolation == "bicubic"


def test_byols_policy_leaves_out_what_has_no_meaning():
    bands = [type(layer).__name__ for layer in augment.byol(64, channels=13).branches[1]]
    assert "RandomGrayscale" not in bands
    small = augment.byol(32, value_range=(0, 1))
    assert "RandomGaussianBlur" not in [type(layer).__name__ for layer in small.branches[0]]
    images = np.random.default_rng(0).uniform(0, 1, (4, 32, 32, 3)).astype("float32")
    a, b = small(images)
    assert tuple(a.shape) == tuple(b.shape) == (4, 32, 32, 3)
    assert 0.0 <= float(ops.min(b)) <= float(ops.max(b)) <= 1.0


def test_one_pass_is_one_forward_pass(images):
    seen = []

    class Counting(keras.layers.Layer):
        def call(self, x):
            seen.append(tuple(x.shape))
            return x

    backbone = keras.Sequential([keras.Input((28, 28, 1)), Counting(), keras.layers.Conv2D(4, 3, 2)])
    for one_pass, shapes in ((True, [(8, 28, 28, 1)]), (False, [(4, 28, 28, 1)] * 2)):
        method = keras_ssl.BarlowTwins(backbone, projector=keras.layers.Dense(4), one_pass=one_pass)
        method.build((None, 28, 28, 1))
        seen.clear()
        method.embed((images[:4], images[4:8]), training=False)
        assert seen == shapes
