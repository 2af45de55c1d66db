"""Errors of expected lengths and costs, counted by hand."""

from dataclasses import replace

import numpy as np
import pytest

from tests.test_routing import data
from training.cost_error import cost_error
from training.dataset import Correctness

NAN = np.nan
ONCE = np.ones((2, 2))


def log(tokens: list[list[float]]) -> Correctness:
    plain = data([[1, 1], [1, 1], [1, 1]], ["train", "test", "test"], [[1, 1], [NAN, NAN]])
    return replace(plain, output_tokens=np.array(tokens, dtype=np.float32), estimated_tokens=frozenset({"m1"}))


def test_errors_are_counted_on_the_answers_whose_length_is_known() -> None:
    figures = cost_error(log([[20, 20], [10, NAN], [40, 20]]), np.array([[0, 0], [10.0, 99], [20, 40]]), ONCE)
    assert figures is not None
    assert (figures["n_answers"], figures["n_models"], figures["n_models_estimated_from_characters"]) == (3, 2, 1)
    assert figures["tokens"]["median_absolute_log_error"] == pytest.approx(np.log(2))
    assert figures["tokens"]["relative_error"] == pytest.approx((0 + 20 + 20) / 70)
    assert figures["tokens"]["total_error"] == pytest.approx(0)
    assert figures["tokens"]["model_mean"]["relative_error"] == pytest.approx((10 + 20 + 0) / 70)
    assert figures["n_priced_models"] == 1
    assert figures["cost"]["relative_error"] == pytest.approx(20 / 50)
    assert figures["tokens"]["minus_model_mean_ci95"]["relative_error"] == pytest.approx((10 / 70, 10 / 70))


def test_without_a_logged_length_there_is_nothing_to_judge() -> None:
    assert cost_error(log([[20, 20], [NAN, NAN], [NAN, NAN]]), np.ones((3, 2)), ONCE) is None
