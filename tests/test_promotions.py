"""Artifacts, promotions and jobs: each write leaves what it says, and a rollback walks back."""

import pytest
from sqlalchemy import Engine

from data import promotions, queries
from data.errors import EmbedRouterError

GATE = {"promote": False, "reasons": ["worse"], "figures": {"nll": 0.5}}


def add_artifacts(engine: Engine, *names: str) -> None:
    for name in names:
        promotions.add_artifact(
            engine,
            name,
            path=f"var/artifacts/{name}",
            encoder_fingerprint="lsa",
            data_fingerprint="data",
            outcome_watermark=7,
            metrics={"methods": {"ours": {"auc": 0.8}}},
        )


def test_the_newest_promotion_is_champion_and_rollback_walks_back(engine: Engine) -> None:
    add_artifacts(engine, "one", "two", "three")
    assert queries.champion(engine) is None
    for name in ("one", "two", "three"):
        promotions.promote(engine, name, "train", f"{name} is better")
    champion = queries.champion(engine)
    assert champion is not None
    assert (champion.artifact_id, champion.path, champion.outcome_watermark) == ("three", "var/artifacts/three", 7)
    assert promotions.promote(engine, "three", "manual", "once more") == champion.promotion_id
    assert promotions.rollback(engine, "worse").artifact_id == "two"
    assert promotions.rollback(engine, "worse still").artifact_id == "one"
    with pytest.raises(EmbedRouterError, match="nothing to roll back to"):
        promotions.rollback(engine, "and again")
    promotions.promote(engine, "three", "manual", "was right after all")
    assert promotions.rollback(engine, "no").artifact_id == "one"


def test_an_unknown_artifact_is_refused_with_the_nearest(engine: Engine) -> None:
    add_artifacts(engine, "0123abcd")
    with pytest.raises(EmbedRouterError, match="no artifact 0123abce: perhaps 0123abcd"):
        promotions.promote(engine, "0123abce", "manual", "typo")
    with pytest.raises(EmbedRouterError, match="no artifact zzz"):
        promotions.set_gate(engine, "zzz", GATE)


def test_an_artifact_keeps_its_metrics_and_its_gate(engine: Engine) -> None:
    add_artifacts(engine, "one", "one")
    promotions.set_gate(engine, "one", GATE)
    (row,) = queries.artifacts(engine)
    assert (row.id, row.metrics["methods"]["ours"]["auc"], row.gate) == ("one", 0.8, GATE)


def test_a_jobs_run_is_noted_from_start_to_end(engine: Engine) -> None:
    run_id = promotions.start_job(engine, "retrain")
    assert [(run.status, run.finished_at) for run in queries.job_runs(engine)] == [("running", None)]
    promotions.finish_job(engine, run_id, "refused", detail=GATE)
    (run,) = queries.job_runs(engine)
    assert (run.id, run.job, run.status, run.artifact_id, run.detail) == (run_id, "retrain", "refused", None, GATE)
    assert run.finished_at is not None
    assert run.finished_at >= run.started_at
