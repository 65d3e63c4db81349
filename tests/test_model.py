"""The base class: what goes in, what comes out, what is refused, what is saved."""

import inspect
import math
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from conftest import tiny_backbone
from keras import ops

import keras_ssl
from keras_ssl import augment, clone, distribute, heads
from keras_ssl.data import adapter
from keras_ssl.model import SelfSupervisedModel
from keras_ssl.training import preflight

BACKEND = keras.backend.backend()


def light_views():
    """Views that are quick to trace: what they are does not matter to these tests."""
    return augment.Views([augment.RandomHorizontalFlip()], [augment.RandomErasing()])


def simclr(backbone=None, **options):
    projector = heads.mlp([16, 8], batch_norm=False, last_batch_norm=False)
    options = {"temperature": 0.2, "projector": projector, "views": light_views(), **options}
    return keras_ssl.SimCLR(backbone or tiny_backbone(), **options)


def compiled(model=None, **options):
    model = model or simclr()
    model.compile(keras.optimizers.SGD(0.01), **options)
    return model


def weights(model):
    return [ops.convert_to_numpy(weight) for weight in model.weights]


def same_weights(one, other, atol=0.0):
    assert len(one) == len(other)
    for a, b in zip(one, other):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def copied(model, **options):
    """A new model with the same weights."""
    other = simclr(**options)
    if not other.built:
        other.build((None, 28, 28, 1))
    for a, b in zip(other.weights, weights(model)):
        a.assign(b)
    return other


# Forms of data.


def forms(images):
    labels = np.arange(len(images)) % 10
    float_images = images.astype("float32")

    class Sequence(keras.utils.PyDataset):
        def __init__(self, make):
            super().__init__()
            self.make = make

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return self.make(slice(16 * index, 16 * index + 16))

    return {
        "uint8": (images, {}),
        "float": (float_images, {}),
        "labels beside": (images, {"y": labels}),
        "dict": ({"image": images}, {}),
        "dict with labels": ({"image": images, "label": labels}, {}),
        "split": (keras_ssl.data.Split(images, labels), {}),
        "tensor": (ops.convert_to_tensor(float_images), {}),
        "PyDataset": (Sequence(lambda rows: images[rows]), None),
        "PyDataset of pairs": (Sequence(lambda rows: (images[rows], labels[rows])), None),
        "PyDataset of dicts": (Sequence(lambda rows: {"image": images[rows]}), None),
        "loader": (ListLoader([(images[16 * i : 16 * i + 16], labels[16 * i : 16 * i + 16]) for i in range(4)]), None),
    }


class ListLoader:
    """What a torch DataLoader is: a length, and an iterator that can be had again."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


@pytest.fixture(scope="module")
def trained(images):
    """`(initial, after)`: weights before and after one epoch of batches of 16 in order."""
    model = compiled()
    initial = weights(model)
    model.fit(images, batch_size=16, epochs=1, verbose=0, shuffle=False)
    assert int(ops.convert_to_numpy(model.step)) == 4
    return initial, weights(model)


def fitted_from(initial, x, **options):
    model = compiled()
    for weight, value in zip(model.weights, initial):
        weight.assign(value)
    model.fit(x, epochs=1, verbose=0, **options)
    return weights(model)


@pytest.mark.parametrize("form", forms(np.zeros((64, 28, 28, 1), "uint8")))
def test_fit_takes_images_in_every_form_and_trains_alike(images, trained, form):
    x, options = forms(images)[form]
    options = {"batch_size": 16, "shuffle": False, **options} if options is not None else {}
    same_weights(fitted_from(trained[0], x, **options), trained[1])


def test_a_torch_data_loader_of_dicts_is_taken(images):
    torch = pytest.importorskip("torch") if BACKEND == "torch" else None
    if torch is None:
        loader = ListLoader([{"image": images[i : i + 16]} for i in range(0, 64, 16)])
    else:
        loader = torch.utils.data.DataLoader([{"image": torch.tensor(image)} for image in images], batch_size=16)
    history = compiled().fit(loader, epochs=2, verbose=0).history
    assert len(history["loss"]) == 2
    assert np.isfinite(history["loss"]).all()


def tf_data_forms(images):
    import tensorflow as tf

    labels = np.arange(len(images)) % 10
    plain = tf.data.Dataset.from_tensor_slices(images)
    pairs = tf.data.Dataset.from_tensor_slices((images, labels))
    return {
        "images": plain.batch(16),
        "uneven": tf.data.Dataset.from_tensor_slices(np.concatenate([images, images[:5]])).batch(16),
        "static": plain.batch(16, drop_remainder=True),
        "pairs": pairs.batch(16),
        "dicts": pairs.map(lambda x, y: {"image": x, "label": y}).batch(16),
        "dict and labels": pairs.map(lambda x, y: ({"image": x}, y)).batch(16),
    }


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data is TensorFlow's; JAX and torch are fed by PyDataset")
@pytest.mark.parametrize("form", ["images", "uneven", "static", "pairs", "dicts", "dict and labels"])
@pytest.mark.filterwarnings("error:Your input ran out of data")
def test_fit_takes_tf_data_in_every_form(images, trained, form):
    same_weights(fitted_from(trained[0], tf_data_forms(images)[form]), trained[1])


def test_views_of_ones_own_are_used_as_they_are(images):
    a, b = images.astype("float32"), images[:, :, ::-1].astype("float32")
    model = simclr(views=augment.Views([], []))
    own = copied(model if model.built else compiled(model), views=augment.Views([], []))
    # Views without layers give the image twice; given views that are the image twice must train alike.
    compiled(model).fit(images, batch_size=16, verbose=0, shuffle=False)
    compiled(own).fit({"views": (a, a)}, batch_size=16, verbose=0, shuffle=False)
    same_weights(weights(model), weights(own))
    assert math.isfinite(own.evaluate({"views": (a, b)}, batch_size=16, verbose=0, return_dict=True)["loss"])


def test_backbones_that_are_not_for_images_work_with_views_of_ones_own():
    backbone = keras.Sequential([keras.Input((12,)), keras.layers.Dense(8, activation="gelu"), keras.layers.Dense(6)])
    model = keras_ssl.SimCLR(backbone, projector=keras.layers.Identity(), value_range=(-10, 10))
    generator = np.random.default_rng(0)
    a = generator.normal(size=(64, 12)).astype("float32")
    b = a + 0.1 * generator.normal(size=(64, 12)).astype("float32")
    model.compile(keras.optimizers.Adam(0.01))
    losses = model.fit({"views": (a, b)}, batch_size=32, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]


# The order of the images.


def seen(model, images, **fit):
    """The rows in the order in which training saw them: each image has its row as its value."""
    order = []

    def remember(views, training):
        order.append(ops.convert_to_numpy(views[0])[:, 0, 0, 0].astype(int).tolist())
        return type(model).embed(model, views, training)

    numbered = np.zeros((len(images), 28, 28, 1), "uint8") + np.arange(len(images), dtype="uint8")[:, None, None, None]
    model.views = augment.Views([], [])
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    model.embed = remember
    model.fit(numbered, verbose=0, **fit)
    return order


@pytest.mark.skipif(BACKEND == "jax", reason="JAX traces the forward pass for its gradient, and shows no values there")
def test_the_order_is_a_function_of_seed_and_epoch(images):
    straight = seen(simclr(), images, batch_size=24, epochs=3)
    assert [len(batch) for batch in straight] == [24] * 6, "the 16 images left over in each pass are dropped"
    assert sorted(straight[0] + straight[1]) != sorted(straight[2] + straight[3]), "others are dropped in each pass"
    resumed = seen(simclr(), images, batch_size=24, epochs=3, initial_epoch=2)
    assert resumed == straight[4:]
    assert seen(simclr(seed=1), images, batch_size=24, epochs=1) != straight[:2]
    unshuffled = seen(simclr(), images, batch_size=24, epochs=1, shuffle=False)
    assert unshuffled == [list(range(24)), list(range(24, 48))]


@pytest.mark.skipif(BACKEND == "jax", reason="JAX traces the forward pass for its gradient, and shows no values there")
def test_steps_per_epoch_goes_on_where_the_epoch_before_stopped(images):
    whole = seen(simclr(), images, batch_size=16, epochs=2)
    parts = seen(simclr(), images, batch_size=16, epochs=4, steps_per_epoch=2)
    assert parts == whole


def test_left_over_images_are_told_once(images, capsys):
    model = compiled()
    model.fit(images, batch_size=24, epochs=1, verbose=2)
    model.fit(images, batch_size=24, epochs=1, verbose=2)
    assert capsys.readouterr().out.count("last partial batch (16 images) is dropped") == 1


def test_left_over_images_of_an_evaluation_are_told_once(images, capsys):
    model = compiled()
    for _ in range(2):
        model.fit(images[:48], batch_size=24, epochs=1, validation_data=images, verbose=2)
        model.evaluate(images, batch_size=24, verbose=2)
    told = capsys.readouterr().out
    for where in ("`validation_data`: ", "evaluate: "):
        sentence = "64 images make 2 batches of 24; the last partial batch (16 images) is dropped."
        assert told.count(f"keras_ssl: {where}{sentence}") == 1
    model.evaluate(images[:30], batch_size=24, verbose=0)
    assert "dropped" not in capsys.readouterr().out


def test_left_over_images_of_validation_data_are_told_as_well(images):
    model = compiled()
    feed, validation = (
        adapter.adapt(part, None, model.needs(), model, 24, what=what)
        for part, what in ((images[:48], "x"), (images, "validation_data"))
    )
    assert list(preflight.sentences(model, feed, validation).values())[-1] == (
        "`validation_data`: 64 images make 2 batches of 24; the last partial batch (16 images) is dropped."
    )
    assert not any("dropped" in about for about in preflight.sentences(model, feed, feed))
    assert not any("dropped" in about for about in preflight.sentences(model, feed))


def test_labels_that_are_not_used_are_told_once(images, capsys):
    model = compiled()
    for _ in range(2):
        model.fit(images, np.zeros(64, int), batch_size=32, verbose=0)
    assert capsys.readouterr().out.count("learns without labels") == 1


# Features, losses, logs.


def test_outside_of_fit_a_model_is_its_backbone(images):
    model = compiled()
    model.fit(images, batch_size=32, verbose=0)
    plain = keras.Sequential([model.backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])
    assert plain(images.astype("float32")).shape == (64, 3)
    np.testing.assert_allclose(
        ops.convert_to_numpy(model(images)), ops.convert_to_numpy(model.backbone(images.astype("float32"))), atol=1e-6
    )
    np.testing.assert_allclose(model.predict({"image": images}, verbose=0), model.predict(images, verbose=0))


def test_a_step_that_fails_leaves_the_model_its_backbone(images):
    class Broken(keras_ssl.SimCLR):
        def objective(self, outputs, batch):
            raise RuntimeError("broken on purpose")

    # Without batch normalization: on torch, Keras' statistics move as the forward pass runs, before anything fails.
    model = Broken(tiny_backbone(), projector=heads.mlp([16, 8], batch_norm=False, last_batch_norm=False))
    model.compile("sgd")
    before = weights(model)
    with pytest.raises(RuntimeError, match="on purpose"):
        model.fit(images, batch_size=32, verbose=0)
    assert tuple(model(images).shape)[-1] == 16
    same_weights(weights(model), before)  # on JAX, Keras alone would leave the model empty


def test_regularisers_of_the_users_layers_enter_the_loss_once(images):
    plain = compiled(simclr(tiny_backbone()))
    strength = 0.01
    regular = copied(plain, backbone=tiny_backbone(kernel_regularizer=keras.regularizers.L2(strength)))
    penalty = sum(
        strength * np.sum(np.square(layer.get_weights()[0])) for layer in regular.backbone.layers if layer.weights
    )
    for model in (plain, compiled(regular)):
        model.history_ = model.evaluate(images, batch_size=32, verbose=0, return_dict=True)
    assert regular.history_["loss"] - plain.history_["loss"] == pytest.approx(penalty, rel=1e-4)
    assert regular.history_["nt_xent"] == pytest.approx(plain.history_["nt_xent"], rel=1e-6)


def test_validation_loss_enters_the_logs_and_evaluate_gives_the_same(images):
    model = compiled()
    history = model.fit(images, batch_size=16, epochs=1, validation_data=images[:32], verbose=0).history
    again = model.evaluate(images[:32], batch_size=16, verbose=0, return_dict=True)
    assert history["val_loss"][-1] == pytest.approx(again["loss"], rel=1e-6)
    assert set(history) == {"loss", "nt_xent", "contrastive_accuracy"} | {f"val_{name}" for name in again}


def test_callbacks_may_come_as_one_a_list_or_keras_own_list(images):
    for wrap in (lambda one: one, lambda one: [[one]], lambda one: keras.callbacks.CallbackList([one])):
        seen = []
        model = simclr()
        model.compile("sgd")
        callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))  # noqa: B023
        history = model.fit(images[:32], batch_size=16, epochs=2, callbacks=wrap(callback), verbose=0)
        assert seen == [0, 1]
        assert len(history.history["loss"]) == 2


def test_validation_split_holds_out_the_last_images(images):
    split, apart = compiled(), None
    apart = compiled(copied(split))
    one = split.fit(images, batch_size=16, validation_split=0.25, verbose=0).history
    other = apart.fit(images[:48], batch_size=16, validation_data=images[48:], verbose=0).history
    assert one == other


def test_callbacks_of_keras_can_watch_the_validation_loss(images, tmp_path):
    model = compiled()
    stop = keras.callbacks.EarlyStopping("val_loss", patience=0, min_delta=1e9)
    keep = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", "val_loss", save_best_only=True)
    history = model.fit(
        images, batch_size=16, epochs=5, validation_data=images[:32], callbacks=[stop, keep], verbose=0
    ).history
    assert len(history["loss"]) == 2
    assert (tmp_path / "best.keras").exists()


def test_the_first_loss_of_a_new_model_is_near_what_knowing_nothing_costs(sample):
    model = compiled(simclr(temperature=10.0))
    loss = model.evaluate(sample.train.images[:256], batch_size=128, verbose=0, return_dict=True)["loss"]
    (trivial,) = model.collapse_losses(128).values()
    assert loss == pytest.approx(trivial, abs=0.1)


# Half precision.


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_follows_the_backbones_policy(images, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        backbone = tiny_backbone()
    finally:
        keras.config.set_dtype_policy(before)
    model = keras_ssl.SimCLR(backbone)
    assert model.dtype_policy.name == policy
    model.compile("sgd")
    assert model.projector.layers[0].compute_dtype == policy.removeprefix("mixed_")
    if policy == "mixed_float16":
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    history = model.fit(images, batch_size=16, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert all(view.dtype == model.views(images)[0].dtype for view in model.views(images))
    assert keras.backend.standardize_dtype(model.views(images)[0].dtype) == "float32"


def in_half_precision(policy="mixed_float16"):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        keras.utils.set_random_seed(0)
        return tiny_backbone()
    finally:
        keras.config.set_dtype_policy(before)


def loaded(backbone, folder):
    backbone.save(folder / "backbone.keras")
    return keras.models.load_model(folder / "backbone.keras")


def test_a_backbone_whose_layers_alone_are_in_half_precision_trains_as_the_one_it_was_made_of(images, tmp_path):
    """The config of a functional model has no policy: what is loaded or cloned has that of `keras.config`."""
    ends = []
    for change in (lambda backbone: backbone, lambda backbone: loaded(backbone, tmp_path), clone.clone):
        backbone = change(in_half_precision())
        keras.utils.set_random_seed(1)
        model = keras_ssl.SimCLR(backbone)
        model.compile(keras.optimizers.SGD(0.1))
        assert model.dtype_policy.name == model.projector.layers[0].dtype_policy.name == "mixed_float16"
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        model.fit(images, batch_size=16, verbose=0)
        ends.append([ops.convert_to_numpy(weight) for weight in backbone.weights])
    for end in ends[1:]:
        for one, other in zip(ends[0], end):
            np.testing.assert_allclose(one, other, atol=1e-3)
    assert keras_ssl.SimCLR(loaded(in_half_precision("mixed_bfloat16"), tmp_path)).dtype_policy.name == "mixed_bfloat16"


def test_the_loss_is_scaled_where_any_layer_that_learns_is_in_float16(images, tmp_path):
    half = loaded(in_half_precision(), tmp_path)
    projector = keras.Sequential([keras.layers.Dense(4, dtype="mixed_float16")])
    for make, expected in (
        (lambda: keras_ssl.SimCLR(half, dtype="float32"), True),
        (lambda: keras_ssl.SimCLR(tiny_backbone(), projector=projector), True),
        (lambda: keras_ssl.SimCLR(tiny_backbone()), False),
        (lambda: keras_ssl.SimCLR(loaded(in_half_precision("mixed_bfloat16"), tmp_path)), False),
        (lambda: keras_ssl.Distill(tiny_backbone(), half, memory=32), False),
    ):
        for automatic in (True, False):
            model = make()
            model.compile(keras.optimizers.SGD(0.1), auto_scale_loss=automatic)
            scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
            assert scaled == (expected and automatic)
    model = keras_ssl.SimCLR(half, dtype="float32")
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)))
    model.fit(images, batch_size=16, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.optimizer.inner_optimizer) is type(model.optimizer.inner_optimizer)
    for one, other in zip(model.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(other))


# Saving.


def test_a_saved_model_loads_in_a_fresh_process_and_goes_on_as_if_nothing_had_happened(images, tmp_path):
    """With Adam, dropout in the backbone and Keras' own random layers in the views, in safe mode."""
    backbone = keras.Sequential([*tiny_backbone().layers, keras.layers.Dropout(0.3, seed=1)])
    backbone.build((None, 28, 28, 1))
    flip = keras.layers.RandomFlip("horizontal", seed=2)
    jitter = augment.RandomColorJitter(0.4, 0.4)
    model = keras_ssl.SimCLR(backbone, views=augment.Views([flip, jitter], [jitter]), temperature=0.3)
    model.compile(keras.optimizers.Adam(1e-3), steps_per_execution=1)
    np.save(tmp_path / "images.npy", images)
    model.fit(images, batch_size=16, epochs=1, verbose=0)
    model.save(tmp_path / "half.keras")
    model.fit(images, batch_size=16, epochs=2, initial_epoch=1, verbose=0)
    code = """
        import sys, keras, numpy as np, keras_ssl
        folder = sys.argv[1]
        model = keras.models.load_model(folder + "/half.keras", safe_mode=True)
        assert model.compiled and model.temperature == 0.3
        model.fit(np.load(folder + "/images.npy"), batch_size=16, epochs=2, initial_epoch=1, verbose=0)
        state = [*model.variables, *model.optimizer.variables]
        np.savez(folder + "/state.npz", *[keras.ops.convert_to_numpy(v) for v in state])
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], check=True, capture_output=True)
    with np.load(tmp_path / "state.npz") as file:
        resumed = [file[name] for name in file.files]
    straight = [ops.convert_to_numpy(v) for v in [*model.variables, *model.optimizer.variables]]
    same_weights(resumed, straight, atol=1e-6 if BACKEND == "tensorflow" else 0.0)


def test_the_trained_backbone_loads_where_keras_ssl_is_not_installed(images, tmp_path):
    backbone = keras_ssl.backbones.resnet8((28, 28, 1), width=8)
    model = keras_ssl.SimCLR(backbone, light_views())
    model.compile("adam")
    model.fit(images, batch_size=32, verbose=0)
    backbone.save(tmp_path / "backbone.keras")
    np.save(tmp_path / "images.npy", images)
    code = """
        import sys
        sys.modules["keras_ssl"] = None  # importing it fails, as where it is not installed
        import keras, numpy as np
        backbone = keras.models.load_model(sys.argv[1] + "/backbone.keras")
        np.save(sys.argv[1] + "/features.npy", backbone.predict(np.load(sys.argv[1] + "/images.npy"), verbose=0))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], check=True, capture_output=True)
    expected = backbone.predict(images, verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "features.npy"), expected, atol=1e-6, rtol=1e-6)


def test_a_model_saved_before_training_loads(tmp_path):
    model = simclr()
    model.compile("sgd")
    model.save(tmp_path / "new.keras")
    same_weights(weights(keras.models.load_model(tmp_path / "new.keras")), weights(model))


# Backbones.


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            lambda: keras.applications.MobileNetV2((32, 32, 3), 0.35, include_top=False, weights=None),
            marks=pytest.mark.slow,
        ),
        lambda: keras_ssl.backbones.resnet18((32, 32, 3), width=8),
        lambda: keras_ssl.backbones.resnet18((32, 32, 3), width=8, pooling="avg", cifar_stem=False),
    ],
    ids=["MobileNetV2", "resnet18", "resnet18 of ImageNet, pooled"],
)
def test_any_keras_backbone_is_taken_as_it_is(make):
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("uint8")
    model = keras_ssl.SimCLR(make(), light_views())
    model.compile("sgd")
    history = model.fit(images, batch_size=8, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert model.predict(images, verbose=0).shape[0] == 8


def test_a_subclassed_backbone_without_a_known_input_is_built_by_the_first_batch(images):
    @keras.saving.register_keras_serializable("tests")
    class Plain(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.convolution = keras.layers.Conv2D(8, 3, 4)

        def build(self, input_shape):
            self.convolution.build(input_shape)

        def call(self, images):
            return self.convolution(images / 255.0)

    model = keras_ssl.SimCLR(Plain(), views=augment.small_gray(28))
    model.compile("sgd")
    assert np.isfinite(model.fit(images, batch_size=32, verbose=0).history["loss"]).all()


@pytest.mark.one_backend
def test_sizes_of_the_small_resnets():
    assert 250_000 < keras_ssl.backbones.resnet8((28, 28, 1)).count_params() < 350_000
    assert keras_ssl.backbones.resnet8((28, 28, 1)).output_shape == (None, 4, 4, 128)
    assert keras_ssl.backbones.resnet18((32, 32, 3)).output_shape == (None, 4, 4, 512)
    assert 11_000_000 < keras_ssl.backbones.resnet18((32, 32, 3)).count_params() < 11_300_000
    assert keras_ssl.backbones.resnet18((64, 64, 3), cifar_stem=False).output_shape == (None, 2, 2, 512)


# A new method takes one file, of what a method is.


@pytest.mark.one_backend
def test_simclr_is_written_as_any_new_method_would_be():
    source = inspect.getsource(sys.modules["keras_ssl.methods.simclr"])
    code = [line for line in source.splitlines() if line.strip()]
    assert len(code) < 150
    assert "tensorflow" not in source
    assert "train_step" not in source
    own = {name for name, value in vars(keras_ssl.SimCLR).items() if inspect.isfunction(value)}
    hooks = {"build_heads", "embed", "objective", "after_optimizer_step", "check_batch_size", "collapse_losses"}
    assert own <= hooks | {"__init__", "default_views"}


def test_terms_that_are_not_stated_are_refused(images):
    class Misnamed(keras_ssl.SimCLR):
        terms = ("other",)

    model = Misnamed(tiny_backbone())
    model.compile("sgd")
    with pytest.raises(ValueError, match="make them agree"):
        model.fit(images, batch_size=32, verbose=0)


# Bad input.


def bad_fit(images, words, error=ValueError, model=None, **options):
    options = {"batch_size": 16, "verbose": 0, **options}
    model = model or compiled()
    before = weights(model)
    with pytest.raises(error, match=words):
        model.fit(images, **options)
    same_weights(weights(model), before)


def test_fewer_images_than_a_batch_are_refused(images):
    bad_fit(images[:10], "batch_size=10")


def test_a_batch_of_one_image_is_refused(images):
    bad_fit(images, "`batch_size` is 1: SimCLR compares images of a batch, and needs 2 or more", batch_size=1)
    alone = [images[number : number + 1] for number in range(4)]
    bad_fit(ListLoader(alone), "`x` gives batches of 1 image: SimCLR compares images", batch_size=None)
    bad_fit(images, "`validation_batch_size` is 1: SimCLR", validation_data=images, validation_batch_size=1)
    bad_fit(images, "`validation_data` gives batches of 1 image", validation_data=ListLoader(alone))
    bad_fit(images, "`validation_data` holds 1 image: SimCLR", validation_data=images[:1])
    model = compiled()
    for method in (model.train_on_batch, model.test_on_batch, model.evaluate):
        with pytest.raises(ValueError, match="`x` holds 1 image: SimCLR compares images of a batch, and needs 2"):
            method(images[:1])


def test_a_batch_of_one_image_is_enough_where_images_do_not_meet(images):
    byol = compiled(keras_ssl.BYOL(tiny_backbone(), light_views(), keras.layers.Dense(8), keras.layers.Dense(8)))
    alone = ListLoader([images[number : number + 1] for number in range(4)])
    assert np.isfinite(byol.fit(alone, verbose=0).history["loss"]).all()
    assert np.isfinite(byol.train_on_batch(images[:1])).all()


def test_a_bare_pair_of_views_is_refused_with_what_to_write(images):
    bad_fit(images, r"\{'views': \(view_a, view_b\)\}", y=images)
    bad_fit((images, images), '"views"')
    bad_fit(ListLoader([(images[:16], images[:16])] * 2), r"\{'views'", batch_size=None)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data is TensorFlow's")
def test_a_bare_pair_of_views_is_refused_in_tf_data(images):
    import tensorflow as tf

    bad_fit(tf.data.Dataset.from_tensor_slices((images, images)).batch(16), r"\{'views'", batch_size=None)
    with pytest.raises(ValueError, match="not batched"):
        compiled().fit(tf.data.Dataset.from_tensor_slices(np.arange(9.0)), verbose=0)


def test_images_outside_of_the_range_are_refused(images):
    bad_fit(images * 2.0, "value_range")
    bad_fit(images / 255.0, r"value_range=\(0, 1\)")
    bad_fit(images.astype("float32") - 3.0, "value_range")


def test_nan_is_refused(images):
    broken = images.astype("float32")
    broken[5, 3, 3] = np.nan
    bad_fit(broken, "NaN")
    with pytest.raises(Exception, match="NaN"):
        compiled().fit(ListLoader([(images[:16],), (broken[:16],)]), verbose=0)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data is TensorFlow's")
def test_nan_in_tf_data_stops_at_the_batch(images):
    import tensorflow as tf

    broken = images.astype("float32")
    broken[40] = np.nan
    with pytest.raises(ValueError, match="`x` hold NaN"):
        compiled().fit(tf.data.Dataset.from_tensor_slices(broken).batch(16), verbose=0)


def test_arrays_of_other_lengths_are_refused(images):
    bad_fit({"views": (images, images[:-1])}, "one length")


def test_unknown_parts_of_a_batch_are_refused(images):
    bad_fit({"pixels": images}, "pixels")


def test_weights_of_samples_and_classes_are_refused(images):
    bad_fit(images, "sample_weight", sample_weight=np.ones(64))
    bad_fit(images, "class_weight", class_weight={0: 2.0})


@pytest.mark.parametrize("name", ["loss", "metrics", "loss_weights", "weighted_metrics"])
def test_losses_and_metrics_are_the_methods_own(name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        simclr().compile("sgd", **{name: ["mse"] if "metrics" in name else "mse"})


def test_fit_before_compile_says_so(images):
    with pytest.raises(ValueError, match="compile"):
        simclr().fit(images)


@pytest.mark.parametrize("wrapped", [lambda optimizer: optimizer, keras.optimizers.LossScaleOptimizer])
def test_accumulation_is_refused(wrapped):
    with pytest.raises(ValueError, match="gradient_accumulation_steps=4"):
        simclr().compile(wrapped(keras.optimizers.SGD(0.1, gradient_accumulation_steps=4)))


def test_a_backbone_of_another_rank_is_refused():
    backbone = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Reshape((7, 2, 7, 2, 4))])
    with pytest.raises(ValueError, match=r"\(n, features\)"):
        keras_ssl.SimCLR(backbone).compile("sgd")


def test_what_is_no_backbone_or_no_views_is_refused():
    with pytest.raises(TypeError, match="backbone"):
        keras_ssl.SimCLR(lambda x: x)
    with pytest.raises(TypeError, match="views"):
        keras_ssl.SimCLR(tiny_backbone(), views=[lambda images: images])


def test_views_of_another_size_or_range_are_refused():
    with pytest.raises(ValueError, match="size"):
        keras_ssl.SimCLR(tiny_backbone(), views=augment.small_gray(20)).compile("sgd")
    with pytest.raises(ValueError, match="value_range"):
        keras_ssl.SimCLR(tiny_backbone(), views=augment.small_gray(28, value_range=(0, 1)))


def test_a_base_without_views_asks_for_them(images):
    open_size = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(4, 3)])
    model = keras_ssl.SimCLR(open_size)
    model.compile("sgd")
    with pytest.raises(ValueError, match="views="):
        model.fit(images, batch_size=16, verbose=0)


def test_a_stream_with_a_batch_size_is_refused(images):
    bad_fit(ListLoader([(images[:16],)]), "batch_size", batch_size=16)


def test_jit_with_layers_that_cant_compile_names_them():
    views = augment.Views([keras.layers.RandomRotation(0.1, name="turn")], [])
    with pytest.warns(UserWarning, match="turn"):
        simclr(views=views).compile("sgd", jit_compile=True)


# What Keras does not publish.


def test_keras_still_has_what_we_take_from_it_in_private():
    from keras_ssl.keras_compat import flatten_layers

    inner = keras.layers.Dense(2)

    class Holder(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.parts = [inner]

    outer = keras.Sequential([Holder()])
    assert inner in flatten_layers(outer)
    assert not hasattr(keras.layers.Layer, "flatten_layers"), "Keras publishes it now: use theirs"


def test_the_base_class_is_abstract(images):
    model = SelfSupervisedModel(tiny_backbone(), views=augment.small_gray(28))
    model.compile("sgd")
    with pytest.raises(NotImplementedError, match="embed"):
        model.fit(images, batch_size=16, verbose=0)
    assert distribute.replicas() == 1
