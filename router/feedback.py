"""Take feedback on a decision: into SQL at once, or into the spool while the database is away.

A decision reaches SQL a moment after its answer, so one that is not there yet is waited for. The database is asked from
threads of this module's own: one that hangs keeps nothing else waiting.
"""

import asyncio
import difflib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from data.feedback import NewFeedback, Received, add_feedback
from data.tables import utc_now
from router.errors import InvalidRequestError
from router.record import Recorder

KEYS = ("decision_id", "correct", "score", "thumbs", "source")
JUDGEMENTS = ("correct", "score", "thumbs")
MAX_SOURCE = 64
DATABASE_S = 5.0  # what a client waits for the database before its feedback goes to the spool
GRACE_S = 2.0  # beyond two flush intervals, until a decision must be in SQL
RUNNING = "its answer is still on its way: it is kept, and becomes an outcome when that has ended"
AWAY = "the database is away: it is kept, and becomes an outcome when the database is back and its question is known"


@dataclass(frozen=True)
class FeedbackAnswer:
    """What a client is told of its feedback."""

    status: int
    body: dict[str, object]


class FeedbackIntake:
    """Takes feedback for as long as the service runs."""

    def __init__(self, engine: Engine, recorder: Recorder, flush_interval_s: float) -> None:
        self._engine = engine
        self._recorder = recorder
        self._patience_s = 2 * flush_interval_s + GRACE_S
        self._asking = ThreadPoolExecutor(max_workers=4, thread_name_prefix="feedback")

    def close(self) -> None:
        self._asking.shutdown(wait=False, cancel_futures=True)

    async def take(self, feedback: NewFeedback) -> FeedbackAnswer:
        """Store feedback once; 404 where its decision is unknown, 409 where its source said something else before."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience_s
        while True:
            try:
                asking = loop.run_in_executor(self._asking, add_feedback, self._engine, feedback)
                received = await asyncio.wait_for(asking, DATABASE_S)
            except (SQLAlchemyError, TimeoutError):
                received = None
            is_running = self._recorder.is_running(feedback.decision_id)
            if received is None or (received.status == "unknown" and (self._recorder.is_behind or is_running)):
                self._recorder.give(feedback)
                said = {**_shown(feedback), "status": "accepted", "learned": None, "outcome_id": None}
                return FeedbackAnswer(202, {**said, "not_learned": RUNNING if is_running else AWAY})
            if received.status != "unknown":
                return _answer(feedback, received)
            if loop.time() > until:
                raise InvalidRequestError(
                    f"no decision {feedback.decision_id!r}; an answer's header x-embedrouter-decision-id names its own",
                    param="decision_id",
                    status=404,
                    code="decision_not_found",
                )
            await asyncio.sleep(0.1)


def read_feedback(content: bytes) -> NewFeedback:
    """Read feedback; InvalidRequestError names the part that is wrong."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise InvalidRequestError("the body is not JSON, or nested too deeply") from None
    if not isinstance(body, dict):
        raise InvalidRequestError('the body must be an object such as {"decision_id": "...", "correct": true}')
    for key in body:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"it takes {', '.join(KEYS)}"
            raise InvalidRequestError(f"unknown key `{key[:40]}`; {hint}", param=key[:40])
    decision_id = _text(body, "decision_id", 32)
    if not decision_id:
        raise InvalidRequestError(
            "`decision_id` is missing: it stands in x-embedrouter-decision-id", param="decision_id"
        )
    given = [name for name in JUDGEMENTS if body.get(name) is not None]
    if len(given) != 1:
        said = " and ".join(given) or "none"
        raise InvalidRequestError(f"give exactly one of {', '.join(JUDGEMENTS)}; given: {said}", param="correct")
    correct, score = _judgement(given[0], body[given[0]])
    return NewFeedback(decision_id, _text(body, "source", MAX_SOURCE), correct, score, utc_now())


def _judgement(name: str, value: object) -> tuple[bool | None, float | None]:
    if name == "correct" and isinstance(value, bool):
        return value, None
    if name == "thumbs" and value in ("up", "down"):
        return value == "up", None
    if name == "score" and isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return None, float(value)
    right = {"correct": "true or false", "thumbs": '"up" or "down"', "score": "a number between 0 and 1"}[name]
    raise InvalidRequestError(f"`{name}` must be {right}, not {json.dumps(value)[:60]}", param=name)


def _text(body: Mapping[str, object], name: str, longest: int) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > longest or not value.isprintable():
        raise InvalidRequestError(f"`{name}` must be a text of at most {longest} printable characters", param=name)
    return value


def _shown(feedback: NewFeedback) -> dict[str, object]:
    return {
        "object": "embedrouter.feedback",
        "decision_id": feedback.decision_id,
        "source": feedback.source,
        "correct": feedback.correct,
        "score": feedback.score,
    }


def _answer(feedback: NewFeedback, received: Received) -> FeedbackAnswer:
    if received.status == "conflicting":
        stored = received.stored
        assert stored is not None
        before = f"score {stored.score:g}" if stored.score is not None else f"correct {json.dumps(stored.correct)}"
        raise InvalidRequestError(
            f"source {feedback.source!r} said {before} of this decision before, and that stays; another `source` may "
            "say otherwise",
            param="decision_id",
            status=409,
            code="feedback_conflict",
        )
    learned = received.outcome_id is not None
    what = {"status": "recorded" if received.status == "new" else "repeated", "learned": learned}
    more = {"outcome_id": received.outcome_id, "not_learned": received.not_learned}
    return FeedbackAnswer(200, {**_shown(feedback), **what, **more})
