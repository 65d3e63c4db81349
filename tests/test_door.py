"""One check at one door: whatever takes images refuses the same wrong ones with the same sentence."""

import re

import keras
import numpy as np
import pytest
from methods_under_test import light_views

import keras_ssl
from keras_ssl import callbacks, evaluate
from keras_ssl.data import adapter
from keras_ssl.data.value_range import check_images
from keras_ssl.testing import tiny_backbone

BACKEND = keras.backend.backend()


def good(dtype="uint8"):
    return np.random.default_rng(0).integers(0, 256, (32, 28, 28, 1)).astype(dtype)


def spoiled(rows=(0, 31)):
    nan = good("float32")
    nan[list(rows), 3, 3] = np.nan
    return nan


WRONG = {
    "0 … 1 where 0 … 255 is meant": (good("float32") / 255.0, r"lie in \[0, 1\].*where that is all black"),
    "bytes of 0 and 1": ((good() > 127).astype("uint8"), r"lie in \[0, 1\].*where that is all black"),
    "bool": (good() > 127, r"lie in \[0, 1\].*where that is all black"),
    "integers": ((good() > 127).astype("int64"), r"lie in \[0, 1\].*where that is all black"),
    "below": (good("float32") - 128.0, r"lie in \[-128, 127\], outside of the model's value_range=\(0, 255\)"),
    "above": (good("int32") * 257, r"lie in \[0, 65535\], outside"),
    "NaN": (spoiled(), "hold NaN or infinite values"),
    "channels first": (good().transpose(0, 3, 1, 2), r"permute\(0, 2, 3, 1\)"),
}


def model(cls=keras_ssl.SimCLR):
    made = cls(tiny_backbone(), light_views())
    made.compile("sgd")
    return made


class Batches(keras.utils.PyDataset):
    """Two batches, with labels where asked for."""

    def __init__(self, images, labels=False):
        super().__init__()
        self.images, self.labels = images, labels

    def __len__(self):
        return 2

    def __getitem__(self, index):
        part = slice(16 * index, 16 * index + 16)
        return (self.images[part], np.arange(16) % 2) if self.labels else self.images[part]


def tf_data(images, size=16):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(images).batch(size)


def labeled(images):
    return images, np.arange(len(images)) % 2


def fit(x, **options):
    return model().fit(x, batch_size=16 if hasattr(x, "shape") else None, verbose=0, **options)


def with_callback(make):
    return lambda images: fit(good(), callbacks=[make(images)])


DOORS = {
    "fit on an array": fit,
    "fit on a tf.data.Dataset": lambda images: fit(tf_data(images)),
    "fit on a PyDataset": lambda images: fit(Batches(images)),
    "fit on a generator": lambda images: fit(iter([images[:16], images[16:]]), steps_per_epoch=2),
    "fit on any iterable": lambda images: fit({0: images[:16], 1: images[16:]}.values()),
    "validation data": lambda images: fit(good(), validation_data=images),
    "validation data, a stream": lambda images: fit(good(), validation_data=Batches(images)),
    "evaluate": lambda images: model().evaluate(images, batch_size=16, verbose=0),
    "predict": lambda images: model().predict(images, verbose=0),
    "predict on a tf.data.Dataset": lambda images: model().predict(tf_data(images), verbose=0),
    "predict on a PyDataset": lambda images: model().predict(Batches(images), verbose=0),
    "predict on a split": lambda images: model().predict(keras_ssl.data.Split(images), verbose=0),
    "predict_on_batch": lambda images: model().predict_on_batch(images),
    "features": lambda images: model().features(images),
    "train_on_batch": lambda images: model().train_on_batch(images),
    "test_on_batch": lambda images: model().test_on_batch(images),
    "KNNProbe": with_callback(lambda images: callbacks.KNNProbe(labeled(good()), labeled(images), k=3)),
    "KNNProbe on a stream": with_callback(
        lambda images: callbacks.KNNProbe(Batches(images, True), labeled(good()), k=3)
    ),
    "LinearProbe": with_callback(lambda images: callbacks.LinearProbe(labeled(images), labeled(good()))),
    "CollapseMonitor": with_callback(callbacks.CollapseMonitor),
    "extract_features": lambda images: evaluate.extract_features(model(), images),
    "extract_features of a stream": lambda images: evaluate.extract_features(model(), Batches(images)),
    "extract_features of a plain backbone": lambda images: evaluate.extract_features(tiny_backbone(), images),
    "fine_tune": lambda images: evaluate.fine_tune(tiny_backbone(), labeled(images), labeled(good())),
    "fine_tune, held-out images": lambda images: evaluate.fine_tune(tiny_backbone(), labeled(good()), labeled(images)),
    "probe_layers": lambda images: evaluate.probe_layers(tiny_backbone(), (labeled(images), labeled(good()))),
}


@pytest.mark.parametrize("door", DOORS)
def test_the_same_wrong_images_are_refused_by_the_same_sentence(door):
    images = good("float32") / 255.0
    with pytest.raises(ValueError) as everywhere:
        check_images(images, (0, 255), "images")
    with pytest.raises(ValueError) as here:
        DOORS[door](images)
    without_name = re.compile("`[^`]*`")
    assert without_name.sub("``", str(here.value)) == without_name.sub("``", str(everywhere.value))


def objects():
    """What numpy makes of images of several sizes, and of a column of a table."""
    several = np.empty(32, "object")
    several[:] = list(good())
    return {"each an image": several, "each a number": good().astype("object"), "words": good().astype("str")}


@pytest.mark.parametrize(
    ("door", "kind"),
    [
        *(("fit on an array", kind) for kind in ("each a number", "words")),
        *((name, "each an image") for name in DOORS if not any(w in name for w in ("tf.data", "_batch", "Probe on a"))),
    ],
)
def test_objects_are_no_images(door, kind):
    with pytest.raises(ValueError, match=r"have the dtype .* images are one array of numbers.*np\.stack"):
        DOORS[door](objects()[kind])


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("door", ["fit on an array", "fit on a tf.data.Dataset", "fit on a PyDataset", "predict"])
def test_every_kind_of_wrong_images_is_refused(kind, door):
    images, words = WRONG[kind]
    with pytest.raises(ValueError, match=words):
        DOORS[door](images)


def test_a_later_batch_of_a_stream_is_refused_as_the_first_would_be():
    late = spoiled(rows=(20,))
    for stream in (tf_data(late), Batches(late)):
        with pytest.raises(ValueError, match="hold NaN or infinite values"):
            model().fit(stream, verbose=0)


@pytest.mark.parametrize("door", ["fit", "predict"])
def test_a_later_batch_of_a_generator_is_refused_as_the_first_would_be(door):
    late = (part for part in np.split(spoiled(rows=(20,)), 4))
    with pytest.raises(ValueError, match="hold NaN or infinite values"):
        model().fit(late, steps_per_epoch=4, verbose=0) if door == "fit" else model().predict(late, verbose=0)


def test_an_error_of_the_users_own_code_keeps_its_lines():
    def broken():
        yield good()[:16]
        raise ValueError("mine")

    with pytest.raises(Exception, match="mine") as found:
        model().fit(broken(), steps_per_epoch=2, verbose=0)
    shown = str(found.value) if BACKEND == "tensorflow" else str(found.traceback[-1])
    assert re.search(r"test_door\.py.*in broken", shown, re.DOTALL)


def test_a_set_that_is_binary_says_so_by_its_range():
    binary = (good() > 127).astype("uint8")
    flip = keras_ssl.augment.RandomHorizontalFlip(value_range=(0, 1))
    made = keras_ssl.SimCLR(tiny_backbone(value_range=(0, 1)), flip, value_range=(0, 1))
    made.compile("sgd")
    assert np.isfinite(made.fit(binary, batch_size=16, verbose=0).history["loss"]).all()


@pytest.mark.parametrize(
    "layer", [keras.layers.Rescaling(1 / 255), keras.layers.Rescaling(1 / 127.5, -1), keras.layers.Rescaling(255.0)]
)
def test_a_view_that_leaves_the_range_is_named_before_the_first_step(layer):
    made = keras_ssl.SimCLR(tiny_backbone(), [keras_ssl.augment.RandomHorizontalFlip(), layer])
    made.compile("sgd")
    with pytest.raises(ValueError, match=rf"view layer {layer.name} \(Rescaling\)"):
        made.fit(good(), batch_size=16, verbose=0)


# Forms of a batch.


def test_pairs_and_triples_are_taken_where_they_are_compared():
    left, right, same = good(), good()[::-1].copy(), np.arange(32) % 2
    siamese, triplet = model(keras_ssl.Siamese), model(keras_ssl.Triplet)
    for pairs in ([left, right], (left, right)):
        siamese.fit(pairs, same, batch_size=16, verbose=0)
    siamese.fit(tf_data(((left, right), same)), verbose=0)
    triplet.fit((left, left, right), batch_size=16, verbose=0)
    triplet.fit(tf_data((left, left, right)), verbose=0)


def endless():
    while True:
        yield good()[:16]


FORMS = {
    "pairs for SimCLR": (lambda: ((good(), good()), np.ones(32)), r"\"same\".*keras_ssl\.Siamese"),
    "triples for SimCLR": (lambda: ((good(), good(), good()), None), r"is given 3.*keras_ssl\.Triplet"),
    "a stream of triples": (lambda: (tf_data((good(), good(), good())), None), r"is given 3.*keras_ssl\.Triplet"),
    "not batched": (lambda: (tf_data((good(), np.arange(32))).unbatch(), None), r"dataset\.batch\(256"),
    "not batched, without labels": (lambda: (tf_data(good()).unbatch(), None), r"dataset\.batch\(256"),
    "no channels": (lambda: (good()[..., 0], None), r"images\[\.\.\., None\]"),
    "a key too many": (lambda: ({"image": good(), "weight": np.ones(32)}, None), 'the key "weight"'),
    "without an end": (lambda: (tf_data(good()).repeat(), None), "steps_per_epoch"),
    "a generator": (lambda: (endless(), None), "steps_per_epoch"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_that_can_not_be_meant_is_refused_with_what_to_write(form):
    make, words = FORMS[form]
    with pytest.raises(ValueError, match=words):
        model().fit(*make(), verbose=0)


def test_shapes_that_tensorflow_does_not_know_are_asked_for():
    import tensorflow as tf

    unknown = tf_data(good()).map(lambda images: tf.numpy_function(lambda x: x, [images], tf.uint8))
    with pytest.raises(ValueError, match="ensure_shape"):
        model().fit(unknown, verbose=0)
    ragged = tf.data.Dataset.from_tensors(tf.ragged.constant([[[[1.0]]], [[[1.0]], [[2.0]]]], ragged_rank=1))
    with pytest.raises(ValueError, match="ragged"):
        model().fit(ragged, verbose=0)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"steps_per_epoch": 0}, {"batch_size": -1}])
def test_numbers_below_one_are_refused(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}` must be 1 or more"):
        model().fit(good(), verbose=0, **options)


def test_a_generator_with_steps_goes_on_where_the_last_epoch_ended():
    seen = []

    def batches():
        for number in range(100):
            seen.append(number)
            yield good()[:16]

    history = model().fit(batches(), steps_per_epoch=2, epochs=3, verbose=0).history
    assert len(history["loss"]) == 3
    assert 6 <= len(seen) <= 12  # what is read ahead


class Parts:
    """Images in batches of 8 with what is left as the last one, that can be iterated anew; labeled where asked for."""

    def __init__(self, images, form=lambda images: images):
        self.images, self.form = images, form

    def __iter__(self):
        return (self.form(self.images[start : start + 8]) for start in range(0, len(self.images), 8))


class Sized(Parts):
    def __len__(self):
        return -(-len(self.images) // 8)


class Indexed(Batches):
    def __len__(self):
        return -(-len(self.images) // 8)

    def __getitem__(self, index):
        return self.images[8 * index : 8 * index + 8]


def loader(images, kind="of a set"):
    """A torch DataLoader of batches of 8."""
    if BACKEND != "torch":
        pytest.skip("a DataLoader is torch's")
    from torch import as_tensor
    from torch.utils import data

    class Stream(data.IterableDataset):
        def __iter__(self):
            return iter(as_tensor(images))

        def __len__(self):
            return len(images)

    if kind == "of a stream":
        return data.DataLoader(Stream(), batch_size=8)
    if kind == "of batches":
        return data.DataLoader(list(map(as_tensor, Parts(images))), batch_size=None)
    if kind in ("with a sampler of batches", "with a sampler of whole batches"):
        order = data.BatchSampler(range(len(images)), 8, drop_last="whole" in kind)
        return data.DataLoader([as_tensor(image) for image in images], batch_sampler=order)
    return data.DataLoader(data.TensorDataset(as_tensor(images)), batch_size=8)


ITERABLES = {
    "iterable": Sized,
    "PyDataset": Indexed,
    "DataLoader": loader,
    "DataLoader of a stream": lambda images: loader(images, "of a stream"),
    "DataLoader of batches": lambda images: loader(images, "of batches"),
    "DataLoader with a sampler of batches": lambda images: loader(images, "with a sampler of batches"),
    "DataLoader with a sampler of whole batches": lambda images: loader(images, "with a sampler of whole batches"),
}


@pytest.mark.parametrize("kind", ITERABLES)
@pytest.mark.filterwarnings("ignore:`x`. the last of 4 batches holds fewer than 8 images")
def test_a_partial_last_batch_is_left_out_of_each_epoch(kind):
    byol = model(keras_ssl.BYOL)  # whose schedule needs the number of steps
    byol.fit(ITERABLES[kind](good()[:28]), epochs=2, verbose=0)
    assert int(byol.step) == 2 * 3


@pytest.mark.parametrize(("rows", "said"), [(24, False), (28, True)])
@pytest.mark.parametrize("kind", ITERABLES)
def test_a_batch_is_left_out_only_where_it_is_partial_and_that_is_said(kind, rows, said, recwarn):
    assert fed(ITERABLES[kind](good()[:rows])).steps == 3
    told = ["the last of 4 batches holds fewer than 8" in str(warning.message) for warning in recwarn]
    assert any(told) == (said and "whole" not in kind)


def fed(x, steps=None):
    made = model()
    return adapter.adapt(x, None, made.needs(), made, steps=steps)


def test_of_many_batches_the_last_is_left_out_rather_than_all_others_read(recwarn):
    many, read = np.repeat(good()[:1], 8 * 25, axis=0), []
    batches = Sized(many, lambda images: read.append(1) or images)
    with pytest.warns(UserWarning, match="may hold fewer than 8 images.*set `drop_last = True` on the Sized"):
        assert fed(batches).steps == 24
    assert len(read) < 20
    batches.drop_last = True
    recwarn.clear()
    assert fed(batches).steps == 25
    assert not len(recwarn)


@pytest.mark.filterwarnings("ignore:`x`. the last of 4 batches holds fewer than 8 images")
def test_more_steps_than_whole_batches_are_said_and_not_counted():
    with pytest.warns(UserWarning, match="`steps_per_epoch` .or `steps`. is 4, and a pass has 3 whole batches"):
        feed = fed(Sized(good()[:28]), steps=4)
    assert (feed.steps, feed.steps_for_keras) == (3, 3)


def ending(images):
    """What ends too early: batches, the number of them that is asked for, and what must be said."""
    parts = Parts(images)
    longer = type("Longer", (Parts,), {"__len__": lambda self: 4})(images)
    return {
        "generator": (iter(parts), 3, "generator ended after 2 batches, and .* asks for 3 in each epoch"),
        "iterable": (parts, 3, "Parts ended after 2 batches, and .* asks for 3: pass 2 or fewer"),
        "iterable of another length": (longer, None, "Longer ended after 2 batches, and its length is 4"),
        "nothing": (iter(()), 3, "gives no batch"),
    }


@pytest.mark.parametrize("kind", ending(good()))
@pytest.mark.parametrize("door", ["fit", "evaluate", "validation_data"])
def test_what_ends_early_is_told_with_the_number_of_its_batches(kind, door):
    batches, steps, words = ending(good()[:16])[kind]
    argument = "`validation_data`" if door == "validation_data" else "`x`"
    through = {
        "fit": lambda: fit(batches, steps_per_epoch=steps),
        "evaluate": lambda: model().evaluate(batches, steps=steps, verbose=0),
        "validation_data": lambda: fit(good(), validation_data=batches, validation_steps=steps),
    }
    with pytest.raises(ValueError, match=f"{argument}: the .*{words}"):
        through[door]()


def test_a_generator_that_ends_after_the_first_epoch_is_told_so():
    with pytest.raises(ValueError, match=r"ended after 2 batches, and `steps_per_epoch` .* asks for 2 in each"):
        model().fit(iter(Parts(good()[:16])), steps_per_epoch=2, epochs=2, verbose=0)


def test_a_batch_of_another_size_is_told_with_its_number():
    with pytest.raises(ValueError, match="`x`: batch 3 holds 4 images and the first one 8: make them equal"):
        model().fit(iter(Parts(good()[:28])), steps_per_epoch=2, epochs=2, verbose=0)


PREDICTED = {
    "generator": lambda images: iter(Parts(images)),
    "generator of tuples": lambda images: iter(Parts(images, lambda images: (images,))),
    "labeled iterable": lambda images: Parts(images, labeled),
    "iterable of dicts": lambda images: Parts(images, lambda images: {"image": images}),
    "tf.data.Dataset": lambda images: tf_data(images, 8),
    **ITERABLES,
}


@pytest.mark.parametrize("kind", [kind for kind in PREDICTED if "whole" not in kind])
@pytest.mark.filterwarnings("error:Your input ran out of data")
def test_predict_takes_all_rows_of_batches_of_every_kind(kind):
    images, made = good()[:28], model()
    features = made.predict(PREDICTED[kind](images), verbose=0)
    np.testing.assert_allclose(features, made.predict(images, verbose=0), atol=1e-5)


def test_predict_of_no_batch_is_refused():
    with pytest.raises(ValueError, match="`x`: the tuple_iterator gives no batch"):
        model().predict(iter(()), verbose=0)


@pytest.mark.parametrize(("size", "steps"), [(16, 2), (12, 2), (10, 3)])
def test_a_stream_that_may_end_in_a_partial_batch_knows_its_length(size, steps):
    byol = model(keras_ssl.BYOL)  # whose schedule needs the number of steps
    byol.fit(tf_data(good(), size), epochs=2, verbose=0)
    assert int(byol.step) == 2 * steps


def test_predict_and_extract_features_take_a_split_on_disk(tmp_path):
    from PIL import Image

    for number, image in enumerate(good()[:6]):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{number}.png")
    split = keras_ssl.data.load(tmp_path, max_bytes=0).train
    made = model()
    expected = made.predict(good()[:6], verbose=0)
    np.testing.assert_allclose(made.predict(split, verbose=0), expected, atol=1e-5)
    assert evaluate.extract_features(made, split).shape == (6, expected.shape[-1])
