"""Every method passes the contract."""

import inspect
import pathlib

import keras
import pytest
from conftest import tiny_backbone
from keras import ops
from methods_under_test import METHODS, light_views

import keras_ssl
from keras_ssl import augment, losses
from keras_ssl.testing import check_method, everywhere

TESTS = pathlib.Path(__file__).parent


# The whole contract, on every backend, is in the slow tests; .ci/run therefore leaves this one to TensorFlow. Run each
# time: of a method with a queue and of one with a teacher, whose state is most easily lost, the checks that tell most,
# of some others the one that finds most faults. Of the rest that is a slow test too, for whoever works on one of them.
TELLING = ["loss_is_the_sum_of_its_terms", "two_replicas", "micro_batches", "saves_and_goes_on"]
KINDS = ["SimCLR with memory", "BYOL"]
EACH_TIME = [*KINDS, "Triplet with labels", "VICReg", "DINO", "MAE", "RelativePatch"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in EACH_TIME else pytest.mark.slow) for name in METHODS]
)
def test_the_contract(name):
    only = TELLING if name in KINDS else ["loss_is_the_sum_of_its_terms"]
    report = check_method(METHODS[name], only=only)
    skipped = {"two_replicas"} & set(only) if keras.backend.backend() == "torch" else set()
    assert set(report.skipped) == skipped
    assert set(report.passed) | skipped == set(only)  # and nothing is inconclusive


def test_every_method_of_the_library_is_under_test():
    methods = {
        name
        for name in dir(keras_ssl)  # names are there on demand
        for value in [getattr(keras_ssl, name)]
        if inspect.isclass(value) and issubclass(value, keras_ssl.SelfSupervisedModel)
    }
    assert methods - {"SelfSupervisedModel"} == {name.split(" with ")[0] for name in METHODS}


# The whole contract of methods that differ in kind: with a queue, a teacher, patches. Of the others what a method can
# break: in which way the base calls a step (compiled or not, several at a time, on four devices, a second time) is the
# same code for all, and a process that loads a saved model tells what this one would.
# Whether a method's own lines stand replicas is told by TensorFlow, and two workers by torch, where each worker runs
# the method's lines on its own rows, too; JAX runs one program over all rows. What is the same lines on each backend is
# told by torch, which trains fastest; that all compute the same from these lines, by the runs that are compared.
# SimCLR is a part of its own: it alone has its paper's views, all operations, and compiles longer than all else.
# `python -m keras_ssl.testing` runs the whole of any.
WHOLE = ["SimCLR with memory", "BYOL", "Jigsaw"]
OF_THE_BASE = {"same_seed_same_run", "steps_per_execution", "jit_compiled", "four_replicas", "saves_and_goes_on"}
TOLD_BY_TENSORFLOW = {"two_replicas"}
TOLD_BY_TORCH = {
    "arguments_are_attributes",
    "step_counts_batches",
    "evaluation_repeats",
    "micro_batches",
    "accumulation_refused",
    "learns",
    everywhere.TWO_WORKERS,
    everywhere.LOADED_ELSEWHERE,
}
# In parts that .ci/run has side by side.
PARTS = {
    "whole": WHOLE,
    "views": ["SimCLR"],
    "rest": [name for name in METHODS if name not in (*WHOLE, "SimCLR")],
}


def checks_of(part):
    """Names of checks by backend."""
    checks = [check for check in everywhere.ALL_CHECKS if part == "whole" or check not in OF_THE_BASE]
    if part == "whole":
        return dict.fromkeys(("tensorflow", "jax", "torch"), checks)
    on_tensorflow = [check for check in checks if check not in TOLD_BY_TORCH]
    return {
        "tensorflow": on_tensorflow,
        "jax": [check for check in on_tensorflow if check not in TOLD_BY_TENSORFLOW],
        "torch": [check for check in checks if check not in TOLD_BY_TENSORFLOW],
    }


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_the_contract_on_all_backends_in_processes_of_their_own(part, monkeypatch):
    specs = [f"methods_under_test:{METHODS[name].__name__}" for name in PARTS[part]]
    checks = checks_of(part)
    monkeypatch.chdir(TESTS)  # where the processes find the methods
    found = everywhere.check_everywhere(specs, only=checks)
    # TensorFlow and JAX skip nothing. The first backend is what the others are compared with; on torch a process has
    # neither several devices nor a second way to compile.
    not_on_torch = {"steps_per_execution", "jit_compiled", "two_replicas", "four_replicas"}
    for spec in specs:
        expected = {
            "tensorflow": (set(), {everywhere.SAME_ON_BACKENDS}),
            "jax": (set(), set()),
            "torch": (not_on_torch, set()),
        }
        for backend, (skipped, absent) in expected.items():
            results = found[spec, backend]
            for verdict, these in {
                "skipped": skipped & {*checks[backend]},
                "passed": {*checks[backend]} - skipped - absent,
                "inconclusive": set(),
            }.items():
                assert {result.check for result in results if result.verdict == verdict} == these, (spec, backend)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch.compile is torch's")
def test_simclr_trains_under_torch_compile(images):
    model = METHODS["SimCLR"]()
    model.compile(keras.optimizers.SGD(0.01), jit_compile=True)
    plain = METHODS["SimCLR"]()
    plain.compile(keras.optimizers.SGD(0.01))
    plain.set_weights(model.get_weights())
    losses = [one.fit(images, batch_size=16, epochs=2, verbose=0).history["loss"] for one in (model, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


# The contract itself: broken methods must fail it.


class Broken(keras_ssl.SimCLR):
    """SimCLR; what is broken is said by each test."""


def broken(**members):
    cls = type("Broken", (Broken,), members)
    cls = keras.saving.register_keras_serializable("tests")(cls)
    return lambda: cls(tiny_backbone(), views=light_views(), temperature=0.2)


def test_a_loss_that_is_not_the_sum_of_its_terms_fails():
    def compute_loss(self, *args, **kwargs):
        return 2.0 * keras_ssl.SimCLR.compute_loss(self, *args, **kwargs)

    with pytest.raises(AssertionError, match="sum of its terms"):
        check_method(broken(compute_loss=compute_loss), only=["loss_is_the_sum_of_its_terms"])


def test_an_argument_that_is_not_kept_fails():
    def __init__(self, backbone, temperature=0.1, strength=1.0, **kwargs):
        keras_ssl.SimCLR.__init__(self, backbone, temperature=temperature, **kwargs)

    with pytest.raises((AssertionError, ValueError), match="strength"):
        check_method(broken(__init__=__init__), only=["arguments_are_attributes"])


@pytest.mark.parametrize("name", ["SimCLR", "BarlowTwins", "SwAV", "LeJEPA"])
def test_rows_that_meet_though_it_is_said_that_they_do_not_fail(name):
    def wrong():
        model = METHODS[name]()
        model.batch_dependent = False
        return model

    with pytest.raises(AssertionError, match="rows meet"):
        check_method(wrong, only=["accumulation_refused"])


@pytest.mark.slow
def test_a_gradient_of_the_wrong_sign_fails():
    def objective(self, outputs, batch):
        terms, figures = keras_ssl.SimCLR.objective(self, outputs, batch)
        return {name: 2.0 * keras.ops.stop_gradient(value) - value for name, value in terms.items()}, figures

    with pytest.raises(AssertionError, match="held-out"):
        check_method(broken(objective=objective), only=["learns"])


@pytest.mark.slow
def test_a_seed_that_is_not_saved_fails():
    def get_config(self):
        return {name: value for name, value in keras_ssl.SimCLR.get_config(self).items() if name != "seed"}

    make = broken(get_config=get_config)

    def seeded():
        model = make()
        model.seed = 3
        return model

    with pytest.raises(AssertionError, match="interrupted"):
        check_method(seeded, only=["saves_and_goes_on"])


@pytest.mark.slow
def test_losses_that_are_not_divided_by_the_replicas_fail():
    if keras.backend.backend() != "tensorflow":
        return  # JAX runs one program over the global batch: there is nothing to divide

    def _reduced(self, name, values):
        mean = keras.ops.mean(values)
        self._means[name].update_state(mean)
        return mean

    with pytest.raises(AssertionError, match="2 replicas"):
        check_method(broken(_reduced=_reduced), only=["two_replicas"])


@pytest.mark.slow
def test_losses_without_everybodys_negatives_fail():
    if keras.backend.backend() != "tensorflow":
        return

    def objective(self, outputs, batch):
        a, b = outputs["a"], outputs["b"]
        return {"nt_xent": keras_ssl.losses.nt_xent(a, b, 0.2)}, {
            "contrastive_accuracy": keras_ssl.losses.contrastive_accuracy(a, b)
        }

    with pytest.raises(AssertionError, match="2 replicas"):
        check_method(broken(objective=objective), only=["two_replicas"])


@pytest.mark.slow
def test_views_by_keras_own_generators_fail():
    if keras.backend.backend() != "tensorflow":
        return  # one program draws for all rows there: the backends differ from one another instead

    def make():
        flip = keras.layers.RandomFlip("horizontal")
        return keras_ssl.SimCLR(tiny_backbone(), views=augment.Views([flip], [flip]), temperature=0.2)

    with pytest.raises(AssertionError, match="2 replicas"):
        check_method(make, only=["two_replicas"])


@keras.saving.register_keras_serializable("tests")
class EagerQueue(keras_ssl.SimCLR):
    """SimCLR whose queue takes the embeddings where they are made, once a micro-batch."""

    def embed(self, views, training):
        outputs = super().embed(views, training)
        if training:
            self.queue.push(losses.normalized(ops.concatenate([outputs["a"], outputs["b"]], axis=0)))
        return outputs

    def after_optimizer_step(self, outputs, stepped):
        pass


@pytest.mark.slow
def test_a_queue_that_ticks_once_a_micro_batch_fails():
    with pytest.raises(AssertionError, match="micro_batch_size"):
        check_method(
            lambda: EagerQueue(tiny_backbone(), light_views(), temperature=0.2, memory=150), only=["micro_batches"]
        )


@keras.saving.register_keras_serializable("tests")
class WithTeacher(keras_ssl.SimCLR):
    """SimCLR with a moving average of its projector's kernel, whose mean is added to the first view's embedding.

    Args:
        too_often: tick once a micro-batch, and not once a step.
    """

    def __init__(self, backbone, too_often=False, **kwargs):
        super().__init__(backbone, **kwargs)
        self.too_often = too_often

    def build_heads(self, width):
        super().build_heads(width)
        kernel = self.projector.trainable_variables[0]
        self.average = self.add_weight(shape=kernel.shape, initializer="zeros", trainable=False, name="average")

    def embed(self, views, training):
        outputs = super().embed(views, training)
        outputs["a"] = outputs["a"] + ops.stop_gradient(ops.mean(ops.convert_to_tensor(self.average)))
        return outputs

    def after_optimizer_step(self, outputs, stepped):
        rows = outputs["a"].shape[0]
        for _ in range(rows // (self.micro_batch_size or rows) if self.too_often else 1):
            average, kernel = (ops.convert_to_tensor(v) for v in (self.average, self.projector.trainable_variables[0]))
            self.average.assign(0.5 * average + 0.5 * kernel)


def with_teacher(too_often):
    def make():
        projector = keras.Sequential([keras.Input((16,)), keras.layers.Dense(8)])
        return WithTeacher(
            tiny_backbone(), views=light_views(), too_often=too_often, projector=projector, temperature=0.2
        )

    return make


@pytest.mark.slow
def test_a_teacher_that_ticks_once_a_micro_batch_fails():
    check_method(with_teacher(too_often=False), only=["micro_batches"])
    with pytest.raises(AssertionError, match="micro_batch_size"):
        check_method(with_teacher(too_often=True), only=["micro_batches"])


def test_what_is_not_a_new_model_is_refused():
    def make():
        model = METHODS["SimCLR"]()
        model.compile("sgd")
        return model

    with pytest.raises(ValueError, match="not compiled"):
        check_method(make)
