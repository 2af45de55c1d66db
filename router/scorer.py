"""The forward pass: question vectors in, P(correct) of every model out. The trainer imports it too.

EmbedLLM's matrix factorization (arXiv 2410.02223): a model embedding and a projected question embedding, multiplied
element by element, then a linear classifier; here with explicit biases for models and for question difficulty, and a
calibration that is part of the scorer. It knows no SQL, no files and no text.
"""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


@dataclass(frozen=True)
class ScorerShape:
    """The sizes that, with the tensors, make a scorer."""

    n_models: int
    dim_question: int
    dim_embedding: int

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


class Scorer(nn.Module):
    """Scores questions against models.

    logit[n, m] = sum_k w[k] u[m, k] (W z[n])[k] + b[m] + c . z[n] + b0, with z the standardized question vector;
    P(correct) = sigmoid(slope * logit + offset), slope and offset fitted on held-out questions (Platt 1999).
    """

    mean: Tensor
    scale: Tensor
    slope: Tensor
    offset: Tensor

    def __init__(self, shape: ScorerShape) -> None:
        super().__init__()
        self.shape = shape
        self.model_embedding = nn.Parameter(torch.zeros(shape.n_models, shape.dim_embedding))  # (M, K)
        self.projection = nn.Parameter(torch.zeros(shape.dim_question, shape.dim_embedding))  # (D, K)
        self.classifier = nn.Parameter(torch.ones(shape.dim_embedding))  # (K,)
        self.model_bias = nn.Parameter(torch.zeros(shape.n_models))  # (M,)
        self.difficulty = nn.Parameter(torch.zeros(shape.dim_question))  # (D,)
        self.bias = nn.Parameter(torch.zeros(()))
        self.register_buffer("mean", torch.zeros(shape.dim_question))
        self.register_buffer("scale", torch.ones(shape.dim_question))
        self.register_buffer("slope", torch.ones(()))
        self.register_buffer("offset", torch.zeros(()))

    def standardize(self, vectors: Tensor) -> Tensor:
        """Centre and scale raw question vectors of shape (N, D)."""
        return (vectors - self.mean) / self.scale

    def forward(self, standardized: Tensor) -> Tensor:
        """Score standardized vectors of shape (N, D); uncalibrated logits of shape (N, M)."""
        question_embedding = standardized @ self.projection  # (N, K)
        interaction = (question_embedding * self.classifier) @ self.model_embedding.T  # (N, M)
        difficulty = standardized @ self.difficulty  # (N,)
        return interaction + self.model_bias + difficulty[:, None] + self.bias

    @torch.inference_mode()
    def p_correct(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """Forecast from raw vectors of shape (N, D): calibrated probabilities of shape (N, M)."""
        logits = self(self.standardize(torch.as_tensor(vectors, dtype=self.mean.dtype)))
        return torch.sigmoid(self.slope * logits + self.offset).double().numpy()

    @torch.inference_mode()
    def model_vectors(self) -> NDArray[np.float32]:
        """What distinguishes the models, of shape (M, D): each model's logit as a linear function of z."""
        loadings = (self.model_embedding * self.classifier) @ self.projection.T  # (M, D)
        return loadings.numpy()
