"""The verb `probe`. Imports happen inside it."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from training.probe import Probe


def probe(
    artifact: Annotated[
        str | None, typer.Option(help="An artifact's id or its beginning; default the champion.")
    ] = None,
    stability: Annotated[bool, typer.Option(help="Fit once more with another seed and compare.")] = True,
    seed: Annotated[int, typer.Option(help="Seed of the permutations.")] = 0,
    database: Annotated[
        str | None, typer.Option(help="Database URL; default EMBEDROUTER_DATABASE_URL or SQLite in var/.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Show what the model embeddings know: families, sizes, near-duplicate models, benchmarks, stability.

    Models are compared by what they are predicted to get right on the logged questions, never by raw coordinates.

    Examples:

    `embedrouter probe`

    `embedrouter probe --artifact 3f1c --no-stability --json`
    """
    import json
    from dataclasses import asdict

    from rich.console import Console

    from data.database import opened
    from training.model_map import map_space
    from training.probe import probe as run
    from training.probe import space_of
    from training.source import read_source

    with opened(database) as engine, Console(stderr=True).status("probing") as status:
        source = read_source(engine, artifact)
        found = run(
            engine,
            source,
            stability=stability,
            seed=seed,
            on_progress=lambda step: status.update(f"probing: {step}"),
        )
    if not as_json:
        _print(source.row.id, found)
        return
    answer = asdict(found)
    if found.gains is not None:
        for name in ("gain", "counted"):
            table = getattr(found.gains, name)
            answer["gains"][name] = [[None if value != value else float(value) for value in row] for row in table]
    logged = source.artifact.logged_questions()
    placed = None if logged is None else map_space(space_of(source.artifact, logged))
    if placed is not None:
        positions = zip(placed.names, placed.position.tolist(), strict=True)
        answer["map"] = {
            "shares": placed.shares,
            "models": [{"model": name, "x": x, "y": y} for name, (x, y) in positions],
        }
    print(json.dumps({"artifact": source.row.id, **answer}))


def _print(artifact_id: str, found: "Probe") -> None:
    from rich.console import Console

    from training.probe_tables import render

    console = Console()
    console.print(f"artifact [bold]{artifact_id}[/bold]: {found.n_models} models, {found.n_questions:,} questions")
    for part in render(found):
        console.print(part, highlight=False)


def register(app: typer.Typer) -> None:
    """Add this verb to the command line."""
    app.command()(probe)
