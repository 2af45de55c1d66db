"""Every read of the database, as frozen values and tables. Writes are in `data.store` and `data.promotions`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Engine, Select, and_, case, func, null, or_, select

from data.log import CorrectnessLog
from data.repeats import RepeatRate as RepeatRate
from data.repeats import rate_repeats
from data.statements import among
from data.tables import (
    Artifact,
    Decision,
    Import,
    JobRun,
    Model,
    ModelAlias,
    Outcome,
    Promotion,
    Question,
    QuestionVector,
)

CHARS_PER_TOKEN = 4.0  # a rough stand-in where a log counts characters
ANSWER_COUNTS = ("n", "n_right", "n_earlier", "n_earlier_right")


@dataclass(frozen=True)
class ChampionRow:
    """The artifact that serves, when it was made, and the promotion that made it champion."""

    promotion_id: int
    artifact_id: str
    path: str
    outcome_watermark: int
    made_at: datetime
    promoted_at: datetime
    kind: str
    reason: str
    parent_id: int | None


@dataclass(frozen=True)
class ArtifactRow:
    """An artifact as listed; `metrics` is the whole comparison, `gate` the last verdict on it."""

    id: str
    path: str
    encoder_fingerprint: str
    data_fingerprint: str
    outcome_watermark: int
    metrics: dict[str, Any]
    gate: dict[str, Any] | None
    created_at: datetime


@dataclass(frozen=True)
class ModelRow:
    """A model of the pool; None is unknown."""

    name: str
    usd_per_1m_input: float | None
    usd_per_1m_output: float | None
    context_window: int | None
    capabilities: tuple[str, ...]
    upstream_url: str | None
    upstream_model: str | None
    upstream_key_env: str | None
    aliases: tuple[str, ...]
    retired: bool
    n_outcomes: int


@dataclass(frozen=True)
class JobRow:
    """One run of a job."""

    id: int
    job: str
    status: str
    artifact_id: str | None
    detail: dict[str, Any]
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredQuestion:
    """A question by everything that a row of a log may name it by."""

    id: int
    external_id: str
    prompt_sha256: str
    prompt: str


@dataclass(frozen=True)
class LastIds:
    """The newest question and model."""

    question: int
    model: int


def last_ids(engine: Engine) -> LastIds:
    """Where questions and models end now; what is added later has higher ids."""
    with engine.connect() as connection:
        question = connection.execute(select(func.max(Question.id))).scalar()
        return LastIds(question or 0, connection.execute(select(func.max(Model.id))).scalar() or 0)


def last_outcome(engine: Engine) -> int:
    """The newest outcome's id; 0 where there is none."""
    with engine.connect() as connection:
        return connection.execute(select(func.max(Outcome.id))).scalar() or 0


def source_of(engine: Engine, file_format: str, content_sha256: str) -> str | None:
    """The source under which a file set was imported first, if it was."""
    same = (Import.format == file_format, Import.content_sha256 == content_sha256)
    with engine.connect() as connection:
        return connection.execute(select(Import.source).where(*same).order_by(Import.id).limit(1)).scalar()


def read_log(engine: Engine, *, up_to_outcome: int | None = None, after_outcome: int | None = None) -> CorrectnessLog:
    """Read the log as it stood at one outcome, or what came after one, repeated observations aggregated.

    Every model is read, retired ones too; of the questions those that have a group and a split.
    """
    seen = _between(after_outcome, up_to_outcome)
    with engine.connect() as connection:
        watermark = connection.execute(select(func.max(Outcome.id)).where(seen)).scalar() or 0
        questions = _frame(
            connection,
            select(
                Question.id.label("key"),
                Question.external_id.label("question_id"),
                Question.prompt,
                Question.benchmark,
                Question.group_id.label("group"),
                Question.split,
            )
            .where(Question.group_id.is_not(None), Question.split.is_not(None))
            .order_by(Question.id),
        )
        models = _frame(
            connection,
            select(Model.id, Model.name.label("model_name"), Model.usd_per_1m_input, Model.usd_per_1m_output).order_by(
                Model.id
            ),
        )
        cells = _frame(
            connection,
            select(
                Outcome.question_id.label("question"),
                Outcome.model_id.label("model"),
                func.avg(_outcome()).label("label"),
                func.count().label("n_observations"),
                func.avg(_tokens()).label("output_tokens"),
                func.max(_taken_from_characters()).label("tokens_estimated"),
            )
            .where(seen, Outcome.id <= watermark)
            .group_by(Outcome.question_id, Outcome.model_id)
            .order_by(Outcome.question_id, Outcome.model_id),
        )
    for column in ("usd_per_1m_input", "usd_per_1m_output"):
        models[column] = models[column].astype(np.float64)
    for column in ("label", "output_tokens"):
        cells[column] = cells[column].astype(np.float64)
    cells["question"] = pd.Index(questions["key"]).get_indexer(pd.Index(cells["question"]))
    cells["model"] = pd.Index(models["id"]).get_indexer(pd.Index(cells["model"]))
    cells = cells[cells["question"] >= 0].reset_index(drop=True)
    return CorrectnessLog(questions, models.drop(columns="id"), cells, int(watermark))


def _outcome() -> ColumnElement[float]:
    """What an outcome says, from 0 to 1: its label, or its score where that alone was stated."""
    return case((Outcome.graded, Outcome.score), else_=Outcome.label * 1.0)


def _tokens() -> ColumnElement[float]:
    """An outcome's output tokens, estimated where only characters were counted."""
    return func.coalesce(Outcome.output_tokens, Outcome.output_chars / CHARS_PER_TOKEN)


def _taken_from_characters() -> ColumnElement[int]:
    """1 where an outcome's tokens are estimated, else 0."""
    return case((and_(Outcome.output_tokens.is_(None), Outcome.output_chars.is_not(None)), 1), else_=0)


def champion(at: Engine | Connection) -> ChampionRow | None:
    """The artifact of the newest promotion, if there was one."""
    if isinstance(at, Engine):
        with at.connect() as connection:
            return champion(connection)
    return _promoted(at, Promotion.id == select(func.max(Promotion.id)).scalar_subquery())


def rollback_target(engine: Engine) -> ChampionRow | None:
    """What a rollback brings back: the champion before this one, if there was one."""
    with engine.connect() as connection:
        current = champion(connection)
        if current is None or current.parent_id is None:
            return None
        return _promoted(connection, Promotion.id == current.parent_id)


def _promoted(connection: Connection, which: ColumnElement[bool]) -> ChampionRow | None:
    statement = (
        select(
            Promotion.id,
            Promotion.artifact_id,
            Artifact.path,
            Artifact.outcome_watermark,
            Artifact.created_at.label("made_at"),
            Promotion.created_at,
            Promotion.kind,
            Promotion.reason,
            Promotion.parent_id,
        )
        .join(Artifact, Artifact.id == Promotion.artifact_id)
        .where(which)
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else ChampionRow(*row)


def artifacts(engine: Engine) -> list[ArtifactRow]:
    """Every artifact listed, the newest first."""
    columns = Artifact.__table__.c
    names = ArtifactRow.__dataclass_fields__
    statement = select(*(columns[name] for name in names)).order_by(Artifact.created_at.desc(), Artifact.id)
    with engine.connect() as connection:
        return [ArtifactRow(*row) for row in connection.execute(statement)]


def job_runs(engine: Engine, limit: int = 100) -> list[JobRow]:
    """The latest runs of jobs, the newest first."""
    columns = JobRun.__table__.c
    names = JobRow.__dataclass_fields__
    statement = select(*(columns[name] for name in names)).order_by(JobRun.id.desc()).limit(limit)
    with engine.connect() as connection:
        return [JobRow(*row) for row in connection.execute(statement)]


def pool_models(engine: Engine) -> list[ModelRow]:
    """Every model, by name, with its aliases and the number of its outcomes."""
    counts = select(Outcome.model_id, func.count().label("n")).group_by(Outcome.model_id).subquery()
    statement = (
        select(Model.__table__, func.coalesce(counts.c.n, 0).label("n_outcomes"))
        .outerjoin(counts, counts.c.model_id == Model.id)
        .order_by(Model.name)
    )
    with engine.connect() as connection:
        aliases: dict[int, list[str]] = {}
        for row in connection.execute(select(ModelAlias.model_id, ModelAlias.alias).order_by(ModelAlias.alias)):
            aliases.setdefault(row.model_id, []).append(row.alias)
        return [
            ModelRow(
                name=row.name,
                usd_per_1m_input=row.usd_per_1m_input,
                usd_per_1m_output=row.usd_per_1m_output,
                context_window=row.context_window,
                capabilities=tuple(row.capabilities),
                upstream_url=row.upstream_url,
                upstream_model=row.upstream_model,
                upstream_key_env=row.upstream_key_env,
                aliases=tuple(aliases.get(row.id, ())),
                retired=row.retired,
                n_outcomes=row.n_outcomes,
            )
            for row in connection.execute(statement)
        ]


def retired_models(engine: Engine) -> frozenset[str]:
    """The names of the models that are out of use; cheaper to ask than the whole pool."""
    with engine.connect() as connection:
        return frozenset(connection.execute(select(Model.name).where(Model.retired)).scalars())


def question_vectors(engine: Engine, fingerprint: str) -> dict[int, NDArray[np.float32]]:
    """The cached vectors of one encoder, each of shape (d,), by question id."""
    statement = select(QuestionVector.question_id, QuestionVector.vector)
    statement = statement.where(QuestionVector.encoder_fingerprint == fingerprint)
    with engine.connect() as connection:
        return {
            row.question_id: np.frombuffer(row.vector, dtype="<f4").astype(np.float32, copy=False)
            for row in connection.execute(statement)
        }


def observed_pairs(engine: Engine, source: str) -> set[tuple[int, int]]:
    """The (question id, model id) pairs of which a source has an outcome."""
    statement = select(Outcome.question_id, Outcome.model_id).where(Outcome.source == source).distinct()
    with engine.connect() as connection:
        return {(row.question_id, row.model_id) for row in connection.execute(statement)}


def find_questions(engine: Engine, external_ids: Sequence[str], digests: Sequence[str]) -> list[StoredQuestion]:
    """The questions, oldest first, that have one of these external ids or a prompt of one of these digests."""
    statement = select(Question.id, Question.external_id, Question.prompt_sha256, Question.prompt).order_by(Question.id)
    with engine.connect() as connection:
        named = among(connection, Question.external_id, external_ids)
        same = among(connection, Question.prompt_sha256, digests)
        return [StoredQuestion(*row) for row in connection.execute(statement.where(or_(named, same)))]


def question_names(engine: Engine) -> pd.DataFrame:
    """Every question that has a split: `key`, `question_id`, `benchmark` and `split`, by key; no prompts."""
    names = (Question.id.label("key"), Question.external_id.label("question_id"), Question.benchmark, Question.split)
    statement = select(*names).where(Question.group_id.is_not(None), Question.split.is_not(None)).order_by(Question.id)
    with engine.connect() as connection:
        return _frame(connection, statement)


def held_out_questions(engine: Engine) -> list[int]:
    """The ids of the questions that no fit may learn from: test, and near-duplicates of test questions."""
    test_groups = select(Question.group_id).where(Question.split == "test", Question.group_id.is_not(None))
    with engine.connect() as connection:
        return list(connection.execute(select(Question.id).where(Question.group_id.in_(test_groups))).scalars())


def prompts_of(engine: Engine, keys: Sequence[int]) -> dict[int, str]:
    """The prompts of questions by their ids."""
    with engine.connect() as connection:
        statement = select(Question.id, Question.prompt).where(among(connection, Question.id, keys))
        return {row.id: row.prompt for row in connection.execute(statement)}


def answers_of(engine: Engine, model_name: str, after_outcome: int = 0) -> pd.DataFrame:
    """One model's outcomes after one: `key`, `prompt`, `split`, `label` and `output_tokens`, repeats averaged.

    `n_observations`: how many the means are of. `tokens_estimated`: 1 where some of these tokens were taken from
    characters, else 0.
    """
    statement = (
        select(
            Question.id.label("key"),
            Question.prompt,
            Question.split,
            func.avg(_outcome()).label("label"),
            func.count().label("n_observations"),
            func.avg(_tokens()).label("output_tokens"),
            func.max(_taken_from_characters()).label("tokens_estimated"),
        )
        .join(Question, Question.id == Outcome.question_id)
        .join(Model, Model.id == Outcome.model_id)
        .where(Model.name == model_name, Outcome.id > after_outcome, Question.split.is_not(None))
        .group_by(Question.id)
        .order_by(Question.id)
    )
    with engine.connect() as connection:
        return _frame(connection, statement).astype({"label": np.float64, "output_tokens": np.float64})


def answer_counts(engine: Engine, model_name: str, after_outcome: int = 0) -> pd.DataFrame:
    """Count one model's outcomes by question and source: `n` and `n_right` after an outcome, and until then.

    Columns: `question` (its id), `source`, `n`, `n_right`, `n_earlier`, `n_earlier_right`.
    """
    later = case((Outcome.id > after_outcome, 1), else_=0)
    statement = (
        select(
            Outcome.question_id.label("question"),
            Outcome.source,
            func.sum(later).label("n"),
            func.sum(later * Outcome.label).label("n_right"),
            func.sum(1 - later).label("n_earlier"),
            func.sum((1 - later) * Outcome.label).label("n_earlier_right"),
        )
        .join(Model, Model.id == Outcome.model_id)
        .where(Model.name == model_name)
        .group_by(Outcome.question_id, Outcome.source)
        .order_by(Outcome.question_id, Outcome.source)
    )
    with engine.connect() as connection:
        return _frame(connection, statement).astype(dict.fromkeys(ANSWER_COUNTS, np.int64))


def answers_of_others(engine: Engine, model_name: str, keys: Sequence[int]) -> pd.DataFrame:
    """What all models but one answered to questions: mean `label` by `key` and `model`, their ids."""
    statement = (
        select(
            Outcome.question_id.label("key"),
            Outcome.model_id.label("model"),
            func.avg(_outcome()).label("label"),
        )
        .join(Model, Model.id == Outcome.model_id)
        .where(Model.name != model_name)
        .group_by(Outcome.question_id, Outcome.model_id)
        .order_by(Outcome.question_id, Outcome.model_id)
    )
    with engine.connect() as connection:
        asked = statement.where(among(connection, Outcome.question_id, keys))
        return _frame(connection, asked).astype({"label": np.float64})


def additions(engine: Engine, after_outcome: int, up_to_outcome: int | None = None) -> pd.DataFrame:
    """What each source added after an outcome, beside what was known of the same model and question until then.

    One row a source, question and model: `source`, `question` (its id), `benchmark`, `group`, `model_name`, `n` and
    `n_right` observations added, `n_earlier` and `n_earlier_right` before (0 where there were none).
    """
    earlier = _counts(_between(None, after_outcome)).subquery("earlier")
    later = _counts(_between(after_outcome, up_to_outcome), Outcome.source).subquery("later")
    same_pair = and_(earlier.c.question_id == later.c.question_id, earlier.c.model_id == later.c.model_id)
    statement = (
        select(
            later.c.source,
            Question.id.label("question"),
            Question.benchmark,
            Question.group_id.label("group"),
            Model.name.label("model_name"),
            later.c.n,
            later.c.n_right,
            func.coalesce(earlier.c.n, 0).label("n_earlier"),
            func.coalesce(earlier.c.n_right, 0).label("n_earlier_right"),
        )
        .join(Question, Question.id == later.c.question_id)
        .join(Model, Model.id == later.c.model_id)
        .outerjoin(earlier, same_pair)
        .where(Question.group_id.is_not(None))
        .order_by(later.c.source, Question.id, Model.id)
    )
    with engine.connect() as connection:
        return _frame(connection, statement)


def repeat_rate(engine: Engine, up_to_outcome: int | None = None) -> RepeatRate:
    """How often repeated observations of one model on one question disagree."""
    seen = _between(None, up_to_outcome)
    repeated = _counts(seen).having(func.count() > 1).subquery()
    statement = (
        select(
            Outcome.question_id.label("question"),
            Outcome.model_id.label("model"),
            Outcome.source,
            Outcome.import_id,
            func.min(Outcome.id).label("first"),
            func.count().label("n"),
            func.sum(Outcome.label).label("n_right"),
        )
        .join(
            repeated,
            and_(repeated.c.question_id == Outcome.question_id, repeated.c.model_id == Outcome.model_id),
        )
        .where(seen)
        .group_by(Outcome.question_id, Outcome.model_id, Outcome.source, Outcome.import_id)
    )
    with engine.connect() as connection:
        return rate_repeats(_frame(connection, statement))


def decisions(engine: Engine, limit: int = 1000) -> list[dict[str, Any]]:
    """The latest routed requests, the newest first."""
    statement = select(Decision.__table__).order_by(Decision.created_at.desc(), Decision.id).limit(limit)
    with engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(statement)]


def timings(engine: Engine) -> pd.DataFrame:
    """Read every answer that was timed and whose tokens were counted, outcomes first, then decisions, the newest last.

    One row an answer: `model_name`, `latency_s`, `output_tokens`, `first_token_s` (NaN where it was not seen). Of
    decisions only those that the first upstream answered: no failed attempt's time is in it, nor the router's own.
    """
    outcomes = (
        select(Model.name.label("model_name"), Outcome.latency_s, Outcome.output_tokens, null().label("first_token_s"))
        .join(Model, Model.id == Outcome.model_id)
        .where(Outcome.latency_s.is_not(None), Outcome.output_tokens.is_not(None))
        .order_by(Outcome.id)
    )
    own_s = func.coalesce(Decision.overhead_s, 0.0)
    decided = (
        select(
            func.coalesce(Model.name, Decision.answered_by).label("model_name"),
            (Decision.latency_s - own_s).label("latency_s"),
            Decision.output_tokens,
            (Decision.ttft_s - own_s).label("first_token_s"),
        )
        .outerjoin(ModelAlias, ModelAlias.alias == Decision.answered_by)
        .outerjoin(Model, Model.id == ModelAlias.model_id)
        .where(
            Decision.status == 200,
            Decision.error.is_(None),
            Decision.answered_by == Decision.first_choice,
            Decision.latency_s.is_not(None),
            Decision.output_tokens.is_not(None),
        )
        .order_by(Decision.created_at, Decision.id)
    )
    with engine.connect() as connection:
        frames = [_frame(connection, statement) for statement in (outcomes, decided)]
    numbers = dict.fromkeys(("latency_s", "output_tokens", "first_token_s"), np.float64)
    return pd.concat([frame.astype(numbers) for frame in frames], ignore_index=True)


def decision(engine: Engine, decision_id: str) -> dict[str, Any] | None:
    """One routed request, if it is recorded."""
    with engine.connect() as connection:
        row = connection.execute(select(Decision.__table__).where(Decision.id == decision_id)).one_or_none()
        return None if row is None else dict(row._mapping)


def _between(after: int | None, up_to: int | None) -> ColumnElement[bool]:
    """Outcomes after one id and up to another; None is no bound."""
    return and_(Outcome.id > (after or 0), *([] if up_to is None else [Outcome.id <= up_to]))


def _counts(seen: ColumnElement[bool], *also_by: Any) -> Select[*tuple[Any, ...]]:
    by = (Outcome.question_id, Outcome.model_id, *also_by)
    return select(*by, func.count().label("n"), func.sum(Outcome.label).label("n_right")).where(seen).group_by(*by)


def _frame(connection: Connection, statement: Select[*tuple[Any, ...]]) -> pd.DataFrame:
    result = connection.execute(statement)
    rows = [tuple(row) for row in result]  # pandas asks every row of another kind what it is, which costs more than SQL
    return pd.DataFrame.from_records(rows, columns=list(result.keys()))
