"""Calibrate abstention: how sure a choice has to be so that the answers given are wrong at most so often.

The limit is on the share of wrong ones among answers, which is what people mean by an error rate. That is a ratio, and
not monotone in the threshold, so that conformal risk control (Angelopoulos et al., arXiv 2208.02814) does not bound it:
of "answered and wrong, by question" it would let a router that answers a tenth be wrong every time. Instead thresholds
are tested one after another, from sure to unsure, until the first that fails (learn then test, arXiv 2110.01052): with
probability .9 over the calibration, the error of answers is at most the limit. What is tested is the model that policy
`quality` chooses of the whole pool, so the optimism of choosing by maximum is in it.

What it does not say. It is marginal: of all questions together, not of a benchmark or a prompt. It holds only for
questions exchangeable with the logged ones. It is calibrated on scorers fitted to a part of the logs, and used with
the one fitted to all. Where a question's chosen model has no outcome the question is left out, as if absence told
nothing. With a part of the pool, the choice is of fewer and less optimistic, but no longer the one that was tested.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from router.abstention import Abstention
from training.metrics import bootstrap_weights, interval

Floats = NDArray[np.float64]

CONFIDENCE = 0.9
N_STEPS = 100
LEAST_SHARE = 0.05  # of the questions: the surest start, and there are
N_RESAMPLES = 1000
N_HALVES = 20  # random halves of the pool that a limit is judged on
LEAST_QUESTIONS = 50  # of them at least, so that the first test does not fail by a single error


def calibrate_abstention(p: Floats, label: NDArray[np.float32], groups: NDArray[np.int64], seed: int = 0) -> Abstention:
    """Test thresholds on held-out forecasts and labels, (n_questions, n_models), NaN where unobserved.

    groups: of shape (n_questions,). Near-duplicates are no further evidence: of each group one question counts, drawn
    at random. A graded outcome, or one that repeats disagree on, is wrong with the probability that it says.
    """
    rng = np.random.default_rng(seed)
    choice = p.argmax(axis=1)
    right = label[np.arange(len(p)), choice]
    rows = _one_of_each(np.flatnonzero(~np.isnan(right)), groups, rng)
    score = p[rows, choice[rows]]
    wrong = rng.random(len(rows)) >= right[rows]
    order = np.argsort(-score, kind="stable")
    score, n_wrong = score[order], np.cumsum(wrong[order])
    counts = _counts(score)
    n_wrong = n_wrong[counts - 1]
    with np.errstate(invalid="ignore"):
        upper = np.where(n_wrong < counts, beta.ppf(CONFIDENCE, n_wrong + 1, counts - n_wrong), 1.0)  # Clopper-Pearson
    return Abstention(
        p_correct=score[counts - 1],
        share=counts / max(len(score), 1),
        error=n_wrong / counts,
        bound=np.maximum.accumulate(upper),  # a test that fails ends the sequence
    )


def _one_of_each(rows: NDArray[np.int64], groups: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    shuffled = rng.permutation(rows)
    _, first = np.unique(groups[shuffled], return_index=True)
    return shuffled[first]


def _counts(score: Floats) -> NDArray[np.int64]:
    """How many questions are answered at each step, of falling scores: equal ones are answered together."""
    n = len(score)
    least = min(n, max(LEAST_QUESTIONS, int(n * LEAST_SHARE)))
    counts = np.linspace(least, n, N_STEPS).round().astype(np.int64)
    with_ties = np.searchsorted(-score, -score[counts - 1], side="right") if n else counts[:0]
    return np.unique(with_ties).astype(np.int64)


@dataclass(frozen=True)
class KeptLimit:
    """What a limit on errors left answered, and how often that was wrong.

    threshold: the least P(correct) to answer with, none where nothing can be promised; share: of the questions that
    were answered; error: of the n answers whose outcome is known the share that was wrong, with its 95% interval;
    half_share, half_error: the same where a random half of the models is there to choose from, on average.
    """

    max_error: float
    threshold: float | None
    share: float = 0.0
    error: float = float("nan")
    ci95: tuple[float, float] = (float("nan"), float("nan"))
    n: int = 0
    half_share: float = 0.0
    half_error: float = float("nan")


def keep_limits(
    abstention: Abstention,
    label: NDArray[np.float32],
    p: Floats,
    groups: NDArray[np.int64],
    max_errors: Sequence[float],
    seed: int = 0,
) -> list[KeptLimit]:
    """Judge limits on errors on questions that calibrated nothing; label, p (N, M), groups (N,)."""
    rng = np.random.default_rng(seed)
    halves = [rng.permutation(p.shape[1])[: max(p.shape[1] // 2, 1)] for _ in range(N_HALVES)]
    kept: list[KeptLimit] = []
    for max_error in max_errors:
        threshold = abstention.threshold(max_error)
        if threshold is None:
            kept.append(KeptLimit(max_error, None))
            continue
        whole = _answers(label, p, threshold)
        half = [_answers(label[:, columns], p[:, columns], threshold) for columns in halves]
        weights = bootstrap_weights(groups[whole.rows], N_RESAMPLES, seed)
        with np.errstate(invalid="ignore"):
            ci95 = interval((weights @ whole.wrong) / weights.sum(axis=1)) if len(whole.rows) else KeptLimit.ci95
        kept.append(
            KeptLimit(
                max_error=max_error,
                threshold=threshold,
                share=whole.share,
                error=_mean(whole.wrong),
                ci95=ci95,
                n=len(whole.rows),
                half_share=float(np.mean([one.share for one in half])),
                half_error=_mean(np.concatenate([one.wrong for one in half])),
            )
        )
    return kept


@dataclass(frozen=True)
class _Answers:
    """The share of questions answered; the rows of those with a known outcome, and how wrong it was, (n,)."""

    share: float
    rows: NDArray[np.int64]
    wrong: Floats


def _answers(label: NDArray[np.float32], p: Floats, threshold: float) -> _Answers:
    choice = p.argmax(axis=1)
    answered = p.max(axis=1) >= threshold
    wrong = 1 - label[np.arange(len(p)), choice].astype(np.float64)
    rows = np.flatnonzero(answered & ~np.isnan(wrong))
    return _Answers(float(answered.mean()), rows, wrong[rows])


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")
