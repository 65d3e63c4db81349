"""The queue of past embeddings, and SimCLR's use of it."""

import importlib

import keras
import numpy as np
import pytest
from conftest import compiled, tiny_backbone, value_and_gradients
from keras import ops

import keras_ssl
from keras_ssl import augment, heads, losses
from keras_ssl.queue import Queue

# The function of the same name hides the module from an ordinary import.
module = importlib.import_module("keras_ssl.losses.nt_xent")


def made(size=5, width=2):
    queue = Queue(size)
    queue.build((None, width))
    return queue


def numbers(queue):
    """The first column of the rows, and how many are filled."""
    rows, valid = queue.negatives()
    return ops.convert_to_numpy(rows)[:, 0].tolist(), int(ops.sum(ops.cast(valid, "int32")))


def rows(*values):
    return np.array([[value, -value] for value in values], "float32")


def test_a_new_queue_holds_nothing():
    assert numbers(made()) == ([0, 0, 0, 0, 0], 0)


def test_the_oldest_embedding_is_overwritten_first_across_the_end():
    queue = made(5)
    queue.push(rows(1, 2, 3))
    assert numbers(queue) == ([1, 2, 3, 0, 0], 3)
    queue.push(rows(4, 5, 6))
    assert numbers(queue) == ([6, 2, 3, 4, 5], 5)
    queue.push(rows(7, 8))
    assert numbers(queue) == ([6, 7, 8, 4, 5], 5)


def test_a_step_that_was_left_out_pushes_nothing():
    queue = made()
    queue.push(rows(1, 2))
    queue.push(rows(8, 9, float("nan")), stepped=ops.convert_to_tensor(False))
    assert numbers(queue) == ([1, 2, 0, 0, 0], 2)
    assert int(ops.convert_to_numpy(queue.pointer)) == 2
    queue.push(rows(3), stepped=ops.convert_to_tensor(True))
    assert numbers(queue) == ([1, 2, 3, 0, 0], 3)


def test_a_queue_can_be_filled_at_once():
    queue = made(3)
    queue.push(rows(1))
    queue.push(rows(2, 3, 4))
    assert numbers(queue) == ([4, 2, 3], 3)


def test_more_than_it_holds_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"5 embeddings.*6"):
        made(5).push(rows(1, 2, 3, 4, 5, 6))


@pytest.mark.parametrize("size", [0, -3, 2.5, None])
def test_a_size_that_is_no_number_of_embeddings_is_refused(size):
    with pytest.raises(ValueError, match="size"):
        Queue(size)


def test_nothing_of_it_is_trained():
    assert made().trainable_variables == []


# Further negatives of NT-Xent.


def embeddings(n, d=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype("float32")


def mean_loss(a, b, **options):
    return ops.mean(losses.nt_xent(a, b, temperature=0.2, **options))


def test_negatives_add_to_every_rows_denominator_and_empty_slots_do_not():
    a, b, more = embeddings(4), embeddings(4, seed=1), embeddings(5, seed=2)
    valid = np.array([True, False, True, True, False])
    z = np.concatenate([a, b, more[valid]]).astype("float64")
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    expected = []
    for i in range(8):
        scores = np.exp(z[i] @ z.T / 0.2)
        expected.append(-np.log(scores[(i + 4) % 8] / (scores.sum() - scores[i])))
    found = ops.convert_to_numpy(losses.nt_xent(a, b, temperature=0.2, negatives=more, valid=valid))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    none = ops.convert_to_numpy(losses.nt_xent(a, b, temperature=0.2, negatives=more, valid=np.zeros(5, "bool")))
    np.testing.assert_allclose(none, ops.convert_to_numpy(losses.nt_xent(a, b, temperature=0.2)), rtol=1e-6)


def test_accuracy_counts_negatives_too():
    a = np.eye(4, dtype="float32")
    b = a + 0.1
    assert float(ops.mean(losses.contrastive_accuracy(a, b))) == 1.0
    hits = ops.convert_to_numpy(losses.contrastive_accuracy(a, b, negatives=a[:2], valid=np.array([True, False])))
    np.testing.assert_array_equal(hits[:4], [0, 1, 1, 1])  # an older embedding of the first image is nearer to it


def test_a_mask_without_negatives_is_refused():
    with pytest.raises(ValueError, match="negatives"):
        losses.nt_xent(embeddings(4), embeddings(4), valid=np.ones(3, "bool"))


def uses(n=24):
    """NT-Xent in all its uses: the batch alone, a replica's rows among gathered keys, a queue, both."""
    a, b, more = embeddings(n), embeddings(n, seed=1), embeddings(13, seed=2)
    valid = np.arange(13) < 9
    part = slice(8, 16)
    queue = {"negatives": more, "valid": valid}
    return {
        "batch": ((a, b), lambda a, b: {}),
        "gathered keys": ((a, b), lambda a, b: {"keys": (a, b), "row_offset": 8, "part": part}),
        "queue": ((a, b), lambda a, b: queue),
        "gathered keys and queue": ((a, b), lambda a, b: {**queue, "keys": (a, b), "row_offset": 8, "part": part}),
    }


@pytest.mark.parametrize("use", uses())
def test_chunks_give_the_value_and_the_gradients_of_the_whole_matrix(use, monkeypatch):
    arrays, options_of = uses()[use]

    def objective(function, a, b):
        options = dict(options_of(a, b))
        part = options.pop("part", slice(None))
        return function(a[part], b[part], **options)

    def loss(a, b):
        return objective(mean_loss, a, b)

    def accuracy():
        return ops.convert_to_numpy(objective(losses.contrastive_accuracy, *map(ops.convert_to_tensor, arrays)))

    value, gradients = value_and_gradients(loss, *arrays)
    hits = accuracy()
    monkeypatch.setattr(module, "_FULL_MATRIX", 0)
    monkeypatch.setattr(module, "_CHUNK", 5)
    chunked, chunked_gradients = value_and_gradients(loss, *arrays)
    assert chunked == pytest.approx(value, rel=1e-6)
    for one, other in zip(chunked_gradients, gradients):
        np.testing.assert_allclose(one, other, atol=1e-6)
    np.testing.assert_array_equal(accuracy(), hits)
    jitted = compiled(loss)(*map(ops.convert_to_tensor, arrays))
    assert float(jitted) == pytest.approx(value, rel=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow compiles open shapes")
def test_an_open_batch_dimension_goes_by_chunks(monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(module, "_CHUNK", 5)
    a, b = embeddings(12), embeddings(12, seed=1)
    value, gradients = value_and_gradients(mean_loss, a, b)
    spec = tf.TensorSpec((None, 6), "float32")

    @tf.function(input_signature=[spec, spec])
    def step(a, b):
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            loss = mean_loss(a, b)
        return loss, tape.gradient(loss, [a, b]), tf.reduce_mean(losses.contrastive_accuracy(a, b))

    loss, found, accuracy = step(a, b)
    assert float(loss) == pytest.approx(value, rel=1e-6)
    assert float(accuracy) == pytest.approx(float(ops.mean(losses.contrastive_accuracy(a, b))))
    for one, other in zip(found, gradients):
        np.testing.assert_allclose(one, other, atol=1e-6)
    loops = [op for op in step.get_concrete_function().graph.get_operations() if "While" in op.type]
    assert loops, "the rows went in one matrix of any size"
    assert {op.get_attr("parallel_iterations") for op in loops} == {1}, "chunks side by side take the memory of all"


# SimCLR with memory.


def simclr(memory=40, **options):
    projector = heads.mlp([16, 8], batch_norm=False, last_batch_norm=False)
    views = augment.Views([augment.RandomHorizontalFlip()], [augment.RandomErasing()])
    return keras_ssl.SimCLR(
        tiny_backbone(), views=views, temperature=0.2, projector=projector, memory=memory, **options
    )


def fitted(images, model=None, optimizer=None, epochs=1, **options):
    model = model or simclr()
    model.compile(optimizer or keras.optimizers.SGD(0.01), **options)
    history = model.fit(images, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return model, history.history


def test_each_step_pushes_both_views_of_its_batch_in_order(images):
    model, _ = fitted(images[:8])
    found = ops.convert_to_numpy(model.queue.rows)
    assert (int(model.queue.pointer), int(model.queue.count)) == (16, 16)
    np.testing.assert_array_equal(found[16:], 0.0)
    np.testing.assert_allclose(np.linalg.norm(found[:16], axis=1), 1.0, rtol=1e-5)
    # Both views of one image are neighbors at a distance of a batch: rows i and i + 8.
    assert np.mean(found[:8] @ found[8:16].T) < np.mean(np.sum(found[:8] * found[8:16], axis=1))


def test_what_is_pushed_is_what_the_step_embedded(images):
    # At a rate of zero the network stays: the second epoch's loss is that of a queue filled by hand.
    model, _ = fitted(images[:8], optimizer=keras.optimizers.SGD(0.0))
    pushed = ops.convert_to_numpy(model.queue.rows)[:16]
    outputs = model.embed(tuple(ops.convert_to_tensor(x) for x in drawn_views(model, images[:8], 0)), training=True)
    z = np.concatenate([ops.convert_to_numpy(ops.stop_gradient(outputs[name])) for name in ("a", "b")])
    np.testing.assert_allclose(pushed, z / np.linalg.norm(z, axis=1, keepdims=True), atol=1e-5)


def drawn_views(model, images, step):
    rows = ops.arange(len(images), dtype="int32")
    rng = augment.RowRNG(model.seed, rows).fold_in(ops.convert_to_tensor(np.int32(step)))
    return model.views(images, rng=rng)


def test_a_steps_own_embeddings_are_not_among_its_negatives(images):
    with_memory, history = fitted(images[:8], optimizer=keras.optimizers.SGD(0.0))
    plain = simclr(memory=0)
    plain.build((None, 28, 28, 1))
    for weight, value in zip(plain.trainable_variables, with_memory.trainable_variables):
        weight.assign(value)
    _, other = fitted(images[:8], plain, keras.optimizers.SGD(0.0))
    assert history["loss"][0] == pytest.approx(other["loss"][0], rel=1e-6)


def test_past_batches_make_the_task_harder(images):
    _, history = fitted(images[:8], optimizer=keras.optimizers.SGD(0.0), epochs=2)
    assert history["loss"][1] > history["loss"][0] + 0.1


def test_evaluation_uses_the_queue_and_leaves_it(images):
    model, _ = fitted(images[:32])
    before = [ops.convert_to_numpy(weight) for weight in model.queue.weights]
    loss = model.evaluate(images[:8], batch_size=8, verbose=0, return_dict=True)["loss"]
    for weight, value in zip(model.queue.weights, before):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)
    model.queue.count.assign(0)
    assert model.evaluate(images[:8], batch_size=8, verbose=0, return_dict=True)["loss"] < loss


def test_a_step_that_the_optimizer_leaves_out_pushes_nothing(images):
    # A loss scale that overflows half precision: Keras leaves the step out.
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=2.0**127)
    model, _ = fitted(images[:8], optimizer=optimizer)
    assert int(ops.convert_to_numpy(optimizer.iterations)) == 0
    assert (int(model.queue.pointer), int(model.queue.count)) == (0, 0)
    np.testing.assert_array_equal(ops.convert_to_numpy(model.queue.rows), 0.0)


def test_no_gradient_reaches_the_queue(images):
    model, _ = fitted(images[:8])
    assert not any(variable is part for variable in model.trainable_variables for part in model.queue.variables)
    assert len(model.queue.trainable_variables) == 0


def test_the_queue_is_saved(images, tmp_path):
    model, _ = fitted(images[:24])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for weight, other in zip(model.queue.weights, loaded.queue.weights):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), ops.convert_to_numpy(other))
    assert int(loaded.queue.count) == 40


def test_a_queue_smaller_than_a_batch_pushes_is_refused_before_work_starts(images):
    model = simclr(memory=15)
    model.compile("sgd")
    with pytest.raises(ValueError, match=r"`memory`.*15 embeddings.*16"):
        model.fit(images, batch_size=8, verbose=0)
    assert int(ops.convert_to_numpy(model.step)) == 0


@pytest.mark.parametrize("memory", [-1, 2.5, None])
def test_a_memory_that_is_no_number_of_embeddings_is_refused(memory):
    with pytest.raises(ValueError, match="memory"):
        keras_ssl.SimCLR(tiny_backbone(), memory=memory)


def test_the_trivial_loss_counts_the_queue():
    assert list(simclr(40).collapse_losses(8).values()) == [pytest.approx(np.log(15 + 40))]
