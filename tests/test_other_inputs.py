"""Inputs that are no images of one size, and views and backbones in the forms in which users have them."""

import warnings

import keras
import numpy as np
import pytest
from conftest import compiled
from keras import layers, ops

import keras_ssl
from keras_ssl import augment, evaluate
from keras_ssl.augment.views import as_views
from keras_ssl.testing import tiny_backbone

SHAPES = {"series": (24, 2), "table": (6,), "volume": (8, 9, 10, 1), "spectrogram": (20, 12, 1)}


def backbone_of(kind, open_sides=False):
    """A backbone whose output is a feature map, where there is one."""
    shape = SHAPES[kind]
    if open_sides:
        shape = (*[None] * (len(shape) - 1), shape[-1])
    body = {
        "series": lambda: layers.Conv1D(8, 3, activation="relu"),
        "table": lambda: layers.Dense(8, activation="relu"),
        "volume": lambda: layers.Conv3D(8, 3, activation="relu"),
        "spectrogram": lambda: layers.Conv2D(8, 3, activation="relu"),
    }[kind]()
    return keras.Sequential([keras.Input(shape), body])


def examples(kind, rows=32, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, *SHAPES[kind])).astype("float32")


VIEWS = {
    "series": lambda: augment.series(24),
    "table": lambda: augment.RandomNoise(0.3),
    "volume": lambda: augment.volumes(SHAPES["volume"][:3]),
    "spectrogram": lambda: augment.spectrograms(20),
}


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


# Forms of `views`.


def test_layers_of_one_view_are_drawn_as_often_as_the_method_takes_views():
    crop, flip = augment.RandomResizedCrop(28), keras.layers.RandomFlip("horizontal")
    for given in ([crop, flip], (crop, flip), keras.Sequential([crop, flip]), keras.layers.Pipeline([crop, flip])):
        assert keras_ssl.SimCLR(tiny_backbone(), views=given).views.branches == [[crop, flip]] * 2
    assert keras_ssl.BYOL(tiny_backbone(), views=flip).views.branches == [[flip]] * 2
    assert keras_ssl.Triplet(tiny_backbone(), views=flip).views.branches == [[flip]] * 2
    assert keras_ssl.Rotation(tiny_backbone(), views=flip).views.branches == [[flip]]
    assert keras_ssl.SelfSupervisedModel(tiny_backbone(), views=flip).views.branches == [[flip]] * 2


def test_views_of_one_list_differ_from_each_other_and_from_row_to_row():
    images = np.tile(np.random.default_rng(0).uniform(0, 255, (1, 28, 28, 1)), (4, 1, 1, 1)).astype("float32")
    for given in (augment.RandomResizedCrop(28), keras.Sequential([augment.RandomResizedCrop(28)])):
        a, b = map(numpy, as_views(given)(images))
        assert not np.allclose(a, b)
        assert not np.allclose(a[0], a[1])
    a, b = map(numpy, as_views(keras.layers.RandomBrightness(0.5))(images))
    assert not np.allclose(a, b)


def test_a_model_with_views_of_a_list_is_saved_with_them(tmp_path):
    model = keras_ssl.SimCLR(tiny_backbone(), views=[augment.RandomHorizontalFlip(), keras.layers.GaussianNoise(0.5)])
    model.compile("sgd")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [[type(layer).__name__ for layer in branch] for branch in loaded.views.branches] == [
        ["RandomHorizontalFlip", "GaussianNoise"]
    ] * 2


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("simclr", r"augment\.simclr\(32\), a Keras layer or a list"),
        (lambda images: images, "a Keras layer or a list"),
        ([], "a list of layers"),
        ([keras.layers.Lambda(lambda x: x)], "can't be saved"),
        ([[keras.layers.RandomFlip()], []], r"Views\(\*views\)"),
    ],
)
def test_what_makes_no_views_is_refused(given, sentence):
    with pytest.raises(TypeError, match=sentence):
        keras_ssl.SimCLR(tiny_backbone(), views=given)


def test_a_layer_of_another_range_is_refused_in_every_form():
    for given in (keras.layers.RandomBrightness(0.1), [augment.RandomGrayscale()]):
        with pytest.raises(ValueError, match="give both the range"):
            keras_ssl.SimCLR(tiny_backbone(), views=given, value_range=(0, 1))


# Series, tables, volumes, spectrograms.


@pytest.mark.parametrize("kind", SHAPES)
def test_inputs_that_are_no_images_train_and_are_evaluated(kind):
    x, labels = examples(kind), np.arange(32) % 2
    model = keras_ssl.BarlowTwins(
        backbone_of(kind), views=VIEWS[kind](), projector=keras_ssl.heads.mlp([8]), value_range=None
    )
    model.compile("sgd")
    assert np.isfinite(model.fit(x, batch_size=16, verbose=0).history["loss"]).all()
    features = evaluate.extract_features(model, x)
    maps = model.predict(x, verbose=0)
    np.testing.assert_allclose(features, maps.reshape(32, -1, 8).mean(axis=1), atol=1e-5)
    assert evaluate.classifier(model, 2)(x).shape == (32, 2)
    assert 0.0 <= evaluate.knn(features, labels, features, labels, k=1) <= 1.0


@pytest.mark.parametrize("kind", ["series", "table", "volume"])
def test_a_grid_is_of_feature_maps_of_images(kind):
    with pytest.raises(ValueError, match="`grid` is 2"):
        evaluate.extract_features(backbone_of(kind), examples(kind), grid=2)
    with pytest.raises(ValueError, match="`grid` is 2"):
        evaluate.classifier(backbone_of(kind), 2, grid=2)


def test_a_model_without_a_range_refuses_what_is_not_finite_and_layers_that_need_a_range(tmp_path):
    x = examples("series")
    model = keras_ssl.SimCLR(backbone_of("series"), views=augment.series(24), value_range=None)
    model.compile("sgd")
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").value_range == model.value_range
    x[3, 4, 1] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        model.fit(x, batch_size=16, verbose=0)
    with pytest.raises(ValueError, match="value_range"):
        keras_ssl.SimCLR(tiny_backbone(), views=augment.simclr(28), value_range=None)
    with pytest.raises(ValueError, match="value_range"):
        keras_ssl.SimCLR(tiny_backbone(), value_range=None)  # SimCLR's own policy has colors


class Changing(keras.utils.PyDataset):
    """Batches of which each is of another size than the one before it."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    @property
    def num_batches(self):
        return 4

    def __getitem__(self, index):
        return self.make(np.random.default_rng(index), 16 + 6 * (index % 3))


CHANGING = {
    "series": ((None, 2), lambda rng, size: rng.random((8, size, 2), "float32"), lambda: augment.RandomJitter(0.1)),
    "images": (
        (None, None, 3),
        lambda rng, size: rng.random((8, size, size + 2, 3), "float32"),
        lambda: augment.simclr(40, value_range=(0, 1)),
    ),
}


@pytest.mark.parametrize(
    "own",
    [pytest.param(False, marks=pytest.mark.slow, id="views of the model"), pytest.param(True, id="views of ones own")],
)
@pytest.mark.parametrize("kind", CHANGING)
def test_the_size_may_change_from_batch_to_batch(kind, own):
    shape, make, views = CHANGING[kind]
    convolution = layers.Conv1D(8, 3) if len(shape) == 2 else layers.Conv2D(8, 3)
    model = keras_ssl.SimCLR(
        keras.Sequential([keras.Input(shape), convolution]), views=None if own else views(), value_range=(0, 1)
    )
    model.compile("sgd")
    batches = Changing((lambda rng, size: {"views": (make(rng, size), make(rng, size))}) if own else make)
    assert np.isfinite(model.fit(batches, epochs=2, verbose=0).history["loss"]).all()


def test_image_layers_of_open_size_draw_what_they_draw_of_known_size():
    images = np.random.default_rng(0).random((4, 20, 26, 3), "float32")
    for layer in (
        augment.RandomResizedCrop(16, value_range=(0, 1)),
        augment.RandomErasing(value_range=(0, 1)),
        augment.RandomGaussianBlur(5, value_range=(0, 1)),
    ):

        def made(x, layer=layer):
            return layer(x, training=True, rng=augment.RowRNG(3, ops.arange(4)))

        expected = numpy(made(images))
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            for jit in (False, True):
                signature = [tf.TensorSpec((4, None, None, 3), "float32")]
                given = tf.function(made, input_signature=signature, jit_compile=jit)(images)
                np.testing.assert_allclose(numpy(given), expected, atol=1e-5)
        else:
            np.testing.assert_allclose(numpy(compiled(made)(ops.convert_to_tensor(images))), expected, atol=1e-5)


# The layers.


def drawn(layer, x, seed=0):
    return numpy(layer(x, training=True, rng=augment.RowRNG(seed, ops.arange(len(x)))))


def ramps(rows=256, time=50):
    return np.tile(np.arange(time, dtype="float32")[None, :, None], (rows, 1, 2))


def test_a_part_of_a_ramp_is_a_ramp_of_the_drawn_length():
    made = drawn(augment.RandomTimeCrop(25, scale=(0.5, 1.0)), ramps())[:, 1:-1]  # the ends may be cut
    steps = np.diff(made[..., 0], axis=1)
    np.testing.assert_allclose(steps, steps[:, :1] * np.ones_like(steps), atol=1e-4)
    assert 1.0 <= steps.min() < 1.05
    assert 1.95 < steps.max() <= 2.001
    np.testing.assert_array_equal(made[..., 0], made[..., 1])


def test_the_whole_of_a_series_at_its_own_length_is_the_series():
    x = examples("series")
    layer = augment.RandomTimeCrop(24, scale=(1.0, 1.0))
    np.testing.assert_allclose(drawn(layer, x), x, atol=1e-5)
    np.testing.assert_array_equal(numpy(layer(x)), x)
    assert layer(examples("spectrogram")).shape == (32, 24, 12, 1)


def test_noise_has_its_deviation_and_stays_in_a_given_range():
    x = np.zeros((200, 40, 5), "float32")
    noise = drawn(augment.RandomNoise(0.5), x)
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 0.5) < 0.01
    kurtosis = (noise**4).mean() / noise.var() ** 2
    assert 2.6 < kurtosis < 2.8, "3 for normal numbers, 2.7 for the sum of four uniform ones, 1.8 for one"
    assert np.unique(noise).size > 0.9 * noise.size
    assert drawn(augment.RandomNoise(5.0, value_range=(-1, 1)), x).max() == 1.0
    np.testing.assert_array_equal(drawn(augment.RandomJitter(0.5), x), noise)


def test_each_channel_of_each_series_has_one_factor():
    factors = drawn(augment.RandomScale(0.2), np.ones((500, 7, 3), "float32"))
    np.testing.assert_array_equal(factors, np.repeat(factors[:, :1], 7, axis=1))
    assert abs(factors[:, 0].mean() - 1.0) < 0.02
    assert abs(factors[:, 0].std() - 0.2) < 0.02
    assert abs(np.corrcoef(factors[:, 0].T)[0, 1]) < 0.1


@pytest.mark.parametrize(("layer", "axis"), [(augment.RandomTimeMask, 1), (augment.RandomFrequencyMask, 2)])
def test_masks_cover_one_span_of_at_most_their_share(layer, axis):
    x = np.random.default_rng(0).random((400, 20, 10, 2), "float32") + 1.0
    made = drawn(layer(0.3, fill=0.0), x)
    covered = np.moveaxis(made == 0.0, axis, 1)
    assert (covered == covered[:, :, :1, :1]).all(), "the other axis and all channels alike"
    covered = covered[:, :, 0, 0]
    lengths, largest = covered.sum(axis=1), int(0.3 * x.shape[axis])
    assert set(lengths) == set(range(largest + 1))
    assert (np.diff(covered.astype(int), axis=1, prepend=0, append=0) == 1).sum(axis=1).max() == 1, "one span"
    assert covered.any(axis=0).all(), "any place may be covered"
    np.testing.assert_array_equal(made[made != 0.0], x[made != 0.0])
    means = drawn(layer(0.3), x)
    changed = means != x
    assert changed.any()
    np.testing.assert_allclose(means[changed], np.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)[changed], 1e-5)


def test_boxes_of_a_volume_are_copied_from_any_place():
    d, h, w = np.meshgrid(np.arange(6), np.arange(7), np.arange(8), indexing="ij")
    volume = np.tile((100 * d + 10 * h + w).astype("float32")[None, ..., None], (300, 1, 1, 1, 1))
    layer = augment.RandomCrop3D((3, 4, 5))
    boxes = drawn(layer, volume)
    assert boxes.shape == (300, 3, 4, 5, 1)
    corner = boxes[:, :1, :1, :1]
    np.testing.assert_array_equal(boxes - corner, np.broadcast_to(volume[:1, :3, :4, :5], boxes.shape))
    assert len(np.unique(corner)) >= 60, "of 4³ places"
    assert float(numpy(layer(volume[0]))[0, 0, 0, 0]) == 111.0, "the central box, of one volume"
    with pytest.raises(ValueError, match="only"):
        layer(volume[:, :2], training=True)


def test_volumes_are_mirrored_along_the_named_axes_alone():
    x = examples("volume", 1).repeat(300, axis=0)
    made = drawn(augment.RandomFlip3D((0, 2)), x)
    kinds = [np.flip(x[0], axes) for axes in ((), 0, 2, (0, 2))]
    counts = [sum((row == kind).all() for row in made) for kind in kinds]
    assert sum(counts) == 300
    assert min(counts) > 45


NEW = {
    "time crop": (lambda: augment.RandomTimeCrop(10), "series"),
    "jitter": (lambda: augment.RandomJitter(0.2), "series"),
    "scale": (lambda: augment.RandomScale(0.2, probability=0.5), "volume"),
    "time mask": (lambda: augment.RandomTimeMask(0.5, probability=0.5), "series"),
    "frequency mask": (lambda: augment.RandomFrequencyMask(0.5), "spectrogram"),
    "crop": (lambda: augment.RandomCrop3D(5), "volume"),
    "flip": (lambda: augment.RandomFlip3D(1), "volume"),
    "noise": (lambda: augment.RandomNoise(0.2), "table"),
}


@pytest.mark.parametrize("name", NEW)
def test_a_row_is_drawn_alike_in_any_batch_compiled_or_not_and_after_loading(name):
    make, kind = NEW[name]
    layer, x = make(), examples(kind, 8)
    whole = drawn(layer, x)
    assert layer.compute_output_shape(x.shape) == whole.shape
    part = layer(x[5:], training=True, rng=augment.RowRNG(0, ops.arange(5, 8)))
    np.testing.assert_allclose(numpy(part), whole[5:], atol=1e-6)
    again = compiled(lambda x: layer(x, training=True, rng=augment.RowRNG(0, ops.arange(8))))
    np.testing.assert_allclose(numpy(again(ops.convert_to_tensor(x))), whole, atol=1e-5)
    loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    np.testing.assert_array_equal(drawn(loaded, x), whole)
    assert not np.allclose(drawn(layer, x, seed=1), whole)


def test_draws_of_noise_are_these_on_every_backend():
    made = numpy(augment.RowRNG(7, ops.arange(2)).normal("noise", 3))
    expected = [
        ["0x1.24fa9p+0", "-0x1.c6f6e4p-2", "-0x1.1dec5cp-3"],
        ["-0x1.6ea59p-4", "-0x1.260c78p+0", "-0x1.fcdf16p-1"],
    ]
    np.testing.assert_array_equal(made, [[float.fromhex(number) for number in row] for row in expected])


def test_layers_alone_take_one_example_of_their_rank():
    series, volume = examples("series")[0], examples("volume")[0]
    assert augment.RandomJitter(0.1)(series, training=True).shape == series.shape
    assert augment.RandomCrop3D(4)(volume, training=True).shape == (4, 4, 4, 1)
    assert augment.RandomApply(augment.RandomFlip3D(0))(volume, training=True).shape == volume.shape


@pytest.mark.parametrize(
    "layer",
    [augment.RandomHorizontalFlip(), augment.RandomCrop3D(4), augment.RandomApply([augment.RandomErasing()])],
    ids=lambda layer: layer.name,
)
def test_layers_for_another_kind_of_input_are_refused(layer):
    with pytest.raises(ValueError, match=r"of shape \(32, 24, 2\)"):
        augment.Views([layer])(examples("series"))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: augment.RandomTimeCrop(0), "`length`"),
        (lambda: augment.RandomTimeCrop(8, scale=(0.0, 1.0)), "`scale`"),
        (lambda: augment.RandomTimeCrop(8, probability=0.5), "`probability`"),
        (lambda: augment.RandomNoise(-1.0), "`std`"),
        (lambda: augment.RandomScale(-1.0), "`sigma`"),
        (lambda: augment.RandomTimeMask(1.5), "`share`"),
        (lambda: augment.RandomCrop3D((4, 4)), "`size`"),
        (lambda: augment.RandomFlip3D(3), "`axes`"),
        (lambda: augment.RandomNoise(value_range=(1, 0)), "`value_range`"),
    ],
)
def test_bad_arguments_are_refused_by_name(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


# Backbones that have to be cut.


def test_a_backbone_of_several_outputs_or_inputs_is_refused_with_their_names():
    images = keras.Input((8, 8, 1), name="picture")
    low = layers.Conv2D(4, 3, name="low")(images)
    high = layers.Conv2D(4, 3, name="high")(low)
    with pytest.raises(ValueError, match=r"2 outputs \(low, high\).*get_layer\(name\)\.output"):
        keras_ssl.SimCLR(keras.Model(images, [low, high]))
    other = keras.Input((8, 8, 1), name="depth")
    two = keras.Model([images, other], layers.Conv2D(4, 3)(layers.Add()([images, other])))
    with pytest.raises(ValueError, match=r"2 inputs \(picture, depth\)"):
        keras_ssl.SimCLR(two)


def test_a_subclass_that_gives_several_tensors_is_refused():
    class Two(keras.Model):
        def call(self, images):
            return {"a": images, "b": images}

        def compute_output_shape(self, shape):
            return {"a": shape, "b": shape}

    with pytest.raises(ValueError, match=r"one tensor.*\['a', 'b'\]"):
        keras_ssl.SimCLR(Two(), views=augment.Views([], [])).build((None, 8, 8, 1))


def with_top(*top):
    pooled = layers.GlobalAveragePooling2D(name="pooled")
    return keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(4, 3), pooled, *top])


@pytest.mark.parametrize(
    "top",
    [
        [("Dense", {"units": 3, "activation": "softmax", "name": "top"})],
        [("Dense", {"units": 3}), ("Softmax", {"name": "top"})],
        [("Dense", {"units": 3}), ("Activation", {"activation": "softmax", "name": "top"})],
    ],
    ids=["dense", "softmax", "activation"],
)
def test_a_backbone_that_ends_in_class_probabilities_is_warned_of(top):
    backbone = with_top(*(getattr(layers, name)(**options) for name, options in top))
    with pytest.warns(UserWarning, match=r'softmax of top.*backbone\.get_layer\("pooled"\)\.output'):
        keras_ssl.SimCLR(backbone)
    cut = keras.Model(backbone.inputs[0], backbone.get_layer("pooled").output)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keras_ssl.SimCLR(cut)
        keras_ssl.SimCLR(with_top(layers.Dense(3, activation="relu")))
