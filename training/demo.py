"""The demo: the whole journey on simulated LLMs, from asking them to routing between them.

Everything here is simulated but the work: questions are asked over HTTP, answers graded, outcomes stored, a scorer
trained, and unseen questions routed through the service by the official client.
"""

import asyncio
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
from numpy.typing import NDArray
from rich.console import Console
from sqlalchemy import Engine

from data.database import open_engine, upgrade
from data.demo.generate import FAMILIES, generate
from data.demo.question import Question, is_correct
from data.near_duplicates import group_near_duplicates
from data.store import set_model
from router.app import create_app
from router.encoder import DEFAULT_ENCODER
from router.loopback import serve_in_thread
from router.settings import Settings
from router.simulated.pool import POOL
from router.simulator import SIMULATED_MODELS, run_simulator
from training.collect.ask import ask, open_client
from training.collect.live import collect
from training.demo_display import Step, show_decisions, show_next, show_pool, show_result, showing
from training.demo_result import POLICIES, DemoResult, Direct, Routed
from training.errors import TrainingError
from training.gate import promote_through_gate
from training.table import comparison_table
from training.train import train

SOURCE = "demo"
MARKER = ".embedrouter-demo"
N_CLIENTS = 8


@dataclass(frozen=True)
class Drawn:
    """Questions to learn from, and unseen ones with their near-duplicate groups, of shape (n_unseen,)."""

    training: list[Question]
    unseen: list[Question]
    unseen_groups: NDArray[np.int64]


def run_demo(
    console: Console, *, workdir: Path = Path("var/demo"), n_train: int = 1200, n_test: int = 300, seed: int = 0
) -> dict[str, Any]:
    """Run the whole journey in `workdir`, telling it on the console; the figures as one JSON object.

    An earlier demo's `workdir` is replaced; TrainingError where it holds anything else.
    """
    started = time.perf_counter()
    workdir = workdir.resolve()
    prepare(workdir)
    database_url = f"sqlite:///{workdir / 'embedrouter.db'}"
    engine = open_engine(database_url)
    upgrade(engine)
    drawn = draw_questions(n_train, n_test, seed)
    unseen = drawn.unseen
    try:
        with run_simulator() as upstream_url:
            show_pool(console, upstream_url)
            learn(console, engine, drawn.training, upstream_url)
            comparison = fit(console, engine, workdir / "artifacts", seed)
            settings = Settings(database_url=database_url, artifacts_dir=workdir / "artifacts")
            app = create_app(settings, engine, simulated_base_url=upstream_url)
            console.rule("4. Route: unseen questions through the official openai client")
            with serve_in_thread(app) as url, showing(console) as progress:
                routed = {
                    policy: route(f"{url}/v1", unseen, request, progress(f"policy {policy}", len(unseen)))
                    for policy, request in POLICIES.items()
                }
            with showing(console) as progress:
                step = progress("every model directly, to compare", len(unseen) * len(SIMULATED_MODELS))
                direct = asyncio.run(ask_directly(unseen, upstream_url, step))
        result = DemoResult(unseen, drawn.unseen_groups, routed, direct, comparison["best_single_model"], seed)
        show_result(console, result)
        show_decisions(console, engine, result)
    finally:
        engine.dispose()
    seconds = time.perf_counter() - started
    show_next(console, database_url, seconds)
    return {**result.as_json(), "comparison": comparison, "seconds": round(seconds, 1)}


def prepare(workdir: Path) -> None:
    """Make an empty folder for a demo; only what a demo made is replaced."""
    if workdir.exists() and not (workdir / MARKER).is_file() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise TrainingError(f"{workdir} holds something else than a demo: remove it, or choose another folder")
    if workdir.exists():
        shutil.rmtree(workdir)
    workdir.mkdir(parents=True)
    (workdir / MARKER).write_text("made by `embedrouter demo`, which replaces this folder when it runs again\n")


def draw_questions(n_train: int, n_test: int, seed: int) -> Drawn:
    """Generate questions to learn from, and unseen ones that are near-duplicates of none of those."""
    training = generate(n_train, seed)
    spare = n_test + n_test // 5 + 10 * len(FAMILIES)
    candidates = generate(spare, seed + 1)
    groups = group_near_duplicates([question.prompt for question in (*training, *candidates)])
    new = np.flatnonzero(~np.isin(groups[n_train:], groups[:n_train]))[:n_test]
    if len(new) < n_test:
        raise TrainingError(f"only {len(new)} of {n_test} unseen questions are unlike the {n_train} training ones")
    return Drawn(training, [candidates[row] for row in new], groups[n_train:][new])


def learn(console: Console, engine: Engine, questions: Sequence[Question], upstream_url: str) -> None:
    """Ask every simulated LLM every training question, grade and store."""
    console.rule("2. Ask: every model, every training question")
    for llm in POOL:
        set_model(
            engine,
            llm.name,
            usd_per_1m_input=llm.usd_per_1m_input,
            usd_per_1m_output=llm.usd_per_1m_output,
            context_window=llm.context_window,
        )
    with showing(console) as progress:
        step = progress("asking and grading", len(questions) * len(POOL))
        collected = collect(engine, questions, SIMULATED_MODELS, upstream_url, SOURCE, on_progress=step)
    console.print(
        f"{collected.n_asked:,} answers graded and stored, {collected.n_correct / max(1, collected.n_asked):.1%} "
        f"right; {collected.n_failed} requests failed"
    )


def fit(
    console: Console, engine: Engine, artifacts_root: Path, seed: int, encoder_spec: str = DEFAULT_ENCODER
) -> dict[str, Any]:
    """Train on the stored outcomes and promote; the comparison with the baselines."""
    console.rule("3. Train: on the stored outcomes, with held-out questions to compare on")
    with console.status("training") as status:
        trained = train(
            engine,
            artifacts_root,
            encoder_spec=encoder_spec,
            seed=seed,
            on_progress=lambda step: status.update(f"training: {step}"),
        )
        verdict = promote_through_gate(engine, trained.artifact, kind="train")
    console.print(comparison_table(trained.comparison))
    console.print(f"artifact {trained.artifact.id} in {trained.seconds:.1f} s; {'; '.join(verdict.reasons)}")
    if not verdict.promote:
        raise TrainingError(f"the demo's artifact was not promoted: {'; '.join(verdict.reasons)}")
    if trained.comparison["best_single_model"] is None:
        raise TrainingError("the models have too few answers in common to compare routing with the best of them")
    return trained.comparison


def route(base_url: str, questions: Sequence[Question], request: dict[str, Any], step: Step) -> list[Routed]:
    """Send questions to the router through the official client, from several threads, and grade what comes back."""
    with (
        openai.OpenAI(
            base_url=base_url, api_key="demo", http_client=openai.DefaultHttpxClient(trust_env=False)
        ) as client,
        ThreadPoolExecutor(N_CLIENTS) as threads,
    ):

        def ask_router(question: Question) -> Routed:
            raw = client.chat.completions.with_raw_response.create(
                model="auto",
                messages=[{"role": "user", "content": question.prompt}],
                extra_body={"embedrouter": request},
            )
            completion = raw.parse()
            reply = completion.choices[0].message.content or ""
            return Routed(
                model=completion.model,
                decision_id=raw.headers["x-embedrouter-decision-id"],
                reply=reply,
                correct=is_correct(question.gold, reply),
                cost_usd=float(raw.headers["x-embedrouter-cost-usd"]),
            )

        answers = []
        for answer in threads.map(ask_router, questions):
            answers.append(answer)
            step(len(answers), len(questions))
    return answers


async def ask_directly(questions: Sequence[Question], upstream_url: str, step: Step) -> Direct:
    """Ask every model every question without the router, and without storing anything."""
    label = np.zeros((len(questions), len(POOL)))
    cost = np.zeros_like(label)
    cells = iter([(row, column) for row in range(len(questions)) for column in range(len(POOL))])
    n_done = 0

    async def work(client: httpx.AsyncClient) -> None:
        nonlocal n_done
        for row, column in cells:
            question, llm = questions[row], POOL[column]
            reply = await ask(client, llm.name, question.prompt)
            label[row, column] = is_correct(question.gold, reply.text)
            assert reply.input_tokens is not None
            assert reply.output_tokens is not None
            tokens = (reply.input_tokens, reply.output_tokens)
            cost[row, column] = llm.cost_usd(*tokens)
            n_done += 1
            step(n_done, label.size)

    async with open_client(upstream_url, 32) as client, asyncio.TaskGroup() as group:
        for _ in range(32):
            group.create_task(work(client))
    return Direct(SIMULATED_MODELS, label, cost)
