"""Forecasts of every model's accuracy on every benchmark's test questions, with intervals, beside what was counted."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from router.scorer import Z90, Forecast

Floats = NDArray[np.float64]

MIN_OUTCOMES = 10  # a model's accuracy on a benchmark counts in a mean error from this many on


@dataclass(frozen=True)
class Accuracies:
    """Forecast and actual accuracy of each model on each benchmark, all of length n_pairs.

    by_model_mean: what forecasting each model's own mean would have said; low, high: the central 90% interval of the
    share that was to be counted, NaN where none was made.
    """

    model: tuple[str, ...]
    benchmark: tuple[str, ...]
    forecast: Floats
    by_model_mean: Floats
    actual: Floats
    n: NDArray[np.int64]
    low: Floats
    high: Floats

    @property
    def counted(self) -> NDArray[np.bool_]:
        """The pairs with enough outcomes to be judged by; all where none has."""
        enough = self.n >= MIN_OUTCOMES
        return enough if enough.any() else np.ones_like(enough)

    @property
    def has_intervals(self) -> bool:
        return not np.isnan(self.low).any()

    @property
    def coverage(self) -> float:
        """The share of counted pairs whose interval holds what was counted."""
        return float(((self.low <= self.actual) & (self.actual <= self.high))[self.counted].mean())

    @property
    def width(self) -> float:
        """The mean width of the counted pairs' intervals."""
        return float((self.high - self.low)[self.counted].mean())

    def mean_error(self, forecast: Floats) -> float:
        """Mean absolute error over the counted pairs."""
        return float(np.abs(forecast - self.actual)[self.counted].mean())

    @property
    def chance_error(self) -> float:
        """The mean absolute error that a perfect forecast would have, since n outcomes only sample an accuracy."""
        spread = np.sqrt(self.forecast * (1 - self.forecast) / self.n)  # of a binomial share
        return float((np.sqrt(2 / np.pi) * spread)[self.counted].mean())


def accuracies(
    names: tuple[str, ...], benchmarks: NDArray[np.str_], label: NDArray[np.float32], p: Floats, rates: Floats
) -> Accuracies:
    """Average observed cells by model and benchmark, without intervals; label, p of shape (n_questions, n_models)."""
    rows: list[tuple[str, str, float, float, float, int]] = []
    for benchmark in np.unique(benchmarks):
        here = benchmarks == benchmark
        for column, name in enumerate(names):
            seen = here & ~np.isnan(label[:, column])
            if seen.any():
                forecast, actual = float(p[seen, column].mean()), float(label[seen, column].mean())
                rows.append((name, str(benchmark), forecast, float(rates[column]), actual, int(seen.sum())))
    model, benchmark_of, forecasts, means, actuals, n = zip(*rows, strict=True)
    unknown = np.full(len(rows), np.nan)
    return Accuracies(
        model, benchmark_of, np.array(forecasts), np.array(means), np.array(actuals), np.array(n), unknown, unknown
    )


def intervals(
    judged: Accuracies,
    names: tuple[str, ...],
    benchmarks: NDArray[np.str_],
    served: Forecast,
    observed: NDArray[np.bool_],
) -> Accuracies:
    """Add 90% intervals of the shares to be counted: the served intervals of P(correct), and the luck of n outcomes.

    served: of the test questions and the models `names`; observed: which of these each answered, (n_questions,
    n_models). The two errors are independent, so their reaches add in quadrature, as where intervals are fitted.
    """
    low, high = np.full(len(judged.n), np.nan), np.full(len(judged.n), np.nan)
    for at, (model, benchmark) in enumerate(zip(judged.model, judged.benchmark, strict=True)):
        column = names.index(model)
        seen = observed[:, column] & (benchmarks == benchmark)
        p = served.p_correct[seen, column]
        luck = Z90**2 * (p * (1 - p)).sum() / len(p) ** 2
        below, above = p.mean() - served.low[seen, column].mean(), served.high[seen, column].mean() - p.mean()
        low[at] = max(p.mean() - np.sqrt(below**2 + luck), 0.0)
        high[at] = min(p.mean() + np.sqrt(above**2 + luck), 1.0)
    return replace(judged, low=low, high=high)
