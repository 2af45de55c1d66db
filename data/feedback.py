"""Turn what a user said of an answer into an outcome that training reads.

Feedback is kept once for each decision and source, and repeating it changes nothing. It becomes an outcome where the
decision's question is known: by its recorded prompt, or by a digest that a question of the logs has too. A question
that it brings gets its group and split, as any other, before the next training.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Row, select

from data.database import writing
from data.observations import NewQuestion
from data.statements import insert_new
from data.store import add_questions, ensure_models, insert_outcomes
from data.tables import Decision, Feedback, Model, ModelAlias, Outcome, Question, utc_now

SOURCE = "feedback"
RIGHT_FROM = 0.5  # a score of this much counts as correct
NO_ANSWER = "no model answered it"
NO_PROMPT = "its prompt is not recorded (`recording.prompts: off`) or had no text, so its question is unknown"
NO_QUESTION = "prompts are recorded hashed, and no question of the logs has this one's digest"

Status = Literal["new", "repeated", "conflicting", "unknown"]


@dataclass(frozen=True)
class NewFeedback:
    """What one source says of one decision's answer: that it was correct or not, or a score in [0, 1]."""

    decision_id: str
    source: str = ""
    correct: bool | None = None
    score: float | None = None
    created_at: datetime | None = None

    @property
    def label(self) -> int:
        return int(self.correct if self.correct is not None else (self.score or 0.0) >= RIGHT_FROM)


@dataclass(frozen=True)
class Received:
    """What became of feedback. `not_learned` says why no outcome came of it; `stored` what a conflict is with."""

    status: Status
    outcome_id: int | None = None
    not_learned: str | None = None
    stored: NewFeedback | None = None


def add_feedback(engine: Engine, feedback: NewFeedback) -> Received:
    """Store feedback and its outcome; the same again changes nothing, something else from the same source neither."""
    with engine.connect() as connection:
        decision = connection.execute(
            select(Decision.__table__).where(Decision.id == feedback.decision_id)
        ).one_or_none()
        if decision is None:
            return Received("unknown")
        if (stored := _stored(connection, feedback)) is not None:
            return stored
        question_id = _question_id(connection, decision)
        model_id = None if decision.answered_by is None else _model_id(connection, decision)
    if decision.answered_by is not None and question_id is None and decision.prompt:
        new = NewQuestion(f"{SOURCE}:{decision.prompt_sha256[:16]}", decision.prompt, benchmark=SOURCE)
        question_id = add_questions(engine, [new])[0].id
    if question_id is not None and model_id is None:
        model_id = ensure_models(engine, [decision.answered_by])[decision.answered_by].id
    with writing(engine, lock="outcomes") as connection:  # ids must appear in their order: watermarks rely on it
        if (stored := _stored(connection, feedback)) is not None:
            return stored
        outcome_id = None
        if question_id is not None and model_id is not None:
            outcome_id = _add_outcome(connection, feedback, decision, question_id, model_id)
        row = {
            "decision_id": feedback.decision_id,
            "source": feedback.source,
            "correct": feedback.correct,
            "score": feedback.score,
            "outcome_id": outcome_id,
            "created_at": feedback.created_at or utc_now(),
        }
        insert_new(connection, Feedback, [row])
    return Received("new", outcome_id, _not_learned(decision) if outcome_id is None else None)


def _stored(connection: Connection, feedback: NewFeedback) -> Received | None:
    """What this source said of this decision before, if it did."""
    same = (Feedback.decision_id == feedback.decision_id, Feedback.source == feedback.source)
    row = connection.execute(select(Feedback.__table__).where(*same)).one_or_none()
    if row is None:
        return None
    if (row.correct, row.score) != (feedback.correct, feedback.score):
        stored = NewFeedback(row.decision_id, row.source, row.correct, row.score)
        return Received("conflicting", row.outcome_id, stored=stored)
    decision = connection.execute(select(Decision.__table__).where(Decision.id == feedback.decision_id)).one()
    return Received("repeated", row.outcome_id, _not_learned(decision) if row.outcome_id is None else None)


def _question_id(connection: Connection, decision: Row[Any]) -> int | None:
    """The first question of the logs with this decision's prompt."""
    if decision.answered_by is None or decision.prompt_sha256 is None:
        return None
    same = select(Question.id).where(Question.prompt_sha256 == decision.prompt_sha256)
    return connection.execute(same.order_by(Question.id).limit(1)).scalar()


def _model_id(connection: Connection, decision: Row[Any]) -> int | None:
    """The model that answered, by the first of its pool's names that the logs know; none where they know none."""
    for name in (decision.answered_by, *(decision.inputs or {}).get("aliases", ())):
        by_name = connection.execute(select(Model.id).where(Model.name == name)).scalar()
        by_alias = connection.execute(select(ModelAlias.model_id).where(ModelAlias.alias == name)).scalar()
        found = by_name if by_name is not None else by_alias
        if found is not None:
            return found
    return None


def _add_outcome(
    connection: Connection, feedback: NewFeedback, decision: Row[Any], question_id: int, model_id: int
) -> int:
    said = json.dumps([SOURCE, feedback.decision_id, feedback.source])
    key = hashlib.blake2b(said.encode(), digest_size=16).hexdigest()
    row = {
        "question_id": question_id,
        "model_id": model_id,
        "import_id": None,
        "source": SOURCE if not feedback.source else f"{SOURCE}:{feedback.source}",
        "observation_key": key,
        "label": feedback.label,
        "score": feedback.score,
        "graded": feedback.correct is None,
        "cost_usd": decision.cost_usd,
        "input_tokens": decision.input_tokens,
        "output_tokens": decision.output_tokens,
        "latency_s": decision.latency_s,
        "created_at": utc_now(),
    }
    insert_outcomes(connection, [row])
    return connection.execute(select(Outcome.id).where(Outcome.observation_key == key)).scalar_one()


def _not_learned(decision: Row[Any]) -> str:
    if decision.answered_by is None:
        return NO_ANSWER
    return NO_PROMPT if decision.prompt_sha256 is None else NO_QUESTION
