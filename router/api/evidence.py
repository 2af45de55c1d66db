"""GET /v1/evidence: the labelled questions nearest to a text."""

from typing import Any

from fastapi import APIRouter, Request

from router.api.document import answers
from router.api.wire import Json, authenticate, service_of
from router.errors import InvalidRequestError

routes = APIRouter(tags=["evidence"])

MAX_K = 100
# documentation only: a wrong one is refused in our own shape
QUERY: dict[str, Any] = {
    "parameters": [
        {
            "name": "text",
            "in": "query",
            "required": True,
            "schema": {"type": "string", "pattern": r"[^\s\x1c-\x1f\x85]"},
        },
        {"name": "k", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": MAX_K, "default": 10}},
    ]
}


@routes.get("/v1/evidence", openapi_extra=QUERY, responses=answers(400, 401, 503))
@routes.get("/evidence", include_in_schema=False)
async def evidence(request: Request) -> Json:
    """The labelled questions nearest to a text by the cosine of their vectors, and each model's record on them."""
    authenticate(request)
    text, k = request.query_params.get("text", ""), request.query_params.get("k", "10")
    if not text.strip():
        raise InvalidRequestError("`text` is empty: ask as /v1/evidence?text=What%20is%202%2B2%3F", param="text")
    n = int(k.lstrip("0")[:9] or "0") if k.isascii() and k.isdecimal() else 0  # nine digits are too many already
    if not 1 <= n <= MAX_K:
        raise InvalidRequestError(f"`k` is {k[:20]!r}; it must be a whole number from 1 to {MAX_K}", param="k")
    return Json({"object": "embedrouter.evidence", **await service_of(request).evidence(text, n)})
