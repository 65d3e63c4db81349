"""The random layers: torchvision's arithmetic, their own draw for every image, the range kept."""

import keras
import numpy as np
import pytest
from conftest import compiled, golden
from keras import ops

from keras_ssl import augment
from keras_ssl.augment import blur, color, geometry
from keras_ssl.augment.policies import default_views, odd_tenth

COLOR = {
    case["op"] + str(case.get("factor", case.get("kernel_size", ""))): case for case in golden("torchvision_color")
}
CROPS = golden("torchvision_resized_crop")


def jitter_sequence(x, case):
    for name, factor in case["seq"]:
        x = getattr(color, f"adjust_{name}")(x, ops.full((x.shape[0], 1, 1, 1), factor))
    return x


OPERATIONS = {
    "brightness": lambda x, case: color.adjust_brightness(x, case["factor"]),
    "contrast": lambda x, case: color.adjust_contrast(x, case["factor"]),
    "saturation": lambda x, case: color.adjust_saturation(x, case["factor"]),
    "hue": lambda x, case: color.adjust_hue(x, ops.full((x.shape[0], 1, 1, 1), case["factor"])),
    "grayscale": lambda x, case: ops.broadcast_to(color.grayscale(x), x.shape),
    "solarize": lambda x, case: color.solarize(x, case["threshold"]),
    "gaussian_blur": lambda x, case: blur.gaussian_blur(x, case["kernel_size"], ops.full((x.shape[0],), case["sigma"])),
    "jitter_sequence": jitter_sequence,
    # Keras' own layer does this one as torchvision does, so there is none of ours.
    "autocontrast": lambda x, case: keras.layers.AutoContrast(value_range=(0, 1))(x, training=True),
}


@pytest.mark.parametrize("name", [name for name, case in COLOR.items() if case["op"] in OPERATIONS])
def test_colour_steps_are_torchvisions(name):
    case = COLOR[name]
    made = OPERATIONS[case["op"]](ops.convert_to_tensor(case["x"]), case)
    np.testing.assert_allclose(ops.convert_to_numpy(made), case["y"], atol=2e-6)


@pytest.mark.parametrize("number", range(len(CROPS)))
def test_resized_crops_are_torchvisions(number):
    case = CROPS[number]
    box = [ops.full((1,), float(case[side])) for side in ("top", "left", "height", "width")]
    made = geometry.resized_crop(
        ops.convert_to_tensor(case["x"]), *box, case["size"], case["interpolation"].lower(), case["antialias"]
    )
    np.testing.assert_allclose(ops.convert_to_numpy(made), case["y"], atol=1e-6)


def test_keras_own_jitter_is_another():
    """The reason for ours: the day that Keras' contrast is torchvision's, ours can go."""
    case = COLOR["contrast0.4"]
    layer = keras.layers.RandomContrast((0.4, 0.4 + 1e-6), value_range=(0, 1), seed=0)
    theirs = ops.convert_to_numpy(layer(ops.convert_to_tensor(case["x"]), training=True))
    assert np.abs(theirs - case["y"]).max() > 0.05


LAYERS = {
    "crop": augment.RandomResizedCrop(20),
    "flip": augment.RandomHorizontalFlip(),
    "jitter": augment.RandomColorJitter(0.8, 0.8, 0.8, 0.2),
    "gray": augment.RandomGrayscale(0.5),
    "blur": augment.RandomGaussianBlur(5, probability=1.0),
    "solarization": augment.RandomSolarization(0.5),
    "erasing": augment.RandomErasing(0.9),
    "apply": augment.RandomApply([augment.RandomColorJitter(0.4), augment.RandomSolarization(1.0)], 0.5),
}


def color_images(count=16, side=24):
    return np.random.default_rng(0).uniform(0, 255, (count, side, side, 3)).astype("float32")


def made(layer, images, seed=0, first=0):
    rng = augment.RowRNG(seed, first + ops.arange(len(images)))
    return ops.convert_to_numpy(layer(ops.convert_to_tensor(images), training=True, rng=rng))


@pytest.mark.parametrize("name", LAYERS)
def test_every_image_of_a_batch_has_its_own_draw(name):
    copies = np.repeat(color_images(1), 16, axis=0)
    views = made(LAYERS[name], copies)
    assert len(np.unique(views.reshape(16, -1), axis=0)) >= 2
    if name in ("crop", "jitter", "blur"):
        assert len(np.unique(views.reshape(16, -1), axis=0)) >= 8


@pytest.mark.parametrize("name", LAYERS)
def test_a_rows_view_does_not_depend_on_the_batch_around_it(name):
    images = color_images()
    np.testing.assert_allclose(made(LAYERS[name], images[4:8], first=4), made(LAYERS[name], images)[4:8], atol=1e-3)


@pytest.mark.parametrize("name", LAYERS)
def test_views_keep_the_value_range(name):
    views = made(LAYERS[name], color_images())
    assert views.min() >= -1e-3
    assert views.max() <= 255 + 1e-3
    assert views.max() > 60


@pytest.mark.parametrize("name", LAYERS)
def test_layers_do_the_same_in_another_value_range(name):
    config = LAYERS[name].get_config()
    config["value_range"] = (-1.0, 1.0)
    for inner in config.get("layers", ()):
        inner["config"]["value_range"] = (-1.0, 1.0)
    other = type(LAYERS[name]).from_config(config)
    images = color_images()
    np.testing.assert_allclose(made(other, images / 127.5 - 1.0), made(LAYERS[name], images) / 127.5 - 1.0, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_compile_to_the_same_views(name):
    layer, images = LAYERS[name], color_images()

    def run(x):
        return layer(x, training=True, rng=augment.RowRNG(0, ops.arange(len(images))))

    np.testing.assert_allclose(
        ops.convert_to_numpy(compiled(run)(ops.convert_to_tensor(images))), made(layer, images), atol=2e-3
    )


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_saved_with_all_their_settings(name):
    config = keras.saving.serialize_keras_object(LAYERS[name])
    again = keras.saving.deserialize_keras_object(config)
    np.testing.assert_array_equal(made(again, color_images()), made(LAYERS[name], color_images()))


@pytest.mark.parametrize("name", LAYERS)
def test_without_training_nothing_random_happens(name):
    images = color_images()
    layer = LAYERS[name]
    if name == "crop":
        assert layer(images).shape == (16, 20, 20, 3)
    else:
        np.testing.assert_array_equal(ops.convert_to_numpy(layer(images)), images)


def test_a_layer_used_alone_draws_anew_each_call_and_repeats_by_its_seed():
    images = color_images()
    one, other = (augment.RandomColorJitter(0.5, seed=3) for _ in range(2))
    first, second = (ops.convert_to_numpy(one(images, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 1.0
    np.testing.assert_array_equal(ops.convert_to_numpy(other(images, training=True)), first)
    single = one(images[0], training=True)
    assert tuple(single.shape) == (24, 24, 3)


def test_jitter_takes_its_steps_in_every_order():
    """Against a loop over images that applies the drawn steps in the drawn order, one after another."""
    layer = augment.RandomColorJitter(0.4, 0.4, 0.4, 0.1, value_range=(0, 1))
    images = (color_images(48) / 255).astype("float32")
    rng = augment.RowRNG(0, ops.arange(48))
    inner = rng.fold_in("transform")
    names = ["brightness", "contrast", "saturation", "hue"]
    order = ops.convert_to_numpy(inner.permutation("order", 4))
    assert len({tuple(row) for row in order}) > 15
    expected = []
    for row, image in enumerate(images):
        x = ops.convert_to_tensor(image[None])
        for step in order[row]:
            low, high = (-0.1, 0.1) if names[step] == "hue" else (0.6, 1.4)
            factor = ops.reshape(inner.uniform(names[step], None, low, high)[row], (1, 1, 1, 1))
            x = getattr(color, f"adjust_{names[step]}")(x, factor)
        expected.append(ops.convert_to_numpy(x)[0])
    np.testing.assert_allclose(made(layer, images), np.stack(expected), atol=1e-5)


def test_boxes_have_torchvisions_areas_and_shapes():
    rng = augment.RowRNG(0, ops.arange(20_000))
    top, left, height, width = map(ops.convert_to_numpy, geometry.random_boxes(rng, (64, 64), (0.2, 0.6), (0.5, 2.0)))
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 64).all()
    assert (left + width <= 64).all()
    area = height * width / 64**2
    assert area.min() > 0.18
    assert area.max() < 0.63
    assert abs(area.mean() - 0.4) < 0.01  # uniform between 0.2 and 0.6; nearly all of these boxes fit
    assert abs(np.log(width / height).mean()) < 0.01
    # Places are uniform over where the box fits.
    assert abs((top / np.maximum(64 - height, 1)).mean() - 0.5) < 0.01


def test_boxes_that_never_fit_are_the_largest_central_box():
    rng = augment.RowRNG(0, ops.arange(8))
    top, left, height, width = map(ops.convert_to_numpy, geometry.random_boxes(rng, (10, 40), (1.0, 1.0), (0.5, 0.5)))
    assert (height == 10).all()
    assert (width == 5).all()
    assert (top == 0).all()
    assert (left == 17).all()


def test_half_of_the_images_are_flipped_whole():
    images = color_images(200)
    views = made(augment.RandomHorizontalFlip(), images)
    flipped = (views == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert ((views == images).all(axis=(1, 2, 3)) | flipped).all()
    assert 70 < flipped.sum() < 130


def test_gray_images_have_no_saturation_and_no_hue():
    gray = color_images()[..., :1]
    one = made(augment.RandomColorJitter(0.4, 0.4, 0.9, 0.3), gray)
    np.testing.assert_allclose(one, made(augment.RandomColorJitter(0.4, 0.4), gray), atol=1e-3)


def test_many_bands_take_what_has_a_meaning_for_them():
    bands = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 13)).astype("float32")
    views = augment.simclr(32, channels=13)(bands)
    assert all(tuple(view.shape) == (4, 32, 32, 13) for view in views)
    with pytest.raises(ValueError, match="13"):
        made(augment.RandomGrayscale(), bands)


def test_two_views_differ_and_both_start_from_the_same_image():
    rng = augment.RowRNG(0, ops.arange(16))
    a, b = augment.simclr(24)(color_images(), rng=rng)
    assert np.abs(ops.convert_to_numpy(a) - ops.convert_to_numpy(b)).mean() > 5.0


FOREIGN = {
    "flip": lambda: keras.layers.RandomFlip("horizontal"),
    "rotation": lambda: keras.layers.RandomRotation(0.2),
    "brightness": lambda: keras.layers.RandomBrightness(0.5),
    "rand_augment": lambda: keras.layers.RandAugment(),
    "blur": lambda: keras.layers.RandomGaussianBlur(1.0, 3),
    "rescaling and back": lambda: keras.Sequential([keras.layers.Rescaling(0.5), keras.layers.Rescaling(2.0)]),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_any_keras_layer_makes_views_that_repeat_and_leave_no_state(name):
    layer = FOREIGN[name]()
    views = augment.Views([layer], [layer, augment.RandomHorizontalFlip()])
    views.build((None, 24, 24, 3))
    images = ops.convert_to_tensor(color_images())
    state = [ops.convert_to_numpy(variable) for variable in views.variables]

    def draw(step, first=0):
        rng = augment.RowRNG(0, first + ops.arange(16)).fold_in(ops.convert_to_tensor(np.int32(step)))
        return ops.convert_to_numpy(views(images, rng=rng)[0])

    np.testing.assert_array_equal(draw(1), draw(1))
    np.testing.assert_array_equal(ops.convert_to_numpy(images), color_images())
    if name != "rescaling and back":
        assert np.abs(draw(1) - draw(2)).max() > 0.5, "another step must draw other numbers"
        assert np.abs(draw(1) - draw(1, first=16)).max() > 0.5, "another replica must draw other numbers"
    for before, variable in zip(state, views.variables):
        np.testing.assert_array_equal(before, ops.convert_to_numpy(variable))


def test_views_are_saved_with_foreign_layers():
    views = augment.Views([keras.layers.RandomFlip("horizontal")], [augment.RandomSolarization(threshold=0.3)])
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(views))
    assert isinstance(again.branches[0][0], keras.layers.RandomFlip)
    assert again.branches[1][0].threshold == 0.3


def test_uncompilable_layers_are_named():
    assert augment.simclr(32).uncompilable == []
    views = augment.Views([augment.RandomApply(keras.layers.RandomRotation(0.1, name="turn"))], [])
    assert "turn" in views.uncompilable


def test_lambdas_are_refused_for_they_dont_save():
    for layer in (keras.layers.Lambda(lambda x: x), lambda x: x):
        with pytest.raises(TypeError, match="can't be saved"):
            augment.Views([layer], [layer])


NO_SIZES = (0, -3, (3, 4, 5), (8,), (), (8, 0), 8.0, (8.5, 8), "8", "88", None, True, np.float32(8), np.int64(0))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: augment.RandomResizedCrop(28, scale=(0.5, 1.5)), "scale"),
        (lambda: augment.RandomResizedCrop(28, ratio=(2.0, 1.0)), "ratio"),
        (lambda: augment.RandomResizedCrop(28, interpolation="nearest"), "interpolation"),
        (lambda: augment.RandomResizedCrop(28, probability=0.5), "probability"),
        *((lambda size=size: augment.RandomResizedCrop(size), "RandomResizedCrop: `size`") for size in NO_SIZES),
        (lambda: augment.RandomColorJitter(hue=0.7), "hue"),
        (lambda: augment.RandomColorJitter(brightness=-1), "brightness"),
        (lambda: augment.RandomGaussianBlur(4), "kernel_size"),
        (lambda: augment.RandomGaussianBlur(3, sigma=(0, 1)), "sigma"),
        (lambda: augment.RandomSolarization(threshold=128), "threshold"),
        (lambda: augment.RandomHorizontalFlip(1.5), "probability"),
        (lambda: augment.RandomErasing(value_range=(255, 0)), "value_range"),
    ],
)
def test_senseless_settings_are_refused_by_name(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("size", [8, (8, 6), [8, 6], np.int64(8), np.array([8, 6]), (np.uint8(8), 6)], ids=repr)
def test_sizes_are_whole_numbers_of_python_or_numpy(size):
    layer = augment.RandomResizedCrop(size)
    assert layer.size in ((8, 8), (8, 6))
    assert {type(side) for side in layer.size} == {int}
    assert layer(np.zeros((2, 12, 12, 3), "uint8"), training=True).shape == (2, *layer.size, 3)


GRAPHS = {
    "flip": augment.RandomHorizontalFlip(),
    "crop": augment.RandomResizedCrop(8),
    "several": augment.RandomApply([augment.RandomGrayscale()]),
    "noise": augment.RandomNoise(),
    "volume": augment.RandomFlip3D(),
    "views": augment.Views([augment.RandomHorizontalFlip()]),
    "keras": augment.Views([keras.layers.RandomFlip()]),
}


@pytest.mark.parametrize("how", ["training", "by name", "without training"])
@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_of_tensorflow_work_there_and_are_refused_elsewhere(name, how):
    import tensorflow as tf

    layer, shape = GRAPHS[name], (4, 8, 8, 8, 3) if name == "volume" else (4, 8, 8, 3)
    given = {} if isinstance(layer, augment.Views) else {"training": how != "without training"}

    def change(images):
        return layer(images=images, **given) if how == "by name" else layer(images, **given)

    images = np.zeros(shape, "uint8")
    batches = tf.data.Dataset.from_tensor_slices(images).batch(4)
    if keras.backend.backend() == "tensorflow":
        assert len(list(batches.map(change))) == 1
        return
    told = f"{type(layer).__name__} is called in a TensorFlow graph.*`fit`.*KERAS_BACKEND=tensorflow"
    with pytest.raises(TypeError, match=told):
        batches.map(change)
    made = change(tf.constant(images))  # which holds values
    assert keras.ops.is_tensor(made[0])


def test_a_view_must_be_lists_of_layers():
    with pytest.raises(TypeError, match="one list of layers"):
        augment.Views(augment.RandomHorizontalFlip(), augment.RandomHorizontalFlip())


def test_policies_follow_their_papers():
    def names(views):
        return [type(layer).__name__ for layer in views.branches[0]]

    large = names(augment.simclr(224))
    assert large == [
        "RandomResizedCrop", "RandomHorizontalFlip", "RandomColorJitter", "RandomGrayscale", "RandomGaussianBlur"
    ]  # fmt: skip
    assert "RandomGaussianBlur" not in names(augment.simclr(32)), "appendix B.9: no blur for CIFAR-10"
    jitter = augment.simclr(32, strength=0.5).branches[0][2]
    assert (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) == (0.4, 0.4, 0.4, 0.1)
    assert jitter.probability == 0.8
    assert odd_tenth(224) == 23
    assert "RandomGrayscale" not in names(augment.simclr(64, channels=13))


def test_the_default_policy_follows_the_backbones_images():
    gray = default_views(keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()]), (0, 255))
    color = default_views(keras.Sequential([keras.Input((96, 96, 3)), keras.layers.Flatten()]), (0, 1))
    assert "RandomErasing" in [type(layer).__name__ for layer in gray.branches[0]]
    assert "RandomGrayscale" in [type(layer).__name__ for layer in color.branches[0]]
    assert color.branches[0][0].value_range == (0.0, 1.0)
    assert default_views(keras.Sequential([keras.Input((16,)), keras.layers.Dense(2)]), (0, 255)) is None


@pytest.mark.parametrize("make", [augment.Views, lambda layers: augment.RandomApply(layers, 0.5)])
def test_a_config_can_be_used_more_than_once(make):
    """Keras empties the config of a functional model that it reads."""
    inputs = keras.Input((8, 8, 3))
    config = make([keras.Model(inputs, keras.layers.Rescaling(0.5)(inputs))]).get_config()
    layers = [make([keras.layers.Rescaling(1.0)]).from_config(config) for _ in range(2)]
    assert layers[0].get_config() == layers[1].get_config()
