"""Feedback on a decision becomes an outcome that training reads: once, and only where its question is known."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from data.database import ready_engine
from data.feedback import NO_ANSWER, NO_PROMPT, NO_QUESTION, NewFeedback, add_feedback
from data.observations import NewQuestion, prompt_sha256
from data.queries import read_log
from data.splits import group_questions
from data.store import add_decisions, add_questions, set_model
from router.errors import InvalidRequestError
from router.feedback import read_feedback
from tests.serving import A_POEM, A_SUM, Gateway, entry, planted_artifact, register, run_gateway, settings
from tests.upstreams import run_upstream
from tests.waiting import until

DECISION = {
    "id": "d1",
    "request_id": "r",
    "policy": "quality",
    "candidates": [],
    "first_choice": "small",
    "answered_by": "small",
    "attempts": [],
    "status": 200,
    "output_tokens": 7,
    "cost_usd": 0.25,
    "prompt": "what is one?",
    "prompt_sha256": prompt_sha256("what is one?"),
}


def outcomes(engine: Engine) -> list[dict[str, Any]]:
    """Outcomes as training reads them, with their question's text and their model's name."""
    group_questions(engine)
    log = read_log(engine)
    prompts, splits, models = (
        log.questions["prompt"].tolist(),
        log.questions["split"].tolist(),
        log.models["model_name"].tolist(),
    )
    cells = zip(*(log.cells[name].tolist() for name in ("question", "model", "label", "n_observations")), strict=True)
    return [
        {"prompt": prompts[question], "split": splits[question], "model": models[model], "label": label, "n": n}
        for question, model, label, n in cells
    ]


def test_feedback_becomes_an_outcome_with_what_the_decision_knows(engine: Engine) -> None:
    add_decisions(engine, [DECISION])
    received = add_feedback(engine, NewFeedback("d1", correct=False))
    assert (received.status, received.not_learned) == ("new", None)
    (outcome,) = outcomes(engine)
    assert (outcome["prompt"], outcome["model"], outcome["label"]) == ("what is one?", "small", 0)
    assert outcome["split"] in ("train", "val", "test")
    with engine.connect() as connection:
        row = connection.execute(text("SELECT source, cost_usd, output_tokens FROM outcomes")).one()
    assert tuple(row) == ("feedback", 0.25, 7)


@pytest.mark.parametrize(("score", "label"), [(0.0, 0), (0.49, 0), (0.5, 1), (1.0, 1)])
def test_a_score_of_a_half_or_more_is_correct_and_kept(engine: Engine, score: float, label: int) -> None:
    add_decisions(engine, [DECISION])
    add_feedback(engine, NewFeedback("d1", score=score))
    with engine.connect() as connection:
        assert tuple(connection.execute(text("SELECT label, score FROM outcomes")).one()) == (label, score)


def test_the_same_feedback_again_changes_nothing_and_other_words_of_the_same_source_are_a_conflict(
    engine: Engine,
) -> None:
    add_decisions(engine, [DECISION])
    first = add_feedback(engine, NewFeedback("d1", "tests", correct=True))
    again = add_feedback(engine, NewFeedback("d1", "tests", correct=True))
    assert (again.status, again.outcome_id) == ("repeated", first.outcome_id)
    conflict = add_feedback(engine, NewFeedback("d1", "tests", correct=False))
    assert conflict.status == "conflicting"
    assert conflict.stored == NewFeedback("d1", "tests", correct=True)
    assert [(o["label"], o["n"]) for o in outcomes(engine)] == [(1.0, 1)]
    add_feedback(engine, NewFeedback("d1", "a user", correct=False))  # another source may say otherwise
    assert [(o["label"], o["n"]) for o in outcomes(engine)] == [(0.5, 2)]


def test_equal_answers_to_equal_prompts_are_outcomes_of_their_own(engine: Engine) -> None:
    add_decisions(engine, [DECISION, {**DECISION, "id": "d2"}])
    for decision_id in ("d1", "d2"):
        add_feedback(engine, NewFeedback(decision_id, correct=True))
    assert [o["n"] for o in outcomes(engine)] == [2]


def test_a_prompt_that_the_logs_hold_is_their_question_and_a_pools_other_name_their_model(engine: Engine) -> None:
    add_questions(engine, [NewQuestion("q1", "what is one?", split="test")])
    set_model(engine, "small-2026-01-01")
    hashed = {**DECISION, "prompt": None, "inputs": {"aliases": ["small-2026-01-01"]}}
    add_decisions(engine, [hashed])
    assert add_feedback(engine, NewFeedback("d1", correct=True)).status == "new"
    (outcome,) = outcomes(engine)
    assert (outcome["model"], outcome["split"]) == ("small-2026-01-01", "test")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"prompt": None, "prompt_sha256": None}, NO_PROMPT),
        ({"prompt": None}, NO_QUESTION),
        ({"answered_by": None}, NO_ANSWER),
    ],
)
def test_what_cannot_be_learned_from_is_kept_and_says_why(engine: Engine, changes: dict[str, Any], why: str) -> None:
    add_decisions(engine, [DECISION | changes])
    for status in ("new", "repeated"):
        received = add_feedback(engine, NewFeedback("d1", correct=True))
        assert (received.status, received.outcome_id, received.not_learned) == (status, None, why)
    assert outcomes(engine) == []


# Over HTTP


@pytest.fixture
def engine_here(tmp_path: Path) -> Iterator[Engine]:
    engine = ready_engine(f"sqlite:///{tmp_path}/feedback.db")
    register(engine, planted_artifact(tmp_path / "artifacts", {"calculator": (0.9, 0.3), "poet": (0.2, 0.8)}))
    yield engine
    engine.dispose()


@pytest.fixture
def gateway(engine_here: Engine) -> Iterator[Callable[..., Any]]:
    """Start a gateway with such recording and a key."""
    with ExitStack() as stack:
        upstream = stack.enter_context(run_upstream())

        def start(**recording: Any) -> Gateway:
            pool = [entry(name, upstream.url("good")) for name in ("calculator", "poet")]
            configuration = settings(pool, master_key="k", recording={"flush_interval_s": 0.02, **recording})
            return stack.enter_context(run_gateway(engine_here, configuration))

        yield start


HEADERS = {"authorization": "Bearer k"}


def decide(gateway: Gateway, prompt: str) -> str:
    body = {"model": "auto", "messages": [{"role": "user", "content": prompt}]}
    answer = httpx.post(f"{gateway.base_url}/chat/completions", json=body, headers=HEADERS, timeout=20)
    return answer.headers["x-embedrouter-decision-id"]


def say(gateway: Gateway, **body: Any) -> httpx.Response:
    return httpx.post(f"{gateway.base_url}/feedback", json=body, headers=HEADERS, timeout=20)


def test_feedback_right_after_an_answer_is_learned_from(gateway: Callable[..., Gateway], engine_here: Engine) -> None:
    running = gateway(prompts="full")
    for prompt, more in ((A_SUM, {"thumbs": "up"}), (A_POEM, {"score": 0.2})):
        answer = say(running, decision_id=decide(running, prompt), **more)
        assert (answer.status_code, answer.json()["status"], answer.json()["learned"]) == (200, "recorded", True)
    found = {(o["prompt"], o["model"], o["label"]) for o in outcomes(engine_here)}
    assert found == {(A_SUM, "calculator", 1.0), (A_POEM, "poet", 0.2)}


def test_repeating_is_answered_and_contradicting_refused(gateway: Callable[..., Gateway]) -> None:
    running = gateway(prompts="full")
    decision_id = decide(running, A_SUM)
    first = say(running, decision_id=decision_id, correct=True)
    again = say(running, decision_id=decision_id, correct=True)
    assert (again.status_code, again.json()["status"]) == (200, "repeated")
    assert again.json()["outcome_id"] == first.json()["outcome_id"]
    conflict = say(running, decision_id=decision_id, correct=False)
    assert (conflict.status_code, conflict.json()["error"]["code"]) == (409, "feedback_conflict")
    assert "said correct true" in conflict.json()["error"]["message"]


def test_without_prompts_the_answer_says_that_nothing_is_learned(gateway: Callable[..., Gateway]) -> None:
    running = gateway()
    answer = say(running, decision_id=decide(running, A_SUM), correct=True).json()
    assert (answer["status"], answer["learned"], answer["not_learned"]) == ("recorded", False, NO_PROMPT)


@pytest.mark.parametrize("prompts", ["off", "hashed", "full"])
def test_from_a_request_without_text_nothing_is_learned(gateway: Callable[..., Gateway], prompts: str) -> None:
    running = gateway(prompts=prompts)
    answer = say(running, decision_id=decide(running, ""), correct=True)
    assert answer.status_code == 200
    assert (answer.json()["learned"], answer.json()["not_learned"]) == (False, NO_PROMPT)


def test_feedback_needs_a_key_and_a_decision_that_there_is(gateway: Callable[..., Gateway]) -> None:
    running = gateway()
    body = {"decision_id": "no-such-decision", "correct": True}
    assert httpx.post(f"{running.base_url}/feedback", json=body).status_code == 401
    answer = say(running, **body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "decision_not_found")


def test_feedback_while_the_database_is_away_is_kept_and_learned_when_it_is_back(
    gateway: Callable[..., Gateway], engine_here: Engine
) -> None:
    running = gateway(prompts="full")
    with engine_here.begin() as connection:
        connection.execute(text("ALTER TABLE decisions RENAME TO elsewhere"))
    answer = say(running, decision_id=decide(running, A_SUM), correct=True)
    assert (answer.status_code, answer.json()["status"]) == (202, "accepted")
    with engine_here.begin() as connection:
        connection.execute(text("ALTER TABLE elsewhere RENAME TO decisions"))
    running.decisions()
    until(lambda: bool(outcomes(engine_here)))
    assert [(o["prompt"], o["label"]) for o in outcomes(engine_here)] == [(A_SUM, 1.0)]


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        (b"{", None, "not JSON"),
        (b"[]", None, "must be an object"),
        (b"{}", "decision_id", "x-embedrouter-decision-id"),
        (b'{"decision_id": 7}', "decision_id", "must be a text"),
        (b'{"decision_id": "d"}', "correct", "given: none"),
        (b'{"decision_id": "d", "correct": true, "score": 1}', "correct", "given: correct and score"),
        (b'{"decision_id": "d", "correct": "yes"}', "correct", 'true or false, not "yes"'),
        (b'{"decision_id": "d", "score": 1.5}', "score", "between 0 and 1, not 1.5"),
        (b'{"decision_id": "d", "score": NaN}', "score", "between 0 and 1, not NaN"),
        (b'{"decision_id": "d", "score": true}', "score", "between 0 and 1, not true"),
        (b'{"decision_id": "d", "thumbs": 1}', "thumbs", '"up" or "down", not 1'),
        (b'{"decision_id": "d", "corect": true}', "corect", "did you mean `correct`?"),
        (b'{"decision_id": "d", "correct": true, "source": "a\\u0000b"}', "source", "printable"),
        (b'{"decision_id": "\\ud800", "correct": true}', "decision_id", "printable"),
    ],
)
def test_what_is_wrong_with_feedback_is_named(body: bytes, param: str | None, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=r".") as refused:
        read_feedback(body)
    assert refused.value.param == param
    assert says in str(refused.value)
