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
