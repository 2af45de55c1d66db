"""The HTTP application: what it opens, its endpoints, and the one place that turns errors into responses."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from sqlalchemy import Engine
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.api import chat, health, models, route
from router.api.wire import Json
from router.champion import ChampionWatch
from router.errors import ApiError, InternalError, InvalidRequestError
from router.ids import new_id
from router.keys import Keys
from router.record import Recorder
from router.service import CLIENT_CLOSED_STATUS, Service
from router.settings import Settings
from router.upstream import Upstreams

REQUEST_ID = b"x-request-id"
SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


def create_app(settings: Settings, engine: Engine, *, simulated_base_url: str | None = None) -> FastAPI:
    """Build the application; its lifespan opens the upstream client and starts the recorder and the champion's watch.

    `simulated_base_url` stands in as the upstream of every model that has none.
    """
    watch = ChampionWatch(engine, settings, simulated_base_url=simulated_base_url)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        recorder = Recorder(engine, settings.recording)
        async with Upstreams(settings.timeouts) as upstreams:
            app.state.service = service = Service(watch, upstreams, recorder)
            recorder.start()
            watch.start()
            yield
            watch.stop()
            service.close()
        recorder.stop()

    app = FastAPI(title="EmbedRouter", lifespan=lifespan, docs_url="/docs", redoc_url=None)
    app.state.settings = settings
    app.state.watch = watch
    app.state.keys = Keys(settings)
    app.add_middleware(RequestId)
    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(ClientDisconnect, left)
    app.add_exception_handler(Exception, defect)
    for family in (chat, models, route, health):
        app.include_router(family.routes)
    return app


class RequestId:
    """Give every response an x-request-id: the client's where it is sane, else a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == REQUEST_ID), b"")
        request_id = given.decode() if SANE_ID.fullmatch(given) else f"req-{new_id()}"
        scope.setdefault("state", {})["request_id"] = request_id
        header = (REQUEST_ID, request_id.encode())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], header]
            await send(message)

        await self.app(scope, receive, send_with_id)


async def api_error(_: Request, error: Exception) -> Json:
    """Answer with an error of ours."""
    assert isinstance(error, ApiError)
    return Json(error.body(), error.status, error.headers())


async def http_error(request: Request, error: Exception) -> Json:
    """Answer what the framework refuses (no such path, no such method) in the same shape."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    message = f"{error.detail}: {request.method} {request.url.path}"
    refusal = InvalidRequestError(message, status=error.status_code, code=code)
    return Json(refusal.body(), refusal.status, dict(error.headers or {}))


async def left(_: Request, __: Exception) -> Response:
    """Let go of a client that left before its request was whole."""
    return Response(status_code=CLIENT_CLOSED_STATUS)


async def defect(request: Request, _: Exception) -> Json:
    """Answer a defect without its details; the server logs the traceback."""
    request_id = request.state.request_id
    error = InternalError(f"the router failed on this request; its log says why, under {request_id}")
    # the server drops the connection once the traceback is logged: the client must not ask on it again
    response = Json(error.body(), error.status, {"connection": "close"})
    MutableHeaders(raw=response.raw_headers)[REQUEST_ID.decode()] = request_id  # outside the middleware here
    return response
