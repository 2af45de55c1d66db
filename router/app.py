"""The HTTP application: what it opens, its endpoints, and the one place that turns errors into responses."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property

from fastapi import FastAPI, Request
from sqlalchemy import Engine
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from router.access import Access
from router.api import chat, completions, embeddings, evidence, feedback, health, models, responses, route
from router.api.document import Documented
from router.api.wire import Json
from router.breaker import Breakers
from router.champion import ChampionWatch
from router.direct import Direct, Refuse
from router.errors import ApiError, InternalError, InvalidRequestError
from router.evidence_index import EvidenceIndex
from router.feedback import FeedbackIntake
from router.keys import Keys
from router.logs import Secrets
from router.metrics import Metrics
from router.observed import Observed
from router.record import Recorder
from router.service import CLIENT_CLOSED_STATUS, Service
from router.settings import Settings
from router.state import state_folder
from router.upstream import Upstreams


class Application(Documented):
    """What the framework answers, and around all of its layers the short way and what every request has."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self._around(scope, receive, send)

    @cached_property
    def _around(self) -> ASGIApp:
        refusals: dict[type[Exception], Refuse] = {ApiError: api_error, ClientDisconnect: left}
        return Access(Direct(super().__call__, refusals, defect), self.state.metrics)


def create_app(
    settings: Settings, engine: Engine, *, simulated_base_url: str | None = None, secrets: Secrets | None = None
) -> FastAPI:
    """Build the application; its lifespan opens the upstream client and starts the recorder and the champion's watch.

    `simulated_base_url` stands in as the upstream of every model that has none; `secrets` learns the upstreams' keys.
    """
    watch = ChampionWatch(engine, settings, simulated_base_url=simulated_base_url, secrets=secrets)
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        folder = state_folder(settings.state_dir, engine.url)
        recorder = Recorder(engine, settings.recording, folder, metrics.observe)
        observed = Observed(Breakers(settings.breaker.rules()))
        async with Upstreams(settings.timeouts) as upstreams:
            app.state.service = service = Service(watch, upstreams, recorder, observed)
            app.state.feedback = intake = FeedbackIntake(engine, recorder, settings.recording.flush_interval_s)
            metrics.watch(
                encoder_queue_depth=lambda: service.encoder_queue_depth,
                records_spooled=lambda: recorder.n_spooled,
                artifact_made_at=lambda: watch.current.made_at,
            )
            if settings.evidence.enabled:
                service.index = EvidenceIndex(engine, watch, folder, settings.evidence.max_questions)
                service.index.start()
            recorder.start()
            watch.start()
            yield
            watch.stop()
            if service.index is not None:
                service.index.stop()
            intake.close()
            service.close()
        recorder.stop()

    app = Application(title="EmbedRouter", lifespan=lifespan, docs_url="/docs", redoc_url=None, redirect_slashes=False)
    app.state.settings = settings
    app.state.watch = watch
    app.state.metrics = metrics
    app.state.keys = Keys(settings)
    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(ClientDisconnect, left)
    app.add_exception_handler(Exception, defect)
    for family in (chat, completions, responses, embeddings, models, route, evidence, feedback, health):
        app.include_router(family.routes)
    return app


async def api_error(request: Request, error: Exception) -> Json:
    """Answer with an error of ours; the access log names it too, as no decision may."""
    assert isinstance(error, ApiError)
    request.state.error = error.code
    return Json(error.body(), error.status, error.headers())


async def http_error(request: Request, error: Exception) -> Json:
    """Answer what the framework refuses (no such path, no such method) in the same shape."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    message = f"{error.detail}: {request.method} {request.url.path}"
    refusal = InvalidRequestError(message, status=error.status_code, code=code)
    request.state.error = code
    return Json(refusal.body(), refusal.status, dict(error.headers or {}))


async def left(_: Request, __: Exception) -> Response:
    """Let go of a client that left before its request was whole."""
    return Response(status_code=CLIENT_CLOSED_STATUS)


async def defect(request: Request, _: Exception) -> Json:
    """Answer a defect without its details; the server logs the traceback."""
    error = InternalError(f"the router failed on this request; its log says why, under {request.state.request_id}")
    # the server drops the connection once the traceback is logged: the client must not ask on it again
    return Json(error.body(), error.status, {"connection": "close"})
