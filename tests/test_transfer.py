"""How far forecasts carry to a new benchmark: planted errors are measured, and learned from the labels of a few."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from training.forecast import Shift
from training.posterior import Models, Posterior
from training.transfer import UNMEASURED, Shared, Transfer, measure_transfer, new_items, shared_error, shift_of

Floats = NDArray[np.float64]

N_MODELS, N_BENCHMARKS, EACH, DIM = 30, 10, 120, 2
N = N_BENCHMARKS * EACH


@dataclass(frozen=True)
class Planted:
    """Questions whose text says nothing of their embeddings; benchmarks that differ by a shared error."""

    models: Models
    questions: Posterior
    points: NDArray[np.float32]
    label: NDArray[np.float32]
    benchmarks: NDArray[np.str_]

    def measure(self, benchmarks: NDArray[np.str_] | None = None) -> Transfer:
        names = self.benchmarks if benchmarks is None else benchmarks
        return measure_transfer(self.models, np.eye(DIM), self.questions, self.points, 0, self.label, names)


def planted(between: float, own: float, seed: int = 0) -> Planted:
    rng = np.random.default_rng(seed)
    models = Models(rng.normal(1, 0.4, (N_MODELS, DIM)), rng.normal(0, 0.7, N_MODELS))
    benchmark = np.repeat(np.arange(N_BENCHMARKS), EACH)
    mean = rng.normal(0, between, (N_BENCHMARKS, DIM))[benchmark] + rng.normal(0, 0.5, (N, DIM))
    logit = mean @ models.embedding.T + models.bias + rng.normal(0, own, (N_BENCHMARKS, N_MODELS))[benchmark]
    label = (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    points = rng.normal(size=(N, 3)).astype(np.float32)
    names = np.array([f"b{i}" for i in range(N_BENCHMARKS)])[benchmark]
    return Planted(models, Posterior(mean, np.tile(0.01 * np.eye(DIM), (N, 1, 1))), points, label, names)


def test_shared_errors_and_models_own_shifts_are_told_apart() -> None:
    near, far, own = planted(0.1, 0.05).measure(), planted(1.5, 0.05).measure(), planted(0.1, 0.8).measure()
    assert np.trace(far.between) > 20 * np.trace(near.between)
    assert far.own.scale < 0.35
    assert own.own.scale == pytest.approx(0.8, rel=0.4)
    assert np.trace(own.between) < 0.3
    assert near.n_benchmarks == N_BENCHMARKS
    assert np.diag(near.residual) == pytest.approx([0.26, 0.26], abs=0.06)  # 0.5^2 and what is not known exactly


def test_text_that_says_nothing_is_not_trusted_and_text_that_says_all_is() -> None:
    made = planted(0.1, 0.05)
    assert made.measure().trust < 0.5
    telling = (made.questions.mean / 2).astype(np.float32)
    assert Planted(made.models, made.questions, telling, made.label, made.benchmarks).measure().trust > 0.8


def test_nothing_is_measured_on_a_single_benchmark() -> None:
    made = planted(0.5, 0.1)
    found = made.measure(np.full(N, "all"))
    assert (found.trust, found.own, found.n_benchmarks) == (1.0, UNMEASURED, 1)
    assert np.array_equal(found.between, np.eye(DIM))


TRANSFER = Transfer(1.0, 0.25 * np.eye(DIM), 4.0 * np.eye(DIM), Shift(0.2), 10)


def labelled(shared: Floats, n: int, n_models: int, seed: int = 1) -> tuple[Models, Floats, NDArray[np.float32]]:
    """Models, text's forecasts and the labels that the first models gave the first items, the rest NaN."""
    rng = np.random.default_rng(seed)
    models = Models(rng.normal(1, 0.5, (N_MODELS, DIM)), rng.normal(0, 0.5, N_MODELS))
    text = rng.normal(0, 0.5, (200, DIM))
    logit = (text + shared + rng.normal(0, 0.5, text.shape)) @ models.embedding.T + models.bias
    label = (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    label[n:], label[:, n_models:] = np.nan, np.nan
    return models, text, label


def test_what_a_benchmark_does_to_all_models_is_learned_from_their_labels() -> None:
    truth = np.array([-1.5, 2.0])
    models, text, label = labelled(truth, 80, N_MODELS)
    found = shared_error(TRANSFER, models, text, label)
    assert (np.abs(found.mean - truth) < 3.5 * np.sqrt(np.diag(found.covariance))).all()
    assert np.sqrt(np.diag(found.covariance)).max() < 0.5
    width = shift_of(TRANSFER, found, models.embedding[0]).scale
    assert 0.2 < width < shift_of(TRANSFER, Shared(truth, TRANSFER.between), models.embedding[0]).scale / 3


def test_labels_of_one_model_leave_its_own_shift_open() -> None:
    """However many they are, they do not tell the shared error better than that model's shift is known."""
    models, text, label = labelled(np.zeros(DIM), 200, 1)
    found = shared_error(TRANSFER, models, text, label)
    u = models.embedding[0]
    assert u @ found.covariance @ u > 0.9 * 0.2**2
    across = np.array([-u[1], u[0]]) / np.linalg.norm(u)
    assert across @ found.covariance @ across == pytest.approx(4.0, rel=0.01)


def test_without_labels_the_prior_stays() -> None:
    models, text, label = labelled(np.zeros(DIM), 0, 0)
    found = shared_error(TRANSFER, models, text, label)
    assert not found.mean.any()
    assert np.array_equal(found.covariance, TRANSFER.between)
    items = new_items(TRANSFER, models, text, label, found)
    assert items.mean == pytest.approx(text)
    assert items.covariance == pytest.approx(np.tile(TRANSFER.residual, (200, 1, 1)))


def test_labels_that_contradict_everything_end_finite() -> None:
    models, text, label = labelled(np.zeros(DIM), 50, N_MODELS)
    found = shared_error(TRANSFER, models, text, np.where(np.isnan(label), label, 0).astype(np.float32))
    assert np.isfinite(found.mean).all()
    assert (models.embedding @ found.mean).mean() < -2
