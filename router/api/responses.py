"""POST /v1/responses, stateless: what went before stands in `input`, because the next answer may be another model's."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from router.api.answering import answer
from router.api.bodies import RESPONSES_BODY
from router.api.document import OF_ANSWERS, STREAMED, answers
from router.endpoints import RESPONSES

routes = APIRouter(tags=["responses"])


@routes.post("/v1/responses", openapi_extra=RESPONSES_BODY, responses=answers(*OF_ANSWERS, content=STREAMED))
@routes.post("/responses", include_in_schema=False)
async def responses(request: Request) -> Response:
    """Answer with the model that the policy chooses (`model: "auto"`), or with the model that is named."""
    return await answer(request, RESPONSES)
