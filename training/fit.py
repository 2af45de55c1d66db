"""Fit a scorer to a correctness log: cross-validated, calibrated, then fitted to everything.

Each question's embedding is learned from its outcomes and from what its text forecasts; the text side in turn learns
from all embeddings. Train and val questions are learned from alike: the noise of the text side and the forest's share
are chosen, and calibration and intervals fitted, on forecasts cross-fitted over folds of near-duplicate groups. The
noise, for which only the order of its levels matters, is chosen on fewer landmarks than all else is fitted with.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from router.abstention import Abstention
from router.encoder.base import Vectors
from router.scorer import POOLED, Forecast, Scorer, Singles
from training.abstention import calibrate_abstention
from training.alternation import FitSettings, Log, Step, fit_path
from training.calibrate import Platt, fit_own, fit_platt, log_losses
from training.chunks import chunk_threads, each_chunk
from training.dataset import Correctness
from training.folds import deal_folds
from training.posterior import Posterior
from training.promises import Misses, like_questions

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
F = TypeVar("F")

LARGEST_LOGIT = 13.8  # beyond it a loss no longer grows: one in a million
COVERED = 0.99  # share of held-out questions that the logs are said to cover


@dataclass(frozen=True)
class Fitted:
    """A fitted scorer, what it learned of the logged questions, and how it was chosen.

    rows: the train and val questions with outcomes, as row numbers of the data; questions: their embeddings' posterior
    given text and outcomes; noise: the text side's level that cross-validation chose; nll_by_noise: each level's loss,
    on the fewer landmarks that it was chosen with; nll_by_forest_share: the calibrated loss at that level by the
    forest's share; interval_scale: how much wider intervals are than the process would have them, so that they hold;
    abstention: how sure a choice has to be; max_novelty: what one in a hundred of the questions exceeded while it was
    held out.
    """

    scorer: Scorer
    rows: Rows
    questions: Posterior
    noise: float
    interval_scale: float
    nll_by_noise: dict[float, float]
    nll_by_forest_share: dict[float, float]
    abstention: Abstention
    max_novelty: float


def fit_scorer(data: Correctness, vectors: Vectors, seed: int = 0, settings: FitSettings | None = None) -> Fitted:
    """Fit, choose and calibrate on the train and val questions.

    vectors: raw question vectors of shape (n_questions, dim). Test labels are never read. Without two groups of
    questions with outcomes there is nothing to cross-fit: ValueError.
    """
    rows = _rows(data)
    settings = (settings or FitSettings()).of_size(len(rows))
    folds = deal_folds(data.groups[rows], settings.n_folds, seed)
    if len(np.unique(folds)) < 2:
        raise ValueError(
            f"outcomes on {len(rows)} train and val questions: a fit needs two that are no near-duplicates"
        )
    log = Log.of(data, vectors, rows)
    with chunk_threads():
        choice = _choose(log, data.groups[rows], folds, seed, settings)
        last = _fit_once(log, choice.noise, seed, settings, with_forest=choice.forest_share > 0)
        questions = last.questions
    return Fitted(
        scorer=choice.close(last.scorer, choice.interval_scale, choice.max_novelty),
        rows=rows,
        questions=questions,
        noise=choice.noise,
        interval_scale=choice.interval_scale,
        nll_by_noise=choice.nll_by_noise,
        nll_by_forest_share=choice.nll_by_forest_share,
        abstention=choice.abstention,
        max_novelty=choice.max_novelty,
    )


def refit(
    data: Correctness, vectors: Vectors, like: Fitted, seed: int = 0, settings: FitSettings | None = None
) -> Fitted:
    """Fit other data of the same kind once, with the noise level and all models' calibration that `like` chose.

    For backtests, which leave out one model or benchmark at a time: several times faster, and nothing is chosen anew.
    What `like` chose it chose with what is left out; these few numbers are all that a backtest sees of it.
    """
    rows = _rows(data)
    log = Log.of(data, vectors, rows)
    settings = (settings or FitSettings()).of_size(len(rows))
    with chunk_threads():
        last = _fit_once(log, like.noise, seed, settings, with_forest=like.scorer.forest_share > 0)
        questions = last.questions
    platt = Platt(like.scorer.slope, like.scorer.offset)
    closing = _Closing(like.scorer.forest_share, like.scorer.has_spread, platt, POOLED)
    return replace(
        like, scorer=closing.close(last.scorer, like.interval_scale, like.max_novelty), rows=rows, questions=questions
    )


def _fit_once(log: Log, noise: float, seed: int, settings: FitSettings, *, with_forest: bool = True) -> Step:
    """Fit at one noise level, from the start: a path that leads there ends elsewhere, with logits of another scale."""
    (step,) = fit_path(log, [noise], seed, settings)
    return step.knowing().with_forest(log, seed) if with_forest else step.knowing()


@dataclass(frozen=True)
class _Closing:
    """What calibrates an uncalibrated scorer: the forest's share, and slope and offset of all models and each one's.

    with_spread: whether the forest tells how far text is off, which it may have learned from near-duplicates.
    """

    forest_share: float
    with_spread: bool
    platt: Platt
    own: Singles

    @classmethod
    def fit(cls, mixing: "_Mixing", logits: Singles, label: NDArray[np.float32]) -> "_Closing":
        """Calibrate held-out logits of shape (n_questions, n_models)."""
        platt = fit_platt(logits, label)
        return cls(mixing.forest_share, mixing.with_spread, platt, fit_own(platt.slope * logits + platt.offset, label))

    @classmethod
    def by_other_folds(cls, mixing: "_Mixing", label: NDArray[np.float32], folds: Rows) -> list["_Closing"]:
        """Calibrate each fold by the labels of the others: a choice by maximum would find what its own flattered."""
        return [cls.fit(mixing, mixing.logits[folds != k], label[folds != k]) for k in np.unique(folds)]

    def close(self, scorer: Scorer, interval_scale: float = 1.0, familiar: float = 1.0) -> Scorer:
        """Give an uncalibrated scorer what cross-fitting decided."""
        return replace(
            scorer if self.with_spread else scorer.without_spread(),
            slope=self.platt.slope,
            offset=self.platt.offset,
            own_calibration=self.own,
            interval_scale=interval_scale,
            familiar=familiar,
            forest_share=self.forest_share,
        )


@dataclass(frozen=True)
class _Choice(_Closing):
    """All that cross-fitting decided and found, as `Fitted` describes it."""

    noise: float
    nll_by_noise: dict[float, float]
    nll_by_forest_share: dict[float, float]
    interval_scale: float
    abstention: Abstention
    max_novelty: float


def _choose(log: Log, groups: Rows, folds: Rows, seed: int, settings: FitSettings) -> _Choice:
    """Choose and calibrate on forecasts of each fold by what was fitted to the others, just as all are fitted last."""
    noise, nll_by_noise = _choose_noise(log, groups, folds, seed, settings)
    scorers = [_fit_once(log.rows(folds != k), noise, seed, settings).scorer for k in np.unique(folds)]
    mixing = _choose_mixing(log, folds, scorers, settings.forest_shares)
    by_others = _Closing.by_other_folds(mixing, log.label, folds)
    closed = [closing.close(one) for closing, one in zip(by_others, scorers, strict=True)]
    unseen = _forecast_unseen(log, folds, closed)
    return _Choice(
        **vars(_Closing.fit(mixing, mixing.logits, log.label)),
        noise=noise,
        nll_by_noise=nll_by_noise,
        nll_by_forest_share=mixing.nll_by_forest_share,
        interval_scale=_interval_scale(log, scorers[0], unseen, folds, seed),
        abstention=calibrate_abstention(unseen.p_correct, log.label, groups, seed),
        max_novelty=float(np.quantile(unseen.novelty, COVERED)),
    )


def _choose_noise(
    log: Log, groups: Rows, folds: Rows, seed: int, settings: FitSettings
) -> tuple[float, dict[float, float]]:
    """Fit each fold's path and find the noise level whose forecasts of the held-out questions are best."""
    coarser = replace(settings, n_landmarks=min(settings.n_landmarks, settings.n_choosing_landmarks))

    def scorers_without(k: int) -> list[Scorer]:
        return [step.scorer for step in fit_path(log.rows(folds != k), settings.noises, seed, coarser)]

    logits = _cross_fit(log, folds, [scorers_without(k) for k in np.unique(folds)], _logits)
    losses = _loss_by_question(logits, log.label)
    level = smoothest_within_one_error(_sum_by_group(losses, groups))
    return settings.noises[level], _mean_losses(settings.noises, losses, log)


@dataclass(frozen=True)
class _Mixing:
    """How the forest is asked: its share, and whether for a spread too; logits: (N, M), what held-out questions get."""

    forest_share: float
    with_spread: bool
    logits: Singles
    nll_by_forest_share: dict[float, float]


def _choose_mixing(log: Log, folds: Rows, scorers: Sequence[Scorer], shares: Sequence[float]) -> _Mixing:
    """Find what forecasts held-out questions best once it is calibrated; an average of two views is too timid before.

    Groups of near-duplicates are held out together, so that a spread which they misled is found out.
    """
    mixed = _cross_fit(log, folds, scorers, partial(_mixed_logits, shares=shares))
    losses = _calibrated_losses(mixed, log)
    best = int(losses.sum(axis=1).argmin())
    plain = partial(_mixed_logits, shares=[shares[best]])
    without = _cross_fit(log, folds, [scorer.without_spread() for scorer in scorers], plain)
    with_spread = bool(losses[best].sum() <= _calibrated_losses(without, log)[0].sum())
    chosen = mixed[best] if with_spread else without[0]
    return _Mixing(shares[best], with_spread, chosen, _mean_losses(shares, losses, log))


def _calibrated_losses(logits: Singles, log: Log) -> Floats:
    """Sum each question's losses, (n_candidates, N), once each candidate's logits (N, M) are calibrated together."""
    calibrated = np.empty_like(logits)
    for z, out in zip(logits, calibrated, strict=True):
        platt = fit_platt(z, log.label)
        out[:] = platt.slope * z + platt.offset
    return _loss_by_question(calibrated, log.label)


def _mean_losses(candidates: Sequence[float], losses: Floats, log: Log) -> dict[float, float]:
    n_cells = np.count_nonzero(~np.isnan(log.label))
    return dict(zip(candidates, (losses.sum(axis=1) / n_cells).tolist(), strict=True))


def _rows(data: Correctness) -> Rows:
    return np.flatnonzero((data.split != "test") & data.observed.any(axis=1))


def smoothest_within_one_error(losses: Floats) -> int:
    """Choose the first row whose loss is no worse than the best by more than the standard error of the difference.

    losses: summed by group of near-duplicates, (n_candidates, n_groups), the smoothest candidate first. Prompts
    of applications lie farther from the logs than the logs' folds from one another, so of equals the smoother is better
    (the one-standard-error rule, Breiman et al. 1984).
    """
    if not np.isfinite(losses).all():
        raise ValueError("a forecast is not a number: the fit diverged")
    best = losses[losses.sum(axis=1).argmin()]
    for row, loss in enumerate(losses):
        worse = loss - best
        if worse.sum() <= np.sqrt(np.square(worse - worse.mean()).sum()):
            return row
    raise AssertionError("the best is no worse than itself")


def _cross_fit(log: Log, folds: Rows, fitted: Sequence[F], forecast: Callable[[Log, F], Singles]) -> Singles:
    """Forecast each fold by what was fitted without it, in several ways; logits (n_ways, N, M)."""
    parts = [forecast(log.rows(folds == k), one) for k, one in zip(np.unique(folds), fitted, strict=True)]
    logits = np.empty((len(parts[0]), *log.label.shape), dtype=np.float32)
    for k, part in zip(np.unique(folds), parts, strict=True):
        logits[:, folds == k] = part
    return logits


def _logits(log: Log, scorers: Sequence[Scorer]) -> Singles:
    """Forecast by scorers that share landmarks; logits (n_scorers, N, M)."""

    def of_chunk(rows: slice) -> list[Singles]:
        points = scorers[0].features(log.vectors[rows], log.surface[rows])
        similarity = scorers[0].similarity(points)
        return [scorer.logits(*scorer.embed_points(points, similarity)) for scorer in scorers]

    return np.concatenate(each_chunk(len(log.label), of_chunk), axis=1)


def _mixed_logits(log: Log, scorer: Scorer, shares: Sequence[float]) -> Singles:
    """Forecast with every share of the forest, whose trees are asked once; logits (n_shares, N, M)."""
    process, forest = (replace(scorer, forest_share=share) for share in (0.0, 1.0))

    def of_chunk(rows: slice) -> list[Singles]:
        points = scorer.features(log.vectors[rows], log.surface[rows])
        similarity = scorer.similarity(points)
        one, usual = process.embed_points(points, similarity)
        other, spread = forest.embed_points(points, similarity)
        return [
            scorer.logits((1 - np.float32(share)) * one + np.float32(share) * other, spread if share else usual)
            for share in shares
        ]

    return np.concatenate(each_chunk(len(log.label), of_chunk), axis=1)


def _forecast_unseen(log: Log, folds: Rows, scorers: Sequence[Scorer]) -> Forecast:
    """Forecast each fold by the scorer that was fitted without it."""
    p_correct, low, high = np.empty((3, *log.label.shape))
    unseen = Forecast(p_correct, low, high, novelty=np.empty(len(log.label)))
    for k, scorer in zip(np.unique(folds), scorers, strict=True):
        for name, part in _forecast(log.rows(folds == k), scorer).items():
            getattr(unseen, name)[folds == k] = part
    return unseen


def _forecast(log: Log, scorer: Scorer) -> dict[str, Floats]:
    parts = each_chunk(len(log.label), lambda rows: vars(scorer.forecast(log.vectors[rows], log.surface[rows])))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _interval_scale(log: Log, scorer: Scorer, unseen: Forecast, folds: Rows, seed: int) -> float:
    """By what factor intervals must be wider, so that they hold the shares of right answers among like questions.

    Groups are of one fold each: what luck did to a part of a group in one fold has taught those who forecast its rest.
    """
    points = log.points(scorer.features)
    group, n_groups = np.empty(len(points), dtype=np.int64), 0
    for k in np.unique(folds):
        group[folds == k] = n_groups + like_questions(points[folds == k], seed=seed, n_all=len(points))
        n_groups = int(group[folds == k].max()) + 1
    return Misses.of(log.label, unseen, group).scale()


def _loss_by_question(logits: Singles, label: NDArray[np.float32]) -> Floats:
    """Sum the log losses of candidates' logits (n_candidates, N, M) over each question's cells, (.., N)."""

    def of_chunk(rows: slice) -> Floats:
        observed = ~np.isnan(label[rows])
        losses = log_losses(np.clip(logits[:, rows], -LARGEST_LOGIT, LARGEST_LOGIT), label[rows])
        total: Floats = losses.sum(axis=2, where=observed, dtype=np.float64)
        return total

    return np.concatenate(each_chunk(len(label), of_chunk), axis=1)


def _sum_by_group(losses: Floats, groups: Rows) -> Floats:
    _, group = np.unique(groups, return_inverse=True)
    return np.array([np.bincount(group, weights=loss) for loss in losses])
