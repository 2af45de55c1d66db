"""The verbs of `data`. Imports happen inside the verbs: this module loads on every `embedrouter --help`."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data import imports_commands

if TYPE_CHECKING:
    from data.importers.intake import ImportSummary
    from data.queries import ModelRow
    from data.store import ModelFields

Database = Annotated[
    str | None,
    typer.Option(help="Database URL; default $EMBEDROUTER_DATABASE_URL, then sqlite:///var/embedrouter.db."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
LogFolder = Annotated[Path, typer.Argument(help="The folder with the log's files.")]
Source = Annotated[
    str | None,
    typer.Option(
        help="Name under which the outcomes are kept; default FORMAT:FOLDER, or that of the same files' first import."
    ),
]


def register(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
    db = typer.Typer(help="The database's tables.", no_args_is_help=True)
    db.command("upgrade")(db_upgrade)
    db.command("check")(db_check)
    app.add_typer(db, name="db")
    imports = typer.Typer(help="Bring correctness logs into the database.", no_args_is_help=True)
    imports.command("long")(import_long)
    imports.command("embedllm")(import_embedllm)
    app.add_typer(imports, name="import")
    imports_commands.register(app)
    models = typer.Typer(help="The pool of models: prices, limits, upstreams.", no_args_is_help=True)
    models.command("list")(models_list)
    models.command("set")(models_set)
    models.command("show")(models_show)
    models.command("retire")(models_retire)
    models.command("restore")(models_restore)
    app.add_typer(models, name="models")


def db_upgrade(database: Database = None) -> None:
    """Bring the database to this release's tables.

    Example: `embedrouter db upgrade --database postgresql+psycopg://me@db.example/embedrouter`
    """
    from data.database import check, database_url, open_engine, shown_url, upgrade

    engine = open_engine(database_url(database))
    upgrade(engine)
    check(engine)
    print(f"{shown_url(engine.url)} is up to date")


def db_check(database: Database = None) -> None:
    """Say whether the database has this release's tables; exit 1 where it has not.

    Example: `embedrouter db check`
    """
    from data.database import check, database_url, open_engine, shown_url

    engine = open_engine(database_url(database))
    check(engine)
    print(f"{shown_url(engine.url)} is up to date")


def import_long(path: LogFolder, source: Source = None, database: Database = None, as_json: AsJson = False) -> None:
    """Import a long-format folder: questions.csv, models.csv and correctness.parquet, .csv or .jsonl.

    The same folder again adds nothing, so an import that was killed is simply run again. Bad rows go to a file below
    var/rejects, with line number and reason.

    Example: `embedrouter import long ../shared/data/zeroeval`
    """
    from data.database import ready_engine
    from data.importers.long import import_folder

    with _progress(shown=not as_json) as on_progress:
        _print_summary(import_folder(ready_engine(database), path, source, on_progress), as_json)


def import_embedllm(path: LogFolder, source: Source = None, database: Database = None, as_json: AsJson = False) -> None:
    """Import EmbedLLM's files: train.csv, val.csv, test.csv, model_order.csv and question_order.csv.

    Every repeated and conflicting label is kept; they are aggregated when the log is read.

    Example: `embedrouter import embedllm downloads/EmbedLLM --source embedllm-2024`
    """
    from data.database import ready_engine
    from data.importers.embedllm import import_folder

    with _progress(shown=not as_json) as on_progress:
        _print_summary(import_folder(ready_engine(database), path, source, on_progress), as_json)


def models_list(database: Database = None, as_json: AsJson = False) -> None:
    """List the pool.

    Example: `embedrouter models list --json`
    """
    from rich.console import Console
    from rich.table import Table

    from data.database import ready_engine
    from data.queries import pool_models

    rows = pool_models(ready_engine(database))
    if as_json:
        print(json.dumps({"models": [_shown(row) for row in rows]}, indent=2))
        return
    table = Table(box=None)
    table.add_column("model", no_wrap=True)  # a name that is cut short could be any of several
    for header in ("USD/1M in", "USD/1M out", "context", "outcomes", "upstream", "notes"):
        table.add_column(header)
    for row in rows:
        notes = [*row.capabilities, *(["retired"] if row.retired else []), *(f"alias {alias}" for alias in row.aliases)]
        prices = (_price(row.usd_per_1m_input), _price(row.usd_per_1m_output))
        window = str(row.context_window or "")
        upstream = _shown(row)["upstream_url"] or ""
        table.add_row(row.name, *prices, window, str(row.n_outcomes), upstream, ", ".join(notes))
    Console().print(table if rows else "no models yet: `embedrouter import` or `embedrouter models set` brings them")


def models_show(
    name: Annotated[str, typer.Argument(help="The model's name or alias.")],
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Show one model.

    Example: `embedrouter models show gpt-4o-2024-08-06`
    """
    from data.database import ready_engine
    from data.queries import pool_models

    shown_row = _shown(_find(pool_models(ready_engine(database)), name))
    if as_json:
        print(json.dumps(shown_row, indent=2))
        return
    for field, value in shown_row.items():
        shown = ", ".join(value) if isinstance(value, tuple) else "" if value is None else value
        print(f"{field:18} {shown}")


def models_set(
    name: Annotated[str, typer.Argument(help="The model's name, as the logs call it.")],
    usd_per_1m_input: Annotated[float | None, typer.Option(help="USD per million input tokens.")] = None,
    usd_per_1m_output: Annotated[float | None, typer.Option(help="USD per million output tokens.")] = None,
    context_window: Annotated[int | None, typer.Option(help="Tokens that a request may have.")] = None,
    capability: Annotated[list[str] | None, typer.Option(help="What it can do, such as tools; repeatable.")] = None,
    alias: Annotated[list[str] | None, typer.Option(help="Another name of the model; repeatable.")] = None,
    upstream_url: Annotated[str | None, typer.Option(help="OpenAI-compatible base URL, ending in /v1.")] = None,
    upstream_model: Annotated[str | None, typer.Option(help="The model's id there.")] = None,
    upstream_key_env: Annotated[str | None, typer.Option(help="Environment variable that holds its key.")] = None,
    retired: Annotated[bool | None, typer.Option("--retired/--active", help="Whether it is out of use.")] = None,
    database: Database = None,
) -> None:
    """Set what is known of a model; one that is not there yet is created.

    Example: `embedrouter models set gpt-4o --usd-per-1m-input 2.5 --usd-per-1m-output 10 --capability tools
    --upstream-url https://api.openai.com/v1 --upstream-model gpt-4o-2024-08-06 --upstream-key-env OPENAI_API_KEY`
    """
    from data.database import ready_engine
    from data.store import set_model

    given = {
        "usd_per_1m_input": usd_per_1m_input,
        "usd_per_1m_output": usd_per_1m_output,
        "context_window": context_window,
        "capabilities": sorted({*capability}) if capability else None,
        "aliases": alias,
        "upstream_url": upstream_url,
        "upstream_model": upstream_model,
        "upstream_key_env": upstream_key_env,
        "retired": retired,
    }
    fields: ModelFields = {key: value for key, value in given.items() if value is not None}  # type: ignore[assignment]
    created = set_model(ready_engine(database), name, **fields)
    print(f"{name}: {'created' if created else 'changed' if fields else 'nothing to change'}")


def models_retire(
    name: Annotated[str, typer.Argument(help="The model's name or alias.")], database: Database = None
) -> None:
    """Take a model out of use: a running server stops choosing it within seconds. Its logs stay.

    Example: `embedrouter models retire gpt-4o-2024-05-13`
    """
    _set_retired(name, database, retired=True)


def models_restore(
    name: Annotated[str, typer.Argument(help="The model's name or alias.")], database: Database = None
) -> None:
    """Bring a retired model back into use.

    Example: `embedrouter models restore gpt-4o-2024-05-13`
    """
    _set_retired(name, database, retired=False)


def _set_retired(name: str, database: str | None, *, retired: bool) -> None:
    from data.database import ready_engine
    from data.queries import pool_models
    from data.store import set_model

    engine = ready_engine(database)
    row = _find(pool_models(engine), name)
    state = "retired" if retired else "in use"
    if row.retired == retired:
        print(f"{row.name} is {state} already")
        return
    set_model(engine, row.name, retired=retired)
    print(f"{row.name} is {state}; a running server takes it within seconds")


@contextmanager
def _progress(*, shown: bool) -> Iterator[Callable[[str, float], None] | None]:
    """A bar for each stage on a terminal's standard error, and nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description:22}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        stages: dict[str, TaskID] = {}

        def on_progress(stage: str, fraction: float) -> None:
            if stage not in stages:
                stages[stage] = bar.add_task(stage, total=1.0)
            bar.update(stages[stage], completed=fraction)

        yield on_progress


def _print_summary(summary: "ImportSummary", as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        print(json.dumps(asdict(summary), indent=2))
        return
    print(f"imported {summary.path} as {summary.source} in {summary.seconds:.1f} s")
    print(f"  questions  {summary.n_new_questions:>9,} new")
    print(f"  models     {summary.n_new_models:>9,} new")
    print(
        f"  outcomes   {summary.n_new:>9,} new, {summary.n_repeated:,} repeated, "
        f"{summary.n_conflicting:,} conflicting, {summary.n_rejected:,} rejected"
    )
    for reject in summary.first_rejects:
        print(f"    {reject}")
    if summary.rejects is not None:
        print(f"  all {summary.n_rejected:,} rejected rows are in {summary.rejects}")


def _find(rows: "list[ModelRow]", name: str) -> "ModelRow":
    import difflib

    from data.errors import EmbedRouterError

    for row in rows:
        if name == row.name or name in row.aliases:
            return row
    near = difflib.get_close_matches(name, [known for row in rows for known in (row.name, *row.aliases)], n=3)
    hint = f"perhaps {', '.join(near)}" if near else "`embedrouter models list` shows all"
    raise EmbedRouterError(f"no model {name}: {hint}")


def _shown(row: "ModelRow") -> dict[str, Any]:
    """A model as printed: an older database may hold a URL with a password in it."""
    from dataclasses import asdict

    from data.model_names import shown_url

    return asdict(row) | {"upstream_url": row.upstream_url and shown_url(row.upstream_url)}


def _price(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
