"""Calibration: from a scorer's logits to probabilities that mean what they say (Platt 1999)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

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
    x, y = logits[observed].astype(np.float64), label[observed].astype(np.float64)

    def loss(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slope = np.exp(theta[0])
        z = slope * x + theta[1]
        residual = expit(z) - y
        value = np.sum(np.logaddexp(0, z) - y * z) + PRIOR_STRENGTH / 2 * np.sum(theta**2)
        gradient = np.array([np.sum(residual * x) * slope, np.sum(residual)]) + PRIOR_STRENGTH * theta
        return float(value), gradient

    best = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-3, 3), (-5, 5)])
    return Platt(slope=float(np.exp(best.x[0])), offset=float(best.x[1]))
