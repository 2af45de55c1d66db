"""How the demo tells what it does: the pool, progress, the result, decisions explained, what to run next."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine

from data.queries import decisions
from router.simulated.pool import POOL
from training.demo_result import POLICIES, DemoResult

Step = Callable[[int, int], None]
"""Told how many are done, of how many."""


def show_pool(console: Console, upstream_url: str) -> None:
    console.rule("1. A pool of simulated LLMs")
    console.print(
        f"{len(POOL)} simulated LLMs at {upstream_url}: no language model runs. Each parses a question, computes its "
        "answer, and errs by its own wrong methods where a question is beyond its skill. Names and prices are invented."
    )
    table = Table("simulated LLM", "USD per 1M tokens in", "out", "good at")
    for llm in POOL:
        best = ", ".join(sorted(llm.skills, key=lambda family: -llm.skills[family])[:3])
        table.add_row(
            llm.name, f"{llm.usd_per_1m_input:.2f}", f"{llm.usd_per_1m_output:.2f}", best or "a little of all"
        )
    console.print(table)


def show_result(console: Console, result: DemoResult) -> None:
    console.rule("5. What routing brought")
    console.print(result.table())
    mean, (low, high) = result.advantage
    console.print(
        f"router (quality) minus best single model: [bold]{mean:+.1%}[/bold] right, "
        f"95% interval {low:+.1%} to {high:+.1%} (paired, over {len(np.unique(result.groups))} near-duplicate groups "
        f"of {len(result.questions)} unseen questions)"
    )
    console.print(
        f"The best single model, {result.best_single}, was chosen on the training questions. The oracle takes the "
        "cheapest model that is right. The policy balanced counts a right answer as worth "
        f"{1 / POLICIES['balanced']['lambda']:g} USD; cheapest takes the cheapest model that is at least "
        f"{POLICIES['cheapest']['min_p_correct']:.0%} likely right. USD / 1,000 is what 1,000 requests would cost.",
        highlight=False,
    )


def show_decisions(console: Console, engine: Engine, result: DemoResult) -> None:
    console.rule("6. Three decisions explained")
    stored = {row["id"]: row for row in decisions(engine, limit=len(result.questions) * len(result.routed))}
    first = next(iter(result.routed.values()))
    for title, row in result.explained():
        question, routed = result.questions[row], first[row]
        console.print(f"\n[bold]{title}[/bold] ({question.family})")
        console.print(Padding(Text(question.prompt), (0, 2)))
        table = Table("candidate", "P(correct)", "expected USD", "its own answer was", box=None, padding=(0, 2))
        for candidate in stored[routed.decision_id]["candidates"]:
            name = candidate["model"]
            right = result.direct.label[row, result.direct.models.index(name)] > 0
            chosen = " (chosen)" if name == routed.model else ""
            table.add_row(
                f"{name}{chosen}",
                f"{candidate['p_correct']:.2f}",
                f"{candidate['expected_cost_usd']:.7f}",
                "right" if right else "wrong",
                style="bold" if chosen else None,
            )
        console.print(table)
        verdict = "right" if routed.correct else "wrong"
        console.print(Padding(Text(f"{routed.model} said: {routed.reply}"), (0, 2)))
        console.print(Padding(Text(f"gold answer: {question.gold}, so the router was {verdict}"), (0, 2)))


def show_next(console: Console, database_url: str, seconds: float) -> None:
    """Say how long it took and which commands go on from here."""
    console.rule(f"Done in {seconds:.0f} s")
    console.print("Next, with the same database and artifact (upstreams simulated):", highlight=False)
    database = f"--database {database_url}"
    for command in (
        f"embedrouter route {database} 'What is 4821 * 37?'",
        f"embedrouter serve {database} --simulate-upstreams",
        f"embedrouter report {database}",
    ):
        console.print(f"  {command}", highlight=False, soft_wrap=True)


@contextmanager
def showing(console: Console) -> Iterator[Callable[[str, int], Step]]:
    """Show progress bars; each call adds one and gives the step that moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:

        def add(title: str, total: int) -> Step:
            bar = progress.add_task(title, total=total)
            return lambda n_done, _n_all: progress.update(bar, completed=n_done)

        yield add
