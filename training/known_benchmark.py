"""What the pool's answers tell of a benchmark's own items: a small item response model of that benchmark alone.

The same latent-variable model as `training.posterior`, in few dimensions and without text: where dozens of models have
answered the very items, their answers say what is hard and what sets models apart here, and a benchmark's own few
dimensions leave less to learn of a new model than the whole log's (backtests: tests/benchmarks).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from training.fold_in import ModelPosterior, pool_prior
from training.forecast import Shift
from training.posterior import Models, Outcomes, Posterior, infer, sigmoid, start_models, update_models

Floats = NDArray[np.float64]

N_DIMENSIONS = 2
N_ROUNDS = 12
MIN_MODELS = 4  # that answered most of a benchmark, for it to count as known
OUTLIER = Shift(0.1)  # a new model's bias beyond the pool's spread, so that an outlier is believed


@dataclass(frozen=True)
class KnownBenchmark:
    """A benchmark's items as the pool's answers show them: its models' and its items' embeddings.

    columns: which models these are, as column numbers of the labels that were fitted, of shape (M,).
    """

    columns: NDArray[np.int64]
    models: Models
    items: Posterior

    def prior(self) -> ModelPosterior:
        """What is known of a model that has answered nothing."""
        return pool_prior(self.models.embedding, self.models.bias)

    def prior_given(self, ability: Floats, own: float) -> ModelPosterior:
        """What is known of a model by its ability on other benchmarks; ability: the fitted models', (M,), NaN unknown.

        A linear regression of (embedding, bias) on ability over the pool, and the spread about it.
        """
        known = ~np.isnan(ability)
        if np.isnan(own) or known.sum() < MIN_MODELS:
            return self.prior()
        theta = self.models.theta()[known]  # (n, K+1)
        centre, apart = ability[known].mean(), ability[known] - ability[known].mean()
        slope = apart @ theta / (apart @ apart + 1e-9)  # (K+1,)
        left = theta - np.outer(apart, slope)
        spread = pool_prior(left[:, :-1], left[:, -1])
        return ModelPosterior(spread.mean + slope * (own - centre), spread.covariance)


def fit_benchmark(label: NDArray[np.float32], seed: int = 0) -> KnownBenchmark | None:
    """Fit a benchmark's items to outcomes (N, M), NaN where unobserved; None where too few models answered most."""
    columns = np.flatnonzero((~np.isnan(label)).mean(axis=0) > 0.5)
    if len(columns) < MIN_MODELS:
        return None
    outcomes = Outcomes.from_grid(label[:, columns])
    models = start_models(outcomes, N_DIMENSIONS, seed)
    prior_mean, prior = np.zeros((len(label), N_DIMENSIONS)), np.eye(N_DIMENSIONS)
    at = prior_mean
    for _ in range(N_ROUNDS):
        items = infer(outcomes, models, prior_mean, prior, start=at)
        models, at = update_models(outcomes, models, items), items.mean
        centre = at.mean(axis=0)
        prior = items.covariance.mean(axis=0) + (at - centre).T @ (at - centre) / len(at)
        prior_mean = np.tile(centre, (len(at), 1))
    return KnownBenchmark(columns, models, infer(outcomes, models, prior_mean, prior, start=at))


def ability_elsewhere(label: NDArray[np.float32], benchmarks: NDArray[np.str_]) -> Floats:
    """Each model's mean advantage in logits over the pool on the benchmarks it ran, (M,); NaN where it ran none.

    label: (N, M) on other benchmarks, whose names are of length N. Benchmarks weigh alike; one that a model did not
    run is left out for it, so easy benchmarks make no able models.
    """
    advantages = []
    for benchmark in np.unique(benchmarks):
        here = label[benchmarks == benchmark]
        n = (~np.isnan(here)).sum(axis=0)
        rate = (np.nansum(here, axis=0) + 1) / (n + 2)
        level = np.where(n > 0, logit(rate), np.nan)
        advantages.append(level - np.nanmean(level) if (n > 0).any() else level)
    if not advantages:
        return np.full(label.shape[1], np.nan)
    table = np.array(advantages)  # (n_benchmarks, M)
    n_run = (~np.isnan(table)).sum(axis=0)
    ability: Floats = np.where(n_run > 0, np.nansum(table, axis=0) / np.maximum(n_run, 1), np.nan)
    return ability


def suggest_items(
    model: ModelPosterior, items: Posterior, n: int, seed: int = 0, n_draws: int = 32
) -> NDArray[np.int64]:
    """Choose the n items whose labels tell most of a model's accuracy on all of them, the most telling first.

    Greedy Bayesian c-optimal design (Chaloner and Verdinelli 1995): the expected variance of the mean of P(correct)
    that is left, averaged over draws of the model from what is known of it.
    """
    rng = np.random.default_rng(seed)
    dim = len(model.mean)
    theta = model.mean + rng.standard_normal((n_draws, dim)) @ np.linalg.cholesky(model.covariance).T  # (S, K+1)
    u = theta[:, :-1]
    x = np.hstack([items.mean, np.ones((len(items.mean), 1))])  # (N, K+1)
    variance = np.einsum("sk,nkl,sl->sn", u, items.covariance, u)
    scale = 1 / np.sqrt(1 + np.pi / 8 * variance)  # (S, N)
    p = sigmoid(scale * (theta @ x.T))
    slope = scale * p * (1 - p)  # (S, N): d p / d logit
    target = slope @ x / len(x)  # (S, K+1): d accuracy / d theta
    information = scale * slope
    left = np.tile(model.covariance, (n_draws, 1, 1))  # (S, K+1, K+1)
    chosen: list[int] = []
    for _ in range(min(n, len(x))):
        seen = np.einsum("skl,nl->snk", left, x)  # (S, N, K+1)
        spread = np.einsum("snk,nk->sn", seen, x)
        gain = information * np.einsum("snk,sk->sn", seen, target) ** 2 / (1 + information * spread)
        total = gain.sum(axis=0)
        total[chosen] = -np.inf
        best = int(total.argmax())
        chosen.append(best)
        step = information[:, best] / (1 + information[:, best] * spread[:, best])
        left = left - step[:, None, None] * seen[:, best, :, None] * seen[:, best, None, :]
    return np.array(chosen, dtype=np.int64)
