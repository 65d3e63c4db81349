"""Views a few images at a time, on torch's CPU: the batch's draws, and its pixels up to rounding."""

import keras
import numpy as np
import pytest
from conftest import golden
from keras import ops

from keras_ssl import augment, backend
from keras_ssl.augment import chunks
from keras_ssl.augment.layer import apply_layers

on_torch = pytest.mark.skipif(
    keras.backend.backend() != "torch" or ops.zeros(()).device.type != "cpu",
    reason="other backends have a compiled loop, and a GPU takes a batch at once",
)

ROUNDING = 1e-3
"""Of 255: what the order of sums changes. What is wrong is larger: a hue's sector is 255, a box off by one a pixel."""

BRANCHES = {
    "crop": [augment.RandomResizedCrop(20)],
    "crop to a rectangle": [augment.RandomResizedCrop((12, 30))],
    "crop without antialias": [augment.RandomResizedCrop(9, antialias=False)],
    "cubic crop": [augment.RandomResizedCrop(20, interpolation="bicubic")],
    "cubic crop without antialias": [augment.RandomResizedCrop(9, interpolation="bicubic", antialias=False)],
    "flip": [augment.RandomHorizontalFlip()],
    "jitter": [augment.RandomColorJitter(0.8, 0.8, 0.8, 0.2)],
    "some jitter": [augment.RandomColorJitter(0.8, 0.0, 0.4, 0.5, probability=0.4)],
    "no jitter": [augment.RandomColorJitter()],
    "gray": [augment.RandomGrayscale(0.5)],
    "blur": [augment.RandomGaussianBlur(7)],
    "solarization": [augment.RandomSolarization(0.5, threshold=0.3)],
    "erasing": [augment.RandomErasing(0.9, fill=7.0), augment.RandomErasing(0.5)],
    "apply": [
        augment.RandomApply(
            [augment.RandomColorJitter(0.4, hue=0.1, probability=0.7), augment.RandomResizedCrop((24, 30))]
        ),
        augment.RandomApply(augment.RandomApply(augment.RandomGrayscale(0.6), 0.6), 0.9),
    ],
    "nothing": [],
    "simclr": augment.simclr(40).branches[0],
    "byol": augment.byol(40).branches[1],
    "small gray": augment.small_gray(24).branches[0],
}


def pictures(count=21, side=24, channels=3):
    images = np.random.default_rng(0).integers(0, 256, (count, side, side + 6, channels)).astype("uint8")
    images[0] = 128  # no color, no contrast
    images[1, :, :, 1:] = 0
    return ops.convert_to_tensor(images)


def both(branch, images, step=3):
    """The views by chunks and by the batch, as arrays."""
    rng = augment.RowRNG(0, 5 + ops.arange(len(images))).fold_in(ops.convert_to_tensor(np.int32(step)))
    assert chunks.runs(branch, images, rng)
    given = ops.convert_to_numpy(images).copy()
    views = augment.Views(branch, branch)(images, rng=rng)
    np.testing.assert_array_equal(ops.convert_to_numpy(images), given)
    batch = [apply_layers(branch, ops.cast(images, "float32"), rng.fold_in("view", view)) for view in range(2)]
    return [np.stack([ops.convert_to_numpy(view) for view in made]) for made in (views, batch)]


@on_torch
@pytest.mark.parametrize("images_a_chunk", [1, 5, 64])
@pytest.mark.parametrize("name", BRANCHES)
def test_views_are_those_of_the_batch(name, images_a_chunk, monkeypatch):
    monkeypatch.setattr(backend.planes, "chunk", lambda *shape: images_a_chunk)
    ours, batch = both(BRANCHES[name], pictures())
    assert ours.dtype == "float32"
    np.testing.assert_allclose(ours, batch, atol=ROUNDING)


@on_torch
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("channels", [1, 13])
def test_any_channels_and_types_are_taken(channels, dtype):
    images = ops.cast(pictures(6, 48, channels), dtype)
    ours, batch = both(augment.simclr(40, channels=channels).branches[0], images)
    np.testing.assert_allclose(ours, batch, atol=ROUNDING)


@on_torch
def test_values_keep_their_range():
    branch = augment.byol(40, value_range=(-1, 1)).branches[1]
    ours, batch = both(branch, ops.cast(pictures(), "float32") / 127.5 - 1.0)
    np.testing.assert_allclose(ours, batch, atol=ROUNDING / 127.5)


@on_torch
def test_images_of_one_channel_are_not_changed_in_place():
    ours, batch = both(BRANCHES["jitter"], ops.cast(pictures(6, 24, 1), "float32"))
    np.testing.assert_allclose(ours, batch, atol=ROUNDING)


@on_torch
def test_no_images_make_no_views():
    ours, batch = both(BRANCHES["byol"], pictures()[:0])
    assert ours.shape == batch.shape == (2, 0, 40, 40, 3)


@on_torch
@pytest.mark.parametrize("name", ["flip", "some jitter", "gray", "blur", "solarization"])
def test_rows_that_drew_nothing_pass_unchanged(name):
    images = pictures()
    (layer,) = BRANCHES[name]
    rng = augment.RowRNG(0, ops.arange(len(images)))
    drew = ops.convert_to_numpy(rng.fold_in("view", 0, 0).bernoulli("apply", layer.probability))
    assert 0 < drew.sum() < len(drew)
    view = ops.convert_to_numpy(augment.Views([layer], [layer])(images, rng=rng)[0])
    np.testing.assert_array_equal(view[~drew], ops.convert_to_numpy(images)[~drew])
    # The first two images have nothing that a flip, gray or a blur could change.
    assert (view != ops.convert_to_numpy(images)).any(axis=(1, 2, 3))[2:][drew[2:]].all()


@on_torch
def test_what_has_no_such_way_runs_as_a_batch():
    class Darker(augment.RandomHorizontalFlip):
        def transform(self, images, rng):
            return images / 2

    images = pictures()
    rng = augment.RowRNG(0, ops.arange(len(images)))
    flip = augment.RandomHorizontalFlip()
    for branch in (
        [Darker()],
        [augment.RandomApply([flip, Darker()])],
        [flip, keras.layers.Rescaling(0.5)],
        [augment.RandomHorizontalFlip(dtype="float16")],
    ):
        assert not chunks.runs(branch, images, rng)
    np.testing.assert_allclose(
        ops.convert_to_numpy(augment.Views([Darker(probability=1.0)], [flip])(images)[0]),
        ops.convert_to_numpy(images) / 2,
    )

    class Same(augment.RandomHorizontalFlip):
        """Changes nothing of what a flip does."""

    assert chunks.runs([flip, Same()], images, rng)
    assert not chunks.runs([flip], images[0], rng), "series, volumes, one image"


@on_torch
def test_other_devices_and_compiled_steps_run_as_a_batch(monkeypatch):
    import torch

    images = pictures()
    rng = augment.RowRNG(0, ops.arange(len(images)))
    flip = [augment.RandomHorizontalFlip()]
    assert not chunks.runs(flip, images.to("meta"), rng)
    assert not chunks.runs(flip, images.float().requires_grad_(), rng)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not chunks.runs(flip, images, rng)


@on_torch
def test_a_blur_that_reaches_beyond_the_image_is_refused():
    with pytest.raises(ValueError, match="use a smaller one"):
        both([augment.RandomGaussianBlur(49)], pictures())


@on_torch
@pytest.mark.parametrize("layer", [augment.RandomGrayscale(), augment.RandomColorJitter(hue=0.1)])
def test_color_steps_refuse_many_bands(layer):
    with pytest.raises(ValueError, match="have 13"):
        both([layer], pictures(channels=13))


COLORS = [x for x in golden("torchvision_color") if x["op"] not in ("autocontrast", "posterize")]


@on_torch
@pytest.mark.parametrize("number", range(len(COLORS)))
def test_color_steps_are_torchvisions(number):
    """The golden values of `test_augment.py`, within the same bounds."""
    import torch

    case = COLORS[number]
    planes, count = torch.from_numpy(case["x"]).permute(0, 3, 1, 2).contiguous(), len(case["x"])
    steps = {
        "grayscale": lambda: [("grayscale", None)],
        "solarize": lambda: [("solarize", None)],
        "gaussian_blur": lambda: [("gaussian_blur", None)],
        "jitter_sequence": lambda: case["seq"],
    }
    for name, factor in steps.get(case["op"], lambda: [(case["op"], case.get("factor"))])():
        if name == "grayscale":
            planes = backend.planes.grayscale(planes, 0.0)
        elif name == "solarize":
            planes = backend.planes.solarize(planes, case["threshold"], 0.0, 1.0)
        elif name == "gaussian_blur":
            offsets = np.arange(case["kernel_size"]) - case["kernel_size"] // 2
            taps = np.exp(-0.5 * np.square(offsets / case["sigma"]))
            taps = torch.from_numpy(np.tile(taps / taps.sum(), (count, 1)).astype("float32"))
            planes = backend.planes.blur(planes, taps, np.arange(count))
        else:
            order, factors = np.zeros((count, 1), "int64"), {name: np.full(count, factor, "float32")}
            planes = backend.planes.jitter(planes, order, factors, np.arange(count), 0.0, 1.0)
    np.testing.assert_allclose(planes.permute(0, 2, 3, 1).numpy(), case["y"], atol=2e-6)


CROPS = golden("torchvision_resized_crop")


@on_torch
@pytest.mark.parametrize("number", range(len(CROPS)))
def test_resized_crops_are_torchvisions(number):
    import torch

    case = CROPS[number]
    box = [int(case[side]) for side in ("top", "left", "height", "width")]
    planes = torch.from_numpy(case["x"]).permute(0, 3, 1, 2)
    size = tuple(int(side) for side in case["size"])
    made = backend.planes.crop(planes, [box], size, case["interpolation"].lower(), bool(case["antialias"]))
    np.testing.assert_allclose(made.permute(0, 2, 3, 1).numpy(), case["y"], atol=1e-6)


@pytest.mark.parametrize("purpose", [(), (ops.convert_to_tensor(np.int32(7)), "view", 1)])
def test_numpy_draws_the_same_numbers(purpose):
    rng = augment.RowRNG(5, 3 + ops.arange(64)).fold_in(*purpose)
    draws = [
        lambda rng: rng.uniform("a"),
        lambda rng: rng.uniform("b", 10, 0.3, 0.7),
        lambda rng: rng.fold_in(3, "c", ops.convert_to_tensor(np.int32(9))).bernoulli("d", 0.3),
        lambda rng: rng.normal("e", 3),
        lambda rng: rng.permutation("f", 4),
    ]
    for draw in draws:
        made = draw(rng.on_host())
        assert isinstance(made, np.ndarray)
        np.testing.assert_array_equal(made, ops.convert_to_numpy(draw(rng)))
