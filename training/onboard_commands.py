"""The verb `onboard`. Imports happen inside it."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from training.onboard import Onboarded

Database = Annotated[str | None, typer.Option(help="Database URL; default EMBEDROUTER_DATABASE_URL or SQLite in var/.")]


class DesignChoice(StrEnum):
    """How questions are suggested, as an option."""

    stratified = "stratified"
    d_optimal = "d-optimal"


def onboard(
    model: Annotated[str, typer.Argument(help="The new model's name.")],
    answers: Annotated[
        Path | None,
        typer.Option(
            help="Its answers: .csv, .jsonl or .parquet with question_id or prompt, and label or score; "
            "output_tokens or output_chars, where counted, tell what its answers will cost."
        ),
    ] = None,
    suggest: Annotated[int | None, typer.Option(min=1, help="Instead, name this many questions to ask it.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where suggestions go, a .csv to fill in; default: print.")
    ] = None,
    design: Annotated[
        DesignChoice, typer.Option(help="How to suggest: in proportion to benchmarks, or where models differ most.")
    ] = DesignChoice.stratified,
    seed: Annotated[int, typer.Option(help="Seed of the stratified suggestion.")] = 0,
    artifacts_dir: Annotated[Path, typer.Option(help="Where artifacts are written.")] = Path("var/artifacts"),
    database: Database = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Let the router use a new model from a few graded answers, without a retrain.

    The answers are imported like any log, the model is folded into the champion, and a running server takes it within
    seconds. Run it again with more answers. The next `embedrouter train` learns the model like all others.

    Examples:

    `embedrouter onboard my-model --suggest 50 --output ask.csv`

    `embedrouter onboard my-model --answers ask.csv`
    """
    from data.errors import EmbedRouterError

    if (answers is None) == (suggest is None):
        raise EmbedRouterError(
            "say either --answers FILE, to fold the model in, or --suggest N, to learn what to ask it"
        )
    if suggest is not None:
        _suggest(model, suggest, output, design.value, seed, artifacts_dir, database, as_json)
        return
    if output is not None:
        raise EmbedRouterError(f"--output {output} is for --suggest; --answers prints what it found")
    assert answers is not None

    import json
    from dataclasses import asdict

    from rich.console import Console

    from data.database import opened
    from training.onboard import onboard as run

    with opened(database) as engine, Console(stderr=True).status("onboarding") as status:
        done = run(engine, artifacts_dir, model, answers, on_progress=lambda step: status.update(f"onboarding: {step}"))
    if as_json:
        print(json.dumps(asdict(done)))
    else:
        _print(done)


def _suggest(
    model: str,
    n: int,
    output: Path | None,
    design: str,
    seed: int,
    artifacts_dir: Path,
    database: str | None,
    as_json: bool,
) -> None:
    from data.database import opened
    from training.suggest import Design, suggest
    from training.suggestions import check_output, give

    check_output(output)
    with opened(database) as engine:
        chosen = suggest(engine, artifacts_dir, model, n, design=Design(design), seed=seed)
    said = give(chosen, output, {"model": model, "design": design} if as_json else None)
    if said:
        print(f"{said}: ask {model}, fill in the column label (1 right, 0 wrong),")
        print(f"then `embedrouter onboard {model} --answers {output}`")


def _print(done: "Onboarded") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from training.contradictions import forget

    console, imported = Console(highlight=False), done.imported
    console.print(
        f"answers: {imported.n_new:,} new, {imported.n_repeated:,} repeated, {imported.n_conflicting:,} conflicting, "
        f"{imported.n_rejected:,} rejected"
    )
    for reject in imported.first_rejects:
        console.print(f"  {reject}", markup=False)
    if imported.rejects is not None:
        console.print(f"  all {imported.n_rejected:,} rejected rows are in {imported.rejects}", markup=False)
    if done.n_held_out:
        console.print(
            f"{done.n_held_out:,} are to test questions or near-duplicates: kept for comparisons, not folded in"
        )
    for warning in done.warnings:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)
    before = {
        "new": "is new to the pool",
        "onboarded": "was onboarded before and is updated",
        "trained": "was in the pool already and is updated from what its training knew",
    }[done.was]
    if not done.n_answers:
        before = "was in the pool already, and its training knew all of these answers"
    folded = f": {done.n_answers:,} answers folded in {done.fold_in_s * 1e3:.1f} ms" if done.n_answers else ""
    console.print(f"\n[bold]{done.model}[/bold] {before}{folded}")
    if done.accuracy is not None:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("benchmark", no_wrap=True)
        for title in ("expected accuracy", "90% interval", "questions"):
            table.add_column(title, justify="right", no_wrap=True)
        for name, one in [*done.by_benchmark.items(), ("all logged questions", done.accuracy)]:
            table.add_row(name, f"{one.expected:.3f}", f"{one.low:.3f} to {one.high:.3f}", f"{one.n_questions:,}")
        console.print(table)
        console.print(_more(done))
    console.print(_lengths(done))
    if done.nearest:
        near = ", ".join(f"{one.model} ({one.distance:.3f})" for one in done.nearest)
        console.print(f"nearest models, by the distance of P(correct): {near}", markup=False)
    if done.promoted:
        console.print(f"\npromoted: {done.artifact} is the champion now, in place of {done.parent}")
        console.print(
            "`embedrouter artifacts rollback` brings that back; the answers stay stored, and the next onboarding or "
            f"training learns from them, unless {forget(done.imported.source)} forgets them too",
            markup=False,
            soft_wrap=True,
        )
    else:
        console.print(f"\nnothing new: the champion {done.artifact} knows these answers")
    if done.retired:
        console.print(f"{done.model} is retired and will not be chosen; `embedrouter models restore {done.model}`")


def _more(done: "Onboarded") -> str:
    if done.more_answers is None:
        return "more answers would hardly narrow the interval"
    return f"about {done.more_answers:,} more answers would halve what the interval owes to not knowing the model"


def _lengths(done: "Onboarded") -> str:
    if done.expected_output_tokens is None:
        return "how long its answers are is not known: neither output_tokens nor output_chars was given"
    basis = f"the mean of {done.n_counted:,} counted" if done.n_counted else "as its training knew"
    estimated = ", estimated from characters" if done.output_tokens_estimated else ""
    return f"its answers take {done.expected_output_tokens:,.0f} tokens, {basis}{estimated}; prompts tell more"


def register(app: typer.Typer) -> None:
    """Add this verb to the command line."""
    app.command()(onboard)
