"""Learn to say what a text is about: its vector follows the directions of the words in it, however often one returns.

The target is latent semantic analysis on the model's own tokens (Deerwester et al. 1990): each distinct token's
direction, weighed by the square root of its count. Mean pooling alone counts a token as often as it stands there, and a
question's options repeat much; attention can discount what returns, and learns to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from router.encoder.checkpoint import Pooling
from router.encoder.pooling import pool
from training.llm2vec.batches import Batch
from training.llm2vec.objectives import last_states


def topic_of(tokens: Sequence[int], embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum the distinct tokens' directions, each times the root of its count; embeddings: (V, D), the result (D,)."""
    distinct, counts = np.unique(np.asarray(tokens), return_counts=True)
    topic: NDArray[np.float32] = np.sqrt(counts).astype(np.float32) @ embeddings[distinct]
    return topic


@dataclass(frozen=True)
class Topics:
    """One less the cosine of each vector with its text's topic, both less their batch's mean.

    embeddings: (V, D), the directions of tokens; a batch's own tokens say what its topics are.
    """

    embeddings: NDArray[np.float32]
    pooling: Pooling = "mean"

    def __call__(self, model: Any, batch: Batch, _generator: torch.Generator) -> Tensor:
        texts = [ids[mask].tolist() for ids, mask in zip(batch.ids, batch.mask, strict=True)]
        topics = np.stack([topic_of(text, self.embeddings) for text in texts])  # (B, D)
        vectors = pool(last_states(model, batch), batch.mask, self.pooling).float()  # (B, D)
        wanted = torch.from_numpy(topics).to(vectors.device)
        cosine = functional.cosine_similarity(vectors - vectors.mean(dim=0), wanted - wanted.mean(dim=0), dim=1)
        return (1 - cosine).mean()
