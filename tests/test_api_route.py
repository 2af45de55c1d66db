"""POST /v1/route: the decision with its reasons, and no upstream call."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from data.database import ready_engine
from data.store import set_model
from router.replay import replay
from tests.serving import A_POEM, A_SUM, Gateway, entry, planted_engine, run_gateway, settings
from tests.upstreams import Upstream

FORECASTS = {"calculator": (0.9, 0.3), "poet": (0.2, 0.8), "logged-only": (0.99, 0.99)}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with planted_engine(tmp_path, FORECASTS) as engine:
        yield engine


@pytest.fixture
def gateway(engine: Engine, upstream: Upstream) -> Iterator[Gateway]:
    pool = [
        entry("calculator", upstream.url("good"), usd=10.0, aliases=["calc"]),
        entry("poet", upstream.url("good"), usd=None),
        entry("newcomer", upstream.url("good")),
    ]
    with run_gateway(engine, settings(pool)) as running:
        yield running


def explain(gateway: Gateway, text: str = A_SUM, **more: object) -> httpx.Response:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], **more}
    return httpx.post(f"{gateway.base_url}/route", json=body, timeout=20)


def test_every_candidate_is_explained_and_no_upstream_is_asked(gateway: Gateway, upstream: Upstream) -> None:
    n_asked = len(upstream.asked)
    answer = explain(gateway).json()
    assert (answer["model"], answer["policy"]) == ("calculator", {"name": "quality"})
    assert answer["p_correct"] == pytest.approx(0.9, abs=1e-3)
    calculator, poet = answer["candidates"]
    low, high = calculator["p_correct_ci90"]
    assert low <= calculator["p_correct"] <= high
    assert 0 <= answer["novelty"] <= 1
    assert (calculator["propensity"], poet["propensity"]) == (1.0, 0.0)
    assert calculator["usd_per_1m_input"] == 10.0
    assert calculator["expected_cost_usd"] == pytest.approx((8 + 100) * 10 / 1e6)
    assert (poet["usd_per_1m_input"], poet["expected_cost_usd"]) == (None, None)
    out = {shown["model"]: shown for shown in answer["excluded"]}
    assert out["logged-only"]["reason"] == "no upstream"
    assert out["logged-only"]["p_correct"] == pytest.approx(0.99, abs=1e-3)
    assert out["newcomer"]["reason"].startswith("no logs")
    assert out["newcomer"]["p_correct"] is None
    assert len(upstream.asked) == n_asked
    assert gateway.decisions(0) == []


def test_an_unknown_price_is_out_of_a_cost_policy_with_its_reason(gateway: Gateway) -> None:
    answer = explain(gateway, A_POEM, embedrouter={"policy": "balanced"}).json()
    assert answer["model"] == "calculator"
    assert answer["note"] == "1 without a price left out"
    out = {shown["model"]: shown["reason"] for shown in answer["excluded"]}
    assert out["poet"] == "its price is unknown"


def test_a_named_model_is_the_choice(gateway: Gateway) -> None:
    answer = explain(gateway, model="calc").json()
    assert (answer["model"], answer["policy"], answer["p_correct"]) == ("calculator", {"name": "named"}, None)


def test_where_nothing_can_be_called_the_ranking_is_shown_and_the_choice_is_none(engine: Engine) -> None:
    with run_gateway(engine, settings()) as gateway:
        answer = explain(gateway).json()
        refused = httpx.post(
            f"{gateway.base_url}/chat/completions", json={"model": "auto", "messages": [{"role": "user"}]}
        )
    assert answer["model"] is None
    assert [c["model"] for c in answer["candidates"]] == ["logged-only", "calculator", "poet"]
    assert {c["reason"] for c in answer["candidates"]} == {"no upstream"}
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_routable_model")


def test_where_nothing_can_be_called_candidates_and_retirement_still_count(engine: Engine) -> None:
    set_model(engine, "logged-only", retired=True)
    with run_gateway(engine, settings()) as gateway:
        every = explain(gateway).json()
        some = explain(gateway, embedrouter={"candidates": ["poet", "logged-only"]}).json()
        none = explain(gateway, embedrouter={"candidates": ["logged-only"]})
        unknown = explain(gateway, embedrouter={"candidates": ["nobody"]})
        for name in ("calculator", "poet"):
            set_model(engine, name, retired=True)
        gateway.app.state.watch.refresh()
        retired = explain(gateway)
    assert [c["model"] for c in every["candidates"]] == ["calculator", "poet"]
    assert [(c["model"], c["reason"]) for c in every["excluded"]] == [("logged-only", "retired")]
    assert [c["model"] for c in some["candidates"]] == ["poet"]
    assert some["model"] is None
    assert {c["model"]: c["reason"] for c in some["excluded"]}["logged-only"] == "retired"
    assert (none.status_code, none.json()["error"]["code"]) == (400, "no_eligible_model")
    assert none.json()["error"]["models"] == [{"model": "logged-only", "reason": "retired"}]
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (400, "embedrouter.candidates")
    assert (retired.status_code, retired.json()["error"]["code"]) == (503, "no_routable_model")


def test_without_an_artifact_it_is_503_with_what_to_run(tmp_path: Path) -> None:
    engine = ready_engine(f"sqlite:///{tmp_path}/empty.db")
    set_model(engine, "someone", upstream_url="http://127.0.0.1:9/v1")
    with run_gateway(engine, settings()) as gateway:
        answer = explain(gateway)
        assert httpx.get(f"{gateway.url}/health/ready").status_code == 503
        assert httpx.get(f"{gateway.url}/health/live").status_code == 200
    engine.dispose()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_artifact")
    assert "embedrouter train" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["quality", "fixed"])
def test_without_an_artifact_who_is_asked_for_outright_answers(tmp_path: Path, upstream: Upstream, name: str) -> None:
    engine = ready_engine(f"sqlite:///{tmp_path}/empty.db")
    pool = [entry("someone", upstream.url("good")), entry("else", upstream.url("good"))]
    with run_gateway(engine, settings(pool, policy={"name": name, "default_model": "someone"})) as gateway:
        explained = explain(gateway).json()
        body = {"model": "auto", "messages": [{"role": "user", "content": A_SUM}]}
        headers = {"x-embedrouter-debug": "true"}
        answer = httpx.post(f"{gateway.base_url}/chat/completions", json=body, headers=headers, timeout=20)
        row = gateway.decision(answer.headers["x-request-id"])
    engine.dispose()
    note = "nothing was trained and promoted yet: the default model"
    assert (explained["model"], explained["note"], explained["artifact"]) == ("someone", note, None)
    assert (answer.json()["model"], answer.json()["embedrouter"]["note"]) == ("someone", note)
    assert (row["answered_by"], row["artifact_id"]) == ("someone", None)
    assert replay(row).same


def test_a_limit_on_errors_that_nothing_keeps_is_told_as_such(gateway: Gateway, upstream: Upstream) -> None:
    n_asked = len(upstream.asked)
    refused = explain(gateway, embedrouter={"max_error": 0.1})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "no_model_reliable_enough")
    assert "not calibrated for limits on errors" in error["message"]
    assert {each["model"] for each in error["models"]} >= {"calculator", "poet"}
    body = {"model": "auto", "messages": [{"role": "user", "content": A_SUM}]}
    headers = {"x-embedrouter-max-error": "0.1"}
    answer = httpx.post(f"{gateway.base_url}/chat/completions", json=body, headers=headers, timeout=20)
    assert answer.status_code == 400
    assert len(upstream.asked) == n_asked
    assert explain(gateway, embedrouter={"max_error": 1}).status_code == 200
