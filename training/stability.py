"""How far two fits that differ only in their seed say the same of the models."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes

from training.model_space import ModelSpace

Floats = NDArray[np.float64]

N_SHUFFLES = 100


@dataclass(frozen=True)
class Stability:
    """Two fits compared on the models and questions of both.

    embedding_correlation: of coordinates after the best rotation (orthogonal Procrustes, Schoenemann 1966); by_chance:
    its mean where models are shuffled, since a rotation always finds something; distance_correlation: of distances
    between models, in logits, which no rotation changes; p_difference: mean absolute difference of P(correct).
    """

    n_models: int
    n_questions: int
    embedding_correlation: float
    by_chance: float
    distance_correlation: float
    p_difference: float


def compare_spaces(first: ModelSpace, second: ModelSpace, seed: int = 0) -> Stability | None:
    """Compare fits of the same models to the same questions, in the same order; None of fewer than three models."""
    if first.names != second.names or len(first.questions.mean) != len(second.questions.mean):
        raise ValueError("two fits are compared on the same models and questions")
    n = len(first.names)
    if n < 3:
        return None
    rng = np.random.default_rng(seed)
    shuffled = [_aligned_correlation(first.position[rng.permutation(n)], second.position) for _ in range(N_SHUFFLES)]
    pairs = np.triu_indices(n, k=1)
    return Stability(
        n_models=n,
        n_questions=len(first.questions.mean),
        embedding_correlation=_aligned_correlation(first.position, second.position),
        by_chance=float(np.mean(shuffled)),
        distance_correlation=_correlation(first.distance[pairs], second.distance[pairs]),
        p_difference=float(np.abs(first.p_correct - second.p_correct).mean()),
    )


def _aligned_correlation(first: Floats, second: Floats) -> float:
    rotation, _ = orthogonal_procrustes(first, second)
    return _correlation((first @ rotation).ravel(), second.ravel())


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale > 0 else 0.0
