"""Retraining as a job, and the verbs that promote, roll back and list."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from data import promotions, queries
from data.errors import EmbedRouterError
from data.locks import holding
from router.encoder import DEFAULT_ENCODER
from router.errors import ArtifactError
from tests.conftest import url_of
from tests.planted import planted_log
from tests.stored import flip, pick, store_log
from tests.waiting import until
from training import artifact_commands, job_commands
from training.errors import TrainingError
from training.jobs import RETRAIN, Retrained, latest_runs, retrain

LOG = planted_log(300, 4).log
FIRST, LATER = np.arange(200), np.arange(200, 300)

app = typer.Typer()
artifact_commands.register(app)
job_commands.register(app)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture
def first(engine: Engine, root: Path) -> Retrained:
    store_log(engine, pick(LOG, FIRST), "first")
    return retrain(engine, root)


def statuses(engine: Engine) -> list[str]:
    return [row.status for row in latest_runs(engine)]


def embedrouter(engine: Engine, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--database", url_of(engine)])


def test_training_the_champion_again_keeps_the_verdict_that_promoted_it(
    engine: Engine, root: Path, first: Retrained
) -> None:
    (before,) = queries.artifacts(engine)
    again = retrain(engine, root, force=True)
    assert (again.artifact_id, again.reasons) == (first.artifact_id, ("it is the champion already",))
    (after,) = queries.artifacts(engine)
    assert after.gate == before.gate
    assert after.gate is not None
    assert after.gate["reasons"] == ["there was no champion to compare with"]


def test_retraining_goes_through_the_gate_and_is_recorded(engine: Engine, root: Path, first: Retrained) -> None:
    assert (first.status, first.champion_id) == ("promoted", first.artifact_id)
    assert retrain(engine, root).status == "unchanged"
    store_log(engine, pick(LOG, LATER), "later")
    better = retrain(engine, root)
    assert better.status == "promoted", better.reasons
    assert better.artifact_id != first.artifact_id
    store_log(engine, flip(LOG, 0.5), "long:flipped")
    worse = retrain(engine, root)
    assert worse.status == "refused"
    assert any("long:flipped" in reason for reason in worse.reasons)
    assert worse.champion_id == better.artifact_id
    assert statuses(engine) == ["refused", "promoted", "unchanged", "promoted"]
    newest = latest_runs(engine)[0]
    assert newest.artifact_id == worse.artifact_id
    assert newest.detail["reasons"] == list(worse.reasons)
    assert newest.finished_at is not None


def test_unchanged_logs_are_trained_on_again_when_forced(engine: Engine, root: Path, first: Retrained) -> None:
    again = retrain(engine, root, force=True)
    assert again.status == "promoted"
    assert again.artifact_id == first.artifact_id, "the same logs give the same artifact"
    assert "the champion already" in again.reasons[0]


def test_a_failed_run_says_why(engine: Engine, root: Path) -> None:
    with pytest.raises(TrainingError, match="no outcomes"):
        retrain(engine, root)
    run = latest_runs(engine)[0]
    assert run.status == "failed"
    assert run.detail["reasons"][0].startswith("TrainingError: the database holds no outcomes")


def test_a_second_retrain_is_told_who_runs(engine: Engine, root: Path) -> None:
    with holding(engine, RETRAIN) as free:
        assert free
        promotions.start_job(engine, RETRAIN, {"host": "elsewhere", "pid": 77})
        assert statuses(engine) == ["running"]
        with pytest.raises(TrainingError, match=r"already, since .* as process 77 on elsewhere"):
            retrain(engine, root)
    assert statuses(engine) == ["interrupted"]


def test_the_lock_of_a_process_that_was_killed_is_free(engine: Engine, root: Path) -> None:
    code = (
        "import sys, time\n"
        "from data import promotions\n"
        "from data.database import open_engine\n"
        "from data.locks import holding\n"
        "engine = open_engine(sys.argv[1])\n"
        "with holding(engine, 'retrain'):\n"
        "    promotions.start_job(engine, 'retrain', {'host': 'here', 'pid': 1})\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, url_of(engine)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with holding(engine, RETRAIN) as free:
            assert not free
        assert statuses(engine) == ["running"]
        process.kill()
    until(lambda: statuses(engine) != ["running"])  # PostgreSQL notices a moment later
    assert statuses(engine) == ["interrupted"]
    store_log(engine, pick(LOG, FIRST), "first")
    assert retrain(engine, root).status == "promoted"
    assert [row.status for row in queries.job_runs(engine)] == ["promoted", "interrupted"]


def test_a_champion_whose_directory_is_gone_is_named(engine: Engine, root: Path, first: Retrained) -> None:
    (root / str(first.artifact_id)).rename(root / "elsewhere")
    with pytest.raises(ArtifactError, match=str(first.artifact_id)):
        retrain(engine, root)
    assert statuses(engine)[0] == "failed"


def test_a_champion_of_an_earlier_format_gives_way_and_keeps_its_encoder(
    engine: Engine, root: Path, first: Retrained
) -> None:
    manifest = root / str(first.artifact_id) / "manifest.json"
    text = manifest.read_text().replace('"format_version": 2', '"format_version": 1')
    manifest.write_text(text.replace(f'"encoder": "{DEFAULT_ENCODER}"', '"encoder": "llm2vec:/nowhere"'))
    with pytest.raises(EmbedRouterError, match="/nowhere"):
        retrain(engine, root)
    manifest.write_text(text)
    store_log(engine, pick(LOG, LATER), "later")
    again = retrain(engine, root)
    assert (again.status, again.champion_id) == ("promoted", again.artifact_id)
    assert "has format version 1, this release reads 2" in again.reasons[0]


def test_verbs_promote_roll_back_and_list(engine: Engine, root: Path, first: Retrained) -> None:
    store_log(engine, flip(pick(LOG, FIRST), 0.5), "flipped")
    ended = embedrouter(engine, "jobs", "run", "retrain", "--artifacts-dir", str(root), "--fail-on-refusal")
    assert ended.exit_code == 3
    assert ended.stdout.startswith("REFUSED ")
    listed = json.loads(embedrouter(engine, "jobs", "list", "--json").stdout)["runs"]
    assert [run["status"] for run in listed] == ["refused", "promoted"]
    refused = listed[0]["artifact"]

    shown = json.loads(embedrouter(engine, "artifacts", "list", "--json").stdout)
    assert shown["champion"] == first.artifact_id
    by_id = {one["id"]: one for one in shown["artifacts"]}
    assert by_id[refused]["gate_promote"] is False
    assert by_id[refused]["gate_reasons"] == listed[0]["detail"]["reasons"]
    assert 0 < by_id[str(first.artifact_id)]["nll"] < 1
    assert "was refused:\n" in embedrouter(engine, "artifacts", "list").stdout

    promoted = embedrouter(engine, "artifacts", "promote", refused[:6], "--reason", "checked")
    assert promoted.exit_code == 0
    champion = queries.champion(engine)
    assert champion is not None
    assert (champion.artifact_id, champion.kind, champion.reason) == (refused, "manual", "checked")
    assert "already" in embedrouter(engine, "artifacts", "promote", refused).stdout
    assert embedrouter(engine, "artifacts", "rollback").exit_code == 0
    assert json.loads(embedrouter(engine, "artifacts", "list", "--json").stdout)["champion"] == first.artifact_id


def test_promote_refuses_what_cannot_be_read_or_is_not_there(sqlite_engine: Engine, tmp_path: Path) -> None:
    store_log(sqlite_engine, pick(LOG, FIRST), "first")
    first = retrain(sqlite_engine, tmp_path)
    second = retrain(sqlite_engine, tmp_path, force=True, seed=1)
    assert second.artifact_id is not None
    champion = queries.champion(sqlite_engine)
    other = {str(first.artifact_id), second.artifact_id} - {champion.artifact_id if champion else ""}
    one = other.pop()
    manifest = tmp_path / one / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    assert isinstance(embedrouter(sqlite_engine, "artifacts", "promote", one).exception, ArtifactError)
    assert queries.champion(sqlite_engine) == champion
    missing = embedrouter(sqlite_engine, "artifacts", "promote", "zzz")
    assert isinstance(missing.exception, EmbedRouterError)
    assert "no artifact begins with 'zzz'" in str(missing.exception)
    assert "begins" in str(embedrouter(sqlite_engine, "artifacts", "promote", "").exception)


def test_an_artifact_that_is_made_again_elsewhere_is_found_there(engine: Engine, root: Path, first: Retrained) -> None:
    second = retrain(engine, root, force=True, seed=1)
    promotions.promote(engine, str(second.artifact_id), "manual", "a test")
    shutil.rmtree(root / str(first.artifact_id))
    elsewhere = root.parent / "elsewhere"
    assert retrain(engine, elsewhere, force=True).artifact_id == first.artifact_id
    promotions.promote(engine, str(second.artifact_id), "manual", "a test")
    promoted = embedrouter(engine, "artifacts", "promote", str(first.artifact_id))
    assert promoted.exit_code == 0, promoted.exception
    champion = queries.champion(engine)
    assert champion is not None
    assert Path(champion.path) == elsewhere.resolve() / str(first.artifact_id)


@pytest.mark.parametrize("columns", ["80", "40", "20"])
def test_the_list_of_artifacts_is_never_cut(
    sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    figures = {"default": "ours", "methods": {"ours": {"nll": 0.5, "auc": 0.75, "routing_accuracy": 0.625}}}
    ids = ["0123456789abcdef", "fedcba9876543210"]
    for artifact_id in ids:
        promotions.add_artifact(
            sqlite_engine,
            artifact_id,
            path="/nowhere",
            encoder_fingerprint="e",
            data_fingerprint="d",
            outcome_watermark=0,
            metrics=figures,
        )
    promotions.set_gate(sqlite_engine, ids[1], {"promote": False, "reasons": []})
    promotions.promote(sqlite_engine, ids[0], "manual", "a test")
    monkeypatch.setenv("COLUMNS", columns)
    lines = embedrouter(sqlite_engine, "artifacts", "list").stdout.splitlines()
    (champion,) = (line for line in lines if ids[0] in line)
    assert "champion" in champion
    assert champion.split()[-4:] == ["0.5000", "0.7500", "0.6250", "–"]
    assert any(ids[1] in line for line in lines)
    assert not any("…" in line for line in lines)
    assert max(len(line.rstrip()) for line in lines) <= 80


def test_a_half_written_listing_shows_dashes(sqlite_engine: Engine) -> None:
    promotions.add_artifact(
        sqlite_engine,
        "abc",
        path="/nowhere",
        encoder_fingerprint="e",
        data_fingerprint="d",
        outcome_watermark=0,
        metrics={},
    )
    shown = embedrouter(sqlite_engine, "artifacts", "list")
    assert shown.exit_code == 0
    assert "abc" in shown.stdout
    assert "–" in shown.stdout


@pytest.mark.parametrize("verb", [("artifacts", "list"), ("jobs", "list")])
def test_empty_lists_say_what_makes_the_first(sqlite_engine: Engine, verb: tuple[str, str]) -> None:
    shown = embedrouter(sqlite_engine, *verb)
    assert shown.exit_code == 0
    assert "`embedrouter " in shown.stdout
