"""The report: figures that can be checked by hand, and a page that stands alone whatever a model is called."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from plotly.offline import get_plotlyjs
from sqlalchemy import Engine
from typer.testing import CliRunner

from data import promotions, queries
from data.log import CorrectnessLog
from data.promotions import promote
from tests.conftest import url_of
from tests.planted import planted_log
from tests.stored import pick, store_log
from training import report_commands
from training.errors import TrainingError
from training.model_map import map_models
from training.promises import Ece, Promise
from training.report.accuracies import Accuracies, accuracies
from training.report.build import Report, build_report
from training.report.calibration_charts import forecast_panels
from training.report.charts import draw
from training.report.controls import read_controls
from training.report.page import choices, comparison_lines, quality_rows, render, write_page
from training.report.reliability import reliability
from training.report.words import describe_data, plain, sum_up_errors, sum_up_promises, summarize
from training.train import train

HOSTILE = (
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    '<a href="https://example.com/pwned">click</a>',
    "%{x} & \"quotes\" 'and' {{ 7 * 7 }}",
)
CHARTS = [
    "curve",
    "reliability",
    "promises",
    "errors",
    *(f"forecast-{number}" for number in range(4)),
    "accuracy",
    "map",
    "gains",
]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def report_on(engine: Engine, folder: Path, log: CorrectnessLog) -> Report:
    store_log(engine, log, "planted")
    trained = train(engine, folder / "artifacts")
    promote(engine, trained.artifact.id, "train", "the first")
    return build_report(engine)


@pytest.fixture
def planted(sqlite_engine: Engine, tmp_path: Path) -> Report:
    return report_on(sqlite_engine, tmp_path, planted_log(300, 5).log)


@pytest.fixture
def hostile(sqlite_engine: Engine, tmp_path: Path) -> Report:
    """The same, but models, benchmarks and questions have names that are markup."""
    log = planted_log(300, 5).log
    questions = log.questions.assign(benchmark=[HOSTILE[i % 3] for i in range(300)])
    return report_on(
        sqlite_engine, tmp_path, CorrectnessLog(questions, log.models.assign(model_name=HOSTILE), log.cells)
    )


def without_plotly(page: str) -> str:
    assert page.count(get_plotlyjs()) == 1
    return page.replace(get_plotlyjs(), "")


def test_the_page_needs_nothing_from_outside(planted: Report) -> None:
    page = without_plotly(render(planted))
    assert not re.findall(
        r"https?:|\b(?:src|href|action|data)=|url\(|@import|<(?:link|img|iframe|object|embed|base)\b", page
    )
    assert "default-src 'none'" in page


def test_the_header_counts_only_what_was_fitted_on_and_says_what_was_held_out() -> None:
    dataset = {"n_cells": 90, "n_models": 2, "n_questions": 60, "n_test_cells": 20, "n_test_questions": 10}
    protocol = {"n_left_out": 15, "n_near_test": 3, "n_near_test_cells": 6}
    comparison = {"dataset": dataset, "protocol": protocol, "measured_on": "the-trained-one"}
    assert describe_data(comparison) == (
        "fitted on 64 outcomes of 2 models on 32 questions, with 20 outcomes on 10 test questions held out; 3 train "
        "and val questions were left out as near-duplicates of test questions; models were onboarded since, and the "
        "comparison is that of the-trained-one"
    )
    assert describe_data({}) == ""


def test_the_page_says_what_the_artifact_is(planted: Report) -> None:
    page = without_plotly(render(planted))
    dataset = planted.comparison["dataset"]
    n_test = int((planted_log(300, 5).log.questions["split"] == "test").sum())
    for expected in (
        planted.artifact_id,
        dataset["fingerprint"],
        planted.encoder_fingerprint,
        "champion",
        f"fitted on {5 * (300 - n_test):,} outcomes of 5 models on {300 - n_test:,} questions, with {5 * n_test:,} "
        f"outcomes on {n_test:,} test questions held out; report of",
        f"{planted.comparison['methods']['embedrouter']['nll']:.4f}",
        "best single model",
        planted.comparison["best_single_model"],
    ):
        assert expected in page, expected
    assert list(draw(planted)) == CHARTS


def test_names_are_text_wherever_they_stand(hostile: Report) -> None:
    page = without_plotly(render(hostile))
    assert "<script>window" not in page
    assert "<img" not in page
    assert '<a href="https' not in page
    scripts = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    figures = json.loads(scripts[0])
    assert set(figures) == set(CHARTS) - {"forecast-3"}
    assert set(figures["map"]["data"][0]["customdata"]) == {plain(name) for name in HOSTILE}
    assert not any("<" in name or "%{" in name for name in figures["map"]["data"][0]["customdata"])
    assert "{{ 7 * 7 }}" in page


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to open the page in")
@pytest.mark.parametrize("name", ["planted", "hostile"])
def test_a_browser_draws_every_chart_and_asks_for_nothing(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    page = render(request.getfixturevalue(name))
    probe = (
        "<script>addEventListener('load', () => setTimeout(() => { const state = document.documentElement.dataset;"
        "state.pwned = String(window.pwned); state.links = document.querySelectorAll('a, img').length;"
        "state.resources = performance.getEntriesByType('resource').length;"
        "state.points = document.querySelectorAll('path.point').length; }, 500))</script></body>"
    )
    path = tmp_path / "report.html"
    path.write_text(page.replace("</body>", probe), encoding="utf-8")
    dom = subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=20000",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    ).stdout
    root = re.search(r"<html[^>]*>", dom)
    assert root is not None
    state = dict(re.findall(r'data-(\w+)="([^"]*)"', root[0]))
    charts = CHARTS if name == "planted" else [chart for chart in CHARTS if chart != "forecast-3"]
    assert state["drawn"].split() == charts
    assert (state["pwned"], state["links"], state["resources"]) == ("undefined", "0", "0")
    assert int(state["points"]) >= 5 * 4 + 5


def test_an_artifact_without_figures_still_has_a_page(planted: Report) -> None:
    bare = replace(
        planted,
        comparison={},
        gate=None,
        is_champion=False,
        accuracies=None,
        reliability=None,
        errors=(),
        promises=(),
        model_map=None,
        single_models=None,
        probe=None,
    )
    page = render(bare)
    assert "holds no comparison" in page
    assert len(page) < 50_000, "without a chart there is no need of plotly"


def test_figures_that_could_not_be_counted_are_dashes(planted: Report) -> None:
    comparison = json.loads(json.dumps(planted.comparison))
    for method in comparison["methods"].values():
        method.update(routing_accuracy=None, auc=None, ci95={})
        method.pop("routing", None)
        method.pop("default_minus_this_ci95", None)
    comparison["references"] = dict.fromkeys(comparison["references"])
    comparison["best_single_model"] = None
    lines = comparison_lines(comparison)
    assert [line.name for line in lines] == ["EmbedRouter", "model mean", "model × benchmark mean", "kNN"]
    assert lines[0].cells[1].value == lines[0].cells[6].value == "–"
    sentences = summarize(comparison)
    assert len(sentences) == 1
    assert sentences[0].startswith("Forecasting: ")
    assert "None" not in without_plotly(render(replace(planted, comparison=comparison, single_models=None)))


def test_the_best_of_each_column_is_marked_and_references_are_not() -> None:
    def method(nll: float, accuracy: float) -> dict[str, object]:
        return {"nll": nll, "accuracy": accuracy, "ci95": {"nll": [nll - 0.1, nll + 0.1]}}

    lines = comparison_lines(
        {"methods": {"knn": method(0.5, 0.8), "embedrouter": method(0.4, 0.7)}, "references": {"oracle": 0.99}}
    )
    accuracy, nll = (0, 3)
    assert [line.cells[nll].best for line in lines] == [False, True, False]
    assert [line.cells[accuracy].best for line in lines] == [True, False, False]
    assert lines[1].cells[nll].interval == "0.300 – 0.500"
    assert lines[2].cells[6].value == "0.9900"


def test_the_summary_states_the_gap_and_what_could_be_chance() -> None:
    comparison = {
        "default": "embedrouter",
        "methods": {
            "embedrouter": {"nll": 0.45, "routing_accuracy": 0.8, "routing": {"cost_at_best_single": 0.25}},
            "knn": {"nll": 0.5, "default_minus_this_ci95": {"nll": [-0.11, 0.01]}},
            "benchmark_mean": {"nll": 0.46},
        },
        "references": {"best_single": 0.7, "oracle": 0.9, "random": 0.5},
        "best_single_model": "big-model",
    }
    forecasting, routing, cost = summarize(comparison)
    assert "0.4500, 10.0% lower (better) than that of kNN" in forecasting
    assert "from −0.1100 to +0.0100, so it could be chance" in forecasting
    assert "answers 80.0% correctly; big-model" in routing
    assert "(+10.0 points)" in routing
    assert "reaches 90.0%: 50% of that gap is closed" in routing
    assert cost == "Cost: it reaches the best priced single model's quality for 25% of that model's cost."


def test_a_router_that_loses_to_the_best_single_model_closes_none_of_the_gap() -> None:
    comparison = {
        "default": "embedrouter",
        "methods": {"embedrouter": {"routing_accuracy": 0.85}},
        "references": {"best_single": 0.853, "oracle": 0.97},
    }
    (routing,) = summarize(comparison)
    assert "the best single model, the best single" not in routing
    assert "(−0.3 points)" in routing
    assert routing.endswith("none of that gap is closed.")


def test_accuracies_are_averaged_over_observed_cells_only() -> None:
    label = np.array([[1, np.nan], [0, 1], [1, np.nan]], dtype=np.float32)
    p = np.array([[0.9, 0.1], [0.5, 0.6], [0.4, 0.3]])
    seen = accuracies(("a", "b"), np.array(["x", "x", "y"]), label, p, np.array([0.6, 0.7]))
    assert list(zip(seen.model, seen.benchmark, seen.n.tolist(), strict=True)) == [
        ("a", "x", 2),
        ("b", "x", 1),
        ("a", "y", 1),
    ]
    assert seen.forecast == pytest.approx([0.7, 0.6, 0.4])
    assert seen.actual == pytest.approx([0.5, 1.0, 1.0])
    assert seen.mean_error(seen.forecast) == pytest.approx((0.2 + 0.4 + 0.6) / 3)
    assert seen.mean_error(seen.by_model_mean) == pytest.approx((0.1 + 0.3 + 0.4) / 3)


def test_errors_count_pairs_with_enough_outcomes_where_there_are_some() -> None:
    seen = Accuracies(
        ("a", "b"),
        ("x", "x"),
        np.array([0.5, 0.5]),
        np.array([0.5, 0.5]),
        np.array([0.6, 1.0]),
        np.array([100, 3]),
        np.array([0.4, 0.1]),
        np.array([0.7, 0.9]),
    )
    assert seen.coverage == 1.0
    assert seen.width == pytest.approx(0.3)
    assert seen.mean_error(seen.forecast) == pytest.approx(0.1)
    assert seen.chance_error == pytest.approx(0.05 * np.sqrt(2 / np.pi))


def test_intervals_of_benchmarks_hold_what_is_counted_about_as_often_as_they_say(
    sqlite_engine: Engine, tmp_path: Path
) -> None:
    judged = report_on(sqlite_engine, tmp_path, planted_log(1200, 12).log).accuracies
    assert judged is not None
    assert judged.has_intervals
    assert (judged.low <= judged.forecast).all()
    assert (judged.forecast <= judged.high).all()
    assert judged.counted.sum() == 48
    assert 0.8 <= judged.coverage <= 1.0
    # the luck of n outcomes alone makes intervals of this width
    assert judged.width >= 0.9 * float(np.mean(2 * 1.645 * np.sqrt(judged.forecast * (1 - judged.forecast) / judged.n)))


def test_panels_mark_what_fell_outside_its_interval() -> None:
    of_three = np.full(3, 50)
    seen = Accuracies(
        ("a", "b", "c"),
        ("x", "x", "x"),
        np.array([0.7, 0.5, 0.6]),
        np.full(3, 0.5),
        np.array([0.72, 0.9, 0.55]),
        of_three,
        np.array([0.6, 0.4, 0.5]),
        np.array([0.8, 0.6, 0.7]),
    )
    (panel,) = forecast_panels(seen).values()
    by_role = {trace.meta: trace for trace in panel.data}
    assert by_role["truth"].y.tolist() == [0.55, 0.72], "by forecast, from left to right"
    assert [point[0] for point in by_role["outside"].customdata] == ["b"]
    assert by_role["outside"].x.tolist() == [1]


def test_the_area_is_told_beside_mixing_single_models(planted: Report) -> None:
    assert planted.single_models is not None
    rows = {row.name: row for row in quality_rows(planted.comparison, planted.single_models)}
    ours = planted.comparison["methods"]["embedrouter"]["routing"]
    assert rows["EmbedRouter"].aiq == f"{ours['aiq']:.4f}"
    assert float(rows["EmbedRouter"].beyond_single) == pytest.approx(
        100 * (ours["aiq"] - planted.single_models.aiq), abs=0.051
    )
    assert ours["aiq"] > planted.single_models.aiq, "topics are planted: reading prompts pays"


def test_the_page_names_what_cross_validation_chose(planted: Report) -> None:
    found = choices(planted.comparison)
    for title, key in (("noise level", "by_noise"), ("share of trees", "by_forest_share")):
        assert [one.nll for one in found[title]] == [f"{one['nll']:.4f}" for one in planted.comparison["fit"][key]]
        assert sum(one.is_chosen for one in found[title]) == 1
    assert choices({}) == {}


def test_the_page_says_what_embeddings_know(planted: Report) -> None:
    page = without_plotly(render(planted))
    assert planted.probe is not None
    assert planted.probe.stability is not None
    assert f"embeddings correlate at {planted.probe.stability.embedding_correlation:.3f}" in page
    assert "Families: models of one family" not in page, "model-0 to model-4 are one family: nothing to compare"


def test_controls_are_shown_where_a_file_holds_them(planted: Report, tmp_path: Path) -> None:
    one = {
        "nll": 0.6012,
        "nll_model_mean": 0.6,
        "nll_minus_model_mean": {"estimate": 0.0012, "low": -0.001, "high": 0.003},
        "auc_within_question": 0.5011,
        "auc_within_question_ci95": [0.49, 0.51],
    }
    path = tmp_path / "controls.json"
    path.write_text("across      0.6012  ...\n" + json.dumps({"path": "logs", "controls": {"across": one}}) + "\n")
    (found,) = read_controls(path)
    assert (found.name, found.difference_ci95) == ("across", (-0.001, 0.003))
    assert "Controls" not in without_plotly(render(planted))
    page = without_plotly(render(replace(planted, controls=(found,))))
    for expected in ("Controls", "outcomes permuted across questions", "0.6012", "-0.0010 – +0.0030", "0.5011"):
        assert expected in page, expected


@pytest.mark.parametrize("text", ["", "[]", '{"controls": {"across": {"nll": 0.5}}}', '{"controls": 3}', "{broken"])
def test_a_file_without_controls_is_refused_with_what_makes_one(text: str, tmp_path: Path) -> None:
    path = tmp_path / "controls.json"
    path.write_text(text)
    with pytest.raises(TrainingError, match=r"controls\.json does not hold controls .*bench_controls PATH --json"):
        read_controls(path)
    with pytest.raises(TrainingError, match="cannot read controls"):
        read_controls(tmp_path / "absent.json")


def test_promises_are_summed_up_by_the_worst() -> None:
    kept = Promise(None, 0.80, 0.81, (0.78, 0.84), 300)
    broken = Promise(0.9, 0.95, 0.85, (0.80, 0.90), 120)
    assert sum_up_promises([kept]) == (
        "1 of 1 promises were kept within 2 points beyond what chance explains; "
        "nowhere were they right less often than promised."
    )
    told = sum_up_promises([kept, broken])
    assert told.startswith("1 of 2 promises")
    assert "at min_p_correct 0.9 they were right 10.0 points less often than promised (120 questions)" in told


def test_calibration_errors_stand_beside_perfect_calibration() -> None:
    told = sum_up_errors([Ece("all", 0.03, 0.01, 0.012, 5000), Ece("model a", 0.05, 0.04, 0.06, 200)])
    assert "the error is 0.0300; a perfectly calibrated forecaster would show 0.0100" in told
    assert "Of 1 models with enough outcomes, 0 lie above" in told


def test_reliability_bins_hold_equal_numbers_of_observed_outcomes() -> None:
    p = np.linspace(0.02, 0.98, 24).reshape(24, 1)
    label = (p > 0.5).astype(np.float32)
    label[0] = np.nan
    bins = reliability(label, p, np.arange(24))
    assert bins.n.sum() == 23
    assert set(bins.n.tolist()) == {1, 2}
    assert bins.actual[0] == 0
    assert bins.actual[-1] == 1
    assert bins.forecast[-1] == pytest.approx(p[-1].item(), abs=0.05)


def test_models_with_the_same_embedding_share_a_place_on_the_map() -> None:
    models = np.array([[1.0, 0.0], [1.0, 0.0], [-2.0, 0.0]], dtype=np.float32)
    questions = np.array([[1, 0], [-1, 0], [1, 5], [-1, -5]], dtype=np.float32)
    placed = map_models(("a", "b", "c"), models, questions, np.array([0.8, 0.8, 0.2]))
    assert placed.position[0] == pytest.approx(placed.position[1])
    # logits differ by 3 t0, whose root mean square over the questions is 3
    assert np.linalg.norm(placed.position[0] - placed.position[2]) == pytest.approx(3)
    assert placed.shares == pytest.approx((1, 0), abs=1e-6)
    assert placed.position[0, 0] > placed.position[2, 0], "the better model stands to the right"


def test_a_report_is_of_the_log_that_the_artifact_was_trained_on(sqlite_engine: Engine, tmp_path: Path) -> None:
    log = planted_log(300, 4).log
    before = report_on(sqlite_engine, tmp_path, pick(log, np.arange(220)))
    store_log(sqlite_engine, pick(log, np.arange(220, 300)), "later")
    after = build_report(sqlite_engine, before.artifact_id[:8])
    assert before.accuracies is not None
    assert after.accuracies is not None
    assert after.accuracies.n.tolist() == before.accuracies.n.tolist()
    test_cells = before.comparison["dataset"]["n_test_cells"]
    assert before.accuracies.n.sum() == test_cells


def test_an_artifact_is_named_by_the_beginning_of_its_id(sqlite_engine: Engine) -> None:
    with pytest.raises(TrainingError, match="no artifact to report on"):
        build_report(sqlite_engine)
    for artifact_id in ("aa1", "aa2"):
        promotions.add_artifact(
            sqlite_engine,
            artifact_id,
            path="/nowhere",
            encoder_fingerprint="e",
            data_fingerprint="d",
            outcome_watermark=0,
            metrics={},
        )
    with pytest.raises(TrainingError, match="2 artifacts begin with 'aa'"):
        build_report(sqlite_engine, "aa")
    with pytest.raises(TrainingError, match="0 artifacts begin with 'b'"):
        build_report(sqlite_engine, "b")
    assert queries.champion(sqlite_engine) is None


def test_the_verb_writes_the_file_and_says_where(planted: Report, sqlite_engine: Engine, tmp_path: Path) -> None:
    app = typer.Typer()
    report_commands.register(app)
    output = tmp_path / "new" / "report.html"
    ended = CliRunner().invoke(app, ["--output", str(output), "--database", url_of(sqlite_engine), "--json"])
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout) == {
        "artifact": planted.artifact_id,
        "output": str(output),
        "bytes": output.stat().st_size,
    }
    assert [path.name for path in output.parent.iterdir()] == ["report.html"]


def test_writing_again_replaces_the_page_whole(planted: Report, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    output.write_text("an old one")
    write_page(planted, output)
    assert output.read_text(encoding="utf-8").endswith("</html>\n")
