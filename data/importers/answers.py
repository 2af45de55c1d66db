"""One model's answers, as a person collected them: a file of rows with a question and whether it was answered right.

A row names its question by `question_id`, by `prompt` or by both. A prompt that the logs do not hold becomes a new
question, as in any import; a question_id alone must be one that they hold.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from data.errors import LogFormatError
from data.importers.intake import REJECTS_FOLDER, Grade, ImportSummary, Intake, Progress, chunks, read_grade
from data.importers.rejects import Rejects
from data.importers.rows import Row, Table
from data.importers.values import CellError, optional_text
from data.observations import NewQuestion, QuestionRef, prompt_sha256
from data.queries import StoredQuestion, find_questions

FORMAT = "answers"
KINDS = (".csv", ".jsonl", ".parquet")
NEEDED = "answers are a .csv, .jsonl or .parquet file with question_id or prompt, and label (0 or 1) or score (0 to 1)"
ROWS_PER_CHUNK = 2_000


def import_answers(
    engine: Engine,
    path: Path,
    model_name: str,
    source: str | None = None,
    on_progress: Progress | None = None,
    rejects_folder: Path = REJECTS_FOLDER,
) -> ImportSummary:
    """Bring one model's answers into SQL; the same file again changes nothing, a longer one adds what is new.

    source: under which they are kept, default `answers:MODEL`, so that a file that grew is not a second opinion.
    LogFormatError where the file is absent, of another type, or has not the columns.
    """
    if not path.is_file():
        raise LogFormatError(f"{path} {'is no file' if path.exists() else 'does not exist'}: {NEEDED}")
    if path.suffix not in KINDS:
        raise LogFormatError(f"{path} ends in {path.suffix or 'nothing'}: {NEEDED}")
    _require_columns(path)
    source = source or f"{FORMAT}:{model_name}"[:256]
    with Intake(engine, FORMAT, source, path, (path,), on_progress, rejects_folder) as intake:
        table = Table(path, intake.rejects)
        intake.add_outcomes(table, _read(engine, intake, table, model_name), "answers")
        intake.group_questions("each")
        return intake.finish()


def _require_columns(path: Path) -> None:
    table = Table(path, Rejects())
    columns = table.columns
    lacking = [
        " or ".join(either)
        for either in (("question_id", "prompt"), ("label", "score"))
        if not {*either} & {*columns} and (columns or path.suffix != ".jsonl")
    ]
    if lacking:
        raise LogFormatError(
            f"{path} lacks the column {' and '.join(lacking)}; it has {', '.join(columns) or 'none'}"
            f"{table.separator_hint}. {NEEDED}"
        )


@dataclass(frozen=True, slots=True)
class _Answer:
    """A row that was read: what it says of its question, and the grade."""

    row: Row
    question_id: str | None
    prompt: str | None
    benchmark: str
    grade: Grade


def _read(engine: Engine, intake: Intake, table: Table, model_name: str) -> Iterator[tuple[QuestionRef, Grade]]:
    for chunk in chunks(_read_rows(table, model_name), ROWS_PER_CHUNK):
        stored = _Stored.of(
            find_questions(
                engine,
                sorted({answer.question_id for answer in chunk if answer.question_id}),
                sorted({prompt_sha256(answer.prompt) for answer in chunk if answer.prompt}),
            )
        )
        known: list[tuple[_Answer, QuestionRef]] = []
        new: list[tuple[_Answer, NewQuestion]] = []
        for answer in chunk:
            try:
                found = stored.find(answer)
            except CellError as error:
                table.reject(answer.row, str(error))
                continue
            if isinstance(found, QuestionRef):
                known.append((answer, found))
            else:
                new.append((answer, found))
        refs = intake.add_questions(table, [question for _, question in new], "answers")
        yield from ((ref, answer.grade) for answer, ref in known)
        for answer, question in new:
            yield refs[question.external_id, prompt_sha256(question.prompt)], answer.grade


def _read_rows(table: Table, model_name: str) -> Iterator[_Answer]:
    for row in table:
        get = row.cells.get
        try:
            question_id = (optional_text(get("question_id"), "question_id", 512) or "").strip() or None
            prompt = optional_text(get("prompt"), "prompt")
            if question_id is None and not (prompt or "").strip():
                raise CellError("neither question_id nor prompt says which question it is")
            whose = (optional_text(get("model_name"), "model_name") or "").strip()
            if whose and whose != model_name:
                raise CellError(f"model_name is {whose}, these are the answers of {model_name}")
            named = "category" if get("category") else "benchmark"
            benchmark = optional_text(get(named), named, 256) or ""
            told = row.cells | {"question_id": question_id or "-", "model_name": model_name}
            grade = read_grade(told, "question_id", "model_name")
        except CellError as error:
            table.reject(row, str(error))
            continue
        prompt = prompt if (prompt or "").strip() else None
        yield _Answer(row, question_id, prompt, benchmark.strip(), grade)


@dataclass(frozen=True)
class _Stored:
    """The stored questions that some answers may mean."""

    by_id: dict[str, list[StoredQuestion]]
    by_digest: dict[str, StoredQuestion]

    @classmethod
    def of(cls, questions: list[StoredQuestion]) -> "_Stored":
        by_id: dict[str, list[StoredQuestion]] = {}
        by_digest: dict[str, StoredQuestion] = {}
        for question in questions:
            by_id.setdefault(question.external_id, []).append(question)
            by_digest.setdefault(question.prompt_sha256, question)
        return cls(by_id, by_digest)

    def find(self, answer: _Answer) -> QuestionRef | NewQuestion:
        """Find the question that an answer is to, or make it; CellError where that cannot be told."""
        named = self.by_id.get(answer.question_id or "", [])
        if answer.prompt is None:
            if not named:
                raise CellError(f"question_id {answer.question_id} is not in the logs: give its prompt too")
            if len(named) > 1:
                raise CellError(f"question_id {answer.question_id} is {len(named)} questions: give its prompt too")
            return _ref(named[0])
        same = [question for question in named if _squeezed(question.prompt) == _squeezed(answer.prompt)]
        digest = prompt_sha256(answer.prompt)
        if same:  # spreadsheets change line ends and trailing blanks
            return _ref(same[0])
        if digest in self.by_digest:
            return _ref(self.by_digest[digest])
        external_id = answer.question_id or f"prompt:{digest[:16]}"
        return NewQuestion(external_id, answer.prompt, answer.benchmark)


def _ref(question: StoredQuestion) -> QuestionRef:
    return QuestionRef(question.id, question.external_id, question.prompt_sha256)


def _squeezed(text: str) -> str:
    return " ".join(text.split())
