"""The files that a forecast reads: a new benchmark's prompts, and labels of some of its items."""

from dataclasses import dataclass
from pathlib import Path

from data.errors import LogFormatError
from data.importers.rejects import Rejects
from data.importers.rows import Row, Table
from data.importers.values import CellError, number_of, optional_text, text_of

KINDS = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class NewQuestion:
    """A question that no model saw."""

    question_id: str
    prompt: str


@dataclass(frozen=True)
class Label:
    """One labelled item: model is None where the file does not say whose it is, benchmark where not of which."""

    question_id: str
    model: str | None
    label: float
    benchmark: str | None = None


def read_questions(path: Path) -> list[NewQuestion]:
    """Read prompts, with question_id or else numbered from 1; LogFormatError where a row is not one."""
    questions: dict[str, NewQuestion] = {}
    for row in _open(path, ("prompt",)):
        try:
            prompt = text_of(row.cells.get("prompt"), "prompt", None)
            stated = optional_text(row.cells.get("question_id"), "question_id", 512)
        except CellError as error:
            raise LogFormatError(f"{path} line {row.line}: {error}") from None
        question_id = (stated or str(len(questions) + 1)).strip()
        if question_id in questions:
            raise LogFormatError(f"{path} line {row.line}: question_id {question_id} stands above already")
        questions[question_id] = NewQuestion(question_id, prompt)
    if not questions:
        raise LogFormatError(f"{path} holds no questions: give it a row with a prompt for each")
    return list(questions.values())


def read_labels(path: Path) -> list[Label]:
    """Read question_id, label in [0, 1] and perhaps model_name and benchmark; rows without a label are left out.

    LogFormatError where a label is no such number, a row repeats, or nothing is labelled.
    """
    labels: dict[tuple[str, str | None, str | None], Label] = {}
    for row in _open(path, ("question_id", "label")):
        try:
            question_id = text_of(row.cells.get("question_id"), "question_id", 512).strip()
            model = _optional(row, "model_name")
            benchmark = _optional(row, "benchmark")
            label = number_of(row.cells.get("label"), "label", 1)
        except CellError as error:
            raise LogFormatError(f"{path} line {row.line}: {error}") from None
        if label is None:
            continue
        key = (question_id, model, benchmark)
        if key in labels:
            raise LogFormatError(f"{path} line {row.line}: question_id {question_id} is labelled above already")
        labels[key] = Label(question_id, model, label, benchmark)
    if not labels:
        raise LogFormatError(f"{path} holds no labelled items: give it rows with question_id and label (0 to 1)")
    return list(labels.values())


def _optional(row: Row, column: str) -> str | None:
    return (optional_text(row.cells.get(column), column, 256) or "").strip() or None


def _open(path: Path, needed: tuple[str, ...]) -> Table:
    if not path.is_file():
        raise LogFormatError(f"{path} {'is no file' if path.exists() else 'does not exist'}")
    if path.suffix not in KINDS:
        raise LogFormatError(f"{path} ends in {path.suffix or 'nothing'}: one of {', '.join(KINDS)} is read")
    if not path.stat().st_size:
        raise LogFormatError(f"{path} is empty: it needs the columns {', '.join(needed)}")
    return Table(path, _Strict(), needed)


class _Strict(Rejects):
    """Refuses the first bad row: a forecast from the rest would be of other items than were meant."""

    def add(self, file: str, line: int, reason: str, row: object) -> None:
        raise LogFormatError(f"{file} line {line}: {reason}")
