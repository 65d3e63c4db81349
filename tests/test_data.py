"""`load` takes what a user points at, and says what is wrong with it."""

import gzip
import pathlib
import types

import keras
import numpy as np
import pytest
from methods_under_test import light_views
from PIL import Image

import keras_ssl
from keras_ssl.cli.trained import TrainedBackbone
from keras_ssl.data import ImageFiles, Split, adapter, lazy, load
from keras_ssl.datasets import make_clothes_sample


def picture(path, size=(12, 10), mode="RGB", value=200):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode != "RGB" else (value, 30, 60)).save(path)


def test_the_bundled_sample_needs_no_network(sample):
    assert sample.train.images.shape == (10_000, 28, 28, 1)
    assert sample.test.images.shape == (2_000, 28, 28, 1)
    assert sample.train.images.dtype == np.uint8
    assert (np.bincount(sample.train.labels) == 1000).all()
    assert (np.bincount(sample.test.labels) == 200).all()
    assert sample.train.class_names[9] == "ankle boot"
    folder = pathlib.Path(keras_ssl.__file__).parent / "datasets"
    assert (folder / "fashion_mnist_sample.npz").stat().st_size < 6e6
    assert "MIT" in (folder / "LICENSE-fashion-mnist").read_text()


def test_no_image_of_the_sample_is_in_both_splits(sample):
    train = {image.tobytes() for image in sample.train.images}
    assert sum(image.tobytes() in train for image in sample.test.images) == 0


@pytest.fixture(scope="module")
def clothes():
    return load("clothes_sample")


@pytest.mark.one_backend
def test_the_bundled_photographs_need_no_network(clothes):
    assert clothes.train.images.shape == (3409, 64, 64, 3)
    assert clothes.test.images.shape == (372, 64, 64, 3)
    assert clothes.train.images.dtype == np.uint8
    assert " ".join(clothes.train.class_names) == (
        "dress hat longsleeve outwear pants shirt shoes shorts skirt t-shirt"
    )
    assert np.bincount(clothes.train.labels).tolist() == [273, 137, 504, 208, 517, 319, 224, 227, 124, 876]
    assert np.bincount(clothes.test.labels).tolist() == [15, 12, 72, 38, 42, 26, 73, 30, 12, 52]
    folder = pathlib.Path(keras_ssl.__file__).parent / "datasets"
    assert (folder / "clothes_sample.npz").stat().st_size < 6e6
    assert "CC0" in (folder / "LICENSE-clothes").read_text()


@pytest.mark.one_backend
def test_no_two_of_the_photographs_are_the_same(clothes):
    contents = [image.tobytes() for split in (clothes.train, clothes.test) for image in split.images]
    assert len(set(contents)) == 3781


@pytest.mark.one_backend
def test_the_photographs_are_resized_like_a_folder(clothes, tmp_path):
    for number in range(3):
        Image.fromarray(clothes.test.images[number]).save(tmp_path / f"{number}.png")
    small = load("clothes_sample", image_size=(24, 32)).test.images
    assert small.shape == (372, 24, 32, 3)
    np.testing.assert_array_equal(small[:3], load(tmp_path, image_size=(24, 32)).train.images)


@pytest.mark.one_backend
def test_the_photographs_of_the_package_get_the_size_of_the_backbone(tmp_path):
    keras_ssl.backbones.resnet8((16, 16, 3), width=4).save(tmp_path / "backbone.keras")
    flags = {"run": None, "backbone": str(tmp_path / "backbone.keras"), "data": "clothes_sample", "image_size": None}
    settings = types.SimpleNamespace(**flags)
    used = TrainedBackbone(settings)
    used.check_data(settings)
    _, data = used.load().load_images(settings)
    assert data.test.images.shape == (372, 16, 16, 3)


@pytest.mark.one_backend
def test_the_script_of_the_photographs_writes_the_same_file_twice(tmp_path):
    shades = np.random.default_rng(0).integers(0, 255, (8, 96, 128, 3), dtype="uint8")
    for number, folder in enumerate(["train/hat", "train/shoes", "validation/hat", "test/hat", "test/shoes"]):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(shades[number]).save(tmp_path / folder / f"{9 - number}.jpg")
    make_clothes_sample.main(tmp_path, tmp_path / "one.npz")
    make_clothes_sample.main(tmp_path, tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with np.load(tmp_path / "one.npz") as file:  # without pickle
        assert file["train_labels"].tolist() == [0, 1, 0], "in the order of the names"
        assert file["test_labels"].tolist() == [1, 0]
        assert file["class_names"].tolist() == ["hat", "shoes"]


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10", "cifar100", "mnist"])
def test_names_of_keras_datasets(monkeypatch, name):
    shape = (5, 32, 32, 3) if "cifar" in name else (5, 28, 28)
    labels = np.arange(5).reshape(-1, 1) if "cifar" in name else np.arange(5)
    arrays = np.zeros(shape, "uint8"), labels.astype("uint8")
    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", lambda: (arrays, arrays))
    data = load(name)
    assert data.train.images.ndim == 4
    assert data.test.labels.tolist() == [0, 1, 2, 3, 4]


def test_a_folder_of_pictures_of_all_kinds(tmp_path):
    for suffix in ("jpg", "jpeg", "png", "bmp", "gif", "webp", "PNG"):
        picture(tmp_path / "deep" / "down" / f"one.{suffix}")
    (tmp_path / "notes.txt").write_text("no picture")
    data = load(tmp_path)
    assert data.train.images.shape == (7, 10, 12, 3)
    assert data.train.class_names == ["deep"]
    assert data.test is None
    assert abs(int(data.train.images[0, 5, 5, 0]) - 200) < 5


def test_sub_folders_are_labels_and_splits(tmp_path):
    for part, count in (("train", 3), ("val", 2)):
        for label in ("cat", "dog"):
            for number in range(count):
                picture(tmp_path / part / label / "more" / f"{number}.png", value=50 if label == "cat" else 100)
    data = load(tmp_path)
    assert data.train.class_names == ["cat", "dog"]
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert data.train.images[-1, 0, 0, 0] == 100


def test_pictures_right_in_the_folder_have_no_labels(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    assert load(str(tmp_path)).train.labels is None


def test_gray_pictures_stay_gray_and_sixteen_bits_are_not_cut_off(tmp_path):
    picture(tmp_path / "gray" / "a.png", mode="L", value=77)
    assert load(tmp_path / "gray").train.images.shape == (1, 10, 12, 1)
    deep = tmp_path / "deep"
    deep.mkdir()
    Image.fromarray(np.full((4, 4), 128 * 256, "uint16")).save(deep / "a.png")
    assert load(deep).train.images[0, 0, 0, 0] == 128
    picture(tmp_path / "gray" / "color.png")
    assert load(tmp_path / "gray").train.images.shape == (2, 10, 12, 3)


def test_transparent_and_palette_pictures_become_colour(tmp_path):
    Image.new("RGBA", (4, 4), (10, 20, 30, 128)).save(tmp_path / "a.png")
    Image.new("P", (4, 4)).save(tmp_path / "b.gif")
    assert load(tmp_path).train.images.shape == (2, 4, 4, 3)


def test_pictures_of_other_sizes_are_resized_when_told_how(tmp_path):
    picture(tmp_path / "a.png", size=(12, 10))
    picture(tmp_path / "b.png", size=(30, 20))
    with pytest.raises(ValueError, match=r"10×12 to 20×30.*by `image_size`"):
        load(tmp_path)
    assert load(tmp_path, image_size=16).train.images.shape == (2, 16, 16, 3)
    assert load(tmp_path, image_size=(8, 6)).train.images.shape == (2, 8, 6, 3)


def test_unreadable_pictures_are_left_out_and_named(tmp_path):
    picture(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"this is no picture")
    with pytest.warns(UserWarning, match=r"1 of 2 .*bad\.png"):
        assert len(load(tmp_path, max_unreadable=0.5).train) == 1


def test_large_folders_are_decoded_batch_by_batch(tmp_path):
    for number in range(40):
        picture(tmp_path / f"{number:02}.png", size=(28, 28), mode="L", value=5 * number)
    lazy = load(tmp_path, max_bytes=1000).train.images
    eager = load(tmp_path).train.images
    assert isinstance(lazy, ImageFiles)
    assert isinstance(eager, np.ndarray)
    np.testing.assert_array_equal(lazy[np.array([7, 3])], eager[[7, 3]])
    np.testing.assert_array_equal(lazy[5:9], eager[5:9])
    np.testing.assert_array_equal(lazy[4], eager[4])
    backbone = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Conv2D(4, 3, 4)])
    model = keras_ssl.SimCLR(backbone, light_views())
    model.compile("sgd")
    assert np.isfinite(model.fit(lazy, batch_size=20, verbose=0).history["loss"]).all()


def idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(side).to_bytes(4, "big") for side in array.shape)
    content = header + array.astype("uint8").tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_a_part_is_there_though_it_is_a_stream_or_empty():
    stream, empty = Split(dataset=iter([])), Split(np.zeros((0, 8, 8, 1), "uint8"))
    assert bool(stream) is True
    assert bool(empty) is True
    assert len(empty) == 0


def test_a_validation_split_leaves_files_on_the_disk(tmp_path, monkeypatch):
    for number in range(60):
        picture(tmp_path / f"{number}.png", mode="L", value=number)
    data, read = load(tmp_path, max_bytes=0), []
    decode = ImageFiles._decode
    monkeypatch.setattr(ImageFiles, "_decode", lambda files, row: read.append(row) or decode(files, row))
    train, held_out = adapter.split_validation(data.train.images, None, needs(), 0.2)
    assert read == []
    assert [len(part["image"]) for part in (train, held_out)] == [48, 12]
    assert [part["image"][0][0, 0, 0] for part in (train, held_out)] == [
        int(pathlib.Path(part["image"].paths[0]).stem) for part in (train, held_out)
    ]
    assert len(read) == 2


def needs():
    return adapter.Needs(method="SimCLR", value_range=(0.0, 255.0), seed=0)


def test_some_rows_of_images_are_read_when_they_are_asked_for():
    array = np.arange(10)[:, None, None, None]
    some = lazy.Rows(array, [3, 1, 4])
    assert some.shape == (3, 1, 1, 1)
    assert some[1:].ravel().tolist() == [1, 4]
    joined = lazy.Joined([array, some])
    assert joined.shape[0] == 13
    assert joined[[0, 9, 10, 12]].ravel().tolist() == [0, 9, 3, 4]
    assert joined[11].item() == 1
    assert lazy.take(joined, slice(10, None))[:].ravel().tolist() == [3, 1, 4]
    assert joined[:0].shape == (0, 1, 1, 1)
    with pytest.raises(IndexError):
        joined[13]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_folders_and_files(tmp_path, suffix):
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4))
    for part in ("train", "t10k"):
        idx(tmp_path / f"{part}-images-idx3-ubyte{suffix}", images)
        idx(tmp_path / f"{part}-labels-idx1-ubyte{suffix}", np.arange(6))
    data = load(tmp_path)
    np.testing.assert_array_equal(data.train.images[..., 0], images)
    assert data.test.labels.tolist() == list(range(6))
    assert load(tmp_path / f"train-images-idx3-ubyte{suffix}").train.images.shape == (6, 5, 4, 1)


def test_numpy_files(tmp_path):
    images, labels = np.zeros((4, 8, 8, 3), "uint8"), np.arange(4)
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "b.npz", images=images, labels=labels)
    np.savez(tmp_path / "c.npz", x_train=images, y_train=labels, x_test=images[:2], y_test=labels[:2])
    np.savez(tmp_path / "d.npz", pixels=images)
    assert load(tmp_path / "a.npy").train.images.shape == (4, 8, 8, 3)
    assert load(tmp_path / "b.npz").train.labels.tolist() == [0, 1, 2, 3]
    assert len(load(tmp_path / "c.npz").test) == 2
    with pytest.raises(ValueError, match="pixels"):
        load(tmp_path / "d.npz")


def test_arrays_and_streams():
    images, labels = np.zeros((4, 8, 8), "uint8"), np.arange(4)
    assert load(images).train.images.shape == (4, 8, 8, 1)
    assert load((images, labels)).train.labels.tolist() == [0, 1, 2, 3]
    assert load({"image": images, "label": labels}).train.labels is not None

    class Stream(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return images

    stream = Stream()
    assert load(stream).train.dataset is stream
    data = load(images)
    assert load(data) is data


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda folder: load("fashion_mnst_sample"), FileNotFoundError, 'Did you mean "fashion_mnist_sample"'),
        (lambda folder: load(folder / "nowhere"), FileNotFoundError, "no data set or path"),
        (lambda folder: load(folder), ValueError, "no picture under"),
        (lambda folder: load((np.zeros((4, 8, 8, 3)), np.arange(3))), ValueError, "one label an image"),
        (lambda folder: load((np.zeros((4, 8, 8, 3)), np.arange(4.0) / 2)), ValueError, "must be integers"),
        (lambda folder: load(np.zeros((4, 8))), ValueError, "height, width"),
        (lambda folder: load({"views": (np.zeros(3), np.zeros(3))}), ValueError, "go to `fit`"),
        (lambda folder: load(3), TypeError, "int"),
    ],
)
def test_what_cant_be_loaded_is_told_with_a_way_out(tmp_path, make, error, words):
    with pytest.raises(error, match=words):
        make(tmp_path)


def test_a_folder_without_a_readable_picture(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"None of the pictures.*bad\.png"):
        load(tmp_path)


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "table.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"\.npy"):
        load(tmp_path / "table.csv")
    (tmp_path / "wrong-idx3-ubyte").write_bytes(b"\1\2\3\4")
    with pytest.raises(ValueError, match="not an IDX file"):
        load(tmp_path / "wrong-idx3-ubyte")
