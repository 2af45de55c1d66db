"""Retraining: train a challenger on the logs as they are now, send it through the gate, and keep a record of both.

One retrain at a time for a database, whichever machine it runs on. A run that ends badly leaves `failed` with its
error behind; one whose process vanished is `interrupted`.
"""

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from data import promotions, queries
from data.locks import LOGS, holding, sharing
from data.queries import JobRow
from data.splits import group_questions
from router.artifact import Artifact, read_artifact
from router.encoder import DEFAULT_ENCODER
from router.errors import ArtifactFormatError
from training.dataset import Correctness
from training.errors import TrainingError
from training.gate import champion_folder, promote_through_gate
from training.train import train

RETRAIN = "retrain"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Retrained:
    """How a retrain ended: promoted, refused or unchanged, and why. `artifact_id` is the challenger's."""

    run_id: int
    status: str
    reasons: tuple[str, ...]
    artifact_id: str | None
    champion_id: str | None
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return {
            "run": self.run_id,
            "job": RETRAIN,
            "status": self.status,
            "reasons": list(self.reasons),
            "artifact": self.artifact_id,
            "champion": self.champion_id,
            "seconds": round(self.seconds, 2),
        }


def retrain(
    engine: Engine,
    artifacts_root: Path,
    *,
    encoder_spec: str | None = None,
    seed: int = 0,
    force: bool = False,
    on_progress: Progress = lambda _: None,
) -> Retrained:
    """Train a challenger and let the gate decide; `unchanged` where the champion was trained on the same data.

    encoder_spec: None takes the champion's. `force` trains on unchanged data too. TrainingError while another
    retrain runs on this database.
    """
    with holding(engine, RETRAIN) as free:
        if not free:
            raise TrainingError(_who_runs(queries.job_runs(engine)))
        promotions.interrupt_jobs(engine, RETRAIN)  # the lock is ours, so none of them is alive
        where = {"host": platform.node(), "pid": os.getpid()}
        run_id = promotions.start_job(engine, RETRAIN, where)
        started = time.perf_counter()
        try:
            with sharing(engine, LOGS):
                ended = _run(engine, artifacts_root, run_id, encoder_spec, seed, force, on_progress)
        except BaseException as error:
            status = "failed" if isinstance(error, Exception) else "interrupted"
            said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            promotions.finish_job(engine, run_id, status, detail=where | {"reasons": [said]})
            raise
        ended = replace(ended, seconds=time.perf_counter() - started)
        detail = where | {"reasons": list(ended.reasons), "seconds": round(ended.seconds, 2)}
        promotions.finish_job(engine, run_id, ended.status, artifact_id=ended.artifact_id, detail=detail)
        return ended


def latest_runs(engine: Engine, limit: int = 100) -> list[JobRow]:
    """The latest runs of jobs, the newest first; one that never ended and is not alive is shown as interrupted."""
    rows = queries.job_runs(engine, limit)
    if any(row.status == "running" for row in rows):
        with holding(engine, RETRAIN) as free:
            if free:
                rows = [replace(row, status="interrupted") if row.status == "running" else row for row in rows]
    return rows


def _run(
    engine: Engine,
    artifacts_root: Path,
    run_id: int,
    encoder_spec: str | None,
    seed: int,
    force: bool,
    on_progress: Progress,
) -> Retrained:
    on_progress("reading the champion")
    row = queries.champion(engine)
    champion, champions_encoder = None, None
    try:
        champion = None if row is None else read_artifact(champion_folder(row, artifacts_root))
    except ArtifactFormatError as error:  # the gate says what that means
        champions_encoder = error.encoder
    if champion is not None and not force and encoder_spec in (None, champion.manifest.encoder):
        group_questions(engine)  # those that feedback brought have no split yet
        data = Correctness.from_log(queries.read_log(engine))
        if data.fingerprint() == champion.manifest.data_fingerprint:
            reason = f"the logs are those that the champion {champion.id} was trained on; --force trains all the same"
            return Retrained(run_id, "unchanged", (reason,), None, champion.id, 0)
    trained = train(
        engine,
        artifacts_root,
        encoder_spec=encoder_spec or champions_encoder or _encoder_of(champion),
        seed=seed,
        on_progress=on_progress,
    )
    on_progress("comparing with the champion")
    verdict = promote_through_gate(engine, trained.artifact, RETRAIN)
    now = queries.champion(engine)
    status = "promoted" if verdict.promote else "refused"
    champion_id = None if now is None else now.artifact_id
    return Retrained(run_id, status, verdict.reasons, trained.artifact.id, champion_id, 0)


def _encoder_of(champion: Artifact | None) -> str:
    return DEFAULT_ENCODER if champion is None else champion.manifest.encoder


def _who_runs(rows: Sequence[JobRow]) -> str:
    running = next((row for row in rows if row.job == RETRAIN and row.status == "running"), None)
    if running is None:
        return "a retrain runs on this database already: wait for it to end"
    since = running.started_at.isoformat(timespec="seconds")
    process, host = running.detail.get("pid"), running.detail.get("host")
    return f"a retrain runs on this database already, since {since} as process {process} on {host}: wait for it to end"
