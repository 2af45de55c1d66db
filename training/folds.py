"""Folds for cross-fitting: near-duplicate questions stay together, so that none is forecast from its twin."""

import numpy as np
from numpy.typing import NDArray


def deal_folds(groups: NDArray[np.int64], n_folds: int, seed: int) -> NDArray[np.int64]:
    """Deal near-duplicate groups, given by question, into at most `n_folds` folds; of shape (n_questions,)."""
    distinct, group = np.unique(groups, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(distinct))
    folds: NDArray[np.int64] = shuffled[group] % min(n_folds, max(len(distinct), 1))
    return folds
