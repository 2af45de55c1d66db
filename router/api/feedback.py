"""POST /v1/feedback: what a user, a test or a grader says of a decision's answer."""

from typing import Any, cast

from fastapi import APIRouter, Request

from router.api.document import OBJECT, OF_BODIES, answers
from router.api.wire import Json, authenticate, read_body, settings_of
from router.feedback import JUDGEMENTS, MAX_SOURCE, FeedbackIntake, read_feedback

routes = APIRouter(tags=["feedback"])

PRINTABLE: dict[str, Any] = {"type": "string", "pattern": "^[ -~]*$"}
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
                        "decision_id": {
                            **PRINTABLE,
                            "minLength": 1,
                            "maxLength": 32,
                            "description": "the answer's x-embedrouter-decision-id",
                        },
                        "correct": {"type": "boolean"},
                        "score": {"type": "number", "minimum": 0, "maximum": 1},
                        "thumbs": {"enum": ["up", "down"]},
                        "source": {**PRINTABLE, "maxLength": MAX_SOURCE, "description": "who says so"},
                    },
                    "oneOf": [{"required": [name]} for name in JUDGEMENTS],
                }
            }
        },
    }
}
FEEDBACK_ANSWERS = {
    **answers(*OF_BODIES, 404, 409),
    202: {"description": "The database is away: it is kept.", "content": OBJECT},
}


@routes.post("/v1/feedback", openapi_extra=FEEDBACK_BODY, responses=FEEDBACK_ANSWERS)
@routes.post("/feedback", include_in_schema=False)
async def feedback(request: Request) -> Json:
    """Say whether an answer was right: by `correct`, `score` in [0, 1] or `thumbs`, once for each decision and source.

    The same again changes nothing; something else from the same source is refused. `learned` says whether training
    will read it as an outcome, `not_learned` why it will not.
    """
    authenticate(request)
    given = read_feedback(await read_body(request, settings_of(request).server))
    answer = await cast(FeedbackIntake, request.app.state.feedback).take(given)
    return Json(answer.body, answer.status)
