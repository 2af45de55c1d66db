"""What an encoder is worth after a step: the loss on masked tokens of unseen texts, and a similarity task.

The similarity task needs no labels: two damaged copies of a question, a third of the words left out of each, should
lie nearer to one another than to the copies of other questions.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from router.encoder.checkpoint import Pooling
from router.encoder.pooling import pool
from router.encoder.text import surplus
from training.llm2vec.batches import Batch, pad_rows
from training.llm2vec.objectives import Mntp, last_states

LEFT_OUT = 1 / 3
ROWS = 16


@dataclass(frozen=True)
class Figures:
    """masked_loss: nats a token; found: how often a text's other copy is its nearest; auc: alike against unlike."""

    masked_loss: float
    found: float
    auc: float
    n_texts: int

    def as_json(self) -> dict[str, float]:
        return asdict(self)


@torch.inference_mode()
def evaluate_encoder(
    model: Any, tokenizer: Any, texts: Sequence[str], mntp: Mntp, pooling: Pooling, max_tokens: int, pad: int
) -> Figures:
    """Measure a model on texts that it did not learn from."""
    model.eval()
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    losses, weights = [], []
    for batch in _batches(tokenizer, texts, max_tokens, pad):
        losses.append(float(mntp(model, batch.to(device), generator)))
        weights.append(int(batch.mask.sum()))
    rng = np.random.default_rng(0)
    damaged = [[_damage(text, rng) for text in texts] for _ in range(2)]
    found, auc = tell_apart(*(encode_texts(model, tokenizer, copy, [pooling], max_tokens, pad)[0] for copy in damaged))
    return Figures(float(np.average(losses, weights=weights)), found, auc, len(texts))


@torch.inference_mode()
def encode_texts(
    model: Any, tokenizer: Any, texts: Sequence[str], poolings: Sequence[Pooling], max_tokens: int, pad: int
) -> list[NDArray[np.float32]]:
    """Encode texts by a model as it is, causal or not; (n_texts, D) for each pooling, zeros without tokens."""
    model.eval()
    device = next(model.parameters()).device
    width = model.config.get_text_config().hidden_size
    vectors = [np.zeros((len(texts), width), dtype=np.float32) for _ in poolings]
    for batch in _batches(tokenizer, texts, max_tokens, pad):
        there = batch.to(device)
        states = last_states(model, there)
        for of_all, pooling in zip(vectors, poolings, strict=True):
            of_all[list(batch.rows)] = pool(states, there.mask, pooling).float().cpu().numpy()
    return vectors


def tell_apart(first: NDArray[np.float32], second: NDArray[np.float32]) -> tuple[float, float]:
    """How often the nearest of `second` is the row's own, and the AUC of own against others; (N, D) both."""
    from sklearn.metrics import roc_auc_score

    centre = (first.mean(axis=0) + second.mean(axis=0)) / 2
    a, b = (x - centre for x in (first, second))
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9) for x in (a, b))
    similarity = a @ b.T  # (N, N)
    own = np.eye(len(a), dtype=bool)
    found = float((similarity.argmax(axis=1) == np.arange(len(a))).mean())
    return found, float(roc_auc_score(own.ravel(), similarity.ravel()))


def _damage(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    kept = [word for word, draw in zip(words, rng.random(len(words)), strict=True) if draw >= LEFT_OUT]
    return " ".join(kept) or text


def _batches(tokenizer: Any, texts: Sequence[str], max_tokens: int, pad: int) -> list[Batch]:
    """Batches of like length; an overlong text keeps its head and tail, as in serving."""
    rows = tokenizer(list(texts), padding=False, truncation=False, verbose=False)["input_ids"]
    for row in rows:
        del row[surplus(len(row), max_tokens)]
    order = [i for i in np.argsort([len(row) for row in rows], kind="stable").tolist() if len(rows[i]) > 1]
    parts = [tuple(order[start : start + ROWS]) for start in range(0, len(order), ROWS)]
    return [pad_rows([rows[i] for i in part], pad, part) for part in parts]
