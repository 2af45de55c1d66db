"""What the OpenAPI document says beyond what the framework finds: the errors of each endpoint, and the key."""

from typing import Any

from fastapi import FastAPI

from router.settings import Settings

ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "additionalProperties": True,
            "properties": {
                "message": {"type": "string"},
                "type": {"type": ["string", "null"]},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "integer", "null"]},
            },
        }
    },
}
SAYS = {
    400: "The request is not one, no model can take it, or the upstream says so.",
    401: "No key, or one that is not ours.",
    404: "No such model, or no such decision.",
    405: "As the upstream said it.",
    408: "The body stopped coming.",
    409: "The same source said something else of this decision before.",
    413: "The body is larger than `server.max_body_bytes`, or the upstream says so.",
    422: "No model is sure enough for the limit on errors, or the upstream says so.",
    429: "Every upstream that could answer is out of quota; Retry-After says for how long.",
    502: "Every upstream was tried, and none answered.",
    503: "There is nothing to route with: no artifact, or no model of the pool.",
    504: "Every upstream was tried, and none answered in time.",
}
OF_BODIES = (400, 401, 408, 413)
OF_ROUTING = (*OF_BODIES, 404, 422, 429, 503)
OF_ANSWERS = (*OF_ROUTING, 405, 502, 504)
OBJECT: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
STREAMED: dict[str, Any] = {**OBJECT, "text/event-stream": {}}

Responses = dict[int | str, dict[str, Any]]


def answers(*statuses: int, content: dict[str, Any] = OBJECT) -> Responses:
    """What an operation answers: an object or a stream, or OpenAI's error object under one of these statuses."""
    error = {"application/json": {"schema": ERROR}}
    said: Responses = {status: {"description": SAYS[status], "content": error} for status in sorted(statuses)}
    # named so that the framework adds no status of its own
    other: Responses = {"default": {"description": "Any other error.", "content": error}}
    return {200: {"description": "The answer.", "content": content}, **said, **other}


class Documented(FastAPI):
    """An application whose document also says which operations need a key."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            settings: Settings = self.state.settings
            if settings.has_keys:
                document["components"] = {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}}
                document["security"] = [{"bearer": []}]
        assert self.openapi_schema is not None
        return self.openapi_schema
