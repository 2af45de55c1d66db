"""Contrastive training on crops: two spans of one text should lie close, and far from those of other texts.

Independent cropping as in Contriever (arXiv 2112.09118): the spans' places and lengths are drawn one by one, and some
of their tokens are left out. Spans share topic and words, so that no label is needed.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from router.encoder.checkpoint import Pooling
from router.encoder.pooling import pool
from training.llm2vec.batches import Batch, pad_rows
from training.llm2vec.objectives import in_batch_loss, last_states

SHORTEST = 4  # tokens of a crop, where a text has as many


@dataclass(frozen=True)
class Crops:
    """InfoNCE over a batch's texts, each by two crops.

    shortest, longest: of a crop, as shares of its text; max_tokens: of a crop; left_out: share of a crop's tokens;
    prefix: tokens that stand before every text in use.
    """

    pad: int
    prefix: tuple[int, ...] = ()
    shortest: float = 0.3
    longest: float = 0.7
    max_tokens: int = 64
    left_out: float = 0.1
    temperature: float = 0.05
    pooling: Pooling = "mean"

    def __call__(self, model: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        texts = [ids[mask].tolist() for ids, mask in zip(batch.ids, batch.mask, strict=True)]
        crops = [self.crop(text, generator) for _ in range(2) for text in texts]
        both = pad_rows(crops, self.pad).to(batch.ids.device)
        vectors = pool(last_states(model, both), both.mask, self.pooling)  # (2 B, D)
        first, second = vectors.split(len(texts))
        losses = [in_batch_loss(*pair, self.temperature) for pair in ((first, second), (second, first))]
        return torch.stack(losses).mean()

    def crop(self, text: list[int], generator: torch.Generator) -> list[int]:
        """Draw a span of a text's tokens and leave some of them out; never all."""
        body = text[len(self.prefix) :] if tuple(text[: len(self.prefix)]) == self.prefix else text
        share, place = torch.rand(2, generator=generator).tolist()
        n_wanted = round(len(body) * (self.shortest + (self.longest - self.shortest) * share))
        n = min(max(n_wanted, SHORTEST), self.max_tokens, len(body))
        start = int(place * (len(body) - n + 1))
        span = body[start : start + n]
        kept = torch.rand(n, generator=generator) >= self.left_out
        return [*self.prefix, *([token for token, keep in zip(span, kept.tolist(), strict=True) if keep] or span)]
