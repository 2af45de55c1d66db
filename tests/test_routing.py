"""Routing on grids small enough to count by hand."""

from dataclasses import replace

import numpy as np
import pytest

from tests.planted import planted_log
from training.dataset import Correctness
from training.routing import RoutingBench, area_under_curve, cost_to_reach

NAN = np.nan


def data(label: list[list[float]], split: list[str], prices: list[list[float]]) -> Correctness:
    n, m = len(label), len(label[0])
    return Correctness(
        label=np.array(label, dtype=np.float32),
        output_tokens=np.full((n, m), 1e6, dtype=np.float32),
        prompts=("",) * n,
        benchmarks=np.array(["b"] * n),
        keys=np.arange(n),
        groups=np.arange(n),
        split=np.array(split),
        model_names=tuple(f"m{i}" for i in range(m)),
        prices=np.array(prices, dtype=np.float64),
    )


def test_the_pool_is_fixed_on_train_and_counted_where_all_of_it_answered() -> None:
    bench = RoutingBench.from_data(
        data(
            [[1, 0, NAN], [1, 1, 1], [0, 1, 1], [1, NAN, 1], [NAN, NAN, 0]],
            ["train", "train", "test", "test", "test"],
            [[1, 1], [2, 2], [3, 3]],
        )
    )
    assert bench.columns.tolist() == [0, 1]  # the third answered half of train
    assert bench.rows.tolist() == [2]
    assert bench.best_single == 0


def test_ties_go_to_the_cheaper_model_and_an_unknown_price_counts_as_dearest() -> None:
    bench = RoutingBench.from_data(data([[1, 1, 1], [1, 1, 1]], ["train", "test"], [[NAN, NAN], [5, 5], [2, 2]]))
    assert bench.best_single == 2
    assert bench.choose(np.full((2, 3), 0.7)).tolist() == [2]
    assert bench.choose(np.array([[0.7, 0.6, 0.6]] * 2)).tolist() == [0]
    assert bench.priced().columns.tolist() == [1, 2]


def test_an_absent_answer_neither_helps_nor_hurts() -> None:
    truth = planted_log(seed=3)
    full = Correctness.from_log(truth.log)
    rng = np.random.default_rng(0)
    test = full.part("test")
    hidden = full.label.copy()
    hidden[test[: len(test) // 2], 0] = NAN
    bench = RoutingBench.from_data(replace(full, label=hidden))
    assert set(bench.rows.tolist()) == set(test[len(test) // 2 :].tolist())
    p = rng.random(full.label.shape)
    assert bench.right(bench.choose(p)).mean() == pytest.approx(
        full.label[bench.rows, p[bench.rows].argmax(axis=1)].mean()
    )


def test_the_curve_runs_from_the_best_model_to_the_cheapest() -> None:
    bench = RoutingBench.from_data(data([[1, 0], [0, 1], [1, 1]], ["train", "test", "test"], [[9, 9], [1, 1]]))
    cost, quality = bench.curve(np.array([[0.9, 0.1]] * 3))
    assert (cost[0], quality[0]) == (9.0, 0.5)
    assert (cost[-1], quality[-1]) == (1.0, 1.0)


def test_area_and_cost_follow_the_hull() -> None:
    cost, quality = np.array([1.0, 2.0, 3.0, 3.0]), np.array([0.0, 0.2, 1.0, 0.4])
    assert area_under_curve(cost, quality, 1.0, 3.0) == pytest.approx(0.5)  # (2, .2) lies under the chord
    assert area_under_curve(cost, quality, 1.0, 5.0) == pytest.approx(0.75, abs=1e-3)  # more money buys nothing
    assert cost_to_reach(cost, quality, 0.5) == pytest.approx(2.0)
    assert cost_to_reach(cost, quality, 1.5) is None


def test_choices_see_what_is_expected_and_what_was_spent_is_counted() -> None:
    logged = data([[1, 1], [1, 1]], ["train", "test"], [[1, 1], [1, 1]])
    spent = replace(logged, output_tokens=np.array([[10, 10], [500, 100]], dtype=np.float32))
    bench = RoutingBench.from_data(spent, tokens=np.array([[1.0, 1.0], [20.0, 30.0]]))
    p = np.full((2, 2), 0.5)
    assert bench.choose(p).tolist() == [0]
    cost, _ = bench.curve(p)
    assert cost[0] == pytest.approx(500 / 1e6)
