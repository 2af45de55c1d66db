"""The alternation behind a fit: questions, models and text learn from one another, at one noise level after another.

What it fits is uncalibrated and chosen by nobody: `training.fit` cross-validates, calibrates and decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from router.encoder.base import Vectors
from router.forest import Forest
from router.scorer import PEAK, Features, Scorer, Singles
from router.surface import describe
from training.chunks import each_chunk
from training.dataset import Correctness
from training.grow import grow
from training.posterior import (
    Models,
    Outcomes,
    Posterior,
    covariance_of_models,
    infer,
    start_models,
    update_models,
)
from training.process import Basis, Smoother, Span
from training.repeats import weigh

Floats = NDArray[np.float64]

N_DIRECTIONS = 128  # of the text side's posterior that are served, to tell how novel a prompt is
N_PROMPTS = 1000  # f(x) of so many training questions, or half as many, is kept: as prompts usually are
FIRST_STEPS, LATER_STEPS = 4, 2  # of Newton's method in a round: later ones start where the one before ended


@dataclass(frozen=True)
class FitSettings:
    """How a scorer is fitted. The defaults were chosen by cross-validation on public logs of 26 and 50 models."""

    dim_embedding: int = 8
    n_landmarks: int = 1000
    n_choosing_landmarks: int = 500  # to choose the noise with: levels rank alike on fewer landmarks
    noises: Sequence[float] = (1e5, 64.0, 4.0, 2.0, 1.0, 0.5)  # a path: each starts where the one before ended
    forest_shares: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8)
    n_rounds: int = 30
    n_more_rounds: int = 5  # of a warm start
    n_coarse: int = 4096  # of more than twice as many questions, so many are learned from first
    n_fine_rounds: int = 8  # and then all of them in these rounds
    n_folds: int = 3

    def of_size(self, n_questions: int) -> "FitSettings":
        """The settings for a log and all parts of it: a part is learned as the whole is."""
        return replace(self, n_coarse=self.n_coarse if n_questions > 2 * self.n_coarse else n_questions)


@dataclass(frozen=True)
class Log:
    """Questions to fit: labels (N, M) with NaN unobserved, raw vectors (N, D), surfaces (N, n_surface).

    weight: of shape (N, M), how many outcomes each label is worth; none is one each.
    """

    label: NDArray[np.float32]
    vectors: Vectors
    surface: Singles
    weight: Singles | None = None

    @classmethod
    def of(cls, data: Correctness, vectors: Vectors, rows: NDArray[np.int64]) -> "Log":
        weight = None if data.n_observations is None else weigh(data.label[rows], data.n_observations[rows])
        return cls(data.label[rows], vectors[rows], describe([data.prompts[row] for row in rows]), weight)

    def rows(self, rows: NDArray[np.bool_]) -> "Log":
        weight = None if self.weight is None else self.weight[rows]
        return Log(self.label[rows], self.vectors[rows], self.surface[rows], weight)

    def points(self, features: Features) -> Singles:
        """Where the questions lie, (N, D + n_surface)."""
        points = np.empty((len(self.label), self.vectors.shape[1] + self.surface.shape[1]), dtype=np.float32)

        def place(rows: slice) -> None:
            points[rows] = features(self.vectors[rows], self.surface[rows])

        each_chunk(len(points), place)
        return points


@dataclass(frozen=True)
class Step:
    """Where a path stood at one noise level: an uncalibrated scorer, and the posterior of what it was fitted to.

    The scorer has no trees yet and cannot tell what is novel: both take time that only the chosen level is worth.
    """

    scorer: Scorer
    state: "_State"
    questions: Posterior
    span: Span
    noise: float

    def knowing(self) -> "Step":
        """Let the scorer tell how novel a prompt is."""
        known = self.span.known(self.noise, N_DIRECTIONS).astype(np.float32)
        return replace(self, scorer=replace(self.scorer, known=known))

    def with_forest(self, log: Log, seed: int) -> "Step":
        """Grow trees to the posterior means of the very questions that the step was fitted to."""
        points = log.points(self.scorer.features)
        residual = self.scorer.residual.astype(np.float64)
        forest = grow(points, log.surface.shape[1], self.questions.mean, residual, seed, spread=self._spread())
        return replace(self, scorer=replace(self.scorer, forest=forest))

    def _spread(self) -> Floats:
        """By how much more or less than others the logits of each question vary about its text's forecast, (N,).

        Averaged over models: what the forecast missed, and what is not known of it even after the outcomes. The mean is
        1. A question with few outcomes stays near it: nothing says that it is another than the rest.
        """
        state, questions = self.state, self.questions
        gram = state.models.embedding.T @ state.models.embedding
        error = questions.mean - state.forecast
        variance = np.einsum("nk,nk->n", error @ gram, error) + np.einsum("nkl,kl->n", questions.covariance, gram)
        spread: Floats = variance / max(float(variance.mean()), 1e-9)
        return spread


def fit_path(log: Log, noises: Sequence[float], seed: int, settings: FitSettings) -> list[Step]:
    """Fit a log once for every noise level of the text side, from the first to the last; uncalibrated."""
    features = measure_features(log.vectors, log.surface)
    basis = Basis.of(log.points(features), log.surface.shape[1], settings.n_landmarks, seed)
    outcomes = Outcomes.from_grid(log.label, log.weight)
    models, first_rounds = _begin(log, outcomes, noises[0], seed, settings)
    state = _State.start(len(log.label), models)
    path = []
    for i, noise in enumerate(noises):
        text = Smoother.of(basis, noise)
        for r in range(settings.n_more_rounds if i else first_rounds):
            state = state.alternate(outcomes, text, steps=LATER_STEPS if i or r else FIRST_STEPS)
        questions = state.questions(outcomes)
        scorer = state.scorer(features, text, covariance_of_models(outcomes, state.models, questions))
        path.append(Step(scorer, state, questions, basis.span, noise))
    return path


def _begin(log: Log, outcomes: Outcomes, noise: float, seed: int, settings: FitSettings) -> tuple[Models, int]:
    """What models to begin with, and how many rounds they need: few where a part of many questions has taught them.

    A round takes time in proportion to the questions.
    """
    if len(log.label) <= settings.n_coarse:
        return start_models(outcomes, min(settings.dim_embedding, outcomes.label.shape[1]), seed), settings.n_rounds
    part = np.zeros(len(log.label), dtype=bool)
    part[np.random.default_rng(seed).choice(len(part), settings.n_coarse, replace=False)] = True
    coarse = replace(settings, n_landmarks=settings.n_landmarks // 3)
    return fit_path(log.rows(part), [noise], seed, coarse)[0].state.models, settings.n_fine_rounds


@dataclass(frozen=True)
class _State:
    """Where the alternation stands; mean, forecast: (N, K); residual: (K, K)."""

    models: Models
    mean: Floats
    forecast: Floats
    residual: Floats

    @classmethod
    def start(cls, n_questions: int, models: Models) -> "_State":
        dim = models.embedding.shape[1]
        nothing = np.zeros((n_questions, dim))
        return cls(models, nothing, nothing, np.eye(dim))

    def alternate(self, outcomes: Outcomes, text: Smoother, steps: int) -> "_State":
        """Questions, then models, then text; the text's forecast of a question never saw its own outcomes."""
        questions = infer(outcomes, self.models, self.forecast, self.residual, start=self.mean, steps=steps)
        models = update_models(outcomes, self.models, questions, steps=1)
        forecast = text.leave_one_out(questions.mean)
        error = questions.mean - forecast
        residual = questions.covariance.mean(axis=0) + error.T @ error / len(error)
        return _State(models, questions.mean, forecast, residual)

    def questions(self, outcomes: Outcomes) -> Posterior:
        """What the last models say of the questions."""
        return infer(outcomes, self.models, self.forecast, self.residual, start=self.mean)

    def scorer(self, features: Features, text: Smoother, covariance: Floats) -> Scorer:
        """Freeze it for serving, uncalibrated; covariance: (M, K+1, K+1), of the models."""
        return Scorer(
            features,
            landmarks=text.basis.landmarks,
            weights=text.weights(self.mean).astype(np.float32),
            prior_mean=self.mean.mean(axis=0).astype(np.float32),
            forest=Forest.nothing(len(self.residual)),
            forest_share=0.0,
            residual=self.residual.astype(np.float32),
            known=np.zeros((len(text.basis.landmarks), 0), dtype=np.float32),
            signal=(PEAK * self.residual / text.noise).astype(np.float32),  # what ridge's noise level implies
            model_embedding=self.models.embedding.astype(np.float32),
            model_bias=self.models.bias.astype(np.float32),
            model_covariance=covariance.astype(np.float32),
            prompts=self.forecast[:: -(-len(self.forecast) // N_PROMPTS)].astype(np.float32),
        )


def measure_features(vectors: Vectors, surface: Singles) -> Features:
    """Learn the centre and scale of questions' vectors and surfaces."""
    scale = surface.std(axis=0, dtype=np.float64)
    return Features(
        vector_mean=vectors.mean(axis=0, dtype=np.float64).astype(np.float32),
        surface_mean=surface.mean(axis=0, dtype=np.float64).astype(np.float32),
        surface_scale=np.where(scale > 1e-6, scale, 1).astype(np.float32),  # a constant feature says nothing
    )
