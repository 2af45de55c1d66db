"""Fit how long models' answers are expected to be, on the answers that logs count.

The demand that a question makes on any answer's length is learned as the scorer learns embeddings: a low-rank
factorization of the logged log-lengths, regressed on the prompts' features. How many dimensions it has, perhaps none,
is chosen by cross-validation over near-duplicate groups of train and val questions; test answers are never read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from router.costs import DEMAND_LIMIT, Costs, TokenForecaster
from router.encoder.base import Vectors
from router.scorer import Features, Singles
from router.surface import describe
from training.alternation import measure_features
from training.dataset import Correctness
from training.folds import deal_folds

Floats = NDArray[np.float64]
A = TypeVar("A", Singles, NDArray[np.uint8])

RANKS = (0, 1, 2, 4, 8)
N_FOLDS = 3
N_ROUNDS = 8  # of the alternating least squares
LEAST_TOKENS = 1.0  # an empty answer counts as one token: its logarithm exists
NOISE = 3.0  # ridge penalties, all in units of the residual's variance: of demands on features,
DEMAND_PRECISION = 3.0  # of a question's demand,
SLOPE_PRECISION = 3.0  # of a model's slopes about the pool's,
LEVEL_PRECISION = 1.0  # of a model's level about the pool's,
SMEARING_ANSWERS = 20  # and this many answers of the pool beside each model's own in its smearing factor


@dataclass(frozen=True)
class FittedLengths:
    """A token forecaster, and the mean squared log error of each number of dimensions in cross-validation."""

    forecaster: TokenForecaster
    error_by_rank: dict[int, float]


def fit_lengths(data: Correctness, vectors: Vectors, seed: int = 0, ranks: Sequence[int] = RANKS) -> FittedLengths:
    """Fit expected lengths on the counted answers to train and val questions.

    vectors: raw question vectors of shape (n_questions, dim). A model without a counted answer stays unknown; without
    any two near-duplicate groups of counted answers every model's own mean is all there is.
    """
    rows = np.flatnonzero((data.split != "test") & ~np.isnan(data.output_tokens).all(axis=1))
    estimated = np.array([name in data.estimated_tokens for name in data.model_names], dtype=np.uint8)
    if not len(rows):
        nothing = Costs.from_means([None] * data.n_models).lengths
        return FittedLengths(replace(nothing, estimated=estimated), {})
    tokens = data.output_tokens[rows].astype(np.float64)
    surface = describe([data.prompts[row] for row in rows])
    features = measure_features(vectors[rows], surface)
    points = features(vectors[rows], surface).astype(np.float64)
    folds = deal_folds(data.groups[rows], N_FOLDS, seed)
    with threadpool_limits(1):
        choice = _choose_rank(points, tokens, folds, ranks, seed)
        fitted = _Lengths.fit(_Text.of(points), tokens, choice.rank, seed)
    unseen = np.where(np.isnan(choice.held_out), fitted.log_tokens(points), choice.held_out)
    smearing = _smearing(tokens, unseen)
    return FittedLengths(fitted.forecaster(features, smearing, estimated), choice.error_by_rank)


@dataclass(frozen=True)
class _Text:
    """Ridge regression on points, ready for any targets: centre (D,), shifted (N, D), projector (D, N).

    leverage: (N, 1), the diagonal of shifted @ projector.
    """

    centre: Floats
    shifted: Floats
    projector: Floats
    leverage: Floats

    @classmethod
    def of(cls, points: Floats) -> "_Text":
        centre = points.mean(axis=0)
        shifted = points - centre
        projector = np.linalg.solve(shifted.T @ shifted + NOISE * np.eye(points.shape[1]), shifted.T)
        leverage = np.minimum((shifted * projector.T).sum(axis=1), 1 - 1e-6)[:, None]
        return cls(centre, shifted, projector, leverage)


@dataclass(frozen=True)
class _Lengths:
    """A fit: demand (D, R), its offset (R,), level (M,) with NaN where nothing is known, slope (M, R)."""

    demand: Floats
    offset: Floats
    level: Floats
    slope: Floats

    @classmethod
    def fit(cls, text: _Text, tokens: Floats, rank: int, seed: int) -> "_Lengths":
        """Fit on questions' text and tokens (N, M) with NaN where uncounted."""
        log_tokens = np.log(np.maximum(tokens, LEAST_TOKENS))
        known = ~np.isnan(log_tokens)
        level = _means(log_tokens, known)
        if rank == 0:
            return cls(np.zeros((len(text.centre), 0)), np.zeros(0), level, np.zeros((len(level), 0)))
        centred = np.where(known, log_tokens - level, 0.0)
        target = _factorize(centred, known, rank, seed)  # (N, R)
        demand = text.projector @ target  # (D, R)
        # what the other questions tell of each: a model must not learn to trust a demand that read its own answer
        left_out = (text.shifted @ demand - text.leverage * target) / (1 - text.leverage)
        scale = np.maximum(left_out.std(axis=0), 1e-9)
        demand, left_out = demand / scale, np.clip(left_out / scale, -DEMAND_LIMIT, DEMAND_LIMIT)
        theta = _respond(np.hstack([left_out, np.ones((len(known), 1))]), centred, known)
        return cls(demand, -text.centre @ demand, level + theta[:, -1], theta[:, :-1])

    def log_tokens(self, points: Floats) -> Floats:
        """Forecast log tokens at points (N, D), of shape (N, M)."""
        demand = np.clip(points @ self.demand + self.offset, -DEMAND_LIMIT, DEMAND_LIMIT)
        forecast: Floats = self.level + demand @ self.slope.T
        return forecast

    def forecaster(self, features: Features, smearing: Floats, estimated: NDArray[np.uint8]) -> TokenForecaster:
        """Freeze it for serving."""
        return TokenForecaster(
            features,
            demand=_single(self.demand),
            demand_offset=_single(self.offset),
            level=_single(self.level),
            slope=_single(self.slope),
            smearing=_single(smearing),
            estimated=estimated,
        )


@dataclass(frozen=True)
class _Choice:
    """A chosen rank, its held-out log tokens (N, M) with NaN where none could be made, and each rank's error."""

    rank: int
    held_out: Floats
    error_by_rank: dict[int, float]


def _choose_rank(points: Floats, tokens: Floats, folds: NDArray[np.int64], ranks: Sequence[int], seed: int) -> _Choice:
    """Cross-fit every rank, and choose the one with the least mean squared log error."""
    log_tokens = np.log(np.maximum(tokens, LEAST_TOKENS))
    n_models = int((~np.isnan(tokens)).any(axis=0).sum())
    held_out = {rank: np.full(tokens.shape, np.nan) for rank in ranks if rank <= max(n_models - 1, 1)}
    for k in np.unique(folds):
        here = folds == k
        if here.all():
            break  # a single group: nothing can be held out
        text = _Text.of(points[~here])
        for rank, forecast in held_out.items():
            forecast[here] = _Lengths.fit(text, tokens[~here], rank, seed).log_tokens(points[here])
    errors: dict[int, float] = {}
    for rank, forecast in held_out.items():
        counted = ~np.isnan(log_tokens) & ~np.isnan(forecast)
        if counted.any():
            errors[rank] = float(np.square(forecast - log_tokens)[counted].mean())
    best = min(errors, key=lambda rank: errors[rank]) if errors else 0
    return _Choice(best, held_out.get(best, np.full(tokens.shape, np.nan)), errors)


def _factorize(centred: Floats, known: NDArray[np.bool_], rank: int, seed: int) -> Floats:
    """Find questions' demands, (N, R) of unit variance, by alternating ridge regressions on the known cells."""
    slope: Floats = np.random.default_rng(seed).normal(0, 0.3, (centred.shape[1], rank))
    slope[:, 0] = 1.0
    weight = known.astype(np.float64)
    demand = np.zeros((len(centred), rank))
    for _ in range(N_ROUNDS):
        demand = _ridge_rows(slope, centred, weight, DEMAND_PRECISION)
        slope = _ridge_rows(demand, centred.T, weight.T, LEVEL_PRECISION)
    scale: Floats = np.maximum(demand.std(axis=0), 1e-9)
    return demand / scale


def _ridge_rows(design: Floats, targets: Floats, weight: Floats, precision: float) -> Floats:
    """Regress each row of targets (I, J), 0 where weight is 0, on design (J, R): coefficients of shape (I, R)."""
    rank = design.shape[1]
    outer = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)  # (J, R*R)
    hessian = (weight @ outer).reshape(-1, rank, rank) + precision * np.eye(rank)
    coefficients = np.linalg.solve(hessian, (targets @ design)[..., None])[..., 0]
    return coefficients.astype(np.float64, copy=False)


def _respond(design: Floats, centred: Floats, known: NDArray[np.bool_]) -> Floats:
    """Regress each model's log tokens on design (N, R+1), shrunk to the pool's response; of shape (M, R+1)."""
    weight = known.T.astype(np.float64)  # (M, N)
    dim = design.shape[1]
    outer = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    hessian = (weight @ outer).reshape(-1, dim, dim)
    gradient = centred.T @ design  # (M, R+1)
    pool = np.linalg.solve(hessian.sum(axis=0) + 1e-6 * np.eye(dim), gradient.sum(axis=0))  # (R+1,)
    precision = np.diag(np.append(np.full(dim - 1, SLOPE_PRECISION), LEVEL_PRECISION))
    own = np.linalg.solve(hessian + precision, (gradient - hessian @ pool)[..., None])[..., 0]
    response: Floats = pool + own
    return response


def _means(log_tokens: Floats, known: NDArray[np.bool_]) -> Floats:
    """Each model's mean log tokens, shrunk to the mean over models; (M,), NaN without a known answer."""
    count = known.sum(axis=0)
    total = np.where(known, log_tokens, 0).sum(axis=0)
    own = total[count > 0] / count[count > 0]
    pool = own.mean() if own.size else np.nan
    mean: Floats = np.where(count > 0, (total + LEVEL_PRECISION * pool) / (count + LEVEL_PRECISION), np.nan)
    return mean


def _smearing(tokens: Floats, log_tokens: Floats) -> Floats:
    """The factors, (M,), that make cross-fitted forecasts add up to the answers' tokens (Duan 1983, by ratio of sums).

    A ratio of sums is ruled by long answers, as costs are; the pool's ratio stands beside each model's own.
    """
    counted = ~np.isnan(tokens) & ~np.isnan(log_tokens)
    forecast = np.where(counted, np.exp(np.where(counted, log_tokens, 0)), 0)
    actual = np.where(counted, tokens, 0)
    n = counted.sum(axis=0)
    pool = actual.sum() / max(forecast.sum(), 1e-9)
    usual = np.divide(forecast.sum(axis=0), n, out=np.zeros(len(n)), where=n > 0)
    prior = SMEARING_ANSWERS * usual
    total = forecast.sum(axis=0) + prior
    factor: Floats = np.divide(actual.sum(axis=0) + pool * prior, total, out=np.ones(len(n)), where=total > 0)
    return factor


@dataclass(frozen=True)
class AnswerLengths:
    """How long one model's counted answers were, one or more.

    vectors: of their questions, (N, dim_vector); tokens: (N,); estimated: whether some were taken from characters.
    """

    vectors: Vectors
    prompts: Sequence[str]
    tokens: Floats
    estimated: bool


def fold_in_lengths(costs: Costs, column: int, answers: AnswerLengths, pool: Sequence[int]) -> Costs:
    """Learn one model's lengths from its own answers; the other columns stay, and its pace is not learned.

    column: the model's, or the number of models to add one; pool: the columns that it is taken to resemble, itself
    aside. Its slopes are shrunk to their mean, so that a few answers suffice; its level is its own.
    """
    if column == costs.n_models:
        costs = costs.with_unknown_model()
    lengths = costs.lengths
    like = [c for c in pool if c != column and not np.isnan(lengths.level[c] + lengths.smearing[c])]
    demand = lengths.demands(answers.vectors, describe(answers.prompts)).astype(np.float64)  # (N, R)
    slope = lengths.slope[like].mean(axis=0, dtype=np.float64) if like else np.zeros(demand.shape[1])
    design = np.hstack([demand, np.ones((len(demand), 1))])
    precision = np.diag(np.append(np.full(demand.shape[1], SLOPE_PRECISION), 1e-6))
    log_tokens = np.log(np.maximum(answers.tokens, LEAST_TOKENS))
    own = np.linalg.solve(design.T @ design + precision, design.T @ (log_tokens - demand @ slope))
    level, slope = own[-1], slope + own[:-1]
    smearing = _smearing(answers.tokens[:, None], (level + demand @ slope)[:, None])[0]
    learned = replace(
        lengths,
        level=with_row(lengths.level, column, level),
        slope=with_row(lengths.slope, column, slope),
        smearing=with_row(lengths.smearing, column, smearing),
        estimated=with_row(lengths.estimated, column, answers.estimated),
    )
    return replace(costs, lengths=learned)


def with_row(array: A, row: int, values: Any) -> A:
    """The array with one row replaced, or added at its end."""
    added = np.zeros((int(row == len(array)), *array.shape[1:]), dtype=array.dtype)
    changed = np.concatenate([array, added])
    changed[row] = values
    return changed


def _single(array: Floats) -> Singles:
    return array.astype(np.float32)
