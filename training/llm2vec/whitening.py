"""A last linear step, if asked for: no few directions are all that a cosine sees.

The mean states of a small model share a few strong directions. Whitening (Su et al. 2021, arXiv 2103.15316) evens
all of them out, down to noise; a power of it is in between.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.encoder.dense import Dense

LEAST = 1e-6  # of the largest variance; no direction counts as weaker


def whiten(vectors: NDArray[np.floating[Any]], power: float) -> Dense:
    """Fit to vectors (N, D): each principal direction is divided by its standard deviation to the power.

    power: 0 leaves the directions as they are, 1 makes them equal. The result is centred and as long as it was on
    average; directions stay where they are.
    """
    centre = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - centre
    variance, directions = np.linalg.eigh(centred.T @ centred / len(vectors))
    variance = np.maximum(variance, max(LEAST * variance.max(), 1e-12))
    scale = variance ** (-power / 2)
    scale *= np.sqrt(variance.sum() / (variance * scale**2).sum())
    weight = directions * scale @ directions.T  # (D, D)
    return Dense(weight.astype(np.float32), (-centre @ weight).astype(np.float32))
