"""Answer a request with a prompt on whatever endpoint it came: whole or as events, for as long as the client stays."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from router.api.wire import Json, headers_of, latin1, prompt_request, service_of, settings_of
from router.endpoints import Endpoint
from router.service import CLIENT_CLOSED_STATUS, AnswerStream
from router.sse import COMMENT
from router.until import alarms_of, until

logger = logging.getLogger(__name__)

DEBUG = "x-embedrouter-debug"
GRACE_S = 0.1
EXPLAIN_S = 5.0  # an answer that is there waits no longer for its explanation
Explain = Callable[[], Awaitable[dict[str, object]]]


async def answer(request: Request, endpoint: Endpoint) -> Response:
    """Answer with the model that the policy chooses (`model: "auto"`), or with the model that is named."""
    service = service_of(request)
    try:
        wanted = await prompt_request(request, endpoint)
        with leaving_cancels(request.receive):
            answered = await service.answer(wanted, request.scope["state"]["request_id"])
    except ClientLeftError:
        return Response(status_code=CLIENT_CLOSED_STATUS)
    debug = headers_of(request).get(DEBUG) == "true"
    explain = partial(service.explain_answer, answered.decision) if debug else None
    if isinstance(answered, AnswerStream):
        return EventStream(answered, settings_of(request).timeouts.keep_alive_s, explain)
    if explain is not None:
        answered.body["embedrouter"] = await explained(explain)
    return Json(answered.body, answered.status, latin1(answered.headers))


async def explained(explain: Explain) -> dict[str, object]:
    """What explains an answer, or a note that nothing does: the answer itself is paid for and must not be lost."""
    loop = asyncio.get_running_loop()
    try:
        with until(loop, loop.time() + EXPLAIN_S):
            return await explain()
    except Exception:
        logger.exception("an answer could not be explained")
        return {"note": f"no explanation: it failed or took longer than {EXPLAIN_S:g} s; the router's log says which"}


class EventStream(Response):
    """Sends each event as it comes, a comment where none comes, and ends the upstream's call when the client leaves."""

    media_type = "text/event-stream"

    def __init__(self, answer: AnswerStream, keep_alive_s: float, explain: Explain | None = None) -> None:
        self.status_code = 200
        self.background = None
        self._explain = explain
        self._answer = answer
        self._keep_alive_s = keep_alive_s
        self._sent_at = 0.0
        self.init_headers({**latin1(answer.headers), "cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        self._sent_at = loop.time()

        async def send_event(event: bytes) -> None:
            self._sent_at = loop.time()
            await send({"type": "http.response.body", "body": event, "more_body": True})

        async def keep_alive() -> None:
            while True:
                await asyncio.sleep(max(self._sent_at + self._keep_alive_s - loop.time(), 0.01))
                if loop.time() >= self._sent_at + self._keep_alive_s:
                    await send_event(COMMENT)

        silence = asyncio.create_task(keep_alive())
        last_word = b""
        try:
            with leaving_cancels(receive):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                if self._explain is not None:  # in a comment, which every client skips
                    comment = json.dumps(await explained(self._explain), separators=(",", ":"))
                    await send_event(f": embedrouter {comment}\n\n".encode())
                async for event in self._answer.events():
                    await send_event(event)
                silence.cancel()
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except ClientLeftError:
            pass
        except asyncio.CancelledError:  # the server's: it has waited long enough
            last_word = self._answer.cut()
            raise
        finally:
            silence.cancel()
            await self._answer.aclose()  # before anything that waits: where the server stops, so does the recorder
            if last_word:
                await send_event(last_word)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            with suppress(asyncio.CancelledError):
                await silence


class ClientLeftError(Exception):
    """The client closed its connection before it had its answer."""


class leaving_cancels:  # noqa: N801  reads as a verb, like asyncio.timeout
    """Cancel what runs inside when the client leaves; it then raises ClientLeftError.

    It looks up only after GRACE_S: most of what is over by then need never have been watched.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = False
        self._watching: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        inside = asyncio.current_task(loop)
        assert inside is not None
        self._inside = inside
        self.at = loop.time() + GRACE_S
        self._alarms = alarms_of(loop)
        self._alarms.add(self)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._alarms.remove(self)
        if self._watching is not None:
            self._watching.cancel()
        if kind is asyncio.CancelledError and self._left and self._inside.uncancel() == 0:
            raise ClientLeftError from None

    def ring(self) -> None:
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        self._inside.cancel()
