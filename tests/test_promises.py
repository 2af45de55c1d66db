"""What was promised of chosen models is judged by what chance explains, of few questions too."""

import numpy as np
import pytest

from training.promises import Promise, promises
from training.routing import RoutingBench


def judged(right: np.ndarray, p_correct: float = 0.97, groups: np.ndarray | None = None) -> list[Promise]:
    """The promises of the better of two models, of which the same is forecast for every question."""
    n = len(right)
    cost = np.tile([1.0, 2.0], (n, 1))
    bench = RoutingBench(
        rows=np.arange(n),
        columns=np.arange(2),
        label=np.stack([right.astype(float), np.zeros(n)], axis=1),
        cost=cost,
        expected_cost=cost,
        train_accuracy=np.array([0.9, 0.1]),
    )
    return promises(bench, np.tile([p_correct, 0.1], (n, 1)), np.arange(n) if groups is None else groups)


def test_one_wrong_answer_breaks_no_promise() -> None:
    (argmax, *_, last) = judged(np.zeros(1))
    assert argmax.threshold is None
    assert last.threshold == 0.95
    assert last.n == 1
    assert last.right == 0
    assert last.ci95 == pytest.approx((0, 0.975))  # Clopper and Pearson's of none in one
    assert last.kept


def test_a_few_wrong_answers_in_a_row_break_one() -> None:
    (last,) = judged(np.zeros(15))[-1:]
    assert last.ci95 == pytest.approx((0, 0.2180), abs=1e-4)
    assert not last.kept


def test_near_duplicates_count_once() -> None:
    right = np.repeat([1.0, 0.0], 30)
    (last,) = judged(right, groups=np.repeat([0, 1], 30))[-1:]
    assert last.ci95 == pytest.approx((0.0126, 0.9874), abs=1e-4)  # of one in two


def test_the_interval_holds_the_share_whatever_the_groups() -> None:
    right = np.append(np.ones(1000), np.zeros(5))
    (last,) = judged(right, groups=np.maximum(np.arange(1005), 999))[-1:]
    assert last.ci95[0] <= last.right == pytest.approx(1000 / 1005)
    assert last.ci95[1] >= last.right
    assert last.ci95[1] - last.ci95[0] > 0.9  # as of one question: the others are nearly the same


def test_many_questions_are_judged_by_drawing_them_again() -> None:
    rng = np.random.default_rng(0)
    (kept,) = judged(rng.random(2000) < 0.97)[-1:]
    (broken,) = judged(rng.random(2000) < 0.85)[-1:]
    assert kept.kept
    assert kept.ci95[0] < kept.right < kept.ci95[1] < kept.ci95[0] + 0.02
    assert not broken.kept


def test_all_right_and_all_wrong_reach_the_ends() -> None:
    assert judged(np.ones(5))[-1].ci95 == pytest.approx((0.4782, 1), abs=1e-4)
    assert judged(np.zeros(5))[-1].ci95 == pytest.approx((0, 0.5218), abs=1e-4)
