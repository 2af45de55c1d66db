"""GET /v1/evidence: the labelled questions nearest to a text."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from router.api.wire import Json, authenticate, service_of
from router.errors import InvalidRequestError

routes = APIRouter(tags=["evidence"])

MAX_K = 100


@routes.get("/v1/evidence")
@routes.get("/evidence", include_in_schema=False)
async def evidence(
    request: Request, text: Annotated[str, Query()] = "", k: Annotated[str, Query(description="1 to 100")] = "10"
) -> Json:
    """The labelled questions nearest to a text by the cosine of their vectors, and each model's record on them."""
    authenticate(request)
    if not text.strip():
        raise InvalidRequestError("`text` is empty: ask as /v1/evidence?text=What%20is%202%2B2%3F", param="text")
    if not k.isascii() or not k.isdecimal() or not 1 <= int(k[:9]) <= MAX_K:
        raise InvalidRequestError(f"`k` is {k[:20]!r}; it must be a whole number from 1 to {MAX_K}", param="k")
    return Json({"object": "embedrouter.evidence", **await service_of(request).evidence(text, int(k))})
