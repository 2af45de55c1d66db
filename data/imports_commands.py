"""The verbs `imports list|forget`. Imports happen inside the verbs."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from data.imports import Forgetting, ImportRow

Database = Annotated[
    str | None,
    typer.Option(help="Database URL; default $EMBEDROUTER_DATABASE_URL, then sqlite:///var/embedrouter.db."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
N_NAMED = 8


def show_imports(database: Database = None, as_json: AsJson = False) -> None:
    """List the imports, the oldest first: what each brought, and where it came from.

    Example: `embedrouter imports list`
    """
    from rich.console import Console
    from rich.table import Table

    from data.database import opened
    from data.imports import list_imports

    with opened(database) as engine:
        rows = list_imports(engine)
    if as_json:
        print(json.dumps({"imports": [_as_json(row) for row in rows]}, indent=2))
        return
    if not rows:
        print("no imports yet: `embedrouter import` brings logs")
        return
    table = Table(box=None, pad_edge=False)
    for header in ("id", "source", "begun (UTC)"):
        table.add_column(header, overflow="fold", justify="right" if header == "id" else "left")
    for header in ("new", "repeated", "conflicting", "rejected"):
        table.add_column(header, justify="right", overflow="fold")
    for row in rows:
        ended = "" if row.finished_at else " (unfinished)"
        counts = (row.n_new, row.n_repeated, row.n_conflicting, row.n_rejected)
        begun = f"{row.started_at:%Y-%m-%d %H:%M}{ended}"
        table.add_row(str(row.id), row.source, begun, *(f"{count:,}" for count in counts))
    Console().print(table)


def forget(
    which: Annotated[str, typer.Argument(metavar="ID|SOURCE", help="An import's id, or a source: all its imports.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Delete an import: its outcomes, and the questions and models that nothing else refers to.

    It says what will go and asks first. Importing the same files again brings everything back. Artifacts stay as they
    are; the next retrain does not know the outcomes any more.

    Example: `embedrouter imports forget long:march --yes`
    """
    from data.database import opened
    from data.errors import EmbedRouterError
    from data.imports import find_imports, forget_imports, plan_forgetting

    with opened(database) as engine:
        ids = [row.id for row in find_imports(engine, which)]
        if not yes:
            _tell("this will go:", plan_forgetting(engine, ids), to_stderr=as_json)
            if not sys.stdin.isatty():
                raise EmbedRouterError("nothing was forgotten: say --yes to do it without being asked")
            if not typer.confirm("Forget it?", err=as_json):
                raise EmbedRouterError("nothing was forgotten")
        gone = forget_imports(engine, ids)
    if as_json:
        print(json.dumps(_forgotten(gone), indent=2))
    else:
        _tell("forgotten:", gone)


def register(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
    imports = typer.Typer(help="What was imported, and forgetting it again.", no_args_is_help=True)
    imports.command("list")(show_imports)
    imports.command()(forget)
    app.add_typer(imports, name="imports")


def _tell(title: str, what: "Forgetting", *, to_stderr: bool = False) -> None:
    file = sys.stderr if to_stderr else sys.stdout
    print(title, file=file)
    for row in what.imports:
        print(f"  import {row.id} of {row.source} ({row.format}, from {row.path})", file=file)
    names = ", ".join(what.models[:N_NAMED]) + (", ..." if len(what.models) > N_NAMED else "")
    print(f"  outcomes   {what.n_outcomes:>9,}", file=file)
    print(f"  questions  {what.n_questions:>9,}, which no other outcomes refer to", file=file)
    print(f"  models     {len(what.models):>9,}{f', known by nothing else: {names}' if names else ''}", file=file)
    if what.n_vectors:
        print(f"  vectors    {what.n_vectors:>9,} cached", file=file)
    if what.restated_by:
        ids = ", ".join(map(str, what.restated_by))
        print(f"later imports of the same source ({ids}) repeated outcomes: run them again to have these", file=file)
    if what.champion is not None:
        print(
            f"the champion {what.champion} was trained with some of the outcomes and stays: `embedrouter jobs run "
            "retrain` makes one without",
            file=file,
        )


def _forgotten(gone: "Forgetting") -> dict[str, Any]:
    return {
        "forgotten": [_as_json(row) for row in gone.imports],
        "n_outcomes": gone.n_outcomes,
        "n_questions": gone.n_questions,
        "n_vectors": gone.n_vectors,
        "models": list(gone.models),
        "restated_by": list(gone.restated_by),
        "champion_trained_with_it": gone.champion,
    }


def _as_json(row: "ImportRow") -> dict[str, Any]:
    from dataclasses import asdict

    times = {"started_at": row.started_at.isoformat(timespec="seconds"), "finished_at": None}
    if row.finished_at is not None:
        times["finished_at"] = row.finished_at.isoformat(timespec="seconds")
    return asdict(row) | times
