"""Supervised contrastive training (the recipe's optional last step): pairs of texts that should lie close.

A pair's positive competes with those of the other pairs in its batch.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from router.encoder.checkpoint import Pooling
from router.encoder.pooling import pool
from training.errors import TrainingError
from training.llm2vec.batches import Batch, pad_rows
from training.llm2vec.objectives import in_batch_loss, last_states


@dataclass(frozen=True)
class Pair:
    """Two texts that mean alike."""

    anchor: str
    positive: str


def read_pairs(path: Path) -> list[Pair]:
    """Read a CSV with the columns anchor and positive."""
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        if not {"anchor", "positive"} <= set(table.fieldnames or ()):
            raise TrainingError(f"{path} has the columns {table.fieldnames}; pairs need anchor and positive")
        pairs = [Pair(row["anchor"], row["positive"]) for row in table]
    if len(pairs) < 2:
        raise TrainingError(f"{path} holds {len(pairs)} pairs: two at least, each is the other's contrast")
    return pairs


@dataclass(frozen=True)
class Contrast:
    """InfoNCE over a batch of anchors, whose positives are looked up by the batch's rows."""

    positives: Sequence[Sequence[int]]
    pad: int
    max_tokens: int
    pooling: Pooling = "mean"
    temperature: float = 0.05

    def __call__(self, model: Any, batch: Batch, _generator: torch.Generator) -> Tensor:
        cut = [self.positives[row][: self.max_tokens] for row in batch.rows]
        others = pad_rows(cut, self.pad).to(batch.ids.device)
        anchors = pool(last_states(model, batch), batch.mask, self.pooling)
        return in_batch_loss(anchors, pool(last_states(model, others), others.mask, self.pooling), self.temperature)
