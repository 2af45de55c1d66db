"""Live evaluation over a real socket: what is asked, graded, stored, retried and left unknown."""

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import training.collect.ask
from data.database import open_engine, upgrade
from data.demo.generate import generate
from data.demo.question import Question, is_correct
from data.queries import read_log
from data.store import set_model
from data.tables import Outcome
from router.loopback import serve_in_thread
from router.simulated.mind import answer
from router.simulator import run_simulator
from training.collect.live import collect

MODELS = ("sim-abacus-math", "sim-quill-text")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path / 'collect.db'}")
    upgrade(engine)
    yield engine
    engine.dispose()


def n_outcomes(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(Outcome)).scalar_one())


def test_every_model_is_asked_every_question_and_graded(engine: Engine) -> None:
    questions = generate(40, seed=1)
    set_model(engine, MODELS[0], usd_per_1m_input=2.0, usd_per_1m_output=8.0)
    steps: list[tuple[int, int]] = []
    with run_simulator() as base_url:
        collected = collect(
            engine,
            questions,
            MODELS,
            base_url,
            "live",
            concurrency=8,
            on_progress=lambda n, all_: steps.append((n, all_)),
        )
    assert (collected.n_asked, collected.n_failed, collected.n_stored_before) == (80, 0, 0)
    assert steps[-1] == (80, 80)
    log = read_log(engine)
    names = list(log.models["model_name"])
    prompts = list(log.questions["prompt"])
    gold = {question.prompt: question.gold for question in questions}
    assert len(log.cells) == 80
    for question, model, label in log.cells[["question", "model", "label"]].itertuples(index=False):
        prompt = prompts[question]
        assert label == is_correct(gold[prompt], answer(names[model], prompt))
    assert collected.n_correct == log.cells["label"].sum()
    assert set(log.questions["benchmark"]) == {question.family for question in questions}
    with engine.connect() as connection:
        rows = connection.execute(select(Outcome).order_by(Outcome.id)).all()
    for row in rows:
        assert row.latency_s > 0
        priced = names[row.model_id - 1] == MODELS[0]
        assert row.cost_usd == (pytest.approx((2 * row.input_tokens + 8 * row.output_tokens) / 1e6) if priced else None)


def test_a_collection_run_again_asks_only_what_is_missing(engine: Engine) -> None:
    questions = generate(30, seed=2)
    with run_simulator() as base_url:
        collect(engine, questions[:20], MODELS, base_url, "live")
        again = collect(engine, questions, MODELS, base_url, "live")
        assert (again.n_stored_before, again.n_asked) == (40, 20)
        assert n_outcomes(engine) == 60
        other = collect(engine, questions[:5], MODELS, base_url, "another source")
    assert (other.n_stored_before, other.n_asked) == (0, 10)


def test_what_was_answered_before_an_interrupt_is_kept(engine: Engine) -> None:
    questions = generate(30, seed=3)

    def interrupt(n_done: int, n_all: int) -> None:
        if n_done == 25:
            signal.raise_signal(signal.SIGINT)  # as Ctrl-C does

    with run_simulator() as base_url:
        with pytest.raises(KeyboardInterrupt):
            collect(engine, questions, MODELS, base_url, "live", concurrency=1, on_progress=interrupt)
        assert n_outcomes(engine) == 25
        resumed = collect(engine, questions, MODELS, base_url, "live")
    assert (resumed.n_stored_before, resumed.n_asked) == (25, 35)
    assert n_outcomes(engine) == 60


def test_passing_failures_are_retried_and_lasting_ones_leave_the_pair_unknown(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.collect.ask, "FIRST_WAIT_S", 0.001)
    n_calls: Counter[str] = Counter()

    async def chat(request: Request) -> Response:
        model = (await request.json())["model"]
        n_calls[model] += 1
        if model == "refuses":
            return JSONResponse({"error": {"message": "no such model"}}, status_code=404)
        if model == "down" or (model == "flaky" and n_calls[model] % 3):
            return PlainTextResponse("overloaded", status_code=503)
        if model == "garbled":
            return JSONResponse({"choices": []})
        return JSONResponse({"choices": [{"message": {"role": "assistant", "content": "Answer: 7"}}]})

    questions = [Question("a", "arithmetic", "What is 3 + 4?", "7"), Question("b", "arithmetic", "What is 3 + 5?", "8")]
    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
    models = ("down", "flaky", "garbled", "refuses", "steady")
    with serve_in_thread(app) as url:
        collected = collect(engine, questions, models, f"{url}/v1", "live", concurrency=1)
    assert n_calls == {"down": 8, "flaky": 6, "garbled": 2, "refuses": 2, "steady": 2}
    assert (collected.n_asked, collected.n_correct, collected.n_failed) == (4, 2, 6)
    assert any(reason.startswith("refuses: status 404") for reason in collected.failures)
    log = read_log(engine)
    names = list(log.models["model_name"])
    assert sorted(names[model] for model in log.cells["model"]) == ["flaky", "flaky", "steady", "steady"]


def test_a_closed_port_is_a_failure_not_a_wrong_answer(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.collect.ask, "FIRST_WAIT_S", 0.001)
    with run_simulator() as base_url:
        pass
    collected = collect(engine, generate(3, seed=0), MODELS, base_url, "live")
    assert (collected.n_asked, collected.n_failed) == (0, 6)
    assert n_outcomes(engine) == 0
