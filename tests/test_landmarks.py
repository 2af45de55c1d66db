"""Where the text side's landmarks lie among the questions."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.process import find_landmarks

Singles = NDArray[np.float32]


def squared_distances(points: Singles, landmarks: Singles) -> Singles:
    """Of each point to its nearest landmark."""
    nearest: Singles = np.square(points[:, None] - landmarks).sum(axis=2).min(axis=1)
    return nearest


@pytest.mark.parametrize("n_questions", [150, 4000], ids=["all say where", "some say where"])
def test_landmarks_lie_nearer_to_questions_than_questions_drawn(n_questions: int) -> None:
    points = np.random.default_rng(0).normal(size=(n_questions, 6)).astype(np.float32)
    landmarks = find_landmarks(points, 100, seed=0)
    drawn = points[np.random.default_rng(0).choice(n_questions, 100, replace=False)]
    assert landmarks.shape == (100, 6)
    assert landmarks.dtype == np.float32
    others = ~(points[:, None] == drawn).all(axis=2).any(axis=1)
    assert squared_distances(points[others], landmarks).mean() < 0.95 * squared_distances(points[others], drawn).mean()
    assert np.array_equal(find_landmarks(points, 100, seed=0), landmarks)


def test_equal_questions_leave_landmarks_where_they_are() -> None:
    places = np.array([[0, 0], [1, 0], [0, 3]], dtype=np.float32)
    landmarks = find_landmarks(np.repeat(places, 50, axis=0), 20, seed=1)
    assert squared_distances(landmarks, places).max() == 0
    assert squared_distances(places, landmarks).max() == 0
