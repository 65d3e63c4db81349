"""Keras' own contract of a layer, held by each layer of `keras_ssl.augment`: what its spec says is what it gives, for
any type of images, in training and outside, and inside of a functional model that is saved and loaded.

`registered.LAYERS` has the layers, and `test_configs.py` holds that none is missing; configurations are tested there.
"""

import keras
import numpy as np
import pytest
import registered
from keras import layers, ops
from registered import plain

import keras_ssl

BACKEND = keras.backend.backend()
IMAGE, SERIES, SPECTROGRAM, VOLUME = (9, 11, 3), (13, 3), (13, 5, 2), (7, 8, 9, 2)
SHAPES = {
    "RandomCrop3D": VOLUME,
    "RandomFlip3D": VOLUME,
    "RandomFrequencyMask": SPECTROGRAM,
    "RandomJitter": SERIES,
    "RandomNoise": SERIES,
    "RandomScale": SERIES,
    "RandomTimeCrop": SERIES,
    "RandomTimeMask": SERIES,
}
VARIANTS = {
    **registered.LAYERS,
    "RandomResizedCrop, bicubic": lambda **more: keras_ssl.augment.RandomResizedCrop(
        8, interpolation="bicubic", **more
    ),
    "RandomResizedCrop, own size": lambda **more: keras_ssl.augment.RandomResizedCrop((9, 11), **more),
    "RandomApply, Keras": lambda **more: keras_ssl.augment.RandomApply(layers.RandomFlip(), **more),
}
each = pytest.mark.parametrize("name", VARIANTS)
# JAX compiles each operation again for each shape of a batch, which is slow; there a few layers stand for the others.
FEW = ("RandomApply", "RandomCrop3D", "RandomErasing", "RandomResizedCrop, bicubic", "RandomTimeCrop", "Views")
each_or_few = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if BACKEND != "jax" or name in FEW else pytest.mark.slow) for name in VARIANTS]
)


TYPES = ["uint8", "float16", *(["float32", "bfloat16", "int32", "float64"] if BACKEND != "jax" else [])]


def shape_of(name):
    return SHAPES.get(name, IMAGE)


def batch(name, dtype="uint8", rows=3):
    values = np.random.default_rng(0).integers(0, 255, (rows, *shape_of(name))).astype("uint8")
    return ops.cast(ops.convert_to_tensor(values), dtype)


def as_array(x):
    return [ops.convert_to_numpy(ops.cast(part, "float32")) for part in (x if isinstance(x, tuple) else (x,))]


def assert_of_spec(result, spec):
    """The same structure, shapes up to what is open, and types."""
    if isinstance(spec, (tuple, list)):
        assert len(result) == len(spec)
        for one, other in zip(result, spec):
            assert_of_spec(one, other)
        return
    assert len(result.shape) == len(spec.shape)
    assert all(b is None or a == b for a, b in zip(result.shape, spec.shape)), (result.shape, spec.shape)
    assert keras.backend.standardize_dtype(result.dtype) == spec.dtype


@each
@pytest.mark.parametrize("dtype", TYPES)
def test_what_it_gives_is_of_its_spec(name, dtype):
    images = batch(name, dtype)
    layer = VARIANTS[name](seed=1) if name != "Views" else VARIANTS[name]()
    inference = {"training": False} if name != "Views" else {}
    open_sides = (None, *[None] * (len(images.shape) - 2), images.shape[-1])
    for options in ({"training": True}, inference) if name != "Views" else ({},):
        if options.get("training") and BACKEND == "jax" and name not in FEW:
            continue
        result = layer(images, **options)
        for shape in (images.shape, (None, *images.shape[1:]), open_sides):
            assert_of_spec(result, layer.compute_output_spec(keras.KerasTensor(shape, dtype), **options))


@each
@pytest.mark.parametrize("dtype", ["float16", "mixed_bfloat16"])
def test_a_type_of_its_own_is_the_type_of_what_it_gives(name, dtype):
    """And not of what it computes with: 255 steps are no numbers of half precision."""
    images = batch(name)
    layer, plain = VARIANTS[name](dtype=dtype), VARIANTS[name]()
    assert_of_spec(layer(images), layer.compute_output_spec(keras.KerasTensor(images.shape, "uint8")))
    if name != "Views":
        expected = as_array(plain(images, training=False))
        for one, other in zip(as_array(layer(ops.cast(images, "float32"), training=False)), expected):
            np.testing.assert_allclose(one, other, rtol=2.0**-7)


def test_a_global_policy_of_half_precision_leaves_them_in_float32():
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        for name in VARIANTS:
            assert VARIANTS[name]().compute_dtype == "float32"
    finally:
        keras.config.set_dtype_policy(before)


@each
def test_types_of_images_change_no_number(name):
    """The draws are those of the seed, and the images are cast before anything is computed."""
    if name in ("Views", "RandomApply") or (BACKEND == "jax" and name not in FEW):  # seeds of their own; time
        return
    results = [as_array(VARIANTS[name](seed=3)(batch(name, dtype), training=True)) for dtype in ("uint8", "float32")]
    for one, other in zip(*results):
        np.testing.assert_array_equal(one, other)


@each_or_few
def test_an_empty_batch_is_one(name):
    images = batch(name, rows=0)
    for options in ({"training": True}, {"training": False}) if name != "Views" else ({},):
        layer = VARIANTS[name]()
        result = layer(images, **options)
        assert_of_spec(result, layer.compute_output_spec(keras.KerasTensor(images.shape, "uint8"), **options))
        assert all(len(part) == 0 for part in as_array(result))


@pytest.mark.skipif(BACKEND == "jax", reason="a shape of its own, compiled for seconds: see FEW")
@each
def test_a_single_example_is_one(name):
    layer = VARIANTS[name]()
    if getattr(layer, "example_rank", None) != len(shape_of(name)):
        return  # for these the first axis is always that of the batch
    one = batch(name)[0]
    for training in (True, False):
        result = layer(one, training=training)
        assert_of_spec(result, layer.compute_output_spec(keras.KerasTensor(one.shape, "uint8"), training=training))


@each
def test_channels_first_is_refused(name):
    try:
        keras.config.set_image_data_format("channels_first")
        with pytest.raises(ValueError, match=r'images are \(n, height, width, channels\).*"channels_last"'):
            VARIANTS[name]()(batch(name))
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.skipif(BACKEND != "tensorflow", reason="open sides are of TensorFlow's graphs")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FEW else pytest.mark.slow) for n in VARIANTS])
def test_sides_that_a_graph_does_not_know(name, training):
    import tensorflow as tf

    if name == "RandomApply, Keras":
        return  # Keras' layers need their sides
    images = batch(name)
    layer, known = VARIANTS[name](), VARIANTS[name]()
    options = {"training": training} if name != "Views" else {}
    open_shape = (None, *[None] * (len(images.shape) - 2), images.shape[-1])
    function = tf.function(lambda x: layer(x, **options), input_signature=[tf.TensorSpec(open_shape, "uint8")])
    result = function(images)
    assert_of_spec(result, known.compute_output_spec(keras.KerasTensor(images.shape, "uint8"), **options))
    if not training and name != "Views":
        for one, other in zip(as_array(result), as_array(known(images, training=False))):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-3)


def classifier(name):
    """The layer between an input of bytes and a layer with weights, as a user's model has it."""
    images = keras.Input(shape_of(name), dtype="uint8")
    x = VARIANTS[name]()(images)
    x = layers.Concatenate()(list(x)) if isinstance(x, (tuple, list)) else x
    convolution = {2: layers.Conv1D, 3: layers.Conv2D, 4: layers.Conv3D}[len(shape_of(name))]
    return keras.Model(images, convolution(2, 3)(x))


@each
def test_a_functional_model_with_it_is_saved_and_loaded(name, tmp_path):
    model, images = classifier(name), batch(name)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert plain(loaded.layers[1].get_config()) == plain(model.layers[1].get_config())
    if name == "Views":  # it draws also outside of training
        assert model(images).shape == loaded(images).shape
        return
    np.testing.assert_allclose(as_array(loaded(images)), as_array(model(images)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["RandomHorizontalFlip", "RandomResizedCrop, bicubic", "RandomTimeCrop", "RandomCrop3D", "Views"]
)
def test_a_functional_model_with_it_predicts_from_bytes(name):
    model, images = classifier(name), ops.convert_to_numpy(batch(name))
    predicted = model.predict(images, verbose=0)
    assert predicted.shape[0] == 3
    if name != "Views":
        np.testing.assert_allclose(predicted, as_array(model(images))[0], rtol=1e-4, atol=1e-3)
