"""An answer's head goes out with its body, and nothing is lost, delayed or reordered by that."""

import asyncio
import json
from typing import Any, cast

import pytest
from uvicorn import Config, Server

from router.joined_head import JoinedHeadProtocol, JoiningTransport
from router.listener import bind

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Written:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed_after: int | None = None

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def close(self) -> None:
        self.closed_after = len(self.writes)

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
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


async def test_who_closes_its_own_side_after_asking_is_answered() -> None:
    with bind("127.0.0.1", 0) as listener:
        server = Server(Config(says_ok, http=JoinedHeadProtocol, ws="none", lifespan="off", log_config=None))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            for _ in range(20):
                reader, writer = await asyncio.open_connection(*listener.getsockname())
                writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                writer.write_eof()
                answer = await reader.read()
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert answer.endswith(b"\r\n\r\nok")
                writer.close()
        finally:
            server.should_exit = True
            await serving


@pytest.mark.parametrize(
    "request_line", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"]
)
async def test_what_is_no_http_is_refused_in_the_shape_of_all_else(request_line: bytes) -> None:
    with bind("127.0.0.1", 0) as listener:
        server = Server(Config(says_ok, http=JoinedHeadProtocol, ws="none", lifespan="off", log_config=None))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(request_line)
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
        finally:
            server.should_exit = True
            await serving
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n")
    assert f"content-length: {len(body)}".encode() in head
    error = json.loads(body)["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_http")
