"""The models in two dimensions, by how differently they take to the same questions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.model_space import ModelSpace

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ModelMap:
    """The models in two dimensions, of shape (n_models, 2), and how much of their differences these hold."""

    names: tuple[str, ...]
    position: Floats
    shares: tuple[float, float]
    forecast: Floats  # mean P(correct), of shape (n_models,)


def map_models(
    names: tuple[str, ...], models: NDArray[np.float32], questions: NDArray[np.float32], forecast: Floats
) -> ModelMap:
    """Lay the models out so that their distance is how differently they take to the same questions.

    models: embeddings of shape (n_models, K); questions: of shape (n_questions, K). Their logits on the questions,
    without each model's own mean, by the two leading principal components. To the right is what goes with a higher
    forecast accuracy, so that the map has no arbitrary mirror image.
    """
    logits = models @ (questions - questions.mean(axis=0)).T / np.sqrt(max(len(questions), 1))  # (M, N)
    centred = logits - logits.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    position = np.zeros((len(names), 2))
    n_axes = min(2, len(singular))
    position[:, :n_axes] = left[:, :n_axes] * singular[:n_axes]  # (M, 2)
    for axis in range(2):
        if position[:, axis] @ (forecast - forecast.mean()) < 0:
            position[:, axis] *= -1
    power = singular**2
    total = float(power.sum())
    shares = [float(share) / total if total > 0 else 0.0 for share in power[:2]]
    return ModelMap(names, position, (shares[0], shares[1] if len(shares) > 1 else 0.0), forecast)


def map_space(space: ModelSpace) -> ModelMap | None:
    """Lay out a fit's models on the questions it learned from; None of fewer than two models or questions."""
    if len(space.names) < 2 or len(space.questions.mean) < 2:
        return None
    models, questions = space.embedding.astype(np.float32), space.questions.mean.astype(np.float32)
    return map_models(space.names, models, questions, space.p_correct.mean(axis=0))
