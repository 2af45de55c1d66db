"""The two-parameter logistic model of item response theory (Birnbaum 1968), the baseline of accuracy forecasts.

P(y[n, m] = 1) = sigmoid(a[n] (theta[m] - b[n])): items differ in discrimination and difficulty, models in one ability.
Items are fitted by marginal maximum likelihood with weak priors (Bock and Aitkin 1981), abilities integrated out over a
grid. It reads no text, so of an item that no model answered it says nothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.posterior import sigmoid

Floats = NDArray[np.float64]

ABILITY = np.linspace(-4.5, 4.5, 46)  # the grid, (G,)
LOG_DISCRIMINATION_SD = 0.5
DIFFICULTY_SD = 2.0  # of the item's intercept -a b


@dataclass(frozen=True)
class Items:
    """Fitted items: log_discrimination and intercept = -a b, each of shape (N,)."""

    log_discrimination: Floats
    intercept: Floats

    def p_correct(self) -> Floats:
        """P(correct) at every ability of the grid, of shape (G, N)."""
        logit = np.exp(self.log_discrimination) * ABILITY[:, None] + self.intercept
        return sigmoid(logit)


@dataclass(frozen=True)
class Accuracy:
    """Expected accuracy and its central 90% interval."""

    mean: float
    low: float
    high: float


def fit_items(label: NDArray[np.float32], n_rounds: int = 30) -> Items:
    """Fit the items to other models' outcomes (N, M) in [0, 1], NaN where unobserved."""
    observed = ~np.isnan(label)
    y, weight = np.where(observed, label, 0).astype(np.float64), observed.astype(np.float64)
    items = Items(np.zeros(len(label)), np.zeros(len(label)))
    for _ in range(n_rounds):
        ability = _abilities(items, y, weight)  # (G, M)
        n_there, right = ability @ weight.T, ability @ (y * weight).T  # (G, N): expected counts
        items = _newton(items, n_there, right)
    return items


def forecast_irt(items: Items, label: NDArray[np.float32], seed: int = 0, n_draws: int = 600) -> Accuracy:
    """Forecast the mean label over all items from a new model's outcomes (N,), NaN where there is none."""
    labelled = ~np.isnan(label)
    known = label[labelled].astype(np.float64)
    observed = np.where(labelled, label, 0).astype(np.float64)[:, None]
    posterior = _abilities(items, observed, labelled.astype(np.float64)[:, None])[:, 0]
    rng = np.random.default_rng(seed)
    p = items.p_correct()[:, ~labelled]  # (G, N unlabelled)
    right, spread = p.sum(axis=1), np.sqrt((p * (1 - p)).sum(axis=1))
    drawn = rng.choice(len(ABILITY), size=n_draws, p=posterior)
    total = np.clip(right[drawn] + spread[drawn] * rng.standard_normal(n_draws), 0, p.shape[1])
    low, high = np.quantile((known.sum() + total) / len(label), [0.05, 0.95])
    return Accuracy(float((known.sum() + posterior @ right) / len(label)), float(low), float(high))


def _abilities(items: Items, y: Floats, weight: Floats) -> Floats:
    """Each model's posterior over the grid of abilities under a standard normal prior, (G, M)."""
    p = np.clip(items.p_correct(), 1e-9, 1 - 1e-9)
    log = np.log(p) @ (weight * y) + np.log1p(-p) @ (weight * (1 - y)) - ABILITY[:, None] ** 2 / 2
    density = np.exp(log - log.max(axis=0))
    posterior: Floats = density / density.sum(axis=0)
    return posterior


def _newton(items: Items, n_there: Floats, right: Floats, steps: int = 3) -> Items:
    """Maximize every item's expected log posterior in (log a, intercept), all items at once."""
    log_a, c = items.log_discrimination.copy(), items.intercept.copy()
    for _ in range(steps):
        p = Items(log_a, c).p_correct()  # (G, N)
        slope = np.exp(log_a) * ABILITY[:, None]  # (G, N): d logit / d log a
        error, information = right - n_there * p, n_there * p * (1 - p)
        gradient_a = (error * slope).sum(axis=0) - log_a / LOG_DISCRIMINATION_SD**2
        gradient_c = error.sum(axis=0) - c / DIFFICULTY_SD**2
        aa = (information * slope**2).sum(axis=0) + 1 / LOG_DISCRIMINATION_SD**2  # Fisher's, always positive
        ac = (information * slope).sum(axis=0)
        cc = information.sum(axis=0) + 1 / DIFFICULTY_SD**2
        determinant = aa * cc - ac**2
        log_a += np.clip((cc * gradient_a - ac * gradient_c) / determinant, -0.5, 0.5)
        c += np.clip((aa * gradient_c - ac * gradient_a) / determinant, -1, 1)
    return Items(log_a, c)
