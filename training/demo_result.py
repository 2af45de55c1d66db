"""What the demo found: the router's choices graded beside every model's own answers to the same questions.

Figures and tables only; `training.demo` asks and routes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from data.demo.question import Question
from training.metrics import bootstrap_weights, interval

Floats = NDArray[np.float64]
N_RESAMPLES = 2000
POLICIES: dict[str, dict[str, Any]] = {
    "quality": {"policy": "quality"},
    "balanced": {"policy": "balanced", "lambda": 200},
    "cheapest": {"policy": "cheapest", "min_p_correct": 0.7},
}
"""The policies that the demo routes with, as a request states them."""


@dataclass(frozen=True)
class Routed:
    """One question through the router: who answered, what was said, whether it was right, and what it cost."""

    model: str
    decision_id: str
    reply: str
    correct: bool
    cost_usd: float


@dataclass(frozen=True)
class Direct:
    """Every model's own answer to every question: label and cost_usd, of shape (n_questions, n_models)."""

    models: tuple[str, ...]
    label: Floats
    cost_usd: Floats


@dataclass(frozen=True)
class Line:
    """One way of choosing a model: right and cost_usd, of shape (n_questions,)."""

    name: str
    right: Floats
    cost_usd: Floats


@dataclass(frozen=True)
class DemoResult:
    """The unseen questions, answered by the router under each policy and by every model directly.

    groups: of shape (n_questions,), near-duplicate groups; best_single: the model most often right in training.
    """

    questions: Sequence[Question]
    groups: NDArray[np.int64]
    routed: dict[str, list[Routed]]
    direct: Direct
    best_single: str
    seed: int

    @property
    def lines(self) -> list[Line]:
        """Every way of choosing, the router's first."""
        label, cost = self.direct.label, self.direct.cost_usd
        single = self.direct.models.index(self.best_single)
        right_then_cheap = np.where(label == label.max(axis=1, keepdims=True), cost, np.inf).argmin(axis=1)  # (N,)
        rows = np.arange(len(label))
        return [
            *(
                Line(
                    f"router, {policy}",
                    np.array([one.correct for one in answers], dtype=np.float64),
                    np.array([one.cost_usd for one in answers]),
                )
                for policy, answers in self.routed.items()
            ),
            Line("best single model", label[:, single], cost[:, single]),
            Line("random model", label.mean(axis=1), cost.mean(axis=1)),
            Line("oracle", label[rows, right_then_cheap], cost[rows, right_then_cheap]),
        ]

    @property
    def advantage(self) -> tuple[float, tuple[float, float]]:
        """Router minus best single model, in share right, with its paired 95% interval over groups."""
        first, single = self.lines[0], self.lines[len(self.routed)]
        difference = first.right - single.right
        weights = bootstrap_weights(self.groups, N_RESAMPLES, self.seed)
        return float(difference.mean()), interval((weights @ difference) / weights.sum(axis=1))

    def table(self) -> Table:
        """Share right and cost of every way of choosing."""
        table = Table(title="Routing unseen questions to simulated LLMs", title_justify="left")
        table.add_column("", no_wrap=True)
        for title in ("right", "95% interval", "USD / 1,000"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("asked most")
        weights = bootstrap_weights(self.groups, N_RESAMPLES, self.seed)
        for place, line in enumerate(self.lines):
            low, high = interval((weights @ line.right) / weights.sum(axis=1))
            if place == len(self.routed):
                table.add_section()
            table.add_row(
                line.name,
                f"{line.right.mean():.1%}",
                f"{low:.1%} – {high:.1%}",
                f"{line.cost_usd.mean() * 1000:.4f}",
                self._asked_most(place),
            )
        return table

    def explained(self) -> list[tuple[str, int]]:
        """Three questions worth a look, by what happened on them and not by hand: what happened, and the row."""
        right = self.lines[0].right.astype(bool)
        single_right = self.lines[len(self.routed)].right.astype(bool)
        anyone = self.direct.label.any(axis=1)
        wanted = (
            ("the first that the router got right and the best single model wrong", right & ~single_right),
            ("the first that the router got wrong although some model was right", ~right & anyone),
            ("the first that both got right", right & single_right),
        )
        return [(title, int(np.flatnonzero(where)[0])) for title, where in wanted if where.any()]

    def as_json(self) -> dict[str, Any]:
        """The figures of the tables, as one JSON object."""
        mean, (low, high) = self.advantage
        names = [*self.routed, "best_single", "random", "oracle"]
        return {
            "simulated": True,
            "n_questions": len(self.questions),
            "n_groups": len(np.unique(self.groups)),
            "best_single_model": self.best_single,
            "routing": {
                name: {"accuracy": float(line.right.mean()), "cost_usd_per_request": float(line.cost_usd.mean())}
                for name, line in zip(names, self.lines, strict=True)
            },
            "router_minus_best_single": {"accuracy": mean, "ci95": [low, high]},
            "models": {
                name: {"accuracy": float(label.mean()), "cost_usd_per_request": float(cost.mean())}
                for name, label, cost in zip(
                    self.direct.models, self.direct.label.T, self.direct.cost_usd.T, strict=True
                )
            },
        }

    def _asked_most(self, place: int) -> str:
        if place >= len(self.routed):
            return self.best_single if place == len(self.routed) else ""
        answers = list(self.routed.values())[place]
        name, n = Counter(one.model for one in answers).most_common(1)[0]
        return f"{name} ({n / len(answers):.0%})"
