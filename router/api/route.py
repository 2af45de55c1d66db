"""POST /v1/route: the decision that a chat request would get, without asking any model."""

from fastapi import APIRouter, Request

from router.api.bodies import CHAT_BODY
from router.api.document import OF_ROUTING, answers
from router.api.wire import Json, prompt_request, service_of

routes = APIRouter(tags=["route"])


@routes.post("/v1/route", openapi_extra=CHAT_BODY, responses=answers(*OF_ROUTING))
@routes.post("/route", include_in_schema=False)
async def explain_route(request: Request) -> Json:
    """Explain a choice: every candidate's P(correct), price, expected cost and propensity, and who is out and why.

    Takes the body of a chat completion. No upstream is called, and nothing is recorded: only requests that are to be
    answered become decisions.
    """
    wanted = await prompt_request(request)
    return Json(await service_of(request).explain(wanted, request.state.request_id))
