"""POST /v1/chat/completions on the wire: what is forwarded, what is refused, what a client that leaves causes."""

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from router.artifact import Artifact
from router.choice import Forecast, forecasts
from router.encoder.lsa import LsaEncoder
from router.relay import ChoiceRelay
from router.replay import replay
from tests.serving import A_SUM, Gateway, entry, planted_engine, run_gateway, settings
from tests.upstreams import Upstream
from tests.waiting import until

FORECASTS = {"calculator": (0.9, 0.3), "poet": (0.2, 0.8)}
KEY = "sk-upstream-secret"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with planted_engine(tmp_path_factory.mktemp("chat"), FORECASTS) as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(engine: Engine, upstream: Upstream) -> Iterator[Gateway]:
    """Every behaviour of the upstream is a model that can be named; two are routable."""
    pool = [
        entry("calculator", upstream.url("good"), key=KEY, usd=10.0, context_window=1000),
        entry("poet", upstream.url("good"), key=KEY, usd=1.0),
        *(
            entry(behaviour, upstream.url(behaviour), key=KEY)
            for behaviour in (
                *("status-400", "status-401", "status-404", "status-429"),
                *("hang", "stream-hangs", "slow", "odd-json", "drip"),
            )
        ),
    ]
    with run_gateway(engine, settings(pool, server={"max_body_bytes": 20_000})) as running:
        yield running


def post(gateway: Gateway, body: Any, **options: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json", **options.pop("headers", {})}
    return httpx.post(f"{gateway.base_url}/chat/completions", content=content, headers=headers, timeout=20)


def chat(model: str = "auto", text: object = A_SUM, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def test_every_field_reaches_the_upstream_and_only_the_model_changes(gateway: Gateway, upstream: Upstream) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1.50}'}}
    body = chat(
        messages=[
            {"role": "developer", "content": "be brief", "name": "ops"},
            {"role": "user", "content": "look at this"},
            {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "42"}]},
            {
                "role": "user",
                "content": [{"type": "text", "text": A_SUM, "cache_control": {"type": "ephemeral"}}, image],
            },
        ],
        temperature=0.25,
        top_p=1e-7,
        n=1,
        stop=["\n\n", ""],
        logprobs=True,
        top_logprobs=0,
        logit_bias={"50256": -100},
        max_completion_tokens=7,
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}],
        tool_choice={"type": "function", "function": {"name": "f"}},
        parallel_tool_calls=False,
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": {}}},
        reasoning_effort="minimal",
        seed=2**60 + 1,
        metadata={"ключ": "😀"},
        store=False,
        service_tier="flex",
        prompt_cache_key="",
        user="someone",
        a_field_of_next_year=[None, {"deep": [1.5]}],
    )
    assert post(gateway, {**body, "embedrouter": {"policy": "quality"}}).status_code == 200
    assert upstream.asked[-1].body == {**body, "model": "vendor/calculator"}


def test_no_header_of_the_client_reaches_the_upstream(gateway: Gateway, upstream: Upstream) -> None:
    headers = {
        "authorization": "Bearer client",
        "cookie": "a=b",
        "x-custom": "1",
        "te": "trailers",
        "x-request-id": "q",
    }
    assert post(gateway, chat(), headers=headers).status_code == 200
    asked = upstream.asked[-1].headers
    assert asked["authorization"] == f"Bearer {KEY}"
    assert asked["host"] == f"127.0.0.1:{upstream.port}"
    assert not {"cookie", "x-custom", "te"} & set(asked)


def test_the_answer_is_unchanged_but_for_the_model(gateway: Gateway) -> None:
    answer = post(gateway, chat())
    assert answer.json()["model"] == "calculator"
    assert answer.json()["vendor_extra"] == {"kept": [1, 2.5, None]}
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        (b"{", None, "the body is not JSON"),
        (b"\xff\xfe", None, "the body is not JSON"),
        (b"[" * 15_000, None, "nested too deeply"),
        (b'{"model": "auto", "x": NaN, "messages": []}', None, "NaN is not a JSON number"),
        (b"[]", None, "must be a JSON object, not []"),
        ({"messages": [{"role": "user", "content": "x"}]}, "model", "`model` must be"),
        (chat(model=""), "model", "`model` must be"),
        ({"model": "auto"}, "messages", "`messages` must be a list"),
        ({"model": "auto", "messages": []}, "messages", "at least one message"),
        ({"model": "auto", "messages": ["hi"]}, "messages.0", 'not "hi"'),
        (chat(stream="yes"), "stream", 'not "yes"'),
        (chat(embedrouter=[]), "embedrouter", "must be an object"),
        (chat(embedrouter={"polcy": "quality"}), "embedrouter.polcy", "did you mean `policy`?"),
        (chat(embedrouter={"policy": "best"}), "embedrouter.policy", "one of quality, balanced, cheapest"),
        (chat(embedrouter={"min_p_correct": 1.5}), "embedrouter.min_p_correct", "between 0 and 1"),
        (chat(embedrouter={"lambda": -1}), "embedrouter.lambda", "of 0 or more"),
        (chat(embedrouter={"lambda": True}), "embedrouter.lambda", "is true"),
        (chat(embedrouter={"candidates": "poet"}), "embedrouter.candidates", "a list of model names"),
        (chat(embedrouter={"candidates": ["nobody"]}), "embedrouter.candidates", "'nobody' is not in the pool"),
    ],
)
def test_a_request_that_is_none_is_400_with_the_part_that_is_wrong(
    gateway: Gateway, body: Any, param: str | None, says: str
) -> None:
    answer = post(gateway, body)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert says in error["message"]


def test_a_body_over_the_limit_is_413(gateway: Gateway) -> None:
    answer = post(gateway, chat(text="x" * 30_000))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(("value", "model"), [("cheapest", "poet"), ("quality", "calculator")])
def test_a_policy_may_come_in_headers(gateway: Gateway, value: str, model: str) -> None:
    headers = {"x-embedrouter-policy": value, "x-embedrouter-min-p-correct": "0.1"}
    answer = post(gateway, chat(), headers=headers)
    assert (answer.json()["model"], answer.headers["x-embedrouter-policy"]) == (model, value)


def test_the_body_wins_over_the_headers(gateway: Gateway) -> None:
    answer = post(gateway, chat(embedrouter={"policy": "quality"}), headers={"x-embedrouter-policy": "cheapest"})
    assert answer.headers["x-embedrouter-policy"] == "quality"


def test_a_prompt_too_long_for_a_context_window_goes_elsewhere(gateway: Gateway) -> None:
    assert post(gateway, chat(max_tokens=5000)).json()["model"] == "poet"
    answer = post(gateway, chat(max_tokens=5000, embedrouter={"candidates": ["calculator", "hang"]}))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "no_eligible_model")
    reasons = {model["model"]: model["reason"] for model in error["models"]}
    assert reasons["calculator"] == "about 5008 tokens do not fit its context window of 1000"
    assert reasons["hang"].startswith("no logs")


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "a poem about the sea"}, {"role": "user", "content": A_SUM}],
        [
            {"role": "system", "content": "a poem"},
            {"role": "user", "content": A_SUM},
            {"role": "assistant", "content": "poem"},
        ],
        [
            {
                "role": "user",
                "content": [{"type": "text", "text": A_SUM}, {"type": "image_url", "image_url": {"url": "x"}}],
            }
        ],
        [{"role": "user", "content": A_SUM}, {"role": "tool", "content": "a poem", "tool_call_id": "1"}],
    ],
)
def test_the_last_thing_that_a_user_said_is_what_is_routed(gateway: Gateway, messages: list[dict[str, Any]]) -> None:
    assert post(gateway, {"model": "auto", "messages": messages}).json()["model"] == "calculator"


def test_with_nothing_to_encode_the_decision_says_so(gateway: Gateway) -> None:
    answer = post(gateway, {"model": "auto", "messages": [{"role": "system", "content": "be kind"}]})
    assert answer.status_code == 200
    row = gateway.decision(answer.headers["x-request-id"])
    why = "by each model's usual P(correct), there being no `policy.default_model`"
    assert row["policy_settings"]["note"] == f"no user text to encode: {why}"
    assert [c["p_correct"] for c in row["candidates"]] == pytest.approx([0.663, 0.5], abs=1e-3)


NEW = "novelty 1.000 being above 0.500"


@pytest.mark.parametrize(
    ("text", "why"), [(A_SUM, f"outside what the logs cover, {NEW}"), (" ", "no user text to encode")]
)
def test_what_the_logs_do_not_cover_goes_to_the_default_model(
    engine: Engine, upstream: Upstream, text: str, why: str
) -> None:
    pool = [entry(name, upstream.url("good")) for name in FORECASTS]
    policy = {"default_model": "poet", "max_novelty": 0.5}  # a planted artifact covers nothing
    with run_gateway(engine, settings(pool, policy=policy, recording={"prompts": "full"})) as gateway:
        explained = httpx.post(f"{gateway.base_url}/route", json=chat(text=text)).json()
        answer = post(gateway, chat(text=text))
        row = gateway.decision(answer.headers["x-request-id"])
        again = replay(row, gateway.app.state.watch.current.artifact)
    assert (again.same, again.forecast_difference) == (True, 0.0)
    assert (answer.json()["model"], explained["model"]) == ("poet", "poet")
    assert row["policy_settings"]["note"] == explained["note"] == f"{why}: the default model"
    assert row["first_choice"] == "poet"


def test_a_lone_surrogate_is_routed_like_any_text(gateway: Gateway) -> None:
    body = b'{"model": "auto", "messages": [{"role": "user", "content": "what is two plus three numbers \\ud800"}]}'
    assert post(gateway, body).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 404])
def test_the_clients_fault_is_passed_through(gateway: Gateway, status: int, stream: bool) -> None:
    answer = post(gateway, chat(model=f"status-{status}", stream=stream))
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, f"vendor_{status}")
    assert KEY not in answer.text
    assert answer.headers["x-embedrouter-attempts"] == "1"


def test_an_upstream_that_refuses_our_key_is_502_and_our_key_stays_ours(gateway: Gateway) -> None:
    answer = post(gateway, chat(model="status-401"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_failed")
    assert KEY not in answer.text
    assert answer.headers["x-should-retry"] == "false"


def test_an_upstream_out_of_quota_is_429_with_its_wait(gateway: Gateway) -> None:
    answer = post(gateway, chat(model="status-429"))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


def test_a_stream_ends_in_done_with_the_models_name_in_each_chunk(gateway: Gateway) -> None:
    answer = post(gateway, chat(stream=True))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "x-embedrouter-cost-usd" not in answer.headers
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert {json.loads(event.removeprefix("data: "))["model"] for event in events} == {"calculator"}


def test_an_odd_answer_goes_through_and_its_impossible_counts_are_not_recorded(gateway: Gateway) -> None:
    answer = post(gateway, chat(model="odd-json"), headers={"x-request-id": "odd"})
    assert answer.status_code == 200
    (choice,) = answer.json()["choices"]
    assert choice["message"]["content"] == "\ud83d"
    assert math.isnan(choice["logprob"])
    assert answer.json()["usage"] == {"prompt_tokens": 2**63, "completion_tokens": -1}
    row = gateway.decision("odd")
    assert (row["status"], row["input_tokens"], row["output_tokens"], row["cost_usd"]) == (200, None, None, None)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (chat(embedrouter={"lambda": 10**400}), "must be a number of 0 or more"),
        (chat(embedrouter={"\ud83d": 1}), "unknown key"),
        (json.dumps(chat(temperature=7)).replace("7", "1e400").encode(), "1e400 is too large a number"),
    ],
)
def test_what_cannot_be_read_is_400_and_never_500(gateway: Gateway, body: Any, says: str) -> None:
    answer = post(gateway, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert says in answer.json()["error"]["message"]


def test_a_defect_within_a_stream_ends_it_with_one_error_and_is_recorded_as_ours(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the inner secret")

    monkeypatch.setattr(ChoiceRelay, "event", broken)  # no chunk is known that does this: a defect has to be planted
    answer = post(gateway, chat(stream=True))
    events = [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: ")]
    assert [json.loads(event)["error"]["code"] for event in events] == ["internal_error"]
    assert "inner secret" not in answer.text
    row = gateway.decision(answer.headers["x-request-id"])
    assert (row["status"], row["error"]) == (200, "stream_internal_error")


def test_a_defect_while_asking_is_recorded_as_ours(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the inner secret")

    monkeypatch.setattr("router.asking.body_for", broken)
    answer = post(gateway, chat())
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    row = gateway.decision(answer.headers["x-request-id"])
    assert (row["status"], row["error"], row["answered_by"]) == (500, "internal_error", None)


def test_at_no_depth_does_a_nested_body_break_the_router(gateway: Gateway) -> None:
    seen = set()
    with httpx.Client(base_url=gateway.base_url, timeout=20) as client:
        for depth in (*range(245, 260), *range(480, 510), *range(900, 1030, 5)):
            nested = "[" * depth + "]" * depth
            for field in ("metadata", "tools"):
                body = json.dumps(chat(**{field: "?"})).replace('"?"', nested)
                seen |= {client.post(path, content=body).status_code for path in ("/chat/completions", "/route")}
    assert seen == {200, 400}


def test_a_client_that_leaves_before_its_request_is_whole_is_no_defect(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        time.sleep(0.1)  # the request has begun
    time.sleep(0.1)  # the router has seen that it is over
    assert post(gateway, chat()).status_code == 200
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("model", "stream"), [("hang", False), ("hang", True), ("drip", False), ("drip", True), ("stream-hangs", True)]
)
def test_a_client_that_leaves_ends_the_upstreams_call(
    gateway: Gateway, upstream: Upstream, model: str, stream: bool
) -> None:
    n_left, request_id = upstream.n_left, f"left-{model}-{stream}"
    host, port = gateway.url.removeprefix("http://").split(":")
    content = json.dumps(chat(model=model, stream=stream)).encode()
    headers = f"host: x\r\nx-request-id: {request_id}\r\ncontent-length: {len(content)}\r\n\r\n"
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{headers}".encode()
    n_asked = len(upstream.asked)
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head + content)
        if model == "stream-hangs":
            seen = b""
            while b"half an" not in seen:
                seen += connection.recv(65536)
        else:
            while len(upstream.asked) == n_asked:
                pass
    upstream.wait_until_left(n_left + 1)
    row = gateway.decision(request_id)
    assert (row["status"], row["error"], row["streamed"]) == (499, "client_closed", stream)


def leave(gateway: Gateway, content: bytes, request_id: str, after: Callable[[], bool]) -> None:
    """Send a request, and close the connection as soon as something has happened."""
    url = httpx.URL(gateway.url)
    headers = f"host: x\r\nx-request-id: {request_id}\r\ncontent-length: {len(content)}\r\n\r\n"
    with socket.create_connection((url.host, url.port or 0)) as connection:
        connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{headers}".encode() + content)
        until(after)


def test_a_client_that_leaves_while_an_upstream_is_connected_to_ends_that(engine: Engine) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(3)]  # its queue is full: who asks next gets no answer
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            pool = [entry("calculator", f"http://127.0.0.1:{listener.getsockname()[1]}/v1")]
            with run_gateway(engine, settings(pool, timeouts={"connect_s": 60})) as gateway:
                since = time.monotonic()
                leave(gateway, json.dumps(chat()).encode(), "left-connecting", lambda: time.monotonic() > since + 0.3)
                row = gateway.decision("left-connecting")
        finally:
            for filler in fillers:
                filler.close()
    assert (row["status"], row["error"], row["answered_by"]) == (499, "client_closed", None)
    assert [attempt["error"] for attempt in row["attempts"]] == ["client_closed"]


def test_a_prompt_whose_client_leaves_before_its_turn_is_never_encoded(
    gateway: Gateway, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    turn = threading.Event()

    def slow(artifact: Artifact, texts: Sequence[str]) -> list[Forecast]:
        encoded.extend(texts)
        assert turn.wait(60)
        return forecasts(artifact, texts)

    monkeypatch.setattr("router.forecasting.forecasts", slow)
    monkeypatch.setattr(LsaEncoder, "is_light", False)
    n_asked = len(upstream.asked)
    with ThreadPoolExecutor() as others:
        first = others.submit(post, gateway, chat())
        until(lambda: bool(encoded))  # it holds the encoder
        service, metrics = gateway.app.state.service, gateway.app.state.metrics
        leave(gateway, json.dumps(chat(text="a poem")).encode(), "left", lambda: service.encoder_queue_depth > 0)
        until(lambda: metrics.n_in_flight == 1)  # the router has seen it leave
        turn.set()
        assert first.result().status_code == 200
    assert post(gateway, chat()).status_code == 200
    assert encoded == [A_SUM, A_SUM]
    assert len(upstream.asked) - n_asked == 2


def test_a_client_that_leaves_during_a_fallback_ends_that_too(engine: Engine, upstream: Upstream) -> None:
    pool = [entry("calculator", upstream.url("status-500")), entry("poet", upstream.url("hang"))]
    n_left, n_asked = upstream.n_left, len(upstream.asked)
    with run_gateway(engine, settings(pool)) as gateway:
        asked = json.dumps(chat()).encode()
        leave(gateway, asked, "left-in-fallback", lambda: upstream.behaviours()[n_asked:] == ["status-500", "hang"])
        upstream.wait_until_left(n_left + 1)
        row = gateway.decision("left-in-fallback")
    assert (row["status"], row["error"], row["answered_by"]) == (499, "client_closed", None)
    assert [attempt["error"] for attempt in row["attempts"]] == ["http_status", "client_closed"]


def test_a_timeout_to_the_first_byte_is_504(engine: Engine, upstream: Upstream) -> None:
    pool = [entry("calculator", upstream.url("hang")), entry("poet", upstream.url("hang"))]
    with run_gateway(engine, settings(pool, timeouts={"first_token_s": 0.1})) as quick:
        answer = post(quick, chat())
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
    assert [attempt["error"] for attempt in answer.json()["error"]["attempts"]] == [
        "first_token_timeout",
        "first_token_timeout",
    ]
