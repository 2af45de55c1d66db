"""POST /v1/completions: a bare prompt, as before there was chat."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from router.api.answering import answer
from router.api.bodies import COMPLETIONS_BODY
from router.api.document import OF_ANSWERS, STREAMED, answers
from router.endpoints import COMPLETIONS

routes = APIRouter(tags=["completions"])


@routes.post("/v1/completions", openapi_extra=COMPLETIONS_BODY, responses=answers(*OF_ANSWERS, content=STREAMED))
@routes.post("/completions", include_in_schema=False)
async def completions(request: Request) -> Response:
    """Answer with the model that the policy chooses (`model: "auto"`), or with the model that is named."""
    return await answer(request, COMPLETIONS)
