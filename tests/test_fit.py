"""The fit finds a planted truth, and what it must not see does not move it."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize

from router.encoder.base import Vectors
from router.forest import Forest
from router.scorer import Features, Scorer, kernel
from router.surface import N_SURFACE, describe
from tests.planted import TOPICS, Planted, planted_log
from training import fit
from training.alternation import FitSettings, Log
from training.baselines import model_mean
from training.calibrate import MIN_SLOPE, _Cells, fit_own, fit_platt
from training.dataset import Correctness
from training.fit import fit_scorer, smoothest_within_one_error
from training.folds import deal_folds
from training.metrics import Cells, nll_by_cell
from training.posterior import Models, Outcomes, infer, start_models, update_models
from training.process import Basis, Smoother

QUICK = FitSettings(noises=(2.0, 0.5), n_folds=2)


def vectors_of(truth: Planted, seed: int = 0) -> Vectors:
    """One-hot topics under noise, of shape (n_questions, 8)."""
    topics = truth.log.questions["benchmark"].map(TOPICS.index).to_numpy()
    noise = np.random.default_rng(seed).normal(0, 0.1, (len(topics), 2 * len(TOPICS)))
    noise[np.arange(len(topics)), topics] += 1
    return noise.astype(np.float32)


def fit_and_forecast(data: Correctness, vectors: Vectors, seed: int = 0) -> NDArray[np.float64]:
    return fit_scorer(data, vectors, seed, QUICK).scorer.p_correct(vectors, describe(data.prompts))


def test_a_planted_truth_is_recovered() -> None:
    truth = planted_log(1500, 6)
    data, vectors = Correctness.from_log(truth.log), vectors_of(truth)
    test = data.part("test")
    p = fit_and_forecast(data, vectors)
    assert np.abs(p - truth.p)[test].mean() < 0.06
    best_possible = nll_by_cell(Cells.from_grid(data.label[test], truth.p[test])).mean()
    reached = nll_by_cell(Cells.from_grid(data.label[test], p[test])).mean()
    knows_no_prompt = nll_by_cell(Cells.from_grid(data.label[test], model_mean(data, vectors)[test])).mean()
    assert reached < best_possible + 0.02 < knows_no_prompt - 0.1


def test_test_labels_are_never_read() -> None:
    truth = planted_log(300, 4)
    data, vectors = Correctness.from_log(truth.log), vectors_of(truth)
    flipped = np.where((data.split == "test")[:, None], 1 - data.label, data.label)
    assert np.array_equal(fit_and_forecast(data, vectors), fit_and_forecast(replace(data, label=flipped), vectors))


def test_what_was_not_observed_is_not_wrong() -> None:
    truth = planted_log(1500, 5, observed=0.5)
    data = Correctness.from_log(truth.log)
    vectors = vectors_of(truth)[data.keys]  # a question that nobody answered is not in the data
    assert 0.4 < data.observed.mean() < 0.6
    p = fit_and_forecast(data, vectors)
    assert np.abs(p - truth.p[data.keys])[data.part("test")].mean() < 0.08


def test_the_same_seed_gives_the_same_scorer() -> None:
    truth = planted_log(200, 4)
    data, vectors = Correctness.from_log(truth.log), vectors_of(truth)
    one, other = (fit_scorer(data, vectors, 5, QUICK).scorer.tensors() for _ in range(2))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_batch_equals_single_and_saved_equals_kept() -> None:
    truth = planted_log(200, 4)
    data, vectors = Correctness.from_log(truth.log), vectors_of(truth)
    scorer, surface = fit_scorer(data, vectors, settings=QUICK).scorer, describe(data.prompts)
    batch = scorer.p_correct(vectors, surface)
    single = np.concatenate([scorer.p_correct(vectors[i : i + 1], surface[i : i + 1]) for i in range(len(vectors))])
    assert np.abs(batch - single).max() < 1e-5
    back = Scorer.from_tensors(scorer.tensors())
    assert np.array_equal(back.p_correct(vectors, surface), batch)


def test_a_constant_encoder_leaves_what_surfaces_tell() -> None:
    truth = planted_log(600, 4)
    data = Correctness.from_log(truth.log)
    p = fit_and_forecast(data, np.ones((600, 3), dtype=np.float32))
    assert p.mean(axis=0) == pytest.approx(model_mean(data, np.zeros((0, 0), dtype=np.float32))[0], abs=0.05)


def test_a_model_with_few_outcomes_stays_near_the_mean_model() -> None:
    truth = planted_log(600, 6)
    data, vectors = Correctness.from_log(truth.log), vectors_of(truth)
    label = data.label.copy()
    seen = np.flatnonzero(data.split != "test")
    label[seen[3:], 5] = np.nan
    scorer = fit_scorer(replace(data, label=label), vectors, settings=QUICK).scorer
    others = scorer.model_embedding[:5]
    assert (
        np.linalg.norm(scorer.model_embedding[5] - others.mean(axis=0))
        < np.linalg.norm(others - others.mean(axis=0), axis=1).min()
    )


def test_two_questions_are_the_least_to_learn_from() -> None:
    data = Correctness.from_log(planted_log(60, 3).log)
    vectors = np.zeros((60, 2), dtype=np.float32)
    none = np.full_like(data.label, np.nan)
    none[np.flatnonzero(data.split != "test")[0]] = 1
    with pytest.raises(ValueError, match="outcomes on 1 train and val questions"):
        fit_scorer(replace(data, label=none), vectors, settings=QUICK)


def one_leaf(*value: float) -> Forest:
    """A forest of one tree that says the same of every point."""
    none = np.zeros(1, dtype=np.int32)
    return Forest(none, none, none.astype(np.float32), np.zeros(2, dtype=np.int32), np.array([value], np.float32), 0)


@pytest.mark.parametrize(
    ("forest", "share", "spread"),
    [(Forest.nothing(2), 0.0, 1.0), (one_leaf(0.3, -0.8), 0.5, 1.0), (one_leaf(0.3, -0.8, 2.5), 0.5, 2.5)],
    ids=["process alone", "an artifact from before spreads", "a spread"],
)
def test_a_scorer_is_its_formula(forest: Forest, share: float, spread: float) -> None:
    rng = np.random.default_rng(0)
    scorer = Scorer(
        Features(*(rng.normal(size=n).astype(np.float32) ** 2 for n in (4, N_SURFACE, N_SURFACE))),
        landmarks=rng.normal(size=(7, 4 + N_SURFACE)).astype(np.float32),
        weights=rng.normal(size=(7, 2)).astype(np.float32),
        prior_mean=rng.normal(size=2).astype(np.float32),
        forest=forest,
        forest_share=share,
        residual=np.array([[0.5, 0.1], [0.1, 0.3]], dtype=np.float32),
        known=np.zeros((7, 1), dtype=np.float32),
        signal=np.zeros((2, 2), dtype=np.float32),
        model_embedding=rng.normal(size=(3, 2)).astype(np.float32),
        model_bias=rng.normal(size=3).astype(np.float32),
        model_covariance=np.stack([root @ root.T for root in rng.normal(size=(3, 3, 3))]).astype(np.float32),
        slope=1.5,
        offset=-0.2,
        own_calibration=np.array([[1, 0], [0.8, 0.3], [1.1, -0.5]], dtype=np.float32),
    )
    vectors, surface = rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=(5, N_SURFACE)).astype(np.float32)
    f = scorer.features
    for n in range(5):
        direction = (vectors[n] - f.vector_mean) / np.linalg.norm(vectors[n] - f.vector_mean)
        look = np.clip((surface[n] - f.surface_mean) / f.surface_scale, -4, 4) / np.sqrt(N_SURFACE)
        point = np.concatenate([direction, look])
        squared = (point - scorer.landmarks) ** 2
        similarity = 0.5 * np.exp(-squared[:, :4].sum(axis=1)) + np.exp(-squared.sum(axis=1) / 2)
        t = (1 - share) * (scorer.prior_mean + similarity @ scorer.weights) + share * np.array([0.3, -0.8])
        for m in range(3):
            u = scorer.model_embedding[m]
            joined, unsure = np.append(t, 1), scorer.model_covariance[m]
            residual = spread * scorer.residual
            variance = u @ residual @ u + joined @ unsure @ joined + np.trace(unsure[:2, :2] @ residual)
            logit = (scorer.model_bias[m] + u @ t) / np.sqrt(1 + np.pi / 8 * variance)
            slope, offset = scorer.own_calibration[m]
            expected = 1 / (1 + np.exp(-(slope * (1.5 * logit - 0.2) + offset)))
            assert scorer.p_correct(vectors, surface)[n, m] == pytest.approx(expected, abs=1e-5)
            assert scorer.forecast(vectors, surface).p_correct[n, m] == pytest.approx(expected, abs=1e-5)


def of_two_kinds(n: int = 1200, n_models: int = 30) -> tuple[Correctness, Vectors, NDArray[np.int64]]:
    """Of texts of kind 0 one side decides the outcome; of kind 1 nothing that can be read does."""
    rng = np.random.default_rng(0)
    kind, side = rng.integers(2, size=n), rng.choice([-1.0, 1.0], n)
    hidden = np.where(kind == 1, rng.choice([-1.0, 1.0], n), side)
    p_right = 1 / (1 + np.exp(-1.5 * hidden))[:, None] * np.ones(n_models)
    label = (rng.random((n, n_models)) < p_right).astype(np.float32)
    vectors = np.stack([kind * 2.0 - 1, side, np.ones(n)], axis=1).astype(np.float32)
    vectors += rng.normal(0, 0.05, vectors.shape).astype(np.float32)
    return replace(Correctness.from_log(planted_log(n, n_models).log), label=label), vectors, kind


def test_the_forest_tells_which_texts_tell_less() -> None:
    data, vectors, kind = of_two_kinds()
    scorer = fit_scorer(data, vectors, settings=replace(QUICK, forest_shares=(0.5,))).scorer
    spread = scorer.forest(scorer.features(vectors, describe(data.prompts)))[:, -1]
    unseen = data.split == "test"
    assert spread[unseen & (kind == 1)].mean() > 1.5 * spread[unseen & (kind == 0)].mean()
    assert spread[~unseen].mean() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("is_misled", [False, True])
def test_a_spread_that_does_not_help_held_out_questions_is_left_out(is_misled: bool) -> None:
    data, vectors, _ = of_two_kinds()
    log = Log.of(data, vectors, np.arange(data.n_questions))
    folds = deal_folds(data.groups, 2, 0)
    scorers = [fit._fit_once(log.rows(folds != k), 2.0, 0, QUICK).scorer for k in (0, 1)]
    if is_misled:  # as by templates that say nothing, of which each has copies with its outcomes
        turned = [np.append(s.forest.value[:, :-1], 4 * (s.forest.value[:, -1:] < 1), axis=1) for s in scorers]
        scorers = [
            replace(s, forest=replace(s.forest, value=v.astype(np.float32)))
            for s, v in zip(scorers, turned, strict=True)
        ]
    mixing = fit._choose_mixing(log, folds, scorers, (0.5,))
    assert mixing.with_spread is not is_misled
    closed = fit._Closing.fit(mixing, mixing.logits, log.label).close(scorers[0])
    assert closed.has_spread is not is_misled
    calibrated = closed.p_correct(log.vectors[folds == 0], log.surface[folds == 0])
    slope, offset = closed.slope, closed.offset
    expected = slope * mixing.logits[folds == 0].astype(np.float64) + offset  # what was chosen is what is served
    own = closed.own_calibration
    assert calibrated == pytest.approx(1 / (1 + np.exp(-(expected * own[:, 0] + own[:, 1]))), abs=1e-5)


def test_a_question_without_outcomes_keeps_its_prior_and_one_with_many_follows_them() -> None:
    models = Models(np.array([[1.0], [1.0], [1.0], [1.0]]), np.zeros(4))
    label = np.array([[np.nan] * 4, [1, 1, 1, 1], [0, 0, 0, 0]], dtype=np.float32)
    prior_mean, prior = np.full((3, 1), 0.3), np.array([[0.8]])
    posterior = infer(Outcomes.from_grid(label), models, prior_mean, prior, steps=20)
    assert posterior.mean[0] == pytest.approx(0.3)
    assert posterior.covariance[0] == pytest.approx(prior)
    assert posterior.mean[1, 0] > 1.0 > 0.3 > posterior.mean[2, 0]
    assert (posterior.covariance[1:] < 0.8).all()
    t = posterior.mean[1, 0]  # the mode: 4 (1 - sigmoid(t)) = (t - 0.3) / 0.8
    assert 4 * (1 - 1 / (1 + np.exp(-t))) == pytest.approx((t - 0.3) / 0.8)


def test_models_are_recovered_when_questions_are_known() -> None:
    rng = np.random.default_rng(1)
    t = rng.normal(size=(4000, 2))
    truth = Models(np.array([[1.0, 0.5], [0.8, -1.0], [-0.5, 1.2]]), np.array([0.2, -0.4, 0.0]))
    p = 1 / (1 + np.exp(-(t @ truth.embedding.T + truth.bias)))
    outcomes = Outcomes.from_grid((rng.random(p.shape) < p).astype(np.float32))
    known = infer(outcomes, truth, t, 1e-9 * np.eye(2))
    found = update_models(outcomes, start_models(outcomes, 2, 0), known, steps=20)
    assert found.embedding == pytest.approx(truth.embedding, abs=0.12)
    assert found.bias == pytest.approx(truth.bias, abs=0.1)


def test_leave_one_out_does_not_see_the_one() -> None:
    rng = np.random.default_rng(2)
    points, targets = rng.normal(size=(30, 3)).astype(np.float32), rng.normal(3, 1, size=(30, 2))
    smoother = Smoother.of(Basis.of(points, 1, 30, 0), 0.7)
    held_out = smoother.leave_one_out(targets)
    gram = kernel(points, points, 1).astype(np.float64) + 1e-4 * np.eye(30)
    hat = gram @ np.linalg.inv(gram + 0.7 * np.eye(30))
    for i in (0, 7, 29):
        moved = targets.copy()
        moved[i] += 10
        assert smoother.leave_one_out(moved)[i] == pytest.approx(held_out[i], abs=1e-2)
        moved[i] = held_out[i]  # with its own forecast for a target, a question is forecast just so
        mean = moved.mean(axis=0)
        assert mean + hat[i] @ (moved - mean) == pytest.approx(held_out[i], abs=1e-2)
    assert not smoother.leave_one_out(targets[:30] * 0).any()


def test_questions_that_nearly_all_get_right_have_the_mode_they_should() -> None:
    models = Models(np.ones((112, 1)), np.full(112, np.log(0.95 / 0.05)))
    n_right = np.array([0, 56, 112])
    label = (np.arange(112) < n_right[:, None]).astype(np.float32)
    found = infer(Outcomes.from_grid(label), models, np.zeros((3, 1)), np.eye(1), steps=12).mean[:, 0]

    def slope(t: float, n: int) -> float:
        return float(n - 112 / (1 + np.exp(-t - models.bias[0])) - t)

    assert found == pytest.approx([brentq(slope, -20, 20, args=(n,)) for n in n_right.tolist()], abs=1e-3)


@pytest.mark.parametrize("strength", [2.0, 3.0])
def test_a_log_where_nearly_all_is_right_can_be_fitted(strength: float) -> None:
    rng = np.random.default_rng(0)
    log = Correctness.from_log(planted_log(300, 60, strength=1.0).log)
    right = (rng.random(log.label.shape) < 1 / (1 + np.exp(-strength))).astype(np.float32)
    scorer = fit_scorer(
        replace(log, label=right), vectors_of(planted_log(300, 60, strength=1.0)), settings=QUICK
    ).scorer
    p = scorer.p_correct(vectors_of(planted_log(300, 60, strength=1.0)), describe(log.prompts))
    assert p.mean() == pytest.approx(right.mean(), abs=0.02)


def test_fewer_landmarks_than_questions_approximate_all() -> None:
    rng = np.random.default_rng(3)
    points = rng.normal(size=(400, 2)).astype(np.float32)
    targets = np.sin(points[:, :1].astype(np.float64))
    exact, sparse = (Smoother.of(Basis.of(points, 1, n, 0), 0.1) for n in (400, 60))
    new = np.clip(rng.normal(size=(50, 2)), -1.5, 1.5).astype(np.float32)
    one, other = (kernel(new, s.basis.landmarks, 1) @ s.weights(targets) for s in (exact, sparse))
    assert np.abs(one - other).max() < 0.05


def test_of_equally_good_fits_the_smoothest_is_chosen() -> None:
    rng = np.random.default_rng(4)
    best = rng.random(500)
    noise = rng.normal(0, 0.1, 500)
    noise -= noise.mean()
    clearly_worse, hardly_worse = best + 0.05 + noise, best + 0.001 + noise
    assert smoothest_within_one_error(np.array([clearly_worse, hardly_worse, best])) == 1
    assert smoothest_within_one_error(np.array([clearly_worse, clearly_worse, best])) == 2
    assert smoothest_within_one_error(np.array([best])) == 0


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


def test_each_model_is_calibrated_as_far_as_its_outcomes_tell() -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 1.5, (20_000, 8))
    truth = np.array([[1, 0], [1.3, 0], [0.7, 0], [1, 0.4], [1, -0.4], [1, 0], [1, 0], [1, 0]])
    label = (rng.random(logit.shape) < 1 / (1 + np.exp(-(truth[:, 0] * logit + truth[:, 1])))).astype(np.float32)
    label[:, 6], label[30:, 7], label[:30, 7] = np.nan, np.nan, 1
    own = fit_own(logit, label)
    assert own[:6] == pytest.approx(truth[:6], abs=0.06)
    assert own[6].tolist() == [1.0, 0.0]
    assert 2 > own[7, 1] > 0.1  # thirty right answers in a row say something, but no certainty


def test_models_that_are_alike_keep_one_calibration() -> None:
    rng = np.random.default_rng(1)
    logit = rng.normal(0, 1.5, (300, 40))
    label = (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    own = fit_own(logit, label)
    alone = np.array([[fit_platt(logit[:, [m]].astype(np.float32), label[:, [m]]).offset] for m in range(40)])
    assert np.abs(own - [1, 0]).max() < 0.1 < np.abs(alone).max()


@pytest.mark.parametrize("slope", [0.0, -0.3, -1.0, -3.0])
def test_a_model_that_contradicts_its_logits_is_hardly_told_apart_and_never_reversed(slope: float) -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 1.5, (1000, 10))
    truth = np.where(np.arange(10) == 0, slope, 1.0)
    label = (rng.random(logit.shape) < 1 / (1 + np.exp(-truth * logit))).astype(np.float32)
    own = fit_own(logit, label)
    assert own[0] == pytest.approx([MIN_SLOPE, 0], abs=0.03)
    assert own[1:, 0] == pytest.approx(np.ones(9), abs=0.3)


def test_a_model_that_fails_where_its_logits_are_sure_is_corrected() -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(8, 1, (1000, 10))
    label = (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    label[:, 0], label[:300, 0] = np.nan, 0
    own = fit_own(logit, label)
    assert own[0, 0] * 8 + own[0, 1] < 0.5, "all of its outcomes were wrong, which were sure to be right"
    assert own[1:] == pytest.approx(np.tile([1.0, 0.0], (9, 1)), abs=0.3)


@pytest.mark.parametrize("slope", [1.5, 0.4, -2.0])
def test_no_other_calibration_of_a_positive_slope_is_likelier(slope: float) -> None:
    rng = np.random.default_rng(3)
    logit = rng.normal(0.5, 2, 400)
    label = (rng.random(400) < 1 / (1 + np.exp(-slope * logit - 0.3))).astype(np.float32)
    precision = np.array([4.0, 4.0])
    found = _Cells.of(logit, label).maximize(np.zeros(2), precision)

    def loss(theta: NDArray[np.float64]) -> float:
        z = (1 + theta[0]) * logit + theta[1]
        return float((np.logaddexp(0, z) - label * z).sum() + precision @ theta**2 / 2)

    best = minimize(loss, np.zeros(2), bounds=[(MIN_SLOPE - 1, None), (None, None)])
    assert found.theta == pytest.approx(best.x, abs=1e-3)
    assert found.log_likelihood == pytest.approx(precision @ found.theta**2 / 2 - loss(found.theta))


def test_a_scorer_without_models_own_calibration_has_the_pooled_one() -> None:
    truth = planted_log(200, 4)
    data, vectors = Correctness.from_log(truth.log), vectors_of(truth)
    scorer, surface = fit_scorer(data, vectors, settings=QUICK).scorer, describe(data.prompts)
    tensors = scorer.tensors()
    del tensors["own_calibration"]
    neutral = np.tile(np.array([1, 0], dtype=np.float32), (4, 1))
    same = replace(scorer, own_calibration=neutral).p_correct(vectors, surface)
    assert np.array_equal(Scorer.from_tensors(tensors).p_correct(vectors, surface), same)


def test_novelty_is_the_process_s_own_variance() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(60, 5 + 2)).astype(np.float32) * 0.4
    smoother = Smoother.of(Basis.of(points, 2, 60, 0), 0.7)
    new = rng.normal(size=(9, 7)).astype(np.float32)
    gram, cross = (kernel(a, points, 2).astype(np.float64) for a in (points, new))
    exact = np.einsum("ni,ij,nj->n", cross, np.linalg.inv(gram + 0.7 * np.eye(60)), cross)
    assert np.square(cross @ smoother.basis.span.known(0.7, 60)).sum(axis=1) == pytest.approx(exact, rel=1e-3)
    assert (np.square(cross @ smoother.basis.span.known(0.7, 10)).sum(axis=1) <= exact + 1e-3).all()


def test_intervals_hold_the_forecast_and_widen_out_of_coverage() -> None:
    truth = planted_log(600, 5)
    data, vectors = Correctness.from_log(truth.log), vectors_of(truth)
    fitted, surface = fit_scorer(data, vectors, settings=QUICK), describe(data.prompts)
    scorer = fitted.scorer
    known = scorer.forecast(vectors, surface)
    assert np.array_equal(known.p_correct, scorer.p_correct(vectors, surface))
    assert (known.low < known.p_correct).all()
    assert (known.p_correct < known.high).all()
    strange = scorer.forecast(-vectors[:50], surface[:50] + 9)
    assert strange.novelty.min() > 0.8 > 0.3 > known.novelty.max()
    assert np.median(strange.high - strange.low) > 1.5 * np.median(known.high - known.low)
    unseen = known.novelty[data.part("test")]
    assert strange.novelty.min() > fitted.max_novelty > np.quantile(unseen, 0.95)


def test_what_is_usual_is_about_each_models_share_of_right_answers() -> None:
    truth = planted_log(600, 5)
    data, vectors = Correctness.from_log(truth.log), vectors_of(truth)
    scorer = fit_scorer(data, vectors, settings=QUICK).scorer
    assert np.abs(scorer.usual - truth.p.mean(axis=0)).max() < 0.05
    without = replace(scorer, prompts=scorer.prompts[:0])  # as of earlier artifacts: strong models too strong
    assert np.abs(without.usual - truth.p.mean(axis=0)).max() > 2 * np.abs(scorer.usual - truth.p.mean(axis=0)).max()


def test_what_a_fit_says_of_abstaining_holds_on_test() -> None:
    truth = planted_log(1500, 5)
    data, vectors = Correctness.from_log(truth.log), vectors_of(truth)
    nobody_knows = np.isin(data.benchmarks, ["chess", "dance"])
    p_right = np.where(nobody_knows[:, None], 0.3, truth.p)
    label = (np.random.default_rng(0).random(p_right.shape) < p_right).astype(np.float32)
    fitted = fit_scorer(replace(data, label=label), vectors, settings=QUICK)
    test = data.part("test")
    p = fitted.scorer.p_correct(vectors, describe(data.prompts))[test]
    assert fitted.abstention.threshold(0.02) is None  # nobody is right more often than in 88%
    least = fitted.abstention.threshold(0.2)
    assert least is not None
    answered = p.max(axis=1) >= least
    assert answered.mean() == pytest.approx(1 - nobody_knows[test].mean(), abs=0.1)
    assert 1 - p_right[test, p.argmax(axis=1)][answered].mean() < 0.2
