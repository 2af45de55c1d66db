"""GET /health/live and GET /health/ready: for orchestrators, without a key."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from router.api.wire import service_of

routes = APIRouter(tags=["health"])


@routes.get("/health/live")
async def live() -> JSONResponse:
    """200 while the process runs."""
    return JSONResponse({"status": "live"})


@routes.get("/health/ready")
async def ready(request: Request) -> JSONResponse:
    """200 where `auto` can be routed, else 503 with the reason."""
    watch = service_of(request).watch
    current = watch.current
    figures = {
        "artifact": current.artifact.id if current.artifact else None,
        "n_routable_models": len(current.pool.routable),
        "n_models": len(current.pool.entries),
    }
    if current.artifact is None:
        return JSONResponse({"status": "not ready", "reason": watch.missing, **figures}, 503)
    if not current.pool.routable:
        return JSONResponse({"status": "not ready", "reason": "no model of the pool is routable", **figures}, 503)
    return JSONResponse({"status": "ready", **figures, "problem": watch.problem})
