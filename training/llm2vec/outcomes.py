"""Supervised training on a correctness log (the recipe's optional last step): alike are questions that the same models
get right.

It learns from a share of the train questions, near-duplicates together. Which, is written beside the weights, and no
forecaster is fitted on them: that is `training.learned_outcomes`'s matter.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from data.observations import prompt_sha256
from router.encoder.checkpoint import Pooling
from router.encoder.pooling import pool
from training.dataset import Correctness
from training.errors import TrainingError
from training.llm2vec.batches import Batch, Batches, Size
from training.llm2vec.loop import Schedule
from training.llm2vec.objectives import last_states
from training.llm2vec.stages import Stage
from training.llm2vec.tokenizer import pad_token_of
from training.posterior import Models, Outcomes, infer, start_models, update_models
from training.repeats import weigh

FEWEST_OUTCOMES = 5  # of a question; fewer hardly say who gets it right
FEWEST_QUESTIONS = 32
DIM, N_ROUNDS = 8, 20  # of the posterior
SHARPNESS = 4.0  # how many nats fainter a pair at the mean squared distance is than a question and itself


@dataclass(frozen=True)
class Answered:
    """Questions with each model's P(correct) given all outcomes, of shape (n_questions, n_models).

    It is a posterior mean, so that a missing outcome is no wrong answer and a lucky guess no right one.
    """

    prompts: tuple[str, ...]
    p_correct: NDArray[np.float32]

    @classmethod
    def of(cls, data: Correctness, seed: int = 0) -> "Answered":
        """Infer it from the labels alone, without the text: TrainingError where too few questions have enough."""
        data = data.rows(np.flatnonzero(data.observed.sum(axis=1) >= min(FEWEST_OUTCOMES, data.n_models)))
        if data.n_questions < FEWEST_QUESTIONS:
            raise TrainingError(
                f"{data.n_questions} questions with outcomes of {FEWEST_OUTCOMES} models: too few to learn from, "
                f"{FEWEST_QUESTIONS} at least"
            )
        return cls(data.prompts, posterior_p_correct(data, seed).astype(np.float32))

    @property
    def hashes(self) -> frozenset[str]:
        """The prompts' SHA-256."""
        return frozenset(prompt_sha256(prompt) for prompt in self.prompts)

    def fingerprint(self) -> str:
        """Name the questions and outcomes by content, 16 hexadecimal digits."""
        digest = hashlib.sha256(np.round(self.p_correct, 3).tobytes())
        for prompt in self.prompts:
            digest.update(prompt_sha256(prompt).encode())
        return digest.hexdigest()[:16]


def read_answered(logs: str, share: float, seed: int) -> Answered:
    """Read a share of the train questions of a long-format folder, or of the database that a URL names."""
    if "://" in logs:
        from data.database import opened
        from training.train import read_correctness

        with opened(logs) as engine:
            data = read_correctness(engine)
    else:
        from data.importers.long import read_folder

        data = Correctness.from_log(read_folder(Path(logs)))
    return Answered.of(draw_share(data.rows(data.learnable("train")), share, seed), seed)


def draw_share(data: Correctness, share: float, seed: int) -> Correctness:
    """Draw a share of the groups of near-duplicates."""
    groups = np.unique(data.groups)
    drawn = np.random.default_rng(seed).permutation(groups)[: round(share * len(groups))]
    return data.rows(np.flatnonzero(np.isin(data.groups, drawn)))


def posterior_p_correct(data: Correctness, seed: int) -> NDArray[np.float64]:
    """What a matrix factorization without text makes of the outcomes, of shape (n_questions, n_models).

    The questions' prior is their own mean and spread (empirical Bayes).
    """
    weight = None if data.n_observations is None else weigh(data.label, data.n_observations)
    outcomes = Outcomes.from_grid(data.label, weight)
    dim = min(DIM, data.n_models)
    models: Models = start_models(outcomes, dim, seed)
    mean, centre, spread = np.zeros((data.n_questions, dim)), np.zeros(dim), np.eye(dim)
    for _ in range(N_ROUNDS):
        questions = infer(outcomes, models, np.tile(centre, (data.n_questions, 1)), spread, start=mean)
        models = update_models(outcomes, models, questions, steps=1)
        mean, centre = questions.mean, questions.mean.mean(axis=0)
        spread = questions.covariance.mean(axis=0) + np.cov(mean.T, bias=True).reshape(dim, dim)
    logits = mean @ models.embedding.T + models.bias
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -30, 30))))


@dataclass(frozen=True)
class Alike:
    """Pull questions together as far as models answer them alike: InfoNCE with soft targets, over a batch.

    p_correct: (N, M), by the batch's rows. For a question, the others of its batch weigh exp(-SHARPNESS d²), d² being
    the squared distance of their P(correct) over its mean; the loss is the divergence of the softmax of cosines from
    these weights, 0 where both agree.
    """

    p_correct: Tensor
    pooling: Pooling = "mean"
    temperature: float = 0.1

    def __call__(self, model: Any, batch: Batch, _generator: torch.Generator) -> Tensor:
        p = self.p_correct[list(batch.rows)].to(batch.ids.device)  # (B, M)
        return alike_loss(pool(last_states(model, batch), batch.mask, self.pooling), p, self.spread, self.temperature)

    @property
    def spread(self) -> float:
        """The mean squared distance between two questions' P(correct)."""
        return float(2 * self.p_correct.var(dim=0, unbiased=False).sum())


def alike_loss(vectors: Tensor, p_correct: Tensor, spread: float, temperature: float) -> Tensor:
    """Kullback-Leibler divergence, mean over the batch; vectors: (B, D), p_correct: (B, M)."""
    unit = functional.normalize(vectors.float(), dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    squared = torch.cdist(p_correct, p_correct).square() / max(spread, 1e-9)  # (B, B)
    wanted = (-SHARPNESS * squared).masked_fill(itself, -torch.inf).softmax(dim=1)
    found = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf).log_softmax(dim=1)
    return functional.kl_div(found[~itself], wanted[~itself], reduction="sum") / len(unit)


def outcome_stage(
    answered: Answered,
    tokenizer: Any,
    schedule: Schedule,
    size: Size,
    *,
    max_tokens: int,
    seed: int,
    pooling: Pooling = "mean",
    lora_rank: int = 0,
) -> Stage:
    """The step that learns from outcomes."""
    sequences: Sequence[list[int]] = tokenizer(list(answered.prompts), truncation=False, verbose=False)["input_ids"]
    kept = [i for i, sequence in enumerate(sequences) if sequence]
    batches = Batches(
        [sequences[i] for i in kept], max_tokens=max_tokens, size=size, seed=seed, pad=pad_token_of(tokenizer)
    )
    objective = Alike(torch.from_numpy(answered.p_correct[kept]), pooling)
    return Stage("outcomes", objective, batches, schedule, lora_rank=lora_rank)
