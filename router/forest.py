"""A forest of regression trees as arrays: what a fitted forest knows, without the library that fitted it.

All trees' nodes lie in one table; a leaf points to itself, so that every prompt takes the same number of steps through
every tree at once.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]
Indices = NDArray[np.int32]

BLOCK = 2048  # prompts that step through the trees together: what fits a cache


@dataclass(frozen=True)
class _Steps:
    """The same trees, ready to step through: nodes count by twos, so that one index finds a node and both children."""

    root: NDArray[np.intp]
    feature: NDArray[np.intp]
    threshold: Singles
    child: NDArray[np.intp]


@dataclass(frozen=True)
class Forest:
    """Trees from points (N, D) to values (N, K), averaged.

    root: of shape (n_trees,); feature, threshold: of shape (n_nodes,), with child of shape (2 n_nodes,): a point whose
    feature is at most node i's threshold goes on to child[2 i], another to child[2 i + 1]; value: of shape
    (n_nodes, K), read at leaves; depth: steps from a root to the deepest leaf.
    """

    root: Indices
    feature: Indices
    threshold: Singles
    child: Indices
    value: Singles
    depth: int

    @classmethod
    def nothing(cls, dim: int) -> Self:
        """A forest without trees, for K = `dim`: it says 0."""
        none = np.zeros(0, dtype=np.int32)
        return cls(none, none, none.astype(np.float32), none, np.zeros((0, dim), dtype=np.float32), 0)

    def __call__(self, points: Singles) -> Singles:
        """Average the trees' values at points of shape (N, D), of shape (N, K)."""
        values = np.zeros((len(points), self.value.shape[1]), dtype=np.float32)
        if len(self.root):
            for start in range(0, len(points), BLOCK):
                block = points[start : start + BLOCK]
                values[start : start + BLOCK] = self.value.take(self._leaves(block), axis=0).mean(axis=1)
        return values

    def _leaves(self, points: Singles) -> NDArray[np.intp]:
        """The leaf of each point in each tree, (N, n_trees)."""
        steps = self._steps
        node = np.repeat(steps.root[None], len(points), axis=0)
        flat = np.ascontiguousarray(points).ravel()
        row = np.arange(0, flat.size, points.shape[1])[:, None]  # where each point begins
        for _ in range(self.depth):
            feature = steps.feature.take(node)
            if len(points) > 1:
                feature += row
            node += flat.take(feature) > steps.threshold.take(node)
            node = steps.child.take(node)
        return node >> 1

    @cached_property
    def _steps(self) -> "_Steps":
        wide = np.repeat(self.feature.astype(np.intp), 2), np.repeat(self.threshold, 2)
        return _Steps(2 * self.root.astype(np.intp), *wide, 2 * self.child.astype(np.intp))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Name every array, for `from_tensors` to bring back to the bit."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "depth"}
        return arrays | {"depth": np.array([self.depth], dtype=np.int32)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, NDArray[Any]]) -> Self:
        """Bring a forest back from its arrays."""
        arrays = dict(tensors)
        depth = int(arrays.pop("depth")[0])
        return cls(**arrays, depth=depth)
