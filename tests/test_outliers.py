"""A model that is nothing like its pool is believed by its answers; one that is like it stays where it was."""

import numpy as np
import pytest

from training.fold_in import ModelPosterior, fold_in
from training.outliers import fold_in_outlier
from training.posterior import Posterior

DIM = 3


def questions(n: int) -> Posterior:
    return Posterior(np.random.default_rng(0).normal(size=(n, DIM)), np.zeros((n, DIM, DIM)))


@pytest.mark.parametrize("bias", [7.0, 2.0, -2.0, -7.0])
def test_answers_that_contradict_a_uniform_pool_are_believed(bias: float) -> None:
    pool = ModelPosterior(np.append(np.zeros(DIM), bias), 0.05 * np.eye(DIM + 1))
    asked = questions(50)
    contrary = np.full(50, float(bias < 0))
    found = fold_in_outlier(pool, asked, contrary)
    share = found.p_correct(questions(500)).mean()
    assert abs(share - contrary[0]) < 0.12
    plain = fold_in(pool, asked, contrary).p_correct(questions(500)).mean()
    assert abs(plain - contrary[0]) > 1.3 * abs(share - contrary[0])


def test_a_model_of_the_pool_is_folded_in_as_ever() -> None:
    rng, pool = np.random.default_rng(1), ModelPosterior(np.zeros(DIM + 1), 0.5 * np.eye(DIM + 1))
    n_same = 0
    for _ in range(50):
        theta, asked = rng.multivariate_normal(pool.mean, pool.covariance), questions(50)
        label = (rng.random(50) < 1 / (1 + np.exp(-(asked.mean @ theta[:-1] + theta[-1])))).astype(float)
        n_same += np.array_equal(fold_in_outlier(pool, asked, label).mean, fold_in(pool, asked, label).mean)
    assert n_same >= 48


def test_unobserved_answers_and_repeats_count_as_they_do_elsewhere() -> None:
    pool = ModelPosterior(np.append(np.zeros(DIM), 4.0), 0.05 * np.eye(DIM + 1))
    asked, label = questions(40), np.where(np.arange(40) < 20, 0.0, np.nan)
    first = Posterior(asked.mean[:20], asked.covariance[:20])
    assert fold_in_outlier(pool, asked, label).mean == pytest.approx(fold_in_outlier(pool, first, label[:20]).mean)
    once = fold_in_outlier(pool, first, label[:20], np.ones(20, dtype=np.float32))
    assert once.mean == pytest.approx(fold_in_outlier(pool, first, label[:20]).mean)
