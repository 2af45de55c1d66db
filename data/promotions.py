"""Writes of what is made from the logs: artifacts, which of them is champion, and the runs of jobs.

Each function is one transaction. Promotions are only ever appended, each naming the one that a rollback returns to.
"""

import difflib
from typing import Any

from sqlalchemy import Connection, Engine, select, update

from data.database import writing
from data.errors import EmbedRouterError
from data.queries import ChampionRow, champion
from data.statements import insert_new, table_of
from data.tables import Artifact, JobRun, Promotion, utc_now


def add_artifact(
    engine: Engine,
    artifact_id: str,
    *,
    path: str,
    encoder_fingerprint: str,
    data_fingerprint: str,
    outcome_watermark: int,
    metrics: dict[str, Any],
) -> None:
    """List an artifact; its name is its content, so that listing it again changes only where it lies."""
    row = {
        "id": artifact_id,
        "path": path,
        "encoder_fingerprint": encoder_fingerprint,
        "data_fingerprint": data_fingerprint,
        "outcome_watermark": outcome_watermark,
        "metrics": metrics,
        "created_at": utc_now(),
    }
    with writing(engine) as connection:
        insert_new(connection, Artifact, [row])
        connection.execute(update(Artifact).where(Artifact.id == artifact_id, Artifact.path != path).values(path=path))


def set_gate(engine: Engine, artifact_id: str, gate: dict[str, Any]) -> None:
    """Keep the gate's verdict with the artifact that it judged."""
    with writing(engine) as connection:
        _require_artifact(connection, artifact_id)
        connection.execute(update(Artifact).where(Artifact.id == artifact_id).values(gate=gate))


def promote(engine: Engine, artifact_id: str, kind: str, reason: str) -> int:
    """Make an artifact the champion; the promotion's id. What is champion already stays so, unrepeated."""
    with writing(engine, lock="promotions") as connection:
        _require_artifact(connection, artifact_id)
        current = champion(connection)
        if current is not None and current.artifact_id == artifact_id:
            return current.promotion_id
        return _append_promotion(
            connection, artifact_id, None if current is None else current.promotion_id, kind, reason
        )


def promote_over(engine: Engine, artifact_id: str, over: int | None, kind: str, reason: str) -> bool:
    """Promote only where the champion is still the one of promotion `over` (None: where there is none yet)."""
    with writing(engine, lock="promotions") as connection:
        _require_artifact(connection, artifact_id)
        current = champion(connection)
        if (None if current is None else current.promotion_id) != over:
            return False
        if current is None or current.artifact_id != artifact_id:
            _append_promotion(connection, artifact_id, over, kind, reason)
        return True


def rollback(engine: Engine, reason: str) -> ChampionRow:
    """Bring back the champion before this one; a second rollback goes one further back."""
    with writing(engine, lock="promotions") as connection:
        current = champion(connection)
        if current is None or current.parent_id is None:
            raise EmbedRouterError("nothing to roll back to: no artifact was champion before this one")
        parent = connection.execute(
            select(Promotion.artifact_id, Promotion.parent_id).where(Promotion.id == current.parent_id)
        ).one()
        _append_promotion(connection, parent.artifact_id, parent.parent_id, "rollback", reason)
        restored = champion(connection)
        assert restored is not None
        return restored


def start_job(engine: Engine, job: str, detail: dict[str, Any] | None = None) -> int:
    """Note that a job runs; its run's id."""
    row = {"job": job, "status": "running", "detail": detail or {}, "started_at": utc_now()}
    with writing(engine) as connection:
        return int(connection.execute(table_of(JobRun).insert().returning(JobRun.id), row).scalar_one())


def interrupt_jobs(engine: Engine, job: str) -> int:
    """Note that a job's unended runs were interrupted; how many. The caller knows that none runs."""
    ended = {"status": "interrupted", "finished_at": utc_now()}
    with writing(engine) as connection:
        return connection.execute(
            update(JobRun).where(JobRun.job == job, JobRun.status == "running").values(ended)
        ).rowcount


def finish_job(
    engine: Engine, run_id: int, status: str, *, artifact_id: str | None = None, detail: dict[str, Any] | None = None
) -> None:
    """Note how a job's run ended: promoted, refused, unchanged or failed."""
    values = {"status": status, "artifact_id": artifact_id, "detail": detail or {}, "finished_at": utc_now()}
    with writing(engine) as connection:
        connection.execute(update(JobRun).where(JobRun.id == run_id).values(values))


def _require_artifact(connection: Connection, artifact_id: str) -> None:
    known = list(connection.execute(select(Artifact.id)).scalars())
    if artifact_id not in known:
        near = difflib.get_close_matches(artifact_id, known, n=3, cutoff=0.4)
        hint = f": perhaps {', '.join(near)}" if near else ": `embedrouter artifacts list` shows them"
        raise EmbedRouterError(f"no artifact {artifact_id}{hint}")


def _append_promotion(connection: Connection, artifact_id: str, parent_id: int | None, kind: str, reason: str) -> int:
    row = {"artifact_id": artifact_id, "parent_id": parent_id, "kind": kind, "reason": reason, "created_at": utc_now()}
    return int(connection.execute(table_of(Promotion).insert().returning(Promotion.id), row).scalar_one())
