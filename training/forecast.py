"""Forecast a model's accuracy on a whole benchmark, with an interval, from few labelled items or none.

What is known of the model and of the items gives every item's P(correct). Beside that a shift moves all of this
model's logits on this benchmark: benchmarks differ from what the pool's logs tell of them. Its prior is a Student t,
so that labelled items which contradict the forecast move it all the way (O'Hagan 1979). Arrays only: which benchmark
it is and where items come from is `training.transfer`'s and `training.forecast_pool`'s matter.
"""

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import chi2

from router.scorer import Singles
from training.fold_in import ModelPosterior, fold_in
from training.posterior import Posterior, sigmoid

Floats = NDArray[np.float64]

LEVEL = 0.9
N_DRAWS = 400
N_PROPOSALS = 1000
PROPOSAL_SPREAD = 1.2  # of the proposals' variance over the approximation's, whose tails are too thin
N_COMPONENTS = 6
BROKEN, BROKEN_SHARE = 3.0, 0.01  # how far off, in logits, models are whose answers nobody can read, and how many
GIVEN_UP = (0.9, 0.95)  # the weight of the labels from which, and up to which, a forecast gives way to their mean


@dataclass(frozen=True)
class Shift:
    """The prior of one model's shift on one benchmark, in logits: a Student t about 0.

    broken_share: how many models' shifts are of another kind, about 0 with standard deviation BROKEN, as where answers
    come in a form that nobody reads: a contaminated prior (Tukey 1960).
    """

    scale: float
    dof: float = 4.0
    broken_share: float = 0.0

    def components(self) -> tuple[Floats, Floats]:
        """Variances whose normals mix to it, and how likely each is; both of shape (N_COMPONENTS or one more,)."""
        variance, share = self.scale**2 * unit_variances(self.dof), np.full(N_COMPONENTS, 1 / N_COMPONENTS)
        if not self.broken_share:
            return variance, share
        return np.append(variance, BROKEN**2), np.append((1 - self.broken_share) * share, self.broken_share)


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
    theta = _draw(model, items.rows(labelled), known, shift, rng)  # (S, K+1)
    p = p_correct(theta, items.rows(~labelled))  # (S, N unlabelled)
    right = p.sum(axis=1) + np.sqrt((p * (1 - p)).sum(axis=1)) * rng.standard_normal(len(p))  # Bernoulli noise
    accuracy = (known.sum() + np.clip(right, 0, p.shape[1])) / len(label)
    low, high = np.quantile(accuracy, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    mean = (known.sum() + p.sum(axis=1).mean()) / len(label)
    return Forecast(float(mean), float(low), float(high), len(label), known.size, sample_mean)


def forecast_or_count(
    model: ModelPosterior, items: Posterior, label: NDArray[np.float32], shift: Shift, seed: int = 0
) -> Forecast:
    """Forecast as `forecast_accuracy`, but go over to the labelled items' mean where little was known without them.

    Of items that only text tells of, text may tell nothing. As the labels' weight against that knowledge, by their
    variances, rises through GIVEN_UP, the mean takes the forecast's place, and the interval moves along: a prior that
    hardly narrows anything can only lead astray.
    """
    found = forecast_accuracy(model, items, label, shift, seed)
    if found.sample_mean is None or found.n_labelled == found.n_items:
        return found
    blind = forecast_accuracy(model, items, np.full_like(label, np.nan), shift, seed)
    known = ((blind.high - blind.low) / (2 * NormalDist().inv_cdf((1 + LEVEL) / 2))) ** 2
    n = found.n_labelled
    rate = (found.sample_mean * n + 1) / (n + 2)
    counted = rate * (1 - rate) * (1 / n - 1 / found.n_items)  # drawn without replacement
    begun, ended = GIVEN_UP
    given_up = min(max((known / (known + counted) - begun) / (ended - begun), 0.0), 1.0)
    move = given_up * (found.sample_mean - found.accuracy)
    low, high = (min(max(end + move, 0.0), 1.0) for end in (found.low, found.high))
    return replace(found, accuracy=found.accuracy + move, low=low, high=high)


def p_correct(theta: Floats, items: Posterior) -> Floats:
    """P(correct) of models theta = (embedding, bias), (S, K+1), on N items, each item's own error integrated out."""
    u = theta[:, :-1]
    outer = (u[:, :, None] * u[:, None, :]).reshape(len(u), u.shape[1] ** 2)  # (S, K*K)
    variance = outer @ items.covariance.reshape(len(items.mean), -1).T  # (S, N)
    logit = (u @ items.mean.T + theta[:, -1:]) / np.sqrt(1 + np.pi / 8 * variance)
    return sigmoid(logit)


def _draw(model: ModelPosterior, items: Posterior, label: Floats, shift: Shift, rng: np.random.Generator) -> Floats:
    """Draw the model as it is on this benchmark, its bias shifted, given the labels; of shape (N_DRAWS, K+1).

    Each component of the shift's prior is one more variance of the bias. Their Laplace approximations propose, a
    component as often as its evidence says; proposals are drawn again by their importance, truncated (Ionides 2008).
    Without that, few labels of an easy or a hard benchmark would draw forecasts toward one half: the posterior of
    a logit is skewed, its approximation is not.
    """
    variances, likely = shift.components()
    priors = [widened(model, variance) for variance in variances]
    if not label.size:
        n_draws = rng.multinomial(N_DRAWS, likely)
        return np.vstack([_normal(one, n, rng) for one, n in zip(priors, n_draws, strict=True)])
    found = [fold_in(prior, items, label) for prior in priors]
    evidence = np.log(likely) + [
        log_evidence(one, prior, items, label) for prior, one in zip(priors, found, strict=True)
    ]
    share = np.exp(evidence - logsumexp(evidence))
    theta, log_weight = [], []
    drawn_of = rng.multinomial(N_PROPOSALS, share)
    for k in np.flatnonzero(drawn_of):
        prior, one, n = priors[k], found[k], drawn_of[k]
        proposal = ModelPosterior(one.mean, PROPOSAL_SPREAD * one.covariance)
        drawn = _normal(proposal, n, rng)
        theta.append(drawn)
        log_weight.append(
            _log_joint(drawn, prior, items, label) - _log_normal(drawn, proposal) + np.log(likely[k] / share[k])
        )
    log = np.concatenate(log_weight)
    weight = np.exp(log - log.max())
    weight = np.minimum(weight, weight.mean() * np.sqrt(N_PROPOSALS))
    return np.vstack(theta)[rng.choice(N_PROPOSALS, N_DRAWS, p=weight / weight.sum())]


def widened(model: ModelPosterior, variance: float) -> ModelPosterior:
    """What is known of a model whose bias is moved by a normal shift."""
    covariance = model.covariance.copy()
    covariance[-1, -1] += variance
    return ModelPosterior(model.mean, covariance)


def _normal(model: ModelPosterior, n: int, rng: np.random.Generator) -> Floats:
    """Draw n models, of shape (n, K+1)."""
    drawn: Floats = model.mean + rng.standard_normal((n, len(model.mean))) @ np.linalg.cholesky(model.covariance).T
    return drawn


def _log_normal(theta: Floats, model: ModelPosterior) -> Floats:
    """The log density of models theta (S, K+1), up to what all normals share; (S,)."""
    away = theta - model.mean
    distance = np.einsum("sk,sk->s", away, np.linalg.solve(model.covariance, away.T).T)
    density: Floats = -(distance + np.linalg.slogdet(model.covariance)[1]) / 2
    return density


def log_evidence(
    found: ModelPosterior,
    prior: ModelPosterior,
    items: Posterior,
    label: Floats,
    weight: Floats | Singles | None = None,
) -> float:
    """How likely the labels (N,) are under a prior, by Laplace about what they made of it, up to what all share."""
    log_joint = float(_log_joint(found.mean[None], prior, items, label, weight)[0])
    return log_joint + float(np.linalg.slogdet(found.covariance)[1]) / 2


def _log_joint(
    theta: Floats, prior: ModelPosterior, items: Posterior, label: Floats, weight: Floats | Singles | None = None
) -> Floats:
    """The log density of models theta (S, K+1) and the labels together, up to what all priors share; (S,).

    weight: (N,), how many outcomes each label is worth; none is one each.
    """
    p = np.clip(p_correct(theta, items), 1e-9, 1 - 1e-9)  # (S, N)
    right, wrong = (label, 1 - label) if weight is None else (weight * label, weight * (1 - label))
    joint: Floats = np.log(p) @ right + np.log1p(-p) @ wrong + _log_normal(theta, prior)
    return joint
