"""Which models gain on which benchmark, beyond their own level and beyond how hard the benchmark is.

By embeddings of the logged questions, and beside that as counted on test questions that no embedding has seen.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from training.model_space import ModelSpace

Floats = NDArray[np.float64]

MIN_QUESTIONS = 10  # of a benchmark, and outcomes of a model on it, to be counted
N_ROUNDS = 30  # of taking out the means of an incomplete table's rows and columns


@dataclass(frozen=True)
class Gains:
    """Models' gains by benchmark, in logits of the mean P(correct); rows and columns of `gain` average 0.

    gain: of shape (n_models, n_benchmarks); counted: likewise, from the shares of right answers on test questions, NaN
    where there are fewer than MIN_QUESTIONS; agreement: the correlation of the two, None without enough to compare.
    """

    models: tuple[str, ...]
    benchmarks: tuple[str, ...]
    gain: Floats
    counted: Floats
    agreement: float | None


def measure_gains(
    space: ModelSpace,
    benchmarks: NDArray[np.str_],
    test_benchmarks: NDArray[np.str_],
    test_label: NDArray[np.float32],
) -> Gains | None:
    """Average forecasts by benchmark; None with fewer than two benchmarks or models.

    benchmarks: of the space's questions; test_label: of shape (n_test_questions, n_models), NaN where unobserved.
    """
    names = [name for name in np.unique(benchmarks) if (benchmarks == name).sum() >= MIN_QUESTIONS]
    if len(names) < 2 or len(space.names) < 2:
        return None
    mean = np.stack([logit(space.p_correct[benchmarks == name].mean(axis=0)) for name in names], axis=1)  # (M, B)
    counted = np.stack([_log_odds(test_label[test_benchmarks == name]) for name in names], axis=1)
    gain, counted = _without_means(mean), _without_means(counted)
    return Gains(space.names, tuple(map(str, names)), gain, counted, _agreement(gain, counted))


def _log_odds(label: NDArray[np.float32]) -> Floats:
    """Each model's log odds of being right, one success and one failure added; (M,), NaN with too few outcomes."""
    n = (~np.isnan(label)).sum(axis=0)
    right = np.nansum(label, axis=0, dtype=np.float64)
    odds: Floats = np.where(n >= MIN_QUESTIONS, np.log((right + 1) / (n - right + 1)), np.nan)
    return odds


def _without_means(table: Floats) -> Floats:
    """Take rows' and columns' means out of a table with gaps, by turns until nothing is left of them."""
    known = ~np.isnan(table)
    rest = np.where(known, table, 0.0)
    for _ in range(N_ROUNDS):
        for axis in (0, 1):
            n = np.maximum(known.sum(axis=axis, keepdims=True), 1)
            rest = np.where(known, rest - rest.sum(axis=axis, keepdims=True) / n, 0.0)
    return np.where(known, rest, np.nan)


def _agreement(gain: Floats, counted: Floats) -> float | None:
    known = ~np.isnan(counted)
    if known.sum() < 3:
        return None
    a, b = gain[known], counted[known]
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])
