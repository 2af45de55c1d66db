"""EmbedLLM's files: train.csv, val.csv and test.csv, one row a model and prompt, as its authors publish them.

Each row holds prompt_id, label, the model (model_name, or model_id with model_order.csv) and the prompt (or prompt_id
with question_order.csv), with `category` or `category_id` as the benchmark. The file that a row stands in is its
question's split. The same model and prompt stand there several times, under several categories and at times with both
labels: every row is kept, and aggregated when the log is read.
"""

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine

from data.errors import LogFormatError
from data.importers.intake import REJECTS_FOLDER, Grade, ImportSummary, Intake, Progress, read_grade
from data.importers.rejects import Rejects
from data.importers.rows import Row, Table
from data.importers.values import CellError, model_name_of, optional_text, text_of
from data.observations import NewQuestion, QuestionRef, prompt_sha256

SPLIT_FILES = ("train", "val", "test")  # in this order: a question that stands in two keeps the first split
NEEDED = (
    "an EmbedLLM folder holds at least one of train.csv, val.csv and test.csv, "
    "with model_order.csv and question_order.csv where those lack model_name or prompt"
)


def import_folder(
    engine: Engine,
    path: Path,
    source: str | None = None,
    on_progress: Progress | None = None,
    rejects_folder: Path = REJECTS_FOLDER,
) -> ImportSummary:
    """Bring EmbedLLM's files into SQL; the same content again changes nothing."""
    splits = _find(path)
    orders = [order for order in (path / "model_order.csv", path / "question_order.csv") if order.is_file()]
    with Intake(engine, "embedllm", source, path, [*splits.values(), *orders], on_progress, rejects_folder) as intake:
        model_names = _Order(path / "model_order.csv", "model_id", "model_name", intake.rejects)
        prompts = _Order(path / "question_order.csv", "prompt_id", "prompt", intake.rejects)
        # the files are read twice, for questions and for outcomes; their bad rows are told the second time
        silent = Rejects()
        questions: dict[tuple[str, str], QuestionRef] = {}
        for split, file in splits.items():
            table = _open(file, silent, model_names, prompts)
            stage = f"questions of {file.name}"
            questions |= intake.add_questions(table, _read_questions(table, split, prompts, questions), stage)
        intake.group_questions("first")
        intake.add_models({name: {} for name in _model_names(model_names)})
        for file in splits.values():
            table = _open(file, intake.rejects, model_names, prompts)
            graded = _read_outcomes(table, model_names, prompts, questions)
            intake.add_outcomes(table, graded, f"outcomes of {file.name}")
        return intake.finish()


class _Order:
    """A table of ids and what they stand for, in a file of its own; without the file it is empty."""

    def __init__(self, path: Path, key: str, column: str, rejects: Rejects) -> None:
        self.path = path
        self.key = key
        self.column = column
        self.texts: dict[str, str] = {}
        if not path.is_file():
            return
        table = Table(path, rejects, (key, column))
        for row in table:
            try:
                self.texts[text_of(row.cells[key], key, 512).strip()] = text_of(row.cells[column], column, None)
            except CellError as error:
                table.reject(row, str(error))

    def read(self, row: Row) -> str:
        """What a row says in this table's column, or else by its id."""
        if self.column in row.cells:
            return text_of(row.cells[self.column], self.column, None)
        key = text_of(row.cells.get(self.key), self.key, 512).strip()
        if key not in self.texts:
            raise CellError(f"{self.key} {key} is not in {self.path.name}")
        return self.texts[key]


def _model_names(order: _Order) -> Iterator[str]:
    for text in order.texts.values():
        try:
            yield model_name_of(text, order.column)
        except CellError:
            continue  # every outcome of such a model is set aside and says why


def _find(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise LogFormatError(f"{path} {what}: {NEEDED}")
    found = {split: path / f"{split}.csv" for split in SPLIT_FILES if (path / f"{split}.csv").is_file()}
    if not found:
        present = sorted(entry.name for entry in path.iterdir())
        raise LogFormatError(f"{path} holds {', '.join(present[:12]) or 'nothing'}: {NEEDED}")
    return found


def _open(file: Path, rejects: Rejects, model_names: _Order, prompts: _Order) -> Table:
    table = Table(file, rejects, ("prompt_id", "label"))
    for order in (model_names, prompts):
        if order.column not in table.columns and not (order.texts and order.key in table.columns):
            raise LogFormatError(
                f"{file} lacks the column {order.column}, and no {order.path.name} says it by {order.key}; "
                f"it has {', '.join(table.columns)}"
            )
    return table


def _read_questions(
    table: Table, split: str, prompts: _Order, known: dict[tuple[str, str], QuestionRef]
) -> Iterator[NewQuestion]:
    """Each question where it first appears."""
    met: set[tuple[str, str]] = set()
    for row in table:
        try:
            external_id = text_of(row.cells["prompt_id"], "prompt_id", 512).strip()
            prompt = prompts.read(row)
            identity = (external_id, prompt_sha256(prompt))
            if identity in met or identity in known:
                continue
            met.add(identity)
            benchmark = optional_text(row.cells.get("category"), "category", 256)
            benchmark = benchmark or optional_text(row.cells.get("category_id"), "category_id", 256)
        except CellError:
            continue  # the reading of outcomes sets this row aside and says why
        yield NewQuestion(external_id, prompt, (benchmark or "").strip(), split=split)


def _read_outcomes(
    table: Table, model_names: _Order, prompts: _Order, questions: dict[tuple[str, str], QuestionRef]
) -> Iterator[tuple[QuestionRef, Grade]]:
    for row in table:
        try:
            name = model_names.read(row)
            prompt = prompts.read(row)
            grade = read_grade({**row.cells, "model_name": name}, "prompt_id", "model_name")
        except CellError as error:
            table.reject(row, str(error))
            continue
        question = questions.get((grade.question_id, prompt_sha256(prompt)))
        if question is None:
            table.reject(row, "category is longer than 256 characters")
        else:
            yield question, grade
