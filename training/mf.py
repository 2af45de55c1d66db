"""EmbedLLM's factorization with biases: one loop over full-batch steps, stopped and calibrated on validation.

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
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from router.encoder.base import Vectors
from training.calibrate import fit_platt
from training.dataset import Correctness
from training.folds import deal_folds
from training.threads import torch_threads

Floats = NDArray[np.float64]

MANY_CELLS = 2_000_000  # a grid from which on a second thread pays


@dataclass(frozen=True)
class MFSettings:
    """How it is fitted. The defaults were chosen by validation on public logs of 26 and 50 models."""

    dim_embedding: int = 32
    penalties: Sequence[float] = (1e-2, 3e-3, 1e-3, 3e-4)
    learning_rate: float = 0.03
    max_steps: int = 300
    check_every: int = 5
    patience: int = 60  # steps without a better validation loss, for any fold, after which a penalty's run ends
    n_folds: int = 5


class BiasedMF(nn.Module):
    """A model embedding times a projected question embedding, classified linearly, plus biases.

    logit[n, m] = sum_k w[k] u[m, k] (W z[n])[k] + b[m] + c . z[n] + b0, with z the standardized question vector.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, n_models: int, dim_question: int, dim_embedding: int) -> None:
        super().__init__()
        self.model_embedding = nn.Parameter(torch.zeros(n_models, dim_embedding))  # (M, K)
        self.projection = nn.Parameter(torch.zeros(dim_question, dim_embedding))  # (D, K)
        self.classifier = nn.Parameter(torch.ones(dim_embedding))  # (K,)
        self.model_bias = nn.Parameter(torch.zeros(n_models))  # (M,)
        self.difficulty = nn.Parameter(torch.zeros(dim_question))  # (D,)
        self.bias = nn.Parameter(torch.zeros(()))
        self.register_buffer("mean", torch.zeros(dim_question))
        self.register_buffer("scale", torch.ones(()))

    def standardize(self, vectors: Tensor) -> Tensor:
        """Centre and scale raw question vectors of shape (N, D)."""
        return (vectors - self.mean) / self.scale

    def forward(self, standardized: Tensor) -> Tensor:
        """Score standardized vectors of shape (N, D); logits of shape (N, M)."""
        question_embedding = standardized @ self.projection  # (N, K)
        interaction = (question_embedding * self.classifier) @ self.model_embedding.T  # (N, M)
        difficulty = standardized @ self.difficulty  # (N,)
        return interaction + self.model_bias + difficulty[:, None] + self.bias


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


def biased_mf(data: Correctness, vectors: Vectors, seed: int = 0, settings: MFSettings | None = None) -> Floats:
    """Fit on the train questions, choose and calibrate on the val questions, forecast all, (n_questions, n_models).

    vectors: raw question vectors of shape (n_questions, dim). Test labels are never read.
    """
    settings = settings or MFSettings()
    train, val = data.learnable("train"), data.learnable("val")
    fit_on, choose_on = _Part.of(data, vectors, train), _Part.of(data, vectors, val)
    folds = torch.as_tensor(deal_folds(data.groups[val], settings.n_folds, seed))
    everything = _Best(torch.ones(len(val), dtype=torch.bool))
    held_out = [_Best(folds != k) for k in range(int(folds.max()) + 1)]
    with torch_threads(1 if data.label.size < MANY_CELLS else torch.get_num_threads()):
        for penalty in settings.penalties:
            network = _start(data, vectors, train, settings, seed)
            _descend(network, fit_on, choose_on, penalty, settings, [everything, *held_out])
    network = _start(data, vectors, train, settings, seed)
    network.load_state_dict(everything.state)
    honest = everything.logits.clone()  # (N_val, M): each fold as the others would have forecast it
    for k, best in enumerate(held_out):
        if best.logits.numel():
            honest[folds == k] = best.logits[folds == k]
    platt = fit_platt(honest.numpy(), data.label[val])
    with torch.inference_mode():
        logits = network(network.standardize(torch.as_tensor(vectors)))
        p: Floats = torch.sigmoid(platt.slope * logits + platt.offset).double().numpy()
    return p


def _descend(
    network: BiasedMF, fit_on: _Part, choose_on: _Part, penalty: float, settings: MFSettings, bests: Sequence[_Best]
) -> None:
    """Minimize the masked cross-entropy plus an L2 penalty, offering each check to every choice in `bests`."""
    z, z_val = network.standardize(fit_on.vectors), network.standardize(choose_on.vectors)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    n_cells, last_improvement = fit_on.mask.sum(), 0
    for step in range(1, settings.max_steps + 1):
        optimizer.zero_grad()
        loss = _cell_loss(network(z), fit_on).sum() / n_cells
        (loss + penalty * _squared_norm(network)).backward()
        optimizer.step()
        if step % settings.check_every:
            continue
        with torch.inference_mode():
            logits = network(z_val)  # (N_val, M)
            loss_by_question = _cell_loss(logits, choose_on).sum(1)  # (N_val,)
            n_by_question = choose_on.mask.sum(1)
        for best in bests:
            val_loss = float(loss_by_question[best.chosen_on].sum() / n_by_question[best.chosen_on].sum())
            if val_loss < best.loss:
                best.loss, best.penalty, best.step, best.logits = val_loss, penalty, step, logits
                best.state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
                last_improvement = step
        if step - last_improvement >= settings.patience:
            break


def _start(data: Correctness, vectors: Vectors, train: NDArray[np.int64], settings: MFSettings, seed: int) -> BiasedMF:
    """Make a network that forecasts every model's own mean: factors small and random, biases at the base rates."""
    n_models, dim = data.n_models, vectors.shape[1]
    network = BiasedMF(n_models, dim, settings.dim_embedding)
    generator = torch.Generator().manual_seed(seed)
    observed = data.observed[train]
    right = np.nansum(data.label[train], axis=0)
    rate = (right + 1) / (observed.sum(axis=0) + 2)
    with torch.no_grad():
        network.model_embedding.normal_(std=0.1, generator=generator)
        network.projection.normal_(std=0.01, generator=generator)
        network.model_bias.copy_(torch.as_tensor(np.log(rate / (1 - rate)), dtype=torch.float32))
        network.mean.copy_(torch.as_tensor(vectors[train].mean(axis=0)))
        # one scale for all dimensions: an encoder's strong directions stay strong
        spread = float(np.sqrt(vectors[train].var(axis=0).mean()))
        network.scale.fill_(spread if spread > 0 else 1.0)
    return network


def _squared_norm(network: BiasedMF) -> Tensor:
    """Penalize what depends on the prompt; the classifier is pulled to one, since U and W hold its scale already."""
    return (
        network.model_embedding.square().sum()
        + network.projection.square().sum()
        + network.difficulty.square().sum()
        + (network.classifier - 1).square().sum()
    )


def _cell_loss(logits: Tensor, part: _Part) -> Tensor:
    """Cross-entropy of every cell, 0 where unobserved, (N, M)."""
    return binary_cross_entropy_with_logits(logits, part.label, reduction="none") * part.mask
