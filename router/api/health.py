"""GET /health/live and GET /health/ready: for orchestrators, without a key."""

from typing import Any

from fastapi import APIRouter, Request

from router.api.document import OBJECT
from router.api.wire import Json, service_of

routes = APIRouter(tags=["health"])

OPEN: dict[str, Any] = {"security": []}


@routes.get("/health/live", openapi_extra=OPEN)
async def live() -> Json:
    """200 while the process runs."""
    return Json({"status": "live"})


@routes.get("/health/ready", openapi_extra=OPEN, responses={503: {"description": "Not ready.", "content": OBJECT}})
async def ready(request: Request) -> Json:
    """200 where `auto` can be routed, else 503 with the reason."""
    watch = service_of(request).watch
    current = watch.current
    figures = {
        "artifact": current.artifact.id if current.artifact else None,
        "n_routable_models": len(current.pool.routable),
        "n_models": len(current.pool.entries),
    }
    if current.artifact is None:
        return Json({"status": "not ready", "reason": watch.missing, **figures}, 503)
    if not current.pool.routable:
        return Json({"status": "not ready", "reason": "no model of the pool is routable", **figures}, 503)
    return Json({"status": "ready", **figures, "problem": watch.problem})
