"""Fallbacks that learn: who is asked after a refusal, and who is not asked again."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from router.asking import Asker
from router.breaker import BreakerRules
from router.complaints import refusal_in
from router.decision import Decision, Option
from router.observed import Latencies, Observed
from router.policy import Policy
from router.pool import PoolEntry
from router.pool import Upstream as Endpoint
from router.refusals import Refusal, Refusals
from router.reply import Reply
from router.request import read_request
from router.settings import Timeouts
from router.upstream import Upstreams
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


def test_who_is_given_less_than_its_time_is_not_blamed_for_it(serve: Any) -> None:
    gateway = serve("hang", "hang", timeouts={"first_token_s": 0.5, "total_s": 0.8}, breaker={"n_failures": 2})
    for _ in range(2):
        assert ask(gateway).status_code == 504
    observed: Observed = gateway.app.state.service.observed
    pool = gateway.app.state.service.watch.current.pool
    first, second = (pool.by_name[name].upstream for name in ("first", "second"))
    assert (observed.breakers.state(first), observed.breakers.state(second)) == ("open", "closed")


def test_a_streams_latency_is_its_own_upstreams_alone(serve: Any) -> None:
    gateway = serve("late-500", "good")
    answer = ask(gateway, stream=True)
    row = gateway.decision(answer.headers["x-request-id"])
    upstream = gateway.app.state.service.watch.current.pool.by_name["second"].upstream
    seen_s = gateway.app.state.service.observed.latencies.mean_s(upstream)
    assert 0 < seen_s < row["latency_s"] - row["attempts"][0]["latency_s"] + 1e-3


async def test_who_fails_since_the_choice_was_made_is_asked_after_others(upstream: Upstream) -> None:
    pool = [PoolEntry(name, upstream=Endpoint(f"{upstream.url('good')}?{name}", name)) for name in FORECASTS]
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": A_SUM}]}).encode()
    for n_open, answers in ((1, "second"), (3, "third")):
        decision = Decision("r", None, None, tuple(Option(entry, 0.5, None, 1.0) for entry in pool))
        observed = Observed()
        for failing in pool[:n_open]:
            for _ in range(BreakerRules().n_failures):
                observed.breakers.failed(failing.upstream)
        async with Upstreams(Timeouts()) as upstreams:
            await Asker(upstreams, observed).ask(decision, read_request(body, {}, Policy()))
        assert [attempt.model for attempt in decision.attempts] == [answers]


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


def test_a_refused_role_goes_to_the_next_and_is_remembered(serve: Any) -> None:
    gateway = serve("no-developer", "good")

    def told(role: str, text: str) -> httpx.Response:
        return ask(gateway, messages=[{"role": role, "content": text}, {"role": "user", "content": A_SUM}])

    assert tried(gateway, told("developer", "be brief")) == [("first", "parameter_refused"), ("second", None)]
    again = told("developer", "be long")
    assert tried(gateway, again) == [("second", None)]
    (out,) = [c for c in gateway.decision(again.headers["x-request-id"])["candidates"] if c["model"] == "first"]
    assert out["excluded"] == "its upstream refused `developer` before, where another took it"
    assert tried(gateway, told("system", "be brief")) == [("first", None)]


CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "x"},
    {"role": "developer", "content": "x"},
    {"role": "user", "name": "Ada", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},
    {"role": "tool", "tool_call_id": "call_1", "content": "x"},
]


@pytest.mark.parametrize(
    ("message", "param", "refused"),
    [
        (
            "Unsupported value: 'messages[0].role' does not support 'system' with this model",
            "messages[0].role",
            "system",
        ),
        ("'developer' is not one of ['system', 'assistant', 'user'] - 'messages.1.role'", None, "developer"),
        ("Input should be 'system', 'user', 'assistant' or 'tool'", "messages.1.role", "developer"),
        ("Unexpected role 'developer' in the template", None, "developer"),
        ("parts of this type are not supported", "messages.[2].content.[0].type", "image_url"),
        ('Unknown part type: "image_url"', None, "image_url"),
        ("messages[2]: unknown variant `image_url`, expected `text`", None, "image_url"),
        ("'image_url' content is not supported by this model", None, "image_url"),
        ("Invalid role 'developer'. Must be one of the following: system, user", "messages.1.role", "developer"),
        ("Input tag 'developer' found using 'role' does not match any of the expected tags", None, "developer"),
        ("The role 'developer' is not allowed", None, "developer"),
        ("'messages.1' : discriminator property 'role' has invalid value", None, None),
        ("Input should be 'system', 'user', 'assistant' or 'tool'", None, None),
        ("unknown role at messages[0].role", None, None),
        ("Invalid file: unsupported MIME type 'text/csv'", "messages[2].content[0].image_url.url", None),
        ("Unsupported image_url: image/bmp", None, None),
        ("messages.2.content.0.image_url.url: unsupported scheme", None, None),
        ("'image_url' must be one of: https or data URL", None, None),
    ],
)
def test_what_an_upstream_does_not_know_of_a_conversation_is_a_role_or_a_type(
    message: str, param: str | None, refused: str | None
) -> None:
    reply = Reply(400, {"error": {"message": message, "param": param}}, "client")
    assert refusal_in(reply, {"model": "m", "messages": CONVERSATION}) == Refusal("messages", False, refused)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("messages must not be empty", "messages"),
        ("this is forbidden", None),
        ("the content 'user' wrote is bad", None),
        (
            "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.",
            "messages.[3].role",
        ),
        ("An assistant message with 'tool_calls' must be followed by tool messages", "messages.[3].role"),
        ("Unexpected role 'system' after role 'user'", None),
        ("Invalid 'messages[2].name': string does not match pattern", "messages[2].name"),
        ("the image cannot be read", "messages[2].content[0].image_url"),
        ("Missing required parameter: 'messages[9].role'", "messages[9].role"),
        ("The conversation must end with a user message", "messages[1].role"),
        ("Tool messages need a matching tool call", "messages[3].role"),
        ("Unexpected role 'tool': no tool call is pending", None),
        ("Unsupported role 'assistant' in the final position", None),
    ],
)
def test_what_every_upstream_would_say_of_a_conversation_is_the_clients_fault(message: str, param: str | None) -> None:
    reply = Reply(400, {"error": {"message": message, "param": param}}, "client")
    assert refusal_in(reply, {"model": "m", "messages": CONVERSATION}) is None


def test_a_refusal_that_names_no_word_is_not_remembered() -> None:
    refusals = Refusals()
    refusals.remember("a", Refusal("messages", any_value=False), {"messages": CONVERSATION})
    assert refusals.refused("a", {"messages": CONVERSATION}) is None


def test_a_conversation_is_looked_through_once_whatever_is_known() -> None:
    class Counted(list[Any]):
        n_read = 0

        def __iter__(self) -> Iterator[Any]:
            self.n_read += 1
            return super().__iter__()

    refusals = Refusals()
    for number in range(50):
        refusals.remember("a", Refusal("messages", any_value=False, word=f"role{number}"), {})
    conversation = Counted(CONVERSATION)
    assert refusals.refused("a", {"messages": conversation}) is None
    assert conversation.n_read == 1
    refusals.remember("a", Refusal("messages", any_value=False, word="developer"), {})
    assert refusals.refused("a", {"messages": conversation}) == "developer"


def test_an_item_that_is_not_found_is_no_word_against_the_endpoint(serve: Any) -> None:
    gateway = serve("forgetful", "good")
    items = [{"role": "user", "content": A_SUM}, {"type": "reasoning", "id": "rs_1", "summary": []}]
    strange = ask(gateway, path="/responses", input=items)
    assert tried(gateway, strange) == [("first", "client_fault"), ("second", None)]
    assert tried(gateway, ask(gateway, path="/responses", input=A_SUM)) == [("first", None)]


def test_a_stream_is_asked_for_without_usage_where_that_may_be_what_was_refused(serve: Any, upstream: Upstream) -> None:
    gateway = serve("picky", "good")
    for n_asked in (2, 1):  # once it is known, it is not asked for
        upstream.asked.clear()
        answer = ask(gateway, stream=True)
        assert answer.headers["x-embedrouter-model"] == "first"
        assert len(upstream.asked) == n_asked
    assert tried(gateway, answer) == [("first", None)]


def test_a_second_ask_that_fails_hides_no_refusal(serve: Any, upstream: Upstream) -> None:
    gateway = serve("alternating")
    answer = ask(gateway, stream=True)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "roles must alternate")
    assert len(upstream.asked) == 2


def test_who_answers_a_stream_as_a_whole_has_answered(serve: Any) -> None:
    gateway = serve("never-streams", "good")
    answer = ask(gateway, stream=True, stream_options={"include_usage": True})
    assert tried(gateway, answer) == [("first", None)]
    *events, done = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    chunks = [json.loads(event) for event in events]
    assert done == "[DONE]"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    said = [choice for chunk in chunks for choice in chunk["choices"]]
    assert "".join(choice["delta"].get("content", "") for choice in said) == "answer of vendor/first"
    assert [choice["finish_reason"] for choice in said] == [None, "stop"]
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"]) == ([], 15)
    row = gateway.decision(answer.headers["x-request-id"])
    assert (row["status"], row["output_tokens"]) == (200, 5)


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


def test_what_is_known_can_be_read_while_it_grows() -> None:
    known = Refusals()
    body = {"messages": [{"role": "user", "content": "x"}] * 1_000, "temperature": 0.5}

    def reads() -> set[str | None]:
        return {known.refused("u", body) for _ in range(300)}

    with ThreadPoolExecutor() as threads:
        reading = [threads.submit(reads) for _ in range(2)]
        for number in range(3_000):
            known.remember("u", Refusal("messages", any_value=True, word=f"role-{number}"), body)
        assert [found.result() for found in reading] == [{None}, {None}]


def test_a_latency_of_long_ago_says_nothing() -> None:
    now = [100.0]
    latencies, endpoint = Latencies(lambda: now[0]), Endpoint("http://h/v1", "m")
    assert latencies.mean_s(endpoint) is None
    latencies.add(endpoint, 1.0)
    latencies.add(endpoint, 2.0)
    assert latencies.mean_s(endpoint) == pytest.approx(1.2)
    now[0] += 61
    assert latencies.mean_s(endpoint) is None
    latencies.add(endpoint, 3.0)
    assert latencies.mean_s(endpoint) == 3.0
