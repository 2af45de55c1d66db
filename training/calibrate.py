"""Calibration: from a scorer's logits to probabilities that mean what they say (Platt 1999).

One slope and offset for all models, then each model's own about these, shrunk as far as the models are alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from training.chunks import sum_chunks

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

NEUTRAL = np.array([1.0, 0.0])  # a slope and an offset that change nothing
LOOSE = np.array([0.5, 0.5])  # standard deviations of a model's (slope, offset) that no log contradicts
USUAL = np.array([0.05, 0.05])  # and those that are believed before any model is seen,
USUAL_MODELS = 4.0  # as firmly as this many models would tell
N_EM = 300
MIN_SLOPE = 0.05
MAX_STEPS = 50  # of Newton's method, halved ones among them; four to six do where logits are nearly right
CLOSE = 1e-6  # a step that is not worth taking
MANY_CELLS = 65_536  # worked on together
PRIOR_STRENGTH = 10.0  # cells' worth of belief that logits are calibrated already


@dataclass(frozen=True)
class Platt:
    """P(correct) = sigmoid(slope * logit + offset)."""

    slope: float
    offset: float


def fit_platt(logits: NDArray[np.float32], label: NDArray[np.float32]) -> Platt:
    """Fit slope and offset on held-out logits and labels of shape (n_questions, n_models); NaN labels are left out.

    The slope is positive, so calibration never reorders models. A weak prior at slope 1, offset 0 decides where the
    cells are too few to.
    """
    observed = ~np.isnan(label)
    x, y = logits[observed], label[observed]

    def loss(theta: Floats) -> tuple[float, Floats]:
        slope, offset = np.exp(theta[0]), theta[1]

        def of_chunk(cells: slice) -> tuple[Floats, ...]:
            z = np.float32(slope) * x[cells] + np.float32(offset)
            residual = expit(z) - y[cells]
            sums = log_losses(z, y[cells]).sum(dtype=np.float64), residual @ x[cells], residual.sum(dtype=np.float64)
            return (np.array(sums, dtype=np.float64),)

        ((value, by_slope, by_offset),) = sum_chunks(len(x), of_chunk, chunk=MANY_CELLS)
        value += PRIOR_STRENGTH / 2 * np.sum(theta**2)
        return float(value), np.array([by_slope * slope, by_offset]) + PRIOR_STRENGTH * theta

    best = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-3, 3), (-5, 5)])
    return Platt(slope=float(np.exp(best.x[0])), offset=float(best.x[1]))


def log_losses(z: Singles, label: Singles) -> Singles:
    """The log loss of each logit; NaN where the label is."""
    losses: Singles = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))) - label * z
    return losses


def fit_own(logits: Floats | Singles, label: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fit each model's slope and offset on held-out logits that are calibrated for all, both (n_questions, n_models).

    Of shape (n_models, 2), to be used as P(correct) = sigmoid(slope * logit + offset). Slopes are shrunk to 1 and
    offsets to 0 by empirical Bayes: how much models differ is what makes the labels of all most likely. NaN labels
    are left out; a model without any has slope 1 and offset 0. Slopes are positive, at least MIN_SLOPE: a model whose
    outcomes contradict its logits is hardly told apart by them, and never the other way round.
    """
    models = [_Cells.of(logits[:, m], label[:, m]) for m in range(label.shape[1])]
    loose = [cells.maximize(np.zeros(2), LOOSE**-2) for cells in models]
    seen = [one for one, cells in zip(loose, models, strict=True) if len(cells.label)]
    precision = _precision(seen)
    shrunk = [cells.maximize(one.theta, precision) for one, cells in zip(loose, models, strict=True)]
    own: NDArray[np.float32] = np.array([one.theta + NEUTRAL for one in shrunk], dtype=np.float32).reshape(-1, 2)
    return own


@dataclass(frozen=True)
class _Own:
    """A model's slope less 1 and offset, theta (2,), and the log-likelihood about them.

    It is log_likelihood at theta, and near it pull . theta - theta . information theta / 2 but for a constant; (2,) and
    (2, 2).
    """

    theta: Floats
    log_likelihood: float
    pull: Floats
    information: Floats

    def height(self, precision: Floats) -> float:
        """The logarithm of the posterior under N(0, 1 / precision), (2,), but for a constant."""
        return self.log_likelihood - float(precision @ np.square(self.theta)) / 2

    def step(self, precision: Floats) -> Floats:
        """Newton's step to where that is highest, (2,), among slopes that are no less than MIN_SLOPE."""
        hessian = self.information + np.diag(precision)
        uphill = self.pull - hessian @ self.theta
        by_slope = max(float(np.linalg.solve(hessian, uphill)[0]), MIN_SLOPE - 1 - self.theta[0])
        return np.array([by_slope, (uphill[1] - hessian[1, 0] * by_slope) / hessian[1, 1]])


@dataclass(frozen=True)
class _Cells:
    """One model's outcomes: logit and label, both (n,)."""

    logit: Floats
    label: Floats

    @classmethod
    def of(cls, logit: Floats | Singles, label: NDArray[np.float32]) -> "_Cells":
        observed = ~np.isnan(label)
        return cls(logit[observed].astype(np.float64), label[observed].astype(np.float64))

    def maximize(self, theta: Floats, precision: Floats) -> _Own:
        """Find the mode under N(0, 1 / precision), (2,), by Newton's method from theta on; far off, it overshoots."""
        own = self._expand(theta)
        step = own.step(precision)
        for _ in range(MAX_STEPS):
            if np.abs(step).max() < CLOSE:
                break
            there = self._expand(own.theta + step)
            if there.height(precision) >= own.height(precision):
                own, step = there, there.step(precision)
            else:
                step = step / 2
        return own

    def _expand(self, theta: Floats) -> _Own:
        x, y = self.logit, self.label
        z = (1 + theta[0]) * x + theta[1]
        small = np.exp(-np.abs(z))
        p = np.where(z > 0, 1, small) / (1 + small)
        log_likelihood = float(y @ z - np.maximum(z, 0).sum() - np.log1p(small).sum())
        slope = p * (1 - p)
        of_both = slope @ x
        information = np.array([[(slope * x) @ x, of_both], [of_both, slope.sum()]])
        gradient = np.array([(y - p) @ x, (y - p).sum()])
        return _Own(theta, log_likelihood, gradient + information @ theta, information)


def _precision(models: Sequence[_Own]) -> Floats:
    """How alike models are in slope and in offset, (2,), by expectation-maximization."""
    variance = USUAL**2
    if not models:
        return 1 / variance
    information, pull = np.array([one.information for one in models]), np.array([one.pull for one in models])
    for _ in range(N_EM):
        covariance = np.linalg.inv(information + np.diag(1 / variance))  # (M, 2, 2)
        theta = np.einsum("mkl,ml->mk", covariance, pull)
        spread = np.square(theta) + np.diagonal(covariance, axis1=1, axis2=2)
        variance = (spread.sum(axis=0) + USUAL_MODELS * USUAL**2) / (len(models) + USUAL_MODELS)
    return 1 / variance
