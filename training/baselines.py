"""What a forecaster must beat: every baseline learns from the same train and val questions, and chooses on val.

Each takes the data with its test labels already hidden and the question vectors, and forecasts the whole grid, shape
(n_questions, n_models). Only `benchmark_mean` reads a benchmark's name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from router.encoder.base import Vectors
from training.dataset import Correctness
from training.metrics import Cells, nll_by_cell
from training.threads import torch_threads

Floats = NDArray[np.float64]

KNN_NEIGHBOURS = (5, 10, 20, 50, 100, 200)
LEARNING_RATES = (3e-4, 1e-3, 3e-3)  # that EmbedLLM's procedure is tuned over; the published 1e-4 is `embedllm_mf`
PRIOR_OUTCOMES = 2.0  # each rate is shrunk by this many outcomes towards the rate above it


def model_mean(data: Correctness, vectors: Vectors, seed: int = 0) -> Floats:
    """Forecast each model's own accuracy on the questions seen."""
    del vectors, seed
    return np.tile(_model_rates(data), (data.n_questions, 1))


def benchmark_mean(data: Correctness, vectors: Vectors, seed: int = 0) -> Floats:
    """Forecast each model's accuracy on the question's benchmark, the one baseline that is told its name."""
    del vectors, seed
    rates = _model_rates(data)
    p = np.tile(rates, (data.n_questions, 1))
    seen = data.split != "test"
    for benchmark in np.unique(data.benchmarks):
        here = data.benchmarks == benchmark
        label = data.label[here & seen]
        p[here] = (np.nansum(label, axis=0) + PRIOR_OUTCOMES * rates) / (
            (~np.isnan(label)).sum(axis=0) + PRIOR_OUTCOMES
        )
    return p


def knn(
    data: Correctness, vectors: Vectors, seed: int = 0, neighbours: Sequence[int] = KNN_NEIGHBOURS, chunk: int = 1024
) -> Floats:
    """Average each model's outcomes on the nearest questions by cosine (EmbedLLM's baseline); k by val NLL."""
    del seed
    rates = _model_rates(data)
    answered = data.observed.any(axis=1)
    train, val = np.flatnonzero((data.split == "train") & answered), data.part("val")
    label = np.nan_to_num(data.label)
    seen = data.observed.astype(np.float32)
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)
    ks = [k for k in neighbours if k <= len(train)] or [len(train)]

    def forecast(rows: NDArray[np.int64], k: int, known: NDArray[np.int64]) -> Floats:
        p = np.empty((len(rows), data.n_models))
        for start in range(0, len(rows), chunk):
            part = rows[start : start + chunk]
            similarity = unit[part] @ unit[known].T  # (n, N_known)
            nearest = known[np.argpartition(-similarity, k - 1, axis=1)[:, :k]]
            right, count = label[nearest].sum(axis=1), seen[nearest].sum(axis=1)  # (n, M)
            p[start : start + chunk] = (right + PRIOR_OUTCOMES * rates) / (count + PRIOR_OUTCOMES)
        return p

    losses = {k: float(nll_by_cell(Cells.from_grid(data.label[val], forecast(val, k, train))).mean()) for k in ks}
    best = min(losses, key=lambda k: losses[k])
    return forecast(np.arange(data.n_questions), best, np.flatnonzero((data.split != "test") & answered))


class _EmbedLLM(nn.Module):
    """The published network: table, projection, two logits on their product."""

    def __init__(self, n_models: int, dim_question: int, dim: int = 232) -> None:
        super().__init__()
        self.models = nn.Embedding(n_models, dim)
        self.project = nn.Linear(dim_question, dim)
        self.classify = nn.Linear(dim, 2)

    def forward(self, model: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classify(self.models(model) * self.project(vector))
        return logits

    def forecast(self, vectors: torch.Tensor) -> Floats:
        """P(correct) of every model for questions of shape (N, D), of shape (N, M), without noise."""
        with torch.inference_mode():
            # the product of embeddings makes the two logits bilinear: all models at once is one matrix product
            difference = self.classify.weight[1] - self.classify.weight[0]  # (K,)
            logits = (self.project(vectors) * difference) @ self.models.weight.T  # (N, M)
            logits = logits + self.classify.bias[1] - self.classify.bias[0]
            p: Floats = torch.sigmoid(logits).double().numpy()
        return p


def embedllm_mf(
    data: Correctness,
    vectors: Vectors,
    seed: int = 0,
    *,
    n_epochs: int = 50,
    batch: int = 2048,
    noise: float = 0.05,
    learning_rate: float = 1e-4,
) -> Floats:
    """Run EmbedLLM's published procedure (arXiv 2410.02223, its released code), with shuffled in-memory batches.

    Dimension 232, Adam at 1e-4 with weight decay 1e-5, 50 epochs, Gaussian noise on question vectors in training
    only. Neither stopped nor calibrated: its procedure does neither.
    """
    epochs = _epochs(data, vectors, data.split != "test", seed, batch, noise, learning_rate)
    with torch_threads(1):
        for network in islice(epochs, n_epochs):
            trained = network
    return trained.forecast(torch.as_tensor(vectors))


@dataclass(frozen=True)
class Tuning:
    """What EmbedLLM's procedure is tuned over.

    Each rate's run is one warm path: val is forecast after every epoch, and the run ends after `patience` epochs
    without a better loss, or after `max_epochs`.
    """

    learning_rates: Sequence[float] = LEARNING_RATES
    max_epochs: int = 50
    patience: int = 5
    batch: int = 2048
    noise: float = 0.05


TUNING = Tuning()


def embedllm_mf_tuned(data: Correctness, vectors: Vectors, seed: int = 0, tuning: Tuning = TUNING) -> Floats:
    """Run EmbedLLM's procedure on train and val with the learning rate and the number of epochs best on val."""
    chosen = tune_embedllm(data, vectors, seed, tuning)
    return embedllm_mf(
        data,
        vectors,
        seed,
        n_epochs=chosen.n_epochs,
        batch=tuning.batch,
        noise=tuning.noise,
        learning_rate=chosen.learning_rate,
    )


@dataclass(frozen=True)
class Tuned:
    """A learning rate and a number of epochs, and the val NLL that they reached; n_epochs_run: over all rates."""

    learning_rate: float
    n_epochs: int
    nll: float
    n_epochs_run: int


def tune_embedllm(data: Correctness, vectors: Vectors, seed: int = 0, tuning: Tuning = TUNING) -> Tuned:
    """Fit on train by every rate and find the pair of rate and epochs with the least NLL on val."""
    val = data.part("val")
    if not data.observed[val].any():
        raise ValueError("no outcome on any val question: there is nothing to tune on")
    x = torch.as_tensor(vectors[val])
    tried: list[Tuned] = []
    with torch_threads(1):
        for rate in tuning.learning_rates:
            best = Tuned(rate, 0, float("inf"), 0)
            epochs = _epochs(data, vectors, data.split == "train", seed, tuning.batch, tuning.noise, rate)
            for epoch, network in enumerate(islice(epochs, tuning.max_epochs), start=1):
                nll = float(nll_by_cell(Cells.from_grid(data.label[val], network.forecast(x))).mean())
                if nll < best.nll:
                    best = Tuned(rate, epoch, nll, 0)
                elif epoch - best.n_epochs >= tuning.patience:
                    break
            tried.append(replace(best, n_epochs_run=epoch))
    least = min(tried, key=lambda one: one.nll)
    return replace(least, n_epochs_run=sum(one.n_epochs_run for one in tried))


def _epochs(
    data: Correctness,
    vectors: Vectors,
    seen: NDArray[np.bool_],
    seed: int,
    batch: int,
    noise: float,
    learning_rate: float,
) -> Iterator[_EmbedLLM]:
    """Train on the questions `seen`, of shape (n_questions,), and yield the network after every epoch, without end."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _EmbedLLM(data.n_models, vectors.shape[1])
    x = torch.as_tensor(vectors)
    question, model = (torch.as_tensor(index) for index in np.nonzero(data.observed & seen[:, None]))
    right = torch.as_tensor(data.label)[question, model]
    label = torch.stack([1 - right, right], dim=1)  # (n_cells, 2): a mean over repeats is a share of each outcome
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, weight_decay=1e-5)
    while True:
        for rows in torch.randperm(len(label), generator=generator).split(batch):
            noisy = x[question[rows]] + noise * torch.randn(len(rows), x.shape[1], generator=generator)
            loss = nn.functional.cross_entropy(network(model[rows], noisy), label[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield network


def _model_rates(data: Correctness) -> Floats:
    """Each model's accuracy on the questions seen, shrunk to the pool's, of shape (n_models,)."""
    label = data.label[data.split != "test"]
    count = (~np.isnan(label)).sum(axis=0)
    pool = float(np.nanmean(label)) if count.sum() else 0.5
    rates: Floats = (np.nansum(label, axis=0) + PRIOR_OUTCOMES * pool) / (count + PRIOR_OUTCOMES)
    return rates
