"""What Keras does not publish and this library needs: each test tells when Keras changes it."""

import zipfile

import keras
import numpy as np
import pytest
from conftest import tiny_backbone
from keras import ops

import keras_ssl
from keras_ssl import files, keras_compat

BACKEND = keras.backend.backend()


def small():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(1)])


def test_flatten_layers_goes_to_any_depth():
    class Holder(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = small()

    holder = Holder()
    found = keras_compat.flatten_layers(holder)
    assert found[0] is holder
    assert {id(layer) for layer in holder.inner.layers} <= {id(layer) for layer in found}


def test_sublayers_are_those_directly_below_in_the_order_in_which_they_were_made():
    class Holder(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.last, self.blocks = keras.layers.Dense(1), []
            for _ in range(2):
                self.blocks.append(small())
            self.end = keras.layers.Dense(2)

    holder = Holder()
    assert keras_compat.sublayers(holder) == [holder.last, *holder.blocks, holder.end]


def test_an_optimizer_knows_the_place_of_a_variable():
    model = small()
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    places = [keras_compat.variable_index(optimizer, variable) for variable in model.trainable_variables]
    assert places == [0, 1, 2, 3]


class Counted(keras.optimizers.schedules.LearningRateSchedule):
    calls = 0

    def __call__(self, step):
        type(self).calls += 1
        return 0.1 / (1.0 + ops.cast(step, "float32"))

    def get_config(self):
        return {}


@pytest.mark.one_backend  # TensorFlow alone enters it
@pytest.mark.parametrize("scaled", [False, True])
def test_a_schedule_is_computed_once_a_step_and_is_there_after_it(scaled):
    moved = []
    for once in (False, True):
        keras.utils.set_random_seed(0)
        model, schedule = keras.Sequential([keras.Input((3,)), *map(keras.layers.Dense, (2, 2, 2))]), Counted()
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.1)
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer
        optimizer.build(model.trainable_variables)
        gradients = [ops.ones(variable.shape) for variable in model.trainable_variables]
        for _ in range(2):
            Counted.calls = 0
            with keras_compat.one_rate_a_step(optimizer if once else None):
                optimizer.apply(gradients)
            # Once, and where the attribute is set; otherwise for each variable.
            assert Counted.calls <= 3 if once else Counted.calls > 6
        assert getattr(optimizer, "inner_optimizer", optimizer)._learning_rate is schedule
        moved.append([ops.convert_to_numpy(weight) for weight in model.weights])
    for a, b in zip(*moved):
        np.testing.assert_array_equal(a, b)


@pytest.mark.one_backend
def test_a_constant_rate_is_left_alone():
    optimizer = keras.optimizers.Adam(0.1)
    with keras_compat.one_rate_a_step(optimizer):
        optimizer.learning_rate = 0.2
    assert float(optimizer.learning_rate) == pytest.approx(0.2)


def test_fit_tells_evaluate_that_its_data_are_prepared():
    seen = []

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x):
            return self.dense(x)

        def evaluate(self, *arguments, **options):
            seen.append(keras_compat.is_evaluation_of_fit(options))
            return super().evaluate(*arguments, **options)

    model, x = Model(), np.zeros((8, 3), "float32")
    model.compile("sgd", "mse")
    model.fit(x, x[:, :1], batch_size=4, validation_data=(x, x[:, :1]), verbose=0)
    model.evaluate(x, x[:, :1], batch_size=4, verbose=0)
    assert seen == [True, False]


def test_callbacks_share_one_dict_of_parameters():
    seen = []

    class First(keras.callbacks.Callback):
        def set_params(self, params):
            super().set_params(params)
            keras_compat.set_total_epochs(self, 7)

    class Second(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append(self.params["epochs"])

    model, x = small(), np.zeros((8, 3), "float32")
    model.compile("sgd", "mse")
    model.fit(x, x[:, :1], batch_size=4, epochs=1, callbacks=[First(), Second()], verbose=0)
    assert seen == [7]


@pytest.mark.one_backend
def test_a_data_set_of_tensorflow_is_told_by_its_class():
    import tensorflow as tf

    assert keras_compat.is_tf_dataset(tf.data.Dataset.range(3).map(lambda x: x))
    assert not any(keras_compat.is_tf_dataset(other) for other in (np.zeros(3), [1], small()))


def test_a_single_call_keeps_the_losses_of_every_view():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2, activity_regularizer="l2")

        def call(self, x):
            return keras_compat.single_call(lambda x: self.dense(x) + self.dense(2.0 * x), x)

    model = Model()
    model(np.ones((2, 3), "float32"))
    assert len(model.losses) == 2


def test_values_come_back_where_the_first_step_fails():
    model = small()
    before = [ops.convert_to_numpy(variable) for variable in model.variables]

    class Broken(keras.Sequential):
        pass

    def broken(*arguments, **options):
        raise RuntimeError("broken")

    model.compile("sgd", "mse")
    model.compute_loss = broken
    x = np.zeros((8, 3), "float32")
    with pytest.raises(RuntimeError, match="broken"), keras_compat.restore_on_error(model):
        model.fit(x, x[:, :1], batch_size=4, verbose=0)
    for variable, value in zip(model.variables, before):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a private attribute of TensorFlow's strategies")
def test_strategies_number_their_collective_operations_from_a_key_of_their_class():
    import tensorflow as tf

    assert isinstance(tf.distribute.MirroredStrategy._collective_key_base, int)


def test_an_optimizer_is_saved_for_every_backend(tmp_path):
    """A model that is saved on torch must load where there is no torch."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.AdamW(0.01, weight_decay=0.1), "mse")
    files.save_model(model, tmp_path / "plain.keras")
    method = keras_ssl.SimCLR(tiny_backbone())
    method.compile(keras.optimizers.SGD(0.01, momentum=0.9))
    method.save(tmp_path / "method.keras")
    for name, optimizer in (("plain", "AdamW"), ("method", "SGD")):
        with zipfile.ZipFile(tmp_path / f"{name}.keras") as file:
            text = file.read("config.json").decode()
        assert "keras.src.backend" not in text
        assert f'"module": "keras.optimizers", "class_name": "{optimizer}"' in text
    assert keras.models.load_model(tmp_path / "plain.keras").optimizer.weight_decay == 0.1
    # As versions before wrote it on torch.
    old = {**method.get_compile_config()}
    of_torch = {"module": "keras.src.backend.torch.optimizers.torch_sgd", "registered_name": "SGD"}
    old["optimizer"] = {**old["optimizer"], **of_torch}
    again = keras_ssl.SimCLR(tiny_backbone())
    again.compile_from_config(old)
    assert type(again.optimizer) is type(method.optimizer)


def test_keras_still_names_a_class_of_torch():
    """Where this fails, `of_any_backend` is no longer needed."""
    if keras.backend.backend() != "torch":
        return
    assert "keras.src.backend.torch" in keras.saving.serialize_keras_object(keras.optimizers.SGD())["module"]
