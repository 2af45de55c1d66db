"""What scripts measured beside an artifact: read from their own JSON, shown on its page, refused on other data."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from markupsafe import escape
from sqlalchemy import Engine
from typer.testing import CliRunner

from tests.benchmarks import bench_forecasts
from tests.conftest import url_of
from tests.planted import planted_log
from tests.stored import store_log
from training import baselines, report_commands
from training.dataset import Correctness
from training.errors import TrainingError
from training.evaluate import judge
from training.report.build import Report, build_report
from training.report.measured import (
    ABLATION,
    COMPARISON,
    KINDS,
    Beside,
    Kind,
    Measured,
    of_data,
    read_measured,
    sum_up_measured,
)
from training.report.page import render
from training.train import train

METHODS: dict[str, dict[str, Any]] = {
    "embedrouter": {"nll": 0.5012, "auc": 0.7654},
    "model_mean": {"nll": 0.6999, "auc": 0.5, "default_minus_this_ci95": {"nll": [-0.25, -0.15]}},
    "embedllm_mf": {
        "nll": 0.5333,
        "auc": 0.7321,
        "default_minus_this_ci95": {"nll": [-0.0401, -0.0203], "auc": [0.0211, 0.0444]},
    },
    "embedllm_mf_tuned": {"nll": 0.5055, "auc": None, "default_minus_this_ci95": {"nll": [-0.0099, 0.0017]}},
    "process_only": {"nll": 0.5077, "auc": 0.7601, "default_minus_this_ci95": {"nll": [-0.0088, -0.0022]}},
    "lsa_only": {"nll": 0.4999, "auc": 0.7666, "default_minus_this_ci95": {"nll": [0.0005, 0.0031]}},
}
SHOWN = {
    COMPARISON.name: (
        ("EmbedRouter", "0.5012", "–", "0.7654", "–"),
        ("EmbedLLM&#39;s procedure, as published", "0.5333", "-0.0401 – -0.0203", "0.7321", "+0.0211 – +0.0444"),
        ("EmbedLLM&#39;s procedure, tuned", "0.5055", "-0.0099 – +0.0017", "–", "–"),
    ),
    ABLATION.name: (
        ("EmbedRouter", "0.5012", "–", "0.7654"),
        ("without the forest", "0.5077", "-0.0088 – -0.0022", "0.7601"),
        ("LSA only, without the language model&#39;s vectors", "0.4999", "+0.0005 – +0.0031", "0.7666"),
    ),
}


def figures(fingerprint: str) -> dict[str, Any]:
    return {
        "dataset": {"fingerprint": fingerprint},
        "protocol": {"encoder": "lsa+bundled"},
        "methods": METHODS,
        "default": "embedrouter",
    }


def write(folder: Path, kind: Kind, **fingerprints: str) -> Path:
    """Write a script's file on data sets of these names and fingerprints."""
    path = folder / f"{kind.name}.json"
    path.write_text(json.dumps({f"{name}: {kind.name}": figures(found) for name, found in fingerprints.items()}))
    return path


def rows(page: str, kind: Kind) -> tuple[tuple[str, ...], ...]:
    """The cells of the table that a kind has on the page."""
    table = page.split(f'aria-label="{escape(kind.title)}"')[1].split("</table>")[0]
    body = table.split("<tbody>")[1]
    return tuple(tuple(re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)) for row in body.split("</tr>")[:-1])


@pytest.fixture
def planted(sqlite_engine: Engine, tmp_path: Path) -> Report:
    store_log(sqlite_engine, planted_log(300, 5).log, "planted")
    train(sqlite_engine, tmp_path / "artifacts")
    return build_report(sqlite_engine, stability=False)


def test_the_verb_shows_each_file_with_rows_intervals_and_what_they_say(
    planted: Report, sqlite_engine: Engine, tmp_path: Path
) -> None:
    app = typer.Typer()
    report_commands.register(app)
    fingerprint = planted.comparison["dataset"]["fingerprint"]
    files = [word for kind in KINDS for word in (f"--{kind.name}", str(write(tmp_path, kind, logs=fingerprint)))]
    output = tmp_path / "report.html"
    asked = ["--no-stability", "--output", str(output), "--database", url_of(sqlite_engine), *files]
    ended = CliRunner().invoke(app, asked)
    assert ended.exit_code == 0, ended.output
    page = output.read_text(encoding="utf-8")
    for kind in KINDS:
        assert rows(page, kind) == SHOWN[kind.name]
    assert "not to be told from that of “EmbedLLM&#39;s procedure, tuned”. Read on the test questions." in page
    assert "with encoder <code>lsa+bundled</code>: these are its procedure's figures, not this artifact's" in page
    assert "for want of its figures" not in page


def test_a_page_without_the_files_says_how_to_make_each(planted: Report) -> None:
    page = render(planted)
    for kind in KINDS:
        assert f"<code>{kind.command}</code>, then <code>embedrouter report --{kind.name} FILE</code>" in page
    ablation = Measured(ABLATION, "f", "", Beside("EmbedRouter", 0.5, None, None, None), ())
    page = render(replace(planted, measured=(ablation,)))
    assert COMPARISON.command in page
    assert ABLATION.command not in page


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_figures_of_other_data_are_refused_with_both_fingerprints(
    kind: Kind, planted: Report, sqlite_engine: Engine, tmp_path: Path
) -> None:
    measured = read_measured(write(tmp_path, kind, one="0123456789abcdef", two="fedcba9876543210"), kind)
    fingerprint = planted.comparison["dataset"]["fingerprint"]
    other = rf"the {kind.name} was measured on other data \(0123456789abcdef, fedcba9876543210\) .* \({fingerprint}\)"
    with pytest.raises(TrainingError, match=other):
        build_report(sqlite_engine, stability=False, measured=measured)


def test_of_several_data_sets_that_of_the_artifact_is_taken(tmp_path: Path) -> None:
    measured = read_measured(write(tmp_path, COMPARISON, other="0123", ours="4567", third="89ab"), COMPARISON)
    assert [one.fingerprint for one in measured] == ["0123", "4567", "89ab"]
    assert of_data(measured, "4567") == (measured[1],)
    assert of_data((), "4567") == ()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{broken",
        "[]",
        "3",
        "{}",
        '{"logs: calibration": {}}',
        '{"logs: KIND": {"dataset": {"fingerprint": "f"}}}',
        '{"logs: KIND": {"dataset": {"fingerprint": "f"}, "methods": {"embedrouter": {"nll": "low"}}, '
        '"default": "embedrouter"}}',
        '{"logs: KIND": {"dataset": {"fingerprint": "f"}, "methods": {"embedrouter": {"nll": 0.5}}, '
        '"default": "embedrouter"}}',
        '{"logs: KIND": {"dataset": {}, "methods": {"embedrouter": {"nll": 0.5}}, "default": "embedrouter"}}',
    ],
)
def test_a_file_that_is_not_the_scripts_is_refused_with_what_makes_one(text: str, kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text(text.replace("KIND", kind.name))
    refusal = rf"figures\.json does not hold the figures of --{kind.name}.*`{re.escape(kind.command)}` writes them"
    with pytest.raises(TrainingError, match=refusal):
        read_measured(path, kind)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(TrainingError, match=refusal):
        read_measured(path, kind)


def test_a_file_that_cannot_be_read_is_a_plain_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"cannot read the ablation from .*absent\.json: No such file"):
        read_measured(tmp_path / "absent.json", ABLATION)


def test_the_sentence_tells_better_worse_and_chance_apart() -> None:
    def beside(name: str, low: float, high: float) -> Beside:
        return Beside(name, 0.5, None, (low, high), None)

    default = Beside("EmbedRouter", 0.5, None, None, None)
    others = (beside("a", -0.3, -0.1), beside("b", 0.1, 0.3), beside("c", -0.1, 0.1), beside("d", -0.2, -0.1))
    assert sum_up_measured(Measured(ABLATION, "f", "", default, others)) == (
        "EmbedRouter's log loss is lower (better), beyond chance, than that of “a”, “d”; higher (worse), beyond "
        "chance, than that of “b”; not to be told from that of “c”."
    )


def test_the_comparison_that_is_written_is_the_one_that_is_read(tmp_path: Path) -> None:
    data = Correctness.from_log(planted_log(200, 4).log)
    p = np.where(data.label == 1, 0.8, 0.3)
    found = judge(data, {"embedrouter": p, "embedllm_mf": 0.5 * p + 0.3}, {"embedrouter": 0, "embedllm_mf": 0})
    path = tmp_path / "figures.json"
    path.write_text(json.dumps({"logs: comparison": found, "speed": {}}))
    (read,) = read_measured(path, COMPARISON)
    assert read.fingerprint == data.fingerprint()
    (other,) = read.others
    difference = found["methods"]["embedllm_mf"]["default_minus_this_ci95"]
    assert (other.nll_difference_ci95, other.auc_difference_ci95) == (difference["nll"], difference["auc"])
    assert difference["nll"][0] < read.default.nll - other.nll < difference["nll"][1] < 0


def test_the_ablation_that_is_written_is_the_one_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = planted_log(200, 4).log
    data = Correctness.from_log(log)
    stand_ins = {"process_only": baselines.model_mean, "embedrouter": baselines.benchmark_mean}
    monkeypatch.setattr(bench_forecasts, "METHODS", stand_ins)
    monkeypatch.setattr(bench_forecasts, "read_folder", lambda _: log)
    path = tmp_path / "figures.json"
    monkeypatch.setattr("sys.argv", ["bench_forecasts", "some/logs", "--output", str(path)])
    bench_forecasts.main()
    (read,) = read_measured(path, ABLATION)
    assert list(json.loads(path.read_text())) == ["logs: ablation"]
    assert read.fingerprint == data.fingerprint(), "of the whole log, though its test questions are not judged on"
    (without,) = read.others
    assert without.nll_difference_ci95 is not None
    low, high = without.nll_difference_ci95
    assert low < read.default.nll - without.nll < high < 0, "topics are planted: who is told them is better"
    assert f"{without.nll:>8.4f}" in capsys.readouterr().out
