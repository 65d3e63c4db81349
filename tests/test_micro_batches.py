"""A batch that goes through the network in parts gives the step of the whole batch."""

import keras
import numpy as np
import pytest
from conftest import tiny_backbone, value_and_gradients
from keras import ops

import keras_ssl
from keras_ssl import augment, batch_norm, distribute, heads, micro_batches

BACKEND = keras.backend.backend()
COMPILES = BACKEND != "torch"  # Keras has no steps_per_execution on torch, and torch.compile takes minutes
VARIANTS = {
    "plain": {},
    "run_eagerly": {"run_eagerly": True},
    "jit_compile": {"jit_compile": True},
    "steps_per_execution": {"steps_per_execution": 2},
}


def backbone(norm=None):
    layers = tiny_backbone().layers
    if norm is not None:
        layers = [layers[0], layers[1], norm(), *layers[2:]]
    return keras.Sequential([keras.Input((28, 28, 1)), *layers])


def model(norm=None, **options):
    keras.utils.set_random_seed(0)
    projector = heads.mlp([16, 8], batch_norm=False, last_batch_norm=False)
    options.setdefault("views", augment.Views([augment.RandomHorizontalFlip()], [augment.RandomErasing()]))
    return keras_ssl.SimCLR(backbone(norm), projector=projector, temperature=0.2, **options)


def run(images, made=None, micro=None, **compiled):
    """`(state, losses)` after two passes of two batches of 32."""
    made = made or model()
    made.compile(keras.optimizers.SGD(0.01, momentum=0.9), micro_batch_size=micro, **compiled)
    history = made.fit(images, batch_size=32, epochs=2, verbose=0, validation_data=images[:32]).history
    return [ops.convert_to_numpy(variable) for variable in made.variables], [*history["loss"], *history["val_loss"]]


def same(one, other, atol=1e-5):
    assert len(one[0]) == len(other[0])
    for a, b in zip(one[0], other[0]):
        np.testing.assert_allclose(a, b, atol=atol, rtol=0)
    np.testing.assert_allclose(one[1], other[1], atol=atol, rtol=0)


@pytest.fixture(scope="module")
def whole(images):
    return run(images)


@pytest.mark.parametrize(
    "variant",
    [
        "plain",
        pytest.param("run_eagerly", marks=pytest.mark.slow),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("jit_compile", "steps_per_execution") if COMPILES),
    ],
)
def test_parts_give_the_step_of_the_whole(images, whole, variant):
    same(run(images, micro=8, **VARIANTS[variant]), whole)


def test_one_part_is_the_whole(images, whole):
    same(run(images, micro=32), whole, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("norm", [keras.layers.LayerNormalization, lambda: keras.layers.GroupNormalization(4)])
def test_layer_and_group_normalisation_do_not_see_the_parts(images, norm):
    same(run(images, model(norm), micro=8), run(images, model(norm)))


@pytest.mark.slow
@pytest.mark.parametrize("one_pass", [True, False])
def test_batch_normalisation_sees_ghost_batches_and_its_statistics_move_once_a_step(images, one_pass):
    norm = keras.layers.BatchNormalization
    ghost = model(norm, one_pass=one_pass)
    batch_norm.use_ghost_batches(ghost, 16 if one_pass else 8)
    parts = run(images, model(norm, one_pass=one_pass), micro=8)
    same(parts, run(images, ghost))
    assert np.abs(np.subtract(parts[1], run(images, model(norm, one_pass=one_pass))[1])).max() > 1e-4


def test_dropout_drops_other_units_in_each_part_and_the_same_in_both_passes(images):
    def dropping():
        keras.utils.set_random_seed(0)
        network = keras.Sequential([*backbone().layers, keras.layers.Dropout(0.5, seed=7)])
        network.build((None, 28, 28, 1))
        return keras_ssl.SimCLR(network, projector=keras.layers.Identity(), views=augment.Views([], []))

    made = dropping()
    one = run(images, made, micro=8)
    same(one, run(images, dropping(), micro=8), atol=0)
    # One state for each part of each of 4 steps; the second pass takes the states of the first, and leaves them.
    (state,) = (ops.convert_to_numpy(v) for v in made.backbone.layers[-1].variables)
    assert state[1] == 4 * 4


def test_the_gradient_is_of_the_units_that_the_loss_saw():
    """A linear network with dropout: the gradient of the sum of its outputs is the sum of what was kept."""
    drop, dense = keras.layers.Dropout(0.5, seed=1), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    network = keras.Sequential([keras.Input((6,)), drop, dense])
    x = np.arange(1.0, 49.0, dtype="float32").reshape(8, 6)

    def embed(rows):
        return {"out": network(rows["x"], training=True)}

    def total(kernel):
        with keras.StatelessScope([(dense.kernel, kernel)]):
            return ops.sum(micro_batches.embed(network, embed, {"x": x}, 2)["out"])

    value, (gradient,) = value_and_gradients(total, np.ones((6, 1), "float32"))
    # With a kernel of ones the sum of outputs is the sum of the kept inputs, and so is the sum of the gradient.
    assert float(gradient.sum()) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.skipif(BACKEND == "torch", reason="Keras runs torch on one device")
def test_replicas_with_micro_batches_are_one_device(images, whole, count):
    with distribute.local_replicas(count):
        same(run(images, micro=4), whole)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "torch", reason="Keras runs torch on one device")
@pytest.mark.parametrize("one_pass", [True, False])
def test_batch_normalisation_sees_the_same_ghost_batches_on_replicas(images, one_pass):
    def ghostly():
        made = model(keras.layers.BatchNormalization, one_pass=one_pass)
        batch_norm.use_ghost_batches(made, 8 if one_pass else 4)
        return made

    with distribute.local_replicas(2):
        made = ghostly() if BACKEND == "jax" else model(keras.layers.BatchNormalization, one_pass=one_pass)
        on_two = run(images, made, micro=4)
    same(on_two, run(images, ghostly()))


@pytest.mark.skipif(BACKEND != "jax", reason="on TensorFlow a replica is alone with its micro-batch")
def test_batch_normalisation_over_devices_is_refused_on_jax(images):
    with distribute.local_replicas(2):
        made = model(keras.layers.BatchNormalization)
        made.compile("sgd", micro_batch_size=4)
        with pytest.raises(ValueError, match="use_ghost_batches"):
            made.fit(images, batch_size=32, verbose=0)


def test_half_precision_skips_no_step(images):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        made = model()
        losses = run(images, made, micro=8)[1]
    finally:
        keras.config.set_dtype_policy(before)
    assert np.isfinite(losses).all()
    assert int(ops.convert_to_numpy(made.optimizer.iterations)) == 4


def test_it_is_saved_with_the_model(images, tmp_path):
    made = model()
    made.compile("sgd", micro_batch_size=8)
    made.fit(images, batch_size=32, verbose=0)
    made.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").micro_batch_size == 8


@pytest.mark.parametrize("size", [0, -4, 2.0, "8"])
def test_a_size_that_is_no_positive_number_is_refused(size):
    with pytest.raises(ValueError, match="micro_batch_size"):
        model().compile("sgd", micro_batch_size=size)


def test_a_size_that_does_not_divide_the_batch_is_refused_before_work_starts(images):
    made = model()
    made.compile("sgd", micro_batch_size=12)
    with pytest.raises(ValueError, match=r"12, which does not divide the batch of 32 images: .* multiple of 12"):
        made.fit(images, batch_size=32, verbose=0)
    with pytest.raises(ValueError, match="does not divide"):
        made.evaluate(images, batch_size=32, verbose=0)
    assert int(ops.convert_to_numpy(made.step)) == 0
    with pytest.raises(ValueError, match=r"6 on each of 4 replicas"):
        micro_batches.check_size(6, 32, 4)


def test_losses_that_layers_add_are_refused(images):
    layer = keras.layers.Activation("relu", activity_regularizer=keras.regularizers.L2(1e-3))
    made = model(lambda: layer)
    made.compile("sgd", micro_batch_size=8)
    with pytest.raises(ValueError, match="losses of its own"):
        made.fit(images, batch_size=32, verbose=0)
