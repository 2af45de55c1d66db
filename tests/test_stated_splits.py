"""Logs whose stated splits part near-duplicates: what stands beside a test question teaches nothing, and is counted."""

from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sqlalchemy import Engine

from data import promotions, queries
from data.log import CorrectnessLog
from data.near_duplicates import group_near_duplicates
from router.artifact import read_artifact
from tests.logs import write_csv
from tests.planted import planted_log
from tests.stored import pick, store_log
from tests.test_fit import vectors_of
from tests.test_llm2vec_outcomes import write_folder
from training.baselines import embedllm_mf, model_mean
from training.dataset import Correctness
from training.errors import TrainingError
from training.evaluate import QUICK_BASELINES, Method, compare, evaluate_folder, hide_test
from training.gate import judge
from training.llm2vec.outcomes import read_answered
from training.metrics import Cells, nll_by_cell
from training.mf import MFSettings, biased_mf
from training.onboard import onboard
from training.report.words import describe_data
from training.routing import RoutingBench, mean_output_tokens
from training.table import comparison_table
from training.train import train

PLANTED = planted_log(300, 4, seed=3)
METHODS: dict[str, Method] = {
    **QUICK_BASELINES,
    "embedllm_mf": partial(embedllm_mf, n_epochs=3, batch=256, learning_rate=3e-3),
    "biased_mf": partial(biased_mf, settings=MFSettings(penalties=(3e-3,))),
}


def with_twins(log: CorrectnessLog) -> CorrectnessLog:
    """Add a copy of every test question with its outcomes, stated to be of train or val; every other in capitals."""
    test = np.flatnonzero(log.questions["split"] == "test")
    twins, n = log.questions.iloc[test].copy(), len(log.questions)
    place = np.arange(len(test))
    twins["key"] = n + place
    twins["question_id"] = [f"twin-{q}" for q in twins["question_id"]]
    twins["prompt"] = [p.upper() if at % 2 else p for at, p in enumerate(twins["prompt"])]
    twins["split"] = np.where(place % 3 == 0, "val", "train")
    questions = pd.concat([log.questions, twins], ignore_index=True)
    questions["group"] = group_near_duplicates(questions["prompt"].tolist())
    copied = log.cells[log.cells["question"].isin(test)]
    copied = copied.assign(question=n + np.searchsorted(test, copied["question"]), output_tokens=900.0)
    return CorrectnessLog(questions, log.models, pd.concat([log.cells, copied], ignore_index=True))


LOG = with_twins(PLANTED.log)
WITHOUT, WITH = Correctness.from_log(PLANTED.log), Correctness.from_log(LOG)
N_TWINS = len(WITHOUT.part("test"))


def test_a_copy_of_a_test_question_in_another_split_gives_no_method_an_advantage() -> None:
    vectors = vectors_of(PLANTED)
    of_twins = np.concatenate([vectors, vectors[WITHOUT.part("test")]])
    alone = compare(WITHOUT, vectors, methods=METHODS).figures
    beside = compare(WITH, of_twins, methods=METHODS).figures
    for name, method in alone["methods"].items():
        for measure in ("nll", "auc", "routing_accuracy", "ece"):
            assert beside["methods"][name][measure] == pytest.approx(method[measure], abs=1e-6), (name, measure)
    assert beside["references"] == alone["references"]
    assert beside["cost_forecast"]["tokens"]["relative_error"] == alone["cost_forecast"]["tokens"]["relative_error"]


def test_only_the_near_duplicates_of_test_questions_are_left_out() -> None:
    twins = np.arange(PLANTED.p.shape[0], WITH.n_questions)
    assert WITH.near_test().tolist() == twins.tolist()
    assert WITH.held_out.sum() == 2 * N_TWINS
    assert np.array_equal(WITH.learnable("train"), WITHOUT.part("train"))
    val_is_train = replace(WITH, split=np.where(WITH.split == "test", "val", WITH.split))
    assert not val_is_train.held_out.any()
    assert np.array_equal(mean_output_tokens(WITH), mean_output_tokens(WITHOUT))
    sparse = replace(WITH, label=np.where(np.isin(np.arange(WITH.n_questions), twins)[:, None], np.nan, WITH.label))
    assert len(RoutingBench.from_data(sparse).columns) == WITH.n_models


def test_the_comparison_of_a_folder_is_that_without_the_copies_and_says_how_many(tmp_path: Path) -> None:
    alone = evaluate_folder(write_folder(tmp_path / "alone", WITHOUT), encoder_spec="lsa")
    beside = evaluate_folder(write_folder(tmp_path / "beside", WITH), encoder_spec="lsa")
    for name, method in alone["methods"].items():
        assert beside["methods"][name]["nll"] == pytest.approx(method["nll"], abs=1e-6), name
    counts = [figures["protocol"]["n_near_test"] for figures in (alone, beside)]
    assert counts == [0, N_TWINS]
    assert beside["protocol"]["n_near_test_cells"] == N_TWINS * WITH.n_models
    assert describe_data(beside) == (
        describe_data(alone) + f"; {N_TWINS} train and val questions were left out as near-duplicates of test questions"
    )
    printed = []
    for figures in (alone, beside):
        page = StringIO()
        Console(width=200, file=page).print(comparison_table(figures))
        printed.append(" ".join(page.getvalue().split()))
    said = "train and val questions were left out of every fit"
    assert said not in printed[0]
    assert f"{N_TWINS} {said}" in printed[1]


def test_a_log_with_nothing_but_copies_of_test_questions_is_refused(tmp_path: Path) -> None:
    twins = WITH.rows(np.flatnonzero(WITH.held_out))
    with pytest.raises(TrainingError, match=rf"0 train, 0 val, {N_TWINS} test, and {N_TWINS} near-duplicates of test"):
        evaluate_folder(write_folder(tmp_path / "log", twins), encoder_spec="lsa")


def test_training_leaves_the_copies_out_and_onboarding_folds_none_in(sqlite_engine: Engine, tmp_path: Path) -> None:
    store_log(sqlite_engine, LOG, "planted")
    trained = train(sqlite_engine, tmp_path, encoder_spec="lsa")
    assert trained.comparison["protocol"]["n_near_test"] == N_TWINS
    alone = evaluate_folder(write_folder(tmp_path / "alone", WITHOUT), encoder_spec="lsa")
    ours = trained.comparison["methods"]["embedrouter"]["nll"]
    assert ours == pytest.approx(alone["methods"]["embedrouter"]["nll"], abs=1e-6)
    logged = read_artifact(trained.artifact.folder).logged_questions()
    assert logged is not None
    held_out = queries.held_out_questions(sqlite_engine)
    assert len(held_out) == 2 * N_TWINS
    assert not set(logged.keys.tolist()) & set(held_out)
    promotions.promote(sqlite_engine, trained.artifact.id, "train", "planted")
    twins = LOG.questions["question_id"][LOG.questions["question_id"].str.startswith("twin-")].tolist()
    write_csv(tmp_path / "answers.csv", ("question_id", "label"), [(twin, 1) for twin in twins])
    with pytest.raises(TrainingError, match=f"all {N_TWINS} are to test questions or near-duplicates of these"):
        onboard(sqlite_engine, tmp_path, "new", tmp_path / "answers.csv", rejects_folder=tmp_path / "rejects")


def test_the_gate_sets_a_challenger_beside_a_model_mean_that_saw_no_copies(
    sqlite_engine: Engine, tmp_path: Path
) -> None:
    n, n_first = WITHOUT.n_questions, 100
    n_twins_of_first = np.count_nonzero(WITHOUT.split[:n_first] == "test")
    later = np.delete(np.arange(n_first, len(LOG.questions)), np.arange(n_twins_of_first) + n - n_first)
    store_log(sqlite_engine, pick(LOG, np.arange(n_first)), "first")
    champion = train(sqlite_engine, tmp_path, encoder_spec="lsa").artifact
    store_log(sqlite_engine, pick(LOG, later), "later")
    challenger = train(sqlite_engine, tmp_path, encoder_spec="lsa").artifact
    since = judge(sqlite_engine, challenger, champion).figures["since"]
    test = np.flatnonzero((WITHOUT.split == "test") & (WITHOUT.keys >= n_first))
    rates = np.tile(model_mean(hide_test(WITHOUT), np.zeros((0, 0), np.float32))[0], (len(test), 1))
    expected = nll_by_cell(Cells.from_grid(WITHOUT.label[test], rates)).mean()
    assert since["model_mean_nll"] == pytest.approx(expected, abs=1e-6)


def test_an_encoder_learns_from_no_copies(tmp_path: Path) -> None:
    answered = read_answered(str(write_folder(tmp_path / "log", WITH)), 1.0, seed=0)
    assert set(answered.prompts) <= {WITHOUT.prompts[row] for row in WITHOUT.part("train")}
