"""What the pool's answers tell of a benchmark's own items: a small item response model of that benchmark alone.

The same latent-variable model as `training.posterior`, in few dimensions and without text: where dozens of models have
answered the very items, their answers say what is hard and what sets models apart here, and a benchmark's own few
dimensions leave less to learn of a new model than the whole log's (backtests: tests/benchmarks).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from training.fold_in import ModelPosterior, pool_prior
from training.forecast import BROKEN_SHARE, Shift
from training.lineage import parameters_of
from training.posterior import Models, Outcomes, Posterior, infer, sigmoid, start_models, update_models

Floats = NDArray[np.float64]

N_DIMENSIONS = 3
N_ROUNDS = 12
MIN_MODELS = 4  # that answered most of a benchmark, for it to count as known
SAME = 1e-9  # a fact that varies less is the same of all, but for rounding
FACTS_RIDGE = 1.0  # in models' worth of shrinkage of what a fact tells to nothing
# a new model's bias beyond the pool's spread, so that an outlier is believed
OUTLIER = Shift(0.1, broken_share=BROKEN_SHARE)


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

    def prior_given(self, facts: Floats, own: Floats) -> ModelPosterior:
        """What is known of a model by facts about it; facts: of the fitted models, (M, F), own: its own, (F,).

        A ridge regression of (embedding, bias) on the facts over the pool, and its predictive spread. A fact that is
        not known (NaN) of the model itself is left out; of another model it is taken to be the pool's mean.
        """
        known = ~np.isnan(facts)
        telling = ~np.isnan(own) & (known.sum(axis=0) >= MIN_MODELS)
        telling[telling] = np.nanstd(facts[:, telling], axis=0) > SAME
        if not telling.any():
            return self.prior()
        centre, scale = np.nanmean(facts[:, telling], axis=0), np.nanstd(facts[:, telling], axis=0)
        x = np.where(known[:, telling], (facts[:, telling] - centre) / scale, 0)  # (M, f)
        at = (own[telling] - centre) / scale
        theta = self.models.theta()  # (M, K+1)
        mean = theta.mean(axis=0)
        inverse = np.linalg.inv(x.T @ x + FACTS_RIDGE * np.eye(x.shape[1]))
        slope = inverse @ x.T @ (theta - mean)  # (f, K+1)
        left = theta - mean - x @ slope
        spread = pool_prior(left[:, :-1], left[:, -1])
        n_left = len(x) - 1
        n_lost = float(np.trace(inverse @ (x.T @ x)))
        wider = n_left / max(n_left - n_lost, 1) * (1 + 1 / len(x) + at @ inverse @ at)
        return ModelPosterior(mean + at @ slope, wider * spread.covariance)


def facts_of(names: Sequence[str], ability: Floats) -> Floats:
    """What tells of models before they answer a benchmark's items, (M, 3): NaN is unknown.

    Whether its name states its parameters, as of open weights; the logarithm of their number; ability elsewhere, (M,).
    """
    sizes = [parameters_of(name) for name in names]
    log_size = np.array([np.log(size) if size else np.nan for size in sizes])
    return np.column_stack([~np.isnan(log_size), log_size, ability])


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
    seen = x @ model.covariance  # (N, K+1): the covariance of each item's logit with theta
    spread = np.tile(np.einsum("nk,nk->n", seen, x), (n_draws, 1))  # (S, N): the variance of each item's logit
    towards = target @ seen.T  # (S, N): its covariance with accuracy
    left = np.tile(model.covariance, (n_draws, 1, 1))  # (S, K+1, K+1)
    chosen: list[int] = []
    for _ in range(min(n, len(x))):
        gain = (information * towards**2 / (1 + information * spread)).sum(axis=0)
        gain[chosen] = -np.inf
        best = int(gain.argmax())
        chosen.append(best)
        known = left @ x[best]  # (S, K+1): the covariance of theta with the chosen item's logit
        shared = known @ x.T  # (S, N): that of each item's logit
        step = information[:, best] / (1 + information[:, best] * spread[:, best])  # (S,)
        towards = towards - (step * towards[:, best])[:, None] * shared
        spread = spread - step[:, None] * shared**2
        left = left - step[:, None, None] * known[:, :, None] * known[:, None, :]
    return np.array(chosen, dtype=np.int64)
