"""Imports: which there are, and forgetting one with all that only it brought.

Forgetting is one transaction, and no import, collection or training runs meanwhile: these hold ids that would go. The
same files imported afterwards are as new. What was trained with the outcomes stays, artifacts are immutable.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Engine, delete, exists, func, select, update
from sqlalchemy.orm import aliased

from data.database import take_lock, writing
from data.errors import EmbedRouterError
from data.locks import LOGS, holding
from data.queries import champion
from data.statements import among
from data.tables import Import, Model, ModelAlias, Outcome, Question, QuestionVector


@dataclass(frozen=True)
class ImportRow:
    """One import; `finished_at` is none where it was interrupted, or runs."""

    id: int
    source: str
    format: str
    path: str
    started_at: datetime
    finished_at: datetime | None
    n_new: int
    n_repeated: int
    n_conflicting: int
    n_rejected: int


@dataclass(frozen=True)
class Forgetting:
    """What goes with some imports: rows, and the questions and models that nothing else refers to.

    restated_by: later imports of the same sources that repeated outcomes, perhaps of these: they have to be run again.
    champion: the artifact that serves, where it was trained with some of these outcomes.
    """

    imports: tuple[ImportRow, ...]
    n_outcomes: int
    n_questions: int
    n_vectors: int
    models: tuple[str, ...]
    restated_by: tuple[int, ...]
    champion: str | None


@dataclass(frozen=True)
class _Orphans:
    """Questions, by id, and models, name by id, that only the outcomes of some imports refer to."""

    questions: list[int]
    models: dict[int, str]


def list_imports(engine: Engine) -> list[ImportRow]:
    """Every import, the oldest first."""
    with engine.connect() as connection:
        return _rows(connection)


def find_imports(engine: Engine, word: str) -> list[ImportRow]:
    """The import with an id, or all of a source; EmbedRouterError where there is none, or one of each."""
    rows = list_imports(engine)
    by_id = [row for row in rows if str(row.id) == word]
    by_source = [row for row in rows if row.source == word]
    if by_id and by_source and by_id != by_source:
        raise EmbedRouterError(
            f"{word} is an import's id, and the source of {_listed([row.id for row in by_source])} too: "
            "give the ids one by one where the source is meant"
        )
    if found := by_id or by_source:
        return found
    near = difflib.get_close_matches(word, [row.source for row in rows], n=3)
    hint = f"perhaps {', '.join(near)}" if near else "`embedrouter imports list` shows all"
    raise EmbedRouterError(f"no import has the id or the source {word}: {hint}")


def plan_forgetting(engine: Engine, ids: Sequence[int]) -> Forgetting:
    """Say what would go with these imports."""
    with engine.connect() as connection:
        return _plan(connection, ids, _orphans(connection, ids))


def forget_imports(engine: Engine, ids: Sequence[int]) -> Forgetting:
    """Delete these imports and what only they brought; EmbedRouterError while something else needs the logs."""
    with holding(engine, LOGS) as free:
        if not free:
            raise EmbedRouterError(
                "an import, a collection or a training runs on this database: nothing was forgotten, wait for it to end"
            )
        with writing(engine, lock="questions") as connection:
            for lock in ("models", "outcomes"):
                take_lock(connection, lock)
            orphans = _orphans(connection, ids)
            gone = _plan(connection, ids, orphans)
            connection.execute(delete(Outcome).where(Outcome.import_id.in_(ids)))
            _delete_questions(connection, orphans.questions)
            connection.execute(delete(Model).where(Model.id.in_(orphans.models)))
            connection.execute(delete(Import).where(Import.id.in_(ids)))
            return gone


def _rows(connection: Connection, ids: Sequence[int] | None = None) -> list[ImportRow]:
    columns = Import.__table__.c
    statement = select(*(columns[name] for name in ImportRow.__dataclass_fields__)).order_by(Import.id)
    if ids is not None:
        statement = statement.where(Import.id.in_(ids))
    return [ImportRow(*row) for row in connection.execute(statement)]


def _plan(connection: Connection, ids: Sequence[int], orphans: _Orphans) -> Forgetting:
    rows = _rows(connection, ids)
    if missing := {*ids} - {row.id for row in rows}:
        raise EmbedRouterError(f"import {_listed(sorted(missing))} is not there any more: nothing was forgotten")
    ours = Outcome.import_id.in_(ids)
    vectors = among(connection, QuestionVector.question_id, orphans.questions)
    sources = {row.source: row.id for row in reversed(rows)}
    restated = [
        row.id
        for row in _rows(connection)
        if row.id not in ids and row.n_repeated and row.id > sources.get(row.source, row.id)
    ]
    serving = champion(connection)
    seen = serving is not None and bool(
        connection.execute(select(exists().where(ours, Outcome.id <= serving.outcome_watermark))).scalar()
    )
    return Forgetting(
        imports=tuple(rows),
        n_outcomes=_count(connection, Outcome, ours),
        n_questions=len(orphans.questions),
        n_vectors=_count(connection, QuestionVector, vectors),
        models=tuple(sorted(orphans.models.values())),
        restated_by=tuple(restated),
        champion=serving.artifact_id if serving is not None and seen else None,
    )


def _orphans(connection: Connection, ids: Sequence[int]) -> _Orphans:
    """Find what would be without outcomes. A model that someone set something of, or that was there before, stays."""
    other = aliased(Outcome)
    elsewhere = other.import_id.is_(None) | other.import_id.not_in(ids)
    ours = Outcome.import_id.in_(ids)
    questions = select(Question.id).where(
        Question.id.in_(select(Outcome.question_id).where(ours)),
        ~exists().where(other.question_id == Question.id, elsewhere),
    )
    models = select(Model.id, Model.name, Model.capabilities).where(
        Model.id.in_(select(Outcome.model_id).where(ours)),
        ~exists().where(other.model_id == Model.id, elsewhere),
        ~exists().where(ModelAlias.model_id == Model.id),
        Model.upstream_url.is_(None),
        Model.upstream_model.is_(None),
        Model.upstream_key_env.is_(None),
        Model.retired.is_(False),
        Model.created_at >= select(func.min(Import.started_at)).where(Import.id.in_(ids)).scalar_subquery(),
    )
    return _Orphans(
        questions=list(connection.execute(questions).scalars()),
        models={row.id: row.name for row in connection.execute(models) if not row.capabilities},
    )


def _delete_questions(connection: Connection, ids: list[int]) -> None:
    """Delete questions; a group of near-duplicates that loses its founder is named after the oldest that is left."""
    gone, founded_by_gone = (among(connection, column, ids) for column in (Question.id, Question.group_id))
    heirs = (
        select(Question.group_id, func.min(Question.id).label("heir"))
        .where(founded_by_gone, ~gone)
        .group_by(Question.group_id)
    )
    for row in connection.execute(heirs).all():
        members = update(Question).where(Question.group_id == row.group_id, ~gone)
        connection.execute(members.values(group_id=row.heir))
    connection.execute(delete(QuestionVector).where(among(connection, QuestionVector.question_id, ids)))
    connection.execute(delete(Question).where(gone))


def _count(connection: Connection, entity: type[Outcome] | type[QuestionVector], which: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count()).select_from(entity).where(which)).scalar() or 0


def _listed(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids))
