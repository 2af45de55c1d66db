"""The tables of the correctness logs, of artifacts and of decisions.

This module only declares. `data.store` and `data.promotions` write, `data.queries` reads, `alembic/` migrates; a test
holds the migrations and these declarations together.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SPLITS = ("train", "val", "test")

# SQLite increments only INTEGER primary keys; PostgreSQL wants 64 bits for a log that grows.
BigId = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time, aware and in UTC on every database (SQLite forgets the zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def utc_now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Names every constraint, so that a migration can name it too."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Question(Base):
    """A prompt with an id. The same id with another prompt is another question."""

    __tablename__ = "questions"
    __table_args__ = (
        UniqueConstraint("external_id", "prompt_sha256"),
        CheckConstraint("split IN ('train', 'val', 'test')", name="split"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    external_id: Mapped[str] = mapped_column(String(512), doc="the question_id of the log that brought it")
    prompt: Mapped[str] = mapped_column(Text)
    prompt_sha256: Mapped[str] = mapped_column(String(64), index=True)
    benchmark: Mapped[str] = mapped_column(String(256), default="", index=True)
    subcategory: Mapped[str | None] = mapped_column(String(256))
    gold: Mapped[str | None] = mapped_column(Text)
    group_id: Mapped[int | None] = mapped_column(BigId, index=True, doc="id of its near-duplicate group's founder")
    split: Mapped[str | None] = mapped_column(String(5), index=True, doc="fixed once, by its group; never moved")
    minhash: Mapped[bytes | None] = mapped_column(LargeBinary, doc="signature that finds near-duplicates")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class Model(Base):
    """An LLM under one name: its prices, its limits and, if it can be called, its upstream."""

    __tablename__ = "models"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(256), unique=True)
    usd_per_1m_input: Mapped[float | None] = mapped_column(Float)
    usd_per_1m_output: Mapped[float | None] = mapped_column(Float)
    context_window: Mapped[int | None] = mapped_column(Integer)
    capabilities: Mapped[list[str]] = mapped_column(JSON, default=list)
    upstream_url: Mapped[str | None] = mapped_column(String(1024), doc="an OpenAI-compatible base, ending in /v1")
    upstream_model: Mapped[str | None] = mapped_column(String(256), doc="the model's id there")
    upstream_key_env: Mapped[str | None] = mapped_column(String(256), doc="the environment variable with its key")
    retired: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class ModelAlias(Base):
    """Another name by which logs or clients call a model."""

    __tablename__ = "model_aliases"

    alias: Mapped[str] = mapped_column(String(256), primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), index=True)


class Import(Base):
    """One file set's import. The same content again is the same row."""

    __tablename__ = "imports"
    __table_args__ = (UniqueConstraint("format", "source", "content_sha256"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    format: Mapped[str] = mapped_column(String(32))
    source: Mapped[str] = mapped_column(String(256))
    path: Mapped[str] = mapped_column(Text)
    content_sha256: Mapped[str] = mapped_column(String(64))
    started_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    n_new: Mapped[int] = mapped_column(Integer, default=0)
    n_repeated: Mapped[int] = mapped_column(Integer, default=0)
    n_conflicting: Mapped[int] = mapped_column(Integer, default=0)
    n_rejected: Mapped[int] = mapped_column(Integer, default=0)


class Outcome(Base):
    """One observation of one model on one question. Absent is unknown, never wrong."""

    __tablename__ = "outcomes"
    __table_args__ = (
        CheckConstraint("label IN (0, 1)", name="label"),
        Index("ix_outcomes_question_id_model_id", "question_id", "model_id"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    question_id: Mapped[int] = mapped_column(ForeignKey("questions.id"))
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), index=True)
    import_id: Mapped[int | None] = mapped_column(ForeignKey("imports.id"), index=True)
    source: Mapped[str] = mapped_column(String(256))
    observation_key: Mapped[str] = mapped_column(
        String(32), unique=True, doc="digest of source, question, model, what was seen and its repetition"
    )
    label: Mapped[int] = mapped_column(SmallInteger)
    score: Mapped[float | None] = mapped_column(Float)
    graded: Mapped[bool] = mapped_column(
        default=False, server_default=false(), doc="whether the score alone was stated: the label is but its rounding"
    )
    cost_usd: Mapped[float | None] = mapped_column(Float)
    input_tokens: Mapped[int | None] = mapped_column(Integer)
    output_tokens: Mapped[int | None] = mapped_column(Integer)
    output_chars: Mapped[int | None] = mapped_column(Integer)
    latency_s: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class QuestionVector(Base):
    """A question's vector from an encoder that does not depend on the logs."""

    __tablename__ = "question_vectors"

    question_id: Mapped[int] = mapped_column(ForeignKey("questions.id", ondelete="CASCADE"), primary_key=True)
    encoder_fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    vector: Mapped[bytes] = mapped_column(LargeBinary, doc="little-endian float32")


class Artifact(Base):
    """A trained artifact: the directory is immutable, its name is its content."""

    __tablename__ = "artifacts"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    path: Mapped[str] = mapped_column(Text)
    encoder_fingerprint: Mapped[str] = mapped_column(String(64))
    data_fingerprint: Mapped[str] = mapped_column(String(64))
    outcome_watermark: Mapped[int] = mapped_column(BigId, doc="the last outcome id it could have seen")
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON)
    gate: Mapped[dict[str, Any] | None] = mapped_column(JSON, doc="the last gate's verdict on it")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class Promotion(Base):
    """One change of champion. The newest row is the champion; `parent_id` is what a rollback returns to."""

    __tablename__ = "promotions"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifacts.id"), index=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("promotions.id"))
    kind: Mapped[str] = mapped_column(String(16), doc="train, retrain, onboard, manual or rollback")
    reason: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class JobRun(Base):
    """One run of a scheduled job."""

    __tablename__ = "job_runs"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job: Mapped[str] = mapped_column(String(32))
    status: Mapped[str] = mapped_column(String(16), doc="running, promoted, refused, unchanged, failed or interrupted")
    artifact_id: Mapped[str | None] = mapped_column(ForeignKey("artifacts.id"))
    detail: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Decision(Base):
    """One routed request: what could have answered, what was chosen, what answered."""

    __tablename__ = "decisions"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    request_id: Mapped[str] = mapped_column(String(128), index=True)
    artifact_id: Mapped[str | None] = mapped_column(String(64), doc="none when a model was named outright")
    policy: Mapped[str] = mapped_column(String(32))
    policy_settings: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    candidates: Mapped[list[dict[str, Any]]] = mapped_column(
        JSON, doc="each model's p_correct, expected cost and propensity under the policy as executed"
    )
    first_choice: Mapped[str] = mapped_column(String(256))
    answered_by: Mapped[str | None] = mapped_column(String(256), index=True, doc="none when no upstream answered")
    p_correct: Mapped[float | None] = mapped_column(Float, doc="of the model that answered")
    attempts: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    status: Mapped[int] = mapped_column(Integer, doc="the HTTP status that the client saw")
    error: Mapped[str | None] = mapped_column(String(64), doc="the error's code, when there was one")
    streamed: Mapped[bool] = mapped_column(default=False)
    input_tokens: Mapped[int | None] = mapped_column(Integer)
    output_tokens: Mapped[int | None] = mapped_column(Integer)
    cost_usd: Mapped[float | None] = mapped_column(Float)
    overhead_s: Mapped[float | None] = mapped_column(Float)
    latency_s: Mapped[float | None] = mapped_column(Float)
    route_s: Mapped[float | None] = mapped_column(Float, doc="what encoding, scoring and choosing took")
    ttft_s: Mapped[float | None] = mapped_column(Float, doc="time to the first chunk of a streamed answer")
    inputs: Mapped[dict[str, Any] | None] = mapped_column(JSON, doc="what a replay reads besides the candidates")
    prompt: Mapped[str | None] = mapped_column(Text, doc="what was encoded, where prompts are recorded in full")
    prompt_sha256: Mapped[str | None] = mapped_column(String(64), doc="its digest, where prompts are recorded at all")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now, index=True)


class Feedback(Base):
    """What a user said of a decision's answer: once for each source."""

    __tablename__ = "feedback"
    __table_args__ = (UniqueConstraint("decision_id", "source"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    decision_id: Mapped[str] = mapped_column(ForeignKey("decisions.id"), index=True)
    source: Mapped[str] = mapped_column(String(64), default="")
    correct: Mapped[bool | None] = mapped_column()
    score: Mapped[float | None] = mapped_column(Float)
    outcome_id: Mapped[int | None] = mapped_column(
        ForeignKey("outcomes.id"), doc="what training reads of it; none where the prompt was not recorded"
    )
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
