"""The verb `forecast`. Imports happen inside it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from training.forecast_pool import BenchmarkForecast

WIDE = 0.5  # an interval that tells little of the level
N_TO_LABEL = 20


def forecast(
    benchmark: Annotated[str, typer.Option(help="The benchmark's name; for a new one any, with --questions.")],
    model: Annotated[str | None, typer.Option(help="One model; default: every model of the logs.")] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            help="Labelled items: question_id, label (0 to 1); for several models model_name; rows whose column "
            "benchmark names another are left out."
        ),
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(help="A new benchmark's prompts: prompt, and question_id (default: 1, 2, ...).")
    ] = None,
    suggest: Annotated[
        int | None, typer.Option(min=1, help="Instead, name this many items of a known benchmark to label.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where suggested items go, a .csv to fill in; default: print.")
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="The model is in no log, and has no answers yet.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    artifacts_dir: Annotated[Path, typer.Option(help="Where artifacts are.")] = Path("var/artifacts"),
    database: Annotated[
        str | None, typer.Option(help="Database URL; default EMBEDROUTER_DATABASE_URL or SQLite in var/.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Forecast accuracy on a benchmark with a 90% interval, from few labelled items or none.

    Labels that the logs or --answers hold count as they are; the rest is forecast, from other models' answers to the
    same questions where the benchmark is known, from the questions' text where it is new.

    Examples:

    `embedrouter forecast --benchmark gsm`

    `embedrouter forecast --model my-model --benchmark gsm --answers fifty.csv`

    `embedrouter forecast --model my-model --benchmark gsm --suggest 50 --output fifty.csv`

    `embedrouter forecast --benchmark legal --questions legal.csv --answers labelled.csv --json`
    """
    from data.errors import EmbedRouterError

    if suggest is not None:
        if answers or questions:
            raise EmbedRouterError("--suggest names items of the logs to label: without --answers and --questions")
        _suggest(benchmark, model, suggest, output, seed, database, as_json)
        return
    if output is not None:
        raise EmbedRouterError(f"--output {output} is for --suggest; a forecast is printed")

    import json
    from dataclasses import asdict

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from data.database import opened
    from training.forecast import LEVEL
    from training.forecast_pool import forecast_benchmark

    with opened(database) as engine, Console(stderr=True).status("forecasting") as status:
        found = forecast_benchmark(
            engine,
            artifacts_dir,
            benchmark,
            model=model,
            is_new=new,
            questions=questions,
            answers=answers,
            seed=seed,
            on_progress=lambda step: status.update(f"forecasting: {step}"),
        )
    if as_json:
        answer = {
            "benchmark": found.benchmark,
            "n_items": found.n_items,
            "artifact": found.artifact,
            "level": LEVEL,
            "n_labels_elsewhere": found.n_labels_elsewhere,
            "n_benchmarks": found.n_benchmarks,
            "note": _note(found),
            "forecasts": [{"model": row.model, "regime": row.regime, **asdict(row.forecast)} for row in found.rows],
        }
        print(json.dumps(answer))
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(f"{found.benchmark}, {found.n_items:,} items", overflow="fold")
    for title in ("accuracy", "90% interval", "labelled", "their mean"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("stands on")
    for row in found.rows:
        one = row.forecast
        table.add_row(
            row.model,
            f"{one.accuracy:.3f}",
            "" if one.low == one.high else f"{one.low:.3f} – {one.high:.3f}",
            f"{one.n_labelled:,}",
            "–" if one.sample_mean is None else f"{one.sample_mean:.3f}",
            row.regime,
        )
    Console().print(table)
    if found.n_labels_elsewhere:
        print(f"left out of {answers}: {found.n_labels_elsewhere:,} labelled rows of other benchmarks")
    if note := _note(found):
        print(note)


def _note(found: "BenchmarkForecast") -> str | None:
    """What to make of wide intervals on a new benchmark, and what narrows them; nothing where there are none."""
    if found.n_benchmarks is None:
        return None
    if not any(not row.forecast.n_labelled and row.forecast.high - row.forecast.low > WIDE for row in found.rows):
        return None
    plural = "s" * (found.n_benchmarks != 1)
    return (
        "without labelled items the order of models says more than their level, which is learned from "
        f"{found.n_benchmarks} known benchmark{plural}. About {N_TO_LABEL} labelled items of a model narrow its "
        "interval: name a file of question_id, model_name and label with --answers"
    )


def _suggest(
    benchmark: str, model: str | None, n: int, output: Path | None, seed: int, database: str | None, as_json: bool
) -> None:
    from rich.console import Console

    from data.database import opened
    from training.suggest_labels import suggest_labels
    from training.suggestions import check_output, give

    check_output(output)
    with opened(database) as engine, Console(stderr=True).status("choosing items"):
        chosen = suggest_labels(engine, benchmark, n, model=model, seed=seed)
    said = give(chosen, output, {"benchmark": benchmark, "model": model or ""} if as_json else None)
    if said:
        print(f"{said}: fill in the column label (0 to 1), then")
        print(f"`embedrouter forecast --model {model or 'MODEL'} --benchmark {benchmark} --answers {output}`")


def register(app: typer.Typer) -> None:
    """Add this verb to the command line."""
    app.command()(forecast)
