"""The verbs `llm2vec convert|bundle`. Imports happen inside the verbs."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from training.llm2vec.ranks import Ranks

Text = Annotated[
    list[Path] | None,
    typer.Option(
        help="What to learn from: a long-format folder (its train questions) or a text file; may be repeated."
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is one.")]
Logs = Annotated[
    str | None,
    typer.Option(
        help="Learn at last from outcomes, of a long-format folder or a database URL: questions that the same models "
        "get right come close. `train` and `evaluate` leave the outcomes that were learned from out of their fit.",
    ),
]
LogsShare = Annotated[
    float,
    typer.Option(
        help="Share of the logs' train questions to learn from, near-duplicates together; the forecaster is fitted on "
        "the others.",
        min=0.01,
        max=0.99,
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


class PoolingName(StrEnum):
    """How a prompt's states become its vector."""

    mean = "mean"
    weighted = "weighted"
    last = "last"


def convert(
    base: Annotated[Path, typer.Argument(help="Folder of a decoder-only checkpoint: config.json, weights, tokenizer.")],
    out: Annotated[Path, typer.Option(help="Folder for the encoder.")],
    text: Text = None,
    pairs: Annotated[Path | None, typer.Option(help="CSV with anchor and positive: also train on these pairs.")] = None,
    logs: Logs = None,
    logs_share: LogsShare = 0.5,
    pooling: Annotated[PoolingName, typer.Option(help="How states become a vector.")] = PoolingName.mean,
    instruction: Annotated[str, typer.Option(help="Put before every prompt in use, and left out of the pooling.")] = "",
    max_tokens: Annotated[int, typer.Option(help="Longest prompt; of a longer one, head and tail.")] = 512,
    mntp_steps: Annotated[int, typer.Option(help="Steps of masked next token prediction.")] = 1_000,
    masked: Annotated[float, typer.Option(help="Share of tokens masked.", min=0.01, max=0.95)] = 0.2,
    all_masked: Annotated[
        bool, typer.Option(help="Every masked token becomes the mask token (the paper's way for Mistral, with 0.8).")
    ] = False,
    simcse_steps: Annotated[int, typer.Option(help="Steps of unsupervised SimCSE.")] = 1_000,
    crop_steps: Annotated[int, typer.Option(help="Steps on two crops of each text, if any.")] = 0,
    pair_steps: Annotated[int, typer.Option(help="Steps on pairs.")] = 1_000,
    outcome_steps: Annotated[int, typer.Option(help="Steps on the logs' outcomes.")] = 1_000,
    full: Annotated[bool, typer.Option("--full", help="Train all weights instead of LoRA.")] = False,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Make any decoder-only LLM on disk a question encoder (LLM2Vec); interrupted, run it again and it goes on.

    It ends as a plain SentenceTransformer folder with merged weights, for `train --encoder llm2vec:DIR`.

    Example:

    `embedrouter llm2vec convert /models/Qwen3-0.6B --out encoders/qwen --text logs/ --text notes.txt`

    On several GPUs, each of which reads a batch a step:

    `torchrun --nproc-per-node 4 -m embedrouter llm2vec convert /models/Qwen3-0.6B --out encoders/qwen --text logs/`
    """
    from training.llm2vec.convert import Settings
    from training.llm2vec.convert import convert as run
    from training.llm2vec.outcomes import read_answered
    from training.llm2vec.pairs import read_pairs
    from training.llm2vec.ranks import joined

    settings = Settings(
        pooling=pooling.value,
        instruction=instruction,
        max_tokens=max_tokens,
        masked=masked,
        all_masked=all_masked,
        mntp_steps=mntp_steps,
        simcse_steps=simcse_steps,
        crop_steps=crop_steps,
        pair_steps=pair_steps,
        outcome_steps=outcome_steps,
        lora_rank=0 if full else Settings.lora_rank,
        seed=seed,
    )
    device = _device(device)
    with joined(device) as ranks, _bars(ranks) as on_stage:
        figures = run(
            base,
            out,
            texts=text or (),
            pairs=read_pairs(pairs) if pairs else (),
            answered=read_answered(logs, logs_share, seed) if logs else None,
            settings=settings,
            device=ranks.device(device),
            on_stage=on_stage,
            ranks=ranks,
        )
    if ranks.is_first:
        _show(figures, out, as_json)


def bundle(
    out: Annotated[Path, typer.Option(help="Folder for the encoder.")],
    text: Text = None,
    logs: Logs = None,
    logs_share: LogsShare = 0.5,
    minutes: Annotated[float, typer.Option(help="How long to learn on this machine.", min=0.01)] = 40,
    steps: Annotated[
        str | None,
        typer.Option(
            help="Instead of minutes, each stage's steps: CAUSAL,MNTP,SIMCSE,CROPS,TOPICS, with logs OUTCOMES."
        ),
    ] = None,
    whitening: Annotated[
        float,
        typer.Option(
            help="Divide each principal direction of the vectors by its standard deviation to this power (0.5 to 0.7 "
            "helped forecasts on one public log, not on another).",
            min=0,
            max=1,
        ),
    ] = 0.0,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Make a small LLM2Vec encoder from scratch, as the bundled one was; interrupted, run it again and it goes on.

    Example:

    `embedrouter llm2vec bundle --out encoders/small --text logs/ --minutes 40`

    In several processes, each of which reads a batch a step:

    `torchrun --nproc-per-node 4 -m embedrouter llm2vec bundle --out encoders/small --text logs/ --minutes 40`
    """
    from training.llm2vec.bundle import bundle as run
    from training.llm2vec.outcomes import read_answered
    from training.llm2vec.ranks import joined
    from training.llm2vec.recipe import Settings, Steps

    planned = None
    if steps is not None:
        numbers = steps.split(",")
        example = "60,250,10,150,1200" + (",300" if logs else "")
        if len(numbers) != len(example.split(",")) or not all(number.strip().isdigit() for number in numbers):
            raise typer.BadParameter(f"{steps!r} does not read as {example} does", param_hint="--steps")
        planned = Steps(*(int(number) for number in numbers))
    device = _device(device)
    with joined(device) as ranks, _bars(ranks) as on_stage:
        figures = run(
            out,
            texts=text or (),
            answered=read_answered(logs, logs_share, seed) if logs else None,
            minutes=minutes,
            steps=planned,
            settings=Settings(whitening=whitening, seed=seed),
            device=ranks.device(device),
            on_stage=on_stage,
            ranks=ranks,
        )
    if ranks.is_first:
        _show(figures, out, as_json)


class _bars:  # noqa: N801  # a context manager that reads as a function
    """Progress bars on stderr, one for each stage; of several processes, the first one's."""

    def __init__(self, ranks: "Ranks") -> None:
        self._ranks = ranks

    def __enter__(self) -> Callable[[str], Callable[[int, int, float], None]]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not self._ranks.is_first,
        )
        self._progress.start()

        def on_stage(name: str) -> Callable[[int, int, float], None]:
            task = self._progress.add_task(name, total=None, loss=float("nan"))
            return lambda done, n_steps, loss: self._progress.update(task, completed=done, total=n_steps, loss=loss)

        return on_stage

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _device(asked: str) -> str:
    if asked != "auto":
        return asked
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _show(figures: dict[str, object], out: Path, as_json: bool) -> None:
    import json

    from rich.console import Console
    from rich.table import Table

    if as_json:
        print(json.dumps(figures))
        return
    stages = figures["stages"]
    assert isinstance(stages, dict)
    table = Table("stage", "steps", "loss, first and last tenth", "masked tokens' loss", "copy found", "AUC")
    for name, row in stages.items():
        curve = f"{row['loss_first']:.3f} to {row['loss_last']:.3f}" if "loss_first" in row else ""
        shown = (f"{row['masked_loss']:.3f}", f"{row['found']:.3f}", f"{row['auc']:.4f}")
        table.add_row(name, str(row["n_steps"]), curve, *shown)
    Console().print(table)
    Console().print(f"\nthe encoder is in {out}: `embedrouter train --encoder llm2vec:{out}`", highlight=False)
    if n := figures["n_questions_with_outcomes"]:
        Console().print(f"it has learned from the outcomes of {n:,} questions, which `train` leaves out of its fit")


def register(app: typer.Typer) -> None:
    """Add `llm2vec` to the command line."""
    verbs = typer.Typer(help="Make question encoders: from any decoder-only LLM, or a small one from scratch.")
    verbs.command()(convert)
    verbs.command()(bundle)
    app.add_typer(verbs, name="llm2vec", no_args_is_help=True)
