"""The verbs that explain: `search` and `replay`. Imports happen inside the verbs, as in `router.commands`."""

from pathlib import Path
from typing import Annotated

import typer

ConfigPath = Annotated[Path | None, typer.Option(help="config.yaml; default EMBEDROUTER_CONFIG or ./config.yaml.")]
Database = Annotated[str | None, typer.Option(help="Database URL; wins over the environment and config.yaml.")]


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
        where = "/".join(part for part in (neighbour.benchmark, neighbour.question_id) if part)
        print(f"\n{neighbour.similarity:.3f}  {where} ({neighbour.split})")
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


def register(app: typer.Typer) -> None:
    """Add these verbs to the command line."""
    app.command()(search)
    app.command()(replay)
