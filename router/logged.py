"""What an artifact knows of the questions it was fitted on: each one's embedding, learned from its text and outcomes.

Serving never reads it. Folding in a model does, and so does whatever forecasts a benchmark of logged questions.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LoggedQuestions:
    """The posteriors of logged questions' embeddings.

    keys: of shape (n_questions,), the questions' ids in SQL, ascending; mean: of shape (n_questions, K);
    packed: of shape (n_questions, K * (K + 1) / 2), each covariance's lower triangle, row by row.
    """

    keys: NDArray[np.int64]
    mean: NDArray[np.float32]
    packed: NDArray[np.float32]

    def __post_init__(self) -> None:
        n, dim = self.mean.shape
        if self.keys.shape != (n,) or self.packed.shape != (n, dim * (dim + 1) // 2):
            raise ValueError(f"keys {self.keys.shape}, packed {self.packed.shape} for means {self.mean.shape}")
        if np.any(np.diff(self.keys) <= 0):
            raise ValueError("keys must ascend, each once")

    @classmethod
    def of(
        cls, keys: NDArray[np.int64], mean: NDArray[np.floating[Any]], covariance: NDArray[np.floating[Any]]
    ) -> Self:
        """Pack means (N, K) and covariances (N, K, K), in any order of the keys."""
        order = np.argsort(keys)
        lower = np.tril_indices(mean.shape[1])
        packed = covariance[:, lower[0], lower[1]][order]
        return cls(keys[order], mean[order].astype(np.float32), packed.astype(np.float32))

    def covariance(self) -> NDArray[np.float64]:
        """Unpack the covariances, of shape (n_questions, K, K)."""
        n, dim = self.mean.shape
        rows, columns = np.tril_indices(dim)
        full = np.zeros((n, dim, dim))
        full[:, rows, columns] = self.packed
        full[:, columns, rows] = self.packed
        return full

    def rows_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Find questions by their ids: row numbers, -1 where one was not logged."""
        if not len(self.keys):
            return np.full(len(keys), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, at, -1).astype(np.int64)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Name every array, for `from_tensors` to bring back to the bit."""
        return {name: np.ascontiguousarray(getattr(self, name)) for name in ("keys", "mean", "packed")}

    @classmethod
    def from_tensors(cls, tensors: dict[str, NDArray[Any]]) -> Self:
        return cls(tensors["keys"], tensors["mean"], tensors["packed"])
