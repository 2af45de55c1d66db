"""HTTP as uvicorn serves it, with an answer's head in one write with what follows it.

Written apart, they cost two system calls and wake the client twice.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD, END_OF_HEAD = b"HTTP/1.1 ", b"\r\n\r\n"


class JoinedHeadProtocol(HttpToolsProtocol):
    """uvicorn's own protocol, on a transport that waits with a head for its body."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, JoiningTransport(transport, self.loop)))


class JoiningTransport:
    """Writes what looks like a head together with the next write, or by itself once the event loop has turned.

    A body that looks like one is as safe: nothing overtakes what waits. All else is the transport's own.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self._turn: asyncio.Handle | None = None
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
            data, self._head = self._head + data, b""
        elif data.startswith(HEAD) and data.endswith(END_OF_HEAD):
            self._head = data
            self._turn = self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._turn is not None and not self.is_closing():  # else its client has gone
            self.write(b"")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
