"""The verbs `artifacts list|promote|rollback`. Imports happen inside the verbs."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from data.queries import ArtifactRow

MAX_WIDTH = 500
Database = Annotated[str | None, typer.Option(help="Database URL; default EMBEDROUTER_DATABASE_URL or SQLite in var/.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def show_artifacts(database: Database = None, as_json: AsJson = False) -> None:
    """List the artifacts, the newest first; the champion is the one that serves.

    Example:

    `embedrouter artifacts list`
    """
    import json

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from data import queries
    from data.database import opened

    with opened(database) as engine:
        champion, rows = queries.champion(engine), queries.artifacts(engine)
    champion_id = None if champion is None else champion.artifact_id
    shown = [_summary(row, champion_id) for row in rows]
    if as_json:
        print(json.dumps({"champion": champion_id, "artifacts": shown}))
        return
    if not shown:
        print("no artifacts yet: `embedrouter train` makes one")
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    console = Console()
    for title in ("artifact", "", "created (UTC)"):
        table.add_column(title, no_wrap=True)
    for title in ("NLL", "AUC", "routing"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("gate", no_wrap=True)
    for one in shown:
        table.add_row(
            one["id"],
            "[bold]champion[/bold]" if one["champion"] else "",
            one["created_at"][:16].replace("T", " "),
            *("–" if one[name] is None else f"{one[name]:.4f}" for name in ("nll", "auc", "routing_accuracy")),
            {None: "–", True: "passed", False: "refused"}[one["gate_promote"]],
        )
    natural = console.measure(table, options=console.options.update(max_width=MAX_WIDTH)).maximum
    Console(width=max(console.width, natural)).print(table)  # a narrow terminal breaks the lines, and nothing is cut
    for one in shown:
        if one["measured_on"] is not None:
            print(f"{one['id']} was not measured: it is {one['measured_on']} with models onboarded since")
    for one in shown:
        if one["gate_promote"] is False:
            print(f"{one['id']} was refused:")
            for reason in one["gate_reasons"]:
                print(f"  - {reason}")


def promote(
    artifact: Annotated[str, typer.Argument(help="An artifact's id, or as much of its beginning as is unique.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the promotion.")] = "by hand",
    database: Database = None,
) -> None:
    """Make an artifact the champion by hand, whatever the gate said of it.

    A running server takes it within seconds. It is read first: a directory that is gone or was changed is refused.

    Example:

    `embedrouter artifacts promote 3f1c --reason "the labels were checked"`
    """
    from pathlib import Path

    from data import promotions, queries
    from data.database import opened
    from router.artifact import read_artifact

    with opened(database) as engine:
        row = _find(queries.artifacts(engine), artifact)
        champion = queries.champion(engine)
        if champion is not None and champion.artifact_id == row.id:
            print(f"{row.id} is the champion already")
            return
        read_artifact(Path(row.path))
        promotions.promote(engine, row.id, "manual", reason)
    print(f"{row.id} is the champion now")
    if champion is not None:
        print(f"`embedrouter artifacts rollback` brings {champion.artifact_id} back")


def rollback(
    reason: Annotated[str, typer.Option(help="Why; kept with the promotion.")] = "by hand", database: Database = None
) -> None:
    """Bring back the champion before this one; again, and it goes one further back.

    Logs stay as they are: answers that were onboarded go with `embedrouter imports forget answers:MODEL`.

    Example:

    `embedrouter artifacts rollback --reason "answers got worse"`
    """
    from pathlib import Path

    from data import promotions, queries
    from data.database import opened
    from router.artifact import read_artifact

    with opened(database) as engine:
        before, target = queries.champion(engine), queries.rollback_target(engine)
        if target is not None:
            read_artifact(Path(target.path))
        restored = promotions.rollback(engine, reason)
    print(f"{restored.artifact_id} is the champion again, in place of {before.artifact_id if before else 'none'}")
    if before is not None and before.kind == "onboard":
        print(
            "the onboarded answers stay stored, and the next onboarding or training learns from them: "
            "`embedrouter imports forget answers:MODEL --yes` forgets them"
        )


def register(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
    artifacts = typer.Typer(help="List trained artifacts; promote one or roll back.", no_args_is_help=True)
    artifacts.command("list")(show_artifacts)
    artifacts.command()(promote)
    artifacts.command()(rollback)
    app.add_typer(artifacts, name="artifacts")


def _summary(row: "ArtifactRow", champion_id: str | None) -> dict[str, Any]:
    """What a list says of an artifact; its figures are the default method's on the test questions.

    measured_on: the artifact whose figures are listed with it, where models were onboarded to that; its own are none.
    """
    measured_on = row.metrics.get("measured_on")
    methods = {} if measured_on else row.metrics.get("methods") or {}
    figures = methods.get(row.metrics.get("default", "")) or {}
    gate = row.gate or {}
    return {
        "id": row.id,
        "champion": row.id == champion_id,
        "created_at": row.created_at.isoformat(timespec="seconds"),
        "n_questions": (row.metrics.get("dataset") or {}).get("n_questions"),
        "measured_on": measured_on,
        "nll": figures.get("nll"),
        "auc": figures.get("auc"),
        "routing_accuracy": figures.get("routing_accuracy"),
        "gate_promote": gate.get("promote"),
        "gate_reasons": gate.get("reasons", []),
        "path": row.path,
    }


def _find(rows: "list[ArtifactRow]", prefix: str) -> "ArtifactRow":
    from data.errors import EmbedRouterError

    matching = [row for row in rows if row.id.startswith(prefix)]
    if not matching:
        known = ", ".join(row.id for row in rows[:5]) or "none: `embedrouter train` makes one"
        raise EmbedRouterError(f"no artifact begins with {prefix!r}; there is {known}")
    if len(matching) > 1:
        raise EmbedRouterError(f"{prefix!r} begins {', '.join(row.id for row in matching)}: say more of the one meant")
    return matching[0]
