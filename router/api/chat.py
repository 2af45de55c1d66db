"""POST /v1/chat/completions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from router.api.wire import CHAT_BODY, Json, chat_request, latin1, service_of
from router.service import CLIENT_CLOSED_STATUS, AnswerStream

routes = APIRouter(tags=["chat"])


@routes.post("/v1/chat/completions", openapi_extra=CHAT_BODY)
async def chat_completions(request: Request) -> Response:
    """Answer with the model that the policy chooses (`model: "auto"`), or with the model that is named."""
    wanted = await chat_request(request)
    try:
        async with leaving_cancels(request.receive):
            answer = await service_of(request).answer(wanted, request.state.request_id)
    except ClientLeftError:
        return Response(status_code=CLIENT_CLOSED_STATUS)
    if isinstance(answer, AnswerStream):
        return EventStream(answer)
    return Json(answer.body, answer.status, latin1(answer.headers))


class EventStream(Response):
    """Sends each event as it comes, and ends the upstream's call when the client leaves."""

    media_type = "text/event-stream"

    def __init__(self, answer: AnswerStream) -> None:
        self.status_code = 200
        self.background = None
        self._answer = answer
        self.init_headers({**latin1(answer.headers), "cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with leaving_cancels(receive):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                async for event in self._answer.events():
                    await send({"type": "http.response.body", "body": event, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except ClientLeftError:
            pass
        finally:
            await self._answer.aclose()


class ClientLeftError(Exception):
    """The client closed its connection before it had its answer."""


@asynccontextmanager
async def leaving_cancels(receive: Receive) -> AsyncIterator[None]:
    """Cancel what runs inside when the client leaves; it then raises ClientLeftError."""
    inside = asyncio.current_task()
    assert inside is not None
    left = False

    async def watch() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        inside.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if left and inside.uncancel() == 0:
            raise ClientLeftError from None
        raise
    finally:
        watching.cancel()
