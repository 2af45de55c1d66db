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


def weigh_alone(label: Floats, n_observations: Floats, others: Singles) -> Singles:
    """Weigh one model's mean labels (N,), observed so often, beside the others' (N, M), NaN unobserved; (N,).

    Only its own repeats say how it agrees with itself: others may sample their answers where it does not. What the
    others answered to the same questions says what difficulty explains.
    """
    grid = np.column_stack([label, others]).astype(np.float32)
    counts = np.ones_like(grid)
    counts[:, 0] = n_observations
    return weigh(grid, counts)[:, 0]


def agreement(label: Singles, n_observations: Singles) -> float:
    """Estimate r by moments: (within - across) / (variance - across), about each model's mean on repeated questions.

    within: the covariance of two repeats of a cell; across: that of two models on the same question, which is what
    difficulty explains; variance: of a single observation. Questions without repeats may be easier or harder, and are
    left out; of the others, each counts in all three as often as its cells were repeated. What a model's own strengths
    explain counts as agreement, so r is rather too large, and repeats count rather too little.
    """
    repeated = ~np.isnan(label) & (n_observations > 1)
    rows = repeated.any(axis=1)
    y, counts, repeated = label[rows].astype(np.float64), n_observations[rows].astype(np.float64), repeated[rows]
    observed = ~np.isnan(y)
    mean = np.where(observed, y, 0).sum(axis=0) / np.maximum(observed.sum(axis=0), 1)  # (M,)
    cell = np.nonzero(repeated)
    share, rate, n = y[cell], mean[cell[1]], counts[cell]
    variance = share * (1 - 2 * rate) + rate**2  # the mean square of the single 0/1 observations about the model's mean
    within = (n * np.square(share - rate) - variance) / (n - 1)
    across = _across_models(np.where(observed, y - mean, 0), observed.sum(axis=1), repeated.sum(axis=1))
    prior = PRIOR_CELLS * 0.25
    found = (within - across).sum() + USUAL_AGREEMENT * prior
    return float(np.clip(found / max((variance - across).sum() + prior, 1e-9), 0, 1))


def _across_models(residual: Floats, n_models: NDArray[np.int64], times: NDArray[np.int64]) -> float:
    """The covariance of two models on a question: residual (N, M), 0 unobserved; question n counts times[n], (N,)."""
    n_pairs = times @ (n_models * (n_models - 1))
    products = times @ (np.square(residual.sum(axis=1)) - np.square(residual).sum(axis=1))
    return max(float(products / n_pairs), 0.0) if n_pairs else 0.0
