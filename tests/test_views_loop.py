"""Views that are made image by image, in a compiled loop: the same draws, the same pictures as batch by batch."""

import time

import keras
import numpy as np
import pytest
from conftest import compiled, golden
from keras import ops

from keras_ssl import augment
from keras_ssl.augment import blur, color, geometry, loop
from keras_ssl.augment.layer import apply_layers
from keras_ssl.augment.rng import RowRNG

LOOPS = keras.backend.backend() != "torch"  # which has a way of its own: tests/test_torch_views.py
in_a_loop = pytest.mark.skipif(not LOOPS, reason="torch runs what it is told, and compiles nothing")
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's loop is compiled by itself, in parts"
)
COLOR = {
    case["op"] + str(case.get("factor", case.get("kernel_size", ""))): case for case in golden("torchvision_color")
}
CROPS = golden("torchvision_resized_crop")
STEPS = [name for name, case in COLOR.items() if case["op"] in color._PLANE_STEPS]
BLURS = [name for name, case in COLOR.items() if case["op"] == "gaussian_blur"]


# Each operation, against torchvision, within the bounds of the batched form.


@pytest.mark.parametrize("mirrored", [None, False, True])
@pytest.mark.parametrize("number", range(len(CROPS)))
def test_crops_of_one_image_are_torchvisions(number, mirrored):
    case = CROPS[number]
    for image, expected in zip(case["x"], case["y"]):
        box = [ops.convert_to_tensor(float(case[side])) for side in ("top", "left", "height", "width")]
        flip = None if mirrored is None else ops.convert_to_tensor(mirrored)
        made = geometry.resized_crop_of_one(
            ops.convert_to_tensor(image), box, case["size"], case["interpolation"].lower(), case["antialias"], flip
        )
        np.testing.assert_allclose(ops.convert_to_numpy(made), expected[:, ::-1] if mirrored else expected, atol=1e-6)


@pytest.mark.parametrize("name", STEPS)
def test_color_steps_of_planes_are_torchvisions(name):
    case = COLOR[name]
    step = color._PLANE_STEPS[case["op"]](ops.convert_to_tensor(np.float32(case["factor"])))
    for image, expected in zip(case["x"], case["y"]):
        made = ops.convert_to_numpy(step(ops.convert_to_tensor(image.transpose(2, 0, 1))))
        np.testing.assert_allclose(made.transpose(1, 2, 0), expected, atol=2e-6)


@pytest.mark.parametrize("name", BLURS)
def test_blurs_of_one_image_are_torchvisions(name):
    case = COLOR[name]
    for image, expected in zip(case["x"], case["y"]):
        sigma = ops.convert_to_tensor(np.float32([case["sigma"]]))
        made = blur.blur_of_one(ops.convert_to_tensor(image), case["kernel_size"], sigma, never=ops.less(sigma[0], 0.0))
        np.testing.assert_allclose(ops.convert_to_numpy(made), expected, atol=2e-6)


# The loop, against the layers one after another.


def photographs(count=6, height=50, width=58, channels=3):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels), "uint8")


def both_ways(views, images, step=3):
    """Views by the loop and batch by batch, both compiled, with the same draws."""
    views.build(images.shape)
    rows = np.arange(10, 10 + len(images), dtype="int32")
    assert not loop.runs(views.branches[0], ops.convert_to_tensor(images)), "nothing is compiled here"

    def by_loop(images):
        assert all(loop.runs(branch, images) for branch in views.branches)
        return views(images, rng=RowRNG(5, rows).fold_in(step))

    def by_batch(images):
        rng = RowRNG(5, rows).fold_in(step)
        images = ops.cast(images, "float32")
        return [apply_layers(branch, images, rng.fold_in("view", n)) for n, branch in enumerate(views.branches)]

    made, expected = (compiled(way)(ops.convert_to_tensor(images)) for way in (by_loop, by_batch))
    return [[ops.convert_to_numpy(view) for view in way] for way in (made, expected)]


POLICIES = {
    "simclr": lambda: augment.simclr(34),
    "byol, whose views differ": lambda: augment.byol(34),
    "gray": lambda: augment.small_gray(28),
    "many bands, smaller than the view": lambda: augment.simclr(64, channels=5),
    "layers that are applied together": lambda: augment.Views(
        [augment.RandomApply([augment.RandomColorJitter(0.4, 0.4, 0.2, 0.1), augment.RandomErasing(0.5)], 0.7)],
        [augment.RandomGaussianBlur(5), augment.RandomSolarization(0.5)],
    ),
    "without antialias, another range": lambda: augment.Views(
        [augment.RandomResizedCrop((20, 30), interpolation="bicubic", antialias=False, value_range=(0, 300))],
        [augment.RandomResizedCrop((20, 30), antialias=False), augment.RandomGrayscale(0.5)],
    ),
    "much smaller, by products with matrices": lambda: augment.Views(
        [augment.RandomResizedCrop(3, interpolation="bicubic"), augment.RandomHorizontalFlip()],
    ),
}


@in_a_loop
@pytest.mark.parametrize("name", POLICIES)
def test_the_loop_makes_the_same_views_up_to_rounding(name):
    channels = {"gray": 1, "many bands, smaller than the view": 5}.get(name, 3)
    made, expected = both_ways(POLICIES[name](), photographs(channels=channels))
    for view, batched in zip(made, expected):
        assert view.shape == batched.shape
        # Another draw of a single row would be off by tens.
        np.testing.assert_allclose(view, batched, atol=0.02)


@in_a_loop
def test_what_no_draw_touches_passes_bit_for_bit():
    layers = [augment.RandomGaussianBlur(5, probability=0.0), augment.RandomColorJitter(0.5, 0.5, probability=0.0)]
    images = photographs()
    made, _ = both_ways(augment.Views(layers, layers), images)
    for view in made:
        np.testing.assert_array_equal(view, images)


@in_a_loop
def test_loaded_lists_share_what_is_alike():
    views = augment.Views.from_config(augment.byol(34).get_config())
    assert views.branches[0][0] is not views.branches[1][0]
    assert loop._shared(views.branches) == loop._shared(augment.byol(34).branches) == 4
    assert loop._shared(augment.simclr(34).branches) == 5


class Mine(augment.RandomHorizontalFlip):
    def transform(self, images, rng):
        return images[:, ::-1]


class MineByImage(augment.RandomColorJitter):
    image_by_image = True

    def transform(self, images, rng):
        return images / 2


@pytest.mark.parametrize(
    ("layer", "takes_part"),
    [
        (augment.RandomResizedCrop(8), True),
        (augment.RandomApply([augment.RandomColorJitter(0.4)]), True),
        (augment.RandomApply([Mine()]), False),
        (augment.RandomApply([keras.layers.RandomRotation(0.1)]), False),
        (augment.RandomGaussianBlur(3, dtype="float16"), False),
        (keras.layers.RandomFlip(), False),
        (Mine(), False),
        (MineByImage(), True),
        (augment.RandomNoise(), False),
    ],
)
def test_only_layers_that_are_made_for_it_take_part(layer, takes_part):
    assert loop.takes_part(layer) is takes_part


@in_a_loop
@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([augment.RandomHorizontalFlip()], (4, 16, 16, 3)),  # as fast batch by batch
        ([augment.RandomResizedCrop(8), keras.layers.RandomRotation(0.1)], (4, 16, 16, 3)),
        ([augment.RandomResizedCrop(8)], (4, None, 16, 3)),
    ],
)
def test_other_views_run_as_ever(layers, shape):
    seen = []

    def step(images):
        seen.append(loop.runs(layers, images))
        return ops.sum(images)

    if None in shape:
        return seen.append(loop.runs(layers, keras.KerasTensor(shape))) or None
    compiled(step)(ops.zeros(shape))
    assert seen == [False]


@on_tensorflow
def test_tensorflow_runs_parts_side_by_side_and_compiles_once(monkeypatch):
    """A step that XLA took for a constant would be compiled anew each time."""
    from keras_ssl.backend import tensorflow_views

    images, views = ops.convert_to_tensor(photographs(8)), augment.simclr(34)
    views.build(images.shape)
    made = []
    for parts in (1, 4):
        monkeypatch.setattr(tensorflow_views, "_parts", lambda *_, parts=parts: parts)
        step = backend_step(views)
        seconds = []
        for number in range(4):
            start = time.process_time()
            made.append(step(images, ops.convert_to_tensor(number)))
            seconds.append(time.process_time() - start)
        assert max(seconds[1:]) < 0.2 * seconds[0], seconds
    for one, four in zip(made[:4], made[4:]):
        np.testing.assert_array_equal(one[0], four[0])
        np.testing.assert_array_equal(one[1], four[1])


def backend_step(views):
    import tensorflow as tf

    return tf.function(lambda images, step: views(images, rng=RowRNG(0, np.arange(8)).fold_in(step)), autograph=False)


@on_tensorflow
def test_the_number_of_parts_divides_the_views():
    from keras_ssl.backend import tensorflow_views

    for rows, repeats in ((7, 2), (64, 2), (1, 1)):
        assert rows * repeats % tensorflow_views._parts(rows, repeats) == 0


@pytest.mark.parametrize("seed", [0, 7])
def test_a_purpose_that_a_tensor_chooses_draws_the_same(seed):
    rng = RowRNG(seed, np.arange(5)).fold_in(ops.convert_to_tensor(3))
    purposes = [("view", 0), ("view", 1)]
    for number, purpose in enumerate(purposes):
        chosen = rng.choose(purposes, ops.convert_to_tensor(number)).fold_in(2, "transform")
        expected = rng.fold_in(*purpose).fold_in(2, "transform")
        np.testing.assert_array_equal(*(ops.convert_to_numpy(x.uniform("x", 3)) for x in (chosen, expected)))
        np.testing.assert_array_equal(
            ops.convert_to_numpy(chosen.of_row(ops.convert_to_tensor(4)).uniform("x", 3)),
            ops.convert_to_numpy(expected.uniform("x", 3))[4:],
        )
