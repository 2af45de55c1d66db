"""Live evaluation: ask every model every question over HTTP, grade the answers, store the outcomes.

What its source has stored already is not asked again, so that an interrupted collection is simply run again. A
request that fails leaves its pair unknown, never wrong.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import httpx
from sqlalchemy import Engine

from data.demo.question import Question, is_correct
from data.locks import LOGS, sharing
from data.observations import ModelRef, NewQuestion, Observation, QuestionRef
from data.queries import ModelRow, observed_pairs, pool_models
from data.splits import group_questions
from data.store import add_questions, ensure_models, record_outcomes
from training.collect.ask import AskError, Reply, ask, open_client

BATCH = 1000
Progress = Callable[[int, int], None]
"""Called with the number of pairs done and the number of all."""


@dataclass(frozen=True)
class Task:
    """One question for one model."""

    question: Question
    question_ref: QuestionRef
    model_ref: ModelRef


@dataclass
class Collected:
    """What became of a collection's pairs of a model and a question."""

    n_stored_before: int = 0
    n_asked: int = 0
    n_correct: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def n_failed(self) -> int:
        return self.failures.total()


def collect(
    engine: Engine,
    questions: Sequence[Question],
    models: Sequence[str],
    base_url: str,
    source: str,
    *,
    concurrency: int = 32,
    api_key: str | None = None,
    on_progress: Progress = lambda _n_done, _n_all: None,
) -> Collected:
    """Ask `models` all `questions` at an OpenAI-compatible `base_url` and store what is graded under `source`."""
    with sharing(engine, LOGS):
        return _collect(engine, questions, models, base_url, source, concurrency, api_key, on_progress)


def _collect(
    engine: Engine,
    questions: Sequence[Question],
    models: Sequence[str],
    base_url: str,
    source: str,
    concurrency: int,
    api_key: str | None,
    on_progress: Progress,
) -> Collected:
    news = [NewQuestion(q.question_id, q.prompt, benchmark=q.family, gold=q.gold) for q in questions]
    question_refs = add_questions(engine, news)
    group_questions(engine)
    model_refs = ensure_models(engine, models)
    stored = observed_pairs(engine, source)
    collected = Collected()
    tasks = []
    for question, question_ref in zip(questions, question_refs, strict=True):
        for name in models:
            if (question_ref.id, model_refs[name].id) in stored:
                collected.n_stored_before += 1
            else:
                tasks.append(Task(question, question_ref, model_refs[name]))
    rows = {row.name: row for row in pool_models(engine)}
    collection = _Collection(engine, source, rows, collected, len(tasks), on_progress)
    asyncio.run(collection.run(tasks, base_url, concurrency, api_key))
    return collected


@dataclass
class _Collection:
    """A collection under way."""

    engine: Engine
    source: str
    rows: dict[str, ModelRow]
    collected: Collected
    n_tasks: int
    on_progress: Progress
    waiting: list[Observation] = field(default_factory=list)

    async def run(self, tasks: Sequence[Task], base_url: str, concurrency: int, api_key: str | None) -> None:
        remaining = iter(tasks)
        try:
            async with open_client(base_url, concurrency, api_key) as client, asyncio.TaskGroup() as group:
                for _ in range(min(concurrency, self.n_tasks)):
                    group.create_task(self.work(client, remaining))
        finally:
            self.store(self.take())  # what was answered is kept, even where this was interrupted

    async def work(self, client: httpx.AsyncClient, remaining: Iterator[Task]) -> None:
        for task in remaining:
            try:
                reply = await ask(client, task.model_ref.name, task.question.prompt)
            except AskError as error:
                self.collected.failures[f"{task.model_ref.name}: {error}"] += 1
            else:
                self.keep(task, reply)
            self.on_progress(self.collected.n_asked + self.collected.n_failed, self.n_tasks)
            if len(self.waiting) >= BATCH:
                await asyncio.to_thread(self.store, self.take())

    def keep(self, task: Task, reply: Reply) -> None:
        correct = is_correct(task.question.gold, reply.text)
        self.collected.n_asked += 1
        self.collected.n_correct += correct
        self.waiting.append(
            Observation(
                task.question_ref,
                task.model_ref,
                label=int(correct),
                cost_usd=_cost_usd(self.rows[task.model_ref.name], reply),
                input_tokens=reply.input_tokens,
                output_tokens=reply.output_tokens,
                output_chars=len(reply.text),
                latency_s=reply.latency_s,
            )
        )

    def take(self) -> list[Observation]:
        """Hand over what waits to be stored; on the event loop only, so that none slips between."""
        batch, self.waiting = self.waiting, []
        return batch

    def store(self, batch: list[Observation]) -> None:
        if batch:
            record_outcomes(self.engine, self.source, batch)


def _cost_usd(row: ModelRow, reply: Reply) -> float | None:
    counts = (row.usd_per_1m_input, row.usd_per_1m_output, reply.input_tokens, reply.output_tokens)
    if any(count is None for count in counts):
        return None
    price_in, price_out, n_in, n_out = (float(count) for count in counts if count is not None)
    return (price_in * n_in + price_out * n_out) / 1e6
