"""The fit finds a planted truth, and what it must not see does not move it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from router.encoder.base import Vectors
from router.scorer import Scorer, ScorerShape
from tests.planted import TOPICS, Planted, planted_log
from training.baselines import model_mean
from training.calibrate import fit_platt
from training.dataset import Correctness
from training.fit import FitSettings, fit_scorer
from training.metrics import Cells, nll_by_cell

QUICK = FitSettings(penalties=(1e-2, 3e-3), max_steps=150)


def vectors_of(truth: Planted, seed: int = 0) -> Vectors:
    """One-hot topics under noise, of shape (n_questions, 8)."""
    topics = truth.log.questions["benchmark"].map(TOPICS.index).to_numpy()
    noise = np.random.default_rng(seed).normal(0, 0.1, (len(topics), 2 * len(TOPICS)))
    noise[np.arange(len(topics)), topics] += 1
    return noise.astype(np.float32)


def test_a_planted_truth_is_recovered() -> None:
    truth = planted_log(1500, 6)
    data, vectors = Correctness.from_log(truth.log), vectors_of(truth)
    test = data.part("test")
    p = fit_scorer(data, vectors, settings=QUICK).scorer.p_correct(vectors)
    assert np.abs(p - truth.p)[test].mean() < 0.06
    best_possible = nll_by_cell(Cells.from_grid(data.label[test], truth.p[test])).mean()
    reached = nll_by_cell(Cells.from_grid(data.label[test], p[test])).mean()
    knows_no_prompt = nll_by_cell(Cells.from_grid(data.label[test], model_mean(data, vectors)[test])).mean()
    assert reached < best_possible + 0.02 < knows_no_prompt - 0.1


def test_test_labels_are_never_read() -> None:
    truth = planted_log(300, 4)
    data, vectors = Correctness.from_log(truth.log), vectors_of(truth)
    flipped = np.where((data.split == "test")[:, None], 1 - data.label, data.label)
    one = fit_scorer(data, vectors, settings=QUICK).scorer.p_correct(vectors)
    other = fit_scorer(replace(data, label=flipped), vectors, settings=QUICK).scorer.p_correct(vectors)
    assert np.array_equal(one, other)


def test_what_was_not_observed_is_not_wrong() -> None:
    truth = planted_log(1500, 5, observed=0.5)
    data = Correctness.from_log(truth.log)
    vectors = vectors_of(truth)[data.keys]  # a question that nobody answered is not in the data
    assert 0.4 < data.observed.mean() < 0.6
    p = fit_scorer(data, vectors, settings=QUICK).scorer.p_correct(vectors)
    assert np.abs(p - truth.p[data.keys])[data.part("test")].mean() < 0.08


def test_the_same_seed_gives_the_same_scorer() -> None:
    truth = planted_log(200, 4)
    data, vectors = Correctness.from_log(truth.log), vectors_of(truth)
    one, other = (fit_scorer(data, vectors, seed=5, settings=QUICK).scorer.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_batch_equals_single() -> None:
    truth = planted_log(200, 4)
    data, vectors = Correctness.from_log(truth.log), vectors_of(truth)
    scorer = fit_scorer(data, vectors, settings=QUICK).scorer
    batch = scorer.p_correct(vectors)
    single = np.concatenate([scorer.p_correct(vectors[i : i + 1]) for i in range(len(vectors))])
    assert np.abs(batch - single).max() < 1e-6


def test_a_scorer_is_its_formula() -> None:
    scorer, rng = Scorer(ScorerShape(3, 4, 2)), np.random.default_rng(0)
    with torch.no_grad():
        for tensor in (*scorer.parameters(), scorer.mean):
            tensor.copy_(torch.as_tensor(rng.normal(size=tuple(tensor.shape))))
        scorer.scale.fill_(2.0)
        scorer.slope.fill_(1.5)
        scorer.offset.fill_(-0.2)
    x = rng.normal(size=(5, 4)).astype(np.float32)
    a = {name: tensor.numpy().astype(float) for name, tensor in scorer.state_dict().items()}
    z = (x - a["mean"]) / 2
    logit = np.einsum("nd,dk,k,mk->nm", z, a["projection"], a["classifier"], a["model_embedding"])
    logit += a["model_bias"] + (z @ a["difficulty"])[:, None] + a["bias"]
    assert scorer.p_correct(x) == pytest.approx(1 / (1 + np.exp(-(1.5 * logit - 0.2))), abs=1e-5)


def test_a_constant_encoder_gives_every_model_its_mean() -> None:
    truth = planted_log(600, 4)
    data = Correctness.from_log(truth.log)
    p = fit_scorer(data, np.ones((600, 3), dtype=np.float32), settings=QUICK).scorer.p_correct(
        np.ones((1, 3), dtype=np.float32)
    )
    assert p[0] == pytest.approx(model_mean(data, np.zeros((0, 0), dtype=np.float32))[0], abs=0.06)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_outcomes_is_named(split: str) -> None:
    truth = planted_log(60, 3)
    data = Correctness.from_log(truth.log)
    gone = np.where((data.split == split)[:, None], np.float32(np.nan), data.label)
    with pytest.raises(ValueError, match=f"no outcome on any {split} question"):
        fit_scorer(replace(data, label=gone), vectors_of(truth), settings=QUICK)


def test_calibration_mends_overconfidence_and_leaves_a_calibrated_forecast_alone() -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 1.5, (3000, 4))
    label = (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    label[rng.random(label.shape) < 0.3] = np.nan
    fair = fit_platt(logit.astype(np.float32), label)
    assert (fair.slope, fair.offset) == pytest.approx((1.0, 0.0), abs=0.08)
    mended = fit_platt((3 * logit + 1).astype(np.float32), label)
    assert (mended.slope, mended.offset) == pytest.approx((1 / 3, -1 / 3), abs=0.05)


def test_calibration_on_nothing_changes_nothing() -> None:
    platt = fit_platt(np.zeros((4, 2), dtype=np.float32), np.full((4, 2), np.nan, dtype=np.float32))
    assert (platt.slope, platt.offset) == (1.0, 0.0)
