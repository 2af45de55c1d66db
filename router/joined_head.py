"""HTTP as uvicorn serves it, with an answer's head in one write with its body, once the event loop has turned.

What is no HTTP is refused in OpenAI's shape, as all else; so is a head that does not end. Who asks for another protocol
is answered in this one, as HTTP lets a server do: Java's own client offers HTTP/2 with every request.

Written apart, they cost two system calls and wake the client twice. Written at once, each answer wakes a client that
has nothing else to do yet; answers that are ready in the same turn find it awake.
"""

import asyncio
from http import HTTPStatus
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from data import fast_json
from router.errors import InvalidRequestError
from router.until import alarms_of

HEAD, END_OF_HEAD = b"HTTP/1.1 ", b"\r\n\r\n"
MAX_HEAD_BYTES = 64 * 1024
HEAD_S = 30.0  # within which a head must have come, from its connection's beginning or its own
REFUSED_S = 1.0  # in which a client may finish what it was sending when it was refused
LINGER_S = 30.0  # for what a connection that is closed still has to send
FRAMING = (b"content-length", b"transfer-encoding")
ABORT = "embedrouter.abort"  # an extension of the scope, as ASGI has them: a call that cuts the connection


class JoinedHeadProtocol(HttpToolsProtocol):
    """uvicorn's own protocol, on a transport that waits with a head for its body."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._joining = JoiningTransport(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, self._joining))
        self._alarms = alarms_of(self.loop)
        self._in_head, self._n_head_bytes = True, 0
        self._is_timed = self._is_refused = False
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._alarms.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read requests; one that asks for another protocol has its body all the same."""
        if self._is_refused:
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
        if self._in_head:
            self._n_head_bytes += len(data)
            if not self._is_timed:
                self._await_head()
            if self._n_head_bytes > MAX_HEAD_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's head is too large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"call": self._joining.abort}}
        self._in_head, self._n_head_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._is_timed:  # as only those are that came in pieces, and the first
            self._is_timed = False
            self._alarms.remove(self)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not (self.parser.should_upgrade() and self._framing()):  # else its body is still to come
            super().on_message_complete()

    def ring(self) -> None:
        """Wait for a head no longer."""
        if self._n_head_bytes:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request's head did not come to its end")
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Refuse in the shape of every other refusal, and close the connection.

        What still comes is read for a moment: unread, it would make the system tell the client of a reset instead.
        """
        self._is_refused = True
        self._alarms.remove(self)
        body = fast_json.dumps(InvalidRequestError(message, code="invalid_http").body())
        fields = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.transport.write(f"HTTP/1.1 {status.value} {status.phrase}\r\n{head}\r\n".encode() + body)
        self._joining.end()
        self.loop.call_later(REFUSED_S, self.transport.close)

    def _await_head(self) -> None:
        self._is_timed = True
        self.at = self.loop.time() + HEAD_S
        self._alarms.add(self)

    def _framing(self) -> bytes | None:
        """The header that says how long the body is; none where there is none."""
        return next((name + b": " + value for name, value in self.headers if name in FRAMING), None)

    def _go_on(self, rest: bytes) -> None:
        """Read what follows a head that asked for another protocol, on which the parser gives up there."""
        framing = self._framing()
        self.parser = httptools.HttpRequestParser(self if framing is None else _BodyFirst(self))
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        if framing is not None:
            self.parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
        if rest:
            self.data_received(rest)

    def eof_received(self) -> None:
        self._joining.flush()  # who asks no more still reads, and the event loop closes what lies below
        super().eof_received()


class _BodyFirst:
    """Tells a protocol of the body of a message whose head it knows already, and then of whole messages."""

    def __init__(self, protocol: JoinedHeadProtocol) -> None:
        self._protocol = protocol
        self._knows_head = True
        self.on_body = protocol.on_body

    def on_message_begin(self) -> None:
        if not self._knows_head:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._knows_head:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._knows_head:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._knows_head:
            self._protocol.on_headers_complete()

    def on_message_complete(self) -> None:
        self._knows_head = False
        self._protocol.on_message_complete()


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
        self._has_body = self._has_ended = False
        self._turn: asyncio.Handle | None = None
        self.is_closing = transport.is_closing

    def write(self, data: bytes | memoryview) -> None:
        if self._has_ended:
            return
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
        if self._transport.get_write_buffer_size():  # who does not read must not hold it for good
            self._loop.call_later(LINGER_S, self._transport.abort)

    def end(self) -> None:
        """Write what waits, and no more; what comes is still read."""
        self.flush()
        self._has_ended = True
        if self._transport.can_write_eof() and not self.is_closing():
            self._transport.write_eof()

    def abort(self) -> None:
        self._transport.abort()

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
