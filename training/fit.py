"""Fit a scorer to a correctness log: cross-validated, calibrated, then fitted to everything.

Each question's embedding is learned from its outcomes and from what its text forecasts; the text side in turn learns
from all embeddings. Train and val questions are learned from alike: the noise of the text side and the forest's share
are chosen, and calibration and intervals fitted, on forecasts cross-fitted over folds of near-duplicate groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from router.abstention import Abstention
from router.encoder.base import Vectors
from router.scorer import POOLED, Forecast, Scorer, Singles
from training.abstention import calibrate_abstention
from training.alternation import FitSettings, Log, Step, fit_path
from training.calibrate import Platt, fit_own, fit_platt
from training.dataset import Correctness
from training.folds import deal_folds
from training.posterior import Posterior
from training.promises import Misses, like_questions

Floats = NDArray[np.float64]

LARGEST_LOGIT = 13.8  # beyond it a loss no longer grows: one in a million
COVERED = 0.99  # share of held-out questions that the logs are said to cover
MANY_CELLS = 2_000_000  # a grid from which on a second thread pays


@dataclass(frozen=True)
class Fitted:
    """A fitted scorer, what it learned of the logged questions, and how it was chosen.

    rows: the train and val questions with outcomes, as row numbers of the data; questions: their embeddings' posterior
    given text and outcomes; noise: the text side's level that cross-validation chose; nll_by_noise: each level's loss;
    nll_by_forest_share: the calibrated loss at that level by the forest's share; interval_scale: how much wider
    intervals are than the process would have them, so that they hold; abstention: how sure a choice has to be;
    max_novelty: what one in a hundred of the questions exceeded while it was held out.
    """

    scorer: Scorer
    rows: NDArray[np.int64]
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
    settings = settings or FitSettings()
    rows = _rows(data)
    folds = deal_folds(data.groups[rows], settings.n_folds, seed)
    if len(np.unique(folds)) < 2:
        raise ValueError(
            f"outcomes on {len(rows)} train and val questions: a fit needs two that are no near-duplicates"
        )
    log = Log.of(data, vectors, rows)
    with threadpool_limits(None if data.label.size >= MANY_CELLS else 1):
        paths = [fit_path(log.rows(folds != k), settings.noises, seed, settings) for k in np.unique(folds)]
        logits = _cross_fit(log, folds, [[step.scorer for step in path] for path in paths])  # (n_noises, N, M)
        by_noise = _loss_by_question(logits, log.label)  # (n_noises, N)
        level = smoothest_within_one_error(_sum_by_group(by_noise, data.groups[rows]))
        steps = [
            path[level].knowing().with_forest(log.rows(folds != k), seed)
            for k, path in zip(np.unique(folds), paths, strict=True)
        ]
        del paths
        shares = settings.forest_shares
        mixed = _cross_fit(log, folds, [[replace(s.scorer, forest_share=share) for share in shares] for s in steps])
        platts = [fit_platt(z, log.label) for z in mixed]  # an average of two views is too timid until calibrated
        calibrated = np.array([platt.slope * z + platt.offset for platt, z in zip(platts, mixed, strict=True)])
        by_share = _loss_by_question(calibrated, log.label)  # (n_shares, N)
        best = int(by_share.sum(axis=1).argmin())
        own = fit_own(calibrated[best], log.label)
        closed = [_close(step.scorer, shares[best], platts[best], own) for step in steps]
        unseen = _forecast_unseen(log, folds, closed)
        width = _interval_scale(log, closed[0], unseen, seed)
        last = _fit_all(log, settings.noises[level], shares[best], seed, settings)
    n_cells = np.count_nonzero(~np.isnan(log.label))
    return Fitted(
        scorer=_close(last.scorer, shares[best], platts[best], own, width),
        rows=rows,
        questions=last.questions,
        noise=settings.noises[level],
        interval_scale=width,
        nll_by_noise=dict(zip(settings.noises, (by_noise.sum(axis=1) / n_cells).tolist(), strict=True)),
        nll_by_forest_share=dict(zip(shares, (by_share.sum(axis=1) / n_cells).tolist(), strict=True)),
        abstention=calibrate_abstention(unseen.p_correct, log.label, data.groups[rows], seed),
        max_novelty=float(np.quantile(unseen.novelty, COVERED)),
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
    with threadpool_limits(None if data.label.size >= MANY_CELLS else 1):
        last = _fit_all(log, like.noise, like.scorer.forest_share, seed, settings or FitSettings())
    platt = Platt(like.scorer.slope, like.scorer.offset)
    scorer = _close(last.scorer, like.scorer.forest_share, platt, POOLED, like.interval_scale)
    return replace(like, scorer=scorer, rows=rows, questions=last.questions)


def _close(scorer: Scorer, forest_share: float, platt: Platt, own: Singles, width: float = 1.0) -> Scorer:
    """Give an uncalibrated scorer what cross-fitting decided."""
    signal = np.float32(width**2) * scorer.signal
    calibrated = replace(scorer, slope=platt.slope, offset=platt.offset, own_calibration=own)
    return replace(calibrated, signal=signal, forest_share=forest_share)


def _fit_all(log: Log, noise: float, forest_share: float, seed: int, settings: FitSettings) -> Step:
    (last,) = fit_path(log, [noise], seed, settings)
    return last.knowing().with_forest(log, seed) if forest_share else last.knowing()


def _rows(data: Correctness) -> NDArray[np.int64]:
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


def _cross_fit(log: Log, folds: NDArray[np.int64], scorers: Sequence[Sequence[Scorer]]) -> Singles:
    """Forecast each fold by the scorers fitted without it, which share landmarks; logits (n_scorers, N, M)."""
    logits = np.zeros((len(scorers[0]), *log.label.shape), dtype=np.float32)
    for k, fitted in zip(np.unique(folds), scorers, strict=True):
        held_out = log.rows(folds == k)
        points = fitted[0].features(held_out.vectors, held_out.surface)
        similarity = fitted[0].similarity(points)
        logits[:, folds == k] = [scorer.logits(scorer.embed_points(points, similarity)) for scorer in fitted]
    return logits


def _forecast_unseen(log: Log, folds: NDArray[np.int64], scorers: Sequence[Scorer]) -> Forecast:
    """Forecast each fold by the scorer that was fitted without it."""
    parts = []
    for k, scorer in zip(np.unique(folds), scorers, strict=True):
        held_out = log.rows(folds == k)
        parts.append((np.flatnonzero(folds == k), scorer.forecast(held_out.vectors, held_out.surface)))
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    return Forecast(
        *(
            np.concatenate([getattr(part, name) for _, part in parts])[order]
            for name in ("p_correct", "low", "high", "novelty")
        )
    )


def _interval_scale(log: Log, scorer: Scorer, unseen: Forecast, seed: int) -> float:
    """By what factor intervals must be wider, so that they hold the shares of right answers among like questions."""
    points = scorer.features(log.vectors, log.surface)
    return Misses.of(log.label, unseen, like_questions(points, seed=seed)).scale()


def _loss_by_question(logits: Singles, label: NDArray[np.float32]) -> Floats:
    """Sum the log losses of candidates' logits (n_candidates, N, M) over each question's cells, (.., N)."""
    losses = np.zeros(logits.shape[:2])
    for z, loss in zip(np.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT), losses, strict=True):
        cells = np.where(np.isnan(label), 0, np.logaddexp(np.float32(0), z) - label * z)  # (N, M)
        loss[:] = cells.sum(axis=1, dtype=np.float64)
    return losses


def _sum_by_group(losses: Floats, groups: NDArray[np.int64]) -> Floats:
    _, group = np.unique(groups, return_inverse=True)
    return np.array([np.bincount(group, weights=loss) for loss in losses])
