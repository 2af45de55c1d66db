"""What repeated observations of one model on one question are worth: more than one outcome, less than as many.

A cell that was observed n times weighs n / (1 + (n - 1) r) outcomes, as a binomial with over-dispersion does. r is how
strongly repeats agree beyond what the question's difficulty explains, estimated from the log's own repeats: 0 where
each is a new draw, 1 where a model answers a question the same way every time. The weight sharpens what the cell says
of its question and its model. It is no further question: losses, calibration and folds count a cell once.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

USUAL_AGREEMENT = 0.5  # believed before any repeat is seen,
PRIOR_CELLS = 50.0  # as firmly as this many repeated cells would tell


def weigh(label: Singles, n_observations: Singles) -> Singles:
    """Weigh the cells of a grid of mean labels (N, M), NaN unobserved, that were observed so often, (N, M)."""
    observed = ~np.isnan(label)
    if not (n_observations[observed] > 1).any():
        return observed.astype(np.float32)
    r = agreement(label, n_observations)
    weight: Singles = np.where(observed, n_observations / (1 + (n_observations - 1) * r), 0).astype(np.float32)
    return weight


def agreement(label: Singles, n_observations: Singles) -> float:
    """Estimate r by moments: (within - across) / (variance - across), all about each model's mean.

    within: the covariance of two repeats of a cell; across: that of two models on the same question, which is what
    difficulty explains; variance: of a single observation. What a model's own strengths explain counts as agreement,
    so r is rather too large, and repeats count rather too little.
    """
    y = label.astype(np.float64)
    observed = ~np.isnan(y)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(observed, y, 0).sum(axis=0) / observed.sum(axis=0)  # (M,)
    residual = np.where(observed, y - mean, 0)
    n_models = observed.sum(axis=1)
    n_pairs = (n_models * (n_models - 1)).sum()
    products = np.square(residual.sum(axis=1)) - np.square(residual).sum(axis=1)
    across = max(float(products.sum() / n_pairs), 0.0) if n_pairs else 0.0
    cell = np.nonzero(observed & (n_observations > 1))
    share, rate, n = y[cell], mean[cell[1]], n_observations[cell].astype(np.float64)
    squares = n * (share * (1 - 2 * rate) + rate**2)  # of the single 0/1 observations about the model's mean, summed
    within = (np.square(n * (share - rate)) - squares) / (n * (n - 1))
    variance = rate * (1 - rate)
    prior = PRIOR_CELLS * 0.25
    found = (within - across).sum() + USUAL_AGREEMENT * prior
    return float(np.clip(found / max((variance - across).sum() + prior, 1e-9), 0, 1))
