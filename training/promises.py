"""Whether P(correct) means what it says: overall, where a policy chooses by it, and the interval beside it.

Choosing the largest of many forecasts is optimistic, so a forecast that is calibrated cell by cell may promise too
much of the models that are chosen. Everything here is measured on given forecasts; nothing is fitted.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta
from sklearn.cluster import MiniBatchKMeans

from router.scorer import Z90, Forecast, Singles
from training.metrics import N_ECE_BINS, Cells, bootstrap_weights, ece, interval
from training.routing import RoutingBench

Floats = NDArray[np.float64]

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
N_SIMULATED = 50
N_RESAMPLES = 1000
PRIOR_GROUPS = 10  # pairs of a model and a group, their worth of belief that intervals hold as they are
SCALE_LIMITS = (0.01, 4.0)  # of an interval's variance
MIN_GROUPS = 20  # fewer, drawn again, vary less than others like them would: one always agrees with itself
FEW_POINTS = 12_000  # whose groups depend on where clustering starts
MIN_OUTCOMES = 100  # a benchmark or a model is judged from this many on


@dataclass(frozen=True)
class Ece:
    """An expected calibration error beside what a perfectly calibrated forecaster of the same sharpness shows.

    perfect, perfect_95: its mean, and the value it stays below in 95% of simulations: finite outcomes never agree
    exactly with probabilities.
    """

    name: str
    ece: float
    perfect: float
    perfect_95: float
    n: int


@dataclass(frozen=True)
class Promise:
    """What was promised of the chosen models, and what came of it.

    threshold: min_p_correct under `cheapest`, or None for the most likely correct; promised: mean P(correct) of the
    chosen; right: share of right answers, with its 95% interval; n: questions where a choice met the threshold.
    """

    threshold: float | None
    promised: float
    right: float
    ci95: tuple[float, float]
    n: int

    @property
    def short(self) -> float:
        """By how much what came lies below what was promised."""
        return self.promised - self.right

    @property
    def kept(self) -> bool:
        """No more than .02 short beyond what chance explains."""
        return self.promised - self.ci95[1] <= 0.02


def judge_ece(name: str, cells: Cells, n_bins: int = N_ECE_BINS, seed: int = 0) -> Ece:
    """Compare a forecast's calibration error with that of outcomes drawn from the forecast itself."""
    rng = np.random.default_rng(seed)
    drawn = [
        ece(replace(cells, label=(rng.random(len(cells.p)) < cells.p).astype(np.float64)), n_bins)
        for _ in range(N_SIMULATED)
    ]
    return Ece(name, ece(cells, n_bins), float(np.mean(drawn)), float(np.quantile(drawn, 0.95)), len(cells.p))


def calibration(
    label: NDArray[np.float32], p: Floats, benchmarks: NDArray[np.str_], model_names: tuple[str, ...]
) -> list[Ece]:
    """Judge all cells together, each benchmark and each model; label and p of shape (n_questions, n_models)."""
    judged = [judge_ece("all", Cells.from_grid(label, p))]
    for benchmark in np.unique(benchmarks):
        here = benchmarks == benchmark
        judged.append(judge_ece(f"benchmark {benchmark}", Cells.from_grid(label[here], p[here])))
    for m, model in enumerate(model_names):
        judged.append(judge_ece(f"model {model}", Cells.from_grid(label[:, [m]], p[:, [m]])))
    return [judged[0], *(one for one in judged[1:] if one.n >= MIN_OUTCOMES)]


def promises(bench: RoutingBench, p: Floats, groups: NDArray[np.int64], seed: int = 0) -> list[Promise]:
    """Judge the choices of argmax over the pool, and of `cheapest` over its priced part, at every threshold.

    p: of shape (n_questions, n_models) and groups: of shape (n_questions,), of the whole data.
    """
    if not bench.countable:
        return []
    resampled = _Resampled(groups[bench.rows], bootstrap_weights(groups[bench.rows], N_RESAMPLES, seed))
    kept = [_promise(None, p[np.ix_(bench.rows, bench.columns)], bench, bench.choose(p), resampled)]
    priced = bench.priced()
    if not priced.countable:
        return kept
    forecast = p[np.ix_(priced.rows, priced.columns)]
    for threshold in THRESHOLDS:
        cost = np.where(forecast >= threshold, priced.expected_cost, np.inf)
        choice = np.where(np.isfinite(cost.min(axis=1)), cost.argmin(axis=1), -1)
        if (choice >= 0).any():
            kept.append(_promise(threshold, forecast, priced, choice, resampled))
    return kept


@dataclass(frozen=True)
class _Resampled:
    """The groups of questions, (n_questions,), and how often each question was drawn, (n_resamples, n_questions)."""

    groups: NDArray[np.int64]
    weights: Floats

    def share(self, right: Floats, rows: NDArray[np.int64]) -> tuple[float, float]:
        """A share's 95% interval: by bootstrap over groups, or where they are few Clopper and Pearson's (1934).

        Theirs is of as many questions as groups of these sizes are worth (Kish 1965).
        """
        _, group = np.unique(self.groups[rows], return_inverse=True)
        sizes = np.bincount(group)
        if len(sizes) < MIN_GROUPS:
            n = len(rows) ** 2 / float(np.square(sizes).sum())
            n_right = n * float(right.mean())
            low = beta.ppf(0.025, n_right, n - n_right + 1) if n_right > 0 else 0.0
            high = beta.ppf(0.975, n_right + 1, n - n_right) if n_right < n else 1.0
            return float(low), float(high)
        drawn = self.weights[:, rows]
        with np.errstate(invalid="ignore"):
            return interval((drawn @ right) / drawn.sum(axis=1))


def _promise(
    threshold: float | None, forecast: Floats, bench: RoutingBench, choice: NDArray[np.int64], resampled: _Resampled
) -> Promise:
    rows = np.flatnonzero(choice >= 0)
    promised, right = forecast[rows, choice[rows]], bench.label[rows, choice[rows]]
    return Promise(threshold, float(promised.mean()), float(right.mean()), resampled.share(right, rows), len(rows))


def like_questions(
    points: Singles, size: int = MIN_OUTCOMES, seed: int = 0, n_all: int | None = None
) -> NDArray[np.int64]:
    """Group questions with those most like them, about half as many again as `size` to a group; (n_questions,).

    n_all: of how many questions these are a part that is grouped by itself, none being all.
    """
    n_clusters = max(len(points) * 2 // (3 * size), 1)
    # of many, any start ends as well
    n_starts, batch_size = (3, 2048) if (n_all or len(points)) <= FEW_POINTS else (1, 1024)
    means = MiniBatchKMeans(n_clusters, random_state=seed, n_init=n_starts, batch_size=batch_size)
    group: NDArray[np.int64] = means.fit_predict(points).astype(np.int64)
    return group


@dataclass(frozen=True)
class Misses:
    """How far groups' shares of right answers lie from the mean forecast, one entry for each model and group.

    miss: share less forecast; chance: the variance of that if every forecast were exact; below, above: how far the mean
    90% interval reaches.
    """

    miss: Floats
    chance: Floats
    below: Floats
    above: Floats

    @classmethod
    def of(
        cls, label: NDArray[np.float32], forecast: Forecast, group: NDArray[np.int64], size: int = MIN_OUTCOMES
    ) -> "Misses":
        """Compare on groups (n_questions,) in which a model has at least `size` outcomes; label (N, M)."""
        p = forecast.p_correct
        found: list[tuple[float, float, float, float]] = []
        for one in np.unique(group):
            rows = np.flatnonzero(group == one)
            for m in range(label.shape[1]):
                seen = rows[~np.isnan(label[rows, m])]
                if len(seen) >= size:
                    mean = p[seen, m].mean()
                    chance = (p[seen, m] * (1 - p[seen, m])).sum() / len(seen) ** 2
                    low, high = forecast.low[seen, m].mean(), forecast.high[seen, m].mean()
                    found.append((label[seen, m].mean(dtype=np.float64) - mean, chance, mean - low, high - mean))
        return cls(*np.array(found, dtype=np.float64).reshape(-1, 4).T)

    @property
    def coverage(self) -> float:
        """The share of misses within the interval and chance together, in quadrature; NaN without groups."""
        chance = Z90**2 * self.chance
        inside = (self.miss >= -np.sqrt(self.below**2 + chance)) & (self.miss <= np.sqrt(self.above**2 + chance))
        return float(inside.mean()) if len(inside) else float("nan")

    @property
    def width(self) -> float:
        """The mean width of the intervals."""
        return float((self.below + self.above).mean()) if len(self.below) else float("nan")

    def scale(self) -> float:
        """By what factor the intervals should be wider or narrower: the excess of misses over chance, by moments."""
        expected = np.square((self.below + self.above) / (2 * Z90))
        if not expected.sum():
            return 1.0
        excess = (np.square(self.miss) - self.chance).sum()
        prior = PRIOR_GROUPS * expected.mean()
        return float(np.sqrt(np.clip((excess + prior) / (expected.sum() + prior), *SCALE_LIMITS)))
