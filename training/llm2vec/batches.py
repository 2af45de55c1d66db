"""Token sequences in batches of like length: which rows a step reads follows from the seed and the step alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Padded on the right; ids: (B, T); mask: bool (B, T); rows: which sequences these are, (B,)."""

    ids: Tensor
    mask: Tensor
    rows: tuple[int, ...]

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.ids.to(device), self.mask.to(device), self.rows)


@dataclass(frozen=True)
class Size:
    """How much a batch holds: at most this many padded tokens, and at most this many rows."""

    n_tokens: int
    n_rows: int


class Batches:
    """Deals sequences of token ids into batches, epoch after epoch; each epoch draws its own.

    A sequence longer than `max_tokens` gives a window of it, drawn anew in each epoch.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], *, max_tokens: int, size: Size, seed: int, pad: int) -> None:
        if not sequences:
            raise ValueError("no sequences to learn from")
        self._sequences = sequences
        self._max_tokens = max_tokens
        self._size = size
        self._seed = seed
        self._pad = pad
        self._lengths = np.minimum([len(row) for row in sequences], max_tokens)
        self._dealt = lru_cache(maxsize=2)(self._deal)
        self.n_batches = len(self._dealt(0))  # of every epoch: it follows from the lengths alone

    def __call__(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        epoch, place = divmod(step, self.n_batches)
        rows = self._dealt(epoch)[place]
        rng = np.random.default_rng([self._seed, epoch, place])
        return pad_rows([self._window(self._sequences[row], rng) for row in rows], self._pad, rows)

    def _window(self, sequence: Sequence[int], rng: np.random.Generator) -> Sequence[int]:
        start = int(rng.integers(max(len(sequence) - self._max_tokens, 0) + 1))
        return sequence[start : start + self._max_tokens]

    def _deal(self, epoch: int) -> list[tuple[int, ...]]:
        rng = np.random.default_rng([self._seed, epoch])
        order = np.lexsort((rng.random(len(self._lengths)), self._lengths))
        dealt: list[tuple[int, ...]] = []
        batch: list[int] = []
        for row in order.tolist():
            if batch and (
                (len(batch) + 1) * self._lengths[row] > self._size.n_tokens or len(batch) == self._size.n_rows
            ):
                dealt.append(tuple(batch))
                batch = []
            batch.append(row)
        dealt.append(tuple(batch))
        return [dealt[i] for i in rng.permutation(len(dealt))]


def pad_rows(sequences: Sequence[Sequence[int]], pad: int, rows: tuple[int, ...] = ()) -> Batch:
    """Put sequences into one batch."""
    width = max(len(sequence) for sequence in sequences)
    ids = torch.full((len(sequences), width), pad)  # (B, T)
    mask = torch.zeros((len(sequences), width), dtype=torch.bool)  # (B, T)
    for i, sequence in enumerate(sequences):
        ids[i, : len(sequence)] = torch.tensor(sequence)
        mask[i, : len(sequence)] = True
    return Batch(ids, mask, rows)
