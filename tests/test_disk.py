"""Pictures on disk: read ahead of the step by threads, kept within a bound, decoded at a part of their size."""

import contextlib
import pickle
import tempfile
import threading
import time

import keras
import numpy as np
import pytest
from methods_under_test import light_views
from PIL import Image

import keras_ssl
from keras_ssl.data import ArrayBatches, ahead, lazy, load
from keras_ssl.data.cache import PictureCache
from keras_ssl.data.pictures import Decoder, read_header


def pixels(size, seed=0):
    """A picture with all frequencies, as photographs have them: noise of every scale on top of each other."""
    rng, (width, height) = np.random.default_rng(seed), size
    total = np.zeros((height, width, 3), "float32")
    for scale in (1, 2, 4, 8, 16, 32, 64):
        small = rng.normal(0, 3 * scale**0.8, (-(-height // scale), -(-width // scale), 3)).astype("float32")
        planes = [Image.fromarray(small[..., channel]).resize(size, Image.Resampling.BICUBIC) for channel in range(3)]
        total += np.stack([np.asarray(plane) for plane in planes], -1)
    return Image.fromarray(np.clip(total + 128, 0, 255).astype("uint8"))


def make(folder, count, size=(20, 16), label=""):
    (folder / label).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        color = (5 * number % 256, number % 256, 77)
        Image.new("RGB", size, color).save(folder / label / f"{number:03}.png")
    return folder


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("keras_ssl_reader")]


def decoded(monkeypatch):
    """The files that are decoded from now on."""
    found, decode = [], Decoder.__call__
    monkeypatch.setattr(Decoder, "__call__", lambda decoder, path: found.append(path) or decode(decoder, path))
    return found


# What is kept.


@pytest.mark.one_backend
def test_as_many_pictures_are_kept_as_max_bytes_holds(tmp_path, monkeypatch):
    a_picture = 16 * 20 * 3
    images = load(make(tmp_path, 40), max_bytes=10 * a_picture + 100).train.images
    found = decoded(monkeypatch)
    rows = np.random.default_rng(0).permutation(40)
    for expected in (40, 30, 30):  # the ten of the first epoch are not decoded again
        np.testing.assert_array_equal(images[rows][:, 0, 0, 1], rows)
        assert len(found) == expected
        found.clear()
    assert len(images.cache) == 10
    assert sum(image.nbytes for image in images.cache._pictures.values()) <= 10 * a_picture + 100


@pytest.mark.one_backend
def test_what_is_kept_is_what_is_decoded_and_cant_be_spoiled(tmp_path):
    for number in range(4):
        pixels((40, 30), number).save(tmp_path / f"{number}.jpg")
    images = load(tmp_path, max_bytes=3 * 30 * 40 * 3).train.images
    whole = load(tmp_path).train.images
    assert isinstance(images, lazy.ImageFiles)
    for _ in range(2):
        several, one = images[:], images[2]
        np.testing.assert_array_equal(several, whole)
        np.testing.assert_array_equal(one, whole[2])
        several[:], one[:] = 0, 0  # by whoever was given them


@pytest.mark.one_backend
def test_small_splits_are_in_memory_and_the_rest_of_the_memory_keeps_pictures_of_large_ones(tmp_path):
    for split, count in (("train", 30), ("test", 8)):
        make(tmp_path, count, label=f"{split}/a")
    a_picture = 16 * 20 * 3
    data = load(tmp_path, max_bytes=20 * a_picture)
    assert isinstance(data.test.images, np.ndarray)
    assert data.train.images.cache.most == 12
    assert data.notes[-1].startswith(
        "30 pictures do not fit into 1.79e-05 GiB (`max_bytes`): 12 of them stay in memory"
    )
    assert isinstance(load(tmp_path, max_bytes=38 * a_picture).train.images, np.ndarray)
    assert isinstance(load(tmp_path, max_bytes=37 * a_picture).train.images, lazy.ImageFiles)
    assert load(tmp_path, max_bytes=0).train.images.cache.most == 0


@pytest.mark.one_backend
def test_a_picture_that_is_kept_may_vanish_and_one_in_gray_is_none_in_color(tmp_path):
    images = load(make(tmp_path, 6), max_bytes=5 * 16 * 20 * 3).train.images
    before = images[:5]
    (tmp_path / "002.png").unlink()
    np.testing.assert_array_equal(images.only([0, 1, 2, 3, 4])[:], before)
    assert images.broken == {}
    assert images.with_channels(1)[:2].shape == (2, 16, 20, 1)


@pytest.mark.one_backend
def test_many_threads_keep_no_more_than_fits_and_a_copy_begins_empty():
    class Slow(dict):
        def __contains__(self, path):  # all threads stand between the look for room and taking it
            time.sleep(0.001)
            return super().__contains__(path)

    cache = PictureCache(100, 10)
    cache._pictures = Slow()
    threads = [
        threading.Thread(target=lambda first=first: [cache.keep(path, path) for path in range(first, first + 50)])
        for first in range(0, 400, 50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache) == cache.most == 10
    again = pickle.loads(pickle.dumps(cache))
    assert (len(again), again.most) == (0, 10)


# What is read ahead.


def forms_of(files):
    """Pictures on disk in all forms in which a method is given them."""
    array = np.asarray(files[:])
    return {
        "image": files,
        "views": (lazy.Rows(files, np.arange(len(files))[::-1]), lazy.Joined([files.only(slice(0, 7)), array[7:]])),
        "index": np.arange(len(files)),
        "mapped": mapped(array),
    }


def mapped(array):
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/a.npy", array)
        return np.load(f"{folder}/a.npy", mmap_mode="r")


@pytest.mark.one_backend
@pytest.mark.parametrize("options", [{}, {"steps": 3}, {"share": (2, 1)}, {"shuffle": False}])
def test_what_is_read_ahead_is_what_is_read_when_it_is_asked_for(tmp_path, options):
    forms = forms_of(load(make(tmp_path, 26), max_bytes=0).train.images)
    one, other = (ArrayBatches(forms, 4, seed=3, **options) for _ in range(2))

    def epochs(batches, first):
        read = []
        for epoch in range(3):
            batches.epoch = epoch
            with batches.rest_of_epoch(first if epoch == 0 else 0):
                read += [batches[index] for index in range(batches.num_batches)]
        return read

    for first in (0, 2):
        plain = epochs(one, first)
        for known in (None, 3):
            with other.reading_ahead():
                other.epochs = known
                found = epochs(other, first)
            assert len(found) == len(plain)
            keras.tree.map_structure(np.testing.assert_array_equal, found, plain)
    assert reading_threads() == []


@pytest.mark.one_backend
def test_at_most_so_many_bytes_are_read_ahead_and_nothing_beyond_the_end():
    begun, read = [], []

    def start(position):
        begun.append(position)
        return lambda: read.append(position) or position

    batches = ahead.Ahead(start, bytes_of_batch=100, max_bytes=350)
    assert [batches.batch(position, 8) for position in range(8)] == list(range(8)) == begun
    assert ahead.Ahead(start, 100, max_bytes=350).count == 3
    assert ahead.Ahead(start, 1000, max_bytes=350).count == 1
    assert ahead.Ahead(start, 1, max_bytes=350).count == 8
    begun.clear()
    batches = ahead.Ahead(start, 100, max_bytes=350)
    batches.batch(0, 8)
    assert begun == [0, 1, 2, 3]
    assert [batches.batch(position, 8) for position in (5, 6, 2)] == [5, 6, 2]  # another epoch, another order


@pytest.mark.one_backend
def test_an_error_of_a_thread_is_that_of_the_picture(tmp_path):
    images = load(make(tmp_path, 12), max_bytes=0).train.images
    for path in tmp_path.glob("*.png"):
        path.write_bytes(b"this was a picture")
    batches = ArrayBatches(images, 4, shuffle=False)
    with pytest.raises(ValueError, match=r"000\.png can't be read .*nor any other"), batches.reading_ahead():
        batches[0]
    with pytest.raises(ValueError, match=r"000\.png can't be read .*nor any other"):
        images[:4]
    assert reading_threads() == []


@pytest.mark.one_backend
def test_workers_is_the_number_of_threads_that_read(tmp_path, monkeypatch):
    made, begin = [], ahead.concurrent.futures.ThreadPoolExecutor
    monkeypatch.setattr(
        ahead.concurrent.futures, "ThreadPoolExecutor", lambda count, name: made.append(count) or begin(count, name)
    )
    make(tmp_path, 12)
    whole = load(tmp_path).train.images
    assert set(made) == {ahead.number_of_threads()}
    for workers in (1, 7):
        for max_bytes in (0, None):
            made.clear()
            images = load(tmp_path, workers=workers, **({} if max_bytes is None else {"max_bytes": 0})).train.images
            np.testing.assert_array_equal(images[:], whole)
            if max_bytes == 0:
                joined = lazy.Joined([images.only([3, 1]), lazy.Rows(images, [2])])
                np.testing.assert_array_equal(joined[:], whole[[3, 1, 2]])
                list(lazy.blocks(images, 5))
                with ArrayBatches(images, 4, shuffle=False).reading_ahead():
                    pass
            assert set(made) == {workers}
    for wrong in (0, 2.5, "many"):
        with pytest.raises(ValueError, match="`workers` is a number of threads, 1 or more, or None"):
            load(tmp_path, workers=wrong)


@pytest.mark.one_backend
def test_what_was_not_begun_is_dropped_at_the_end():
    done = []

    def slow(number):
        time.sleep(0.02)
        done.append(number)

    def interrupted():
        with ahead.readers() as submit:
            for number in range(3_000):
                submit(slow, number)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(done) < 1_500
    assert reading_threads() == []


@pytest.mark.one_backend
def test_blocks_are_the_images_in_order(tmp_path):
    images = load(make(tmp_path, 11), max_bytes=0).train.images
    for size in (3, 11, 20):
        for given in (images, images[:]):
            np.testing.assert_array_equal(np.concatenate(list(lazy.blocks(given, size))), images[:])
    assert reading_threads() == []


class CtrlC(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


def test_each_picture_is_decoded_once_an_epoch_and_threads_end_with_fit_however_it_ends(tmp_path, monkeypatch):
    images = load(make(tmp_path, 24), max_bytes=0).train.images
    model = keras_ssl.SimCLR(keras_ssl.testing.tiny_backbone((16, 20, 3)), light_views())
    model.compile("sgd")
    seen = []
    note = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: seen.append(len(reading_threads())))
    found = decoded(monkeypatch)
    model.fit(images, batch_size=8, epochs=2, validation_split=0.34, callbacks=[note], verbose=0)
    assert len(found) == 2 * (8 + 8), "also the first batch, whose shape and values are looked at before"
    assert max(seen) > 0
    assert reading_threads() == []
    with pytest.raises(KeyboardInterrupt):
        model.fit(images, batch_size=8, callbacks=[CtrlC()], verbose=0)
    assert reading_threads() == []
    model.evaluate(images, batch_size=8, verbose=0)
    assert reading_threads() == []


class Stops(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = True


@pytest.mark.parametrize("callback", [CtrlC, Stops])
def test_nothing_is_read_after_fit_was_cut_off(tmp_path, monkeypatch, capfd, callback):
    """TensorFlow has a thread that asks for the next batches, and knows of the end only when its dataset is freed."""
    images = load(make(tmp_path, 80), max_bytes=0).train.images
    model = keras_ssl.SimCLR(keras_ssl.testing.tiny_backbone((16, 20, 3)), light_views())
    model.compile("sgd")
    found, decode = [], Decoder.__call__

    def slow(decoder, path):
        found.append(path)
        time.sleep(0.05)  # so that batches are waited for when the end comes
        return decode(decoder, path)

    monkeypatch.setattr(Decoder, "__call__", slow)
    with pytest.raises(KeyboardInterrupt) if callback is CtrlC else contextlib.nullcontext():
        model.fit(images, batch_size=8, callbacks=[callback()], verbose=0)
    assert reading_threads() == []
    read = len(found)
    time.sleep(0.3)
    assert (len(found), reading_threads()) == (read, [])
    assert "Traceback" not in capfd.readouterr().err


# JPEG files at a part of their size.


def saved(tmp_path, size, mode="RGB", turn=None, **options):
    picture, exif = pixels(size).convert(mode), Image.Exif()
    if turn:
        exif[0x0112] = turn
    picture.save(tmp_path / "a.jpg", quality=92, exif=exif, **options)
    return tmp_path / "a.jpg"


@pytest.mark.one_backend
@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
@pytest.mark.parametrize(
    ("size", "turn", "wanted"),
    [
        ((320, 240), None, (48, 48)),
        ((241, 323), 6, (40, 56)),
        ((333, 217), 8, (24, 24)),
        ((640, 427), 3, (32, 48)),
        ((255, 509), 5, (50, 20)),
    ],
)
def test_a_jpeg_decoded_at_a_part_of_its_size_is_nearly_the_whole_one(tmp_path, resize, size, turn, wanted):
    path = saved(tmp_path, size, turn=turn)
    whole = Decoder(wanted, 3, resize, reducing_gap=None)(path).astype("float32")
    part = Decoder(wanted, 3, resize)(path).astype("float32")
    assert part.shape == (*wanted, 3)
    difference = np.abs(part - whole)
    assert 0 < difference.mean() < 1.5
    assert difference.max() < 16
    # Not moved by a part of a pixel: the difference is about as large as that, and has no direction.
    down, across = np.gradient(whole, axis=(0, 1))
    for slope in (down, across):
        moved = ((part - whole) * slope).sum() / (slope**2).sum()
        assert abs(moved) < 0.05


@pytest.mark.one_backend
@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("L", 3), ("RGB", 1), ("CMYK", 3)])
def test_all_kinds_of_jpeg_are_reduced(tmp_path, mode, channels):
    path = saved(tmp_path, (300, 200), mode, progressive=mode == "RGB")
    whole, part = (Decoder((32, 40), channels, reducing_gap=gap)(path).astype("float32") for gap in (None, 2.0))
    assert 0 < np.abs(part - whole).mean() < 1.5


@pytest.mark.one_backend
def test_a_jpeg_that_is_not_much_larger_is_decoded_whole(tmp_path):
    path = saved(tmp_path, (256, 256))
    whole = Decoder((65, 65), 3, reducing_gap=None)(path)
    np.testing.assert_array_equal(Decoder((65, 65), 3)(path), whole)  # 3.9 times the size: a half would be 1.97 times
    assert (Decoder((64, 64), 3)(path) != Decoder((64, 64), 3, reducing_gap=None)(path)).any()
    assert (Decoder((128, 128), 3, reducing_gap=1.0)(path) != Decoder((128, 128), 3)(path)).any()
    assert read_header(path).size == (256, 256)


@pytest.mark.one_backend
def test_a_jpeg_that_is_cut_off_is_refused_at_a_part_of_its_size_too(tmp_path):
    path = saved(tmp_path, (400, 300))
    path.write_bytes(path.read_bytes()[:8000])
    for gap in (None, 1.0, 2.0):
        with pytest.raises(OSError, match="truncated"):
            Decoder((32, 32), 3, reducing_gap=gap)(path)


@pytest.mark.one_backend
def test_reducing_gap_is_checked_and_reaches_the_decoder(tmp_path):
    saved(tmp_path, (64, 64))
    assert load(tmp_path, max_bytes=0).train.images.decoder.reducing_gap == 2.0
    assert load(tmp_path, max_bytes=0, reducing_gap=None).train.images.decoder.reducing_gap is None
    for wrong in (0.5, float("nan")):
        with pytest.raises(ValueError, match="`reducing_gap` is 1 or more"):
            load(tmp_path, reducing_gap=wrong)
    with pytest.raises(ValueError, match="`reducing_gap` is for a folder"):
        load(np.zeros((4, 8, 8, 3), "uint8"), reducing_gap=1.0)
