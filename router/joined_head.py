"""HTTP as uvicorn serves it, with an answer's head in one write with its body, once the event loop has turned.

What is no HTTP is refused in OpenAI's shape, as all else.

Written apart, they cost two system calls and wake the client twice. Written at once, each answer wakes a client that
has nothing else to do yet; answers that are ready in the same turn find it awake.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from data import fast_json
from router.errors import InvalidRequestError

HEAD, END_OF_HEAD = b"HTTP/1.1 ", b"\r\n\r\n"


class JoinedHeadProtocol(HttpToolsProtocol):
    """uvicorn's own protocol, on a transport that waits with a head for its body."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._joining = JoiningTransport(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, self._joining))

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP in the shape of every other refusal, and close the connection."""
        body = fast_json.dumps(InvalidRequestError(msg, code="invalid_http").body())
        fields = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.transport.write(f"HTTP/1.1 400 Bad Request\r\n{head}\r\n".encode() + body)
        self.transport.close()

    def eof_received(self) -> None:
        self._joining.flush()  # who asks no more still reads, and the event loop closes what lies below
        super().eof_received()


class JoiningTransport:
    """Writes what looks like a head, with the write that follows it, when the event loop has turned.

    What comes after those two, a stream's events for example, is written as it comes. A body that looks like a head is
    as safe: no write overtakes what waits. All else, of which the protocol needs no other way to write, is the
    transport's own.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""
        self._has_body = False
        self._turn: asyncio.Handle | None = None
        self.is_closing = transport.is_closing

    def write(self, data: bytes | memoryview) -> None:
        if data[: len(HEAD)] == HEAD and data[-len(END_OF_HEAD) :] == END_OF_HEAD:
            self.flush()
            self._held, self._has_body = bytes(data), False
            self._turn = self._loop.call_soon(self.flush)
        elif self._turn is not None and not self._has_body:
            self._held, self._has_body = self._held + data, True
        else:
            self.flush()
            self._transport.write(data)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Write what waits."""
        if self._turn is None:
            return
        self._turn.cancel()
        self._turn = None
        held, self._held = self._held, b""
        if not self.is_closing():  # else nobody reads it
            self._transport.write(held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
