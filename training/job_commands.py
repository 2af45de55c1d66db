"""The verbs `jobs run|list`. Imports happen inside the verbs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

Database = Annotated[str | None, typer.Option(help="Database URL; default EMBEDROUTER_DATABASE_URL or SQLite in var/.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
REFUSED_STATUS = 3


class Job(StrEnum):
    """The jobs there are."""

    retrain = "retrain"


def run(
    job: Annotated[Job, typer.Argument(help="Which job.")],
    database: Database = None,
    artifacts_dir: Annotated[Path, typer.Option(help="Where artifacts are written.")] = Path("var/artifacts"),
    encoder: Annotated[str | None, typer.Option(help="As of `train`; default is the champion's.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    force: Annotated[bool, typer.Option(help="Train although the logs are unchanged.")] = False,
    fail_on_refusal: Annotated[
        bool, typer.Option(help=f"Exit with {REFUSED_STATUS} where the gate refuses; otherwise that is 0 too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a job now. `retrain` trains on the logs as they are and promotes the new artifact if the gate says so.

    It ends PROMOTED, REFUSED (with the reasons; the champion stays) or UNCHANGED, and exits with 0 in each case: the
    job has done its work.

    Examples:

    `embedrouter jobs run retrain`

    `embedrouter jobs run retrain --json --fail-on-refusal`
    """
    import json

    from rich.console import Console

    from data.database import opened
    from training.jobs import retrain

    with opened(database) as engine, Console(stderr=True).status(job.value) as status:
        ended = retrain(
            engine,
            artifacts_dir,
            encoder_spec=encoder,
            seed=seed,
            force=force,
            on_progress=lambda step: status.update(f"{job.value}: {step}"),
        )
    if as_json:
        print(json.dumps(ended.as_json()))
    else:
        what = f" {ended.artifact_id}" if ended.artifact_id else ""
        print(f"{ended.status.upper()}{what} ({ended.seconds:.1f} s)")
        for reason in ended.reasons:
            print(f"  - {reason}")
        if ended.status == "refused":
            print(f"{ended.champion_id} stays champion; `embedrouter artifacts promote {ended.artifact_id}` overrules")
    if fail_on_refusal and ended.status == "refused":
        raise typer.Exit(REFUSED_STATUS)


def show_runs(
    database: Database = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the latest.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the latest runs of jobs, the newest first, with how they ended and why.

    Example:

    `embedrouter jobs list --limit 5`
    """
    import json

    from data.database import opened
    from training.jobs import latest_runs

    with opened(database) as engine:
        rows = latest_runs(engine, limit)
    if as_json:
        shown = [
            {
                "run": row.id,
                "job": row.job,
                "status": row.status,
                "artifact": row.artifact_id,
                "started_at": row.started_at.isoformat(timespec="seconds"),
                "finished_at": None if row.finished_at is None else row.finished_at.isoformat(timespec="seconds"),
                "detail": row.detail,
            }
            for row in rows
        ]
        print(json.dumps({"runs": shown}))
        return
    if not rows:
        print("no job was run yet: `embedrouter jobs run retrain`")
    for row in rows:
        started = row.started_at.isoformat(sep=" ", timespec="seconds")
        print(f"{row.id:>4}  {started}  {row.job}  {row.status.upper()}  {row.artifact_id or ''}".rstrip())
        for reason in row.detail.get("reasons", []):
            print(f"      - {reason}")


def register(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
    jobs = typer.Typer(help="Run scheduled work now, and see how it ended.", no_args_is_help=True)
    jobs.command("run")(run)
    jobs.command("list")(show_runs)
    app.add_typer(jobs, name="jobs")
