"""Small logs written to disk, with contents that the tests know."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Engine, select

from data.tables import Base

QUESTIONS = (
    ("q1", "What is the capital of France, and which river runs through it?", "geography", "train"),
    ("q2", "Name the chemical element with the atomic number seventy-nine.", "chemistry", "val"),
    ("q3", "Which theorem links the three sides of every right-angled triangle?", "maths", "test"),
)
MODELS = (("small", "0.1", "0.2"), ("large", "3", "15"))


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def write_long(
    folder: Path,
    outcomes: Sequence[Sequence[object]],
    *,
    header: Sequence[str] = ("question_id", "model_name", "label"),
    kind: str = "csv",
    questions: Sequence[Sequence[object]] = QUESTIONS,
    models: Sequence[Sequence[object]] = MODELS,
) -> Path:
    """Write a long-format folder; `kind` is the type of its correctness file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "questions.csv", ("question_id", "prompt", "category", "split"), questions)
    write_csv(folder / "models.csv", ("model_name", "usd_per_1m_input", "usd_per_1m_output"), models)
    path = folder / f"correctness.{kind}"
    if kind == "csv":
        write_csv(path, header, outcomes)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in outcomes))
    else:
        columns = {name: [row[at] for row in outcomes] for at, name in enumerate(header)}
        pq.write_table(pa.table(columns), path)
    return folder


def contents(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    with engine.connect() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in Base.metadata.sorted_tables
        }


def observations(engine: Engine) -> set[tuple[object, ...]]:
    """The outcomes by what they say, without ids and times."""
    outcomes, questions, models = (Base.metadata.tables[name] for name in ("outcomes", "questions", "models"))
    statement = (
        select(
            questions.c.external_id,
            questions.c.prompt_sha256,
            questions.c.split,
            models.c.name,
            *(column for column in outcomes.c if column.name not in ("id", "created_at", "question_id", "model_id")),
        )
        .join(questions, questions.c.id == outcomes.c.question_id)
        .join(models, models.c.id == outcomes.c.model_id)
    )
    with engine.connect() as connection:
        return {tuple(row) for row in connection.execute(statement)}
