"""POST /v1/embeddings: of the model that is named, because vectors of two models cannot be compared."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from router.api.answering import answer
from router.api.bodies import EMBEDDINGS_BODY
from router.api.document import OF_ANSWERS, answers
from router.endpoints import EMBEDDINGS

routes = APIRouter(tags=["embeddings"])


@routes.post("/v1/embeddings", openapi_extra=EMBEDDINGS_BODY, responses=answers(*OF_ANSWERS))
@routes.post("/embeddings", include_in_schema=False)
async def embeddings(request: Request) -> Response:
    """Answer with the model that is named; embeddings are not routed."""
    return await answer(request, EMBEDDINGS)
