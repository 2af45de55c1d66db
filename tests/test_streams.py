"""A streamed answer on the wire, byte for byte: one event a flush, usage, ids, tool calls, comments."""

import asyncio
import json
import logging
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from data.queries import decisions
from router.api.answering import Events
from router.decision import Decision, Option
from router.pool import PoolEntry
from tests.serving import A_SUM, Gateway, entry, planted_engine, run_gateway, settings
from tests.upstreams import USAGE, Upstream
from tests.waiting import until

FORECASTS = {"good": (0.9, 0.9)}


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr("router.upstream.CLOSING_S", 0.2)  # as long a wait would make a slow test
    paces = ("stream-stops", "stream-uneven", "stream-odd", "stream-pauses", "stream-filtered", "stream-thinks")
    models = ("good", *paces, "late-400", "late-500", "hang")
    pool = [entry(name, upstream.url(name)) for name in models]
    folder = tmp_path_factory.mktemp("streams")
    with (
        planted_engine(folder, FORECASTS) as engine,
        run_gateway(engine, settings(pool, timeouts={"keep_alive_s": 0.1})) as running,
    ):
        yield running
    monkeypatch.undo()


def body(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": A_SUM}], "stream": True, **more}


def blocks(gateway: Gateway, model: str, **more: Any) -> list[str]:
    """The events of a stream as they stand on the wire."""
    answer = httpx.post(f"{gateway.base_url}/chat/completions", json=body(model, **more), timeout=20)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("\n\n")
    return answer.text.removesuffix("\n\n").split("\n\n")


def chunks(found: list[str]) -> list[dict[str, Any]]:
    assert found[-1] == "data: [DONE]"
    return [json.loads(block.removeprefix("data: ")) for block in found[:-1] if not block.startswith(":")]


def test_each_event_is_a_flush_of_its_own(gateway: Gateway) -> None:
    content = json.dumps(body("good")).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n".encode()
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head + content)
        seen = b""
        while not seen.endswith(b"0\r\n\r\n"):
            seen += connection.recv(65536)
    transfer = seen.partition(b"\r\n\r\n")[2]
    pieces = []
    while transfer:
        size, _, rest = transfer.partition(b"\r\n")
        pieces.append(rest[: int(size, 16)])
        transfer = rest[int(size, 16) + 2 :]
    *events, end = [piece for piece in pieces if not piece.startswith(b":")]  # a slow machine is silent in between
    assert end == b""
    assert all(event.startswith(b"data: ") and event.count(b"\n\n") == 1 for event in events)


def test_usage_stands_in_one_last_chunk_and_only_for_who_asked(gateway: Gateway) -> None:
    for model in ("good", "stream-uneven"):
        *before, last = chunks(blocks(gateway, model, stream_options={"include_usage": True}))
        assert (last["choices"], last["usage"]) == ([], USAGE)
        assert all(chunk["choices"] and chunk.get("usage") is None for chunk in before)
        assert all("usage" not in chunk and chunk["choices"] for chunk in chunks(blocks(gateway, model)))


def test_id_time_and_model_are_constant(gateway: Gateway) -> None:
    found = chunks(blocks(gateway, "stream-uneven", stream_options={"include_usage": True}))
    assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in found} == {("chatcmpl-0", 1, "stream-uneven")}


def test_an_empty_id_and_time_give_way_to_the_first_ones(gateway: Gateway) -> None:
    found = chunks(blocks(gateway, "stream-filtered"))
    assert [(chunk["id"], chunk["created"]) for chunk in found] == [("chatcmpl-1", 1)] * 3
    assert found[0]["prompt_filter_results"] == [{}]


def test_tool_calls_come_piece_by_piece_as_they_were(gateway: Gateway) -> None:
    found = chunks(blocks(gateway, "stream-uneven"))
    assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    deltas = [chunk["choices"][0]["delta"] for chunk in found]
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert "".join(call["function"]["arguments"] for call in calls) == '{"a": 1}'
    assert calls[0] == {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert deltas[3]["vendor_extra"] == [1]
    assert found[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_odd_but_legal_events_come_out_plain(gateway: Gateway) -> None:
    found = blocks(gateway, "stream-odd")
    assert chunks(found)[0]["choices"][0]["delta"]["content"] == "naïve 中文"
    assert all(chunk["choices"] for chunk in chunks(found))  # usage that came without any was not asked for
    assert all(block.startswith(("data: ", ":")) and "\n" not in block and "\r" not in block for block in found)


def test_a_silence_is_filled_with_comments(gateway: Gateway) -> None:
    found = blocks(gateway, "stream-pauses")
    assert any(block.startswith(":") for block in found)
    texts = [chunk["choices"][0]["delta"]["content"] for chunk in chunks(found)]
    assert texts == ["let me ", "think"]


def test_a_client_that_waits_for_the_first_word_has_its_headers_and_comments(gateway: Gateway) -> None:
    with httpx.stream("POST", f"{gateway.base_url}/chat/completions", json=body("stream-thinks"), timeout=20) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert answer.headers["x-embedrouter-decision-id"]
    assert "x-embedrouter-model" not in answer.headers  # nobody knew yet who would answer
    assert lines[0].startswith(":")
    said = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks(lines))
    assert said.strip() == "answer of vendor/stream-thinks"
    row = gateway.decision(answer.headers["x-request-id"])
    assert (row["status"], row["error"], row["answered_by"]) == (200, None, "stream-thinks")


@pytest.mark.parametrize(("model", "code"), [("late-500", "upstream_failed"), ("late-400", "vendor_400")])
def test_what_fails_after_the_headers_is_told_in_one_event(gateway: Gateway, model: str, code: str) -> None:
    answer = httpx.post(f"{gateway.base_url}/chat/completions", json=body(model), timeout=20)
    assert answer.status_code == 200
    (said,) = [line for line in answer.text.split("\n\n") if line and not line.startswith(":")]
    error = json.loads(said.removeprefix("data: "))["error"]
    assert error["code"] == code
    row = gateway.decision(answer.headers["x-request-id"])
    assert (row["status"], row["answered_by"]) == (200, None)
    assert row["error"] == ("client_fault" if model == "late-400" else "upstream_failed")


def test_a_typed_stream_tells_of_a_late_failure_in_its_own_form(gateway: Gateway) -> None:
    wanted = {"model": "late-500", "input": A_SUM, "stream": True}
    answer = httpx.post(f"{gateway.base_url}/responses", json=wanted, timeout=20)
    said = [block for block in answer.text.split("\n\n") if block and not block.startswith(":")]
    assert [block.partition("\n")[0] for block in said] == ["event: error"]
    assert json.loads(said[0].partition("data: ")[2])["code"] == "upstream_failed"


def test_a_client_that_leaves_before_the_first_word_ends_the_call(gateway: Gateway, upstream: Upstream) -> None:
    n_asked = len(upstream.asked)
    with httpx.stream("POST", f"{gateway.base_url}/chat/completions", json=body("hang"), timeout=20) as answer:
        assert next(answer.iter_lines()).startswith(":")
    row = gateway.decision(answer.headers["x-request-id"])
    assert (row["status"], row["error"]) == (499, "client_closed")
    assert len(upstream.asked) == n_asked + 1


def test_who_says_with_each_piece_that_it_is_the_last_is_heard_to_the_end(gateway: Gateway) -> None:
    found = chunks(blocks(gateway, "stream-stops"))
    assert [chunk["choices"][0]["delta"]["content"] for chunk in found] == ["not ", "yet"]


def test_feedback_on_an_answer_that_is_on_its_way_is_kept(gateway: Gateway) -> None:
    url = f"{gateway.base_url}/feedback"
    with httpx.stream("POST", f"{gateway.base_url}/chat/completions", json=body("stream-pauses"), timeout=20) as answer:
        decision_id = answer.headers["x-embedrouter-decision-id"]
        early = httpx.post(url, json={"decision_id": decision_id, "correct": True}, timeout=20)
        answer.read()
    assert (early.status_code, early.json()["status"]) == (202, "accepted")
    assert early.json()["not_learned"].startswith("its answer is still on its way")
    gateway.decision(answer.headers["x-request-id"])
    said = {"decision_id": decision_id, "correct": True}
    until(lambda: httpx.post(url, json=said, timeout=20).json()["status"] == "repeated")


def test_who_answered_late_is_counted_all_the_same(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    def counted() -> float:
        labels = {"endpoint": "/v1/chat/completions", "status": "200", "model": "stream-thinks", "policy": "named"}
        return gateway.app.state.metrics.registry.get_sample_value("embedrouter_requests_total", labels) or 0.0

    def levels() -> list[str]:
        return [record.levelname for record in caplog.records if record.name == "router.access"]

    before = counted()
    with caplog.at_level(logging.INFO, "router.access"):
        for n, model in enumerate(("stream-thinks", "late-500"), start=1):
            blocks(gateway, model)
            until(lambda n=n: len(levels()) >= n)  # type: ignore[misc]  # a line comes after the answer
    assert counted() == before + 1
    assert levels() == ["INFO", "WARNING"]


async def test_headers_are_sent_once_however_slowly_they_are_taken() -> None:
    sent: list[str] = []

    async def send(message: Any) -> None:
        await asyncio.sleep(0.03)
        sent.append(message["type"].removeprefix("http.response."))

    choice = Option(PoolEntry("m"), 0.5, None, 1.0)
    events = Events(send, Decision("r", None, None, (choice,)), keep_alive_s=0.01)
    await asyncio.sleep(0.05)  # a comment is on its way
    await events.send(b"data: 1\n\n")
    await asyncio.sleep(0.05)
    await events.end()
    assert sent[:2] == ["start", "body"]
    assert "start" not in sent[1:]
    assert events.began_early
    n_sent = len(sent)
    await asyncio.sleep(0.1)
    assert len(sent) == n_sent


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that wait for nobody when they are told to stop."""
    config = uvicorn.Config
    options = {"timeout_graceful_shutdown": 0}
    monkeypatch.setattr("router.loopback.uvicorn.Config", lambda app, **more: config(app, **{**more, **options}))


def test_a_stream_that_outlasts_the_server_ends_in_one_error_and_is_no_clients_doing(
    upstream: Upstream, tmp_path: Path, impatient: None
) -> None:
    with planted_engine(tmp_path, FORECASTS) as engine, ExitStack() as stack:
        with run_gateway(engine, settings([entry("hangs", upstream.url("stream-hangs"))])) as gateway:
            url = f"{gateway.base_url}/chat/completions"
            answer = stack.enter_context(httpx.stream("POST", url, json=body("hangs"), timeout=60))
            lines = (line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: "))
            assert json.loads(next(lines))["choices"][0]["delta"]["content"] == "half an "
        assert [json.loads(line)["error"]["code"] for line in lines] == ["shutting_down"]
        (row,) = decisions(engine)
    assert (row["status"], row["error"], row["answered_by"]) == (200, "stream_shutting_down", "hangs")


def test_a_client_that_does_not_take_its_stream_is_cut_off(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("router.api.answering.STALL_S", 0.3)
    pool = [entry("floods", upstream.url("flood"))]
    content = json.dumps(body("floods")).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(content)
    with (
        planted_engine(tmp_path, FORECASTS) as engine,
        run_gateway(engine, settings(pool, timeouts={"total_s": 1})) as gateway,
        socket.socket() as connection,
    ):
        host, port = gateway.url.removeprefix("http://").split(":")
        n_left = upstream.n_left
        connection.connect((host, int(port)))
        connection.sendall(head + content)
        (row,) = gateway.decisions()
        upstream.wait_until_left(n_left + 1)
        until(lambda: gateway.app.state.metrics.n_in_flight == 0)
    assert (row["status"], row["error"], row["answered_by"]) == (200, "stream_client_stalled", "floods")
    assert [attempt["error"] for attempt in row["attempts"]] == [None]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_router_that_shuts_down_says_so_to_who_waits_for_the_first_word(
    upstream: Upstream, tmp_path: Path, impatient: None
) -> None:
    patient = {"timeouts": {"keep_alive_s": 0.1}}
    with planted_engine(tmp_path, FORECASTS) as engine, ExitStack() as stack:
        with run_gateway(engine, settings([entry("hangs", upstream.url("hang"))], **patient)) as gateway:
            url = f"{gateway.base_url}/chat/completions"
            answer = stack.enter_context(httpx.stream("POST", url, json=body("hangs"), timeout=60))
            lines = (line for line in answer.iter_lines() if line)
            assert next(lines).startswith(":")
        said = [json.loads(line.removeprefix("data: ")) for line in lines if not line.startswith(":")]
        (row,) = decisions(engine)
    assert [event["error"]["code"] for event in said] == ["shutting_down"]
    assert (row["status"], row["error"], row["answered_by"]) == (200, "shutting_down", None)
    assert [attempt["error"] for attempt in row["attempts"]] == ["shutting_down"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_router_that_shuts_down_answers_who_has_no_headers_yet(
    upstream: Upstream, tmp_path: Path, impatient: None, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    with planted_engine(tmp_path, FORECASTS) as engine, ThreadPoolExecutor(1) as client:
        with run_gateway(engine, settings([entry("hangs", upstream.url("hang"))])) as gateway:
            n_asked = len(upstream.asked)
            url, asked = f"{gateway.base_url}/chat/completions", {**body("hangs"), "stream": stream}
            waiting = client.submit(httpx.post, url, json=asked, timeout=60)
            while len(upstream.asked) == n_asked:
                time.sleep(0.01)
        answer = waiting.result()
        (row,) = decisions(engine)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
    assert answer.headers["x-embedrouter-decision-id"] == row["id"]
    assert (row["status"], row["error"]) == (503, "shutting_down")
    assert not [record for record in caplog.records if record.exc_info]
