"""The verbs of learning. Imports happen inside the verbs: this module loads on every `embedrouter --help`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from router.encoder import DEFAULT_ENCODER

Database = Annotated[str | None, typer.Option(help="Database URL; default EMBEDROUTER_DATABASE_URL or SQLite in var/.")]
ArtifactsDir = Annotated[Path, typer.Option(help="Where artifacts are written.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
EncoderSpec = Annotated[
    str,
    typer.Option(
        help="lsa, bundled, lsa+bundled, llm2vec:PATH for a decoder-only checkpoint on disk, sentence:PATH or "
        "hub:ORGANIZATION/NAME for a SentenceTransformer, or remote:URL#MODEL for an OpenAI-compatible endpoint."
    ),
]


class SplitBy(StrEnum):
    """Where an evaluation's split comes from."""

    auto = "auto"
    column = "column"
    seeded = "seeded"


def train(
    database: Database = None,
    artifacts_dir: ArtifactsDir = Path("var/artifacts"),
    encoder: EncoderSpec = DEFAULT_ENCODER,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    promote: Annotated[bool, typer.Option(help="Let the gate promote the new artifact.")] = True,
    as_json: AsJson = False,
) -> None:
    """Fit, calibrate, compare with the baselines, write an artifact; promote it if the gate says so.

    Without a champion the artifact is promoted at once, so that `train` then `serve` works.

    Examples:

    `embedrouter train`

    `embedrouter train --encoder llm2vec:/models/my-encoder --no-promote`

    `embedrouter train --encoder remote:http://127.0.0.1:8080/v1#BAAI/bge-m3`
    """
    import json

    from rich.console import Console

    from data.database import ready_engine
    from training.gate import promote_through_gate
    from training.table import comparison_table
    from training.train import train as run

    console, progress = Console(), Console(stderr=True)
    engine = ready_engine(database)
    with progress.status("training") as status:
        trained = run(
            engine,
            artifacts_dir,
            encoder_spec=encoder,
            seed=seed,
            on_progress=lambda step: status.update(f"training: {step}"),
        )
        verdict = promote_through_gate(engine, trained.artifact, kind="train") if promote else None
    if as_json:
        answer = {
            "artifact": trained.artifact.id,
            "promoted": verdict.promote if verdict else False,
            "reasons": list(verdict.reasons) if verdict else ["--no-promote"],
            "seconds": round(trained.seconds, 2),
            "comparison": trained.comparison,
        }
        print(json.dumps(answer))
        return
    console.print(comparison_table(trained.comparison))
    console.print(
        f"\nartifact [bold]{trained.artifact.id}[/bold] in {trained.artifact.folder} ({trained.seconds:.1f} s)"
    )
    if verdict is None:
        console.print(f"not promoted, as asked; `embedrouter artifacts promote {trained.artifact.id}` does it")
    else:
        console.print("promoted: it is the champion now" if verdict.promote else "[bold]not promoted[/bold]")
        for reason in verdict.reasons:
            console.print(f"  {reason}", highlight=False)


def evaluate(
    path: Annotated[Path, typer.Argument(help="A long-format folder: questions.csv, models.csv, correctness.*")],
    split: Annotated[SplitBy, typer.Option(help="Use the folder's split column, or a seeded 80/10/10.")] = SplitBy.auto,
    split_seed: Annotated[int, typer.Option(help="Seed of the seeded split and of everything random.")] = 0,
    encoder: EncoderSpec = DEFAULT_ENCODER,
    as_json: AsJson = False,
) -> None:
    """Compare the forecaster with the baselines straight from a folder, without a database.

    Near-duplicate questions stay together in a seeded split; test is read once, at the end.

    Examples:

    `embedrouter evaluate ../shared/data/zeroeval --split column`

    `embedrouter evaluate logs/ --split-seed 7 --json`
    """
    import json

    from rich.console import Console

    from training.evaluate import evaluate_folder
    from training.table import comparison_table

    with Console(stderr=True).status("evaluating") as status:
        figures = evaluate_folder(
            path,
            split=split.value,
            seed=split_seed,
            encoder_spec=encoder,
            on_progress=lambda step: status.update(f"evaluating: {step}"),
        )
    if as_json:
        print(json.dumps(figures))
    else:
        Console().print(comparison_table(figures))


def demo(
    workdir: Annotated[Path, typer.Option(help="Folder for the demo's database and artifacts.")] = Path("var/demo"),
    n_train: Annotated[int, typer.Option(help="Generated questions to learn from.", min=200)] = 1200,
    n_test: Annotated[int, typer.Option(help="Unseen questions to route.", min=50)] = 300,
    seed: Annotated[int, typer.Option(help="Seed of the questions and of the training.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Run the whole journey on simulated LLMs: ask, grade, store, train, serve, route. No keys, no network.

    Example:

    `embedrouter demo`
    """
    import json

    from rich.console import Console

    from training.demo import run_demo

    answer = run_demo(Console(stderr=as_json), workdir=workdir, n_train=n_train, n_test=n_test, seed=seed)
    if as_json:
        print(json.dumps(answer))


def register(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
    from training import (
        artifact_commands,
        forecast_commands,
        job_commands,
        onboard_commands,
        probe_commands,
        report_commands,
    )
    from training.llm2vec import commands as llm2vec_commands

    app.command()(demo)
    app.command()(train)
    app.command()(evaluate)
    artifact_commands.register(app)
    forecast_commands.register(app)
    job_commands.register(app)
    llm2vec_commands.register(app)
    onboard_commands.register(app)
    probe_commands.register(app)
    report_commands.register(app)
