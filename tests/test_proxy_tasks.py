"""Tasks that label themselves: each label says what was done to the image, and no edge gives it away."""

import math

import keras
import numpy as np
import pytest
from conftest import compiled, tiny_backbone
from keras import ops
from scipy import ndimage

import keras_ssl
from keras_ssl import augment
from keras_ssl.augment import patches
from keras_ssl.augment.geometry import warp
from keras_ssl.augment.rng import RowRNG
from keras_ssl.methods.rotation import quarter_turns

PLAIN = augment.Views([keras.layers.Identity()])


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def recorded(method, seen):
    """The method, which keeps the outputs of its steps."""

    class Recorded(method):
        def objective(self, outputs, batch):
            seen.append({name: numpy(value) for name, value in outputs.items()})
            return super().objective(outputs, batch)

    return Recorded


def mean_of(channels, shape=(None, None)):
    """A backbone whose features are the means of the channels."""
    return keras.Sequential([keras.Input((*shape, channels)), keras.layers.GlobalAveragePooling2D()])


def outputs(model, seen, images):
    model.compile("sgd", run_eagerly=True)
    model.evaluate(images, batch_size=len(images), verbose=0)
    return seen[-1]


# Rotation.


def test_the_four_rotations_are_quarter_turns(images):
    for number, turned in enumerate(quarter_turns(images.astype("float32"))):
        np.testing.assert_array_equal(numpy(turned), np.rot90(images, number, axes=(1, 2)))


def test_rotation_asks_for_square_images(images):
    model = keras_ssl.Rotation(tiny_backbone((None, None, 1)))
    model.compile("sgd")
    with pytest.raises(ValueError, match=r"(?s)square.*28×20"):
        model.fit(images[:, :, :20], batch_size=16, verbose=0)


def test_rotation_of_a_network_that_sees_nothing_costs_ln_4(images):
    head = keras.layers.Dense(4, kernel_initializer="zeros")
    model = keras_ssl.Rotation(tiny_backbone(), head=head)
    model.compile("sgd")
    got = model.evaluate(images, batch_size=16, verbose=0, return_dict=True)
    assert got["loss"] == pytest.approx(math.log(4.0), rel=1e-5)
    assert got["rotation_accuracy"] == pytest.approx(0.25)
    assert list(model.collapse_losses(16).values()) == [math.log(4.0)]


# Distortion.


def homography(corners):
    """The projective map of the unit square's corners to these, from its eight linear equations."""
    rows, right = [], []
    for (u, v), (x, y) in zip([(0, 0), (1, 0), (1, 1), (0, 1)], corners):
        rows += [[u, v, 1, 0, 0, 0, -u * x, -v * x], [0, 0, 0, u, v, 1, -u * y, -v * y]]
        right += [x, y]
    return np.append(np.linalg.solve(np.array(rows, float), np.array(right, float)), 1.0).reshape(3, 3)


def test_a_warp_is_the_projective_map_of_its_corners(images):
    generator = np.random.default_rng(0)
    some = images[:4, :, :20].astype("float32")  # not square: width and height must not be taken for each other
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) + generator.uniform(-0.2, 0.2, (4, 4, 2))
    ours = numpy(warp(ops.convert_to_tensor(some), ops.convert_to_tensor(corners.astype("float32"))))
    height, width = 28, 20
    u, v = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    for number in range(4):
        x, y, w = np.einsum("ij,jhw->ihw", homography(corners[number]), np.stack([u, v, np.ones_like(u)]))
        place = [y / w * height - 0.5, x / w * width - 0.5]
        expected = ndimage.map_coordinates(some[number, :, :, 0].astype("float64"), place, order=1, mode="reflect")
        np.testing.assert_allclose(ours[number, :, :, 0], expected, atol=0.05)  # of 255: positions are float32


def test_corners_in_their_places_change_nothing(images):
    some = images[:2].astype("float32")
    corners = np.tile(np.array([[0, 0], [1, 0], [1, 1], [0, 1]], "float32"), (2, 1, 1))
    np.testing.assert_allclose(numpy(warp(some, ops.convert_to_tensor(corners))), some, atol=1e-2)


def test_three_corners_make_an_affine_map_and_four_a_projective_one():
    for corners, parallel in ((3, True), (4, False)):
        model = keras_ssl.Distortion(tiny_backbone(), corners=corners)
        moves = np.random.default_rng(0).uniform(-1, 1, (5, corners, 2)).astype("float32")
        first, second, third, fourth = numpy(model._moved(ops.convert_to_tensor(moves))).transpose(1, 0, 2)
        assert np.allclose(third, second + fourth - first, atol=1e-6) == parallel


def test_distortion_of_a_network_that_sees_nothing_explains_nothing(images):
    head = keras.layers.Dense(8, kernel_initializer="zeros")
    model = keras_ssl.Distortion(tiny_backbone(), head=head)
    model.compile("sgd")
    got = model.evaluate(images, batch_size=64, verbose=0, return_dict=True)
    assert got["loss"] == pytest.approx(1 / 3, rel=0.1), "512 draws"
    assert got["explained"] == pytest.approx(1.0 - 3.0 * got["loss"], abs=1e-5)


def test_what_is_predicted_is_where_the_corners_went(images):
    seen = []
    model = recorded(keras_ssl.Distortion, seen)(tiny_backbone(), views=PLAIN)
    moves = outputs(model, seen, images)["moves"]
    assert moves.shape == (64, 8)
    assert -1.0 <= moves.min() < -0.9
    assert 0.9 < moves.max() <= 1.0


# Exemplar.


def test_each_image_is_a_class(images):
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(32)]
    model = keras_ssl.Exemplar(keras.Sequential([keras.Input((28, 28, 1)), *layers]), exemplars=64, views=PLAIN)
    model.compile(keras.optimizers.Adam(1e-2))
    history = model.fit(images, batch_size=16, epochs=15, verbose=0).history
    # Shuffled batches: only an index that goes with its image lets it be learned.
    assert history["exemplar_accuracy"][0] < 0.5
    assert history["exemplar_accuracy"][-1] > 0.9


def test_a_stream_brings_the_number_of_each_image(images):
    class Stream(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, number):
            rows = np.arange(16 * number, 16 * number + 16, dtype="int32")
            return {"image": images[rows], "index": rows}

    model = keras_ssl.Exemplar(tiny_backbone(), exemplars=64, views=PLAIN)
    model.compile("sgd")
    assert np.isfinite(model.fit(Stream(), verbose=0).history["loss"]).all()


def test_a_number_that_is_no_exemplars_stops_the_run(images):
    model = keras_ssl.Exemplar(tiny_backbone(), exemplars=64, views=PLAIN)
    model.compile("sgd")
    for wrong in (-1, 64):
        with pytest.raises(FloatingPointError, match="'exemplar'"):
            model.fit({"image": images, "index": np.full(64, wrong)}, batch_size=16, verbose=0)


def test_a_policy_of_two_views_is_refused_where_one_would_be_dropped():
    with pytest.raises(ValueError, match=r"Rotation takes 1 view\(s\) of an image, and `views` make 2"):
        keras_ssl.Rotation(tiny_backbone(), views=augment.small_gray(28))


def test_more_images_than_exemplars_and_held_out_images_are_refused(images):
    model = keras_ssl.Exemplar(tiny_backbone(), exemplars=32)
    model.compile("sgd")
    with pytest.raises(ValueError, match="64 images and `exemplars` is 32"):
        model.fit(images, batch_size=16, verbose=0)
    with pytest.raises(ValueError, match="held-out images belong to none"):
        model.fit(images[:32], batch_size=16, validation_data=images[32:], verbose=0)
    with pytest.raises(ValueError, match="exemplars"):
        keras_ssl.Exemplar(tiny_backbone(), exemplars=1)


# Patches.


def test_patches_are_cut_where_they_are_asked_for(images):
    top, left = np.array([[0, 5], [3, 20], [21, 7]], "int32"), np.array([[1, 21], [0, 4], [9, 9]], "int32")
    for number, cut in enumerate(patches.cut(images[:3].astype("float32"), top, left, 7)):
        expected = [
            images[row, top[row, number] : top[row, number] + 7, left[row, number] : left[row, number] + 7]
            for row in range(3)
        ]
        np.testing.assert_array_equal(numpy(cut), expected)


def test_patches_are_brought_to_one_brightness_and_contrast(images):
    dark, light = images[:4, 8:16, 8:16] * 0.2, images[:4, 8:16, 8:16] * 0.2 + 150.0
    one, other = (
        numpy(patches.normalized(ops.convert_to_tensor(p.astype("float32")), (0, 255))) for p in (dark, light)
    )
    np.testing.assert_allclose(one, other, atol=0.05)
    assert one.min() >= 0.0
    assert one.max() <= 255.0
    flat = numpy(patches.normalized(np.full((1, 4, 4, 1), 7.0, "float32"), (0, 255)))
    np.testing.assert_allclose(flat, 127.5)


def test_dropped_colours_hold_nothing_of_the_image_but_a_mean():
    generator = np.random.default_rng(0)
    given = generator.uniform(0, 255, (2, 6, 6, 3)).astype("float32")
    noise = generator.normal(size=given.shape).astype("float32")
    made = numpy(patches.drop_colours(given, np.array([1.0, 2.0], "float32"), noise))
    for row, kept in enumerate((1, 2)):
        np.testing.assert_allclose(made[row, :, :, kept], given[row, :, :, kept], rtol=1e-5)
        for other in {0, 1, 2} - {kept}:
            expected = given[row, :, :, kept].mean() + 0.01 * given[row, :, :, kept].std() * noise[row, :, :, other]
            np.testing.assert_allclose(made[row, :, :, other], expected, rtol=1e-4)


@pytest.mark.parametrize(("pieces", "count"), [(4, 24), (4, 4), (9, 100), (16, 50)])
def test_permutations_are_different_from_each_other(pieces, count):
    orders = patches.permutations(pieces, count)
    assert orders.shape == (count, pieces)
    assert len(np.unique(orders, axis=0)) == count
    assert (np.sort(orders, axis=1) == np.arange(pieces)).all()
    np.testing.assert_array_equal(orders, patches.permutations(pieces, count))
    distances = [(a != b).sum() for i, a in enumerate(orders) for b in orders[:i]]
    # Four orders of four pieces are a Latin square: no piece is twice in one place.
    assert min(distances) >= {(4, 4): 4, (4, 24): 2, (9, 100): 6, (16, 50): 13}[pieces, count]
    at_random = np.argsort(np.random.default_rng(1).random((count, pieces)), axis=1)
    assert np.mean(distances) >= np.mean([(a != b).sum() for i, a in enumerate(at_random) for b in at_random[:i]])


@pytest.mark.parametrize("count", [1, 25])
def test_permutations_that_are_not_there_are_refused(count):
    with pytest.raises(ValueError, match="between 2 and the 24 orders of 4 pieces"):
        patches.permutations(4, count)


# Relative position.


def places(n, side, channels=4):
    """Images whose pixels hold their own row and column, again and again."""
    rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    return np.tile(np.stack([rows, columns] * (channels // 2), axis=-1), (n, 1, 1, 1)).astype("float32")


def test_the_label_is_where_the_second_patch_lies_and_patches_keep_apart():
    seen, side = [], 64
    model = recorded(keras_ssl.RelativePatch, seen)(
        mean_of(4), views=PLAIN, head=keras.layers.Identity(), drop_colours=False
    )
    patch, gap, jitter = model.geometry(side, side)
    assert (patch, gap, jitter) == (16, 8, 2)
    made = outputs(model, seen, places(256, side))
    middle, other = made["logits"][:, :2], made["logits"][:, 4:6]
    neighbors = np.array([(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)])
    towards = neighbors[made["position"]]
    moved = other - middle
    expected = towards * (patch + gap)
    assert np.abs(moved - expected).max() <= 2 * jitter
    # Along an axis on which they differ at least a gap's width less both jitters lies between them.
    assert np.abs(moved[towards != 0]).min() >= patch + gap - 2 * jitter
    assert np.abs(middle - (side - 1) / 2).max() <= jitter + 1
    assert np.bincount(made["position"], minlength=8).min() > 12, "all eight come up"
    assert len(np.unique(middle, axis=0)) == (2 * jitter + 1) ** 2, "and all jitters"


def test_a_photograph_shows_one_colour():
    seen = []
    model = recorded(keras_ssl.RelativePatch, seen)(
        mean_of(4), views=PLAIN, head=keras.layers.Identity(), drop_colours=True
    )
    made = outputs(model, seen, places(64, 32))
    # Of the channels, which were row, column, row, column, each patch has one, and its mean in the others.
    middle = made["logits"][:, :4]
    assert np.abs(middle - middle.mean(axis=1, keepdims=True)).max() < 1.0


# Jigsaw.


def test_the_label_is_the_order_that_the_pieces_are_in(monkeypatch):
    monkeypatch.setattr(patches, "normalized", lambda piece, value_range: piece)
    seen = []
    # Pieces of one color each, 0, 1, 2, 3, of which the features are the means.
    image = np.kron(np.array([[0, 1], [2, 3]]), np.ones((16, 16)))[None, :, :, None].astype("float32")
    model = recorded(keras_ssl.Jigsaw, seen)(
        mean_of(1), views=PLAIN, head=keras.layers.Identity(), grid=2, permutations=4, value_range=(0, 3)
    )
    made = outputs(model, seen, np.tile(image, (64, 1, 1, 1)))
    np.testing.assert_allclose(made["logits"], numpy(model.orders)[made["order"]], atol=1e-5)
    assert set(made["order"]) == {0, 1, 2, 3}


def test_pieces_lie_at_random_in_their_cells(monkeypatch):
    monkeypatch.setattr(patches, "normalized", lambda piece, value_range: piece)
    seen, side = [], 32
    model = recorded(keras_ssl.Jigsaw, seen)(
        mean_of(4), views=PLAIN, head=keras.layers.Identity(), grid=2, permutations=16
    )
    cell, patch = model.geometry(side)
    assert (cell, patch) == (16, 14)
    made = outputs(model, seen, places(256, side))
    pieces = numpy(model.orders)[made["order"]]
    corner = made["logits"].reshape(256, 4, 4)[:, :, :2] - (patch - 1) / 2
    free = corner - np.stack([pieces // 2, pieces % 2], axis=-1) * cell
    np.testing.assert_array_equal(np.unique(np.round(free, 3)), [0.0, 1.0, 2.0])


@pytest.mark.parametrize("grid", [2, 4])
def test_any_grid_of_images_of_32_pixels(grid):
    model = keras_ssl.Jigsaw(tiny_backbone((None, None, 1), strides=1, widths=(4,)), grid=grid)
    model.compile("sgd")
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 1), dtype="uint8")
    got = model.fit(images, batch_size=16, verbose=0).history
    assert np.isfinite(got["loss"][0])
    assert model.orders.shape[0] == min(100, math.factorial(grid**2))


@pytest.mark.parametrize(
    ("make", "side", "words"),
    [
        (lambda: keras_ssl.Jigsaw(mean_of(1), grid=3), 2, "Jigsaw: a grid of 3×3 in 2 pixels"),
        (lambda: keras_ssl.Jigsaw(mean_of(1), grid=3, gap=10), 28, "leaves no patch beside a gap of 10"),
        (lambda: keras_ssl.RelativePatch(mean_of(1), patch=12), 28, "three patches of 12 pixels"),
        (lambda: keras_ssl.RelativePatch(mean_of(1), patch=4, gap=2, jitter=2), 28, "patches would touch"),
        (lambda: keras_ssl.RelativePatch(mean_of(1)), 2, "RelativePatch: three patches of 0 pixels"),
    ],
    ids=["grid", "gap", "patch", "jitter", "tiny"],
)
def test_images_smaller_than_grid_or_patch_are_refused(make, side, words):
    model = make()
    model.compile("sgd")
    with pytest.raises(ValueError, match=words):
        model.fit(np.zeros((16, side, side, 1), "uint8"), batch_size=16, verbose=0)


def test_no_permutations_are_not_the_default_ones():
    with pytest.raises(ValueError, match="`permutations`"):
        keras_ssl.Jigsaw(mean_of(1), permutations=0)


@pytest.mark.parametrize("grid", [1, 2.0])
def test_a_grid_of_one_cell_is_refused(grid):
    with pytest.raises(ValueError, match="Jigsaw: `grid`"):
        keras_ssl.Jigsaw(mean_of(1), grid=grid)


@pytest.mark.parametrize(
    ("options", "words"), [({"corners": 2}, "corners"), ({"strength": 0.25}, "strength"), ({"strength": 0}, "strength")]
)
def test_distortions_without_meaning_are_refused(options, words):
    with pytest.raises(ValueError, match=f"Distortion: `{words}`"):
        keras_ssl.Distortion(tiny_backbone(), **options)


def test_a_head_of_the_wrong_width_is_refused():
    with pytest.raises(ValueError, match=r"Rotation: `head` must give \(n, 4\), and head gives \(n, 5\)"):
        keras_ssl.Rotation(tiny_backbone(), head=keras.layers.Dense(5, name="head")).build()


def test_a_backbone_of_one_size_sees_patches_in_that_size(images):
    """Any backbone serves: patches are brought to the size that it was made for."""
    model = keras_ssl.RelativePatch(tiny_backbone())
    model.compile("sgd")
    assert np.isfinite(model.fit(images, batch_size=16, verbose=0).history["loss"]).all()


def test_patches_and_warps_compile(images):
    some = ops.convert_to_tensor(images[:4].astype("float32"))
    rows = np.arange(4, dtype="int32")

    def run(images):
        rng = RowRNG(0, rows).fold_in("test")
        corners = ops.reshape(rng.uniform("corners", 8, -0.1, 0.1), (-1, 4, 2)) + ops.convert_to_tensor(
            np.array([[0, 0], [1, 0], [1, 1], [0, 1]], "float32")
        )
        top = ops.floor(rng.uniform("top", 2) * 20)
        return warp(images, corners), *patches.cut(images, top, top, 8)

    for one, other in zip(compiled(run)(some), run(some)):
        np.testing.assert_allclose(numpy(one), numpy(other), atol=1e-2)
