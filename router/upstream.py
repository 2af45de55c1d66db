"""Ask one upstream once over HTTP, for a whole answer or for a stream.

Says how it went: an answer, or an UpstreamError with a short code. It knows nothing of candidates, policies or what
the client sees. Nothing of the client's headers is sent on, cookies are neither kept nor sent, no redirect is followed,
and an upstream's key never stands in a message.
"""

import asyncio
import io
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from weakref import WeakSet

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from data.fast_json import read_object
from router.chunks import CONTEXT_LENGTH, Chunk, Course, as_chunks, read_chunk
from router.endpoints import Endpoint
from router.errors import UpstreamError
from router.pool import Upstream
from router.reply import Reply, read_reply, redact, too_long
from router.settings import Timeouts
from router.sse import Event, EventParser, EventTooLongError
from router.until import until

if TYPE_CHECKING:
    from aiohttp.connector import Connection

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
DRAIN_S = 0.05
CLOSING_S = 10.0  # between the end of an answer and what may follow it: its usage, and the word that nothing does
BROKEN_OFF = frozenset({"reset", "truncated", "between_chunks_timeout", "total_timeout"})
STALE_S = 0.25  # a round trip to a far upstream, and less than any answer takes
FAILURES = (aiohttp.ClientError, EventTooLongError, OSError, ValueError)
MAX_REPLY_BYTES = 64 * 1024 * 1024  # far more than any completion; without an end, it would fill the memory
MAX_ERROR_BYTES = 1024 * 1024
MAX_HELD = 1000  # chunks before the first content
LARGE_BODY = 1024 * 1024  # a larger one is written piece by piece: all at once, it would hold the event loop


class Due(NamedTuple):
    """When something must have happened, on the loop's clock, and the code of its not having happened."""

    at: float
    code: str

    def __str__(self) -> str:
        return self.code.removesuffix("_timeout").replace("_", " ")


class ReplyStream:
    """A streamed answer whose first content has arrived.

    Iterating gives each chunk, or None for a comment; it ends where the answer does and raises UpstreamError where the
    upstream breaks off before. Always `aclose()` it: that ends the call. `n_choices` is how many were asked for.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        upstream: Upstream,
        endpoint: Endpoint,
        loop: asyncio.AbstractEventLoop,
        between_chunks_s: float,
        deadline: float,
    ) -> None:
        self._response = response
        self._loop = loop
        self._upstream = upstream
        self._between_chunks_s = between_chunks_s
        self._deadline = deadline
        self._parser = EventParser()
        self._events: deque[Event] = deque()
        self._held: deque[Chunk] = deque()
        self._at_end = self._came_whole = False
        self._course = Course(endpoint)
        self._typed = endpoint.typed
        self.n_choices = 1

    async def until_content(self, due: Due) -> None:
        """Read to the first content and hold what came before it; another upstream may still answer until then."""
        with failures(self._upstream):
            while True:
                event = await self._event(due)
                if event is None or event.is_done:
                    raise UpstreamError("empty", "its stream held nothing", status=200)
                if event.data is None:
                    continue
                chunk = self._read(event)
                self._held.append(chunk)
                if self._course.note(chunk):
                    return
                if len(self._held) > MAX_HELD:
                    raise UpstreamError("empty", f"{MAX_HELD} chunks of its stream held nothing", status=200)

    @property
    def deadline(self) -> float:
        """When it must have ended, on the loop's clock."""
        return self._deadline

    def hold(self, chunks: Sequence[Chunk]) -> None:
        """Be the stream of an answer that came whole."""
        self._held.extend(chunks)
        self._at_end = self._came_whole = True

    @property
    def held(self) -> Sequence[Chunk]:
        """The chunks that are there already: at first all up to the first content."""
        return self._held

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk | None:
        if self._held:
            return self._held.popleft()
        try:
            with failures(self._upstream):
                is_whole = self._course.is_over(self.n_choices)
                pause_s = min(self._between_chunks_s, CLOSING_S) if is_whole else self._between_chunks_s
                due = _sooner(self._loop, pause_s, "between_chunks_timeout", self._deadline)
                event = await self._event(due)
                while is_whole and event is not None and event.data is None:  # a comment is nothing to wait on for
                    event = await self._event(due)
                if event is not None and event.data is None:
                    return None
                if event is not None and not event.is_done:
                    chunk = self._read(event)
                    self._course.note(chunk)
                    return chunk
                says_so = event is not None and not self._typed  # typed ones end with an event of their own
                if not (says_so or self._came_whole) and not self._course.is_finished():
                    raise UpstreamError("truncated", "its stream ended before the answer did", status=200)
                await self._drain()
        except UpstreamError as failure:
            self._response.close()
            if failure.code not in BROKEN_OFF or not self._course.is_finished(self.n_choices):
                raise
        except BaseException:
            self._response.close()
            raise
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._response.close()

    async def _event(self, due: Due) -> Event | None:
        """The next event, none at the stream's end; UpstreamError where none comes in time."""
        while not self._events:
            if self._at_end:
                return None
            with _until(self._loop, due):
                data = await self._response.content.readany()
            if data:
                self._events.extend(self._parser.feed(data))
            else:
                self._at_end = True
                self._events.extend(self._parser.end())
        return self._events.popleft()

    def _read(self, event: Event) -> Chunk:
        if self._at_end and read_object(event.data or b"") is None:
            raise UpstreamError("truncated", "its stream ended within an event", status=200)
        return read_chunk(event, self._upstream)

    async def _drain(self) -> None:
        """Read what follows the end, so that the connection can be kept."""
        late = self._loop.time() + DRAIN_S
        with suppress(OSError, aiohttp.ClientError), until(self._loop, late):  # a TimeoutError is an OSError
            while not self._at_end:
                self._at_end = not await self._response.content.readany()


class Upstreams:
    """The one HTTP client of the service; open it with `async with`."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop
        self._way_of: dict[tuple[Upstream, str, str], tuple[URL, CIMultiDict[str]]] = {}
        # reading is timed here, phase by phase; the session times only the connection
        self._timeout = aiohttp.ClientTimeout(total=None, connect=timeouts.connect_s)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._session = aiohttp.ClientSession(
            connector=_Connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    @property
    def first_token_s(self) -> float:
        """How long an upstream may take to begin an answer."""
        return self._timeouts.first_token_s

    def now(self) -> float:
        """The time on the clock of deadlines."""
        return self._loop.time()

    def deadline(self) -> float:
        """When a request that starts now must have its whole answer, on the loop's clock."""
        return self._loop.time() + self._timeouts.total_s

    async def complete(self, upstream: Upstream, endpoint: Endpoint, body: bytes, deadline: float) -> Reply:
        """Ask for a whole answer."""
        due = _sooner(self._loop, self._timeouts.first_token_s, "first_token_timeout", deadline)
        with failures(upstream):
            response = await self._send(upstream, endpoint, body, JSON, due)
            try:
                return await self._whole(response, upstream, endpoint, deadline)
            finally:
                if not response.closed:  # as it is once it was read to its end
                    response.close()

    async def stream(self, upstream: Upstream, endpoint: Endpoint, body: bytes, deadline: float) -> Reply | ReplyStream:
        """Ask for a streamed answer and wait for its first content; a Reply where the request is at fault."""
        due = _sooner(self._loop, self._timeouts.first_token_s, "first_token_timeout", deadline)
        with failures(upstream):
            response = await self._send(upstream, endpoint, body, EVENT_STREAM, due)
            reply: Reply | None = None
            try:
                if response.status != 200 or not _is_event_stream(response):
                    reply = await self._whole(response, upstream, endpoint, deadline)
                    response.close()
                    if reply.status != 200:
                        return reply
                    if endpoint.typed:
                        raise UpstreamError("not_a_stream", "it answered without a stream", status=200)
                pause_s = self._timeouts.between_chunks_s
                stream = ReplyStream(response, upstream, endpoint, self._loop, pause_s, deadline)
                if reply is None:
                    await stream.until_content(due)
                else:
                    stream.hold(as_chunks(reply.body))
            except BaseException as error:
                response.close()
                if isinstance(error, UpstreamError) and error.code == CONTEXT_LENGTH:
                    return too_long(error)
                raise
            return stream

    async def _whole(
        self, response: aiohttp.ClientResponse, upstream: Upstream, endpoint: Endpoint, deadline: float
    ) -> Reply:
        """Read a whole body; UpstreamError where it pauses too long or outgrows MAX_REPLY_BYTES."""
        content = bytearray()
        while True:
            if response.content.is_eof():  # as a short answer is when its headers are: no wait that could be too long
                part = await response.content.readany()
            else:
                due = _sooner(self._loop, self._timeouts.between_chunks_s, "between_chunks_timeout", deadline)
                with _until(self._loop, due):
                    part = await response.content.readany()
            if not part:
                break
            content += part
            if response.status != 200 and len(content) > MAX_ERROR_BYTES:
                del content[MAX_ERROR_BYTES:]  # its beginning says enough
                break
            if len(content) > MAX_REPLY_BYTES:
                message = f"its answer is longer than {MAX_REPLY_BYTES} bytes"
                raise UpstreamError("too_long", message, status=response.status)
        return read_reply(response.status, response.headers, bytes(content), upstream, endpoint)

    async def _send(
        self, upstream: Upstream, endpoint: Endpoint, body: bytes, accept: str, due: Due
    ) -> aiohttp.ClientResponse:
        assert self._session is not None, "open Upstreams with `async with`"
        way = self._way_of.get((upstream, endpoint.path, accept))
        if way is None:  # parsing a URL costs as much as the rest of a request
            way = self._way_of[upstream, endpoint.path, accept] = _way(upstream, endpoint, accept)
        url, headers = way
        for _ in range(2):
            sent_at = self._loop.time()
            _KEPT.set(False)
            data = body if len(body) <= LARGE_BODY else io.BytesIO(body)
            try:
                with _until(self._loop, due):
                    return await self._session.post(url, data=data, headers=headers, allow_redirects=False)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                # A kept connection that the upstream had closed meanwhile says so at once: it took nothing, so ask on
                # a new one. One that breaks later broke over this request, which may have been worked on: never twice.
                stale = _KEPT.get() and self._loop.time() - sent_at < STALE_S
                if not stale or isinstance(error, aiohttp.ClientConnectorError):
                    raise
        raise UpstreamError("reset", "it closed every kept connection")


def _way(upstream: Upstream, endpoint: Endpoint, accept: str) -> tuple[URL, CIMultiDict[str]]:
    """Where to send a request and with which headers."""
    base, mark, query = upstream.base_url.partition("?")
    headers = {"content-type": JSON, "accept": accept, "accept-encoding": "identity", "user-agent": "embedrouter"}
    if upstream.key is not None:
        headers["authorization"] = f"Bearer {upstream.key}"
    return URL(f"{base.rstrip('/')}{endpoint.path}{mark}{query}"), CIMultiDict(headers)


_KEPT: ContextVar[bool] = ContextVar("kept", default=False)  # whether this request travels over a kept connection


class _Connector(aiohttp.TCPConnector):
    """Notes who gets a kept connection. The client's own tracing would tell that too, for a tenth of a request."""

    def __init__(self) -> None:
        super().__init__(limit=0, keepalive_timeout=30)
        self._used: WeakSet[asyncio.Protocol] = WeakSet()

    async def connect(self, *arguments: Any, **options: Any) -> "Connection":
        connection = await super().connect(*arguments, **options)
        protocol = connection.protocol
        if protocol is not None:
            _KEPT.set(protocol in self._used)
            self._used.add(protocol)
        return connection


def _sooner(loop: asyncio.AbstractEventLoop, phase_s: float, code: str, deadline: float) -> Due:
    at = loop.time() + phase_s
    return Due(at, code) if at < deadline else Due(deadline, "total_timeout")


class _until(until):  # noqa: N801  reads as a verb
    """Cancel what runs inside once it is due, and say so with the due's code."""

    __slots__ = ("_due",)

    def __init__(self, loop: asyncio.AbstractEventLoop, due: Due) -> None:
        super().__init__(loop, due.at)
        self._due = due

    def __exit__(self, *raised: Any) -> None:
        try:
            super().__exit__(*raised)
        except TimeoutError as error:
            raise UpstreamError(self._due.code, f"it took too long ({self._due})") from error


class failures:  # noqa: N801  reads as a noun of the block, like contextlib.suppress
    """Turn what the client raises inside into an UpstreamError with a short code."""

    __slots__ = ("_upstream",)

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: object) -> None:
        if isinstance(error, FAILURES):
            # an error about an answer repeats the whole URL, which is nobody's business
            said = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
            raise UpstreamError(_code_of(error), redact(f"{type(error).__name__}: {said}", self._upstream)) from error


def _code_of(error: Exception) -> str:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "connect_timeout"
    if isinstance(error, aiohttp.ClientSSLError):
        return "tls"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "refused"
    if isinstance(error, aiohttp.ClientPayloadError) and "content-encoding" in str(error).lower():
        return "undecodable"
    if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | ConnectionError):
        return "reset"
    return "not_http" if isinstance(error, aiohttp.ClientResponseError) else "failed"


def _is_event_stream(response: aiohttp.ClientResponse) -> bool:
    return response.headers.get("content-type", EVENT_STREAM).lower().startswith(EVENT_STREAM)
