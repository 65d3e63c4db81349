"""Pictures as people have them: kinds, depths, orientations, transparency, broken files; folders, tables, splits."""

import csv
import io
import os
import shutil
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from keras_ssl.data import load
from keras_ssl.data.labels import MISSING
from keras_ssl.data.pictures import Decoder, read_header

pytestmark = pytest.mark.one_backend
SIZE = (10, 12)  # height, width


def noise(mode, seed=0, size=SIZE):
    """A picture of random pixels, in any mode that Pillow saves."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, bands)).astype("uint8")
    if mode == "1":
        return Image.fromarray(pixels[..., 0] > 127)
    if mode == "P":
        return Image.fromarray(pixels.repeat(3, axis=2), "RGB").quantize(16)
    return Image.fromarray(pixels[..., 0] if bands == 1 else pixels, mode)


def deep(values, path):
    Image.fromarray(np.asarray(values, "uint16")).save(path)
    return path


def deep_color(values, path):
    """A PNG of 16 bits a color, which Pillow can't write."""
    height, width, channels = values.shape
    kind = {2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


def decoded(path, size=SIZE, channels=3, **how):
    return Decoder(size, channels, **how)(path)


# Pixels.


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    mode=st.sampled_from(["1", "L", "RGB", "P", "CMYK"]),
    orientation=st.integers(1, 8),
    size=st.tuples(st.integers(3, 40), st.integers(3, 40)),
    channels=st.sampled_from([1, 3]),
    kind=st.sampled_from(["PNG", "TIFF"]),
)
def test_any_mode_orientation_and_size_is_what_pillow_makes_of_it(
    mode, orientation, size, channels, kind, tmp_path_factory
):
    picture, path = noise(mode, size=size), tmp_path_factory.mktemp("one") / f"one.{kind.lower()}"
    if mode == "CMYK":
        kind, path = "TIFF", path.with_suffix(".tiff")
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Of a TIFF that is not compressed Pillow 13 turns only some modes upright, and says the other size.
    picture.save(path, kind, exif=exif, **({"compression": "tiff_deflate"} if kind == "TIFF" else {}))
    upright = ImageOps.exif_transpose(Image.open(path)).convert("L" if channels == 1 else "RGB")
    header = read_header(path)
    assert header.size == upright.size[::-1]
    assert header.rotated == (orientation != 1)
    np.testing.assert_array_equal(
        decoded(path, header.size, channels)[..., 0], np.asarray(upright).reshape(*header.size, -1)[..., 0]
    )
    squashed = np.asarray(upright.resize((8, 6), Image.Resampling.BILINEAR)).reshape(6, 8, channels)
    np.testing.assert_array_equal(decoded(path, (6, 8), channels, resize="squash"), squashed)
    cropped = np.asarray(ImageOps.fit(upright, (8, 6), Image.Resampling.BILINEAR)).reshape(6, 8, channels)
    np.testing.assert_array_equal(decoded(path, (6, 8), channels, resize="crop"), cropped)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_the_background_and_not_what_lies_under_it(mode, tmp_path):
    picture = Image.new("RGBA", SIZE[::-1], (10, 200, 30, 0))
    picture.paste((100, 100, 100, 255), (0, 0, 4, 4))
    path = tmp_path / "one.png"
    (picture.quantize(8) if mode == "P" else picture.convert(mode)).save(path)
    assert read_header(path).transparent
    assert decoded(path)[9, 11].tolist() == [255, 255, 255]
    assert decoded(path, background=(0, 0, 255))[9, 11].tolist() == [0, 0, 255]
    assert abs(int(decoded(path)[1, 1, 0]) - 100) <= 4  # a palette of few colors
    gray = decoded(path, channels=1, background=(0, 0, 255))
    assert gray[9, 11, 0] == 29  # the blue background in gray


def test_a_color_that_a_png_names_as_transparent_is(tmp_path):
    picture = Image.new("RGB", SIZE[::-1], (255, 0, 255))
    picture.save(tmp_path / "one.png", transparency=(255, 0, 255))
    assert decoded(tmp_path / "one.png")[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("most", "range_of"), [(1000, 1023), (4095, 4095), (16000, 16383), (65535, 65535)])
def test_the_depth_that_is_there_becomes_0_to_255(most, range_of, tmp_path):
    values = np.linspace(0, most, 120).astype("uint16").reshape(SIZE)
    deep(values, tmp_path / "one.png")
    deep(values // 2, tmp_path / "two.png")
    data = load(tmp_path)
    expected = np.rint(values * (255.0 / range_of))
    np.testing.assert_allclose(data.train.images[0, ..., 0], expected, atol=0.51)
    assert str(range_of) in data.notes[0]
    assert len(np.unique(data.train.images[0])) > 100  # and not 16 levels of 12 bits


def test_deep_pictures_can_keep_their_values_or_get_a_stated_range(tmp_path):
    values = np.arange(120).reshape(SIZE) * 30
    deep(values, tmp_path / "one.png")
    kept = load(tmp_path, dtype="uint16").train
    np.testing.assert_array_equal(kept.images[0, ..., 0], values)
    assert kept.value_range == (0.0, 4095.0)
    stated = load(tmp_path, max_value=8190).train.images[0, ..., 0]
    np.testing.assert_allclose(stated, values * 255 / 8190, atol=0.51)
    noise("RGB").save(tmp_path / "one.png")
    for options, word in (({"max_value": 4095}, "max_value"), ({"dtype": "uint16"}, "dtype")):
        with pytest.raises(ValueError, match=f"{word}.*none of the pictures has more than 8 bits"):
            load(tmp_path, **options)


def test_sixteen_bits_a_color_are_read_whole(tmp_path):
    values = np.random.default_rng(0).integers(0, 4096, (*SIZE, 3))
    values[0, 0] = 4095
    deep_color(values, tmp_path / "one.png")
    data = load(tmp_path)
    np.testing.assert_allclose(data.train.images[0], values * 255 / 4095, atol=0.51)
    with_alpha = np.concatenate([values, np.zeros((*SIZE, 1), int)], axis=2)
    deep_color(with_alpha, tmp_path / "one.png")
    assert (load(tmp_path, background="#010203").train.images[0] == [1, 2, 3]).all()


def test_floats_of_a_tiff_are_scaled_by_their_range(tmp_path):
    values = np.linspace(0, 1, 120, dtype="float32").reshape(SIZE)
    Image.fromarray(values).save(tmp_path / "one.tiff")
    np.testing.assert_allclose(load(tmp_path).train.images[0, ..., 0], values * 255, atol=0.51)
    Image.fromarray(values * 40 - 20).save(tmp_path / "one.tiff")
    np.testing.assert_allclose(load(tmp_path).train.images[0, ..., 0], values * 255, atol=0.51)


def test_animations_and_pages_give_the_first(tmp_path):
    frames = [Image.new("RGB", SIZE[::-1], color) for color in ("red", "blue")]
    for suffix in ("gif", "tiff", "webp"):
        frames[0].save(tmp_path / f"one.{suffix}", save_all=True, append_images=frames[1:])
    data = load(tmp_path)
    assert (data.train.images[:, 0, 0, 0] > 200).all()
    assert "3 files hold several frames" in data.notes[0]


def test_pictures_of_another_shape_are_cropped_squashed_or_padded(tmp_path):
    picture = Image.new("RGB", (30, 10), "red")
    picture.paste("blue", (10, 0, 20, 10))
    picture.save(tmp_path / "one.png")
    middle = {how: load(tmp_path, image_size=10, resize=how).train.images[0] for how in ("crop", "squash", "pad")}
    assert (middle["crop"] == [0, 0, 255]).all()
    assert middle["squash"][5, 0].tolist() == [255, 0, 0]
    assert middle["pad"][0, 5].tolist() == [255, 255, 255]
    assert load(tmp_path, image_size="10x20").train.images.shape == (1, 10, 20, 3)
    for options in ({"image_size": 0}, {"image_size": "a"}, {"resize": "zoom"}, {"background": "nocolor"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            load(tmp_path, **options)


# Files that can't be read.


def spoiled():
    """Odd and bad files, by name: what no decoder should stop a folder for."""
    files = {}
    for kind, suffix in (
        ("PNG", "png"),
        ("JPEG", "jpg"),
        ("GIF", "gif"),
        ("BMP", "bmp"),
        ("TIFF", "tif"),
        ("WEBP", "webp"),
    ):
        sound = io.BytesIO()
        noise("RGB", size=(40, 40)).save(sound, kind)
        sound = sound.getvalue()
        files[f"empty.{suffix}"] = b""
        files[f"text.{suffix}"] = b"this is no picture"
        files[f"zeros.{suffix}"] = bytes(1000)
        for share in (0.02, 0.3, 0.6):
            files[f"cut{share}.{suffix}"] = sound[: int(len(sound) * share)]
        for seed in range(4):
            broken = bytearray(sound)
            generator = np.random.default_rng(seed)
            for place in generator.integers(4, len(broken), 60):
                broken[place] = generator.integers(256)
            files[f"flipped{seed}.{suffix}"] = bytes(broken)
        files[f"other.{suffix}x".replace("x", "")] = sound
    return files


def test_no_broken_file_stops_a_folder(tmp_path):
    files = spoiled()
    assert len(files) >= 60
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for number in range(5):
        noise("RGB", number, (40, 40)).save(tmp_path / f"sound{number}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = load(tmp_path, image_size=8, max_unreadable=1.0)
    reasons = dict(data.left_out)
    assert {tmp_path / name for name in files if name.startswith(("empty", "text", "zeros", "cut0.02"))} <= set(reasons)
    assert all(reasons.values())
    assert len(data.train) + len(reasons) == len(files) + 5
    assert {f"sound{number}.png" for number in range(5)} <= {path.name for path in data.train.paths}
    with pytest.raises(ValueError, match=r"pictures can't be used.*max_unreadable="):
        load(tmp_path, image_size=8)


def test_a_few_broken_files_are_named(tmp_path):
    for number in range(20):
        noise("RGB", number).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"1 of 21 pictures.*bad\.png: the file is empty"):
        data = load(tmp_path)
    assert len(data.train) == 20


def test_a_small_file_that_fills_the_memory_is_left_out(tmp_path):
    noise("RGB").save(tmp_path / "small.png")
    Image.new("1", (3000, 3000)).save(tmp_path / "bomb.png")
    with pytest.warns(UserWarning, match="3000×3000 is more than the 1,000,000 pixels"):
        data = load(tmp_path, max_pixels=1_000_000, max_unreadable=0.5)
    assert len(data.train) == 1


def test_a_file_that_vanishes_is_replaced_by_one_of_its_class(tmp_path):
    for name, color in (("a", "red"), ("b", "blue")):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", (8, 8), color).save(tmp_path / name / f"{number}.png")
    images = load(tmp_path, max_bytes=0).train.images
    os.remove(tmp_path / "a" / "2.png")
    assert (images[:3] == [255, 0, 0]).all()
    assert [path.name for path in images.broken] == ["2.png"]


# Folders, splits, labels.


def tree(root, *names):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise("RGB", number).save(path)
    return root


def names_of(split):
    return [None if label == MISSING else split.class_names[label] for label in split.labels]


def test_hidden_names_are_skipped_at_any_depth(tmp_path):
    tree(tmp_path, "a/1.png", "b/1.png", ".ipynb_checkpoints/1.png", "__MACOSX/a/1.png", "a/._1.png", "b/.thumbs/1.png")
    data = load(tmp_path)
    assert data.train.class_names == ["a", "b"]
    assert len(data.train) == 2


def test_a_single_folder_with_classes_in_it_is_stepped_into(tmp_path):
    data = load(tree(tmp_path, "images/a/1.png", "images/b/1.png"))
    assert data.train.class_names == ["a", "b"]
    assert "images, the single folder there is" in data.notes[0]


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_three_splits_by_one_rule(name, tmp_path):
    tree(tmp_path, "train/a/1.png", "train/b/1.png", f"{name}/a/2.png", "test/a/3.png", "test/b/4.png", "other/1.png")
    data = load(tmp_path)
    assert [len(split) for split in data.splits().values()] == [2, 1, 2]
    assert "other" in data.notes[0]
    short = name.lower().replace("validation", "val")
    arrays = {"x_train": data.train.images, "y_train": np.array(["a", "b"]), f"x_{short}": data.test.images}
    np.savez(tmp_path / "all.npz", **arrays, **{f"y_{short}": np.array(["b", "a"])})
    again = load(tmp_path / "all.npz")
    assert names_of(again.train) == ["a", "b"]
    assert names_of(again.validation) == ["b", "a"]
    assert again.test is again.validation


def test_pictures_without_a_label_leave_the_others_theirs(tmp_path):
    tree(tmp_path, "a/1.png", "b/1.png", "stray.png", "unlabelled/2.png", "unlabelled/deep/3.png")
    train = load(tmp_path).train
    assert sorted(map(str, names_of(train))) == ["None", "None", "None", "a", "b"]
    assert sorted(map(str, names_of(train.labeled()))) == ["a", "b"]
    splits = tree(tmp_path / "splits", "train/a/1.png", "train/b/1.png", "test/a/1.png", "unsup/9.png")
    data = load(splits)
    assert (len(data.train), len(data.train.labeled()), len(data.test)) == (3, 2, 1)


def test_a_table_gives_labels_in_every_form(tmp_path):
    tree(tmp_path, "x/1.png", "x/2.png", "x/3.png", "4.png")
    wanted = ["cat", None, "dog", None]  # 4.png, x/1.png, x/2.png, x/3.png
    rows = {"4.png": "cat", "x/2.png": "dog", "3": ""}
    for delimiter, header in ((",", ("file", "label")), (";", ("Label", "Filename")), ("\t", None)):
        with open(tmp_path / "labels.csv", "w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file, delimiter=delimiter)
            if header:
                writer.writerow(header)
            turned = header and header[0] == "Label"
            writer.writerows([(label, name) if turned else (name, label) for name, label in rows.items()])
        assert names_of(load(tmp_path, labels=tmp_path / "labels.csv").train) == wanted
    assert names_of(load(tmp_path, labels=rows).train) == wanted
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"species": rows.values(), "image": rows.keys(), "note": 1}, index=[7, 7, 7])
    assert names_of(load(tmp_path, labels=frame).train) == wanted
    numbers = load(tmp_path, labels={"4.png": 2**40, "x/1.png": -7}).train
    assert numbers.labels.tolist() == [2**40, -7, MISSING, MISSING]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"nowhere.png": "a"}, "none of them is a picture"),
        ({"1.png": "a"}, "fits 2 pictures"),
        ({"1": "a"}, "fits 2 pictures"),
        ([("a/1.png", "a"), ("a/1.png", "b")], "two labels"),
        ({}, "no row"),
    ],
)
def test_a_table_that_fits_nothing_is_refused(rows, words, tmp_path):
    tree(tmp_path, "a/1.png", "b/1.png")
    with pytest.raises(ValueError, match=words):
        load(tmp_path, labels=rows)


def in_csv(rows, folder):
    path = folder / "labels.csv"
    path.write_text("file,label\n" + "".join(f"{name},{label}\n" for name, label in rows), encoding="utf-8")
    return path


def in_frame(rows, folder):
    return pytest.importorskip("pandas").DataFrame(rows, columns=["file", "label"])


@pytest.mark.parametrize("table", [in_csv, in_frame, lambda rows, _: dict(rows), lambda rows, _: rows])
@pytest.mark.parametrize("words", [("3", "7"), ("cat", "dog")], ids=["numbers", "words"])
@pytest.mark.parametrize("none", ["-1", "-1.0", " -1", "nan", "NaN", ""])
def test_a_table_says_in_text_that_there_is_no_label(none, words, table, tmp_path):
    tree(tmp_path, "a.png", "b.png", "c.png")
    data = load(tmp_path, labels=table([("a.png", words[0]), ("b.png", words[1]), ("c.png", none)], tmp_path))
    assert data.train.class_names == list(words)
    assert data.train.labels.tolist() == [0, 1, MISSING]
    assert not any(f"{none} 1" in note for note in data.notes if none)


@pytest.mark.parametrize("none", [float("nan"), None, -1, np.int64(-1), "pandas"], ids=str)
def test_what_means_no_label_is_no_class_of_the_notes(none, tmp_path):
    pandas = pytest.importorskip("pandas")
    tree(tmp_path, "a.png", "b.png", "c.png")
    frame = pandas.DataFrame({"file": ["a.png", "b.png", "c.png"]})
    frame["label"] = pandas.Series([1, 2, pandas.NA if none == "pandas" else none], dtype="object")
    for labels in (frame, frame.convert_dtypes()):
        data = load(tmp_path, labels=labels)
        assert data.train.labels.tolist() == [1, 2, MISSING]
        assert data.notes == ["2 of 2 classes have fewer than 5 pictures: 1 1, 2 1."]


def test_a_folder_whose_name_means_no_label_is_noted(tmp_path):
    data = load(tree(tmp_path, "cat/1.png", "dog/2.png", "-1/3.png"))
    assert data.train.class_names == ["cat", "dog"]
    assert data.train.labels.tolist() == [MISSING, 0, 1]
    assert "1 pictures lie in a folder called -1, which means no label" in data.notes[0]


@pytest.mark.parametrize(
    ("files", "rows", "wanted"),
    [
        (("1.png", "sub/1.png"), {"1.png": "a"}, ["a", None]),
        (("1.png", "sub/1.png"), {"1.png": "a", "sub/1.png": "b"}, ["a", "b"]),
        (("1.png", "sub/1.png"), {"./1.png": "a"}, ["a", None]),
        (("x/1.png", "y/x/1.png"), {"x/1.png": "a"}, ["a", None]),
        (("in/x/1.png", "in/y/x/1.png"), {"x/1.png": "a"}, ["a", None]),
        (("x/1.png", "x/1.png.png"), {"1.png": "a"}, ["a", None]),
    ],
    ids=["beside a folder", "both", "with a dot", "in a folder", "from where the classes lie", "a name before a stem"],
)
def test_a_whole_path_is_of_one_picture(files, rows, wanted, tmp_path):
    tree(tmp_path, *files)
    for labels in (rows, {str(tmp_path / files[0]): "a"} if len(rows) == 1 else rows):
        assert names_of(load(tmp_path, labels=labels).train) == wanted


@pytest.mark.parametrize("word", ["y", "class", "target", "label", "name", "id", "Y "])
@pytest.mark.parametrize("row", ["{file},{label}", "{file};{label}", "{file},{label},more"])
def test_a_first_row_with_a_picture_is_no_header(row, word, tmp_path):
    tree(tmp_path, "a.png", "b.PNG", "c.png")
    rows = [("b.PNG", word), ("a.png", "n"), ("c.png", "n")]
    (tmp_path / "labels.csv").write_text("".join(row.format(file=file, label=label) + "\n" for file, label in rows))
    assert names_of(load(tmp_path, labels=tmp_path / "labels.csv").train) == ["n", word.strip(), "n"]


def test_a_frame_whose_header_is_a_picture_is_refused(tmp_path):
    pandas = pytest.importorskip("pandas")
    tree(tmp_path, "a.png", "b.png")
    with pytest.raises(ValueError, match=r"a column called a\.png.*header=None"):
        load(tmp_path, labels=pandas.read_csv(io.StringIO("a.png,y\nb.png,n\n")))
    frame = pandas.read_csv(io.StringIO("a.png,y\nb.png,n\n"), header=None)
    assert names_of(load(tmp_path, labels=frame).train) == ["y", "n"]


@pytest.mark.parametrize(
    "content",
    [
        "file,label\na.png,gr\xfcn\n".encode("latin-1"),
        "file,label\na.png,x\nb\xfcro.png,y\n".encode("latin-1"),
        "file,label,gr\xf6\xdfe\na.png,x,1\n".encode("latin-1"),
        "file,label\na.png,x\n".encode("utf-16"),
        "file,label\na.png,x\n".encode("utf-16-le"),
        b"PK\x03\x04\x14\x00\x06\x00\x08\x00\xff,\xfe\n",
    ],
    ids=["label", "name", "header", "UTF-16", "without its mark", "Excel"],
)
def test_a_table_in_another_encoding_is_refused(content, tmp_path):
    tree(tmp_path, "a.png", "b.png")
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(ValueError, match="not a text file in UTF-8: save the table as CSV in UTF-8"):
        load(tmp_path, labels=tmp_path / "labels.csv")


ODD_NAMES = (b"\xff.png", b"caf\xe9, 2.png", b" 2.png", b"a\\2.png", b"a\n2.png", b"a\xe2\x80\xa82.png")


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("folder", [b"", b"x/", b"\xfe/"])
def test_a_table_names_pictures_whose_names_are_no_text(folder, name, tmp_path):
    tree(tmp_path, "1.png", "x/other.png")
    path = os.fsencode(tmp_path) + b"/" + folder + name
    os.makedirs(os.path.dirname(path), exist_ok=True)
    shutil.copy(tmp_path / "1.png", path)
    for listed in (folder + name, name):
        table = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
        with open(tmp_path / "labels.csv", "w", **table) as file:
            csv.writer(file).writerows([("file", "label"), (os.fsdecode(listed), "cat"), ("x/other.png", "dog")])
        train = load(tmp_path, labels=tmp_path / "labels.csv").train
        assert names_of(train)[[os.fsencode(one) for one in train.paths].index(path)] == "cat"
        assert sorted(map(str, names_of(train))) == ["None", "cat", "dog"]


def test_links_are_followed_once_and_loops_end(tmp_path):
    tree(tmp_path, "pool/1.png", "pool/2.png", "set/a/3.png", "set/b/4.png")
    (tmp_path / "set/a/loop").symlink_to(tmp_path / "set")
    (tmp_path / "set/b/pool").symlink_to(tmp_path / "pool")
    (tmp_path / "set/a/again.png").symlink_to(tmp_path / "set/a/3.png")
    (tmp_path / "set/a/nowhere.png").symlink_to(tmp_path / "gone.png")
    with pytest.warns(UserWarning, match="link to nothing"):
        data = load(tmp_path / "set", max_unreadable=0.5)
    assert sorted(names_of(data.train)) == ["a", "b", "b", "b"]


def test_names_of_any_language_and_of_no_valid_text(tmp_path):
    tree(tmp_path, "猫/1.png", "mañana y 'más'/2.png", 'a "b"/3.png')
    data = load(tmp_path)
    assert data.train.class_names == ['a "b"', "mañana y 'más'", "猫"]
    bad = os.fsencode(tmp_path) + b"/\xff.png"
    with open(bad, "wb") as file:
        file.write(b"")
    with pytest.warns(UserWarning, match="is empty"):
        load(tmp_path, max_unreadable=0.5)


def test_phone_pictures_of_other_kinds_are_named(tmp_path):
    tree(tmp_path, "1.png")
    (tmp_path / "2.heic").write_bytes(b"x")
    with pytest.warns(UserWarning, match="HEIC"):
        load(tmp_path, max_unreadable=0.5)
