"""Expectation-maximization for the latent-variable model that `router.scorer` scores with.

P(y[n, m] = 1) = sigmoid(b[m] + u[m] . t[n]), t[n] ~ N(f[n], R): item response theory with several dimensions, where
the text's forecast f is each question's prior. The E-step is a Laplace approximation of every question's posterior,
the M-step a logistic regression of every model on the questions' posteriors, both by Newton's method on the dense
grid. Unobserved cells weigh nothing. It knows no text and no vectors: f is handed in.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """A grid of outcomes: label (N, M) with unobserved cells as 0, and weight (N, M), 0 where unobserved."""

    label: Floats
    weight: Floats

    @classmethod
    def from_grid(cls, label: NDArray[np.float32]) -> "Outcomes":
        observed = ~np.isnan(label)
        return cls(np.where(observed, label, 0).astype(np.float64), observed.astype(np.float64))


@dataclass(frozen=True)
class Models:
    """The model side: embedding (M, K) and bias (M,), with the strength of their shrinkage to the pool's mean.

    A model with few outcomes stays near the mean model; precision is that of the prior N(mean, 1 / precision).
    """

    embedding: Floats
    bias: Floats
    precision: float = 1.0

    def variance_of_logit(self, covariance: Floats) -> Floats:
        """The variance u . C u of logits under embeddings' covariance C, (K, K) or (N, K, K): (M,) or (N, M)."""
        dim = self.embedding.shape[1]
        outer = (self.embedding[:, :, None] * self.embedding[:, None, :]).reshape(-1, dim * dim)  # (M, K*K)
        variance: Floats = covariance.reshape(*covariance.shape[:-2], dim * dim) @ outer.T
        return variance


@dataclass(frozen=True)
class Posterior:
    """What is known of every question's embedding: mean (N, K) and covariance (N, K, K)."""

    mean: Floats
    covariance: Floats


def start_models(outcomes: Outcomes, dim: int, seed: int) -> Models:
    """Begin at the base rates: the first dimension is a difficulty that all models share, the others are noise."""
    n_models = outcomes.label.shape[1]
    right = (outcomes.label * outcomes.weight).sum(axis=0)
    total = outcomes.weight.sum(axis=0)
    pool = right.sum() / max(total.sum(), 1)
    rate = (right + 2 * pool + 0.01) / (total + 2.02)
    embedding = np.random.default_rng(seed).normal(0, 0.3, (n_models, dim))
    embedding[:, 0] = 1.0
    return Models(embedding, np.log(rate / (1 - rate)))


def infer(
    outcomes: Outcomes, models: Models, prior_mean: Floats, prior: Floats, start: Floats | None = None, steps: int = 4
) -> Posterior:
    """E-step: every question's posterior given its outcomes and its prior N(prior_mean[n], prior).

    prior_mean: (N, K); prior: covariance (K, K). A question without outcomes keeps its prior.
    """
    n, dim = prior_mean.shape
    u = models.embedding
    outer = (u[:, :, None] * u[:, None, :]).reshape(-1, dim * dim)  # (M, K*K)
    precision = np.linalg.inv(prior)
    t = (prior_mean if start is None else start).copy()
    for step in range(steps + 1):
        p = _sigmoid(t @ u.T + models.bias)  # (N, M)
        hessian = ((outcomes.weight * p * (1 - p)) @ outer).reshape(n, dim, dim) + precision
        if step < steps:
            gradient = (outcomes.weight * (outcomes.label - p)) @ u - (t - prior_mean) @ precision
            t += np.linalg.solve(hessian, gradient[..., None])[..., 0]
    return Posterior(t, np.linalg.inv(hessian))


def update_models(outcomes: Outcomes, models: Models, questions: Posterior, steps: int = 2) -> Models:
    """M-step: every model's embedding and bias given the questions' posteriors, all models at once.

    A logistic regression whose inputs are uncertain: sigmoid and its slope are averaged over each question's posterior
    by the probit approximation, E[sigmoid(z) t] = p t + E[sigmoid'(z)] C u.
    """
    n, dim = questions.mean.shape
    joined = np.hstack([questions.mean, np.ones((n, 1))])  # (N, K+1)
    outer = (joined[:, :, None] * joined[:, None, :]).reshape(n, -1)  # (N, (K+1)^2)
    covariance = questions.covariance.reshape(n, -1)  # (N, K*K)
    shrinkage = np.append(np.full(dim, models.precision), 0.1 * models.precision)
    for _ in range(steps):
        theta = np.hstack([models.embedding, models.bias[:, None]])  # (M, K+1)
        variance = models.variance_of_logit(questions.covariance)  # (N, M)
        scale = 1 / np.sqrt(1 + np.pi / 8 * variance)
        p = _sigmoid(scale * (joined @ theta.T))  # (N, M)
        slope = outcomes.weight * p * (1 - p) * scale
        spread = (slope.T @ covariance).reshape(-1, dim, dim)  # (M, K, K)
        gradient = (outcomes.weight * (outcomes.label - p)).T @ joined  # (M, K+1)
        gradient[:, :dim] -= np.einsum("mkl,ml->mk", spread, models.embedding)
        gradient -= shrinkage * (theta - theta.mean(axis=0))
        hessian = (slope.T @ outer).reshape(-1, dim + 1, dim + 1)
        hessian[:, :dim, :dim] += spread
        hessian += np.diag(shrinkage + 1e-9)
        theta = theta + np.linalg.solve(hessian, gradient[..., None])[..., 0]
        models = replace(models, embedding=theta[:, :dim], bias=theta[:, dim])
    return models


def _sigmoid(z: Floats) -> Floats:
    p: Floats = 1 / (1 + np.exp(-np.clip(z, -30, 30)))
    return p
