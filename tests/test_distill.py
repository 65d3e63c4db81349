"""Distillation: its loss against numpy, what the teacher gets to see, and that the teacher never changes."""

import zipfile

import keras
import numpy as np
import pytest
from conftest import tiny_backbone
from keras import ops

import keras_ssl
from keras_ssl import augment, callbacks, clone, losses
from keras_ssl.teacher import Frozen


def divergence(student, teacher, keys, temperature, teacher_temperature):
    """The mean over rows, in float64, from the paper's equations."""

    def distribution(rows, own, heat):
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        near = np.concatenate([np.sum(rows * own, axis=1, keepdims=True), rows @ unit_keys.T], axis=1) / heat
        near = np.exp(near - near.max(axis=1, keepdims=True))
        return near / near.sum(axis=1, keepdims=True)

    unit_keys = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    own = teacher / np.linalg.norm(teacher, axis=1, keepdims=True)
    p, q = distribution(teacher, own, teacher_temperature), distribution(student, own, temperature)
    return np.mean(np.sum(p * (np.log(p) - np.log(q)), axis=1))


def rows(count, seed):
    return np.random.default_rng(seed).normal(size=(count, 6))


def value_and_gradient(function, x):
    variable = keras.Variable(x.astype("float32"))
    return backend_value_and_gradient(function, variable)


def backend_value_and_gradient(function, variable):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = function(variable.value)
        return float(value), tape.gradient(value, variable.value).numpy()
    if keras.backend.backend() == "jax":
        import jax

        value, gradient = jax.value_and_grad(function)(variable.value)
        return float(value), np.asarray(gradient)
    value = function(variable.value)
    value.backward()
    return float(value.detach()), variable.value.grad.cpu().numpy()


@pytest.mark.parametrize("heats", [(0.2, 0.01), (0.2, 0.2), (0.07, 0.07)])
def test_the_loss_and_its_gradient_are_those_of_numpy(heats):
    student, teacher, keys = rows(5, 0), rows(5, 1), rows(9, 2)

    def loss(x):
        return ops.mean(losses.distillation(x, ops.cast(teacher, "float32"), ops.cast(keys, "float32"), *heats))

    value, gradient = value_and_gradient(loss, student)
    assert value == pytest.approx(divergence(student, teacher, keys, *heats), rel=1e-4)
    numeric, step = np.zeros_like(student), 1e-5
    for place in np.ndindex(*student.shape):
        up, down = student.copy(), student.copy()
        up[place] += step
        down[place] -= step
        ends = (divergence(x, teacher, keys, *heats) for x in (up, down))
        numeric[place] = (next(ends) - next(ends)) / (2 * step)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-3, atol=1e-5)


def test_the_loss_is_zero_for_the_teacher_itself_and_keys_that_hold_nothing_do_not_count():
    teacher, keys = (ops.cast(rows(count, seed), "float32") for count, seed in ((5, 1), (9, 2)))
    found = ops.convert_to_numpy(losses.distillation(teacher, teacher, keys, 0.1, 0.1))
    np.testing.assert_allclose(found, 0.0, atol=1e-6)
    student = ops.cast(rows(5, 0), "float32")
    some = losses.distillation(student, teacher, keys[:4], 0.2, 0.05)
    valid = losses.distillation(student, teacher, keys, 0.2, 0.05, valid=ops.arange(9) < 4)
    np.testing.assert_allclose(ops.convert_to_numpy(some), ops.convert_to_numpy(valid), rtol=1e-5)
    none = losses.distillation(student, teacher, keys, 0.2, 0.05, valid=ops.arange(9) < 0)
    np.testing.assert_allclose(ops.convert_to_numpy(none), 0.0, atol=1e-6)


class Seen(keras.layers.Layer):
    """Gives what it was given, as features: a teacher that tells what it sees."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, x):
        return ops.reshape(x * self.scale, (-1, int(np.prod(x.shape[1:]))))


def seen(shape):
    inputs = keras.Input(shape)
    return keras.Model(inputs, Seen()(inputs))


def test_a_teacher_sees_the_views_in_its_own_range_channels_and_size():
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1)).astype("float32")
    frozen = Frozen(seen((28, 28, 3)), value_range=(-1, 1))
    assert frozen.prepare(tiny_backbone(), (0, 255)) == 28 * 28 * 3
    features, places = frozen(images)
    assert places is None
    expected = np.repeat(images / 127.5 - 1.0, 3, axis=-1).reshape(3, -1)
    np.testing.assert_allclose(ops.convert_to_numpy(features), expected, atol=1e-5)
    smaller = Frozen(seen((14, 14, 1)))
    smaller.prepare(tiny_backbone(), (0, 255))
    flat = np.full((3, 28, 28, 1), 7.0, "float32")
    np.testing.assert_allclose(ops.convert_to_numpy(smaller(flat)[0]), 7.0, atol=1e-4)
    # What a backbone says of its range is taken; a trained method's backbone and range as well.
    inside = keras_ssl.backbones.resnet8((28, 28, 1), width=8, value_range=(0, 1))
    assert Frozen(inside).value_range == (0.0, 1.0)
    method = keras_ssl.SimCLR(inside, value_range=(0, 1))
    assert Frozen(method).value_range == (0, 1)
    assert Frozen(method).model is inside


def make(teacher=None, **options):
    keras.utils.set_random_seed(0)
    teacher = teacher or keras_ssl.backbones.resnet8((28, 28, 1), width=8)
    model = keras_ssl.Distill(tiny_backbone(), teacher, **{"memory": 32, **options})
    model.compile(keras.optimizers.AdamW(1e-2, weight_decay=0.1))
    return model


def values(layer):
    return [ops.convert_to_numpy(variable) for variable in layer.variables]


def images(count=64):
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1)).astype("uint8")


def test_the_teacher_never_changes_and_is_saved_once(tmp_path):
    model = make()
    before, student = values(model.teacher.model), values(model.backbone)
    model.trainable = True  # thaws every layer below
    model.fit(images(), batch_size=16, epochs=2, verbose=0)
    for one, other in zip(before, values(model.teacher.model), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(np.abs(one - other).max() > 1e-3 for one, other in zip(student, values(model.backbone)))
    theirs = {id(variable) for variable in model.teacher.model.variables}
    assert not theirs & {id(variable) for variable in model.trainable_variables}
    assert len(model.optimizer.variables) < 3 * len(model.trainable_variables) + 3
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one, other in zip(values(model.teacher), values(loaded.teacher), strict=True):
        np.testing.assert_array_equal(one, other)
    numbers = [float(ops.convert_to_numpy(m.evaluate(images(), batch_size=16, verbose=0)[0])) for m in (model, loaded)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-5)
    # Once: the file is as large as student, head, optimizer and one teacher.
    counted = sum(value.nbytes for part in (model, model.optimizer) for value in values(part))
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        size = next(info.file_size for info in file.infolist() if info.filename.endswith(".weights.h5"))
    assert counted < size < counted + 0.8 * sum(value.nbytes for value in before) + 200_000


def test_the_queue_holds_the_teachers_embeddings_of_the_last_views():
    model = make(views=augment.Views([augment.RandomHorizontalFlip(0.0)]))
    model.fit(images(16), batch_size=16, verbose=0, shuffle=False)
    kept = ops.convert_to_numpy(model.queue.rows)
    theirs, _ = model.teacher(images(16))
    theirs = ops.convert_to_numpy(losses.normalized(theirs))
    assert int(ops.convert_to_numpy(model.queue.count)) == 16
    order = np.argsort(kept[:16, 0]), np.argsort(theirs[:, 0])
    np.testing.assert_allclose(kept[:16][order[0]], theirs[order[1]], atol=1e-5)


@pytest.mark.slow
def test_features_are_compared_place_by_place_where_both_give_a_map():
    view = images(2).astype("float32")
    model = make()
    outputs = model.embed([view], training=False)
    _, theirs = model.teacher(view)
    mine = ops.image.resize(model.backbone(view, training=False), theirs.shape[1:3])
    mine = ops.reshape(model.projector(ops.reshape(mine, (-1, mine.shape[-1]))), theirs.shape)
    mine, theirs = (ops.convert_to_numpy(x).astype("float64") for x in (mine, theirs))
    cosine = (
        np.sum(mine * theirs, -1) / np.linalg.norm(mine, axis=-1) / np.maximum(np.linalg.norm(theirs, axis=-1), 1e-12)
    )
    np.testing.assert_allclose(
        ops.convert_to_numpy(outputs["features"]), np.mean(2 - 2 * cosine, axis=(1, 2)), rtol=1e-4, atol=1e-4
    )
    pooled = make(keras_ssl.backbones.resnet8((28, 28, 1), width=8, pooling="avg"))
    outputs = pooled.embed([view], training=False)
    np.testing.assert_allclose(
        ops.convert_to_numpy(outputs["features"]),
        ops.convert_to_numpy(losses.cosine(outputs["student"], outputs["teacher"])),
        rtol=1e-5,
    )


@pytest.mark.slow
def test_a_network_teaches_a_vit_and_a_vit_a_network():
    vit = keras_ssl.backbones.vit((28, 28, 1), patch_size=7, width=16, depth=2, heads=2)
    for student, teacher in ((vit, tiny_backbone()), (tiny_backbone(), vit)):
        model = keras_ssl.Distill(clone.clone(student), clone.clone(teacher), memory=32)
        model.compile(keras.optimizers.AdamW(1e-3))
        history = model.fit(images(32), batch_size=16, epochs=2, verbose=0).history
        assert np.isfinite(history["loss"]).all()


@keras.saving.register_keras_serializable("tests.test_distill")
class ClassToken(keras.layers.Layer):
    """Puts a vector before the tokens."""

    def build(self, input_shape):
        self.vector = self.add_weight(shape=(1, 1, input_shape[-1]), name="vector")

    def call(self, tokens):
        vector = ops.broadcast_to(self.vector, (ops.shape(tokens)[0], 1, tokens.shape[-1]))
        return ops.concatenate([vector, tokens], axis=1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], None if input_shape[1] is None else input_shape[1] + 1, input_shape[2])


def patches(size):
    """A class token and tokens of patches, of images of one size or, with None, of any."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((size, size, 1))
    x = keras.layers.Reshape((-1, 8))(keras.layers.Conv2D(8, 7, 7)(inputs))
    return keras.Model(inputs, ClassToken()(x))


def test_models_of_open_size_are_compared_as_those_of_the_images_size():
    views = [augment.RandomHorizontalFlip()]
    outputs = []
    for size in (28, None):
        model = keras_ssl.Distill(
            patches(size), patches(size), views=views, memory=32, projector=keras.layers.Identity()
        )
        model.compile(keras.optimizers.SGD(0.0))
        model.build((None, 28, 28, 1))
        model.backbone.set_weights([0.9 * weight + 0.1 for weight in model.backbone.get_weights()])
        view = images(4).astype("float32")
        outputs.append({name: ops.convert_to_numpy(x) for name, x in model.embed([view], training=False).items()})
        teacher, places = model.teacher(view)
        np.testing.assert_allclose(teacher, ops.convert_to_numpy(model.teacher.model(view))[:, 0], rtol=1e-5)
        assert tuple(places.shape) == (4, 4, 4, 8)
        assert np.isfinite(model.fit(images(32), batch_size=16, verbose=0).history["features"]).all()
    for name in outputs[0]:
        np.testing.assert_allclose(outputs[0][name], outputs[1][name], rtol=1e-4, atol=1e-5)
    assert np.abs(outputs[0]["features"]).min() > 1e-4, "the term is that of the places"


def test_wrong_teachers_are_refused():
    student = tiny_backbone()
    for teacher, error, words in (
        ("resnet", TypeError, "trained Keras model"),
        (student, ValueError, "share"),
        (seen((28, 28, 2)), ValueError, "channel"),
        (seen((7,)), ValueError, "student's views"),
        (Frozen(seen((28, 28, 1)), value_range=(0, 1)), None, ""),
    ):
        options = {"memory": 16}
        if error is None:
            keras_ssl.Distill(tiny_backbone(), teacher, **options).build((None, 28, 28, 1))
            continue
        with pytest.raises(error, match=words):
            keras_ssl.Distill(student, teacher, **options).build((None, 28, 28, 1))
    with pytest.raises(ValueError, match="value_range"):
        Frozen(tiny_backbone(), value_range=(1, 0))
    with pytest.raises(TypeError, match="Frozen: `model`"):
        Frozen("resnet")
    for options, words in (
        ({"memory": 0}, "memory"),
        ({"temperature": 0.0}, "temperature"),
        ({"teacher_temperature": -1.0}, "temperature"),
        ({"features_weight": -1.0}, "features_weight"),
    ):
        with pytest.raises(ValueError, match=words):
            keras_ssl.Distill(student, tiny_backbone(), **options)
    with pytest.raises(ValueError, match="memory"):
        make(memory=8).fit(images(16), batch_size=16, verbose=0)
    with pytest.raises(ValueError, match="no teacher whose momentum"):
        make().fit(images(16), batch_size=16, verbose=0, callbacks=[callbacks.TeacherEMA(0.9)])


def test_a_student_that_sees_nothing_has_the_loss_that_the_alarm_knows():
    """As near to every embedding of a sharp teacher: the divergence is the logarithm of their number."""
    width, count = 64, 31
    keys = np.random.default_rng(0).normal(size=(count, width)).astype("float32")
    teacher = np.random.default_rng(1).normal(size=(4, width)).astype("float32")
    away = np.linalg.svd(np.concatenate([keys, teacher]))[2][-1]  # at a right angle to all of them
    student = np.repeat(away[None], 4, axis=0).astype("float32")
    found = losses.distillation(*(ops.convert_to_tensor(x) for x in (student, teacher, keys)), 0.2, 0.01)
    expected = make(memory=count, features_weight=0.0).collapse_losses(16)
    np.testing.assert_allclose(ops.convert_to_numpy(found), next(iter(expected.values())), rtol=1e-3)


def test_its_paper_recipe_is_that_of_its_authors_code_and_the_small_one_says_that_it_was_not_measured():
    paper = keras_ssl.recipes.recipe(keras_ssl.Distill, (224, 224, 3), 1_281_167, 256, source="paper")
    assert (paper.learning_rate, paper.epochs) == (pytest.approx(0.03), 200)
    optimizer = paper.optimizer
    assert (optimizer.momentum, optimizer.nesterov) == (0.9, False)
    assert optimizer.weight_decay == pytest.approx(1e-3)  # 1e-4 / (1 − 0.9)
    assert paper.arguments == {
        "temperature": 0.2,
        "teacher_temperature": 1e-4,
        "memory": 65536,
        "features_weight": 0.0,
    }
    small = keras_ssl.recipes.recipe(keras_ssl.Distill, (28, 28, 1), 10_000, 128)
    assert (small.source, small.arguments) == ("small", {"memory": 2048})
    assert any("not tuned" in note for note in small.notes)
    for made in (paper, small):
        keras_ssl.Distill(tiny_backbone(), tiny_backbone(), views=made.views, **made.arguments)


@pytest.mark.one_backend
def test_the_command_asks_for_a_teacher_and_no_other_method_takes_one(tmp_path, capsys):
    from keras_ssl import cli

    keras_ssl.backbones.resnet8((28, 28, 1), width=8).save(tmp_path / "large.keras")
    for given in (["--method=distill"], ["--method=simclr", f"--teacher={tmp_path / 'large.keras'}"]):
        assert cli.main(["pretrain", f"--output={tmp_path / 'run'}", *given]) != 0
        assert "has a teacher" in capsys.readouterr().err
