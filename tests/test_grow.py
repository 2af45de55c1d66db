"""A forest as arrays says what the fitted one says, and grows where the targets move."""

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesRegressor

from router.forest import Forest
from training import grow as growing
from training.grow import grow


def drawn(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points whose third column decides the first target and whose last, a surface column, the second."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 6)).astype(np.float32)
    return points, np.stack([np.sign(points[:, 2]), points[:, 5] > 1], axis=1).astype(float)


def test_trees_find_what_decides() -> None:
    points, targets = drawn()
    forest = grow(points, 2, targets, np.eye(2), seed=0)
    new, truth = drawn(200, seed=1)
    assert np.square(forest(new) - truth).mean() < 0.7 * np.square(targets.mean(axis=0) - truth).mean()


def test_arrays_say_what_the_library_says(monkeypatch: pytest.MonkeyPatch) -> None:
    points, targets = drawn()
    residual = np.array([[1.0, 0.3], [0.3, 0.5]])
    fitted: list[ExtraTreesRegressor] = []

    class Kept(ExtraTreesRegressor):  # type: ignore[misc]
        def fit(self, *arguments: object) -> "Kept":
            fitted.append(self)
            super().fit(*arguments)
            return self

    monkeypatch.setattr(growing, "ExtraTreesRegressor", Kept)
    forest = grow(points, 2, targets, residual, seed=3)
    whitened = fitted[0].predict(points)
    assert forest(points) == pytest.approx(whitened @ np.linalg.cholesky(residual).T, abs=1e-5)
    assert forest(points[:1]) == pytest.approx(forest(points)[:1], abs=1e-6)


def test_a_forest_comes_back_from_its_tensors() -> None:
    points, targets = drawn()
    forest = grow(points, 2, targets, np.eye(2), seed=0)
    assert np.array_equal(Forest.from_tensors(forest.tensors())(points), forest(points))
    assert not Forest.nothing(2)(points).any()


def test_many_questions_are_drawn_for_each_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "QUESTIONS_PER_TREE", 100)
    points, targets = drawn()
    forest = grow(points, 2, targets, np.eye(2), seed=0)
    assert len(forest.feature) < 100 * 2 * 100 / growing.MIN_LEAF
    assert np.square(forest(points) - targets).mean() < 0.8 * targets.var(axis=0).mean()


def test_leaves_tell_the_mean_spread_of_what_lies_on_them() -> None:
    points, targets = drawn()
    spread = np.where(points[:, 2] > 0, 1.5, 0.5)
    forest = grow(points, 2, targets, np.eye(2), seed=0, spread=spread)
    told = forest(points)
    assert told.shape == (len(points), 3)
    assert np.array_equal(told[:, :2], grow(points, 2, targets, np.eye(2), seed=0)(points))  # no split looks at it
    assert told[:, 2].mean() == pytest.approx(spread.mean(), abs=0.02)
    assert np.corrcoef(told[:, 2], spread)[0, 1] > 0.9
    assert (told[:, 2] >= 0.5 - 1e-5).all()
    assert (told[:, 2] <= 1.5 + 1e-5).all()


def test_every_leaf_holds_a_spread_where_each_tree_drew_some_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "QUESTIONS_PER_TREE", 100)
    points, targets = drawn()
    forest = grow(points, 2, targets, np.eye(2), seed=0, spread=np.full(len(points), 0.7))
    far = np.random.default_rng(2).normal(scale=5, size=(300, 6)).astype(np.float32)
    assert forest(far)[:, 2] == pytest.approx(0.7, abs=1e-5)
