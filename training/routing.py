"""How good a forecast is for routing: quality alone, and quality for its cost.

The pool is fixed before anything is counted: models observed on at least 95% of the train questions, counted on the
test questions that the whole pool answered, so that absence can neither help nor hurt.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.dataset import Correctness

Floats = NDArray[np.float64]

POOL_COVERAGE = 0.95
CHARS_PER_TOKEN = 4
N_WILLINGNESS = 60  # points of the cost-quality curve


@dataclass(frozen=True)
class RoutingBench:
    """The pool on the test questions that all of it answered.

    rows: row numbers in the data set, of shape (n_questions,); columns: model columns, of shape (n_models,);
    label: of shape (n_questions, n_models); cost, expected_cost: likewise, USD a request, NaN where a price or a
    length is unknown: what each answer cost, which counts, and what was expected, which choices see;
    train_accuracy: of shape (n_models,).
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    label: Floats
    cost: Floats
    expected_cost: Floats
    train_accuracy: Floats

    @classmethod
    def from_data(cls, data: Correctness, split: str = "test", tokens: Floats | None = None) -> "RoutingBench":
        """Fix the pool on the train questions and lay out the questions of `split` that all of it answered.

        tokens: the expected lengths of answers, of shape (n_questions, n_models), NaN where unknown; without them, each
        model's mean. An answer whose length was not logged is counted as long as expected.
        """
        train = data.learnable("train")
        columns = np.flatnonzero(data.observed[train].mean(axis=0) >= POOL_COVERAGE)
        candidates = data.part(split)
        rows = candidates[data.observed[np.ix_(candidates, columns)].all(axis=1)]
        input_tokens = np.array([len(data.prompts[i]) / CHARS_PER_TOKEN for i in rows])
        expected = mean_output_tokens(data)[columns] if tokens is None else tokens[np.ix_(rows, columns)]
        actual = data.output_tokens[np.ix_(rows, columns)].astype(np.float64)
        prices = data.prices[columns]  # (M, 2)
        price_of_input = input_tokens[:, None] * prices[:, 0] / 1e6
        return cls(
            rows=rows,
            columns=columns,
            label=data.label[np.ix_(rows, columns)].astype(np.float64),
            cost=price_of_input + np.where(np.isnan(actual), expected, actual) * prices[:, 1] / 1e6,
            expected_cost=price_of_input + expected * prices[:, 1] / 1e6,
            train_accuracy=np.array([np.nanmean(data.label[train, column]) for column in columns], dtype=np.float64),
        )

    @property
    def countable(self) -> bool:
        """Whether there is a choice to be made and a question to make it on."""
        return len(self.columns) >= 2 and len(self.rows) >= 1

    def priced(self) -> "RoutingBench":
        """The part of the pool whose costs are known, with its own best single model."""
        known = np.flatnonzero(~np.isnan(self.expected_cost + self.cost).any(axis=0))
        return RoutingBench(
            rows=self.rows,
            columns=self.columns[known],
            label=self.label[:, known],
            cost=self.cost[:, known],
            expected_cost=self.expected_cost[:, known],
            train_accuracy=self.train_accuracy[known],
        )

    @property
    def best_single(self) -> int:
        """The model most often right on the train questions, as a position in `columns`; ties to the cheaper."""
        return int(_first_of_best(self.train_accuracy[None], self.expected_cost.mean(axis=0)[None])[0])

    def choose(self, p: Floats) -> NDArray[np.int64]:
        """Choose the most likely correct model for each question, ties to the cheaper; of shape (n_questions,)."""
        return _first_of_best(p[np.ix_(self.rows, self.columns)], self.expected_cost)

    def right(self, choice: NDArray[np.int64]) -> Floats:
        """Whether each choice was right, of shape (n_questions,)."""
        right: Floats = np.take_along_axis(self.label, choice[:, None], axis=1)[:, 0]
        return right

    def curve(self, p: Floats) -> tuple[Floats, Floats]:
        """Trace cost and quality as the price of a dollar rises: arrays (cost, quality), mean per request.

        Every point routes by P(correct) - lambda x expected cost; lambda runs from 0 to where only cost counts.
        """
        forecast = p[np.ix_(self.rows, self.columns)]
        scale = float(np.median(self.expected_cost)) or 1.0
        lambdas = np.concatenate([[0.0], np.geomspace(1e-3, 1e4, N_WILLINGNESS) / scale])
        points = [
            _first_of_best(forecast - willingness * self.expected_cost, self.expected_cost) for willingness in lambdas
        ]
        cost = np.array([np.take_along_axis(self.cost, c[:, None], axis=1).mean() for c in points])
        quality = np.array([self.right(c).mean() for c in points])
        return cost, quality


def mean_output_tokens(data: Correctness) -> Floats:
    """Average each model's answer length over what a fit may learn from, of shape (n_models,); NaN where unknown."""
    tokens = data.output_tokens[~data.held_out].astype(np.float64)
    known = ~np.isnan(tokens)
    count = known.sum(axis=0)
    total = np.where(known, tokens, 0).sum(axis=0)
    mean: Floats = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return mean


def area_under_curve(cost: Floats, quality: Floats, lowest: float, highest: float) -> float:
    """Average quality over costs from `lowest` to `highest` along the non-decreasing convex hull of a curve.

    This is RouterBench's AIQ (arXiv 2403.12031): mixing two neighbouring routers reaches every point of the hull;
    spending more than the last point buys nothing.
    """
    hull_cost, hull_quality = _hull(cost, quality)
    grid = np.linspace(lowest, highest, 512)
    return float(np.interp(grid, hull_cost, hull_quality).mean())


def cost_to_reach(cost: Floats, quality: Floats, target: float) -> float | None:
    """Find the least cost at which the hull of a curve reaches a quality; None where it never does."""
    hull_cost, hull_quality = _hull(cost, quality)
    if hull_quality[-1] < target:
        return None
    return float(np.interp(target, hull_quality, hull_cost))


def _hull(cost: Floats, quality: Floats) -> tuple[Floats, Floats]:
    """The upper hull of points, left to right, cut where quality is highest."""
    points: list[tuple[float, float]] = []
    for c, q in sorted(zip(cost.tolist(), quality.tolist(), strict=True)):
        if points and c == points[-1][0]:
            points.pop()  # sorted: this one is at least as good
        while len(points) >= 2:
            (c1, q1), (c2, q2) = points[-2:]
            if (q2 - q1) * (c - c1) > (q - q1) * (c2 - c1):
                break
            points.pop()
        points.append((c, q))
    best = max(range(len(points)), key=lambda i: points[i][1])
    return np.array([c for c, _ in points[: best + 1]]), np.array([q for _, q in points[: best + 1]])


def _first_of_best(value: Floats, cost: Floats) -> NDArray[np.int64]:
    """Row-wise argmax; ties go to the cheaper, an unknown cost counting as the dearest, then to the first."""
    best = value == value.max(axis=1, keepdims=True)
    dearness = np.where(best, np.where(np.isnan(cost), np.finfo(np.float64).max, cost), np.inf)
    choice: NDArray[np.int64] = dearness.argmin(axis=1)
    return choice
