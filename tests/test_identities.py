"""Labels are identities: what they are, a small number or a large one or a word, changes no loss and no accuracy."""

import keras
import numpy as np
import pytest
from conftest import tiny_backbone, value_and_gradients
from keras import ops

import keras_ssl
from keras_ssl import evaluate, losses, mining
from keras_ssl.data.labels import class_labels, codes_of, flat_labels, label_ids, label_words, words_of_ids
from keras_ssl.evaluate import plots
from keras_ssl.evaluate.efficiency import label_efficiency
from keras_ssl.evaluate.knn import knn_scores
from keras_ssl.evaluate.labels import draw_fraction, draw_labels, labeled_images, sample_by_class

MIXED = [0, 1, 2**32, 2**32 + 1]
WORDS = ["pear", "apple", "fig, dried", "ß"]
IDENTITIES = {
    "20 million": lambda c: 20_000_000 + c,
    "2^32": lambda c: 2**32 + c,
    "the largest": lambda c: 2**63 - 1 - c,
    "negative": lambda c: -5 - c,
    "mixed": lambda c: np.array(MIXED)[c],
    "strings": lambda c: np.array(WORDS)[c],
    "a list of strings": lambda c: [WORDS[one] for one in c],
    "objects": lambda c: np.array([f"p{one}" if one < 3 else 7 for one in c], "object"),
    "uint64": lambda c: c.astype("uint64") + np.uint64(2**63),
    "large and small": lambda c: np.array([0, 2**64 - 1, 2**64 - 2, 2**63], "uint64")[c],
}
identities = pytest.mark.parametrize("identity", IDENTITIES.values(), ids=IDENTITIES)

CODES = np.random.default_rng(0).permutation(np.arange(12) % 4)
ROWS = np.random.default_rng(1).normal(size=(12, 5)).astype("float32")
PARTLY = np.where(np.arange(12) % 3 == 0, -1, CODES)


def as_array(x):
    return ops.convert_to_numpy(x)


# Losses.

LOSSES = {
    "TripletSemiHard": losses.TripletSemiHard(),
    "TripletHard": losses.TripletHard(),
    "SupCon": losses.SupCon(),
    "LiftedStructure": losses.LiftedStructure(),
    "NPairs": lambda labels, z: losses.NPairs()(labels, ops.matmul(z, ops.transpose(z))),
    "supcon": lambda labels, z: ops.mean(losses.supcon(z, labels)),
    "labeled_nt_xent": lambda labels, z: ops.mean(losses.labeled_nt_xent(z, labels)),
    "multi_similarity": lambda labels, z: ops.mean(losses.multi_similarity(z, labels)),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_losses_see_only_which_labels_are_equal(loss):
    expected, (slope,) = value_and_gradients(lambda z: loss(CODES, z), ROWS)
    # JAX compiles a loss anew for each array of labels; there the masks, below, are held to all of them.
    some = ("mixed", "strings") if keras.backend.backend() == "jax" else IDENTITIES
    for name in some:
        labels = IDENTITIES[name](CODES)
        value, (gradient,) = value_and_gradients(lambda z, y=labels: loss(y, z), ROWS)
        assert value == expected, name
        np.testing.assert_array_equal(gradient, slope, err_msg=name)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_row_without_a_label_is_a_class_of_its_own(loss):
    alone = np.where(PARTLY == -1, 100 + np.arange(12), PARTLY)
    expected, (slope,) = value_and_gradients(lambda z: loss(alone, z), ROWS)
    words = [None if c == -1 else f"class {c}" for c in PARTLY]
    for labels in (PARTLY, np.where(PARTLY == -1, -1, PARTLY + 2**40), words):
        value, (gradient,) = value_and_gradients(lambda z, y=labels: loss(y, z), ROWS)
        assert value == expected
        np.testing.assert_array_equal(gradient, slope)


@pytest.mark.parametrize("name", ["int64", "int32", "uint32", "uint8", "int16", "bool"])
def test_words_of_a_tensor_are_those_of_its_numbers(name):
    limits = np.array([0, 1]) if name == "bool" else np.array([np.iinfo(name).min, np.iinfo(name).max])
    numbers = np.concatenate([limits, [0, 1, 100]]).astype(name)
    if name == "int64":
        if keras.backend.backend() == "jax":
            pytest.skip("JAX has no integers of 64 bits here")
        numbers = np.concatenate([numbers, [-1, -5, 2**22, 2**44 - 1, 2**62 + 3]])
    if name in ("int16", "int32"):
        numbers = np.concatenate([numbers, np.array([-1, -5], name)])
    if name == "uint32" and keras.backend.backend() == "torch":
        pytest.skip("Keras has no such tensors on torch")
    tensor = ops.convert_to_tensor(numbers)
    words = as_array(words_of_ids(label_ids(tensor)))
    np.testing.assert_array_equal(words, label_words(numbers))
    np.testing.assert_array_equal(words.astype("float32").astype("int32"), words)


def test_a_plain_keras_model_is_trained_alike_by_all_integers():
    def trained(labels):
        keras.utils.set_random_seed(0)
        network = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
        network.compile(keras.optimizers.SGD(0.1), loss=losses.SupCon())
        return network.fit(ROWS, labels, batch_size=12, epochs=2, shuffle=False, verbose=0).history["loss"]

    expected = trained(CODES.astype("int32"))
    assert trained((CODES + 2**31 - 4).astype("int32")) == expected
    if keras.backend.backend() != "jax":  # whose numbers in `fit` have 32 bits
        assert trained(np.array(MIXED)[CODES] + 20_000_000) == expected


def test_one_hot_rows_are_no_words_in_a_loss():
    for rows in (np.eye(3, dtype="int32")[CODES % 3], np.eye(3)[CODES % 3].tolist()):
        with pytest.raises(ValueError, match=r"argmax|floats|of type"):
            losses.SupCon()(rows, ROWS)
    with pytest.raises(ValueError, match="argmax"):
        losses.supcon(ROWS, np.eye(4, dtype="int32")[CODES])
    with pytest.raises(ValueError, match="float32"):
        losses.supcon(ROWS, ops.convert_to_tensor(CODES.astype("float32") + 0.5))


# Masks and methods.


@identities
def test_masks_see_only_which_labels_are_equal(identity):
    expected = [as_array(mask) for mask in mining.pair_masks(CODES[4:8], CODES, 4)]
    whole = identity(CODES)
    for part, all_ids in ((whole[4:8], whole), (label_words(whole)[4:8], label_words(whole))):
        for mask, other in zip(mining.pair_masks(part, all_ids, 4), expected):
            np.testing.assert_array_equal(as_array(mask), other)
    for one, other in zip(mining.two_view_masks(12, whole), mining.two_view_masks(12, CODES)):
        np.testing.assert_array_equal(as_array(one), as_array(other))


@pytest.mark.parametrize("labels", [PARTLY, label_words(PARTLY), PARTLY.astype("int32")], ids=["codes", "words", "32"])
def test_without_a_label_a_row_is_positive_to_its_own_view_alone(labels):
    positive, negative = map(as_array, mining.pair_masks(labels, labels))
    unlabeled = PARTLY == -1
    assert not positive[unlabeled].any()
    np.testing.assert_array_equal(negative[unlabeled], ~np.eye(12, dtype=bool)[unlabeled])
    assert negative[np.ix_(~unlabeled, unlabeled)].all()
    positive, negative = map(as_array, mining.two_view_masks(12, labels))
    both = np.tile(np.flatnonzero(unlabeled), 2).reshape(2, -1) + [[0], [12]]
    for view, other in (both, both[::-1]):
        np.testing.assert_array_equal(np.argwhere(positive[view])[:, 1], other)
        assert (negative[view].sum(axis=1) == 22).all()


def method(cls):
    keras.utils.set_random_seed(0)
    model = cls(tiny_backbone((8, 8, 2), widths=(4,)), views=keras_ssl.augment.Views([], []), labels=True)
    model.build((None, 8, 8, 2))
    return model


@pytest.mark.parametrize("cls", [keras_ssl.Siamese, keras_ssl.Triplet])
def test_methods_take_codes_and_words(cls):
    model = method(cls)
    outputs = {"a": ROWS, "b": ROWS[::-1] + 0.5 * ROWS}

    def result(labels):
        terms, metrics = model.objective({k: ops.convert_to_tensor(v) for k, v in outputs.items()}, {"label": labels})
        return {name: as_array(value) for name, value in {**terms, **metrics}.items()}

    def check(labels, expected):
        for name, value in result(labels).items():
            np.testing.assert_array_equal(value, expected[name])

    expected = result(CODES.astype("int32"))
    for identity in IDENTITIES.values():
        check(ops.convert_to_tensor(label_words(identity(CODES))), expected)
        check(ops.convert_to_tensor(codes_of(identity(CODES))[0]), expected)
    alone = result(np.where(PARTLY == -1, 100 + np.arange(12), PARTLY))
    check(ops.convert_to_tensor(label_words(PARTLY)), alone)
    check(ops.convert_to_tensor(PARTLY.astype("int32")), alone)


# Evaluation.


def blobs(seed=0, per_class=8):
    generator = np.random.default_rng(seed)
    codes = generator.permutation(np.repeat(np.arange(4), per_class))
    return (generator.normal(size=(len(codes), 6)) + 1.5 * np.eye(6)[codes]).astype("float32"), codes


def probe(*given):
    return evaluate.linear_probe(*given, regularization=(0.1,))


def near(*given):
    return evaluate.knn(*given, k=5)


CLASSIFIERS = pytest.mark.parametrize("classify", [near, probe])


@CLASSIFIERS
@identities
def test_classifiers_see_only_which_labels_are_equal(classify, identity):
    (x, y), (queries, asked) = blobs(), blobs(1)
    plain = classify(x, y, queries)
    found = classify(x, identity(y), queries)
    assert found.tolist() == flat_labels(identity(plain)).tolist(), "labels come back as they were given"
    assert found.dtype.kind == flat_labels(identity(y)).dtype.kind
    assert 0.5 < classify(x, y, queries, asked) < 1.0
    assert classify(x, identity(y), queries, identity(asked)) == classify(x, y, queries, asked)


@CLASSIFIERS
@pytest.mark.parametrize("none", [-1, None, float("nan"), ""], ids=str)
def test_rows_without_a_label_neither_vote_nor_train_nor_count(classify, none):
    (x, y), (queries, asked) = blobs(), blobs(1)
    names = np.array(["a", "b", "c", "d"]) if none == "" else np.arange(4)
    some = np.arange(32) % 3 > 0
    partly, partly_asked = names[y].astype("object"), names[asked].astype("object")
    partly[~some], partly_asked[~some] = none, none
    assert classify(x, partly, queries).tolist() == names[classify(x[some], y[some], queries)].tolist()
    accuracy = classify(x[some], y[some], queries[some], asked[some])
    assert classify(x, partly, queries, partly_asked) == accuracy
    assert classify(x, partly.tolist(), queries, partly_asked.tolist()) == accuracy
    if none != "":
        numbers = np.where(some, y, -1), np.where(some, asked, -1)
        assert classify(x, numbers[0], queries, numbers[1]) == accuracy
    assert set(knn_scores(x, partly, queries, k=3)[1].tolist()) == set(names.tolist())


@CLASSIFIERS
def test_labels_that_leave_nothing_to_measure_are_refused(classify):
    (x, y), (queries, asked) = blobs(), blobs(1)
    for labels in (y * 0 - 1, [None] * 32, [""] * 32):
        with pytest.raises(ValueError, match="no label left"):
            classify(x, labels, queries)
        with pytest.raises(ValueError, match="no label left"):
            classify(x, y, queries, labels)
    with pytest.raises(ValueError, match="single class"):
        classify(x, np.where(y == 2, 2, -1), queries, asked)
    with pytest.raises(ValueError, match="such as 214, 215, 216 …"):
        classify(x, y, queries, asked + 214)
    known = classify(x, np.minimum(y, 2), queries)
    assert classify(x, np.minimum(y, 2), queries, asked) == np.mean(known == asked), "unknown classes count as wrong"


def test_numbers_and_their_words_are_one_class():
    (x, y), (queries, asked) = blobs(), blobs(1)
    assert near(x, y, queries, asked.astype(str)) == near(x, y, queries, asked)


@identities
def test_draws_see_only_which_labels_are_equal(identity):
    y = blobs(per_class=20)[1]
    partly = [None if row % 5 == 0 else label for row, label in enumerate(flat_labels(identity(y)).tolist())]
    for draw in (
        lambda labels: draw_labels(labels, 3, seed=1),
        lambda labels: draw_fraction(labels, 0.2, seed=1),
        lambda labels: sample_by_class(labels, 22),
    ):
        rows, some = draw(identity(y)), draw(partly)
        np.testing.assert_array_equal(np.sort(np.bincount(y[rows])), np.sort(np.bincount(y[draw(y)])))
        assert not np.any(some % 5 == 0)
        assert len(np.unique(y[some])) == 4
    assert len(sample_by_class(partly, None)) == 64
    with pytest.raises(ValueError, match="no label left"):
        draw_labels([None, None], 1, seed=0)


def test_label_efficiency_leaves_out_what_has_no_label():
    (x, y), (queries, asked) = blobs(), blobs(1)
    words = np.array([*WORDS, ""])
    some = np.arange(32) % 4 > 0
    table = label_efficiency(
        {"x": (x, queries)}, words[np.where(some, y, 4)], words[np.where(some, asked, 4)], (2, None), draws=1, k=5
    )
    expected = near(x[some], words[y[some]], queries[some], words[asked[some]])
    assert table["x"]["kNN, all"].mean == expected


def pictures(seed=0):
    y = blobs(seed)[1]
    tint = np.repeat(np.eye(4)[y][:, None, None, :2] * 120.0 + (y[:, None, None, None] == 3) * 60.0, 8, axis=1)
    return np.repeat(tint, 8, axis=2).astype("uint8"), y


@pytest.mark.parametrize("words", [np.array([*WORDS, ""]), np.array([*(2**63 - 1 - np.arange(4)), -1])], ids=str)
def test_fine_tuning_gives_back_the_labels_that_were_given(words):
    (x, y), (held, asked) = pictures(), pictures(1)
    some = np.arange(32) % 4 > 0
    train, validation = (x, words[np.where(some, y, 4)]), (held, words[np.where(some, asked, 4)])
    backbone = tiny_backbone((8, 8, 2), widths=(4,))
    tuned = evaluate.fine_tune(backbone, train, validation, protocol="linear", epochs=1)
    assert tuned.classes.tolist() == sorted(words[:4].tolist())
    np.testing.assert_array_equal(tuned.rows, np.flatnonzero(some))
    found = tuned.classes[np.argmax(tuned.classifier.predict(held, verbose=0), axis=1)]
    assert tuned.accuracy == pytest.approx(np.mean((found == words[asked])[some]))
    probes = evaluate.probe_layers(backbone, (train, validation), probe="knn", k=3)
    assert probes.labels == some.sum()


def test_files_without_a_label_are_not_read():
    read = []

    class Files(keras_ssl.data.lazy.LazyArray):
        shape, dtype = (6, 8, 8, 2), np.dtype("uint8")

        def __getitem__(self, rows):
            read.extend(np.arange(6)[rows])
            return np.zeros((len(np.arange(6)[rows]), 8, 8, 2), "uint8")

    images, labels = labeled_images("train", keras_ssl.data.Split(Files(), np.array([4, -1, 4, 2**40, -1, 2**40])))
    assert read == []
    assert labels.tolist() == [4, 4, 2**40, 2**40]
    assert images[:].shape == (4, 8, 8, 2)
    assert read == [0, 2, 3, 5]


@pytest.mark.parametrize("cls", [keras_ssl.callbacks.KNNProbe, keras_ssl.callbacks.LinearProbe])
def test_probes_leave_out_what_has_no_label(cls):
    (x, y), (held, asked) = pictures(), pictures(1)
    words = np.array([*WORDS, ""])
    some = np.arange(32) % 4 > 0
    train, test = (x, words[np.where(some, y, 4)]), (held, words[np.where(some, asked, 4)])
    options = {"k": 5} if cls is keras_ssl.callbacks.KNNProbe else {"regularization": (0.1,)}
    model = keras_ssl.SimCLR(tiny_backbone((8, 8, 2), widths=(4,)), views=keras_ssl.augment.Views([], []))

    def accuracy(train, test):
        callback = cls(train, test, **options)
        callback.set_model(model)
        return callback.accuracy()

    expected = accuracy((x[some], y[some]), (held[some], asked[some]))
    assert accuracy(train, test) == expected

    def stream(data):
        return [(data[0][:16], data[1][:16]), (data[0][16:], data[1][16:])]

    class Stream(keras.utils.PyDataset):
        def __init__(self, data):
            super().__init__()
            self.batches = stream(data)

        def __len__(self):
            return 2

        def __getitem__(self, number):
            return self.batches[number]

    numbers = [(part, np.where(some, 2**40 + c, -1)) for part, c in ((x, y), (held, asked))]
    assert accuracy(*map(Stream, numbers)) == expected
    assert accuracy(*map(Stream, (train, test))) == expected
    with pytest.raises(ValueError, match="`train` has no label left"):
        accuracy(Stream((x, y * 0 - 1)), Stream((held, asked)))
    with pytest.raises(ValueError, match="`test` has labels that `train` has not, such as 7"):
        cls((x, y), (held, np.where(asked == 1, 7, asked)), **options)
    with pytest.raises(ValueError, match="`test` has no label left"):
        cls((x, y), (held, asked * 0 - 1), **options)
    with pytest.raises(ValueError, match="single class"):
        cls((x, np.where(y == 0, 0, -1)), (held, asked), **options)


def test_plots_name_what_has_no_label():
    x, y = blobs()
    figure = plots.similarity_matrix(x, np.where(y == 3, -1, y), names=["cat", "dog", "cow", "owl"])
    titles = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert titles == ["cat", "dog", "cow", "no label"]
    assert plots.embedding_map(None, names=["a", None, "b"], plane=np.eye(3)[:, :2]).legends


# The labels themselves.


def test_labels_of_several_parts_have_one_numbering():
    (one, other, none), names = class_labels([["b", "a", None, ""], np.array(["c", "a"]), None])
    assert names == ["a", "b", "c"]
    assert (one.tolist(), other.tolist(), none) == ([1, 0, -1, -1], [2, 0], None)
    (one, other), names = class_labels([np.array([2**63 - 1, -5]), np.array([[7], [-1]], "int8")])
    assert names is None
    assert (one.tolist(), other.tolist()) == ([2**63 - 1, -5], [7, -1])
    (one, other), names = class_labels([np.array([2**64 - 1, 3], "uint64"), [3, -1]])
    assert names == ["18446744073709551615", "3"]
    assert (one.tolist(), other.tolist()) == ([0, 1], [1, -1])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([1, None, 2**60 + 1], [1, -1, 2**60 + 1]),
        ([3.0, float("nan")], [3, -1]),
        (["a", float("nan"), None, -1], ["a", "", "", ""]),
        (["a", np.float32("nan"), 7], ["a", "", "7"]),
        ([2**63, 1], [2**63, 1]),
        ([2**63, -5], [str(2**63), "-5"]),
        ([2**70, None], [str(2**70), ""]),
        ([b"a", " b "], ["a", "b"]),
        (np.array(["3", "-1", "7", "-1.0", " -1 "]), ["3", "", "7", "", ""]),
        (np.array([b"cat", b"-1"]), ["cat", ""]),
        (["cat", "-1", "nan", "NaN", "-10", "Nan", "-1a"], ["cat", "", "", "", "-10", "Nan", "-1a"]),
        (np.array(["cat", "-1", 3], "object"), ["cat", "", "3"]),
        (np.array([True, False]), [1, 0]),
        (np.array([True, None], "object"), [1, -1]),
        (np.array([np.bool_(True), np.int8(4)], "object"), [1, 4]),
        (np.array([2**24 - 1.0, np.nan], "float32"), [2**24 - 1, -1]),
        (np.zeros((0, 1), "int32"), []),
    ],
    ids=str,
)
def test_labels_are_read_exactly(labels, expected):
    assert flat_labels(labels).tolist() == expected


def test_labels_of_pandas():
    pandas = pytest.importorskip("pandas")
    assert flat_labels(pandas.Series([5, None, 2**40 + 1], dtype="Int64")).tolist() == [5, -1, 2**40 + 1]
    assert flat_labels(pandas.Series(["a", None, "b"])).tolist() == ["a", "", "b"]
    assert flat_labels(pandas.Series(["b", None, "a"], dtype="category")).tolist() == ["b", "", "a"]
    assert flat_labels(pandas.Series([1.0, None])).tolist() == [1, -1]
    labels = pandas.Series(np.array(WORDS)[CODES], index=np.arange(12)[::-1])
    assert float(losses.SupCon()(labels, ROWS)) == float(losses.SupCon()(CODES, ROWS))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0.5, 1.0], "one is 0.5"),
        (np.array([2.0**24], "float32"), "int64"),
        ([2.0**53, 1.0], "int64"),
        (np.eye(3), "argmax"),
        (np.eye(3, dtype="int32").tolist(), "argmax"),
        ([{"a": 1}], "dict"),
        (["a", 0.5], "float"),
        (np.array(["2020-01-01"], "datetime64[D]"), "datetime64"),
    ],
    ids=str,
)
def test_what_is_no_identity_is_refused(labels, words):
    with pytest.raises(ValueError, match=words):
        flat_labels(labels)


def test_words_are_distinct_and_stay_what_they_are():
    numbers = [0, 1, 2**22, 2**44, 2**32, 2**32 + 1, 2**63 - 1, -5, -(2**63), -1, 20_000_000, 20_000_001]
    words = label_words(np.array(numbers))
    assert len(np.unique(words, axis=0)) == len(numbers)
    assert words[numbers.index(-1)].tolist() == [0, 0, -1]
    assert np.delete(words, numbers.index(-1), axis=0).min() >= 0
    assert words.max() < 2**22
    assert words.dtype == "int32"
    np.testing.assert_array_equal(label_words(np.array([2**40, 3], "uint64")), label_words([2**40, 3]))
    many = label_words([f"name {number}" for number in range(10_000)])
    assert len(np.unique(many, axis=0)) == 10_000
    # A hash that changed from run to run would mix up a run that is taken up again.
    assert label_words(["cat", ""]).tolist() == [[1910579, 3534003, 194953], [0, 0, -1]]
    assert label_words([]).shape == (0, 3)
