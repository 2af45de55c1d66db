"""POST /v1/feedback: what a user, a test or a grader says of a decision's answer."""

from typing import Any, cast

from fastapi import APIRouter, Request

from router.api.wire import Json, authenticate, read_body, settings_of
from router.feedback import MAX_SOURCE, FeedbackIntake, read_feedback

routes = APIRouter(tags=["feedback"])

# Documentation only: router.feedback reads the body.
FEEDBACK_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["decision_id"],
                    "additionalProperties": False,
                    "properties": {
                        "decision_id": {"type": "string", "description": "the answer's x-embedrouter-decision-id"},
                        "correct": {"type": "boolean"},
                        "score": {"type": "number", "minimum": 0, "maximum": 1},
                        "thumbs": {"enum": ["up", "down"]},
                        "source": {"type": "string", "maxLength": MAX_SOURCE, "description": "who says so"},
                    },
                }
            }
        },
    }
}


@routes.post("/v1/feedback", openapi_extra=FEEDBACK_BODY)
@routes.post("/feedback", include_in_schema=False)
async def feedback(request: Request) -> Json:
    """Say whether an answer was right: by `correct`, `score` in [0, 1] or `thumbs`, once for each decision and source.

    The same again changes nothing; something else from the same source is refused. `learned` says whether training
    will read it as an outcome, `not_learned` why it will not.
    """
    authenticate(request)
    given = read_feedback(await read_body(request, settings_of(request).server.max_body_bytes))
    answer = await cast(FeedbackIntake, request.app.state.feedback).take(given)
    return Json(answer.body, answer.status)
