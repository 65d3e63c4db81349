"""Recipes: their figures worked out by hand, their schedules step by step, and every method trained by its own."""

import importlib.util
import json
import math
import pathlib
import warnings

import keras
import numpy as np
import pytest
from conftest import compiled, tiny_backbone
from keras import ops
from methods_under_test import light_views, one_light_view, tiny_vit

import keras_ssl
from keras_ssl import augment, distribute, names
from keras_ssl.optimizers import LARS, peak_rate, warn_of_rate
from keras_ssl.recipes import recipe

METHODS = [
    keras_ssl.Siamese,
    keras_ssl.Triplet,
    keras_ssl.SimCLR,
    keras_ssl.BYOL,
    keras_ssl.BarlowTwins,
    keras_ssl.VICReg,
    keras_ssl.SimSiam,
    keras_ssl.DINO,
    keras_ssl.Rotation,
    keras_ssl.Distortion,
    keras_ssl.Exemplar,
    keras_ssl.RelativePatch,
    keras_ssl.Jigsaw,
]
NOT_TUNED = {  # and whose values they take
    keras_ssl.MoCo: "SimCLR",
    keras_ssl.SwAV: "SimCLR",
    keras_ssl.NNCLR: "SimCLR",
    keras_ssl.MoCoV3: "BYOL",
    keras_ssl.TiCo: "BYOL",
    keras_ssl.LeJEPA: "BarlowTwins",
    keras_ssl.MMCR: "BarlowTwins",
}
MASKS = [keras_ssl.MAE, keras_ssl.SimMIM, keras_ssl.IBOT]  # not tuned; of backbones of patches
IMAGENET, CIFAR, SAMPLE = ((224, 224, 3), 1_281_167), ((32, 32, 3), 50_000), ((28, 28, 1), 10_000)


def rates(schedule, steps):
    """The rate of each step, by an optimizer's own count of steps."""
    at = compiled(schedule)
    return np.array([float(ops.convert_to_numpy(at(ops.convert_to_tensor(step, "int32")))) for step in steps])


def paper(method, about, batch_size, epochs=None):
    return recipe(method, *about, batch_size, epochs, source="paper")


# Figures, by hand.


@pytest.mark.parametrize(
    ("batch_size", "simclr", "byol", "barlow_twins"),
    [
        (256, 0.3, 0.2, 0.4),
        (512, 0.6, 0.4, 0.6),
        (1024, 1.2, 0.8, 1.0),
        (2048, 2.4, 1.6, 1.6),
        (4096, 4.8, 3.2, 3.2),
    ],
)
def test_lars_rates_of_the_papers(batch_size, simclr, byol, barlow_twins):
    # 0.3 B/256; 0.2 B/256; and of Barlow Twins 0.2 B/256 from 2048 on, below it its authors' table: 0.4, 0.3, 0.25.
    for method, rate in (
        (keras_ssl.SimCLR, simclr),
        (keras_ssl.BYOL, byol),
        (keras_ssl.BarlowTwins, barlow_twins),
    ):
        made = paper(method, IMAGENET, batch_size)
        assert isinstance(made.optimizer, LARS)
        assert made.learning_rate == pytest.approx(rate)
        assert made.optimizer.momentum == 0.9


def test_between_two_batches_of_its_table_barlow_twins_is_between_their_rates():
    # 384 is at log₂ 1.5 = 0.585 of the way from 256 to 512: 0.4 − 0.585 · 0.1 = 0.3415.
    assert paper(keras_ssl.BarlowTwins, IMAGENET, 384).learning_rate == pytest.approx(0.3415 * 384 / 256, abs=1e-4)
    assert paper(keras_ssl.BarlowTwins, IMAGENET, 128).learning_rate == pytest.approx(0.35)


def test_decay_and_the_rate_of_what_is_excluded():
    simclr, byol, barlow = (
        paper(method, IMAGENET, 2048).optimizer for method in (keras_ssl.SimCLR, keras_ssl.BYOL, keras_ssl.BarlowTwins)
    )
    assert (simclr.decay, byol.decay, barlow.decay) == (1e-6, 1.5e-6, 1.5e-6)
    assert (simclr.excluded_rate, byol.excluded_rate) == (1.0, 1.0)
    assert 0.2 * barlow.excluded_rate == pytest.approx(0.0048)


def test_byols_figures_go_with_the_passes_as_in_its_authors_code():
    def of(epochs):
        made = paper(keras_ssl.BYOL, IMAGENET, 256, epochs)
        return made.learning_rate, made.optimizer.decay, made.arguments["momentum"]

    assert of(40) == (0.45, 1e-6, 0.97)
    assert of(100) == (0.45, 1e-6, 0.99)
    assert of(300) == (0.3, 1e-6, 0.99)
    assert of(1000) == of(None) == of(2000) == (0.2, 1.5e-6, 0.996)


@pytest.mark.parametrize(
    ("method", "about", "batch_size", "rate", "passes"),
    [
        (keras_ssl.Rotation, CIFAR, 128, 0.1, 100),
        (keras_ssl.Rotation, CIFAR, 256, 0.2, 100),
        (keras_ssl.Rotation, IMAGENET, 192, 0.01, 50),
        (keras_ssl.Distortion, CIFAR, 512, 0.1, 1500),
        (keras_ssl.Distortion, IMAGENET, 768, 0.01, 200),
        (keras_ssl.Jigsaw, IMAGENET, 256, 0.01, 70),
    ],
)
def test_sgd_rates_of_the_papers_that_label_themselves(method, about, batch_size, rate, passes):
    made = paper(method, about, batch_size)
    assert isinstance(made.optimizer, keras.optimizers.SGD)
    assert (made.learning_rate, made.epochs) == (pytest.approx(rate), passes)
    assert made.optimizer.momentum == 0.9


def test_the_papers_decay_is_the_same_beside_kerass_momentum_as_inside_of_theirs():
    # No gradient but the decay's: 50 steps of the papers' rule, v ← 0.9 v + 5e-4 w, w ← w − 0.1 v.
    w, v = 1.0, 5e-4 / 0.1  # as it is once momentum has filled
    for _ in range(50):
        v = 0.9 * v + 5e-4 * w
        w -= 0.1 * v
    made = paper(keras_ssl.Rotation, CIFAR, 128)
    variable = keras.Variable([[1.0]])
    optimizer = made.optimizer
    optimizer.build([variable])
    for _ in range(50):
        optimizer.apply([ops.zeros((1, 1))])
    assert 1.0 - float(ops.convert_to_numpy(variable)[0, 0]) == pytest.approx(1.0 - w, rel=0.02)


@pytest.mark.parametrize(
    ("method", "about", "batch_size", "epochs", "rate", "passes", "decay"),
    [
        (keras_ssl.VICReg, IMAGENET, 2048, None, 1.6, 1000, 1e-6),  # 0.2 B/256
        (keras_ssl.VICReg, IMAGENET, 512, 100, 0.6, 100, 1e-6),  # 0.3 B/256
        (keras_ssl.SimSiam, IMAGENET, 512, None, 0.1, 100, 1e-3),  # 0.05 B/256; 1e-4 / (1 − 0.9)
        (keras_ssl.SimSiam, CIFAR, 512, None, 0.06, 800, 5e-3),  # 0.03 B/256; 5e-4 / (1 − 0.9)
        (keras_ssl.MoCo, IMAGENET, 256, None, 0.03, 200, 1e-3),
        (keras_ssl.MoCo, IMAGENET, 128, None, 0.015, 200, 1e-3),
        (keras_ssl.MoCo, CIFAR, 512, None, 0.06, 200, 5e-3),
        (keras_ssl.NNCLR, IMAGENET, 4096, None, 4.8, 1000, 1e-6),  # 0.3 B/256
        (keras_ssl.MoCoV3, IMAGENET, 4096, None, 2.4e-3, 300, 0.1),  # 1.5e-4 B/256
        (keras_ssl.TiCo, IMAGENET, 256, None, 0.2, 100, 1.5e-6),
        (keras_ssl.LeJEPA, IMAGENET, 256, None, 5e-4, 100, 5e-2),
        (keras_ssl.MMCR, IMAGENET, 2048, None, 6.4, 100, 1e-6),  # 0.8 B/256
        (keras_ssl.MMCR, CIFAR, 32, None, 1e-3, 500, 1e-6),
    ],
)
def test_rates_of_the_papers_that_were_not_measured_here(method, about, batch_size, epochs, rate, passes, decay):
    made = paper(method, about, batch_size, epochs)
    assert (made.learning_rate, made.epochs) == (pytest.approx(rate), passes)
    optimizer = made.optimizer
    assert (optimizer.decay if isinstance(optimizer, LARS) else optimizer.weight_decay) == pytest.approx(decay)
    # Those with LARS and AdamW warm up.
    warm = isinstance(optimizer, (LARS, keras.optimizers.AdamW))
    assert (not isinstance(made.schedule, float) and rates(made.schedule, [0])[0] == 0.0) == warm


def test_mmcrs_recipe_for_photographs_has_the_authors_eight_views():
    first, second, *others = paper(keras_ssl.MMCR, IMAGENET, 2048).views.branches
    assert [type(layer) for layer in second][-1].__name__ == "RandomSolarization"
    assert others == [first, second] * 3


@pytest.mark.parametrize(
    ("batch_size", "rate", "passes", "first", "arguments"),
    [
        (4096, 4.8, 800, 0.0, {"frozen_steps": 312}),
        (256, 0.6, 400, 0.6, {"frozen_steps": 5004, "memory": 3840, "memory_start": 75060}),
    ],
)
def test_swav_is_that_of_its_authors_scripts(batch_size, rate, passes, first, arguments):
    made = paper(keras_ssl.SwAV, IMAGENET, batch_size)
    assert (made.learning_rate, made.epochs) == (pytest.approx(rate), passes)
    assert rates(made.schedule, [0, made.steps]) == pytest.approx([first, rate / 1000], rel=1e-3)
    assert (made.optimizer.decay, made.optimizer.exclude) == (1e-6, -1)
    expected = {"prototypes": 3000, "temperature": 0.1, "epsilon": 0.05, "iterations": 3, **arguments}
    assert made.arguments == expected


def test_dino_is_that_of_its_paper():
    made = paper(keras_ssl.DINO, IMAGENET, 1024)
    assert (made.learning_rate, made.epochs) == (pytest.approx(0.002), 300)
    assert rates(made.schedule, [0, 10 * made.steps_per_epoch, made.steps]) == pytest.approx([0, 0.002, 1e-6], rel=1e-3)
    optimizer = made.optimizer
    assert isinstance(optimizer, keras_ssl.optimizers.Decayed)
    assert isinstance(optimizer.optimizer, keras.optimizers.AdamW)
    assert optimizer.clipnorm == 3.0
    assert rates(optimizer.decay, [0, made.steps // 2, made.steps]) == pytest.approx([0.04, 0.22, 0.4])
    assert "by a cosine to 0.4" in made.describe()
    arguments = made.arguments
    assert (arguments["warm_up_temperature"], arguments["teacher_temperature"]) == (0.04, 0.07)
    assert (arguments["warm_up_steps"], arguments["frozen_steps"]) == (30 * 1251, 1251)
    assert arguments["momentum"] == 0.996
    assert paper(keras_ssl.DINO, IMAGENET, 256).arguments["momentum"] == 0.9995
    assert paper(keras_ssl.DINO, IMAGENET, 1024, 50).arguments["warm_up_steps"] == 0.3
    assert (made.config["weight_decay"], made.config["weight_decay_end"]) == (0.04, 0.4)


def test_ibot_is_that_of_its_authors_code():
    made, dino = paper(keras_ssl.IBOT, IMAGENET, 1024), paper(keras_ssl.DINO, IMAGENET, 1024)
    assert (made.learning_rate, made.epochs, made.optimizer.clipnorm) == (pytest.approx(0.002), 800, 3.0)
    assert rates(made.schedule, [0, 10 * made.steps_per_epoch, made.steps]) == pytest.approx([0, 0.002, 1e-6], rel=1e-3)
    own = {"prototypes": 8192, "mask_ratio": [0.1, 0.5], "mask_probability": 0.5}
    assert made.arguments == {**dino.arguments, **own}
    assert "(DINO)" not in made.describe(), "its sources are its own"


@pytest.mark.parametrize(
    ("method", "batch_size", "rate", "passes", "warm_up", "beta_2", "arguments"),
    [
        (keras_ssl.MAE, 4096, 2.4e-3, 800, 40, 0.95, {"mask_ratio": 0.75, "normalize": True}),  # 1.5e-4 B/256
        (keras_ssl.SimMIM, 2048, 8e-4, 100, 10, 0.999, {"mask_ratio": 0.6, "mask_size": 32}),  # 2e-4 B/512
    ],
)
def test_recipes_of_masked_patches(method, batch_size, rate, passes, warm_up, beta_2, arguments):
    made = paper(method, IMAGENET, batch_size)
    assert (made.learning_rate, made.epochs) == (pytest.approx(rate), passes)
    optimizer = made.optimizer
    assert isinstance(optimizer, keras.optimizers.AdamW)
    assert (optimizer.weight_decay, optimizer.beta_1, optimizer.beta_2) == (0.05, 0.9, beta_2)
    assert made.arguments == arguments
    steps = made.steps_per_epoch
    at = rates(made.schedule, [0, warm_up * steps, passes * steps])
    np.testing.assert_allclose(at, [0.0, rate, 0.05 * rate if method is keras_ssl.SimMIM else 0.0], atol=1e-8)
    small = recipe(method, *SAMPLE, 128)
    assert any("not tuned" in note for note in small.notes)
    assert "mask_size" not in paper(method, CIFAR, batch_size).arguments


@pytest.mark.one_backend
@pytest.mark.parametrize("method", MASKS, ids=lambda method: method.__name__)
def test_methods_of_masks_train_by_their_recipe(method, images):
    made = recipe(method, (28, 28, 1), 16, 8, epochs=1, source="small")
    views = one_light_view() if method.view_counts == (1,) else light_views()
    model = method(tiny_vit(), views, **made.arguments)
    model.compile(made.optimizer, run_eagerly=True)
    assert np.isfinite(model.fit(images[:16], batch_size=8, verbose=0).history["loss"]).all()


def test_a_method_that_was_not_measured_says_so_and_whose_rate_it_takes():
    for method, nearest in NOT_TUNED.items():
        made = recipe(method, *SAMPLE, 128)
        assert made.source == "small"
        assert made.learning_rate == recipe(getattr(keras_ssl, nearest), *SAMPLE, 128).learning_rate
        assert any("not tuned" in note and nearest in note for note in made.notes)
    for method in (keras_ssl.MoCo, keras_ssl.NNCLR):
        assert recipe(method, *SAMPLE, 128).arguments["memory"] == 10_000 // 4


@pytest.mark.parametrize("batch_size", [32, 128, 512, 2048])
def test_small_rates_go_with_the_root_of_the_batch(batch_size):
    by_batch = {32: 0.5, 128: 1.0, 512: 2.0, 2048: 2.0}
    for method, rate in ((keras_ssl.SimCLR, 1e-2), (keras_ssl.BYOL, 3e-3), (keras_ssl.Exemplar, 2e-3)):
        made = recipe(method, *SAMPLE, batch_size, source="small")
        assert isinstance(made.optimizer, keras.optimizers.AdamW)
        assert made.learning_rate == pytest.approx(rate * by_batch[batch_size])
        assert made.optimizer.weight_decay == 1e-4


def test_few_images_are_seen_more_often():
    passes = {images: recipe(keras_ssl.SimCLR, (28, 28, 1), images, 64).epochs for images in (300, 4_000, 60_000)}
    assert passes == {300: 100, 4_000: 20, 60_000: 8}


@pytest.fixture
def benchmark():
    place = pathlib.Path(__file__).parents[1] / "benchmarks" / "methods.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_methods", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_measures_every_method(benchmark):
    # `Distill` needs a trained teacher, and has a benchmark of its own: benchmarks/distill.py.
    assert {entry.method for entry in benchmark.ENTRIES.values()} >= {*names.METHODS} - {"Distill"}


@pytest.mark.parametrize("name", ["BYOL", "Exemplar", "Jigsaw"])
def test_the_benchmark_measures_the_small_recipe(benchmark, name):
    entry = benchmark.ENTRIES[name]
    images = entry.images or 10_000
    made = recipe(getattr(keras_ssl, name), (28, 28, 1), images, benchmark.BATCH, source="small")
    model, rate = benchmark.model_of(entry, (28, 28, 1), images, seed=3, epochs=4, steps=5, rate=None)
    assert (rate, model.seed) == (made.learning_rate, 3)
    for argument in ("momentum", "exemplars"):
        assert getattr(model, argument, None) == made.arguments.get(argument)
    curve = rates(model.optimizer._learning_rate, range(21))  # twenty steps, and not twenty passes
    assert curve.max() == pytest.approx(rate)
    assert curve[20] < 1e-6
    assert curve[19] > 1e-6


# Schedules.


def test_warm_up_is_ten_passes_and_the_cosine_ends_at_nothing():
    made = paper(keras_ssl.SimCLR, CIFAR, 500)  # 100 steps a pass, 1000 passes, a peak of 500 / 256
    assert (made.steps_per_epoch, made.steps) == (100, 100_000)
    first, second, last, peak, half, end = rates(made.schedule, [0, 1, 999, 1000, 1000 + 49_500, 100_000])
    assert (first, peak) == (0.0, pytest.approx(500 / 256))
    assert second == pytest.approx(peak / 1000, rel=1e-5)
    assert last == pytest.approx(peak * 999 / 1000, rel=1e-5)
    assert half == pytest.approx(peak / 2, rel=1e-3)
    assert end == pytest.approx(0.0, abs=1e-6)


def test_barlow_twins_ends_at_a_thousandth():
    made = paper(keras_ssl.BarlowTwins, CIFAR, 2000, 300)
    assert rates(made.schedule, [made.steps])[0] == pytest.approx(made.learning_rate / 1000, rel=1e-3)


def test_a_short_run_warms_up_for_a_tenth_and_says_so():
    made = paper(keras_ssl.SimCLR, CIFAR, 500, 20)
    assert np.argmax(rates(made.schedule, range(0, 400))) == 200
    assert any("a tenth of 20" in note for note in made.notes)
    assert not paper(keras_ssl.SimCLR, CIFAR, 500, 100).notes


def test_small_schedule_warms_up_for_a_twentieth():
    made = recipe(keras_ssl.SimCLR, *SAMPLE, 128)
    curve = rates(made.schedule, range(made.steps))
    assert made.steps == 8 * 78
    assert np.argmax(curve) == 31
    # Half of a cosine from step 31 on: 0.01 · (1 + cos(π · 100 / 593)) / 2.
    assert curve[131] == pytest.approx(0.005 * (1 + math.cos(math.pi * 100 / 593)), rel=1e-4)
    assert curve[-1] < 1e-6


def test_a_rate_drops_after_the_passes_of_the_paper():
    made = paper(keras_ssl.Rotation, CIFAR, 128)  # 390 steps a pass
    drop = 30 * 390
    np.testing.assert_allclose(rates(made.schedule, [0, drop - 1, drop]), [0.1, 0.1, 0.02], rtol=1e-5)
    np.testing.assert_allclose(rates(made.schedule, [80 * 390 - 1, 80 * 390]), [0.004, 0.0008], rtol=1e-5)
    # In half as many passes, after half as many.
    shorter = paper(keras_ssl.Rotation, CIFAR, 128, 50)
    np.testing.assert_allclose(rates(shorter.schedule, [15 * 390 - 1, 15 * 390]), [0.1, 0.02], rtol=1e-5)


def test_a_run_of_one_step_has_a_rate():
    made = recipe(keras_ssl.SimCLR, *SAMPLE[:1], 128, 128, epochs=1)
    assert rates(made.schedule, [0])[0] == pytest.approx(0.01)
    assert rates(paper(keras_ssl.Rotation, ((32, 32, 3), 2), 2, 1).schedule, [0])[0] > 0


def test_each_call_makes_anew():
    made = recipe(keras_ssl.BYOL, *SAMPLE, 128)
    assert made.optimizer is not made.optimizer
    assert made.arguments["projector"] is not made.arguments["projector"]


@pytest.mark.parametrize("source", ["paper", "small"])
def test_the_optimizer_is_saved_and_comes_back(source):
    for method in (keras_ssl.BarlowTwins, keras_ssl.Rotation):
        optimizer = recipe(method, *CIFAR, 256, 20, source=source).optimizer
        config = json.loads(json.dumps(optimizer.get_config()))
        again = type(optimizer).from_config(config)
        assert again.get_config() == optimizer.get_config()
        steps = [0, 5, 300, 1000]
        before, after = (
            keras.optimizers.schedules.deserialize(one.get_config()["learning_rate"]) for one in (optimizer, again)
        )
        np.testing.assert_array_equal(rates(before, steps), rates(after, steps))


class Trace(keras.callbacks.Callback):
    """The rate that the optimizer is at after each batch."""

    def __init__(self):
        super().__init__()
        self.rates = []

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(float(ops.convert_to_numpy(self.model.optimizer.learning_rate)))


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch has one replica a process here")
def test_replicas_step_by_the_same_rates_as_one_device(images):
    def run():
        made = recipe(keras_ssl.Rotation, (28, 28, 1), len(images), 16, epochs=2)
        model, trace = keras_ssl.Rotation(tiny_backbone(widths=(4,), strides=4)), Trace()
        model.compile(made.optimizer)
        model.fit(images, batch_size=16, epochs=made.epochs, verbose=0, callbacks=[trace])
        return made, trace.rates

    made, alone = run()
    with distribute.local_replicas(2):
        _, together = run()
    assert len(alone) == made.steps == 8
    np.testing.assert_allclose(alone, rates(made.schedule, range(1, 9)), rtol=1e-5)
    np.testing.assert_array_equal(alone, together)


# Training.


@pytest.mark.one_backend  # steps of every method are compared over the backends in the contract
@pytest.mark.parametrize("method", [*METHODS, *NOT_TUNED], ids=lambda method: method.__name__)
def test_every_method_trains_by_its_recipe(method, images):
    trained(method, images, "small")


# Siamese has none of its paper's; the heads of BYOL and Barlow Twins are of the paper's width, 4,096 and 8,192.
@pytest.mark.parametrize(
    "method",
    [
        keras_ssl.SimCLR,
        keras_ssl.Rotation,
        *(
            pytest.param(method, marks=pytest.mark.slow)
            for method in (keras_ssl.Triplet, keras_ssl.Distortion, keras_ssl.Exemplar, keras_ssl.RelativePatch)
        ),
    ],
    ids=lambda method: method.__name__,
)
def test_methods_train_by_their_papers(method, images):
    trained(method, images, "paper")


def trained(method, images, source):
    images = images[:16]
    made = recipe(method, images.shape[1:], len(images), 8, epochs=1, source=source)
    shape = (None, None, 1) if method.patch_based else images.shape[1:]
    backbone = tiny_backbone(shape, widths=(4, 8), strides=1 if method.patch_based else 2)
    # The recipe leaves views of gray images to the method; what a policy takes to compile is tested by itself.
    assert made.views is None
    views = light_views() if method.view_counts is None or 2 in method.view_counts else None
    model = method(backbone, views=views, **made.arguments)
    # What is compiled is another file's business; there it is most of the time.
    model.compile(made.optimizer, run_eagerly=keras.backend.backend() != "jax")
    loss = model.fit(images, batch_size=8, epochs=made.epochs, verbose=0).history["loss"]
    assert np.isfinite(loss).all()
    assert int(ops.convert_to_numpy(model.optimizer.iterations)) == made.steps == 2


def test_the_heads_of_the_papers_are_the_methods_own():
    for method in (keras_ssl.BYOL, keras_ssl.BarlowTwins, keras_ssl.SimCLR):
        made = paper(method, IMAGENET, 256)
        assert not {"projector", "predictor"} & set(made.arguments)
        method(tiny_backbone(), views=made.views, **made.arguments)


# Which one.


def test_auto_takes_the_paper_where_batch_images_and_passes_are_the_papers():
    def source(batch_size=256, images=50_000, epochs=100, method=keras_ssl.SimCLR):
        made = recipe(method, (32, 32, 3), images, batch_size, epochs)
        return made.source, made.why

    assert source()[0] == "paper"
    for given, word in (
        ({"batch_size": 255}, "255 is below 256"),
        ({"images": 49_999}, "49,999 images"),
        ({"epochs": 99}, "99 epochs"),
        ({"epochs": None}, "1000 epochs, which must be asked for"),
        ({"method": keras_ssl.Siamese}, "no learning rate"),
        ({"method": keras_ssl.Exemplar}, "no number of epochs"),
    ):
        chosen, why = source(**given)
        assert (chosen, word in why) == ("small", True), why
    assert source(method=keras_ssl.Rotation, batch_size=128)[0] == "paper"


def test_small_colour_pictures_get_the_views_of_cifar():
    for source in ("paper", "small"):
        made = recipe(keras_ssl.SimCLR, (32, 32, 3), 1000, 256, 10, source=source, value_range=(0, 1))
        jitter = made.views.branches[0][2]
        expected = augment.simclr(32, strength=0.5, value_range=(0, 1)).branches[0][2]
        assert {k: v for k, v in jitter.get_config().items() if k != "name"} == {
            k: v for k, v in expected.get_config().items() if k != "name"
        }
    assert recipe(keras_ssl.SimCLR, *IMAGENET, 256, source="paper").views is None
    assert recipe(keras_ssl.SimCLR, *SAMPLE, 256).views is None
    assert len(recipe(keras_ssl.Exemplar, (32, 32, 3), 100, 10).views.branches) == 1
    assert recipe(keras_ssl.SimCLR, (32, 32, 3), 1000, 256, source="paper").arguments["temperature"] == 0.5
    assert recipe(keras_ssl.SimCLR, *IMAGENET, 256, source="paper").arguments["temperature"] == 0.1


class Mine(keras_ssl.SelfSupervisedModel):
    """A method of the user's own."""


class MyBYOL(keras_ssl.BYOL):
    """A method derived from one of the library's."""


def test_a_method_of_ones_own_has_a_default_and_its_child_its_parents():
    made = recipe(Mine, *SAMPLE, 128)
    assert (made.source, made.learning_rate, made.arguments) == ("small", 0.01, {})
    assert any("nothing was measured" in note for note in made.notes)
    assert "Mine" in made.describe()
    with pytest.raises(ValueError, match="Mine has no paper here"):
        recipe(Mine, *SAMPLE, 128, source="paper")
    assert recipe(MyBYOL, *SAMPLE, 128).learning_rate == 3e-3
    assert paper(MyBYOL, IMAGENET, 256).learning_rate == 0.2


@pytest.mark.parametrize("method", [*METHODS, *NOT_TUNED, *MASKS], ids=lambda method: method.__name__)
def test_each_figure_has_a_source_in_words_and_in_json(method):
    for source in ("small", "paper"):
        if (method, source) == (keras_ssl.Siamese, "paper"):
            continue
        made = recipe(method, (28, 28, 1), 5000, 64, 30, source=source)
        config = json.loads(json.dumps(made.config))
        assert config == made.config
        names = [name for name, _, _ in made.entries()]
        assert len(names) == len(set(names)), "a name twice would lose a source"
        assert all(config["sources"][name] for name in names)
        assert set(made.arguments) <= set(names)
        lines = made.describe().splitlines()
        assert len(lines) == 1 + len(names) + len(made.notes)
        assert f"{made.learning_rate:.4g}" in lines[2]


# A rate belongs to its optimizer.


def test_a_recipe_for_lars_used_with_adam_warns_with_the_rate_and_what_to_do():
    made = paper(keras_ssl.BYOL, IMAGENET, 4096)
    with pytest.warns(UserWarning, match=r'Adam gets a learning rate of up to 3\.2 .* LARS.*source="small"'):
        optimizer = made.make_optimizer(keras.optimizers.Adam)
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert peak_rate(optimizer) == pytest.approx(3.2)
    assert optimizer.weight_decay == 1.5e-6
    with pytest.warns(UserWarning, match="LARS gets .* AdamW"):
        recipe(keras_ssl.BYOL, *SAMPLE, 128).make_optimizer(LARS)


def test_a_recipe_used_with_its_own_kind_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert recipe(keras_ssl.BYOL, *SAMPLE, 128).make_optimizer(keras.optimizers.Adam).weight_decay == 1e-4
        paper(keras_ssl.BYOL, IMAGENET, 4096).make_optimizer(LARS)


def test_compile_warns_of_adam_with_a_rate_for_lars(backbone):
    model = keras_ssl.Rotation(backbone)
    with pytest.warns(UserWarning, match=r"Adam goes up to 0\.2, which is a rate for LARS"):
        model.compile(keras.optimizers.Adam(0.2))
    with distribute.local_replicas(2) if keras.backend.backend() != "torch" else warnings.catch_warnings():
        scoped = keras_ssl.Rotation(tiny_backbone())
        with pytest.warns(UserWarning, match="rate for LARS"):
            scoped.compile(keras.optimizers.AdamW(0.1))


class Unwritten(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule without a config."""

    def __call__(self, step):
        return ops.convert_to_tensor(0.3)


def test_the_guard_reads_schedules_and_what_half_precision_wraps():
    schedules, optimizers = keras.optimizers.schedules, keras.optimizers
    warm = schedules.CosineDecay(0.0, 100, warmup_target=0.3, warmup_steps=10)
    for optimizer in (
        optimizers.Adam(warm),
        optimizers.Lion(schedules.PiecewiseConstantDecay([5], [0.001, 0.1])),
        optimizers.RMSprop(schedules.ExponentialDecay(0.05, 10, 0.9)),
        optimizers.LossScaleOptimizer(optimizers.Nadam(0.2)),
        optimizers.Adamax(Unwritten()),
    ):
        with pytest.warns(UserWarning, match="a rate for LARS"):
            warn_of_rate(optimizer)


def test_the_guard_leaves_usual_rates_and_other_optimizers_alone():
    warm = keras.optimizers.schedules.CosineDecay(0.0, 100, warmup_target=0.02, warmup_steps=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for optimizer in (
            keras.optimizers.Adam(),
            keras.optimizers.AdamW(warm),
            keras.optimizers.SGD(0.5),
            keras.optimizers.Adagrad(0.05),
            LARS(4.8),
        ):
            warn_of_rate(optimizer)
        for method in [*METHODS, *NOT_TUNED, *MASKS]:  # no recipe sets off the guard, at any batch
            for batch_size in (16, 128, 4096):
                warn_of_rate(recipe(method, *SAMPLE, batch_size).optimizer)


# Bad input.


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"method": "simclr"}, r"`method` is a class.*write keras_ssl\.SimCLR"),
        ({"method": keras_ssl.SelfSupervisedModel}, "`method` must be a method"),
        ({"method": keras.Model}, "`method` must be a method"),
        ({"shape": (28, 28)}, r"`shape` is \(height, width, channels\)"),
        ({"shape": (None, None, 3)}, "`shape`"),
        ({"images": 0}, "`images` must be a whole number"),
        ({"batch_size": 2.5}, "`batch_size` must be a whole number"),
        ({"batch_size": 2000}, r"`batch_size` is 2000, more than the 1000 `images`: write batch_size=1000"),
        ({"epochs": 0}, "`epochs` must be a whole number, 1 or more; it is 0"),
        ({"epochs": True}, "`epochs`"),
        ({"source": "imagenet"}, "`source` must be one of 'auto', 'small', 'paper'"),
        ({"method": keras_ssl.Siamese, "source": "paper"}, 'Hadsell et al. 2006.*take source="small"'),
        ({"method": keras_ssl.Triplet, "source": "paper"}, "`epochs` is None, .* write epochs="),
    ],
)
def test_bad_input_is_refused_by_its_name(given, words):
    usual = {"method": keras_ssl.SimCLR, "shape": (32, 32, 3), "images": 1000, "batch_size": 100}
    with pytest.raises(ValueError, match=words):
        recipe(**{**usual, **given})


def test_an_instance_is_no_method(backbone):
    with pytest.raises(ValueError, match="write Rotation, the class itself"):
        recipe(keras_ssl.Rotation(backbone), *SAMPLE, 128)


def test_another_optimizer_is_given_by_its_class():
    with pytest.raises(ValueError, match="`cls` is a class"):
        recipe(keras_ssl.SimCLR, *SAMPLE, 128).make_optimizer("adam")


def test_values_of_ones_own_replace_those_of_a_recipe_and_say_so():
    chosen = recipe(keras_ssl.SimCLR, *SAMPLE, 128)
    own = chosen.replaced(learning_rate=0.5, weight_decay=0.0, arguments={"temperature": 0.2})
    assert (own.learning_rate, own.optimizer.weight_decay, own.arguments["temperature"]) == (0.5, 0.0, 0.2)
    assert (chosen.learning_rate, chosen.optimizer.weight_decay) == (1e-2, 1e-4), "a new one"
    assert {name for name, _, source in own.entries() if source == "given"} == {
        *["learning rate", "weight decay", "temperature"],
    }
    for name, wrong in (("learning_rate", 0), ("learning_rate", "fast"), ("weight_decay", -1), ("weight_decay", True)):
        with pytest.raises(ValueError, match=f"`{name}` is a number"):
            chosen.replaced(**{name: wrong})
