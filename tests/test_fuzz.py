"""Whatever is given to a function of the library: it works, or it says in a sentence what is wrong.

Of the functions that `fit` compiles, losses and views, the values are held in tests of their own; shapes that do not go
together are the framework's to refuse there.

`FUZZ_TIMES=10 pytest -n 0 -s tests/test_fuzz.py` tries ten times as much, and prints how much that is.
"""

import os

import fuzz
import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import keras_ssl
from keras_ssl import data, evaluate
from keras_ssl.callbacks import Resume
from keras_ssl.evaluate import plots, projector

pytestmark = pytest.mark.one_backend

FEATURES = fuzz.anything(2, like=[(8, 3)])
LABELS = fuzz.anything(1, like=[(8,)])
IMAGES = fuzz.anything(4, like=[(8, 8, 8, 1), (8, 8, 8, 3)])
NUMBERS = st.sampled_from(
    [0, -1, 1, 2, 3, 9, 10**9, 1.5, 1e-30, 1e30, None, "a", True, np.nan, np.inf, [1], np.int64(2)]
)
EYE, TWO = np.eye(8), np.arange(8) % 2

FUNCTIONS = {
    "knn": (evaluate.knn, FEATURES, LABELS, FEATURES, LABELS),
    "knn's numbers": (lambda k, t: evaluate.knn(EYE, TWO, EYE, k=k, temperature=t), NUMBERS, NUMBERS),
    "linear_probe": (evaluate.linear_probe, FEATURES, LABELS, FEATURES, LABELS),
    "search": (evaluate.search, FEATURES, FEATURES),
    "search's numbers": (lambda k: evaluate.search(EYE, k=k), NUMBERS),
    "near_copies": (evaluate.near_copies, FEATURES),
    "near_copies' numbers": (lambda threshold: evaluate.near_copies(EYE, threshold=threshold), NUMBERS),
    "without_copies": (evaluate.without_copies, FEATURES),
    "select": (
        lambda features, strategy: evaluate.select(features, 2, strategy),
        FEATURES,
        st.sampled_from(["both", "diverse", "typical", "Both", 1]),
    ),
    "select's numbers": (lambda count, labeled: evaluate.select(EYE, count, labeled=labeled), NUMBERS, LABELS),
    "draw_labels": (evaluate.draw_labels, LABELS, NUMBERS, st.integers(0, 3)),
    "rank_correlation": (evaluate.rank_correlation, LABELS, LABELS),
    "loss_correlation": (
        evaluate.loss_correlation,
        st.dictionaries(st.sampled_from(["loss", "knn_accuracy", "a"]), LABELS),
    ),
    "rank_me": (evaluate.rank_me, FEATURES),
    "alpha_req": (evaluate.alpha_req, FEATURES),
    "alignment": (evaluate.alignment, FEATURES, FEATURES),
    "uniformity": (evaluate.uniformity, FEATURES),
    "spread": (evaluate.spread, FEATURES),
    "similarity_matrix": (plots.similarity_matrix, FEATURES),
    "load": (data.load, IMAGES),
    "load of two": (lambda images, labels: data.load((images, labels)), IMAGES, LABELS),
    "load of a dict": (lambda images, labels: data.load({"image": images, "label": labels}), IMAGES, LABELS),
    "Resume": (lambda steps, seconds: Resume("state", every_steps=steps, every_seconds=seconds), NUMBERS, NUMBERS),
}
CALLS = {"features": 30, "predict": 30, "fit": 30, "fit's numbers": 30}  # of what runs a network
FILES = ("projector", "a table of labels", "an image size")


def hold(examples, function, *kinds):
    """Calls a function with draws of each of the kinds; the same in each run."""
    found, tried = [], []

    @settings(
        max_examples=examples * int(os.environ.get("FUZZ_TIMES", "1")),
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.tuples(*kinds))
    def check(arguments):
        tried.append(True)
        wrong = fuzz.riddle(function, *arguments)
        if wrong:
            found.append(wrong)

    check()
    print(f"{len(tried)} tried, {len(found)} riddles")  # pytest -s
    assert sorted(set(found)) == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_work_or_say_what_is_wrong(name):
    hold(40, *FUNCTIONS[name])


@pytest.fixture(scope="module")
def model():
    layers = [keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, padding="same")]
    model = keras_ssl.Rotation(keras.Sequential(layers))
    model.compile("sgd", run_eagerly=True)  # nothing to trace for each shape
    return model


@pytest.mark.parametrize("name", CALLS)
def test_a_model_works_or_says_what_is_wrong(name, model):
    images = np.arange(512, dtype="uint8").reshape(8, 8, 8, 1)
    calls = {
        "features": (lambda x: evaluate.extract_features(model, x), IMAGES),
        "predict": (lambda x: model.predict(x, verbose=0), IMAGES),
        "fit": (lambda x, y: model.fit(x, y, batch_size=4, verbose=0), IMAGES, LABELS),
        "fit's numbers": (
            lambda size, epochs: model.fit(images, batch_size=size, epochs=epochs, verbose=0),
            NUMBERS,
            st.sampled_from([0, -1, 1, 1.5, None, "a", np.nan]),
        ),
    }
    hold(CALLS[name], *calls[name])


@pytest.mark.parametrize("name", FILES)
def test_what_reads_and_writes_files_works_or_says_what_is_wrong(name, tmp_path, sample):
    from PIL import Image

    for number in range(6):
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample.train.images[number, :8, :8, 0]).save(folder / f"{number}.png")
    tables = st.dictionaries(st.sampled_from(["a/0.png", "1", "x", 3, None]), st.sampled_from(["a", 1, None, np.nan]))
    calls = {
        "projector": (lambda x, names: projector.write(tmp_path / "logs", x, names), FEATURES, LABELS),
        "a table of labels": (
            lambda labels: data.load(tmp_path / "photos", image_size=8, labels=labels),
            st.one_of(LABELS, FEATURES, tables),
        ),
        "an image size": (
            lambda size: data.load(tmp_path / "photos", image_size=size),
            st.one_of(LABELS, NUMBERS, st.sampled_from(["8", (8,), (8, 8, 8), (8, 0)])),
        ),
    }
    hold(30, *calls[name])
