"""The verb `report`. Imports happen inside the verb."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    output: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("var/report.html"),
    artifact: Annotated[
        str | None, typer.Option(help="An artifact's id or its beginning; default the champion.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="Database URL; default EMBEDROUTER_DATABASE_URL or SQLite in var/.")
    ] = None,
    stability: Annotated[bool, typer.Option(help="Fit once more with another seed and compare.")] = True,
    controls: Annotated[
        Path | None, typer.Option(help="Controls to show: the JSON of tests/benchmarks/bench_controls.py.")
    ] = None,
    comparison: Annotated[
        Path | None,
        typer.Option(help="EmbedLLM's own procedure beside it: the JSON of tests/benchmarks/bench_learning.py."),
    ] = None,
    ablation: Annotated[
        Path | None,
        typer.Option(help="What it loses without each part: the JSON of tests/benchmarks/bench_forecasts.py."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write a self-contained HTML page on an artifact: comparison, cost, calibration, forecasts, what it knows.

    The file needs no network; send it to whoever asks.

    Examples:

    `embedrouter report`

    `embedrouter report --artifact 3f1c --output /tmp/report.html`

    `embedrouter report --comparison comparison.json --ablation ablation.json`
    """
    import json

    from rich.console import Console

    from data.database import opened
    from training.report.build import build_report
    from training.report.controls import read_controls
    from training.report.measured import ABLATION, COMPARISON, read_measured
    from training.report.page import write_page

    shown = read_controls(controls) if controls else ()
    measured = (
        *(read_measured(comparison, COMPARISON) if comparison else ()),
        *(read_measured(ablation, ABLATION) if ablation else ()),
    )

    with opened(database) as engine, Console(stderr=True).status("writing the report") as status:
        built = build_report(
            engine,
            artifact,
            stability=stability,
            controls=shown,
            measured=measured,
            on_progress=lambda step: status.update(f"writing the report: {step}"),
        )
        write_page(built, output)
    if as_json:
        print(json.dumps({"artifact": built.artifact_id, "output": str(output), "bytes": output.stat().st_size}))
    else:
        print(f"{output} ({output.stat().st_size / 1e6:.1f} MB): artifact {built.artifact_id}; open it in a browser")


def register(app: typer.Typer) -> None:
    """Add this verb to the command line."""
    app.command()(report)
