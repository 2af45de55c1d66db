"""How far what the pool's logs tell carries to a benchmark that no model has run, measured on those that they have run.

Of a new benchmark's questions only the text is known. Text forecasts their embeddings up to an error, part of which all
questions of a benchmark share; and beside that a model may do better or worse there than its embedding says. Both are
measured by leaving out one known benchmark after another. Where several models have labelled items of the new one, what
it does to all of them is learned from these.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.scorer import Scorer, Singles
from training.forecast import Shift, unit_variances
from training.posterior import Models, Outcomes, Posterior, infer, sigmoid, update_models
from training.process import Basis

Floats = NDArray[np.float64]

N_LANDMARKS = 400
NOISE = 4.0  # of the text side that is left without one benchmark; the errors hardly depend on it
N_STEPS = 25
MIN_QUESTIONS = 10  # of a benchmark, for it to count
SCALES = np.geomspace(0.03, 4.0, 40)
SHIFT_DOF = 2.0  # by backtests, where 4 clung to a bad prior and 1 forgot a good one
UNMEASURED = Shift(1.0)  # from a single benchmark nothing can be left out


@dataclass(frozen=True)
class Transfer:
    """The errors of text's forecasts on benchmarks left out.

    trust: how much of the differences that text forecasts between a benchmark's questions is there, 0 to 1; residual:
    covariance of a question's embedding about that and the benchmark's shared error, (K, K); between: covariance of
    that shared error, (K, K); own: one model's shift beside it, in logits.
    """

    trust: float
    residual: Floats
    between: Floats
    own: Shift
    n_benchmarks: int


@dataclass(frozen=True)
class Shared:
    """What is known of the error that all questions of a benchmark share: mean (K,) and covariance (K, K)."""

    mean: Floats
    covariance: Floats


def models_of(scorer: Scorer) -> Models:
    """The model side of a scorer."""
    return Models(scorer.model_embedding.astype(np.float64), scorer.model_bias.astype(np.float64))


def measure_transfer(
    models: Models,
    residual: Floats,
    questions: Posterior,
    points: Singles,
    n_surface: int,
    label: NDArray[np.float32],
    benchmarks: NDArray[np.str_],
    seed: int = 0,
) -> Transfer:
    """Leave out each benchmark of the known questions in turn.

    residual: (K, K), covariance of a question's embedding about text where benchmarks are known; questions: what text
    and outcomes say of N questions; points: (N, D), their features, the last n_surface surface; label: (N, M);
    benchmarks: (N,).
    """
    names = [name for name in np.unique(benchmarks) if (benchmarks == name).sum() >= MIN_QUESTIONS]
    if len(names) < 2:
        return Transfer(1.0, residual, residual, UNMEASURED, len(names))
    basis, target = Basis.of(points, n_surface, N_LANDMARKS, seed), questions.mean
    forecasts = {name: _left_out_forecast(basis, target, benchmarks == name) for name in names}
    trust = _trust(models, [(target[benchmarks == name], forecast) for name, forecast in forecasts.items()])
    within, shared, shifts = [], [], []
    for name in names:
        here = benchmarks == name
        error = target[here] - _trusted(forecasts[name], trust)
        shared.append(error.mean(axis=0))
        apart = error - error.mean(axis=0)
        within.append(apart.T @ apart / len(apart) + questions.covariance[here].mean(axis=0))
        shifts.append(_shifts(_without(models, questions, label, here), target[here] - apart, within[-1], label[here]))
    residual = np.mean(within, axis=0)
    between = _shrink(np.array(shared), residual)
    return Transfer(trust, residual, between, _fit_scale(np.hstack(shifts)), len(names))


def shared_error(transfer: Transfer, models: Models, forecast: Floats, label: NDArray[np.float32]) -> Shared:
    """Learn a new benchmark's shared error from the labels (N, M) that models have on it; forecast: text's, (N, K).

    A logistic regression of the labels on the shared error alone. What it tells is bounded by the number of items,
    which have errors of their own, and of models, which have shifts of their own: precisions in series.
    """
    rows, columns = (~np.isnan(label)).any(axis=1), (~np.isnan(label)).any(axis=0)
    dim = forecast.shape[1]
    if not rows.any():
        return Shared(np.zeros(dim), transfer.between)
    outcomes, u = Outcomes.from_grid(label[np.ix_(rows, columns)]), models.embedding[columns]
    expected = _trusted(forecast, transfer.trust)[rows] @ u.T + models.bias[columns]
    scale = 1 / np.sqrt(1 + np.pi / 8 * np.einsum("mk,kl,ml->m", u, transfer.residual, u))  # (M,)
    prior, precision = np.linalg.inv(transfer.between), np.linalg.inv(transfer.residual)
    bound = _in_series(rows.sum() * precision, u.T @ u / transfer.own.scale**2)
    mean = np.zeros(dim)
    for _ in range(N_STEPS):
        p = sigmoid(scale * (expected + u @ mean))
        gradient = (scale * outcomes.weight * (outcomes.label - p)).sum(axis=0) @ u
        slope = (scale**2 * outcomes.weight * p * (1 - p)).sum(axis=0)
        told = (u * slope[:, None]).T @ u + 1e-6 * precision
        covariance = np.linalg.inv(prior + _in_series(told, bound))
        step = covariance @ (bound @ np.linalg.solve(told + bound, gradient) - prior @ mean)
        mean = mean + step / max(float(np.abs(u @ step).max()), 1.0)  # at most one logit at a time
    return Shared(mean, (covariance + covariance.T) / 2)


def new_items(
    transfer: Transfer, models: Models, forecast: Floats, label: NDArray[np.float32], shared: Shared
) -> Posterior:
    """What text and the labels (N, M) of other models say of a new benchmark's items."""
    expected = _trusted(forecast, transfer.trust) + shared.mean
    return infer(Outcomes.from_grid(label), models, expected, transfer.residual, steps=8)


def shift_of(transfer: Transfer, shared: Shared, embedding: Floats) -> Shift:
    """One model's shift on the benchmark: its own, and what is not known of the shared error.

    Its tails are heavier than those fitted to the models' own shifts: that the shared error is like those of the few
    benchmarks measured is itself unsure.
    """
    variance = float(embedding @ shared.covariance @ embedding)
    return Shift(float(np.sqrt(variance + transfer.own.scale**2)), SHIFT_DOF)


def _in_series(a: Floats, b: Floats) -> Floats:
    """The precision of a sum of independent errors with precisions a and b: (a^-1 + b^-1)^-1."""
    joint: Floats = a - a @ np.linalg.solve(a + b, a)
    return joint


def _left_out_forecast(basis: Basis, targets: Floats, here: NDArray[np.bool_]) -> Floats:
    """What a ridge regression on all other questions says of some questions' targets, (n, K)."""
    design, centre = basis.design.astype(np.float64), targets[~here].mean(axis=0)
    others = design[~here]
    inner = others.T @ others
    inner[np.diag_indices_from(inner)] += NOISE
    weights = np.linalg.solve(inner, others.T @ (targets[~here] - centre))
    forecast: Floats = centre + design[here] @ weights
    return forecast


def _trusted(forecast: Floats, trust: float) -> Floats:
    """A benchmark's forecasts, their differences shrunk, (N, K)."""
    centre = forecast.mean(axis=0)
    shrunk: Floats = centre + trust * (forecast - centre)
    return shrunk


def _trust(models: Models, pairs: Sequence[tuple[Floats, Floats]]) -> float:
    """Regress targets on left-out forecasts within benchmarks, in logits of all models; each benchmark weighs alike."""
    weight = models.embedding.T @ models.embedding
    products, squares = 0.0, 0.0
    for target, forecast in pairs:
        of_target, of_forecast = target - target.mean(axis=0), forecast - forecast.mean(axis=0)
        products += float(np.mean(np.sum(of_target @ weight * of_forecast, axis=1)))
        squares += float(np.mean(np.sum(of_forecast @ weight * of_forecast, axis=1)))
    return float(np.clip(products / max(squares, 1e-12), 0, 1))


def _without(models: Models, questions: Posterior, label: NDArray[np.float32], here: NDArray[np.bool_]) -> Models:
    """The models as the other benchmarks' outcomes show them."""
    others = questions.rows(~here)
    return update_models(Outcomes.from_grid(label[~here]), models, others, steps=6)


def _shifts(models: Models, expected: Floats, residual: Floats, label: NDArray[np.float32]) -> Floats:
    """How far each model's logits lie off on a benchmark, and the square of that estimate's error, (2, M observed)."""
    outcomes = Outcomes.from_grid(label)
    scale = 1 / np.sqrt(1 + np.pi / 8 * models.variance_of_logit(residual))  # (M,)
    logit = scale * (expected @ models.embedding.T + models.bias)
    shift = np.zeros(label.shape[1])
    for _ in range(20):
        p = sigmoid(logit + scale * shift)
        information = (scale**2 * outcomes.weight * p * (1 - p)).sum(axis=0) + 0.04  # a prior of 5 logits
        gradient = (scale * outcomes.weight * (outcomes.label - p)).sum(axis=0) - 0.04 * shift
        shift += np.clip(gradient / information, -1, 1)
    enough = outcomes.weight.sum(axis=0) >= MIN_QUESTIONS
    n, dim = int(enough.sum()), models.embedding.shape[1]
    lost = n / max(n - dim, n / 2)  # the shared error took as many degrees of freedom
    return np.array([np.sqrt(lost) * shift[enough], 1 / information[enough]])


def _shrink(shared: Floats, residual: Floats) -> Floats:
    """The covariance of shared errors (B, K), shrunk to a multiple of the residual: few benchmarks show no shape."""
    n, dim = shared.shape
    sample = shared.T @ shared / n
    multiple = float(np.trace(np.linalg.solve(residual, sample))) / dim
    weight = n / (n + dim)
    few = (n + 1) / (n - 1)  # a benchmark to come lies farther out than so few, measured from their own mean, show
    between: Floats = few * (weight * sample + (1 - weight) * multiple * residual)
    return between


def _fit_scale(shifts: Floats) -> Shift:
    """Maximize the likelihood of estimated shifts under a Student t seen with their errors."""
    found, error = shifts  # (n,) each
    dof = UNMEASURED.dof
    variance = SCALES[:, None, None] ** 2 * unit_variances(dof) + error[:, None]  # (n_scales, n, n_components)
    density = np.exp(-(found[:, None] ** 2) / variance / 2) / np.sqrt(variance)
    likelihood = np.log(density.mean(axis=2) + 1e-300).sum(axis=1)
    return Shift(float(SCALES[likelihood.argmax()]), dof)
