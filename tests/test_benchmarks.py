"""What the benchmarks compute besides running: nested parts, interpolation, broken logs, and the leakage scan."""

from dataclasses import replace

import numpy as np
import pytest

from router.encoder.joined import JoinedEncoder
from tests.benchmarks.bench_controls import leakage, permuted_across_questions, permuted_within_questions
from tests.benchmarks.bench_learning_curves import RIVALS, points, saving
from tests.benchmarks.cross_fitted import Forecasts, beside
from tests.benchmarks.near_duplicates import Pairs
from tests.benchmarks.paired import TestLosses
from tests.planted import planted_log
from training.dataset import Correctness
from training.evaluate import DEFAULT

DATA = Correctness.from_log(planted_log(300, 4, observed=0.8, seed=5).log)


def test_larger_parts_hold_the_smaller_and_all_test_questions() -> None:
    parts = list(points(DATA, (50, 100), (0.1, 0.5, 1.0), seed=0))
    test = set(DATA.keys[DATA.part("test")])
    for curve in ("questions", "cells"):
        seen: set[tuple[int, int]] = set()
        for point in (part for part in parts if part.curve == curve):
            learned = np.flatnonzero(point.data.split != "test")
            row, column = np.nonzero(point.data.observed[learned])
            cells = set(zip(point.data.keys[learned][row].tolist(), column.tolist(), strict=True))
            assert seen < cells
            assert test <= set(point.data.keys)
            assert point.data.observed[learned].any(axis=1).all()
            seen = cells
    assert [int((part.data.split != "test").sum()) for part in parts[:2]] == [50, 100]
    assert seen == set(zip(*(a.tolist() for a in _learned_cells()), strict=True))


def _learned_cells() -> tuple[np.ndarray, np.ndarray]:
    row, column = np.nonzero(DATA.observed & (DATA.split != "test")[:, None])
    return DATA.keys[row], column


def test_near_duplicates_enter_a_curve_one_after_the_other() -> None:
    data = replace(DATA, groups=np.arange(DATA.n_questions) // 5)
    part = next(points(data, (50,), (), seed=0)).data
    learned = part.groups[part.split != "test"]
    whole = [np.sum(data.groups[data.split != "test"] == group) == np.sum(learned == group) for group in set(learned)]
    assert len(whole) - sum(whole) <= 1  # only the last group drawn may be cut


def test_saving_is_interpolated_on_the_logarithm_of_the_number_of_questions() -> None:
    def curve(*nll: float) -> list[dict[str, object]]:
        other = dict.fromkeys(RIVALS, 0.55)
        return [
            {"size": size, "nll": {DEFAULT: one, **other}, "best_other": RIVALS[0]}
            for size, one in zip((250, 500, 1000, 2000), nll, strict=True)
        ]

    halfway = saving(curve(0.60, 0.56, 0.54, 0.53))
    assert halfway is not None
    assert halfway["questions_needed"] == pytest.approx(500 * np.sqrt(2))
    assert halfway["factor"] == pytest.approx(2000 / (500 * np.sqrt(2)))
    already = saving(curve(0.54, 0.53, 0.52, 0.51))
    assert already is not None
    assert (already["factor"], already["at_least"]) == (pytest.approx(8), True)
    never = saving(curve(0.60, 0.59, 0.58, 0.57))
    assert never is not None
    assert never["factor"] is None


def test_a_difference_is_paired_and_holds_its_estimate() -> None:
    losses = TestLosses.of(DATA)
    p = np.full((len(losses.rows), DATA.n_models), 0.6)
    ours, theirs = losses.by_question(p), losses.by_question(1 - p)
    found = losses.difference(ours, theirs)
    assert found.estimate == pytest.approx(losses.mean(ours) - losses.mean(theirs))
    assert found.low <= found.estimate <= found.high
    same = losses.difference(ours, ours)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)


def test_permutations_keep_what_they_should_and_move_the_rest() -> None:
    across = permuted_across_questions(DATA, np.random.default_rng(0))
    test, learned = DATA.part("test"), np.flatnonzero(DATA.split != "test")
    assert np.array_equal(across[test], DATA.label[test], equal_nan=True)
    assert not np.array_equal(across[learned], DATA.label[learned], equal_nan=True)
    rows = [sorted(map(repr, grid[learned].tolist())) for grid in (across, DATA.label)]
    assert rows[0] == rows[1]  # whole rows, all models together
    within = permuted_within_questions(DATA.label, np.random.default_rng(0))
    assert np.array_equal(np.isnan(within), np.isnan(DATA.label))
    assert np.array_equal(np.nansum(within, axis=1), np.nansum(DATA.label, axis=1))
    assert not np.array_equal(within, DATA.label, equal_nan=True)


def test_a_copy_of_a_train_question_in_test_is_found() -> None:
    prompts = [f"what is the {i}th of {i * 7} letters in word {i * 13} please" for i in range(DATA.n_questions)]
    clean = leakage(replace(DATA, prompts=tuple(prompts)))
    assert (clean["shared_groups"], clean["equal_prompts"]) == (0, 0)
    prompts[DATA.part("test")[3]] = prompts[DATA.part("train")[0]]
    leaked = leakage(replace(DATA, prompts=tuple(prompts)))
    assert (leaked["shared_groups"], leaked["equal_prompts"], leaked["above"]) == (1, 1, 1)
    assert leaked["nearest"]["largest"] == 1.0


def test_random_pairs_lie_across_groups_and_within_a_part() -> None:
    groups, parts = np.repeat(np.arange(30), 2), np.repeat([0, 1], 30)
    pairs = Pairs.draw(groups, parts, n_apart=5)
    assert pairs.alike.sum() == 30
    assert len(pairs.alike) == 180
    assert np.array_equal(groups[pairs.first] == groups[pairs.second], pairs.alike)
    assert np.array_equal(parts[pairs.first], parts[pairs.second])
    vectors = np.eye(30, dtype=np.float32)[groups]
    cosines = pairs.cosines(vectors)
    assert pairs.average_precision(cosines) == 1
    assert (pairs.resampled(cosines, groups) == 1).all()
    assert pairs.average_precision(-cosines) < 0.2


def test_vectors_lie_beside_one_another_as_the_joined_encoder_lays_them() -> None:
    encoder = JoinedEncoder.fit(DATA.prompts)
    words, states = (part.encoder.encode(DATA.prompts) for part in encoder.parts)
    joined = beside(words, states, encoder.parts[1].share)
    assert np.allclose(joined, encoder.encode(DATA.prompts), atol=1e-5)  # whose centres are these prompts' means


def test_a_forecast_that_knows_is_told_from_one_that_does_not() -> None:
    planted = planted_log(300, 4, seed=5)
    data = Correctness.from_log(planted.log)
    table = Forecasts(data, {"nothing": np.full(planted.p.shape, 0.5), "truth": planted.p}).table("nothing")
    (line,) = (line for line in table.splitlines() if line.startswith("truth"))
    nll, _, difference, low, high = (float(part.strip("()")) for part in line.split()[1:7] if part != "to")
    assert difference == pytest.approx(nll - np.log(2), abs=2e-4)
    assert low < difference < high < -0.2
