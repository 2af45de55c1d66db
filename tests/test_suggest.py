"""Designs that are chosen by hand or by brute force come out the same."""

import numpy as np
import pytest

from training.fold_in import ModelPosterior
from training.posterior import Posterior
from training.suggest import d_optimal, information_points, stratified


def test_strata_are_drawn_in_proportion_and_each_question_once() -> None:
    stratum = np.repeat([0, 1, 2], [600, 300, 100])
    drawn = stratified(stratum, 50, seed=3)
    assert len(set(drawn.tolist())) == 50
    assert np.bincount(stratum[drawn]).tolist() == [30, 15, 5]
    assert stratified(stratum, 50, seed=3).tolist() == drawn.tolist()
    assert stratified(stratum, 50, seed=4).tolist() != drawn.tolist()
    assert sorted(stratified(stratum, 5000).tolist()) == list(range(1000))


def test_within_a_stratum_every_question_is_as_likely() -> None:
    stratum = np.repeat([0, 1], [12, 4])
    counts = sum(np.bincount(stratified(stratum, 8, seed), minlength=16) for seed in range(800))
    assert counts == pytest.approx(np.full(16, 400), abs=4 * np.sqrt(800 / 4))


def test_greedy_updates_choose_what_determinants_would() -> None:
    rng = np.random.default_rng(0)
    points, prior = rng.normal(size=(40, 3)), ModelPosterior(np.zeros(3), np.diag([1.0, 2.0, 0.5]))
    precision, chosen = np.linalg.inv(prior.covariance), list[int]()
    for _ in range(10):
        left = [i for i in range(40) if i not in chosen]
        best = max(left, key=lambda i: np.linalg.det(precision + np.outer(points[i], points[i])))
        precision = precision + np.outer(points[best], points[best])
        chosen.append(best)
    assert d_optimal(points, prior, 10).tolist() == chosen
    assert len(set(d_optimal(points, prior, 400).tolist())) == 40


def test_what_is_not_known_of_a_question_dampens_what_it_tells() -> None:
    prior = ModelPosterior(np.array([1.0, 0.0]), np.eye(2))
    mean = np.array([[1.0], [1.0]])
    sure, vague = information_points(prior, Posterior(mean, np.array([[[0.0]], [[4.0]]])))
    assert np.linalg.norm(vague) < np.linalg.norm(sure)
