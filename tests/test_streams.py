"""A streamed answer on the wire, byte for byte: one event a flush, usage, ids, tool calls, comments."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from data.queries import decisions
from tests.serving import A_SUM, Gateway, entry, planted_engine, run_gateway, settings
from tests.upstreams import USAGE, Upstream

FORECASTS = {"good": (0.9, 0.9)}


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    models = ("good", "stream-uneven", "stream-odd", "stream-pauses", "stream-filtered")
    pool = [entry(name, upstream.url(name)) for name in models]
    folder = tmp_path_factory.mktemp("streams")
    with (
        planted_engine(folder, FORECASTS) as engine,
        run_gateway(engine, settings(pool, timeouts={"keep_alive_s": 0.1})) as running,
    ):
        yield running


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
    *events, end = pieces
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
    assert all(block.startswith(("data: ", ":")) and "\n" not in block and "\r" not in block for block in found)


def test_a_silence_is_filled_with_comments(gateway: Gateway) -> None:
    found = blocks(gateway, "stream-pauses")
    assert any(block.startswith(":") for block in found)
    texts = [chunk["choices"][0]["delta"]["content"] for chunk in chunks(found)]
    assert texts == ["let me ", "think"]


def test_a_stream_that_outlasts_the_server_ends_in_one_error_and_is_no_clients_doing(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = {"timeout_graceful_shutdown": 0}
    config = uvicorn.Config
    monkeypatch.setattr("router.loopback.uvicorn.Config", lambda app, **more: config(app, **{**more, **impatient}))
    with planted_engine(tmp_path, FORECASTS) as engine, ExitStack() as stack:
        with run_gateway(engine, settings([entry("hangs", upstream.url("stream-hangs"))])) as gateway:
            url = f"{gateway.base_url}/chat/completions"
            answer = stack.enter_context(httpx.stream("POST", url, json=body("hangs"), timeout=60))
            lines = (line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: "))
            assert json.loads(next(lines))["choices"][0]["delta"]["content"] == "half an "
        assert [json.loads(line)["error"]["code"] for line in lines] == ["shutting_down"]
        (row,) = decisions(engine)
    assert (row["status"], row["error"], row["answered_by"]) == (200, "stream_shutting_down", "hangs")
