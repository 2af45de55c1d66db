"""Fit a scorer to a correctness log: expectation-maximization between outcomes and text.

Each question's embedding is learned from its outcomes and from what its text forecasts; the text side in turn learns
from all embeddings. Train and val questions are learned from alike: the noise of the text side is chosen, and the
calibration fitted, on forecasts cross-fitted over folds of near-duplicate groups; then everything is fitted together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from router.encoder.base import Vectors
from router.scorer import Features, Scorer, Singles
from router.surface import describe
from training.calibrate import fit_platt
from training.dataset import Correctness
from training.metrics import Cells, nll_by_cell
from training.posterior import Models, Outcomes, infer, start_models, update_models
from training.process import Basis, Smoother

Floats = NDArray[np.float64]

MANY_CELLS = 2_000_000  # a grid from which on a second thread pays


@dataclass(frozen=True)
class FitSettings:
    """How a scorer is fitted. The defaults were chosen by cross-validation on public logs of 26 and 50 models."""

    dim_embedding: int = 8
    n_landmarks: int = 1500
    noises: Sequence[float] = (4.0, 2.0, 1.0, 0.5)  # a path: each starts where the one before ended
    n_rounds: int = 12
    n_more_rounds: int = 5  # of a warm start
    n_folds: int = 3


@dataclass(frozen=True)
class Fitted:
    """A fitted scorer, the noise level that cross-validation chose, and the loss that each level had there."""

    scorer: Scorer
    noise: float
    nll_by_noise: dict[float, float]


def fit_scorer(data: Correctness, vectors: Vectors, seed: int = 0, settings: FitSettings | None = None) -> Fitted:
    """Fit, choose and calibrate on the train and val questions.

    vectors: raw question vectors of shape (n_questions, dim). Test labels are never read. Without two groups of
    questions with outcomes there is nothing to cross-fit: ValueError.
    """
    settings = settings or FitSettings()
    rows = np.flatnonzero((data.split != "test") & data.observed.any(axis=1))
    folds = _folds(data.groups[rows], settings.n_folds, seed)
    if len(np.unique(folds)) < 2:
        raise ValueError(
            f"outcomes on {len(rows)} train and val questions: a fit needs two that are no near-duplicates"
        )
    log = _Log(data.label[rows], vectors[rows], describe([data.prompts[row] for row in rows]))
    with threadpool_limits(None if data.label.size >= MANY_CELLS else 1):
        logits = np.zeros((len(settings.noises), *log.label.shape), dtype=np.float32)  # (n_noises, N, M)
        for k in np.unique(folds):
            held_out = log.rows(folds == k)
            for scorer, z in zip(_fit_path(log.rows(folds != k), settings.noises, seed, settings), logits, strict=True):
                z[folds == k] = scorer.logits(scorer.embed(held_out.vectors, held_out.surface))
        losses = np.array([_loss_by_question(z, log.label) for z in logits])  # (n_noises, N)
        chosen = smoothest_within_one_error(losses)
        platt = fit_platt(logits[chosen], log.label)
        (scorer,) = _fit_path(log, settings.noises[chosen : chosen + 1], seed, settings)
    calibrated = replace(scorer, slope=platt.slope, offset=platt.offset)
    nll = losses.sum(axis=1) / np.count_nonzero(~np.isnan(log.label))
    return Fitted(calibrated, settings.noises[chosen], dict(zip(settings.noises, nll.tolist(), strict=True)))


def smoothest_within_one_error(losses: Floats) -> int:
    """Choose the first row whose loss is no worse than the best by more than the standard error of the difference.

    losses: summed by question, of shape (n_candidates, n_questions), the smoothest candidate first. Prompts of
    applications lie farther from the logs than the logs' folds from one another, so of equals the smoother is better
    (the one-standard-error rule, Breiman et al. 1984).
    """
    best = losses[losses.sum(axis=1).argmin()]
    for row, loss in enumerate(losses):
        worse = loss - best
        if worse.sum() <= np.sqrt(np.square(worse - worse.mean()).sum()):
            return row
    raise AssertionError("the best is no worse than itself")


@dataclass(frozen=True)
class _Log:
    """Questions to fit: labels (N, M) with NaN unobserved, raw vectors (N, D), surfaces (N, n_surface)."""

    label: NDArray[np.float32]
    vectors: Vectors
    surface: Singles

    def rows(self, rows: NDArray[np.bool_]) -> "_Log":
        return _Log(self.label[rows], self.vectors[rows], self.surface[rows])


def _fit_path(log: _Log, noises: Sequence[float], seed: int, settings: FitSettings) -> list[Scorer]:
    """Fit a log once for every noise level of the text side, from the first to the last."""
    features = measure_features(log.vectors, log.surface)
    basis = Basis.of(features(log.vectors, log.surface), log.surface.shape[1], settings.n_landmarks, seed)
    outcomes = Outcomes.from_grid(log.label)
    state = _State.start(outcomes, min(settings.dim_embedding, outcomes.label.shape[1]), seed)
    scorers = []
    for i, noise in enumerate(noises):
        text = Smoother.of(basis, noise)
        for _ in range(settings.n_more_rounds if i else settings.n_rounds):
            state = state.alternate(outcomes, text)
        scorers.append(state.scorer(features, text))
    return scorers


@dataclass(frozen=True)
class _State:
    """Where the alternation stands; mean, forecast: (N, K); residual: (K, K)."""

    models: Models
    mean: Floats
    forecast: Floats
    residual: Floats

    @classmethod
    def start(cls, outcomes: Outcomes, dim: int, seed: int) -> "_State":
        nothing = np.zeros((len(outcomes.label), dim))
        return cls(start_models(outcomes, dim, seed), nothing, nothing, np.eye(dim))

    def alternate(self, outcomes: Outcomes, text: Smoother) -> "_State":
        """Questions, then models, then text; the text's forecast of a question never saw its own outcomes."""
        questions = infer(outcomes, self.models, self.forecast, self.residual, start=self.mean)
        models = update_models(outcomes, self.models, questions)
        forecast = text.leave_one_out(questions.mean)
        error = questions.mean - forecast
        residual = questions.covariance.mean(axis=0) + error.T @ error / len(error)
        return _State(models, questions.mean, forecast, residual)

    def scorer(self, features: Features, text: Smoother) -> Scorer:
        """Freeze it for serving, uncalibrated."""
        return Scorer(
            features,
            landmarks=text.basis.landmarks,
            weights=text.weights(self.mean).astype(np.float32),
            prior_mean=self.mean.mean(axis=0).astype(np.float32),
            residual=self.residual.astype(np.float32),
            model_embedding=self.models.embedding.astype(np.float32),
            model_bias=self.models.bias.astype(np.float32),
        )


def measure_features(vectors: Vectors, surface: Singles) -> Features:
    """Learn the centre and scale of questions' vectors and surfaces."""
    scale = surface.std(axis=0)
    return Features(
        vector_mean=vectors.mean(axis=0, dtype=np.float64).astype(np.float32),
        surface_mean=surface.mean(axis=0, dtype=np.float64).astype(np.float32),
        surface_scale=np.where(scale > 1e-6, scale, 1).astype(np.float32),  # a constant feature says nothing
    )


def _loss_by_question(logits: Singles, label: NDArray[np.float32]) -> Floats:
    """Sum the log losses of uncalibrated logits over each question's observed cells, of shape (n_questions,)."""
    cells = Cells.from_grid(label, 1 / (1 + np.exp(-logits.astype(np.float64))))
    return np.bincount(cells.question, weights=nll_by_cell(cells), minlength=len(label)).astype(np.float64)


def _folds(groups: NDArray[np.int64], n_folds: int, seed: int) -> NDArray[np.int64]:
    """Deal near-duplicate groups into folds, of shape (n_questions,)."""
    distinct, group = np.unique(groups, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(distinct))
    folds: NDArray[np.int64] = shuffled[group] % min(n_folds, max(len(distinct), 1))
    return folds
