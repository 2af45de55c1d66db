"""An answer's head goes out with its body, and nothing is lost, delayed or reordered by that."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from uvicorn import Config, Server

from router.joined_head import MAX_HEAD_BYTES, JoinedHeadProtocol, JoiningTransport
from router.listener import bind
from tests.waiting import eventually

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Written:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed_after: int | None = None
        self.n_left = 0
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def close(self) -> None:
        self.closed_after = len(self.writes)

    def get_write_buffer_size(self) -> int:
        return self.n_left

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.closed_after is not None

    def get_extra_info(self, name: str) -> str:
        return f"the transport's {name}"


def joining() -> tuple[Written, Any]:
    below = Written()
    return below, JoiningTransport(cast(asyncio.Transport, below), asyncio.get_running_loop())


async def test_a_head_goes_with_its_body_once_the_loop_has_turned() -> None:
    below, transport = joining()
    transport.write(HEAD)
    transport.write(b"ok")
    assert below.writes == []
    await asyncio.sleep(0)
    assert below.writes == [HEAD + b"ok"]


async def test_events_after_the_first_are_written_as_they_come() -> None:
    below, transport = joining()
    transport.write(HEAD)
    for event in (b"one", b"two", b"three"):
        transport.write(event)
    assert below.writes == [HEAD + b"one", b"two", b"three"]
    await asyncio.sleep(0)
    assert below.writes == [HEAD + b"one", b"two", b"three"]


async def test_the_next_answer_waits_for_none_before_it() -> None:
    below, transport = joining()
    for body in (b"first", b"second"):
        transport.write(HEAD)
        transport.write(body)
    assert below.writes == [HEAD + b"first"]
    await asyncio.sleep(0)
    assert below.writes == [HEAD + b"first", HEAD + b"second"]


async def test_a_head_alone_goes_with_the_next_turn_of_the_loop() -> None:
    below, transport = joining()
    transport.write(HEAD)
    assert below.writes == []
    await asyncio.sleep(0)
    assert below.writes == [HEAD]
    transport.write(b"later")
    assert below.writes == [HEAD, b"later"]


async def test_an_empty_body_sends_the_head() -> None:
    below, transport = joining()
    transport.write(HEAD)
    transport.write(b"")
    await asyncio.sleep(0)
    assert below.writes == [HEAD]


async def test_a_close_sends_what_waits_first() -> None:
    below, transport = joining()
    transport.write(HEAD)
    transport.write(b"ok")
    transport.close()
    assert (below.writes, below.closed_after) == ([HEAD + b"ok"], 1)
    await asyncio.sleep(0)
    assert below.writes == [HEAD + b"ok"]


async def test_nothing_is_sent_once_the_client_has_gone() -> None:
    below, transport = joining()
    transport.write(HEAD)
    below.close()
    await asyncio.sleep(0)
    transport.close()
    assert below.writes == []


async def test_a_body_that_looks_like_a_head_keeps_its_place() -> None:
    below, transport = joining()
    for part in (HEAD, HEAD, HEAD, b"end"):
        transport.write(part)
    await asyncio.sleep(0)
    assert b"".join(below.writes) == 3 * HEAD + b"end"


async def test_all_else_is_the_transport_s_own() -> None:
    _, transport = joining()
    assert transport.get_extra_info("peername") == "the transport's peername"
    assert not transport.is_closing()
    transport.close()
    assert transport.is_closing()


async def test_a_body_may_be_a_view_of_memory() -> None:
    below, transport = joining()
    for part in (memoryview(HEAD), memoryview(b"ok"), memoryview(b"more")):
        transport.write(part)
    await asyncio.sleep(0)
    assert b"".join(below.writes) == HEAD + b"okmore"


async def says_ok(scope: Any, receive: Any, send: Any) -> None:
    """Answer with as many bytes as were sent, or `ok` where none were."""
    if scope["type"] == "http":
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        body = body or b"ok"
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def served() -> AsyncIterator[tuple[str, int]]:
    """Where the protocol serves."""
    with bind("127.0.0.1", 0) as listener:
        server = Server(Config(says_ok, http=JoinedHeadProtocol, ws="none", lifespan="off", log_config=None))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield listener.getsockname()
        finally:
            server.should_exit = True
            await serving


async def test_who_closes_its_own_side_after_asking_is_answered() -> None:
    async with served() as address:
        for _ in range(20):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            writer.write_eof()
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b"\r\n\r\nok")
            writer.close()


async def refusal(address: tuple[str, int], sent: bytes) -> tuple[str, dict[str, Any]]:
    """The status line and the error that a server answers some bytes with, before it closes the connection."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(sent)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    status, *fields = head.decode().split("\r\n")
    assert fields == ["content-type: application/json", f"content-length: {len(body)}", "connection: close"]
    error: dict[str, Any] = json.loads(body)["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_http")
    return status, error


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"]
)
async def test_what_is_no_http_is_refused_in_the_shape_of_all_else(sent: bytes) -> None:
    async with served() as address:
        assert (await refusal(address, sent))[0] == "HTTP/1.1 400 Bad Request"


async def test_a_head_that_is_too_large_is_refused() -> None:
    async with served() as address:
        status, _ = await refusal(address, b"GET / HTTP/1.1\r\nx: " + b"x" * 20 * MAX_HEAD_BYTES)
        assert status == "HTTP/1.1 431 Request Header Fields Too Large"
        status, _ = await refusal(address, b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * MAX_HEAD_BYTES)
        assert status == "HTTP/1.1 431 Request Header Fields Too Large"


async def test_a_head_that_does_not_end_is_waited_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.joined_head.HEAD_S", 0.1)
    async with served() as address:
        status, _ = await refusal(address, b"GET / HTTP/1.1\r\nhost: ")
        assert status == "HTTP/1.1 408 Request Timeout"
        reader, writer = await asyncio.open_connection(*address)
        assert await reader.read() == b""  # who says nothing at all is told nothing
        writer.close()


OFFER = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
LENGTH, CHUNKED = b"content-length: 5\r\n\r\nhello", b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize("n_bytes", [1, 7, 1000])
@pytest.mark.parametrize(("rest", "said"), [(LENGTH, b"hello"), (CHUNKED, b"hello"), (b"\r\n", b"ok")])
async def test_who_offers_another_protocol_is_answered_in_this_one(rest: bytes, said: bytes, n_bytes: int) -> None:
    sent = b"POST / HTTP/1.1\r\nhost: x\r\n" + OFFER + rest
    async with served() as address:
        reader, writer = await asyncio.open_connection(*address)
        for _ in range(2):  # the connection is kept
            for start in range(0, len(sent), n_bytes):
                writer.write(sent[start : start + n_bytes])
                await writer.drain()
                await asyncio.sleep(0)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(len(said)) == said
        writer.write(2 * b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(2) == b"ok"
        writer.close()


async def test_what_a_closed_connection_has_left_to_send_is_not_kept_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.joined_head.LINGER_S", 0.05)
    below, transport = joining()
    below.n_left = 5
    transport.close()
    await eventually(lambda: below.aborted)
