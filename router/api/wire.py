"""What the endpoints share of the wire: reading a body within its limit, who asks, and headers that can be sent."""

import json
from typing import Any, cast
from urllib.parse import quote

from fastapi import Request
from starlette.responses import JSONResponse

from router.errors import InvalidRequestError
from router.request import ChatRequest, read_chat_request
from router.service import Service
from router.settings import Settings

# Documentation only: the body is read by router.request, which keeps the fields that it does not know.
CHAT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["model", "messages"],
                    "additionalProperties": True,
                    "properties": {
                        "model": {"type": "string", "description": "`auto`, or a model of the pool", "default": "auto"},
                        "messages": {"type": "array", "minItems": 1, "items": {"type": "object"}},
                        "stream": {"type": "boolean"},
                        "embedrouter": {
                            "type": "object",
                            "description": "this request's own policy",
                            "properties": {
                                "policy": {"enum": ["quality", "balanced", "cheapest"]},
                                "min_p_correct": {"type": "number", "minimum": 0, "maximum": 1},
                                "lambda": {"type": "number", "minimum": 0},
                                "candidates": {"type": "array", "items": {"type": "string"}},
                            },
                        },
                    },
                }
            }
        },
    }
}


class Json(JSONResponse):
    """JSON in ASCII, so that what UTF-8 cannot carry (half of a surrogate pair) goes through as it came.

    So does a NaN among an upstream's log probabilities: JSON has none, but those who send it can read it.
    """

    def render(self, content: object) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode()


def settings_of(request: Request) -> Settings:
    return cast(Settings, request.app.state.settings)


def service_of(request: Request) -> Service:
    return cast(Service, request.app.state.service)


def authenticate(request: Request) -> str:
    """The name of the key that asks; InvalidApiKeyError where it is none of ours."""
    return cast(str, request.app.state.keys.identify(request.headers.get("authorization")))


async def chat_request(request: Request) -> ChatRequest:
    """Authenticate, then read a chat request."""
    authenticate(request)
    settings = settings_of(request)
    content = await read_body(request, settings.server.max_body_bytes)
    return read_chat_request(content, request.headers, settings.policy.policy())


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Read the body; 413 as soon as it outgrows the limit."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise InvalidRequestError(
                f"the body is larger than {max_bytes} bytes, this router's limit", status=413, code="body_too_large"
            )
        parts.append(part)
    return b"".join(parts)


def latin1(headers: dict[str, str]) -> dict[str, str]:
    """Headers that HTTP can carry: a model's name in another script is percent-encoded."""
    return {
        name: value if value.isascii() and value.isprintable() else quote(value, safe=" /:@")
        for name, value in headers.items()
    }
