"""GET /v1/models and GET /v1/models/{id}: `auto` and the pool, with what keeps an entry from being routed to."""

from fastapi import APIRouter, Request

from router.api.document import answers
from router.api.wire import Json, authenticate, service_of
from router.errors import ModelNotFoundError
from router.pool import AUTO, Pool, PoolEntry

routes = APIRouter(tags=["models"])


@routes.get("/v1/models", responses=answers(401))
@routes.get("/models", include_in_schema=False)
async def list_models(request: Request) -> Json:
    """List `auto` and the pool, in OpenAI's shape; `embedrouter` says whether and why not each is routable."""
    authenticate(request)
    pool = service_of(request).watch.current.pool
    return Json(
        {
            "object": "list",
            "data": [auto(pool), *(shown(entry) for entry in pool.entries if entry.name in pool.by_name)],
        }
    )


@routes.get("/v1/models/{name:path}", responses=answers(401, 404))
@routes.get("/models/{name:path}", include_in_schema=False)
async def get_model(request: Request, name: str) -> Json:
    """One model, by its name or an alias; names may hold slashes."""
    authenticate(request)
    pool = service_of(request).watch.current.pool
    if name == AUTO:
        return Json(auto(pool))
    entry = pool.by_name.get(name)
    if entry is None:
        raise ModelNotFoundError(f"no model {name!r} in the pool; `GET /v1/models` lists them")
    return Json(shown(entry))


def auto(pool: Pool) -> dict[str, object]:
    details = {"routable": bool(pool.routable), "reason": None if pool.routable else "no model is routable"}
    return {"id": AUTO, "object": "model", "created": 0, "owned_by": "embedrouter", "embedrouter": details}


def shown(entry: PoolEntry) -> dict[str, object]:
    details = {
        "routable": entry.reason is None,
        "reason": entry.reason,
        "aliases": list(entry.aliases),
        "usd_per_1m_input": entry.usd_per_1m_input,
        "usd_per_1m_output": entry.usd_per_1m_output,
        "context_window": entry.context_window,
        "max_output_tokens": entry.max_output_tokens,
        "capabilities": None if entry.capabilities is None else sorted(entry.capabilities),
    }
    return {"id": entry.name, "object": "model", "created": 0, "owned_by": "embedrouter", "embedrouter": details}
