"""Whether a metric that needs no labels predicts downstream accuracy: ranks, their p-value, and what is paired."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from keras_ssl.evaluate import loss_correlation, rank_correlation
from keras_ssl.evaluate.loss_correlation import paired

pytestmark = pytest.mark.one_backend


def test_a_loss_that_orders_checkpoints_as_the_accuracy_does_has_rho_minus_one():
    found = rank_correlation([5.0, 4.0, 3.9, 1.0], [0.1, 0.2, 0.7, 0.8])
    assert found.rho == -1.0
    assert found.checkpoints == 4
    assert found.p_value == pytest.approx(2 / 24), "two of the 24 orders are as far from 0"


def test_three_checkpoints_in_order_are_no_evidence():
    assert rank_correlation([3, 2, 1], [1, 2, 3]) == (-1.0, pytest.approx(1 / 3), 3)
    assert spearmanr([3, 2, 1], [1, 2, 3]).pvalue == 0.0, "by the t distribution, which is why it is not taken"


@pytest.mark.parametrize("count", [5, 8, 30])
def test_rho_is_that_of_scipy_with_ties_too(count):
    draws = np.random.default_rng(count)
    a, b = draws.normal(size=count), draws.integers(0, 4, size=count)
    found = rank_correlation(a, b)
    assert found.rho == pytest.approx(spearmanr(a, b).statistic)
    assert found.checkpoints == count
    if count == 30:  # where the t distribution is good
        assert found.p_value == pytest.approx(spearmanr(a, b).pvalue, abs=0.01)


def test_p_values_of_unrelated_figures_are_as_likely_below_a_share_as_the_share():
    draws = np.random.default_rng(0)
    p_values = np.array([rank_correlation(draws.normal(size=6), draws.normal(size=6)).p_value for _ in range(200)])
    assert np.mean(p_values <= 0.2) == pytest.approx(0.2, abs=0.07)


@pytest.mark.parametrize(
    ("proxy", "downstream", "checkpoints"),
    [
        ([1.0, 1.0, 1.0, 1.0], [1, 2, 3, 4], 4),
        ([1, 2, 3, 4], [0.5, 0.5, 0.5, 0.5], 4),
        ([1, 2], [1, 2], 2),
        ([1, None, 3, float("nan")], [1, 2, 3, 4], 2),
        ([], [], 0),
    ],
)
def test_rho_is_undefined_for_constants_and_for_fewer_than_three(proxy, downstream, checkpoints):
    assert rank_correlation(proxy, downstream) == (None, None, checkpoints)


def test_lists_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="4 checkpoints and `downstream` 3"):
        rank_correlation([1, 2, 3, 4], [1, 2, 3])


HISTORY = {
    "nt_xent": [4.0, 3.0, 2.0, 1.0],
    "loss": [4.0, 3.0, 2.0, 1.0],
    "val_loss": [4.0, 3.0, 2.5, 2.6],
    "learning_rate": [0.1, 0.2, 0.1, 0.0],
    "contrastive_accuracy": [0.1, 0.2, 0.3, 0.4],
    "knn_accuracy": [0.5, 0.6, 0.7, 0.8],
    "first_linear_accuracy": [0.5, 0.7],
}


def test_each_figure_without_labels_meets_each_accuracy():
    found = loss_correlation(HISTORY)
    figures = ["loss", "val_loss", "contrastive_accuracy"]  # the term is the loss, and the rate was set by hand
    assert list(found) == [
        (name, with_labels) for name in figures for with_labels in ("knn_accuracy", "first_linear_accuracy")
    ]
    assert found["loss", "knn_accuracy"].rho == -1.0
    assert found["val_loss", "knn_accuracy"].rho == pytest.approx(-0.8)
    assert found["contrastive_accuracy", "knn_accuracy"].rho == 1.0
    assert found["loss", "first_linear_accuracy"] == (None, None, 0), "see the next test"


def test_a_probe_every_other_epoch_meets_the_figures_of_its_epochs():
    epochs, proxy, accuracy = paired(HISTORY, "loss", "first_linear_accuracy")
    # Two of four: every second epoch, or every third and the last. Not to be told apart.
    assert len(epochs) == len(proxy) == len(accuracy) == 0
    history = {"loss": [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], "knn_accuracy": [0.1, 0.2, 0.3, 0.4]}
    epochs, proxy, accuracy = paired(history, "loss", "knn_accuracy")
    np.testing.assert_array_equal(epochs, [2, 4, 6, 7])
    np.testing.assert_array_equal(proxy, [6.0, 4.0, 2.0, 1.0])
    np.testing.assert_array_equal(accuracy, [0.1, 0.2, 0.3, 0.4])


def test_a_history_without_accuracies_or_without_epochs_has_no_correlation():
    assert loss_correlation({"loss": [2.0, 1.0]}) == {}
    assert loss_correlation({}) == {}
