"""A similarity check without labels: pairs of near-duplicate questions, which lie close, among random pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from router.encoder.base import Vectors
from training.dataset import Correctness
from training.metrics import bootstrap_weights

Rows = NDArray[np.int64]

MOST_PAIRS = 2_000  # of each kind
MOST_OF_GROUP = 3  # pairs of one group: large groups are templates
N_RESAMPLES = 500


@dataclass(frozen=True)
class Pairs:
    """Row numbers of two questions, and whether they are near-duplicates; (n_pairs,) each."""

    first: Rows
    second: Rows
    alike: NDArray[np.bool_]

    @classmethod
    def draw(cls, groups: Rows, parts: Rows | None = None, n_apart: int = 1, seed: int = 0) -> "Pairs":
        """Draw pairs of one group, and `n_apart` times as many across groups, within a part where parts are given."""
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(groups))
        found = [pair for group in np.unique(groups) for pair in _within(order[groups[order] == group])]
        alike = [found[i] for i in rng.permutation(len(found))[:MOST_PAIRS]]
        part = np.zeros_like(groups) if parts is None else parts
        apart: list[tuple[int, int]] = []
        while len(apart) < n_apart * len(alike):
            a, b = (int(i) for i in rng.integers(len(groups), size=2))
            if groups[a] != groups[b] and part[a] == part[b]:
                apart.append((a, b))
        both = np.array([*alike, *apart], dtype=np.int64).reshape(-1, 2)
        return cls(both[:, 0], both[:, 1], np.arange(len(both)) < len(alike))

    def cosines(self, vectors: Vectors) -> NDArray[np.float64]:
        """The cosine of each pair, of vectors (n_questions, D)."""
        unit = unit_length(vectors)
        cosines: NDArray[np.float64] = (unit[self.first] * unit[self.second]).sum(axis=1, dtype=np.float64)
        return cosines

    def average_precision(self, cosines: NDArray[np.float64]) -> float:
        """How well cosines tell near-duplicates from the others."""
        return float(average_precision_score(self.alike, cosines))

    def resampled(self, cosines: NDArray[np.float64], groups: Rows) -> NDArray[np.float64]:
        """The same in bootstrap resamples of near-duplicate groups, paired over encoders, (n_resamples,)."""
        drawn = bootstrap_weights(groups, N_RESAMPLES, seed=0)
        # a pair within a group comes with it; one across groups with both
        weights = np.where(self.alike, drawn[:, self.first], drawn[:, self.first] * drawn[:, self.second])
        return np.array([average_precision_score(self.alike, cosines, sample_weight=weight) for weight in weights])


def draw_sentences(data: Correctness) -> dict[str, list[str] | list[int]]:
    """Pairs of prompts as mteb reads them; as many near-duplicates as others."""
    pairs = Pairs.draw(data.groups)

    def prompts(rows: Rows) -> list[str]:
        return [data.prompts[row] for row in rows]

    return {
        "sentence1": prompts(pairs.first),
        "sentence2": prompts(pairs.second),
        "labels": pairs.alike.astype(int).tolist(),
    }


def unit_length(vectors: Vectors) -> Vectors:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)
    return unit


def _within(rows: Sequence[int] | Rows) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in pairwise(rows)][:MOST_OF_GROUP]
