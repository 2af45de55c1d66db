"""Ask one upstream once: a chat completion over HTTP, whole or as a stream.

Says how it went: an answer, or an UpstreamError with a short code. It knows nothing of candidates, policies or what
the client sees. Nothing of the client's headers is sent on, cookies are neither kept nor sent, and an upstream's key
never stands in a message.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Self

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from router.errors import UpstreamError
from router.pool import Upstream
from router.settings import Timeouts
from router.sse import Event, EventParser, EventTooLongError

# What the upstream says of the request itself: another upstream would say the same (a 404 may also be our mistake).
CLIENT_FAULTS = frozenset({400, 404, 413, 422})
DONE = b"[DONE]"
JSON = "application/json"
EVENT_STREAM = "text/event-stream"
MAX_MESSAGE_CHARS = 300
DRAIN_S = 0.05
MAX_REPLY_BYTES = 64 * 1024 * 1024  # far more than any completion; without an end, it would fill the memory

Chunks = AsyncGenerator[dict[str, object] | None]


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: a completion (status 200), or an error object that is the client's fault."""

    status: int
    body: dict[str, object]


class ReplyStream:
    """A streamed answer whose first chunk has arrived.

    Iterating gives each chunk's JSON object, or None for a comment; it ends at `[DONE]` and raises UpstreamError
    where the upstream breaks off. Always `aclose()` it: that ends the call.
    """

    def __init__(self, chunks: Chunks, first: dict[str, object] | None) -> None:
        self._chunks = chunks
        self._first = first

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, object] | None:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await anext(self._chunks)

    async def aclose(self) -> None:
        await self._chunks.aclose()


class Upstreams:
    """The one HTTP client of the service; open it with `async with`."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._client: httpx.AsyncClient | None = None
        self._url_of: dict[Upstream, httpx.URL] = {}
        # reading is timed here, phase by phase; the transport times only the connection
        self._extensions = {"timeout": httpx.Timeout(None, connect=timeouts.connect_s).as_dict()}

    async def __aenter__(self) -> Self:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30), cookie_jar=aiohttp.DummyCookieJar()
        )
        self._client = httpx.AsyncClient(transport=AiohttpTransport(client=session), trust_env=False)
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._client is not None
        await self._client.aclose()

    def deadline(self) -> float:
        """When a request that starts now must have its whole answer, on the loop's clock."""
        return asyncio.get_running_loop().time() + self._timeouts.total_s

    def _within(self, phase_s: float, deadline: float) -> float:
        return min(asyncio.get_running_loop().time() + phase_s, deadline)

    async def complete(self, upstream: Upstream, body: bytes, deadline: float) -> Reply:
        """Ask for a whole answer."""
        with _failures(upstream):
            async with asyncio.timeout_at(self._within(self._timeouts.first_byte_s, deadline)):
                response = await self._send(upstream, body, JSON)
                try:
                    return _reply(response, await _read(response), upstream)
                finally:
                    await response.aclose()

    async def stream(self, upstream: Upstream, body: bytes, deadline: float) -> Reply | ReplyStream:
        """Ask for a streamed answer and wait for its first chunk; a Reply where the client is at fault."""
        chunks = self._chunks(upstream, body, deadline)
        try:
            return ReplyStream(chunks, await anext(chunks))
        except _ClientFaultError as fault:
            return fault.reply

    async def _chunks(self, upstream: Upstream, body: bytes, deadline: float) -> Chunks:
        due = self._within(self._timeouts.first_byte_s, deadline)
        started = finished = False
        with _failures(upstream):
            async with asyncio.timeout_at(due):
                response = await self._send(upstream, body, EVENT_STREAM)
            try:
                if response.status_code != 200 or not _is_event_stream(response):
                    async with asyncio.timeout_at(due):
                        reply = _reply(response, await _read(response), upstream)
                    if reply.status == 200:
                        raise UpstreamError("not_a_stream", "it answered without a stream", status=200)
                    raise _ClientFaultError(reply)
                async with aclosing(_events(response)) as events:
                    while True:
                        async with asyncio.timeout_at(due):
                            event = await anext(events, None)
                        if event is None:
                            break
                        if event.data == DONE:
                            finished = True
                            break
                        chunk = None if event.data is None else _chunk(event.data, upstream)
                        if chunk is None and not started:
                            continue
                        started = True
                        finished = finished or _has_finish_reason(chunk)
                        yield chunk
                        due = self._within(self._timeouts.between_chunks_s, deadline)
                    if not started:
                        raise UpstreamError("empty", "its stream held nothing", status=200)
                    if not finished:
                        raise UpstreamError("truncated", "its stream ended before the answer did", status=200)
                    with suppress(TimeoutError):  # read to its end, so that the connection can be kept
                        async with asyncio.timeout(DRAIN_S):
                            await anext(events, None)
            finally:
                await response.aclose()

    async def _send(self, upstream: Upstream, body: bytes, accept: str) -> httpx.Response:
        assert self._client is not None, "open Upstreams with `async with`"
        url = self._url_of.get(upstream)
        if url is None:  # parsing it costs as much as the rest of a request
            url = self._url_of[upstream] = httpx.URL(f"{upstream.base_url}/chat/completions")
        headers = {"content-type": JSON, "accept": accept, "accept-encoding": "identity", "user-agent": "embedrouter"}
        if upstream.key is not None:
            headers["authorization"] = f"Bearer {upstream.key}"
        request = httpx.Request("POST", url, headers=headers, content=body, extensions=self._extensions)
        try:
            return await self._client.send(request, stream=True)
        except httpx.ConnectTimeout as error:
            # a kept connection that the upstream had closed meanwhile: nothing was answered, so ask on a new one
            if not isinstance(error.__cause__, aiohttp.ServerDisconnectedError):
                raise
            return await self._client.send(request, stream=True)


class _ClientFaultError(Exception):
    """Carries a Reply out of the generator of chunks."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply


@contextmanager
def _failures(upstream: Upstream) -> Iterator[None]:
    """Turn what the transport raises into an UpstreamError with a short code."""
    try:
        yield
    except TimeoutError as error:
        raise UpstreamError("timeout", "it took too long") from error
    except (httpx.HTTPError, aiohttp.ClientError, EventTooLongError, OSError) as error:
        cause = error.__cause__ or error
        code = "failed"
        if isinstance(cause, aiohttp.ConnectionTimeoutError):
            code = "timeout"
        elif isinstance(cause, aiohttp.ClientConnectorError):
            code = "refused"
        elif isinstance(cause, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | ConnectionError):
            code = "reset"
        elif isinstance(error, httpx.DecodingError):
            code = "undecodable"
        raise UpstreamError(code, redact(f"{type(cause).__name__}: {cause}", upstream)) from error


def redact(text: str, upstream: Upstream) -> str:
    """Take an upstream's key out of a text, and cut it short."""
    return (text.replace(upstream.key, "***") if upstream.key else text)[:MAX_MESSAGE_CHARS]


async def _read(response: httpx.Response) -> bytes:
    """Read a whole body; UpstreamError where it outgrows MAX_REPLY_BYTES."""
    content = bytearray()
    async for part in response.aiter_bytes():
        content += part
        if len(content) > MAX_REPLY_BYTES:
            message = f"its answer is longer than {MAX_REPLY_BYTES} bytes"
            raise UpstreamError("too_long", message, status=response.status_code)
    return bytes(content)


def _reply(response: httpx.Response, content: bytes, upstream: Upstream) -> Reply:
    """Read a whole body: an answer, the client's fault, or a failure of this upstream."""
    status = response.status_code
    body = _object(content)
    if status in CLIENT_FAULTS:
        if upstream.key:
            body = _object(content.replace(upstream.key.encode(), b"***"))
        if body is None or not isinstance(body.get("error"), dict):
            message = redact(content.decode(errors="replace"), upstream) or f"the upstream said {status}"
            body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
        return Reply(status, body)
    if status != 200:
        raise UpstreamError(
            "http_status",
            f"status {status}: {_said(body, upstream) or response.reason_phrase}",
            status=status,
            retry_after_s=_retry_after_s(response),
        )
    if body is None:
        raise UpstreamError("not_json", "it answered 200 with something that is no JSON object", status=200)
    if body.get("error"):
        raise UpstreamError("error_in_answer", f"it answered 200 with an error: {_said(body, upstream)}", status=200)
    if not isinstance(body.get("choices"), list):
        raise UpstreamError("no_choices", "it answered 200 without `choices`", status=200)
    return Reply(200, body)


def _object(content: bytes) -> dict[str, object] | None:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _said(body: dict[str, object] | None, upstream: Upstream) -> str:
    """What an error object says, without the upstream's key."""
    error = (body or {}).get("error")
    message = error.get("message") if isinstance(error, dict) else error
    return redact(str(message), upstream) if message else ""


def _retry_after_s(response: httpx.Response) -> float | None:
    try:
        wait_s = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return wait_s if 0 <= wait_s < 86400 else None


def _is_event_stream(response: httpx.Response) -> bool:
    return str(response.headers.get("content-type", "")).lower().startswith(EVENT_STREAM)


async def _events(response: httpx.Response) -> AsyncGenerator[Event]:
    parser = EventParser()
    async for data in response.aiter_bytes():
        for event in parser.feed(data):
            yield event
    for event in parser.end():
        yield event


def _chunk(data: bytes, upstream: Upstream) -> dict[str, object]:
    chunk = _object(data)
    if chunk is None:
        raise UpstreamError("not_json", "a chunk of its stream is no JSON object", status=200)
    if chunk.get("error"):
        raise UpstreamError("error_in_answer", f"its stream says: {_said(chunk, upstream)}", status=200)
    return chunk


def _has_finish_reason(chunk: dict[str, object] | None) -> bool:
    choices = (chunk or {}).get("choices")
    return isinstance(choices, list) and any(isinstance(c, dict) and c.get("finish_reason") for c in choices)
