"""What features are worth: against Lightly, scikit-learn, and what must be."""

import tracemalloc
import warnings

import keras
import numpy as np
import pytest
from conftest import golden, tiny_backbone
from keras import ops
from sklearn.neighbors import KNeighborsClassifier

import keras_ssl
from keras_ssl import evaluate
from keras_ssl.evaluate import efficiency, plots, projector
from keras_ssl.evaluate.knn import knn_of_draws, knn_scores, most_similar, unit_rows
from keras_ssl.evaluate.labels import draw_labels
from keras_ssl.report import HtmlPage

KNN = golden("lightly_knn")


def blobs(per_class=30, classes=4, d=8, spread=1.0, seed=0):
    generator = np.random.default_rng(seed)
    centers = generator.normal(size=(classes, d)) * 3.0
    labels = np.repeat(np.arange(classes), per_class)
    features = centers[labels] + spread * generator.normal(size=(len(labels), d))
    return features.astype("float32"), labels


# kNN


@pytest.mark.parametrize("number", range(len(KNN)))
def test_knn_is_lightlys(number):
    case = KNN[number]
    scores, classes = knn_scores(
        case["bank"], case["bank_labels"], case["query"], case["knn_k"], temperature=case["knn_t"]
    )
    # Lightly's votes are exp(s/t); ours are divided by the largest of the query, which orders them alike.
    expected = case["scores"][:, classes]
    ours, theirs = (votes / votes.sum(axis=1, keepdims=True) for votes in (scores, expected))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    accuracy = evaluate.knn(
        case["bank"], case["bank_labels"], case["query"], case["query_labels"], case["knn_k"], case["knn_t"]
    )
    assert accuracy == pytest.approx(float(case["top1"]), abs=1e-6)


def test_one_neighbor_is_scikit_learns_nearest():
    from sklearn.neighbors import KNeighborsClassifier

    features, labels = blobs(spread=3.0)
    queries, _ = blobs(seed=1, spread=3.0)
    theirs = KNeighborsClassifier(1, metric="cosine").fit(features, labels).predict(queries)
    np.testing.assert_array_equal(evaluate.knn(features, labels, queries, k=1), theirs)


@pytest.mark.parametrize("temperature", [0.01, 0.001, 1e-8])
def test_knn_at_a_low_temperature_is_the_nearest_neighbors_class(temperature):
    generator = np.random.default_rng(0)
    features, queries = np.eye(16), generator.normal(size=(200, 16))  # no query is near to any of them
    labels = np.arange(16) % 8
    nearest = labels[np.argmax(queries, axis=1)]
    for k in (1, 5):
        found = evaluate.knn(features, labels, queries, k=k, temperature=temperature)
        assert np.mean(found == nearest) > 0.9
    assert evaluate.knn(features, labels, queries, nearest, k=1, temperature=temperature) == 1.0


def test_knn_in_small_memory_is_the_same():
    features, labels = blobs()
    queries, _ = blobs(seed=1)
    whole, classes = knn_scores(features, labels, queries)
    parts, _ = knn_scores(features, labels, queries, max_bytes=8 * len(features) * 3)
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    assert classes.tolist() == [0, 1, 2, 3]


def test_knn_holds_a_copy_of_the_features_and_max_bytes():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(4000, 64)).astype("float32")
    labels = generator.integers(0, 50, 4000)
    queries = generator.normal(size=(1000, 64)).astype("float32")
    for k in (20, 200):
        tracemalloc.start()
        evaluate.knn(features, labels, queries, k=k, max_bytes=2**21)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # Beside them: labels and their codes, of 8 bytes, and what sorts the labels.
        assert peak < features.nbytes + 2**21 + 6 * labels.nbytes


def test_of_equally_similar_features_the_first_are_neighbors():
    generator = np.random.default_rng(0)
    features = unit_rows(generator.integers(-1, 2, (600, 3)))  # at most 27 different ones
    queries = unit_rows(generator.integers(-1, 2, (40, 3)))
    similarity = queries @ features.T
    order = np.argsort(-similarity, axis=1, kind="stable")
    for k in (1, 20, 200, 599, 600):
        values, nearest = most_similar(features, queries, k)
        np.testing.assert_array_equal(nearest, order[:, :k])
        np.testing.assert_array_equal(values, np.take_along_axis(similarity, nearest, axis=1))


def test_neighbors_are_found_where_the_features_are_in_the_order_of_their_classes():
    features, labels = blobs(per_class=500, classes=8, spread=0.1)
    assert evaluate.knn(features, labels, features[::50], labels[::50], k=400) == 1.0
    assert evaluate.knn(np.ones((500, 4)), labels[:500], np.ones((3, 4)), k=5).tolist() == [0, 0, 0]


@pytest.mark.one_backend
@pytest.mark.parametrize("max_bytes", [1, 2**27])
@pytest.mark.parametrize("all_labels", [True, False])
def test_knn_of_draws_is_knn_of_each_draw(max_bytes, all_labels):
    features, labels = blobs(spread=4.0)
    queries, query_labels = blobs(per_class=9, spread=4.0, seed=1)
    query_labels[5] = -1  # does not count
    draws = [draw_labels(labels, number, seed)[::-1] for number in (2, 10) for seed in range(3)]
    draws += [np.flatnonzero(labels > 0)] + [np.arange(len(labels))] * all_labels
    each = [evaluate.knn(features[rows], labels[rows], queries, query_labels, k=min(20, len(rows))) for rows in draws]
    assert len(set(each)) > 2
    assert knn_of_draws(features, labels, queries, query_labels, draws, 20, max_bytes=max_bytes) == each


def test_knn_of_no_queries_is_no_labels():
    features, labels = blobs()
    assert evaluate.knn(features, labels, features[:0]).shape == (0,)
    assert knn_scores(features, labels, features[:0])[0].shape == (0, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_knn_refuses_features_without_a_direction(value):
    features, labels = blobs()
    with pytest.raises(ValueError, match="NaN"):
        evaluate.knn(features, labels, np.where(np.arange(8) == 3, value, features))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize("which", ["Features", "Queries"])
def test_the_probe_refuses_what_is_not_finite(value, which):
    features, labels = blobs()
    broken = np.where(np.arange(8) == 3, value, features.astype("float64"))
    given = (broken, labels, features) if which == "Features" else (features, labels, broken)
    for query_labels in (labels, None):
        with pytest.raises(ValueError, match=f"{which} hold NaN, infinity or numbers too large for float32"):
            evaluate.linear_probe(*given, query_labels)


def test_the_projector_refuses_what_is_not_finite(tmp_path):
    with pytest.raises(ValueError, match="projector: `features` hold NaN"):
        projector.write(tmp_path / "log", np.full((4, 2), np.nan))
    assert not (tmp_path / "log").exists()


def test_knn_takes_labels_of_any_integers():
    features, labels = blobs()
    predicted = evaluate.knn(features, labels * 100 - 7, features)
    assert set(predicted) == {-7, 93, 193, 293}


# Linear probe


@pytest.mark.one_backend
def test_the_probe_separates_what_is_separable():
    features, labels = blobs()
    assert evaluate.linear_probe(features, labels, *blobs(seed=0, per_class=30)) > 0.98
    noise = np.random.default_rng(0).normal(size=features.shape)
    assert evaluate.linear_probe(noise, labels, noise[::-1], labels) < 0.5


@pytest.mark.one_backend
def test_the_probe_does_not_depend_on_the_scale_of_features():
    features, labels = blobs(spread=4.0)
    queries, truth = blobs(seed=3, spread=4.0)
    scales = 10.0 ** np.arange(-3, 5)
    one = evaluate.linear_probe(features, labels, queries)
    other = evaluate.linear_probe(features * scales, labels, queries * scales)
    assert np.mean(one == other) > 0.97
    assert truth.shape == one.shape


@pytest.mark.one_backend
def test_the_queries_take_no_part_in_the_choice_of_regularization():
    features, labels = blobs(spread=4.0)
    queries, _ = blobs(seed=3, spread=4.0)
    whole = evaluate.linear_probe(features, labels, queries)
    np.testing.assert_array_equal(evaluate.linear_probe(features, labels, queries[:10]), whole[:10])


@pytest.mark.one_backend
def test_strong_regularisation_is_chosen_where_features_are_mostly_noise():
    from keras_ssl.evaluate.linear import REGULARIZATION, _chosen, _Space

    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(2), 100)
    features = generator.normal(size=(200, 400)).astype("float32")
    features[:, 0] += labels
    targets = np.eye(2, dtype="float32")[labels]
    assert _chosen(_Space(features, 2), labels, targets, REGULARIZATION, 0.2, 100, 0)[0] <= 1e-3


def exact_probe(features, labels, queries, query_labels, regularization, seed=0):
    """What `linear_probe` stands for, slowly: scikit-learn's fits to the optimum, in float64, each from nothing."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features.astype("float64"))
    features, queries = scaler.transform(features.astype("float64")), scaler.transform(queries.astype("float64"))

    def fitted(c, rows):
        return LogisticRegression(C=c, tol=1e-7, max_iter=5000).fit(features[rows], labels[rows])

    held, found = max(round(0.2 * len(labels)), len(np.unique(labels))), []
    splits = StratifiedShuffleSplit(5 if len(labels) <= 500 else 1, test_size=held, random_state=seed)
    for kept, judges in splits.split(features, labels):
        found.append([fitted(c, kept).score(features[judges], labels[judges]) for c in regularization])
    best = regularization[int(np.mean(found, axis=0).argmax())]
    return np.mean(fitted(best, slice(None)).predict(queries) == query_labels)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("classes", "per_class"),
    [(10, 10), (10, 60), (2, 10), (2, 200)],  # rows fewer than columns, and more: rotated or not
)
def test_the_probe_is_scikit_learns_to_the_optimum(sample, classes, per_class):
    train, test = sample.train, sample.test
    asked = np.flatnonzero(test.labels < classes)
    queries = test.images[asked, ::2, ::2].reshape(len(asked), -1).astype("float32")
    rows = draw_labels(np.where(train.labels < classes, train.labels, -1), per_class, seed=1)
    features = train.images[rows, ::2, ::2].reshape(len(rows), -1).astype("float32")
    known = features, train.labels[rows], queries, test.labels[asked]
    choices = (1e-3, 1e-2, 1e-1)
    assert abs(evaluate.linear_probe(*known, regularization=choices) - exact_probe(*known, choices)) <= 0.002


@pytest.mark.one_backend
def test_the_probe_in_other_coordinates_has_the_same_optimum():
    from keras_ssl.evaluate.linear import _fit, _Space

    generator = np.random.default_rng(0)
    features = generator.normal(size=(300, 12)).astype("float32") * np.geomspace(1.0, 0.05, 12)
    features = features @ np.linalg.qr(generator.normal(size=(12, 12)))[0]
    targets = np.eye(3, dtype="float32")[np.argmax(features[:, :3] + 0.2 * generator.normal(size=(300, 3)), axis=1)]
    slopes = []
    for classes in (3, 0):  # by the first it pays to find the axes; by none it never does
        for columns in (12, 400):  # zeros in the others: more columns than rows
            space = _Space(np.pad(features, ((0, 0), (0, columns - 12))).astype("float32"), classes)
            assert (space.curvature is not None) == bool(classes and columns == 12)
            assert space.rows.shape == (300, min(columns, 300) + 1)
            fitted = _fit(space.rows, targets, 1.0, space.curvature, 2000, tolerance=1e-6)
            slopes.append(space.slopes(fitted)[:12])
    for other in slopes[1:]:
        np.testing.assert_allclose(other, slopes[0], atol=3e-3)


@pytest.mark.one_backend
def test_a_single_label_a_class_is_enough():
    features, labels = blobs()
    rows = draw_labels(labels, 1, seed=0)
    assert evaluate.linear_probe(features[rows], labels[rows], features, labels) > 0.8


def test_draws_of_labels_are_balanced_and_repeat():
    labels = np.repeat(np.arange(5), 20)
    rows = draw_labels(labels, 3, seed=1)
    assert np.bincount(labels[rows]).tolist() == [3] * 5
    np.testing.assert_array_equal(rows, draw_labels(labels, 3, seed=1))
    assert rows.tolist() != draw_labels(labels, 3, seed=2).tolist()


# Features


def test_features_are_what_the_network_gives(images):
    backbone = tiny_backbone()
    maps = ops.convert_to_numpy(backbone(images.astype("float32")))
    np.testing.assert_allclose(
        evaluate.extract_features(backbone, images, batch_size=24), maps.mean(axis=(1, 2)), atol=1e-5
    )


def test_a_grid_is_the_mean_of_each_quarter(images):
    backbone = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.AveragePooling2D(4)])  # a 7×7 map
    maps = images.reshape(64, 7, 4, 7, 4).astype("float32").mean(axis=(2, 4))
    quarters = [maps[:, a, b].mean(axis=(1, 2)) for a in (slice(0, 4), slice(3, 7)) for b in (slice(0, 4), slice(3, 7))]
    np.testing.assert_allclose(
        evaluate.extract_features(backbone, images, grid=2), np.stack(quarters, axis=1), rtol=1e-4, atol=1e-3
    )
    adaptive = keras.layers.AdaptiveAveragePooling2D(2)(maps[..., None])
    np.testing.assert_allclose(
        evaluate.extract_features(backbone, images, grid=2),
        ops.convert_to_numpy(adaptive).reshape(64, 4),
        rtol=1e-4,
        atol=1e-3,
    )


def test_features_of_a_named_layer(images):
    backbone = tiny_backbone()
    middle = backbone.layers[1]
    network = keras.Model(backbone.inputs[0], middle.output)
    expected = ops.convert_to_numpy(network(images.astype("float32"))).mean(axis=(1, 2))
    np.testing.assert_allclose(evaluate.extract_features(backbone, images, layer=middle.name), expected, atol=1e-5)
    with pytest.raises(ValueError, match="no such layer"):
        evaluate.extract_features(backbone, images, layer="nowhere")


def test_features_of_a_method_are_its_backbones(images):
    model = keras_ssl.SimCLR(tiny_backbone())
    np.testing.assert_array_equal(
        evaluate.extract_features(model, images), evaluate.extract_features(model.backbone, images)
    )


def test_a_grid_finer_than_the_map_is_refused(images):
    with pytest.raises(ValueError, match="grid"):
        evaluate.extract_features(tiny_backbone(), images, grid=9)


# The table of few labels


@pytest.mark.one_backend
def test_the_table_compares_representations_on_the_same_labels():
    features, labels = blobs(per_class=60, spread=3.0)
    queries, truth = blobs(per_class=20, seed=5, spread=3.0)
    table = efficiency.label_efficiency(
        {"same": (features, queries), "again": (features, queries)}, labels, truth, per_class=(5, 1000, None), draws=3
    )
    assert list(table["same"]) == ["linear, 5 per class", "kNN, 5 per class", "linear, all", "kNN, all"]
    for column, cell in table["same"].items():
        assert cell.accuracies == table["again"][column].accuracies
    assert len(table["same"]["kNN, 5 per class"].accuracies) == 3
    assert table["same"]["linear, all"].sd is None
    header, rows = efficiency.as_rows(table)
    text = efficiency.as_text(header, rows)
    assert len({len(line) for line in text.splitlines()}) == 1
    assert "±" in text


# Pictures and the page


@pytest.mark.one_backend
def test_pictures_are_drawn(images, tmp_path):
    features, labels = blobs(per_class=16)
    names = [f"class {label}" for label in labels]
    figures = [
        plots.curves({"loss": [3.0, 2.0], "val_loss": [3.1, 2.2], "knn": [0.1, 0.5]}),
        plots.views(images[:5], [images[5:10], images[10:15]]),
        plots.neighbors(features, images, images[:3], features[:3], 4, names=names, query_names=names[:3]),
        plots.embedding_map(features, images, names),
        plots.embedding_map(features),
    ]
    for number, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").stat().st_size > 3000


@pytest.mark.one_backend
def test_similar_rows_are_neighbors_on_the_map():
    features, labels = blobs(per_class=25)
    plane = plots.project(features)
    assert plane.shape == (100, 2)
    # By distances: where t-SNE puts a group, and so its direction from the middle, differs between machines.
    assert KNeighborsClassifier(5).fit(plane, labels).score(plane, labels) > 0.95
    np.testing.assert_array_equal(plots.project(features), plane)


@pytest.mark.one_backend
def test_a_report_is_one_page_that_says_nothing_of_its_own(tmp_path):
    report = HtmlPage("A <title>", "below it")
    report.heading("Part")
    report.text("text & more")
    report.table(["", "one\ntwo"], [["a", "1"], ["b", "2"]], bold={(1, 1)})
    report.figure(plots.curves({"loss": [1.0]}), "caption")
    report.save(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "A &lt;title&gt;" in page
    assert "text &amp; more" in page
    assert "one<br>two" in page
    assert 'src="data:image/png;base64,' in page
    assert "http" not in page.replace("https://", "http"), "the page must open offline"


# The callback


@pytest.mark.parametrize("kind", ["knn", "linear"])
def test_the_probes_figure_enters_the_logs_and_is_what_evaluate_says(sample, kind):
    train, test = sample.train, sample.test
    bank, queries = (train.images[:300], train.labels[:300]), (test.images[:100], test.labels[:100])
    model = keras_ssl.SimCLR(tiny_backbone(), views=keras_ssl.augment.Views([], []))
    model.compile("sgd")
    if kind == "knn":
        probe, judge = keras_ssl.callbacks.KNNProbe(bank, queries, k=7), lambda *known: evaluate.knn(*known, k=7)
    else:
        probe = keras_ssl.callbacks.LinearProbe(bank, queries, regularization=(0.1,), grid=2)
        judge = lambda *known: evaluate.linear_probe(*known, regularization=(0.1,))  # noqa: E731
    history = model.fit(train.images[:64], batch_size=32, epochs=2, callbacks=[probe], verbose=0).history
    features = [evaluate.extract_features(model, part[0], grid=1 if kind == "knn" else 2) for part in (bank, queries)]
    expected = judge(features[0], bank[1], features[1], queries[1])
    assert history[f"{kind}_accuracy"][-1] == pytest.approx(expected)
    assert len(history[f"{kind}_accuracy"]) == 2


def test_probes_now_and_then_and_at_the_end(sample):
    model = keras_ssl.SimCLR(tiny_backbone(), views=keras_ssl.augment.Views([], []))
    model.compile("sgd")
    small = keras_ssl.data.Split(sample.train.images[:40], sample.train.labels[:40])
    logged = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logged.append("knn_accuracy" in logs))
    probe = keras_ssl.callbacks.KNNProbe(small, small, every=3, k=5)
    model.fit(small.images, batch_size=20, epochs=5, callbacks=[probe, watch], verbose=0)
    assert logged == [False, False, True, False, True]


class Stop(keras.callbacks.Callback):
    """Ends the run after an epoch, as `EarlyStopping` does."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == self.epoch


@pytest.mark.parametrize("first", ["probe", "stop"])
@pytest.mark.parametrize(
    ("options", "stop", "steps"),
    [
        ({"every": 3}, 1, [4]),
        ({"every": None}, 1, [4]),
        ({"every": 2}, 1, [4]),
        ({"every": 2}, 2, [4, 6]),
        ({"every": None, "every_steps": 3}, 1, [3, 4]),
        ({"every": None}, None, [10]),
    ],
)
def test_the_last_epoch_is_probed_also_of_a_run_that_is_stopped(sample, first, options, stop, steps):
    model = keras_ssl.SimCLR(tiny_backbone(), views=keras_ssl.augment.Views([], []))
    model.compile("sgd")
    small = keras_ssl.data.Split(sample.train.images[:40], sample.train.labels[:40])
    probe = keras_ssl.callbacks.KNNProbe(small, small, k=5, **options)
    callbacks = [probe, Stop(stop)] if first == "probe" else [Stop(stop), probe]
    history = model.fit(small.images, batch_size=20, epochs=5, callbacks=callbacks, verbose=0).history
    assert [step for step, _ in probe.values] == steps
    assert history["knn_accuracy"][-1] == probe.values[-1][1]["knn_accuracy"]
    # One entry an epoch that was probed.
    assert len(history["knn_accuracy"]) == len({(step - 1) // 2 for step in steps})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda x, y: keras_ssl.callbacks.KNNProbe(x, (x, y)), "labeled images"),
        (lambda x, y: keras_ssl.callbacks.KNNProbe((x, y[:-1]), (x, y)), "labels"),
        (lambda x, y: keras_ssl.callbacks.KNNProbe((x, y), (x, y), k=65), "`k`"),
        (lambda x, y: keras_ssl.callbacks.KNNProbe((x, y), (x, y), every=0), "every"),
        (lambda x, y: keras_ssl.callbacks.LinearProbe((x, 0 * y), (x, y)), "single class"),
        (lambda x, y: keras_ssl.callbacks.LinearProbe((x, y), (x[:-1], y)), "labels"),
        (lambda x, y: evaluate.knn(x, y, x, k=100), "`k`"),
        (lambda x, y: evaluate.knn(x, y, x, temperature=0), "temperature"),
        (lambda x, y: evaluate.knn(x, y[:-1], x), "give one per row"),
        (lambda x, y: evaluate.knn(x, y + 0.5, x), "integers"),
        (lambda x, y: evaluate.linear_probe(x, y * 0, x), "single class"),
        (lambda x, y: evaluate.linear_probe(x, y, x, y[:-1]), "give one per row"),
    ],
)
def test_senseless_probes_are_refused(images, make, words):
    with pytest.raises(ValueError, match=words):
        make(images, np.arange(64) % 4)


@pytest.mark.parametrize("probe", [keras_ssl.callbacks.KNNProbe, keras_ssl.callbacks.LinearProbe])
def test_a_sample_that_lacks_classes_of_the_test_images_is_refused(probe, images):
    """Else such a probe says 0.0, and one thinks of the network."""
    labels = np.arange(64) % 32
    with pytest.raises(
        ValueError, match=r"`most` keeps 4 images of `train`.* none of 28 of the classes.*most\[0\] larger"
    ):
        probe((images, labels), (images, labels), most=(4, 64), **({"k": 3} if "KNN" in probe.__name__ else {}))


def test_a_stream_whose_test_images_no_training_image_could_classify_is_told_once(images):
    class Stream(keras.utils.PyDataset):
        def __init__(self, labels):
            super().__init__()
            self.labels = labels

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return images[:32], self.labels

    probe = keras_ssl.callbacks.KNNProbe(Stream(np.arange(32) % 2), Stream(np.arange(32) % 4), k=3)
    probe.set_model(keras_ssl.SimCLR(tiny_backbone()))
    with pytest.warns(UserWarning, match=r"50% of the images of `test` are of classes .* none of, such as 2, 3, and"):
        assert probe.accuracy() <= 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        probe.accuracy()
