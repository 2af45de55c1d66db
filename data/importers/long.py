"""The long format: a folder of questions.csv, models.csv and correctness.parquet, .csv or .jsonl.

`import_folder` brings one into SQL; `read_folder` reads one as a value, without a database.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from sqlalchemy import Engine

from data.errors import LogFormatError
from data.importers.intake import REJECTS_FOLDER, Grade, ImportSummary, Intake, Progress, read_grade
from data.importers.rejects import Rejects
from data.importers.rows import Table
from data.importers.values import CellError, count_of, model_name_of, number_of, optional_text, split_of_cell, text_of
from data.log import CELL_COLUMNS, MODEL_COLUMNS, QUESTION_COLUMNS, CorrectnessLog
from data.near_duplicates import group_near_duplicates
from data.observations import NewQuestion, QuestionRef, prompt_sha256
from data.queries import CHARS_PER_TOKEN
from data.splits import split_of
from data.store import ModelFields

Splitting = Literal["auto", "column", "seeded"]
NEEDED = "a long-format folder holds questions.csv, models.csv and one of correctness.parquet, .csv or .jsonl"
CORRECTNESS = ("correctness.parquet", "correctness.csv", "correctness.jsonl")


def import_folder(
    engine: Engine,
    path: Path,
    source: str | None = None,
    on_progress: Progress | None = None,
    rejects_folder: Path = REJECTS_FOLDER,
) -> ImportSummary:
    """Bring a folder's log into SQL; the same content again changes nothing."""
    files = _find(path)
    paths = (files.questions, files.models, files.correctness)
    with Intake(engine, "long", source, path, paths, on_progress, rejects_folder) as intake:
        tables = _open(files, intake.rejects)
        stored = intake.add_questions(tables.questions, _read_questions(tables.questions), "questions")
        questions = {external_id: ref for (external_id, _), ref in stored.items()}
        intake.group_questions("each")
        intake.add_models(_read_models(tables.models))
        intake.add_outcomes(tables.correctness, _read_outcomes(tables.correctness, questions), "outcomes")
        return intake.finish()


def read_folder(
    path: Path, *, split: Splitting = "auto", seed: int = 0, rejects: Rejects | None = None
) -> CorrectnessLog:
    """Read a folder's log as a value.

    split: "column" takes the splits that questions.csv states for every question; "seeded" draws 80/10/10 by
    near-duplicate group; "auto" is the first where there is such a column. Bad rows go to `rejects`, or else are
    counted in a warning.
    """
    kept = rejects or Rejects()
    tables = _open(_find(path), kept)
    if split == "auto":
        split = "column" if "split" in tables.questions.columns else "seeded"
    if split == "column" and "split" not in tables.questions.columns:
        raise LogFormatError(f"{tables.questions.path} has no column split: leave it to a seeded split")
    stated = list(_read_questions(tables.questions))
    models = _read_models(tables.models)
    positions = {
        question.external_id: QuestionRef(position, question.external_id, "")
        for position, question in enumerate(stated)
    }
    cells = _aggregate(_read_outcomes(tables.correctness, positions), models)
    if kept.n and rejects is None:
        logging.getLogger(__name__).warning("%d bad rows left out, first: %s", kept.n, kept.first[0])
    groups = group_near_duplicates([question.prompt for question in stated])
    questions = pd.DataFrame(
        {
            "key": np.arange(len(stated), dtype=np.int64),
            "question_id": [question.external_id for question in stated],
            "prompt": [question.prompt for question in stated],
            "benchmark": [question.benchmark for question in stated],
            "group": groups,
            "split": _stated_splits(tables.questions.path, stated)
            if split == "column"
            else _seeded_splits(stated, groups.tolist(), seed),
        },
        columns=list(QUESTION_COLUMNS),
    )
    prices = {column: [fields.get(column) for fields in models.values()] for column in MODEL_COLUMNS[1:]}
    table = pd.DataFrame({"model_name": list(models), **prices}, columns=list(MODEL_COLUMNS))
    return CorrectnessLog(questions, table.astype(dict.fromkeys(MODEL_COLUMNS[1:], np.float64)), cells)


@dataclass(frozen=True)
class _Files:
    questions: Path
    models: Path
    correctness: Path


@dataclass(frozen=True)
class _Tables:
    questions: Table
    models: Table
    correctness: Table


def _find(path: Path) -> _Files:
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise LogFormatError(f"{path} {what}: {NEEDED}")
    present = sorted(entry.name for entry in path.iterdir())
    missing = [name for name in ("questions.csv", "models.csv") if name not in present]
    found = [name for name in CORRECTNESS if name in present]
    if not found:
        missing.append("correctness.parquet, .csv or .jsonl")
    if missing:
        raise LogFormatError(f"{path} lacks {' and '.join(missing)}; it holds {_listed(present)}. {NEEDED}")
    if len(found) > 1:
        raise LogFormatError(f"{path} holds {' and '.join(found)}: keep the one that is meant")
    return _Files(path / "questions.csv", path / "models.csv", path / found[0])


def _open(files: _Files, rejects: Rejects) -> _Tables:
    tables = _Tables(
        Table(files.questions, rejects, ("question_id", "prompt", "category")),
        Table(files.models, rejects, ("model_name",)),
        Table(files.correctness, rejects, ("question_id", "model_name")),
    )
    if tables.correctness.columns and not {"label", "score"} & {*tables.correctness.columns}:
        raise LogFormatError(
            f"{files.correctness} lacks the column label (or score); it has {', '.join(tables.correctness.columns)}"
        )
    return tables


def _read_questions(table: Table) -> Iterator[NewQuestion]:
    met: dict[str, str] = {}
    for row in table:
        get = row.cells.get
        try:
            question = NewQuestion(
                external_id=text_of(get("question_id"), "question_id", 512).strip(),
                prompt=text_of(get("prompt"), "prompt", None),
                benchmark=(optional_text(get("category"), "category", 256) or "").strip(),
                subcategory=optional_text(get("subcategory"), "subcategory", 256),
                gold=optional_text(get("gold"), "gold"),
                split=split_of_cell(get("split")),
            )
        except CellError as error:
            table.reject(row, str(error))
            continue
        digest = prompt_sha256(question.prompt)
        if met.setdefault(question.external_id, digest) != digest:
            table.reject(row, f"question_id {question.external_id} stands for another prompt above")
        else:
            yield question


def _read_models(table: Table) -> dict[str, ModelFields]:
    models: dict[str, ModelFields] = {}
    for row in table:
        get = row.cells.get
        try:
            name = model_name_of(get("model_name"), "model_name")
            fields: ModelFields = {
                "usd_per_1m_input": number_of(get("usd_per_1m_input"), "usd_per_1m_input"),
                "usd_per_1m_output": number_of(get("usd_per_1m_output"), "usd_per_1m_output"),
                "context_window": count_of(get("context_window"), "context_window"),
            }
        except CellError as error:
            table.reject(row, str(error))
            continue
        if name in models:
            table.reject(row, f"model_name {name} stands above already")
        else:
            models[name] = fields
    return models


def _read_outcomes(table: Table, questions: dict[str, QuestionRef]) -> Iterator[tuple[QuestionRef, Grade]]:
    for row in table:
        try:
            grade = read_grade(row.cells, "question_id", "model_name")
        except CellError as error:
            table.reject(row, str(error))
            continue
        question = questions.get(grade.question_id)
        if question is None:
            table.reject(row, f"question_id {grade.question_id} is not in questions.csv")
        else:
            yield question, grade


def _aggregate(graded: Iterator[tuple[QuestionRef, Grade]], models: dict[str, ModelFields]) -> pd.DataFrame:
    """One row a cell; a model that models.csv does not list is added to `models`."""
    position = {name: at for at, name in enumerate(models)}
    rows: list[tuple[int, int, float, float, int]] = []
    for question, grade in graded:
        if grade.model_name not in position:
            position[grade.model_name] = len(position)
            models[grade.model_name] = {}
        rows.append((question.id, position[grade.model_name], grade.outcome, _tokens(grade), _is_estimated(grade)))
    columns = {"question": np.int64, "model": np.int64, "label": np.float64, "output_tokens": np.float64}
    columns |= {"tokens_estimated": np.int64}
    seen = pd.DataFrame.from_records(rows, columns=list(columns)).astype(columns)
    grouped = seen.groupby(["question", "model"], as_index=False)
    cells = grouped.agg(
        label=("label", "mean"),
        n_observations=("label", "size"),
        output_tokens=("output_tokens", "mean"),
        tokens_estimated=("tokens_estimated", "max"),
    )
    return cells[[*CELL_COLUMNS, "tokens_estimated"]]


def _tokens(grade: Grade) -> float:
    if grade.output_tokens is not None:
        return float(grade.output_tokens)
    return np.nan if grade.output_chars is None else grade.output_chars / CHARS_PER_TOKEN


def _is_estimated(grade: Grade) -> int:
    return int(grade.output_tokens is None and grade.output_chars is not None)


def _stated_splits(path: Path, questions: list[NewQuestion]) -> list[str]:
    unstated = [question.external_id for question in questions if question.split is None]
    if unstated:
        raise LogFormatError(
            f"{path} states no split for {len(unstated)} questions, the first is {unstated[0]}: "
            "fill the column, or leave it to a seeded split"
        )
    return [question.split or "" for question in questions]


def _seeded_splits(questions: list[NewQuestion], groups: list[int], seed: int) -> list[str]:
    """Draw each group's split from the least of its prompts' digests, so that the rows' order does not matter."""
    founder: dict[int, str] = {}
    for question, group in zip(questions, groups, strict=True):
        digest = prompt_sha256(question.prompt)
        founder[group] = min(founder.get(group, digest), digest)
    return [split_of(founder[group], seed) for group in groups]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + (" ..." if len(names) > 12 else "") if names else "nothing"
