"""What each step learns from a batch: the next token, the masked token (MNTP), or which two vectors are one text's.

Formulas as in LLM2Vec (arXiv 2404.05961). They know models and batches; no file, no optimizer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from router.encoder.checkpoint import Pooling
from router.encoder.pooling import pool
from training.llm2vec.batches import Batch

Objective = Callable[[Any, Batch, torch.Generator], Tensor]

UNPREDICTED = -100  # what cross entropy leaves out
# their logits are the output embeddings' product with the states and no more, so that they are worth computing only
# where something is predicted
PLAIN_HEADS = ("llama", "mistral", "qwen2", "qwen3")


def causal(model: Any, batch: Batch, _generator: torch.Generator) -> Tensor:
    """The next token's mean loss."""
    return token_loss(model, batch, batch.ids, batch.mask)


@dataclass(frozen=True)
class Mntp:
    """Masked next token prediction: the token at i is predicted from the state at i - 1, which sees both sides.

    share: how many tokens are masked; all_masked: every one of them becomes the mask token, as the paper has it for
    Mistral at 80%; otherwise 80% do, 10% become another token and 10% stay (BERT).
    """

    mask_token: int
    share: float = 0.2
    all_masked: bool = False

    def __call__(self, model: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        shown, chosen = self.corrupt(batch, model.get_input_embeddings().weight.shape[0], generator)
        return token_loss(model, Batch(shown, batch.mask, batch.rows), batch.ids, chosen)

    def corrupt(self, batch: Batch, n_tokens: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Hide some tokens: what is shown instead, and which were chosen, both (B, T)."""
        shape, device = batch.ids.shape, batch.ids.device
        draw = torch.rand((2, *shape), generator=generator).to(device)
        other = torch.randint(n_tokens, shape, generator=generator).to(device)
        chosen = (draw[0] < self.share) & batch.mask
        chosen[:, 0] = False  # nothing stands before it
        shown = torch.where(chosen & (self.all_masked | (draw[1] < 0.8)), self.mask_token, batch.ids)
        if not self.all_masked:
            shown = torch.where(chosen & (draw[1] >= 0.9), other, shown)
        return shown, chosen


def token_loss(model: Any, shown: Batch, ids: Tensor, predicted: Tensor) -> Tensor:
    """Mean cross entropy of the tokens `ids` where `predicted`, each from the state before it; (B, T) both."""
    wanted = predicted[:, 1:]
    if model.config.model_type in PLAIN_HEADS:
        states = last_states(model, shown)[:, :-1][wanted]  # (n, D)
        logits = model.get_output_embeddings()(states)
    else:
        logits = model(input_ids=shown.ids, attention_mask=shown.mask.long(), use_cache=False).logits[:, :-1][wanted]
    return functional.cross_entropy(logits.float(), ids[:, 1:][wanted])


def last_states(model: Any, batch: Batch) -> Tensor:
    """The last hidden states, of shape (B, T, D)."""
    states: Tensor = model.base_model(
        input_ids=batch.ids, attention_mask=batch.mask.long(), use_cache=False
    ).last_hidden_state
    return states


@dataclass(frozen=True)
class SimCse:
    """Unsupervised SimCSE: a text's two vectors, which differ by dropout, against the others of its batch."""

    temperature: float = 0.05
    pooling: Pooling = "mean"

    def __call__(self, model: Any, batch: Batch, _generator: torch.Generator) -> Tensor:
        first, second = (pool(last_states(model, batch), batch.mask, self.pooling) for _ in range(2))
        return in_batch_loss(first, second, self.temperature)


def in_batch_loss(anchors: Tensor, positives: Tensor, temperature: float) -> Tensor:
    """InfoNCE on cosine similarities, (B, D) both: each anchor's positive against those of the others."""
    similarity = functional.normalize(anchors.float(), dim=1) @ functional.normalize(positives.float(), dim=1).T
    return functional.cross_entropy(similarity / temperature, torch.arange(len(anchors), device=anchors.device))
