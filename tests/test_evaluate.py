"""The comparison: its JSON, its honesty, and the controls that would show a leak."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from router.surface import describe
from tests.planted import planted_log
from tests.test_fit import vectors_of
from training.dataset import Correctness
from training.errors import TrainingError
from training.evaluate import DEFAULT, QUICK_BASELINES, compare, evaluate_folder, hide_test, judge
from training.table import comparison_table

TRUTH = planted_log(700, 5, seed=1)
DATA, VECTORS = Correctness.from_log(TRUTH.log), vectors_of(TRUTH)
COMPARISON = compare(DATA, VECTORS, methods=QUICK_BASELINES)
FIGURES = COMPARISON.figures


def test_the_object_has_the_promised_shape_and_is_plain_json() -> None:
    again = json.loads(json.dumps(FIGURES, allow_nan=False))
    assert set(again) >= {"dataset", "protocol", "methods", "references", "default"}
    assert set(again["references"]) == {"best_single", "oracle", "random"}
    for method in again["methods"].values():
        assert set(method) >= {
            "accuracy", "auc", "auc_within_question", "nll", "brier", "ece", "routing_accuracy", "fit_seconds"
        }  # fmt: skip
        assert set(method["ci95"]) == {"accuracy", "auc", "auc_within_question", "nll", "routing_accuracy"}
        assert set(method["routing"]) >= {"n_models", "n_questions", "gap_closed", "cost_at_best_single", "aiq"}


def test_reading_prompts_beats_every_baseline_that_does_not_where_prompts_matter() -> None:
    methods = FIGURES["methods"]
    assert methods[DEFAULT]["nll"] < methods["model_mean"]["nll"] - 0.1
    assert methods[DEFAULT]["routing_accuracy"] > FIGURES["references"]["best_single"] + 0.1
    low, high = methods["model_mean"]["default_minus_this_ci95"]["nll"]
    assert low < high < 0


def test_references_bound_what_routing_can_reach() -> None:
    references = FIGURES["references"]
    assert references["random"] < references["best_single"] < references["oracle"] <= 1


def test_intervals_hold_their_estimate() -> None:
    for method in FIGURES["methods"].values():
        for measure, (low, high) in method["ci95"].items():
            assert low <= method[measure] <= high


def test_where_every_answer_was_right_there_is_no_auc_and_the_object_is_plain_json() -> None:
    right = replace(DATA, label=np.ones_like(DATA.label))
    figures = judge(right, {DEFAULT: np.full(DATA.label.shape, 0.9)}, {DEFAULT: 0.0})
    json.dumps(figures, allow_nan=False)
    assert figures["methods"][DEFAULT]["auc"] is None
    assert set(figures["methods"][DEFAULT]["ci95"]) == {"accuracy", "nll", "routing_accuracy"}


@pytest.mark.parametrize("prices", [np.zeros((5, 2)), np.array([[0, 0]] * 4 + [[1, 1]])])
def test_a_free_best_single_model_leaves_no_share_of_its_cost(prices: NDArray[np.float64]) -> None:
    free = replace(DATA, prices=prices, label=np.where(np.arange(5) == 0, np.float32(1), DATA.label))
    routing = judge(free, {DEFAULT: np.full(DATA.label.shape, 0.9)}, {DEFAULT: 0.0})["methods"][DEFAULT]["routing"]
    assert routing["cost_at_best_single"] is None
    assert routing["aiq"] == pytest.approx(1)


def test_hidden_test_labels_stay_hidden() -> None:
    hidden = hide_test(DATA)
    test = DATA.split == "test"
    assert np.isnan(hidden.label[test]).all()
    assert np.isnan(hidden.output_tokens[test]).all()
    assert np.array_equal(hidden.label[~test], DATA.label[~test], equal_nan=True)


def test_control_random_vectors_give_no_more_than_the_model_mean() -> None:
    noise = np.random.default_rng(0).normal(size=(DATA.n_questions, 16)).astype(np.float32)
    alike = replace(DATA, prompts=("the same surface",) * DATA.n_questions)
    methods = compare(alike, noise, methods=QUICK_BASELINES).figures["methods"]
    assert methods[DEFAULT]["nll"] == pytest.approx(methods["model_mean"]["nll"], abs=0.02)


def test_control_outcomes_permuted_over_questions_give_the_model_mean() -> None:
    order = np.random.default_rng(0).permutation(DATA.n_questions)
    methods = compare(replace(DATA, label=DATA.label[order]), VECTORS, methods=QUICK_BASELINES).figures["methods"]
    assert methods[DEFAULT]["nll"] == pytest.approx(methods["model_mean"]["nll"], abs=0.02)
    assert methods[DEFAULT]["auc"] == pytest.approx(methods["model_mean"]["auc"], abs=0.03)


def test_control_outcomes_permuted_within_a_question_leave_no_order_of_models() -> None:
    shuffled = np.random.default_rng(0).permuted(DATA.label, axis=1)
    methods = compare(replace(DATA, label=shuffled), VECTORS, methods=QUICK_BASELINES).figures["methods"]
    assert methods[DEFAULT]["auc_within_question"] == pytest.approx(0.5, abs=0.06)


def test_near_duplicates_widen_the_interval() -> None:
    paired = replace(DATA, groups=DATA.groups // 8)
    forecasts, seconds = {DEFAULT: COMPARISON.fitted.scorer.p_correct(VECTORS, describe(DATA.prompts))}, {DEFAULT: 0.0}
    one, other = (judge(d, forecasts, seconds)["methods"][DEFAULT]["ci95"]["nll"] for d in (DATA, paired))
    assert judge(paired, forecasts, seconds)["protocol"]["n_test_groups"] < len(DATA.part("test"))
    assert one != other


def test_the_table_shows_every_method_and_reference() -> None:
    printed = StringIO()
    Console(width=80, file=printed).print(comparison_table(FIGURES))
    text = printed.getvalue()
    for word in ("embedrouter", "model mean", "kNN", "best single model", "oracle", "random", "95% of embedrouter"):
        assert word in text
    assert f"{FIGURES['methods'][DEFAULT]['nll']:.4f}" in text
    assert "…" not in text, "a column was cut"


def test_a_folder_without_val_questions_is_refused_with_what_was_found(tmp_path: Path) -> None:
    log = TRUTH.log
    questions = log.questions.assign(split=np.where(log.questions["split"] == "val", "train", log.questions["split"]))
    questions.rename(columns={"benchmark": "category"}).drop(columns=["key", "group"]).to_csv(
        tmp_path / "questions.csv", index=False
    )
    log.models.to_csv(tmp_path / "models.csv", index=False)
    cells = log.cells.assign(
        question_id=log.questions["question_id"].to_numpy()[log.cells["question"]],
        model_name=log.models["model_name"].to_numpy()[log.cells["model"]],
        label=log.cells["label"].astype(int),
    )
    cells[["question_id", "model_name", "label"]].to_csv(tmp_path / "correctness.csv", index=False)
    with pytest.raises(TrainingError, match=r"no answered question in val \(found .* 0 val"):
        evaluate_folder(tmp_path, split="column")
    figures = evaluate_folder(tmp_path, split="seeded", seed=3)
    assert figures["methods"][DEFAULT]["nll"] < figures["methods"]["model_mean"]["nll"] - 0.1
    assert figures["protocol"]["seed"] == 3
