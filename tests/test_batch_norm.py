"""Batch normalization: which rows its statistics are of, and that the layers stay Keras' own."""

import contextlib
import copy
import json
import zipfile

import keras
import numpy as np
import pytest
from conftest import compiled, value_and_gradients
from keras import ops

import keras_ssl
from keras_ssl import augment, batch_norm, distribute, heads

BACKEND = keras.backend.backend()
tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow's strategies have replicas")

# Each mode with the number of groups that it makes of 12 rows on one device.
MODES = {
    "global": (batch_norm.use_global_statistics, 1),
    "ghost": (lambda model: batch_norm.use_ghost_batches(model, 4), 3),
    "one ghost": (lambda model: batch_norm.use_ghost_batches(model, 12), 1),
    "fused": (batch_norm.use_fused, 1),
    "ghost, fused": (lambda model: (batch_norm.use_ghost_batches(model, 4), batch_norm.use_fused(model)), 3),
}
SHAPES = {"rank 2": ((12, 5), -1), "rank 4": ((12, 3, 2, 5), -1), "rank 4, axis 1": ((12, 5, 3, 2), 1)}


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(0.7, 1.5, shape).astype("float32")


def layer_for(x, axis=-1, **options):
    """A layer whose four variables are no ones and zeros."""
    layer = keras.layers.BatchNormalization(axis=axis, momentum=0.8, epsilon=1e-3, **options)
    layer.build(x.shape)
    for place, variable in enumerate(layer.variables):
        variable.assign(np.abs(numbers(*variable.shape, seed=place + 1)) + 0.2)
    return layer


class Oracle:
    """Batch normalization of groups of rows in numpy, float64, with the gradients of sum(outputs · weights)."""

    def __init__(self, layer, x, weights, groups):
        axis = layer.axis % x.ndim
        x, weights = (np.moveaxis(np.asarray(a, "float64"), axis, -1) for a in (x, weights))
        channels = x.shape[-1]
        gamma = np.ones(channels) if layer.gamma is None else array(layer.gamma)
        beta = np.zeros(channels) if layer.beta is None else array(layer.beta)
        outputs, gradients, self.gamma, self.beta, means, variances = [], [], 0.0, 0.0, [], []
        for part, dy in zip(np.split(x, groups), np.split(weights, groups)):
            shape, part, dy = part.shape, part.reshape(-1, channels), dy.reshape(-1, channels)
            means.append(part.mean(0))
            variances.append(part.var(0))
            inverse = 1.0 / np.sqrt(part.var(0) + layer.epsilon)
            normal = (part - part.mean(0)) * inverse
            outputs.append((normal * gamma + beta).reshape(shape))
            dx = gamma * inverse * (dy - dy.mean(0) - normal * (dy * normal).mean(0))
            gradients.append(dx.reshape(shape))
            self.gamma, self.beta = self.gamma + (dy * normal).sum(0), self.beta + dy.sum(0)
        self.outputs = np.moveaxis(np.concatenate(outputs), -1, axis)
        self.inputs = np.moveaxis(np.concatenate(gradients), -1, axis)
        self.moving = [
            layer.momentum * array(moving) + (1 - layer.momentum) * np.mean(values, axis=0)
            for moving, values in ((layer.moving_mean, means), (layer.moving_variance, variances))
        ]


def array(tensor):
    return ops.convert_to_numpy(ops.stop_gradient(ops.convert_to_tensor(tensor))).astype("float64")


def step(layer, x, trainable=None, training=True):
    """Outputs and moving statistics of one step, that leaves the layer's variables as they are."""
    trainable = [ops.convert_to_tensor(v) for v in layer.trainable_variables] if trainable is None else trainable
    others = [ops.convert_to_tensor(v) for v in layer.non_trainable_variables]
    return layer.stateless_call(trainable, others, x, training=training)


def close(got, expected, atol=2e-5):
    expected = expected if isinstance(expected, np.ndarray) else array(expected)  # an oracle stays float64
    np.testing.assert_allclose(array(got), expected, rtol=1e-5, atol=atol)


def identical(one, other):
    np.testing.assert_array_equal(array(one), array(other))


# Each mode is the arithmetic that it says.


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", MODES)
def test_outputs_moving_statistics_and_gradients_are_those_of_numpy(mode, shape, affine):
    change, groups = MODES[mode]
    shape, axis = SHAPES[shape]
    x, weights = numbers(*shape), numbers(*shape, seed=1)
    layer = layer_for(x, axis, scale=affine, center=affine)
    change(layer)
    oracle = Oracle(layer, x, weights, groups)

    outputs, moved = step(layer, ops.convert_to_tensor(x))
    close(outputs, oracle.outputs)
    for got, expected in zip(moved, oracle.moving):
        close(got, expected)

    def loss(x, *trainable):
        return ops.sum(step(layer, x, trainable)[0] * ops.convert_to_tensor(weights))

    _, (inputs, *trainable) = value_and_gradients(
        loss, x, *(array(v).astype("float32") for v in layer.trainable_variables)
    )
    close(inputs, oracle.inputs)
    for got, expected in zip(trainable, (oracle.gamma, oracle.beta)):
        close(got, expected, atol=1e-4)


@pytest.mark.parametrize("mode", MODES if BACKEND == "tensorflow" else ["ghost", "one ghost"])  # not Keras' own
def test_large_means_do_not_cancel(mode):
    change, groups = MODES[mode]
    x = numbers(12, 3, 2, 5) + 300.0
    layer = layer_for(x)
    change(layer)
    close(step(layer, ops.convert_to_tensor(x))[0], Oracle(layer, x, x, groups).outputs, atol=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_compiled_equals_uncompiled(mode):
    x = numbers(12, 3, 2, 5)
    layer = layer_for(x)
    MODES[mode][0](layer)
    outputs, moved = step(layer, ops.convert_to_tensor(x))
    quick, quickly_moved = compiled(lambda x: step(layer, x))(ops.convert_to_tensor(x))
    for one, other in zip((quick, *quickly_moved), (outputs, *moved)):
        close(one, other)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("mode", MODES)
def test_half_precision_keeps_its_statistics_in_single_precision(mode, policy):
    change, groups = MODES[mode]
    x = ops.convert_to_numpy(ops.cast(ops.cast(numbers(12, 3, 2, 5), policy[6:]), "float32"))
    layer = layer_for(x, dtype=policy)
    change(layer)
    oracle = Oracle(layer, x, x, groups)
    outputs, moved = step(layer, ops.convert_to_tensor(x))
    assert keras.backend.standardize_dtype(outputs.dtype) == policy[6:]
    close(ops.cast(outputs, "float32"), oracle.outputs, atol=0.04 if policy == "mixed_bfloat16" else 4e-3)
    for got, expected in zip(moved, oracle.moving):
        assert keras.backend.standardize_dtype(got.dtype) == "float32"
        close(got, expected)


def test_the_statistics_move_once_a_step_and_not_once_a_group():
    x = numbers(12, 5)
    layer = layer_for(x)
    before = array(layer.moving_mean)
    batch_norm.use_ghost_batches(layer, 4)
    layer(x, training=True)
    close(layer.moving_mean, 0.8 * before + 0.2 * x.mean(0))  # of groups of one size, the mean of means is the mean


def test_the_order_of_groups_does_not_matter():
    x = numbers(12, 5)
    layer = layer_for(x)
    batch_norm.use_ghost_batches(layer, 4)
    outputs, moved = step(layer, ops.convert_to_tensor(x))
    turned, turned_moved = step(layer, ops.convert_to_tensor(np.roll(x, 4, axis=0)))
    close(turned, np.roll(array(outputs), 4, axis=0))
    for one, other in zip(moved, turned_moved):
        close(one, other)


def test_ghost_batches_are_micro_batches():
    """Steps of 4 rows, each from the statistics before the step, whose moved statistics are averaged."""
    x = numbers(12, 5)
    plain, ghost = layer_for(x), layer_for(x)
    batch_norm.use_ghost_batches(ghost, 4)
    outputs, moved = step(ghost, ops.convert_to_tensor(x))
    parts = [step(plain, ops.convert_to_tensor(part)) for part in np.split(x, 3)]
    close(outputs, np.concatenate([array(part) for part, _ in parts]))
    for place, value in enumerate(moved):
        close(value, np.mean([array(moved[place]) for _, moved in parts], axis=0))


@pytest.mark.parametrize("mode", MODES)
def test_a_step_without_a_scope_assigns_what_a_stateless_step_returns(mode):
    x = numbers(12, 3, 2, 5)
    layer = layer_for(x)
    MODES[mode][0](layer)
    outputs, moved = step(layer, ops.convert_to_tensor(x))
    close(layer(x, training=True), outputs)
    for variable, value in zip(layer.non_trainable_variables, moved):
        close(variable, value)


@tensorflow_only
@pytest.mark.parametrize("mode", MODES)
def test_a_number_of_rows_that_is_known_only_in_the_step_works(mode):
    import tensorflow as tf

    change, groups = MODES[mode]
    x = numbers(12, 3, 2, 5)
    layer = layer_for(x)
    change(layer)
    oracle = Oracle(layer, x, x, groups)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 5))])
    def call(x):
        return layer(x, training=True)

    close(call(x), oracle.outputs)
    for got, expected in zip(layer.non_trainable_variables, oracle.moving):
        close(got, expected)
    if "ghost" in mode:
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"size=(4|12).*\n?.*10"):
            call(x[:10])


# Where nothing is to change, nothing changes.


@pytest.mark.parametrize("frozen", [False, True], ids=["inference", "frozen"])
@pytest.mark.parametrize("mode", MODES)
def test_inference_and_frozen_layers_are_keras_own_bit_for_bit(mode, frozen):
    x = numbers(10, 3, 2, 5)  # rows that 4 does not divide: at inference they need not
    plain, changed = layer_for(x), layer_for(x)
    MODES[mode][0](changed)
    for layer in (plain, changed):
        layer.trainable = not frozen
    identical(changed(x, training=frozen), plain(x, training=frozen))
    identical(changed.moving_mean, layer_for(x).moving_mean)


@pytest.mark.parametrize(
    ("shape", "options"),
    [((12, 5), {}), ((12, 5, 3, 2), {"axis": 1}), ((12, 4, 5), {}), ((2, 2, 2, 2, 5), {})],
    ids=["rank 2", "axis 1", "rank 3", "rank 5"],
)
def test_what_the_fused_operation_cannot_serve_is_keras_own_bit_for_bit(shape, options):
    x = numbers(*shape)
    plain, changed = layer_for(x, **options), layer_for(x, **options)
    batch_norm.use_fused(changed)
    identical(changed(x, training=True), plain(x, training=True))
    identical(changed.moving_variance, plain.moving_variance)


@tensorflow_only
def test_fused_uses_the_operation_where_it_can_and_only_there():
    import tensorflow as tf

    def operations(x, **options):
        layer = layer_for(x, **options)
        batch_norm.use_fused(layer)
        graph = tf.function(lambda x: layer(x, training=True)).get_concrete_function(x).graph
        return {operation.type for operation in graph.get_operations()}

    x = numbers(12, 3, 2, 5)
    assert "FusedBatchNormV3" in operations(x)
    assert "FusedBatchNormV3" not in operations(x, synchronized=True)
    assert "FusedBatchNormV3" not in operations(x.astype("float64"), dtype="float64")


@tensorflow_only
def test_a_mask_leaves_fused_layers_to_keras():
    x, mask = numbers(12, 3, 2, 5), numbers(12, 3, 2, seed=1) > 0
    plain, changed = layer_for(x), layer_for(x)
    batch_norm.use_fused(changed)
    identical(changed(x, training=True, mask=mask), plain(x, training=True, mask=mask))


def test_statistics_along_the_batch_axis_are_left_to_keras():
    x = numbers(12, 5)
    plain, changed = layer_for(x, axis=0), layer_for(x, axis=0)
    batch_norm.use_ghost_batches(changed, 4)
    identical(changed(x, training=True), plain(x, training=True))


@pytest.mark.skipif(BACKEND != "jax", reason="the others have something to do")
def test_jax_has_nothing_to_do_for_fused_and_for_global():
    layer = layer_for(numbers(12, 5))
    assert batch_norm.use_fused(layer) == []
    assert batch_norm.use_global_statistics(layer) == []
    assert batch_norm.per_replica_layers(layer) == []
    assert "call" not in vars(layer)


# Which layers are found.


def few_layers(*last):
    """A small backbone with five layers of batch normalization, or those given."""
    last = last or [keras.layers.BatchNormalization() for _ in range(5)]
    return keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Conv2D(2, 3, 4), *last])


class OwnBatchNorm(keras.layers.BatchNormalization):
    pass


def nested():
    """A functional model in a Sequential, a layer that holds one, and normalizations that are none of ours."""
    inputs = keras.Input((4, 4, 3))
    inner = keras.Model(inputs, keras.layers.BatchNormalization(name="inner")(keras.layers.Conv2D(5, 3)(inputs)))
    branch = keras.Sequential([keras.layers.BatchNormalization(name="distributed")])
    return keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            keras.Sequential([inner, keras.layers.BatchNormalization(name="middle")]),
            OwnBatchNorm(name="own"),
            keras.layers.GroupNormalization(5),
            keras.layers.LayerNormalization(),
            keras.layers.TimeDistributed(branch),
        ],
        name="nested",
    )


def test_layers_are_found_at_any_depth_and_other_classes_stay_untouched():
    model = nested()
    assert {layer.name for layer in batch_norm.use_ghost_batches(model, 2)} == {"inner", "middle", "distributed"}
    assert "call" not in vars(model.get_layer("own"))
    assert all(type(layer) is keras.layers.BatchNormalization for layer in batch_norm.batch_norm_layers(model))


def test_a_call_that_somebody_else_replaced_is_theirs():
    layer = layer_for(numbers(12, 5))
    theirs = layer.call = lambda inputs, training=None, mask=None: inputs
    assert batch_norm.use_ghost_batches(layer, 4) == []
    assert batch_norm.undo(layer) == []
    assert layer.call is theirs


# Taking it away, copying, saving.


@pytest.mark.parametrize("mode", MODES)
def test_restore_gives_the_layers_their_own_call_back(mode):
    model, x = nested(), numbers(12, 4, 4, 3)
    plain = keras.models.clone_model(model)
    plain.set_weights(model.get_weights())
    MODES[mode][0](model)
    changed = BACKEND != "jax" or "ghost" in mode
    assert len(batch_norm.undo(model)) == (3 if changed else 0)
    assert batch_norm.undo(model) == []
    identical(model(x, training=True), plain(x, training=True))


def test_del_call_undoes_it():
    layer = layer_for(numbers(12, 5))
    batch_norm.use_ghost_batches(layer, 4)
    del layer.call
    assert layer.call.__func__ is keras.layers.BatchNormalization.call


@pytest.mark.parametrize("copied", [keras.models.clone_model, copy.deepcopy, "from_config", "saved"])
def test_copies_are_plain(copied, tmp_path):
    model = nested()
    batch_norm.use_ghost_batches(model, 4)
    batch_norm.use_fused(model)
    if copied == "from_config":
        other = keras.Sequential.from_config(model.get_config(), custom_objects={"OwnBatchNorm": OwnBatchNorm})
    elif copied == "saved":
        model.save(tmp_path / "model.keras")
        other = keras.models.load_model(tmp_path / "model.keras", custom_objects={"OwnBatchNorm": OwnBatchNorm})
        for one, two in zip(model.weights, other.weights):
            identical(one, two)
    else:
        with keras.saving.custom_object_scope({"OwnBatchNorm": OwnBatchNorm}):
            other = copied(model)
    assert len(batch_norm.batch_norm_layers(other)) == 3
    assert all("call" not in vars(layer) for layer in batch_norm.batch_norm_layers(other))
    assert all("call" in vars(layer) for layer in batch_norm.batch_norm_layers(model))


def test_the_saved_file_names_nothing_but_keras(tmp_path):
    backbone = few_layers()
    batch_norm.use_ghost_batches(backbone, 4)
    batch_norm.use_global_statistics(backbone)
    batch_norm.use_fused(backbone)
    backbone.save(tmp_path / "backbone.keras")
    config = json.loads(zipfile.ZipFile(tmp_path / "backbone.keras").read("config.json"))

    def modules(part):
        if isinstance(part, dict):
            yield from [part["module"]] if part.get("module") else []
            for value in part.values():
                yield from modules(value)
        if isinstance(part, list):
            for value in part:
                yield from modules(value)

    assert {module.split(".")[0] for module in modules(config)} == {"keras"}
    assert "keras_ssl" not in json.dumps(config)


@tensorflow_only
@pytest.mark.parametrize("mode", MODES)
def test_a_changed_model_exports(mode, tmp_path):
    import tensorflow as tf

    model, x = nested(), numbers(3, 4, 4, 3)
    MODES[mode][0](model)
    model.export(tmp_path / "saved", format="tf_saved_model", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "saved"))
    close(exported.serve(x), model(x, training=False))


@pytest.mark.parametrize("mode", MODES)
def test_a_changed_model_prints_its_summary(mode):
    model, lines, plain = nested(), [], []
    model.summary(print_fn=plain.append)
    MODES[mode][0](model)
    model.summary(print_fn=lines.append)
    assert lines == plain


# Replicas.


def small_model(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.Activation("gelu"),
            keras.layers.Flatten(),
            keras.layers.Dense(6),
            keras.layers.BatchNormalization(momentum=0.9, scale=False),
            keras.layers.Dense(3),
        ]
    )


def trained(change, **compile_options):
    model = small_model()
    change(model)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", **compile_options)
    x = numbers(48, 6, 6, 2) + np.linspace(0, 3, 48, dtype="float32")[:, None, None, None]  # rows differ in their mean
    model.fit(x, numbers(48, 3), batch_size=16, epochs=2, shuffle=False, verbose=0)
    return model


def ghosts_of_four(model):
    batch_norm.use_ghost_batches(model, 4)


def ghosts_and_fused(model):
    batch_norm.use_ghost_batches(model, 4)
    batch_norm.use_fused(model)


def global_and_fused(model):
    batch_norm.use_fused(model)
    batch_norm.use_global_statistics(model)


def distance(one, other):
    return max(np.abs(array(a) - array(b)).max() for a, b in zip(one.weights, other.weights))


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(
    "change", [batch_norm.use_global_statistics, ghosts_of_four, ghosts_and_fused, global_and_fused]
)
def test_replicas_train_as_one_device_does(change, count):
    if count > 2 and BACKEND == "tensorflow":
        pytest.skip("two strategies of other sizes in one process mix up their collective operations (TF 2.21)")
    alone = trained(change)
    scope = distribute.local_replicas(count)
    if scope is None:
        pytest.skip("one device")
    with scope:
        together = trained(change)
    assert distance(together, alone) < 1e-5


@tensorflow_only
def test_without_it_replicas_train_otherwise():
    with distribute.local_replicas(2):
        together = trained(lambda model: None)
    assert distance(together, trained(lambda model: None)) > 1e-3


@tensorflow_only
@pytest.mark.parametrize("change", [batch_norm.use_global_statistics, ghosts_of_four])
def test_moving_statistics_are_the_same_on_every_replica(change):
    import tensorflow as tf

    with distribute.local_replicas(2):
        model = trained(change)
        strategy = tf.distribute.get_strategy()

        @tf.function
        def read():
            return strategy.run(lambda: [tf.identity(ops.convert_to_tensor(v)) for v in model.non_trainable_variables])

        for variable in read():
            one, other = strategy.experimental_local_results(variable)
            identical(one, other)


def test_ghost_batches_are_not_the_whole_batch():
    assert distance(trained(ghosts_of_four), trained(lambda model: None)) > 1e-3


@pytest.mark.parametrize("change", [ghosts_of_four, ghosts_and_fused, global_and_fused])
def test_a_compiled_run_is_the_uncompiled_one(change):
    if BACKEND == "torch":
        pytest.skip("torch runs its steps as they are")
    assert distance(trained(change, jit_compile=True), trained(change, run_eagerly=True)) < 1e-5


def test_fused_trains_as_keras_does():
    assert distance(trained(batch_norm.use_fused), trained(lambda model: None)) < 1e-5


def test_ghost_batches_go_before_global_statistics_in_either_order():
    def before(model):
        batch_norm.use_global_statistics(model)
        batch_norm.use_ghost_batches(model, 4)

    def after(model):
        batch_norm.use_ghost_batches(model, 4)
        batch_norm.use_global_statistics(model)

    expected = trained(ghosts_of_four)
    assert distance(trained(before), expected) == 0.0
    assert distance(trained(after), expected) == 0.0


# Bad input.


def test_rows_that_the_size_does_not_divide_are_refused_with_both_numbers():
    layer = layer_for(numbers(12, 5))
    batch_norm.use_ghost_batches(layer, 5)
    with pytest.raises(ValueError, match=r"12 rows .* size=5"):
        layer(numbers(12, 5), training=True)


@tensorflow_only
def test_a_group_never_straddles_replicas():
    with distribute.local_replicas(2), pytest.raises(ValueError, match=r"8 rows .* size=16"):
        trained(lambda model: batch_norm.use_ghost_batches(model, 16))


@pytest.mark.parametrize("size", [0, 1, -4])
def test_groups_of_less_than_two_rows_are_refused(size):
    with pytest.raises(ValueError, match=f"2 or more.*{size}"):
        batch_norm.use_ghost_batches(small_model(), size)


def test_a_size_that_is_no_number_of_rows_is_refused():
    with pytest.raises(TypeError, match=r"4\.5"):
        batch_norm.use_ghost_batches(small_model(), 4.5)


def test_renorm_is_refused_for_ghost_batches_and_left_alone_otherwise():
    layer = layer_for(numbers(12, 3, 2, 5), renorm=True)
    with pytest.raises(ValueError, match=f"{layer.name}.*renorm"):
        batch_norm.use_ghost_batches(layer, 4)
    assert batch_norm.use_global_statistics(layer) == []
    assert batch_norm.use_fused(layer) == []


def test_a_mask_is_refused_for_ghost_batches():
    layer = layer_for(numbers(12, 4, 5))
    batch_norm.use_ghost_batches(layer, 4)
    with pytest.raises(ValueError, match=f"{layer.name} got a mask"):
        layer(numbers(12, 4, 5), training=True, mask=np.ones((12, 4), bool))


# The warning.


def simclr(backbone):
    views = augment.Views([augment.RandomHorizontalFlip()], [augment.RandomErasing()])
    model = keras_ssl.SimCLR(backbone, views=views, projector=heads.mlp([8, 4]))
    model.compile(keras.optimizers.SGD(0.01))
    return model


@pytest.mark.skipif(BACKEND == "jax", reason="one program normalizes the global batch there")
def test_layers_that_replicas_would_normalise_apart_are_listed():
    model = nested()
    assert {layer.name for layer in batch_norm.per_replica_layers(model)} == {"inner", "middle", "distributed", "own"}
    batch_norm.use_fused(model)
    assert len(batch_norm.per_replica_layers(model)) == 4
    batch_norm.use_global_statistics(model)
    assert [layer.name for layer in batch_norm.per_replica_layers(model)] == ["own"]
    model.get_layer("own").trainable = False
    assert batch_norm.per_replica_layers(model) == []
    if BACKEND == "tensorflow":
        assert batch_norm.per_replica_layers(layer_for(numbers(4, 5), synchronized=True)) == []
    ghostly = layer_for(numbers(4, 5))
    batch_norm.use_ghost_batches(ghostly, 2)
    assert batch_norm.per_replica_layers(ghostly) == []


@tensorflow_only
def test_fit_on_replicas_warns_of_the_backbones_layers_and_names_the_way_out(images):
    with distribute.local_replicas(2):
        backbone = few_layers()
        with pytest.warns(UserWarning, match=r"2 more layers \(5 in all\).*use_global_statistics\(backbone\)"):
            simclr(backbone).fit(images[:8], batch_size=8, verbose=0)


@tensorflow_only
def test_fit_warns_of_layers_that_we_cannot_change_in_other_words(images):
    with distribute.local_replicas(2):
        backbone = few_layers(OwnBatchNorm(name="own"))
        with pytest.warns(UserWarning, match=r"in own .*synchronized=True"):
            simclr(backbone).fit(images[:8], batch_size=8, verbose=0)


@pytest.mark.parametrize("change", [batch_norm.use_global_statistics, ghosts_of_four, None])
def test_fit_does_not_warn_where_the_answer_does_not_depend_on_replicas(change, images, recwarn):
    scope = distribute.local_replicas(2) if change else None
    if change and scope is None:
        pytest.skip("one device")
    with scope or contextlib.nullcontext():
        backbone = few_layers()
        if change:
            change(backbone)
        simclr(backbone).fit(images[:8], batch_size=8, verbose=0)
    assert not [warning for warning in recwarn if "Batch normalization" in str(warning.message)]


@tensorflow_only
def test_heads_are_global_by_themselves_and_keep_ghost_batches_of_their_own():
    projector = heads.mlp([8, 4])
    keras_ssl.SimCLR(few_layers(), projector=projector).build()
    assert batch_norm.per_replica_layers(projector) == []
    expected = Oracle(*[layer := layer_for(x := numbers(12, 5)), x, x, 3])
    batch_norm.use_ghost_batches(layer, 4)
    batch_norm.use_global_statistics(layer)
    close(layer(x, training=True), expected.outputs)
