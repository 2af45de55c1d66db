"""Forecast a model's accuracy on a whole benchmark, with an interval, from few labelled items or none.

What is known of the model and of the items gives every item's P(correct). Beside that a shift moves all of this
model's logits on this benchmark: benchmarks differ from what the pool's logs tell of them. Its prior is a Student t,
so that labelled items which contradict the forecast move it all the way (O'Hagan 1979). Arrays only: which benchmark
it is and where items come from is `training.transfer`'s and `training.forecast_pool`'s matter.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import chi2

from training.fold_in import ModelPosterior, fold_in
from training.posterior import Posterior, sigmoid

Floats = NDArray[np.float64]

LEVEL = 0.9
N_DRAWS = 400
N_COMPONENTS = 6


@dataclass(frozen=True)
class Shift:
    """The prior of one model's shift on one benchmark, in logits: a Student t about 0."""

    scale: float
    dof: float = 4.0

    def variances(self) -> Floats:
        """Equally likely variances whose normals mix to the t, of shape (N_COMPONENTS,)."""
        return self.scale**2 * unit_variances(self.dof)


def unit_variances(dof: float) -> Floats:
    """A Student t of scale 1 as a mixture of normals: dof / chi-squared at equally likely quantiles."""
    middles = (np.arange(N_COMPONENTS) + 0.5) / N_COMPONENTS
    variances: Floats = dof / chi2.ppf(middles, dof)
    return variances


@dataclass(frozen=True)
class Forecast:
    """A model's accuracy on a benchmark's items: expected, with the central 90% interval.

    sample_mean: the mean of the labelled items, which a forecast has to beat; None without any.
    """

    accuracy: float
    low: float
    high: float
    n_items: int
    n_labelled: int
    sample_mean: float | None


def forecast_accuracy(
    model: ModelPosterior, items: Posterior, label: NDArray[np.float32], shift: Shift, seed: int = 0
) -> Forecast:
    """Forecast the mean label over all items, labelled ones as they are.

    model: what is known of it from elsewhere; items: what is known of the N items from elsewhere; label: (N,), its
    outcomes in [0, 1], NaN where there is none. ValueError without items.
    """
    if not len(label):
        raise ValueError("a benchmark without items has no accuracy")
    labelled = ~np.isnan(label)
    known = label[labelled].astype(np.float64)
    sample_mean = float(known.mean()) if known.size else None
    if labelled.all():
        mean = float(known.mean())
        return Forecast(mean, mean, mean, len(label), known.size, sample_mean)
    rng = np.random.default_rng(seed)
    theta = _draw(model, _rows(items, labelled), known, shift, rng)  # (S, K+1)
    p = p_correct(theta, _rows(items, ~labelled))  # (S, N unlabelled)
    right = p.sum(axis=1) + np.sqrt((p * (1 - p)).sum(axis=1)) * rng.standard_normal(len(p))  # Bernoulli noise
    accuracy = (known.sum() + np.clip(right, 0, p.shape[1])) / len(label)
    low, high = np.quantile(accuracy, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    mean = (known.sum() + p.sum(axis=1).mean()) / len(label)
    return Forecast(float(mean), float(low), float(high), len(label), known.size, sample_mean)


def p_correct(theta: Floats, items: Posterior) -> Floats:
    """P(correct) of models theta = (embedding, bias), (S, K+1), on N items, each item's own error integrated out."""
    u = theta[:, :-1]
    outer = (u[:, :, None] * u[:, None, :]).reshape(len(u), -1)  # (S, K*K)
    variance = outer @ items.covariance.reshape(len(items.mean), -1).T  # (S, N)
    logit = (u @ items.mean.T + theta[:, -1:]) / np.sqrt(1 + np.pi / 8 * variance)
    return sigmoid(logit)


def _draw(model: ModelPosterior, items: Posterior, label: Floats, shift: Shift, rng: np.random.Generator) -> Floats:
    """Draw the model as it is on this benchmark, its bias shifted, given the labels; of shape (N_DRAWS, K+1).

    Each component of the shift's prior is one more variance of the bias; a component counts by its evidence.
    """
    found, evidence = [], []
    for variance in shift.variances():
        covariance = model.covariance.copy()
        covariance[-1, -1] += variance
        prior = ModelPosterior(model.mean, covariance)
        posterior = fold_in(prior, items, label) if label.size else prior
        found.append(posterior)
        evidence.append(_log_evidence(prior, posterior, items, label))
    weight = np.exp(np.array(evidence) - logsumexp(evidence))
    n_draws = rng.multinomial(N_DRAWS, weight)
    return np.vstack(
        [
            one.mean + rng.standard_normal((n, len(one.mean))) @ np.linalg.cholesky(one.covariance).T
            for one, n in zip(found, n_draws, strict=True)
        ]
    )


def _log_evidence(prior: ModelPosterior, posterior: ModelPosterior, items: Posterior, label: Floats) -> float:
    """The Laplace approximation of log P(labels), up to what all components share."""
    if not label.size:
        return 0.0
    p = np.clip(p_correct(posterior.mean[None], items)[0], 1e-9, 1 - 1e-9)
    likelihood = float(np.sum(label * np.log(p) + (1 - label) * np.log1p(-p)))
    away = posterior.mean - prior.mean
    penalty = float(away @ np.linalg.solve(prior.covariance, away))
    (_, before), (_, after) = np.linalg.slogdet(prior.covariance), np.linalg.slogdet(posterior.covariance)
    return likelihood - penalty / 2 + float(after - before) / 2


def _rows(items: Posterior, chosen: NDArray[np.bool_]) -> Posterior:
    return Posterior(items.mean[chosen], items.covariance[chosen])
