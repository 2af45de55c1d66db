"""The demo: the whole journey on simulated LLMs, small, over real sockets; and its arithmetic on known numbers."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from data.database import open_engine
from data.demo.generate import generate
from data.demo.question import is_correct
from data.near_duplicates import group_near_duplicates
from data.queries import champion, decisions, pool_models
from router.simulated.mind import answer
from router.simulator import SIMULATED_MODELS
from training.demo import MARKER, draw_questions, prepare, run_demo
from training.demo_result import DemoResult, Direct, Routed
from training.errors import TrainingError

N_TRAIN, N_TEST = 240, 40


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """A small demo's folder, figures and text; it replaces what an earlier demo left there."""
    workdir = tmp_path_factory.mktemp("demo") / "work"
    prepare(workdir)
    (workdir / "left over").touch()
    text = io.StringIO()
    figures = run_demo(Console(file=text, width=160), workdir=workdir, n_train=N_TRAIN, n_test=N_TEST, seed=3)
    return workdir, figures, text.getvalue()


def test_the_figures_are_what_the_models_really_answer(demo: tuple[Path, dict[str, Any], str]) -> None:
    _, figures, _ = demo
    unseen = draw_questions(N_TRAIN, N_TEST, seed=3).unseen
    for name in SIMULATED_MODELS:
        n_right = sum(is_correct(question.gold, answer(name, question.prompt)) for question in unseen)
        assert figures["models"][name]["accuracy"] == pytest.approx(n_right / N_TEST)
    best = figures["best_single_model"]
    assert figures["routing"]["best_single"] == figures["models"][best]
    accuracies = [model["accuracy"] for model in figures["models"].values()]
    assert figures["routing"]["random"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert figures["routing"]["oracle"]["accuracy"] >= max(accuracies)


def test_every_routed_question_is_a_decision_whose_model_answered_it(demo: tuple[Path, dict[str, Any], str]) -> None:
    workdir, figures, _ = demo
    engine = open_engine(f"sqlite:///{workdir / 'embedrouter.db'}")
    try:
        rows = decisions(engine, limit=1000)
        assert {row["policy"] for row in rows} == {"quality", "balanced", "cheapest"}
        assert len(rows) == 3 * N_TEST
        assert all(row["status"] == 200 and row["answered_by"] == row["first_choice"] for row in rows)
        for policy in ("quality", "balanced", "cheapest"):
            costs = [row["cost_usd"] for row in rows if row["policy"] == policy]
            assert figures["routing"][policy]["cost_usd_per_request"] == pytest.approx(np.mean(costs), abs=1e-8)
        current = champion(engine)
        assert current is not None
        assert {row["artifact_id"] for row in rows} == {current.artifact_id}
        assert {model.name: model.n_outcomes for model in pool_models(engine)} == dict.fromkeys(
            SIMULATED_MODELS, N_TRAIN
        )
    finally:
        engine.dispose()


def test_it_tells_what_it_does_and_calls_the_simulated_simulated(demo: tuple[Path, dict[str, Any], str]) -> None:
    workdir, figures, text = demo
    assert figures["simulated"] is True
    assert "simulated LLMs" in text
    assert "no language model runs" in text
    assert f"{N_TRAIN * len(SIMULATED_MODELS):,} answers graded and stored" in text
    assert "router (quality) minus best single model" in text
    assert "95% interval" in text
    assert "(chosen)" in text
    assert "gold answer" in text
    assert not (workdir / "left over").exists()


def test_unseen_questions_are_near_duplicates_of_no_training_question() -> None:
    drawn = draw_questions(600, 120, seed=0)
    assert len(drawn.unseen) == len(drawn.unseen_groups) == 120
    groups = group_near_duplicates([question.prompt for question in (*drawn.training, *drawn.unseen)])
    assert not set(groups[:600]) & set(groups[600:])


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(TrainingError, match="holds something else than a demo"):
        prepare(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    file = tmp_path / "thesis.tex"
    with pytest.raises(TrainingError, match="holds something else"):
        prepare(file)
    prepare(tmp_path / "new")
    assert (tmp_path / "new" / MARKER).is_file()
    (tmp_path / "empty").mkdir()
    prepare(tmp_path / "empty")


def test_the_results_arithmetic_on_known_numbers() -> None:
    label = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    cost = np.array([[4.0, 1.0]] * 4)
    chosen = [0, 1, 1, 1]  # right where anyone is
    routed = [
        Routed("ab"[model], str(row), "", bool(label[row, model]), cost[row, model]) for row, model in enumerate(chosen)
    ]
    result = DemoResult(
        questions=generate(4, seed=0),
        groups=np.array([0, 1, 2, 3]),
        routed={"quality": routed},
        direct=Direct(("a", "b"), label, cost),
        best_single="a",
        seed=0,
    )
    figures = result.as_json()["routing"]
    assert figures == {
        "quality": {"accuracy": 0.75, "cost_usd_per_request": 1.75},
        "best_single": {"accuracy": 0.5, "cost_usd_per_request": 4.0},
        "random": {"accuracy": 0.5, "cost_usd_per_request": 2.5},
        "oracle": {"accuracy": 0.75, "cost_usd_per_request": 1.75},
    }
    mean, (low, high) = result.advantage
    assert mean == 0.25
    assert 0 <= low < 0.25 < high <= 0.75
    assert result.explained() == [
        ("the first that the router got right and the best single model wrong", 1),
        ("the first that both got right", 0),
    ]


@pytest.mark.slow
def test_the_router_is_above_its_best_single_model(tmp_path: Path) -> None:
    for seed in (0, 1):
        figures = run_demo(Console(file=io.StringIO()), workdir=tmp_path / "demo", seed=seed)
        assert figures["router_minus_best_single"]["ci95"][0] > 0
        assert (
            figures["routing"]["quality"]["cost_usd_per_request"]
            < figures["routing"]["best_single"]["cost_usd_per_request"]
        )
        assert figures["seconds"] < 180
