"""POST /v1/chat/completions."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from router.api.answering import answer
from router.api.bodies import CHAT_BODY
from router.api.document import OF_ANSWERS, STREAMED, answers
from router.endpoints import CHAT

routes = APIRouter(tags=["chat"])


@routes.post("/v1/chat/completions", openapi_extra=CHAT_BODY, responses=answers(*OF_ANSWERS, content=STREAMED))
@routes.post("/chat/completions", include_in_schema=False)
async def chat_completions(request: Request) -> Response:
    """Answer with the model that the policy chooses (`model: "auto"`), or with the model that is named."""
    return await answer(request, CHAT)
