"""Expectation-maximization for the latent-variable model that `router.scorer` scores with.

P(y[n, m] = 1) = sigmoid(b[m] + u[m] . t[n]), t[n] ~ N(f[n], R): item response theory with several dimensions, where
the text's forecast f is each question's prior. The E-step is a Laplace approximation of every question's posterior,
the M-step a logistic regression of every model on the questions' posteriors, both by Newton's method on the dense
grid. Unobserved cells weigh nothing. It knows no text and no vectors: f is handed in.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from training.chunks import each_chunk, sum_chunks

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]  # what has a cell's size

Reals = Floats | Singles
F = TypeVar("F", Floats, Singles)
LONGEST_STEP = 2.0  # of a question's logits, in one step of Newton's method


@dataclass(frozen=True)
class Outcomes:
    """A grid of outcomes: label (N, M) with unobserved cells as 0, and weight (N, M), 0 where unobserved.

    A weight other than 1 is of a mean over repeats, a binomial's share.
    """

    label: Singles
    weight: Singles

    @classmethod
    def from_grid(cls, label: NDArray[np.float32], weight: Singles | None = None) -> "Outcomes":
        observed = ~np.isnan(label)
        label = np.where(observed, label, 0).astype(np.float32)
        return cls(label, observed.astype(np.float32) if weight is None else np.where(observed, weight, 0))

    def rows(self, rows: slice) -> "Outcomes":
        """The outcomes of some questions."""
        return Outcomes(self.label[rows], self.weight[rows])


@dataclass(frozen=True)
class Models:
    """The model side: embedding (M, K) and bias (M,), with the strength of their shrinkage to the pool's mean.

    A model with few outcomes stays near the mean model; precision is that of the prior N(mean, 1 / precision).
    """

    embedding: Floats
    bias: Floats
    precision: float = 1.0

    def theta(self) -> Floats:
        """Embedding and bias side by side, (M, K+1)."""
        return np.hstack([self.embedding, self.bias[:, None]])

    def shrinkage(self) -> Floats:
        """The prior's precision of each of (embedding, bias), (K+1,): a bias is held a tenth as tight."""
        return np.append(np.full(self.embedding.shape[1], self.precision), 0.1 * self.precision) + 1e-9

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

    def rows(self, rows: slice | NDArray[np.int64] | NDArray[np.bool_]) -> "Posterior":
        """What is known of some questions."""
        return Posterior(self.mean[rows], self.covariance[rows])


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
    begin = prior_mean if start is None else start

    def infer_chunk(rows: slice) -> Posterior:
        return _infer(outcomes.rows(rows), models, prior_mean[rows], prior, begin[rows], steps)

    parts = each_chunk(len(prior_mean), infer_chunk)
    return Posterior(np.concatenate([p.mean for p in parts]), np.concatenate([p.covariance for p in parts]))


def _infer(
    outcomes: Outcomes, models: Models, prior_mean: Floats, prior: Floats, start: Floats, steps: int
) -> Posterior:
    n, dim = prior_mean.shape
    u, bias = models.embedding.astype(np.float32), models.bias.astype(np.float32)
    outer = (u[:, :, None] * u[:, None, :]).reshape(-1, dim * dim)  # (M, K*K)
    precision = np.linalg.inv(prior).astype(np.float32)
    t, covariance = start.copy(), np.empty((dim, dim, n), dtype=np.float32)
    for _ in range(steps):
        p = sigmoid(t.astype(np.float32) @ u.T + bias)  # (N, M)
        np.matmul(outer.T, (outcomes.weight * p * (1 - p)).T, out=covariance.reshape(dim * dim, n))
        covariance += precision[:, :, None]
        _invert(covariance)
        gradient = (outcomes.weight * (outcomes.label - p)) @ u - (t - prior_mean).astype(np.float32) @ precision
        step = np.einsum("kln,nl->nk", covariance, gradient)
        furthest = np.abs(step @ u.T).max(axis=1, initial=1e-6)[:, None]  # in logits
        t += step * np.minimum(1, LONGEST_STEP / furthest)  # far off, Newton overshoots
    return Posterior(t, covariance.transpose(2, 0, 1).astype(np.float64))


def _invert(a: Singles) -> None:
    """Invert symmetric positive definite matrices of shape (K, K, N), all N at once, by Gauss-Jordan elimination."""
    for j in range(len(a)):
        pivot = 1 / a[j, j]
        row, column = a[j] * pivot, a[:, j].copy()
        a -= column[:, None] * row
        a[j], a[:, j], a[j, j] = row, -column * pivot, pivot


def update_models(outcomes: Outcomes, models: Models, questions: Posterior, steps: int = 2) -> Models:
    """M-step: every model's embedding and bias given the questions' posteriors, all models at once.

    A logistic regression whose inputs are uncertain: sigmoid and its slope are averaged over each question's posterior
    by the probit approximation, E[sigmoid(z) t] = p t + E[sigmoid'(z)] C u.
    """
    for _ in range(steps):
        models = _step(outcomes, models, questions)
    return models


def _step(outcomes: Outcomes, models: Models, questions: Posterior) -> Models:
    def of_chunk(rows: slice) -> tuple[Floats, ...]:
        return _ascent(outcomes.rows(rows), models, questions.rows(rows))

    gradient, hessian = sum_chunks(len(questions.mean), of_chunk)
    theta, shrinkage = models.theta(), models.shrinkage()
    uphill = gradient - shrinkage * (theta - theta.mean(axis=0))
    theta = theta + np.linalg.solve(hessian + np.diag(shrinkage), uphill[..., None])[..., 0]
    return replace(models, embedding=theta[:, :-1], bias=theta[:, -1])


def _ascent(outcomes: Outcomes, models: Models, questions: Posterior) -> tuple[Floats, Floats]:
    """The gradient (M, K+1) and negative Hessian (M, K+1, K+1) of the models' expected log-likelihood."""
    n, dim = questions.mean.shape
    joined = np.ones((n, dim + 1), dtype=np.float32)  # (N, K+1)
    joined[:, :dim] = questions.mean
    outer = (joined[:, :, None] * joined[:, None, :]).reshape(n, -1)  # (N, (K+1)^2)
    covariance = questions.covariance.reshape(n, -1).astype(np.float32)  # (N, K*K)
    u = models.embedding.astype(np.float32)
    variance = covariance @ (u[:, :, None] * u[:, None, :]).reshape(-1, dim * dim).T  # (N, M)
    scale = 1 / np.sqrt(1 + np.float32(np.pi / 8) * variance)
    p = sigmoid(scale * (joined @ models.theta().T.astype(np.float32)))  # (N, M)
    slope = outcomes.weight * p * (1 - p) * scale
    spread = (slope.T @ covariance).reshape(-1, dim, dim)  # (M, K, K)
    gradient = ((outcomes.weight * (outcomes.label - p)).T @ joined).astype(np.float64)  # (M, K+1)
    gradient[:, :dim] -= np.einsum("mkl,ml->mk", spread, models.embedding)
    hessian: Floats = (slope.T @ outer).reshape(-1, dim + 1, dim + 1).astype(np.float64)
    hessian[:, :dim, :dim] += spread
    return gradient, hessian


def covariance_of_models(outcomes: Outcomes, models: Models, questions: Posterior) -> Floats:
    """How unsure the models' embeddings and biases are, (M, K+1, K+1), by a Laplace approximation.

    The Fisher information is that of `evidence`, of all models at once.
    """

    def of_chunk(rows: slice) -> tuple[Floats, ...]:
        return (_information(outcomes.rows(rows), models, questions.rows(rows)),)

    (information,) = sum_chunks(len(questions.mean), of_chunk)
    covariance_of: Floats = np.linalg.inv(information + np.diag(models.shrinkage())).astype(np.float64)
    return covariance_of


def _information(outcomes: Outcomes, models: Models, questions: Posterior) -> Floats:
    u, bias = models.embedding.astype(np.float32), models.bias.astype(np.float32)
    mean, covariance = questions.mean.astype(np.float32), questions.covariance.astype(np.float32)
    by_covariance = np.tensordot(u, covariance, axes=(1, 1))  # (M, N, K): C u
    z = u @ mean.T + bias[:, None]  # (M, N)
    s = 1 / np.sqrt(1 + np.float32(np.pi / 8) * np.einsum("mnk,mk->mn", by_covariance, u))
    p = sigmoid(s * z)
    slope = np.empty((*z.shape, u.shape[1] + 1), dtype=np.float32)
    slope[..., :-1] = s[..., None] * mean - (np.float32(np.pi / 8) * s**3 * z)[..., None] * by_covariance
    slope[..., -1] = s
    weight = outcomes.weight.T * p * (1 - p)
    information: Floats = (slope.transpose(0, 2, 1) @ (slope * weight[..., None])).astype(np.float64)
    return information


def evidence(theta: Floats, questions: Posterior, label: Reals, weight: Reals) -> tuple[Floats, Floats]:
    """What one model's outcomes say of its theta = (embedding, bias), the questions' uncertainty integrated out.

    With P(y = 1) = sigmoid(s z), z = u . t + b and s = 1 / sqrt(1 + pi u C u / 8): the gradient of the log-likelihood,
    (K+1,), and its Fisher information, (K+1, K+1).
    """
    u, n = theta[:-1], len(label)
    by_covariance = (questions.covariance.reshape(-1, len(u)) @ u).reshape(n, -1)  # (N, K): C u
    z = questions.mean @ u + theta[-1]
    s = 1 / np.sqrt(1 + np.pi / 8 * (by_covariance @ u))
    p = sigmoid(s * z)
    slope = s[:, None] * np.hstack([questions.mean, np.ones((n, 1))])  # (N, K+1): d(s z) / d theta
    slope[:, :-1] -= (np.pi / 8 * s**3 * z)[:, None] * by_covariance
    return slope.T @ (weight * (label - p)), slope.T @ (slope * (weight * p * (1 - p))[:, None])


def sigmoid(z: F) -> F:
    """The logistic function, of logits held within (-30, 30), in their precision."""
    p: F = (1 / (1 + np.exp(-np.clip(z, -30, 30)))).astype(z.dtype, copy=False)
    return p
