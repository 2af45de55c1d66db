"""Each measure against a value worked out by hand or by another library."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from training.metrics import (
    Cells,
    auc,
    bootstrap_weights,
    brier_by_cell,
    ece,
    hit_by_cell,
    interval,
    nll_by_cell,
    within_question_pairs,
)

LABEL = np.array([[1, 0, np.nan], [0, 1, 1], [1, np.nan, 0]], dtype=np.float32)
P = np.array([[0.9, 0.2, 0.99], [0.4, 0.4, 0.7], [0.3, 0.01, 0.6]])


def cells() -> Cells:
    return Cells.from_grid(LABEL, P)


def test_only_observed_cells_are_counted() -> None:
    assert cells().label.tolist() == [1, 0, 0, 1, 1, 1, 0]
    changed = P.copy()
    changed[np.isnan(LABEL)] = 0.5
    assert np.array_equal(Cells.from_grid(LABEL, changed).p, cells().p)


def test_measures_agree_with_scikit_learn() -> None:
    c, once = cells(), np.ones(3)
    assert auc(c, once) == pytest.approx(roc_auc_score(c.label, c.p))
    assert c.mean_by_weights(nll_by_cell(c), once) == pytest.approx(log_loss(c.label, c.p))
    assert c.mean_by_weights(brier_by_cell(c), once) == pytest.approx(brier_score_loss(c.label, c.p))
    assert c.mean_by_weights(hit_by_cell(c), once) == pytest.approx(((c.p >= 0.5) == c.label).mean())


def test_weights_count_a_question_as_often_as_they_say() -> None:
    c, weights = cells(), np.array([2.0, 0.0, 1.0])
    repeated = Cells.from_grid(LABEL[[0, 0, 2]], P[[0, 0, 2]])
    assert auc(c, weights) == pytest.approx(auc(repeated, np.ones(3)))
    assert c.mean_by_weights(nll_by_cell(c), weights) == pytest.approx(nll_by_cell(repeated).mean())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=2, max_size=40))
def test_auc_counts_ties_half(pairs: list[tuple[int, int]]) -> None:
    label = np.array([[p[0]] for p in pairs], dtype=np.float32)
    p = np.array([[p[1] / 5] for p in pairs])
    value = auc(Cells.from_grid(label, p), np.ones(len(pairs)))
    if label.min() == label.max():
        assert np.isnan(value)
    else:
        assert value == pytest.approx(roc_auc_score(label[:, 0], p[:, 0]))


def test_a_fractional_label_counts_as_both_answers() -> None:
    half = Cells.from_grid(np.array([[0.5]], dtype=np.float32), np.array([[0.8]]))
    assert nll_by_cell(half)[0] == pytest.approx(-(np.log(0.8) + np.log(0.2)) / 2)
    assert brier_by_cell(half)[0] == pytest.approx((0.04 + 0.64) / 2)
    assert hit_by_cell(half)[0] == 0.5


def test_within_question_auc_ignores_which_questions_are_hard() -> None:
    rng = np.random.default_rng(0)
    label = (rng.random((50, 8)) < 0.5).astype(np.float32)
    p = rng.random((50, 8)) / 2
    concordant, pairs = within_question_pairs(label, p, chunk=7)
    shifted, _ = within_question_pairs(label, p + rng.random((50, 1)) / 2, chunk=50)
    by_hand = sum(
        float(p[q, i] > p[q, j])
        for q in range(50)
        for i in range(8)
        for j in range(8)
        if label[q, i] == 1 and label[q, j] == 0
    )
    assert concordant.sum() == pytest.approx(by_hand)
    assert shifted.sum() == pytest.approx(by_hand)
    assert pairs.sum() == (label.sum(axis=1) * (1 - label).sum(axis=1)).sum()


def test_ece_is_zero_for_a_forecast_that_keeps_its_word_and_the_gap_for_one_that_does_not() -> None:
    label = np.tile(np.array([[1], [0]], dtype=np.float32), (150, 1))
    assert ece(Cells.from_grid(label, np.full((300, 1), 0.5))) == pytest.approx(0)
    assert ece(Cells.from_grid(label, np.full((300, 1), 0.8))) == pytest.approx(0.3)


def test_a_forecast_that_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match=r"outside \[0, 1\] or NaN"):
        Cells.from_grid(LABEL, P + 1)
    with pytest.raises(ValueError, match="outside"):
        Cells.from_grid(LABEL, P * np.nan)


def test_the_bootstrap_draws_whole_groups() -> None:
    groups = np.array([7, 7, 3, 9, 9])
    weights = bootstrap_weights(groups, 500, seed=1)
    assert np.array_equal(weights[:, 0], weights[:, 1])
    assert np.array_equal(weights[:, 3], weights[:, 4])
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert np.array_equal(weights, bootstrap_weights(groups, 500, seed=1))


def test_an_interval_holds_the_middle_of_its_samples() -> None:
    assert interval(np.arange(1001) / 1000) == pytest.approx((0.025, 0.975))
