"""Differences between two forecasts of the same test questions, paired, with bootstrap intervals over groups."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from training.dataset import Correctness
from training.metrics import Cells, bootstrap_weights, interval, nll_by_cell

Floats = NDArray[np.float64]

N_RESAMPLES = 1000


@dataclass(frozen=True)
class Difference:
    """Ours less theirs, and its 95% interval."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:+.4f} ({self.low:+.4f} to {self.high:+.4f})"

    def figures(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class TestLosses:
    """Log losses of forecasts on the test questions, summed by question, and how often each question is drawn.

    count: observed cells, (n_test,); weights: (n_resamples, n_test), drawn once so that every comparison is paired.
    """

    __test__ = False  # no test class

    label: NDArray[np.float32]
    rows: NDArray[np.int64]
    count: Floats
    weights: Floats

    @classmethod
    def of(cls, data: Correctness, seed: int = 0) -> "TestLosses":
        rows = data.part("test")
        count = data.observed[rows].sum(axis=1).astype(np.float64)
        return cls(data.label[rows], rows, count, bootstrap_weights(data.groups[rows], N_RESAMPLES, seed))

    def by_question(self, p: Floats) -> Floats:
        """Sum the losses of a forecast of the test questions, (n_test, n_models), by question."""
        cells = Cells.from_grid(self.label, p)
        return np.bincount(cells.question, weights=nll_by_cell(cells), minlength=len(self.rows)).astype(np.float64)

    def mean(self, loss: Floats) -> float:
        return float(loss.sum() / self.count.sum())

    def difference(self, ours: Floats, theirs: Floats) -> Difference:
        """The mean loss by cell of `ours` less that of `theirs`, both by question."""
        low, high = interval((self.weights @ (ours - theirs)) / (self.weights @ self.count))
        return Difference(self.mean(ours) - self.mean(theirs), low, high)
