"""Which models can take a request, over a real gateway: capabilities, limits, and what was learned of upstreams."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from data.store import set_model
from router.replay import replay
from tests.serving import A_POEM, A_SUM, Gateway, entry, planted_engine, run_gateway, settings
from tests.upstreams import Upstream
from tests.waiting import until

FORECASTS = {"plain": (0.9, 0.9), "able": (0.6, 0.6), "silent": (0.5, 0.5)}
ABLE = ["tools", "json_schema", "vision", "audio", "file", "n", "logprobs"]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with planted_engine(tmp_path_factory.mktemp("eligibility"), FORECASTS) as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(engine: Engine, upstream: Upstream) -> Iterator[Gateway]:
    """`plain` says that it can do nothing special, `able` everything, `silent` says nothing and has no price."""
    pool = [
        entry("plain", upstream.url("good"), usd=1.0, capabilities=[], context_window=1000, max_output_tokens=200),
        entry("able", upstream.url("good"), usd=10.0, capabilities=ABLE),
        entry("silent", upstream.url("good"), usd=None),
    ]
    with run_gateway(engine, settings(pool)) as running:
        yield running


def ask(
    gateway: Gateway, content: object = A_SUM, headers: dict[str, str] | None = None, **more: Any
) -> httpx.Response:
    body = {"model": "auto", "messages": [{"role": "user", "content": content}], **more}
    return httpx.post(f"{gateway.base_url}/chat/completions", json=body, headers=headers, timeout=20)


def part(kind: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": A_SUM}, {"type": kind, kind: {}}]


@pytest.mark.parametrize(
    ("content", "more", "needs"),
    [
        (A_SUM, {"tools": TOOLS}, "tools"),
        (A_SUM, {"functions": [TOOLS[0]["function"]]}, "tools"),
        (A_SUM, {"response_format": {"type": "json_schema", "json_schema": {}}}, "answers that follow a JSON schema"),
        (A_SUM, {"n": 2}, "several answers at once (n)"),
        (A_SUM, {"logprobs": True}, "log probabilities"),
        (A_SUM, {"modalities": ["text", "audio"], "audio": {"voice": "x"}}, "audio"),
        (part("image_url"), {}, "images"),
        (part("input_audio"), {}, "audio"),
        (part("file"), {}, "files"),
        (part("image_url"), {"tools": TOOLS}, "tools, images"),
    ],
)
def test_a_model_that_cannot_is_out_with_its_reason(
    gateway: Gateway, content: object, more: dict[str, Any], needs: str
) -> None:
    answer = ask(gateway, content, **more)
    assert answer.json()["model"] == "able"
    row = gateway.decision(answer.headers["x-request-id"])
    (out,) = [c for c in row["candidates"] if c["model"] == "plain"]
    assert out["excluded"] == f"it cannot do what the request needs: {needs}"
    refused = ask(gateway, content, **more, embedrouter={"candidates": ["plain"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "no_eligible_model")
    assert refused.json()["error"]["models"] == [{"model": "plain", "reason": out["excluded"]}]


@pytest.mark.parametrize("more", [{"n": 1}, {"logprobs": False}, {"tools": []}, {"response_format": {"type": "text"}}])
def test_what_needs_nothing_special_may_go_anywhere(gateway: Gateway, more: dict[str, Any]) -> None:
    assert ask(gateway, **more).json()["model"] == "plain"


def test_who_says_nothing_may_be_asked_for_anything(gateway: Gateway) -> None:
    assert ask(gateway, tools=TOOLS, embedrouter={"candidates": ["plain", "silent"]}).json()["model"] == "silent"


def test_the_context_holds_prompt_and_answer_and_the_answer_has_its_own_limit(gateway: Gateway) -> None:
    def reason(**more: Any) -> str:
        return str(ask(gateway, **more, embedrouter={"candidates": ["plain"]}).json()["error"]["models"][0]["reason"])

    fits, does_not = "x" * 3600, "x" * 3601  # 900 tokens, and 901
    assert ask(gateway, fits, max_tokens=100).json()["model"] == "plain"
    told = "about 1001 tokens do not fit its context window of 1000"
    assert reason(content=does_not, max_tokens=100) == told
    assert "do not fit" in reason(content="中" * 2000)  # three bytes each: four of them are three tokens
    assert reason(max_completion_tokens=300) == "it writes at most 200 tokens, and the request asks for up to 300"


def test_capabilities_may_come_from_the_database(engine: Engine, upstream: Upstream) -> None:
    set_model(engine, "plain", capabilities=["tools"])
    try:
        with run_gateway(engine, settings([entry(name, upstream.url("good")) for name in FORECASTS])) as gateway:
            assert ask(gateway, tools=TOOLS).json()["model"] == "plain"
            assert ask(gateway, n=3).json()["model"] == "able"
            shown = httpx.get(f"{gateway.base_url}/models/plain").json()
            assert shown["embedrouter"]["capabilities"] == ["tools"]
    finally:
        set_model(engine, "plain", capabilities=[])


def test_a_cost_limit_leaves_out_the_dearer_and_the_unpriced(gateway: Gateway) -> None:
    # 100 output tokens are expected of each, and about 8 go in: plain 108e-6 USD, able 1080e-6
    assert ask(gateway, A_POEM, embedrouter={"max_cost_usd": 2e-4}).json()["model"] == "plain"
    answer = ask(gateway, tools=TOOLS, embedrouter={"max_cost_usd": 2e-4})
    reasons = {model["model"]: model["reason"] for model in answer.json()["error"]["models"]}
    assert answer.status_code == 400
    assert reasons["able"].endswith("USD are more than 0.0002")
    assert reasons["silent"] == "its price is unknown, so it cannot be held to 0.0002 USD"


def test_a_willingness_to_pay_chooses_what_is_worth_it(gateway: Gateway) -> None:
    body = {"candidates": ["plain", "able"]}
    assert ask(gateway, embedrouter={**body, "usd_per_correct": 1}).json()["model"] == "plain"
    answer = ask(gateway, embedrouter={**body, "usd_per_correct": 1})
    assert answer.headers["x-embedrouter-policy"] == "balanced"


def test_a_cost_policy_counts_who_has_no_price(gateway: Gateway) -> None:
    answer = ask(gateway, embedrouter={"policy": "balanced"})
    row = gateway.decision(answer.headers["x-request-id"])
    assert row["policy_settings"]["note"] == "1 without a price left out"
    (out,) = [c for c in row["candidates"] if c["model"] == "silent"]
    assert (out["excluded"], out["expected_cost_usd"]) == ("its price is unknown", None)


def test_a_latency_limit_leaves_out_who_was_slower(engine: Engine, upstream: Upstream) -> None:
    pool = [entry("plain", upstream.url("slow")), entry("able", upstream.url("good"))]
    with run_gateway(engine, settings(pool)) as gateway:
        limit: dict[str, Any] = {"embedrouter": {"max_latency_s": 0.1, "candidates": ["plain"]}}
        assert ask(gateway, **limit).status_code == 200  # nothing is known of it yet
        answer = ask(gateway, **limit)  # it took 0.3 s
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_eligible_model")
    assert "more than 0.1" in answer.json()["error"]["models"][0]["reason"]


def test_policy_fixed_asks_the_default_model_or_the_requests_own_order(engine: Engine, upstream: Upstream) -> None:
    pool = [entry(name, upstream.url("good")) for name in FORECASTS]
    with run_gateway(engine, settings(pool, policy={"name": "fixed", "default_model": "silent"})) as gateway:
        assert ask(gateway).json()["model"] == "silent"
        assert ask(gateway, embedrouter={"candidates": ["able", "plain"]}).json()["model"] == "able"
        assert ask(gateway, embedrouter={"policy": "quality"}).json()["model"] == "plain"
    with run_gateway(engine, settings(pool)) as gateway:
        answer = ask(gateway, embedrouter={"policy": "fixed"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "embedrouter.policy")


@pytest.mark.parametrize(
    ("content", "doubt"),
    [("", "no user text to encode"), ("\u1c5a\u1c5b", "nothing of the text is known from the logs")],
)
def test_what_cannot_be_forecast_goes_to_the_default_model(
    engine: Engine, upstream: Upstream, content: str, doubt: str
) -> None:
    pool = [entry(name, upstream.url("good")) for name in FORECASTS]
    with run_gateway(engine, settings(pool, policy={"default_model": "able"})) as gateway:
        answer = ask(gateway, content)
        row = gateway.decision(answer.headers["x-request-id"])
        assert ask(gateway).json()["model"] == "plain"
        barred = ask(gateway, content, embedrouter={"candidates": ["plain"]})
        note = gateway.decision(barred.headers["x-request-id"])["policy_settings"]["note"]
    assert answer.json()["model"] == row["first_choice"] == "able"
    assert row["policy_settings"]["note"] == f"{doubt}: the default model"
    assert (barred.json()["model"], note) == ("plain", f"{doubt}: the default model able cannot take it")


def test_a_model_without_logs_is_asked_where_it_is_the_default_or_named_and_nowhere_else(
    engine: Engine, upstream: Upstream
) -> None:
    pool = [entry(name, upstream.url("good")) for name in ("plain", "newcomer")]
    with run_gateway(engine, settings(pool, policy={"default_model": "newcomer"})) as gateway:
        empty = ask(gateway, "")
        row = gateway.decision(empty.headers["x-request-id"])
        assert replay(row).same
        fixed = ask(gateway, embedrouter={"policy": "fixed", "candidates": ["newcomer", "plain"]})
        sure = ask(gateway)
        others = gateway.decision(sure.headers["x-request-id"])["candidates"]
        asked = {"model": "auto", "messages": [{"role": "user", "content": ""}]}
        explained = httpx.post(f"{gateway.base_url}/route", json=asked, timeout=20).json()
    assert (empty.json()["model"], fixed.json()["model"], sure.json()["model"]) == ("newcomer", "newcomer", "plain")
    assert row["policy_settings"]["note"] == "no user text to encode: the default model"
    assert [c["model"] for c in row["candidates"] if "excluded" not in c] == ["newcomer", "plain"]
    (left_out,) = [c for c in others if c["model"] == "newcomer"]
    assert left_out["excluded"].startswith("no logs: not in artifact")
    assert (explained["model"], explained["p_correct"]) == ("newcomer", None)


def test_a_retired_model_is_out_by_name_too(engine: Engine, upstream: Upstream) -> None:
    pool = [entry(name, upstream.url("good")) for name in FORECASTS]
    set_model(engine, "silent", retired=True)
    try:
        with run_gateway(engine, settings(pool)) as gateway:
            answer = ask(gateway, model="silent")
            explained = ask(gateway, embedrouter={"candidates": ["plain"]}, headers={"x-embedrouter-debug": "true"})
    finally:
        set_model(engine, "silent", retired=False)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "retired" in answer.json()["error"]["message"]
    out = {model["model"]: model["reason"] for model in explained.json()["embedrouter"]["excluded"]}
    assert out == {"silent": "retired", "able": "not among the candidates asked for"}


def test_where_nothing_can_be_routed_to_policy_fixed_still_asks(engine: Engine, upstream: Upstream) -> None:
    pool = [entry("newcomer", upstream.url("good"))]
    with run_gateway(engine, settings(pool, policy={"default_model": "newcomer"})) as gateway:
        assert ask(gateway, embedrouter={"policy": "fixed"}).json()["model"] == "newcomer"
        refused = ask(gateway)
        empty = ask(gateway, "")
        limited = [ask(gateway, embedrouter={key: 0.0001}).status_code for key in ("max_cost_usd", "max_error")]
        fixed = {"embedrouter": {"policy": "fixed"}}
        asked = {"model": "auto", "messages": [{"role": "user", "content": A_SUM}], **fixed}
        explained = httpx.post(f"{gateway.base_url}/route", json=asked, timeout=20).json()
    assert limited == [503, 503]
    assert (empty.json()["model"], explained["model"]) == ("newcomer", "newcomer")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_routable_model")


def test_a_model_that_a_limit_left_out_for_its_unknown_price_is_counted(gateway: Gateway) -> None:
    def counted() -> float:
        return gateway.app.state.metrics.registry.get_sample_value("embedrouter_unpriced_requests_total") or 0.0

    before = counted()
    assert ask(gateway, embedrouter={"max_cost_usd": 2e-4}).json()["model"] == "plain"
    until(lambda: counted() > before)
    assert counted() == before + 1


def test_an_answer_that_half_a_price_is_known_of_is_counted_and_costs_nothing_known(
    engine: Engine, upstream: Upstream
) -> None:
    pool = [entry("plain", upstream.url("good"), usd=None, usd_per_1m_input=1.0)]
    with run_gateway(engine, settings(pool)) as gateway:
        row = gateway.decision(ask(gateway, model="plain").headers["x-request-id"])
        registry = gateway.app.state.metrics.registry
        until(lambda: registry.get_sample_value("embedrouter_unpriced_requests_total") == 1)
    assert (row["output_tokens"], row["cost_usd"]) == (5, None)
