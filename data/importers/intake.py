"""What every importer does with what it has read: chunk by chunk into SQL, counted, and resumable.

Each chunk is one transaction. An import that was killed is run again: what is in stays, what is missing goes in.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy import Engine

from data.importers.rejects import Rejects
from data.importers.rows import Table
from data.importers.values import count_of, is_stated, label_of, model_name_of, number_of, text_of
from data.locks import LOGS, sharing
from data.observations import ModelRef, NewQuestion, Observation, QuestionRef, Recorded, Repeats
from data.queries import LastIds, last_ids, source_of
from data.splits import Stated, group_questions
from data.store import (
    ModelFields,
    add_questions,
    begin_import,
    ensure_models,
    fill_prices,
    finish_import,
    record_outcomes,
)

QUESTIONS_PER_CHUNK = 2_000
OUTCOMES_PER_CHUNK = 10_000
REJECTS_FOLDER = Path("var/rejects")
T = TypeVar("T")

Progress = Callable[[str, float], None]
"""Called with what is being read and how much of it is done, from 0 to 1."""


@dataclass(frozen=True)
class ImportSummary:
    """What an import did, in numbers of rows; `rejects` is the file that holds the bad ones."""

    format: str
    source: str
    path: str
    n_new: int
    n_repeated: int
    n_conflicting: int
    n_rejected: int
    n_new_questions: int
    n_new_models: int
    rejects: str | None
    first_rejects: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Grade:
    """One row of a log's outcomes, read and checked, its question and model still as the log calls them.

    graded: whether it states a score alone; the label is then but its rounding.
    """

    question_id: str
    model_name: str
    label: int
    score: float | None = None
    cost_usd: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    output_chars: int | None = None
    latency_s: float | None = None
    graded: bool = False

    @property
    def outcome(self) -> float:
        """What training learns of it, from 0 to 1."""
        return self.score if self.graded and self.score is not None else float(self.label)


def read_grade(cells: Mapping[str, object], question_column: str, model_column: str) -> Grade:
    """Check one row's cells; CellError says what is wrong."""
    get = cells.get
    score = number_of(get("score"), "score", 1)
    return Grade(
        question_id=text_of(get(question_column), question_column, 512).strip(),
        model_name=model_name_of(get(model_column), model_column),
        label=label_of(get("label"), score),
        score=score,
        cost_usd=number_of(get("cost_usd"), "cost_usd"),
        input_tokens=count_of(get("input_tokens"), "input_tokens"),
        output_tokens=count_of(get("output_tokens"), "output_tokens"),
        output_chars=count_of(get("output_chars"), "output_chars"),
        latency_s=number_of(get("latency_s"), "latency_s"),
        graded=score is not None and not is_stated(get("label")),
    )


class Intake:
    """One import into SQL. Enter it, add questions, then models, then outcomes; `finish` closes it."""

    def __init__(
        self,
        engine: Engine,
        file_format: str,
        source: str | None,
        folder: Path,
        files: Sequence[Path],
        on_progress: Progress | None,
        rejects_folder: Path,
    ) -> None:
        self.engine = engine
        self.format = file_format
        content_sha256 = _digest(files)
        # files that were moved are still the same files
        known = source or source_of(engine, file_format, content_sha256)
        self.source = known or f"{file_format}:{folder.resolve().name}"
        self.folder = folder
        self.on_progress = on_progress or _silent
        self.started = time.perf_counter()
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", self.source).strip("-")
        self.rejects = Rejects(rejects_folder / f"{slug}-{content_sha256[:12]}.csv")
        self.content_sha256 = content_sha256
        self.import_id = 0
        self.before = LastIds(0, 0)
        self.held = ExitStack()
        self.question_ids: set[int] = set()
        self.models: dict[str, ModelRef] = {}
        self.repeats = Repeats(self.source)
        self.recorded = Recorded()

    def __enter__(self) -> Self:
        with ExitStack() as held:
            held.push(self.rejects)
            held.enter_context(sharing(self.engine, LOGS))
            self.before = last_ids(self.engine)
            self.import_id = begin_import(self.engine, self.format, self.source, str(self.folder), self.content_sha256)
            self.held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.held.__exit__(kind, error, traceback)

    def add_questions(
        self, table: Table, questions: Iterable[NewQuestion], stage: str
    ) -> dict[tuple[str, str], QuestionRef]:
        """Store the questions; referred to by (external_id, prompt_sha256)."""
        refs: dict[tuple[str, str], QuestionRef] = {}
        for chunk in chunks(questions, QUESTIONS_PER_CHUNK):
            for ref in add_questions(self.engine, chunk):
                refs[ref.external_id, ref.prompt_sha256] = ref
                self.question_ids.add(ref.id)
            self.on_progress(stage, table.n_done / table.n_total)
        return refs

    def group_questions(self, stated: Stated) -> None:
        """Give the new questions their near-duplicate groups and splits."""
        self.on_progress("near-duplicates", 0.0)
        group_questions(self.engine, stated)
        self.on_progress("near-duplicates", 1.0)

    def add_models(self, models: Mapping[str, ModelFields]) -> None:
        """Store the models, with prices where none are known."""
        self.models |= ensure_models(self.engine, models)
        fill_prices(self.engine, {self.models[name].id: fields for name, fields in models.items()})

    def add_outcomes(self, table: Table, graded: Iterable[tuple[QuestionRef, Grade]], stage: str) -> None:
        """Store the outcomes."""
        for chunk in chunks(graded, OUTCOMES_PER_CHUNK):
            unmet = {grade.model_name for _, grade in chunk} - self.models.keys()
            if unmet:
                self.models |= ensure_models(self.engine, sorted(unmet))
            observations = [self.repeats.number(self._observation(question, grade)) for question, grade in chunk]
            self.recorded += record_outcomes(self.engine, self.source, observations, import_id=self.import_id)
            self.on_progress(stage, table.n_done / table.n_total)

    def finish(self) -> ImportSummary:
        """Close the import and sum it up."""
        n_before = self.recorded.n_repeated - self.recorded.n_resumed
        finish_import(self.engine, self.import_id, n_repeated=n_before, n_rejected=self.rejects.n)
        return ImportSummary(
            format=self.format,
            source=self.source,
            path=str(self.folder),
            n_new=self.recorded.n_new,
            n_repeated=self.recorded.n_repeated,
            n_conflicting=self.recorded.n_conflicting,
            n_rejected=self.rejects.n,
            n_new_questions=sum(1 for question in self.question_ids if question > self.before.question),
            n_new_models=sum(1 for model in {ref.id for ref in self.models.values()} if model > self.before.model),
            rejects=str(self.rejects.path) if self.rejects.n else None,
            first_rejects=tuple(self.rejects.first),
            seconds=time.perf_counter() - self.started,
        )

    def _observation(self, question: QuestionRef, grade: Grade) -> Observation:
        return Observation(
            question=question,
            model=self.models[grade.model_name],
            label=grade.label,
            score=grade.score,
            cost_usd=grade.cost_usd,
            input_tokens=grade.input_tokens,
            output_tokens=grade.output_tokens,
            output_chars=grade.output_chars,
            latency_s=grade.latency_s,
            graded=grade.graded,
        )


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _silent(_stage: str, _fraction: float) -> None:
    pass


def _digest(files: Sequence[Path]) -> str:
    """Name a file set by its names and bytes."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
