"""The backtests of benchmark forecasts, on a planted folder: every regime is there, and its figures add up."""

from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.bench_benchmark_forecasts import run
from tests.benchmarks.forecast_figures import NAN, WHOLE, Cell, figures, render
from tests.planted import planted_log


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planted")
    log = planted_log(520, 10, seed=2).log
    log.questions.rename(columns={"benchmark": "category"}).to_csv(path / "questions.csv", index=False)
    log.models.to_csv(path / "models.csv", index=False)
    ids, names = log.questions["question_id"].to_numpy(), log.models["model_name"].to_numpy()
    cells = log.cells.assign(question_id=ids[log.cells["question"]], model_name=names[log.cells["model"]])
    cells[["question_id", "model_name", "label"]].to_csv(path / "correctness.csv", index=False)
    return path


def test_every_regime_is_backtested_beside_what_it_has_to_beat(folder: Path) -> None:
    result = run(folder, quick=True, n_processes=1)
    found = {(row["regime"], row["method"]) for row in result["figures"]}
    assert {("a", "2PL IRT"), ("a", "suite"), ("b", "pooled"), ("c", "pooled")} < found
    for regime in "abc":
        assert {(regime, "embedrouter"), (regime, "sample mean"), (regime, "elsewhere")} < found
    assert {(WHOLE, "embedrouter"), (WHOLE, "suggested"), (WHOLE, "sample mean"), (WHOLE, "2PL IRT")} < found
    assert not {(WHOLE, "elsewhere"), (WHOLE, "suite")} & found
    assert ("b", "2PL IRT") not in found
    cells = result["cells"]
    n = len(cells["truth"])
    assert n == len(cells["forecast"]) == sum(row["n_forecasts"] for row in result["figures"])
    ours = np.array(cells["method"]) == "embedrouter"
    assert (np.array(cells["low"])[ours] <= np.array(cells["high"])[ours]).all()
    text = render(result)
    assert "(a) known benchmark, new model" in text
    assert "(a) the whole log as one" in text
    assert "n/a" in text
    assert "the bundled half, which is not fitted anew, has read the train questions of both public logs" in text


def test_figures_are_what_a_hand_finds() -> None:
    truth = {"x": 0.5, "y": 0.6, "z": 0.7}
    cells = [
        Cell("b", method, 20, 0, model, "only", truth[model], truth[model] + error, low, high)
        for method, model, error, low, high in (
            ("embedrouter", "x", 0.1, 0.4, 0.7),
            ("embedrouter", "y", -0.2, 0.3, 0.5),
            ("embedrouter", "z", 0.0, 0.6, 0.8),
            ("sample mean", "x", 0.2, NAN, NAN),
            ("sample mean", "y", 0.2, NAN, NAN),
            ("sample mean", "z", 0.2, NAN, NAN),
        )
    ]
    by_method = {row["method"]: row for row in figures(cells)}
    ours, sample = by_method["embedrouter"], by_method["sample mean"]
    assert ours["mae"][0] == pytest.approx(0.1)
    assert ours["less_sample_mean"][0] == pytest.approx(-0.1)
    assert ours["coverage"][0] == pytest.approx(2 / 3)
    assert ours["width"][0] == pytest.approx((0.3 + 0.2 + 0.2) / 3)
    assert ours["spearman"][0] == pytest.approx(0.5)  # forecasts .6, .4, .7 of truths that ascend
    assert sample["spearman"][0] == pytest.approx(1.0)
    assert sample["coverage"] == [None, None, None]
