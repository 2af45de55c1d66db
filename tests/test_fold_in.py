"""A model folded in from answers: the planted one is found, few answers leave it near the pool, none leave it there."""

import numpy as np
import pytest

from training.fold_in import (
    FAMILY_CORRELATION,
    ModelPosterior,
    answers_to_halve,
    expect_accuracies,
    family_prior,
    fold_in,
    pool_prior,
)
from training.posterior import Posterior

DIM = 3


def planted(n: int, seed: int = 0) -> tuple[Posterior, np.ndarray, np.ndarray]:
    """Questions known exactly, a model's (embedding, bias), and its answers to them."""
    rng = np.random.default_rng(seed)
    questions = Posterior(rng.normal(size=(n, DIM)), np.zeros((n, DIM, DIM)))
    theta = np.array([1.0, -0.8, 0.5, 0.3])
    p = 1 / (1 + np.exp(-(questions.mean @ theta[:-1] + theta[-1])))
    return questions, theta, (rng.random(n) < p).astype(float)


PRIOR = ModelPosterior(np.zeros(DIM + 1), np.eye(DIM + 1))


def test_a_planted_model_is_found_within_its_own_error() -> None:
    questions, theta, label = planted(5000)
    found = fold_in(PRIOR, questions, label)
    error = np.sqrt(np.diag(found.covariance))
    assert (error < 0.06).all()
    assert (np.abs(found.mean - theta) < 4 * error).all()


def test_no_answer_leaves_the_prior_and_unobserved_is_no_answer() -> None:
    questions, _, label = planted(40)
    untouched = fold_in(PRIOR, questions, np.full(40, np.nan))
    assert untouched.mean == pytest.approx(PRIOR.mean)
    assert untouched.covariance == pytest.approx(PRIOR.covariance)
    half = np.where(np.arange(40) < 20, label, np.nan)
    first = Posterior(questions.mean[:20], questions.covariance[:20])
    assert fold_in(PRIOR, questions, half).mean == pytest.approx(fold_in(PRIOR, first, label[:20]).mean)


def test_a_share_that_weighs_as_its_repeats_is_as_many_answers() -> None:
    questions, theta, _ = planted(30)
    p = 1 / (1 + np.exp(-(questions.mean @ theta[:-1] + theta[-1])))
    n_right = np.random.default_rng(1).binomial(10, p)
    once = fold_in(PRIOR, questions, n_right / 10)
    weighed = fold_in(PRIOR, questions, n_right / 10, np.full(30, 10, dtype=np.float32))
    each = Posterior(np.repeat(questions.mean, 10, axis=0), np.repeat(questions.covariance, 10, axis=0))
    apart = fold_in(PRIOR, each, (np.arange(10) < n_right[:, None]).astype(float).ravel())
    assert weighed.mean == pytest.approx(apart.mean, abs=1e-5)
    assert weighed.covariance == pytest.approx(apart.covariance, abs=1e-5)
    assert np.trace(weighed.covariance) < 0.5 * np.trace(once.covariance)


def test_the_mode_is_where_the_posterior_is_flat() -> None:
    questions, _, label = planted(60)
    theta = fold_in(PRIOR, questions, label).mean
    p = 1 / (1 + np.exp(-(questions.mean @ theta[:-1] + theta[-1])))
    gradient = np.hstack([questions.mean, np.ones((60, 1))]).T @ (label - p) - theta
    assert gradient == pytest.approx(np.zeros(DIM + 1), abs=1e-6)


def test_answers_all_right_end_finite_and_unsure() -> None:
    questions, _, _ = planted(30)
    found = fold_in(PRIOR, questions, np.ones(30))
    assert np.isfinite(found.mean).all()
    assert 0.5 < found.p_correct(questions).mean() < 1


def test_uncertain_questions_teach_less() -> None:
    questions, _, label = planted(200)
    vague = Posterior(questions.mean, np.tile(4 * np.eye(DIM), (200, 1, 1)))
    sure, unsure = fold_in(PRIOR, questions, label), fold_in(PRIOR, vague, label)
    assert np.trace(unsure.covariance) > np.trace(sure.covariance)


def test_the_pool_prior_is_the_pools_spread_shrunk_to_its_diagonal() -> None:
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(400, 2)) @ np.array([[1.0, 0.9], [0.0, 0.4]])
    bias = rng.normal(size=400)
    prior = pool_prior(embedding, bias)
    sample = np.cov(np.hstack([embedding, bias[:, None]]).T)
    assert np.diag(prior.covariance) == pytest.approx(np.diag(sample))
    assert abs(prior.covariance[0, 1]) < abs(sample[0, 1])
    assert prior.covariance == pytest.approx(sample, abs=0.05)
    assert np.isfinite(pool_prior(embedding[:1], bias[:1]).covariance).all()


def test_the_pool_prior_stays_the_nearer_to_the_pools_spread_the_less_it_is_shrunk() -> None:
    """What is nearly certain, here that two dimensions go together, must not become likely to fail."""
    skill = np.random.default_rng(0).normal(size=(25, 1))
    prior = {strength: pool_prior(np.hstack([skill, skill]), skill[:, 0], strength) for strength in (0.3, 1.0)}
    apart = np.array([1.0, -1.0, 0.0])
    of_difference = {strength: apart @ one.covariance @ apart for strength, one in prior.items()}
    variance = skill.var(ddof=1)
    for strength, found in of_difference.items():
        assert found == pytest.approx(2 * variance * 3 * strength / (25 + 3 * strength))


def test_the_interval_of_an_accuracy_holds_it_as_often_as_it_says() -> None:
    """Over models drawn from the prior, their answers and the luck of 150 more questions; 9 in 10 within 4 errors."""
    held = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        theta = rng.normal(size=DIM + 1)
        questions = Posterior(rng.normal(size=(200, DIM)), np.zeros((200, DIM, DIM)))
        p = 1 / (1 + np.exp(-(questions.mean @ theta[:-1] + theta[-1])))
        label = (rng.random(200) < p).astype(float)
        asked, others = (
            Posterior(questions.mean[part], questions.covariance[part]) for part in (slice(50), slice(50, None))
        )
        found = fold_in(PRIOR, asked, label[:50])
        (accuracy,) = expect_accuracies(found, others, np.zeros(150, dtype=np.int64))
        held.append(accuracy.low <= label[50:].mean() <= accuracy.high)
    assert abs(np.mean(held) - 0.9) < 4 * np.sqrt(0.9 * 0.1 / 150)


def test_groups_are_told_apart_and_add_up() -> None:
    questions, _, label = planted(300)
    found = fold_in(PRIOR, questions, label)
    group = (questions.mean[:, 0] > 0).astype(np.int64)
    low, high = expect_accuracies(found, questions, group)
    (both,) = expect_accuracies(found, questions, np.zeros(300, dtype=np.int64))
    assert low.n_questions + high.n_questions == both.n_questions == 300
    assert low.expected < both.expected < high.expected
    total = low.expected * low.n_questions + high.expected * high.n_questions
    assert total == pytest.approx(both.expected * 300)


def test_a_shift_that_all_questions_share_is_not_averaged_away() -> None:
    questions, theta, _ = planted(5000)
    known = ModelPosterior(theta, 1e-9 * np.eye(DIM + 1))
    group = np.zeros(5000, dtype=np.int64)
    (still,), (moved,) = (expect_accuracies(known, questions, group, shift=shift) for shift in (0.0, 0.5))
    p = known.p_correct(questions)
    assert moved.expected == pytest.approx(still.expected, abs=0.01)
    assert still.error < 1e-4
    assert moved.error == pytest.approx(0.5 * (p * (1 - p)).mean(), rel=0.1)


def test_as_many_answers_as_it_says_halve_the_error() -> None:
    questions, _, label = planted(4000)
    part = Posterior(questions.mean[:60], questions.covariance[:60])
    few = fold_in(PRIOR, part, label[:60])
    n_more = answers_to_halve(few, questions)
    assert n_more is not None
    assert 100 < n_more < 300
    more = Posterior(questions.mean[: 60 + n_more], questions.covariance[: 60 + n_more])
    many = fold_in(PRIOR, more, label[: 60 + n_more])
    everything = np.zeros(4000, dtype=np.int64)
    before, after = (expect_accuracies(one, questions, everything)[0].error for one in (few, many))
    assert after / before == pytest.approx(0.5, abs=0.1)


def test_relatives_draw_the_prior_to_them_and_narrow_it() -> None:
    relatives = np.full((3, DIM + 1), 2.0)
    many = 10**6
    one, three = family_prior(PRIOR, relatives[:1], many), family_prior(PRIOR, relatives, many)
    assert family_prior(PRIOR, relatives[:0], many) is PRIOR
    assert one.mean == pytest.approx(np.full(DIM + 1, 1.4))  # a correlation of .7
    assert one.covariance == pytest.approx(0.51 * np.eye(DIM + 1))
    assert three.mean == pytest.approx(np.full(DIM + 1, 1.75))
    assert three.covariance == pytest.approx(0.3875 * np.eye(DIM + 1))


def test_a_pool_of_one_family_shows_no_variance_between_families() -> None:
    relatives = np.random.default_rng(0).normal(2, 1, (8, DIM + 1))
    pool = pool_prior(relatives[:, :-1], relatives[:, -1])
    only = family_prior(pool, relatives, len(relatives))
    assert only.mean == pytest.approx(pool.mean)
    assert only.covariance == pytest.approx(pool.covariance)
    half, few = (np.trace(family_prior(PRIOR, relatives, n_pool).covariance) for n_pool in (16, 80))
    assert few < half < np.trace(PRIOR.covariance)


def test_relatives_narrow_the_prior_no_more_than_they_know() -> None:
    """Families of a size are drawn anew many times: what is expected of a new member is as far off as is said."""
    rng = np.random.default_rng(0)
    within, between = 1 - FAMILY_CORRELATION, FAMILY_CORRELATION
    for n_families in (1, 2, 8):
        missed, said = [], []
        for _ in range(400):
            family = rng.normal(0, np.sqrt(between), (n_families, 1, DIM + 1))
            models = family + rng.normal(0, np.sqrt(within), (n_families, 8, DIM + 1))
            pooled = models.reshape(-1, DIM + 1)
            prior = family_prior(pool_prior(pooled[:, :-1], pooled[:, -1]), models[0], len(pooled))
            new = family[0, 0] + rng.normal(0, np.sqrt(within), DIM + 1)
            missed.append(np.square(new - prior.mean).sum())
            said.append(np.trace(prior.covariance))
        assert np.mean(missed) == pytest.approx(np.mean(said), rel=0.35)
