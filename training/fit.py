"""Fit a scorer to a correctness grid: one loop over full-batch steps, stopped and calibrated on validation.

EmbedLLM's matrix factorization (arXiv 2410.02223) on the dense models x questions grid with a mask. The strength of
the L2 penalty and the stopping step are chosen on the validation questions; the calibration is fitted on the same
questions and is therefore cross-fitted: each fold of near-duplicate groups is forecast by the choice that the other
folds make.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from router.encoder.base import Vectors
from router.scorer import Scorer, ScorerShape
from training.calibrate import fit_platt
from training.dataset import Correctness
from training.threads import torch_threads

MANY_CELLS = 2_000_000  # a grid from which on a second thread pays


@dataclass(frozen=True)
class FitSettings:
    """How a scorer is fitted. The defaults were chosen by validation on public logs of 26 and 50 models."""

    dim_embedding: int = 32
    penalties: Sequence[float] = (1e-2, 3e-3, 1e-3, 3e-4)
    learning_rate: float = 0.03
    max_steps: int = 300
    check_every: int = 5
    patience: int = 60  # steps without a better validation loss, for any fold, after which a penalty's run ends
    n_folds: int = 5


@dataclass(frozen=True)
class Fitted:
    """A fitted scorer and how it was chosen: the penalty, the step, and the validation loss that it had there."""

    scorer: Scorer
    penalty: float
    step: int
    val_nll: float


@dataclass(frozen=True)
class _Part:
    """One split's questions as tensors: raw vectors (N, D), labels with unobserved cells as 0 and their mask (N, M)."""

    vectors: Tensor
    label: Tensor
    mask: Tensor

    @classmethod
    def of(cls, data: Correctness, vectors: Vectors, rows: NDArray[np.int64]) -> "_Part":
        label = torch.as_tensor(data.label[rows])
        return cls(torch.as_tensor(vectors[rows]), label.nan_to_num(0.0), (~label.isnan()).float())


@dataclass
class _Best:
    """The best check so far for one choice of validation questions, and what it must keep."""

    chosen_on: Tensor  # (N_val,) bool
    loss: float = float("inf")
    penalty: float = 0.0
    step: int = 0
    logits: Tensor = field(default_factory=lambda: torch.zeros(0))  # (N_val, M), uncalibrated
    state: dict[str, Tensor] = field(default_factory=dict)


def fit_scorer(data: Correctness, vectors: Vectors, seed: int = 0, settings: FitSettings | None = None) -> Fitted:
    """Fit on the train questions, choose and calibrate on the val questions.

    vectors: raw question vectors of shape (n_questions, dim). Test labels are never read. Without a single observed
    val cell there is nothing to choose by: ValueError.
    """
    settings = settings or FitSettings()
    train, val = data.part("train"), data.part("val")
    for name, rows in (("train", train), ("val", val)):
        if not data.observed[rows].any():
            raise ValueError(f"no outcome on any {name} question: a fit needs some in train and some in val")
    fit_on, choose_on = _Part.of(data, vectors, train), _Part.of(data, vectors, val)
    folds = _folds(data.groups[val], settings.n_folds, seed)
    everything = _Best(torch.ones(len(val), dtype=torch.bool))
    held_out = [_Best(folds != k) for k in range(int(folds.max()) + 1)]
    with torch_threads(1 if data.label.size < MANY_CELLS else torch.get_num_threads()):
        for penalty in settings.penalties:
            scorer = _start(data, vectors, train, settings, seed)
            _descend(scorer, fit_on, choose_on, penalty, settings, [everything, *held_out])
    scorer = _start(data, vectors, train, settings, seed)
    scorer.load_state_dict(everything.state)
    honest = everything.logits.clone()  # (N_val, M): each fold as the others would have forecast it
    for k, best in enumerate(held_out):
        if best.logits.numel():
            honest[folds == k] = best.logits[folds == k]
    platt = fit_platt(honest.numpy(), data.label[val])
    scorer.slope.fill_(platt.slope)
    scorer.offset.fill_(platt.offset)
    return Fitted(scorer.eval(), everything.penalty, everything.step, everything.loss)


def _descend(
    scorer: Scorer, fit_on: _Part, choose_on: _Part, penalty: float, settings: FitSettings, bests: Sequence[_Best]
) -> None:
    """Minimize the masked cross-entropy plus an L2 penalty, offering each check to every choice in `bests`."""
    z, z_val = scorer.standardize(fit_on.vectors), scorer.standardize(choose_on.vectors)
    optimizer = torch.optim.Adam(scorer.parameters(), lr=settings.learning_rate)
    n_cells, last_improvement = fit_on.mask.sum(), 0
    for step in range(1, settings.max_steps + 1):
        optimizer.zero_grad()
        loss = _cell_loss(scorer(z), fit_on).sum() / n_cells
        (loss + penalty * _squared_norm(scorer)).backward()
        optimizer.step()
        if step % settings.check_every:
            continue
        with torch.inference_mode():
            logits = scorer(z_val)  # (N_val, M)
            loss_by_question = _cell_loss(logits, choose_on).sum(1)  # (N_val,)
            n_by_question = choose_on.mask.sum(1)
        for best in bests:
            val_loss = float(loss_by_question[best.chosen_on].sum() / n_by_question[best.chosen_on].sum())
            if val_loss < best.loss:
                best.loss, best.penalty, best.step, best.logits = val_loss, penalty, step, logits
                best.state = {name: tensor.detach().clone() for name, tensor in scorer.state_dict().items()}
                last_improvement = step
        if step - last_improvement >= settings.patience:
            break


def _start(data: Correctness, vectors: Vectors, train: NDArray[np.int64], settings: FitSettings, seed: int) -> Scorer:
    """Make a scorer that forecasts every model's own mean: factors small and random, biases at the base rates."""
    n_models, dim = data.n_models, vectors.shape[1]
    scorer = Scorer(ScorerShape(n_models, dim, settings.dim_embedding))
    generator = torch.Generator().manual_seed(seed)
    observed = data.observed[train]
    right = np.nansum(data.label[train], axis=0)
    rate = (right + 1) / (observed.sum(axis=0) + 2)
    with torch.no_grad():
        scorer.model_embedding.normal_(std=0.1, generator=generator)
        scorer.projection.normal_(std=0.01, generator=generator)
        scorer.model_bias.copy_(torch.as_tensor(np.log(rate / (1 - rate)), dtype=torch.float32))
        scorer.mean.copy_(torch.as_tensor(vectors[train].mean(axis=0)))
        # one scale for all dimensions: an encoder's strong directions stay strong
        spread = float(np.sqrt(vectors[train].var(axis=0).mean()))
        scorer.scale.fill_(spread if spread > 0 else 1.0)
    return scorer


def _squared_norm(scorer: Scorer) -> Tensor:
    """Penalize what depends on the prompt; the classifier is pulled to one, since U and W hold its scale already."""
    return (
        scorer.model_embedding.square().sum()
        + scorer.projection.square().sum()
        + scorer.difficulty.square().sum()
        + (scorer.classifier - 1).square().sum()
    )


def _cell_loss(logits: Tensor, part: _Part) -> Tensor:
    """Cross-entropy of every cell, 0 where unobserved, (N, M)."""
    return binary_cross_entropy_with_logits(logits, part.label, reduction="none") * part.mask


def _folds(groups: NDArray[np.int64], n_folds: int, seed: int) -> Tensor:
    """Deal near-duplicate groups into folds, of shape (N,)."""
    distinct, group = np.unique(groups, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(distinct))
    return torch.as_tensor(shuffled[group] % min(n_folds, max(len(distinct), 1)))
