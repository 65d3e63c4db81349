"""BYOL: the teacher follows the student exactly, nothing thaws it, and what keeps the method from collapse."""

import math
import warnings

import keras
import numpy as np
import pytest
from conftest import tiny_backbone
from keras import ops

import keras_ssl
from keras_ssl import augment, batch_norm, callbacks, distribute, heads
from keras_ssl.callbacks import CollapseMonitor
from keras_ssl.clone import clone
from keras_ssl.teacher import ConstantMomentum, CosineMomentum, Teacher


def head(*widths):
    return keras.Sequential(
        [*[keras.layers.Dense(width, "gelu") for width in widths[:-1]], keras.layers.Dense(widths[-1])]
    )


def views():
    flip = augment.RandomHorizontalFlip()
    return augment.Views([flip], [flip])


def model(backbone=None, **options):
    options = {"projector": head(16, 8), "predictor": head(16, 8), "views": views(), **options}
    return keras_ssl.BYOL(tiny_backbone() if backbone is None else backbone, **options)


def arrays(layers):
    return [ops.convert_to_numpy(weight) for layer in layers for weight in layer.weights]


class Record(keras.callbacks.Callback):
    """The student's weights after each step."""

    def __init__(self):
        super().__init__()
        self.students = []

    def on_train_batch_end(self, batch, logs=None):
        self.students.append(arrays([self.model.backbone, self.model.projector]))


def replayed(teacher, students, momentum):
    """The moving average step by step, in float64."""
    teacher = [weight.astype("float64") for weight in teacher]
    for step, student in enumerate(students):
        tau = momentum(step)
        teacher = [tau * t + (1.0 - tau) * s for t, s in zip(teacher, student)]
    return teacher


def cosine(base, steps):
    return lambda k: 1.0 - (1.0 - base) * (math.cos(math.pi * k / steps) + 1.0) / 2.0


@pytest.mark.parametrize("options", [{}, {"micro_batch_size": 4}], ids=["whole", "micro-batches"])
def test_the_teacher_is_the_replay_of_the_students(images, options):
    byol = model()
    byol.compile(keras.optimizers.SGD(0.1, momentum=0.9), **options)
    before, record = arrays(byol.teacher.copies), Record()
    byol.fit(images, batch_size=16, epochs=2, callbacks=[record], verbose=0)
    # Without a schedule of its own: the paper's, over the run's eight steps.
    expected = replayed(before, record.students, cosine(0.996, 8))
    moved = 0.0
    for ours, theirs, first in zip(arrays(byol.teacher.copies), expected, before):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        moved = max(moved, float(np.abs(ours - first).max()))
    assert moved > 1e-4, "a teacher that stands still would pass as well"
    assert int(ops.convert_to_numpy(byol.teacher.updates)) == 8


def test_several_steps_in_one_call_move_the_teacher_as_often(images):
    if keras.backend.backend() == "torch":
        return  # Keras has no steps_per_execution there
    ends = []
    for steps in (1, 4):
        keras.utils.set_random_seed(0)
        byol = model(momentum=0.5)
        byol.compile(keras.optimizers.SGD(0.1), steps_per_execution=steps)
        byol.fit(images, batch_size=8, epochs=2, verbose=0)
        assert int(ops.convert_to_numpy(byol.teacher.updates)) == 16
        ends.append(arrays(byol.teacher.copies))
    for one, other in zip(*ends):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("scaled", [False, True])
def test_accumulated_steps_move_the_teacher_once_an_optimizer_step(scaled, images):
    byol = model()
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    byol.compile(keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1.0) if scaled else optimizer)
    byol.fit(images, batch_size=8, epochs=1, verbose=0)
    assert int(ops.convert_to_numpy(byol.teacher.updates)) == 4
    assert int(ops.convert_to_numpy(byol.teacher.run_steps)) == 4


def test_every_weight_of_the_student_has_its_twin_and_none_is_shared():
    backbone = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Conv2D(4, 3, 2), keras.layers.BatchNormalization(), keras.layers.ReLU()]
    )
    byol = model(backbone, projector=heads.mlp([8, 4]))
    byol.build()
    student, teacher = [[*a.weights, *b.weights] for a, b in ([byol.backbone, byol.projector], byol.teacher.copies)]
    assert [weight.shape for weight in student] == [weight.shape for weight in teacher]
    assert not {id(weight) for weight in student} & {id(weight) for weight in teacher}
    for one, other in zip(student, teacher):
        np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(other))


def test_setting_trainable_thaws_nothing(images):
    byol = model()
    byol.compile(keras.optimizers.SGD(0.1))
    count = len(byol.trainable_variables)
    for value in (True, False, True):
        byol.trainable = value
        assert len(byol.trainable_variables) == (count if value else 0)
    outer = keras.Sequential([byol])
    outer.trainable = True
    assert len(byol.trainable_variables) == count
    byol.teacher.copies[0].trainable = True  # past the model
    byol.fit(images, batch_size=16, verbose=0)
    assert len(byol.trainable_variables) == count


def with_batch_norm():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Rescaling(1 / 127.5, -1),
            keras.layers.Conv2D(4, 3, 2),
            keras.layers.BatchNormalization(momentum=0.5),
        ]
    )


@pytest.mark.parametrize("statistics", ["own", "average", "copy"])
def test_statistics_of_the_teachers_batch_normalization(statistics, images):
    byol = model(with_batch_norm(), statistics=statistics, momentum=ConstantMomentum(0.9))
    byol.compile(keras.optimizers.SGD(0.1))
    student, teacher = byol.backbone.layers[-1], byol.teacher.copies[0].layers[-1]
    averaged, means = np.zeros(4), []
    for start in (0, 16, 32):
        before = ops.convert_to_numpy(teacher.moving_mean)
        byol.fit(images[start : start + 16], batch_size=16, verbose=0)
        mean, theirs = (ops.convert_to_numpy(layer.moving_mean) for layer in (student, teacher))
        averaged = 0.9 * averaged + 0.1 * mean
        means.append((mean, theirs, before))
    assert np.abs(mean).max() > 1e-3, "the statistics moved"
    if statistics == "average":
        np.testing.assert_allclose(theirs, averaged, atol=1e-6)
        assert np.abs(theirs - mean).max() > 1e-3
    elif statistics == "copy":
        np.testing.assert_array_equal(theirs, mean)
    else:
        # In its first step the teacher is the student, and sees what it sees; then its kernel lags behind.
        np.testing.assert_allclose(means[0][1], means[0][0], rtol=1e-4, atol=1e-6)
        assert np.abs(theirs - mean).max() > 1e-5
    assert teacher.trainable, "or it would normalize by moving statistics in training"


@pytest.mark.parametrize("late", ["unfrozen", "frozen"])
def test_layers_that_are_unfrozen_or_frozen_after_the_model_is_built_are_so_in_the_teacher(late, images):
    backbone = with_batch_norm()
    backbone.trainable = late == "frozen"
    byol = model(backbone, momentum=ConstantMomentum(0.5))
    moved = []
    for trainable in (late == "frozen", late == "unfrozen"):
        backbone.trainable = trainable
        byol.compile(keras.optimizers.SGD(0.1))
        copy = byol.teacher.copies[0]
        before = [ops.convert_to_numpy(layer.layers[-1].moving_mean) for layer in (backbone, copy)]
        byol.fit(images, batch_size=16, verbose=0)
        after = [ops.convert_to_numpy(layer.layers[-1].moving_mean) for layer in (backbone, copy)]
        moved.append([bool(np.abs(one - other).max() > 1e-3) for one, other in zip(before, after)])
        assert not copy.trainable_variables
        assert len(byol.trainable_variables) == 8 + 4 * trainable, "of two heads, and of the student"
    assert moved == ([[True, True], [False, False]] if late == "frozen" else [[False, False], [True, True]])
    # One step on a batch makes it so as well, and whatever lies between.
    backbone.layers[-1].trainable = late == "frozen"
    byol.compile(keras.optimizers.SGD(0.1))
    byol.train_on_batch(images[:16])
    assert byol.teacher.copies[0].layers[-1].trainable == (late == "frozen")
    assert not byol.teacher.copies[0].trainable_variables


@pytest.mark.parametrize("change", ["ghost batches", "fused", "plain"])
def test_the_teacher_normalises_as_the_student(change, images):
    backbone = with_batch_norm()
    if change == "ghost batches":
        batch_norm.use_ghost_batches(backbone, 8)
    elif change == "fused":
        batch_norm.use_fused(backbone)
    byol = model(backbone, momentum=ConstantMomentum(1.0))
    byol.compile(keras.optimizers.SGD(0.0))
    byol.fit(images, batch_size=16, verbose=0)
    # Neither was moved, and both saw the same images in the same way.
    for one, other in zip(byol.backbone.weights, byol.teacher.copies[0].weights):
        np.testing.assert_allclose(ops.convert_to_numpy(one), ops.convert_to_numpy(other), atol=1e-6)
    settings = [batch_norm._statistics(layer.layers[-1]) for layer in (backbone, byol.teacher.copies[0])]
    assert settings[0] == settings[1]


def test_replicas_teach_as_one_device_where_statistics_are_global(images):
    if keras.backend.backend() == "torch":
        return  # one device

    def trained():
        keras.utils.set_random_seed(0)
        backbone = with_batch_norm()
        batch_norm.use_global_statistics(backbone)
        byol = model(backbone, momentum=ConstantMomentum(0.9))
        byol.compile(keras.optimizers.SGD(0.01))
        byol.fit(images, batch_size=16, verbose=0)
        return [ops.convert_to_numpy(weight) for weight in byol.weights]

    alone = trained()
    with distribute.local_replicas(2):
        together = trained()
    for one, other in zip(alone, together):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_weights_in_half_precision_are_refused():
    keras.config.set_dtype_policy("bfloat16")
    try:
        byol = model()
        with pytest.raises(ValueError, match="mixed_bfloat16"):
            byol.build()
    finally:
        keras.config.set_dtype_policy("float32")


def test_losses_of_layers_count_once_and_the_teachers_never(images):
    convolution = keras.layers.Conv2D(4, 3, 2, activity_regularizer=keras.regularizers.L2(1e-3))
    backbone = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255), convolution])
    byol = model(backbone)
    byol.compile(keras.optimizers.SGD(0.0))
    history = byol.fit(images[:16], batch_size=16, verbose=0).history
    extra = history["loss"][0] - history["byol"][0]
    maps = ops.convert_to_numpy(backbone(images[:16].astype("float32")))
    # Both views go through the student, each adds its own; flips don't change the sum by much.
    assert extra == pytest.approx(2 * 1e-3 * float((maps**2).sum()) / 16, rel=0.05)


def test_it_saves_and_goes_on_with_its_schedule(images, tmp_path):
    schedule = keras.optimizers.schedules.PolynomialDecay(0.9, 10, 1.0)
    byol = model(momentum=schedule)
    byol.compile(keras.optimizers.SGD(0.1))
    byol.fit(images, batch_size=16, verbose=0)
    byol.save(tmp_path / "byol.keras")
    loaded = keras.models.load_model(tmp_path / "byol.keras")
    assert float(loaded.teacher.momentum()) == pytest.approx(0.9 + 0.1 * 4 / 10)
    for one, other in zip(byol.weights, loaded.weights):
        np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(other))


# The callback.


def test_teacher_ema_owns_the_schedule_and_a_second_fit_obeys(images):
    byol = model()
    byol.compile(keras.optimizers.SGD(0.1))
    byol.fit(images, batch_size=16, verbose=0)  # compiled with another schedule
    before = arrays(byol.teacher.copies)
    history = byol.fit(
        images, batch_size=16, verbose=0, callbacks=[callbacks.TeacherEMA(ConstantMomentum(1.0))]
    ).history
    assert history["momentum"] == [1.0]
    for one, other in zip(before, arrays(byol.teacher.copies)):
        np.testing.assert_array_equal(one, other)
    history = byol.fit(
        images,
        batch_size=16,
        verbose=0,
        validation_data=images,
        callbacks=[callbacks.TeacherEMA(ConstantMomentum(0.0))],
    ).history
    assert history["val_teacher_momentum"] == [0.0]
    for one, other in zip(arrays([byol.backbone, byol.projector]), arrays(byol.teacher.copies)):
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_a_number_is_the_base_of_the_cosine_over_the_run(images):
    byol = model()
    byol.compile(keras.optimizers.SGD(0.1))
    record = callbacks.TeacherEMA(0.5)
    history = byol.fit(images, batch_size=16, epochs=3, verbose=0, callbacks=[record]).history
    expected = [cosine(0.5, 12)(step) for step in (3, 7, 11)]  # the last step of each epoch
    np.testing.assert_allclose(history["momentum"], expected, rtol=1e-5)
    # A second fit is a run of its own.
    again = byol.fit(images, batch_size=16, epochs=1, verbose=0).history
    assert again["teacher_momentum"][0] == pytest.approx(np.mean([cosine(0.5, 4)(step) for step in range(4)]), rel=1e-5)


def test_teacher_ema_without_a_teacher_is_refused(images):
    simclr = keras_ssl.SimCLR(tiny_backbone())
    simclr.compile("sgd")
    with pytest.raises(ValueError, match="SimCLR has no teacher"):
        simclr.fit(images, batch_size=16, verbose=0, callbacks=[callbacks.TeacherEMA()])
    plain = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(1)])
    plain.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="Sequential has no teacher"):
        plain.fit(images, np.zeros(64), verbose=0, callbacks=[callbacks.TeacherEMA()])


class Unsaved:
    def __call__(self, step):
        return 0.9


@pytest.mark.parametrize("schedule", [lambda step: 0.9, Unsaved(), "cosine"], ids=["lambda", "no config", "a name"])
def test_a_schedule_that_can_not_be_saved_is_refused(schedule):
    with pytest.raises(ValueError, match=r"can't be saved|is a function"):
        callbacks.TeacherEMA(schedule)
    with pytest.raises(ValueError, match=r"can't be saved|is a function"):
        model(momentum=schedule)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: model(momentum=1.5), "momentum.* between 0 and 1"),
        (lambda: model(statistics="none"), "statistics"),
        (lambda: CosineMomentum(0.9, steps=0), "steps"),
        (lambda: ConstantMomentum(-0.1), "between 0 and 1"),
    ],
)
def test_senseless_arguments_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_stream_of_unknown_length_needs_a_schedule_of_its_own(images):
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    stream = tf.data.Dataset.from_generator(
        lambda: (images[i : i + 16] for i in range(0, 64, 16)), output_signature=tf.TensorSpec((16, 28, 28, 1), "uint8")
    )
    byol = model()
    byol.compile("sgd")
    with pytest.raises(ValueError, match="steps_per_epoch"):
        byol.fit(stream, verbose=0)


def test_a_copy_has_its_originals_layers_and_flags():
    backbone = with_batch_norm()
    backbone.layers[1].trainable = False
    twin = clone(backbone)
    teacher = Teacher(ConstantMomentum(0.5))
    teacher.track([twin])
    assert [layer.trainable for layer in teacher.copies[0].layers] == [layer.trainable for layer in twin.layers]
    assert not teacher.trainable_variables


# Its parts, switched off one by one. Each run: the same small network, data and rate.


def spread_after(images, epochs=12, **options):
    """The spread after each epoch, and what the monitor says."""
    keras.utils.set_random_seed(0)
    layers = [augment.RandomResizedCrop(28, (0.6, 1.0)), augment.RandomHorizontalFlip()]
    parts = {"projector": heads.mlp([64, 16], last_batch_norm=False), "momentum": ConstantMomentum(0.9)}
    parts = {**parts, "predictor": heads.mlp([64, 16], last_batch_norm=False), **options}
    byol = model(with_batch_norm(), views=augment.Views(layers, layers), **parts)
    byol.compile(keras.optimizers.Adam(2e-2))
    monitor = CollapseMonitor(images[:256], patience=40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        history = byol.fit(images, batch_size=64, epochs=epochs, callbacks=[monitor], verbose=0).history
    return history["spread"], monitor.alarms


@pytest.mark.slow
def test_without_its_parts_byol_collapses(sample):
    images = sample.train.images[:512]
    whole, alarms = spread_after(images)
    assert alarms == []
    no_predictor, _ = spread_after(images, predictor=keras.layers.Identity())
    neither, alarms = spread_after(images, predictor=keras.layers.Identity(), momentum=ConstantMomentum(0.0))
    assert any("embeddings" in sentence for sentence in alarms), alarms
    simsiam, _ = spread_after(images, momentum=ConstantMomentum(0.0))
    assert no_predictor[-1] < 0.5 * whole[-1]
    assert neither[-1] < 0.2 * whole[-1]
    assert simsiam[-1] > 2.0 * neither[-1]
