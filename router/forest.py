"""A forest of regression trees as arrays: what a fitted forest knows, without the library that fitted it.

All trees' nodes lie in one table, and every prompt steps through every tree at once; a leaf points to itself, and who
stands on one is soon left out.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]
Indices = NDArray[np.int32]

BLOCK = 2048  # prompts that step through the trees together: what fits a cache
FIRST_STEPS = 6  # after them about half stand on leaves, and from then on only the others go on


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
                each = self.value.take(self._leaves(block), axis=0)  # (block, n_trees, K)
                np.matmul(self._share_of_each, each, out=values[start : start + BLOCK])
        return values

    def _leaves(self, points: Singles) -> NDArray[np.intp]:
        """The leaf of each point in each tree, (N, n_trees)."""
        steps = self._steps
        n_trees = len(steps.root)
        leaf = np.tile(steps.root, len(points))
        flat = np.ascontiguousarray(points).ravel()
        row = np.repeat(np.arange(0, flat.size, points.shape[1]), n_trees)  # where each one's point begins
        node, place = leaf.copy(), np.arange(len(leaf))
        for step in range(self.depth):
            if step >= FIRST_STEPS and step % 2 == 0:
                leaf[place] = node
                (moving,) = (steps.child.take(node) != node).nonzero()
                node, row, place = node[moving], row[moving], place[moving]
            node += flat.take(steps.feature.take(node) + row) > steps.threshold.take(node)
            node = steps.child.take(node)
        leaf[place] = node
        return leaf.reshape(-1, n_trees) >> 1

    @cached_property
    def _share_of_each(self) -> Singles:
        return np.full(len(self.root), 1 / max(len(self.root), 1), dtype=np.float32)

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
