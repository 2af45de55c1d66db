"""The forward pass: what is known of a prompt in, P(correct) of every model out. The trainer imports it too.

EmbedLLM's matrix factorization (arXiv 2410.02223) as a latent-variable model. Every question has an embedding t, every
model an embedding u and a bias b, and P(model is correct) = sigmoid(b + u . t). A prompt's text tells its embedding up
to an error: t = f(x) + e, e ~ N(0, R), with f a Gaussian process on the prompt's features. The forecast for an unseen
prompt integrates that error out; a calibration closes it. Arrays only: no SQL, no files, no text.
"""

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

SURFACE_LIMIT = 4.0  # standard deviations beyond which a surface feature says no more


@dataclass(frozen=True)
class Features:
    """Turns a prompt's vector and surface into one point whose distances are comparable.

    vector_mean: of shape (dim_vector,); surface_mean, surface_scale: of shape (n_surface,), of the training questions.
    """

    vector_mean: Singles
    surface_mean: Singles
    surface_scale: Singles

    def __call__(self, vectors: Singles, surface: Singles) -> Singles:
        """Join the direction of the centred vector and the standardized surface, (N, dim_vector + n_surface)."""
        centred = vectors - self.vector_mean
        norm = np.linalg.norm(centred, axis=1, keepdims=True)
        direction = np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)
        standard = np.clip((surface - self.surface_mean) / self.surface_scale, -SURFACE_LIMIT, SURFACE_LIMIT)
        joined: Singles = np.hstack([direction, standard / np.sqrt(np.float32(max(surface.shape[1], 1)))])
        return joined.astype(np.float32, copy=False)


def kernel(a: Singles, b: Singles, n_surface: int) -> Singles:
    """Compare points of shape (N, D) and (J, D) whose last `n_surface` columns are surface; of shape (N, J).

    A radial kernel on words and surface together, exp(-|a - b|^2 / 2), plus half a narrower one on words alone,
    exp(-|a - b|^2): a prompt that reads like logged ones but looks unlike them is not wholly unknown.
    """
    words = a.shape[1] - n_surface
    by_words = _squared_distance(a[:, :words], b[:, :words])
    by_surface = _squared_distance(a[:, words:], b[:, words:])
    similarity: Singles = 0.5 * np.exp(-by_words) + np.exp(-0.5 * (by_words + by_surface))
    return similarity


def _squared_distance(a: Singles, b: Singles) -> Singles:
    squared = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None] - 2 * (a @ b.T)
    distance: Singles = np.maximum(squared, 0)
    return distance


@dataclass(frozen=True)
class Scorer:
    """Scores prompts against models.

    landmarks: of shape (n_landmarks, n_features), training questions that the Gaussian process stands on;
    weights: of shape (n_landmarks, K), with prior_mean of shape (K,): f(x) = prior_mean + kernel(x, landmarks) weights;
    residual: of shape (K, K), the covariance R of an embedding about f(x);
    model_embedding: of shape (n_models, K); model_bias: of shape (n_models,);
    slope, offset: P(correct) = sigmoid(slope * logit + offset), fitted on held-out questions (Platt 1999).
    """

    features: Features
    landmarks: Singles
    weights: Singles
    prior_mean: Singles
    residual: Singles
    model_embedding: Singles
    model_bias: Singles
    slope: float = 1.0
    offset: float = 0.0

    @property
    def n_models(self) -> int:
        return int(self.model_embedding.shape[0])

    def embed(self, vectors: Singles, surface: Singles) -> Singles:
        """Expect the question embeddings of prompts, of shape (N, K)."""
        similarity = kernel(self.features(vectors, surface), self.landmarks, surface.shape[1])  # (N, J)
        embedding: Singles = similarity @ self.weights + self.prior_mean
        return embedding

    def logits(self, embedding: Singles) -> Singles:
        """Score expected embeddings of shape (N, K), their error integrated out; uncalibrated, of shape (N, M).

        E[sigmoid(z)] for z ~ N(m, v) is about sigmoid(m / sqrt(1 + pi v / 8)) (MacKay 1992).
        """
        variance = np.einsum("mk,kl,ml->m", self.model_embedding, self.residual, self.model_embedding)  # (M,)
        mean = embedding @ self.model_embedding.T + self.model_bias  # (N, M)
        scaled: Singles = mean / np.sqrt(1 + np.float32(np.pi / 8) * variance)
        return scaled

    def p_correct(self, vectors: Singles, surface: Singles) -> Floats:
        """Forecast from raw vectors (N, dim_vector) and surfaces (N, n_surface): probabilities of shape (N, M)."""
        logits = self.slope * self.logits(self.embed(vectors, surface)).astype(np.float64) + self.offset
        p: Floats = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
        return p

    def tensors(self) -> dict[str, NDArray[np.floating[Any]]]:
        """Name every array, for `from_tensors` to bring back to the bit."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("features", "slope", "offset")}
        joint = {f"features.{f.name}": getattr(self.features, f.name) for f in fields(Features)}
        calibration = {"calibration": np.array([self.slope, self.offset], dtype=np.float64)}
        return {name: np.ascontiguousarray(array) for name, array in (own | joint | calibration).items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, NDArray[np.floating[Any]]]) -> Self:
        """Bring a scorer back from its arrays."""
        own = dict(tensors)
        slope, offset = own.pop("calibration").tolist()
        joint = Features(**{f.name: own.pop(f"features.{f.name}") for f in fields(Features)})
        return cls(features=joint, **own, slope=slope, offset=offset)
