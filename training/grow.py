"""Grow the forest that `router.forest` serves: extremely randomized trees (Geurts et al. 2006), by scikit-learn."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from sklearn.ensemble import ExtraTreesRegressor

from router.forest import Forest, Singles
from training.chunks import each_chunk

if TYPE_CHECKING:
    from sklearn.tree._tree import Tree

Floats = NDArray[np.float64]

N_TREES = 64
N_WORD_COLUMNS = 64
MIN_LEAF = 3  # questions
MAX_DEPTH = 16
SHARE_OF_FEATURES = 0.3  # tried at each split
QUESTIONS_PER_TREE = 6000  # of more, each tree sees that many, drawn anew


def grow(
    points: Singles, n_surface: int, targets: Floats, residual: Floats, seed: int, spread: Floats | None = None
) -> Forest:
    """Fit trees from points (N, D), the last columns surface, to embeddings (N, K) that err with covariance (K, K).

    They split on surface and on the words' columns that vary most, by squared error in units of the residual.
    spread: of shape (N,), what leaves hold the mean of beside an embedding, though no split looks at it.
    """
    root = cholesky(residual, lower=True)
    words = points.shape[1] - n_surface
    chosen = np.append(
        np.sort(np.argsort(-points[:, :words].var(axis=0), kind="stable")[:N_WORD_COLUMNS]),
        np.arange(words, points.shape[1]),
    )
    points, targets = points[:, chosen], solve_triangular(root, targets.T, lower=True).T
    n = len(points)
    some = n > QUESTIONS_PER_TREE
    fitted = ExtraTreesRegressor(
        N_TREES,
        min_samples_leaf=MIN_LEAF,
        max_depth=MAX_DEPTH,
        max_features=SHARE_OF_FEATURES,
        bootstrap=some,
        max_samples=QUESTIONS_PER_TREE if some else None,
        n_jobs=-1 if some else None,  # the same trees on any number of threads
        random_state=seed,
    ).fit(points, targets if targets.shape[1] > 1 else targets[:, 0])
    trees = [one.tree_ for one in fitted.estimators_]
    start = np.cumsum([0] + [tree.node_count for tree in trees])[:-1]
    left, right = ([getattr(tree, side) for tree in trees] for side in ("children_left", "children_right"))
    node = [np.arange(tree.node_count) for tree in trees]
    value = np.concatenate([tree.value[:, :, 0] for tree in trees]) @ root.T
    if spread is not None:
        by_tree = each_chunk(len(trees), lambda one: _mean_by_leaf(trees[one.start], points, spread), chunk=1)
        value = np.column_stack([value, np.concatenate(by_tree)])
    return Forest(
        root=start.astype(np.int32),
        feature=chosen[np.concatenate([np.maximum(tree.feature, 0) for tree in trees])].astype(np.int32),
        threshold=_round_down(np.concatenate([tree.threshold for tree in trees])),
        child=np.stack([_joined(left, node, start), _joined(right, node, start)], axis=1).ravel(),
        value=value.astype(np.float32),
        depth=max(tree.max_depth for tree in trees),
    )


def _mean_by_leaf(tree: "Tree", points: Singles, values: Floats) -> Floats:
    """Average what lies on each leaf of a tree, (n_nodes,); inner nodes have 0."""
    leaf = tree.apply(points)
    count = np.bincount(leaf, minlength=tree.node_count)
    mean: Floats = np.bincount(leaf, weights=values, minlength=tree.node_count) / np.maximum(count, 1)
    return mean


def _joined(
    child: list[NDArray[np.int64]], node: list[NDArray[np.int64]], start: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Number children over all trees; a leaf, which has none, is its own."""
    parts = [np.where(c < 0, own, c) + offset for c, own, offset in zip(child, node, start.tolist(), strict=True)]
    return np.concatenate(parts).astype(np.int32)


def _round_down(threshold: Floats) -> Singles:
    """The largest single that is no larger: singles compare with it as with the double."""
    single = threshold.astype(np.float32)
    return np.where(single > threshold, np.nextafter(single, np.float32(-np.inf)), single)
