"""How good a forecast is, on the observed cells of a models x questions grid.

Every measure takes `weights` of shape (n_questions,), so that the bootstrap is one matrix product instead of a
thousand resampled copies. A cell whose repeated observations disagree has a fractional label y: it counts as y of a
right answer and 1 - y of a wrong one. Unobserved cells count nowhere.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EPSILON = 1e-6  # probabilities are clipped to [EPSILON, 1 - EPSILON] in logarithms
N_ECE_BINS = 15


@dataclass(frozen=True)
class Cells:
    """The observed cells of a grid and their forecasts, flat.

    question: of shape (n_cells,), row numbers; label: in [0, 1]; p: P(correct).
    """

    question: NDArray[np.int64]
    label: Floats
    p: Floats
    n_questions: int

    @classmethod
    def from_grid(cls, label: NDArray[np.float32], p: Floats) -> "Cells":
        """Flatten grids of shape (n_questions, n_models); NaN labels are left out."""
        if label.shape != p.shape:
            raise ValueError(f"labels of shape {label.shape}, forecasts of shape {p.shape}")
        if not np.isfinite(p).all() or p.min(initial=0) < 0 or p.max(initial=0) > 1:
            raise ValueError("a forecast is a probability; found values outside [0, 1] or NaN")
        question, model = np.nonzero(~np.isnan(label))
        return cls(question, label[question, model].astype(np.float64), p[question, model], label.shape[0])

    def mean_by_weights(self, value: Floats, weights: Floats) -> Floats:
        """Average a per-cell value under question weights of shape (..., n_questions)."""
        total = np.bincount(self.question, weights=value, minlength=self.n_questions)
        count = np.bincount(self.question, minlength=self.n_questions).astype(np.float64)
        mean: Floats = (weights @ total) / (weights @ count)
        return mean


def nll_by_cell(cells: Cells) -> Floats:
    """Negative log-likelihood of every cell, in nats."""
    p = np.clip(cells.p, EPSILON, 1 - EPSILON)
    loss: Floats = -(cells.label * np.log(p) + (1 - cells.label) * np.log1p(-p))
    return loss


def brier_by_cell(cells: Cells) -> Floats:
    """Squared error of every cell (Brier 1950)."""
    loss: Floats = cells.label * (1 - cells.p) ** 2 + (1 - cells.label) * cells.p**2
    return loss


def hit_by_cell(cells: Cells) -> Floats:
    """Whether P(correct) >= 1/2 says what happened."""
    return np.where(cells.p >= 0.5, cells.label, 1 - cells.label)


def auc(cells: Cells, weights: Floats) -> Floats:
    """Area under the ROC curve under question weights of shape (..., n_questions), ties counted half."""
    order = np.argsort(cells.p, kind="stable")
    p, label, question = cells.p[order], cells.label[order], cells.question[order]
    tie = np.concatenate([[0], np.cumsum(np.diff(p) > 0)]) if p.size else np.zeros(0, dtype=np.int64)
    n_ties = int(tie[-1]) + 1 if p.size else 0
    batch = np.atleast_2d(weights)
    areas = np.empty(len(batch))
    for i, weight in enumerate(batch):
        w = weight[question]
        right = np.bincount(tie, weights=w * label, minlength=n_ties)
        wrong = np.bincount(tie, weights=w * (1 - label), minlength=n_ties)
        below = np.cumsum(wrong) - wrong
        pairs = right.sum() * wrong.sum()
        areas[i] = (right @ (below + wrong / 2)) / pairs if pairs else np.nan
    return areas.reshape(np.shape(weights)[:-1])


def within_question_pairs(label: NDArray[np.float32], p: Floats, chunk: int = 256) -> tuple[Floats, Floats]:
    """Count each question's pairs of a right and a wrong model, and those ranked rightly (ties half).

    Returns (concordant, pairs), both of shape (n_questions,); their ratio of sums is the within-question AUC, which
    no knowledge of which questions are hard can raise.
    """
    n_questions = label.shape[0]
    concordant, pairs = np.zeros(n_questions), np.zeros(n_questions)
    right = np.nan_to_num(label.astype(np.float64), nan=0.0)
    wrong = np.where(np.isnan(label), 0.0, 1.0 - right)
    for start in range(0, n_questions, chunk):
        rows = slice(start, start + chunk)
        weight = right[rows, :, None] * wrong[rows, None, :]  # (n, M, M): first right, second wrong
        difference = p[rows, :, None] - p[rows, None, :]
        concordant[rows] = (weight * ((difference > 0) + 0.5 * (difference == 0))).sum(axis=(1, 2))
        pairs[rows] = weight.sum(axis=(1, 2))
    return concordant, pairs


def ece(cells: Cells, n_bins: int = N_ECE_BINS) -> float:
    """Expected calibration error over equal-mass bins of P(correct) (Naeini et al. 2015)."""
    if not cells.p.size:
        return float("nan")
    order = np.argsort(cells.p, kind="stable")
    error = sum(
        abs(float(cells.p[bin_].mean() - cells.label[bin_].mean())) * len(bin_)
        for bin_ in np.array_split(order, min(n_bins, len(order)))
    )
    return error / len(order)


def bootstrap_weights(groups: NDArray[np.int64], n_resamples: int, seed: int) -> Floats:
    """Draw how often each question stands in each resample of near-duplicate groups.

    Returns an array of shape (n_resamples, n_questions). Two methods judged under the same weights are compared
    in pairs.
    """
    _, group = np.unique(groups, return_inverse=True)
    n_groups = int(group.max()) + 1 if group.size else 0
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples)
    weights: Floats = counts[:, group].astype(np.float64)
    return weights


def interval(samples: Floats, level: float = 0.95) -> tuple[float, float]:
    """Take the percentile interval of bootstrap samples."""
    low, high = np.nanquantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
