"""A limit on errors is kept on planted truths, and what is no evidence is not counted as any."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.abstention import Abstention
from training.abstention import CONFIDENCE, calibrate_abstention

Floats = NDArray[np.float64]

N_MODELS = 4
N_LOGS = 200


@dataclass(frozen=True)
class Log:
    """Held-out forecasts and labels, (n_questions, n_models), and groups of near-duplicates."""

    p: Floats
    label: NDArray[np.float32]
    groups: NDArray[np.int64]

    @classmethod
    def draw(cls, rng: np.random.Generator, n_groups: int, n_copies: int = 1) -> "Log":
        """Models whose forecasts are too high: P(correct) is p squared; copies of a question fare alike."""
        p = rng.uniform(0.2, 1, (n_groups, N_MODELS))
        label = (rng.random(p.shape) < p**2).astype(np.float32)
        copied = np.repeat(np.arange(n_groups), n_copies)
        return cls(p[copied], label[copied], copied)

    def calibrate(self, seed: int = 0) -> Abstention:
        return calibrate_abstention(self.p, self.label, self.groups, seed)


SUREST_FIRST = -np.sort(-np.random.default_rng(99).uniform(0.2, 1, (200_000, N_MODELS)).max(axis=1))
ERROR_OF_SUREST = np.cumsum(1 - SUREST_FIRST**2) / np.arange(1, len(SUREST_FIRST) + 1)


def error_above(threshold: float | None) -> float:
    """How often the choices that are answered are wrong in truth; 0 where nothing is answered."""
    if threshold is None:
        return 0.0
    return float(ERROR_OF_SUREST[np.searchsorted(-SUREST_FIRST, -threshold, side="right") - 1])


@pytest.mark.parametrize("max_error", [0.1, 0.2])
def test_over_many_logs_the_limit_is_kept_as_often_as_it_says(max_error: float) -> None:
    assert error_above(0.0) > 0.25  # or there would be nothing to abstain from
    rng = np.random.default_rng(0)
    logs = [Log.draw(rng, 2000) for _ in range(N_LOGS)]
    errors = np.array([error_above(log.calibrate().threshold(max_error)) for log in logs])
    chance = 2 * np.sqrt(CONFIDENCE * (1 - CONFIDENCE) / N_LOGS)
    assert (errors > max_error).mean() <= 1 - CONFIDENCE + chance
    assert errors.mean() <= max_error
    assert errors.mean() > 0.7 * max_error  # and no more is refused than has to be


def test_near_duplicates_are_one_piece_of_evidence() -> None:
    rng = np.random.default_rng(1)
    logs = [Log.draw(rng, 120, n_copies=20) for _ in range(N_LOGS)]
    by_group = [log.calibrate() for log in logs]
    by_question = [calibrate_abstention(log.p, log.label, np.arange(len(log.p))) for log in logs]
    broken = [
        np.mean([error_above(one.threshold(0.2)) > 0.2 for one in several]) for several in (by_group, by_question)
    ]
    assert broken[0] <= 1 - CONFIDENCE + 2 * np.sqrt(CONFIDENCE * (1 - CONFIDENCE) / N_LOGS)
    assert broken[1] > 0.25


def test_only_the_chosen_model_counts() -> None:
    log = Log.draw(np.random.default_rng(2), 300)
    others = np.arange(N_MODELS) != log.p.argmax(axis=1)[:, None]
    told = np.where(others, np.float32(0), log.label)
    assert np.array_equal(calibrate_abstention(log.p, told, log.groups).bound, log.calibrate().bound)


def test_a_choice_without_an_outcome_is_left_out() -> None:
    log = Log.draw(np.random.default_rng(3), 400)
    unseen = np.arange(400) % 2 == 0
    label = np.where(unseen[:, None], np.float32(np.nan), log.label)
    half = Log(log.p[~unseen], log.label[~unseen], log.groups[~unseen]).calibrate()
    assert np.array_equal(calibrate_abstention(log.p, label, log.groups).bound, half.bound)


@given(st.integers(0, 10_000), st.integers(0, 200), st.floats(0, 1), st.floats(0, 1))
def test_who_allows_more_errors_is_answered_more(seed: int, n_groups: int, one: float, other: float) -> None:
    calibrated = Log.draw(np.random.default_rng(seed), n_groups).calibrate()
    low, high = sorted((one, other))
    strict, lax = calibrated.threshold(low), calibrated.threshold(high)
    if strict is not None:
        assert lax is not None
        assert lax <= strict


def test_nothing_is_answered_where_nothing_can_be_promised() -> None:
    log = Log.draw(np.random.default_rng(4), 2000)
    coin = (np.random.default_rng(5).random(log.label.shape) < 0.5).astype(np.float32)
    assert calibrate_abstention(log.p, coin, log.groups).threshold(0.3) is None
    assert log.calibrate().threshold(0.0) is None
    assert log.calibrate().threshold(1.0) == 0.0
    unanswered = np.full_like(log.label, np.nan)
    assert calibrate_abstention(log.p, unanswered, log.groups).threshold(0.9) is None


def test_a_few_right_answers_promise_little() -> None:
    p = np.linspace(0.6, 0.9, 10)[:, None]
    ten = calibrate_abstention(p, np.ones((10, 1), np.float32), np.arange(10))
    assert ten.bound == pytest.approx([1 - 0.1 ** (1 / 10)])  # what leaves ten right in a row a chance of one in ten
    assert ten.threshold(0.2) is None
    assert ten.threshold(0.21) == pytest.approx(0.6)


def test_those_equally_sure_are_answered_together() -> None:
    p = np.repeat([0.9, 0.8], 100)[:, None]
    label = np.repeat([1.0, 0.0], 100)[:, None].astype(np.float32)
    calibrated = calibrate_abstention(p, label, np.arange(200))
    assert calibrated.p_correct.tolist() == [0.9, 0.8]
    assert calibrated.share.tolist() == [0.5, 1.0]
    assert calibrated.error.tolist() == [0.0, 0.5]


def test_graded_outcomes_are_as_wrong_as_they_say() -> None:
    graded = calibrate_abstention(np.full((4000, 1), 0.7), np.full((4000, 1), 0.75, np.float32), np.arange(4000))
    assert graded.error[-1] == pytest.approx(0.25, abs=0.02)


def test_it_comes_back_from_its_arrays() -> None:
    calibrated = Log.draw(np.random.default_rng(6), 300).calibrate()
    back = Abstention.from_tensors(calibrated.tensors())
    assert [back.threshold(x) for x in (0.05, 0.2, 0.3)] == [calibrated.threshold(x) for x in (0.05, 0.2, 0.3)]
