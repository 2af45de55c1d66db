"""Models that may be one and the same under two names, such as one model through two hosts.

Two models with probabilities p and q of being right on a question disagree with probability p(1 - q) + q(1 - p). Two
that are equally able, each for itself, would show the mean of 2 p(1 - p) and 2 q(1 - q); the difference is (p - q)^2.
One model asked twice shows less: it errs in the same places.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

N_SHOWN = 12
MIN_SHARED = 50  # questions that both answered, for a disagreement to be counted
Z95 = 1.96
OUTLYING = 3.0  # robust standard deviations below the usual pair
LEAST_SPREAD = 0.03  # of usual pairs' ratios: in small pools they may agree by luck


@dataclass(frozen=True)
class Pair:
    """Two models' disagreement, as shares of the n_shared questions that both answered.

    expected: by their embeddings; repeats: what equally able models would show, each for itself; counted: the share of
    labels that differ; ratio: counted over expected, with its standard error. Twins also err alike where embeddings
    know of nothing that they share, so their ratio lies far below that of usual pairs.
    """

    first: str
    second: str
    expected: float
    repeats: float
    counted: float
    ratio: float
    error: float
    n_shared: int
    is_twin: bool = False

    @property
    def at_most(self) -> float:
        """The upper end of the ratio's 95% interval."""
        return self.ratio + Z95 * self.error


def closest_pairs(
    names: Sequence[str],
    p: Floats,
    label: NDArray[np.float32],
    benchmarks: NDArray[np.str_] | None = None,
    n_shown: int = N_SHOWN,
) -> tuple[Pair, ...]:
    """The pairs of models that disagree least for what is expected of them, twins first.

    p: P(correct) given everything, of shape (n_questions, n_models); label: likewise, NaN unobserved; benchmarks:
    (n_questions,). A pair are twins if the upper end of their ratio lies OUTLYING robust deviations below the pool's
    median, and what is counted of them below what equally able models would show. Of a log of several benchmarks they
    must have answered two: on one that is easy for both, any two agree.
    """
    seen = (~np.isnan(label)).astype(np.float64)
    right = np.nan_to_num(label).astype(np.float64)
    p = p * seen
    shared = seen.T @ seen  # (M, M), as all that follow
    expected = _differ(p, seen)
    own = (p * (1 - p)).T @ seen
    repeats, counted = own + own.T, _differ(right, seen)
    on_several = _on_several(seen, benchmarks)
    pairs, telling = [], []
    for i, j in itertools.combinations(range(len(names)), 2):
        n = shared[i, j]
        if n < MIN_SHARED or expected[i, j] <= 0:
            continue
        e, r, c = expected[i, j] / n, repeats[i, j] / n, counted[i, j] / n
        error = np.sqrt(max(c * (1 - c), 1 / n) / n) / e
        pairs.append(Pair(names[i], names[j], float(e), float(r), float(c), float(c / e), float(error), int(n)))
        telling.append(bool(on_several[i, j]))
    if not pairs:
        return ()
    ratio = np.array([pair.ratio for pair in pairs])
    spread = max(1.4826 * float(np.median(np.abs(ratio - np.median(ratio)))), LEAST_SPREAD)
    limit = float(np.median(ratio)) - OUTLYING * spread
    judged = [
        replace(pair, is_twin=tells and pair.at_most < limit and pair.counted < pair.repeats)
        for pair, tells in zip(pairs, telling, strict=True)
    ]
    judged.sort(key=lambda pair: (not pair.is_twin, pair.at_most))
    return tuple(judged[: max(n_shown, sum(pair.is_twin for pair in judged))])


def _differ(value: Floats, seen: Floats) -> Floats:
    """Sum x(1 - y) + y(1 - x) over the questions that both saw; value and seen of shape (N, M), value 0 if unseen."""
    total = value.T @ seen
    differ: Floats = total + total.T - 2 * value.T @ value
    return differ


def _on_several(seen: Floats, benchmarks: NDArray[np.str_] | None) -> NDArray[np.bool_]:
    """Which pairs share MIN_SHARED questions of two benchmarks, or of all that there are; (M, M)."""
    names = np.unique(benchmarks) if benchmarks is not None else ()
    n_shared = [here.T @ here >= MIN_SHARED for here in (seen[benchmarks == name] for name in names)]
    if len(n_shared) < 2:
        return np.ones((seen.shape[1], seen.shape[1]), dtype=np.bool_)
    several: NDArray[np.bool_] = np.sum(n_shared, axis=0) >= 2
    return several
