"""The verbs that explain: `route`, `search` and `replay`. Imports happen inside the verbs, as in `router.commands`."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from router.evidence import Evidence, Neighbour

ConfigPath = Annotated[Path | None, typer.Option(help="config.yaml; default EMBEDROUTER_CONFIG or ./config.yaml.")]
Database = Annotated[str | None, typer.Option(help="Database URL; wins over the environment and config.yaml.")]
NO_INDEX = "no labelled questions are shown: --nearest N indexes them, as a server and `embedrouter search` do"


class PolicyChoice(StrEnum):
    """The policies, as an option."""

    quality = "quality"
    balanced = "balanced"
    cheapest = "cheapest"
    fixed = "fixed"


def route(
    prompt: Annotated[str, typer.Argument(help="The prompt to route.")],
    policy: Annotated[PolicyChoice | None, typer.Option(help="Instead of the configured policy.")] = None,
    min_p_correct: Annotated[float | None, typer.Option(help="What `cheapest` asks for at least.")] = None,
    max_error: Annotated[float | None, typer.Option(help="What share of `quality`'s answers may be wrong.")] = None,
    usd_weight: Annotated[float | None, typer.Option("--lambda", help="What `balanced` charges for a dollar.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many candidates the table shows.")] = 15,
    nearest: Annotated[
        int | None, typer.Option(min=0, max=100, help="How many labelled questions to show; default 3, once indexed.")
    ] = None,
    config: ConfigPath = None,
    database: Database = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Explain which model would answer a prompt, and what would flip the choice, without calling any model.

    The labelled questions nearest to the prompt are shown where an index of them was made, as a server and
    `embedrouter search` do; `--nearest N` makes one.

    Examples:

    `embedrouter route "Prove that the square root of 2 is irrational."`

    `embedrouter route "Translate 'good morning' into French." --policy cheapest --min-p-correct 0.8 --json`
    """
    import json

    from data.database import opened
    from router.champion import ChampionWatch
    from router.choice import explain
    from router.errors import ArtifactError, ConfigError, EncoderError, NoModelError
    from router.evidence import load_evidence
    from router.evidence_index import index_path, read_evidence
    from router.overrides import MAX_USD_WEIGHT
    from router.request import read_request
    from router.settings import load_settings
    from router.state import state_folder

    _check_number("--lambda", usd_weight, MAX_USD_WEIGHT)
    _check_number("--min-p-correct", min_p_correct, 1)
    _check_number("--max-error", max_error, 1)
    settings = load_settings(config)
    overrides = {"policy": policy, "min_p_correct": min_p_correct, "max_error": max_error, "lambda": usd_weight}
    body = {"model": "auto", "messages": [{"role": "user", "content": prompt}], "embedrouter": overrides}
    request = read_request(json.dumps(body).encode(), {}, settings.policy.policy)
    with opened(database or settings.database_url) as engine:
        watch = ChampionWatch(engine, settings)
        current = watch.current
        artifact = current.artifact
        if artifact is None:
            raise ArtifactError(watch.missing)
        path = index_path(state_folder(settings.state_dir, engine.url))
        evidence: Evidence | None
        if nearest:
            evidence = read_evidence(engine, artifact, path, settings.evidence.max_questions)
        else:
            evidence = None if nearest == 0 else load_evidence(path, artifact.manifest.encoder_fingerprint)
    try:
        explanation = explain(request, "command-line", artifact, current.pool)
    except NoModelError as error:
        reasons = "; ".join(f"{model}: {reason}" for model, reason in list(error.reasons.items())[:top])
        raise ConfigError(f"{str(error).partition(';')[0]}: {reasons}") from None
    neighbours: Sequence[Neighbour] = ()
    if evidence is not None:
        try:
            neighbours = evidence.nearest(artifact.encoder.encode([prompt])[0], nearest or 3)
        except EncoderError:  # as the explanation says
            evidence = None
    if as_json:
        shown = [neighbour.as_json() for neighbour in neighbours]
        found = evidence.summary() if evidence else {"note": NO_INDEX}
        print(json.dumps({**explanation, "evidence": {**found, "nearest": shown}}))
    else:
        _print_explanation(explanation, top)
        _print_neighbours(evidence, neighbours, explanation["model"])


def search(
    text: Annotated[str, typer.Argument(help="The text to find labelled questions near to.")],
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="How many questions to show.")] = 5,
    config: ConfigPath = None,
    database: Database = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Find the labelled questions nearest to a text, with each model's record on them.

    Nearness is the cosine of vectors by the champion's encoder. Every question is compared, up to
    `evidence.max_questions`; beyond it faiss finds them, where that extra is installed. recall@10 says how many of the
    ten nearest it finds.

    Examples:

    `embedrouter search "What is 17 * 23?"`

    `embedrouter search "Prove that the square root of 2 is irrational." -k 20 --json`
    """
    import json

    from data.database import opened
    from router.champion import ChampionWatch
    from router.errors import ArtifactError
    from router.evidence_index import index_path, read_evidence
    from router.settings import load_settings
    from router.state import state_folder

    settings = load_settings(config)
    with opened(database or settings.database_url) as engine:
        watch = ChampionWatch(engine, settings)
        artifact = watch.current.artifact
        if artifact is None:
            raise ArtifactError(watch.missing)
        path = index_path(state_folder(settings.state_dir, engine.url))
        evidence = read_evidence(engine, artifact, path, settings.evidence.max_questions)
    nearest = evidence.nearest(artifact.encoder.encode([text])[0], k)
    if as_json:
        print(
            json.dumps(
                {
                    **evidence.summary(),
                    "artifact": artifact.id,
                    "nearest": [neighbour.as_json() for neighbour in nearest],
                }
            )
        )
        return
    how = f"{evidence.search.method}, recall@10 {evidence.search.recall_at_10:.3f}"
    print(f"{evidence.n_questions:,} labelled questions ({how}), artifact {artifact.id}")
    if evidence.note:
        print(evidence.note)
    if not nearest:
        print("nothing of this text is known from the logs" if evidence.n_questions else "the logs hold no outcomes")
    for neighbour in nearest:
        print(f"\n{neighbour.similarity:.3f}  {_where(neighbour)} ({neighbour.split})")
        print(f"       {' '.join(neighbour.prompt.split())[:200]}")
        records = sorted(neighbour.records, key=lambda record: (-record.label, record.model))
        right = [record.model for record in records if record.label > 0.5]
        wrong = [record.model for record in records if record.label <= 0.5]
        print(f"       right: {', '.join(right) or 'none'}")
        print(f"       wrong: {', '.join(wrong) or 'none'}")


def replay(
    decision_id: Annotated[str, typer.Argument(help="The decision: an answer's x-embedrouter-decision-id.")],
    config: ConfigPath = None,
    database: Database = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Choose again from a decision's record, and say whether the choice is the same; exit status 1 where it is not.

    Where its prompt was recorded (`recording.prompts: full`) and its artifact is on this disk, the forecast is made
    again too.

    Examples:

    `embedrouter replay 5f0c6d1c2f8e4a07b7d1a3b2c4e5f601`

    `embedrouter replay 5f0c6d1c2f8e4a07b7d1a3b2c4e5f601 --json`
    """
    import json

    from data import queries
    from data.database import opened
    from data.errors import EmbedRouterError
    from router.artifact import read_artifact
    from router.replay import replay as replayed
    from router.settings import load_settings

    settings = load_settings(config)
    with opened(database or settings.database_url) as engine:
        row = queries.decision(engine, decision_id)
        if row is None:
            raise EmbedRouterError(f"no decision {decision_id!r} is recorded in this database")
        artifact = None
        if row["artifact_id"] is not None and row["prompt"] is not None:
            listed = [Path(a.path) for a in queries.artifacts(engine) if a.id == row["artifact_id"]]
            folders = [*listed, settings.artifacts_dir / row["artifact_id"]]
            artifact = next((read_artifact(folder) for folder in folders if folder.is_dir()), None)
    try:
        again = replayed(row, artifact)
    except ValueError as error:
        raise EmbedRouterError(str(error)) from error
    if as_json:
        print(json.dumps(again.as_json()))
    else:
        print(f"recorded: {again.recorded}")
        print(f"from its record: {again.replayed}{'' if again.same_order else ', the others in another order'}")
        if again.forecast_difference is not None:
            print(f"from its prompt: {again.replayed_from_prompt}, P(correct) within {again.forecast_difference:.2g}")
        print("the same choice" if again.same else "ANOTHER CHOICE")
    raise typer.Exit(0 if again.same else 1)


def _check_number(option: str, value: float | None, most: float) -> None:
    """Complain of a number under the option's name; NaN and infinities would not even be JSON."""
    from router.errors import ConfigError

    if value is not None and not 0 <= value <= most:
        raise ConfigError(f"{option} is {value:g}; it must be a number from 0 to {most:g}")


def _print_explanation(explanation: dict[str, Any], top: int) -> None:
    from collections import Counter

    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    candidates, excluded = explanation["candidates"], explanation["excluded"]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for header in ("", "model", "P(correct)", "90%", "tokens", "USD"):
        table.add_column(header, justify="left" if header == "model" else "right", no_wrap=True)
    table.add_column("USD/1M in, out", no_wrap=True)
    for rank, shown in enumerate(candidates[:top], start=1):
        table.add_row(
            str(rank),
            shown["model"],
            "?" if shown["p_correct"] is None else f"{shown['p_correct']:.3f}",
            _interval(shown["p_correct_ci90"]),
            _tokens(shown),
            _usd(shown["expected_cost_usd"]),
            f"{_usd(shown['usd_per_1m_input'])}, {_usd(shown['usd_per_1m_output'])}",
            style="bold" if rank == 1 else None,
        )
    console.print(table)
    if len(candidates) > top:
        console.print(f"and {len(candidates) - top} more; --top {len(candidates)} shows all")
    for shown in excluded[:top]:
        console.print(f"out: {shown['model']}: {shown['reason']}", markup=False)
    if len(excluded) > top:
        console.print(f"and {len(excluded) - top} more that are out; --json lists them")
    policy = explanation["policy"]["name"]
    setting = "".join(f" ({name} {value:g})" for name, value in list(explanation["policy"].items())[1:])
    if explanation["model"] is not None:
        console.print(f"\n{policy}{setting} chooses [bold]{explanation['model']}[/bold]")
    else:
        reasons = Counter(shown["reason"] for shown in candidates)
        why = ", ".join(f"{reason}: {n}" for reason, n in reasons.most_common())
        console.print(f"\n[bold]no model can be called[/bold] ({why}): ranked as if each could; serve would refuse")
    if explanation["note"]:
        console.print(f"note: {explanation['note']}", markup=False)
    for flip in explanation["would_flip"] if explanation["model"] is not None else ():
        said = f"{flip['model']} would be chosen if {flip['change']} were {flip['to']:.4g}, not {flip['from']:.4g}"
        console.print(said, markup=False)
    if bases := sorted({shown["output_tokens_basis"] for shown in candidates} - {None, "counted"}):
        console.print(f"tokens and USD are expected; ~ marks lengths that are {' or '.join(bases)}, not counted")
    console.print(f"encoder {explanation['encoder']}", markup=False)
    console.print(f"artifact {explanation['artifact']}; about {explanation['input_tokens_estimate']} input tokens")


def _print_neighbours(evidence: "Evidence | None", neighbours: Sequence["Neighbour"], choice: object) -> None:
    """Show labelled questions, how many models answered each correctly, and whether the one that is chosen did."""
    if evidence is None:
        print(NO_INDEX)
        return
    none = "" if neighbours else " none, nothing of the prompt is known"
    print(f"\nnearest of {evidence.n_questions:,} labelled questions:{none}")
    for neighbour in neighbours:
        right = [record.model for record in neighbour.records if record.label > 0.5]
        asked = {record.model for record in neighbour.records}
        said = f"{len(right)} of {len(asked)} models right"
        if choice in asked:
            said += f", {choice} {'among them' if choice in right else 'not'}"
        print(f"{neighbour.similarity:.3f}  {' '.join(neighbour.prompt.split())[:90]}")
        print(f"       {_where(neighbour)}: {said}")


def _where(neighbour: "Neighbour") -> str:
    return "/".join(part for part in (neighbour.benchmark, neighbour.question_id) if part)


def _interval(bounds: list[float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:.2f}-{bounds[1]:.2f}"


def _tokens(shown: dict[str, Any]) -> str:
    tokens = shown["expected_output_tokens"]
    return "?" if tokens is None else f"{'' if shown['output_tokens_basis'] == 'counted' else '~'}{tokens:.0f}"


def _usd(amount: float | None) -> str:
    return "?" if amount is None else f"{amount:.6f}".rstrip("0").rstrip(".") if amount else "0"


def register(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
    app.command()(route)
    app.command()(search)
    app.command()(replay)
