"""Fallbacks: who is asked in what order, what ends the asking, and who is credited."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from router.errors import UpstreamError, UpstreamsFailedError
from tests.serving import A_SUM, entry, planted_engine, run_gateway, settings
from tests.upstreams import Upstream

FORECASTS = {"first": (0.9, 0.5), "second": (0.7, 0.5), "third": (0.5, 0.5)}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with planted_engine(tmp_path_factory.mktemp("service"), FORECASTS) as engine:
        yield engine


def answered(
    engine: Engine, upstream: Upstream, behaviours: list[str], *, stream: bool = False
) -> tuple[httpx.Response, dict[str, Any]]:
    """What a request gets where the three models behave like this, and the decision on it."""
    pool = [entry(name, upstream.url(b), key="sk-1") for name, b in zip(FORECASTS, behaviours, strict=True)]
    with run_gateway(engine, settings(pool, timeouts={"first_token_s": 2 if "hang" in behaviours else 60})) as gateway:
        body = {"model": "auto", "messages": [{"role": "user", "content": A_SUM}], "stream": stream}
        response = httpx.post(f"{gateway.base_url}/chat/completions", json=body, timeout=20)
        return response, gateway.decision(response.headers["x-request-id"])


@pytest.mark.parametrize(
    ("behaviour", "error", "stream"),
    [
        *(
            (behaviour, error, stream)
            for stream in (False, True)
            for behaviour, error in (
                ("reset", "reset"),
                ("hang", "first_token_timeout"),
                ("truncated", "reset"),
                ("status-401", "http_status"),
                ("status-404", "client_fault"),
                ("status-408", "http_status"),
                ("status-409", "http_status"),
                ("status-429", "http_status"),
                ("status-503", "http_status"),
                ("null", "not_json"),
                ("error-200", "error_in_answer"),
            )
        ),
        ("stream-empty", "empty", True),
        ("stream-error-first", "error_in_answer", True),
    ],
)
def test_a_failure_before_the_first_chunk_is_answered_by_the_next_best(
    engine: Engine, upstream: Upstream, behaviour: str, error: str, stream: bool
) -> None:
    response, row = answered(engine, upstream, [behaviour, "good", "good"], stream=stream)
    assert response.status_code == 200
    assert response.headers["x-embedrouter-model"] == "second"
    assert response.headers["x-embedrouter-attempts"] == "2"
    assert (row["first_choice"], row["answered_by"], row["status"]) == ("first", "second", 200)
    assert row["p_correct"] == pytest.approx(0.7, abs=1e-3)
    assert [(a["model"], a["error"]) for a in row["attempts"]] == [("first", error), ("second", None)]
    assert [c["propensity"] for c in row["candidates"]] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("status", [400, 422])
def test_what_is_the_clients_fault_is_asked_once(engine: Engine, upstream: Upstream, status: int) -> None:
    response, row = answered(engine, upstream, [f"status-{status}", "good", "good"])
    assert response.status_code == 400
    assert (row["answered_by"], row["error"], len(row["attempts"])) == (None, "client_fault", 1)


def test_where_every_upstream_lacks_its_model_the_client_sees_the_last_404(engine: Engine, upstream: Upstream) -> None:
    response, row = answered(engine, upstream, ["status-404"] * 3)
    assert (response.status_code, len(row["attempts"])) == (404, 3)


def test_a_404_among_other_failures_is_not_the_clients_fault(engine: Engine, upstream: Upstream) -> None:
    response, row = answered(engine, upstream, ["status-404", "status-500", "status-404"])
    assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_failed")
    assert row["answered_by"] is None


def test_all_out_of_quota_is_429_with_the_least_wait(engine: Engine, upstream: Upstream) -> None:
    response, _ = answered(engine, upstream, ["status-429"] * 3)
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")


def test_all_known_to_be_out_of_quota_is_429_at_once_and_recorded(engine: Engine, upstream: Upstream) -> None:
    pool = [entry(name, upstream.url("status-429"), key="sk-1") for name in FORECASTS]
    body = {"model": "auto", "messages": [{"role": "user", "content": A_SUM}]}
    with run_gateway(engine, settings(pool)) as gateway:
        httpx.post(f"{gateway.base_url}/chat/completions", json=body, timeout=20)
        n_asked = len(upstream.asked)
        again = httpx.post(f"{gateway.base_url}/chat/completions", json=body, timeout=20)
        row = gateway.decision(again.headers["x-request-id"])
        explained = httpx.post(f"{gateway.base_url}/route", json=body, timeout=20).json()
    assert (again.status_code, again.json()["error"]["code"]) == (429, "upstream_rate_limited")
    assert 0 < int(again.headers["retry-after"]) <= 7
    assert (row["status"], row["error"], row["attempts"]) == (429, "upstream_rate_limited", [])
    assert len(upstream.asked) == n_asked
    assert explained["note"] == "every candidate's upstream keeps failing or is out of quota"


def test_a_default_model_that_is_not_asked_hides_no_quota(engine: Engine, upstream: Upstream) -> None:
    pool = [entry(name, upstream.url("status-429")) for name in FORECASTS]
    pool.append(entry("newcomer", upstream.url("good")))
    body = {"model": "auto", "messages": [{"role": "user", "content": A_SUM}]}
    with run_gateway(engine, settings(pool, policy={"default_model": "newcomer"})) as gateway:
        for _ in range(2):
            answer = httpx.post(f"{gateway.base_url}/chat/completions", json=body, timeout=20)
            row = gateway.decision(answer.headers["x-request-id"])
            assert (answer.status_code, row["status"]) == (429, 429)
            assert 0 < int(answer.headers["retry-after"]) <= 7


def test_a_limit_that_leaves_only_who_is_out_of_quota_is_429(engine: Engine, upstream: Upstream) -> None:
    pool = [entry("first", upstream.url("status-429"), usd=1.0), entry("second", upstream.url("good"), usd=100.0)]
    body = {"model": "auto", "messages": [{"role": "user", "content": A_SUM}], "embedrouter": {"max_cost_usd": 0.001}}
    with run_gateway(engine, settings(pool)) as gateway:
        for _ in range(2):
            answer = httpx.post(f"{gateway.base_url}/chat/completions", json=body, timeout=20)
            assert answer.status_code == 429, answer.text


@pytest.mark.parametrize(
    ("wait_s", "seconds", "milliseconds"),
    [(0.0, "0", "0"), (0.2504, "1", "251"), (7.0, "7", "7000"), (29.4, "30", "29400")],
)
def test_a_wait_is_told_in_whole_seconds_and_never_shorter(wait_s: float, seconds: str, milliseconds: str) -> None:
    headers = UpstreamsFailedError([UpstreamError("quota", "wait", status=429, retry_after_s=wait_s)], []).headers()
    assert (headers["retry-after"], headers["retry-after-ms"]) == (seconds, milliseconds)


def test_after_its_first_chunk_nobody_else_is_asked(engine: Engine, upstream: Upstream) -> None:
    n_asked = len(upstream.asked)
    response, row = answered(engine, upstream, ["stream-dies", "good", "good"], stream=True)
    assert response.text.count('"error"') == 1
    assert "[DONE]" not in response.text
    assert (row["answered_by"], row["error"]) == ("first", "stream_reset")
    assert upstream.behaviours()[n_asked:] == ["stream-dies"]
