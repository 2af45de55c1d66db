"""Fallbacks that learn: who is asked after a refusal, and who is not asked again."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from tests.serving import A_SUM, Gateway, entry, planted_engine, run_gateway, settings
from tests.upstreams import Upstream

FORECASTS = {"first": (0.9, 0.9), "second": (0.7, 0.7), "third": (0.5, 0.5)}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with planted_engine(tmp_path_factory.mktemp("asking"), FORECASTS) as engine:
        yield engine


@pytest.fixture
def serve(engine: Engine, upstream: Upstream, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Serve three models that behave as named; keyword arguments are further settings."""
    with ExitStack() as stack:

        def start(*behaviours: str, entries: dict[str, dict[str, Any]] | None = None, **more: Any) -> Gateway:
            pool = [
                entry(name, upstream.url(behaviour), **(entries or {}).get(name, {}))
                for name, behaviour in zip(FORECASTS, behaviours, strict=False)
            ]
            upstream.asked.clear()
            return stack.enter_context(run_gateway(engine, settings(pool, **more)))

        yield start


def ask(gateway: Gateway, model: str = "auto", *, path: str = "/chat/completions", **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": A_SUM}], **more}
    return httpx.post(f"{gateway.base_url}{path}", json=body, timeout=20)


def tried(gateway: Gateway, answer: httpx.Response) -> list[tuple[str, str | None]]:
    row = gateway.decision(answer.headers["x-request-id"])
    return [(attempt["model"], attempt["error"]) for attempt in row["attempts"]]


def test_a_refused_parameter_goes_to_the_next_and_is_remembered(serve: Any, upstream: Upstream) -> None:
    gateway = serve("no-temperature", "good")
    answer = ask(gateway, temperature=0.5)
    assert answer.json()["model"] == "second"
    assert tried(gateway, answer) == [("first", "parameter_refused"), ("second", None)]
    again = ask(gateway, temperature=0.9)  # it takes none at all
    assert tried(gateway, again) == [("second", None)]
    row = gateway.decision(again.headers["x-request-id"])
    (out,) = [c for c in row["candidates"] if c["model"] == "first"]
    assert out["excluded"] == "its upstream refused `temperature` before, where another took it"
    assert ask(gateway).json()["model"] == "first"  # without it, it is as good as before
    named = ask(gateway, model="first", temperature=0.5)
    assert (named.status_code, named.json()["error"]["param"]) == (400, "temperature")


def test_of_a_refused_value_only_that_value_is_remembered(serve: Any) -> None:
    gateway = serve("cool", "good")
    assert ask(gateway, temperature=1.5).json()["model"] == "second"
    assert tried(gateway, ask(gateway, temperature=1.5)) == [("second", None)]
    assert ask(gateway, temperature=0.5).json()["model"] == "first"


def test_a_refused_parameter_that_was_renamed_goes_to_the_next_and_is_remembered(serve: Any) -> None:
    renamed = {"parameters": {"rename": {"max_tokens": "max_completion_tokens"}}}
    gateway = serve("strict", "good", entries={"first": renamed})
    assert tried(gateway, ask(gateway, max_tokens=9)) == [("first", "parameter_refused"), ("second", None)]
    assert tried(gateway, ask(gateway, max_tokens=9)) == [("second", None)]
    assert tried(gateway, ask(gateway)) == [("first", None)]


def test_a_refused_parameter_that_a_rule_requires_goes_to_the_next(serve: Any) -> None:
    gateway = serve("strict", "good", entries={"first": {"parameters": {"require": {"max_completion_tokens": 9}}}})
    assert tried(gateway, ask(gateway)) == [("first", "parameter_refused"), ("second", None)]


def test_what_all_refuse_is_the_clients_mistake_and_not_remembered(serve: Any) -> None:
    gateway = serve("no-temperature", "no-temperature")
    for _ in range(2):
        answer = ask(gateway, temperature=0.5)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_parameter")
        assert len(tried(gateway, answer)) == 2


@pytest.mark.parametrize("behaviour", ["small", "small-200"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_context_that_is_too_small_goes_to_a_larger_one(serve: Any, behaviour: str, stream: bool) -> None:
    windows = {"first": {"context_window": 2000}, "second": {"context_window": 1000}, "third": {"context_window": 4000}}
    gateway = serve(behaviour, "good", "good", entries=windows)
    answer = ask(gateway, stream=stream)
    assert answer.headers["x-embedrouter-model"] == "third"
    assert tried(gateway, answer) == [("first", "context_length"), ("third", None)]


def test_a_stream_that_begins_with_too_small_a_context_goes_to_a_larger_one(serve: Any) -> None:
    windows = {"first": {"context_window": 2000}, "second": {"context_window": 1000}, "third": {"context_window": 4000}}
    gateway = serve("small-stream", "good", "good", entries=windows, breaker={"n_failures": 1})
    for _ in range(2):  # it is no failure of the upstream's
        assert tried(gateway, ask(gateway, stream=True)) == [("first", "context_length"), ("third", None)]
    alone = ask(gateway, stream=True, model="first")
    assert (alone.status_code, alone.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_where_no_context_is_larger_the_client_sees_that(serve: Any) -> None:
    gateway = serve("small", "good", entries={"first": {"context_window": 2000}, "second": {"context_window": 1000}})
    answer = ask(gateway)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_an_upstream_that_keeps_failing_is_left_alone_and_asked_last(serve: Any, upstream: Upstream) -> None:
    gateway = serve("status-500", "good", breaker={"n_failures": 2, "open_s": 600})
    for _ in range(2):
        assert tried(gateway, ask(gateway)) == [("first", "http_status"), ("second", None)]
    answer = ask(gateway)
    assert tried(gateway, answer) == [("second", None)]
    row = gateway.decision(answer.headers["x-request-id"])
    assert row["policy_settings"]["note"] == "its upstream keeps failing: asked after all others: first"
    assert [(c["model"], c["propensity"]) for c in row["candidates"]] == [("second", 1.0), ("first", 0.0)]


def test_where_every_circuit_is_open_they_are_asked_all_the_same(serve: Any, upstream: Upstream) -> None:
    gateway = serve("status-500", "status-503", breaker={"n_failures": 1, "open_s": 600})
    for _ in range(2):
        assert len(tried(gateway, ask(gateway))) == 2


def test_a_probe_that_is_answered_closes_the_circuit(serve: Any, upstream: Upstream) -> None:
    gateway = serve("no-temperature", "good", breaker={"n_failures": 1, "open_s": 600})
    breakers = gateway.app.state.service.observed.breakers
    first = gateway.app.state.service.watch.current.pool.by_name["first"].upstream
    breakers.failed(first)
    assert ask(gateway).json()["model"] == "second"
    breakers._circuits[first].open_until -= 600  # its time is over
    assert ask(gateway).json()["model"] == "first"
    assert breakers.state(first) == "closed"


def test_a_retry_after_is_honoured(serve: Any, upstream: Upstream) -> None:
    gateway = serve("status-429", "status-429-bare", "good")
    assert tried(gateway, ask(gateway)) == [("first", "http_status"), ("second", "http_status"), ("third", None)]
    answer = ask(gateway)
    assert tried(gateway, answer) == [("second", "http_status"), ("third", None)]
    for told in (ask(gateway, embedrouter={"candidates": ["first"]}), ask(gateway, model="first")):
        assert (told.status_code, told.json()["error"]["code"]) == (429, "upstream_rate_limited")
        assert 1 <= int(told.headers["retry-after"]) <= 7
        assert 0 < int(told.headers["retry-after-ms"]) <= 7000
        assert told.headers["x-should-retry"] == "false"
    assert upstream.behaviours().count("status-429") == 1


def test_the_least_wait_may_be_of_one_that_was_not_asked(serve: Any) -> None:
    gateway = serve("status-429", "good")
    observed, pool = gateway.app.state.service.observed, gateway.app.state.service.watch.current.pool
    observed.breakers.failed(pool.by_name["second"].upstream, 3.0)
    answer = ask(gateway)
    assert tried(gateway, answer) == [("first", "http_status")]
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) <= 3  # the other asks for 7


def test_rules_rewrite_what_this_upstream_alone_gets(serve: Any, upstream: Upstream) -> None:
    rules = {
        "rename": {"max_tokens": "max_completion_tokens"},
        "drop": ["temperature"],
        "require": {"reasoning_effort": "low"},
    }
    gateway = serve("status-500", "good", entries={"first": {"parameters": rules}})
    assert ask(gateway, max_tokens=9, temperature=0.5).status_code == 200
    first, second = [asked.body for asked in upstream.asked]
    said = {"messages": [{"role": "user", "content": A_SUM}]}
    assert first == {"model": "vendor/first", **said, "max_completion_tokens": 9, "reasoning_effort": "low"}
    assert second == {"model": "vendor/second", **said, "max_tokens": 9, "temperature": 0.5}


def test_usage_is_asked_for_where_the_upstream_takes_it(serve: Any, upstream: Upstream) -> None:
    gateway = serve(
        "good", "no-stream-options", "good", entries={"third": {"parameters": {"drop": ["stream_options"]}}}
    )
    for name, asks in (("first", [True]), ("second", [True, False]), ("third", [False])):
        upstream.asked.clear()
        answer = ask(gateway, model=name, stream=True)
        assert answer.text.endswith("data: [DONE]\n\n")
        assert '"usage"' not in answer.text  # nobody asked for it
        assert ["stream_options" in asked.body for asked in upstream.asked] == asks
        row = gateway.decision(answer.headers["x-request-id"])
        assert (row["input_tokens"], len(row["attempts"])) == (10 if name == "first" else None, 1)
    upstream.asked.clear()
    ask(gateway, model="second", stream=True)  # it is remembered
    assert ["stream_options" in asked.body for asked in upstream.asked] == [False]


def test_an_endpoint_that_an_upstream_lacks_is_found_elsewhere_and_remembered(serve: Any, upstream: Upstream) -> None:
    gateway = serve("chat-only", "good")
    answer = ask(gateway, path="/responses", input=A_SUM)
    assert tried(gateway, answer) == [("first", "no_endpoint"), ("second", None)]
    assert tried(gateway, ask(gateway, path="/responses", input=A_SUM)) == [("second", None)]
    assert ask(gateway).json()["model"] == "first"
