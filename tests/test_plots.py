"""Pictures say what is so: their data is compared with what they are of."""

import sys
import types

import keras
import numpy as np
import pytest
from keras import ops
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.image import AxesImage
from matplotlib.offsetbox import AnnotationBbox
from matplotlib.text import Text

import keras_ssl
from keras_ssl.augment import patches
from keras_ssl.evaluate import plots
from keras_ssl.evaluate.plots.style import GRAY, GREEN, RED

pytestmark = pytest.mark.one_backend

WIDTHS = (9.3, 3.7)
HISTORY = {"loss": [4.0, 3.0, 2.5, 1.0], "val_loss": [4.1, 3.0, 2.0, 1.5], "knn_accuracy": [0.5, 0.55, 0.7, 0.6]}


def pictures_of(figure):
    return [image for axes in figure.axes for image in axes.get_images()]


def words_of(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text().strip()]


def blobs(per_class, classes=4, width=16):
    draws = np.random.default_rng(0)
    centers = 4.0 * draws.normal(size=(classes, width))
    labels = draws.permutation(np.repeat(np.arange(classes), per_class))
    return (centers[labels] + draws.normal(size=(len(labels), width))).astype("float32"), labels


# Matrices.


def test_a_similarity_matrix_holds_the_cosines_in_the_order_of_labels():
    features, labels = blobs(per_class=5)
    figure = plots.similarity_matrix(features, labels, ["a", "b", "c", "d"])
    shown = pictures_of(figure)[0].get_array()
    order = np.argsort(labels, kind="stable")
    unit = features[order] / np.linalg.norm(features[order], axis=1, keepdims=True)
    np.testing.assert_allclose(shown, np.clip(unit @ unit.T, -1, 1), atol=1e-5)
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b", "c", "d"]
    np.testing.assert_allclose(axes.get_yticks(), [2, 7, 12, 17], err_msg="a name stands at the middle of its rows")
    edges = sorted({float(line.get_ydata()[0]) for line in axes.get_lines() if len(set(line.get_ydata())) == 1})
    assert edges == [4.5, 9.5, 14.5]
    assert len(figure.axes) == 2, "the matrix and its scale"


def test_a_similarity_matrix_shows_no_more_rows_than_asked():
    features, labels = blobs(per_class=30)
    figure = plots.similarity_matrix(features, labels, most=40)
    assert pictures_of(figure)[0].get_array().shape == (40, 40)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["0", "1", "2", "3"]
    assert pictures_of(plots.similarity_matrix(features[:7]))[0].get_array().shape == (7, 7)


def test_the_cross_correlation_of_identical_white_views_is_the_identity():
    draws = np.random.default_rng(0).normal(size=(60, 12))
    white = np.linalg.qr(draws - draws.mean(axis=0))[0] * np.sqrt(60)
    shown = pictures_of(plots.cross_correlation(white, white))[0].get_array()
    np.testing.assert_allclose(shown, np.eye(12), atol=1e-4)
    opposite = pictures_of(plots.cross_correlation(white, -white))[0].get_array()
    np.testing.assert_allclose(opposite, -np.eye(12), atol=1e-4)


def test_a_wide_cross_correlation_is_of_some_dimensions_and_says_so():
    a = np.random.default_rng(0).normal(size=(20, 1000)).astype("float32")
    figure = plots.cross_correlation(a, a, most=100)
    assert pictures_of(figure)[0].get_array().shape == (100, 100)
    assert any("100 of 1,000 dimensions" in words for words in words_of(figure))
    assert any("diagonal 1.00 on average" in words for words in words_of(figure))
    assert not any(" of " in words for words in words_of(plots.cross_correlation(a[:, :100], a[:, :100], most=100)))


def test_names_of_small_groups_do_not_stand_on_each_other():
    labels = np.array([0] * 90 + [1] * 2 + [2] * 2 + [3] * 90)
    features = np.random.default_rng(0).normal(size=(len(labels), 8))
    axes = plots.similarity_matrix(features, labels, width=3.7).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["0", "1", "", "3"]


# Views.


def test_each_column_is_a_draw_of_the_policy(images):
    views = keras_ssl.augment.simclr(28)
    shown = [image.get_array() for image in pictures_of(plots.views_of(images[0], views, count=5))]
    assert len(shown) == 1 + 2 * 5
    np.testing.assert_allclose(shown[0], images[0, :, :, 0] / 255.0, atol=1e-6)
    for number, one in enumerate(shown):
        assert not any(np.array_equal(one, other) for other in shown[:number]), "no two alike"


def test_views_of_several_images_stand_in_their_rows(images):
    # Draw by draw: the image, ever darker, so that what stands where can be told.
    count = 3

    def darker(batch):
        steps = np.tile(np.arange(1, count + 1), len(batch) // count)[:, None, None, None]
        return ops.convert_to_tensor(batch / (2.0 * steps))

    figure = plots.views_of(images[:2], darker, count)
    shown = [image.get_array() for image in pictures_of(figure)]
    expected = [images[row, :, :, 0] / 255.0 / scale for row in range(2) for scale in (1, 2, 4, 6)]
    assert len(shown) == len(expected)
    for one, other in zip(shown, expected):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_views_are_shown_below_their_images(images):
    figure = plots.views(images[:4], [255 - images[:4]])
    tops = [image.get_extent()[3] for image in pictures_of(figure)]
    assert tops[:4] == [tops[0]] * 4
    assert min(tops[4:]) > tops[0], "from the upper edge down"
    np.testing.assert_allclose(pictures_of(figure)[5].get_array(), 1 - images[1, :, :, 0] / 255.0, atol=1e-6)


def test_chosen_images_are_numbered_row_by_row(images):
    figure = plots.chosen(images[:7], across=3)
    shown = pictures_of(figure)
    assert len(shown) == 7
    np.testing.assert_allclose(shown[4].get_array(), images[4, :, :, 0] / 255.0, atol=1e-6)
    left, _, _, top = shown[4].get_extent()
    assert left == shown[1].get_extent()[0]
    assert top == shown[3].get_extent()[3] > shown[0].get_extent()[3]
    assert [words for words in words_of(figure) if words.isdigit()] == list("1234567")


# Tasks.


def built(method, **options):
    backbone = keras.Sequential(
        [keras.Input((None, None, 1) if method.patch_based else (28, 28, 1)), keras.layers.Conv2D(4, 3)]
    )
    model = method(backbone, **options)
    model.build((None, 28, 28, 1))
    return model


def test_the_pieces_of_a_jigsaw_are_shown_in_the_order_of_its_answer(images):
    model = built(keras_ssl.Jigsaw, grid=2, gap=2)
    task = model.pretext_examples(images[:6])
    places, orders = ops.convert_to_numpy(task["places"]), ops.convert_to_numpy(model.orders)
    for row in range(6):
        order = [int(caption) - 1 for caption in task["captions"][row]]
        assert order in orders.tolist()
        for piece, cell in enumerate(order):
            top, left = places[row, piece]
            assert (top // 14, left // 14) == divmod(cell, 2)
            cut = images[row : row + 1, top : top + 12, left : left + 12]
            seen = ops.convert_to_numpy(patches.normalized(ops.convert_to_tensor(cut), (0, 255)))[0]
            np.testing.assert_allclose(ops.convert_to_numpy(task["pictures"][piece])[row], seen, atol=1e-3)


def test_patches_put_back_give_the_image(images):
    order = patches.permutations(4, 5)[3]
    places = np.stack([order // 2 * 14, order % 2 * 14], axis=-1)[None].repeat(3, axis=0)
    cut = [
        ops.convert_to_numpy(patch)
        for patch in patches.cut(ops.convert_to_tensor(images[:3]), *places.T[:, :, 0][:, None].repeat(3, axis=1), 14)
    ]
    for row in range(3):
        whole = plots.put_back([patch[row] for patch in cut], places[row], (28, 28, 1))
        np.testing.assert_array_equal(whole, images[row])
    figure = plots.pretext_task(images[:3], cut, [["1", "2", "3", "4"]] * 3, places)
    shown = [image.get_array() for image in pictures_of(figure)]
    assert len(shown) == 3 * (1 + 4 + 1)
    np.testing.assert_allclose(shown[5], shown[0], atol=1e-6)
    np.testing.assert_allclose(shown[1], shown[0][places[0, 0, 0] :, places[0, 0, 1] :][:14, :14], atol=1e-6)


def test_of_two_patches_the_second_lies_where_its_caption_says(images):
    task = built(keras_ssl.RelativePatch).pretext_examples(images[:32])
    places = ops.convert_to_numpy(task["places"])
    assert len({second for _, second in task["captions"]}) > 4
    for row, (first, second) in enumerate(task["captions"]):
        assert first == "middle"
        (top, left), (other_top, other_left) = places[row]
        vertical = {True: "upper" if second.endswith(("left", "right")) else "above"}.get(other_top <= top - 7, "")
        vertical = vertical or ("lower" if second.endswith(("left", "right")) else "below") * bool(other_top >= top + 7)
        horizontal = "left" * bool(other_left <= left - 7) + "right" * bool(other_left >= left + 7)
        assert second == " ".join(filter(None, (vertical, horizontal)))
        patch = ops.convert_to_numpy(task["pictures"][1])[row]
        np.testing.assert_array_equal(patch, images[row, other_top : other_top + 7, other_left : other_left + 7])


def test_a_rotation_is_shown_by_its_caption(images):
    figure = plots.pretext_task(images[:2], **built(keras_ssl.Rotation).pretext_examples(images[:2]))
    assert words_of(figure) == ["0°", "90°", "180°", "270°"] * 2
    for number, shown in enumerate(pictures_of(figure)):
        np.testing.assert_allclose(
            shown.get_array(), np.rot90(images[number // 4, :, :, 0], number % 4) / 255.0, atol=1e-6
        )


def test_a_distortion_says_where_the_corners_went(images):
    model = built(keras_ssl.Distortion)
    task = model.pretext_examples(images[:5])
    moves = [[int(word) for word in row[1].replace("−", "-").split() if word[-1].isdigit()] for row in task["captions"]]
    assert np.shape(moves) == (5, 8)
    assert 6 < np.abs(moves).max() <= 13, "an eighth of the side, in percent"
    shown, distorted = task["pictures"]
    np.testing.assert_array_equal(shown, images[:5])
    order = np.reshape(moves, (5, 4, 2))[:, [0, 1, 2, 3]] / 100.0
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) + order
    again = keras_ssl.augment.geometry.warp(ops.cast(images[:5], "float32"), ops.cast(corners, "float32"))
    # The caption is rounded to a percent, a third of a pixel.
    assert np.mean(np.abs(ops.convert_to_numpy(again) - ops.convert_to_numpy(distorted))) < 8


def test_a_method_without_a_task_of_its_own_has_none_to_show(images):
    assert built(keras_ssl.SimCLR).pretext_examples(images[:2]) is None


def test_showing_a_task_changes_nothing_and_repeats(images):
    model = built(keras_ssl.Jigsaw)
    before = [ops.convert_to_numpy(weight) for weight in model.weights]
    one, other = model.pretext_examples(images[:4]), model.pretext_examples(images[:4])
    assert one["captions"] == other["captions"]
    for weight, was in zip(model.weights, before):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), was)


# The map.


@pytest.mark.parametrize("most", [0, 7, 1000])
def test_thumbnails_are_no_more_than_asked_and_cover_none_another(images, most):
    features, labels = blobs(per_class=16)
    figure = plots.embedding_map(features, images, labels.astype(str), thumbnails=most, method="pca", width=6.0)
    FigureCanvasAgg(figure).draw()
    boxes = [box.get_window_extent() for box in figure.axes[0].findobj(AnnotationBbox)]
    assert len(boxes) <= most
    assert len(boxes) == min(most, len(boxes))
    assert len(boxes) > min(most, 10) - 1
    for number, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[:number])


@pytest.mark.parametrize("count", [2, 10, 20])
def test_no_class_of_a_map_is_gray_and_what_has_no_label_is_named(count):
    draws = np.random.default_rng(0)
    names = [f"class {row % count:02}" if row % 3 else None for row in range(6 * count)]
    figure = plots.embedding_map(None, names=names, plane=draws.normal(size=(len(names), 2)))
    drawn = figure.axes[0].collections
    colors = [tuple(points.get_facecolor()[0][:3]) for points in drawn]
    assert len(set(colors)) == count + 1
    assert sum(np.ptp(color) < 0.1 for color in colors) == 1, "gray is of those without a label alone"
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == [*sorted({name for name in names if name}), "no label"]
    gray = figure.legends[0].legend_handles[-1].get_facecolor()[0][:3]
    assert to_hex(gray) == GRAY
    all_known = plots.embedding_map(None, names=["a", "b", "a"], plane=np.eye(3)[:, :2])
    assert [text.get_text() for text in all_known.legends[0].get_texts()] == ["a", "b"]


def test_pca_gives_the_first_two_components():
    features, _ = blobs(per_class=10)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    centered = unit - unit.mean(axis=0)
    left, singular, _ = np.linalg.svd(centered, full_matrices=False)
    plane = plots.project(features, method="pca")
    np.testing.assert_allclose(np.abs(plane), np.abs(left * singular)[:, :2], atol=1e-4)


def test_features_that_are_all_alike_lie_in_one_place():
    for method in ("pca", "tsne"):
        np.testing.assert_allclose(plots.project(np.ones((20, 8)), method=method), np.zeros((20, 2)), atol=1e-6)


def test_a_map_refuses_what_it_can_not_draw():
    with pytest.raises(ValueError, match='"tsne", "pca" or "umap"; it is \'mds\''):
        plots.project(np.eye(4), method="mds")
    with pytest.raises(ValueError, match="three rows of features or more; there are 2"):
        plots.project(np.eye(4)[:2])


def test_without_its_package_umap_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ImportError, match="pip install umap-learn"):
        plots.project(np.eye(4), method="umap")


def test_umap_is_given_the_components_and_the_seed(monkeypatch):
    features, _ = blobs(per_class=3)
    made = {}

    class UMAP:
        def __init__(self, **options):
            made.update(options)

        def fit_transform(self, rows):
            made["rows"] = rows
            return rows[:, :2]

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=UMAP))
    plots.project(features, seed=5, method="umap")
    assert made["random_state"] == 5
    assert made["n_neighbors"] == 11, "of twelve rows the others"
    assert made["rows"].shape == (12, 12)


@pytest.mark.slow
def test_umap_itself_keeps_neighbors():
    pytest.importorskip("umap", reason="umap-learn is not installed: pip install umap-learn")
    features, labels = blobs(per_class=25)
    plane = plots.project(features, method="umap")
    nearest = np.argsort(((plane[:, None] - plane[None]) ** 2).sum(-1), axis=1)[:, 1]
    assert np.mean(labels[nearest] == labels) > 0.95


# Neighbors and curves.


def test_the_nearest_neighbors_of_an_image_are_shown_most_similar_first(images):
    draws = np.random.default_rng(0)
    features = draws.normal(size=(64, 8))
    names = ["odd" if row % 2 else "even" for row in range(64)]
    figure = plots.neighbors(features, images, images[:2], features[:2], 4, names=names, query_names=names[:2])
    shown = [image.get_array() for image in pictures_of(figure)]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    nearest = np.argsort(-(unit[:2] @ unit.T), axis=1)[:, :4]
    others = 0
    for row in range(2):
        for column, place in enumerate([row, *nearest[row]]):
            np.testing.assert_allclose(shown[5 * row + column], images[place, :, :, 0] / 255.0, atol=1e-6)
        others += sum(names[place] != names[row] for place in nearest[row])
    frames = [to_hex(patch.get_edgecolor()) for patch in figure.axes[0].patches if not patch.get_fill()]
    assert frames.count(RED) == others > 0
    assert frames.count(GREEN) == 8 - others > 0
    assert sum("\n" in words for words in words_of(figure)) == others, "their names are given"


def test_curves_say_where_better_is():
    history = {
        name: [1.0, 2.0] for name in ("loss", "nt_xent", "knn_accuracy", "uniformity", "rank_me", "learning_rate")
    }
    figure = plots.curves(history, falling=["nt_xent"])
    assert [axes.get_title("left") for axes in figure.axes] == [
        "loss, better is ↓",
        "nt xent, better is ↓",
        "kNN accuracy, better is ↑",
        "uniformity, better is ↓",
        "RankMe, better is ↑",
        "learning rate",
    ]


def test_a_curve_has_the_references_that_leave_it_room():
    lines = {"raw pixels": 0.8, "untrained": 0.65, "far": 3.0}
    axes = plots.curves(HISTORY, ["knn_accuracy"], references={"knn_accuracy": lines}).axes[0]
    drawn = {float(line.get_ydata()[0]) for line in axes.get_lines()[1:]}
    assert drawn == {0.8, 0.65}, "beside what is far the curve would be a flat line"
    assert [text.get_text() for text in axes.texts] == ["untrained", "raw pixels"]
    bottom, top = axes.get_ylim()
    assert 0.45 < bottom < 0.5
    assert 0.8 < top < 0.85
    near = plots.curves(HISTORY, ["loss"], references={"loss": {"one": 4.5, "other": 4.6}}).axes[0].texts
    assert [text.get_horizontalalignment() for text in near] == ["right", "left"], "not one on the other"
    steady = plots.curves({"knn_accuracy": [0.5, 0.5004, np.nan]}).axes[0].get_ylim()
    assert steady[1] - steady[0] > 0.04, "the fourth decimal is no up and down"


def test_a_loss_correlation_shows_what_was_measured_and_its_correlation():
    for width in WIDTHS:
        figure = plots.loss_correlation(HISTORY, "val_loss", "knn_accuracy", width=width)
        above, below, cloud = sorted(
            figure.axes, key=lambda axes: ("rank" in axes.get_title("left"), axes.get_position().y0 < 0.4)
        )
        np.testing.assert_array_equal(above.get_lines()[0].get_xydata(), np.c_[[1, 2, 3, 4], HISTORY["val_loss"]])
        np.testing.assert_array_equal(below.get_lines()[0].get_ydata(), HISTORY["knn_accuracy"])
        points = np.c_[HISTORY["val_loss"], HISTORY["knn_accuracy"]]
        np.testing.assert_array_equal(cloud.collections[0].get_offsets(), points)
        assert "rank correlation −0.80, 4 checkpoints" in words_of(figure)
    with pytest.raises(ValueError, match="no epoch of which both `loss` and `knn_accuracy`"):
        plots.loss_correlation({"loss": [1.0], "knn_accuracy": []}, "loss", "knn_accuracy")


def figures(images, width):
    """Each picture in one width."""
    features, labels = blobs(per_class=16)
    names = [f"a $name$ of class {label}" for label in labels]
    jigsaw, rotation = (built(method).pretext_examples(images[:2]) for method in (keras_ssl.Jigsaw, keras_ssl.Rotation))
    yield plots.curves(HISTORY, ["loss", "knn_accuracy"], width=width)
    yield plots.loss_correlation(HISTORY, "loss", "knn_accuracy", width=width)
    yield plots.views(images[:5], [images[5:10]], width=width)
    yield plots.views_of(images[:2], lambda batch: [batch, batch], 4, width=width)
    yield plots.pretext_task(images[:2], **jigsaw, width=width)
    yield plots.pretext_task(images[:2], **rotation, width=width)
    yield plots.neighbors(features, images, images[:3], features[:3], 4, (0, 255), names, names[:3], width)
    yield plots.embedding_map(features, images, names, method="pca", width=width)
    yield plots.similarity_matrix(features, labels, dict.fromkeys(range(4), names[0]), width=width)
    yield plots.cross_correlation(features, features, width=width)


@pytest.mark.parametrize("width", WIDTHS)
def test_pictures_are_as_wide_as_asked_and_their_text_is_legible_and_inside(images, width):
    for figure in figures(images, width):
        assert figure.get_figwidth() == pytest.approx(width)
        FigureCanvasAgg(figure).draw()
        texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
        # 9 points are 12 pixels of a screen.
        assert min(text.get_fontsize() for text in texts) >= 9
        drawn = figure.get_tightbbox()  # in inches
        outside = max(-drawn.x0, -drawn.y0, drawn.x1 - width, drawn.y1 - figure.get_figheight())
        assert outside < 0.03, f"something of {words_of(figure)[:3]} is cut off"


def test_images_of_many_bands_and_of_other_shapes_are_drawn():
    images = np.random.default_rng(0).uniform(0, 1, (6, 12, 20, 5)).astype("float32")
    figure = plots.views(images[:3], [images[3:]], value_range=(0, 1))
    shown = pictures_of(figure)
    assert all(isinstance(image, AxesImage) and image.get_array().shape == (12, 20, 3) for image in shown)
    left, right, bottom, top = shown[0].get_extent()
    assert (bottom - top) / (right - left) == pytest.approx(12 / 20)
