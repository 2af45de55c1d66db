"""Fold a model in from few answers, the question side frozen: MAP under the pool's prior, and a Laplace posterior.

The new model is drawn from the same population as the pool: theta = (embedding, bias) ~ N(pool's mean, pool's
covariance). Its answers, on questions whose embeddings are known with their errors, update that in closed-form Newton
steps. Arrays only: who the model is and where its answers come from is `training.onboard`'s matter.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.encoder.base import Vectors
from router.scorer import Scorer, Singles
from training.posterior import Models, Outcomes, Posterior, evidence, infer, sigmoid

Floats = NDArray[np.float64]

PRIOR_MODELS = 1.0  # the pool's covariance is shrunk to its diagonal by this many models' worth per dimension,
LOG_PRIOR_MODELS = 0.3  # and by so many where models are known from whole logs: chosen by leaving out each model
FAMILY_CORRELATION = 0.7  # of two models of one family, beyond what all share: chosen by leaving out each model
LONGEST_STEP = 1.0
N_DRAWS = 400
CHUNK = 4096  # questions whose forecasts are held at a time
UNSEEN_SHIFT = 0.05  # logits by which folds of questions were harder or easier, as a whole, than their texts said
TAIL = 0.05  # outside a 90% interval, on each side


@dataclass(frozen=True)
class ModelPosterior:
    """What is known of one model: theta = (embedding, bias) has this mean (K+1,) and covariance (K+1, K+1)."""

    mean: Floats
    covariance: Floats

    @property
    def embedding(self) -> Floats:
        return self.mean[:-1]

    @property
    def bias(self) -> float:
        return float(self.mean[-1])

    def logit_mean(self, questions: Posterior) -> Floats:
        """The expected logit on each question, of shape (N,)."""
        return questions.mean @ self.embedding + self.bias

    def logit_variance(self, questions: Posterior) -> Floats:
        """The logit's variance on each question, from not knowing question and model exactly, of shape (N,)."""
        n = len(questions.mean)
        joined = np.hstack([questions.mean, np.ones((n, 1))])
        about = np.outer(self.embedding, self.embedding) + self.covariance[:-1, :-1]  # (K, K)
        variance: Floats = np.einsum("nk,kl,nl->n", joined, self.covariance, joined)
        variance += questions.covariance.reshape(n, -1) @ about.ravel()
        return variance

    def p_correct(self, questions: Posterior) -> Floats:
        """P(correct) on each question, both errors integrated out (MacKay 1992), uncalibrated, of shape (N,)."""
        logit = self.logit_mean(questions) / np.sqrt(1 + np.pi / 8 * self.logit_variance(questions))
        return sigmoid(logit)


def pool_prior(embedding: Floats, bias: Floats, prior_models: float = PRIOR_MODELS) -> ModelPosterior:
    """What is known of a model before it answered anything: the pool's mean and shrunk covariance.

    embedding: (M, K); bias: (M,); prior_models: how far it is shrunk, more where the embeddings are noisier. One model
    tells no covariance: it is then the identity.
    """
    theta = np.hstack([embedding, np.asarray(bias)[:, None]]).astype(np.float64)
    n, dim = theta.shape
    centred = theta - theta.mean(axis=0)
    sample = centred.T @ centred / max(n - 1, 1)
    scale = np.maximum(np.diag(sample), 0.05) if n > 1 else np.ones(dim)
    weight = n / (n + prior_models * dim) if n > 1 else 0.0
    return ModelPosterior(theta.mean(axis=0), weight * sample + (1 - weight) * np.diag(scale))


def family_prior(pool: ModelPosterior, relatives: Floats, n_pool: int) -> ModelPosterior:
    """Move the pool's prior toward a model's family, and narrow it, as far as relatives tell of each other.

    relatives: (R, K+1), each relative's (embedding, bias); none leaves the prior. n_pool: of how many models the pool's
    prior was made, relatives among them. Members of a family are taken to be correlated by FAMILY_CORRELATION in every
    dimension, which makes this a regression on their mean. Of the variance between families the pool's covariance holds
    what the pool shows: nothing where all are of one family, and then there is nothing to correct.
    """
    n = len(relatives)
    if not n:
        return pool
    shown = 1 - (n / n_pool) ** 2
    correlation = FAMILY_CORRELATION * shown / (1 - FAMILY_CORRELATION * (1 - shown))
    share = n * correlation / (1 + (n - 1) * correlation)
    mean = pool.mean + share * (relatives.mean(axis=0) - pool.mean)
    return ModelPosterior(mean, (1 - correlation * share) * pool.covariance)


def fold_in(
    prior: ModelPosterior, questions: Posterior, label: Floats, weight: Singles | None = None, steps: int = 25
) -> ModelPosterior:
    """Update what is known of a model by its answers: label (N,) in [0, 1] on N questions, NaN where unobserved.

    weight: (N,), how many outcomes each label is worth, as of `training.repeats`; none is one each.
    """
    outcomes = Outcomes.from_grid(
        np.asarray(label, dtype=np.float32)[:, None], None if weight is None else weight[:, None]
    )
    y, weight = outcomes.label[:, 0], outcomes.weight[:, 0]
    precision = np.linalg.inv(prior.covariance)
    theta = prior.mean.copy()
    for _ in range(steps):
        gradient, information = evidence(theta, questions, y, weight)
        step = np.linalg.solve(information + precision, gradient - precision @ (theta - prior.mean))
        step *= min(1.0, LONGEST_STEP / max(float(np.abs(step).max()), LONGEST_STEP))  # far off, Newton overshoots
        theta = theta + step
        if np.abs(step).max() < 1e-8:
            break
    _, information = evidence(theta, questions, y, weight)
    return ModelPosterior(theta, np.linalg.inv(information + precision))


def questions_from_text(scorer: Scorer, vectors: Vectors, surface: NDArray[np.float32]) -> Posterior:
    """What text alone says of questions, vectors (N, dim_vector) and surfaces (N, n_surface): as the scorer has it."""
    points = scorer.features(vectors, surface)
    embedding, spread = scorer.embed_points(points, scorer.similarity(points))
    dim = scorer.residual.shape[0]
    covariance = np.broadcast_to(spread[:, :, None].astype(np.float64) * scorer.residual, (len(embedding), dim, dim))
    return Posterior(embedding.astype(np.float64), covariance)


def questions_from_outcomes(
    scorer: Scorer, embedding: NDArray[np.float32], label: NDArray[np.float32], start: Floats | None = None
) -> Posterior:
    """What text and the pool's outcomes (N, M), NaN where unobserved, say of questions the fit did not see.

    Of text what it usually says: beside outcomes it matters little how much more or less than that. start: (N, K), of
    means nearby, from where fewer steps lead there.
    """
    models = Models(scorer.model_embedding.astype(np.float64), scorer.model_bias.astype(np.float64))
    residual = scorer.residual.astype(np.float64)
    steps = 8 if start is None else 2
    return infer(Outcomes.from_grid(label), models, embedding.astype(np.float64), residual, start, steps)


@dataclass(frozen=True)
class Accuracy:
    """A model's share of right answers to `n_questions` questions: expected, and the central 90% interval.

    low, high: of the share that will be counted, so that they hold the luck of these questions too; error: the
    standard deviation of the expectation alone, which is what more answers of the model bring down.
    """

    expected: float
    low: float
    high: float
    error: float
    n_questions: int


def expect_accuracies(
    model: ModelPosterior,
    questions: Posterior,
    group: NDArray[np.int64],
    *,
    slope: float = 1.0,
    offset: float = 0.0,
    shift: float = 0.0,
    seed: int = 0,
) -> list[Accuracy]:
    """Expect the model's accuracy on each group of questions, by drawing models from the posterior.

    group: of shape (N,), numbers from 0 on, of N questions, none of them skipped; slope, offset: the scorer's
    calibration; shift: the standard deviation by which a group's logits may all be off together, UNSEEN_SHIFT where
    only text tells of its questions. The same seed draws the same models, whatever the questions.
    """
    theta = _draw(model, seed)  # (S, K+1)
    n_groups = int(group.max()) + 1 if len(group) else 0
    right, variance = np.zeros((2, n_groups, N_DRAWS))
    luck, moved = np.random.default_rng(seed + 1).standard_normal((2, n_groups, N_DRAWS))
    for start in range(0, len(group), CHUNK):
        rows = slice(start, start + CHUNK)
        chunk = questions.rows(rows)
        p = sigmoid(slope * _scaled_logits(theta, chunk) + offset + shift * moved[group[rows]])  # (n, S)
        np.add.at(right, group[rows], p)
        np.add.at(variance, group[rows], p * (1 - p))
    count = np.bincount(group, minlength=n_groups)
    counted = np.clip((right + np.sqrt(variance) * luck) / count[:, None], 0, 1)
    low, high = np.quantile(counted, [TAIL, 1 - TAIL], axis=1)
    expected = right / count[:, None]
    return [
        Accuracy(float(e.mean()), float(low[g]), float(high[g]), float(e.std()), int(count[g]))
        for g, e in enumerate(expected)
    ]


def answers_to_halve(model: ModelPosterior, questions: Posterior, most: int = 1_000_000) -> int | None:
    """How many more answers, to questions like these, should halve the error of the expected accuracy on them.

    Each adds the average Fisher information at the model's mean; none where `most` would not do.
    """
    n = len(questions.mean)
    _, information = evidence(model.mean, questions, np.zeros(n), np.full(n, 1 / n))
    spread = _slope_of_accuracy(model, questions)
    precision = np.linalg.inv(model.covariance)

    def variance(n_more: float) -> float:
        return float(spread @ np.linalg.solve(precision + n_more * information, spread))

    wanted = variance(0) / 4
    if not variance(most) <= wanted:
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if variance(middle) <= wanted else (middle, high)
    return high


def _slope_of_accuracy(model: ModelPosterior, questions: Posterior) -> Floats:
    """How the mean P(correct) on questions moves with theta, to first order, of shape (K+1,)."""
    p = model.p_correct(questions)
    joined = np.hstack([questions.mean, np.ones((len(p), 1))])
    slope: Floats = (p * (1 - p)) @ joined / max(len(p), 1)
    return slope


def _draw(model: ModelPosterior, seed: int) -> Floats:
    """Draw models, of shape (N_DRAWS, K+1)."""
    normal = np.random.default_rng(seed).standard_normal((N_DRAWS, len(model.mean)))
    theta: Floats = model.mean + normal @ np.linalg.cholesky(model.covariance).T
    return theta


def _scaled_logits(theta: Floats, questions: Posterior) -> Floats:
    """The logits of models theta (S, K+1) on questions (N), each question's own error integrated out; (N, S)."""
    u = theta[:, :-1]
    outer = (u[:, :, None] * u[:, None, :]).reshape(len(u), -1)  # (S, K*K)
    variance = questions.covariance.reshape(len(questions.mean), -1) @ outer.T  # (N, S)
    logits: Floats = (questions.mean @ u.T + theta[:, -1]) / np.sqrt(1 + np.pi / 8 * variance)
    return logits
