"""Configurations: whatever is registered is made again from what is saved of it, as often as one likes."""

import copy
import json

import keras
import numpy as np
import pytest
import registered
from conftest import tiny_backbone
from keras import ops
from registered import plain

import keras_ssl
from keras_ssl import names, teacher
from keras_ssl.testing import check_method

pytestmark = pytest.mark.one_backend


def test_each_class_has_an_example():
    classes = {name for name, value in registered.classes().items() if isinstance(value, type)}
    assert classes == set(registered.EXAMPLES), "add the class to tests/registered.py"


def test_each_module_that_registers_is_imported_for_keras():
    """`names.REGISTERED` lists packages and modules; a new module would else be missing when a file is loaded."""
    for module in registered.modules_that_register():
        assert any(module == one or module.startswith(f"{one}.") for one in names.REGISTERED), module


@pytest.mark.parametrize("name", sorted(registered.functions()))
def test_a_function_is_saved_by_name(name):
    function = registered.functions()[name]
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(function)))
    assert keras.saving.deserialize_keras_object(saved) is function


@pytest.mark.parametrize("name", registered.EXAMPLES)
def test_it_is_made_from_its_config_again_and_again(name):
    original = registered.EXAMPLES[name]()
    config = original.get_config()
    given = copy.deepcopy(config)
    for _ in range(2):  # from_config must not eat the dict that it is given
        made = type(original).from_config(config)
        assert type(made) is type(original)
        assert config == given
        assert plain(made.get_config()) == plain(given)
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(original)))
    assert plain(keras.saving.deserialize_keras_object(saved).get_config()) == plain(given)


@pytest.mark.parametrize("name", registered.EXAMPLES)
def test_an_example_differs_from_the_defaults(name):
    """An argument that is lost would not be seen where it is the default."""
    original = registered.EXAMPLES[name]()
    config = keras.saving.serialize_keras_object(original)["config"]
    required = {
        "layers",
        "size",
        "branches",
        "kernel_size",
        "length",
        "schedule",
        "value",
        "width",
        "backbone",
        "teacher",
    }
    kept = {key: value for key, value in original.get_config().items() if key in required}
    if name in ("HardnessWeighted", "NPairs"):
        return  # one argument
    try:
        plain = type(original).from_config(kept).get_config()
    except (TypeError, ValueError):
        return
    assert plain != config or not set(config) - required


@pytest.mark.parametrize("name", registered.METHODS)
def test_a_method_is_cloned_saved_and_loaded(name, tmp_path):
    model = registered.METHODS[name]()
    model.build((None, 28, 28, 1))
    config = model.get_config()  # with the heads that are made when the width of the features is known
    assert plain(keras.models.clone_model(model).get_config()) == plain(config)
    model.save(tmp_path / "method.keras")
    loaded = keras.models.load_model(tmp_path / "method.keras")
    assert plain(loaded.get_config()) == plain(config)
    assert len(loaded.weights) == len(model.weights)
    # In the order of the optimizer, whose states are saved by place. (Heads that `build` made stand elsewhere below.)
    for one, other in zip(loaded.trainable_variables, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", [name for name in registered.LOSSES if name not in ("Contrastive", "NPairs")])
def test_a_compiled_model_keeps_its_loss_and_its_optimizer(name, tmp_path):
    loss, optimizer = registered.LOSSES[name](), registered.OTHERS["LARS"]()
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(optimizer, loss)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.loss.get_config() == loss.get_config()
    assert loaded.optimizer.get_config() == optimizer.get_config()


def test_a_queue_is_saved_with_what_it_holds(tmp_path):
    """In a model of the user's, as a layer that is called on nothing."""
    model = HasQueue()
    model(np.ones((2, 3), "float32"))
    model.queue.push(np.ones((2, 3), "float32"), labels=np.array([5, 6]))
    model.save(tmp_path / "queue.keras")
    loaded = keras.models.load_model(tmp_path / "queue.keras")
    np.testing.assert_array_equal(loaded.queue.negatives()[0], model.queue.negatives()[0])
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded.queue.classes())[:2], [5, 6])


@keras.saving.register_keras_serializable("tests")
class HasQueue(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.queue = keras_ssl.queue.Queue(4, labeled=True)

    def build(self, shape):
        self.queue.build(shape)

    def call(self, x):
        return x


# Arguments that are taken by keyword alone.


@keras.saving.register_keras_serializable("tests")
class ByKeyword(keras_ssl.SimCLR):
    """One with a default and one without, as the methods of users have them."""

    def __init__(self, backbone, *args, strength=1.0, needed, schedule=None, **kwargs):
        super().__init__(backbone, *args, **kwargs)
        self.strength = strength
        self.needed = needed
        self.schedule = schedule


@keras.saving.register_keras_serializable("tests")
class Below(ByKeyword):
    def __init__(self, backbone, *, deeper, **kwargs):
        super().__init__(backbone, **kwargs)
        self.deeper = deeper


@pytest.mark.parametrize("cls", [ByKeyword, Below])
def test_arguments_by_keyword_alone_are_saved(cls, tmp_path):
    more = {"deeper": (1, 2)} if cls is Below else {}
    model = cls(
        tiny_backbone(), temperature=0.3, strength=5.0, needed="yes", schedule=teacher.ConstantMomentum(0.4), **more
    )
    clone = keras.models.clone_model(model)
    model.build((None, 28, 28, 1))
    model.save(tmp_path / "method.keras")
    for made in (clone, keras.models.load_model(tmp_path / "method.keras")):
        assert (made.temperature, made.strength, made.needed) == (0.3, 5.0, "yes")
        assert made.schedule.value == 0.4
        assert tuple(getattr(made, "deeper", (1, 2))) == (1, 2)


class Forgets(keras_ssl.SimCLR):
    def __init__(self, backbone, *, strength, **kwargs):
        super().__init__(backbone, **kwargs)


def test_an_argument_that_is_not_kept_is_told_before_anything_is_trained():
    model = Forgets(tiny_backbone(), strength=5.0)
    for try_it in (lambda: model.build((None, 28, 28, 1)), model.get_config):
        with pytest.raises(ValueError, match=r"Forgets: `strength` is an argument of __init__ .* write self.strength"):
            try_it()


class Loses(keras_ssl.SimCLR):
    """Its own get_config knows nothing of what it takes by keyword."""

    def __init__(self, backbone, *, strength=1.0, **kwargs):
        super().__init__(backbone, **kwargs)
        self.strength = strength

    def get_config(self):
        return {name: value for name, value in super().get_config().items() if name != "strength"}


class Eats(keras_ssl.SimCLR):
    @classmethod
    def from_config(cls, config):
        config.pop("seed")
        return super().from_config(config)


@pytest.mark.parametrize(
    ("cls", "options", "words"),
    [
        (Loses, {"strength": 5.0}, "loses arguments: strength"),
        (Eats, {}, "changes the dict"),
        (Forgets, {"strength": 1.0}, "`strength` is an argument of __init__ and no attribute"),
    ],
)
def test_the_contract_catches_it(cls, options, words):
    with pytest.raises((AssertionError, ValueError), match=words):
        check_method(lambda: cls(tiny_backbone(), **options), only=["arguments_are_attributes"], verbose=False)


def test_the_contract_passes_what_is_saved():
    report = check_method(
        lambda: ByKeyword(tiny_backbone(), strength=5.0, needed=1), only=["arguments_are_attributes"], verbose=False
    )
    assert report.passed == ["arguments_are_attributes"]
